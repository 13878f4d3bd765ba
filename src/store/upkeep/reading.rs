//! Reads many texts, and compares each with its hash: in the order of their places, on all processors. The threads have
//! the priority of the one that has them begun ([`at_low_priority`]).
//!
//! Whoever lists the texts does so on the calling thread, in the order of the table, while other threads read what was
//! listed before. Few texts are read on the calling thread alone. What lies together is read at once.

use std::io;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::progress::Progress;
use crate::lock::Mutex;
use crate::store::file::container::Container;
use crate::store::file::format::BLOB_ALIGN;
use crate::store::index::Fault;
use crate::wire::ContentCount;

/// Texts, and their octets, that a thread takes at a time.
const BATCH_TEXTS: usize = 16 << 10;
const BATCH_OCTETS: u64 = 32 << 20;
/// Octets that are read at once; a longer text is read in such pieces.
const READ_OCTETS: u64 = 1 << 20;
/// Fewer octets than this between two texts are read with them.
const GAP_OCTETS: u64 = 64 << 10;
/// More threads than this find no disk that is fast enough.
const THREADS_MAX: usize = 8;
/// Added to the niceness of a thread that nobody waits for (setpriority(2), of one thread on Linux).
const NICENESS: i32 = 10;

/// A text to be read, within the file.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// Whoever listed it knows it by this.
    pub index: usize,
    pub hash: [u8; 32],
    pub at: u64,
    pub wire_octets: u64,
    /// Where it goes in the copy, if one is made.
    pub to: Option<u64>,
}

/// What was found of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Whole {
        content_octets: u64,
    },
    /// It is not what its hash says.
    Changed,
    Unreadable(String),
}

/// The copy could not be written.
#[derive(Debug)]
pub struct NotCopied(pub io::Error);

impl From<NotCopied> for Fault {
    fn from(NotCopied(e): NotCopied) -> Self {
        e.into()
    }
}

/// Where texts are read, and where whole ones are copied to.
pub struct Reading<'a> {
    pub source: &'a Container,
    pub copy: Option<&'a Container>,
    /// Counts octets.
    pub progress: &'a Progress,
}

impl Reading<'_> {
    /// Reads what `list` gives to its argument, which fails when there is no use in going on. `each` is told of the
    /// texts in any order.
    pub fn run<E: From<NotCopied>>(
        &self,
        list: impl FnOnce(&mut dyn FnMut(Listed) -> Result<(), E>) -> Result<(), E>,
        each: impl FnMut(Listed, Found) + Send,
    ) -> Result<(), E> {
        let outcome =
            Outcome { each: Mutex::new(each), failure: Mutex::new(None), failed: AtomicBool::new(false) };
        let threads = processors();
        let (sender, receiver) = smol::channel::bounded::<Vec<Listed>>(threads);
        let listed = thread::scope(|scope| {
            // Dropped before the threads are waited for, whatever happens.
            let sender = sender;
            let (mut batch, mut octets) = (Vec::new(), 0);
            let mut are_running = false;
            list(&mut |text| {
                octets += text.wire_octets;
                batch.push(text);
                if batch.len() < BATCH_TEXTS && octets < BATCH_OCTETS {
                    return Ok(());
                }
                if !std::mem::replace(&mut are_running, true) {
                    for _ in 0..threads {
                        scope.spawn(|| {
                            while let Ok(batch) = receiver.recv_blocking() {
                                self.read_batch(batch, &outcome);
                            }
                        });
                    }
                }
                octets = 0;
                // It fails only when every thread has panicked, which is told when they are waited for.
                let _ = sender.send_blocking(std::mem::take(&mut batch));
                outcome.failure().map_or(Ok(()), |e| Err(E::from(e)))
            })?;
            self.read_batch(batch, &outcome);
            Ok::<(), E>(())
        });
        listed?;
        outcome.failure().map_or(Ok(()), |e| Err(E::from(e)))
    }

    fn read_batch(&self, mut texts: Vec<Listed>, outcome: &Outcome<impl FnMut(Listed, Found)>) {
        texts.sort_unstable_by_key(|text| text.at);
        let mut runs: Vec<&[Listed]> =
            texts.chunk_by(|one, next| next.at <= end_of(one) + GAP_OCTETS).collect();
        runs = runs.into_iter().flat_map(short_runs).collect();
        let (mut buffer, mut found) = (Vec::new(), Vec::with_capacity(texts.len()));
        for (nth, run) in runs.iter().enumerate() {
            if outcome.failed.load(Ordering::Relaxed) {
                return;
            }
            if let Some(next) = runs.get(nth + 1) {
                self.source.will_read_blobs(next[0].at, octets_of(next));
            }
            if let Err(e) = self.read_run(run, &mut buffer, &mut found) {
                outcome.fail(e);
                return;
            }
            self.progress.add(run.iter().map(|text| text.wire_octets).sum());
        }
        let mut each = outcome.each.lock();
        found.into_iter().for_each(|(text, found)| each(text, found));
    }

    /// Reads texts that lie together, at once.
    fn read_run(
        &self,
        run: &[Listed],
        buffer: &mut Vec<u8>,
        found: &mut Vec<(Listed, Found)>,
    ) -> Result<(), NotCopied> {
        let (begin, octets) = (run[0].at, octets_of(run));
        if octets <= READ_OCTETS {
            buffer.resize(octets as usize, 0);
            if self.source.read_blob(begin, buffer).is_ok() {
                for text in run {
                    let place = (text.at - begin) as usize;
                    found.push((*text, compared(text, &buffer[place..][..text.wire_octets as usize])));
                }
                return self.copy_run(run, buffer);
            }
        }
        // A long text; or some octet cannot be read, and the texts without it can.
        for text in run {
            found.push((*text, self.read_in_pieces(text, buffer)?));
        }
        Ok(())
    }

    fn read_in_pieces(&self, text: &Listed, buffer: &mut Vec<u8>) -> Result<Found, NotCopied> {
        let (mut hasher, mut count) = (blake3::Hasher::new(), ContentCount::default());
        let mut from = 0;
        while from < text.wire_octets {
            buffer.resize((text.wire_octets - from).min(READ_OCTETS) as usize, 0);
            if let Err(e) = self.source.read_blob(text.at + from, buffer) {
                return Ok(Found::Unreadable(e.to_string()));
            }
            hasher.update(buffer);
            count.push(buffer);
            if let (Some(copy), Some(to)) = (self.copy, text.to) {
                copy.write_blob(to + from, buffer).map_err(NotCopied)?;
            }
            from += buffer.len() as u64;
        }
        Ok(verdict(text, &hasher.finalize(), &count))
    }

    /// Writes the texts of a run, those at once that lie in the copy as they do here. What is between two of them is no
    /// text, and does not come along.
    fn copy_run(&self, run: &[Listed], buffer: &mut [u8]) -> Result<(), NotCopied> {
        let Some(copy) = self.copy else { return Ok(()) };
        let begin = run[0].at;
        let moved = |text: &Listed| text.to.map(|to| to.wrapping_sub(text.at));
        let is_next = |one: &Listed, next: &Listed| {
            next.at.checked_sub(end_of(one)).is_some_and(|between| between < BLOB_ALIGN)
        };
        for part in run.chunk_by(|one, next| moved(one) == moved(next) && is_next(one, next)) {
            let Some(to) = part[0].to else { continue };
            let place = |at: u64| (at - begin) as usize;
            for pair in part.windows(2) {
                buffer[place(end_of(&pair[0]))..place(pair[1].at)].fill(0);
            }
            let from = place(part[0].at);
            copy.write_blob(to, &buffer[from..from + octets_of(part) as usize]).map_err(NotCopied)?;
        }
        Ok(())
    }
}

