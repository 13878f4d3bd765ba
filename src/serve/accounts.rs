//! Accounts: checks passwords, and gives mechanisms what they need to check a proof.
//!
//! - An unknown name takes the same steps as a known one: the same derivation, the same unsealing. The salt that SCRAM
//!   shows for it never changes, not even with the key.
//! - A password that was right a moment ago is not derived again. We remember a keyed hash that covers the version of
//!   the credential, so a new password makes it worthless. Locks and deletions are checked each time.
//! - A login that brings the password itself renews the credential: it seals the password again if the current key
//!   cannot open the seal, so a lost key heals by itself, and derives the verifier again if it has too few rounds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::remembered::Remembered;
use crate::address::{Address, LoginName};
use crate::auth::Account;
use crate::auth::directory::{self as of_accounts, Directory, Place, Verdict};
use crate::auth::ntlm;
use crate::auth::password::{Credential, Fresh, ITERATIONS, SALT_OCTETS, Verifier};
use crate::directory;
use crate::keyring::Keyring;
use crate::lock::RwLock;
use crate::pop3::Credentials;
use crate::random;
use crate::reachability::Reachability;
use crate::settings::{DECOY_SECRET, Settings};
use crate::store::{Fault, Maildrop, Read, Store};
use crate::verdict::Login;

/// How long we remember that a password was right.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// The mailbox used in place of unknown ones.
const DECOY: &str = "nobody@invalid";

pub struct Accounts {
    store: Store,
    pub keyring: Arc<Keyring>,
    verified: Remembered,
    /// Drawn when the process starts.
    hash_key: [u8; 32],
    /// Derives the salts of unknown names.
    salt_key: [u8; 32],
    decoy: Address,
    decoy_credential: Credential,
    directory: RwLock<InForce>,
}

/// The account directory in force, or `None` if the data file holds the accounts. `Err` says why the directory cannot
/// be used, and since when.
type InForce = Result<Option<Arc<dyn Directory>>, (String, SystemTime)>;

impl Accounts {
    pub fn new(store: Store, keyring: Keyring, settings: &Settings) -> Result<Self, Fault> {
        let directory = directory::in_force(settings, &keyring);
        match &directory {
            Ok(Some(directory)) if directory.place() == Place::ThisMachine => {
                if let Err(of_accounts::Unavailable(why)) = directory.reach() {
                    log::error!("nobody can log in: {why}");
                }
            }
            // A directory on the network may be up by the time somebody logs in.
            Ok(_) => {}
            Err(why) => {
                log::error!("nobody can log in, because the account directory is unavailable: {why}")
            }
        }
        let hash_key = random::octets()?;
        let decoy: Address = DECOY.parse().expect("it is an address");
        let password = blake3::Hash::from(random::octets()?).to_hex();
        Ok(Self {
            decoy_credential: Credential::new(
                &password,
                &decoy,
                Fresh::draw()?,
                keyring.key().ok().as_deref(),
            ),
            salt_key: decoy_secret(&store)?,
            verified: Remembered::new(REMEMBERED_FOR),
            keyring: Arc::new(keyring),
            store,
            hash_key,
            decoy,
            directory: RwLock::new(directory.map_err(|why| (why, SystemTime::now()))),
        })
    }

    /// True if passwords can be recovered, as APOP, CRAM-MD5 and NTLM need.
    pub fn secrets_available(&self) -> bool {
        self.verifiers_available() && self.keyring.key().is_ok()
    }

    /// True if the data file holds the passwords in force.
    pub fn verifiers_available(&self) -> bool {
        !self.is_directory_asked()
    }

    /// True if a directory holds the passwords.
    pub fn is_directory_asked(&self) -> bool {
        !matches!(*self.directory.read(), Ok(None))
    }

    /// True if checking a password means waiting for the network and costs us no processor time.
    pub fn is_network_asked(&self) -> bool {
        match &*self.directory.read() {
            Ok(directory) => directory.as_ref().is_some_and(|directory| directory.place() == Place::Network),
            Err(_) => true,
        }
    }

