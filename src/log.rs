//! The log, on standard error.
//!
//! | level | priority | what is logged |
//! | --- | --- | --- |
//! | critical | 2 | the service cannot do its work (`error!`) |
//! | warning | 4 | an administrator may have to act: refused logins, unusable settings (`warn!`) |
//! | notice | 5 | start, end, commands that change something (`warn!` with the target [`NOTICE`]); shown with the warnings |
//! | information | 6 | logins, deliveries, sessions (`info!`) |
//!
//! Message texts and passwords are never logged. A line is cut at [`LINE_CHARS_MAX`], and a peer's words are
//! [`Quoted`]. Nothing waits for the reader of the log: see [`queue`].
//!
//! The format depends on the reader. The journal takes the priority from the front of the line (sd-daemon(3)) and adds
//! the time; a terminal gets just the words; a file or container log gets time and level.

mod queue;
mod rarely;
mod syslog;

pub use rarely::Rarely;

use std::fmt::{self, Display};
use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::fstat;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::settings::Logging;
use queue::Queue;

/// The target of a notice: `log::warn!(target: NOTICE, ...)`.
pub const NOTICE: &str = concat!(env!("CARGO_CRATE_NAME"), "::notice");

/// Set by systemd to the device and inode of the journal's socket, if output goes there (systemd.exec(5)).
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// Longest line without time and level; the rest is cut.
const LINE_CHARS_MAX: usize = 1000;
/// Most characters of a peer's words that are logged.
const QUOTED_CHARS_MAX: usize = 80;

struct StandardError {
    form: Form,
    queue: Arc<Queue>,
}

/// A peer's words in a log line: quoted, cut, and without characters that end the quotes or the line or change the
/// writing direction.
pub struct Quoted<'a>(pub &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = self.0.char_indices().nth(QUOTED_CHARS_MAX).map(|(end, _)| &self.0[..end]);
        write!(f, "\"{}", cut.unwrap_or(self.0).escape_debug())?;
        f.write_str(if cut.is_some() { "…\"" } else { "\"" })
    }
}

/// The front of a line about a session, `session 7: `; empty for what no session does.
#[derive(Clone, Copy, Debug)]
pub struct About(pub Option<u64>);

impl Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |number| write!(f, "session {number}: "))
    }
}

/// Who reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Journal,
    Terminal,
    File,
}

impl Form {
    fn of_standard_error() -> Self {
        let stderr = std::io::stderr();
        let is_journal = || {
            let named = std::env::var(JOURNAL_STREAM).ok()?;
            let stat = fstat(&stderr).ok()?;
            Some(named == format!("{}:{}", stat.st_dev, stat.st_ino))
        };
        match is_journal() {
            Some(true) => Form::Journal,
            _ if stderr.is_terminal() => Form::Terminal,
            _ => Form::File,
        }
    }

    fn line(self, level: Level, target: &str, said: &str, now: OffsetDateTime) -> String {
        let priority = priority(level, target);
        let name = match priority {
            2 => "critical: ",
            4 => "warning: ",
            _ => "",
        };
        match self {
            Form::Journal => format!("<{priority}>{said}\n"),
            Form::Terminal => format!("{name}{said}\n"),
            Form::File => {
                let form = format_description!(
                    "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
                );
                let time = now.format(&form).expect("the year has four digits");
                format!("{time} {name}{said}\n")
            }
        }
    }
}

/// The priority of syslog(3).
fn priority(level: Level, target: &str) -> u8 {
    match level {
        Level::Error => 2,
        Level::Warn if target == NOTICE => 5,
        Level::Warn => 4,
        _ => 6,
    }
}

/// Libraries log only warnings and worse: the rest is about their internals.
fn is_for_administrators(record: &Record<'_>) -> bool {
    record.target().starts_with(env!("CARGO_CRATE_NAME")) || record.level() <= Level::Warn
}

/// The message without control characters: some lines quote peers, who must not be able to start a new line.
fn one_line(record: &Record<'_>) -> String {
    bounded(&record.args().to_string())
}

fn bounded(said: &str) -> String {
    let shown = said.chars().take(LINE_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c });
    let is_cut = said.chars().nth(LINE_CHARS_MAX).is_some();
    shown.chain(is_cut.then_some('…')).collect()
}

/// Sets up logging for a command that runs without a service: to syslog.
pub fn begin_for_command(level: Logging) {
    if let Ok(logger) = syslog::Syslog::connect()
        && log::set_boxed_logger(Box::new(logger)).is_ok()
    {
        set_level(level);
    }
}

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// Sets up logging for the service. A second call only changes the level.
pub fn begin(level: Logging) {
    let form = Form::of_standard_error();
    QUEUE.get_or_init(|| {
        let queue = Arc::new(Queue::default());
        let logger = StandardError { form, queue: queue.clone() };
        if log::set_boxed_logger(Box::new(logger)).is_err() {
            return queue;
        }
        let drained = queue.clone();
        let dropped = move |count| {
            let said =
                format!("{count} log lines were dropped here, because nobody was reading standard error");
            form.line(Level::Warn, "", &said, OffsetDateTime::now_utc())
        };
        let write = |line: &str| {
            // If the log cannot be written, nothing can report that.
            let _ = queue::write_to_standard_error(line);
        };
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || drained.drain(write, dropped)).expect("a first thread can be started");
        // The default hook would wait for the reader.
        std::panic::set_hook(Box::new(|info| log::error!("{info}")));
        queue
    });
    set_level(level);
}

/// Waits briefly for the last lines to be written. Call it before the process exits.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.finish();
    }
}

pub fn set_level(level: Logging) {
    log::set_max_level(match level {
        Logging::Nothing => LevelFilter::Off,
        Logging::Critical => LevelFilter::Error,
        Logging::Warnings => LevelFilter::Warn,
        Logging::Information => LevelFilter::Info,
    });
}

impl Log for StandardError {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if !is_for_administrators(record) {
            return;
        }
        let line =
            self.form.line(record.level(), record.target(), &one_line(record), OffsetDateTime::now_utc());
        self.queue.push(line);
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_gets_a_priority_and_a_file_gets_a_time() {
        let now = OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap();
        let lines = |level, target| {
            [Form::Journal, Form::Terminal, Form::File].map(|form| form.line(level, target, "a b", now))
        };
        let expected = |priority, name: &str| {
            let said = format!("{name}a b\n");
            [format!("<{priority}>a b\n"), said.clone(), format!("2026-05-28T20:26:40.000Z {said}")]
        };
        let quoted = Record::builder().args(format_args!("a\r\nb")).build();
        assert_eq!(one_line(&quoted), "a  b");
        assert_eq!(lines(Level::Error, "pop3svc::store"), expected(2, "critical: "));
        assert_eq!(lines(Level::Warn, "pop3svc::store"), expected(4, "warning: "));
        assert_eq!(lines(Level::Warn, NOTICE), expected(5, ""));
        assert_eq!(lines(Level::Info, "pop3svc::store"), expected(6, ""));
    }

    #[test]
    fn a_peer_cannot_make_a_line_long_or_end_its_quotes() {
        assert_eq!(Quoted("ann@example.com").to_string(), "\"ann@example.com\"");
        assert_eq!(Quoted("a\"\r\n\u{202e}b").to_string(), "\"a\\\"\\r\\n\\u{202e}b\"");
        assert_eq!(Quoted(&"ä".repeat(12_000)).to_string(), format!("\"{}…\"", "ä".repeat(QUOTED_CHARS_MAX)));
        assert_eq!(bounded(&"x".repeat(100_000)), format!("{}…", "x".repeat(LINE_CHARS_MAX)));
    }
}
