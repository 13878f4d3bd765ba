//! Repair of texts and of the space they occupy.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Repair;
use crate::store::file::format::BLOB_ALIGN;
use crate::store::file::format::Extent;
use crate::store::file::space::{Run, footprint};
use crate::store::index::Fault;
use crate::store::index::rows::{MessageRow, Row, TextRow};
use crate::store::index::types::TextId;
use crate::store::upkeep::progress::Stage;
use crate::store::upkeep::reading::{Found, Reading, TextToRead};
use crate::wire::{self, Receiver};

/// A text that is kept.
pub struct Kept {
    id: TextId,
    row: TextRow,
    content_octets: u64,
    /// It differs from what was stored.
    has_changed: bool,
    /// How many messages with it were counted so far.
    references: AtomicU64,
}

impl Kept {
    fn new(id: TextId, row: TextRow, content_octets: u64, has_changed: bool) -> Self {
        Self { id, row, content_octets, has_changed, references: AtomicU64::new(0) }
    }

    /// Counts one more message.
    pub fn refer(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// The size of a message with this row.
    pub fn octets_of(&self, row: &MessageRow) -> u64 {
        self.content_octets + row.prefix.len() as u64
    }

    /// True if the row describes its text correctly.
    pub fn suits(&self, row: &MessageRow) -> bool {
        self.octets_of(row) == row.octets && !(self.has_changed && row.surrogate_octets.is_some())
    }

    /// Its correct row, if any message has it.
    fn right_row(&self) -> Option<TextRow> {
        let references = self.references.load(Ordering::Relaxed);
        (references > 0).then_some(TextRow { references, ..self.row })
    }

    fn run(&self) -> Run {
        Run { at: self.row.at, len: footprint(self.row.wire_octets) }
    }
}

/// The texts that are kept, in order of id.
pub struct Texts(Vec<Kept>);

impl Texts {
    pub fn get(&self, id: TextId) -> Option<&Kept> {
        let nth = self.0.binary_search_by_key(&id, |text| text.id).ok()?;
        Some(&self.0[nth])
    }
}

impl Repair<'_, '_> {
    /// Reads every text. Changed ones are dealt with once we know where the intact ones are.
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
        let reading = Reading { source: self.container, copy: None, progress: self.progress };
        let list = |read: &mut dyn FnMut(TextToRead) -> Result<(), Fault>| {
            rows.iter().enumerate().try_for_each(|(index, (_, row))| {
                read(TextToRead { index, hash: row.hash, at: row.at, wire_octets: row.wire_octets, to: None })
            })
        };
        let (mut whole, mut changed) = (Vec::with_capacity(rows.len()), Vec::new());
        reading.run(list, |text, found| match found {
            Found::Whole { content_octets } => whole.push((text.index, content_octets)),
            Found::Changed => changed.push(text.index),
            Found::Unreadable(_) => {}
        })?;
        whole.sort_unstable();
        let kept = |(index, octets): (usize, u64)| Kept::new(rows[index].0, rows[index].1, octets, false);
        let mut texts = without_overlaps(whole.into_iter().map(kept).collect());
        let occupied = occupied(&texts);
        changed.sort_unstable();
        changed.retain(|index| !is_occupied(&occupied, &rows[*index].1));
        for index in changed {
            let (id, row) = rows[index];
            texts.extend(self.changed_text(id, &row)?);
        }
        texts.sort_unstable_by_key(|text| text.id);
        Ok(Texts(texts))
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

    /// Stores a changed text again in wire form: the change may have hit a line end or what follows one.
    fn changed_text(&mut self, id: TextId, row: &TextRow) -> Result<Option<Kept>, Fault> {
        let Some(wire) = self.read(row) else { return Ok(None) };
        let mut receiver = Receiver::verbatim();
        receiver.push(&wire::unstuff(&wire));
        let Ok(text) = receiver.finish() else { return Ok(None) };
        self.report.note(format!("text {id} has changed since it was stored and is kept as it is now"));
        let wire_octets = text.wire.len() as u64;
        let at = self.space.take(wire_octets, self.container)?;
        self.container.write_blob(at, &text.wire)?;
        let row = TextRow { hash: *text.hash.as_bytes(), at, wire_octets, references: 0 };
        Ok(Some(Kept::new(id, row, text.octets, true)))
    }

