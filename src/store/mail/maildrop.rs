//! A mailbox as a POP3 session sees it: claimed by one session at a time, and as it was at login.
//!
//! - Opening it takes the same time for ten messages and a million: STAT comes from counts, and the next
//!   sequence number bounds what the session sees. The list is read when first needed.
//! - A claim ends when its holder drops it, or is revoked when the mailbox is locked or deleted. Deletions
//!   check lock and mailbox again in their own transaction, so a revoked session deletes nothing.

use std::convert::Infallible;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use smol::channel::Receiver;
use smol::stream::StreamExt as _;

use super::moving::mover_of;
use crate::address::Address;
use crate::message::{Entry, Totals, Uid};
use crate::store::file::disk::View;
use crate::store::file::space::Pin;
use crate::store::index::contained;
use crate::store::index::rows::MessageHead;
use crate::store::index::tables::MESSAGES;
use crate::store::index::types::{MailboxId, UnixTime};
use crate::store::index::{Fault, Read};
use crate::store::open::claims::Claim;
use crate::store::open::queue::Pending;
use crate::store::open::verified::{self, Checksum};
use crate::store::open::{Shared, Snapshot, Store};
use crate::verdict;

/// Messages deleted in one transaction. Bounds what lies in memory until a checkpoint, and how long other mail
/// waits.
const DELETED_AT_A_TIME: usize = if cfg!(test) { 64 } else { 4096 };

/// A long list is read in up to `PARTS_MAX` parts at once, each of at least this many messages.
const LISTED_IN_A_PART: u64 = if cfg!(test) { 16 } else { 4096 };
/// Each part waits for one random page at a time, and disks are faster with many such reads in flight: with 8 parts a
/// list of 100,000 whose pages were on the disk took half as long again.
const PARTS_MAX: u64 = 16;

/// An open maildrop.
pub struct Maildrop {
    store: Store,
    address: Address,
    mailbox: MailboxId,
    totals: Totals,
    totals_of_surrogates: Totals,
    gives_surrogates: bool,
    /// Messages from this sequence number on came after the login.
    below: u64,
    last_login: Option<UnixTime>,
    claim: Claim,
}

/// Tells a session that its claim was revoked. A session waits for this with every line it reads, so it keeps
/// its place among the listeners between waits.
pub struct Revocation(std::pin::Pin<Box<Receiver<Infallible>>>);

impl Revocation {
    /// Returns when the mailbox is locked or deleted.
    pub async fn happened(&mut self) {
        if let Some(never) = self.0.next().await {
            match never {}
        }
    }
}

/// A message to send. While this exists, its text is not overwritten. Send no octet of the text before
/// [`StoredMessage::is_ready`] or [`StoredMessage::verify`] has approved it.
pub struct StoredMessage {
    /// Header fields for this recipient, in wire form.
    pub prefix: Vec<u8>,
    /// The text in wire form.
    pub text: View,
    /// True if the client must get the surrogate header.
    pub needs_surrogate: bool,
    checksum: Checksum,
    shared: Arc<Shared>,
    _pin: Pin,
}

impl StoredMessage {
    /// True if the text is in memory and undamaged. Takes no longer than hashing 64 KiB.
    pub fn is_ready(&self) -> bool {
        self.checksum.holds_at_once(&self.text, &self.shared.verified)
    }

    /// Reads the text into memory and verifies it; not for the executor.
    pub fn verify(&self) -> Result<(), Fault> {
        self.checksum.verify(&self.text, &self.shared.verified)
    }

    /// The first `len` octets of the text as pieces to send. The kernel may drop later pages of a long text
    /// before their turn comes; [`StoredMessage::verify_piece`] is then due before they are sent.
    pub fn pieces(&self, len: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        verified::pieces_of(len)
    }

    pub fn is_piece_ready(&self, piece: Range<usize>) -> bool {
        self.text.part(piece).is_resident()
    }

    /// Reads a piece into memory again and verifies it; not for the executor.
    pub fn verify_piece(&self, piece: Range<usize>) -> Result<(), Fault> {
        self.checksum.verify_piece(&self.text, piece, &self.shared.verified)
    }
}

