//! The octets of a text on their way into the store: a short text in memory, a long one in an unnamed file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::placing::Placed;
use crate::wire::Text;

/// A spooled text is read in pieces of this length.
const PIECE_OCTETS: usize = 256 << 10;
/// Names to try where the file system has no unnamed files.
const NAMES_MAX: usize = 8;

/// A message as the store takes it in.
pub type Incoming = Text<Body>;

#[derive(Clone, Debug)]
pub enum Body {
    Octets(Vec<u8>),
    File(Arc<Spool>),
    /// Already in the data file.
    Placed(Arc<Placed>),
}

/// A private file that goes when it is dropped or the machine crashes. It is not synced: the store copies its
/// octets before it calls them durable.
#[derive(Debug)]
pub struct Spool {
    file: File,
    octets: u64,
}

impl Body {
    pub fn len(&self) -> u64 {
        match self {
            Self::Octets(octets) => octets.len() as u64,
            Self::File(spool) => spool.octets,
            Self::Placed(placed) => placed.body.len(),
        }
    }

    /// Passes the octets to `take` front to back, each piece with its offset. Stops at the first error.
    pub fn for_each_piece<E: From<io::Error>>(
        &self,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let spool = match self {
            Self::Octets(octets) => return take(0, octets),
            Self::File(spool) => spool,
            Self::Placed(placed) => return placed.body.for_each_piece(take),
        };
        let mut piece = vec![0; PIECE_OCTETS];
        let mut at = 0;
        while at < spool.octets {
            let count = (spool.octets - at).min(PIECE_OCTETS as u64) as usize;
            spool.file.read_exact_at(&mut piece[..count], at)?;
            take(at, &piece[..count])?;
            at += count as u64;
        }
        Ok(())
    }
}

impl From<Text> for Incoming {
    /// A text held in memory.
    fn from(text: Text) -> Self {
        text.with_wire(Body::Octets)
    }
}

impl Spool {
    /// A new empty file on the file system of `directory`, readable by its owner only.
    pub fn create(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => file.into(),
            // Older kernels take the flag for O_DIRECTORY combined with writing.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
                nameless(directory)?
            }
            Err(e) => return Err(e.into()),
        };
        Ok(Self { file, octets: 0 })
    }

    pub fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        self.file.write_all(octets)?;
        self.octets += octets.len() as u64;
        Ok(())
    }
}

/// A file that loses its name as soon as it is open.
fn nameless(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut tried = 0;
    loop {
        let mut suffix = [0; 8];
        crate::random::fill(&mut suffix)?;
        let path = directory.join(format!(".incoming-{:016x}", u64::from_le_bytes(suffix)));
        match options.open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tried < NAMES_MAX => tried += 1,
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::scratch;

    #[test]
    fn a_spooled_text_is_read_as_it_was_written_and_leaves_nothing_in_its_directory() {
        let scratch = scratch::directory();
        let directory = scratch.path();
        let written: Vec<u8> = (0..2 * PIECE_OCTETS + 77).map(|at| at as u8).collect();
        for file in [Spool::create(directory).unwrap().file, nameless(directory).unwrap()] {
            let mut spool = Spool { file, octets: 0 };
            written.chunks(100_000).for_each(|piece| spool.append(piece).unwrap());
            assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0);
            let body = Body::File(spool.into());
            assert_eq!(body.len(), written.len() as u64);
            let mut read = Vec::new();
            let taken = body.for_each_piece(|at, piece| {
                assert_eq!(at, read.len() as u64);
                read.extend_from_slice(piece);
                io::Result::Ok(())
            });
            assert!(taken.is_ok() && read == written);
        }
    }
}
