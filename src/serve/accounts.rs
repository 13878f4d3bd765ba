//! Accounts for those who want to log in: checking a password, and what a mechanism needs to check a proof.
//!
//! An unknown name takes the same steps as a known one: the same derivation, the same opening of a seal. A password that was
//! right a short while ago is not derived again: what is remembered of it is a keyed hash that includes the version
//! of the credential, so a new password, and only that, makes it worthless. Locks and deletions are looked at each time.

use super::limits::Remembered;
use crate::address::Address;
use crate::auth::Account;
use crate::auth::password::{Credential, Fresh, SALT_OCTETS, Verifier};
use crate::keyring::Keyring;
use crate::pop3::Credentials;
use crate::random;
use crate::store::{Fault, Maildrop, Read, Store};
use crate::verdict::Login;
use std::io;
use std::sync::RwLock;
use std::time::Duration;

/// How long a password that was right need not be derived again.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// The mailbox that stands in for those that there are not.
const DECOY: &str = "nobody@invalid";

pub struct Accounts {
    store: Store,
    pub keyring: RwLock<Keyring>,
    verified: Remembered,
    /// Of this process alone.
    hash_key: [u8; 32],
    /// Makes the salts of unknown names; the same for as long as the key of the store is.
    salt_key: [u8; 32],
    decoy: Address,
    decoy_credential: Credential,
}

impl Accounts {
    pub fn new(store: Store, keyring: Keyring) -> io::Result<Self> {
        let (hash_key, random) = (random::octets()?, random::octets()?);
        let decoy: Address = DECOY.parse().expect("it is an address");
        let password = blake3::Hash::from(random).to_hex();
        Ok(Self {
            decoy_credential: Credential::new(&password, &decoy, Fresh::draw()?, keyring.key().ok()),
            salt_key: keyring.derived("pop3svc 2026 salts of unknown names").unwrap_or(random),
            verified: Remembered::new(REMEMBERED_FOR),
            keyring: RwLock::new(keyring),
            store,
            hash_key,
            decoy,
        })
    }

    /// Whether passwords can be recovered, as APOP, CRAM-MD5 and NTLM need.
    pub fn secrets_available(&self) -> bool {
        self.keyring.read().expect("no holder of this lock panics").key().is_ok()
    }

    /// Checks name and password, and opens the maildrop. Takes milliseconds, and as many for an unknown name as for a known
    /// one with a wrong password.
    pub fn log_in(&self, credentials: &Credentials) -> Result<Login<Maildrop>, Fault> {
        let address = Address::from_login(&credentials.name).ok();
        let credential = self.credential(address.as_ref())?;
        let password = std::str::from_utf8(credentials.password.as_bytes()).unwrap_or_default();
        let is_right = match (&credential, &address) {
            (Some(credential), Some(address)) => {
                let name = self.name_of(address, credential.version, password);
                self.verified.holds(&name) || {
                    let is_right = credential.verifier.accepts(password);
                    if is_right {
                        self.verified.remember(name);
                    }
                    is_right
                }
            }
            _ => Verifier::of_nobody(self.salt_of(&credentials.name)).accepts(password),
        };
        match (is_right, address) {
            (true, Some(address)) => self.store.open_maildrop(&address),
            _ => Ok(Login::WrongCredentials),
        }
    }

    /// What a mechanism has to know of the account of this name, whether there is one or not; and the version of its
    /// credential, to be named when it is opened.
    pub fn find(&self, name: &str) -> Result<(Account, u64), Fault> {
        let address = Address::from_login(name).ok();
        let credential = self.credential(address.as_ref())?;
        let exists = credential.is_some();
        let verifier = match &credential {
            Some(credential) => credential.verifier.clone(),
            None => Verifier::of_nobody(self.salt_of(name)),
        };
        let keyring = self.keyring.read().expect("no holder of this lock panics");
        let password = match (&credential, &address) {
            (Some(credential), Some(address)) => keyring.recover(credential, address),
            _ => keyring.recover(&self.decoy_credential, &self.decoy),
        };
        let version = credential.map_or(0, |credential| credential.version);
        Ok((Account { exists, verifier, password }, version))
    }

    /// Opens the maildrop of an account whose password was proven, unless it is another one by now.
    pub fn open(&self, name: &str, version: u64) -> Result<Login<Maildrop>, Fault> {
        let Ok(address) = Address::from_login(name) else { return Ok(Login::WrongCredentials) };
        match self.credential(Some(&address))? {
            Some(credential) if credential.version == version => self.store.open_maildrop(&address),
            _ => Ok(Login::WrongCredentials),
        }
    }

