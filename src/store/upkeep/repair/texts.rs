//! Repair: texts, the messages that have them, and the space in which they lie.

use super::{LostMessage, Owners, Repair, rows_of};
use crate::store::file::format::BLOB_ALIGN;
use crate::store::file::format::Extent;
use crate::store::file::space::{Run, footprint};
use crate::store::index::Fault;
use crate::store::index::rows::{MessageRow, Row, TextRow};
use crate::store::index::types::{MailboxId, OwnerId, TextId};
use crate::store::upkeep::deleted::{Deleted, repair_deleted};
use crate::store::upkeep::progress::Stage;
use crate::store::upkeep::reading::{self, Listed, Reading};
use crate::wire::{self, Receiver};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Messages looked at in one go: bounds the memory for their rows.
const MESSAGES_AT_A_TIME: usize = 4096;

/// A text that is kept.
pub struct Kept {
    /// The references are those counted so far.
    row: TextRow,
    content_octets: u64,
    /// It is not what was stored.
    has_changed: bool,
}

pub type Texts = HashMap<TextId, Kept>;

/// Runs of octets that are in use: offset → length.
type Occupied = BTreeMap<u64, u64>;

impl Repair<'_, '_> {
    /// Reads every text. What has changed is looked at when it is known where whole texts lie.
    pub fn texts(&mut self) -> Result<Texts, Fault> {
        let index_extents: BTreeSet<Extent> = self.container.index_extents().into_iter().collect();
        let mut rows = Vec::new();
        for row in self.tables.texts.iter()? {
            let (id, row) = row?;
            let row =
                TextRow::from_row(row.value()).ok().filter(|row| self.can_be_a_text(row, &index_extents));
            rows.extend(row.map(|row| (id.value(), row)));
        }
        self.progress.begin(Stage::ReadingTexts, rows.iter().map(|(_, row)| row.wire_octets).sum());
        let mut read = vec![None; rows.len()];
        let reading = Reading { source: self.container, copy: None, progress: self.progress };
        let list = |read: &mut dyn FnMut(Listed) -> Result<(), Fault>| {
            rows.iter().enumerate().try_for_each(|(index, (_, row))| {
                read(Listed { index, hash: row.hash, at: row.at, wire_octets: row.wire_octets, to: None })
            })
        };
        reading.run(list, |text, found| read[text.index] = Some(found))?;
        let (mut texts, mut changed, mut occupied) = (Texts::new(), Vec::new(), Occupied::new());
        for ((id, row), read) in rows.into_iter().zip(read) {
            match read {
                Some(reading::Found::Changed) => changed.push((id, row)),
                Some(reading::Found::Whole { content_octets }) if !is_occupied(&occupied, &row) => {
                    occupied.insert(row.at, footprint(row.wire_octets));
                    let row = TextRow { references: 0, ..row };
                    texts.insert(id, Kept { row, content_octets, has_changed: false });
                }
                _ => {}
            }
        }
        for (id, row) in changed {
            if !is_occupied(&occupied, &row) {
                self.keep_changed(id, &row, &mut texts)?;
            }
        }
        Ok(texts)
    }

    fn can_be_a_text(&self, row: &TextRow, index_extents: &BTreeSet<Extent>) -> bool {
        let file_end = self.container.end().at();
        row.at >= Extent::FIRST.at()
            && row.at.is_multiple_of(BLOB_ALIGN)
            && row.at.checked_add(row.wire_octets).is_some_and(|end| end <= file_end)
            && extents_of(row).all(|extent| !index_extents.contains(&extent))
    }

    fn read(&self, row: &TextRow) -> Option<Vec<u8>> {
        let mut wire = Vec::new();
        wire.try_reserve_exact(row.wire_octets as usize).ok()?;
        wire.resize(row.wire_octets as usize, 0);
        self.container.read_blob(row.at, &mut wire).ok().map(|()| wire)
    }

