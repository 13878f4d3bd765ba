//! Exports one mailbox: writes it under a temporary name, makes it durable, then renames it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::macros::format_description;

use crate::admin::ExportedMessage;
use crate::cli::import::{FIELDS_OF_EXPORT, SENDER_OF_EXPORT};
use crate::random;
use crate::replace::{directory_of, sync_directory_of};

/// Suffix of an unfinished mailbox.
const UNFINISHED: &str = ".unfinished";
/// The date of a From line, in the format of asctime(3).
const FROM_DATE: &[time::format_description::BorrowedFormatItem] = format_description!(
    "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]"
);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A directory, with `dovecot-uidlist`.
    Maildir,
    /// A directory, with `list`, as `import list` reads it.
    Eml,
    /// A file. Each message begins with fields for its id and body length, so `From ` lines in it need no quoting.
    Mbox,
}

/// An unfinished mailbox. If it is dropped, the next export to the same place removes it.
pub struct Draft {
    format: Format,
    whole: PathBuf,
    draft: PathBuf,
    number: u64,
    /// The lines of a directory's index.
    list: String,
    mbox: Option<BufWriter<File>>,
}

impl Draft {
    pub fn begin(whole: &Path, format: Format) -> io::Result<Self> {
        let mut draft = whole.as_os_str().to_owned();
        draft.push(UNFINISHED);
        let draft = PathBuf::from(draft);
        make_directory(directory_of(whole))?;
        match fs::symlink_metadata(&draft) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&draft)?,
            Ok(_) => fs::remove_file(&draft)?,
            Err(_) => {}
        }
        let mbox = match format {
            Format::Mbox => Some(BufWriter::new(create(&draft)?)),
            Format::Eml => make_directory(&draft).map(|()| None)?,
            Format::Maildir => {
                for part in ["cur", "new", "tmp"] {
                    make_directory(&draft.join(part))?;
                }
                None
            }
        };
        Ok(Self { format, whole: whole.to_owned(), draft, number: 0, list: String::new(), mbox })
    }

    /// An unnamed file on the same disk.
    pub fn room_for_messages(&self) -> io::Result<File> {
        let mut path = self.draft.as_os_str().to_owned();
        path.push(".messages");
        let path = PathBuf::from(path);
        let _ = fs::remove_file(&path);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        fs::remove_file(path)?;
        Ok(file)
    }

    /// Writes the next message.
    pub fn put(&mut self, message: &ExportedMessage) -> io::Result<()> {
        let ExportedMessage { unique_id, received_unix_seconds, content } = message;
        self.number += 1;
        let number = self.number;
        // A time out of range becomes the current time.
        let received = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(*received_unix_seconds));
        let time = received.unwrap_or_else(SystemTime::now);
        match self.format {
            Format::Maildir => {
                let base = format!("{received_unix_seconds}.M{number}P0.pop3svc");
                let path = self.draft.join("cur").join(format!("{base}:2,"));
                write_file(&path, &with_bare_line_feeds(content), time)?;
                self.list += &format!("{number} P{unique_id} :{base}\n");
            }
            Format::Eml => {
                let name = format!("{number:08}.eml");
                write_file(&self.draft.join(&name), content, time)?;
                self.list += &format!("{name}\t{unique_id}\n");
            }
            Format::Mbox => {
                let mbox = self.mbox.as_mut().expect("an mbox has its file");
                let text = with_bare_line_feeds(content);
                let date = i64::try_from(*received_unix_seconds).ok();
                let date = date.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
                let date = date.unwrap_or(OffsetDateTime::UNIX_EPOCH).format(FROM_DATE);
                let [id, length] = FIELDS_OF_EXPORT;
                write!(
                    mbox,
                    "From {SENDER_OF_EXPORT} {}\n{id}: {unique_id}\n{length}: {}\n",
                    date.map_err(io::Error::other)?,
                    body_octets(&text)
                )?;
                mbox.write_all(&text)?;
                mbox.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// Gives the mailbox its name; when this returns, it is durable.
    pub fn finish(mut self) -> io::Result<()> {
        let index = match self.format {
            Format::Mbox => None,
            Format::Eml => Some("list"),
            Format::Maildir => {
                let guid = u128::from_le_bytes(random::octets::<16>()?);
                let uidvalidity = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let uidvalidity = uidvalidity.map_or(1, |since| since.as_secs() & 0xffff_ffff);
                let head = format!("3 V{uidvalidity} N{} G{guid:032x}\n", self.number + 1);
                self.list.insert_str(0, &head);
                Some("dovecot-uidlist")
            }
        };
        if let Some(index) = index {
            write_file(&self.draft.join(index), self.list.as_bytes(), SystemTime::now())?;
        }
        if let Some(mbox) = self.mbox.take() {
            mbox.into_inner()?.sync_all()?;
        } else {
            // All files at once: each single sync would flush the disk.
            rustix::fs::syncfs(File::open(&self.draft)?)?;
        }
        fs::rename(&self.draft, &self.whole)?;
        sync_directory_of(&self.whole)
    }
}

/// Rewinds a written file for reading.
pub fn from_the_beginning(mut file: File) -> io::Result<BufReader<File>> {
    file.rewind()?;
    Ok(BufReader::new(file))
}

/// The text with the line ends of a Maildir.
fn with_bare_line_feeds(content: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(content.len());
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(line) => {
                lines.extend_from_slice(line);
                lines.push(b'\n');
            }
            None => lines.extend_from_slice(line),
        }
    }
    lines
}

/// Octets after the first empty line.
fn body_octets(text: &[u8]) -> usize {
    let header =
        if text.starts_with(b"\n") { Some(1) } else { memchr::memmem::find(text, b"\n\n").map(|at| at + 2) };
    header.map_or(0, |header| text.len() - header)
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn write_file(path: &Path, content: &[u8], time: SystemTime) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(content)?;
    file.set_modified(time)
}
