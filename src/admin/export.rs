//! `export`: the messages of a mailbox, written one behind the other into the file that the tool sends.
//!
//! ```text
//! octets of the content u64, received (Unix seconds) u64, octets of the unique id u16, all little endian; id, content
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Read, Write as _};

use super::directory::refusal_of_mailbox;
use super::reply::{Code, ExportSummary, Refusal, Reply};
use crate::address::Address;
use crate::store::{Fault, Store};

/// A message out of the file.
pub struct ExportedMessage {
    pub unique_id: String,
    pub received_unix_seconds: u64,
    pub content: Vec<u8>,
}

/// Writes the messages of the mailbox.
pub fn export(mailbox: &str, store: &Store, file: Option<File>) -> Result<Reply, Refusal> {
    let address: Address = mailbox.parse()?;
    let Some(file) = file else { return Err(Refusal::new(Code::Usage, "there is no file to export into")) };
    let mut file = BufWriter::new(file);
    let mut summary = ExportSummary { mailboxes: 1, ..ExportSummary::default() };
    let written = store.export(&address, |message| {
        let Some(content) = message.content else {
            summary.damaged += 1;
            return Ok(());
        };
        summary.messages += 1;
        summary.octets += content.len() as u64;
        let mut write = || {
            file.write_all(&(content.len() as u64).to_le_bytes())?;
            file.write_all(&message.received.0.to_le_bytes())?;
            let id = message.unique_id.as_bytes();
            file.write_all(&u16::try_from(id.len()).expect("an id is short").to_le_bytes())?;
            file.write_all(id)?;
            file.write_all(&content)
        };
        write().map_err(Fault::from)
    });
    written.map_err(Refusal::fault)?.map_err(|why| refusal_of_mailbox(why, &address))?;
    file.flush().map_err(Refusal::fault)?;
    Ok(Reply::Exported(summary))
}

/// The next message of the file; none at its end.
pub fn next_exported(file: &mut impl Read) -> io::Result<Option<ExportedMessage>> {
    let mut octets = [0; 8];
    match file.read_exact(&mut octets) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        outcome => outcome?,
    }
    let (mut received, mut id_octets) = ([0; 8], [0; 2]);
    file.read_exact(&mut received)?;
    file.read_exact(&mut id_octets)?;
    let mut id = vec![0; usize::from(u16::from_le_bytes(id_octets))];
    file.read_exact(&mut id)?;
    let mut content = Vec::new();
    let octets = u64::from_le_bytes(octets);
    if file.take(octets).read_to_end(&mut content)? as u64 != octets {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let unique_id = String::from_utf8(id).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Some(ExportedMessage { unique_id, received_unix_seconds: u64::from_le_bytes(received), content }))
}
