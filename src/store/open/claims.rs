//! Which mailboxes are claimed: each by one session at a time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, MutexGuard};

use smol::channel::{Receiver, Sender};

use crate::lock::Mutex;
use crate::store::index::types::MailboxId;

/// Which mailboxes are claimed.
#[derive(Clone, Default)]
pub struct Maildrops(Arc<Mutex<HashMap<MailboxId, Sender<Infallible>>>>);

/// A mailbox is this session's alone while it holds the claim.
pub struct Claim {
    maildrops: Maildrops,
    pub mailbox: MailboxId,
    pub revoked: Receiver<Infallible>,
}

impl Maildrops {
    pub fn claim(&self, mailbox: MailboxId) -> Option<Claim> {
        let mut claims = self.lock();
        if claims.contains_key(&mailbox) {
            return None;
        }
        let (sender, revoked) = smol::channel::bounded(1);
        claims.insert(mailbox, sender);
        Some(Claim { maildrops: self.clone(), mailbox, revoked })
    }

    /// Ends the sessions on these mailboxes. The claims stand until the sessions have gone.
    pub fn revoke(&self, mailboxes: &[MailboxId]) {
        if mailboxes.is_empty() {
            return;
        }
        let claims = self.lock();
        for sender in mailboxes.iter().filter_map(|mailbox| claims.get(mailbox)) {
            sender.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MailboxId, Sender<Infallible>>> {
        self.0.lock()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.maildrops.lock().remove(&self.mailbox);
    }
}
