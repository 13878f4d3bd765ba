//! Random histories on the store and on a plain model: after each operation both must be equal.
//!
//! Histories on a real file hold messages open while the space around them is freed and reused. Those on a
//! simulated disk meet full disks and faults. An operation answered with a fault has happened or it has not;
//! nothing in between.

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::model::{
    Answer, Model, ModelDomain, ModelMailbox, ModelRemoved, Operation, content_of, prefix_of, removed_with,
};
use super::workload::body_number;
use super::*;
use crate::store::StoredMessage;
use crate::store::index::rows::{
    DeletedRow, MailboxRow, MessageRow, RemovedDomainRow, RemovedMailboxRow, Row,
};
use crate::store::index::tables::{DELETED, REMOVED_DOMAINS, REMOVED_MAILBOXES};
use crate::store::open::Snapshot;

const DOMAINS: [&str; 3] = ["example.com", "example.net", "example.org"];
const LOCALS: [&str; 3] = ["ann", "bob", "carol"];
const SESSIONS_MAX: usize = 4;
const HELD_MAX: usize = 12;
/// Time between two operations.
const A_STEP: UnixTime = UnixTime(20_000);

/// The store's content, read from its tables.
fn dump(store: &Store) -> Result<Model, Fault> {
    let snapshot = store.read()?;
    let mut model = Model::default();
    for (domain, row) in snapshot.domains()? {
        let mut mailboxes = BTreeMap::new();
        for (local, row) in snapshot.mailboxes(&domain)? {
            let next_sequence = snapshot.counts(row.id)?.next_sequence;
            let messages = messages_of(&snapshot, row.id, next_sequence)?;
            let deleted = deleted_of(&snapshot, row.id)?;
            let locked = row.locked;
            let mailbox = ModelMailbox { identity: 0, locked, next_sequence, messages, deleted };
            mailboxes.insert(local.to_string(), mailbox);
        }
        model.domains.insert(domain.to_string(), ModelDomain { identity: 0, locked: row.locked, mailboxes });
    }
    for row in snapshot.table(REMOVED_MAILBOXES)?.iter()? {
        let (key, row) = row?;
        let (id, row) = (key.value().1, RemovedMailboxRow::from_row(row.value())?);
        let locked = MailboxRow::from_row(&row.mailbox)?.locked;
        let next_sequence = snapshot.counts(id)?.next_sequence;
        let messages = messages_of(&snapshot, id, next_sequence)?;
        let deleted = deleted_of(&snapshot, id)?;
        model.removed.push(ModelRemoved {
            at: row.removed,
            address: format!("{}@{}", row.local, row.domain),
            with: row.with.map(|_| 0),
            mailbox: ModelMailbox { identity: 0, locked, next_sequence, messages, deleted },
        });
    }
    for row in snapshot.table(REMOVED_DOMAINS)?.iter()? {
        let row = RemovedDomainRow::from_row(row?.1.value())?;
        let locked = DomainRow::from_row(&row.row)?.locked;
        model.removed_domains.push((row.removed, row.domain, 0, locked));
    }
    Ok(model.nameless())
}

fn messages_of(
    snapshot: &Snapshot,
    mailbox: MailboxId,
    next_sequence: u64,
) -> Result<BTreeMap<u64, Vec<u8>>, Fault> {
    let mut messages = BTreeMap::new();
    for sequence in 0..next_sequence {
        if let Some(message) = snapshot.message(mailbox, sequence)? {
            messages.insert(sequence, content_in(snapshot, &message)?);
        }
    }
    Ok(messages)
}

fn deleted_of(snapshot: &Snapshot, mailbox: MailboxId) -> Result<BTreeMap<u64, (UnixTime, Vec<u8>)>, Fault> {
    let mut deleted = BTreeMap::new();
    for row in snapshot.table(DELETED)?.iter()? {
        let (key, row) = row?;
        let row = DeletedRow::from_row(row.value())?;
        if key.value().1 == mailbox {
            let content = content_in(snapshot, &MessageRow::from_row(&row.message)?)?;
            deleted.insert(key.value().2, (row.deleted, content));
        }
    }
    Ok(deleted)
}

fn content_in(snapshot: &Snapshot, message: &MessageRow) -> Result<Vec<u8>, Fault> {
    let text = snapshot.text(message.text)?.expect("a message has its text");
    let view = snapshot.container().view_blob(text.at, text.wire_octets as usize)?;
    Ok([&message.prefix[..], &view].concat())
}