    /// Stores a changed text anew, brought into wire form: what has changed may be a line end, or what follows one.
    fn keep_changed(&mut self, id: TextId, row: &TextRow, texts: &mut Texts) -> Result<(), Fault> {
        let Some(wire) = self.read(row) else { return Ok(()) };
        let mut receiver = Receiver::verbatim();
        receiver.push(&wire::unstuff(&wire));
        let Ok(text) = receiver.finish() else { return Ok(()) };
        self.report.mend(format!("text {id} has changed since it was stored, and is kept as it is now"));
        let wire_octets = text.wire.len() as u64;
        let at = self.space.take(wire_octets, self.container)?;
        self.container.write_blob(at, &text.wire)?;
        let row = TextRow { hash: *text.hash.as_bytes(), at, wire_octets, references: 0 };
        texts.insert(id, Kept { row, content_octets: text.octets, has_changed: true });
        Ok(())
    }

    /// Goes through the messages: each has its text afterwards, or is lost.
    pub fn messages(&mut self, owners: &mut Owners, texts: &mut Texts) -> Result<(), Fault> {
        self.progress.begin(Stage::ReadingMessages, self.stored_totals()?.messages);
        let mut from = (MailboxId(OwnerId(0)), 0);
        loop {
            let mut rows = Vec::new();
            for row in self.tables.messages.range(from..)?.take(MESSAGES_AT_A_TIME) {
                let (key, row) = row?;
                rows.push((key.value(), MessageRow::from_row(row.value()).ok()));
            }
            self.progress.add(rows.len() as u64);
            for (key, row) in &rows {
                self.message(*key, row.as_ref(), owners, texts)?;
            }
            match rows.last() {
                Some(((mailbox, sequence), _)) if *sequence < u64::MAX => from = (*mailbox, sequence + 1),
                Some(((mailbox, _), _)) => match OwnerId::from(*mailbox).next() {
                    Some(next) => from = (MailboxId(next), 0),
                    None => return Ok(()),
                },
                None => return Ok(()),
            }
        }
    }

    fn message(
        &mut self,
        key: (MailboxId, u64),
        row: Option<&MessageRow>,
        owners: &mut Owners,
        texts: &mut Texts,
    ) -> Result<(), Fault> {
        let owner = owners.get_mut(&key.0).expect("whoever has messages was found or made");
        owner.counts.next_sequence = owner.counts.next_sequence.max(key.1.saturating_add(1));
        let Some((row, text)) = row.and_then(|row| Some((row, texts.get_mut(&row.text)?))) else {
            let (mailbox, sequence) = (owner.address.to_string(), key.1);
            let received_octets = row.map(|row| (row.received, row.octets));
            self.report.lost.push(LostMessage { mailbox, sequence, received_octets });
            self.tables.messages.remove(key)?;
            return Ok(());
        };
        text.row.references += 1;
        let octets = text.content_octets + row.prefix.len() as u64;
        owner.counts.messages += 1;
        owner.counts.octets += octets;
        let mut row = row.clone();
        if octets != row.octets || text.has_changed && row.surrogate_octets.is_some() {
            self.report.mend(format!("message {} of {} has {octets} octets", key.1, owner.address));
            // Whatever its header is now, it is given as it is.
            row = MessageRow { octets, surrogate_octets: None, ..row };
            self.tables.messages.insert(key, &row.to_row()[..])?;
        }
        owner.counts.octets_without_utf8 += row.octets_without_utf8();
        Ok(())
    }

    /// The same for deleted messages that can come back.
    pub fn deleted_messages(&mut self, texts: &mut Texts) -> Result<(), Fault> {
        let gone = repair_deleted(&mut self.tables, |row| {
            let Some(text) = texts.get_mut(&row.text) else { return Deleted::Lost };
            text.row.references += 1;
            let octets = text.content_octets + row.prefix.len() as u64;
            match octets != row.octets || text.has_changed && row.surrogate_octets.is_some() {
                true => Deleted::Changed(MessageRow { octets, surrogate_octets: None, ..row.clone() }),
                false => Deleted::Kept,
            }
        })?;
        if gone > 0 {
            self.report.mend(format!("{gone} deleted messages cannot be brought back any more"));
        }
        Ok(())
    }

    /// Writes the rows of the texts that messages have, and removes all others. Returns the sum of their lengths.
    pub fn references(&mut self, texts: &Texts) -> Result<u64, Fault> {
        let mut kept: BTreeMap<TextId, TextRow> = referred_to(texts).collect();
        let text_octets = kept.values().map(|row| row.wire_octets).sum();
        for (id, row) in rows_of(self.tables.texts.open()?, |id| id)? {
            match kept.remove(&id) {
                Some(right) if right.to_row() == row => {}
                Some(right) => {
                    self.report
                        .mend(format!("text {id} is counted as that of {} messages", right.references));
                    self.tables.texts.insert(id, &right.to_row()[..])?;
                }
                None => {
                    self.report
                        .mend(format!("text {id} is not there, or no message has it: its row was removed"));
                    self.tables.texts.remove(id)?;
                }
            }
        }
        for (id, row) in kept {
            self.tables.texts.insert(id, &row.to_row()[..])?;
        }
        Ok(text_octets)
    }

