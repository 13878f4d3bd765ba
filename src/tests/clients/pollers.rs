//! fetchmail, mpop and getmail as they are used by those who leave their mail on the server: each notes what it has
//! fetched.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;

use super::dovecot::{MAILBOX, PASSWORD};
use super::scratch::Scratch;

pub const PROGRAMS: [&str; 4] = ["fetchmail", "mpop", "getmail", "setpriv"];

/// Octets that each of them has fetched in a poll.
pub type Fetched = [u64; 3];

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

/// Lets all of them poll, and returns what they have fetched. `has_new`: whether there is mail that they have not.
pub fn poll(scratch: &Scratch, port: u16, has_new: bool) -> Fetched {
    let before = [octets(scratch, "inbox"), octets(scratch, "mpop-inbox")];
    fetchmail(scratch, port, has_new);
    mpop(scratch, port);
    let of_getmail = getmail(scratch, port);
    [octets(scratch, "inbox") - before[0], octets(scratch, "mpop-inbox") - before[1], of_getmail]
}

/// Lets fetchmail alone poll, and returns how much it has fetched so far.
pub fn fetchmail_has(scratch: &Scratch, port: u16, has_new: bool) -> u64 {
    fetchmail(scratch, port, has_new);
    octets(scratch, "inbox")
}

fn fetchmail(scratch: &Scratch, port: u16, has_new: bool) {
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
}

fn mpop(scratch: &Scratch, port: u16) {
    write_secret(scratch, "mpoprc", &mpop_configuration(scratch, port, "user", PASSWORD));
    scratch.run("mpop", &["--file=mpoprc"], b"");
}

pub fn mpop_configuration(scratch: &Scratch, port: u16, mechanism: &str, password: &str) -> String {
    format!(
        "account default\nhost 127.0.0.1\nport {port}\nuser {MAILBOX}\npassword {password}\ntls off\nauth {mechanism}\n\
         keep on\ntimeout 60\nuidls_file {uidls}\nreceived_header off\ndelivery mbox {inbox}\n",
        uidls = scratch.path("uidls").display(),
        inbox = scratch.path("mpop-inbox").display(),
    )
}

/// It does not run as root, and delivers by LMTP, since in other ways it forks for each message and may miss the
/// child's end.
fn getmail(scratch: &Scratch, port: u16) -> u64 {
    let directory = scratch.path("getmail");
    fs::create_dir_all(&directory).expect("it can be made");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there is a port");
    let configuration = format!(
        "[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\nport = {port}\nusername = {MAILBOX}\n\
         password = {PASSWORD}\n[destination]\ntype = MDA_lmtp\nhost = 127.0.0.1\nport = {lmtp}\noverride = {MAILBOX}\n\
         [options]\nread_all = false\ndelete = false\n",
        lmtp = listener.local_addr().expect("it is bound").port(),
    );
    write_secret(scratch, "getmail/getmailrc", &configuration);
    let owned = Command::new("chown").args(["-R", "mail:mail"]).arg(&directory).status();
    assert!(owned.is_ok_and(|status| status.success()));
    let taking = thread::spawn(move || take_in(&listener));
    let getmaildir = format!("--getmaildir={}", directory.display());
    scratch.run(
        "setpriv",
        &["--reuid=mail", "--regid=mail", "--clear-groups", "getmail", "--quiet", &getmaildir],
        b"",
    );
    taking.join().expect("it does not panic").expect("getmail speaks LMTP")
}

/// Takes in what one client brings by LMTP, and returns how many octets that was.
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

fn octets(scratch: &Scratch, file: &str) -> u64 {
    fs::metadata(scratch.path(file)).map_or(0, |file| file.len())
}

/// A file with a password in it, which these programs want nobody else to be able to read.
pub fn write_secret(scratch: &Scratch, name: &str, text: &str) {
    fs::write(scratch.path(name), text).expect("it can be written");
    fs::set_permissions(scratch.path(name), fs::Permissions::from_mode(0o600)).expect("it is ours");
}
