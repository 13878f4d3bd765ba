//! Waits for the data file while another process has it open.

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::admin::Refusal;
use crate::admin::reply::Code;
use crate::mailroot::MailRoot;

/// How long to wait for the lock before looking whether a service answers by now; doubles up to the second value.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(160));

/// Repeats `attempt` while it returns `None`, which means that another process has the data file: as soon as that
/// process lets go of it, and now and then before, because a service that is starting keeps it. Refuses after `limit`.
pub fn until_free<T>(
    mailroot: &MailRoot,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>, Refusal>,
) -> Result<T, Refusal> {
    let end = Instant::now() + limit;
    let mut look = LOOK.0;
    let mut release = None;
    loop {
        if let Some(outcome) = attempt()? {
            return Ok(outcome);
        }
        if Instant::now() >= end {
            return Err(in_use(mailroot));
        }
        match release.get_or_insert_with(|| release_of(mailroot.data_file())).recv_timeout(look) {
            Ok(()) => release = None,
            Err(RecvTimeoutError::Timeout) => look = (look * 2).min(LOOK.1),
            // The lock could not be waited for.
            Err(RecvTimeoutError::Disconnected) => {
                release = None;
                thread::sleep(look);
            }
        }
    }
}

/// Tells when the lock on the file is free. A thread waits for it, in the kernel's queue with all others who wait, so
/// that latecomers do not overtake them for ever.
fn release_of(data_file: PathBuf) -> Receiver<()> {
    let (sender, release) = mpsc::channel();
    thread::spawn(move || {
        if File::open(data_file).is_ok_and(|file| file.lock().is_ok()) {
            // Nobody listens if a service has answered meanwhile.
            let _ = sender.send(());
        }
    });
    release
}

fn in_use(mailroot: &MailRoot) -> Refusal {
    let message = format!("{} is in use, but no service answers", mailroot.data_file().display());
    Refusal::new(Code::Busy, message).with_hint("Another command or a backup may be running; try again later")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailroot::{self, Environment};
    use crate::tests::scratch;

    /// A mail root whose data file somebody has locked.
    fn locked(home: &std::path::Path) -> (MailRoot, File) {
        let environment = Environment { user: 1000, home: Some(home.into()), ..Environment::default() };
        let mailroot = MailRoot::find(None, &environment).unwrap();
        mailroot::create(&mailroot.dir).unwrap();
        let file = File::create(mailroot.data_file()).unwrap();
        file.lock().unwrap();
        (mailroot, file)
    }

    fn open(mailroot: &MailRoot) -> Option<File> {
        let file = File::open(mailroot.data_file()).unwrap();
        file.try_lock().is_ok().then_some(file)
    }

    #[test]
    fn an_attempt_is_repeated_once_the_data_file_is_free() {
        let scratch = scratch::directory();
        let (mailroot, file) = locked(scratch.path());
        let mut holder = Some(file);
        let mut attempts = 0;
        let outcome = until_free(&mailroot, Duration::from_secs(1 << 30), || {
            attempts += 1;
            let opened = open(&mailroot);
            holder = None;
            Ok(opened)
        });
        assert!(outcome.is_ok() && attempts >= 2, "{attempts}");
    }

    #[test]
    fn a_data_file_that_stays_in_use_is_refused_after_the_limit() {
        let scratch = scratch::directory();
        let (mailroot, _file) = locked(scratch.path());
        let refusal = until_free(&mailroot, Duration::ZERO, || Ok(open(&mailroot))).unwrap_err();
        assert_eq!(refusal.code, Code::Busy);
    }
}
