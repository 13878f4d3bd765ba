//! The frames of the control socket, over which the tool has a running service carry out its commands.
//!
//! ```text
//! frame    length u32   of what follows
//!          protocol u32 which version of Request and Answer follows
//!          body         bincode: a Request, or an Answer
//! ```
//! In the length of an answer the highest bit is 0. Where it is 1 the frame tells how far the work is (`Working`), and
//! others follow: the answer is the last one. Numbers are little endian. A connection carries one request and its
//! answer; behind a request to deliver stand as many octets of content as it says. A request for a backup has the
//! descriptor of its file with it (SCM_RIGHTS, unix(7)), sent with its first octets: the service never opens a path
//! that an administrator typed, for it may see another file system, and may do less. In front of the answer stands one
//! octet ([`TAKEN`]), sent as soon as the request has been understood: where it does not come, nothing is carried out,
//! and the request may be sent again.
//!
//! Invariants:
//! - a forged, cut or overlong frame is an error: it is never allocated for beyond the bounds below, and
//!   nothing of it is carried out;
//! - a body is wholly used up by what is decoded from it.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian, standard};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};

use crate::admin::reply::Code;
use crate::admin::{Refusal, Reply, Request, Submission, Working};

/// Grows whenever the types in the frames change.
pub const PROTOCOL: u32 = 15;
/// The length that stands in front of a frame.
pub const LENGTH_OCTETS: usize = 4;
/// What the service sends before it carries a request out.
pub const TAKEN: u8 = b'+';
/// Longest request after its length.
pub const REQUEST_OCTETS_MAX: usize = 1 << 20;
/// Longest answer after its length: the list of a million mailboxes.
pub const ANSWER_OCTETS_MAX: usize = 64 << 20;
/// Longest frame that tells how far the work is, after its length.
const WORKING_OCTETS_MAX: usize = 1 << 10;
/// The bit in the last octet of the length that marks such a frame.
const WORKING_BIT: u8 = 0x80;
/// What decoding an answer may allocate; rows are larger in memory than in a frame.
const ANSWER_MEMORY_MAX: usize = 2 * ANSWER_OCTETS_MAX;
/// How long the tool waits for a service to take its request. A service takes them at once, unless many others are
/// under way.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long it then waits for the next octets. Deleting a domain with very much mail is one silence.
pub const SILENCE_MAX: Duration = Duration::from_secs(600);

/// What the tool asks of the service.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Job {
    Request(Request),
    /// Deliver the message whose content follows.
    Delivery(Submission),
}

/// What became of a command that a service carried out.
pub type Answer = Result<Reply, Refusal>;

/// Why a frame is not what it should be.
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
    /// Nobody listens, the socket may not be used, or the service went before it took the request: nothing was done.
    NotTaken(io::Error),
    /// The service did not take the request in this time, and will not any more: nothing was done.
    Silent(Duration),
    /// The connection broke, or nothing came for [`SILENCE_MAX`], after the request was taken: nobody knows whether it
    /// was carried out.
    Broken(io::Error),
    BadAnswer(BadFrame),
}

/// A whole request. One that is longer than it may be is an error.
pub fn encode_request(job: &Job) -> Result<Vec<u8>, BadFrame> {
    frame(job, REQUEST_OCTETS_MAX)
}

/// A whole answer. One that is too long for a frame becomes a refusal that says so.
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    frame(answer, ANSWER_OCTETS_MAX).unwrap_or_else(|_| {
        let too_long: Answer =
            Err(Refusal::new(Code::Fault, "the answer is too long for the control socket")
                .with_hint("Stop the service and try again"));
        frame(&too_long, ANSWER_OCTETS_MAX).expect("a refusal is short")
    })
}

/// A whole frame that tells how far the work is.
pub fn encode_working(working: &Working) -> Vec<u8> {
    let mut frame = frame(working, WORKING_OCTETS_MAX).expect("the names of stages are short");
    frame[LENGTH_OCTETS - 1] |= WORKING_BIT;
    frame
}

/// How many octets of a request follow its length.
pub fn request_octets(length: [u8; LENGTH_OCTETS]) -> Result<usize, BadFrame> {
    bounded(length, REQUEST_OCTETS_MAX)
}

/// How many octets of an answer follow its length.
pub fn answer_octets(length: [u8; LENGTH_OCTETS]) -> Result<usize, BadFrame> {
    bounded(length, ANSWER_OCTETS_MAX)
}

