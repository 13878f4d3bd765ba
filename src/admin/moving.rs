//! The begin and the end of an import: in between nobody is let into the mailbox, also where the import was cut short.

use super::Context;
use super::directory::refusal_of_mailbox;
use super::import::nobodys;
use super::reply::{ImportSummary, Refusal, Reply};
use crate::address::Address;
use crate::store::{Mover, Read as _, Store};

/// Closes the mailbox until its import is over, and tells the unique ids of the messages that were imported before. With `makes`
/// the domain and the mailbox are made where they are not there.
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
        refusal_of_mailbox(why, &address)
            .with_hint(format!("Add {address} first, or have what is missing made: --make"))
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
