//! fetchmail, mpop and getmail as they are used by those who leave their mail on the server: each notes what it has fetched.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::dovecot::{MAILBOX, PASSWORD, unique_ids};
use super::scratch::Scratch;

pub const PROGRAMS: [&str; 4] = ["fetchmail", "mpop", "getmail", "setpriv"];

/// Messages that getmail fetches.
const FETCHED_BY_GETMAIL: usize = 7;

/// Octets that each of them has fetched so far.
#[derive(Debug, PartialEq, Eq)]
pub struct Fetched([u64; 3]);

/// Where each notes what it has fetched, below the directory of the test.
pub fn notes(port: u16) -> [String; 3] {
    ["fetchids".to_owned(), "uidls".to_owned(), format!("getmail/oldmail-127.0.0.1-{port}-{MAILBOX}")]
}

/// The server is another one from now on, under the same name and port: what getmail has noted goes by the port.
pub fn move_on(scratch: &Scratch, from: u16, to: u16) {
    let [_, _, before] = notes(from);
    let [_, _, after] = notes(to);
    fs::rename(scratch.path(&before), scratch.path(&after)).expect("getmail has noted something");
}

/// Lets all of them poll. `has_new`: whether there is mail that they have not fetched.
pub fn poll(scratch: &Scratch, port: u16, has_new: bool) -> Fetched {
    Fetched([fetchmail(scratch, port, has_new), mpop(scratch, port), getmail(scratch, port)])
}

fn fetchmail(scratch: &Scratch, port: u16, has_new: bool) -> u64 {
    let configuration = format!(
        "set no syslog\nset invisible\nset pidfile \"{pid}\"\nset idfile \"{ids}\"\n\
         poll 127.0.0.1 service {port} protocol pop3 uidl timeout 60\n  \
         username \"{MAILBOX}\" password \"{PASSWORD}\" sslproto '' keep\n  bsmtp \"{inbox}\"\n",
        pid = scratch.path("fetchmail.pid").display(),
        ids = scratch.path("fetchids").display(),
        inbox = scratch.path("inbox").display(),
    );
    write_secret(scratch, "fetchmailrc", &configuration);
    let outcome = scratch.outcome("fetchmail", &["--fetchmailrc", "fetchmailrc"], b"");
    // 1: there is nothing new.
    assert_eq!(outcome.status.code(), Some(if has_new { 0 } else { 1 }), "{outcome:?}");
    octets(scratch, "inbox")
}

fn mpop(scratch: &Scratch, port: u16) -> u64 {
    write_secret(scratch, "mpoprc", &mpop_configuration(scratch, port, "user", PASSWORD));
    scratch.run("mpop", &["--file=mpoprc"], b"");
    octets(scratch, "mpop-inbox")
}

pub fn mpop_configuration(scratch: &Scratch, port: u16, mechanism: &str, password: &str) -> String {
    format!(
        "account default\nhost 127.0.0.1\nport {port}\nuser {MAILBOX}\npassword {password}\ntls off\nauth {mechanism}\n\
         keep on\ntimeout 60\nuidls_file {uidls}\nreceived_header off\ndelivery mbox {inbox}\n",
        uidls = scratch.path("uidls").display(),
        inbox = scratch.path("mpop-inbox").display(),
    )
}

/// It does not run as root. Since it takes a third of a second for each message, it is made to believe at first that it has
/// all but the last few; what it notes of all of them at the end is its own.
fn getmail(scratch: &Scratch, port: u16) -> u64 {
    let directory = scratch.path("getmail");
    fs::create_dir_all(&directory).expect("it can be made");
    let [_, _, noted] = notes(port);
    if !scratch.path(&noted).exists() {
        let ids = unique_ids(port);
        let known = ids[..ids.len() - FETCHED_BY_GETMAIL].iter();
        let lines: String = known.map(|id| format!("{}\u{0}1700000000\n", id.replace('/', "-"))).collect();
        fs::write(scratch.path(&noted), lines).expect("it can be written");
    }
    let inbox = directory.join("inbox");
    if !inbox.exists() {
        fs::write(&inbox, "").expect("it can be written");
    }
    let configuration = format!(
        "[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\nport = {port}\nusername = {MAILBOX}\n\
         password = {PASSWORD}\n[destination]\ntype = Mboxrd\npath = {inbox}\n\
         [options]\nread_all = false\ndelete = false\ndelivered_to = false\nreceived = false\n",
        inbox = inbox.display(),
    );
    write_secret(scratch, "getmail/getmailrc", &configuration);
    let owned = Command::new("chown").args(["-R", "mail:mail"]).arg(&directory).status();
    assert!(owned.is_ok_and(|status| status.success()));
    let getmaildir = format!("--getmaildir={}", directory.display());
    scratch.run(
        "setpriv",
        &["--reuid=mail", "--regid=mail", "--clear-groups", "getmail", "--quiet", &getmaildir],
        b"",
    );
    octets(scratch, "getmail/inbox")
}

fn octets(scratch: &Scratch, file: &str) -> u64 {
    fs::metadata(scratch.path(file)).expect("it was written").len()
}

/// A file with a password in it, which these programs want nobody else to be able to read.
pub fn write_secret(scratch: &Scratch, name: &str, text: &str) {
    fs::write(scratch.path(name), text).expect("it can be written");
    fs::set_permissions(scratch.path(name), fs::Permissions::from_mode(0o600)).expect("it is ours");
}
