//! The names of the deleted mailboxes that can come back, so that nobody has to look through all of them.
//!
//! Kept in memory, some 100 octets for each: made when first asked for, and forgotten whenever the table loses a row
//! or a transaction is undone.

use std::collections::HashMap;

use super::types::{Day, MailboxId, UnixTime};
use crate::address::Address;

#[derive(Default)]
pub struct RemovedNames(Option<HashMap<String, Newest>>);

/// The last deletion of a mailbox with some name.
struct Newest {
    removed: UnixTime,
    key: (Day, MailboxId),
}

impl RemovedNames {
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Starts to remember, before every deleted mailbox is noted.
    pub fn begin(&mut self) {
        self.0 = Some(HashMap::new());
    }

    pub fn forget(&mut self) {
        self.0 = None;
    }

    pub fn note(&mut self, name: String, removed: UnixTime, key: (Day, MailboxId)) {
        let Some(names) = &mut self.0 else { return };
        let newest = names.entry(name).or_insert(Newest { removed, key });
        if newest.removed <= removed {
            *newest = Newest { removed, key };
        }
    }

    /// Key of the mailbox with this name that was deleted last.
    pub fn find(&self, address: &Address) -> Option<(Day, MailboxId)> {
        Some(self.0.as_ref()?.get(&address.to_string())?.key)
    }
}
