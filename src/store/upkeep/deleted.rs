//! Check and repair of deleted mail that can come back: deleted messages must have their texts, deleted
//! mailboxes their messages, and each day its counts.

use std::collections::BTreeMap;

use redb::ReadableTable;

use crate::address::Address;
use crate::store::index::rows::{DeletedCounts, DeletedRow, MailboxRow, MessageRow, RemovedMailboxRow, Row};
use crate::store::index::tables::{DELETED, DELETED_COUNTS, REMOVED_MAILBOXES, Tables};
use crate::store::index::types::{Day, MailboxId};
use crate::store::index::{Fault, Read};
use crate::store::open::Snapshot;

/// A deleted mailbox according to its row.
pub struct RemovedMailbox {
    pub id: MailboxId,
    pub address: Address,
}

/// The mailbox in a row of the table of deleted ones; `None` if the row makes no sense.
pub fn removed_mailbox(key: (Day, MailboxId), row: &[u8]) -> Option<RemovedMailbox> {
    let row = RemovedMailboxRow::from_row(row).ok()?;
    let mailbox = MailboxRow::from_row(&row.mailbox).ok()?;
    let is_sound = row.removed.day() == key.0 && mailbox.id == key.1;
    let address = format!("{}@{}", row.local, row.domain).parse().ok()?;
    is_sound.then_some(RemovedMailbox { id: key.1, address })
}

/// The deleted mailboxes of a snapshot. Reports senseless rows to `find`.
pub fn removed_mailboxes(
    snapshot: &Snapshot,
    mut find: impl FnMut(String),
) -> Result<Vec<RemovedMailbox>, Fault> {
    let mut mailboxes = Vec::new();
    for row in snapshot.table(REMOVED_MAILBOXES)?.iter()? {
        let (key, row) = row?;
        match removed_mailbox(key.value(), row.value()) {
            Some(mailbox) => mailboxes.push(mailbox),
            None => find(format!("the row of deleted mailbox id {} is malformed", key.value().1)),
        }
    }
    Ok(mailboxes)
}

/// Passes every deleted message of a snapshot to `each`, with words that name it. Reports senseless rows and
/// wrong counts to `find`.
pub fn deleted_messages(
    snapshot: &Snapshot,
    mut each: impl FnMut(&MessageRow, &str),
    mut find: impl FnMut(String),
) -> Result<(), Fault> {
    let mut counts: BTreeMap<Day, DeletedCounts> = BTreeMap::new();
    for row in snapshot.table(DELETED)?.iter()? {
        let (key, row) = row?;
        let (day, mailbox, sequence) = key.value();
        let name = format!("deleted message {sequence} of mailbox id {mailbox}");
        let Some(message) = deleted_message(day, row.value()) else {
            find(format!("the row of {name} is malformed"));
            continue;
        };
        if snapshot.message(mailbox, sequence).is_ok_and(|message| message.is_some()) {
            find(format!("{name} is also in its mailbox"));
        }
        let counts = counts.entry(day).or_default();
        counts.messages += 1;
        counts.octets = counts.octets.saturating_add(message.octets);
        each(&message, &name);
    }
    for row in snapshot.table(DELETED_COUNTS)?.iter()? {
        let (day, row) = row?;
        let (day, counted) = (day.value(), DeletedCounts::from_row(row.value()).ok());
        let right = counts.remove(&day);
        if right != counted || right.is_none() {
            find(format!(
                "deleted messages of day {} are counted as {counted:?} instead of {right:?}",
                day.0
            ));
        }
    }
    for (day, right) in counts {
        find(format!("deleted messages of day {} are not counted; they are {right:?}", day.0));
    }
    Ok(())
}

fn deleted_message(day: Day, row: &[u8]) -> Option<MessageRow> {
    let row = DeletedRow::from_row(row).ok().filter(|row| row.deleted.day() == day)?;
    MessageRow::from_row(&row.message).ok()
}

/// What a repair does with a deleted message.
pub enum Deleted {
    Kept,
    Changed(MessageRow),
    /// Its text is gone.
    Lost,
}

/// Repairs the deleted messages as `each` decides and writes the counts of the days. Returns how many messages
/// were dropped.
pub fn repair_deleted(
    tables: &mut Tables<'_>,
    mut each: impl FnMut(&MessageRow) -> Deleted,
) -> Result<u64, Fault> {
    let (mut gone, mut changed) = (Vec::new(), Vec::new());
    let mut counts: BTreeMap<Day, DeletedCounts> = BTreeMap::new();
    for row in tables.deleted.iter()? {
        let (key, row) = row?;
        let (key, is_there) = (key.value(), |key: (Day, MailboxId, u64)| {
            tables.messages.get((key.1, key.2)).is_ok_and(|message| message.is_some())
        });
        let message = deleted_message(key.0, row.value()).filter(|_| !is_there(key));
        let Some(mut message) = message else {
            gone.push(key);
            continue;
        };
        match each(&message) {
            Deleted::Kept => {}
            Deleted::Lost => {
                gone.push(key);
                continue;
            }
            Deleted::Changed(now) => {
                let deleted = DeletedRow::from_row(row.value())?.deleted;
                changed.push((key, DeletedRow { deleted, message: now.to_row() }));
                message = now;
            }
        }
        let counts = counts.entry(key.0).or_default();
        counts.messages += 1;
        counts.octets = counts.octets.saturating_add(message.octets);
    }
    for key in &gone {
        tables.deleted.remove(*key)?;
    }
    for (key, row) in changed {
        tables.deleted.insert(key, &row.to_row()[..])?;
    }
    tables.deleted_counts.clear()?;
    for (day, counts) in counts {
        tables.deleted_counts.insert(day, &counts.to_row()[..])?;
    }
    Ok(gone.len() as u64)
}
