//! `import`: reads mailboxes from the files of other mail servers and sends them to the store in batches. A service may
//! be running.
//!
//! - A message's text is kept unchanged except for its line ends, so mail programs see the same size, unique id and
//!   order as before.
//! - A stored batch stays stored: repeating an interrupted import continues it and duplicates nothing.
//! - A message or mailbox that cannot be imported is skipped and reported by name.

mod files;
mod ids;
mod live;
mod maildir;
mod mbox;
mod places;
mod seen;
mod verify;

pub use mbox::{FIELDS_OF_EXPORT, SENDER_OF_EXPORT};
pub use places::file_name;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};

use super::commands::Import;
use super::progress::Line;
use crate::address::Address;
use crate::admin::reply::{Code, ImportSummary, Refusal, Reply, SkippedFile};
use crate::admin::{Announced, BATCH_MESSAGES_MAX, BATCH_OCTETS_MAX, Batch, ListedMessage, Request, Working};
use crate::control::{Answer, Enclosed};
use crate::mailroot::MailRoot;
use crate::message::{is_long_for_clients, is_unique_id};
use files::Item;

/// The format of mailboxes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Maildir,
    Mbox,
    Eml,
    List,
    Windows,
}

impl Format {
    fn read(typed: &str) -> Result<Self, Refusal> {
        match typed.to_ascii_lowercase().as_str() {
            "maildir" => Ok(Self::Maildir),
            "mbox" => Ok(Self::Mbox),
            "eml" => Ok(Self::Eml),
            "list" => Ok(Self::List),
            "windows" => Ok(Self::Windows),
            other => Err(Refusal::usage(format!("there is no format \"{other}\""))
                .with_hint("The formats are maildir, mbox, eml, list and windows")),
        }
    }

    fn mailboxes(
        self,
        path: &str,
        mailbox: Option<&str>,
        skipped: &mut Vec<SkippedFile>,
    ) -> Result<Vec<(Address, PathBuf)>, Refusal> {
        match self {
            Self::Windows => places::find_of_windows(path, mailbox, skipped),
            _ => places::find(path, mailbox, skipped),
        }
    }

    /// The messages of a mailbox, in the order POP3 showed them.
    fn items(
        self,
        path: &Path,
        uidl: Option<&str>,
        skipped: &mut Vec<SkippedFile>,
    ) -> Result<Vec<Item>, Refusal> {
        match self {
            Self::Maildir => maildir::items(path, uidl),
            Self::Mbox => mbox::items(path, uidl),
            Self::Eml | Self::Windows => files::eml(path, uidl),
            Self::List => files::list(path, skipped),
        }
    }
}

/// Carries the import out.
pub fn import(typed: &Import, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    if let Some(from) = &typed.from {
        return live::import(typed, from, mailroot);
    }
    let (format, path, mailbox) = match &typed.words[..] {
        [format, path] => (format, path, None),
        [format, path, mailbox] => (format, path, Some(mailbox.as_str())),
        [_, _, _, surplus, ..] => {
            return Err(Refusal::usage(format!("\"{surplus}\" is one argument too many")));
        }
        [] => return Err(Refusal::usage("FORMAT and PATH, or --from, are missing")),
        [_] => return Err(Refusal::usage("PATH is missing")),
    };
    let format = Format::read(format)?;
    if let Some(uidl) = &typed.uidl {
        ids::unique_id(uidl, &ids::Facts::default())?;
    }
    let mut summary = ImportSummary { dry_run: typed.dry_run, ..ImportSummary::default() };
    let mailboxes = format.mailboxes(path, mailbox, &mut summary.skipped)?;
    let mailroot = mailroot()?;
    let uidl = match (&typed.uidl, &typed.seen) {
        (None, Some(seen)) => uidl_of_seen(format, Path::new(seen), &mailboxes)?,
        (uidl, _) => uidl.clone(),
    };
    if typed.verify {
        return verify::verify(typed, format, uidl.as_deref(), &mailboxes, summary.skipped, &mailroot);
    }
    summary.uidl.clone_from(&uidl);
    let untouched = summary.clone();
    let uidl = uidl.as_deref();
    let mut importing =
        Importing { typed, uidl, mailroot: &mailroot, shown: Shown::begin(&mailboxes), summary };
    let is_only_one = mailboxes.len() == 1;
    for (address, path) in mailboxes {
        match importing.take_in(&address, &path, format) {
            Ok(()) => importing.summary.mailboxes += u64::from(importing.summary.stopped.is_none()),
            Err(refusal) if is_only_one && importing.summary == untouched => {
                return Err(refusal);
            }
            Err(refusal) => importing.summary.skipped.push(SkippedFile::new(&path, refusal.to_string())),
        }
        if importing.summary.stopped.is_some() {
            break;
        }
    }
    Ok(Reply::Imported(importing.summary))
}