fn take(store: &Store, step: &Operation, ids: &BTreeMap<u64, MailboxId>) -> Result<Answer, Fault> {
    if let Operation::Undelete { address, wanted, as_new } = step {
        return store.undelete_mailbox(address, *wanted, *as_new).map(Answer::Restored);
    }
    let step = step.clone();
    let ids = ids.clone();
    let work = move |tx: &mut Tx<'_, '_>| {
        Ok(match &step {
            Operation::AddDomain(domain) => Answer::Done(tx.add_domain(domain, UnixTime(1))?),
            Operation::RemoveDomain(domain, at) => Answer::Removed(tx.remove_domain(domain, *at)?),
            Operation::LockDomain(domain, true) => Answer::Locked(tx.lock_domain(domain)?),
            Operation::LockDomain(domain, false) => Answer::Locked(tx.unlock_domain(domain)?),
            Operation::AddMailbox(address) => {
                Answer::Done(tx.add_mailbox(address, credential(), UnixTime(1))?)
            }
            Operation::RemoveMailbox(address, at) => Answer::Removed(tx.remove_mailbox(address, *at)?),
            Operation::LockMailbox(address, true) => Answer::Locked(tx.lock_mailbox(address)?),
            Operation::LockMailbox(address, false) => Answer::Locked(tx.unlock_mailbox(address)?),
            Operation::Deliver { recipients, text: number, number: tag } => {
                let letter = |recipient: &Address| Letter {
                    recipient: recipient.clone(),
                    prefix: prefix_of(*tag),
                    tag: *tag,
                };
                let letters: Vec<Letter> = recipients.iter().map(letter).collect();
                Answer::Delivered(tx.deliver(&text(&content_of(*number)), &letters, UnixTime(1))?)
            }
            Operation::Delete { address, identity, sequences, at } => {
                Answer::Deleted(tx.delete_messages(address, ids[identity], sequences, Some(*at))?)
            }
            Operation::Undelete { .. } => unreachable!("it takes several transactions"),
            Operation::UndeleteDomain(domain) => Answer::Restored(tx.undelete_domain(domain)?),
            Operation::Purge { before } => {
                while tx.purge(*before, 3)? == 3 {}
                Answer::Purged
            }
        })
    };
    store.write(work).wait()
}

/// A maildrop as its session sees it.
struct Session {
    maildrop: Maildrop,
    identity: u64,
    seen: BTreeMap<u64, Vec<u8>>,
}

struct History {
    store: Store,
    model: Model,
    /// The store's ids of mailboxes that were opened, by identity in the model.
    ids: BTreeMap<u64, MailboxId>,
    sessions: Vec<Session>,
    held: Vec<(StoredMessage, Vec<u8>)>,
    number: u64,
    faults: usize,
    refusals_for_want_of_room: usize,
}

impl History {
    fn of(store: Store) -> Self {
        let (model, ids) = (Model::default(), BTreeMap::new());
        let (sessions, held) = (Vec::new(), Vec::new());
        Self { store, model, ids, sessions, held, number: 0, faults: 0, refusals_for_want_of_room: 0 }
    }

    fn random_step(&mut self, rng: &mut fastrand::Rng) -> Operation {
        let domain: Domain = DOMAINS[rng.usize(..3)].parse().unwrap();
        let mut anyone = || address(&format!("{}@{}", LOCALS[rng.usize(..3)], DOMAINS[rng.usize(..3)]));
        let (one, recipients) = (anyone(), vec![anyone(), anyone(), anyone()]);
        self.number += 1;
        let now = self.now();
        match rng.u8(..110) {
            0..8 => Operation::AddDomain(domain),
            8..10 => Operation::RemoveDomain(domain, now),
            10..12 => Operation::LockDomain(domain, true),
            12..18 => Operation::LockDomain(domain, false),
            18..32 => Operation::AddMailbox(one),
            32..35 => Operation::RemoveMailbox(one, now),
            35..37 => Operation::LockMailbox(one, true),
            37..41 => Operation::LockMailbox(one, false),
            41..70 => self.deletion(rng).unwrap_or(Operation::AddDomain(domain)),
            100..106 => {
                let wanted = match rng.u8(..3) {
                    0 => Wanted::Last,
                    1 => Wanted::All,
                    _ => Wanted::Since(UnixTime(now.0.saturating_sub(rng.u64(..3) * A_STEP.0))),
                };
                // `Store::undelete_mailbox` requires that no session has the mailbox.
                let identity = self.model.mailbox(&one).map(|mailbox| mailbox.identity);
                match self.sessions.iter().any(|session| Ok(session.identity) == identity) {
                    true => Operation::AddDomain(domain),
                    false => Operation::Undelete { address: one, wanted, as_new: rng.bool() },
                }
            }
            106..109 => Operation::UndeleteDomain(domain),
            109 => Operation::Purge { before: UnixTime(now.0.saturating_sub(40 * A_STEP.0)).day() },
            _ => {
                let count = rng.usize(1..=3);
                let recipients = recipients.into_iter().take(count).collect();
                Operation::Deliver { recipients, text: rng.u64(..24), number: self.number }
            }
        }
    }

