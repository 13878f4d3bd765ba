//! `import`: stores messages from another mail server, a batch of one mailbox per request. Their texts are concatenated
//! in the file that the tool sends with it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use bincode::{Decode, Encode};

use super::Context;
use super::reply::{Code, ImportSummary, Refusal, Reply};
use crate::address::Address;
use crate::auth::password::{Credential, SALT_OCTETS, Verifier};
use crate::message::is_long_for_clients;
use crate::random;
use crate::store::{Body, Import, Imported, Incoming, Spool, Store, UnixTime};
use crate::wire::Receiver;

/// Maximum number of messages in a request, and of their octets unless a single message is longer.
pub const BATCH_MESSAGES_MAX: usize = 200;
pub const BATCH_OCTETS_MAX: u64 = 8 << 20;
/// Longest message that is imported.
pub const MESSAGE_OCTETS_MAX: u64 = 1 << 30;
/// How much of a text is read at a time, and held in memory before it is spooled to a file.
const PIECE_OCTETS: usize = 128 << 10;

/// Why an import stopped when the disk is full.
const NO_ROOM: &str =
    "the disk is full. What was imported is kept; free some space and run the same command again";

/// Messages of one mailbox, in order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Batch {
    pub mailbox: String,
    /// Create the domain and the mailbox if they are missing. A new mailbox has no password.
    pub makes: bool,
    pub messages: Vec<Announced>,
}

/// A message whose text is in the file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Announced {
    pub octets: u64,
    pub unique_id: Option<String>,
    pub received_unix_seconds: u64,
    /// How many earlier messages of the mailbox have the same text.
    pub repeat: u32,
}

/// Stores the messages. Repeating a batch stores nothing twice.
pub fn import(batch: &Batch, store: &Store, context: &Context, file: Option<File>) -> Result<Reply, Refusal> {
    let address: Address = batch.mailbox.parse()?;
    let Some(file) = file.filter(|_| batch.messages.len() <= BATCH_MESSAGES_MAX) else {
        return Err(Refusal::usage("the batch has no texts or too many"));
    };
    let mut at = 0;
    let mut messages = Vec::with_capacity(batch.messages.len());
    for announced in &batch.messages {
        if announced.octets > MESSAGE_OCTETS_MAX {
            return Err(Refusal::new(Code::Malformed, "a message is longer than 1 GiB"));
        }
        let text = text(&file, at, announced.octets, context)?;
        // Long texts are written outside the writer thread, so that incoming mail does not wait for them.
        let is_new = announced.unique_id.as_deref().is_none_or(|id| !has_id(store, &address, id));
        let room = if is_new { smol::block_on(store.room_for(&text)) } else { None };
        messages.push(Import {
            text: match room {
                Some(room) => room.place(text),
                None => text,
            },
            received: UnixTime(announced.received_unix_seconds),
            unique_id: announced.unique_id.clone(),
            repeat: announced.repeat,
            tag: random::number().map_err(Refusal::fault)?,
        });
        at += announced.octets;
    }
    let octets: Vec<u64> = messages.iter().map(|message| message.text.octets).collect();
    let (name, makes, now) = (address.clone(), batch.makes, context.now);
    let importing = store.write(move |tx| {
        if makes {
            // Fine if they exist already.
            let _ = tx.add_domain(&name.domain, now)?;
            let _ = tx.add_mailbox(&name, nobodys(), now)?;
        }
        tx.import(&name, &messages)
    });
    let outcomes = importing.wait().map_err(Refusal::fault)?;
    let outcomes = outcomes.map_err(|why| {
        Refusal::from(why).with_hint(format!("Add {address} first, or create what is missing with --make"))
    })?;
    let mut summary = ImportSummary::default();
    for ((outcome, octets), announced) in outcomes.iter().zip(octets).zip(&batch.messages) {
        match outcome {
            Imported::Stored => {
                summary.ids_kept += 1;
                summary.ids_long +=
                    u64::from(announced.unique_id.as_deref().is_some_and(is_long_for_clients));
            }
            Imported::Renamed => summary.ids_new += 1,
            Imported::AlreadyThere => {
                summary.there_already += 1;
                continue;
            }
            Imported::DiskFull => {
                summary.stopped = Some(NO_ROOM.to_owned());
                break;
            }
        }
        summary.messages += 1;
        summary.octets += octets;
    }
    Ok(Reply::Imported(summary))
}

/// True if the mailbox has a message with this id from another server.
fn has_id(store: &Store, address: &Address, id: &str) -> bool {
    // A fault will occur again when the message is stored.
    store.has_foreign_id(address, id).unwrap_or(false)
}

/// A credential that no password matches.
pub fn nobodys() -> Credential {
    Credential { version: 0, verifier: Verifier::of_nobody([0; SALT_OCTETS]), sealed: None }
}

fn text(file: &File, at: u64, octets: u64, context: &Context) -> Result<Incoming, Refusal> {
    let mut receiver = Receiver::verbatim();
    let mut spool: Option<Spool> = None;
    let mut piece = vec![0; PIECE_OCTETS];
    let mut done = 0;
    while done < octets {
        let count = (octets - done).min(PIECE_OCTETS as u64) as usize;
        file.read_exact_at(&mut piece[..count], at + done).map_err(Refusal::fault)?;
        receiver.push(&piece[..count]);
        done += count as u64;
        if receiver.held_octets() > PIECE_OCTETS as u64 {
            let mut begun = match spool.take() {
                Some(begun) => begun,
                None => Spool::create(&context.mailroot.dir).map_err(Refusal::fault)?,
            };
            begun.append(&receiver.take_held()).map_err(Refusal::fault)?;
            spool = Some(begun);
        }
    }
    let text = receiver.finish().expect("a verbatim text is never refused");
    let Some(mut spool) = spool else { return Ok(text.into()) };
    spool.append(&text.wire).map_err(Refusal::fault)?;
    Ok(text.with_wire(|_| Body::File(spool.into())))
}
