//! The life of a large store: opening after a kill, a long UIDL, check, backup and repair, each with none of the file
//! in memory. `cargo bench --features bench --bench store -- upkeep FILE MESSAGES`
//!
//! If FILE does not exist, another process creates it and is killed while it accepts mail.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{add_mailbox, letter, one_by_one, open, text, time};
use crate::store::{Progress, Store, UnixTime};

const OCTETS: usize = 1000;
const MAILBOXES: u64 = 100;
/// The mailbox whose UIDL is measured.
const LARGE: &str = "large@example.com";
const LARGE_MESSAGES: u64 = 100_000;
const FILLED: &str = "filled";
const MESSAGES_A_TRANSACTION: u64 = 1000;

/// Runs the benchmark.
pub fn run(path: &Path, messages: u64) {
    if !path.exists() {
        make_and_kill(path, messages);
    }
    forget_pages(path);
    let store = time("open, nothing in memory", 1, || Store::open(path).unwrap_or_else(|e| panic!("{e}")));
    println!("  {:?}", store.disk_usage().expect("it can be asked"));
    drop(store);
    forget_pages(path);
    let store = Store::open(path).unwrap_or_else(|e| panic!("{e}"));
    let listed = LARGE_MESSAGES.min(messages / 2);
    time("UIDL, nothing in memory", listed, || {
        assert_eq!(open(&store, LARGE).list().expect("it can be read").len() as u64, listed);
    });
    forget_pages(path);
    let report = time("check while it is open", messages, || store.check(&Progress::default()));
    println!("  {} findings", report.expect("it can be read").findings_total);
    forget_pages(path);
    let copy = path.with_extension("copy");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&copy);
    let file = file.expect("a file can be created next to it");
    time("backup", messages, || store.backup(file, &Progress::default()).expect("it can be copied"));
    drop(store);
    forget_pages(path);
    let report = time("check", messages, || Store::check_file(path, &Progress::default()));
    println!("  {} findings", report.unwrap_or_else(|e| panic!("{e}")).findings_total);
    forget_pages(&copy);
    let report = time("check --repair, of the copy", messages, || {
        Store::repair(&copy, UnixTime(1), &Progress::default())
    });
    println!("  {} repaired", report.unwrap_or_else(|e| panic!("{e}")).repaired_total);
    delete_some(&copy);
    forget_pages(&copy);
    let store = Store::open(&copy).unwrap_or_else(|e| panic!("{e}"));
    let report = time("compact, of the copy", messages, || {
        while_delivering(&store, messages, || store.compact(&Progress::default()))
    });
    println!("  {:?}", report.expect("it can be written"));
    drop(store);
    std::fs::remove_file(copy).expect("what was made can be removed");
}

/// Does the work while another thread delivers one message after the other, and prints what became of them.
fn while_delivering<T>(store: &Store, messages: u64, work: impl FnOnce() -> T) -> T {
    let is_done = AtomicBool::new(false);
    let (done, delivered, longest) = thread::scope(|scope| {
        let deliverer = scope.spawn(|| {
            let (mut delivered, mut longest) = (0, Duration::ZERO);
            while !is_done.load(Ordering::Relaxed) {
                let number = 2 * messages + delivered;
                let (text, letters) = (text(number, OCTETS), [letter("user0@example.com", number)]);
                let begin = Instant::now();
                let stored = store.write(move |tx| tx.deliver(&text, &letters, UnixTime(1)));
                stored.wait().expect("it can be written");
                longest = longest.max(begin.elapsed());
                delivered += 1;
            }
            (delivered, longest)
        });
        let done = work();
        is_done.store(true, Ordering::Relaxed);
        let (delivered, longest) = deliverer.join().expect("it does not panic");
        (done, delivered, longest)
    });
    println!("  {delivered} messages were delivered meanwhile; the slowest took {longest:.0?}");
    done
}

/// Deletes every tenth message for good, which leaves holes all over the file.
fn delete_some(path: &Path) {
    let store = Store::open(path).unwrap_or_else(|e| panic!("{e}"));
    time("delete every tenth message", 1, || {
        for number in 0..MAILBOXES {
            let maildrop = open(&store, &format!("user{number}@example.com"));
            let entries = maildrop.list().expect("it can be read");
            let uids: Vec<_> = entries.iter().step_by(10).map(|entry| entry.uid).collect();
            maildrop.delete_for_good(&uids).wait().expect("it can be written");
        }
    });
}

/// Has another process create the store, and kills it while it accepts mail.
fn make_and_kill(path: &Path, messages: u64) {
    let this = std::env::current_exe().expect("this program has a name");
    let mut maker = Command::new(this)
        .args(["fill".as_ref(), path.as_os_str(), messages.to_string().as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be run");
    let told = BufReader::new(maker.stdout.take().expect("it is piped")).lines();
    for line in told {
        let line = line.expect("it is text");
        println!("  {line}");
        if line == FILLED {
            break;
        }
    }
    maker.kill().expect("it is ours");
    maker.wait().expect("it is ours");
}

/// Creates the store, and delivers to it until killed.
pub fn fill(path: &Path, messages: u64) {
    let store = Store::create(path).unwrap_or_else(|e| panic!("{e}"));
    let mailboxes: Vec<String> = (0..MAILBOXES).map(|number| format!("user{number}@example.com")).collect();
    mailboxes.iter().for_each(|mailbox| add_mailbox(&store, mailbox));
    add_mailbox(&store, LARGE);
    let large = LARGE_MESSAGES.min(messages / 2);
    // Its mail comes in between that of others, as it would over a year.
    let every = messages / large;
    time("fill", messages, || {
        let (mut delivered, mut to_large) = (0, 0);
        while delivered < messages {
            let numbers = delivered..(delivered + MESSAGES_A_TRANSACTION).min(messages);
            let mail: Vec<_> = numbers
                .map(|number| {
                    let is_to_large = number % every == 0 && to_large < large;
                    to_large += u64::from(is_to_large);
                    let mailbox = match is_to_large {
                        true => LARGE,
                        false => &mailboxes[(number % MAILBOXES) as usize],
                    };
                    (text(number, OCTETS), [letter(mailbox, number)])
                })
                .collect();
            delivered += mail.len() as u64;
            let filled = store.write(move |tx| {
                for (text, letters) in &mail {
                    tx.deliver(text, letters, UnixTime(1))?;
                }
                Ok(())
            });
            filled.wait().expect("it can be written");
        }
    });
    println!("{FILLED}");
    for round in 1.. {
        one_by_one(&store, &mailboxes[0], messages * (round + 1), messages);
    }
}

/// Drops the file from the page cache.
fn forget_pages(path: &Path) {
    let file = File::open(path).expect("it can be opened");
    file.sync_all().expect("it can be synced");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("Linux takes the advice");
}

/// A path and a number from the command line.
pub fn arguments(typed: &[String]) -> Option<(PathBuf, u64)> {
    Some((typed.first()?.into(), typed.get(1)?.parse().ok()?))
}
