//! Mailboxes whose mail is still on its way from another server. Nobody may log in before a mailbox is
//! complete: a mail program that sees only part of its list forgets the rest and fetches it again later.
//!
//! The mark is a row among the settings: it survives a crash, and older programs ignore it.

use std::collections::HashMap;

use super::Refused;
use super::refused::no_such_mailbox;
use crate::address::Address;
use crate::auth::password::Credential;
use crate::settings::INCOMPLETE;
use crate::store::index::tables::{FOREIGN_IDS, SETTINGS};
use crate::store::index::types::{MailboxId, OwnerId, UnixTime};
use crate::store::index::{Fault, IndexSnapshot, Read, Tx, contained};

/// Who moves the mail of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// An administrator's import.
    Import,
    /// The service itself, since the user logged in.
    Adoption,
}

impl Mover {
    fn word(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Adoption => "adoption",
        }
    }

    fn of(word: &str) -> Self {
        if word == Self::Adoption.word() { Self::Adoption } else { Self::Import }
    }
}

/// The outcome of [`Tx::begin_adoption`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// The mailbox has the password; its mail can come.
    Begun,
    /// Unchanged: it already has a password, or may not have one.
    NotAdoptable,
}

fn key_of(mailbox: MailboxId) -> String {
    format!("{INCOMPLETE}{:08x}", mailbox.0.0)
}

impl Tx<'_, '_> {
    /// Closes the mailbox to logins until [`Tx::end_move`].
    pub fn begin_move(&mut self, address: &Address, mover: Mover) -> Result<Result<(), Refused>, Fault> {
        let Some(mailbox) = self.mailbox(address)? else {
            return Ok(Err(no_such_mailbox(self, address)?));
        };
        self.set_setting(&key_of(mailbox.id), Some(mover.word()))?;
        Ok(Ok(()))
    }

    /// Marks the mailbox as complete. Returns true if it was not.
    pub fn end_move(&mut self, address: &Address) -> Result<bool, Fault> {
        let Some(mailbox) = self.mailbox(address)? else { return Ok(false) };
        let is_marked = self.setting(&key_of(mailbox.id))?.is_some();
        if is_marked {
            self.set_setting(&key_of(mailbox.id), None)?;
        }
        Ok(is_marked)
    }

    /// Removes counts and mark of a mailbox that is gone for good.
    pub(super) fn forget_mailbox(&mut self, mailbox: MailboxId) -> Result<(), Fault> {
        let key = key_of(mailbox);
        if self.setting(&key)?.is_some() {
            self.set_setting(&key, None)?;
        }
        self.forget_counts(mailbox)
    }

    /// Gives this password to a mailbox without one, or creates the mailbox if its domain is here, and marks it
    /// as incomplete.
    pub fn begin_adoption(
        &mut self,
        address: &Address,
        credential: Credential,
        now: UnixTime,
    ) -> Result<Adoption, Fault> {
        let Some(domain) = self.domain(&address.domain)? else { return Ok(Adoption::NotAdoptable) };
        match self.mailbox(address)? {
            _ if domain.locked => return Ok(Adoption::NotAdoptable),
            Some(mailbox) if mailbox.locked || !mailbox.credential.is_of_nobody() => {
                return Ok(Adoption::NotAdoptable);
            }
            Some(mailbox) if mover_of(self, mailbox.id)? == Some(Mover::Import) => {
                return Ok(Adoption::NotAdoptable);
            }
            Some(_) => drop(self.set_credential(address, credential)?),
            // The mailbox was deleted here, and only undelete may bring it back.
            None if self.newest_removed(address)?.is_some() => return Ok(Adoption::NotAdoptable),
            None => drop(self.add_mailbox(address, credential, now)?),
        }
        let begun = self.begin_move(address, Mover::Adoption)?;
        assert_eq!(begun, Ok(()), "the mailbox is there");
        Ok(Adoption::Begun)
    }
}

/// Who is moving the mail of this mailbox; `None` if it is complete.
pub fn mover_of(view: &impl Read, mailbox: MailboxId) -> Result<Option<Mover>, Fault> {
    Ok(view.setting(&key_of(mailbox))?.map(|word| Mover::of(&word)))
}

impl IndexSnapshot {
    /// The incomplete mailboxes, and who is moving their mail.
    pub fn moving(&self) -> Result<HashMap<MailboxId, Mover>, Fault> {
        contained::read(|| {
            let mut moving = HashMap::new();
            for row in self.table(SETTINGS)?.range(INCOMPLETE..)? {
                let (key, word) = row?;
                let Some(id) = key.value().strip_prefix(INCOMPLETE) else { break };
                if let Ok(id) = u32::from_str_radix(id, 16) {
                    moving.insert(MailboxId(OwnerId(id)), Mover::of(word.value()));
                }
            }
            Ok(moving)
        })
    }

    /// The unique ids from other servers in this mailbox, including those of deleted messages that can come
    /// back.
    pub fn foreign_ids(&self, mailbox: MailboxId) -> Result<Vec<String>, Fault> {
        contained::read(|| {
            let mut ids = Vec::new();
            for row in self.table(FOREIGN_IDS)?.range((mailbox, "")..)? {
                let (key, _) = row?;
                let (of, id) = key.value();
                if of != mailbox {
                    break;
                }
                ids.push(id.to_owned());
            }
            Ok(ids)
        })
    }
}
