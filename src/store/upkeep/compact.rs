//! Gives space back on demand, also while the store is in use.
//!
//! Texts near the end move into earlier holes until they lie as close together as possible. Then extents
//! without texts are given up, index extents move into them, and the end of the file is cut off. Each part is
//! an ordinary transaction or checkpoint, so a crash loses nothing. Texts that a reader is looking at stay
//! where they are.

use std::io;
use std::sync::atomic::Ordering;

use redb::ReadableTable;

use super::progress::{Progress, Stage};
use super::reading::at_low_priority;
use crate::store::file::container::Container;
use crate::store::file::disk::DiskUsage;
use crate::store::file::format::Extent;
use crate::store::file::space::footprint;
use crate::store::index::contained;
use crate::store::index::rows::{Row, TextRow};
use crate::store::index::tables::TEXTS;
use crate::store::index::types::TextId;
use crate::store::index::{Fault, Tx};
use crate::store::open::{Shared, Store};

/// How often to look for texts past the end wanted.
const ROUNDS_MAX: usize = 8;
/// Texts listed at a time.
const LISTED_MAX: usize = 200_000;
/// Octets moved in one transaction; others wait for it.
const MOVED_OCTETS: u64 = 1 << 20;
const MOVED_TEXTS: usize = 200;
/// Octets of a text copied at a time.
const COPIED_OCTETS: u64 = 256 << 10;

/// The result of a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactReport {
    pub before: DiskUsage,
    pub after: DiskUsage,
    /// Octets of texts that were moved.
    pub moved_octets: u64,
}

/// A text past the point where the file should end.
struct TextBehind {
    name: TextId,
    octets: u64,
}

/// A compaction in progress.
struct Compaction<'a>(&'a Shared);

impl<'a> Compaction<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.compactions.fetch_add(1, Ordering::AcqRel);
        Self(shared)
    }
}

impl Drop for Compaction<'_> {
    fn drop(&mut self) {
        self.0.compactions.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Store {
    /// Makes the file as short as possible without moving texts at its front. Plain copies being made meanwhile
    /// are not good.
    pub fn compact(&self, progress: &Progress) -> Result<CompactReport, Fault> {
        let _compaction = Compaction::begin(&self.0.shared);
        let before = self.disk_usage()?;
        let mut moved_octets = 0;
        for _ in 0..ROUNDS_MAX {
            let Some(end) = self.tighten_fully(before, progress)? else { break };
            let texts = self.texts_behind(end)?;
            progress.begin(Stage::MovingTexts, texts.iter().map(|text| text.octets).sum());
            let moved = self.move_before(end, texts, progress)?;
            moved_octets += moved;
            if moved == 0 {
                break;
            }
        }
        Ok(CompactReport { before, after: self.disk_usage()?, moved_octets })
    }

    /// Moves as much of the index forward as possible, step by step. Returns the extent before which all texts would
    /// fit, if some lie past it.
    fn tighten_fully(&self, before: DiskUsage, progress: &Progress) -> Result<Option<Extent>, Fault> {
        progress.begin(Stage::MovingIndex, 0);
        let mut moved_octets = 0;
        loop {
            let tightened = self.tighten().wait()?;
            progress.add(tightened.moved_octets);
            moved_octets += tightened.moved_octets;
            // While others delete mail, there may always be more to move.
            if tightened.moved_octets == 0 || moved_octets >= before.file_octets {
                return Ok(tightened.end_of_texts);
            }
        }
    }

    /// Some of the texts that reach past `end`.
    fn texts_behind(&self, end: Extent) -> Result<Vec<TextBehind>, Fault> {
        let snapshot = self.read()?;
        let table = snapshot.table(TEXTS)?;
        let list = || {
            let mut listed = Vec::new();
            for row in table.iter()? {
                let (name, row) = row?;
                let row = TextRow::from_row(row.value())?;
                if lies_behind(&row, end) {
                    listed.push(TextBehind { name: name.value(), octets: row.wire_octets });
                }
                if listed.len() == LISTED_MAX {
                    break;
                }
            }
            Ok(listed)
        };
        at_low_priority(|| snapshot.container().reading_index_ahead(|| contained::read(list)))
    }

    fn move_before(
        &self,
        end: Extent,
        mut texts: Vec<TextBehind>,
        progress: &Progress,
    ) -> Result<u64, Fault> {
        let mut moved = 0;
        while !texts.is_empty() {
            let (mut octets, mut names) = (0, Vec::new());
            while let Some(text) = texts.last()
                && (names.is_empty() || octets + text.octets <= MOVED_OCTETS && names.len() < MOVED_TEXTS)
            {
                octets += text.octets;
                names.extend(texts.pop().map(|text| text.name));
            }
            moved += self.write(move |tx| tx.move_texts_before(end, &names)).wait()?;
            progress.add(octets);
        }
        Ok(moved)
    }
}

impl Tx<'_, '_> {
    /// Moves those texts that still reach past `end` and find room before it. Returns their octets.
    fn move_texts_before(&mut self, end: Extent, names: &[TextId]) -> Result<u64, Fault> {
        let mut moved = 0;
        for name in names {
            let row = self.tables.texts.get(name)?.map(|row| TextRow::from_row(row.value())).transpose()?;
            let Some(row) = row.filter(|row| lies_behind(row, end)) else { continue };
            let Some(at) = self.space.take_before(end, row.wire_octets, self.container) else { continue };
            copy(self.container, row.at, at, row.wire_octets)?;
            // They are made durable before the record instead of being in it.
            self.has_long_texts = true;
            self.tables.texts.insert(name, &TextRow { at, ..row }.to_row()[..])?;
            self.space.retire(row.at, row.wire_octets);
            moved += row.wire_octets;
        }
        Ok(moved)
    }
}

fn copy(container: &Container, from: u64, to: u64, octets: u64) -> io::Result<()> {
    let mut piece = Vec::new();
    (0..octets).step_by(COPIED_OCTETS as usize).try_for_each(|done| {
        piece.resize(COPIED_OCTETS.min(octets - done) as usize, 0);
        container.read_blob(from + done, &mut piece)?;
        container.write_blob(to + done, &piece)
    })
}

fn lies_behind(row: &TextRow, end: Extent) -> bool {
    row.at + footprint(row.wire_octets) > end.at()
}
