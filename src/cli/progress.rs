//! Shows the progress of a long task on a terminal: one line on standard error, rewritten as it advances and erased at
//! the end.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::admin::Working;
use crate::store::Progress;
use crate::units::Octets;

/// How often the line is rewritten.
pub const INTERVAL: Duration = Duration::from_millis(250);
/// Minimum time between two writes, because a terminal may be slow.
const SHORTEST: Duration = Duration::from_millis(100);
/// Tasks shorter than this show nothing.
const UNSHOWN: Duration = Duration::from_millis(500);
/// How long a stage must run before its remaining time can be estimated.
const UNCERTAIN: Duration = Duration::from_secs(2);
/// Columns of the line at most.
const WIDTH: usize = 79;

/// The progress line of one command. Writes nothing if standard error is not a terminal.
pub struct Line {
    is_shown: bool,
    begun: Instant,
    /// The current stage, and since when.
    stage: Option<(String, Instant)>,
    /// When the line was last written, if ever.
    written: Option<Instant>,
}

impl Line {
    pub fn new() -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let is_shown = io::stderr().is_terminal() && !is_dumb;
        Self { is_shown, begun: Instant::now(), stage: None, written: None }
    }

    pub fn is_shown(&self) -> bool {
        self.is_shown
    }

    /// Rewrites the line, unless it was written a moment ago.
    pub fn show(&mut self, working: &Working) {
        let now = Instant::now();
        if self.stage.as_ref().is_none_or(|(stage, _)| *stage != working.stage) {
            self.stage = Some((working.stage.clone(), now));
        }
        let is_due = self.written.is_none_or(|written| now - written >= SHORTEST);
        if self.is_shown && is_due && self.begun.elapsed() >= UNSHOWN {
            let (_, since) = self.stage.as_ref().expect("it was just put there");
            self.written = Some(now);
            // Carriage return, then erase to the end of the line (ECMA-48, EL).
            self.write(&format!("\r\x1b[K{}", line(working, now - *since)));
        }
    }

    /// Shows how many of a known number of items are done.
    pub fn show_items(&mut self, stage: &str, done: usize, total: usize) {
        let (stage, done, total) = (stage.to_owned(), done as u64, total as u64);
        self.show(&Working { stage, is_in_octets: false, done, total });
    }

    fn write(&self, octets: &str) {
        let mut terminal = io::stderr();
        // If the terminal is gone, nobody misses the line.
        let _ = terminal.write_all(octets.as_bytes()).and_then(|()| terminal.flush());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.written.is_some() {
            self.write("\r\x1b[K");
        }
    }
}

/// Shows the line while this process does the work.
pub fn shown<T>(work: impl FnOnce(&Progress) -> T) -> T {
    let progress = Progress::default();
    let mut line = Line::new();
    if !line.is_shown {
        return work(&progress);
    }
    let (done, is_done) = channel::<()>();
    thread::scope(|scope| {
        // Dropped when the work ends or panics.
        let _done = done;
        let progress = &progress;
        scope.spawn(move || {
            while is_done.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                line.show(&progress.reached().into());
            }
        });
        work(progress)
    })
}

/// The line's text, `elapsed` after the stage began.
fn line(working: &Working, elapsed: Duration) -> String {
    let Working { stage, is_in_octets, done, total } = working;
    if *done == 0 {
        return format!("{stage} …");
    }
    let amount = |count: u64| match is_in_octets {
        true => Octets(count).to_string(),
        false => count.to_string(),
    };
    let rate = *done as f64 / elapsed.as_secs_f64().max(0.001);
    let mut line = format!("{stage}: {}", amount(*done));
    if total >= done {
        line += &format!(" of {}, {} %", amount(*total), (*done as u128 * 100 / *total as u128));
    }
    line += &format!(", {}/s", amount(rate as u64));
    if total >= done && elapsed >= UNCERTAIN {
        line += &format!(", {} left", in_words((total - done) as f64 / rate));
    }
    line.chars().take(WIDTH).collect()
}

fn in_words(seconds: f64) -> String {
    match seconds.ceil() as u64 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn working(is_in_octets: bool, done: u64, total: u64) -> Working {
        Working { stage: "reading".to_owned(), is_in_octets, done, total }
    }

    #[test]
    fn a_line_tells_rate_and_time_left_when_they_are_known() {
        let line = |working: Working, seconds| super::line(&working, Duration::from_secs(seconds));
        assert_eq!(line(working(false, 0, 10), 5), "reading …");
        assert_eq!(line(working(false, 500, 0), 5), "reading: 500, 100/s");
        assert_eq!(line(working(false, 500, 1500), 1), "reading: 500 of 1500, 33 %, 500/s");
        assert_eq!(line(working(false, 500, 1500), 5), "reading: 500 of 1500, 33 %, 100/s, 10 s left");
        assert_eq!(
            line(working(true, 10 << 20, 9000 << 20), 10),
            "reading: 10 MiB of 8.79 GiB, 0 %, 1 MiB/s, 3 h left"
        );
        assert_eq!(line(working(false, u64::MAX, u64::MAX), 0).chars().count(), 79);
    }
}
