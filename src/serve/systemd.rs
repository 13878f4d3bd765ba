//! Tells systemd how the service is doing (sd_notify(3)). Started by anything else, the service tells nobody.

use std::time::Duration;

use sd_notify::NotifyState;

/// How much longer than its sessions the service may take to end: commands that were taken are still carried out.
const MARGIN: Duration = Duration::from_secs(30);

/// It listens.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// It ends, and its sessions may take this long; systemd is to wait for that.
pub fn stopping(grace: Duration) {
    let microseconds = u32::try_from((grace + MARGIN).as_micros()).unwrap_or(u32::MAX);
    let status = format!("ending; sessions may go on for {} s", grace.as_secs());
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status(&status),
        NotifyState::ExtendTimeoutUsec(microseconds),
    ]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("systemd cannot be told how the service is doing: {error}");
    }
}
