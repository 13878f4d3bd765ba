//! Waits for the lock on the data file while another process holds it.

use std::thread;
use std::time::{Duration, Instant};

use crate::admin::Refusal;
use crate::admin::reply::Code;
use crate::mailroot::MailRoot;

/// The pause between two tries; doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(160));

/// A wait in pauses, with an end.
pub struct Patience {
    end: Instant,
    pause: Duration,
}

impl Patience {
    pub fn of(limit: Duration) -> Self {
        Self { end: Instant::now() + limit, pause: PAUSE.0 }
    }

    /// Pauses before another try. False if the time is over: then without a pause.
    pub fn wait(&mut self) -> bool {
        let is_left = Instant::now() < self.end;
        if is_left {
            thread::sleep(self.pause);
            self.pause = (self.pause * 2).min(PAUSE.1);
        }
        is_left
    }
}

/// The refusal once the wait is over.
pub fn in_use(mailroot: &MailRoot) -> Refusal {
    let message = format!("{} is in use, but no service answers", mailroot.data_file().display());
    Refusal::new(Code::Busy, message).with_hint("Another command or a backup may be running; try again later")
}
