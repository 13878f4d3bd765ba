//! Deadlines of waits, kept in one list. A thread sleeps until the earliest.
//!
//! async-io wakes its reactor for each timer that is set, and a session waits for its client half a dozen times.
//! Entering the list costs no system call, unless the new deadline is the earliest.

use std::collections::BTreeMap;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Condvar, LazyLock};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Instant;

use crate::lock::{Mutex, NO_PANIC};

/// A future that is ready at a time.
pub struct Deadline {
    end: Instant,
    /// Its number in the list, once it has waited.
    number: Option<u64>,
}

impl Deadline {
    pub fn at(end: Instant) -> Self {
        Self { end, number: None }
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.end {
            return Poll::Ready(());
        }
        self.number = Some(WAITING.enter(self.end, self.number, context.waker()));
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            WAITING.leave(self.end, number);
        }
    }
}

static WAITING: LazyLock<Waiting> = LazyLock::new(|| {
    let thread = thread::Builder::new().name("deadlines".to_owned());
    thread.spawn(|| WAITING.keep()).expect("a first thread can be started");
    Waiting::default()
});

#[derive(Default)]
struct Waiting {
    list: Mutex<List>,
    changed: Condvar,
}

#[derive(Default)]
struct List {
    entries: BTreeMap<(Instant, u64), Waker>,
    last_number: u64,
    /// When the thread wakes up; `None` while there is nothing to wait for.
    wakes: Option<Instant>,
}

impl Waiting {
    /// Enters a deadline, or renews the waker of one that has a number. Returns its number.
    fn enter(&self, end: Instant, number: Option<u64>, waker: &Waker) -> u64 {
        let mut list = self.list.lock();
        let number = number.unwrap_or_else(|| {
            list.last_number += 1;
            list.last_number
        });
        list.entries
            .entry((end, number))
            .and_modify(|entered| entered.clone_from(waker))
            .or_insert_with(|| waker.clone());
        if list.wakes.is_none_or(|wakes| end < wakes) {
            list.wakes = Some(end);
            self.changed.notify_one();
        }
        number
    }

    fn leave(&self, end: Instant, number: u64) {
        self.list.lock().entries.remove(&(end, number));
    }

    /// Wakes those whose time has come, for the life of the process.
    fn keep(&self) -> ! {
        let mut list = self.list.lock();
        loop {
            let now = Instant::now();
            let later = list.entries.split_off(&(now, u64::MAX));
            let due = mem::replace(&mut list.entries, later);
            list.wakes = list.entries.first_key_value().map(|((end, _), _)| *end);
            list = match (due.is_empty(), list.wakes) {
                (false, _) => {
                    drop(list);
                    due.into_values().for_each(wake);
                    self.list.lock()
                }
                (true, Some(end)) => {
                    self.changed.wait_timeout(list, end.duration_since(now)).expect(NO_PANIC).0
                }
                (true, None) => self.changed.wait(list).expect(NO_PANIC),
            };
        }
    }
}

/// Wakes one. If that panics, the others still get their turn: without this thread no wait in the process would end.
fn wake(waker: Waker) {
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        log::error!("internal error: a wait that was over could not be told so");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;
    use std::time::Duration;

    use smol::future::{FutureExt as _, block_on, poll_once};

    use super::*;

    const FAR: Duration = Duration::from_secs(3600);

    fn is_listed(deadline: &Deadline) -> bool {
        let list = WAITING.list.lock();
        deadline.number.is_some_and(|number| list.entries.contains_key(&(deadline.end, number)))
    }

    #[test]
    fn a_nearer_deadline_is_not_kept_waiting_by_a_farther_one() {
        let begin = Instant::now();
        let mut far = Deadline::at(begin + FAR);
        assert!(block_on(poll_once(&mut far)).is_none());
        for _ in 0..3 {
            let near = Instant::now() + Duration::from_millis(5);
            block_on(Deadline::at(near));
            assert!(Instant::now() >= near);
        }
        assert!(is_listed(&far) && begin.elapsed() < FAR);
    }

    #[test]
    fn deadlines_of_one_time_are_all_met() {
        let end = Instant::now() + Duration::from_millis(20);
        let waits: Vec<_> = (0..100).map(|_| thread::spawn(move || block_on(Deadline::at(end)))).collect();
        waits.into_iter().for_each(|wait| wait.join().unwrap());
        block_on(Deadline::at(end).or(Deadline::at(end + FAR)));
    }

    #[test]
    fn a_waker_that_panics_harms_no_other_wait() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("on purpose");
            }
        }
        let end = Instant::now() + Duration::from_millis(5);
        let mut first = Deadline::at(end);
        let waker = Arc::new(Panics).into();
        assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
        block_on(Deadline::at(end));
        block_on(Deadline::at(Instant::now() + Duration::from_millis(5)));
    }

    #[test]
    fn a_wait_that_is_given_up_leaves_the_list() {
        let mut deadline = Deadline::at(Instant::now() + FAR);
        assert!(!is_listed(&deadline));
        assert!(block_on(poll_once(&mut deadline)).is_none());
        assert!(is_listed(&deadline));
        let (end, number) = (deadline.end, deadline.number.unwrap());
        drop(deadline);
        assert!(!WAITING.list.lock().entries.contains_key(&(end, number)));
    }
}
