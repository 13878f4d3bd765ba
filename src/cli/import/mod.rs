//! `import`: mailboxes of other mail servers, read from their files here, by the administrator's process, and handed to the
//! store in batches, also while it is served.
//!
//! - A text is taken as it is there, save for its line ends, so its size stays the one that mail programs know; so do its
//!   unique id and its place.
//! - A batch that was stored is there: an import that was cut short goes on where it is given again, and doubles nothing.
//! - What cannot be taken in is passed over and told by name.

mod ids;
mod live;
mod maildir;
mod mbox;
mod places;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};

use super::commands::Import;
use crate::address::Address;
use crate::admin::reply::{Code, ImportSummary, Refusal, Reply, SkippedFile};
use crate::admin::{Announced, BATCH_MESSAGES_MAX, BATCH_OCTETS_MAX, Batch, MESSAGE_OCTETS_MAX, Request};
use crate::control::{Answer, Enclosed};
use crate::mailroot::MailRoot;
use crate::message::is_unique_id;

/// Files of Maildirs that other programs must open first, by their first octets.
const WRAPPED: [(&[u8], &str); 6] = [
    (b"\x1f\x8b", "it is compressed (gzip)"),
    (b"\x28\xb5\x2f\xfd", "it is compressed (zstd)"),
    (b"BZh", "it is compressed (bzip2)"),
    (b"\xfd7zXZ\x00", "it is compressed (xz)"),
    (b"\x04\x22\x4d\x18", "it is compressed (LZ4)"),
    (b"CRYPTED", "it is encrypted"),
];

/// A message on the disk.
pub struct Item {
    pub file: PathBuf,
    /// Where it lies in a file of many; none: it is the whole file.
    pub part: Option<(u64, u64)>,
    /// What UIDL said of it, as far as that can be known.
    pub unique_id: Option<String>,
    pub received_unix_seconds: u64,
}

/// How mailboxes lie on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Maildir,
    Mbox,
    Eml,
    List,
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
            return Err(Refusal::new(Code::Usage, format!("\"{surplus}\" is too much")));
        }
        [] => return Err(Refusal::new(Code::Usage, "FORMAT and PATH are missing, or --from")),
        [_] => return Err(Refusal::new(Code::Usage, "PATH is missing")),
    };
    let (format, path) = match format.to_ascii_lowercase().as_str() {
        "maildir" => (Format::Maildir, path.clone()),
        "mbox" => (Format::Mbox, path.clone()),
        "eml" => (Format::Eml, path.clone()),
        "list" => (Format::List, path.clone()),
        "windows" => (Format::Eml, format!("{}/{{domain}}/P3_{{user}}.mbx", path.trim_end_matches('/'))),
        other => {
            return Err(Refusal::new(Code::Usage, format!("there is no format \"{other}\""))
                .with_hint("The formats are maildir, mbox, eml, list and windows"));
        }
    };
    let mailboxes = places::find(&path, mailbox)?;
    let mailroot = mailroot()?;
    let mut summary = ImportSummary { dry_run: typed.dry_run, ..ImportSummary::default() };
    for (address, path) in mailboxes {
        let items = match format {
            Format::Maildir => maildir::items(&path, typed.uidl.as_deref())?,
            Format::Mbox => mbox::items(&path, typed.uidl.as_deref())?,
            Format::Eml => eml(&path, typed.uidl.as_deref())?,
            Format::List => list(&path, &mut summary.skipped)?,
        };
        summary.mailboxes += 1;
        let mailbox = address.to_string();
        let ask = |request| super::carry_out::carry_out(&request, Enclosed::Nothing, &mailroot).map(drop);
        // In between nobody is let in, also where the import is cut short.
        if !typed.dry_run {
            ask(Request::BeginImport { mailbox: mailbox.clone(), makes: typed.make })?;
        }
        take_in(&address, &items, format, typed, &mailroot, &mut summary)?;
        if !typed.dry_run {
            ask(Request::EndImport { mailbox })?;
        }
    }
    Ok(Reply::Imported(summary))
}

