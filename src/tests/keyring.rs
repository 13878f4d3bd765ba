//! The key file and the store together: made once, found again, changed, lost.

use crate::address::Address;
use crate::auth::password::{Credential, Fresh};
use crate::keyring::{Keyring, Resealed};
use crate::store::Read as _;
use crate::tests::bench::Bench;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

impl Bench {
    fn keyring(&self) -> Keyring {
        Keyring::open(&self.store, &self.mailroot).unwrap()
    }

    fn add(&self, name: &str, password: &str) {
        let address: Address = name.parse().unwrap();
        let keyring = self.keyring();
        let credential = Credential::new(password, &address, Fresh::draw().unwrap(), keyring.key().ok());
        let added = self.store.write(move |tx| {
            let _ = tx.add_domain(&address.domain, 0)?;
            tx.add_mailbox(&address, credential.clone(), 0)
        });
        assert!(added.wait().unwrap().is_ok());
    }

    fn recovered(&self, name: &str) -> Option<String> {
        let address: Address = name.parse().unwrap();
        let row = self.store.read().unwrap().mailbox(&address).unwrap().unwrap();
        self.keyring().recover(&row.credential, &address).map(|password| password.to_string())
    }
}

#[test]
fn a_store_with_a_key_is_clean() {
    let bench = Bench::new("clean");
    bench.add("bob@example.com", "secret");
    assert_eq!(bench.store.check().unwrap().findings, Vec::<String>::new());
}

#[test]
fn a_store_gets_its_key_once_and_nobody_else_can_read_it() {
    let bench = Bench::new("once");
    let id = bench.keyring().key().unwrap().id();
    assert_eq!(bench.keyring().key().unwrap().id(), id);
    let mode = fs::metadata(bench.mailroot.key_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_missing_or_wrong_key_is_told_and_not_replaced() {
    let bench = Bench::new("missing");
    bench.add("ann@example.com", "secret");
    let file = bench.mailroot.key_file();
    let right = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(bench.keyring().key().unwrap_err().to_string().contains("missing"));
    assert!(!file.exists());
    let other = Bench::new("other");
    other.keyring();
    fs::copy(other.mailroot.key_file(), &file).unwrap();
    assert!(bench.keyring().key().unwrap_err().to_string().contains("not that of this mail store"));
    fs::write(&file, "nonsense").unwrap();
    assert!(bench.keyring().key().unwrap_err().to_string().contains("holds no key"));
    assert_eq!(bench.recovered("ann@example.com"), None);
    fs::write(&file, right).unwrap();
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("secret"));
}

#[test]
fn changing_the_key_keeps_every_password() {
    let bench = Bench::new("rotate");
    bench.add("ann@example.com", "one");
    bench.add("bob@example.com", "two");
    let before = bench.keyring().key().unwrap().id();
    let mut keyring = bench.keyring();
    assert_eq!(keyring.rotate(&bench.store), Ok(Resealed { resealed: 2, left: 0 }));
    assert_ne!(bench.keyring().key().unwrap().id(), before);
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("one"));
    assert_eq!(bench.recovered("bob@example.com").as_deref(), Some("two"));
}

#[test]
fn with_the_key_lost_a_new_one_serves_the_passwords_to_come() {
    let bench = Bench::new("lost");
    bench.add("ann@example.com", "one");
    fs::remove_file(bench.mailroot.key_file()).unwrap();
    assert_eq!(bench.keyring().rotate(&bench.store), Ok(Resealed { resealed: 0, left: 1 }));
    bench.add("bob@example.com", "two");
    assert_eq!(bench.recovered("ann@example.com"), None);
    assert_eq!(bench.recovered("bob@example.com").as_deref(), Some("two"));
}

/// The two moments at which a change of key can be cut short: before and after the store has the new one.
#[test]
fn a_change_of_key_that_was_cut_short_is_completed_or_undone() {
    let bench = Bench::new("cut");
    bench.add("ann@example.com", "one");
    let file = bench.mailroot.key_file();
    let next = file.with_file_name("winpop.key.next");
    let old = fs::read(&file).unwrap();
    let other = Bench::new("cut-other");
    other.keyring();
    fs::copy(other.mailroot.key_file(), &next).unwrap();
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("one"));
    assert!(!next.exists());

    bench.keyring().rotate(&bench.store).unwrap();
    fs::rename(&file, &next).unwrap();
    fs::write(&file, old).unwrap();
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("one"));
    assert!(!next.exists());
}
