//! Storing and deleting messages: rows, references to texts, and the texts' place in the file.

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

/// More Received fields than this mean a loop (RFC 5321 section 6.3 asks for a bound of 100 at least).
const RECEIVED_FIELDS_MAX: u32 = 100;
/// So many messages of a mailbox are packed when the last of them has come. More would leave fewer leaves half empty,
/// and have more pages written for each message.
const PACKED_TOGETHER: u64 = if cfg!(test) { 8 } else { 32 };
/// Messages that one transaction deletes when a mailbox or domain goes: bounds what a checkpoint has to write.
pub(super) const REMOVED_AT_A_TIME: u64 = if cfg!(test) { 64 } else { 4096 };

/// A message for one recipient, except its text.
#[derive(Clone, Debug)]
pub struct Letter {
    pub recipient: Address,
    /// Header fields to stand in front of the text, in wire form; none of them begins with a dot.
    pub prefix: Vec<u8>,
    /// The random part of the UIDL.
    pub tag: u64,
}

/// Where messages are: ids, and the account whose quota it counts against.
pub(super) struct Place {
    pub domain: DomainId,
    pub mailbox: MailboxId,
    quota: Option<String>,
}

impl Place {
    pub fn new(domain: &DomainRow, mailbox: MailboxRow) -> Self {
        Self { domain: domain.id, mailbox: mailbox.id, quota: mailbox.quota }
    }
}

impl Letter {
    /// What LIST will announce for it.
    fn octets_with(&self, text: &Incoming) -> u64 {
        self.prefix.len() as u64 + text.octets
    }

    /// The same of its surrogate, if it needs one: a sender's address that is not ASCII stands in the prefix.
    fn surrogate_octets_with(&self, text: &Incoming) -> Option<u64> {
        if text.surrogate_octets.is_none() && self.prefix.is_ascii() {
            return None;
        }
        let prefix_octets = surrogate::header(&self.prefix).len() as u64;
        Some(prefix_octets + text.surrogate_octets.unwrap_or(text.octets))
    }
}

impl Tx<'_, '_> {
    /// Stores one text for all its letters. One verdict for each letter, in order.
    pub fn deliver(
        &mut self,
        text: &Incoming,
        letters: &[Letter],
        now: UnixTime,
    ) -> Result<Vec<verdict::Delivery>, Fault> {
        let mut places = Vec::with_capacity(letters.len());
        // Letters of one message may count against one account: what the ones before take is not in the index yet.
        let mut taken: HashMap<String, u64> = HashMap::new();
        for letter in letters {
            places.push(self.place_for(text, letter, &mut taken)?);
        }
        let references = places.iter().filter(|place| place.is_ok()).count() as u64;
        if references == 0 {
            return Ok(places.into_iter().filter_map(Result::err).collect());
        }
        let Some(id) = self.store_text(text, references)? else {
            return Ok(places.into_iter().map(|p| p.err().unwrap_or(verdict::Delivery::DiskFull)).collect());
        };
        let mut verdicts = Vec::with_capacity(letters.len());
        for (letter, place) in letters.iter().zip(places) {
            verdicts.push(match place {
                Ok(place) => {
                    let row = MessageRow {
                        octets: letter.octets_with(text),
                        tag: letter.tag,
                        received: now,
                        surrogate_octets: letter.surrogate_octets_with(text),
                        foreign_id: None,
                        text: id,
                        prefix: letter.prefix.clone(),
                    };
                    self.add_message(&place, &row)?;
                    verdict::Delivery::Stored
                }
                Err(verdict) => verdict,
            });
        }
        Ok(verdicts)
    }

    /// The same for all letters or for none: if one of them cannot be delivered, the others are withheld.
    pub fn deliver_all(
        &mut self,
        text: &Incoming,
        letters: &[Letter],
        now: UnixTime,
    ) -> Result<Vec<verdict::Delivery>, Fault> {
        let mut taken = HashMap::new();
        let mut verdicts = Vec::with_capacity(letters.len());
        for letter in letters {
            let place = self.place_for(text, letter, &mut taken)?;
            verdicts.push(place.err().unwrap_or(verdict::Delivery::Withheld));
        }
        match verdicts.iter().all(|verdict| *verdict == verdict::Delivery::Withheld) {
            true => self.deliver(text, letters, now),
            false => Ok(verdicts),
        }
    }

