//! Copies of the store: made while it is served, restored, cut short.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::client::Lmtp;
use super::service::{Service, eventually};
use crate::harness::PROGRAM;
use crate::harness::programs::{have, have_namespaces};
use crate::harness::site::Site;
use crate::harness::skip::needs_root;

pub const BOB: &str = "bob@example.com";
/// Of a mebibyte each, so that a backup takes long enough to be interrupted.
const LARGE_MESSAGES: usize = 48;

/// A site with this file as its data file.
pub fn restored(file: &Path) -> Site {
    let site = Site::without_store();
    fs::create_dir(site.mailroot()).unwrap();
    fs::copy(file, site.data_file()).unwrap();
    site.assert_clean();
    site.configure();
    site
}

pub fn contents_in(site: &mut Site) -> Vec<Vec<u8>> {
    let service = site.start();
    let contents = service.log_in(BOB).contents().unwrap();
    service.terminate();
    let (status, log) = service.wait();
    // The key was not copied with the data file, and the service reports that.
    assert!(status.success() && !log.contains("panicked") && log.contains("winpop.key is missing"), "{log}");
    contents
}

pub fn numbered(number: usize) -> Vec<u8> {
    format!("Subject: {number}\r\n\r\n{}\r\n", "words ".repeat(number % 1000)).into_bytes()
}

#[test]
fn a_backup_of_a_service_under_load_holds_what_was_acknowledged_before() {
    let mut site = Site::new();
    site.add_mailbox(BOB);
    let service = site.start();
    let file = site.dir().join("winpop.backup");
    let (acknowledged, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut least_in_last = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut lmtp = Lmtp::connect(service.ports().lmtp).unwrap();
            while !enough.load(Ordering::Acquire) {
                lmtp.store(BOB, &numbered(acknowledged.load(Ordering::Acquire)));
                acknowledged.fetch_add(1, Ordering::AcqRel);
            }
        });
        // Each replaces the one before.
        for times in 1..=5 {
            eventually("some more mail is there", || acknowledged.load(Ordering::Acquire) >= 40 * times);
            least_in_last = acknowledged.load(Ordering::Acquire);
            site.succeed(&["backup", &file.to_string_lossy()]);
            site.succeed(&["check", &file.to_string_lossy()]);
        }
        enough.store(true, Ordering::Release);
    });
    let all = acknowledged.into_inner();
    assert_eq!(service.log_in(BOB).count().unwrap(), all);
    service.stop();
    let contents = contents_in(&mut restored(&file));
    assert!((least_in_last..=all).contains(&contents.len()), "{least_in_last} {} {all}", contents.len());
    for (number, content) in contents.iter().enumerate() {
        assert!(*content == numbered(number), "message {number}");
    }
}

#[test]
fn a_missing_file_is_not_checked_but_called_missing() {
    let site = Site::new();
    for more in [&[][..], &["--repair"]] {
        let done = site.run(&[&["check", "nosuch"], more].concat());
        assert_eq!((done.errors.as_str(), done.exit_code), ("pop3svc: there is no file nosuch\n", 1));
    }
}

#[test]
fn nothing_but_a_backup_is_replaced() {
    let mut site = Site::new();
    let other = site.dir().join("letter.txt");
    fs::write(&other, "no store").unwrap();
    let refused = |site: &Site| {
        let done = site.run(&["backup", &other.to_string_lossy()]);
        let sentence = format!(
            "pop3svc: {} exists and is not a backup, so it is not overwritten. Choose another file, or remove this one\n",
            other.display()
        );
        assert_eq!((done.errors, done.exit_code), (sentence, 1));
        assert_eq!(fs::read_to_string(&other).unwrap(), "no store");
        // The store's own data file is not a backup.
        let done = site.run(&["backup", &site.data_file().to_string_lossy()]);
        assert_eq!((done.errors.lines().count(), done.exit_code), (1, 1), "{done:?}");
        let done = site.run(&["backup", &site.dir().join("nowhere/file").to_string_lossy()]);
        assert_eq!((done.errors.lines().count(), done.exit_code), (1, 1), "{done:?}");
    };
    refused(&site);
    let service = site.start();
    refused(&site);
    service.stop();
    site.assert_clean();
}

#[test]
fn another_store_that_is_not_served_is_not_replaced() {
    let (site, other) = (Site::new(), Site::new());
    other.add_mailbox(BOB);
    let file = other.data_file();
    let done = site.run(&["backup", &file.to_string_lossy()]);
    assert!(done.errors.contains("seems to be another mail store's data file"), "{done:?}");
    assert_eq!((done.errors.lines().count(), done.exit_code), (1, 1));
    other.assert_clean();
    assert!(other.winpop(&["list", "example.com"]).contains(BOB));
    // A backup may have the name of a data file.
    fs::remove_file(other.mailroot().join("winpop.key")).unwrap();
    site.succeed(&["backup", &file.to_string_lossy()]);
}

/// A site with this many numbered messages; its service is stopped.
pub fn stopped_with(messages: usize) -> Site {
    let mut site = Site::new();
    site.add_mailbox(BOB);
    let service = site.start();
    (0..messages).for_each(|number| service.lmtp().store(BOB, &numbered(number)));
    service.stop();
    site
}

#[test]
fn a_copy_of_the_file_while_stopped_is_a_backup() {
    let site = stopped_with(50);
    let contents = contents_in(&mut restored(&site.data_file()));
    assert_eq!(contents, (0..50).map(numbered).collect::<Vec<_>>());
}

