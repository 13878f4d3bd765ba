//! Reports the state of the service to systemd (sd_notify(3)). Without systemd, does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// How much longer than its sessions the service may take to end: commands under way are finished.
const MARGIN: Duration = Duration::from_secs(30);

/// The service listens.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The service is ending. Its sessions may take `grace`, and systemd should wait for them.
pub fn stopping(grace: Duration) {
    let microseconds = u32::try_from((grace + MARGIN).as_micros()).unwrap_or(u32::MAX);
    let status = format!("stopping; open sessions have {} s to end", grace.as_secs());
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status(&status),
        NotifyState::ExtendTimeoutUsec(microseconds),
    ]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("cannot report the state of the service to systemd: {error}");
    }
}