    fn deletion(&mut self, rng: &mut fastrand::Rng) -> Option<Operation> {
        let session = self.sessions.get(rng.usize(..SESSIONS_MAX))?;
        let sequences = session.seen.keys().copied().filter(|_| rng.bool()).collect();
        Some(Operation::Delete {
            address: session.maildrop.address().clone(),
            identity: session.identity,
            sequences,
            at: self.now(),
        })
    }

    /// A few operations fill a day.
    fn now(&self) -> UnixTime {
        UnixTime(self.number * A_STEP.0)
    }

    /// Runs the operation on both sides, and compares them with the disk working again.
    fn step(&mut self, step: &Operation, repair_disk: impl FnOnce()) {
        let mut after = self.model.clone();
        let expected = after.take(step);
        let answer = take(&self.store, step, &self.ids);
        repair_disk();
        // After a fault this waits until the index has been reopened.
        self.store.write(|_| Ok(())).wait().unwrap();
        let found = dump(&self.store).unwrap();
        match answer {
            Ok(Answer::Delivered(verdicts)) if verdicts.contains(&Delivery::DiskFull) => {
                self.refusals_for_want_of_room += 1;
            }
            Ok(answer) => {
                assert_eq!(answer, expected, "{step:?}");
                self.model = after;
            }
            Err(_) => {
                self.faults += 1;
                if found == after.nameless() {
                    self.model = after;
                }
            }
        }
        assert!(found == self.model.nameless(), "{step:?}: the store has {found:?}, not {:?}", self.model);
        self.look_at_what_is_held();
    }

    fn look_at_what_is_held(&self) {
        for (message, content) in &self.held {
            assert!([&message.prefix[..], &message.text].concat() == *content, "a held text has changed");
        }
    }

    fn open_session(&mut self, address: Address) {
        let login = self.store.open_maildrop(&address).unwrap();
        let is_locked = self.model.domain(&address.domain).is_ok_and(|domain| domain.locked);
        let Ok(mailbox) = self.model.mailbox(&address) else {
            return assert_eq!(login_name(&login), "wrong credentials");
        };
        if mailbox.locked || is_locked {
            return assert_eq!(login_name(&login), "locked");
        }
        if self.sessions.iter().any(|session| session.identity == mailbox.identity) {
            return assert_eq!(login_name(&login), "in use");
        }
        let Login::Welcome(maildrop) = login else { panic!("{address}: {}", login_name(&login)) };
        assert_eq!(maildrop.totals().messages, mailbox.messages.len() as u64);
        assert_eq!(maildrop.totals().octets, removed_with(mailbox).octets);
        let id = self.store.read().unwrap().mailbox(&address).unwrap().unwrap().id;
        self.ids.insert(mailbox.identity, id);
        let session = Session { maildrop, identity: mailbox.identity, seen: mailbox.messages.clone() };
        if self.sessions.len() == SESSIONS_MAX {
            self.sessions.remove(0);
        }
        self.sessions.push(session);
    }