    /// Where the letter goes, or why it goes nowhere.
    fn place_for(
        &self,
        text: &Incoming,
        letter: &Letter,
        taken: &mut HashMap<String, u64>,
    ) -> Result<Result<Place, verdict::Delivery>, Fault> {
        let address = letter.recipient.without_detail();
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
        Ok(Ok(Place::new(&domain, mailbox)))
    }

    /// The number of the mailbox's next message.
    pub(super) fn next_sequence(&mut self, mailbox: MailboxId) -> Result<u64, Fault> {
        let counts = self.counts_mut(mailbox)?;
        let sequence = counts.next_sequence;
        counts.next_sequence = sequence.checked_add(1).ok_or_else(miscounted)?;
        Ok(sequence)
    }

    /// Adds a message whose text is stored, and returns its number.
    pub(super) fn add_message(&mut self, place: &Place, row: &MessageRow) -> Result<u64, Fault> {
        let sequence = self.next_sequence(place.mailbox)?;
        self.change_counts(place, |count| count.checked_add(1), row, u64::checked_add)?;
        let key = (place.mailbox, sequence);
        if self.tables.messages.insert(key, &row.to_row()[..])?.is_some() {
            return Err(Fault::damaged("a message's number is to be given out a second time"));
        }
        if let Some(id) = row.foreign_id.as_deref() {
            self.tables.foreign_ids.insert((place.mailbox, id), sequence)?;
        }
        if sequence.is_multiple_of(PACKED_TOGETHER) {
            self.tables.messages.pack(place.mailbox, sequence - (PACKED_TOGETHER - 1)..=sequence)?;
        }
        Ok(sequence)
    }

    /// Counts a message and its octets up or down for mailbox, domain, account and store. A count that cannot be right
    /// stops the change: what it should be is for `pop3svc check --repair` to find out.
    pub(super) fn change_counts(
        &mut self,
        place: &Place,
        messages: impl Fn(u64) -> Option<u64>,
        row: &MessageRow,
        change: fn(u64, u64) -> Option<u64>,
    ) -> Result<(), Fault> {
        let octets = |sum| change(sum, row.octets);
        for id in [OwnerId::from(place.mailbox), place.domain.into()] {
            let counts = self.counts_mut(id)?;
            counts.messages = messages(counts.messages).ok_or_else(miscounted)?;
            counts.octets = octets(counts.octets).ok_or_else(miscounted)?;
            counts.octets_without_utf8 =
                change(counts.octets_without_utf8, row.octets_without_utf8()).ok_or_else(miscounted)?;
        }
        if let Some(account) = &place.quota {
            let quota = self.quota_mut(account)?;
            quota.used = octets(quota.used).ok_or_else(miscounted)?;
        }
        let totals = self.totals_mut();
        totals.messages = messages(totals.messages).ok_or_else(miscounted)?;
        totals.octets = octets(totals.octets).ok_or_else(miscounted)?;
        Ok(())
    }

    /// Stores the text, or, where it was stored lately, counts the new references; none where the disk is full.
    ///
    /// A sender must not learn from the time of our answer whether somebody has got exactly this text before. So a text
    /// that is stored already is written, logged and synced once more, over itself; and each is read back once.
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
                // Where a text of this hash lies there but is not whole any more, this one takes its place, and the
                // messages that shared it are mended.
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

