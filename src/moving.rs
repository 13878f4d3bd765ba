//! Fetches a mailbox's mail from its old POP3 server, for an administrator's import and for users the service adopts.
//! Deletes nothing there.
//!
//! - Messages keep their unique ids and their order. Those whose ids are here already are not fetched again.
//! - After a broken connection a new one fetches the rest, as long as that makes progress.
//! - If the server fails to deliver a message, a new list is fetched. If the message is gone from it, its owner has
//!   deleted it. Otherwise it is tried once more, and then skipped and reported.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::rustls::ClientConfig;
use rustix::fs::{MemfdFlags, memfd_create};
use smol::Timer;
use zeroize::Zeroizing;

use crate::address::Address;
use crate::admin::reply::{Code, ImportSummary, SkippedFile};
use crate::admin::{
    Announced, BATCH_MESSAGES_MAX, BATCH_OCTETS_MAX, Batch, MESSAGE_OCTETS_MAX, Refusal, Reply,
};
use crate::pop3_client::{Listed, Server, Session, Trouble};
use crate::store::UnixTime;

/// How often a server without progress is tried, and the pause before a try, multiplied by the number of tries so far.
const TRIES_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Messages of a mailbox the server may fail to deliver. More than that means that something else is wrong.
const NOT_GIVEN_MAX: usize = 100;

/// A mailbox on the old server.
pub struct Source {
    pub server: Server,
    /// Not needed with `pop3+clear`.
    pub tls: Option<Arc<ClientConfig>>,
    pub login: String,
    pub password: Zeroizing<String>,
}

impl Source {
    pub async fn open(&self) -> Result<Session, Trouble> {
        Session::open(&self.server, self.tls.as_ref(), &self.login, &self.password).await
    }
}

/// Where the mail goes: into the store, by the service itself or through it.
pub trait Destination: Send + Sync {
    /// Stores a batch whose texts are in the file. Blocks.
    fn take(&self, batch: Batch, texts: File) -> Result<Reply, Refusal>;
}

/// Why some mail is missing. Everything that arrived is stored.
#[derive(Debug)]
pub enum Failure {
    /// The old server refuses name and password, with these words.
    Refused(String),
    /// The old server cannot be used: a sentence.
    Unavailable(String),
    Here(Refusal),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(why) => Self::Refused(why),
            Trouble::Unavailable(why) => Self::Unavailable(why),
            Trouble::Here(error) => Self::Here(Refusal::fault(error)),
        }
    }
}

