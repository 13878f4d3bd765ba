//! The frames of the control socket, over which the tool sends its commands to a running service.
//!
//! ```text
//! frame    length u32   of what follows
//!          protocol u32 the version of Job and Answer
//!          body         bincode: a Job or an Answer
//! ```
//! Numbers are little endian. A connection carries one [`Job`] and its answer. A delivery is followed by as many octets
//! of content as it announces. A request with a file carries the file's descriptor (SCM_RIGHTS, unix(7)) with its first
//! octets: the service never opens a path that an administrator typed, because it may see other file systems and have
//! fewer rights.
//!
//! As soon as it has understood the job, the service sends one octet ([`TAKEN`]). If that does not arrive, nothing is
//! carried out and the job may be sent again. Frames whose length has its highest bit set report progress
//! ([`Working`]); the answer, without that bit, comes last.
//!
//! Invariants:
//! - a forged, cut or overlong frame is an error; it never makes us allocate beyond the bounds below, and nothing in it
//!   is carried out;
//! - decoding uses up the whole body.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian, standard};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};

use crate::admin::reply::Code;
use crate::admin::{Refusal, Reply, Request, Submission, Working};

/// Incremented whenever the types in the frames change.
pub const PROTOCOL: u32 = 15;
/// Octets of the length before each frame.
pub const LENGTH_OCTETS: usize = 4;
/// The service sends this before it carries a job out.
pub const TAKEN: u8 = b'+';
/// Longest job, without its length.
pub const REQUEST_OCTETS_MAX: usize = 1 << 20;
/// Longest answer, without its length: a list of a million mailboxes.
pub const ANSWER_OCTETS_MAX: usize = 64 << 20;
/// Longest progress frame, without its length.
const WORKING_OCTETS_MAX: usize = 1 << 10;
/// Longest path in a socket's address, in octets (unix(7)).
const ADDRESS_OCTETS_MAX: usize = 107;
/// Marks a progress frame, in the last octet of its length.
const WORKING_BIT: u8 = 0x80;
/// How much decoding an answer may allocate; rows are larger in memory than in a frame.
const ANSWER_MEMORY_MAX: usize = 2 * ANSWER_OCTETS_MAX;
/// How long the tool waits for the service to take its job, which is immediate unless many others are under way.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long it then waits for the next octets. Deleting a large domain is one long silence.
pub const SILENCE_MAX: Duration = Duration::from_secs(600);

/// What the tool asks of the service.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Job {
    Request(Request),
    /// Deliver the message whose content follows.
    Delivery(Submission),
}

/// The outcome of a job.
pub type Answer = Result<Reply, Refusal>;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    TooLong,
    /// The other side speaks another version of the protocol.
    OtherProtocol(u32),
    Malformed,
}

/// Why the service gave no answer.
#[derive(Debug)]
pub enum CallError {
    /// No service is listening, we may not use the socket, or the service ended before it took the job. Nothing was
    /// done.
    NotTaken(io::Error),
    /// The service did not take the job in this time, and no longer can. Nothing was done.
    Silent(Duration),
    /// The connection broke or was silent for [`SILENCE_MAX`] after the job was taken. It may or may not have been
    /// done.
    Broken(io::Error),
    BadAnswer(BadFrame),
}

/// A whole job, with its length. An error if it is too long.
pub fn encode_request(job: &Job) -> Result<Vec<u8>, BadFrame> {
    frame(job, REQUEST_OCTETS_MAX)
}

/// A whole answer, with its length. One that is too long becomes a refusal that says so.
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    frame(answer, ANSWER_OCTETS_MAX).unwrap_or_else(|_| {
        let too_long: Answer = Err(Refusal::new(Code::Fault, "the answer is too long to send")
            .with_hint("Stop the service and try again"));
        frame(&too_long, ANSWER_OCTETS_MAX).expect("a refusal is short")
    })
}

/// A whole progress frame, with its length.
pub fn encode_working(working: &Working) -> Vec<u8> {
    let mut frame = frame(working, WORKING_OCTETS_MAX).expect("the names of stages are short");
    frame[LENGTH_OCTETS - 1] |= WORKING_BIT;
    frame
}

