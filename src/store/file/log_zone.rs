//! The log: one write makes a transaction durable.
//!
//! The log zone of the file holds the records of the transactions since the last checkpoint, from its beginning, each
//! at the beginning of a page (`format.rs` has its parts):
//!
//! - Each checkpoint begins a new epoch, drawn at random, and the log again at its beginning: what is left of older
//!   records is not of this epoch. Nobody can send mail whose octets, lying in the log, pass for a record of an epoch
//!   to come.
//! - Numbers are the store's count of commits. Record n+1 is written when n is durable, so the first page that is not a
//!   record's beginning is the log's end; a record of the epoch behind it means that the log is damaged.
//! - The zone has been written before in full, so that the file system has nothing of its own to make durable.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::disk::Disk;
use super::format::{LOG_AT, LOG_OCTETS_MAX, PAGE, RECORD_HASH, RECORD_HEAD, RECORD_MAGIC};

/// The random name of the time since a checkpoint.
pub type Epoch = u128;

pub fn new_epoch() -> io::Result<Epoch> {
    let octets: [u8; 16] = crate::random::octets()?;
    Ok(Epoch::from_le_bytes(octets))
}

/// The log of an open store, as its writer appends to it.
pub struct Log {
    disk: Arc<dyn Disk>,
    epoch: Epoch,
    /// Where the next record goes, from the zone's beginning.
    end: u64,
    /// How much of the zone is in use.
    len: u64,
    /// The record under way; kept for its memory.
    record: Vec<u8>,
}

impl Log {
    /// An empty log.
    pub fn new(disk: Arc<dyn Disk>, epoch: Epoch, len: u64) -> Self {
        Self { disk, epoch, end: 0, len, record: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Octets of the zone that hold records.
    pub fn used(&self) -> u64 {
        self.end
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether a record with so many octets of changes has a place.
    pub fn fits(&self, changes: usize) -> bool {
        self.end + paged(changes) <= self.len
    }

    /// Begins the log anew after a checkpoint. The part of the zone no longer used goes back to the file system, if it
    /// can.
    pub fn begin(&mut self, epoch: Epoch, len: u64) {
        if len < self.len {
            let _ = self.disk.punch(LOG_AT + len, self.len - len);
        }
        (self.epoch, self.end, self.len) = (epoch, 0, len);
    }

    /// Lets the next opening see at once that the log, just begun anew, is empty. On an error it finds that out itself.
    pub fn blank(&self) {
        let _ = self.disk.write_at(LOG_AT, &[0; PAGE as usize]);
    }

    /// Overwrites all that is left of older records, among them texts that have been deleted. The log has just begun
    /// anew.
    pub fn erase(&self) {
        if let Err(e) = write_zeros(&*self.disk, 0..self.len) {
            log::warn!("copies of deleted mail in the log could not be overwritten: {e}");
        }
    }

    /// Returns when the record is durable.
    pub fn append(&mut self, number: u64, changes: &[u8]) -> io::Result<()> {
        assert!(self.fits(changes.len()), "a record that does not fit makes its commit a checkpoint");
        let len = u32::try_from(changes.len()).expect("the zone is shorter than that");
        self.record.clear();
        self.record.extend_from_slice(RECORD_MAGIC);
        self.record.extend_from_slice(&len.to_le_bytes());
        self.record.extend_from_slice(&self.epoch.to_le_bytes());
        self.record.extend_from_slice(&number.to_le_bytes());
        self.record.extend_from_slice(&[0; RECORD_HASH.end - RECORD_HASH.start]);
        self.record.extend_from_slice(changes);
        let hash = hash_of(&self.record);
        self.record[RECORD_HASH].copy_from_slice(hash.as_bytes());
        self.record.resize(paged(changes.len()) as usize, 0);
        self.disk.write_durable(LOG_AT + self.end, &self.record)?;
        self.end += self.record.len() as u64;
        Ok(())
    }

    /// Makes the zone twice as long, up to its greatest length, and returns the new length, which holds after the next
    /// checkpoint.
    pub fn lengthen(&self) -> io::Result<u64> {
        let len = (self.len * 2).min(LOG_OCTETS_MAX);
        write_zeros(&*self.disk, self.len..len)?;
        Ok(len)
    }
}

/// Writes this part of the zone for the first time.
pub fn write_zeros(disk: &dyn Disk, part: Range<u64>) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    for at in part.clone().step_by(zeros.len()) {
        let count = zeros.len().min((part.end - at) as usize);
        disk.write_at(LOG_AT + at, &zeros[..count])?;
    }
    Ok(())
}

/// What a record with so many octets of changes takes in the zone.
fn paged(changes: usize) -> u64 {
    ((RECORD_HEAD + changes) as u64).next_multiple_of(PAGE)
}

fn hash_of(record: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&record[..RECORD_HASH.start]);
    hasher.update(&record[RECORD_HASH.end..]);
    hasher.finalize()
}

/// A record found in the log.
pub struct Record {
    epoch: Epoch,
    pub number: u64,
    pub changes: Vec<u8>,
}

/// The records of one epoch that stand in a row at the log's beginning.
pub struct Front {
    pub records: Vec<Record>,
    end: u64,
}

/// Reads what stands at the beginning, of whatever epoch that is.
pub fn read_front(disk: &dyn Disk) -> io::Result<Front> {
    let mut front = Front { records: Vec::new(), end: 0 };
    while let Some(record) = read_record(disk, front.end, LOG_OCTETS_MAX)? {
        let follows = |last: &Record| record.epoch == last.epoch && record.number == last.number + 1;
        if !front.records.last().is_none_or(follows) {
            break;
        }
        front.end += paged(record.changes.len());
        front.records.push(record);
    }
    Ok(front)
}

impl Front {
    /// Whether these are records of an epoch. If not, they are of an older one, and of ours there is none yet; or this
    /// is a copy made while the store was in use, and its front is older than its log: the index is whole without it.
    pub fn is_of(&self, epoch: Epoch) -> bool {
        self.records.first().is_none_or(|first| first.epoch == epoch)
    }

    /// Whether records of the epoch stand behind the end, in a zone of this length: some before them are damaged.
    pub fn has_gap(&self, disk: &dyn Disk, epoch: Epoch, len: u64) -> io::Result<bool> {
        let next = self.records.last().map_or(0, |last| last.number + 1);
        for at in (self.end..len).step_by(PAGE as usize) {
            if read_record(disk, at, len)?.is_some_and(|record| record.epoch == epoch && record.number > next)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The record at `at`, if there is a whole one.
fn read_record(disk: &dyn Disk, at: u64, zone: u64) -> io::Result<Option<Record>> {
    if at + PAGE > zone {
        return Ok(None);
    }
    let mut head = [0; RECORD_HEAD];
    disk.read_at(LOG_AT + at, &mut head)?;
    let changes = u32::from_le_bytes(head[4..8].try_into().expect("four octets")) as usize;
    if head[..4] != *RECORD_MAGIC || at + paged(changes) > zone {
        return Ok(None);
    }
    let mut record = vec![0; RECORD_HEAD + changes];
    disk.read_at(LOG_AT + at, &mut record)?;
    if hash_of(&record).as_bytes() != &record[RECORD_HASH] {
        return Ok(None);
    }
    let epoch = Epoch::from_le_bytes(head[8..24].try_into().expect("sixteen octets"));
    let number = u64::from_le_bytes(head[24..32].try_into().expect("eight octets"));
    Ok(Some(Record { epoch, number, changes: record.split_off(RECORD_HEAD) }))
}