/// The format of the other server's ids, found by comparing with those a mail program has seen.
fn uidl_of_seen(
    format: Format,
    seen: &Path,
    mailboxes: &[(Address, PathBuf)],
) -> Result<Option<String>, Refusal> {
    let [(address, path)] = mailboxes else {
        return Err(Refusal::usage("--seen works for one mailbox only: name it"));
    };
    if format == Format::List {
        return Ok(None);
    }
    let uidl = verify::likeliest_uidl(format, path, &seen::read(seen, address)?)?;
    uidl.map(|uidl| Some(uidl.to_owned())).ok_or_else(|| {
        Refusal::new(
            Code::NotFound,
            format!(
                "no known format of unique ids turns the messages of {address} into ids in {}",
                seen.display()
            ),
        )
        .with_hint("If you know how the other server makes its ids, say so with --uidl")
    })
}

struct Importing<'a> {
    typed: &'a Import,
    uidl: Option<&'a str>,
    mailroot: &'a MailRoot,
    shown: Shown,
    summary: ImportSummary,
}

impl Importing<'_> {
    /// Imports a mailbox. An error concerns only this mailbox; anything that concerns all mailboxes stops the import.
    fn take_in(&mut self, address: &Address, path: &Path, format: Format) -> Result<(), Refusal> {
        let items = format.items(path, self.uidl, &mut self.summary.skipped)?;
        if self.typed.dry_run {
            let here = verify::before_import(address, self.typed.make, self.mailroot)?;
            self.look_at(&items, here);
            return Ok(());
        }
        // From here to the end the mailbox is closed to its user, even if the import is interrupted.
        let mailbox = address.to_string();
        let begin = Request::BeginImport { mailbox: mailbox.clone(), makes: self.typed.make };
        if self.ask(begin, Enclosed::Nothing)?.is_none() {
            return Ok(());
        }
        let mut repeats: HashMap<blake3::Hash, u32> = HashMap::new();
        let mut batch = Texts::begin()?;
        for item in &items {
            let Some(text) = self.read(item) else { continue };
            if batch.is_full_with(text.len()) {
                self.send(address, std::mem::replace(&mut batch, Texts::begin()?))?;
                if self.summary.stopped.is_some() {
                    return Ok(());
                }
            }
            let repeat = repeats.entry(blake3::hash(&text)).or_default();
            batch.push(item, &text, *repeat).map_err(Refusal::fault)?;
            *repeat += 1;
        }
        if !batch.messages.is_empty() {
            self.send(address, batch)?;
        }
        if self.summary.stopped.is_none() {
            self.ask(Request::EndImport { mailbox }, Enclosed::Nothing)?;
        }
        Ok(())
    }

    /// Counts what an import into a mailbox with these messages would do.
    fn look_at(&mut self, items: &[Item], here: Vec<ListedMessage>) {
        let mut texts: HashMap<[u8; 32], u64> = HashMap::new();
        here.iter().for_each(|message| *texts.entry(message.text_hash).or_default() += 1);
        let mut ids: HashMap<String, [u8; 32]> =
            here.into_iter().map(|message| (message.unique_id, message.text_hash)).collect();
        for item in items {
            let Some(text) = self.read(item) else { continue };
            let (summary, hash) = (&mut self.summary, verify::text_hash(&text));
            let id = item.unique_id.as_deref().filter(|id| is_unique_id(id));
            let holder = id.and_then(|id| ids.get(id));
            let same_text = texts.get_mut(&hash).filter(|count| **count > 0);
            match (id, holder, same_text) {
                (_, Some(holder), _) if *holder == hash => {
                    summary.there_already += 1;
                    continue;
                }
                (Some(id), None, _) => {
                    ids.insert(id.to_owned(), hash);
                    summary.ids_kept += 1;
                    summary.ids_long += u64::from(is_long_for_clients(id));
                }
                // Without an id of its own, a message is known by its text.
                (_, _, Some(count)) => {
                    *count -= 1;
                    summary.there_already += 1;
                    continue;
                }
                // The first message with an id keeps it.
                _ => summary.ids_new += 1,
            }
            summary.messages += 1;
            summary.octets += text.len() as u64;
        }
    }

    /// The text of a message; `None` if it is skipped.
    fn read(&mut self, item: &Item) -> Option<Vec<u8>> {
        match item.read() {
            Ok(text) => {
                self.shown.advance(text.len());
                Some(text)
            }
            Err(why) => {
                self.summary.skipped.push(SkippedFile::new(&item.file, why));
                None
            }
        }
    }

    fn send(&mut self, address: &Address, batch: Texts) -> Result<(), Refusal> {
        let Texts { file, messages, .. } = batch;
        let batch = Batch { mailbox: address.to_string(), makes: false, messages };
        match self.ask(Request::Import(batch), Enclosed::File(&file))? {
            Some(Reply::Imported(done)) => self.summary.add(done),
            Some(_) => panic!("an import is answered by its summary"),
            None => {}
        }
        Ok(())
    }

    /// `None` if the request is refused for a reason that concerns all mailboxes: the import stops.
    fn ask(&mut self, request: Request, enclosed: Enclosed) -> Result<Option<Reply>, Refusal> {
        match super::carry_out::carry_out(request, enclosed, self.mailroot) {
            Ok(reply) => Ok(Some(reply)),
            Err(refusal) if refusal.code == Code::NotFound => Err(refusal),
            Err(refusal) => {
                self.summary.stopped = Some(refusal.to_string());
                Ok(None)
            }
        }
    }
}

