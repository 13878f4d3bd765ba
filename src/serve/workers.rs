//! The threads of the service, each with its own executor. A connection goes to the thread with the fewest and stays
//! there.
//!
//! A shared executor would wake a second thread whenever the first finds work, and hand each event from the thread that
//! waits for it to another. For a single delivery that doubles the system calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smol::{Executor, Task};

pub struct Workers {
    all: Vec<Worker>,
    /// How many of them run, counted from the first.
    running: AtomicUsize,
}

/// One thread's tasks.
#[derive(Default)]
pub struct Worker {
    executor: Executor<'static>,
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
    pub fn serve(&self, holds: impl Send + 'static, session: impl Future<Output = ()> + Send + 'static) {
        // Boxed: the executor moves a task several times before it runs.
        let session = Box::pin(session);
        let running = self.all[..self.running.load(Ordering::Relaxed)].iter();
        let worker = running.min_by_key(|worker| Arc::strong_count(&worker.connections)).expect("one runs");
        let holds = (worker.connections.clone(), holds);
        let session = async move {
            session.await;
            drop(holds);
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
        workers.serve((), async move {
            let _ = ended.recv().await;
        });
        workers.serve((), pending());
        assert_eq!(connections(&workers), [2, 0, 0]);
        workers.note_started();
        for _ in 0..2 {
            workers.serve((), pending());
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
