//! Moves a large incoming message to a file, so that a connection's memory stays bounded.

use std::io;
use std::path::PathBuf;

use super::on_a_writing_thread;
use crate::log::About;
use crate::store::{Body, Incoming, Spool};
use crate::wire::{Receiver, Rejection, Text};

/// Octets of a message kept in memory; a larger message goes to a file.
pub const HELD_OCTETS_MAX: u64 = 128 << 10;

/// The file for a connection's current message, if it needs one.
pub struct Spooling {
    directory: PathBuf,
    about: About,
    spool: Option<Spool>,
}

impl Spooling {
    /// Files go to the file system of `directory`: the mail store's, so that only its disk can fill up. `about` is the
    /// session, for the log.
    pub fn new(directory: PathBuf, about: About) -> Self {
        Self { directory, about, spool: None }
    }

    /// Moves what the receiver holds to the file if that exceeds [`HELD_OCTETS_MAX`]; call it after each push. If the
    /// disk fails, the receiver gives up the message.
    pub async fn relieve(&mut self, receiver: &mut Receiver) {
        if receiver.taken_octets() == 0 || receiver.rejection().is_some() {
            // The file belongs to an earlier message, refused or dropped.
            self.clear();
        }
        if receiver.held_octets() > HELD_OCTETS_MAX
            && let Err(e) = self.append(receiver.take_held()).await
        {
            receiver.give_up(self.rejection(&e));
            self.clear();
        }
    }

    /// The whole message as the store takes it. Leaves nothing here.
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
        let appended = on_a_writing_thread(move || {
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
                log::error!("{}an incoming message could not be written to a file: {error}", self.about);
                Rejection::Fault
            }
        }
    }
}
