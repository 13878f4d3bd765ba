//! The key file: finding, reading, creating and replacing it.
//!
//! The store records the id of its key, so a wrong key file is recognised. Changing the key takes three steps:
//!
//! 1. write the new key to `winpop.key.next` and sync it;
//! 2. in one transaction, re-encrypt every password and record the new id;
//! 3. rename `winpop.key` to `winpop.key.old`, and `winpop.key.next` to `winpop.key`.
//!
//! After a crash in between, the recorded id tells which file is right, and the next start completes or undoes the
//! change. The new file keeps the owner and mode of the old one, whoever changes the key. A key file readable by other
//! users is not used.
//!
//! A running service changes its key too, which takes as long as the store is large:
//!
//! - Nobody waits for that to open a seal, or to learn whether there is a key. Meanwhile both keys open.
//! - A seal made with the old key must not reach the store after step 2: the next start could not open it. So whoever
//!   seals holds a [`Sealing`] until the seal is stored, and a change of the key waits for them, and they for it.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLockReadGuard};

use zeroize::Zeroizing;

use crate::address::Address;
use crate::auth::password::Credential;
use crate::auth::seal::{Key, KeyId, Sealed};
use crate::lock::RwLock;
use crate::mailroot::MailRoot;
use crate::random;
use crate::replace::{directory_of, give_to, sync_directory_of};
use crate::settings::{BIND_PASSWORD, Settings};
use crate::store::{CertificateRow, Fault, PrivateKey, Read as _, Store};

/// Names the key file, if it is not in the mail root.
const KEY_FILE_VARIABLE: &str = "WINPOP_KEY_FILE";
/// Directory of a unit's credentials (systemd.exec(5), LoadCredential=).
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Read permission for anyone but the owner.
const READABLE_BY_OTHERS: u32 = 0o077;

/// The key of a store, or why it is missing.
pub struct Keyring {
    path: PathBuf,
    /// Managed by someone else, so we do not replace it.
    is_foreign: bool,
    /// Locked for moments only: sessions ask on the thread that serves everybody.
    keys: RwLock<Keys>,
    /// Read by those who seal, written by a change of the key.
    sealing: RwLock<()>,
}

struct Keys {
    key: Result<Arc<Key>, Arc<Trouble>>,
    /// While the key is changed, the next one; afterwards the previous one, for seals read before the change.
    other: Option<Arc<Key>>,
}

/// The key, for sealing. Held until the seal is stored: the key does not change meanwhile. To hold two at a time may
/// wait forever.
pub struct Sealing<'a> {
    key: Result<Arc<Key>, Arc<Trouble>>,
    _unchanged: RwLockReadGuard<'a, ()>,
}

/// Why passwords cannot be recovered.
#[derive(Debug)]
pub enum Trouble {
    Missing(PathBuf),
    Unreadable(PathBuf, String),
    /// Other users can read it, so it may no longer be secret.
    Exposed(PathBuf),
    /// The file holds the key of another store.
    Wrong(PathBuf),
}

/// The outcome of changing the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resealed {
    pub resealed: u64,
    /// Mailboxes whose password was not sealed, or sealed with a lost key.
    pub left: u64,
    /// Where the previous key is, if there was one.
    pub old: Option<PathBuf>,
}

/// Why the key was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// Passwords are sealed with a missing key; with the reason, if that is the current one.
    WouldGiveUp { lost: u64, trouble: Option<String> },
    /// A sentence.
    Failed(String),
}

impl Keyring {
    /// Finds the key of the store, or creates it for a store that never had one.
    pub fn open(store: &Store, mailroot: &MailRoot) -> Result<Self, Fault> {
        let (path, is_foreign) = place(mailroot);
        let known = store.read()?.totals()?.key;
        let key = match known {
            Some(id) => load_known(&path, is_foreign, id),
            None => found(&path, is_foreign).and_then(|key| {
                let id = key.id();
                let noted = store.write(move |tx| {
                    tx.totals_mut().key.get_or_insert(id);
                    Ok(())
                });
                noted.wait().map_err(|fault| Trouble::Unreadable(path.clone(), fault.to_string()))?;
                Ok(key)
            }),
        };
        let keys = Keys { key: key.map(Arc::new).map_err(Arc::new), other: None };
        Ok(Self { path, is_foreign, keys: RwLock::new(keys), sealing: RwLock::default() })
    }

