//! Carrying out a request: on the data file if nobody has it open, otherwise by the service that has.
//!
//! The lock on the data file is the only judge of which it is. Where it is held but nobody answers, a service is just
//! starting or stopping, or another administrator's command is at work: both ways are tried in turn for [`OTHERS_MAX`].
//! A service that answers to nothing is given up after [`PATIENCE`]. A request that the service has taken is never sent
//! again.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::progress::{Line, shown};
use super::terminal;
use crate::admin::audit::{self, Who};
use crate::admin::reply::Code;
use crate::admin::{self, Context, Refusal, Request, Working};
use crate::control::{Answer, CallError, Enclosed, PATIENCE, SILENCE_MAX, call};
use crate::keyring::Keyring;
use crate::lock::RwLock;
use crate::mailroot::{self, MailRoot};
use crate::random;
use crate::replace::give_to_owner_of;
use crate::store::{Incoming, OpenErrorKind, Progress, Store};

/// How long a service may take to start or stop, and other commands to be done.
const OTHERS_MAX: Duration = Duration::from_secs(30);
/// Between two tries; doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(160));

/// Who is told how far a long request is.
pub enum Telling<'a> {
    /// The terminal.
    ByALine,
    /// The command, which shows more than this request. It hears nothing of what is carried out here.
    To(&'a mut dyn FnMut(&Working)),
}

/// Carries the request out, here or by the running service.
pub fn carry_out(request: &Request, enclosed: Enclosed, mailroot: &MailRoot) -> Answer {
    carry_out_telling(request, enclosed, mailroot, Telling::ByALine)
}

