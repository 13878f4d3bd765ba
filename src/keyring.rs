//! The key file: where it lies, reading it, making it once, and changing the key.
//!
//! The store remembers the id of its key, so a wrong key file is told from the right one. Changing the key goes: the new
//! key is written beside the old one and made durable; one transaction seals every password anew and notes the new
//! id; the new file takes the old one's name. A crash in between leaves both files, and the id says which is right.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::address::Address;
use crate::auth::password::{Credential, Fresh};
use crate::auth::seal::{Key, KeyId};
use crate::mailroot::MailRoot;
use crate::random;
use crate::store::{Fault, Read as _, Store};

/// Where the key file may lie instead of in the mail root.
const KEY_FILE_VARIABLE: &str = "WINPOP_KEY_FILE";
/// Where systemd puts credentials of a unit (systemd.exec(5), LoadCredential=).
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// The key of a store, or why there is none.
pub struct Keyring {
    path: PathBuf,
    /// It was put there by somebody else, and is not ours to replace.
    is_foreign: bool,
    key: Result<Key, Trouble>,
}

/// Why recoverable passwords cannot be recovered now.
#[derive(Debug)]
pub enum Trouble {
    Missing(PathBuf),
    Unreadable(PathBuf, String),
    /// The key in the file is not the one of this store.
    Wrong(PathBuf),
}

/// What changing the key did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resealed {
    pub resealed: u64,
    /// Mailboxes whose password was not sealed, or under a key that is gone.
    pub left: u64,
}

impl Keyring {
    /// Finds the key of the store. A store that never had one gets it here.
    pub fn open(store: &Store, mailroot: &MailRoot) -> Result<Self, Fault> {
        let (path, is_foreign) = place(mailroot);
        let known = store.read()?.totals()?.key;
        let key = match known {
            Some(id) => load_known(&path, id),
            None => found(&path).and_then(|key| {
                let id = key.id();
                let noted = store.write(move |tx| {
                    tx.totals_mut().key.get_or_insert(id);
                    Ok(())
                });
                noted.wait().map_err(|fault| Trouble::Unreadable(path.clone(), fault.to_string()))?;
                Ok(key)
            }),
        };
        Ok(Self { path, is_foreign, key })
    }

