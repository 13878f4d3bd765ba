//! Serves the control socket: administrators' commands, run by the service because it has the data file open.
//!
//! Only root and the service's own user may give commands, whatever mode the socket file has.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_io::Async;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::lock::{Semaphore, SemaphoreGuardArc};

use super::Service;
use super::connection::within;
use crate::admin::audit::{self, Who};
use crate::admin::reply::Code;
use crate::admin::{self, Context, Refusal, Request, Submission};
use crate::control::{self, Answer, BadFrame, Job, LENGTH_OCTETS};
use crate::intake::Spooling;
use crate::log::About;
use crate::store::Progress;

/// How long a request may take to arrive.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// How long an answer may take to be read.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How often a long command reports its progress.
const TELLING_INTERVAL: Duration = Duration::from_millis(250);
/// Read size of a message to deliver.
const CONTENT_READ_OCTETS: usize = 64 << 10;
/// Commands running at a time; more wait.
const COMMANDS_MAX: usize = 8;
/// Messages accepted from `deliver` at a time. Apart from other commands: a slow one must not make an administrator
/// wait.
const DELIVERIES_MAX: usize = 64;
/// Messages that may wait for their turn; one more is refused.
const DELIVERIES_WAITING_MAX: usize = 1024;

/// Binds the control socket. Replaces a file left by a crash: this process holds the lock on the data file, so no other
/// service uses it.
pub fn bind(path: &Path) -> io::Result<Async<UnixListener>> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = control::by_short_path(path, |path| UnixListener::bind(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Async::new(listener)
}

/// Takes commands for as long as the task lives.
pub async fn listen(service: Arc<Service>, listener: Async<UnixListener>) {
    let turns = Arc::new(Semaphore::new(COMMANDS_MAX));
    let deliveries = Arc::new(Deliveries {
        turns: Semaphore::new(DELIVERIES_MAX),
        places: Semaphore::new(DELIVERIES_MAX + DELIVERIES_WAITING_MAX),
    });
    loop {
        let turn = turns.acquire_arc().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                super::accept::note_accepted();
                let command = hear(service.clone(), stream, turn, deliveries.clone());
                let hearing = async move {
                    // The other end has gone: a probe, or an administrator who has stopped waiting.
                    if let Err(e) = command.await {
                        log::info!("a connection to the control socket ended early: {e}");
                    }
                };
                service.workers.spawn(hearing).detach();
            }
            Err(e) => super::accept::pause_after(&e).await,
        }
    }
}

struct Deliveries {
    turns: Semaphore,
    /// Held with a turn and while waiting for one.
    places: Semaphore,
}

async fn hear(
    service: Arc<Service>,
    mut stream: Async<UnixStream>,
    turn: SemaphoreGuardArc,
    deliveries: Arc<Deliveries>,
) -> io::Result<()> {
    // Not through rustix: a process outside our PID namespace appears with id 0 here, which its type cannot hold.
    let peer = getsockopt(stream.get_ref(), PeerCredentials)?;
    if ![0, rustix::process::geteuid().as_raw()].contains(&peer.uid()) {
        log::warn!("refused a command from user {}, who may not give any", peer.uid());
        return Ok(());
    }
    let request = within(REQUEST_MAX, read_request(&mut stream)).await?;
    // The end of the service now waits for this command.
    let Some(_pass) = service.commands.enter() else { return Ok(()) };
    send(&mut stream, &[control::TAKEN]).await?;
    let answer = match request {
        Ok((Job::Delivery(submission), _)) => {
            drop(turn);
            match deliveries.places.try_acquire() {
                Some(_place) => {
                    let _turn = deliveries.turns.acquire().await;
                    deliver(&service, &mut stream, &submission).await?
                }
                None => Err(Refusal::new(Code::Busy, "too many messages are waiting to be delivered")),
            }
        }
        Ok((Job::Request(request), file)) => {
            let who = Who { user: peer.uid(), process: peer.pid().unsigned_abs() };
            let progress = Arc::new(Progress::default());
            let is_long = request.is_long();
            let work = smol::unblock({
                let progress = progress.clone();
                move || carry_out(&service, &request, file, who, &progress)
            });
            match is_long {
                true => tell(&mut stream, &progress, work).await,
                false => work.await,
            }
        }
        Err(bad) => Err(bad.into()),
    };
    send(&mut stream, &control::encode_answer(&answer)).await
}

/// Bounded, so that a stopped process of an administrator does not keep a command's turn.
async fn send(stream: &mut Async<UnixStream>, octets: &[u8]) -> io::Result<()> {
    within(ANSWER_MAX, stream.write_all(octets)).await
}

/// Waits for the work, and reports its progress while the tool listens. If the tool goes away, the work still finishes.
async fn tell(stream: &mut Async<UnixStream>, progress: &Progress, mut work: smol::Task<Answer>) -> Answer {
    let mut is_heard = true;
    loop {
        let done = async { Some((&mut work).await) };
        let time_to_tell = async {
            smol::Timer::after(TELLING_INTERVAL).await;
            None
        };
        match smol::future::or(done, time_to_tell).await {
            Some(answer) => return answer,
            // Not raced against the work: a frame once begun must be sent whole.
            None if is_heard => {
                let working = progress.reached().into();
                is_heard = send(stream, &control::encode_working(&working)).await.is_ok();
            }
            None => {}
        }
    }
}

/// Reads a job and the file that came with it.
async fn read_request(stream: &mut Async<UnixStream>) -> io::Result<Result<(Job, Option<File>), BadFrame>> {
    let mut length = [0; LENGTH_OCTETS];
    let (received, file) = stream.read_with(|stream| control::receive_with_file(stream, &mut length)).await?;
    if received == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.read_exact(&mut length[received..]).await?;
    let octets = match control::request_octets(length) {
        Ok(octets) => octets,
        Err(bad) => return Ok(Err(bad)),
    };
    let mut request = vec![0; octets];
    stream.read_exact(&mut request).await?;
    Ok(control::decode_request(&request).map(|job| (job, file)))
}

/// Reads the message that follows the request and delivers it.
async fn deliver(
    service: &Arc<Service>,
    stream: &mut Async<UnixStream>,
    submission: &Submission,
) -> io::Result<Answer> {
    let settings = service.settings();
    let mut receiver = admin::receiver(&settings);
    let mut spooling = Spooling::new(service.mailroot.dir.clone(), About(None));
    let mut content = stream.take(submission.octets);
    let mut piece = vec![0; CONTENT_READ_OCTETS];
    let mut left = submission.octets;
    while left > 0 {
        match within(REQUEST_MAX, content.read(&mut piece)).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                receiver.push(&piece[..count]);
                left -= count as u64;
            }
        }
        spooling.relieve(&mut receiver).await;
    }
    let text = match receiver.finish() {
        Ok(text) => spooling.finish(text).await,
        Err(refusal) => Err(refusal),
    };
    Ok(admin::deliver(&service.store, &settings, submission, text).await)
}

fn carry_out(
    service: &Arc<Service>,
    request: &Request,
    file: Option<File>,
    who: Who,
    progress: &Progress,
) -> Answer {
    let answer = Context::of_now(&service.mailroot, &service.accounts.keyring, Some(service))
        .and_then(|context| request.run(&service.store, &context, file, progress));
    audit::record(request.trail().as_deref(), who, answer.as_ref());
    answer
}