fn take_in(
    address: &Address,
    items: &[Item],
    format: Format,
    typed: &Import,
    mailroot: &MailRoot,
    summary: &mut ImportSummary,
) -> Result<(), Refusal> {
    let mut repeats: HashMap<blake3::Hash, u32> = HashMap::new();
    let mut batch = Texts::begin()?;
    let send = |batch: Texts, summary: &mut ImportSummary| -> Result<(), Refusal> {
        let Texts { file, messages, .. } = batch;
        let request = Request::Import(Batch { mailbox: address.to_string(), makes: typed.make, messages });
        let Reply::Imported(done) = super::carry_out::carry_out(&request, Enclosed::File(&file), mailroot)?
        else {
            panic!("an import is answered by its summary")
        };
        summary.add(&done);
        Ok(())
    };
    for item in items {
        let text = match read(item, format) {
            Ok(text) => text,
            Err(why) => {
                summary.skipped.push(SkippedFile { file: item.file.display().to_string(), why });
                continue;
            }
        };
        let repeat = repeats.entry(blake3::hash(&text)).or_default();
        if typed.dry_run {
            let is_kept = item.unique_id.as_deref().is_some_and(is_unique_id);
            summary.ids_kept += u64::from(is_kept);
            summary.ids_new += u64::from(!is_kept);
            summary.messages += 1;
            summary.octets += text.len() as u64;
            continue;
        }
        if batch.is_full_with(text.len()) {
            send(std::mem::replace(&mut batch, Texts::begin()?), summary)?;
        }
        batch.push(item, &text, *repeat).map_err(Refusal::fault)?;
        *repeat += 1;
    }
    // An empty mailbox is to be there too.
    if !typed.dry_run && (!batch.messages.is_empty() || items.is_empty()) {
        send(batch, summary)?;
    }
    Ok(())
}

/// A batch on its way: the texts lie in a file in memory.
struct Texts {
    file: File,
    octets: u64,
    messages: Vec<Announced>,
}

impl Texts {
    fn begin() -> Result<Self, Refusal> {
        let file = memfd_create("pop3svc import", MemfdFlags::CLOEXEC)
            .map_err(|error| Refusal::fault(io::Error::from(error)))?;
        Ok(Self { file: file.into(), octets: 0, messages: Vec::new() })
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

/// The text of a message, or why it cannot be taken in.
fn read(item: &Item, format: Format) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| error.to_string();
    let mut file = File::open(&item.file).map_err(failed)?;
    let (from, octets) = match item.part {
        Some(part) => part,
        None => (0, file.metadata().map_err(failed)?.len()),
    };
    if octets > MESSAGE_OCTETS_MAX {
        return Err("it is longer than 1 GiB".to_owned());
    }
    let mut text = Vec::with_capacity(octets as usize);
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    file.take(octets).read_to_end(&mut text).map_err(failed)?;
    if let Some((_, why)) = WRAPPED.iter().find(|(first, _)| text.starts_with(first)) {
        return Err((*why).to_owned());
    }
    Ok(if format == Format::Mbox { mbox::without_its_fields(&text) } else { text })
}

/// A directory of `.eml` files, in the order of their times.
fn eml(directory: &Path, uidl: Option<&str>) -> Result<Vec<Item>, Refusal> {
    let format = uidl.unwrap_or("%f");
    let mut files = files_in(directory)?;
    files.retain(|(path, _, _)| path.extension().is_some_and(|it| it.eq_ignore_ascii_case("eml")));
    files.sort_by(|(one, one_time, _), (other, other_time, _)| (one_time, one).cmp(&(other_time, other)));
    let item = |(file, received_unix_seconds, name): (PathBuf, u64, String)| {
        let facts = ids::Facts { name: &name, ..ids::Facts::default() };
        Ok(Item { unique_id: ids::unique_id(format, &facts)?, file, part: None, received_unix_seconds })
    };
    files.into_iter().map(item).collect()
}

/// A list of `FILE<TAB>UIDL`, whose files are looked for beside it.
fn list(list: &Path, skipped: &mut Vec<SkippedFile>) -> Result<Vec<Item>, Refusal> {
    let text = fs::read_to_string(list).map_err(|error| not_read(list, &error))?;
    let directory = crate::replace::directory_of(list);
    let mut items = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let Some((file, id)) = line.rsplit_once('\t') else {
            let file = format!("{} line {number}", list.display());
            skipped.push(SkippedFile { file, why: "there is no tab between a file and its id".to_owned() });
            continue;
        };
        let file = directory.join(file);
        let received_unix_seconds = fs::metadata(&file).map_or(0, |file| time_of(&file));
        items.push(Item { file, part: None, unique_id: Some(id.to_owned()), received_unix_seconds });
    }
    Ok(items)
}

/// The files of a directory with their times and names; one that has a name that is not UTF-8 has no id.
fn files_in(directory: &Path) -> Result<Vec<(PathBuf, u64, String)>, Refusal> {
    let failed = |error: io::Error| not_read(directory, &error);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = fs::metadata(entry.path()).map_err(failed)?;
        if metadata.is_file() {
            let name = entry.file_name().into_string().unwrap_or_default();
            files.push((entry.path(), time_of(&metadata), name));
        }
    }
    Ok(files)
}

fn time_of(metadata: &fs::Metadata) -> u64 {
    u64::try_from(metadata.mtime()).unwrap_or(0)
}

fn not_read(path: &Path, error: &io::Error) -> Refusal {
    let code = if error.kind() == io::ErrorKind::NotFound { Code::NotFound } else { Code::Fault };
    Refusal::new(code, format!("{} cannot be read: {error}", path.display()))
}