/// Octets of a job that follow its length.
pub fn request_octets(length: [u8; LENGTH_OCTETS]) -> Result<usize, BadFrame> {
    bounded(length, REQUEST_OCTETS_MAX)
}

/// Octets of an answer that follow its length.
pub fn answer_octets(length: [u8; LENGTH_OCTETS]) -> Result<usize, BadFrame> {
    bounded(length, ANSWER_OCTETS_MAX)
}

/// Decodes a job, without its length.
pub fn decode_request(octets: &[u8]) -> Result<Job, BadFrame> {
    decode(body(octets)?, coding::<REQUEST_OCTETS_MAX>())
}

/// Decodes an answer, without its length.
pub fn decode_answer(octets: &[u8]) -> Result<Answer, BadFrame> {
    decode(body(octets)?, coding::<ANSWER_MEMORY_MAX>())
}

/// What accompanies a job.
#[derive(Clone, Copy, Debug)]
pub enum Enclosed<'a> {
    Nothing,
    /// The content of a message to deliver.
    Content(&'a [u8]),
    /// A file to read from or write to.
    File(&'a File),
}

/// Sends a job to the service that listens on `socket`, and waits for the answer. Gives up if the service has not taken
/// the job within `patience`. `told` hears the progress of long jobs.
pub fn call(
    socket: &Path,
    job: &Job,
    enclosed: Enclosed,
    patience: Duration,
    told: &mut dyn FnMut(Working),
) -> Result<Answer, CallError> {
    let request = encode_request(job).map_err(CallError::BadAnswer)?;
    let mut stream = connect(socket).map_err(CallError::NotTaken)?;
    ask(&mut stream, &request, enclosed, patience)?;
    if let Enclosed::Content(content) = enclosed {
        send_content(&mut stream, content).map_err(CallError::Broken)?;
    }
    let answer = read_answer(&mut stream, told).map_err(CallError::Broken)?;
    answer.and_then(|octets| decode_answer(&octets)).map_err(CallError::BadAnswer)
}

/// Calls `use_path` with a path to the socket that fits into a socket's address. A long one leads through its open
/// directory: a mail store's path may be longer than an address.
pub fn by_short_path<T>(socket: &Path, use_path: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    match (socket.parent(), socket.file_name()) {
        (Some(directory), Some(name)) if socket.as_os_str().len() > ADDRESS_OCTETS_MAX => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(directory, flags, Mode::empty())?;
            let directory = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
            use_path(&directory.join(name))
        }
        _ => use_path(socket),
    }
}

/// Connects without waiting. If the service hangs and its queue is full, the error is `WouldBlock`.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    by_short_path(socket, |path| Ok(rustix::net::connect(&stream, &SocketAddrUnix::new(path)?)?))?;
    let stream = UnixStream::from(stream);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Sends the job and waits until it is taken.
fn ask(
    stream: &mut UnixStream,
    request: &[u8],
    enclosed: Enclosed,
    patience: Duration,
) -> Result<(), CallError> {
    let sent = send_request(stream, request, enclosed, patience);
    let mut taken = [0];
    match sent.and_then(|()| stream.read_exact(&mut taken)) {
        Ok(()) if taken == [TAKEN] => Ok(()),
        Ok(()) => Err(CallError::NotTaken(io::ErrorKind::InvalidData.into())),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            // From here on the service cannot say that it takes the job, so it will do nothing. But it may have said so
            // just before.
            stream.shutdown(Shutdown::Read).map_err(CallError::NotTaken)?;
            match stream.read(&mut taken) {
                Ok(1) => Err(CallError::Broken(io::ErrorKind::TimedOut.into())),
                _ => Err(CallError::Silent(patience)),
            }
        }
        Err(e) => Err(CallError::NotTaken(e)),
    }
}

fn send_request(
    stream: &mut UnixStream,
    request: &[u8],
    enclosed: Enclosed,
    patience: Duration,
) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let sent = match enclosed {
        Enclosed::File(file) => send_with_file(stream, request, file)?,
        Enclosed::Nothing | Enclosed::Content(_) => 0,
    };
    stream.write_all(&request[sent..])
}