/// Reads what follows the length of a request.
pub fn decode_request(octets: &[u8]) -> Result<Job, BadFrame> {
    decode(body(octets)?, coding::<REQUEST_OCTETS_MAX>())
}

/// Reads what follows the length of an answer.
pub fn decode_answer(octets: &[u8]) -> Result<Answer, BadFrame> {
    decode(body(octets)?, coding::<ANSWER_MEMORY_MAX>())
}

/// What goes to the service together with a request.
#[derive(Clone, Copy, Debug)]
pub enum Enclosed<'a> {
    Nothing,
    /// The content of a message to deliver.
    Content(&'a [u8]),
    /// The file to write a backup into.
    File(&'a File),
}

/// Has the service that listens on `socket` carry out a request, and waits for its answer. A service that has not taken
/// the request after `patience` is given up. `told` hears how far a long work is, now and then.
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

/// Connects without waiting: a service that hangs lets connections queue until there is no room for one more.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&stream, &SocketAddrUnix::new(socket)?)?;
    let stream = UnixStream::from(stream);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Sends the request, and waits for it to be taken.
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
            // From here on the service cannot say that it takes the request, and without that it does nothing. It may
            // have said so just now.
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
        // A service that refuses the request does not read the content; its answer says why.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// Sends some of the octets, at least one, with the descriptor; how many.
fn send_with_file(stream: &UnixStream, octets: &[u8], file: &File) -> io::Result<usize> {
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    Ok(sendmsg(stream, &[IoSlice::new(octets)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives some octets, and the descriptor that came with them, if one did. More than one are closed.
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
    frame.extend(bincode::encode_to_vec(value, config).expect("memory takes what memory holds"));
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
            Self::TooLong => f.write_str("a frame of the control socket is too long"),
            Self::OtherProtocol(_) => {
                f.write_str("the running service is of another version than this tool. Restart the service")
            }
            Self::Malformed => f.write_str("a frame of the control socket makes no sense"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::admin::commands::{Add, ChangePwd, Delete, Get, List, Set};
    use crate::admin::reply::{
        Changed, Connections, DomainLine, Lock, LockedBy, MailboxLine, Removed, Server, ServiceState,
    };
    use crate::admin::{Entry, Op, Submission};

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
            Request::Backup { file: "/a b".into() },
            Request::Check,
            Request::Compact,
        ];
        let requests = ops.into_iter().map(Request::Command).chain(others);
        requests.map(Job::Request).chain([Job::Delivery(submission)]).collect()
    }

    fn answers() -> Vec<Answer> {
        let domain = DomainLine {
            domain: "example.com".into(),
            unicode: None,
            lock: Lock(Some(LockedBy::Domain)),
            mailboxes: 1,
            messages: u64::MAX,
            octets: 3,
        };
        let statistics = Box::new(Server {
            service: ServiceState::default(),
            domains: 1,
            mailboxes: 2,
            messages: 3,
            octets: 4,
            deleted: Removed { mailboxes: 1, messages: 2, octets: 3 },
            file_octets: 5,
            allocated_octets: 6,
            copy_good_below_seconds: Some(7),
            copy_kept_octets: 8,
            connections: Some(Connections::default()),
            certificate: None,
            adoption: None,
            directory: None,
        });
        let mailbox = MailboxLine {
            mailbox: "bob@example.com".into(),
            unicode: None,
            lock: Lock(None),
            messages: 3,
            octets: 4,
            last_login_unix_seconds: Some(5),
            quota: None,
            has_password: true,
            is_whole: true,
        };
        vec![
            Err(Refusal::new(Code::Exists, "it is there").with_hint("Delete it")),
            Ok(Reply::Changed(Changed {
                action: "delete".into(),
                name: "example.com".into(),
                message: "gone".into(),
                removed: Some(Removed { mailboxes: 1, messages: 2, octets: 3 }),
                notes: vec!["a".into(), "b".into()],
            })),
            Ok(Reply::Server { statistics, domains: vec![domain.clone()] }),
            Ok(Reply::Domain { statistics: domain, mailboxes: vec![mailbox; 3] }),
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
    fn forged_frames_are_survived() {
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
        let scratch = tempfile::tempdir().unwrap();
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
        let scratch = tempfile::tempdir().unwrap();
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
    fn nobody_waits_for_room_to_connect() {
        let scratch = tempfile::tempdir().unwrap();
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
