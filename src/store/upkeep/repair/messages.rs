//! Repair of messages. Afterwards each has its text, or is lost.

use std::collections::BTreeMap;

use super::texts::Texts;
use super::{KeptMailboxes, LostMessage, Repair, rows_of};
use crate::store::index::rows::{Counts, MessageRow, Row};
use crate::store::index::tables::MESSAGES;
use crate::store::index::types::{MailboxId, OwnerId};
use crate::store::index::{Fault, IndexSnapshot, contained};
use crate::store::upkeep::deleted::{Deleted, repair_deleted};
use crate::store::upkeep::foreign_ids::ForeignId;
use crate::store::upkeep::progress::{Progress, Stage};
use crate::store::upkeep::stretches::{Stretch, Told, on_all_stretches, stretches};

/// What one thread finds in its stretch.
#[derive(Default)]
struct Part {
    /// Counts of the sound messages; the next sequence covers all of them.
    counts: BTreeMap<MailboxId, Counts>,
    foreign_ids: Vec<ForeignId>,
    /// The others.
    wrong: Vec<(MailboxId, u64)>,
}

impl Repair<'_, '_> {
    /// Goes through the messages on several threads and repairs those that are wrong. Returns the foreign ids
    /// of those that are kept.
    pub fn messages(
        &mut self,
        owners: &mut KeptMailboxes,
        texts: &mut Texts,
    ) -> Result<Vec<ForeignId>, Fault> {
        self.progress.begin(Stage::ReadingMessages, self.stored_totals()?.messages);
        let counted = rows_of(self.tables.counts.open()?, |id| id)?;
        let counted = counted.iter().filter_map(|(id, row)| Some((*id, Counts::from_row(row).ok()?)));
        let is_mailbox = |id: OwnerId| owners.contains_key(&MailboxId(id));
        let stretches = stretches(counted.filter(|(id, _)| is_mailbox(*id)));
        let (before, progress, all_texts) = (self.before, self.progress, &*texts);
        let parts = on_all_stretches(stretches, |range| {
            contained::read(|| Part::of(before, range, all_texts, progress))
        })?;
        let (mut foreign_ids, mut wrong) = (Vec::new(), Vec::new());
        for part in parts {
            for (mailbox, counts) in part.counts {
                let owner =
                    owners.get_mut(&mailbox).expect("every mailbox with messages was found or created");
                owner.counts.next_sequence = owner.counts.next_sequence.max(counts.next_sequence);
                owner.counts.messages += counts.messages;
                owner.counts.octets += counts.octets;
                owner.counts.octets_without_utf8 += counts.octets_without_utf8;
            }
            foreign_ids.extend(part.foreign_ids);
            wrong.extend(part.wrong);
        }
        let some_are_wrong = !wrong.is_empty();
        for key in wrong {
            let row = self.tables.messages.get(key)?.and_then(|row| MessageRow::from_row(row.value()).ok());
            if let Some(id) = self.message(key, row, owners, texts)? {
                foreign_ids.push(ForeignId { mailbox: key.0, sequence: key.1, id });
            }
        }
        if some_are_wrong {
            foreign_ids.sort_by_key(|of| (of.mailbox, of.sequence));
        }
        Ok(foreign_ids)
    }

    /// Repairs a message or gives it up. Returns its foreign id.
    fn message(
        &mut self,
        key: (MailboxId, u64),
        row: Option<MessageRow>,
        owners: &mut KeptMailboxes,
        texts: &Texts,
    ) -> Result<Option<Box<str>>, Fault> {
        let owner = owners.get_mut(&key.0).expect("every mailbox with messages was found or created");
        let Some((row, text)) = row.as_ref().and_then(|row| Some((row, texts.get(row.text)?))) else {
            let (mailbox, sequence) = (owner.address.to_string(), key.1);
            let received_octets = row.map(|row| (row.received, row.octets));
            self.report.lost.push(LostMessage { mailbox, sequence, received_octets });
            self.tables.messages.remove(key)?;
            return Ok(None);
        };
        text.refer();
        let octets = text.octets_of(row);
        self.report.note(format!("message {} of {} now has {octets} octets", key.1, owner.address));
        // The header may have changed, so it is sent as it is.
        let row = MessageRow { octets, surrogate_octets: None, ..row.clone() };
        owner.counts.messages += 1;
        owner.counts.octets += octets;
        owner.counts.octets_without_utf8 += row.octets_without_utf8();
        self.tables.messages.insert(key, &row.to_row()[..])?;
        Ok(row.foreign_id)
    }

    /// The same for deleted messages that can come back.
    pub fn deleted_messages(&mut self, texts: &mut Texts) -> Result<(), Fault> {
        let gone = repair_deleted(&mut self.tables, |row| {
            let Some(text) = texts.get(row.text) else { return Deleted::Lost };
            text.refer();
            match text.suits(row) {
                true => Deleted::Kept,
                false => Deleted::Changed(MessageRow {
                    octets: text.octets_of(row),
                    surrogate_octets: None,
                    ..row.clone()
                }),
            }
        })?;
        if gone > 0 {
            self.report.note(format!("{gone} deleted messages cannot be brought back any more"));
        }
        Ok(())
    }
}

impl Part {
    fn of(before: &IndexSnapshot, range: Stretch, texts: &Texts, progress: &Progress) -> Result<Self, Fault> {
        let mut part = Self::default();
        let mut told = Told::to(progress);
        for row in before.table(MESSAGES)?.range(range)? {
            let (key, row) = row?;
            let (mailbox, sequence) = key.value();
            let counts = part.counts.entry(mailbox).or_default();
            counts.next_sequence = counts.next_sequence.max(sequence.saturating_add(1));
            let row = MessageRow::from_row(row.value()).ok();
            let right =
                row.and_then(|row| texts.get(row.text).filter(|text| text.suits(&row)).zip(Some(row)));
            match right {
                Some((text, row)) => {
                    text.refer();
                    counts.messages += 1;
                    counts.octets += row.octets;
                    counts.octets_without_utf8 += row.octets_without_utf8();
                    part.foreign_ids.extend(row.foreign_id.map(|id| ForeignId { mailbox, sequence, id }));
                }
                None => part.wrong.push((mailbox, sequence)),
            }
            told.one();
        }
        Ok(part)
    }
}
