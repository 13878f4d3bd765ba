//! Backups restored over the data file.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::service::Done;
use crate::harness::site::Site;
use crate::harness::skip::needs_root;

const BOB: &str = "bob@example.com";
const NOBODY: u32 = 65534;

/// A store with one message, and a backup of it.
fn site_with_backup() -> (Site, PathBuf) {
    let site = Site::new();
    site.add_mailbox(BOB);
    deliver(&site, "first");
    let backup = site.dir().join("winpop.backup");
    site.succeed(&["backup", &backup.to_string_lossy()]);
    (site, backup)
}

fn deliver(site: &Site, subject: &str) {
    let done = site.run_with_input(&["deliver", BOB], format!("Subject: {subject}\n\ntext\n").as_bytes());
    assert_eq!(done.exit_code, 0, "{done:?}");
}

fn restore(site: &Site, backup: &Path) -> Done {
    site.run(&["restore", &backup.to_string_lossy()])
}

fn messages(site: &mut Site) -> usize {
    let service = site.start();
    let count = service.log_in(BOB).count().unwrap();
    service.stop();
    count
}

/// The files in the mail root whose names begin like this.
fn named(site: &Site, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.mailroot()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix)).collect()
}

#[test]
fn restore_brings_back_the_backup_and_keeps_the_previous_store() {
    let (mut site, backup) = site_with_backup();
    deliver(&site, "second");
    fs::set_permissions(site.data_file(), fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::read(&backup).unwrap();
    let done = restore(&site, &backup);
    assert_eq!((done.errors.as_str(), done.exit_code), ("", 0));
    assert!(done.output.contains("domains 1, mailboxes 1, messages 1\n"), "{}", done.output);
    assert!(fs::read(&backup).unwrap() == before);
    assert_eq!(fs::metadata(site.data_file()).unwrap().mode() & 0o777, 0o640);
    assert_eq!(messages(&mut site), 1);

    let kept = named(&site, "winpop.db.before-");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(done.output.contains(&format!("Note: the old data file is kept as {}\n", kept[0].display())));
    assert_eq!(restore(&site, &kept[0]).exit_code, 0);
    assert_eq!(messages(&mut site), 2);
    assert_eq!(named(&site, "winpop.db.before-").len(), 2);
    site.assert_clean();
}

#[test]
fn root_restores_for_the_user_of_the_service() {
    if !needs_root("giving files to another user") {
        return;
    }
    let (site, backup) = site_with_backup();
    for path in [site.mailroot(), site.data_file(), site.mailroot().join("winpop.key")] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let owner = || fs::metadata(site.data_file()).map(|file| (file.uid(), file.gid())).unwrap();
    assert_eq!(restore(&site, &backup).exit_code, 0);
    assert_eq!(owner(), (NOBODY, NOBODY));
    // The disk is lost, and the file with it.
    fs::remove_file(site.data_file()).unwrap();
    assert_eq!(restore(&site, &backup).exit_code, 0);
    assert_eq!((owner(), fs::metadata(site.data_file()).unwrap().mode() & 0o777), ((NOBODY, NOBODY), 0o600));
    site.assert_clean();
    // If restored with cp, the file would belong to root.
    chown(site.data_file(), Some(0), Some(0)).unwrap();
    let done = site.run(&["check"]);
    assert_eq!(done.exit_code, 1);
    assert!(done.output.contains("winpop.db and its directory belong to different users"), "{done:?}");
}

#[test]
fn nothing_is_restored_under_a_running_service() {
    let (mut site, backup) = site_with_backup();
    deliver(&site, "second");
    let service = site.start();
    let done = restore(&site, &backup);
    let told =
        "pop3svc: the service has the mail store open. Stop the service, restore, then start it again\n";
    assert_eq!((done.errors.as_str(), done.exit_code), (told, 1));
    assert_eq!(service.log_in(BOB).count().unwrap(), 2);
    service.stop();
    assert_eq!(named(&site, ".winpop.db").len() + named(&site, "winpop.db.before-").len(), 0);
}

#[test]
fn restore_waits_for_a_command_that_has_the_store_open() {
    let (site, backup) = site_with_backup();
    let present = fs::File::open(site.data_file()).unwrap();
    present.lock().unwrap();
    thread::scope(|scope| {
        let restoring = scope.spawn(|| restore(&site, &backup));
        thread::sleep(Duration::from_millis(300));
        assert!(!restoring.is_finished());
        drop(present);
        assert_eq!(restoring.join().unwrap().exit_code, 0);
    });
}

/// A command that gets the restored store first does not make `restore` report a failure.
#[test]
fn a_store_restored_among_other_commands_is_reported_as_restored() {
    let (site, backup) = site_with_backup();
    let restoring = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while restoring.load(Ordering::Acquire) {
                    site.winpop(&["list"]);
                }
            });
        }
        for _ in 0..10 {
            let done = restore(&site, &backup);
            assert_eq!((done.errors.as_str(), done.exit_code), ("", 0));
        }
        restoring.store(false, Ordering::Release);
    });
    assert_eq!(named(&site, "winpop.db.before-").len(), 10);
    site.assert_clean();
}

#[test]
fn only_whole_stores_are_restored() {
    let (mut site, backup) = site_with_backup();
    deliver(&site, "second");
    let mut octets = fs::read(&backup).unwrap();
    let at = octets.windows(14).position(|octets| octets == b"Subject: first").unwrap();
    octets[at] = b'X';
    let file = |name: &str, octets: &[u8]| {
        let path = site.dir().join(name);
        fs::write(&path, octets).unwrap();
        path
    };
    let cases = [
        (file("damaged", &octets), "damaged and was not restored: "),
        (file("letter", b"Dear Ann"), "letter was not restored: there is no mail store in it"),
        (file("cut", &octets[..octets.len() / 2]), "cut was "),
        (site.dir().join("missing"), "there is no file "),
        (site.data_file(), "winpop.db is the mail store itself"),
    ];
    for (file, told) in &cases {
        let done = restore(&site, file);
        assert!(done.errors.contains(told) && done.errors.lines().count() == 1, "{done:?}");
        assert_eq!(done.exit_code, 1);
    }
    assert_eq!(named(&site, ".winpop.db").len() + named(&site, "winpop.db.before-").len(), 0);
    assert_eq!(messages(&mut site), 2);
}

#[test]
fn restoring_under_another_key_says_so() {
    let (site, backup) = site_with_backup();
    site.succeed(&["key", "--rotate"]);
    let done = restore(&site, &backup);
    assert_eq!(done.exit_code, 0);
    assert!(done.output.contains("winpop.key belongs to another mail store; restore the key"), "{done:?}");
}
