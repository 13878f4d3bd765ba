//! The log: one write makes a transaction durable.
//!
//! From its start, the log zone holds one record per transaction since the last checkpoint, each starting at a
//! page (`format.rs` has its parts).
//!
//! - Each checkpoint starts a new epoch, drawn at random, and begins the log again at its start. Older records
//!   left in the zone belong to other epochs. Since epochs cannot be guessed, nobody can send mail that would
//!   pass for a record of a later one.
//! - Record numbers are the store's count of commits. Record n+1 is written once n is durable, so the log ends
//!   at the first page that does not start a record. A record of the same epoch further on means that the log
//!   is damaged.
//! - The whole zone has been written before, so a write to it changes no metadata of the file system.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::disk::Disk;
use super::format::{LOG_AT, LOG_OCTETS_MAX, PAGE, RECORD_HASH, RECORD_HEAD, RECORD_MAGIC};

/// Random name of the time between two checkpoints.
pub type Epoch = u128;

pub fn new_epoch() -> io::Result<Epoch> {
    let octets: [u8; 16] = crate::random::octets()?;
    Ok(Epoch::from_le_bytes(octets))
}

/// The log of an open store, as the writer appends to it.
pub struct Log {
    disk: Arc<dyn Disk>,
    epoch: Epoch,
    /// Where the next record goes, relative to the zone.
    end: u64,
    /// Octets of the zone that may be used.
    len: u64,
    /// Everything past this offset reads as zeros. All of the zone may hold old records when it is opened.
    blank_from: u64,
    /// The current record; kept to reuse its memory.
    record: Vec<u8>,
}

impl Log {
    /// An empty log.
    pub fn new(disk: Arc<dyn Disk>, epoch: Epoch, len: u64) -> Self {
        Self { disk, epoch, end: 0, len, blank_from: len, record: Vec::new() }
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

    /// True if a record with this many octets of changes fits.
    pub fn fits(&self, changes: usize) -> bool {
        self.end + paged(changes) <= self.len
    }

    /// Restarts the log after a checkpoint. The part of the zone that is no longer used goes back to the file
    /// system if possible.
    pub fn begin(&mut self, epoch: Epoch, len: u64) {
        if len < self.len {
            let _ = self.disk.punch(LOG_AT + len, self.len - len);
        }
        (self.epoch, self.end, self.len) = (epoch, 0, len);
        self.blank_from = self.blank_from.min(len);
    }

    /// Lets the next open see at once that the restarted log is empty. If the write fails, that open finds out
    /// by itself.
    pub fn blank(&self) {
        let _ = self.disk.write_at(LOG_AT, &[0; PAGE as usize]);
    }

    /// Overwrites older records, which may contain deleted texts. The log must just have been restarted.
    pub fn erase(&mut self) {
        match write_zeros(&*self.disk, 0..self.blank_from) {
            Ok(()) => self.blank_from = 0,
            Err(e) => log::warn!("copies of deleted mail in the log could not be overwritten: {e}"),
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
        let end = self.end + self.record.len() as u64;
        // Also if the write fails: part of it may have been done.
        self.blank_from = self.blank_from.max(end);
        self.disk.write_durable(LOG_AT + self.end, &self.record)?;
        self.end = end;
        Ok(())
    }

    /// Doubles the zone, up to its maximum. Returns the new length, which applies after the next checkpoint.
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

/// Octets of the zone taken by a record with this many octets of changes.
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

/// The consecutive records of one epoch at the start of the log.
pub struct Front {
    pub records: Vec<Record>,
    end: u64,
}

/// Reads the records at the start of the log, of whatever epoch.
pub fn read_front(disk: &dyn Disk) -> io::Result<Front> {
    let mut front = Front { records: Vec::new(), end: 0 };
    loop {
        let follows = |head: &Head| match front.records.last() {
            Some(last) => head.epoch == last.epoch && head.number == last.number + 1,
            None => true,
        };
        let Some(record) = read_record(disk, front.end, LOG_OCTETS_MAX, follows)? else { return Ok(front) };
        front.end += paged(record.changes.len());
        front.records.push(record);
    }
}

impl Front {
    /// True if the records belong to `epoch`. If not, they are older and the current epoch has none yet; or
    /// this is a copy of a live file, whose front is older than its log, and the index is complete without it.
    pub fn is_of(&self, epoch: Epoch) -> bool {
        self.records.first().is_none_or(|first| first.epoch == epoch)
    }

    /// True if there are records of the epoch past the end of these: some in between are damaged. `len` is the
    /// length of the zone.
    pub fn has_gap(&self, disk: &dyn Disk, epoch: Epoch, len: u64) -> io::Result<bool> {
        let next = self.records.last().map_or(0, |last| last.number + 1);
        // Most heads are of older epochs, or were planted in a text. Reading what each of them announces would be
        // quadratic in the length of the log.
        let is_later = |head: &Head| head.epoch == epoch && head.number > next;
        for at in (self.end..len).step_by(PAGE as usize) {
            if read_record(disk, at, len, is_later)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The head of a record.
struct Head {
    epoch: Epoch,
    number: u64,
    /// Octets of the whole record.
    len: usize,
}

/// The head of the record at `at`, if one may begin there that ends inside the zone.
fn read_head(disk: &dyn Disk, at: u64, zone: u64) -> io::Result<Option<Head>> {
    if at + PAGE > zone {
        return Ok(None);
    }
    let mut head = [0; RECORD_HEAD];
    disk.read_at(LOG_AT + at, &mut head)?;
    let changes = u32::from_le_bytes(head[4..8].try_into().expect("four octets")) as usize;
    if head[..4] != *RECORD_MAGIC || at + paged(changes) > zone {
        return Ok(None);
    }
    let epoch = Epoch::from_le_bytes(head[8..24].try_into().expect("sixteen octets"));
    let number = u64::from_le_bytes(head[24..32].try_into().expect("eight octets"));
    Ok(Some(Head { epoch, number, len: RECORD_HEAD + changes }))
}

/// The record at `at`, if its head is wanted and all of it is there.
fn read_record(
    disk: &dyn Disk,
    at: u64,
    zone: u64,
    is_wanted: impl FnOnce(&Head) -> bool,
) -> io::Result<Option<Record>> {
    let Some(head) = read_head(disk, at, zone)?.filter(is_wanted) else { return Ok(None) };
    let mut record = vec![0; head.len];
    disk.read_at(LOG_AT + at, &mut record)?;
    if hash_of(&record).as_bytes() != &record[RECORD_HASH] {
        return Ok(None);
    }
    Ok(Some(Record { epoch: head.epoch, number: head.number, changes: record.split_off(RECORD_HEAD) }))
}
