//! Local accounts: the users in `/etc/passwd` and `/etc/shadow`.
//!
//! - We read the files ourselves, because the C library looks accounts up through modules that a static binary cannot
//!   load. `/etc/passwd` is read again when it changes, `/etc/shadow` at each login, so that no hash stays in memory.
//! - A mailbox uses the account with its name, whatever its domain. System accounts, below UID_MIN in login.defs(5),
//!   have no mailbox.
//! - An unknown name costs as much as a wrong password: we compute another account's hash instead.
//! - The system's own tools create, change and delete accounts ([`tools`]). That needs root and running programs, and
//!   the service gives up both, so the administrator's own process does it.

mod account;
mod tools;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::address::{Address, LocalPart};
use crate::auth::crypt;
use crate::auth::directory::{Change, Creation, Directory, Place, Removal, Unavailable, Verdict};
use crate::lock::Mutex;
use crate::reachability::Reachability;
use crate::user::{User, group_name};
use account::{Accounts, Barred, Named, Password};

/// The longest name of a local account, in characters.
const NAME_CHARACTERS_MAX: usize = 20;
/// Where the system keeps its accounts.
pub const ETC: &str = "/etc";
/// Checked for an unknown name if no account has a hash that we can compute. Made as Debian makes them.
const EXAMPLE: &str = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$WWEmrTwTSU3WvkYjTmv5ud6tNB5iWp7r9s80SDtxrX8";

pub struct LocalAccounts {
    etc: PathBuf,
    known: Mutex<Option<(Stamps, Arc<Accounts>)>>,
    reachability: Mutex<Reachability>,
}

/// What changes when passwd or login.defs changes: device, inode, size, time of modification.
type Stamps = [Option<(u64, u64, u64, i64, i64)>; 2];

impl LocalAccounts {
    /// The accounts in the files of this directory, usually [`ETC`].
    pub fn of(etc: &Path) -> Self {
        Self { etc: etc.to_owned(), known: Mutex::default(), reachability: Mutex::default() }
    }

    fn accounts(&self) -> Result<Arc<Accounts>, Unavailable> {
        let paths = ["passwd", "login.defs"].map(|name| self.etc.join(name));
        let stamps = paths.each_ref().map(|path| {
            let file = fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        });
        let mut known = self.known.lock();
        if let Some((of, accounts)) = &*known
            && *of == stamps
        {
            return Ok(accounts.clone());
        }
        let [passwd, login_defs] = &paths;
        let defaults = fs::read(login_defs).unwrap_or_default();
        let accounts = Accounts::read(&self.read(passwd)?, &String::from_utf8_lossy(&defaults));
        let accounts = Arc::new(accounts);
        *known = Some((stamps, accounts.clone()));
        Ok(accounts)
    }

    fn shadow(&self) -> Result<String, Unavailable> {
        self.read(&self.etc.join("shadow"))
    }

    /// Reads a file that must exist, and records the outcome for [`Directory::reachability`].
    fn read(&self, path: &Path) -> Result<String, Unavailable> {
        let outcome = fs::read(path).map_err(|error| unreadable(path, &error));
        let mut reachability = self.reachability.lock();
        let now = SystemTime::now();
        match &outcome {
            Ok(_) => reachability.last_contact = Some((now, path.display().to_string())),
            Err(why) => reachability.last_error = Some((now, why.clone())),
        }
        outcome.map(|text| String::from_utf8_lossy(&text).into_owned()).map_err(Unavailable)
    }
}

impl Directory for LocalAccounts {
    fn place(&self) -> Place {
        Place::ThisMachine
    }

    fn reachability(&self) -> Reachability {
        self.reachability.lock().clone()
    }

    fn reach(&self) -> Result<(), Unavailable> {
        self.accounts()?;
        self.shadow().map(drop)
    }

    fn verify(&self, typed: &str, password: &str) -> Result<Verdict, Unavailable> {
        let address = Address::from_login(typed).ok();
        let (accounts, shadow) = (self.accounts()?, self.shadow()?);
        let name = address.as_ref().map_or("", |address| address.local.as_str());
        let (own, example) = accounts.shadow(name, &shadow);
        // Compute some hash anyway, so that the answer takes as long as a wrong password.
        let refused = |verdict| {
            let _ = crypt::verify(password.as_bytes(), example.as_deref().unwrap_or(EXAMPLE));
            Ok(verdict)
        };
        let barred = |why: &str, is_proven| Verdict::Barred { why: why.to_owned(), is_proven };
        let own = match (accounts.named(name), own) {
            (Named::Nobody, _) => return refused(Verdict::Wrong),
            (Named::System, _) => {
                return refused(barred("is a system account, which cannot have a mailbox", false));
            }
            (Named::User(_), None) => return refused(barred("has no line in the shadow file", false)),
            (Named::User(_), Some(own)) => own,
        };
        let hash = match &own.password {
            Password::None => return refused(barred("has no password", false)),
            Password::Locked { hash: None } => return refused(barred(Barred::Locked.words(), false)),
            Password::Hash(hash) | Password::Locked { hash: Some(hash) } => hash,
        };
        match crypt::verify(password.as_bytes(), hash) {
            Err(why) => refused(barred(&format!("has a password hash that {}", why.words()), false)),
            Ok(false) => Ok(Verdict::Wrong),
            Ok(true) => Ok(match own.standing(account::day_of(now_unix_seconds())) {
                Ok(()) => Verdict::Right(address.into_iter().collect()),
                Err(why) => barred(why.words(), true),
            }),
        }
    }

