//! The key file together with the store: created once, found again, changed, lost.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::thread;

use crate::address::Address;
use crate::auth::password::{Credential, Fresh};
use crate::auth::seal::Key;
use crate::keyring::{Keyring, Resealed, Unchanged};
use crate::store::{Progress, Read as _, UnixTime};
use crate::tests::bench::Bench;
use crate::tests::skip::needs_root;

impl Bench {
    fn keyring(&self) -> Keyring {
        Keyring::open(&self.store, &self.mailroot).unwrap()
    }

    fn add(&self, name: &str, password: &str) {
        self.add_sealed(name, password, self.keyring().key().ok().as_deref());
    }

    fn add_sealed(&self, name: &str, password: &str, key: Option<&Key>) {
        let address: Address = name.parse().unwrap();
        let credential = Credential::new(password, &address, Fresh::draw().unwrap(), key);
        let added = self.store.write(move |tx| {
            let _ = tx.add_domain(&address.domain, UnixTime(0))?;
            tx.add_mailbox(&address, credential.clone(), UnixTime(0))
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
    let bench = Bench::new();
    bench.add("bob@example.com", "secret");
    assert_eq!(bench.store.check(&Progress::default()).unwrap().findings, Vec::<String>::new());
}

#[test]
fn a_store_gets_its_key_once_and_nobody_else_can_read_it() {
    let bench = Bench::new();
    let id = bench.keyring().key().unwrap().id();
    assert_eq!(bench.keyring().key().unwrap().id(), id);
    let mode = fs::metadata(bench.mailroot.key_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_missing_or_wrong_key_is_reported_and_not_replaced() {
    let bench = Bench::new();
    bench.add("ann@example.com", "secret");
    let file = bench.mailroot.key_file();
    let right = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(bench.keyring().key().unwrap_err().to_string().contains("missing"));
    assert!(!file.exists());
    let other = Bench::new();
    other.keyring();
    fs::copy(other.mailroot.key_file(), &file).unwrap();
    assert!(bench.keyring().key().unwrap_err().to_string().contains("belongs to another mail store"));
    fs::write(&file, "nonsense").unwrap();
    assert!(bench.keyring().key().unwrap_err().to_string().contains("holds no key"));
    assert_eq!(bench.recovered("ann@example.com"), None);
    fs::write(&file, right).unwrap();
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("secret"));
}

#[test]
fn changing_the_key_keeps_every_password() {
    let bench = Bench::new();
    bench.add("ann@example.com", "one");
    bench.add("bob@example.com", "two");
    let before = bench.keyring().key().unwrap().id();
    let keyring = bench.keyring();
    let old = Some(bench.mailroot.dir.join("winpop.key.old"));
    assert_eq!(keyring.rotate(&bench.store, false), Ok(Resealed { resealed: 2, left: 0, old }));
    assert_ne!(bench.keyring().key().unwrap().id(), before);
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("one"));
    assert_eq!(bench.recovered("bob@example.com").as_deref(), Some("two"));
}

#[test]
fn after_the_key_is_lost_a_new_one_seals_later_passwords() {
    let bench = Bench::new();
    bench.add("ann@example.com", "one");
    fs::remove_file(bench.mailroot.key_file()).unwrap();
    let refused = bench.keyring().rotate(&bench.store, false).unwrap_err();
    assert!(matches!(refused, Unchanged::WouldGiveUp { lost: 1, trouble: Some(_) }), "{refused:?}");
    assert_eq!(bench.keyring().rotate(&bench.store, true), Ok(Resealed { resealed: 0, left: 1, old: None }));
    bench.add("bob@example.com", "two");
    assert_eq!(bench.recovered("ann@example.com"), None);
    assert_eq!(bench.recovered("bob@example.com").as_deref(), Some("two"));
}

#[test]
fn the_key_is_not_changed_while_passwords_are_sealed_under_one_that_is_gone() {
    let bench = Bench::new();
    bench.add("ann@example.com", "one");
    let (file, old) = (bench.mailroot.key_file(), bench.mailroot.dir.join("winpop.key.old"));
    let first = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    bench.keyring().rotate(&bench.store, true).unwrap();
    bench.add("bob@example.com", "two");
    // The current key is there, but ann's password is sealed under another one.
    let refused = bench.keyring().rotate(&bench.store, false).unwrap_err();
    assert_eq!(refused, Unchanged::WouldGiveUp { lost: 1, trouble: None });
    // An unreadable key file is kept too.
    fs::write(&file, &first).unwrap();
    assert!(bench.keyring().rotate(&bench.store, false).is_err());
    assert_eq!(fs::read(&file).unwrap(), first);
    bench.keyring().rotate(&bench.store, true).unwrap();
    assert_eq!(fs::read(old).unwrap(), first);
}

#[test]
fn a_changed_key_keeps_owner_and_mode_and_the_old_file_stays() {
    let bench = Bench::new();
    bench.add("ann@example.com", "one");
    let (file, old) = (bench.mailroot.key_file(), bench.mailroot.dir.join("winpop.key.old"));
    let text = fs::read(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    let owner =
        if rustix::process::geteuid().is_root() { 12_345 } else { fs::metadata(&file).unwrap().uid() };
    std::os::unix::fs::chown(&file, Some(owner), None).unwrap();
    bench.keyring().rotate(&bench.store, false).unwrap();
    for path in [&file, &old] {
        let metadata = fs::metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (owner, 0o400), "{}", path.display());
    }
    assert_eq!(fs::read(&old).unwrap(), text);
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("one"));
}

#[test]
fn a_new_key_belongs_to_the_owner_of_the_mail_store() {
    if !needs_root("giving a directory to another user") {
        return;
    }
    let bench = Bench::new();
    std::os::unix::fs::chown(&bench.mailroot.dir, Some(12_345), Some(54_321)).unwrap();
    bench.keyring().key().unwrap();
    let metadata = fs::metadata(bench.mailroot.key_file()).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (12_345, 54_321));
}

#[test]
fn a_key_that_other_users_may_read_is_not_used() {
    let bench = Bench::new();
    bench.add("ann@example.com", "one");
    let file = bench.mailroot.key_file();
    for mode in [0o644, 0o640, 0o604, 0o666] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let keyring = bench.keyring();
        let trouble = keyring.key().unwrap_err().to_string();
        assert!(trouble.contains(&format!("chmod 600 {}", file.display())), "{trouble}");
        assert_eq!(bench.recovered("ann@example.com"), None);
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("one"));
}

