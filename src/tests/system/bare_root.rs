//! A root directory that holds only the program, as in an empty container image or a chroot: no `/dev`, `/proc` or
//! `/etc`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::service::finish;
use crate::harness::PROGRAM;
use crate::harness::site::Site;
use crate::harness::skip::needs_root;

fn program_in(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("chroot");
    command.arg(root).args(["/pop3svc", "--mailroot", "/mail"]).args(words).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Otherwise chroot itself would not be found.
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

#[test]
fn everything_works_without_dev_proc_and_etc() {
    if !needs_root("chroot") {
        return;
    }
    let site = Site::without_store();
    let root = site.dir().join("root");
    fs::create_dir(&root).unwrap();
    fs::copy(PROGRAM, root.join("pop3svc")).unwrap();
    let succeed = |words: &[&str], input: &[u8]| {
        let done = finish(&mut program_in(&root, words), input);
        assert_eq!((done.exit_code, done.errors.as_str()), (0, ""), "{words:?}: {done:?}");
        done.output
    };
    succeed(&["winpop", "add", "example.com"], b"");
    succeed(&["winpop", "add", "ann@example.com", "/createuser", "-"], b"secret\n");
    succeed(&["deliver", "ann@example.com"], b"Subject: x\n\nhello\n");
    let ports = site.ports();
    let settings = [
        ("listen", "127.0.0.1".to_owned()),
        ("logging", "3".to_owned()),
        ("port", ports.pop3.to_string()),
        ("tlsport", ports.pop3s.to_string()),
        ("smtpport", ports.smtp.to_string()),
        ("lmtpport", ports.lmtp.to_string()),
    ];
    for (key, value) in &settings {
        succeed(&["winpop", "set", key, value], b"");
    }
    assert!(succeed(&["key"], b"").contains("1"));
    succeed(&["check"], b"");

    let mut service = program_in(&root, &["serve"]).spawn().unwrap();
    let mut log = BufReader::new(service.stderr.take().unwrap()).lines();
    let is_up = log.by_ref().any(|line| line.unwrap().contains("SMTP on 127.0.0.1"));
    assert!(is_up, "the service ended instead of serving");
    kill_process(Pid::from_child(&service), Signal::TERM).unwrap();
    assert!(log.all(|line| !line.unwrap().contains("critical: ")));
    assert!(service.wait().unwrap().success());
}
