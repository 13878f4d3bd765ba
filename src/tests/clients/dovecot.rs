//! Debian's Dovecot with a Maildir per user: the server that mail moves away from, and back to.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::ports::free_port;
use crate::harness::programs::have;
use crate::harness::skip::needs_root;

pub const MAILBOX: &str = "bob@example.com";
/// The password of every user, and that of the user who may open all mailboxes.
pub const PASSWORD: &str = "secret";
pub const MASTER: &str = "admin";
pub const MASTER_PASSWORD: &str = "of all";
/// Longest that a server may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often we check whether Dovecot answers, and the time between two checks.
const LOOKS_MAX: usize = 1500;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Whether Dovecot can be run, and these programs.
pub fn have_dovecot_and(programs: &[&str]) -> bool {
    have(&[&["dovecot", "openssl"], programs].concat()) && needs_root("running Dovecot")
}

/// How Dovecot keeps mail and accounts.
pub struct Kind<'a> {
    /// `maildir` or `mbox`.
    pub store: &'a str,
    pub uidl_format: &'a str,
    /// A passwd-file. `None`: one password for all.
    pub accounts: Option<&'a Path>,
}

impl Default for Kind<'_> {
    fn default() -> Self {
        Self { store: "maildir", uidl_format: "%08Xu%08Xv", accounts: None }
    }
}

/// Ended when dropped.
pub struct Dovecot {
    base: PathBuf,
    child: Option<Child>,
    pub port: u16,
    pub tls_port: u16,
    pub mail: PathBuf,
}

impl Dovecot {
    pub fn start(directory: &Path, uidl_format: &str) -> Self {
        Self::start_as(directory, &Kind { uidl_format, ..Kind::default() })
    }

