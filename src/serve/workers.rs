//! The threads of the service, each with an executor of its own. A connection is given to the thread that has the
//! fewest, and stays there.
//!
//! One executor for all threads would wake a second one each time that the first finds something to do, and hand each
//! event from the thread that waits for it to another: for a single delivery that doubles the system calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smol::{Executor, Task};

pub struct Workers {
    all: Vec<Worker>,
    /// As many of them run, from the first on.
    running: AtomicUsize,
}

/// The tasks of a thread.
#[derive(Default)]
pub struct Worker {
    executor: Executor<'static>,
    /// Held by each of its connections.
    connections: Arc<()>,
}

impl Workers {
    /// One at least.
    pub fn new(count: usize) -> Self {
        Self { all: (0..count.max(1)).map(|_| Worker::default()).collect(), running: 1.into() }
    }

    /// The one that accepts, and does what is no connection's work.
    pub fn first(&self) -> &Worker {
        &self.all[0]
    }

    /// The others.
    pub fn rest(&self) -> &[Worker] {
        &self.all[1..]
    }

    /// The thread of the next of the others has been started.
    pub fn note_started(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// Serves a connection.
    pub fn serve(&self, session: impl Future<Output = ()> + Send + 'static) {
        let running = self.all[..self.running.load(Ordering::Relaxed)].iter();
        let worker = running.min_by_key(|worker| Arc::strong_count(&worker.connections)).expect("one runs");
        let counted = worker.connections.clone();
        let session = async move {
            session.await;
            drop(counted);
        };
        worker.spawn(session).detach();
    }
}

impl Worker {
    /// Runs the tasks on this thread until the future ends.
    pub fn run<T>(&self, until: impl Future<Output = T>) -> T {
        smol::block_on(self.executor.run(until))
    }

    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        self.executor.spawn(task)
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
        workers.serve(async move {
            let _ = ended.recv().await;
        });
        workers.serve(pending());
        assert_eq!(connections(&workers), [2, 0, 0]);
        workers.note_started();
        for _ in 0..2 {
            workers.serve(pending());
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
}