/// What the threads have in common.
struct Outcome<F> {
    each: Mutex<F>,
    failure: Mutex<Option<NotCopied>>,
    failed: AtomicBool,
}

impl<F> Outcome<F> {
    fn fail(&self, failure: NotCopied) {
        self.failed.store(true, Ordering::Relaxed);
        self.failure.lock().get_or_insert(failure);
    }

    fn failure(&self) -> Option<NotCopied> {
        self.failure.lock().take()
    }
}

fn end_of(text: &Listed) -> u64 {
    text.at.saturating_add(text.wire_octets)
}

/// From the beginning of the first text of a run to the end of the one that ends last.
fn octets_of(run: &[Listed]) -> u64 {
    run.iter().map(end_of).max().unwrap_or(0) - run[0].at
}

/// Cuts a run into such as can be read at once.
fn short_runs(run: &[Listed]) -> Vec<&[Listed]> {
    let mut short = Vec::new();
    let mut rest = run;
    while let Some(first) = rest.first() {
        let fits = |text: &&Listed| end_of(text) - first.at <= READ_OCTETS;
        let count = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        short.push(now);
        rest = later;
    }
    short
}

fn compared(text: &Listed, octets: &[u8]) -> Found {
    let mut count = ContentCount::default();
    count.push(octets);
    verdict(text, &blake3::hash(octets), &count)
}

fn verdict(text: &Listed, hash: &blake3::Hash, count: &ContentCount) -> Found {
    match *hash == text.hash {
        true => Found::Whole { content_octets: count.octets() },
        false => Found::Changed,
    }
}

/// Lets others go first from now on, as long as this thread lives.
fn lower_priority() {
    // Where it is not allowed the work is done all the same.
    let _ = rustix::process::nice(NICENESS);
}

/// Has several threads do work that is cut into `parts`, each as often as there is a part left to take, and gathers
/// what they did. One part is done on the calling thread.
pub fn on_all_processors<T: Send, E: Send>(
    parts: usize,
    work: &(impl Fn() -> Result<Vec<T>, E> + Sync),
) -> Result<Vec<T>, E> {
    let threads = processors().min(parts);
    if threads <= 1 {
        return work();
    }
    let outcomes: Vec<Result<Vec<T>, E>> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    outcomes.into_iter().try_fold(Vec::new(), |mut all, outcome| {
        all.extend(outcome?);
        Ok(all)
    })
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX))
}

/// Runs work that nobody is to be slowed down by on a thread of its own, and waits for it.
pub fn at_low_priority<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let joined = thread::scope(|scope| {
        scope
            .spawn(|| {
                lower_priority();
                work()
            })
            .join()
    });
    joined.unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(at: u64, wire_octets: u64) -> Listed {
        Listed { index: 0, hash: [0; 32], at, wire_octets, to: None }
    }

    #[test]
    fn a_run_is_cut_where_it_is_too_long_and_a_long_text_stays_whole() {
        let run = [
            text(0, 10),
            text(64, READ_OCTETS - 64),
            text(READ_OCTETS, 5 * READ_OCTETS),
            text(6 * READ_OCTETS, 1),
        ];
        let lengths: Vec<usize> = short_runs(&run).iter().map(|run| run.len()).collect();
        assert_eq!(lengths, [2, 1, 1]);
        assert_eq!(octets_of(&run[..2]), READ_OCTETS);
    }
}
