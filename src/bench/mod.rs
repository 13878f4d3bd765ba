//! Measures the store on a real data file on the disk of `$TMPDIR`, with every commit durable. Prints figures and
//! asserts nothing. `cargo bench --features bench --bench store`

mod deliver;
mod space;
mod upkeep;

use std::cell::Cell;
use std::time::Instant;

use crate::address::Address;
use crate::auth::password::{Credential, Verifier};
use crate::store::{Incoming, Letter, Maildrop, Progress, Store, UnixTime};
use crate::verdict::Login;
use crate::wire::{LineEnds, Receiver};

const CONCURRENT: usize = 64;
const MESSAGES_ONE_BY_ONE: u64 = 20_000;
const MAILBOX_LARGE: u64 = 100_000;
const STORE_LARGE: u64 = 1_000_000;
const DELETED_AT_ONCE: usize = 10_000;

/// Runs the benchmark that the first argument names; without one, [`small_and_large`].
pub fn store() {
    // Cargo adds `--bench`.
    let typed: Vec<String> = std::env::args().skip(1).filter(|typed| typed != "--bench").collect();
    match typed.split_first() {
        None => small_and_large(),
        Some((what, typed)) => match (what.as_str(), upkeep::arguments(typed)) {
            ("upkeep", Some((file, messages))) => upkeep::run(&file, messages),
            ("fill", Some((file, messages))) => upkeep::fill(&file, messages),
            ("space", Some((file, messages))) => space::run(&file, messages),
            ("deliver", Some((file, messages))) => deliver::run(&file, messages),
            _ => eprintln!("upkeep, fill, space or deliver, each with FILE MESSAGES; or nothing"),
        },
    }
}

/// Deliveries, logins, lists and deletions, with few messages and with many.
fn small_and_large() {
    let directory = std::env::temp_dir().join(format!("pop3svc-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory can be made in the temporary one");
    let path = directory.join("winpop.db");
    let store = Store::create(&path).unwrap_or_else(|e| panic!("{e}"));
    for mailbox in ["small@example.com", "large@example.net", "other@example.org"] {
        add_mailbox(&store, mailbox);
    }
    one_by_one(&store, "other@example.org", 10_000_000, MESSAGES_ONE_BY_ONE);
    fill(&store, "small@example.com", 0, 10);
    time("fill one mailbox", MAILBOX_LARGE, || fill(&store, "large@example.net", 10, MAILBOX_LARGE));
    for mailbox in ["small@example.com", "large@example.net"] {
        let maildrop = time(&format!("login, {mailbox}"), 1, || open(&store, mailbox));
        let messages = maildrop.totals().messages;
        time("its list", messages, || maildrop.list().expect("it can be read").len());
    }
    let maildrop = open(&store, "large@example.net");
    let entries = maildrop.list().expect("it can be read");
    let uids: Vec<_> = entries.iter().step_by(10).take(DELETED_AT_ONCE).map(|entry| entry.uid).collect();
    time("QUIT with deletions", uids.len() as u64, || {
        maildrop.delete(&uids).wait().expect("it can be written")
    });
    drop(maildrop);
    let many = STORE_LARGE;
    time("fill the store", many, || fill(&store, "other@example.org", 1_000_000, many));
    one_by_one(&store, "small@example.com", 20_000_000, MESSAGES_ONE_BY_ONE);
    let domain = "example.net".parse().expect("it is a domain");
    let removed = time("delete a domain", MAILBOX_LARGE - DELETED_AT_ONCE as u64, || {
        store.write(move |tx| tx.remove_domain(&domain, UnixTime::now())).wait().expect("it can be written")
    });
    println!("  {removed:?}");
    time("close", 1, || drop(store));
    let store = time("open", 1, || Store::open(&path).unwrap_or_else(|e| panic!("{e}")));
    time("its first login", 1, || open(&store, "other@example.org").totals());
    println!("  {:?}", store.disk_usage().expect("it can be asked"));
    let report = time("check", many, || store.check(&Progress::default()).expect("it can be read"));
    println!("  {} findings", report.findings_total);
    drop(store);
    std::fs::remove_dir_all(&directory).expect("what was made can be removed");
}

fn time<T>(what: &str, count: u64, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let outcome = work();
    let seconds = begin.elapsed().as_secs_f64();
    let rate = count as f64 / seconds;
    println!(
        "{what:<32} {count:>9} in {seconds:>9.4} s  {rate:>12.0}/s  {:>5} MiB resident",
        resident_mebibytes()
    );
    outcome
}

/// The process's anonymous memory (proc_pid_statm(5)).
fn resident_mebibytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Vec<u64> = statm.split(' ').filter_map(|pages| pages.trim().parse().ok()).collect();
    pages.get(1).zip(pages.get(2)).map_or(0, |(resident, shared)| (resident - shared) * 4 / 1024)
}