#[test]
fn a_password_sealed_while_the_key_is_about_to_change_is_not_lost() {
    let bench = Bench::new();
    let keyring = bench.keyring();
    let sealing = keyring.sealing();
    thread::scope(|scope| {
        let changing = scope.spawn(|| keyring.rotate(&bench.store, false));
        while keyring.try_sealing().is_some() {
            thread::yield_now();
        }
        bench.add_sealed("ann@example.com", "one", sealing.key().ok());
        drop(sealing);
        assert_eq!(changing.join().unwrap().unwrap().resealed, 1);
    });
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("one"));
}

#[test]
fn a_new_key_whose_file_cannot_be_put_in_place_is_used_and_found_again() {
    let bench = Bench::new();
    bench.add("ann@example.com", "one");
    let keyring = bench.keyring();
    let first = keyring.key().unwrap().id();
    // No file can be renamed to that.
    let old = bench.mailroot.dir.join("winpop.key.old");
    fs::create_dir(&old).unwrap();
    let failed = keyring.rotate(&bench.store, false).unwrap_err().to_string();
    assert!(failed.contains("The new key is in use and lies in "), "{failed}");
    assert_ne!(keyring.key().unwrap().id(), first);
    bench.add_sealed("bob@example.com", "two", keyring.sealing().key().ok());
    // Nor can the key be changed again: the file that holds it would be overwritten.
    assert!(keyring.rotate(&bench.store, false).is_err());
    fs::remove_dir(&old).unwrap();
    assert_eq!(keyring.rotate(&bench.store, false).unwrap().resealed, 2);
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("one"));
    assert_eq!(bench.recovered("bob@example.com").as_deref(), Some("two"));
}

/// A key change can be cut short before and after the store has the new key.
#[test]
fn a_change_of_key_that_was_cut_short_is_completed_or_undone() {
    let bench = Bench::new();
    bench.add("ann@example.com", "one");
    let file = bench.mailroot.key_file();
    let next = file.with_file_name("winpop.key.next");
    let old = fs::read(&file).unwrap();
    let other = Bench::new();
    other.keyring();
    fs::copy(other.mailroot.key_file(), &next).unwrap();
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("one"));
    assert!(!next.exists());

    bench.keyring().rotate(&bench.store, false).unwrap();
    fs::rename(&file, &next).unwrap();
    fs::write(&file, old).unwrap();
    assert_eq!(bench.recovered("ann@example.com").as_deref(), Some("one"));
    assert!(!next.exists());
}
