//! Incoming mail: from an envelope and a text to letters in the store. SMTP, LMTP and `deliver` all come through here.

mod postmaster;
mod spooling;

use postmaster::address_of;
pub use spooling::Spooling;

use std::collections::HashMap;

use smol::lock::Semaphore;
use time::OffsetDateTime;

use crate::address::Address;
use crate::envelope::{Envelope, ForwardPath};
use crate::log::About;
use crate::random;
use crate::store::{Fault, Incoming, Letter, Read, Store, UnixTime, quota_of_mailbox};
use crate::verdict;
use crate::wire::Origin;

/// Whether this path would accept a message of `octets` (0 = unknown) now.
pub fn recipient(store: &Store, path: &ForwardPath, octets: u64) -> Result<verdict::Recipient, Fault> {
    let snapshot = store.read()?;
    let Some(address) = address_of(store, &*snapshot, path)? else {
        return Ok(verdict::Recipient::NoSuchMailbox);
    };
    if snapshot.domain(&address.domain)?.is_none() {
        return Ok(verdict::Recipient::NotLocal);
    }
    let Some(mailbox) = snapshot.mailbox(&snapshot.receiving(&address)?)? else {
        return Ok(verdict::Recipient::NoSuchMailbox);
    };
    Ok(match quota_of_mailbox(&*snapshot, &mailbox)? {
        Some(quota) if !quota.has_room_for(octets) => verdict::Recipient::OverQuota,
        _ => verdict::Recipient::Accepted,
    })
}

/// The ids by which other servers log the message.
fn known_as(origin: &Origin) -> String {
    let said = |name: &str, value: &Option<String>| {
        value.as_ref().map_or(String::new(), |value| format!(", {name} {value}"))
    };
    said("Message-ID", &origin.message_id) + &said("queue id", &origin.queue_id)
}

/// What happens to a message that some of its recipients cannot get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The others get it.
    Each,
    /// Nobody gets it: for senders that take a single answer, which must then hold for all.
    AllOrNone,
}

/// Threads that write parts of messages at a time. With more the disk is no faster, and the allocator keeps some
/// megabytes for each: a flood of large messages to a slow disk would exceed the bound at the head of `serve`.
static WRITING: Semaphore = Semaphore::new(16);

async fn on_a_writing_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let _turn = WRITING.acquire().await;
    smol::unblock(work).await
}

/// Stores the text for the recipients of the envelope and returns their verdicts in the same order, once they are
/// durable. `hostname` is ours, for the Received field; `about` is the session, for the log.
pub async fn deliver(
    store: &Store,
    envelope: &Envelope,
    text: Incoming,
    hostname: &str,
    scope: Scope,
    about: About,
) -> Result<Vec<verdict::Delivery>, Fault> {
    let now = OffsetDateTime::now_utc();
    let tag = random::number()?;
    let id = format!("{tag:016x}");
    // A mailbox named several times, whatever the detail, gets one letter; each naming gets its verdict.
    let mut letters: Vec<Letter> = Vec::with_capacity(envelope.recipients.len());
    let mut letter_of = Vec::with_capacity(envelope.recipients.len());
    {
        let snapshot = store.read()?;
        let mut known: HashMap<Address, usize> = HashMap::new();
        for path in &envelope.recipients {
            let Some(recipient) = address_of(store, &*snapshot, path)? else {
                letter_of.push(None);
                continue;
            };
            let index = *known.entry(snapshot.receiving(&recipient)?).or_insert_with(|| {
                letters.push(Letter {
                    prefix: envelope.trace_fields(&recipient, hostname, &id, now),
                    recipient,
                    tag,
                });
                letters.len() - 1
            });
            letter_of.push(Some(index));
        }
    }
    let octets = text.octets;
    let origin = known_as(&text.origin);
    let text = match store.room_for(&text).await {
        Some(room) => on_a_writing_thread(move || room.place(text)).await,
        None => text,
    };
    let seconds = UnixTime(now.unix_timestamp().max(0) as u64);
    let stored = match scope {
        Scope::Each => store.write(move |tx| tx.deliver(&text, &letters, seconds)).await?,
        Scope::AllOrNone if letter_of.contains(&None) => vec![verdict::Delivery::Withheld; letters.len()],
        Scope::AllOrNone => store.write(move |tx| tx.deliver_all(&text, &letters, seconds)).await?,
    };
    let verdicts: Vec<verdict::Delivery> = letter_of
        .into_iter()
        .map(|index| index.map_or(verdict::Delivery::NoSuchMailbox, |index| stored[index]))
        .collect();
    let sender = envelope.printable_reverse_path();
    for (path, verdict) in envelope.recipients.iter().zip(&verdicts) {
        log::info!("{about}message {id} to <{path}>: {verdict}; from <{sender}>, {octets} octets{origin}");
    }
    Ok(verdicts)
}
