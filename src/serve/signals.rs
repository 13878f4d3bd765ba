//! Signals, and the bound on how long the service may take to end.
//!
//! | from SIGTERM or SIGINT on | |
//! | --- | --- |
//! | at once | no new connections; idle clients are dismissed |
//! | for `shutdowngrace`, or until a second signal | sessions and commands may end; the last session ends the service |
//! | then | the remaining sessions are dropped |
//! | [`COMMANDS_MAX`] more | commands may still end |
//! | [`CLOSING_MAX`] after the grace | the process exits, whatever still holds it up |
//!
//! A separate thread hears the signals. It needs neither the executor nor the pool of blocking threads, either of which
//! may be what hangs. Exiting at any moment is safe, because whatever was acknowledged is durable.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::Duration;

use async_io::Timer;
use async_signal::{Signal, Signals};
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt as _;
use smol::stream::StreamExt as _;

/// How long commands under way may go on after the grace.
pub const COMMANDS_MAX: Duration = Duration::from_secs(5);
/// When the process exits at the latest, counted from the end of the grace.
const CLOSING_MAX: Duration = Duration::from_secs(10);
/// News waiting to be heard; more of the same would add nothing.
const NEWS_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// SIGHUP: read the certificate again.
    ReadAgain,
    /// SIGTERM or SIGINT: the grace begins.
    End,
    /// The grace is over, or a second signal has come.
    GraceOver,
}

/// Starts hearing signals. `grace` is asked when the end begins; `socket` is removed if the process has to exit by
/// force.
pub fn hear(
    signals: Signals,
    grace: impl Fn() -> Duration + Send + 'static,
    socket: PathBuf,
) -> io::Result<Receiver<News>> {
    let (sender, receiver) = smol::channel::bounded(NEWS_MAX);
    let thread = thread::Builder::new().name("signals".to_owned());
    // Not `smol::block_on`: that would poll everybody's sockets too and hand each event to another thread.
    thread.spawn(move || smol::future::block_on(tell(signals, grace, sender, socket)))?;
    Ok(receiver)
}

async fn tell(mut signals: Signals, grace: impl Fn() -> Duration, news: Sender<News>, socket: PathBuf) {
    until_signal_to_end(&mut signals, &news).await;
    // Full: nobody has listened for long. The bound below still holds.
    let _ = news.try_send(News::End);
    let too_long = async {
        Timer::after(grace()).await;
    };
    too_long.or(until_signal_to_end(&mut signals, &news)).await;
    let _ = news.try_send(News::GraceOver);
    Timer::after(CLOSING_MAX).await;
    log::error!(
        "ended by force: work was still under way {} s after the grace period",
        CLOSING_MAX.as_secs()
    );
    crate::log::finish();
    let _ = fs::remove_file(socket);
    process::exit(1);
}

async fn until_signal_to_end(signals: &mut Signals, news: &Sender<News>) {
    while let Some(Ok(Signal::Hup)) = signals.next().await {
        let _ = news.try_send(News::ReadAgain);
    }
}
