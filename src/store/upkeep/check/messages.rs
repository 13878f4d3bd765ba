//! Checks the messages, on several threads.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;

use super::{Check, CheckReport, CheckedMailbox, SeenText, count_reference};
use crate::store::index::rows::{Counts, MessageHead, MessageRow, Row};
use crate::store::index::tables::MESSAGES;
use crate::store::index::types::{MailboxId, OwnerId};
use crate::store::index::{Fault, contained};
use crate::store::open::Snapshot;
use crate::store::upkeep::foreign_ids::ForeignId;
use crate::store::upkeep::progress::{Progress, Stage};
use crate::store::upkeep::stretches::{Stretch, Told, on_all_stretches, stretches};

impl Check<'_> {
    /// Goes through the messages, counting in `seen` how many have each text.
    pub(super) fn messages(&mut self, texts: &[SeenText], seen: &[AtomicU32]) -> Result<(), Fault> {
        self.progress.begin(Stage::ReadingMessages, self.stored.messages);
        let with_mail = self.owners.iter().filter(|(_, owner)| owner.domain.is_some());
        let stretches = stretches(with_mail.filter_map(|(id, owner)| Some((*id, owner.stored?))));
        let (owners, snapshot, progress) = (&self.owners, self.snapshot, self.progress);
        let parts = on_all_stretches(stretches, |range| {
            let (report, counts, foreign_ids) = (CheckReport::default(), BTreeMap::new(), Vec::new());
            let mut part = Part { owners, texts, seen, report, counts, foreign_ids };
            contained::read(|| part.messages(snapshot, range, progress))?;
            Ok((part.report, part.counts, part.foreign_ids))
        })?;
        for (report, counts, foreign_ids) in parts {
            self.report.messages += report.messages;
            let kept = report.findings.len() as u64;
            report.findings.into_iter().for_each(|what| self.report.find(what));
            self.report.findings_total += report.findings_total - kept;
            self.foreign_ids.extend(foreign_ids);
            for (mailbox, counts) in counts {
                let seen = &mut self.owners.get_mut(&mailbox.into()).expect("only its mail is counted").seen;
                seen.messages += counts.messages;
                seen.octets = seen.octets.saturating_add(counts.octets);
                seen.octets_without_utf8 =
                    seen.octets_without_utf8.saturating_add(counts.octets_without_utf8);
            }
        }
        Ok(())
    }
}

/// What one thread finds in its stretch.
struct Part<'a> {
    owners: &'a BTreeMap<OwnerId, CheckedMailbox>,
    texts: &'a [SeenText],
    /// Number of messages with each text.
    seen: &'a [AtomicU32],
    report: CheckReport,
    counts: BTreeMap<MailboxId, Counts>,
    foreign_ids: Vec<ForeignId>,
}

impl Part<'_> {
    fn messages(&mut self, snapshot: &Snapshot, range: Stretch, progress: &Progress) -> Result<(), Fault> {
        let mut told = Told::to(progress);
        for row in snapshot.table(MESSAGES)?.range(range)? {
            let (key, row) = row?;
            let (mailbox, sequence) = key.value();
            let foreign_id = match MessageRow::from_row(row.value()) {
                Ok(row) => {
                    self.message(mailbox, sequence, &row);
                    row.foreign_id
                }
                Err(_) => {
                    let what =
                        format!("the row of message {sequence} of mailbox id {mailbox} cannot be read");
                    self.report.find(what);
                    MessageHead::from_row(row.value()).ok().and_then(|head| head.foreign_id)
                }
            };
            self.foreign_ids.extend(foreign_id.map(|id| ForeignId { mailbox, sequence, id }));
            told.one();
        }
        Ok(())
    }

    fn message(&mut self, mailbox: MailboxId, sequence: u64, row: &MessageRow) {
        self.count(mailbox, sequence, row);
        let Ok(index) = self.texts.binary_search_by_key(&row.text, |text| text.id) else {
            self.report.find(format!("message {sequence} of {} has no text", self.name_of(mailbox)));
            return;
        };
        count_reference(&self.seen[index]);
        if self.texts[index].is_of_another_length(row) {
            self.report.find(format!("the size of message {sequence} of {} is wrong", self.name_of(mailbox)));
        }
    }

    fn count(&mut self, mailbox: MailboxId, sequence: u64, row: &MessageRow) {
        self.report.messages += 1;
        let Some(owner) = self.owners.get(&mailbox.into()).filter(|owner| owner.domain.is_some()) else {
            self.report.find(format!("message {sequence} belongs to no mailbox (id {mailbox})"));
            return;
        };
        let counts = self.counts.entry(mailbox).or_default();
        counts.messages += 1;
        counts.octets = counts.octets.saturating_add(row.octets);
        counts.octets_without_utf8 = counts.octets_without_utf8.saturating_add(row.octets_without_utf8());
        if owner.stored.is_some_and(|stored| sequence >= stored.next_sequence) {
            self.report
                .find(format!("message {sequence} of {} has a number that was never given out", owner.name));
        }
    }

    fn name_of(&self, mailbox: MailboxId) -> &str {
        self.owners.get(&mailbox.into()).map_or("a mailbox that does not exist", |owner| &owner.name)
    }
}
