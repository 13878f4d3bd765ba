//! Debian's Dovecot, from which mailboxes come and to which they go.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::foreign::{have, write_past_the_runner};
use super::scratch::free_port;

pub const MAILBOX: &str = "bob@example.com";
pub const PASSWORD: &str = "secret";
/// How often it is looked whether it answers, and how long between two looks.
const LOOKS_MAX: usize = 1500;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// Longest that a server may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Whether it can be run. Where not, the test that asks is to return.
pub fn is_there(programs: &[&str]) -> bool {
    if !have(&[&["dovecot"], programs].concat()) {
        return false;
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        write_past_the_runner("passed over: it takes root to run Dovecot");
    }
    is_root
}

/// How it keeps mail and accounts.
pub struct Kind<'a> {
    /// `maildir` or `mbox`.
    pub store: &'a str,
    pub uidl_format: &'a str,
    /// A passwd-file; none: one password for all.
    pub accounts: Option<&'a Path>,
}

impl Default for Kind<'_> {
    fn default() -> Self {
        Self { store: "maildir", uidl_format: "%08Xu%08Xv", accounts: None }
    }
}

/// Running, with a Maildir or mbox for each user at `mail/DOMAIN/USER`; ended when dropped.
pub struct Dovecot {
    child: Child,
    pub port: u16,
    pub mail: PathBuf,
}

impl Dovecot {
    pub fn start(directory: &Path, kind: &Kind) -> Self {
        let (base, port) = (directory.join("dovecot"), free_port());
        let mail = base.join("mail");
        fs::create_dir_all(base.join("home")).expect("it can be made");
        fs::create_dir_all(&mail).expect("it can be made");
        let location = match kind.store {
            "mbox" => format!("mbox:{base}/home/%d/%n:INBOX={base}/mail/%d/%n", base = base.display()),
            store => format!("{store}:{}/%d/%n", mail.display()),
        };
        let passdb = match kind.accounts {
            None => format!("driver = static\n args = password={PASSWORD}"),
            Some(file) => format!("driver = passwd-file\n args = {}", file.display()),
        };
        let configuration = format!(
            "protocols = pop3\nbase_dir = {base}/run\nlog_path = {base}/log\nlisten = 127.0.0.1\nssl = no\n\
             disable_plaintext_auth = no\nauth_mechanisms = plain scram-sha-256\nmail_location = {location}\n\
             pop3_uidl_format = {uidl_format}\npop3_reuse_xuidl = yes\nfirst_valid_uid = 1\n\
             passdb {{\n {passdb}\n}}\n\
             userdb {{\n driver = static\n args = uid=mail gid=mail home={base}/home/%d/%n\n}}\n\
             service pop3-login {{\n inet_listener pop3 {{\n port = {port}\n }}\n inet_listener pop3s {{\n port = 0\n }}\n}}\n",
            base = base.display(),
            uidl_format = kind.uidl_format,
        );
        let file = base.join("dovecot.conf");
        fs::write(&file, configuration).expect("it can be written");
        let output = fs::File::create(base.join("output")).expect("it can be written");
        let mut command = Command::new("dovecot");
        command.arg("-F").arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let child = command.spawn().expect("it can be run");
        let answers = (0..LOOKS_MAX).any(|_| {
            let is_there = TcpStream::connect(("127.0.0.1", port)).is_ok();
            if !is_there {
                thread::sleep(BETWEEN_LOOKS);
            }
            is_there
        });
        assert!(answers, "{:?}", fs::read_to_string(base.join("output")));
        let dovecot = Self { child, port, mail };
        dovecot.own_mail();
        dovecot
    }

    /// Where the mail of [`MAILBOX`] lies.
    pub fn mailbox(&self) -> PathBuf {
        self.mail.join("example.com/bob")
    }

    /// Its processes run as another user, whom the mail has to belong to.
    pub fn own_mail(&self) {
        let home = self.mail.with_file_name("home");
        let owned = Command::new("chown").args(["-R", "mail:mail"]).arg(&self.mail).arg(home).status();
        assert!(owned.is_ok_and(|status| status.success()));
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // SIGTERM, so that it ends its own children.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// What a server says of the mailbox.
pub struct Session(String);

impl Session {
    /// Logs in and gives these commands.
    pub fn hold(port: u16, commands: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it answers");
        stream.set_read_timeout(Some(SILENCE_MAX)).expect("it is no zero");
        let commands = format!("USER {MAILBOX}\r\nPASS {PASSWORD}\r\n{commands}QUIT\r\n");
        stream.write_all(commands.as_bytes()).expect("it reads");
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("it answers to its end");
        Self(String::from_utf8(said).expect("it says it in UTF-8"))
    }

    /// The lines of lists: those that begin with a number.
    pub fn lists(&self) -> Vec<String> {
        let is_of_list = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
        self.0.lines().filter(is_of_list).map(str::to_owned).collect()
    }
}

impl Session {
    /// A message as RETR gives it, lines ended by LF.
    pub fn message(port: u16, number: usize) -> String {
        let Self(said) = Self::hold(port, &format!("RETR {number}\r\n"));
        let lines = said.lines().skip_while(|line| !line.contains(" octets")).skip(1);
        let lines = lines.take_while(|line| *line != ".");
        lines.map(|line| format!("{}\n", line.strip_prefix('.').unwrap_or(line))).collect()
    }
}

/// LIST and UIDL of the mailbox.
pub fn lists(port: u16) -> Vec<String> {
    Session::hold(port, "LIST\r\nUIDL\r\n").lists()
}

/// UIDL of the mailbox.
pub fn unique_ids(port: u16) -> Vec<String> {
    let lines = Session::hold(port, "UIDL\r\n").lists();
    lines.iter().map(|line| line.split_once(' ').expect("a number and an id").1.to_owned()).collect()
}
