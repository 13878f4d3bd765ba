//! File descriptors: each connection takes one, and a large message coming in takes a second.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{PROXY_HEADERS_MAX, RECEIVING_MAX, REFUSALS_MAX, TRUSTED_RECEIVING_MAX};
use crate::settings::Settings;

/// Kept for everything but mail clients: the data file, listeners, the control socket and its commands, `deliver`,
/// backup and check.
const RESERVE: u64 = 256;
/// Most descriptors of connections other than POP3's.
const OTHERS: u64 = (2 * RECEIVING_MAX + 2 * TRUSTED_RECEIVING_MAX + PROXY_HEADERS_MAX + REFUSALS_MAX) as u64;

/// Raises this process's soft limit to the hard one. The soft one is low only for programs that use select(2).
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        log::warn!("the limit of open files stays at {}: {e}", current());
    }
}

/// Most connections open at a time, leaving the reserve and a second descriptor per message.
pub fn connections_max() -> usize {
    let left = current().saturating_sub(RESERVE);
    let seconds = (RECEIVING_MAX + TRUSTED_RECEIVING_MAX) as u64;
    // However few descriptors there are, let some clients in.
    let connections = left.saturating_sub(seconds).max(left / 2).max(16);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// Fails with a sentence if these settings admit more POP3 connections than this process may have descriptors for.
pub fn suffice_for(settings: &Settings) -> Result<(), String> {
    fits(settings, current())
}

fn fits(settings: &Settings, descriptors: u64) -> Result<(), String> {
    let backlog = u64::from(settings.socketbacklog.get());
    let most = descriptors.saturating_sub(RESERVE + OTHERS + backlog);
    let asked = u64::from(settings.socketmax.get());
    if asked <= most {
        return Ok(());
    }
    Err(format!(
        "socketmax {asked} needs more open files than the service may have: with {descriptors} it can be at most \
         {most}. Raise that limit (LimitNOFILE= in the unit, ulimit -Hn) and start the service again"
    ))
}

fn current() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Whole;

    #[test]
    fn socketmax_is_bounded_by_the_descriptors_that_are_left() {
        let with = |socketmax| Settings { socketmax: Whole::new(socketmax), ..Settings::default() };
        let backlog = u64::from(Settings::default().socketbacklog.get());
        let descriptors = RESERVE + OTHERS + backlog + 1000;
        assert_eq!(fits(&with(1000), descriptors), Ok(()));
        let refused = fits(&with(1001), descriptors).unwrap_err();
        assert!(refused.contains("at most 1000."), "{refused}");
        assert!(fits(&with(50), 64).unwrap_err().contains("at most 0."));
    }
}
