//! The threads of the service, each with its own executors. A connection goes to the thread with the fewest and stays
//! there.
//!
//! - A shared executor would wake a second thread whenever the first finds work, and hand each event from the thread
//!   that waits for it to another. For a single delivery that doubles the system calls.
//! - Who reads mail waits for the answer; who brings it has a queue. So a thread runs the sessions that are ready to
//!   read before those that deliver, and asks for new events after every few of the latter.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smol::future::{FutureExt, yield_now};
use smol::{Executor, Task};

/// Tasks of high priority that run before one of low priority must.
const HIGH_AT_A_TIME: usize = 64;
/// Tasks of low priority that run before the thread asks for new events.
const LOW_AT_A_TIME: usize = 4;

pub struct Workers {
    all: Vec<Worker>,
    /// How many of them run, counted from the first.
    running: AtomicUsize,
}

/// Which of a thread's tasks run first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    High,
    Low,
}

/// One thread's tasks.
#[derive(Default)]
pub struct Worker {
    high: Executor<'static>,
    low: Executor<'static>,
    /// Held by each of its connections.
    connections: Arc<()>,
}

impl Workers {
    /// At least one.
    pub fn new(count: usize) -> Self {
        Self { all: (0..count.max(1)).map(|_| Worker::default()).collect(), running: 1.into() }
    }

    /// The one that accepts connections and does all other work.
    pub fn first(&self) -> &Worker {
        &self.all[0]
    }

    /// All but the first.
    pub fn rest(&self) -> &[Worker] {
        &self.all[1..]
    }

    /// One more thread has started.
    pub fn note_started(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// Serves a connection on the least busy thread. What it holds is dropped when the session ends.
    pub fn serve(
        &self,
        priority: Priority,
        holds: impl Send + 'static,
        session: impl Future<Output = ()> + Send + 'static,
    ) {
        // Boxed: the executor moves a task several times before it runs.
        let session = Box::pin(session);
        let running = self.all[..self.running.load(Ordering::Relaxed)].iter();
        let worker = running.min_by_key(|worker| Arc::strong_count(&worker.connections)).expect("one runs");
        let holds = (worker.connections.clone(), holds);
        let session = async move {
            session.await;
            drop(holds);
        };
        worker.executor(priority).spawn(session).detach();
    }
}

impl Worker {
    /// Runs the tasks on this thread until the future ends.
    pub fn run<T>(&self, until: impl Future<Output = T>) -> T {
        smol::block_on(until.or(async { match self.work().await {} }))
    }

    /// A task of high priority.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        self.high.spawn(task)
    }

    fn executor(&self, priority: Priority) -> &Executor<'static> {
        match priority {
            Priority::High => &self.high,
            Priority::Low => &self.low,
        }
    }

    async fn work(&self) -> Infallible {
        let run =
            |executor: &Executor<'_>, most| (0..most).take_while(|_| executor.try_tick()).count() == most;
        loop {
            let are_left = run(&self.high, HIGH_AT_A_TIME) | run(&self.low, LOW_AT_A_TIME);
            match are_left {
                // The reactor is polled now.
                true => yield_now().await,
                false => self.high.tick().or(self.low.tick()).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn connections(workers: &Workers) -> Vec<usize> {
        workers.all.iter().map(|worker| Arc::strong_count(&worker.connections) - 1).collect()
    }

    #[test]
    fn a_connection_goes_to_the_running_thread_that_has_the_fewest() {
        let workers = Workers::new(3);
        let (end, ended) = smol::channel::bounded::<()>(1);
        workers.serve(Priority::High, (), async move {
            let _ = ended.recv().await;
        });
        workers.serve(Priority::Low, (), pending());
        assert_eq!(connections(&workers), [2, 0, 0]);
        workers.note_started();
        for _ in 0..2 {
            workers.serve(Priority::Low, (), pending());
        }
        assert_eq!(connections(&workers), [2, 2, 0]);
        drop(end);
        workers.first().run(async {
            while connections(&workers)[0] == 2 {
                smol::future::yield_now().await;
            }
        });
        assert_eq!(connections(&workers), [1, 2, 0]);
    }

    #[test]
    fn a_session_that_reads_runs_before_those_that_deliver_and_does_not_starve_them() {
        let workers = Workers::new(1);
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
        let order: Vec<char> = workers.first().run(async {
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
