//! Reads many texts and verifies each, in order of place and on all processors. The threads inherit the
//! caller's priority ([`at_low_priority`]).
//!
//! The calling thread lists the texts in table order while other threads read what was listed before. A few texts are
//! read only on the calling thread. Neighbouring texts are read together.

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

/// Texts, and octets of them, that a thread takes at a time.
const BATCH_TEXTS: usize = 16 << 10;
const BATCH_OCTETS: u64 = 32 << 20;
/// Most octets read at once; longer texts are read in pieces.
const READ_OCTETS: u64 = 1 << 20;
/// Texts closer together than this are read together with the gap.
const GAP_OCTETS: u64 = 64 << 10;
/// No disk is fast enough for more threads.
const THREADS_MAX: usize = 8;
/// Added to the niceness of background threads (setpriority(2); per thread on Linux).
const NICENESS: i32 = 10;

/// A text to read.
#[derive(Clone, Copy, Debug)]
pub struct TextToRead {
    /// The caller's number for it.
    pub index: usize,
    pub hash: [u8; 32],
    pub at: u64,
    pub wire_octets: u64,
    /// Its place in the copy, if one is being made.
    pub to: Option<u64>,
}

/// The state of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Whole {
        content_octets: u64,
    },
    /// It does not match its hash.
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

/// Where to read texts, and where to copy intact ones to.
pub struct Reading<'a> {
    pub source: &'a Container,
    pub copy: Option<&'a Container>,
    /// Counts octets.
    pub progress: &'a Progress,
}

impl Reading<'_> {
    /// Reads the texts that `list` passes to its argument, which fails once there is no point in going on.
    /// Calls `each` with the results in any order.
    pub fn run<E: From<NotCopied>>(
        &self,
        list: impl FnOnce(&mut dyn FnMut(TextToRead) -> Result<(), E>) -> Result<(), E>,
        each: impl FnMut(TextToRead, Found) + Send,
    ) -> Result<(), E> {
        let outcome =
            Outcome { each: Mutex::new(each), failure: Mutex::new(None), failed: AtomicBool::new(false) };
        let threads = processors();
        let (sender, receiver) = smol::channel::bounded::<Vec<TextToRead>>(threads);
        let listed = thread::scope(|scope| {
            // Dropped before the threads are joined, whatever happens.
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
                // Fails only if every thread has panicked; joining them shows that.
                let _ = sender.send_blocking(std::mem::take(&mut batch));
                outcome.failure().map_or(Ok(()), |e| Err(E::from(e)))
            })?;
            self.read_batch(batch, &outcome);
            Ok::<(), E>(())
        });
        listed?;
        outcome.failure().map_or(Ok(()), |e| Err(E::from(e)))
    }

    fn read_batch(&self, mut texts: Vec<TextToRead>, outcome: &Outcome<impl FnMut(TextToRead, Found)>) {
        texts.sort_unstable_by_key(|text| text.at);
        let mut runs: Vec<&[TextToRead]> =
            texts.chunk_by(|one, next| next.at <= end_of(one) + GAP_OCTETS).collect();
        runs = runs.into_iter().flat_map(short_runs).collect();
        let (mut buffer, mut found) = (Vec::new(), Vec::with_capacity(texts.len()));
        for (nth, run) in runs.iter().enumerate() {
            if outcome.failed.load(Ordering::Relaxed) || self.source.is_closing() {
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

    /// Reads neighbouring texts at once.
    fn read_run(
        &self,
        run: &[TextToRead],
        buffer: &mut Vec<u8>,
        found: &mut Vec<(TextToRead, Found)>,
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
        // Either a long text, or an octet could not be read and most texts may do without it.
        for text in run {
            found.push((*text, self.read_in_pieces(text, buffer)?));
        }
        Ok(())
    }

    fn read_in_pieces(&self, text: &TextToRead, buffer: &mut Vec<u8>) -> Result<Found, NotCopied> {
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

    /// Writes the texts of a run, those together that lie alike in the copy. What lies between two texts is not
    /// copied.
    fn copy_run(&self, run: &[TextToRead], buffer: &mut [u8]) -> Result<(), NotCopied> {
        let Some(copy) = self.copy else { return Ok(()) };
        let begin = run[0].at;
        let moved = |text: &TextToRead| text.to.map(|to| to.wrapping_sub(text.at));
        let is_next = |one: &TextToRead, next: &TextToRead| {
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

/// State shared by the threads.
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

fn end_of(text: &TextToRead) -> u64 {
    text.at.saturating_add(text.wire_octets)
}

/// Octets from the start of the first text of a run to the end of the one that ends last.
fn octets_of(run: &[TextToRead]) -> u64 {
    run.iter().map(end_of).max().unwrap_or(0) - run[0].at
}

/// Cuts a run into parts that can be read at once.
fn short_runs(run: &[TextToRead]) -> Vec<&[TextToRead]> {
    let mut short = Vec::new();
    let mut rest = run;
    while let Some(first) = rest.first() {
        let fits = |text: &&TextToRead| end_of(text) - first.at <= READ_OCTETS;
        let count = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(count);
        short.push(now);
        rest = later;
    }
    short
}

fn compared(text: &TextToRead, octets: &[u8]) -> Found {
    let mut count = ContentCount::default();
    count.push(octets);
    verdict(text, &blake3::hash(octets), &count)
}

fn verdict(text: &TextToRead, hash: &blake3::Hash, count: &ContentCount) -> Found {
    match *hash == text.hash {
        true => Found::Whole { content_octets: count.octets() },
        false => Found::Changed,
    }
}

/// Lowers the priority of this thread for the rest of its life.
fn lower_priority() {
    // If that is not allowed, the work is done anyway.
    let _ = rustix::process::nice(NICENESS);
}

/// Does work that is cut into `parts` on several threads, including the calling one; each takes parts while
/// there are any. Returns the results.
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

/// Runs work on a thread of low priority, so that it slows nobody down, and waits for it.
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

    fn text(at: u64, wire_octets: u64) -> TextToRead {
        TextToRead { index: 0, hash: [0; 32], at, wire_octets, to: None }
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
