//! Mailboxes of a Dovecot, taken in by `pop3svc import`: a mail program that leaves its mail on the server sees the same list
//! before and after, and fetches nothing twice.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::dovecot::{Dovecot, have_dovecot_and};
use super::scratch::Scratch;

pub const MAILBOX: &str = "bob@example.com";
/// Its `pop3_uidl_format`, and how many messages lie in the mailbox: one time many.
pub const FORMATS: [(&str, usize); 3] = [("%08Xu%08Xv", 1000), ("%v.%u", 40), ("%f", 40)];
/// What a server says of a mailbox to LIST and UIDL.
pub fn lists(port: u16, mailbox: &str) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it answers");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("it is no zero");
    let commands = format!("USER {mailbox}\r\nPASS secret\r\nLIST\r\nUIDL\r\nQUIT\r\n");
    stream.write_all(commands.as_bytes()).expect("it reads");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("it says it in ASCII");
    let is_of_list = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
    said.lines().filter(is_of_list).map(str::to_owned).collect()
}

/// Polls as a program does that leaves its mail there; the size of all that it has fetched so far.
pub fn poll(scratch: &Scratch, port: u16, exit_code: i32) -> u64 {
    let configuration = format!(
        "set no syslog\nset invisible\nset pidfile \"{pid}\"\nset idfile \"{ids}\"\n\
         poll 127.0.0.1 service {port} protocol pop3 uidl timeout 60\n  \
         username \"{MAILBOX}\" password \"secret\" sslproto '' keep\n  mda \"cat >> {inbox}\"\n",
        pid = scratch.path("fetchmail.pid").display(),
        ids = scratch.path("fetchids").display(),
        inbox = scratch.path("inbox").display(),
    );
    fs::write(scratch.path("fetchmailrc"), configuration).expect("it can be written");
    fs::set_permissions(scratch.path("fetchmailrc"), fs::Permissions::from_mode(0o600)).expect("it is ours");
    let outcome = scratch.outcome("fetchmail", &["--fetchmailrc", "fetchmailrc"], b"");
    assert_eq!(outcome.status.code(), Some(exit_code), "{outcome:?}");
    fs::metadata(scratch.path("inbox")).expect("fetchmail wrote it").len()
}

#[test]
fn nothing_of_a_dovecot_is_fetched_twice_after_the_import() {
    if !have_dovecot_and(&["fetchmail"]) {
        return;
    }
    for (uidl_format, messages) in FORMATS {
        let scratch = Scratch::new();
        let dovecot = Dovecot::start(&scratch.path(""), uidl_format);
        dovecot.bring("bob", messages);
        dovecot.own_mail();
        let before = lists(dovecot.port, MAILBOX);
        assert_eq!(before.len(), 2 * messages, "{uidl_format}");
        let fetched = poll(&scratch, dovecot.port, 0);

        let service = scratch.serve();
        service.add_mailbox(MAILBOX);
        let template = format!("{}/{{domain}}/{{user}}", dovecot.mail.display());
        let import = ["import", "maildir", &template, "--uidl", uidl_format];
        let done = scratch.run("pop3svc", &import, b"");
        assert!(done.contains(&format!("{messages} with the id that mail programs know, 0 with")), "{done}");
        let again = scratch.run("pop3svc", &import, b"");
        assert!(again.contains(&format!("{messages} there already")), "{again}");

        let port = service.port("POP3").parse().expect("a port");
        assert_eq!(lists(port, MAILBOX), before, "{uidl_format}");
        // 1: there is nothing new.
        assert_eq!(poll(&scratch, port, 1), fetched, "{uidl_format}");
        drop(dovecot);

        // And back, into a Dovecot that is new: the same list again.
        let back = Dovecot::start(&scratch.path("back"), "%08Xu%08Xv");
        let directory = back.mail.to_string_lossy().into_owned();
        scratch.run("pop3svc", &["export", "maildir", &directory], b"");
        back.own_mail();
        assert_eq!(lists(back.port, MAILBOX), before, "{uidl_format}");
        assert_eq!(poll(&scratch, back.port, 1), fetched, "{uidl_format}");
        service.end();
    }
}