fn send_content(stream: &mut UnixStream, content: &[u8]) -> io::Result<()> {
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    match stream.write_all(content) {
        // A service that refuses the delivery does not read the content; its answer says why.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// Sends the descriptor with some of the octets, at least one. Returns how many.
fn send_with_file(stream: &UnixStream, octets: &[u8], file: &File) -> io::Result<usize> {
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    Ok(sendmsg(stream, &[IoSlice::new(octets)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives some octets and the descriptor with them, if there is one. Further descriptors are closed.
pub fn receive_with_file(stream: &UnixStream, octets: &mut [u8]) -> io::Result<(usize, Option<File>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(octets)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    Ok((received.bytes, files.last().map(File::from)))
}

fn read_answer(
    stream: &mut UnixStream,
    told: &mut dyn FnMut(Working),
) -> io::Result<Result<Vec<u8>, BadFrame>> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    loop {
        let mut length = [0; LENGTH_OCTETS];
        stream.read_exact(&mut length)?;
        let is_answer = length[LENGTH_OCTETS - 1] & WORKING_BIT == 0;
        length[LENGTH_OCTETS - 1] &= !WORKING_BIT;
        let octets = if is_answer { answer_octets(length) } else { bounded(length, WORKING_OCTETS_MAX) };
        let octets = match octets {
            Ok(octets) => octets,
            Err(bad) => return Ok(Err(bad)),
        };
        let mut frame = Vec::new();
        stream.take(octets as u64).read_to_end(&mut frame)?;
        if frame.len() < octets {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if is_answer {
            return Ok(Ok(frame));
        }
        match body(&frame).and_then(|body| decode(body, coding::<WORKING_OCTETS_MAX>())) {
            Ok(working) => told(working),
            Err(bad) => return Ok(Err(bad)),
        }
    }
}

fn coding<const LIMIT: usize>() -> Configuration<LittleEndian, Fixint, Limit<LIMIT>> {
    standard().with_fixed_int_encoding().with_limit::<LIMIT>()
}

fn frame(value: &impl bincode::Encode, octets_max: usize) -> Result<Vec<u8>, BadFrame> {
    let config = standard().with_fixed_int_encoding();
    let mut frame = vec![0; LENGTH_OCTETS];
    frame.extend(PROTOCOL.to_le_bytes());
    frame.extend(bincode::encode_to_vec(value, config).expect("writing to memory does not fail"));
    let octets = frame.len() - LENGTH_OCTETS;
    if octets > octets_max {
        return Err(BadFrame::TooLong);
    }
    let length = u32::try_from(octets).expect("the bounds are below 4 GiB");
    frame[..LENGTH_OCTETS].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

fn bounded(length: [u8; LENGTH_OCTETS], octets_max: usize) -> Result<usize, BadFrame> {
    let octets = u32::from_le_bytes(length) as usize;
    if octets > octets_max { Err(BadFrame::TooLong) } else { Ok(octets) }
}

fn body(octets: &[u8]) -> Result<&[u8], BadFrame> {
    let (protocol, body) = octets.split_first_chunk().ok_or(BadFrame::Malformed)?;
    match u32::from_le_bytes(*protocol) {
        PROTOCOL => Ok(body),
        other => Err(BadFrame::OtherProtocol(other)),
    }
}

fn decode<T: bincode::Decode<()>>(body: &[u8], config: impl bincode::config::Config) -> Result<T, BadFrame> {
    match bincode::decode_from_slice(body, config) {
        Ok((value, used)) if used == body.len() => Ok(value),
        _ => Err(BadFrame::Malformed),
    }
}

impl From<BadFrame> for Refusal {
    fn from(bad: BadFrame) -> Self {
        Refusal::new(Code::Fault, bad.to_string())
    }
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("a message on the control socket is too long"),
            Self::OtherProtocol(_) => f.write_str(
                "the running service is a different version from this command. Restart the service",
            ),
            Self::Malformed => f.write_str("a message on the control socket is malformed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::admin::commands::{Add, ChangePwd, Delete, Get, List, Set};
    use crate::admin::reply::{Changed, DomainLine, Removed};
    use crate::admin::{Entry, Op, Submission};
    use crate::tests::{replies, scratch};

    fn requests() -> Vec<Job> {
        let ops = vec![
            Op::Add(Add {
                name: Some("bob@example.com".into()),
                createuser: Some("-x/ y".to_owned().into()),
                file: None,
                passwords: None,
            }),
            Op::Delete(Delete { name: "example.com".into(), deleteuser: false, y: true }),
            Op::List(List { domain: None, all: false }),
            Op::ChangePwd(ChangePwd { name: "ä".into(), password: None }),
            Op::Set(Set {
                key: "socket".into(),
                values: vec!["1".into(), "2".into()],
                move_mail: false,
                force: false,
            }),
            Op::Get(Get { key: Some("port".into()) }),
        ];
        let submission = Submission {
            reverse_path: String::new(),
            recipients: vec!["bob@example.com".into(), String::new()],
            to_each: true,
            octets: u64::MAX,
        };
        let entry = Entry { line: 7, name: "bob@example.com".into(), password: Some("a".to_owned().into()) };
        let others = [
            Request::AddMany(vec![entry]),
            Request::Mailboxes { domain: Some("example.com".into()) },
            Request::Backup { file: "/a b".into() },
            Request::Check,
            Request::Compact,
        ];
        let requests = ops.into_iter().map(Request::Command).chain(others);
        requests.map(Job::Request).chain([Job::Delivery(submission)]).collect()
    }

    fn answers() -> Vec<Answer> {
        let domain = DomainLine { messages: u64::MAX, ..replies::domain() };
        vec![
            Err(Refusal::new(Code::Exists, "it is there").with_hint("Delete it")),
            Ok(Reply::Changed(Changed {
                action: "delete".into(),
                name: "example.com".into(),
                message: "gone".into(),
                removed: Some(Removed { mailboxes: 1, messages: 2, octets: 3 }),
                notes: vec!["a".into(), "b".into()],
            })),
            Ok(Reply::Server { statistics: replies::server(true), domains: vec![domain.clone()] }),
            Ok(Reply::Domain {
                statistics: domain,
                mailboxes: vec![replies::mailbox(); 3],
                accounts_error: None,
            }),
        ]
    }

    fn after_length(frame: &[u8]) -> &[u8] {
        &frame[LENGTH_OCTETS..]
    }

    #[test]
    fn what_is_sent_is_what_arrives() {
        for request in requests() {
            let frame = encode_request(&request).unwrap();
            assert_eq!(request_octets(*frame.first_chunk().unwrap()), Ok(frame.len() - LENGTH_OCTETS));
            assert_eq!(decode_request(after_length(&frame)), Ok(request));
        }
        for answer in answers() {
            let frame = encode_answer(&answer);
            assert_eq!(answer_octets(*frame.first_chunk().unwrap()), Ok(frame.len() - LENGTH_OCTETS));
            assert_eq!(decode_answer(after_length(&frame)), Ok(answer));
        }
    }

    #[test]
    fn a_cut_or_lengthened_frame_is_refused() {
        for request in requests() {
            let mut frame = encode_request(&request).unwrap();
            for end in LENGTH_OCTETS..frame.len() {
                assert!(decode_request(&frame[LENGTH_OCTETS..end]).is_err(), "{request:?} cut at {end}");
            }
            frame.push(0);
            assert_eq!(decode_request(after_length(&frame)), Err(BadFrame::Malformed));
        }
    }

    /// Forged lengths of texts and lists must not be allocated for, and nothing may panic.
    #[test]
    fn forged_frames_do_no_harm() {
        let mut random = fastrand::Rng::with_seed(7);
        let requests = requests().into_iter().map(|request| encode_request(&request).unwrap());
        let frames: Vec<Vec<u8>> = requests.chain(answers().iter().map(encode_answer)).collect();
        for _ in 0..50_000 {
            let mut forged = after_length(random.choice(&frames).unwrap()).to_vec();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(4..forged.len());
                let any = random.u8(..);
                forged[at] = random.choice([0, 1, 0x7f, 0x80, 0xff, any]).unwrap();
            }
            // Whatever still decodes is made of the same octets.
            if let Ok(request) = decode_request(&forged) {
                assert_eq!(after_length(&encode_request(&request).unwrap()), forged);
            }
            if let Ok(answer) = decode_answer(&forged) {
                assert_eq!(after_length(&encode_answer(&answer)), forged);
            }
        }
    }

    #[test]
    fn another_protocol_and_an_overlong_frame_are_told_apart() {
        let mut frame = encode_request(&requests()[0]).unwrap();
        frame[LENGTH_OCTETS] += 1;
        assert_eq!(decode_request(after_length(&frame)), Err(BadFrame::OtherProtocol(PROTOCOL + 1)));
        assert_eq!(request_octets(u32::MAX.to_le_bytes()), Err(BadFrame::TooLong));
        let key = "x".repeat(REQUEST_OCTETS_MAX);
        assert_eq!(
            encode_request(&Job::Request(Request::Command(Op::Get(Get { key: Some(key) })))),
            Err(BadFrame::TooLong)
        );
    }

    #[test]
    fn a_service_that_ends_before_it_answers_is_not_taken_for_one_that_never_ran() {
        let scratch = scratch::directory();
        let socket = scratch.path().join("socket");
        let mut told = Vec::new();
        assert!(matches!(
            call(&socket, &requests()[0], Enclosed::Nothing, PATIENCE, &mut |working| told.push(working)),
            Err(CallError::NotTaken(_))
        ));

        let reached = Working { stage: "reading".into(), is_in_octets: true, done: 1, total: u64::MAX };
        let report = encode_working(&reached);
        let listener = UnixListener::bind(&socket).unwrap();
        let service = std::thread::spawn(move || {
            for (taken, answer) in [(false, None), (true, None), (true, Some(answers().remove(0)))] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; encode_request(&requests()[0]).unwrap().len()];
                stream.read_exact(&mut request).unwrap();
                if taken {
                    stream.write_all(&[TAKEN]).unwrap();
                }
                if let Some(answer) = answer {
                    stream.write_all(&report.repeat(2)).unwrap();
                    stream.write_all(&encode_answer(&answer)).unwrap();
                }
            }
        });
        assert!(matches!(
            call(&socket, &requests()[0], Enclosed::Nothing, PATIENCE, &mut |working| told.push(working)),
            Err(CallError::NotTaken(_))
        ));
        assert!(matches!(
            call(&socket, &requests()[0], Enclosed::Nothing, PATIENCE, &mut |working| told.push(working)),
            Err(CallError::Broken(_))
        ));
        assert_eq!(
            call(&socket, &requests()[0], Enclosed::Nothing, PATIENCE, &mut |working| told.push(working))
                .unwrap(),
            answers().remove(0)
        );
        service.join().unwrap();
        assert_eq!(told, [reached.clone(), reached]);
        // The file is left, as after a crash, and nobody listens.
        assert!(matches!(
            call(&socket, &requests()[0], Enclosed::Nothing, PATIENCE, &mut |working| told.push(working)),
            Err(CallError::NotTaken(_))
        ));
    }

    #[test]
    fn a_service_that_hangs_is_given_up_and_carries_nothing_out_later() {
        let scratch = scratch::directory();
        let socket = scratch.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let patience = Duration::from_millis(50);
        let content = vec![b'x'; 4 << 20];
        let outcome = call(&socket, &requests()[0], Enclosed::Content(&content), patience, &mut |_| {});
        assert!(matches!(outcome, Err(CallError::Silent(given)) if given == patience), "{outcome:?}");
        // It wakes up, reads the request, and cannot say that it takes it.
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; encode_request(&requests()[0]).unwrap().len()];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(stream.write_all(&[TAKEN]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_path_of_a_socket_may_be_longer_than_its_address() {
        let scratch = scratch::directory();
        let mailroot = scratch.path().join("m".repeat(2 * ADDRESS_OCTETS_MAX));
        std::fs::create_dir(&mailroot).unwrap();
        let socket = mailroot.join("winpop.sock");
        let _listener = by_short_path(&socket, |path| UnixListener::bind(path)).unwrap();
        assert!(socket.exists());
        connect(&socket).unwrap();
    }

    #[test]
    fn nobody_waits_for_room_to_connect() {
        let scratch = scratch::directory();
        let socket = scratch.path().join("socket");
        let flags = SocketFlags::CLOEXEC;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let mut queued = Vec::new();
        let full = loop {
            match connect(&socket) {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