    pub fn key(&self) -> Result<&Key, &Trouble> {
        self.key.as_ref()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The password of a mailbox, if it is sealed and the key is there.
    pub fn recover(&self, credential: &Credential, address: &Address) -> Option<zeroize::Zeroizing<String>> {
        let key = self.key.as_ref().ok()?;
        key.open(credential.sealed.as_ref()?, address, credential.version).ok()
    }

    /// Makes a new key and seals every password under it. Where the old key is missing, what it sealed stays lost.
    pub fn rotate(&mut self, store: &Store) -> Result<Resealed, String> {
        if self.is_foreign {
            return Err(format!(
                "the key file {} is managed by somebody else; change it there",
                self.path.display()
            ));
        }
        let new = draw().map_err(|e| e.to_string())?;
        let next = next_to(&self.path);
        write_private(&next, &new.to_text())
            .map_err(|e| format!("{} cannot be written: {e}", next.display()))?;
        let outcome = reseal(store, self.key.as_ref().ok(), &new).map_err(|fault| fault.to_string());
        let resealed = match outcome {
            Ok(resealed) => resealed,
            Err(why) => {
                // The old key is still the right one; what is left over is taken away at the next opening.
                let _ = fs::remove_file(&next);
                return Err(why);
            }
        };
        take_over(&next, &self.path)
            .map_err(|e| format!("{} cannot be replaced: {e}", self.path.display()))?;
        self.key = Ok(new);
        Ok(resealed)
    }
}

/// Where the key file is, and whether others manage it.
fn place(mailroot: &MailRoot) -> (PathBuf, bool) {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = variable(KEY_FILE_VARIABLE) {
        return (path.into(), false);
    }
    let in_credentials =
        variable(CREDENTIALS_VARIABLE).map(|dir| Path::new(&dir).join(crate::mailroot::KEY_FILE));
    match in_credentials {
        Some(path) if path.exists() => (path, true),
        _ => (mailroot.key_file(), false),
    }
}

fn load_known(path: &Path, id: KeyId) -> Result<Key, Trouble> {
    let next = next_to(path);
    match read(&next) {
        // A change of key was cut short after the store had the new one: it is completed.
        Ok(key) if key.id() == id => {
            take_over(&next, path).map_err(|e| Trouble::Unreadable(path.to_owned(), e.to_string()))?;
            return Ok(key);
        }
        // It was cut short before that: the new key seals nothing.
        Ok(_) => drop(fs::remove_file(&next)),
        Err(_) => {}
    }
    match read(path)? {
        key if key.id() == id => Ok(key),
        _ => Err(Trouble::Wrong(path.to_owned())),
    }
}

/// The key of a store that has noted none: the one that lies there, or a new one.
fn found(path: &Path) -> Result<Key, Trouble> {
    match read(path) {
        Err(Trouble::Missing(_)) => {}
        outcome => return outcome,
    }
    let unwritable = |e: io::Error| Trouble::Unreadable(path.to_owned(), e.to_string());
    let key = draw().map_err(|e| Trouble::Unreadable(path.to_owned(), e.to_string()))?;
    let next = next_to(path);
    write_private(&next, &key.to_text()).map_err(unwritable)?;
    take_over(&next, path).map_err(unwritable)?;
    Ok(key)
}

fn read(path: &Path) -> Result<Key, Trouble> {
    match fs::read_to_string(path).map(zeroize::Zeroizing::new) {
        Ok(text) => Key::from_text(&text)
            .ok_or_else(|| Trouble::Unreadable(path.to_owned(), "it holds no key".to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Trouble::Missing(path.to_owned())),
        Err(e) => Err(Trouble::Unreadable(path.to_owned(), e.to_string())),
    }
}

fn draw() -> io::Result<Key> {
    random::octets().map(Key::new)
}

fn next_to(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    // A file left by an attempt that failed may have another mode.
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(e);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn take_over(next: &Path, path: &Path) -> io::Result<()> {
    fs::rename(next, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Seals every password under the new key, in one transaction that also notes it.
fn reseal(store: &Store, old: Option<&Key>, new: &Key) -> Result<Resealed, Fault> {
    // What is sealed is opened before the transaction, and only where it is still the same is it replaced in it:
    // randomness must not be drawn in a closure that may run twice.
    let mut sealed = Vec::new();
    let mut left = 0;
    let view = store.read()?;
    for (domain, _) in view.domains()? {
        for (local, row) in view.mailboxes(&domain)? {
            let address = Address { local, domain: domain.clone() };
            let credential = row.credential;
            let password = old
                .zip(credential.sealed.as_ref())
                .and_then(|(old, sealed)| old.open(sealed, &address, credential.version).ok());
            let Some(password) = password else {
                left += 1;
                continue;
            };
            let fresh = Fresh::draw()?;
            let resealed = new.seal(&password, &address, credential.version, fresh.nonce);
            sealed.push((address, Credential { sealed: Some(resealed), ..credential }));
        }
    }
    drop(view);
    let id = new.id();
    let resealed = store.write(move |tx| {
        let mut count = 0;
        for (address, credential) in &sealed {
            let current = tx.mailbox(address)?;
            if current.is_some_and(|row| row.credential.version == credential.version)
                && tx.set_credential(address, credential.clone())?.is_ok()
            {
                count += 1;
            }
        }
        tx.totals_mut().key = Some(id);
        Ok(count)
    });
    Ok(Resealed { resealed: resealed.wait()?, left })
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "the key file {} is missing", path.display()),
            Self::Unreadable(path, why) => write!(f, "the key file {} cannot be used: {why}", path.display()),
            Self::Wrong(path) => write!(f, "the key file {} is not that of this mail store", path.display()),
        }
    }
}