    /// Writes the rows of texts that messages have and removes all others. Returns the sum of their lengths.
    pub fn references(&mut self, texts: &Texts) -> Result<u64, Fault> {
        let mut kept = texts.0.iter().peekable();
        let (mut right, mut gone) = (Vec::new(), Vec::new());
        // Every row that is kept was found in the table.
        for row in self.tables.texts.iter()? {
            let (id, row) = row?;
            let id = id.value();
            let text = kept.next_if(|text| text.id == id).and_then(Kept::right_row);
            match text.map(|text| (text.references, text.to_row())) {
                Some((_, text)) if text == row.value() => {}
                Some((references, text)) => right.push((id, references, text)),
                None => gone.push(id),
            }
        }
        for (id, references, row) in right {
            self.report.note(format!("text {id} now counts {references} messages"));
            self.tables.texts.insert(id, &row[..])?;
        }
        for id in gone {
            self.report.note(format!("text {id} does not exist or no message has it: its row was removed"));
            self.tables.texts.remove(id)?;
        }
        Ok(texts.0.iter().filter_map(Kept::right_row).map(|row| row.wire_octets).sum())
    }

    /// Frees every octet of the texts' extents that belongs to no text.
    pub fn space(&mut self, texts: &Texts) -> Result<(), Fault> {
        let index_extents: BTreeSet<Extent> = self.container.index_extents().into_iter().collect();
        let mut listed = BTreeSet::new();
        for row in self.tables.blob_extents.iter()? {
            listed.insert(row?.0.value());
        }
        let can_be = |extent: &Extent| *extent < self.container.end() && !index_extents.contains(extent);
        let mut extents: BTreeSet<Extent> = listed.iter().copied().filter(can_be).collect();
        extents.extend(self.space.changed_extents().map(|(extent, _)| extent));
        let in_use: Vec<&Kept> = texts.0.iter().filter(|text| text.right_row().is_some()).collect();
        for text in &in_use {
            extents.extend(extents_of(&text.row));
        }
        let free = gaps(&extents, &occupied(in_use));
        let mut free_before = Vec::new();
        for row in self.tables.free.iter()? {
            let (at, len) = row?;
            free_before.push(Run { at: at.value(), len: len.value() });
        }
        if merged(free_before) != free || extents != listed {
            self.report.note("the lists of free space were rebuilt".to_owned());
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

/// Of overlapping texts, the one stored first is kept.
fn without_overlaps(mut texts: Vec<Kept>) -> Vec<Kept> {
    texts.sort_unstable_by_key(|text| (text.row.at, text.id));
    texts.dedup_by(|next, kept| {
        let overlaps = kept.run().end().is_none_or(|end| end > next.row.at);
        if overlaps && next.id < kept.id {
            std::mem::swap(next, kept);
        }
        overlaps
    });
    texts
}

/// Where texts lie, in order of place.
fn occupied<'a>(texts: impl IntoIterator<Item = &'a Kept>) -> Vec<Run> {
    let mut occupied: Vec<Run> = texts.into_iter().map(Kept::run).collect();
    occupied.sort_unstable();
    occupied
}

fn is_occupied(occupied: &[Run], row: &TextRow) -> bool {
    let end = row.at + footprint(row.wire_octets);
    let before = occupied.partition_point(|run| run.at < end);
    before.checked_sub(1).is_some_and(|last| occupied[last].at + occupied[last].len > row.at)
}

fn extents_of(row: &TextRow) -> impl Iterator<Item = Extent> {
    let number = |at| Extent::holding(at).map_or(0, |extent| extent.0);
    (number(row.at)..=number(row.at + row.wire_octets.max(1) - 1)).map(Extent)
}

/// The unoccupied parts of the extents, as runs that do not touch.
fn gaps(extents: &BTreeSet<Extent>, occupied: &[Run]) -> Vec<Run> {
    let mut gaps = Vec::new();
    let mut occupied = occupied.iter().peekable();
    let mut free_from = 0;
    for extent in extents {
        let (begin, end) = (extent.at(), extent.plus(1).at());
        free_from = begin.max(free_from);
        // A long text may cover whole extents.
        if free_from >= end {
            continue;
        }
        while let Some(Run { at, len }) = occupied.next_if(|run| run.at < end) {
            if *at > free_from {
                gaps.push(Run { at: free_from, len: at - free_from });
            }
            free_from = free_from.max(at + len);
        }
        if free_from < end {
            gaps.push(Run { at: free_from, len: end - free_from });
            free_from = end;
        }
    }
    merged(gaps)
}

/// The runs in order of place, with touching ones merged. Impossible runs stay separate.
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
        let occupied = [Run { at: Extent::FIRST.at() + 64, len: 3 * EXTENT }];
        let (first, last) = (Extent(0).at(), Extent(3).at() + 64);
        let expected = [Run { at: first, len: 64 }, Run { at: last, len: EXTENT - 64 }];
        assert_eq!(gaps(&(0..4).map(Extent).collect(), &occupied), expected);
    }
}