    /// The text as it is to be stored: if it lies in the file already it lies there in vain when the index was opened
    /// anew since, or when it has been stored before.
    fn wire_of<'t>(&self, text: &'t Incoming) -> &'t Body {
        match &text.wire {
            Body::Placed(placed) if !self.space.keeps(&placed.draft) => &placed.body,
            wire => wire,
        }
    }

    /// The text with this hash, if it is one of the latest and still there.
    fn stored_lately(&self, hash: &[u8; 32]) -> Result<Option<(TextId, TextRow)>, Fault> {
        let Some(id) = self.recent.find(hash) else { return Ok(None) };
        Ok(self.text(id)?.filter(|row| row.hash == *hash).map(|row| (id, row)))
    }

    fn count_text_octets(&mut self, change: impl Fn(u64) -> Option<u64>) -> Result<(), Fault> {
        let totals = self.totals_mut();
        totals.text_octets = change(totals.text_octets).ok_or_else(miscounted)?;
        Ok(())
    }

    /// Writes the octets into free space; none where there is no room.
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

    /// Writes a text to its place, and into the record if it is short; false where the disk is full. For a text that
    /// another thread has written somewhere that is done.
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

    /// A full disk is an expected outcome, and noted; any other fault stays one.
    fn note_full(&mut self, fault: Fault) -> Result<bool, Fault> {
        match fault {
            Fault::DiskFull(_) => {
                self.room_was_missing = true;
                Ok(false)
            }
            fault => Err(fault),
        }
    }

    /// Whether the stored text is, octet for octet, this one. A fault of reading it means that it is not.
    fn holds(&self, row: &TextRow, wire: &Body) -> bool {
        if row.wire_octets != wire.len() {
            return false;
        }
        let looked_at = if let Body::Placed(placed) = wire { placed.lies_at(row.at) } else { None };
        looked_at.unwrap_or_else(|| placing::holds(self.container, row.at, wire))
    }

    /// Deletes messages of a mailbox: at a time from when on they are kept for a while, if the setting `undelete` says
    /// so, or, without a time, for good. False, and nothing is deleted, where the mailbox has been deleted or locked
    /// meanwhile: a session that was ended by that deletes nothing.
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
        let place = Place::new(&domain, row);
        let kept = if self.keeps_deleted()? { deleted } else { None };
        let (mut messages, mut octets) = (0, 0u64);
        for sequence in sequences {
            if let Some(message) = self.delete_message(&place, *sequence, kept)? {
                messages += 1;
                octets = octets.saturating_add(message);
            }
        }
        if let Some(deleted) = kept {
            self.count_deleted(deleted.day(), u64::checked_add, messages, octets)?;
        }
        Ok(true)
    }

    /// Deletes every message of a mailbox.
    pub fn delete_all_messages(&mut self, domain: &DomainRow, mailbox: MailboxRow) -> Result<(), Fault> {
        let place = Place::new(domain, mailbox);
        let mut sequences = Vec::new();
        for row in self.tables.messages.range((place.mailbox, 0)..=(place.mailbox, u64::MAX))? {
            sequences.push(row?.0.value().1);
        }
        for sequence in sequences {
            self.delete_message(&place, sequence, None)?;
        }
        Ok(())
    }

    /// Deletes a message; returns its octets, or none where it is gone already, which is no fault.
    fn delete_message(
        &mut self,
        place: &Place,
        sequence: u64,
        kept: Option<UnixTime>,
    ) -> Result<Option<u64>, Fault> {
        let removed = self.tables.messages.remove((place.mailbox, sequence))?;
        let Some(removed) = removed.map(|row| row.value().to_vec()) else { return Ok(None) };
        let row = MessageRow::from_row(&removed)?;
        self.change_counts(place, |count| count.checked_sub(1), &row, u64::checked_sub)?;
        match kept {
            Some(deleted) => self.keep_message(place.mailbox, sequence, &removed, deleted)?,
            None => {
                self.forget_foreign_id(place.mailbox, sequence, &row)?;
                self.drop_reference(row.text)?;
            }
        }
        Ok(Some(row.octets))
    }

    /// The id that a message brought from elsewhere is nobody's any more.
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

/// Whether our own Delivered-To for this recipient stands in the text already.
fn was_delivered_to(text: &Incoming, recipient: &Address) -> bool {
    text.delivered_to.iter().any(|field| field.trim().parse::<Address>().as_ref() == Ok(recipient))
}
