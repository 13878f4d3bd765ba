//! Exports a whole mailbox for another server.

use super::Refused;
use super::refused::no_such_mailbox;
use crate::address::Address;
use crate::message::{Entry, Uid};
use crate::store::index::contained;
use crate::store::index::rows::{MessageRow, Row, TextRow};
use crate::store::index::tables::MESSAGES;
use crate::store::index::types::UnixTime;
use crate::store::index::{Fault, Read};
use crate::store::open::{Snapshot, Store};

/// A message as RETR would send it, and its UIDL.
pub struct Exported {
    pub unique_id: String,
    pub received: UnixTime,
    /// `None` if the text is damaged.
    pub content: Option<Vec<u8>>,
}

/// What is compared with another server's message.
pub struct Listed {
    pub unique_id: String,
    pub octets: u64,
    /// Hash of the text without the recipient's prefix.
    pub text_hash: [u8; 32],
}

impl Store {
    /// Passes the messages of a mailbox as of now, oldest first, to `each`, until that fails. Works regardless
    /// of locks and open sessions. Reads all of the mail, so keep it off the executor.
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
        let Some(mailbox) = snapshot.mailbox(address)? else {
            return Ok(Err(no_such_mailbox(&*snapshot, address)?));
        };
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