    /// Reads a message in some session, and may keep holding it.
    fn read(&mut self, rng: &mut fastrand::Rng) {
        let Some(session) = self.sessions.get(rng.usize(..SESSIONS_MAX)) else { return };
        let (maildrop, address) = (&session.maildrop, session.maildrop.address().clone());
        // A session that has not yet noticed its end can still read a deleted mailbox while that can be restored.
        let there = self.model.mailbox(&address).ok().cloned();
        let removed = self.model.removed.iter().map(|removed| removed.mailbox.clone());
        let there = there.into_iter().chain(removed).find(|there| there.identity == session.identity);
        let there = there.map(|there| there.messages).unwrap_or_default();
        let listed = maildrop.list().unwrap();
        assert!(listed.iter().all(|entry| session.seen.contains_key(&entry.uid.seq)));
        let still: Vec<u64> = session.seen.keys().copied().filter(|seq| there.contains_key(seq)).collect();
        assert_eq!(listed.iter().map(|entry| entry.uid.seq).collect::<Vec<_>>(), still);
        if let Some(entry) = rng.choice(&listed) {
            let message = maildrop.message(entry.uid).unwrap().expect("it is in the list");
            assert_eq!(body_number(&message.prefix), entry.uid.tag);
            let content = session.seen[&entry.uid.seq].clone();
            if self.held.len() == HELD_MAX {
                self.held.swap_remove(rng.usize(..HELD_MAX));
            }
            self.held.push((message, content));
            self.look_at_what_is_held();
        }
    }

    /// A job that takes space and then fails.
    fn undone(&mut self, rng: &mut fastrand::Rng) {
        let content = vec![rng.u8(..); rng.usize(100_000..400_000)];
        let undone = self.store.write(move |tx| {
            let recipients = ["ann@example.com", "bob@example.net", "carol@example.org"];
            tx.deliver(&text(&content), &recipients.map(|recipient| letter(recipient, 0)), UnixTime(1))?;
            Err::<(), _>(Fault::damaged("as a test has it"))
        });
        assert!(undone.wait().is_err());
        assert!(dump(&self.store).unwrap() == self.model.nameless());
    }

    /// One operation of any kind.
    fn go_on(&mut self, rng: &mut fastrand::Rng) {
        match rng.u8(..10) {
            0 | 1 => {
                let (local, domain) = (LOCALS[rng.usize(..3)], DOMAINS[rng.usize(..3)]);
                self.open_session(address(&format!("{local}@{domain}")));
            }
            2 => self.read(rng),
            4 => self.undone(rng),
            3 if !self.held.is_empty() => drop(self.held.swap_remove(rng.usize(..self.held.len()))),
            _ => {
                let step = self.random_step(rng);
                self.step(&step, || ());
            }
        }
    }

    fn leave(&mut self) {
        self.sessions.clear();
        self.held.clear();
    }
}

#[test]
fn histories_on_a_real_file_match_the_model() {
    for seed in 0..3 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let directory = scratch::directory();
        let (path, copy) = (directory.path().join("winpop.db"), directory.path().join("copy.db"));
        let mut history = History::of(Store::create(&path).unwrap());
        for round in 1..=500 {
            history.go_on(&mut rng);
            if round % 60 == 0 {
                assert_clean(&history.store);
            }
            if round % 120 == 0 {
                back_up(&history.store, &copy);
                let copy = Store::open(&copy).unwrap();
                assert_clean(&copy);
                assert_eq!(dump(&copy).unwrap(), history.model.nameless());
            }
            if round % 170 == 0 {
                history.leave();
                let History { store, model, ids, number, .. } = history;
                drop(store);
                history = History { model, ids, number, ..History::of(Store::open(&path).unwrap()) };
            }
        }
        assert_clean(&history.store);
    }
}

#[test]
fn histories_on_disks_that_fail_and_fill_up_match_the_model() {
    let (mut faults, mut refusals) = (0, 0);
    for seed in 10..14 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = Arc::new(SimulatedDisk::default());
        let mut history = History::of(Store::create_on(disk.clone()).unwrap());
        for round in 1..=300 {
            match rng.u8(..10) {
                0 => disk.set_room(Some(disk.file_len())),
                1 if rng.bool() => disk.set_room(None),
                2 | 3 => {
                    match rng.u8(..3) {
                        0 => disk.fail_once_after(rng.u64(..4)),
                        1 => disk.fail_after(Some(rng.u64(..4))),
                        _ => disk.fail_sync_after(rng.u64(..2)),
                    }
                    let step = history.random_step(&mut rng);
                    history.step(&step, || disk.fail_after(None));
                }
                _ => history.go_on(&mut rng),
            }
            if round % 50 == 0 {
                assert_clean(&history.store);
            }
        }
        faults += history.faults;
        refusals += history.refusals_for_want_of_room;
    }
    assert!(faults > 20 && refusals > 0, "{faults} faults, {refusals} refusals");
}
