//! `import`: messages of another mail server, a batch of one mailbox in each request. Their texts come in the file that
//! the tool sends with it, one behind the other.

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

/// Messages in one request, and octets of their texts, unless a single one is longer.
pub const BATCH_MESSAGES_MAX: usize = 200;
pub const BATCH_OCTETS_MAX: u64 = 8 << 20;
/// Longest message that is imported.
pub const MESSAGE_OCTETS_MAX: u64 = 1 << 30;
/// What is read of a text at a time, and kept of it in memory before it goes to a file.
const PIECE_OCTETS: usize = 128 << 10;

/// Said of an import for which the disk is too small.
const NO_ROOM: &str = "there is no room on the disk for more mail. What was taken in stays; run the same command again when \
                       there is room";

/// Messages of one mailbox, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Batch {
    pub mailbox: String,
    /// Make the domain and the mailbox where they are not there. The mailbox then has no password.
    pub makes: bool,
    pub messages: Vec<Announced>,
}

/// A message whose text is in the file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Announced {
    pub octets: u64,
    pub unique_id: Option<String>,
    pub received_unix_seconds: u64,
    /// How many before it in its mailbox have the same text.
    pub repeat: u32,
}

/// Takes the messages in. Nothing of a batch is stored twice, however often it is given.
pub fn import(batch: &Batch, store: &Store, context: &Context, file: Option<File>) -> Result<Reply, Refusal> {
    let address: Address = batch.mailbox.parse()?;
    let Some(file) = file.filter(|_| batch.messages.len() <= BATCH_MESSAGES_MAX) else {
        return Err(Refusal::new(Code::Usage, "the batch has no texts, or too many"));
    };
    let mut at = 0;
    let mut messages = Vec::with_capacity(batch.messages.len());
    for announced in &batch.messages {
        if announced.octets > MESSAGE_OCTETS_MAX {
            return Err(Refusal::new(Code::Malformed, "a message is longer than 1 GiB"));
        }
        let text = text(&file, at, announced.octets, context)?;
        // Long texts are copied beside the writer, so that mail that comes in meanwhile does not wait for them.
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
            // What is there already is as well.
            let _ = tx.add_domain(&name.domain, now)?;
            let _ = tx.add_mailbox(&name, nobodys(), now)?;
        }
        tx.import(&name, &messages)
    });
    let outcomes = importing.wait().map_err(Refusal::fault)?;
    let outcomes = outcomes.map_err(|why| {
        Refusal::from(why).with_hint(format!("Add {address} first, or have what is missing made: --make"))
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

/// Whether the mailbox has a message with this id of another server.
fn has_id(store: &Store, address: &Address, id: &str) -> bool {
    // A fault shows again when the message is stored.
    store.has_foreign_id(address, id).unwrap_or(false)
}

/// A password that nobody has.
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
    let text = receiver.finish().expect("nothing is refused of a text that is taken as it is");
    let Some(mut spool) = spool else { return Ok(text.into()) };
    spool.append(&text.wire).map_err(Refusal::fault)?;
    Ok(text.with_wire(|_| Body::File(spool.into())))
}
