//! `export`: writes a mailbox's messages, its ids, or accounts into the file that the tool sends.
//!
//! ```text
//! a message   octets of the content u64, received (Unix seconds) u64, octets of the unique id u16, all little endian;
//!             id, content
//! an id       a line: octets, hash of the text, unique id
//! an account  a line of a passwd-file as Dovecot reads it:
//!             ADDRESS:{SCRAM-SHA-256}ITERATIONS,SALT,STOREDKEY,SERVERKEY::::::
//! ```

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write as _};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::directory::{Target, no_such_domain};
use super::reply::{Code, ExportSummary, Refusal, Reply, SkippedFile};
use crate::address::{Address, Domain};
use crate::auth::password::Credential;
use crate::store::{Fault, Listed, Progress, Read as _, Stage, Store};

/// A message read back from the file.
pub struct ExportedMessage {
    pub unique_id: String,
    pub received_unix_seconds: u64,
    pub content: Vec<u8>,
}

/// A message's UIDL, LIST size and text hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedMessage {
    pub unique_id: String,
    pub octets: u64,
    /// blake3 of the text as stored, without the fields we add.
    pub text_hash: [u8; 32],
}

/// Writes the messages of the mailbox.
pub fn export(
    mailbox: &str,
    store: &Store,
    file: Option<File>,
    progress: &Progress,
) -> Result<Reply, Refusal> {
    let address: Address = mailbox.parse()?;
    let mut file = writer(file)?;
    progress.begin(Stage::CopyingTexts, 0);
    let mut summary = ExportSummary { mailboxes: 1, ..ExportSummary::default() };
    let written = store.export(&address, |message| {
        let Some(content) = message.content else {
            summary.damaged += 1;
            return Ok(());
        };
        summary.messages += 1;
        summary.octets += content.len() as u64;
        progress.add(content.len() as u64);
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
    written.map_err(Refusal::fault)??;
    file.flush().map_err(Refusal::fault)?;
    Ok(Reply::Exported(summary))
}

/// Writes the ids of the mailbox.
pub fn ids(mailbox: &str, store: &Store, file: Option<File>) -> Result<Reply, Refusal> {
    let address: Address = mailbox.parse()?;
    let mut file = writer(file)?;
    let mut summary = ExportSummary { mailboxes: 1, ..ExportSummary::default() };
    let written = store.list_for_comparison(&address, |Listed { unique_id, octets, text_hash }| {
        summary.messages += 1;
        summary.octets += octets;
        writeln!(file, "{}", ListedMessage { unique_id, octets, text_hash }).map_err(Fault::from)
    });
    written.map_err(Refusal::fault)??;
    file.flush().map_err(Refusal::fault)?;
    Ok(Reply::Exported(summary))
}

/// Writes the accounts of all mailboxes, of one domain, or of one mailbox.
pub fn accounts(name: Option<&str>, store: &Store, file: Option<File>) -> Result<Reply, Refusal> {
    let target: Option<Target> = name.map(str::parse).transpose()?;
    let mut file = writer(file)?;
    let view = store.read().map_err(Refusal::fault)?;
    let domains: Vec<Domain> = match &target {
        None => view.domains().map_err(Refusal::fault)?.into_iter().map(|(domain, _)| domain).collect(),
        Some(Target::Domain(domain) | Target::Mailbox(Address { domain, .. })) => {
            view.domain(domain).map_err(Refusal::fault)?.ok_or_else(|| no_such_domain(domain))?;
            vec![domain.clone()]
        }
    };
    let mut summary = ExportSummary::default();
    for domain in domains {
        for (local, row) in view.mailboxes(&domain).map_err(Refusal::fault)? {
            let address = Address { local, domain: domain.clone() };
            if matches!(&target, Some(Target::Mailbox(only)) if *only != address) {
                continue;
            }
            if row.credential.is_of_nobody() {
                let why = "the mailbox has no password".to_owned();
                summary.skipped.push(SkippedFile { file: address.to_string(), why });
                continue;
            }
            writeln!(file, "{}", account(&address, &row.credential)).map_err(Refusal::fault)?;
            summary.mailboxes += 1;
        }
    }
    if let (Some(Target::Mailbox(only)), 0, true) = (&target, summary.mailboxes, summary.skipped.is_empty()) {
        return Err(Refusal::new(Code::NotFound, format!("there is no mailbox {only}")));
    }
    file.flush().map_err(Refusal::fault)?;
    Ok(Reply::Exported(summary))
}

fn account(address: &Address, credential: &Credential) -> String {
    let verifier = &credential.verifier;
    let [salt, stored, server] = [&verifier.salt[..], &verifier.stored_key, &verifier.server_key]
        .map(|octets| STANDARD.encode(octets));
    format!("{address}:{{SCRAM-SHA-256}}{},{salt},{stored},{server}::::::", verifier.iterations)
}

fn writer(file: Option<File>) -> Result<BufWriter<File>, Refusal> {
    let file = file.ok_or_else(|| Refusal::usage("the request has no file to export to"))?;
    Ok(BufWriter::new(file))
}

impl fmt::Display for ListedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.octets, blake3::Hash::from_bytes(self.text_hash), self.unique_id)
    }
}

impl FromStr for ListedMessage {
    type Err = &'static str;

    /// Takes what `Display` writes.
    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (octets, rest) = line.split_once(' ')?;
            let (hash, unique_id) = rest.split_once(' ')?;
            let text_hash = *blake3::Hash::from_hex(hash).ok()?.as_bytes();
            Some(Self { unique_id: unique_id.to_owned(), octets: octets.parse().ok()?, text_hash })
        };
        read().ok_or("a line in the list of ids is malformed")
    }
}

/// The next message in the file; `None` at its end.
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