impl Store {
    /// Opens the maildrop of a user whose password has been checked.
    pub fn open_maildrop(&self, address: &Address) -> Result<verdict::Login<Maildrop>, Fault> {
        let Some(mailbox) = self.read()?.mailbox(address)? else {
            return Ok(verdict::Login::WrongCredentials);
        };
        let claim = self.0.shared.claims.claim(mailbox.id);
        // Read again under the claim: an earlier lock is seen here, a later one revokes the claim.
        let snapshot = self.read()?;
        let (Some(domain), Some(mailbox)) = (snapshot.domain(&address.domain)?, snapshot.mailbox(address)?)
        else {
            return Ok(verdict::Login::WrongCredentials);
        };
        if domain.locked || mailbox.locked {
            return Ok(verdict::Login::Locked);
        }
        if mover_of(&*snapshot, mailbox.id)?.is_some() {
            return Ok(verdict::Login::Incomplete);
        }
        let Some(claim) = claim.filter(|claim| claim.mailbox == mailbox.id) else {
            return Ok(verdict::Login::InUse);
        };
        let counts = snapshot.counts(mailbox.id)?;
        Ok(verdict::Login::Welcome(Maildrop {
            store: self.clone(),
            address: address.clone(),
            mailbox: mailbox.id,
            totals: Totals { messages: counts.messages, octets: counts.octets },
            totals_of_surrogates: Totals { messages: counts.messages, octets: counts.octets_without_utf8 },
            gives_surrogates: false,
            below: counts.next_sequence,
            last_login: mailbox.last_login,
            claim,
        }))
    }
}

impl Maildrop {
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The maildrop for a client that does not take UTF-8 in headers.
    pub fn with_surrogates(self) -> Self {
        Self { gives_surrogates: true, ..self }
    }

    /// Totals as of the login.
    pub fn totals(&self) -> Totals {
        if self.gives_surrogates { self.totals_of_surrogates } else { self.totals }
    }

    /// The messages as of the login, oldest first, in time proportional to their number. If the index is not in
    /// memory, most of that time is the disk's, so a long list is read in several parts at once; of several long
    /// lists only the first.
    pub fn list(&self) -> Result<Vec<Entry>, Fault> {
        let snapshot = self.store.read()?;
        let first = contained::read(|| {
            let first =
                snapshot.table(MESSAGES)?.range((self.mailbox, 0)..(self.mailbox, self.below))?.next();
            Ok(first.transpose()?.map_or(self.below, |(key, _)| key.value().1))
        })?;
        let parts = (self.totals.messages / LISTED_IN_A_PART).min(PARTS_MAX);
        let turn = if parts > 1 { self.store.0.shared.long_lists.try_lock() } else { None };
        if turn.is_none() {
            return self.list_part(&snapshot, first..self.below);
        }
        let length = (self.below - first).div_ceil(parts);
        let numbers = (0..parts).map(|part| {
            let from = first.saturating_add(part * length).min(self.below);
            from..from.saturating_add(length).min(self.below)
        });
        thread::scope(|scope| {
            let (this, snapshot) = (self, &snapshot);
            let reading: Vec<_> = numbers
                .map(|numbers| {
                    let list = {
                        let numbers = numbers.clone();
                        move || this.list_part(snapshot, numbers)
                    };
                    thread::Builder::new().spawn_scoped(scope, list).map_err(|_| numbers)
                })
                .collect();
            let mut entries = Vec::new();
            for part in reading {
                let part = match part {
                    Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                    // The system has no thread to spare.
                    Err(numbers) => self.list_part(snapshot, numbers),
                };
                entries.append(&mut part?);
            }
            Ok(entries)
        })
    }

