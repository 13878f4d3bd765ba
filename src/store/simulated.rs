//! A disk that loses what was not synced: for the crash tests.
//!
//! It records every write, length change and sync. [`SimulatedDisk::crash`] then makes the disk that could be found after
//! a power cut at a given event: what was synced before is there; of everything since, an arbitrary subset of sectors.

use super::disk::{Disk, DiskUsage, View};
use std::io;
use std::sync::{Mutex, MutexGuard};

/// What reaches the platter whole or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Event {
    Write { at: u64, octets: Vec<u8> },
    SetLen(u64),
    Zero { at: u64, len: u64 },
    Sync,
}

#[derive(Debug, Default)]
pub struct SimulatedDisk {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    octets: Vec<u8>,
    /// Empty unless the disk records.
    events: Vec<Event>,
    recording: bool,
    /// Octets that the file may have; more is "no space left".
    room: Option<u64>,
    /// Writes and syncs still to succeed before every further one fails.
    until_failure: Option<u64>,
}

impl SimulatedDisk {
    pub fn recording() -> Self {
        let disk = Self::default();
        disk.lock().recording = true;
        disk
    }

    fn with(octets: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.lock().octets = octets;
        disk
    }

    /// The number of events so far: a moment at which a crash can be put.
    pub fn events(&self) -> usize {
        self.lock().events.len()
    }

    pub fn is_sync(&self, event: usize) -> bool {
        matches!(self.lock().events.get(event), Some(Event::Sync))
    }

    /// From now on the file can have this many octets, or as many as it wants.
    pub fn set_room(&self, room: Option<u64>) {
        self.lock().room = room;
    }

    pub fn file_len(&self) -> u64 {
        self.lock().octets.len() as u64
    }

    /// After so many more writes and syncs each one fails; `None` mends the disk.
    pub fn fail_after(&self, operations: Option<u64>) {
        self.lock().until_failure = operations;
    }

    /// The disk as found after a power cut just before event `at`. Of what was not synced, each sector survives with
    /// the probability `survival`, each change of length too.
    pub fn crash(&self, at: usize, survival: f64, rng: &mut fastrand::Rng) -> SimulatedDisk {
        let state = self.lock();
        let events = &state.events[..at];
        let synced = events.iter().rposition(|event| matches!(event, Event::Sync)).map_or(0, |i| i + 1);
        let mut image = Vec::new();
        for event in &events[..synced] {
            apply(&mut image, event);
        }
        for event in &events[synced..] {
            match event {
                Event::Write { at, octets } => {
                    let mut done = 0;
                    while done < octets.len() {
                        let at = *at as usize + done;
                        let count = (SECTOR - at % SECTOR).min(octets.len() - done);
                        if rng.f64() < survival {
                            write(&mut image, at, &octets[done..done + count]);
                        }
                        done += count;
                    }
                }
                event if rng.f64() < survival => apply(&mut image, event),
                _ => {}
            }
        }
        SimulatedDisk::with(image)
    }

    fn change(&self, event: Event) -> io::Result<()> {
        let mut state = self.lock();
        if let Some(left) = &mut state.until_failure {
            if *left == 0 {
                return Err(io::Error::other("the simulated disk has failed"));
            }
            *left -= 1;
        }
        let end = match &event {
            Event::Write { at, octets } => at + octets.len() as u64,
            Event::SetLen(len) => *len,
            Event::Zero { .. } | Event::Sync => 0,
        };
        if state.room.is_some_and(|room| end > room.max(state.octets.len() as u64)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        apply(&mut state.octets, &event);
        if state.recording {
            state.events.push(event);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

fn apply(image: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write { at, octets } => write(image, *at as usize, octets),
        Event::SetLen(len) => image.resize(*len as usize, 0),
        Event::Zero { at, len } => {
            let end = (at + len).min(image.len() as u64);
            if *at < end {
                image[*at as usize..end as usize].fill(0);
            }
        }
        Event::Sync => {}
    }
}

fn write(image: &mut Vec<u8>, at: usize, octets: &[u8]) {
    let end = at + octets.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[at..end].copy_from_slice(octets);
}

impl Disk for SimulatedDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file_len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Event::SetLen(len))
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        let range = at as usize..at as usize + out.len();
        let octets = state.octets.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(octets);
        Ok(())
    }

    fn write_at(&self, at: u64, octets: &[u8]) -> io::Result<()> {
        self.change(Event::Write { at, octets: octets.to_vec() })
    }

    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        self.change(Event::Zero { at, len })
    }

    fn reserve_zeroed(&self, at: u64, len: u64) -> io::Result<()> {
        self.change(Event::Zero { at, len })
    }

    fn sync(&self) -> io::Result<()> {
        self.change(Event::Sync)
    }

    fn view(&self, at: u64, len: usize) -> io::Result<View> {
        let mut octets = vec![0; len];
        self.read_at(at, &mut octets)?;
        Ok(View::Copied(octets))
    }

    fn usage(&self) -> io::Result<DiskUsage> {
        Ok(DiskUsage { file_octets: self.file_len(), allocated_octets: self.file_len() })
    }
}