    fn account_of(&self, address: &Address) -> Result<Option<String>, Unavailable> {
        let name = address.local.as_str();
        Ok(matches!(self.accounts()?.named(name), Named::User(_)).then(|| name.to_owned()))
    }

    fn bars(&self, address: &Address) -> Result<Option<String>, Unavailable> {
        let name = address.local.as_str();
        Ok(match self.accounts()?.named(name) {
            Named::System => Some(format!("{name} is a system account")),
            Named::User(_) | Named::Nobody => creatable(&address.local).err(),
        })
    }

    fn create(&self, address: &Address, password: &str) -> Result<Creation, Unavailable> {
        if let Some(why) = self.bars(address)? {
            return Ok(Creation::Refused(why));
        }
        if let Some(name) = self.account_of(address)? {
            return Ok(Creation::Exists { name });
        }
        let name = address.local.as_str().to_owned();
        Ok(match tools::create(address, password) {
            Ok(()) => Creation::Created { name },
            Err(why) => Creation::Refused(why),
        })
    }

    fn remove(&self, address: &Address) -> Result<Removal, Unavailable> {
        let name = address.local.as_str().to_owned();
        match self.accounts()?.named(&name) {
            Named::Nobody => return Ok(Removal::NoSuchAccount),
            Named::System => return Ok(Removal::Refused(format!("{name} is a system account"))),
            Named::User(_) => {}
        }
        Ok(match tools::remove(&name) {
            Ok(()) => Removal::Removed { name },
            Err(why) => Removal::Refused(why),
        })
    }

    fn change_password(&self, address: &Address, password: &str) -> Result<Change, Unavailable> {
        let name = address.local.as_str();
        match self.accounts()?.named(name) {
            Named::Nobody => return Ok(Change::NoSuchAccount),
            Named::System => return Ok(Change::Refused(format!("{name} is a system account"))),
            Named::User(_) => {}
        }
        Ok(match tools::set_password(name, password) {
            Ok(()) => Change::Changed,
            Err(why) => Change::Refused(why),
        })
    }
}

pub use tools::ready;

/// Checks that a mailbox name is short enough for an account. An error is a sentence.
pub fn has_length_of_name(name: &LocalPart) -> Result<(), String> {
    match name.as_str().len() <= NAME_CHARACTERS_MAX {
        true => Ok(()),
        false => Err(format!(
            "{name} is longer than the {NAME_CHARACTERS_MAX} characters that the name of a local account may have"
        )),
    }
}

/// Checks that an account of this name can be created. An error is a sentence.
fn creatable(name: &LocalPart) -> Result<(), String> {
    has_length_of_name(name)?;
    let text = name.as_str();
    let is_of_name = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let is_name = text.bytes().all(is_of_name)
        && text.bytes().next().is_some_and(|first| first != b'-' && first != b'.')
        // The tools would take digits for a uid.
        && !text.bytes().all(|b| b.is_ascii_digit());
    match is_name {
        true => Ok(()),
        false => Err(format!(
            "{text} cannot be the name of a local account: it may contain only letters, digits, _, . and -, and not digits alone"
        )),
    }
}

/// A sentence that says why a file cannot be read and what to do.
fn unreadable(path: &Path, error: &io::Error) -> String {
    let user = User::of_this_process();
    let path_shown = path.display();
    if error.kind() != io::ErrorKind::PermissionDenied {
        return format!("{path_shown} cannot be read: {error}");
    }
    let told = format!("{path_shown} cannot be read by the user {user}");
    match fs::metadata(path).ok().filter(|file| file.mode() & 0o040 != 0) {
        Some(file) => {
            let group = group_name(file.gid()).unwrap_or_else(|| file.gid().to_string());
            format!(
                "{told}, which must be in the group {group}: under systemd set SupplementaryGroups={group} in the unit, \
                 elsewhere run usermod -aG {group} {}; then restart the service",
                user.typed()
            )
        }
        None => format!(
            "{told} or by any group: create a group with that user in it, and let it read the file (chgrp, chmod 640)"
        ),
    }
}

fn now_unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
