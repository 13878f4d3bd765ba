//! The mail store in another place: the machine's pointer, and a disk of its own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::harness::PROGRAM;
use crate::harness::etc::PrivateEtc;
use crate::harness::site::Site;
use crate::harness::skip::needs_root;

const BOB: &str = "bob@example.com";

/// A site whose commands see a machine without a pointer.
fn site_with_etc() -> Option<Site> {
    if !needs_root("settings of the machine") {
        return None;
    }
    let etc = PrivateEtc::new()?;
    let _ = fs::remove_dir_all(etc.path("etc/winpop"));
    Some(Site::bare(Some(etc)))
}

#[test]
fn the_services_user_can_read_the_pointer_whatever_the_umask_of_root() {
    let Some(site) = site_with_etc() else { return };
    let script = "umask 077; exec \"$0\" winpop set mailroot \"$1\"";
    site.output("sh", &["-c", script, PROGRAM, site.path("mail").to_str().unwrap()], b"");
    let folder = site.etc.as_ref().unwrap().path("etc/winpop");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("mailroot"))), (0o755, 0o644));
}

#[test]
fn a_fresh_machine_gets_its_store_in_the_new_place_only() {
    let Some(site) = site_with_etc() else { return };
    let new = site.path("mail");
    let told = site.winpop(&["set", "mailroot", new.to_str().unwrap()]);
    assert!(told.starts_with(&format!("mailroot is now {}\n", new.display())), "{told}");
    assert!(new.join("winpop.db").exists() && !site.mailroot().exists());
}

#[test]
fn the_hint_copies_a_whole_store_to_another_file_system() {
    let Some(site) = site_with_etc() else { return };
    site.add_mailbox(BOB);
    site.winpop(&["set", "user", "12345"]);
    // The mount lasts as long as the shell.
    let script = "unset WINPOP_MAILROOT
        mkdir -p /etc/winpop \"$1\"
        echo \"$0\" > /etc/winpop/mailroot
        mount -t tmpfs none \"$1\"
        if winpop set mailroot \"$1/mail\" /move 2> told; then exit 1; fi
        eval \"$(sed 's/.*To copy it there: //' told)\"
        pop3svc check
        pop3svc key
        winpop list example.com
        stat --format %u \"$1\"/mail \"$1\"/mail/winpop.db \"$1\"/mail/winpop.key";
    let (old, disk) = (site.mailroot(), site.path("disk"));
    let words = ["-euc", script, old.to_str().unwrap(), disk.to_str().unwrap()];
    let told = site.output("sh", &words, b"");
    assert!(told.contains("disk/mail/winpop.key") && !told.contains("do not work"), "{told}");
    assert!(told.contains(BOB) && told.ends_with("\n12345\n12345\n12345\n"), "{told}");
}