/// Fetches what is missing into an existing mailbox, which has the unique ids `known`. `session` is an open session to
/// use first, if any. `told` is called with the messages and octets that have just arrived.
pub async fn bring(
    source: &Source,
    session: Option<Session>,
    mailbox: &Address,
    known: HashSet<String>,
    destination: Arc<dyn Destination>,
    told: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<ImportSummary, Failure> {
    let mut moving = Moving {
        mailbox,
        known,
        destination,
        told,
        summary: ImportSummary { mailboxes: 1, ..ImportSummary::default() },
        not_given: HashMap::new(),
        passes: 0,
    };
    let (mut session, mut tries) = (session, 0);
    loop {
        let before = (moving.summary.messages, moving.not_given.len());
        let passed = match session.take() {
            Some(session) => moving.pass(session).await,
            None => match source.open().await {
                Ok(session) => moving.pass(session).await,
                Err(trouble) => Err(trouble.into()),
            },
        };
        match passed {
            Ok(()) => return Ok(moving.summary),
            Err(Failure::Unavailable(why)) => {
                let has_come_on = before != (moving.summary.messages, moving.not_given.len());
                tries = if has_come_on { 1 } else { tries + 1 };
                if tries > TRIES_MAX || moving.not_given.len() > NOT_GIVEN_MAX {
                    return Err(Failure::Unavailable(why));
                }
                Timer::after(PAUSE * (tries - 1)).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// The listed messages to fetch. If several have the same id, the first keeps it.
pub fn wanted(listed: Vec<Listed>, known: &HashSet<String>) -> Vec<Listed> {
    let mut seen = HashSet::new();
    let mut wanted = Vec::new();
    for mut message in listed {
        message.unique_id = message.unique_id.filter(|id| seen.insert(id.clone()));
        if message.unique_id.as_ref().is_none_or(|id| !known.contains(id)) {
            wanted.push(message);
        }
    }
    wanted
}

/// Identifies a message across lists: by its id or, without one, by its number.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Name {
    Id(String),
    Number(u32),
}

impl Name {
    fn of(message: &Listed) -> Self {
        message.unique_id.clone().map_or(Self::Number(message.number), Self::Id)
    }
}

struct Moving<'a> {
    mailbox: &'a Address,
    known: HashSet<String>,
    destination: Arc<dyn Destination>,
    told: &'a (dyn Fn(u64, u64) + Send + Sync),
    summary: ImportSummary,
    /// How often the server has failed to deliver each of these messages.
    not_given: HashMap<Name, u32>,
    passes: u32,
}

impl Moving<'_> {
    /// Fetches everything missing over one session.
    async fn pass(&mut self, mut session: Session) -> Result<(), Failure> {
        let listed = session.list().await?;
        let count = listed.len();
        let mut messages = wanted(listed, &self.known);
        self.passes += 1;
        if self.passes == 1 {
            self.summary.there_already += (count - messages.len()) as u64;
        }
        messages.retain(|message| self.not_given.get(&Name::of(message)).is_none_or(|times| *times < 2));
        let mut texts = Texts::begin()?;
        let fetched = self.fetch(&mut session, &messages, &mut texts).await;
        // Even after a failure, the messages before it are whole.
        self.store(texts).await?;
        fetched?;
        session.quit().await;
        Ok(())
    }

    async fn fetch(
        &mut self,
        session: &mut Session,
        messages: &[Listed],
        texts: &mut Texts,
    ) -> Result<(), Failure> {
        // Messages without an id have only their text as a name, so identical ones are numbered.
        let mut repeats: HashMap<blake3::Hash, u32> = HashMap::new();
        let mut asked = 0;
        for (at, message) in messages.iter().enumerate() {
            asked += session.ask_ahead(&messages[asked..]).await?;
            let (mut hasher, begin) = (blake3::Hasher::new(), texts.octets);
            let mut sink = |octets: &[u8]| {
                hasher.update(octets);
                texts.append(octets)
            };
            let octets = match session.retrieve(message, &mut sink).await {
                Ok(Ok(octets)) => octets,
                Ok(Err(said)) => {
                    return Err(self.was_not_given(message, &format!("the old server says: {said}")));
                }
                Err(trouble) => {
                    texts.cut(begin)?;
                    return Err(trouble.into());
                }
            };
            // Some servers do not stuff a first line that is a dot. What follows would be taken for replies.
            if octets == 0 && message.octets > 2 {
                let why = "the old server sends it empty, as some do if the first line is a dot";
                return Err(self.was_not_given(message, why));
            }
            if octets > MESSAGE_OCTETS_MAX {
                texts.cut(begin)?;
                self.pass_over(message, "it is longer than 1 GiB");
                continue;
            }
            let repeat = match &message.unique_id {
                // In case the id cannot be kept: the same every time, and apart from messages without one.
                Some(id) => {
                    1 << 31
                        | u32::from_le_bytes(
                            *blake3::hash(id.as_bytes()).as_bytes().first_chunk().expect("it is longer"),
                        )
                }
                None => {
                    let repeat = repeats.entry(hasher.finalize()).or_default();
                    *repeat += 1;
                    *repeat - 1
                }
            };
            texts.messages.push(Announced {
                octets,
                unique_id: message.unique_id.clone(),
                received_unix_seconds: UnixTime::now().0,
                repeat,
            });
            self.told_of(octets);
            let next = messages.get(at + 1).map_or(0, |next| next.octets);
            if texts.messages.len() == BATCH_MESSAGES_MAX || texts.octets + next > BATCH_OCTETS_MAX {
                self.store(std::mem::replace(texts, Texts::begin()?)).await?;
            }
        }
        Ok(())
    }

    fn told_of(&self, octets: u64) {
        (self.told)(1, octets);
    }

    /// Notes the failure and ends the pass: the next list shows whether the message still exists.
    fn was_not_given(&mut self, message: &Listed, why: &str) -> Failure {
        let times = self.not_given.entry(Name::of(message)).or_default();
        *times += 1;
        if *times == 2 {
            self.pass_over(message, why);
        }
        Failure::Unavailable(why.to_owned())
    }

    fn pass_over(&mut self, message: &Listed, why: &str) {
        let id = message.unique_id.as_ref().map_or(String::new(), |id| format!(" with the id {id}"));
        let file = format!("{} message {}{id}", self.mailbox, message.number);
        self.summary.skipped.push(SkippedFile { file, why: why.to_owned() });
    }

    async fn store(&mut self, texts: Texts) -> Result<(), Failure> {
        if texts.messages.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> =
            texts.messages.iter().filter_map(|message| message.unique_id.clone()).collect();
        let batch = Batch { mailbox: self.mailbox.to_string(), makes: false, messages: texts.messages };
        let (destination, file) = (self.destination.clone(), texts.file);
        let taken = smol::unblock(move || destination.take(batch, file)).await.map_err(Failure::Here)?;
        let Reply::Imported(mut done) = taken else { panic!("an import is answered by its summary") };
        if self.passes > 1 {
            // Each pass fetches messages without an id again.
            done.there_already = 0;
        }
        let stopped = done.stopped.take();
        self.summary.add(done);
        if let Some(why) = stopped {
            return Err(Failure::Here(Refusal::new(Code::Busy, why)));
        }
        self.known.extend(ids);
        Ok(())
    }
}

/// A batch being fetched. Its texts are in a memory file.
struct Texts {
    file: File,
    octets: u64,
    messages: Vec<Announced>,
}

impl Texts {
    fn begin() -> Result<Self, Failure> {
        let file = memfd_create("pop3svc import", MemfdFlags::CLOEXEC)
            .map_err(|error| Failure::Here(Refusal::fault(io::Error::from(error))))?;
        Ok(Self { file: file.into(), octets: 0, messages: Vec::new() })
    }

    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        self.file.write_all(octets)?;
        self.octets += octets.len() as u64;
        Ok(())
    }

    /// Removes an incomplete message, so that the next one follows the last whole one.
    fn cut(&mut self, octets: u64) -> Result<(), Failure> {
        let cut = self
            .file
            .set_len(octets)
            .and_then(|()| io::Seek::seek(&mut self.file, io::SeekFrom::Start(octets)));
        cut.map_err(|error| Failure::Here(Refusal::fault(error)))?;
        self.octets = octets;
        Ok(())
    }
}
