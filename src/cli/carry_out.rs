//! Carries out a request: here if the data file is free, otherwise by the service that has it open.
//!
//! Only the lock on the data file decides which. If it is held but no service answers, a service is just starting or
//! stopping, or another command is at work: both ways are tried in turn for [`OTHERS_MAX`]. A service that does not
//! take the request is given up after [`PATIENCE`]. A request that a service has taken is never sent again.

use std::io;
use std::time::Duration;

use super::patience::until_free;
use super::progress::{Line, shown};
use super::terminal;
use crate::admin::audit::{self, Who};
use crate::admin::reply::Code;
use crate::admin::{self, Context, Refusal, Reply, Request, Submission, Working};
use crate::control::{Answer, CallError, Enclosed, Job, PATIENCE, SILENCE_MAX, call};
use crate::keyring::Keyring;
use crate::mailroot::{self, MailRoot};
use crate::random;
use crate::replace::give_to_owner_of;
use crate::store::{Incoming, OpenErrorKind, Progress, Store};

/// How long a service may take to start or stop, and other commands to finish.
pub const OTHERS_MAX: Duration = Duration::from_secs(30);

/// Who is told how far a long request has come.
pub enum Telling<'a> {
    /// The terminal.
    ByALine,
    /// The calling command, which shows more than this request. It is not told about a request carried out here.
    To(&'a mut dyn FnMut(&Working)),
}

/// Carries the request out, here or by the running service.
pub fn carry_out(request: Request, enclosed: Enclosed, mailroot: &MailRoot) -> Answer {
    carry_out_telling(request, enclosed, mailroot, Telling::ByALine)
}

pub fn carry_out_telling(
    request: Request,
    enclosed: Enclosed,
    mailroot: &MailRoot,
    telling: Telling,
) -> Answer {
    do_job(&Job::Request(request), enclosed, mailroot, telling)
}

/// Delivers a message, here or by the running service.
pub fn deliver(submission: Submission, content: &[u8], mailroot: &MailRoot) -> Answer {
    do_job(&Job::Delivery(submission), Enclosed::Content(content), mailroot, Telling::ByALine)
}

fn do_job(job: &Job, enclosed: Enclosed, mailroot: &MailRoot, mut telling: Telling) -> Answer {
    until_free(mailroot, OTHERS_MAX, || attempt(job, enclosed, mailroot, &mut telling))
}

/// `None` if another process has the data file, and no service takes the job.
fn attempt(
    job: &Job,
    enclosed: Enclosed,
    mailroot: &MailRoot,
    telling: &mut Telling,
) -> Result<Option<Reply>, Refusal> {
    if let Some(store) = open(job, mailroot)? {
        return do_here(&store, job, enclosed, mailroot, matches!(telling, Telling::ByALine)).map(Some);
    }
    let mut line = Line::new();
    let outcome = call(&mailroot.socket(), job, enclosed, PATIENCE, &mut |working| match telling {
        Telling::ByALine => line.show(&working),
        Telling::To(told) => told(&working),
    });
    let error = match outcome {
        Ok(answer) => return answer.map(Some),
        Err(error) => error,
    };
    Err(match error {
        CallError::NotTaken(error) if error.kind() == io::ErrorKind::PermissionDenied => not_ours(mailroot),
        CallError::NotTaken(_) => return Ok(None),
        CallError::Silent(patience) => Refusal::new(
            Code::Busy,
            format!("the service did not accept the command within {} seconds", patience.as_secs()),
        )
        .with_hint(
            "Nothing was changed. The service hangs or is very busy: check on it before you try again",
        ),
        CallError::Broken(error)
            if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) =>
        {
            Refusal::fault(format!(
                "the service accepted the command but has been silent for {} seconds",
                SILENCE_MAX.as_secs()
            ))
            .with_hint(MAYBE_DONE)
        }
        CallError::Broken(error) => {
            Refusal::fault(format!("the service ended before it answered ({error})")).with_hint(MAYBE_DONE)
        }
        CallError::BadAnswer(bad) => bad.into(),
    })
}

const MAYBE_DONE: &str = "The command may or may not have been carried out: check before you repeat it";

fn do_here(store: &Store, job: &Job, enclosed: Enclosed, mailroot: &MailRoot, is_told: bool) -> Answer {
    let settings = crate::serve::settings_of(store).map_err(Refusal::fault)?;
    crate::log::begin_for_command(settings.logging);
    match (job, enclosed) {
        (Job::Request(request), enclosed) => {
            let answer = run_here(store, request, enclosed, mailroot, is_told && request.is_long());
            audit::record(request.trail().as_deref(), Who::this_process(), answer.as_ref());
            answer
        }
        (Job::Delivery(submission), Enclosed::Content(content)) => {
            let mut receiver = admin::receiver(&settings);
            receiver.push(content);
            let text = receiver.finish().map(Incoming::from);
            smol::block_on(admin::deliver(store, &settings, submission, text))
        }
        (Job::Delivery(_), Enclosed::Nothing | Enclosed::File(_)) => {
            panic!("a delivery has its content with it")
        }
    }
}

fn run_here(
    store: &Store,
    request: &Request,
    enclosed: Enclosed,
    mailroot: &MailRoot,
    is_shown: bool,
) -> Answer {
    let keyring = Keyring::open(store, mailroot).map_err(Refusal::fault)?;
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
fn open(job: &Job, mailroot: &MailRoot) -> Result<Option<Store>, Refusal> {
    let file = mailroot.data_file();
    if terminal::is_there() && Store::is_copy(&file) {
        eprintln!("{} is a copy or was restored from one; verifying all of it first", file.display());
    }
    let error = match Store::open(&file) {
        Ok(store) => return Ok(Some(store)),
        Err(error) => error,
    };
    match error.kind {
        OpenErrorKind::Locked => Ok(None),
        OpenErrorKind::Missing => found(job, mailroot),
        OpenErrorKind::Io(ref io) if io.kind() == io::ErrorKind::PermissionDenied => Err(not_ours(mailroot)),
        _ => Err(error.into()),
    }
}

/// Creates a mail store if the command may do that.
fn found(job: &Job, mailroot: &MailRoot) -> Result<Option<Store>, Refusal> {
    let founds = match job {
        Job::Request(Request::Command(op)) => op.founds_store()?,
        _ => false,
    };
    if !founds {
        return Err(no_store(mailroot));
    }
    // A store needs randomness for its key; without it, leave no store behind.
    random::number().map_err(Refusal::fault)?;
    mailroot::create(&mailroot.dir)
        .map_err(|error| Refusal::fault(format!("{} cannot be created: {error}", mailroot.dir.display())))?;
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

/// There is no mail store yet, or the administrator forgot to be root.
pub fn no_store(mailroot: &MailRoot) -> Refusal {
    let dir = mailroot.dir.display();
    let refusal = Refusal::new(Code::NoStore, format!("there is no mail store in {dir} yet"));
    match &mailroot.of_machine {
        Some(of_machine) => refusal.with_hint(format!(
            "The machine's mail store is in {}: to use it, run the command as root. To create your own: pop3svc \
             quickstart, or winpop add DOMAIN",
            of_machine.display()
        )),
        None => refusal.with_hint("To create one: pop3svc quickstart, or winpop add DOMAIN"),
    }
}

fn not_ours(mailroot: &MailRoot) -> Refusal {
    Refusal::new(
        Code::NotPermitted,
        format!("the mail store in {} belongs to another user", mailroot.dir.display()),
    )
    .with_hint("Run the command as that user, or as root")
}
