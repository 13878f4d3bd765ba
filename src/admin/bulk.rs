//! `add /file`: many domains and mailboxes at once, at most [`ENTRIES_MAX`] in one request and one transaction.
//!
//! A bad entry is reported with its line number and changes nothing; the rest of the request is added. Entries that
//! exist already are not errors, so a list can be given twice.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bincode::{Decode, Encode};

use super::commands::Add;
use super::directory::Target;
use super::reply::{AddOutcome, Added, Code, Refusal, Reply};
use super::secret::Secret;
use super::{Context, accounts};
use crate::auth::directory::Place;
use crate::auth::password::{Credential, Fresh};
use crate::keyring::Sealing;
use crate::lock::Mutex;
use crate::store::{Read as _, Refused, Store};

/// Maximum number of entries in a request.
pub const ENTRIES_MAX: usize = 1000;

/// A domain or mailbox to add.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Its line number in the list.
    pub line: u64,
    pub name: String,
    /// For a mailbox.
    pub password: Option<Secret>,
}

/// An entry, checked.
#[derive(Clone)]
enum Step {
    Domain(crate::address::Domain),
    Mailbox(crate::address::Address, Credential),
    Decided(AddOutcome, String),
}

/// Adds the entries in order, so a domain can precede its mailboxes.
pub fn add_many(entries: &[Entry], store: &Store, context: &Context) -> Result<Reply, Refusal> {
    if entries.len() > ENTRIES_MAX {
        let message = format!("a request can add at most {ENTRIES_MAX} domains and mailboxes");
        return Err(Refusal::usage(message));
    }
    if let Some(directory) = accounts::in_force(store, context)? {
        return Ok(match directory.place() {
            Place::ThisMachine => Reply::Yours { command: "add /file".to_owned() },
            Place::Network => one_by_one(entries, |add| add.run(store, context)),
        });
    }
    let sealing = context.keyring.sealing();
    let steps = prepared(entries, store, &sealing)?;
    let now = context.now;
    let adding = store.write(move |tx| {
        let mut outcomes = Vec::with_capacity(steps.len());
        for step in &steps {
            outcomes.push(match step {
                Step::Domain(domain) => outcome(tx.add_domain(domain, now)?),
                Step::Mailbox(address, credential) => {
                    outcome(tx.add_mailbox(address, credential.clone(), now)?)
                }
                Step::Decided(outcome, why) => (*outcome, Some(why.clone()).filter(|why| !why.is_empty())),
            });
        }
        Ok(outcomes)
    });
    let outcomes = adding.wait().map_err(Refusal::fault)?;
    let lines = entries.iter().zip(outcomes).map(|(entry, (outcome, why))| Added {
        line: entry.line,
        name: entry.name.clone(),
        outcome,
        why,
    });
    Ok(Reply::AddedMany { entries: lines.collect() })
}

/// Adds the entries one by one: an account directory has no transactions. A fault is reported with its entry.
pub fn one_by_one(entries: &[Entry], mut carry_out: impl FnMut(Add) -> Result<Reply, Refusal>) -> Reply {
    let added = |entry: &Entry| {
        let add = Add {
            name: Some(entry.name.clone()),
            createuser: entry.password.clone(),
            file: None,
            passwords: None,
        };
        let (outcome, why) = match carry_out(add) {
            Ok(_) => (AddOutcome::Added, None),
            Err(refusal) => match refusal.code {
                Code::Exists => (AddOutcome::Exists, Some(refusal.message)),
                Code::Fault => (AddOutcome::NotDone, Some(refusal.message)),
                _ => (AddOutcome::Refused, Some(refusal.message)),
            },
        };
        Added { line: entry.line, name: entry.name.clone(), outcome, why }
    };
    Reply::AddedMany { entries: entries.iter().map(added).collect() }
}

fn outcome(added: Result<(), Refused>) -> (AddOutcome, Option<String>) {
    match added {
        Ok(()) => (AddOutcome::Added, None),
        Err(Refused::DomainExists(_) | Refused::MailboxExists(_)) => (AddOutcome::Exists, None),
        Err(why) => (AddOutcome::Refused, Some(Refusal::from(why).message)),
    }
}

/// Checks the entries and derives the credentials of new ones, on all CPUs because each takes milliseconds.
fn prepared(entries: &[Entry], store: &Store, sealing: &Sealing) -> Result<Vec<Step>, Refusal> {
    let view = store.read().map_err(Refusal::fault)?;
    let key = sealing.key().ok();
    let step_of = |entry: &Entry| -> Result<Step, Refusal> {
        let refused = |why: String| Ok(Step::Decided(AddOutcome::Refused, why));
        let address = match entry.name.parse() {
            Ok(Target::Domain(domain)) if entry.password.is_none() => return Ok(Step::Domain(domain)),
            Ok(Target::Domain(_)) => return refused("a domain cannot have a password".to_owned()),
            Ok(Target::Mailbox(address)) => address,
            Err(malformed) => return refused(malformed.to_string()),
        };
        if view.mailbox(&address).map_err(Refusal::fault)?.is_some() {
            return Ok(Step::Decided(AddOutcome::Exists, String::new()));
        }
        let Some(secret) = &entry.password else { return refused("the password is missing".to_owned()) };
        let password = match secret.password() {
            Ok(password) => password,
            Err(refusal) => return refused(refusal.message),
        };
        let fresh = Fresh::draw().map_err(Refusal::fault)?;
        Ok(Step::Mailbox(address.clone(), Credential::new(password, &address, fresh, key)))
    };
    let next = AtomicUsize::new(0);
    let steps: Mutex<Vec<(usize, Result<Step, Refusal>)>> = Mutex::new(Vec::with_capacity(entries.len()));
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads.min(entries.len()) {
            scope.spawn(|| {
                while let Some((at, entry)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    entries.get(at).map(|entry| (at, entry))
                } {
                    let step = step_of(entry);
                    steps.lock().push((at, step));
                }
            });
        }
    });
    let mut steps = steps.into_inner();
    steps.sort_unstable_by_key(|(at, _)| *at);
    steps.into_iter().map(|(_, step)| step).collect()
}