    /// The key, to tell about it. To seal with it, take [`Self::sealing`].
    pub fn key(&self) -> Result<Arc<Key>, Arc<Trouble>> {
        self.keys.read().key.clone()
    }

    /// Waits while the key is changed.
    pub fn sealing(&self) -> Sealing<'_> {
        let unchanged = self.sealing.read();
        Sealing { key: self.key(), _unchanged: unchanged }
    }

    /// `None` while the key is changed.
    pub fn try_sealing(&self) -> Option<Sealing<'_>> {
        let unchanged = self.sealing.try_read()?;
        Some(Sealing { key: self.key(), _unchanged: unchanged })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The password of a mailbox, if it is sealed and the key is available.
    pub fn recover(&self, credential: &Credential, address: &Address) -> Option<Zeroizing<String>> {
        self.opened(|key| open(Some(key), credential, address))
    }

    /// The private key of a certificate, if the key is available.
    pub fn private_key(&self, row: &CertificateRow) -> Option<Zeroizing<Vec<u8>>> {
        match &row.key {
            PrivateKey::Clear(private) => Some(Zeroizing::new(private.clone())),
            PrivateKey::Sealed(sealed) => {
                self.opened(|key| key.open_private_key(sealed, &row.certificate).ok())
            }
        }
    }

    /// The password of `adbinduser`. An error is a sentence.
    pub fn bind_password(&self, settings: &Settings) -> Result<Zeroizing<String>, String> {
        let text = settings.adbindpassword.get().ok_or("adbindpassword is not set")?;
        self.key().map_err(|trouble| format!("adbindpassword cannot be read: {trouble}"))?;
        self.opened(|key| open_setting(Some(key), text))
            .ok_or_else(|| "adbindpassword was encrypted under another key; set it again".to_owned())
    }

    /// Creates a new key and re-encrypts every password with it. Refused if sealed passwords would be lost because
    /// their key is missing, unless they are to be discarded.
    pub fn rotate(&self, store: &Store, discard: bool) -> Result<Resealed, Unchanged> {
        if self.is_foreign {
            let path = self.path.display();
            return Err(Unchanged::Failed(format!(
                "the key file {path} is managed by the system; change it there"
            )));
        }
        let failed = |path: &Path, e: io::Error| {
            Unchanged::Failed(format!("{} cannot be written: {e}", path.display()))
        };
        let _alone = self.sealing.write();
        let key = self.key();
        let current = key.as_deref().ok();
        if !discard {
            let lost = lost_with(store, current).map_err(Unchanged::from)?;
            if lost > 0 {
                return Err(Unchanged::WouldGiveUp {
                    lost,
                    trouble: key.as_ref().err().map(ToString::to_string),
                });
            }
        }
        let next = sibling(&self.path, ".next");
        // The last change did not get past step 2, and this is the only file with the key.
        if let (Ok(left), Some(current)) = (read(&next, false), current)
            && left.id() == current.id()
        {
            take_over(&self.path).map_err(|e| failed(&self.path, e))?;
        }
        let new = Arc::new(draw().map_err(|e| Unchanged::Failed(e.to_string()))?);
        write_private(&next, &new.to_text(), &self.path).map_err(|e| failed(&next, e))?;
        self.keys.write().other = Some(new.clone());
        // After a fault the new file stays: the commit may have reached the disk, which the next start finds out.
        let (resealed, left) = reseal(store, current, &new)?;
        *self.keys.write() = Keys { other: key.ok(), key: Ok(new) };
        let old = take_over(&self.path).map_err(|e| {
            let (path, next) = (self.path.display(), next.display());
            Unchanged::Failed(format!(
                "{path} cannot be replaced: {e}. The new key is in use and lies in {next}; keep that file, which the next \
                 start renames"
            ))
        })?;
        Ok(Resealed { resealed, left, old })
    }

    /// Opens a seal with the key that fits.
    fn opened<T>(&self, open: impl Fn(&Key) -> Option<T>) -> Option<T> {
        let (key, other) = {
            let keys = self.keys.read();
            (keys.key.clone().ok(), keys.other.clone())
        };
        key.iter().chain(&other).find_map(|key| open(key))
    }
}

impl Sealing<'_> {
    pub fn key(&self) -> Result<&Key, &Trouble> {
        self.key.as_deref().map_err(|trouble| &**trouble)
    }

    /// True if there is a key and it cannot open the password.
    pub fn is_wanted(&self, credential: &Credential, address: &Address) -> bool {
        self.key.as_deref().is_ok_and(|key| open(Some(key), credential, address).is_none())
    }
}