    /// The name under which guesses count if the login name is not an address: the address of its mailbox, so that
    /// another spelling brings no extra guesses. `None` if the name cannot reach an account.
    pub fn guarded_name(&self, typed: &str) -> Result<Option<String>, Fault> {
        if !self.is_directory_asked() {
            return Ok(None);
        }
        let mailbox = directory::mailbox_meant(&*self.store.read()?, typed)?;
        // The directory may know an account whose mailbox has another name.
        Ok(Some(mailbox.map_or_else(|| typed.to_lowercase(), |mailbox| mailbox.to_string())))
    }

    /// The directory that these settings describe. An error is a sentence.
    pub fn directory_of(&self, settings: &Settings) -> Result<Option<Arc<dyn Directory>>, String> {
        directory::in_force(settings, &self.keyring)
    }

    pub fn change_directory_to(&self, directory: Option<Arc<dyn Directory>>) {
        if let Some(directory) = &directory {
            // [`super::ntlm::watch`] reports the outcome.
            let _ = directory.try_ntlm();
        }
        *self.directory.write() = Ok(directory);
    }

    /// The directory in force, or `None` if the data file holds the accounts. An error is a sentence.
    pub fn directory(&self) -> Result<Option<Arc<dyn Directory>>, String> {
        self.directory.read().clone().map_err(|(why, _)| why)
    }

    /// Of the directory in force, if there is one.
    pub fn reachability(&self) -> Option<Reachability> {
        match &*self.directory.read() {
            Ok(directory) => directory.as_ref().map(|directory| directory.reachability()),
            Err((why, since)) => {
                Some(Reachability { last_error: Some((*since, why.clone())), ..Reachability::default() })
            }
        }
    }

    /// Opens the maildrop if this password was right a moment ago. `None` if it must be derived. Takes microseconds.
    pub fn recall(&self, credentials: &Credentials) -> Result<Option<Login<Maildrop>>, Fault> {
        // Ask a directory each time: it may have locked the account.
        if self.is_directory_asked() {
            return Ok(None);
        }
        let Some(address) = credentials.login.address() else { return Ok(None) };
        let version = self.credential(Some(address))?.map(|credential| credential.version);
        let name = self.name_of(address, version.unwrap_or_default(), credentials.password.as_bytes());
        match version.is_some() & self.verified.holds(&name) {
            true => self.store.open_maildrop(address).map(Some),
            false => Ok(None),
        }
    }

    /// Derives and checks the password, and opens the maildrop. Takes milliseconds, the same for an unknown name as for
    /// a wrong password.
    pub fn log_in(&self, credentials: &Credentials) -> Result<Login<Maildrop>, Fault> {
        if let Some(directory) = self.directory().map_err(Fault::Elsewhere)? {
            return self.log_in_by(&*directory, credentials);
        }
        let password = credentials.password.as_bytes();
        let address = credentials.login.address();
        let credential = self.credential(address)?;
        let (Some(credential), Some(address)) = (credential, address) else {
            Verifier::of_nobody(self.salt_of(&credentials.login)).accepts(password);
            return Ok(Login::WrongCredentials);
        };
        if !credential.verifier.accepts(password) {
            return Ok(Login::WrongCredentials);
        }
        self.verified.remember(self.name_of(address, credential.version, password));
        if let Err(fault) = self.renew(address, &credential, password) {
            // The login itself is fine, and the next one tries again.
            log::warn!("the stored password of {address} could not be renewed: {fault}");
        }
        self.store.open_maildrop(address)
    }

    /// The domain whose users can log in by NTLM at present, if the directory in force checks it.
    pub fn ntlm_domain(&self) -> Option<String> {
        self.directory().ok()??.ntlm_domain()
    }

