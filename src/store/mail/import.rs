//! Taking in mail that lay on another server: messages as they were there, with the unique ids that their readers know.

use super::Refused;
use super::body::Incoming;
use super::delivery::Place;
use crate::address::Address;
use crate::message::{Uid, is_unique_id};
use crate::store::index::rows::MessageRow;
use crate::store::index::tables::FOREIGN_IDS;
use crate::store::index::types::{MailboxId, UnixTime};
use crate::store::index::{Fault, Read, Tx, contained};
use crate::store::open::Store;

/// A message of another server.
#[derive(Clone, Debug)]
pub struct Import {
    /// As that server gave it out: no header field is added, so its size stays what it was.
    pub text: Incoming,
    pub received: UnixTime,
    /// What that server's UIDL said, whatever that was.
    pub unique_id: Option<String>,
    /// How many messages before it in that mailbox have the same text. With the text, this tells a message without a
    /// usable id from others when the mailbox is imported again.
    pub repeat: u32,
    /// The random part of the id it would have without one of its own; it is never shown.
    pub tag: u64,
}

/// What became of an [`Import`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// Its unique id is the one it had.
    Stored,
    /// It has a new unique id, since the one it had cannot be sent or is another message's: a client that leaves its
    /// mail on the server fetches it again.
    Renamed,
    /// It was imported before, or is one of ours that came back. Nothing was done.
    AlreadyThere,
    DiskFull,
}

impl Store {
    /// Whether a message of the mailbox, or one that was deleted there a short while ago, has this id of another
    /// server.
    pub fn has_foreign_id(&self, address: &Address, id: &str) -> Result<bool, Fault> {
        let snapshot = self.read()?;
        let Some(mailbox) = snapshot.mailbox(address)? else { return Ok(false) };
        contained::read(|| Ok(snapshot.table(FOREIGN_IDS)?.get((mailbox.id, id))?.is_some()))
    }
}

impl Tx<'_, '_> {
    /// Adds messages at the end of a mailbox, in their order. The limit of a quota does not stop them, though they
    /// count against it. Where the disk is full the rest is not tried: the answer is shorter than the question, and its
    /// last one is [`Imported::DiskFull`].
    pub fn import(
        &mut self,
        address: &Address,
        messages: &[Import],
    ) -> Result<Result<Vec<Imported>, Refused>, Fault> {
        let Some(domain) = self.domain(&address.domain)? else { return Ok(Err(Refused::NoSuchDomain)) };
        let Some(mailbox) = self.mailbox(address)? else { return Ok(Err(Refused::NoSuchMailbox)) };
        let place = Place::new(&domain, mailbox);
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            let outcome = self.import_one(&place, message)?;
            outcomes.push(outcome);
            if outcome == Imported::DiskFull {
                break;
            }
        }
        Ok(Ok(outcomes))
    }

    fn import_one(&mut self, place: &Place, message: &Import) -> Result<Imported, Fault> {
        let wanted = message.unique_id.as_deref().filter(|id| is_unique_id(id));
        let (id, outcome) = match wanted.map(|id| self.holder_of(place.mailbox, id, message)).transpose()? {
            Some(Holder::Nobody) => (wanted.unwrap_or_default().to_owned(), Imported::Stored),
            Some(Holder::TheSame) => return Ok(Imported::AlreadyThere),
            Some(Holder::Another) | None => (made_id(place.mailbox, message), Imported::Renamed),
        };
        if outcome == Imported::Renamed && self.tables.foreign_ids.get((place.mailbox, &*id))?.is_some() {
            return Ok(Imported::AlreadyThere);
        }
        let Some(text) = self.store_text(&message.text, 1)? else { return Ok(Imported::DiskFull) };
        let row = MessageRow {
            octets: message.text.octets,
            tag: message.tag,
            received: message.received,
            surrogate_octets: message.text.surrogate_octets,
            foreign_id: Some(id.into()),
            text,
            prefix: Vec::new(),
        };
        self.add_message(place, &row)?;
        Ok(outcome)
    }

    /// Which message of the mailbox has the id already: the one that is to be imported, or another one.
    fn holder_of(&self, mailbox: MailboxId, id: &str, message: &Import) -> Result<Holder, Fault> {
        let foreign = self.tables.foreign_ids.get((mailbox, id))?.map(|sequence| sequence.value());
        if let Some(sequence) = foreign {
            let holder = self.message(mailbox, sequence)?;
            let text = holder.map(|row| self.text(row.text)).transpose()?.flatten();
            let is_another = text.is_some_and(|text| text.hash != *message.text.hash.as_bytes());
            // One that is not in the list was deleted a short while ago: it does not come back by itself.
            return Ok(if is_another { Holder::Another } else { Holder::TheSame });
        }
        // The ids that are made here look like this, and may come back from an export.
        let Ok(uid) = id.parse::<Uid>() else { return Ok(Holder::Nobody) };
        let ours = self.message(mailbox, uid.seq)?;
        Ok(match ours.is_some_and(|row| row.foreign_id.is_none() && row.tag == uid.tag) {
            true => Holder::TheSame,
            false => Holder::Nobody,
        })
    }
}

enum Holder {
    Nobody,
    TheSame,
    Another,
}

/// The id of a message that has none it could keep: the same one each time it is imported into this mailbox.
fn made_id(mailbox: MailboxId, message: &Import) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&mailbox.0.0.to_le_bytes());
    hasher.update(message.text.hash.as_bytes());
    hasher.update(&message.repeat.to_le_bytes());
    let hash = hasher.finalize().to_hex();
    format!("i{}", &hash[..32])
}
