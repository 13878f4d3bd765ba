//! Check and repair of unique ids from other servers: each must lead to its message and to no other.

use std::collections::HashMap;

use redb::ReadableTable;

use crate::store::index::Fault;
use crate::store::index::rows::{DeletedRow, MessageRow, Row};
use crate::store::index::tables::{DELETED, FOREIGN_IDS, Tables};
use crate::store::index::types::{Day, MailboxId};
use crate::store::open::Snapshot;

/// For each mailbox and unique id, the sequence of the message that has it.
type Holders = HashMap<(MailboxId, Box<str>), u64>;

/// The unique id of a message in its mailbox.
pub struct ForeignId {
    pub mailbox: MailboxId,
    pub sequence: u64,
    pub id: Box<str>,
}

/// Reports to `find` ids that lead to no message or to the wrong one. `of_messages` are the ids of all messages
/// that are not deleted.
pub fn check(
    snapshot: &Snapshot,
    of_messages: Vec<ForeignId>,
    mut find: impl FnMut(String),
) -> Result<(), Fault> {
    let mut holders = Holders::new();
    let mut note = |ForeignId { mailbox, sequence, id }| {
        if let Some(other) = holders.insert((mailbox, id), sequence) {
            find(format!("messages {other} and {sequence} of mailbox id {mailbox} have the same unique id"));
        }
    };
    of_messages.into_iter().for_each(&mut note);
    for row in snapshot.table(DELETED)?.iter()? {
        let (key, row) = row?;
        let (_, mailbox, sequence) = key.value();
        let id = deleted_message(row.value()).and_then(|message| message.foreign_id);
        id.into_iter().for_each(|id| note(ForeignId { mailbox, sequence, id }));
    }
    for row in snapshot.table(FOREIGN_IDS)?.iter()? {
        let (key, sequence) = row?;
        let ((mailbox, id), sequence) = (key.value(), sequence.value());
        match holders.remove(&(mailbox, id.into())) {
            Some(holder) if holder == sequence => {}
            Some(holder) => find(format!(
                "unique id \"{id}\" of mailbox id {mailbox} leads to message {sequence}, but belongs to {holder}"
            )),
            None => {
                find(format!("unique id \"{id}\" of mailbox id {mailbox} is listed but no message has it"))
            }
        }
    }
    for ((mailbox, id), sequence) in holders {
        find(format!("unique id \"{id}\" of message {sequence} of mailbox id {mailbox} is not listed"));
    }
    Ok(())
}

/// Rebuilds the list of ids where it is wrong. If two messages have the same id, the later one gets an id made
/// from its number instead. Reports to `note` what was done. `of_messages` are the ids of all messages kept, in
/// order.
pub fn repair(
    tables: &mut Tables<'_>,
    of_messages: Vec<ForeignId>,
    mut note: impl FnMut(String),
) -> Result<(), Fault> {
    let mut holders = Holders::new();
    let (mut losing, mut losing_deleted) = (Vec::new(), Vec::new());
    for ForeignId { mailbox, sequence, id } in of_messages {
        if is_taken(&mut holders, mailbox, sequence, Some(id))
            && let Some(row) = tables.messages.get((mailbox, sequence))?
        {
            losing.push(((mailbox, sequence), MessageRow::from_row(row.value())?));
        }
    }
    for row in tables.deleted.iter()? {
        let (key, row) = row?;
        let (day, mailbox, sequence): (Day, MailboxId, u64) = key.value();
        let Some(message) = deleted_message(row.value()) else { continue };
        if is_taken(&mut holders, mailbox, sequence, message.foreign_id.clone()) {
            losing_deleted.push((
                (day, mailbox, sequence),
                DeletedRow::from_row(row.value())?.deleted,
                message,
            ));
        }
    }
    let mut wrong = Vec::new();
    let mut listed = 0;
    for row in tables.foreign_ids.iter()? {
        let (key, sequence) = row?;
        let (mailbox, id) = key.value();
        let key = (mailbox, Box::from(id));
        match holders.get(&key) == Some(&sequence.value()) {
            true => listed += 1,
            false => wrong.push(key),
        }
    }
    if !wrong.is_empty() || listed < holders.len() {
        note(format!("the list of {} unique ids from other servers was rebuilt", holders.len()));
    }
    for (mailbox, id) in &wrong {
        tables.foreign_ids.remove((*mailbox, &**id))?;
    }
    if !wrong.is_empty() || listed < holders.len() {
        for ((mailbox, id), sequence) in &holders {
            tables.foreign_ids.insert((*mailbox, &**id), *sequence)?;
        }
    }
    for (key, message) in losing {
        note(format!("message {} of mailbox id {} has a new unique id: another had the same", key.1, key.0));
        let message = MessageRow { foreign_id: None, ..message };
        tables.messages.insert(key, &message.to_row()[..])?;
    }
    for (key, deleted, message) in losing_deleted {
        note(format!("deleted message {} of mailbox id {} has a new unique id", key.2, key.1));
        let message = MessageRow { foreign_id: None, ..message }.to_row();
        tables.deleted.insert(key, &DeletedRow { deleted, message }.to_row()[..])?;
    }
    Ok(())
}

/// True if another message of the mailbox has the id. Otherwise records this one as its holder.
fn is_taken(holders: &mut Holders, mailbox: MailboxId, sequence: u64, id: Option<Box<str>>) -> bool {
    let Some(id) = id else { return false };
    let holder = holders.entry((mailbox, id)).or_insert(sequence);
    *holder != sequence
}

fn deleted_message(row: &[u8]) -> Option<MessageRow> {
    MessageRow::from_row(&DeletedRow::from_row(row).ok()?.message).ok()
}
