//! Stores and deletes messages: their rows, the references to their texts, and the texts themselves.

use std::collections::HashMap;
use std::io;

use super::body::{Body, Incoming};
use super::placing;
use super::quota;
use crate::address::Address;
use crate::store::file::record::{self, SHORT_TEXT_OCTETS_MAX};
use crate::store::index::rows::{DomainRow, MailboxRow, MessageRow, Row, TextRow};
use crate::store::index::types::{DomainId, MailboxId, OwnerId, TextId, UnixTime};
use crate::store::index::{Fault, Read, Tx, miscounted};
use crate::verdict;
use crate::wire::surrogate;

/// More Received fields than this mean a loop (RFC 5321 section 6.3 asks for at least 100).
const RECEIVED_FIELDS_MAX: u32 = 100;
/// After this many new messages of a mailbox, their rows are packed together. A higher number would fill leaves
/// better but write more pages per message.
const PACKED_TOGETHER: u64 = if cfg!(test) { 8 } else { 32 };
/// Messages deleted in one transaction when a mailbox or domain goes. Bounds what a checkpoint has to write.
pub(super) const REMOVED_AT_A_TIME: u64 = if cfg!(test) { 64 } else { 4096 };

/// A message for one recipient, without its text.
#[derive(Clone, Debug)]
pub struct Letter {
    pub recipient: Address,
    /// Header fields to put before the text, in wire form. No line of them begins with a dot.
    pub prefix: Vec<u8>,
    /// Random part of the UIDL.
    pub tag: u64,
}

/// The mailbox of a message, and what else the message counts towards.
pub(super) struct Home {
    pub domain: DomainId,
    pub mailbox: MailboxId,
    quota: Option<String>,
}

impl Home {
    pub fn new(domain: &DomainRow, mailbox: MailboxRow) -> Self {
        Self { domain: domain.id, mailbox: mailbox.id, quota: mailbox.quota }
    }
}

impl Letter {
    /// Size that LIST will announce.
    fn octets_with(&self, text: &Incoming) -> u64 {
        self.prefix.len() as u64 + text.octets
    }

    /// The same for its surrogate. Even an ASCII text needs one if the sender's address, in the prefix, is not
    /// ASCII.
    fn surrogate_octets_with(&self, text: &Incoming) -> Option<u64> {
        if text.surrogate_octets.is_none() && self.prefix.is_ascii() {
            return None;
        }
        let prefix_octets = surrogate::header(&self.prefix).len() as u64;
        Some(prefix_octets + text.surrogate_octets.unwrap_or(text.octets))
    }
}

impl Tx<'_, '_> {
    /// Stores one text for all its letters. Returns a verdict for each letter, in order.
    pub fn deliver(
        &mut self,
        text: &Incoming,
        letters: &[Letter],
        now: UnixTime,
    ) -> Result<Vec<verdict::Delivery>, Fault> {
        let mut homes = Vec::with_capacity(letters.len());
        // Several letters may count against one account, and the index does not have the earlier ones yet.
        let mut taken: HashMap<String, u64> = HashMap::new();
        for letter in letters {
            homes.push(self.home_of(text, letter, &mut taken)?);
        }
        let references = homes.iter().filter(|home| home.is_ok()).count() as u64;
        if references == 0 {
            return Ok(homes.into_iter().filter_map(Result::err).collect());
        }
        let Some(id) = self.store_text(text, references)? else {
            return Ok(homes.into_iter().map(|p| p.err().unwrap_or(verdict::Delivery::DiskFull)).collect());
        };
        let mut verdicts = Vec::with_capacity(letters.len());
        for (letter, home) in letters.iter().zip(homes) {
            verdicts.push(match home {
                Ok(home) => {
                    let row = MessageRow {
                        octets: letter.octets_with(text),
                        tag: letter.tag,
                        received: now,
                        surrogate_octets: letter.surrogate_octets_with(text),
                        foreign_id: None,
                        text: id,
                        prefix: letter.prefix.clone(),
                    };
                    self.add_message(&home, &row)?;
                    verdict::Delivery::Stored
                }
                Err(verdict) => verdict,
            });
        }
        Ok(verdicts)
    }

