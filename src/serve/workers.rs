//! The threads of the service: one does the work, and the others sleep until it falls behind.
//!
//! - Waking a thread costs more than most commands do. If each connection had its thread, every event that one thread
//!   waits for and another handles would cost that. So connections are bound to no thread, and a second thread joins
//!   only when the first has not come to rest for a while.
//! - Helpers wait for no events and hold nothing: without them everything runs as well, only slower. What the first
//!   thread waits for, everybody waits for, so long reads and computations belong elsewhere (`smol::unblock`).
//! - Who reads mail waits for the answer; who brings it has a queue. So sessions that are ready to read run before
//!   those that deliver.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded};
use smol::future::{FutureExt, yield_now};
use smol::{Executor, Task};

/// Tasks of high priority that run before one of low priority must.
const HIGH_AT_A_TIME: usize = 64;
/// Tasks of low priority that run before the thread asks for new events.
const LOW_AT_A_TIME: usize = 8;
/// How long a thread works before it asks for new events.
const TURN_MAX: Duration = Duration::from_micros(200);
/// How long a thread goes on before it calls for help, and again before it calls another one.
const ALONE_MAX: Duration = Duration::from_micros(200);
/// A shorter wait for events is no rest: a thread that always finds some is as busy as one that never looks.
const REST_MIN: Duration = Duration::from_micros(20);

pub struct Workers {
    high: Executor<'static>,
    low: Executor<'static>,
    /// Holds a word while help is wanted.
    call: Sender<()>,
    called: Receiver<()>,
    turn_max: Duration,
}

/// Which tasks run first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    High,
    Low,
}

impl Workers {
    pub fn new() -> Self {
        let (call, called) = bounded(1);
        Self { high: Executor::new(), low: Executor::new(), call, called, turn_max: TURN_MAX }
    }

    /// Runs the tasks on this thread until the future ends, then sends the helpers home. One thread does this.
    pub fn run<T>(&self, until: impl Future<Output = T>) -> T {
        // Also if a task panics: whoever waits for the helpers must learn of it.
        let _home = SendsHome(&self.called);
        smol::block_on(until.or(async { match self.work().await {} }))
    }

    /// Runs tasks on this thread whenever the first has more than it can do, until [`Workers::run`] ends.
    ///
    /// Never waits for events, so that the first thread gets its own.
    pub fn help(&self) {
        while self.called.recv_blocking().is_ok() {
            let mut alone_since = Instant::now();
            while self.turn(&mut alone_since).found_work && !self.called.is_closed() {}
        }
    }

    /// A task of high priority.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        self.high.spawn(task)
    }

    /// Serves a connection. What it holds is dropped when the session ends.
    pub fn serve(
        &self,
        priority: Priority,
        holds: impl Send + 'static,
        session: impl Future<Output = ()> + Send + 'static,
    ) {
        // Boxed: the executor moves a task several times before it runs.
        let session = Box::pin(session);
        let session = async move {
            session.await;
            drop(holds);
        };
        let executor = match priority {
            Priority::High => &self.high,
            Priority::Low => &self.low,
        };
        executor.spawn(session).detach();
    }

    async fn work(&self) -> Infallible {
        let mut alone_since = Instant::now();
        loop {
            match self.turn(&mut alone_since).may_be_left {
                // The reactor is polled now.
                true => yield_now().await,
                false => {
                    let begun = Instant::now();
                    self.high.tick().or(self.low.tick()).await;
                    let now = Instant::now();
                    if now.duration_since(begun) >= REST_MIN {
                        alone_since = now;
                    }
                }
            }
        }
    }

    fn turn(&self, alone_since: &mut Instant) -> Turn {
        let begun = Instant::now();
        let mut found_work = false;
        let mut run = |executor: &Executor<'_>, most| {
            for _ in 0..most {
                if !executor.try_tick() {
                    return false;
                }
                found_work = true;
                let now = Instant::now();
                if now.duration_since(*alone_since) > ALONE_MAX {
                    let _ = self.call.try_send(());
                    *alone_since = now;
                }
                if now.duration_since(begun) > self.turn_max {
                    return true;
                }
            }
            true
        };
        let may_be_left = run(&self.high, HIGH_AT_A_TIME) | run(&self.low, LOW_AT_A_TIME);
        Turn { found_work, may_be_left }
    }
}

/// Ends what the helpers wait for when it is dropped.
struct SendsHome<'a>(&'a Receiver<()>);

impl Drop for SendsHome<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Turn {
    found_work: bool,
    may_be_left: bool,
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn another_thread_joins_when_there_is_more_to_do_than_the_first_can() {
        let workers = &Workers::new();
        let (say, heard) = mpsc::channel();
        let (done, is_done) = smol::channel::bounded::<()>(1);
        std::thread::scope(|scope| {
            scope.spawn(|| workers.help());
            workers.serve(Priority::High, (), async {
                let begun = Instant::now();
                while begun.elapsed() <= ALONE_MAX {}
            });
            // Each holds up a thread until the next one runs on another.
            workers.serve(Priority::High, done, async move { heard.recv().unwrap() });
            workers.serve(Priority::Low, (), async move { say.send(()).unwrap() });
            // Closed when the waiting session is over and what it holds is dropped.
            assert!(workers.run(is_done.recv()).is_err());
        });
    }

    #[test]
    fn helpers_go_home_when_the_first_thread_panics() {
        let workers = &Workers::new();
        let panicked = std::panic::catch_unwind(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| workers.help());
                workers.run(async { panic!("on purpose") });
            });
        });
        assert!(panicked.is_err());
    }

    #[test]
    fn a_session_that_reads_runs_before_those_that_deliver_and_does_not_starve_them() {
        let workers = Workers { turn_max: Duration::MAX, ..Workers::new() };
        let (begin, begun) = smol::channel::unbounded();
        let session = |name: char, times: usize| {
            let begin = begin.clone();
            async move {
                for _ in 0..times {
                    let _ = begin.try_send(name);
                    yield_now().await;
                }
            }
        };
        for _ in 0..2 * LOW_AT_A_TIME {
            workers.serve(Priority::Low, (), session('d', 1));
        }
        workers.serve(Priority::High, (), session('r', 10 * HIGH_AT_A_TIME));
        let order: Vec<char> = workers.run(async {
            let mut order = Vec::new();
            while order.len() < 2 * LOW_AT_A_TIME + 10 * HIGH_AT_A_TIME {
                order.push(begun.recv().await.unwrap());
            }
            order
        });
        let turn = [vec!['r'; HIGH_AT_A_TIME], vec!['d'; LOW_AT_A_TIME]].concat();
        assert_eq!(order[..2 * turn.len()], [&turn[..], &turn[..]].concat());
        assert!(order[2 * turn.len()..].iter().all(|name| *name == 'r'));
    }
}
