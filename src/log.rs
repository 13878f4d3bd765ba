//! The log, on standard error.
//!
//! | level | priority | what is logged |
//! | --- | --- | --- |
//! | critical | 2 | the service cannot do its work (`error!`) |
//! | warning | 4 | an administrator may have to act: refused logins, unusable settings (`warn!`) |
//! | notice | 5 | start, end, commands that change something (`warn!` with the target [`NOTICE`]); shown with the warnings |
//! | information | 6 | logins, deliveries, sessions (`info!`) |
//!
//! Never the text of a message, never a password.
//!
//! The form of a line depends on who reads it. The journal takes the priority from the front of the line (sd-daemon(3)) and
//! knows the time itself; a person at a terminal wants the words; a file or a container's log gets time and level.

mod syslog;

use crate::settings::Logging;
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::fs::fstat;
use std::io::{IsTerminal, Write};
use time::OffsetDateTime;
use time::macros::format_description;

/// The target of a notice: `log::warn!(target: NOTICE, ...)`.
pub const NOTICE: &str = concat!(env!("CARGO_CRATE_NAME"), "::notice");

/// Names the device and inode of the journal's socket to a process whose output goes there (systemd.exec(5)).
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

struct StandardError {
    form: Form,
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

/// Our libraries' own information is about their inner life.
fn is_for_administrators(record: &Record<'_>) -> bool {
    record.target().starts_with(env!("CARGO_CRATE_NAME")) || record.level() <= Level::Warn
}

/// What is said, without control characters: some lines quote what peers sent, and that must not start a new line.
fn one_line(record: &Record<'_>) -> String {
    record.args().to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Makes the log ready for a command that is carried out without a service: it goes to the system's log.
pub fn begin_for_command(level: Logging) {
    if let Ok(logger) = syslog::Syslog::connect()
        && log::set_boxed_logger(Box::new(logger)).is_ok()
    {
        set_level(level);
    }
}

/// Makes the log ready. To be called once, by a program that serves.
pub fn begin(level: Logging) {
    let logger = StandardError { form: Form::of_standard_error() };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        set_level(level);
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
        // Where the log cannot be written there is nowhere to say so.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
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
}