    /// The messages with these numbers.
    fn list_part(&self, snapshot: &Snapshot, numbers: Range<u64>) -> Result<Vec<Entry>, Fault> {
        contained::read(|| {
            let table = snapshot.table(MESSAGES)?;
            // A damaged count must not make us ask for more memory than there is.
            let expected = self.totals.messages.min(numbers.end - numbers.start).min(1 << 20);
            let mut entries = Vec::with_capacity(expected as usize);
            for row in table.range((self.mailbox, numbers.start)..(self.mailbox, numbers.end))? {
                let (key, row) = row?;
                let head = MessageHead::from_row(row.value())?;
                let surrogate = head.surrogate_octets.filter(|_| self.gives_surrogates);
                let octets = surrogate.unwrap_or(head.octets);
                let uid = Uid { seq: key.value().1, tag: head.tag };
                entries.push(Entry { octets, uid, foreign_id: head.foreign_id });
            }
            Ok(entries)
        })
    }

    /// The oldest messages received before `time`, at most `most`.
    pub fn received_before(&self, time: UnixTime, most: usize) -> Result<Vec<Uid>, Fault> {
        let snapshot = self.store.read()?;
        contained::read(|| {
            let table = snapshot.table(MESSAGES)?;
            let mut old = Vec::new();
            for row in table.range((self.mailbox, 0)..(self.mailbox, self.below))?.take(most) {
                let (key, row) = row?;
                let head = MessageHead::from_row(row.value())?;
                if head.received >= time {
                    break;
                }
                old.push(Uid { seq: key.value().1, tag: head.tag });
            }
            Ok(old)
        })
    }

    /// A message of the list; `None` if it went with its mailbox.
    pub fn message(&self, uid: Uid) -> Result<Option<StoredMessage>, Fault> {
        let pin = self.store.0.shared.pins.pin();
        let snapshot = self.store.read()?;
        let Some(message) = snapshot.message(self.mailbox, uid.seq)? else { return Ok(None) };
        let Some(text) = snapshot.text(message.text)? else {
            return Err(Fault::damaged("a message's text has no row"));
        };
        let view = snapshot.container().view_blob(text.at, text.wire_octets as usize)?;
        let checksum = Checksum::new(text.hash, text.at);
        let shared = self.store.0.shared.clone();
        let needs_surrogate = self.gives_surrogates && message.surrogate_octets.is_some();
        Ok(Some(StoredMessage {
            prefix: message.prefix,
            text: view,
            needs_surrogate,
            checksum,
            shared,
            _pin: pin,
        }))
    }

    /// Deletes messages, some thousands per transaction and in the order given, so a fault or a crash may spare
    /// the later ones. With the setting `undelete` they can come back for a while. Returns false if the rest
    /// stays because the mailbox has been locked or deleted.
    pub fn delete(&self, uids: &[Uid]) -> Pending<bool> {
        self.delete_at(uids, Some(UnixTime::now()))
    }

    /// Deletes messages for good.
    pub fn delete_for_good(&self, uids: &[Uid]) -> Pending<bool> {
        self.delete_at(uids, None)
    }

    fn delete_at(&self, uids: &[Uid], deleted: Option<UnixTime>) -> Pending<bool> {
        let delete = |uids: &[Uid]| {
            let (address, mailbox) = (self.address.clone(), self.mailbox);
            let sequences: Vec<u64> = uids.iter().map(|uid| uid.seq).collect();
            self.store.write(move |tx| tx.delete_messages(&address, mailbox, &sequences, deleted))
        };
        if uids.len() <= DELETED_AT_A_TIME {
            return delete(uids);
        }
        Pending::in_turn(uids.chunks(DELETED_AT_A_TIME).map(delete).collect())
    }

    /// Records the first login of each day, which costs one change a day. Nobody waits for it; if the writer is
    /// too busy, the next login does it.
    pub fn note_login(&self, now: UnixTime) {
        if self.last_login.is_none_or(|last| last.day() < now.day()) {
            let (address, mailbox) = (self.address.clone(), self.mailbox);
            self.store.write_unattended(move |tx| tx.note_login(&address, mailbox, now));
        }
    }

    /// Tells when the session must end because its mailbox was locked or deleted.
    pub fn revocation(&self) -> Revocation {
        Revocation(Box::pin(self.claim.revoked.clone()))
    }
}