    fn credential(&self, address: Option<&Address>) -> Result<Option<Credential>, Fault> {
        let Some(address) = address else { return Ok(None) };
        Ok(self.store.read()?.mailbox(address)?.map(|mailbox| mailbox.credential))
    }

    /// Under what a password is remembered as right.
    fn name_of(&self, address: &Address, version: u64, password: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.hash_key);
        hasher.update(&version.to_le_bytes());
        hasher.update(address.to_string().as_bytes());
        hasher.update(&[0]);
        hasher.update(password.as_bytes());
        hasher.finalize().into()
    }

    /// Of an unknown name: the same each time, and another for another name (RFC 5802 section 9).
    fn salt_of(&self, name: &str) -> [u8; SALT_OCTETS] {
        let folded =
            Address::from_login(name).map_or_else(|_| name.to_owned(), |address| address.to_string());
        let hash = blake3::keyed_hash(&self.salt_key, folded.as_bytes());
        *hash.as_bytes().first_chunk().expect("a hash is longer than a salt")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::hash::work;
    use crate::pop3::Password;
    use crate::tests::bench::Bench;

    /// Accounts with a mailbox `ann@example.com`, whose password is "secret".
    fn accounts(bench: &Bench) -> Accounts {
        let keyring = Keyring::open(&bench.store, &bench.mailroot).unwrap();
        set_password(&bench.store, &keyring, "secret");
        Accounts::new(bench.store.clone(), keyring).unwrap()
    }

    fn set_password(store: &Store, keyring: &Keyring, password: &str) {
        let ann: Address = "ann@example.com".parse().unwrap();
        let credential = Credential::new(password, &ann, Fresh::draw().unwrap(), keyring.key().ok());
        let set = store.write(move |tx| {
            let _ = tx.add_domain(&ann.domain, 0)?;
            match tx.add_mailbox(&ann, credential.clone(), 0)? {
                Ok(()) => Ok(Ok(())),
                Err(_) => tx.set_credential(&ann, credential.clone()),
            }
        });
        assert_eq!(set.wait().unwrap(), Ok(()));
    }

    fn log_in(accounts: &Accounts, name: &str, password: &str) -> bool {
        let credentials =
            Credentials { name: name.to_owned(), password: Password::from(password.as_bytes()) };
        matches!(accounts.log_in(&credentials).unwrap(), Login::Welcome(_))
    }

    #[test]
    fn an_unknown_name_costs_the_same_work_as_a_wrong_password() {
        let bench = Bench::new("accounts-work");
        let accounts = accounts(&bench);
        let work_of = |name: &str| {
            work::take();
            assert!(!log_in(&accounts, name, "wrong"));
            work::take()
        };
        let known = work_of("ann@example.com");
        assert!(known.contains(&"pbkdf2-sha256"));
        for unknown in ["bob@example.com", "ann@example.org", "not an address", ""] {
            assert_eq!(work_of(unknown), known, "{unknown}");
        }
    }

    #[test]
    fn an_unknown_account_looks_like_a_known_one_and_the_same_each_time() {
        let bench = Bench::new("accounts-unknown");
        let accounts = accounts(&bench);
        let (known, _) = accounts.find("ann@example.com").unwrap();
        let (unknown, _) = accounts.find("bob@example.com").unwrap();
        assert!(known.exists && !unknown.exists);
        assert!(known.password.is_some() && unknown.password.is_some());
        assert_eq!(known.verifier.iterations, unknown.verifier.iterations);
        let salt = |name: &str| accounts.find(name).unwrap().0.verifier.salt;
        assert_eq!(salt("bob@example.com"), salt("BOB%example.com"));
        assert_ne!(salt("bob@example.com"), salt("eve@example.com"));
    }

    #[test]
    fn a_password_that_was_right_is_not_derived_again_until_it_changes() {
        let bench = Bench::new("accounts-cache");
        let accounts = accounts(&bench);
        assert!(log_in(&accounts, "ann@example.com", "secret"));
        work::take();
        assert!(log_in(&accounts, "ANN@example.com", "secret"));
        assert!(!work::take().contains(&"pbkdf2-sha256"));
        let (_, version) = accounts.find("ann@example.com").unwrap();
        set_password(&accounts.store, &accounts.keyring.read().unwrap(), "another");
        assert!(!log_in(&accounts, "ann@example.com", "secret"));
        assert!(log_in(&accounts, "ann@example.com", "another"));
        let stale = accounts.open("ann@example.com", version).unwrap();
        assert!(matches!(stale, Login::WrongCredentials), "a proof of the old password opens nothing");
    }
}