    pub fn start_as(directory: &Path, kind: &Kind) -> Self {
        let (base, port, tls_port) = (directory.join("dovecot"), free_port(), free_port());
        let mail = base.join("mail");
        fs::create_dir_all(&mail).expect("it can be made");
        fs::create_dir_all(base.join("home")).expect("it can be made");
        let location = match kind.store {
            "mbox" => format!("mbox:{base}/home/%d/%n:INBOX={base}/mail/%d/%n", base = base.display()),
            store => format!("{store}:{}/%d/%n", mail.display()),
        };
        let accounts = match kind.accounts {
            None => format!("driver = static\n args = password={PASSWORD}"),
            Some(file) => format!("driver = passwd-file\n args = {}", file.display()),
        };
        let certificate = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=old"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1"])
            .arg("-keyout")
            .arg(base.join("key.pem"))
            .arg("-out")
            .arg(base.join("certificate.pem"))
            .output();
        assert!(certificate.is_ok_and(|output| output.status.success()), "openssl makes a certificate");
        fs::write(base.join("masters"), format!("{MASTER}:{{PLAIN}}{MASTER_PASSWORD}\n"))
            .expect("it can be written");
        let configuration = format!(
            "protocols = pop3\nbase_dir = {base}/run\nlog_path = {base}/log\nlisten = 127.0.0.1\nssl = yes\n\
             ssl_cert = <{base}/certificate.pem\nssl_key = <{base}/key.pem\n\
             disable_plaintext_auth = no\nauth_mechanisms = plain scram-sha-256\nmail_location = {location}\n\
             auth_master_user_separator = *\nauth_failure_delay = 0\nmail_max_userip_connections = 0\n\
             mail_fsync = never\npop3_uidl_format = {uidl_format}\npop3_reuse_xuidl = yes\nfirst_valid_uid = 1\n\
             passdb {{\n driver = passwd-file\n args = {base}/masters\n master = yes\n}}\n\
             passdb {{\n {accounts}\n}}\n\
             userdb {{\n driver = static\n args = uid=mail gid=mail home={base}/home/%d/%n\n}}\n\
             service pop3-login {{\n service_count = 0\n inet_listener pop3 {{\n port = {port}\n }}\n \
             inet_listener pop3s {{\n port = {tls_port}\n }}\n}}\n",
            base = base.display(),
            uidl_format = kind.uidl_format,
        );
        fs::write(base.join("dovecot.conf"), configuration).expect("it can be written");
        let mut dovecot = Self { base, child: None, port, tls_port, mail };
        dovecot.own_mail();
        dovecot.start_again();
        dovecot
    }

    /// The certificate to trust for it.
    pub fn certificate(&self) -> PathBuf {
        self.base.join("certificate.pem")
    }

    pub fn start_again(&mut self) {
        let output = fs::File::create(self.base.join("output")).expect("it can be written");
        let mut command = Command::new("dovecot");
        command.arg("-F").arg("-c").arg(self.base.join("dovecot.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        self.child = Some(command.spawn().expect("it can be run"));
        let answers = (0..LOOKS_MAX).any(|_| {
            let is_there = TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            if !is_there {
                thread::sleep(BETWEEN_LOOKS);
            }
            is_there
        });
        assert!(answers, "{:?}", fs::read_to_string(self.base.join("output")));
    }

    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // SIGTERM, so that it ends its own children.
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        let _ = child.wait();
    }

    /// Puts messages where Dovecot finds them, with awkward order, lengths and dots.
    pub fn bring(&self, user: &str, count: usize) {
        let maildir = self.mail.join("example.com").join(user);
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(maildir.join(part)).expect("it can be made");
        }
        for number in 1..=count {
            let lines =
                [".", "..", ".dot", "", "From here", "\u{fc}ber"].map(|line| format!("{line}\n")).concat();
            let text = format!(
                "Subject: {number}\n\n{}{}\n",
                lines.repeat(number % 5),
                "x".repeat(number * 37 % 2000)
            );
            let name = format!("{}.M{number}P1.host", 1_600_000_000 + number * 7919 % 5000);
            fs::write(maildir.join("new").join(name), text).expect("it can be written");
        }
    }

    /// Where Dovecot keeps the mail of [`MAILBOX`].
    pub fn mailbox(&self) -> PathBuf {
        self.mail.join("example.com/bob")
    }

    /// Gives the mail to the user as whom Dovecot's processes run.
    pub fn own_mail(&self) {
        let home = self.base.join("home");
        let owned = Command::new("chown").args(["-R", "mail:mail"]).arg(&self.mail).arg(home).status();
        assert!(owned.is_ok_and(|status| status.success()));
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a server said in a session.
pub struct Session(String);

impl Session {
    /// Logs in and gives these commands.
    pub fn hold(port: u16, mailbox: &str, commands: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it answers");
        stream.set_read_timeout(Some(SILENCE_MAX)).expect("it is no zero");
        let commands = format!("USER {mailbox}\r\nPASS {PASSWORD}\r\n{commands}QUIT\r\n");
        stream.write_all(commands.as_bytes()).expect("it reads");
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("it answers to its end");
        Self(String::from_utf8(said).expect("it says it in UTF-8"))
    }

    /// The lines of listings: those that begin with a number.
    pub fn lists(&self) -> Vec<String> {
        let is_of_list = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
        self.0.lines().filter(is_of_list).map(str::to_owned).collect()
    }
}

impl Session {
    /// A message as RETR gives it, lines ended by LF.
    pub fn message(port: u16, number: usize) -> String {
        let Self(said) = Self::hold(port, MAILBOX, &format!("RETR {number}\r\n"));
        let lines = said.lines().skip_while(|line| !line.contains(" octets")).skip(1);
        let lines = lines.take_while(|line| *line != ".");
        lines.map(|line| format!("{}\n", line.strip_prefix('.').unwrap_or(line))).collect()
    }
}

/// LIST and UIDL of a mailbox.
pub fn lists(port: u16, mailbox: &str) -> Vec<String> {
    Session::hold(port, mailbox, "LIST\r\nUIDL\r\n").lists()
}

/// UIDL of the mailbox.
pub fn unique_ids(port: u16) -> Vec<String> {
    let lines = Session::hold(port, MAILBOX, "UIDL\r\n").lists();
    lines.iter().map(|line| line.split_once(' ').expect("a number and an id").1.to_owned()).collect()
}
