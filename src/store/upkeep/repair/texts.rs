//! Repair: texts, the messages that have them, and the space in which they lie.

use super::{LostMessage, Owners, Repair, rows_of};
use crate::store::file::format::BLOB_ALIGN;
use crate::store::file::format::Extent;
use crate::store::file::space::{Run, footprint};
use crate::store::index::Fault;
use crate::store::index::rows::{MessageRow, Row, TextRow};
use crate::store::index::types::{MailboxId, OwnerId};
use crate::store::upkeep::progress::Stage;
use crate::store::upkeep::reading::{self, Listed, Reading};
use crate::wire::{self, Receiver};
use redb::ReadableTable;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Messages looked at in one go: bounds the memory for their rows.
const MESSAGES_AT_A_TIME: usize = 4096;

/// What became of a text.
pub enum Found {
    Whole {
        row: TextRow,
        content_octets: u64,
    },
    /// It is kept under another name.
    Renamed([u8; 32]),
}

/// By name. The references of a row are those counted so far.
pub type Texts = HashMap<[u8; 32], Found>;

/// Runs of octets that are in use: offset → length.
type Occupied = BTreeMap<u64, u64>;

impl Repair<'_, '_> {
    /// Reads every text. What has changed is looked at when it is known where whole texts lie.
    pub fn texts(&mut self) -> Result<Texts, Fault> {
        let index_extents: BTreeSet<Extent> = self.container.index_extents().into_iter().collect();
        let mut rows = Vec::new();
        for row in self.tables.texts.iter()? {
            let (name, row) = row?;
            let row =
                TextRow::from_row(row.value()).ok().filter(|row| self.can_be_a_text(row, &index_extents));
            rows.extend(row.map(|row| (name.value(), row)));
        }
        self.progress.begin(Stage::ReadingTexts, rows.iter().map(|(_, row)| row.wire_octets).sum());
        let mut read = vec![None; rows.len()];
        let reading = Reading { source: self.container, copy: None, progress: self.progress };
        let list = |read: &mut dyn FnMut(Listed) -> Result<(), Fault>| {
            rows.iter().enumerate().try_for_each(|(index, (name, row))| {
                read(Listed { index, hash: *name, at: row.at, wire_octets: row.wire_octets, to: None })
            })
        };
        reading.run(list, |text, found| read[text.index] = Some(found))?;
        let (mut texts, mut changed, mut occupied) = (Texts::new(), Vec::new(), Occupied::new());
        for ((name, row), read) in rows.into_iter().zip(read) {
            match read {
                Some(reading::Found::Changed) => changed.push((name, row)),
                Some(reading::Found::Whole { content_octets }) if !is_occupied(&occupied, &row) => {
                    occupied.insert(row.at, footprint(row.wire_octets));
                    texts
                        .insert(name, Found::Whole { row: TextRow { references: 0, ..row }, content_octets });
                }
                _ => {}
            }
        }
        for (name, row) in changed {
            if !is_occupied(&occupied, &row) {
                self.keep_changed(name, &row, &mut texts)?;
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
    fn keep_changed(&mut self, name: [u8; 32], row: &TextRow, texts: &mut Texts) -> Result<(), Fault> {
        let Some(wire) = self.read(row) else { return Ok(()) };
        let mut receiver = Receiver::verbatim();
        receiver.push(&wire::unstuff(&wire));
        let Ok(text) = receiver.finish() else { return Ok(()) };
        let hash = blake3::Hash::from(name);
        self.report.mend(format!("text {hash} has changed since it was stored, and is kept as it is now"));
        let new_name = *text.hash.as_bytes();
        if let Entry::Vacant(place) = texts.entry(new_name) {
            let wire_octets = text.wire.len() as u64;
            let at = self.space.take(wire_octets, self.container)?;
            self.container.write_blob(at, &text.wire)?;
            let row = TextRow { at, wire_octets, references: 0 };
            place.insert(Found::Whole { row, content_octets: text.octets });
        }
        texts.insert(name, Found::Renamed(new_name));
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
        let Some((row, (text, content_octets))) = row.and_then(|row| Some((row, refer_to(texts, row.text)?)))
        else {
            let (mailbox, sequence) = (owner.address.to_string(), key.1);
            let received_octets = row.map(|row| (row.received, row.octets));
            self.report.lost.push(LostMessage { mailbox, sequence, received_octets });
            self.tables.messages.remove(key)?;
            return Ok(());
        };
        let octets = content_octets + row.prefix.len() as u64;
        owner.counts.messages += 1;
        owner.counts.octets += octets;
        let mut row = row.clone();
        if (octets, text) != (row.octets, row.text) {
            self.report.mend(format!("message {} of {} has {octets} octets", key.1, owner.address));
            // Whatever its header is now, it is given as it is.
            row = MessageRow { octets, text, surrogate_octets: None, ..row };
            self.tables.messages.insert(key, &row.to_row()[..])?;
        }
        owner.counts.octets_without_utf8 += row.octets_without_utf8();
        Ok(())
    }

    /// Writes the rows of the texts that messages have, and removes all others. Returns the sum of their lengths.
    pub fn references(&mut self, texts: &Texts) -> Result<u64, Fault> {
        let mut kept: BTreeMap<[u8; 32], TextRow> = referred_to(texts).collect();
        let text_octets = kept.values().map(|row| row.wire_octets).sum();
        for (name, row) in rows_of(&*self.tables.texts, |name| name)? {
            let hash = blake3::Hash::from(name);
            match kept.remove(&name) {
                Some(right) if right.to_row() == row => {}
                Some(right) => {
                    self.report
                        .mend(format!("text {hash} is counted as that of {} messages", right.references));
                    self.tables.texts.insert(name, &right.to_row()[..])?;
                }
                None => {
                    self.report
                        .mend(format!("text {hash} is not there, or no message has it: its row was removed"));
                    self.tables.texts.remove(name)?;
                }
            }
        }
        for (name, row) in kept {
            self.tables.texts.insert(name, &row.to_row()[..])?;
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
        extents.extend(self.space.changed_extents());
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

/// Counts a reference; returns the name and the content's length of the text that a message has to name.
fn refer_to(texts: &mut Texts, name: [u8; 32]) -> Option<([u8; 32], u64)> {
    let name = match texts.get(&name)? {
        Found::Renamed(now) => *now,
        Found::Whole { .. } => name,
    };
    match texts.get_mut(&name)? {
        Found::Whole { row, content_octets } => {
            row.references += 1;
            Some((name, *content_octets))
        }
        Found::Renamed(_) => None,
    }
}

fn referred_to(texts: &Texts) -> impl Iterator<Item = ([u8; 32], TextRow)> {
    texts.iter().filter_map(|(name, found)| match found {
        Found::Whole { row, .. } if row.references > 0 => Some((*name, *row)),
        _ => None,
    })
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
