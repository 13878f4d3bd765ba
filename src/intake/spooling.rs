//! Keeps a message that grows large in a file while it comes in, so that a connection's memory stays bounded.

use std::io;
use std::path::PathBuf;

use crate::log::About;
use crate::store::{Body, Incoming, Spool};
use crate::wire::{Receiver, Rejection, Text};

/// Octets of one message that stay in memory; a message that grows past this goes to a file.
pub const HELD_OCTETS_MAX: u64 = 128 << 10;

/// The file of one connection's message, if that needs one.
pub struct Spooling {
    directory: PathBuf,
    about: About,
    spool: Option<Spool>,
}

impl Spooling {
    /// `directory` is on the file system that the files are to lie on: the mail store's, so that its disk is the one
    /// that fills up.
    pub fn new(directory: PathBuf, about: About) -> Self {
        Self { directory, about, spool: None }
    }

    /// Moves what the receiver holds to the file once that is more than [`HELD_OCTETS_MAX`]; to be called after each
    /// push. If the disk does not take it, the receiver gives the message up.
    pub async fn relieve(&mut self, receiver: &mut Receiver) {
        if receiver.taken_octets() == 0 || receiver.rejection().is_some() {
            // Left over from a message that was refused or dropped.
            self.clear();
        }
        if receiver.held_octets() > HELD_OCTETS_MAX
            && let Err(e) = self.append(receiver.take_held()).await
        {
            receiver.give_up(self.rejection(&e));
            self.clear();
        }
    }

    /// The message as the store takes it; nothing of it is left here.
    pub async fn finish(&mut self, text: Text) -> Result<Incoming, Rejection> {
        if self.spool.is_none() {
            return Ok(text.into());
        }
        let mut tail = Vec::new();
        let text = text.with_wire(|wire| tail = wire);
        if let Err(e) = self.append(tail).await {
            return Err(self.rejection(&e));
        }
        let spool = self.spool.take().expect("something was appended to it");
        Ok(text.with_wire(|()| Body::File(spool.into())))
    }

    pub fn clear(&mut self) {
        self.spool = None;
    }

    async fn append(&mut self, octets: Vec<u8>) -> io::Result<()> {
        let (spool, directory) = (self.spool.take(), self.directory.clone());
        let appended = smol::unblock(move || {
            let mut spool = match spool {
                Some(spool) => spool,
                None => Spool::create(&directory)?,
            };
            spool.append(&octets)?;
            io::Result::Ok(spool)
        });
        self.spool = Some(appended.await?);
        Ok(())
    }

    fn rejection(&self, error: &io::Error) -> Rejection {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Rejection::DiskFull,
            _ => {
                log::error!("{}a message on its way in could not be written to a file: {error}", self.about);
                Rejection::Fault
            }
        }
    }
}