    /// Every octet of a text's extent that is no text's is free.
    pub fn space(&mut self, texts: &Texts) -> Result<(), Fault> {
        let index_extents: BTreeSet<Extent> = self.container.index_extents().into_iter().collect();
        let mut listed = BTreeSet::new();
        for row in self.tables.blob_extents.iter()? {
            listed.insert(row?.0.value());
        }
        let can_be = |extent: &Extent| *extent < self.container.end() && !index_extents.contains(extent);
        let mut extents: BTreeSet<Extent> = listed.iter().copied().filter(can_be).collect();
        extents.extend(self.space.changed_extents().map(|(extent, _)| extent));
        let mut occupied = Occupied::new();
        for (_, row) in referred_to(texts) {
            extents.extend(extents_of(&row));
            occupied.insert(row.at, footprint(row.wire_octets));
        }
        let free = gaps(&extents, &occupied);
        let mut free_before = Vec::new();
        for row in self.tables.free.iter()? {
            let (at, len) = row?;
            free_before.push(Run { at: at.value(), len: len.value() });
        }
        if merged(free_before) != free || extents != listed {
            self.report.mend("the lists of free space were made anew".to_owned());
        }
        self.tables.free.clear()?;
        self.tables.blob_extents.clear()?;
        for Run { at, len } in free {
            self.tables.free.insert(at, len)?;
        }
        for extent in extents {
            self.tables.blob_extents.insert(extent, ())?;
        }
        Ok(())
    }
}

fn referred_to(texts: &Texts) -> impl Iterator<Item = (TextId, TextRow)> {
    texts.iter().filter(|(_, text)| text.row.references > 0).map(|(id, text)| (*id, text.row))
}

fn is_occupied(occupied: &Occupied, row: &TextRow) -> bool {
    let end = row.at + footprint(row.wire_octets);
    occupied.range(..end).next_back().is_some_and(|(at, len)| at + len > row.at)
}

fn extents_of(row: &TextRow) -> impl Iterator<Item = Extent> {
    let number = |at| Extent::holding(at).map_or(0, |extent| extent.0);
    (number(row.at)..=number(row.at + row.wire_octets.max(1) - 1)).map(Extent)
}

/// What of the extents is not occupied, as runs that do not touch.
fn gaps(extents: &BTreeSet<Extent>, occupied: &Occupied) -> Vec<Run> {
    let mut gaps = Vec::new();
    let mut free_from = 0;
    for extent in extents {
        let (begin, end) = (extent.at(), extent.plus(1).at());
        free_from = begin.max(free_from);
        // A long text may cover whole extents.
        if free_from >= end {
            continue;
        }
        for (at, len) in occupied.range(free_from..end) {
            if *at > free_from {
                gaps.push(Run { at: free_from, len: at - free_from });
            }
            free_from = at + len;
        }
        if free_from < end {
            gaps.push(Run { at: free_from, len: end - free_from });
            free_from = end;
        }
    }
    merged(gaps)
}

/// Runs in the order of their places, those that touch made one. Runs that cannot be right stay apart.
fn merged(runs: Vec<Run>) -> Vec<Run> {
    let mut merged: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match merged.last_mut() {
            Some(last) if last.end() == Some(run.at) => last.len = last.len.saturating_add(run.len),
            _ => merged.push(run),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::file::format::EXTENT;

    #[test]
    fn a_text_that_covers_whole_extents_leaves_no_gap_in_them() {
        let occupied = Occupied::from([(Extent::FIRST.at() + 64, 3 * EXTENT)]);
        let (first, last) = (Extent(0).at(), Extent(3).at() + 64);
        let expected = [Run { at: first, len: 64 }, Run { at: last, len: EXTENT - 64 }];
        assert_eq!(gaps(&(0..4).map(Extent).collect(), &occupied), expected);
    }
}