/// Why the key in the mail root cannot open what this key has sealed.
pub fn trouble_with(key: KeyId, mailroot: &MailRoot) -> Option<Trouble> {
    let (path, is_foreign) = place(mailroot);
    load_known(&path, is_foreign, key).err()
}

/// The path of the key file, and whether someone else manages it.
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

/// The directory of the key file, if it is ours to replace and outside the mail store directory.
pub fn directory_elsewhere(mailroot: &MailRoot) -> Option<PathBuf> {
    let (path, is_foreign) = place(mailroot);
    let directory = directory_of(&path);
    (!is_foreign && directory != mailroot.dir).then(|| directory.to_owned())
}

fn load_known(path: &Path, is_foreign: bool, id: KeyId) -> Result<Key, Trouble> {
    let next = sibling(path, ".next");
    match read(&next, false) {
        // A key change was cut short after the transaction: complete it.
        Ok(key) if key.id() == id => {
            take_over(path).map_err(|e| Trouble::Unreadable(path.to_owned(), e.to_string()))?;
            return Ok(key);
        }
        // A key change was cut short before the transaction: the new key seals nothing.
        Ok(_) => drop(fs::remove_file(&next)),
        Err(_) => {}
    }
    match read(path, is_foreign)? {
        key if key.id() == id => Ok(key),
        _ => Err(Trouble::Wrong(path.to_owned())),
    }
}

/// The key of a store without a recorded id: the existing file, or a new one.
fn found(path: &Path, is_foreign: bool) -> Result<Key, Trouble> {
    match read(path, is_foreign) {
        Err(Trouble::Missing(_)) => {}
        outcome => return outcome,
    }
    let unwritable = |e: io::Error| Trouble::Unreadable(path.to_owned(), e.to_string());
    let key = draw().map_err(unwritable)?;
    write_private(&sibling(path, ".next"), &key.to_text(), path).map_err(unwritable)?;
    take_over(path).map_err(unwritable)?;
    Ok(key)
}

fn read(path: &Path, is_foreign: bool) -> Result<Key, Trouble> {
    // systemd grants access by an ACL, which shows up as group permissions.
    let exposed = if is_foreign { READABLE_BY_OTHERS & 0o007 } else { READABLE_BY_OTHERS };
    let unreadable = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Trouble::Missing(path.to_owned()),
        _ => Trouble::Unreadable(path.to_owned(), e.to_string()),
    };
    let mut file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.mode() & exposed != 0 {
        return Err(Trouble::Exposed(path.to_owned()));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(unreadable)?;
    Key::from_text(&text).ok_or_else(|| Trouble::Unreadable(path.to_owned(), "it holds no key".to_owned()))
}

fn draw() -> io::Result<Key> {
    random::octets().map(Key::new)
}

