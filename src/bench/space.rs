//! Octets of data file per stored octet, while the file fills and afterwards. `cargo bench --features bench --bench
//! store -- space FILE MESSAGES`
//!
//! The payload is what LIST announces: the texts and each message's own header fields.

use std::fs::File;
use std::path::Path;

use super::{add_mailbox, letter, text, time};
use crate::store::{Progress, Read, Store, UnixTime};

const MAILBOXES: u64 = 100;
const MESSAGES_A_TRANSACTION: u64 = 64;
/// Octets of a message's text.
const SIZES: [usize; 2] = [1 << 10, 4 << 10];

/// Runs the benchmark. FILE is created anew each time, and removed.
pub fn run(path: &Path, messages: u64) {
    for octets in SIZES {
        println!("{messages} texts of {octets} octets");
        let _ = std::fs::remove_file(path);
        let store = Store::create(path).unwrap_or_else(|e| panic!("{e}"));
        let mailboxes: Vec<String> =
            (0..MAILBOXES).map(|number| format!("user{number}@example.com")).collect();
        mailboxes.iter().for_each(|mailbox| add_mailbox(&store, mailbox));
        time("fill", messages, || fill(&store, &mailboxes, messages, octets));
        tell("filled", &store);
        drop(store);
        let store = Store::open(path).unwrap_or_else(|e| panic!("{e}"));
        tell("opened again", &store);
        store.compact(&Progress::default()).expect("it can be written");
        tell("compact", &store);
        let copy = path.with_extension("copy");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&copy);
        store.backup(file.expect("it can be made"), &Progress::default()).expect("it can be copied");
        drop(store);
        std::fs::rename(&copy, path).expect("it can be renamed");
        tell("backup of it", &Store::open(path).unwrap_or_else(|e| panic!("{e}")));
    }
    std::fs::remove_file(path).expect("it was made here");
}

fn fill(store: &Store, mailboxes: &[String], messages: u64, octets: usize) {
    for from in (0..messages).step_by(MESSAGES_A_TRANSACTION as usize) {
        let mail: Vec<_> = (from..(from + MESSAGES_A_TRANSACTION).min(messages))
            .map(|number| {
                let mailbox = &mailboxes[(number % MAILBOXES) as usize];
                (text(number, octets), [letter(mailbox, number)])
            })
            .collect();
        let filled = store.write(move |tx| {
            for (text, letters) in &mail {
                tx.deliver(text, letters, UnixTime(1))?;
            }
            Ok(())
        });
        filled.wait().expect("it can be written");
    }
}

fn tell(when: &str, store: &Store) {
    let totals = store.read().and_then(|snapshot| snapshot.totals()).expect("it can be read");
    let usage = store.disk_usage().expect("it can be asked");
    let of_payload = usage.allocated_octets as f64 / totals.octets as f64;
    let mebibytes = |octets: u64| octets >> 20;
    let rest = usage.allocated_octets.saturating_sub(totals.text_octets + totals.log_octets);
    println!(
        "{when:<16} {of_payload:>6.3} × payload, in MiB {:>6}: {:>6} of texts, {:>3} of log, {:>5} of index, its reserve, holes",
        mebibytes(usage.allocated_octets),
        mebibytes(totals.text_octets),
        mebibytes(totals.log_octets),
        mebibytes(rest)
    );
}