/// A store whose backup takes long enough to be interrupted, and an earlier backup.
fn large_site() -> (Site, Service) {
    let mut site = Site::new();
    site.add_mailbox(BOB);
    site.succeed(&["backup", &backup_file(&site)]);
    let service = site.start();
    let mut lmtp = service.lmtp();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..LARGE_MESSAGES {
        let line = |_| format!("{0:016x}{1:016x}{0:016X}{1:016X}\r\n", random.u64(..), random.u64(..));
        let content: String = (0..(1 << 20) / 66).map(line).collect();
        lmtp.store(BOB, content.as_bytes());
    }
    (site, service)
}

fn backup_file(site: &Site) -> String {
    site.dir().join("winpop.backup").to_string_lossy().into_owned()
}

/// Begins a backup and waits until part of it is written.
fn begin_backup(site: &Site) -> Child {
    let before = unfinished(site);
    let mut command = site.program(Path::new(PROGRAM));
    let child = command.args(["backup", &backup_file(site)]).spawn().expect("the program can be run");
    eventually("some of the backup is there", || {
        let mut new = unfinished(site).into_iter().filter(|name| !before.contains(name));
        new.any(|name| fs::metadata(site.dir().join(name)).is_ok_and(|draft| draft.len() > 0))
    });
    child
}

fn unfinished(site: &Site) -> BTreeSet<String> {
    let names = fs::read_dir(site.dir()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".unfinished")).collect()
}

#[test]
fn a_backup_that_is_killed_leaves_the_old_one() {
    let (site, service) = large_site();
    service.stop();
    let old = fs::read(backup_file(&site)).unwrap();
    let mut child = begin_backup(&site);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success(), "it was killed before its end");
    assert!(fs::read(backup_file(&site)).unwrap() == old);
    site.assert_clean();
    assert_eq!(unfinished(&site).len(), 1);
    site.succeed(&["backup", &backup_file(&site)]);
    assert_eq!(unfinished(&site).len(), 0);
    assert_eq!(contents_in(&mut restored(Path::new(&backup_file(&site)))).len(), LARGE_MESSAGES);
}

/// The service goes on writing to the file, which the next backup removes.
#[test]
fn a_backup_whose_administrator_is_killed_leaves_the_old_one() {
    let (site, service) = large_site();
    let old = fs::read(backup_file(&site)).unwrap();
    // The service does the check, because it has the file open.
    site.succeed(&["check", &site.data_file().to_string_lossy()]);
    let mut child = begin_backup(&site);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(fs::read(backup_file(&site)).unwrap() == old);
    eventually("the next backup removes what was left", || {
        site.succeed(&["backup", &backup_file(&site)]);
        unfinished(&site).is_empty()
    });
    service.stop();
    site.assert_clean();
    assert_eq!(contents_in(&mut restored(Path::new(&backup_file(&site)))).len(), LARGE_MESSAGES);
}

/// As a systemd unit runs it: another user, a private /tmp, and read-only file systems.
#[test]
fn a_service_that_sees_other_file_systems_backs_up_to_where_the_administrator_says() {
    const NOBODY: u32 = 65534;
    if !in_a_mount_namespace_of_its_own() {
        return;
    }
    let mut site = Site::new();
    site.add_mailbox(BOB);
    let (private, protected) = (site.dir().join("private"), site.dir().join("protected"));
    fs::create_dir(&private).unwrap();
    fs::create_dir(&protected).unwrap();
    let program = site.path("pop3svc");
    fs::copy(PROGRAM, &program).unwrap();
    for path in [site.mailroot(), site.data_file(), site.mailroot().join("winpop.key")] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let script = "mount -t tmpfs none \"$1\" && mount --bind \"$2\" \"$2\" && mount -o remount,bind,ro \"$2\" && \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$3\" serve";
    let service = site.start_by(|site| {
        let mut command = site.program(Path::new("unshare"));
        command.args(["--mount", "sh", "-c", script, "sh"]).args([&private, &protected, &program]);
        command
    });
    service.lmtp().store(BOB, &numbered(1));
    for dir in [&private, &protected] {
        let file = dir.join("winpop.backup");
        let told = site.succeed(&["backup", &file.to_string_lossy()]);
        assert!(told.starts_with(&format!("{}: 1 message", file.display())), "{told}");
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, 0o600));
        assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
        assert_eq!(contents_in(&mut restored(&file)), [numbered(1)]);
    }
    let done = site.run(&["backup", &private.join("no/file").to_string_lossy()]);
    let told = format!(
        "pop3svc: there is no directory {}. Create it first, or choose another directory\n",
        private.join("no").display()
    );
    assert_eq!((done.errors, done.exit_code), (told, 1));
    service.stop();
}

/// True if a service can get its own mounts here. A container may forbid that.
fn in_a_mount_namespace_of_its_own() -> bool {
    needs_root("giving the service other file systems") && have(&["setpriv"]) && have_namespaces(&["--mount"])
}

#[test]
fn a_service_that_is_killed_during_a_backup_leaves_the_old_one() {
    let (mut site, service) = large_site();
    let old = fs::read(backup_file(&site)).unwrap();
    let child = begin_backup(&site);
    service.kill();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("the service ended before it answered"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(fs::read(backup_file(&site)).unwrap() == old);
    site.assert_clean();
    let service = site.start();
    site.succeed(&["backup", &backup_file(&site)]);
    service.stop();
    assert_eq!(contents_in(&mut restored(Path::new(&backup_file(&site)))).len(), LARGE_MESSAGES);
}