/// The progress line.
struct Shown {
    line: Line,
    working: Working,
}

impl Shown {
    fn begin(mailboxes: &[(Address, PathBuf)]) -> Self {
        let line = Line::new();
        let total = match line.is_shown() {
            true => mailboxes.iter().map(|(_, path)| files::octets_in(path)).sum(),
            false => 0,
        };
        Self { line, working: Working { stage: "importing".to_owned(), is_in_octets: true, done: 0, total } }
    }

    fn advance(&mut self, octets: usize) {
        self.working.done += octets as u64;
        self.line.show(&self.working);
    }
}

fn memory_file() -> Result<File, Refusal> {
    let file = memfd_create("pop3svc import", MemfdFlags::CLOEXEC);
    Ok(file.map_err(|error| Refusal::fault(io::Error::from(error)))?.into())
}

/// A batch being filled. The texts are in a file in memory.
struct Texts {
    file: File,
    octets: u64,
    messages: Vec<Announced>,
}

impl Texts {
    fn begin() -> Result<Self, Refusal> {
        Ok(Self { file: memory_file()?, octets: 0, messages: Vec::new() })
    }

    fn is_full_with(&self, octets: usize) -> bool {
        let is_long = self.octets + octets as u64 > BATCH_OCTETS_MAX;
        self.messages.len() == BATCH_MESSAGES_MAX || is_long && !self.messages.is_empty()
    }

    fn push(&mut self, item: &Item, text: &[u8], repeat: u32) -> io::Result<()> {
        self.file.write_all(text)?;
        self.octets += text.len() as u64;
        self.messages.push(Announced {
            octets: text.len() as u64,
            unique_id: item.unique_id.clone().filter(|id| is_unique_id(id)),
            received_unix_seconds: item.received_unix_seconds,
            repeat,
        });
        Ok(())
    }
}