fn sibling(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Writes a file with the owner and mode of the one it will replace. If there is none, it belongs to the owner of the
/// directory and nobody else can read it.
fn write_private(path: &Path, text: &str, replaces: &Path) -> io::Result<()> {
    // A leftover file from a failed attempt may have another owner and mode.
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(e);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let replaced = fs::metadata(replaces);
    give_to(
        &file,
        &match &replaced {
            Ok(replaced) => replaced.clone(),
            Err(_) => fs::metadata(directory_of(replaces))?,
        },
    )?;
    if let Ok(replaced) = replaced {
        file.set_permissions(Permissions::from_mode(replaced.mode() & 0o7777 & !READABLE_BY_OTHERS))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Renames the key file, if any, to `winpop.key.old`, which is returned, and `winpop.key.next` to the key file.
fn take_over(path: &Path) -> io::Result<Option<PathBuf>> {
    let old = sibling(path, ".old");
    let kept = match fs::rename(path, &old) {
        Ok(()) => Some(old),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    fs::rename(sibling(path, ".next"), path)?;
    sync_directory_of(path)?;
    Ok(kept)
}

/// Calls `visit` with every mailbox's credential.
fn each_credential(
    store: &Store,
    mut one: impl FnMut(Address, Credential) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let view = store.read()?;
    for (domain, _) in view.domains()? {
        for (local, row) in view.mailboxes(&domain)? {
            one(Address { local, domain: domain.clone() }, row.credential)?;
        }
    }
    Ok(())
}

fn open(key: Option<&Key>, credential: &Credential, address: &Address) -> Option<Zeroizing<String>> {
    key?.open(credential.sealed.as_ref()?, address, credential.version).ok()
}

fn open_setting(key: Option<&Key>, text: &str) -> Option<Zeroizing<String>> {
    key?.open_setting(&Sealed::from_text(text)?, BIND_PASSWORD).ok()
}

/// How many sealed passwords this key cannot open.
fn lost_with(store: &Store, key: Option<&Key>) -> Result<u64, Fault> {
    let mut lost = 0;
    each_credential(store, |address, credential| {
        lost += u64::from(credential.sealed.is_some() && open(key, &credential, &address).is_none());
        Ok(())
    })?;
    Ok(lost)
}

/// Re-encrypts every password with the new key in one transaction that also records its id. Returns how many were, and
/// how many mailboxes have no password to re-encrypt.
fn reseal(store: &Store, old: Option<&Key>, new: &Key) -> Result<(u64, u64), Fault> {
    // Open the seals before the transaction, and replace only those still unchanged in it: a closure that may run twice
    // must not draw randomness.
    let mut sealed = Vec::new();
    let mut left = 0;
    each_credential(store, |address, credential| {
        match open(old, &credential, &address) {
            Some(password) => {
                let resealed = new.seal(&password, &address, credential.version, random::octets()?);
                sealed.push((address, credential.sealed, resealed));
            }
            None => left += 1,
        }
        Ok(())
    })?;
    let certificate = store.read()?.certificate()?;
    let private = match (certificate.as_ref().map(|row| &row.key), old) {
        (Some(PrivateKey::Sealed(sealed)), Some(old)) => {
            certificate.as_ref().and_then(|row| old.open_private_key(sealed, &row.certificate).ok())
        }
        _ => None,
    };
    let certificate = match (certificate, private) {
        (Some(row), Some(private)) => {
            let sealed = new.seal_private_key(&private, &row.certificate, random::octets()?);
            Some((row.clone(), CertificateRow { key: PrivateKey::Sealed(sealed), ..row }))
        }
        // A certificate whose key is lost is replaced when next needed.
        _ => None,
    };
    let bind_password = store.read()?.setting(BIND_PASSWORD)?;
    let opened = bind_password.as_ref().and_then(|text| open_setting(old, text));
    let bind_password = match (bind_password, opened) {
        (Some(text), Some(password)) => {
            let sealed = new.seal_setting(&password, BIND_PASSWORD, random::octets()?);
            Some((text, sealed.to_text()))
        }
        _ => None,
    };
    let id = new.id();
    let resealed = store.write(move |tx| {
        let mut count = 0;
        for (address, before, after) in &sealed {
            // A login may have renewed the verifier meanwhile, and an administrator may have deleted the mailbox.
            if let Some(row) = tx.mailbox(address)?
                && row.credential.sealed == *before
                && tx
                    .set_credential(address, Credential { sealed: Some(after.clone()), ..row.credential })?
                    .is_ok()
            {
                count += 1;
            }
        }
        if let Some((before, after)) = &certificate
            && tx.certificate()?.as_ref() == Some(before)
        {
            tx.set_certificate(after)?;
        }
        if let Some((before, after)) = &bind_password
            && tx.setting(BIND_PASSWORD)?.as_ref() == Some(before)
        {
            tx.set_setting(BIND_PASSWORD, Some(after))?;
        }
        tx.totals_mut().key = Some(id);
        Ok(count)
    });
    Ok((resealed.wait()?, left))
}

impl From<Fault> for Unchanged {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault.to_string())
    }
}

impl fmt::Display for Unchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldGiveUp { lost, trouble } => {
                if let Some(trouble) = trouble {
                    write!(f, "{trouble}, and ")?;
                }
                write!(f, "the new key would give up {lost} passwords sealed under another key")
            }
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "the key file {} is missing", path.display()),
            Self::Unreadable(path, why) => write!(f, "the key file {} cannot be used: {why}", path.display()),
            Self::Exposed(path) => write!(
                f,
                "the key file {0} is not used because other users can read it; restrict it with chmod 600 {0}, and change the key \
                 (pop3svc key --rotate) if someone may have read it",
                path.display()
            ),
            Self::Wrong(path) => write!(f, "the key file {} belongs to another mail store", path.display()),
        }
    }
}