    /// Stores all letters or none: if one cannot be delivered, the others are withheld.
    pub fn deliver_all(
        &mut self,
        text: &Incoming,
        letters: &[Letter],
        now: UnixTime,
    ) -> Result<Vec<verdict::Delivery>, Fault> {
        let mut taken = HashMap::new();
        let mut verdicts = Vec::with_capacity(letters.len());
        for letter in letters {
            let home = self.home_of(text, letter, &mut taken)?;
            verdicts.push(home.err().unwrap_or(verdict::Delivery::Withheld));
        }
        match verdicts.iter().all(|verdict| *verdict == verdict::Delivery::Withheld) {
            true => self.deliver(text, letters, now),
            false => Ok(verdicts),
        }
    }

    /// Where the letter goes, or why it cannot be delivered.
    fn home_of(
        &self,
        text: &Incoming,
        letter: &Letter,
        taken: &mut HashMap<String, u64>,
    ) -> Result<Result<Home, verdict::Delivery>, Fault> {
        let address = self.receiving(&letter.recipient)?;
        let Some(domain) = self.domain(&address.domain)? else {
            return Ok(Err(verdict::Delivery::NoSuchMailbox));
        };
        let Some(mailbox) = self.mailbox(&address)? else {
            return Ok(Err(verdict::Delivery::NoSuchMailbox));
        };
        if text.received_fields > RECEIVED_FIELDS_MAX || was_delivered_to(text, &letter.recipient) {
            return Ok(Err(verdict::Delivery::Loop));
        }
        if let Some(quota) = quota::of_mailbox(self, &mailbox)? {
            let taken = taken.entry(quota.account.clone()).or_default();
            let octets = letter.octets_with(text);
            if !quota.has_room_for(*taken + octets) {
                return Ok(Err(verdict::Delivery::OverQuota));
            }
            *taken += octets;
        }
        Ok(Ok(Home::new(&domain, mailbox)))
    }

    /// Takes the number of the mailbox's next message.
    pub(super) fn next_sequence(&mut self, mailbox: MailboxId) -> Result<u64, Fault> {
        let counts = self.counts_mut(mailbox)?;
        let sequence = counts.next_sequence;
        counts.next_sequence = sequence.checked_add(1).ok_or_else(miscounted)?;
        Ok(sequence)
    }

    /// Adds a message whose text is stored. Returns its number.
    pub(super) fn add_message(&mut self, home: &Home, row: &MessageRow) -> Result<u64, Fault> {
        let sequence = self.next_sequence(home.mailbox)?;
        self.change_counts(home, |count| count.checked_add(1), row, u64::checked_add)?;
        let key = (home.mailbox, sequence);
        if self.tables.messages.insert(key, &row.to_row()[..])?.is_some() {
            return Err(Fault::damaged("a message number would be used twice"));
        }
        if let Some(id) = row.foreign_id.as_deref() {
            self.tables.foreign_ids.insert((home.mailbox, id), sequence)?;
        }
        if sequence.is_multiple_of(PACKED_TOGETHER) {
            self.tables.messages.pack(home.mailbox, sequence - (PACKED_TOGETHER - 1)..=sequence)?;
        }
        Ok(sequence)
    }

    /// Counts a message up or down in its mailbox, domain, account and the store. An impossible count stops the
    /// change; `pop3svc check --repair` works out the right one.
    pub(super) fn change_counts(
        &mut self,
        home: &Home,
        messages: impl Fn(u64) -> Option<u64>,
        row: &MessageRow,
        change: fn(u64, u64) -> Option<u64>,
    ) -> Result<(), Fault> {
        let octets = |sum| change(sum, row.octets);
        for id in [OwnerId::from(home.mailbox), home.domain.into()] {
            let counts = self.counts_mut(id)?;
            counts.messages = messages(counts.messages).ok_or_else(miscounted)?;
            counts.octets = octets(counts.octets).ok_or_else(miscounted)?;
            counts.octets_without_utf8 =
                change(counts.octets_without_utf8, row.octets_without_utf8()).ok_or_else(miscounted)?;
        }
        if let Some(account) = &home.quota {
            let quota = self.quota_mut(account)?;
            quota.used = octets(quota.used).ok_or_else(miscounted)?;
        }
        let totals = self.totals_mut();
        totals.messages = messages(totals.messages).ok_or_else(miscounted)?;
        totals.octets = octets(totals.octets).ok_or_else(miscounted)?;
        Ok(())
    }

