//! The service as a child process, and the commands of an administrator on its store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::client::{Client, Lmtp, Pop3};
use crate::harness::etc::PrivateEtc;
use crate::harness::ports::Ports;
use crate::harness::process::{self, Process};
use crate::harness::site::{STORE, Site};
use crate::harness::{PASSWORD, PATIENCE, PROGRAM};

const STARTS_MAX: usize = 5;

/// What a command printed, and how it exited.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    pub output: String,
    pub errors: String,
    pub exit_code: i32,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            output: String::from_utf8(output.stdout).expect("it prints UTF-8"),
            errors: String::from_utf8(output.stderr).expect("it prints UTF-8"),
            exit_code: output.status.code().expect("it ends by itself"),
        }
    }
}

/// Runs a command to its end.
pub fn finish(command: &mut Command, input: &[u8]) -> Done {
    process::finish(command, input).into()
}

impl Site {
    /// With an empty store.
    pub fn new() -> Self {
        let site = Self::without_store();
        site.configure();
        site
    }

    /// With an empty store, and its own operating system accounts.
    pub fn with_accounts(etc: PrivateEtc) -> Self {
        let site = Self::bare(Some(etc));
        site.configure();
        site
    }

    pub fn without_store() -> Self {
        Self::bare(None)
    }

    /// Makes the service listen on this test's ports on loopback, log when it does, and end without waiting for
    /// sessions that a test has left open. Creates the store if there is none.
    pub fn configure(&self) {
        self.winpop(&["set", "logging", "3"]);
        self.winpop(&["set", "shutdowngrace", "0"]);
        self.winpop(&["set", "listen", "127.0.0.1"]);
        self.set_ports();
    }

    pub fn mailroot(&self) -> PathBuf {
        self.path(STORE)
    }

    pub fn data_file(&self) -> PathBuf {
        self.mailroot().join("winpop.db")
    }

    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// The program by one of its names, without input.
    pub fn program(&self, path: &Path) -> Command {
        let mut command = self.command(path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `pop3svc` with these words.
    pub fn run(&self, words: &[&str]) -> Done {
        self.run_with_input(words, b"")
    }

    pub fn run_with_input(&self, words: &[&str], input: &[u8]) -> Done {
        finish(self.command(PROGRAM).args(words), input)
    }

    /// Runs `pop3svc` with these words, which must succeed, and returns what it prints.
    #[track_caller]
    pub fn succeed(&self, words: &[&str]) -> String {
        let done = self.run(words);
        assert_eq!((done.exit_code, done.errors.as_str()), (0, ""), "{words:?}: {done:?}");
        done.output
    }

    /// Runs `pop3svc winpop` with these words, which must succeed.
    #[track_caller]
    pub fn winpop(&self, words: &[&str]) -> String {
        self.succeed(&[&["winpop"], words].concat())
    }

    /// Starts the service and waits until it can be reached.
    #[track_caller]
    pub fn start(&mut self) -> Service {
        self.start_by(|site| {
            let mut command = site.command(PROGRAM);
            command.arg("serve");
            command
        })
    }

    /// The same with a command that becomes the service.
    #[track_caller]
    pub fn start_by(&mut self, command: impl Fn(&Self) -> Command) -> Service {
        for _ in 0..STARTS_MAX {
            let service = Service::spawn_by(self, &mut command(self));
            if service.is_ready() {
                return service;
            }
            let log = service.wait().1;
            assert!(log.contains("is taken by another program"), "the service did not start: {log}");
            self.ports = Ports::free();
            self.configure();
        }
        panic!("{STARTS_MAX} times another program took one of the ports");
    }
}

/// A running service; killed when dropped.
pub struct Service {
    process: Process,
    ports: Ports,
}

impl Service {
    /// Starts it without waiting for anything.
    pub fn spawn(site: &Site) -> Self {
        Self::spawn_by(site, site.command(PROGRAM).arg("serve"))
    }

    /// Starts it with a command that becomes the service.
    pub fn spawn_by(site: &Site, command: &mut Command) -> Self {
        Self { process: Process::spawn(command), ports: site.ports }
    }

    /// Waits until it serves; false if it ends instead.
    pub fn is_ready(&self) -> bool {
        // It greets nobody before it listens on every port, so a greeting means that it has started. An SMTP connection
        // takes no slot from a test that counts them.
        self.process.wait_for("SMTP on 127.0.0.1") && self.smtp().is_ok_and(|mut smtp| smtp.line().is_ok())
    }

    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.child.id()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process.child)
    }

    /// The most memory the process has used so far, in octets (proc_pid_status(5), VmHWM).
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes << 10
    }

    pub fn smtp(&self) -> std::io::Result<Client> {
        Client::connect(self.ports.smtp)
    }

    #[track_caller]
    pub fn lmtp(&self) -> Lmtp {
        Lmtp::connect(self.ports.lmtp).expect("the service greets")
    }

    /// Logs in, waiting until an earlier session has released the maildrop: the service notices its end a moment after
    /// the client has hung up.
    #[track_caller]
    pub fn log_in(&self, address: &str) -> Pop3 {
        let mut session = None;
        eventually("the maildrop is free", || {
            let mut pop3 = Pop3::connect(self.ports.pop3).expect("the service greets");
            // Get messages as they are stored.
            let utf8 = pop3.ask("UTF8").expect("a reply to UTF8");
            assert!(utf8.starts_with("+OK"), "{utf8}");
            let reply = pop3.log_in(address, PASSWORD).expect("a reply to PASS");
            assert!(reply.starts_with("+OK") || reply.starts_with("-ERR [IN-USE]"), "{address}: {reply}");
            session = Some(pop3);
            reply.starts_with("+OK")
        });
        session.expect("it is there when the login went well")
    }

    /// Waits for a line of the log with these words in it.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str) {
        let is_told = self.process.wait_for(words);
        assert!(is_told, "the service ended without \"{words}\": {}", self.process.told());
    }

    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Makes it hang, or continue.
    pub fn freeze(&self, frozen: bool) {
        self.process.signal(if frozen { Signal::STOP } else { Signal::CONT });
    }

    /// Ends it by SIGTERM, and checks that it logged no complaint.
    #[track_caller]
    pub fn stop(self) {
        self.terminate();
        let (status, log) = self.wait();
        assert!(status.success(), "{status}: {log}");
        assert!(!log.contains("critical: ") && !log.contains("panicked"), "{log}");
    }

    /// Ends it by SIGKILL. On return it is gone, without having said anything.
    pub fn kill(self) {
        self.process.signal(Signal::KILL);
        self.wait();
    }

    /// Waits for its end. Returns its exit status and the log.
    #[track_caller]
    pub fn wait(self) -> (ExitStatus, String) {
        self.process.wait()
    }
}

/// Waits for a condition that must be polled.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    const PAUSE: Duration = Duration::from_millis(5);
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if is_so() {
            return;
        }
        thread::sleep(PAUSE);
    }
    panic!("waited in vain until {what}");
}
