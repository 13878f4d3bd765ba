//! Places long texts: the thread that brings a text writes it to the data file, reads it back and makes it
//! durable before a transaction stores it. The transaction only names the place, so other messages do not wait
//! for the copying.

use std::io;

use super::body::{Body, Incoming};
use crate::store::file::container::Container;
use crate::store::file::record::SHORT_TEXT_OCTETS_MAX;
use crate::store::file::space::Draft;
use crate::store::index::rows::TextRow;
use crate::store::index::{Fault, IndexSnapshot, Read};
use crate::store::open::Store;
use crate::store::open::queue::{Reserved, TextToCome};

/// Octets made durable at a time, and so the most that another message's record may have to wait for.
const WRITTEN_OCTETS: usize = 1 << 20;
/// Octets of a stored text compared at a time.
const COMPARED_OCTETS: usize = 64 << 10;

/// Room in the data file reserved for one text.
pub struct Room(Reserved);

/// A text that is already in the file.
#[derive(Debug)]
pub struct Placed {
    pub body: Body,
    pub draft: Draft,
    /// Where a text with the same hash was, and whether it was equal and undamaged.
    known: Option<(u64, bool)>,
}

impl Placed {
    /// True if the octets at `at` equal this text; `None` if nobody has looked.
    pub fn lies_at(&self, at: u64) -> Option<bool> {
        if at == self.draft.at() {
            return Some(true);
        }
        self.known.filter(|(known, _)| *known == at).map(|(_, is_whole)| is_whole)
    }
}

impl Store {
    /// Reserves room for a text so long that others would wait while the writer copies it. `None`: the writer
    /// copies it.
    pub async fn room_for(&self, text: &Incoming) -> Option<Room> {
        let wire_octets = text.wire.len();
        if wire_octets <= SHORT_TEXT_OCTETS_MAX {
            return None;
        }
        let reserved = self.keep_room(TextToCome { wire_octets, hash: *text.hash.as_bytes() }).await;
        // A fault will show again, and be reported, when the text is stored.
        reserved.ok().flatten().map(Room)
    }
}

impl Room {
    /// Places the text; it is durable on return. Blocks. If placing fails, returns the text as it was and frees
    /// the room.
    pub fn place(self, text: Incoming) -> Incoming {
        match self.copy(&text) {
            Ok(known) => {
                let draft = self.0.draft.clone();
                text.with_wire(|body| Body::Placed(Placed { body, draft, known }.into()))
            }
            // The writer will try again and report what fails.
            Err(_) => text,
        }
    }

    /// The time this takes must not tell a sender whether the text is known, so two texts are read in any case.
    fn copy(&self, text: &Incoming) -> Result<Option<(u64, bool)>, Fault> {
        let Reserved { draft, known, visit } = &self.0;
        let container = &visit.open().container;
        write_durable(container, draft.at(), &text.wire)?;
        if !holds(container, draft.at(), &text.wire) {
            return Err(Fault::Io("a text does not read back as it was written".to_owned()));
        }
        // Pin first, so that the text in the row is not overwritten while we look at it.
        let _pin = visit.shared.pins.pin();
        let row = match known {
            Some(id) => IndexSnapshot::begin(visit.open().database())?.text(*id)?,
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
                container.write_text_independently(at + written, &gathered)?;
                written += gathered.len() as u64;
                gathered.clear();
            }
        }
        Ok::<_, io::Error>(())
    })?;
    if gathered.is_empty() { Ok(()) } else { container.write_text_independently(at + written, &gathered) }
}

/// True if the octets at `at` equal this text. False if they cannot be read.
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