    /// Stores the text, or adds references to it if it was stored recently. Returns `None` if the disk is full.
    ///
    /// Our response time must not tell a sender whether somebody already received this text. So a known text is
    /// written, logged and synced again in its place, and every text is read back once.
    pub fn store_text(&mut self, text: &Incoming, references: u64) -> Result<Option<TextId>, Fault> {
        if !self.reserve_is_whole {
            self.room_was_missing = true;
            return Ok(None);
        }
        let wire = self.wire_of(text);
        let hash = *text.hash.as_bytes();
        let (id, row) = match self.stored_lately(&hash)? {
            Some((id, known)) if self.holds(&known, wire) => {
                if !self.write_text_at(known.at, wire)? {
                    return Ok(None);
                }
                let references = known.references.checked_add(references).ok_or_else(miscounted)?;
                (id, TextRow { references, ..known })
            }
            known => {
                // If a text with this hash exists but is damaged, this one replaces it and repairs the messages
                // that share it.
                let Some(at) = self.write_text(wire)? else { return Ok(None) };
                let wire_octets = wire.len();
                let mut references = references;
                let id = match known {
                    Some((id, known)) => {
                        log::error!(
                            "the stored text {} was damaged; a new copy of it replaces it",
                            text.hash
                        );
                        self.space.retire(known.at, known.wire_octets);
                        self.count_text_octets(|sum| sum.checked_sub(known.wire_octets))?;
                        references = known.references.checked_add(references).ok_or_else(miscounted)?;
                        id
                    }
                    None => self.new_text_id()?,
                };
                self.count_text_octets(|sum| sum.checked_add(wire_octets))?;
                let row = TextRow { hash, at, wire_octets, references };
                if !self.holds(&row, wire) {
                    return Err(Fault::Io("a text does not read back as it was written".to_owned()));
                }
                (id, row)
            }
        };
        self.tables.texts.insert(id, &row.to_row()[..])?;
        self.recent.note(&hash, id);
        Ok(Some(id))
    }

