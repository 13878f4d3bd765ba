//! Giving out a mailbox as a whole, for another server.

use super::Refused;
use crate::address::Address;
use crate::message::{Entry, Uid};
use crate::store::index::contained;
use crate::store::index::rows::{MessageRow, Row, TextRow};
use crate::store::index::tables::MESSAGES;
use crate::store::index::types::UnixTime;
use crate::store::index::{Fault, Read};
use crate::store::open::{Snapshot, Store};

/// A message as RETR would send it, and what UIDL says of it.
pub struct Exported {
    pub unique_id: String,
    pub received: UnixTime,
    /// None where its text is damaged.
    pub content: Option<Vec<u8>>,
}

/// A message as it is compared with what another server had.
pub struct Listed {
    pub unique_id: String,
    pub octets: u64,
    /// Of the text, without what stands in front of it for one recipient.
    pub text_hash: [u8; 32],
}

impl Store {
    /// Gives the messages of a mailbox, as of now and oldest first, to `each`, until that fails. A session on the
    /// mailbox, or a lock, is nothing to it. Takes as long as reading them; not for the executor.
    pub fn export(
        &self,
        address: &Address,
        mut each: impl FnMut(Exported) -> Result<(), Fault>,
    ) -> Result<Result<(), Refused>, Fault> {
        self.each_message(address, |snapshot, entry, row, text| {
            let view = snapshot.container().view_blob(text.at, text.wire_octets as usize)?;
            view.fetch()?;
            let is_whole = *blake3::hash(&view).as_bytes() == text.hash;
            let content = is_whole.then(|| crate::wire::unstuff(&[&row.prefix[..], &view].concat()));
            each(Exported { unique_id: entry.unique_id().to_string(), received: row.received, content })
        })
    }

    /// The same without the texts.
    pub fn list_for_comparison(
        &self,
        address: &Address,
        mut each: impl FnMut(Listed) -> Result<(), Fault>,
    ) -> Result<Result<(), Refused>, Fault> {
        self.each_message(address, |_, entry, _, text| {
            let unique_id = entry.unique_id().to_string();
            each(Listed { unique_id, octets: entry.octets, text_hash: text.hash })
        })
    }

    fn each_message(
        &self,
        address: &Address,
        mut each: impl FnMut(&Snapshot, &Entry, &MessageRow, &TextRow) -> Result<(), Fault>,
    ) -> Result<Result<(), Refused>, Fault> {
        let (_pin, snapshot) = self.read_at_checkpoint().wait()?;
        if snapshot.domain(&address.domain)?.is_none() {
            return Ok(Err(Refused::NoSuchDomain));
        }
        let Some(mailbox) = snapshot.mailbox(address)? else { return Ok(Err(Refused::NoSuchMailbox)) };
        let table = snapshot.table(MESSAGES)?;
        let mut rows = contained::read(|| Ok(table.range((mailbox.id, 0)..=(mailbox.id, u64::MAX))?))?;
        while let Some((sequence, mut row)) = contained::read(|| {
            let Some((key, row)) = rows.next().transpose()? else { return Ok(None) };
            Ok(Some((key.value().1, MessageRow::from_row(row.value())?)))
        })? {
            let Some(text) = snapshot.text(row.text)? else {
                return Err(Fault::damaged("a message's text has no row"));
            };
            let uid = Uid { seq: sequence, tag: row.tag };
            let entry = Entry { octets: row.octets, uid, foreign_id: row.foreign_id.take() };
            each(&snapshot, &entry, &row, &text)?;
        }
        Ok(Ok(()))
    }
}
