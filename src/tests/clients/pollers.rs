//! fetchmail, mpop and getmail, configured to leave mail on the server: each notes what it has fetched.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;

use super::dovecot::{MAILBOX, PASSWORD};
use crate::harness::site::Site;

pub const PROGRAMS: [&str; 4] = ["fetchmail", "mpop", "getmail", "setpriv"];

/// The octets that each of them has fetched in a poll.
pub type Fetched = [u64; 3];

/// The files in which they note what they have fetched, below the test's directory.
pub fn notes(port: u16) -> [String; 3] {
    ["fetchids".to_owned(), "uidls".to_owned(), format!("getmail/oldmail-127.0.0.1-{port}-{MAILBOX}")]
}

/// From now on another server has the same name. getmail's notes go by the port, so they move to the new one.
pub fn move_on(site: &Site, from: u16, to: u16) {
    let [_, _, before] = notes(from);
    let [_, _, after] = notes(to);
    fs::rename(site.path(&before), site.path(&after)).expect("getmail has noted something");
}

/// Lets all of them poll and returns what they have fetched. `has_new`: whether there is new mail for them.
pub fn poll(site: &Site, port: u16, has_new: bool) -> Fetched {
    let before = [octets(site, "inbox"), octets(site, "mpop-inbox")];
    fetchmail(site, port, has_new);
    mpop(site, port);
    let of_getmail = getmail(site, port);
    [octets(site, "inbox") - before[0], octets(site, "mpop-inbox") - before[1], of_getmail]
}

/// Lets fetchmail poll, and returns how much it has fetched so far.
pub fn fetchmail_has(site: &Site, port: u16, has_new: bool) -> u64 {
    fetchmail(site, port, has_new);
    octets(site, "inbox")
}

fn fetchmail(site: &Site, port: u16, has_new: bool) {
    let configuration = format!(
        "set no syslog\nset invisible\nset pidfile \"{pid}\"\nset idfile \"{ids}\"\n\
         poll 127.0.0.1 service {port} protocol pop3 uidl timeout 60\n  \
         username \"{MAILBOX}\" password \"{PASSWORD}\" sslproto '' keep\n  bsmtp \"{inbox}\"\n",
        pid = site.path("fetchmail.pid").display(),
        ids = site.path("fetchids").display(),
        inbox = site.path("inbox").display(),
    );
    write_secret(site, "fetchmailrc", &configuration);
    let outcome = site.outcome("fetchmail", &["--fetchmailrc", "fetchmailrc"], b"");
    // 1: there is nothing new.
    assert_eq!(outcome.status.code(), Some(if has_new { 0 } else { 1 }), "{outcome:?}");
}

fn mpop(site: &Site, port: u16) {
    write_secret(site, "mpoprc", &mpop_configuration(site, port, "user", PASSWORD));
    site.output("mpop", &["--file=mpoprc"], b"");
}

pub fn mpop_configuration(site: &Site, port: u16, mechanism: &str, password: &str) -> String {
    format!(
        "account default\nhost 127.0.0.1\nport {port}\nuser {MAILBOX}\npassword {password}\ntls off\nauth {mechanism}\n\
         keep on\ntimeout 60\nuidls_file {uidls}\nreceived_header off\ndelivery mbox {inbox}\n",
        uidls = site.path("uidls").display(),
        inbox = site.path("mpop-inbox").display(),
    )
}

/// getmail does not run as root. It delivers by LMTP here, because otherwise it forks for each message and may miss the
/// child's end.
fn getmail(site: &Site, port: u16) -> u64 {
    let directory = site.path("getmail");
    fs::create_dir_all(&directory).expect("it can be made");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there is a port");
    let configuration = format!(
        "[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\nport = {port}\nusername = {MAILBOX}\n\
         password = {PASSWORD}\n[destination]\ntype = MDA_lmtp\nhost = 127.0.0.1\nport = {lmtp}\noverride = {MAILBOX}\n\
         [options]\nread_all = false\ndelete = false\n",
        lmtp = listener.local_addr().expect("it is bound").port(),
    );
    write_secret(site, "getmail/getmailrc", &configuration);
    let owned = Command::new("chown").args(["-R", "mail:mail"]).arg(&directory).status();
    assert!(owned.is_ok_and(|status| status.success()));
    let taking = thread::spawn(move || take_in(&listener));
    let getmaildir = format!("--getmaildir={}", directory.display());
    site.output(
        "setpriv",
        &["--reuid=mail", "--regid=mail", "--clear-groups", "getmail", "--quiet", &getmaildir],
        b"",
    );
    taking.join().expect("it does not panic").expect("getmail speaks LMTP")
}

/// Accepts what one client delivers by LMTP, and returns its octets.
fn take_in(listener: &TcpListener) -> io::Result<u64> {
    let (mut stream, _) = listener.accept()?;
    let mut lines = BufReader::new(stream.try_clone()?).split(b'\n');
    let mut octets = 0;
    stream.write_all(b"220 here\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let reply: &[u8] = match line.to_ascii_uppercase().trim_ascii() {
            b"DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                while let Some(line) = lines.next().transpose()?.filter(|line| line != b".\r") {
                    octets += line.len() as u64;
                }
                b"250 taken\r\n"
            }
            b"QUIT" => b"221 bye\r\n",
            _ => b"250 yes\r\n",
        };
        stream.write_all(reply)?;
    }
    Ok(octets)
}

fn octets(site: &Site, file: &str) -> u64 {
    fs::metadata(site.path(file)).map_or(0, |file| file.len())
}

/// Writes a file with a password; these programs insist that nobody else can read it.
pub fn write_secret(site: &Site, name: &str, text: &str) {
    fs::write(site.path(name), text).expect("it can be written");
    fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o600)).expect("it is ours");
}
