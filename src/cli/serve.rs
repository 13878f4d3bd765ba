//! `serve`: opens the store and serves it until told to end.

use std::thread;
use std::time::{Duration, Instant};

use super::carry_out::no_store;
use super::confinement::confine;
use super::first_start::FirstStart;
use crate::admin::Refusal;
use crate::admin::reply::Code;
use crate::control::connect;
use crate::mailroot::{self, MailRoot};
use crate::serve::{self, Running};
use crate::settings::Settings;
use crate::store::{OpenError, OpenErrorKind, Store};
use crate::user::User;

/// How long an administrator's command, or a service that is ending, may hold the data file before this gives up.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

pub fn serve(mailroot: MailRoot) -> Result<(), Refusal> {
    let first = FirstStart::from_variables(|name| std::env::var(name).ok())?;
    if first.makes_something() {
        mailroot::create(&mailroot.dir)
            .map_err(|error| Refusal::fault(format!("{} cannot be made: {error}", mailroot.dir.display())))?;
    }
    let notes = confine(&mailroot)?;
    // Only now, since it may start a thread.
    crate::log::begin(crate::settings::Logging::Warnings);
    first.make(&mailroot)?;
    let store = open(&mailroot, Store::open)?;
    let settings = settings_with_log(&store)?;
    notes.iter().for_each(|note| log::info!("{note}"));
    let running = start(store, mailroot, settings)?;
    running.run();
    Ok(())
}

/// Begins to serve; what stands in the way is a refusal.
pub fn start(store: Store, mailroot: MailRoot, settings: Settings) -> Result<Running, Refusal> {
    serve::start(store, mailroot, settings).map_err(|sentence| Refusal::new(Code::Fault, sentence))
}

/// The settings of the store, with the log begun at their level.
pub fn settings_with_log(store: &Store) -> Result<Settings, Refusal> {
    // What is said about the settings themselves is to be seen.
    crate::log::begin(crate::settings::Logging::Warnings);
    let settings = serve::settings_of(store).map_err(Refusal::fault)?;
    crate::log::set_level(settings.logging);
    Ok(settings)
}

/// Opens the store with `open`, waiting a while for whoever has it, but not for a service that answers.
pub fn open(
    mailroot: &MailRoot,
    open: impl Fn(&std::path::Path) -> Result<Store, OpenError>,
) -> Result<Store, Refusal> {
    let started = Instant::now();
    loop {
        let error = match open(&mailroot.data_file()) {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        let dir = mailroot.dir.display();
        match error.kind {
            OpenErrorKind::Locked if service_answers(mailroot) => {
                return Err(Refusal::new(Code::Busy, format!("a service is running on {dir} already")));
            }
            OpenErrorKind::Locked if started.elapsed() < PATIENCE => thread::sleep(PAUSE),
            OpenErrorKind::Locked => {
                let file = mailroot.data_file();
                return Err(Refusal::new(Code::Busy, format!("{} is in use", file.display()))
                    .with_hint("Another command, or a backup, may be at work; try again later"));
            }
            OpenErrorKind::Missing => return Err(no_store(mailroot)),
            OpenErrorKind::Io(ref io) if io.kind() == std::io::ErrorKind::PermissionDenied => {
                let user = User::of_this_process();
                return Err(Refusal::fault(error).with_hint(format!(
                    "The service runs as the user {user}, who may not open it. To give the store to that user: winpop set user \
                     {}",
                    user.typed()
                )));
            }
            _ => return Err(error.into()),
        }
    }
}

/// Whether somebody listens on the control socket.
fn service_answers(mailroot: &MailRoot) -> bool {
    // A queue that is full has somebody who listens.
    !connect(&mailroot.socket()).is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock)
}
