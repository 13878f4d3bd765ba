//! Tests of the store from outside, on a disk in memory.

mod backups;
mod behaviour;
mod compact;
mod copies;
mod crash;
mod damage;
mod data_file;
mod faults;
mod flips;
mod full_disk;
mod golden;
mod histories;
mod import;
mod log;
mod log_faults;
mod model;
mod placing;
mod quota;
mod recovery;
mod removal;
mod repair;
mod restoring;
mod salvage;
mod undelete;
mod workload;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::ReadableTable;

use super::file::container::{self, Container};
use super::file::disk::{DataFile, Disk};
use super::file::format;
use super::file::log_zone;
use super::file::simulated::SimulatedDisk;
use super::index::rows::{Row, TextRow};
use super::index::tables::{TEXTS, Tables};
use super::index::types::{Day, DomainId, MailboxId, OwnerId, TextId};
use super::mail::quota::Quota;
use super::open::queue::Pending;
use super::open::{Trust, open_database};
use super::writer::PACE;
use super::*;
use crate::address::{Address, Domain};
use crate::auth::password::{Credential, Verifier};
use crate::tests::scratch;
use crate::verdict::{Delivery, Login};
use crate::wire::Receiver;

fn address(typed: &str) -> Address {
    typed.parse().unwrap()
}

fn text(content: &[u8]) -> Incoming {
    let mut receiver = Receiver::verbatim();
    receiver.push(content);
    receiver.finish().unwrap().into()
}

fn letter(recipient: &str, tag: u64) -> Letter {
    Letter {
        recipient: address(recipient),
        prefix: format!("Delivered-To: {recipient}\r\n").into_bytes(),
        tag,
    }
}

fn credential() -> Credential {
    // Nobody logs in to these mailboxes, so don't spend time on deriving a key.
    Credential { version: 0, verifier: Verifier::of_nobody([0; 16]), sealed: None }
}

/// A store with the given mailboxes on a new simulated disk. Deleted mail goes for good.
fn store_with(mailboxes: &[&str], disk: Arc<SimulatedDisk>) -> Store {
    let store = Store::create_on(disk).unwrap();
    keep_deleted(&store, "0");
    for mailbox in mailboxes {
        add_mailbox(&store, mailbox);
    }
    store
}

/// Sets for how many days deleted mail can come back.
fn keep_deleted(store: &Store, days: &'static str) {
    store.write(move |tx| tx.set_setting("undelete", Some(days))).wait().unwrap();
}

fn add_mailbox(store: &Store, mailbox: &str) {
    let mailbox = address(mailbox);
    let added = store.write(move |tx| {
        let _ = tx.add_domain(&mailbox.domain, UnixTime(1))?;
        tx.add_mailbox(&mailbox, credential(), UnixTime(1))
    });
    assert_eq!(added.wait().unwrap(), Ok(()));
}

fn set_quota(store: &Store, mailbox: &str, account: &str, limit: Option<u64>) -> Quota {
    let (mailbox, account) = (address(mailbox), address(account));
    store.write(move |tx| tx.set_quota(&mailbox, &account, limit)).wait().unwrap().unwrap()
}

fn deliver(store: &Store, recipients: &[&str], content: &[u8]) -> Vec<Delivery> {
    try_deliver(store, recipients, content).unwrap()
}

fn try_deliver(store: &Store, recipients: &[&str], content: &[u8]) -> Result<Vec<Delivery>, Fault> {
    let text = text(content);
    let letters: Vec<Letter> = recipients.iter().map(|recipient| letter(recipient, 7)).collect();
    store.write(move |tx| tx.deliver(&text, &letters, UnixTime(1))).wait()
}

/// The text as delivery passes it in; a long one is already in the file.
fn placed(store: &Store, content: &[u8]) -> Incoming {
    let text = text(content);
    match smol::block_on(store.room_for(&text)) {
        Some(room) => room.place(text),
        None => text,
    }
}

fn open_maildrop(store: &Store, mailbox: &str) -> Maildrop {
    match store.open_maildrop(&address(mailbox)).unwrap() {
        Login::Welcome(maildrop) => maildrop,
        other => panic!("{mailbox}: {}", login_name(&other)),
    }
}

fn login_name<T>(login: &Login<T>) -> &'static str {
    match login {
        Login::Welcome(_) => "welcome",
        Login::WrongCredentials => "wrong credentials",
        Login::Barred { .. } => "barred",
        Login::Locked => "locked",
        Login::InUse => "in use",
        Login::Incomplete => "incomplete",
        Login::TooSoon => "too soon",
    }
}

/// What RETR would send for each message of a mailbox: prefix and text.
fn contents(store: &Store, mailbox: &str) -> Vec<Vec<u8>> {
    let maildrop = open_maildrop(store, mailbox);
    let entries = maildrop.list().unwrap();
    entries
        .iter()
        .map(|entry| {
            let message = maildrop.message(entry.uid).unwrap().expect("it is in the list");
            let sent = [&message.prefix[..], &message.text].concat();
            assert_eq!(crate::wire::unstuff(&sent).len() as u64, entry.octets);
            sent
        })
        .collect()
}

/// The row of the text with this content, if there is one.
fn stored_text(store: &Store, content: &[u8]) -> Option<TextRow> {
    let hash = *text(content).hash.as_bytes();
    let texts = store.read().unwrap().table(TEXTS).unwrap();
    let rows = texts.iter().unwrap().map(|row| TextRow::from_row(row.unwrap().1.value()).unwrap());
    rows.into_iter().find(|row| row.hash == hash)
}

fn checkpoint(store: &Store) {
    drop(store.read_at_checkpoint().wait().unwrap());
}

/// Backs the store up into a new file or over an existing backup.
fn back_up(store: &Store, path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).open(path).unwrap();
    store.backup(file, &Progress::default()).unwrap();
}

fn assert_clean(store: &Store) {
    let report = store.check(&Progress::default()).unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
}
