//! Long texts are copied into the data file, read back and made durable before a transaction is asked to store them, on
//! the thread of whoever brings them: the transaction only names the place, and no other message waits for the copying.

use std::io;

use super::body::{Body, Incoming};
use crate::store::file::container::Container;
use crate::store::file::record::SHORT_TEXT_OCTETS_MAX;
use crate::store::file::space::Draft;
use crate::store::index::rows::TextRow;
use crate::store::index::{Fault, Read, Snapshot};
use crate::store::open::Store;
use crate::store::open::queue::{Reserved, TextToCome};

/// Octets that are written and made durable at a time: so much of it stands before another message's record at most.
const WRITTEN_OCTETS: usize = 1 << 20;
/// Octets of a stored text that are read at a time to compare them.
const COMPARED_OCTETS: usize = 64 << 10;

/// Room in the data file that is kept for one text.
pub struct Room(Reserved);

/// A text that lies in the file already.
#[derive(Debug)]
pub struct Placed {
    pub body: Body,
    pub draft: Draft,
    /// Where a text with the same hash lay, and whether it was the same and whole.
    known: Option<(u64, bool)>,
}

impl Placed {
    /// Whether the octets there are these; none if that was not looked at.
    pub fn lies_at(&self, at: u64) -> Option<bool> {
        if at == self.draft.at() {
            return Some(true);
        }
        self.known.filter(|(known, _)| *known == at).map(|(_, is_whole)| is_whole)
    }
}

impl Store {
    /// Room for the text, where it is long enough that others would wait while the writer copies it. Without one the
    /// writer does that.
    pub async fn room_for(&self, text: &Incoming) -> Option<Room> {
        let wire_octets = text.wire.len();
        if wire_octets <= SHORT_TEXT_OCTETS_MAX {
            return None;
        }
        let reserved = self.keep_room(TextToCome { wire_octets, hash: *text.hash.as_bytes() }).await;
        // A fault shows again when the text is stored, and is told then.
        reserved.ok().flatten().map(Room)
    }
}

impl Room {
    /// Puts the text there; returns when it is durable. Blocks. If it fails, the text is as it was, and the room free
    /// again.
    pub fn place(self, text: Incoming) -> Incoming {
        match self.copy(&text) {
            Ok(known) => {
                let draft = self.0.draft.clone();
                text.with_wire(|body| Body::Placed(Placed { body, draft, known }.into()))
            }
            // The writer will write it, and report what fails then.
            Err(_) => text,
        }
    }

    /// A sender must not learn from the time it takes whether the text is known: two texts are read in either case.
    fn copy(&self, text: &Incoming) -> Result<Option<(u64, bool)>, Fault> {
        let Reserved { draft, known, visit } = &self.0;
        let container = &visit.open().container;
        write_durable(container, draft.at(), &text.wire)?;
        if !holds(container, draft.at(), &text.wire) {
            return Err(Fault::Io("a text does not read back as it was written".to_owned()));
        }
        // The pin comes first: what the row names is not overwritten while it is looked at.
        let _pin = visit.shared.pins.pin();
        let row = match known {
            Some(id) => Snapshot::begin(visit.open().database())?.text(*id)?,
            None => None,
        };
        let is_alike =
            |row: &TextRow| row.hash == *text.hash.as_bytes() && row.wire_octets == text.wire.len();
        let known = row.filter(is_alike).map(|row| row.at);
        let is_whole = holds(container, known.unwrap_or(draft.at()), &text.wire);
        Ok(known.map(|at| (at, is_whole)))
    }
}

fn write_durable(container: &Container, at: u64, wire: &Body) -> io::Result<()> {
    let mut gathered = Vec::with_capacity(WRITTEN_OCTETS.min(wire.len() as usize));
    let mut written = 0;
    wire.for_each_piece(|_, mut piece| {
        while !piece.is_empty() {
            let (now, rest) = piece.split_at(piece.len().min(WRITTEN_OCTETS - gathered.len()));
            gathered.extend_from_slice(now);
            piece = rest;
            if gathered.len() == WRITTEN_OCTETS {
                container.write_text_beside(at + written, &gathered)?;
                written += gathered.len() as u64;
                gathered.clear();
            }
        }
        Ok::<_, io::Error>(())
    })?;
    if gathered.is_empty() { Ok(()) } else { container.write_text_beside(at + written, &gathered) }
}

/// Whether the octets there are these. A fault of reading them means that they are not.
pub fn holds(container: &Container, at: u64, wire: &Body) -> bool {
    let mut stored = Vec::new();
    let compared = wire.for_each_piece(|offset, piece| {
        for (part, index) in piece.chunks(COMPARED_OCTETS).zip(0..) {
            stored.resize(part.len(), 0);
            let at = at
                .checked_add(offset + index * COMPARED_OCTETS as u64)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            container.read_blob(at, &mut stored)?;
            if stored != part {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
        }
        Ok(())
    });
    compared.is_ok()
}
