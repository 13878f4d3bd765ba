//! Mail files, and the two formats that are just that: directories of `.eml` files, and lists.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{ids, mbox};
use crate::admin::MESSAGE_OCTETS_MAX;
use crate::admin::reply::{Code, Refusal, SkippedFile};

/// Compressed and encrypted files, by their first octets.
const WRAPPED: [(&[u8], &str); 6] = [
    (b"\x1f\x8b", "it is compressed (gzip)"),
    (b"\x28\xb5\x2f\xfd", "it is compressed (zstd)"),
    (b"BZh", "it is compressed (bzip2)"),
    (b"\xfd7zXZ\x00", "it is compressed (xz)"),
    (b"\x04\x22\x4d\x18", "it is compressed (LZ4)"),
    (b"CRYPTED", "it is encrypted"),
];

/// A message on disk.
pub struct Item {
    pub file: PathBuf,
    /// `None` for the whole file.
    pub part: Option<Part>,
    /// Its UIDL, if known.
    pub unique_id: Option<String>,
    pub received_unix_seconds: u64,
}

/// Where a message is in an mbox file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub at: u64,
    pub octets: u64,
    /// True if the header may contain internal fields of its server.
    pub has_fields_of_server: bool,
}

impl Item {
    /// The text, or why it cannot be imported.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        let failed = |error: io::Error| error.to_string();
        let mut file = File::open(&self.file).map_err(failed)?;
        let (at, octets) = match self.part {
            Some(part) => (part.at, part.octets),
            None => (0, file.metadata().map_err(failed)?.len()),
        };
        if octets > MESSAGE_OCTETS_MAX {
            return Err("it is longer than 1 GiB".to_owned());
        }
        let mut text = Vec::with_capacity(octets as usize);
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        file.take(octets).read_to_end(&mut text).map_err(failed)?;
        if let Some((_, why)) = WRAPPED.iter().find(|(first, _)| text.starts_with(first)) {
            return Err((*why).to_owned());
        }
        Ok(if self.part.is_some_and(|part| part.has_fields_of_server) {
            mbox::without_fields_of_server(&text)
        } else {
            text
        })
    }
}

/// A directory of `.eml` files, by modification time.
pub fn eml(directory: &Path, uidl: Option<&str>) -> Result<Vec<Item>, Refusal> {
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

/// A list of `FILE<TAB>UIDL`, with paths relative to its directory.
pub fn list(list: &Path, skipped: &mut Vec<SkippedFile>) -> Result<Vec<Item>, Refusal> {
    let text = fs::read_to_string(list).map_err(|error| not_read(list, &error))?;
    let directory = crate::replace::directory_of(list);
    let mut items = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let Some((file, id)) = line.rsplit_once('\t') else {
            let file = format!("{} line {number}", list.display());
            skipped
                .push(SkippedFile { file, why: "the tab between the file and its id is missing".to_owned() });
            continue;
        };
        let file = directory.join(file);
        let received_unix_seconds = fs::metadata(&file).map_or(0, |file| time_of(&file));
        items.push(Item { file, part: None, unique_id: Some(id.to_owned()), received_unix_seconds });
    }
    Ok(items)
}

/// The files of a directory with their times and names. A name that is not UTF-8 comes out empty.
pub fn files_in(directory: &Path) -> Result<Vec<(PathBuf, u64, String)>, Refusal> {
    let failed = |error: io::Error| not_read(directory, &error);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // An unreadable file is reported when it is read.
        let metadata = fs::metadata(entry.path()).ok();
        if metadata.as_ref().is_none_or(fs::Metadata::is_file) {
            let name = entry.file_name().into_string().unwrap_or_default();
            files.push((entry.path(), metadata.map_or(0, |metadata| time_of(&metadata)), name));
        }
    }
    Ok(files)
}

/// Octets of a file, or of all files below a directory.
pub fn octets_in(path: &Path) -> u64 {
    let Ok(metadata) = fs::metadata(path) else { return 0 };
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| octets_in(&entry.path())).sum(),
        Err(_) => metadata.len(),
    }
}

pub fn time_of(metadata: &fs::Metadata) -> u64 {
    u64::try_from(metadata.mtime()).unwrap_or(0)
}

pub fn not_read(path: &Path, error: &io::Error) -> Refusal {
    let code = if error.kind() == io::ErrorKind::NotFound { Code::NotFound } else { Code::Fault };
    Refusal::new(code, format!("{} cannot be read: {error}", path.display()))
}
