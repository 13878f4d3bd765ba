//! Begins and ends an import. In between, even after an interruption, the mailbox is closed to its user.

use bincode::{Decode, Encode};
use serde::Serialize;

use super::Context;
use super::import::nobodys;
use super::reply::{Refusal, Reply, SkippedFile};
use crate::address::Address;
use crate::store::{Mover, Read as _, Store};

/// What an import stored, or would store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct ImportSummary {
    pub dry_run: bool,
    /// The format of the other server's ids, if given or found.
    pub uidl: Option<String>,
    pub mailboxes: u64,
    /// Imported messages, and their octets.
    pub messages: u64,
    pub octets: u64,
    /// Of these, the ones that kept the unique id mail programs know.
    pub ids_kept: u64,
    /// The others: mail programs that leave mail on the server fetch them again.
    pub ids_new: u64,
    /// Of the kept ids, those longer than the 70 octets of RFC 1939, which some programs may refuse.
    pub ids_long: u64,
    /// Messages already here from an earlier import.
    pub there_already: u64,
    /// Skipped messages and mailboxes, not counted above.
    pub skipped: Vec<SkippedFile>,
    /// Why the import stopped early: a sentence without its full stop.
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
    /// With a password and all of their mail.
    pub moved: u64,
    /// With some mail still missing: an import or first login is under way or was interrupted.
    pub incomplete: u64,
    /// Without a password: the user has not logged in here yet.
    pub not_moved: u64,
}

/// Closes the mailbox until its import ends, and returns the unique ids of the messages imported before. With `makes`,
/// creates the domain and the mailbox if they are missing.
pub fn begin(mailbox: &str, makes: bool, store: &Store, context: &Context) -> Result<Reply, Refusal> {
    let address: Address = mailbox.parse()?;
    let (name, now) = (address.clone(), context.now);
    let beginning = store.write(move |tx| {
        if makes {
            // Fine if they exist already.
            let _ = tx.add_domain(&name.domain, now)?;
            let _ = tx.add_mailbox(&name, nobodys(), now)?;
        }
        tx.begin_move(&name, Mover::Import)
    });
    beginning.wait().map_err(Refusal::fault)?.map_err(|why| {
        Refusal::from(why).with_hint(format!("Add {address} first, or create what is missing with --make"))
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