/// Messages of 1 KiB, each in its own transaction unless others are queued.
fn one_by_one(store: &Store, recipient: &str, first: u64, count: u64) {
    let end = first + count;
    let next = &Cell::new(first);
    let executor = smol::LocalExecutor::new();
    time(&format!("deliveries, {CONCURRENT} at a time"), count, || {
        let tasks: Vec<_> = (0..CONCURRENT)
            .map(|_| {
                executor.spawn(async move {
                    while next.get() < end {
                        let number = next.replace(next.get() + 1);
                        let (text, letters) = (text(number, 1000), [letter(recipient, number)]);
                        store
                            .write(move |tx| tx.deliver(&text, &letters, UnixTime(1)))
                            .await
                            .expect("it can be written");
                    }
                })
            })
            .collect();
        smol::block_on(executor.run(async {
            for task in tasks {
                task.await;
            }
        }));
    });
}

/// Short messages, a thousand to a transaction.
fn fill(store: &Store, recipient: &str, first: u64, count: u64) {
    for from in (first..first + count).step_by(1000) {
        let messages: Vec<_> = (from..(from + 1000).min(first + count))
            .map(|number| (text(number, 200), [letter(recipient, number)]))
            .collect();
        let filled = store.write(move |tx| {
            for (text, letters) in &messages {
                tx.deliver(text, letters, UnixTime(1))?;
            }
            Ok(())
        });
        filled.wait().expect("it can be written");
    }
}

fn text(number: u64, octets: usize) -> Incoming {
    let mut receiver = Receiver::content(LineEnds::Normalise, u64::MAX);
    let mut content = format!("Subject: {number}\n\n").into_bytes();
    content.resize(octets, b'x');
    receiver.push(&content);
    receiver.finish().unwrap_or_else(|_| panic!("it is no longer than is allowed")).into()
}

fn letter(recipient: &str, number: u64) -> Letter {
    let prefix =
        format!("Return-Path: <>\r\nDelivered-To: {recipient}\r\nReceived: by example.com; {number:>60}\r\n");
    Letter { recipient: address(recipient), prefix: prefix.into_bytes(), tag: number }
}

fn open(store: &Store, mailbox: &str) -> Maildrop {
    match store.open_maildrop(&address(mailbox)) {
        Ok(Login::Welcome(maildrop)) => maildrop,
        _ => panic!("{mailbox} cannot be opened"),
    }
}

fn add_mailbox(store: &Store, mailbox: &str) {
    let mailbox = address(mailbox);
    let added = store.write(move |tx| {
        let _ = tx.add_domain(&mailbox.domain, UnixTime(1))?;
        tx.add_mailbox(
            &mailbox,
            Credential { version: 0, verifier: Verifier::of_nobody([0; 16]), sealed: None },
            UnixTime(1),
        )
    });
    assert_eq!(added.wait().expect("it can be written"), Ok(()));
}

fn address(typed: &str) -> Address {
    typed.parse().expect("it is an address")
}
