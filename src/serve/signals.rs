//! Signals, and the bound on how long the service may take to end.
//!
//! | from SIGTERM or SIGINT on | |
//! | --- | --- |
//! | at once | no new connections; clients that bring nothing are told to go |
//! | `shutdowngrace`, or until the signal comes again | sessions and commands may end; with the last session the service does |
//! | [`COMMANDS_MAX`] more | commands may still end |
//! | [`CLOSING_MAX`] from the end of the grace | the process exits, whatever still holds it up |
//!
//! A thread of its own hears them: it needs neither the executor nor the pool of blocking threads, which may be what
//! hangs. To exit at any moment is safe, because what was acknowledged is durable.

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

/// How long commands of administrators that were taken may go on after the grace.
pub const COMMANDS_MAX: Duration = Duration::from_secs(5);
/// How long after the grace the process exits at the latest.
const CLOSING_MAX: Duration = Duration::from_secs(10);
/// News that may wait to be heard; more of the same add nothing.
const NEWS_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// SIGHUP: the certificate is to be read again.
    ReadAgain,
    /// SIGTERM or SIGINT: the grace begins.
    End,
    /// The grace is over, or the signal came again.
    GraceOver,
}

/// Begins to hear signals. `grace` is asked when the service is to end; `socket` is removed if the process has to exit.
pub fn hear(
    signals: Signals,
    grace: impl Fn() -> Duration + Send + 'static,
    socket: PathBuf,
) -> io::Result<Receiver<News>> {
    let (sender, receiver) = smol::channel::bounded(NEWS_MAX);
    let thread = thread::Builder::new().name("signals".to_owned());
    // Not `smol::block_on`, which would wait for everybody's sockets too, and hand each event over to another thread.
    thread.spawn(move || smol::future::block_on(tell(signals, grace, sender, socket)))?;
    Ok(receiver)
}

async fn tell(mut signals: Signals, grace: impl Fn() -> Duration, news: Sender<News>, socket: PathBuf) {
    until_signal_to_end(&mut signals, &news).await;
    // Full: nobody has listened for a long time, and the bound below holds all the same.
    let _ = news.try_send(News::End);
    let too_long = async {
        Timer::after(grace()).await;
    };
    too_long.or(until_signal_to_end(&mut signals, &news)).await;
    let _ = news.try_send(News::GraceOver);
    Timer::after(CLOSING_MAX).await;
    log::error!("ended by force: work was still under way {} s after the grace", CLOSING_MAX.as_secs());
    crate::log::finish();
    let _ = fs::remove_file(socket);
    process::exit(1);
}

async fn until_signal_to_end(signals: &mut Signals, news: &Sender<News>) {
    while let Some(Ok(Signal::Hup)) = signals.next().await {
        let _ = news.try_send(News::ReadAgain);
    }
}
