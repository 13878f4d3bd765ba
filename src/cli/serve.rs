//! `serve`: opens the store and serves it until told to stop.

use std::time::Duration;

use super::carry_out::no_store;
use super::confinement::confine;
use super::first_start::FirstStart;
use super::patience::until_free;
use crate::admin::Refusal;
use crate::admin::reply::Code;
use crate::control::connect;
use crate::mailroot::{self, MailRoot};
use crate::serve::{self, Running};
use crate::settings::Settings;
use crate::store::{OpenError, OpenErrorKind, Store};
use crate::user::User;

/// How long an administrator's command, or a service that is ending, may hold the data file.
const OTHERS_MAX: Duration = Duration::from_secs(10);

pub fn serve(mailroot: MailRoot) -> Result<(), Refusal> {
    let first = FirstStart::from_variables(|name| std::env::var(name).ok())?;
    if first.makes_something() {
        mailroot::create(&mailroot.dir).map_err(|error| {
            Refusal::fault(format!("{} cannot be created: {error}", mailroot.dir.display()))
        })?;
    }
    let notes = confine(&mailroot)?;
    // Only now, because it may start a thread, which would not be confined.
    crate::log::begin(crate::settings::Logging::Warnings);
    first.make(&mailroot)?;
    let store = open(&mailroot, Store::open)?;
    let settings = settings_with_log(&store)?;
    notes.iter().for_each(|note| log::info!("{note}"));
    let running = start(store, mailroot, settings)?;
    running.run();
    Ok(())
}

/// Starts the service.
pub fn start(store: Store, mailroot: MailRoot, settings: Settings) -> Result<Running, Refusal> {
    serve::start(store, mailroot, settings).map_err(|sentence| Refusal::new(Code::Fault, sentence))
}

/// The settings of the store, with the log begun at their level.
pub fn settings_with_log(store: &Store) -> Result<Settings, Refusal> {
    // Complaints about the settings themselves must be seen.
    crate::log::begin(crate::settings::Logging::Warnings);
    let settings = serve::settings_of(store).map_err(Refusal::fault)?;
    crate::log::set_level(settings.logging);
    Ok(settings)
}

/// Opens the store with `open`. Waits up to [`OTHERS_MAX`] if another process has it, but not for a service that
/// answers.
pub fn open(
    mailroot: &MailRoot,
    open: impl Fn(&std::path::Path) -> Result<Store, OpenError>,
) -> Result<Store, Refusal> {
    until_free(mailroot, OTHERS_MAX, || {
        let error = match open(&mailroot.data_file()) {
            Ok(store) => return Ok(Some(store)),
            Err(error) => error,
        };
        let dir = mailroot.dir.display();
        match error.kind {
            OpenErrorKind::Locked if service_answers(mailroot) => {
                Err(Refusal::new(Code::Busy, format!("a service is already running on {dir}")))
            }
            OpenErrorKind::Locked => Ok(None),
            OpenErrorKind::Missing => Err(no_store(mailroot)),
            OpenErrorKind::Io(ref io) if io.kind() == std::io::ErrorKind::PermissionDenied => {
                let user = User::of_this_process();
                Err(Refusal::fault(error).with_hint(format!(
                    "The service runs as user {user}, who may not open it. To give the store to that user: winpop set user {}",
                    user.typed()
                )))
            }
            _ => Err(error.into()),
        }
    })
}

/// True if a process listens on the control socket.
pub fn service_answers(mailroot: &MailRoot) -> bool {
    // If its queue is full, someone is listening.
    !connect(&mailroot.socket()).is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock)
}