    /// Tries whether the directory in force can check NTLM.
    pub fn try_ntlm(&self) -> Result<(), of_accounts::Unavailable> {
        match self.directory() {
            Ok(Some(directory)) => directory.try_ntlm(),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Has the directory check an NTLM proof, and opens the maildrop.
    pub fn prove(&self, proof: &ntlm::Proof) -> Result<Login<Maildrop>, Fault> {
        match self.directory().map_err(Fault::Elsewhere)? {
            Some(directory) => self.admit(directory.prove(proof), &proof.user.as_str().into()),
            // This login began before the password file came into force.
            None => Ok(Login::WrongCredentials),
        }
    }

    /// Has a directory check the password, and opens the maildrop.
    fn log_in_by(
        &self,
        directory: &dyn Directory,
        credentials: &Credentials,
    ) -> Result<Login<Maildrop>, Fault> {
        let Ok(password) = std::str::from_utf8(credentials.password.as_bytes()) else {
            return Ok(Login::WrongCredentials);
        };
        let name = match directory.place() {
            Place::Network => credentials.login.typed().to_owned(),
            // A name without a mailbox becomes an empty one, which takes as long.
            Place::ThisMachine => self
                .mailbox_of_local_account(credentials.login.typed())?
                .map_or_else(String::new, |mailbox| mailbox.to_string()),
        };
        self.admit(directory.verify(&name, password), &credentials.login)
    }

    /// Opens the maildrop of an account that the directory admits: the typed address if it belongs to the account,
    /// otherwise the first of the account's addresses that is a mailbox here.
    fn admit(
        &self,
        verdict: Result<Verdict, of_accounts::Unavailable>,
        login: &LoginName,
    ) -> Result<Login<Maildrop>, Fault> {
        let addresses = match verdict.map_err(|unavailable| Fault::Elsewhere(unavailable.to_string()))? {
            Verdict::Right(addresses) => addresses,
            Verdict::Wrong => return Ok(Login::WrongCredentials),
            Verdict::Barred { why, is_proven } => return Ok(Login::Barred { why, is_proven }),
        };
        let typed = login.address().filter(|typed| addresses.contains(typed));
        for address in typed.into_iter().chain(&addresses) {
            match self.store.open_maildrop(address)? {
                Login::WrongCredentials => {}
                login => return Ok(login),
            }
        }
        let why = "has an account in the directory, but no mailbox here".to_owned();
        Ok(Login::Barred { why, is_proven: true })
    }

    /// The mailbox whose local account a login name means. `None` if several mailboxes share the name, as the password
    /// file allows: an account belongs to one mailbox. We never ask for the password of an account without a mailbox.
    fn mailbox_of_local_account(&self, typed: &str) -> Result<Option<Address>, Fault> {
        let view = self.store.read()?;
        let Some(mailbox) = directory::mailbox_meant(&*view, typed)? else { return Ok(None) };
        let is_alone = directory::namesakes(&*view, &mailbox.local)?.len() == 1;
        Ok(Some(mailbox).filter(|_| is_alone))
    }

    /// Renews the stored credential while the password is at hand. The version stays, because the password does.
    fn renew(&self, address: &Address, stored: &Credential, password: &[u8]) -> Result<(), Fault> {
        let Ok(password) = std::str::from_utf8(password) else { return Ok(()) };
        let fresh = Fresh::draw()?;
        let mut renewed = stored.clone();
        // While the key is changed, no login waits for that: the next one seals the password.
        let sealing = self.keyring.try_sealing().filter(|sealing| sealing.is_wanted(stored, address));
        if let Some(key) = sealing.as_ref().and_then(|sealing| sealing.key().ok()) {
            renewed.sealed = Some(key.seal(password, address, stored.version, fresh.nonce));
        }
        if stored.verifier.is_weak() {
            renewed.verifier = Verifier::new(password, fresh.salt, ITERATIONS);
        }
        if renewed == *stored {
            return Ok(());
        }
        let (address, stored) = (address.clone(), stored.clone());
        let renewing = self.store.write(move |tx| {
            // If it has changed meanwhile, the change wins.
            if tx.mailbox(&address)?.is_some_and(|mailbox| mailbox.credential == stored) {
                // The mailbox exists, so this cannot be refused.
                let _ = tx.set_credential(&address, renewed.clone())?;
            }
            Ok(())
        });
        renewing.wait()
    }

    /// What a mechanism needs to know about the account with this name, existing or not, and the version of its
    /// credential, which [`Self::open`] takes.
    pub fn find(&self, login: &LoginName) -> Result<(Account, u64), Fault> {
        let address = login.address();
        // The credential in the data file is not in force under a directory. A session that began before must not log
        // in with it.
        let credential = match self.verifiers_available() {
            true => self.credential(address)?,
            false => None,
        };
        let exists = credential.is_some();
        let verifier = match &credential {
            Some(credential) => credential.verifier.clone(),
            None => Verifier::of_nobody(self.salt_of(login)),
        };
        let password = match (&credential, address) {
            (Some(credential), Some(address)) => self.keyring.recover(credential, address),
            _ => self.keyring.recover(&self.decoy_credential, &self.decoy),
        };
        let version = credential.map_or(0, |credential| credential.version);
        Ok((Account { exists, verifier, password }, version))
    }

    /// Opens the maildrop of an account whose password was proven, unless the password has changed since.
    pub fn open(&self, login: &LoginName, version: u64) -> Result<Login<Maildrop>, Fault> {
        let Some(address) = login.address() else { return Ok(Login::WrongCredentials) };
        // This login began before the directory came into force.
        if !self.verifiers_available() {
            return Ok(Login::WrongCredentials);
        }
        match self.credential(Some(address))? {
            Some(credential) if credential.version == version => self.store.open_maildrop(address),
            _ => Ok(Login::WrongCredentials),
        }
    }

    fn credential(&self, address: Option<&Address>) -> Result<Option<Credential>, Fault> {
        let Some(address) = address else { return Ok(None) };
        let credential = self.store.read()?.mailbox(address)?.map(|mailbox| mailbox.credential);
        match credential {
            Some(credential) if !credential.verifier.is_sound() => Err(Fault::damaged(format!(
                "the password of {address} cannot be checked; set it again with winpop changepwd"
            ))),
            credential => Ok(credential),
        }
    }

    /// The hash under which a right password is remembered.
    fn name_of(&self, address: &Address, version: u64, password: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.hash_key);
        hasher.update(&version.to_le_bytes());
        hasher.update(address.to_string().as_bytes());
        hasher.update(&[0]);
        hasher.update(password);
        hasher.finalize().into()
    }

    /// The salt of an unknown name: always the same for one name, different for others (RFC 5802 section 9).
    fn salt_of(&self, login: &LoginName) -> [u8; SALT_OCTETS] {
        let folded = login.address().map_or_else(|| login.typed().to_owned(), Address::to_string);
        let hash = blake3::keyed_hash(&self.salt_key, folded.as_bytes());
        *hash.as_bytes().first_chunk().expect("a hash is longer than a salt")
    }
}

/// The store's secret from which the salts of unknown names derive; drawn once.
fn decoy_secret(store: &Store) -> Result<[u8; 32], Fault> {
    let stored = store.read()?.setting(DECOY_SECRET)?;
    if let Some(secret) = stored.and_then(|digits| blake3::Hash::from_hex(digits).ok()) {
        return Ok(secret.into());
    }
    let secret = random::octets()?;
    let digits = blake3::Hash::from(secret).to_hex();
    store.write(move |tx| tx.set_setting(DECOY_SECRET, Some(&digits))).wait()?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use smol::future::{block_on, poll_once};

    use super::*;
    use crate::auth::hash::work;
    use crate::pop3::Password;
    use crate::store::UnixTime;
    use crate::tests::bench::Bench;

    /// With one mailbox, `ann@example.com`, whose password is "secret".
    fn accounts(bench: &Bench) -> Accounts {
        let keyring = Keyring::open(&bench.store, &bench.mailroot).unwrap();
        set_password(&bench.store, &keyring, "secret");
        Accounts::new(bench.store.clone(), keyring, &Settings::default()).unwrap()
    }

    fn set_password(store: &Store, keyring: &Keyring, password: &str) {
        let ann: Address = "ann@example.com".parse().unwrap();
        let credential =
            Credential::new(password, &ann, Fresh::draw().unwrap(), keyring.key().ok().as_deref());
        let set = store.write(move |tx| {
            let _ = tx.add_domain(&ann.domain, UnixTime(0))?;
            match tx.add_mailbox(&ann, credential.clone(), UnixTime(0))? {
                Ok(()) => Ok(Ok(())),
                Err(_) => tx.set_credential(&ann, credential.clone()),
            }
        });
        assert_eq!(set.wait().unwrap(), Ok(()));
    }

    fn log_in(accounts: &Accounts, name: &str, password: &str) -> bool {
        let credentials = Credentials { login: name.into(), password: Password::from(password.as_bytes()) };
        // As a session does.
        let outcome = match accounts.recall(&credentials).unwrap() {
            Some(outcome) => outcome,
            None => accounts.log_in(&credentials).unwrap(),
        };
        matches!(outcome, Login::Welcome(_))
    }

    #[test]
    fn an_unknown_name_costs_the_same_work_as_a_wrong_password() {
        let bench = Bench::new();
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
        let bench = Bench::new();
        let accounts = accounts(&bench);
        let (known, _) = accounts.find(&"ann@example.com".into()).unwrap();
        let (unknown, _) = accounts.find(&"bob@example.com".into()).unwrap();
        assert!(known.exists && !unknown.exists);
        assert!(known.password.is_some() && unknown.password.is_some());
        assert_eq!(known.verifier.iterations, unknown.verifier.iterations);
        let salt = |name: &str| accounts.find(&name.into()).unwrap().0.verifier.salt;
        assert_eq!(salt("bob@example.com"), salt("BOB%example.com"));
        assert_ne!(salt("bob@example.com"), salt("eve@example.com"));
    }

    fn credential(accounts: &Accounts) -> Credential {
        accounts.credential(Some(&"ann@example.com".parse().unwrap())).unwrap().unwrap()
    }

    fn put(store: &Store, credential: Credential) {
        let ann: Address = "ann@example.com".parse().unwrap();
        let set = store.write(move |tx| tx.set_credential(&ann, credential.clone()));
        assert_eq!(set.wait().unwrap(), Ok(()));
    }

    #[test]
    fn the_salt_of_an_unknown_name_outlives_restarts_and_changes_of_the_key() {
        let bench = Bench::new();
        let accounts = accounts(&bench);
        let salt = |accounts: &Accounts| accounts.find(&"bob@example.com".into()).unwrap().0.verifier.salt;
        let before = salt(&accounts);
        accounts.keyring.rotate(&bench.store, false).unwrap();
        assert_eq!(salt(&accounts), before);
        let keyring = Keyring::open(&bench.store, &bench.mailroot).unwrap();
        assert_eq!(salt(&Accounts::new(bench.store.clone(), keyring, &Settings::default()).unwrap()), before);
        let (_, complaints) = crate::admin::read_settings(&*bench.store.read().unwrap()).unwrap();
        assert_eq!(complaints, Vec::<String>::new());
    }

    #[test]
    fn sessions_do_not_wait_while_the_key_is_changed() {
        let bench = Bench::new();
        let accounts = accounts(&bench);
        let recovered = || accounts.find(&"ann@example.com".into()).unwrap().0.password.unwrap();
        let (go_on, held_up) = mpsc::channel::<()>();
        let mut writing = bench.store.write(move |_| {
            let _ = held_up.recv();
            Ok(())
        });
        // From now on the writer is held up.
        assert!(block_on(poll_once(&mut writing)).is_none());
        thread::scope(|scope| {
            let changing = scope.spawn(|| accounts.keyring.rotate(&bench.store, false));
            while accounts.keyring.try_sealing().is_some() {
                thread::yield_now();
            }
            assert!(accounts.secrets_available());
            assert_eq!(recovered().as_str(), "secret");
            assert!(log_in(&accounts, "ann@example.com", "secret"));
            drop(go_on);
            assert_eq!(changing.join().unwrap().unwrap().resealed, 1);
        });
        writing.wait().unwrap();
        assert_eq!(recovered().as_str(), "secret");
    }

    #[test]
    fn a_login_seals_the_password_under_the_current_key() {
        let bench = Bench::new();
        let accounts = accounts(&bench);
        let recovered = |accounts: &Accounts| accounts.find(&"ann@example.com".into()).unwrap().0.password;
        let lost = Credential { sealed: None, ..credential(&accounts) };
        put(&bench.store, lost.clone());
        assert!(recovered(&accounts).is_none());
        assert!(!log_in(&accounts, "ann@example.com", "wrong") && recovered(&accounts).is_none());
        assert!(log_in(&accounts, "ann@example.com", "secret"));
        assert_eq!(recovered(&accounts).unwrap().as_str(), "secret");
        let healed = credential(&accounts);
        assert!(healed.version == lost.version && healed.verifier == lost.verifier);
    }

    #[test]
    fn a_login_renews_an_old_verifier_with_the_current_rounds() {
        let bench = Bench::new();
        let accounts = accounts(&bench);
        let weak = Credential { verifier: Verifier::new("secret", [1; 16], 10_000), ..credential(&accounts) };
        put(&bench.store, weak.clone());
        assert!(log_in(&accounts, "ann@example.com", "secret"));
        let renewed = credential(&accounts);
        assert_eq!((renewed.verifier.iterations, renewed.version), (ITERATIONS, weak.version));
        assert!(renewed.verifier.accepts(b"secret"));
    }

    #[test]
    fn a_damaged_round_count_is_reported_and_not_computed() {
        let bench = Bench::new();
        let accounts = accounts(&bench);
        for iterations in [0, u32::MAX] {
            let mut damaged = credential(&accounts);
            damaged.verifier.iterations = iterations;
            let sound = credential(&accounts);
            put(&bench.store, damaged);
            let credentials =
                Credentials { login: "ann@example.com".into(), password: Password::from(&b"secret"[..]) };
            for outcome in [
                accounts.log_in(&credentials).err(),
                accounts.recall(&credentials).err(),
                accounts.find(&"ann@example.com".into()).err(),
            ] {
                assert!(matches!(outcome, Some(Fault::Damaged(_))), "{iterations}: {outcome:?}");
            }
            put(&bench.store, sound);
        }
    }

    #[test]
    fn invalid_utf8_opens_nothing() {
        let bench = Bench::new();
        let accounts = accounts(&bench);
        // As an earlier version allowed.
        put(
            &bench.store,
            Credential { verifier: Verifier::new("\u{ad}", [1; 16], 4096), ..credential(&accounts) },
        );
        for password in [&b""[..], b"\xff", b"\xc3(", "\u{ad}".as_bytes()] {
            let credentials =
                Credentials { login: "ann@example.com".into(), password: Password::from(password) };
            let outcome = accounts.log_in(&credentials).unwrap();
            assert!(matches!(outcome, Login::WrongCredentials), "{password:?}");
        }
    }

    #[test]
    fn a_correct_password_is_not_derived_again_until_it_changes() {
        let bench = Bench::new();
        let accounts = accounts(&bench);
        assert!(log_in(&accounts, "ann@example.com", "secret"));
        work::take();
        assert!(log_in(&accounts, "ANN@example.com", "secret"));
        assert!(!work::take().contains(&"pbkdf2-sha256"));
        let (_, version) = accounts.find(&"ann@example.com".into()).unwrap();
        set_password(&accounts.store, &accounts.keyring, "another");
        assert!(!log_in(&accounts, "ann@example.com", "secret"));
        assert!(log_in(&accounts, "ann@example.com", "another"));
        let stale = accounts.open(&"ann@example.com".into(), version).unwrap();
        assert!(matches!(stale, Login::WrongCredentials), "a proof of the old password opens nothing");
    }
}
