//! The begin and the end of an import: in between nobody is let into the mailbox, also where the import was cut short.

use bincode::{Decode, Encode};
use serde::Serialize;

use super::Context;
use super::import::nobodys;
use super::reply::{Refusal, Reply, SkippedFile};
use crate::address::Address;
use crate::store::{Mover, Read as _, Store};

/// What an import took in, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct ImportSummary {
    pub dry_run: bool,
    /// How the other server made its ids, where that was given or found.
    pub uidl: Option<String>,
    pub mailboxes: u64,
    /// Messages that were taken in, and their octets.
    pub messages: u64,
    pub octets: u64,
    /// Of them, those whose unique id is the one that mail programs know.
    pub ids_kept: u64,
    /// The others: a mail program that leaves its mail on the server fetches them again.
    pub ids_new: u64,
    /// Of those that were kept, ids that are longer than the 70 octets of RFC 1939, which some programs may not take.
    pub ids_long: u64,
    /// Messages that were there from an import before.
    pub there_already: u64,
    /// What was passed over: messages, and mailboxes that are not counted above.
    pub skipped: Vec<SkippedFile>,
    /// Why the import ended before its end: a sentence without its full stop.
    pub stopped: Option<String>,
}

impl ImportSummary {
    /// Counts what a batch did.
    pub fn add(&mut self, batch: Self) {
        self.messages += batch.messages;
        self.octets += batch.octets;
        self.ids_kept += batch.ids_kept;
        self.ids_new += batch.ids_new;
        self.ids_long += batch.ids_long;
        self.there_already += batch.there_already;
        self.stopped = batch.stopped;
    }
}

/// How many mailboxes have moved here from an old server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct AdoptionLine {
    /// Those that have a password and all of their mail.
    pub moved: u64,
    /// Those whose mail is not all here: an import or a first login brings it, or was cut short.
    pub incomplete: u64,
    /// Those without a password: their users have not logged in here yet.
    pub not_moved: u64,
}

/// Closes the mailbox until its import is over, and tells the unique ids of the messages that were imported before.
/// With `makes` the domain and the mailbox are made where they are not there.
pub fn begin(mailbox: &str, makes: bool, store: &Store, context: &Context) -> Result<Reply, Refusal> {
    let address: Address = mailbox.parse()?;
    let (name, now) = (address.clone(), context.now);
    let beginning = store.write(move |tx| {
        if makes {
            // What is there already is as well.
            let _ = tx.add_domain(&name.domain, now)?;
            let _ = tx.add_mailbox(&name, nobodys(), now)?;
        }
        tx.begin_move(&name, Mover::Import)
    });
    beginning.wait().map_err(Refusal::fault)?.map_err(|why| {
        Refusal::from(why).with_hint(format!("Add {address} first, or have what is missing made: --make"))
    })?;
    let view = store.read().map_err(Refusal::fault)?;
    let unique_ids = match view.mailbox(&address).map_err(Refusal::fault)? {
        Some(row) => view.foreign_ids(row.id).map_err(Refusal::fault)?,
        None => Vec::new(),
    };
    Ok(Reply::ImportBegun { unique_ids })
}

/// Opens the mailbox again.
pub fn end(mailbox: &str, store: &Store) -> Result<Reply, Refusal> {
    let address: Address = mailbox.parse()?;
    store.write(move |tx| tx.end_move(&address)).wait().map_err(Refusal::fault)?;
    Ok(Reply::Imported(ImportSummary::default()))
}
