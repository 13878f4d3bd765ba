//! Imports mail from another server: messages unchanged, under the unique ids that mail programs know.

use super::Refused;
use super::body::Incoming;
use super::delivery::Home;
use super::refused::no_such_mailbox;
use crate::address::Address;
use crate::message::{Uid, is_unique_id};
use crate::store::index::rows::MessageRow;
use crate::store::index::tables::FOREIGN_IDS;
use crate::store::index::types::{MailboxId, UnixTime};
use crate::store::index::{Fault, Read, Tx, contained};
use crate::store::open::Store;

/// A message from another server.
#[derive(Clone, Debug)]
pub struct Import {
    /// As that server sent it. No header field is added, so its size stays the same.
    pub text: Incoming,
    pub received: UnixTime,
    /// That server's UIDL, whatever it looks like.
    pub unique_id: Option<String>,
    /// Number of earlier messages in that mailbox with the same text. Together with the text it identifies a
    /// message without a usable id when the mailbox is imported again.
    pub repeat: u32,
    /// Random part of the id it would have here without a foreign one. Never shown.
    pub tag: u64,
}

/// What became of an [`Import`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It keeps its unique id.
    Stored,
    /// It got a new unique id, because the old one cannot be sent or belongs to another message. A client that
    /// leaves mail on the server will fetch it again.
    Renamed,
    /// It was imported before, or is one of our own messages coming back. Nothing was done.
    AlreadyThere,
    DiskFull,
}

impl Store {
    /// True if a message of the mailbox has this id from another server. Recently deleted messages count.
    pub fn has_foreign_id(&self, address: &Address, id: &str) -> Result<bool, Fault> {
        let snapshot = self.read()?;
        let Some(mailbox) = snapshot.mailbox(address)? else { return Ok(false) };
        contained::read(|| Ok(snapshot.table(FOREIGN_IDS)?.get((mailbox.id, id))?.is_some()))
    }
}

impl Tx<'_, '_> {
    /// Appends messages to a mailbox, in order. They count against a quota but are not stopped by its limit. On
    /// a full disk the rest is skipped: the result is then shorter than `messages` and ends with
    /// [`Imported::DiskFull`].
    pub fn import(
        &mut self,
        address: &Address,
        messages: &[Import],
    ) -> Result<Result<Vec<Imported>, Refused>, Fault> {
        let Some(domain) = self.domain(&address.domain)? else {
            return Ok(Err(Refused::NoSuchDomain(address.domain.clone())));
        };
        let Some(mailbox) = self.mailbox(address)? else {
            return Ok(Err(no_such_mailbox(self, address)?));
        };
        let home = Home::new(&domain, mailbox);
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            let outcome = self.import_one(&home, message)?;
            outcomes.push(outcome);
            if outcome == Imported::DiskFull {
                break;
            }
        }
        Ok(Ok(outcomes))
    }

    fn import_one(&mut self, home: &Home, message: &Import) -> Result<Imported, Fault> {
        let wanted = message.unique_id.as_deref().filter(|id| is_unique_id(id));
        let (id, outcome) = match wanted.map(|id| self.holder_of(home.mailbox, id, message)).transpose()? {
            Some(Holder::Nobody) => (wanted.unwrap_or_default().to_owned(), Imported::Stored),
            Some(Holder::TheSame) => return Ok(Imported::AlreadyThere),
            Some(Holder::Another) | None => (made_id(home.mailbox, message), Imported::Renamed),
        };
        if outcome == Imported::Renamed && self.tables.foreign_ids.get((home.mailbox, &*id))?.is_some() {
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
        self.add_message(home, &row)?;
        Ok(outcome)
    }

    /// Who has the id already: this very message, another one, or nobody.
    fn holder_of(&self, mailbox: MailboxId, id: &str, message: &Import) -> Result<Holder, Fault> {
        let foreign = self.tables.foreign_ids.get((mailbox, id))?.map(|sequence| sequence.value());
        if let Some(sequence) = foreign {
            let holder = self.message(mailbox, sequence)?;
            let text = holder.map(|row| self.text(row.text)).transpose()?.flatten();
            let is_another = text.is_some_and(|text| text.hash != *message.text.hash.as_bytes());
            // A message missing from the list was deleted recently; importing does not bring it back.
            return Ok(if is_another { Holder::Another } else { Holder::TheSame });
        }
        // The id may be one of ours, coming back from an export.
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

/// The id for a message without a usable one: the same each time it is imported into this mailbox.
fn made_id(mailbox: MailboxId, message: &Import) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&mailbox.0.0.to_le_bytes());
    hasher.update(message.text.hash.as_bytes());
    hasher.update(&message.repeat.to_le_bytes());
    let hash = hasher.finalize().to_hex();
    format!("i{}", &hash[..32])
}
