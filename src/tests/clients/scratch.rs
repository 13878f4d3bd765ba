//! A directory of its own for each test, and the service that runs in it.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, BufReader, PipeReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::foreign::path_of_programs;
use crate::private_etc::PrivateEtc;
use crate::world_readable;

/// Longest that a program may take, in seconds; then it hangs.
const PROGRAM_SECONDS_MAX: &str = "120";
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pop3svc");
/// The names by which it is called.
const NAMES: [&str; 3] = ["pop3svc", "winpop", "sendmail"];
/// Where it and the mail store are on this machine, below its directory.
pub const PROGRAMS: &str = "usr/local/bin";
pub const STORE: &str = "var/lib/winpop";
/// The last that quickstart says.
pub const READY: &str = "Ctrl-C ends the service.\n";

/// A directory that is its own small machine: a home, the program under its three names, a mail store.
pub struct Scratch {
    dir: TempDir,
    etc: Option<PrivateEtc>,
}

impl Scratch {
    pub fn new() -> Self {
        let dir = world_readable::directory();
        fs::create_dir_all(dir.path().join(PROGRAMS)).expect("it is writable");
        for name in NAMES {
            symlink(PROGRAM, dir.path().join(PROGRAMS).join(name)).expect("a link can be made");
        }
        Self { dir, etc: None }
    }

    /// One whose programs see accounts of their own.
    pub fn with_accounts(etc: PrivateEtc) -> Self {
        Self { etc: Some(etc), ..Self::new() }
    }

    pub fn etc(&self) -> &PrivateEtc {
        self.etc.as_ref().expect("it was made with accounts")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program that finds ours, and nothing of whoever runs the tests.
    pub fn command(&self, program: &str) -> Command {
        let mut path = OsString::from(self.path(PROGRAMS));
        path.push(":");
        path.push(path_of_programs());
        let mut command = match &self.etc {
            None => Command::new(program),
            Some(etc) => etc.command(program),
        };
        command.env_clear().env("PATH", path).env("HOME", self.dir.path()).env("LC_ALL", "C.UTF-8");
        command.env("WINPOP_MAILROOT", self.path(STORE)).current_dir(self.dir.path());
        command
    }

    /// Runs a program to its end.
    pub fn outcome(&self, program: &str, words: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command("timeout")
            .args([PROGRAM_SECONDS_MAX, program])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("programs can be run");
        // A program that does not read its input may be gone already.
        let _ = child.stdin.take().expect("it is piped").write_all(input);
        child.wait_with_output().expect("it ends")
    }

    /// What a program prints. Panics where it fails.
    pub fn run(&self, program: &str, words: &[&str], input: &[u8]) -> String {
        let output = self.outcome(program, words, input);
        assert!(output.status.success(), "{program} {words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    }

    pub fn winpop(&self, words: &str) -> String {
        self.run("winpop", &words.split(' ').collect::<Vec<_>>(), b"")
    }

    /// Runs one of the scripts in testdata/clients.
    pub fn python(&self, script: &str, words: &[&str]) -> String {
        let script = format!("{}/testdata/clients/{script}", env!("CARGO_MANIFEST_DIR"));
        self.run("python3", &[&[script.as_str()], words].concat(), b"")
    }

    /// Makes the store, with a domain and with ports that are free.
    pub fn make_store(&self) {
        self.winpop("add example.com");
        // Those of the settings are in the way of each other while they are changed one by one.
        self.winpop("set smtpport 0");
        self.winpop("set lmtpport 0");
        for key in ["port", "tlsport", "smtpport", "lmtpport"] {
            self.winpop(&format!("set {key} {}", free_port()));
        }
    }

    /// Makes the store and serves it.
    pub fn serve(&self) -> Service<'_> {
        self.make_store();
        Service::quickstart(self, &[])
    }
}

/// A port that nobody listens on, given out once. It is below those that the kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    static GIVEN_OUT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 100).expect("it is below 100") * 100;
    loop {
        let port = first + GIVEN_OUT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_000, "there are ports enough");
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// The program, running, and what it has told.
pub struct Service<'a> {
    scratch: &'a Scratch,
    child: Child,
    output: BufReader<PipeReader>,
    pub told: String,
}

impl<'a> Service<'a> {
    /// Runs `pop3svc quickstart` with these words behind it.
    pub fn quickstart(scratch: &'a Scratch, words: &[&str]) -> Self {
        let mut command = scratch.command("pop3svc");
        Self::start(scratch, command.arg("quickstart").args(words), READY)
    }

    /// Runs a command until it has told that it is ready.
    pub fn start(scratch: &'a Scratch, command: &mut Command, ready: &str) -> Self {
        let (output, input) = io::pipe().expect("a pipe can be made");
        let its_log = input.try_clone().expect("a pipe can be shared");
        let child = command.stdin(Stdio::null()).stdout(input).stderr(its_log).spawn();
        // The end of what it tells is seen only when nobody else could write there.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.expect("it can be run");
        let mut service = Self { scratch, child, output: BufReader::new(output), told: String::new() };
        while !service.told.contains(ready) {
            let octets = service.output.read_line(&mut service.told).expect("it prints UTF-8");
            assert!(octets > 0, "it ended after {:?}", service.told);
        }
        service
    }

    /// The port of a protocol, as told.
    pub fn port(&self, protocol: &str) -> String {
        let port = self.word_after(protocol, 2);
        assert!(port.parse::<u16>().is_ok(), "{}", self.told);
        port
    }

    /// The password of the first mailbox, as told.
    pub fn password(&self) -> String {
        self.word_after("Password", 0)
    }

    fn word_after(&self, label: &str, index: usize) -> String {
        let mut lines = self.told.lines().map(str::split_whitespace);
        let line = lines.find_map(|mut words| (words.next()? == label).then_some(words));
        let word = line.and_then(|mut words| words.nth(index));
        word.unwrap_or_else(|| panic!("no {label} in {}", self.told)).to_owned()
    }

    /// Makes a mailbox with the password "secret".
    pub fn add_mailbox(&self, address: &str) {
        self.scratch.winpop(&format!("add {address} /createuser secret"));
    }

    /// How many messages a mailbox has, as the administrator is shown.
    pub fn messages_in(&self, address: &str) -> u64 {
        let domain = address.split_once('@').expect("an address").1;
        let listed = self.scratch.winpop(&format!("list {domain} /json"));
        let listed: serde_json::Value = serde_json::from_str(&listed).expect("it is JSON");
        let mut mailboxes = listed["mailboxes"].as_array().expect("a list").iter();
        let mailbox = mailboxes.find(|mailbox| mailbox["mailbox"] == address).expect("it is listed");
        mailbox["messages"].as_u64().expect("a count")
    }

    /// Ends the service, and verifies the store that it leaves.
    pub fn end(self) {
        let scratch = self.scratch;
        self.stop();
        scratch.run("pop3svc", &["check"], b"");
    }

    /// Ends the service as systemd does.
    pub fn stop(self) {
        drop(self.log());
    }

    /// Ends the service as systemd does; what it has logged until then.
    pub fn log(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let mut log = String::new();
        self.output.read_to_string(&mut log).expect("it prints UTF-8");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}: {log}");
        log
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        // It has ended already, save where the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
