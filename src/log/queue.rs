//! Queues lines for standard error. A thread writes them, so logging never waits for the reader: if the reader stalls,
//! the queue fills, and further lines are dropped and counted.
//!
//! Once there is room again, a line reports how many were dropped.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, MutexGuard};
use std::time::Duration;

use async_io::Async;

use crate::lock::{Mutex, NO_PANIC};

/// Most octets that wait to be written.
const WAITING_OCTETS_MAX: usize = 1 << 20;
/// How long the process waits for the last lines before it exits.
const FINISH_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    octets: usize,
    /// Lines dropped since the last one was taken.
    dropped: u64,
    is_writing: bool,
}

impl Queue {
    pub fn push(&self, line: String) {
        let mut state = self.lock();
        if state.octets + line.len() > WAITING_OCTETS_MAX {
            state.dropped += 1;
            return;
        }
        state.octets += line.len();
        state.lines.push_back(line);
        self.changed.notify_all();
    }

    /// Writes lines with `write` for the life of the process. `dropped` makes the line that reports the loss of that
    /// many.
    pub fn drain(&self, mut write: impl FnMut(&str), dropped: impl Fn(u64) -> String) -> ! {
        loop {
            let (line, lost) = self.next();
            write(&line);
            if lost > 0 {
                write(&dropped(lost));
            }
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    /// The next line, and how many were dropped if it is the last.
    fn next(&self) -> (String, u64) {
        let state = self.lock();
        let mut state = self.changed.wait_while(state, |state| state.lines.is_empty()).expect(NO_PANIC);
        let line = state.lines.pop_front().expect("there is one");
        state.octets -= line.len();
        state.is_writing = true;
        let is_last = state.lines.is_empty();
        (line, if is_last { std::mem::take(&mut state.dropped) } else { 0 })
    }

    /// Waits until everything is written, at most [`FINISH_MAX`].
    pub fn finish(&self) {
        let state = self.lock();
        let is_busy = |state: &mut State| state.is_writing || !state.lines.is_empty();
        drop(self.changed.wait_timeout_while(state, FINISH_MAX, is_busy));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Writes the whole line to standard error, and waits if our parent made that non-blocking.
pub fn write_to_standard_error(line: &str) -> io::Result<()> {
    let mut stderr = io::stderr();
    let mut left = line.as_bytes();
    while !left.is_empty() {
        match stderr.write(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => left = &left[count..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let waited = Async::new_nonblocking(stderr.as_fd().try_clone_to_owned()?)?;
                async_io::block_on(waited.writable())?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;

    use super::*;

    #[test]
    fn with_nobody_reading_lines_are_dropped_and_counted_and_nobody_waits() {
        const LINES: usize = 3000;
        let queue = Arc::new(Queue::default());
        let (read, written) = mpsc::sync_channel(0);
        for number in 0..LINES {
            queue.push(format!("{number} {}", "x".repeat(1000)));
        }
        let draining = queue.clone();
        thread::spawn(move || {
            draining.drain(|line| read.send(line.to_owned()).unwrap(), |count| format!("{count} dropped"))
        });
        let mut kept = 0;
        let dropped = loop {
            let line: String = written.recv().unwrap();
            match line.strip_suffix(" dropped") {
                Some(count) => break count.parse::<usize>().unwrap(),
                None => {
                    assert!(line.starts_with(&format!("{kept} ")));
                    kept += 1;
                }
            }
        };
        assert_eq!(kept + dropped, LINES);
        assert!(kept > 1000 && dropped > 1000, "{kept} kept");
        queue.push("afterwards".to_owned());
        assert_eq!(written.recv().unwrap(), "afterwards");
    }
}
