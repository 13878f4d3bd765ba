//! Questions and colours on a terminal.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use super::service::Done;
use crate::harness::PROGRAM;
use crate::harness::site::Site;

const BOB: &str = "bob@example.com";

/// A terminal: the user's end and the program's end.
fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are pseudo-terminals");
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (File::from(ours), theirs)
}

fn winpop(site: &Site, words: &[&str]) -> Command {
    let mut command = site.program(Path::new(PROGRAM));
    command.arg("winpop").args(words).env("TERM", "xterm");
    command
}

/// Runs the command with a terminal on which these lines are typed.
pub fn typed(site: &Site, words: &[&str], lines: &str) -> Done {
    let (mut ours, theirs) = terminal();
    let mut child = winpop(site, words).stdin(OwnedFd::from(theirs)).spawn().unwrap();
    // Input typed before the question for a password is discarded.
    let mut first = [0];
    child.stderr.as_mut().unwrap().read_exact(&mut first).unwrap();
    ours.write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Done {
        output: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8([&first[..], &output.stderr].concat()).unwrap(),
        exit_code: output.status.code().unwrap(),
    }
}

#[test]
fn deleting_a_domain_shows_how_much_it_holds_and_asks() {
    let site = Site::new();
    site.add_mailbox(BOB);
    site.run_with_input(&["deliver", BOB], b"Subject: x\n\ntext\n");
    let done = typed(&site, &["delete", "example.com"], "n\n");
    let question = "Delete example.com with its mailboxes (1) and messages (1, ";
    assert!(done.errors.starts_with(question), "{done:?}");
    assert!(done.errors.ends_with("nothing was deleted\n") && done.exit_code == 1, "{done:?}");
    // There is no question about a domain that does not exist.
    let done = typed(&site, &["delete", "example.org"], "");
    assert!(done.errors.starts_with("winpop: there is no domain example.org"), "{done:?}");
    let done = typed(&site, &["delete", "example.com"], "y\n");
    assert_eq!(done.exit_code, 0, "{done:?}");
    assert_eq!(site.winpop(&["list"]), "There are no domains\n");
}

#[test]
fn a_new_password_is_asked_for_twice() {
    let mut site = Site::new();
    site.add_mailbox(BOB);
    let done = typed(&site, &["changepwd", BOB], "one\nother\n");
    assert!(done.errors.ends_with("winpop: the passwords do not match\n"), "{done:?}");
    let done = typed(&site, &["changepwd", BOB], "other\nother\n");
    assert_eq!(
        (done.output.as_str(), done.exit_code),
        ("Password of bob@example.com changed\n", 0),
        "{done:?}"
    );
    site.winpop(&["changepwd", BOB, crate::harness::PASSWORD]);
    let service = site.start();
    service.log_in(BOB).quit().unwrap();
    service.stop();
}

#[test]
fn ctrl_c_at_the_question_for_a_password_leaves_the_terminal_as_it_was() {
    let site = Site::new();
    site.add_mailbox(BOB);
    let (ours, theirs) = terminal();
    let modes = || tcgetattr(&ours).unwrap().local_modes;
    let before = modes();
    let mut command = winpop(&site, &["changepwd", BOB]);
    let mut child = command.stdin(OwnedFd::from(theirs.try_clone().unwrap())).spawn().unwrap();
    child.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    assert!(!modes().contains(LocalModes::ECHO));
    (&ours).write_all(b"half a passw\x03").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.ends_with(b"winpop: cancelled\n"), "{output:?}");
    assert_eq!(modes(), before);
}

#[test]
fn important_words_are_coloured_on_a_terminal_only() {
    let site = Site::new();
    site.add_mailbox(BOB);
    site.winpop(&["lock", BOB]);
    assert!(!site.winpop(&["list", "example.com"]).contains('\x1b'));
    for (variable, is_coloured) in [("UNUSED", true), ("NO_COLOR", false)] {
        let (mut ours, theirs) = terminal();
        let mut command = winpop(&site, &["list", "example.com"]);
        command.env_remove("NO_COLOR").env(variable, "1").stdout(OwnedFd::from(theirs));
        let mut child = command.spawn().unwrap();
        // Without this the terminal would stay open after the program has ended.
        command.stdout(Stdio::null());
        assert!(child.wait().unwrap().success());
        let mut shown = [0; 4096];
        let count = ours.read(&mut shown).unwrap();
        let shown = String::from_utf8_lossy(&shown[..count]);
        assert!(
            shown.contains("locked") && shown.contains("\x1b[33mlocked\x1b[0m") == is_coloured,
            "{shown:?}"
        );
    }
}
