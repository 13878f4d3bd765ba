//! The log: to standard error, in the journal's form when nobody sits there.
//!
//! What is written at which level: *critical* (`error!`), what keeps the service from doing its work; *warning*
//! (`warn!`), what an administrator may have to act on: refused logins, settings that cannot be used; *information*
//! (`info!`), what happened: logins, deliveries, commands carried out. Never the text of a message, never a password.

use crate::settings::Logging;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::{IsTerminal, Write};

struct StandardError {
    is_terminal: bool,
}

/// Makes the log ready. To be called once, by a program that serves.
pub fn begin(level: Logging) {
    let logger = StandardError { is_terminal: std::io::stderr().is_terminal() };
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
        // The libraries' own information is about their inner life.
        let ours = record.target().starts_with(env!("CARGO_CRATE_NAME"));
        if !ours && record.level() > Level::Warn {
            return;
        }
        // A control character must not begin a line of its own: peers' words stand in some lines.
        let said: String =
            record.args().to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = match (self.is_terminal, record.level()) {
            (true, Level::Error) => format!("critical: {said}\n"),
            (true, Level::Warn) => format!("warning: {said}\n"),
            (true, _) => format!("{said}\n"),
            // The priorities of syslog(3), which systemd reads from the front of a line (sd-daemon(3)).
            (false, Level::Error) => format!("<2>{said}\n"),
            (false, Level::Warn) => format!("<4>{said}\n"),
            (false, _) => format!("<6>{said}\n"),
        };
        // Where the log cannot be written there is nowhere to say so.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