    /// The text to store. If it was placed in the file for an index that has been reopened since, or has been
    /// stored already, that copy is useless and the original is taken.
    fn wire_of<'t>(&self, text: &'t Incoming) -> &'t Body {
        match &text.wire {
            Body::Placed(placed) if !self.space.keeps(&placed.draft) => &placed.body,
            wire => wire,
        }
    }

    /// The text with this hash, if it is among the latest and still exists.
    fn stored_lately(&self, hash: &[u8; 32]) -> Result<Option<(TextId, TextRow)>, Fault> {
        let Some(id) = self.recent.find(hash) else { return Ok(None) };
        Ok(self.text(id)?.filter(|row| row.hash == *hash).map(|row| (id, row)))
    }

    fn count_text_octets(&mut self, change: impl Fn(u64) -> Option<u64>) -> Result<(), Fault> {
        let totals = self.totals_mut();
        totals.text_octets = change(totals.text_octets).ok_or_else(miscounted)?;
        Ok(())
    }

    /// Writes the octets into free space; `None` if there is no room.
    fn write_text(&mut self, wire: &Body) -> Result<Option<u64>, Fault> {
        if let Body::Placed(placed) = wire {
            self.space.claim(&placed.draft);
            return Ok(Some(placed.draft.at()));
        }
        let at = match self.space.take(wire.len(), self.container) {
            Ok(at) => at,
            Err(e) => return self.note_full(e.into()).map(|_| None),
        };
        if !self.write_text_at(at, wire).inspect_err(|_| self.space.give_back(at))? {
            self.space.give_back(at);
            return Ok(None);
        }
        Ok(Some(at))
    }

    /// Writes a text to its place, and into the log record if it is short; false if the disk is full. Does
    /// nothing if another thread has already placed it.
    fn write_text_at(&mut self, at: u64, wire: &Body) -> Result<bool, Fault> {
        if matches!(wire, Body::Placed(_)) {
            return Ok(true);
        }
        if let Err(e) = wire.for_each_piece(|offset, piece| self.container.write_blob(at + offset, piece)) {
            return self.note_full(e.into());
        }
        if wire.len() > SHORT_TEXT_OCTETS_MAX {
            self.has_long_texts = true;
            return Ok(true);
        }
        let logged = &mut self.logged_texts;
        wire.for_each_piece::<io::Error>(|offset, piece| {
            record::text(logged, at + offset, piece);
            Ok(())
        })?;
        Ok(true)
    }

    /// Notes that the disk is full, which is an expected outcome. Other faults stay faults.
    fn note_full(&mut self, fault: Fault) -> Result<bool, Fault> {
        match fault {
            Fault::DiskFull(_) => {
                self.room_was_missing = true;
                Ok(false)
            }
            fault => Err(fault),
        }
    }

    /// True if the stored text equals this one, octet for octet. False if it cannot be read.
    fn holds(&self, row: &TextRow, wire: &Body) -> bool {
        if row.wire_octets != wire.len() {
            return false;
        }
        let looked_at = if let Body::Placed(placed) = wire { placed.lies_at(row.at) } else { None };
        looked_at.unwrap_or_else(|| placing::holds(self.container, row.at, wire))
    }

    /// Deletes messages of a mailbox. With a time, and if the setting `undelete` allows, they are kept for a
    /// while from then on; otherwise they go for good. Returns false and deletes nothing if the mailbox has
    /// been deleted or locked: a session ended by that deletes nothing.
    pub fn delete_messages(
        &mut self,
        address: &Address,
        mailbox: MailboxId,
        sequences: &[u64],
        deleted: Option<UnixTime>,
    ) -> Result<bool, Fault> {
        let (Some(domain), Some(row)) = (self.domain(&address.domain)?, self.mailbox(address)?) else {
            return Ok(false);
        };
        if row.id != mailbox || row.locked || domain.locked {
            return Ok(false);
        }
        let home = Home::new(&domain, row);
        let kept = if self.keeps_deleted()? { deleted } else { None };
        let (mut messages, mut octets) = (0, 0u64);
        for sequence in sequences {
            if let Some(message) = self.delete_message(&home, *sequence, kept)? {
                messages += 1;
                octets = octets.saturating_add(message);
            }
        }
        if let Some(deleted) = kept {
            self.count_deleted(deleted.day(), u64::checked_add, messages, octets)?;
        }
        Ok(true)
    }

    /// Deletes every message of a mailbox for good.
    pub fn delete_all_messages(&mut self, domain: &DomainRow, mailbox: MailboxRow) -> Result<(), Fault> {
        let home = Home::new(domain, mailbox);
        let mut sequences = Vec::new();
        for row in self.tables.messages.range((home.mailbox, 0)..=(home.mailbox, u64::MAX))? {
            sequences.push(row?.0.value().1);
        }
        for sequence in sequences {
            self.delete_message(&home, sequence, None)?;
        }
        Ok(())
    }

    /// Deletes a message and returns its octets, or `None` if it is already gone, which is no fault.
    fn delete_message(
        &mut self,
        home: &Home,
        sequence: u64,
        kept: Option<UnixTime>,
    ) -> Result<Option<u64>, Fault> {
        let removed = self.tables.messages.remove((home.mailbox, sequence))?;
        let Some(removed) = removed.map(|row| row.value().to_vec()) else { return Ok(None) };
        let row = MessageRow::from_row(&removed)?;
        self.change_counts(home, |count| count.checked_sub(1), &row, u64::checked_sub)?;
        match kept {
            Some(deleted) => self.keep_message(home.mailbox, sequence, &removed, deleted)?,
            None => {
                self.forget_foreign_id(home.mailbox, sequence, &row)?;
                self.drop_reference(row.text)?;
            }
        }
        Ok(Some(row.octets))
    }

    /// Frees the unique id of a message that came from another server.
    pub(super) fn forget_foreign_id(
        &mut self,
        mailbox: MailboxId,
        sequence: u64,
        row: &MessageRow,
    ) -> Result<(), Fault> {
        let Some(id) = row.foreign_id.as_deref() else { return Ok(()) };
        if self.tables.foreign_ids.get((mailbox, id))?.is_some_and(|holder| holder.value() == sequence) {
            self.tables.foreign_ids.remove((mailbox, id))?;
        }
        Ok(())
    }

    pub(super) fn drop_reference(&mut self, id: TextId) -> Result<(), Fault> {
        let Some(row) = self.text(id)? else {
            return Err(Fault::damaged("a message's text has no row"));
        };
        if row.references > 1 {
            let row = TextRow { references: row.references - 1, ..row };
            self.tables.texts.insert(id, &row.to_row()[..])?;
        } else {
            self.tables.texts.remove(id)?;
            self.space.retire(row.at, row.wire_octets);
            self.count_text_octets(|sum| sum.checked_sub(row.wire_octets))?;
        }
        Ok(())
    }
}

/// True if the text already has our own Delivered-To for this recipient.
fn was_delivered_to(text: &Incoming, recipient: &Address) -> bool {
    text.delivered_to.iter().any(|field| field.trim().parse::<Address>().as_ref() == Ok(recipient))
}
