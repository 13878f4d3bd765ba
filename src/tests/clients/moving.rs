//! Mailboxes of a Dovecot, taken in by `pop3svc import`: a mail program that leaves its mail on the server sees the same list
//! before and after, and fetches nothing twice.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::foreign::{have, write_past_the_runner};
use super::scratch::{Scratch, free_port};

const MAILBOX: &str = "bob@example.com";
/// Its `pop3_uidl_format`, and how many messages lie in the mailbox: one time many.
const FORMATS: [(&str, usize); 3] = [("%08Xu%08Xv", 1000), ("%v.%u", 40), ("%f", 40)];
/// How often it is looked whether Dovecot answers, and how long between two looks.
const LOOKS_MAX: usize = 1500;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Debian's Dovecot with a Maildir for each user, ended when dropped.
struct Dovecot {
    child: Child,
    port: u16,
    mail: PathBuf,
}

impl Dovecot {
    fn start(directory: &Path, uidl_format: &str) -> Self {
        let (base, port) = (directory.join("dovecot"), free_port());
        let mail = base.join("mail");
        fs::create_dir_all(&mail).expect("it can be made");
        let configuration = format!(
            "protocols = pop3\nbase_dir = {base}/run\nlog_path = {base}/log\nlisten = 127.0.0.1\nssl = no\n\
             disable_plaintext_auth = no\nauth_mechanisms = plain\nmail_location = maildir:{base}/mail/%d/%n\n\
             pop3_uidl_format = {uidl_format}\nfirst_valid_uid = 1\n\
             passdb {{\n driver = static\n args = password=secret\n}}\n\
             userdb {{\n driver = static\n args = uid=mail gid=mail home={base}/mail/%d/%n\n}}\n\
             service pop3-login {{\n inet_listener pop3 {{\n port = {port}\n }}\n inet_listener pop3s {{\n port = 0\n }}\n}}\n",
            base = base.display(),
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
        Self { child, port, mail }
    }

    /// Puts messages where Dovecot finds them, awkward in order, length and dots.
    fn bring(&self, count: usize) {
        let maildir = self.mail.join("example.com/bob");
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
        self.own_mail();
    }

    /// Its processes run as another user.
    fn own_mail(&self) {
        let owned = Command::new("chown").args(["-R", "mail:mail"]).arg(&self.mail).status();
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

/// What a server says of the mailbox to LIST and UIDL.
fn lists(port: u16) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it answers");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("it is no zero");
    let commands = format!("USER {MAILBOX}\r\nPASS secret\r\nLIST\r\nUIDL\r\nQUIT\r\n");
    stream.write_all(commands.as_bytes()).expect("it reads");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("it says it in ASCII");
    let is_of_list = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
    said.lines().filter(is_of_list).map(str::to_owned).collect()
}

/// Polls as a program does that leaves its mail there; the size of all that it has fetched so far.
fn poll(scratch: &Scratch, port: u16, exit_code: i32) -> u64 {
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
    if !have(&["dovecot", "fetchmail"]) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        write_past_the_runner("passed over: it takes root to run Dovecot");
        return;
    }
    for (uidl_format, messages) in FORMATS {
        let scratch = Scratch::new();
        let dovecot = Dovecot::start(&scratch.path(""), uidl_format);
        dovecot.bring(messages);
        let before = lists(dovecot.port);
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
        assert_eq!(lists(port), before, "{uidl_format}");
        // 1: there is nothing new.
        assert_eq!(poll(&scratch, port, 1), fetched, "{uidl_format}");
        drop(dovecot);

        // And back, into a Dovecot that is new: the same list again.
        let back = Dovecot::start(&scratch.path("back"), "%08Xu%08Xv");
        let directory = back.mail.to_string_lossy().into_owned();
        scratch.run("pop3svc", &["export", "maildir", &directory], b"");
        back.own_mail();
        assert_eq!(lists(back.port), before, "{uidl_format}");
        assert_eq!(poll(&scratch, back.port, 1), fetched, "{uidl_format}");
        service.end();
    }
}