pub fn carry_out_telling(
    request: &Request,
    enclosed: Enclosed,
    mailroot: &MailRoot,
    mut telling: Telling,
) -> Answer {
    let started = Instant::now();
    let mut pause = PAUSE.0;
    loop {
        if let Some(store) = open(request, mailroot)? {
            let is_shown = matches!(telling, Telling::ByALine) && request.is_long();
            return carry_out_here(&store, request, enclosed, mailroot, is_shown);
        }
        let mut line = Line::new();
        match call(&mailroot.socket(), request, enclosed, PATIENCE, &mut |working| match &mut telling {
            Telling::ByALine => line.show(&working),
            Telling::To(told) => told(&working),
        }) {
            Ok(answer) => return answer,
            Err(CallError::NotTaken(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(not_ours(mailroot));
            }
            Err(CallError::NotTaken(_)) if started.elapsed() < OTHERS_MAX => {
                thread::sleep(pause);
                pause = (pause * 2).min(PAUSE.1);
            }
            Err(CallError::NotTaken(_)) => {
                return Err(Refusal::new(
                    Code::Busy,
                    format!("{} is in use, but no service answers", mailroot.data_file().display()),
                )
                .with_hint("Another command may be at work, or a backup; try again later"));
            }
            Err(CallError::Silent(patience)) => {
                return Err(Refusal::new(
                    Code::Busy,
                    format!("the service has not taken the command for {} seconds, so it was given up", patience.as_secs()),
                )
                .with_hint("Nothing was changed. The service hangs, or is very busy: look at it before you try again"));
            }
            Err(CallError::Broken(error))
                if error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::TimedOut =>
            {
                return Err(Refusal::new(
                    Code::Busy,
                    format!(
                        "the service took the command, and has said nothing for {} seconds",
                        SILENCE_MAX.as_secs()
                    ),
                )
                .with_hint("The command may have been carried out or not: look before you repeat it"));
            }
            Err(CallError::Broken(error)) => {
                return Err(Refusal::fault(format!("the service ended before it answered ({error})"))
                    .with_hint("The command may have been carried out or not: look before you repeat it"));
            }
            Err(CallError::BadAnswer(bad)) => return Err(bad.into()),
        }
    }
}

fn carry_out_here(
    store: &Store,
    request: &Request,
    enclosed: Enclosed,
    mailroot: &MailRoot,
    is_shown: bool,
) -> Answer {
    let settings = crate::serve::settings_of(store).map_err(Refusal::fault)?;
    crate::log::begin_for_command(settings.logging);
    let (Request::Deliver(submission), Enclosed::Content(content)) = (request, enclosed) else {
        let answer = run_here(store, request, enclosed, mailroot, is_shown);
        audit::record(request.trail().as_deref(), Who::this_process(), answer.as_ref());
        return answer;
    };
    let mut receiver = admin::receiver(&settings);
    receiver.push(content);
    let text = receiver.finish().map(Incoming::from);
    smol::block_on(admin::deliver(store, &settings, submission, text))
}

fn run_here(
    store: &Store,
    request: &Request,
    enclosed: Enclosed,
    mailroot: &MailRoot,
    is_shown: bool,
) -> Answer {
    let keyring = RwLock::new(Keyring::open(store, mailroot).map_err(Refusal::fault)?);
    let file = match enclosed {
        Enclosed::File(file) => Some(file.try_clone().map_err(Refusal::fault)?),
        Enclosed::Content(_) | Enclosed::Nothing => None,
    };
    let context = Context::of_now(mailroot, &keyring, None)?;
    match is_shown {
        true => shown(|progress| request.run(store, &context, file, progress)),
        false => request.run(store, &context, file, &Progress::default()),
    }
}

/// The store, unless another process has it open.
fn open(request: &Request, mailroot: &MailRoot) -> Result<Option<Store>, Refusal> {
    let file = mailroot.data_file();
    if terminal::is_there() && Store::is_copy(&file) {
        eprintln!("{} is a copy, or was restored from one: all of it is verified now", file.display());
    }
    let error = match Store::open(&file) {
        Ok(store) => return Ok(Some(store)),
        Err(error) => error,
    };
    match error.kind {
        OpenErrorKind::Locked => Ok(None),
        OpenErrorKind::Missing => found(request, mailroot),
        OpenErrorKind::Io(ref io) if io.kind() == io::ErrorKind::PermissionDenied => Err(not_ours(mailroot)),
        _ => Err(error.into()),
    }
}

fn found(request: &Request, mailroot: &MailRoot) -> Result<Option<Store>, Refusal> {
    let founds = match request {
        Request::Command(op) => op.founds_store()?,
        _ => false,
    };
    if !founds {
        return Err(no_store(mailroot));
    }
    // What follows needs randomness; where there is none, no store without a key is left behind.
    random::number().map_err(Refusal::fault)?;
    mailroot::create(&mailroot.dir)
        .map_err(|error| Refusal::fault(format!("{} cannot be made: {error}", mailroot.dir.display())))?;
    match Store::create(&mailroot.data_file()) {
        Ok(store) => {
            // Root may make it in the directory of the user that the service runs as.
            give_to_owner_of(&mailroot.data_file(), &mailroot.dir).map_err(Refusal::fault)?;
            Ok(Some(store))
        }
        // Another command has just made it.
        Err(error) if matches!(error.kind, OpenErrorKind::AlreadyExists | OpenErrorKind::Locked) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// There is no mail store yet, or the administrator has forgotten to be root.
pub fn no_store(mailroot: &MailRoot) -> Refusal {
    let dir = mailroot.dir.display();
    let refusal = Refusal::new(Code::NoStore, format!("there is no mail store in {dir} yet"));
    match &mailroot.of_machine {
        Some(of_machine) => refusal.with_hint(format!(
            "That of this machine is in {}: run the command as root. To make one of your own: pop3svc quickstart, or winpop \
             add DOMAIN",
            of_machine.display()
        )),
        None => refusal.with_hint("To make one: pop3svc quickstart, or winpop add DOMAIN"),
    }
}

fn not_ours(mailroot: &MailRoot) -> Refusal {
    Refusal::new(
        Code::NotPermitted,
        format!("the mail store in {} belongs to another user", mailroot.dir.display()),
    )
    .with_hint("Run the command as that user, or as root")
}
