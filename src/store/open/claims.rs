//! Which mailboxes are claimed, each by at most one session.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, MutexGuard};

use smol::channel::{Receiver, Sender};

use crate::lock::Mutex;
use crate::store::index::types::MailboxId;

/// The claimed mailboxes.
#[derive(Clone, Default)]
pub struct Claims(Arc<Mutex<HashMap<MailboxId, Sender<Infallible>>>>);

/// While a session holds this, no other session can open the mailbox.
pub struct Claim {
    claims: Claims,
    pub mailbox: MailboxId,
    pub revoked: Receiver<Infallible>,
}

impl Claims {
    pub fn claim(&self, mailbox: MailboxId) -> Option<Claim> {
        let mut claims = self.lock();
        if claims.contains_key(&mailbox) {
            return None;
        }
        let (sender, revoked) = smol::channel::bounded(1);
        claims.insert(mailbox, sender);
        Some(Claim { claims: self.clone(), mailbox, revoked })
    }

    /// Ends the sessions on these mailboxes. Their claims last until the sessions are gone.
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
        self.claims.lock().remove(&self.mailbox);
    }
}
