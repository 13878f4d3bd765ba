//! A full disk: mail is refused for the moment, readers read and delete, and the service recovers once there is room.
//!
//! The mail store is a small file system that only root can mount.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::Command;

use super::client::Lmtp;
use super::service::Service;
use crate::harness::PASSWORD;
use crate::harness::programs::have_namespaces;
use crate::harness::site::Site;
use crate::harness::skip::needs_root;

const DISK: &str = "size=28m,mode=700";
const BOB: &str = "bob@example.com";
const NO_SPACE: &str = "452 4.3.1 ";
/// How many messages ([`message`]) must fit. Their octets alone would allow about 40.
const STORED_MIN: usize = 20;

/// A file system in memory; unmounted when dropped.
struct Mount {
    path: PathBuf,
}

impl Mount {
    /// `None`, with a message, if it cannot be mounted here.
    fn at_mailroot(site: &Site) -> Option<Self> {
        // If we may create a mount namespace, we may also mount.
        if !needs_root("mounting a file system") || !have_namespaces(&["--mount"]) {
            return None;
        }
        let path = site.mailroot();
        fs::create_dir(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "pop3svc-test"]).arg(&path).output();
        let mounted = mounted.expect("mount can be run");
        assert!(mounted.status.success(), "{mounted:?}");
        Some(Self { path })
    }

    /// Fills the file system to the last octet.
    fn fill(&self) -> PathBuf {
        let path = self.path.join("foreign");
        let mut file = File::create(&path).unwrap();
        for octets in [1 << 20, 4096, 1] {
            let piece = vec![7; octets];
            let full = std::iter::repeat_with(|| file.write(&piece)).find_map(Result::err).unwrap();
            assert_eq!(full.kind(), ErrorKind::StorageFull);
        }
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

/// `None` if [`Mount::at_mailroot`] is.
fn site_on_small_disk() -> Option<(Site, Mount)> {
    let site = Site::without_store();
    let mount = Mount::at_mailroot(&site)?;
    site.configure();
    site.add_mailbox(BOB);
    Some((site, mount))
}

/// Half a MiB, different for each message.
fn message(number: usize) -> Vec<u8> {
    let line = format!("{number} {}\r\n", "x".repeat(70));
    format!("Subject: {number}\r\n\r\n{}", line.repeat((512 << 10) / line.len())).into_bytes()
}

/// Stores messages from this number on until there is no room. Returns the number of the refused one.
fn store_until_full(lmtp: &mut Lmtp, first: usize) -> usize {
    for number in first.. {
        let replies = lmtp.deliver(&[BOB], &message(number)).unwrap();
        if !replies[0].starts_with("250") {
            assert!(replies[0].starts_with(NO_SPACE), "{replies:?}");
            return number;
        }
    }
    unreachable!("the disk has an end")
}

fn assert_holds(service: &Service, numbers: impl Iterator<Item = usize>) {
    let contents = service.log_in(BOB).contents().unwrap();
    let expected: Vec<Vec<u8>> = numbers.map(message).collect();
    assert_eq!(contents.len(), expected.len());
    assert!(contents == expected, "the contents are what was sent");
}

#[test]
fn a_full_disk_refuses_mail_and_lets_readers_make_room() {
    let Some((mut site, mount)) = site_on_small_disk() else { return };
    let service = site.start();
    let mut lmtp = service.lmtp();
    let stored = store_until_full(&mut lmtp, 0);
    assert!(stored >= STORED_MIN, "only {stored} messages found room");
    let mut smtp = service.smtp().unwrap();
    smtp.line().unwrap();
    smtp.ask("HELO test.example").unwrap();
    for command in ["MAIL FROM:<>", &format!("RCPT TO:<{BOB}>"), "DATA"] {
        let reply = smtp.ask(command).unwrap();
        assert!(reply.starts_with(['2', '3']), "{reply}");
    }
    smtp.send(&message(stored)).unwrap();
    let reply = smtp.ask(".").unwrap();
    assert!(reply.starts_with(NO_SPACE), "{reply}");
    assert_eq!(site.run_with_input(&["deliver", BOB], &message(stored)).exit_code, 75);
    site.assert_clean();
    assert_holds(&service, 0..stored);

    // The service can also be stopped and started on a full disk.
    service.stop();
    let service = site.start();
    let mut lmtp = service.lmtp();
    let mut session = service.log_in(BOB);
    (1..=stored / 2).for_each(|number| session.delete(number).unwrap());
    session.quit().unwrap();
    site.assert_clean();
    let again = store_until_full(&mut lmtp, stored);
    let (deleted, room) = (stored / 2, again - stored);
    assert!(room + 2 >= deleted, "after {deleted} were deleted, only {room} found room");
    assert_holds(&service, deleted..again);
    site.assert_clean();
    service.stop();
    site.assert_clean();
    drop(mount);
}

#[test]
fn a_foreign_file_that_takes_the_last_octet_stops_mail_and_nothing_else() {
    let Some((mut site, mount)) = site_on_small_disk() else { return };
    let service = site.start();
    let mut lmtp = service.lmtp();
    (0..10).for_each(|number| lmtp.store(BOB, &message(number)));

    let foreign = mount.fill();
    assert_eq!(store_until_full(&mut lmtp, 10), 10, "there is no room for a single one");
    assert_holds(&service, 0..10);
    for _ in 0..3 {
        let mut session = service.log_in(BOB);
        session.delete(1).unwrap();
        session.quit().unwrap();
    }
    site.winpop(&["changepwd", BOB, PASSWORD]);
    site.winpop(&["lock", BOB]);
    site.winpop(&["unlock", BOB]);
    site.assert_clean();
    assert_holds(&service, 3..10);

    fs::remove_file(foreign).unwrap();
    let next = store_until_full(&mut lmtp, 10);
    assert!(next >= 20, "only {} messages found room", next - 10);
    assert_holds(&service, 3..next);
    service.stop();
    site.assert_clean();
    drop(mount);
}
