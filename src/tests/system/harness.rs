//! A mail root of a test's own, the program run on it, and the service as a child process.
//!
//! - Nothing is written outside a temporary directory, whoever runs the tests: the directories of XDG and the
//!   home lie in it, and no test runs `set mailroot` as root, whose pointer file is the machine's.
//! - Only processes that were started here are ended, each by its id.
//! - Waits are for events: a line of the log, a greeting, the end of a process. Each is bounded by [`PATIENCE`].

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::{Client, Lmtp, Pop3};
use crate::private_etc::PrivateEtc;
use crate::world_readable;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pop3svc");
/// The password of every mailbox that [`Site::add_mailbox`] makes.
pub const PASSWORD: &str = "secret";
/// How long something may take that has to come: long enough for any machine, and an end to what hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Below those from which the kernel takes the ports of outgoing connections: a client is not to take one meanwhile.
const PORTS: Range<u16> = 10_000..32_000;
const STARTS_MAX: usize = 5;

#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub pop3: u16,
    pub pop3s: u16,
    pub smtp: u16,
    pub lmtp: u16,
}

/// A directory with a mail root in it.
pub struct Site {
    dir: TempDir,
    ports: Ports,
    etc: Option<PrivateEtc>,
}

/// What a command printed, and how it exited.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    pub output: String,
    pub errors: String,
    pub exit_code: i32,
}

impl Site {
    /// With an empty store.
    pub fn new() -> Self {
        let site = Self::without_store();
        site.configure();
        site
    }

    /// With an empty store, and accounts of the operating system that are nobody else's.
    pub fn with_accounts(etc: PrivateEtc) -> Self {
        let site = Self { etc: Some(etc), ..Self::without_store() };
        site.configure();
        site
    }

    pub fn without_store() -> Self {
        let dir = world_readable::directory();
        fs::create_dir(dir.path().join("bin")).expect("it is writable");
        Self { dir, ports: Ports::free(), etc: None }
    }

    /// Has the service listen on ports of this test, on loopback, say when it does, and end without waiting for
    /// sessions that a test has left open. Makes the store where there is none.
    pub fn configure(&self) {
        let Ports { pop3, pop3s, smtp, lmtp } = self.ports;
        self.winpop(&["set", "logging", "3"]);
        self.winpop(&["set", "shutdowngrace", "0"]);
        self.winpop(&["set", "listen", "127.0.0.1"]);
        self.winpop(&["set", "port", &pop3.to_string()]);
        self.winpop(&["set", "tlsport", &pop3s.to_string()]);
        self.winpop(&["set", "smtpport", &smtp.to_string()]);
        self.winpop(&["set", "lmtpport", &lmtp.to_string()]);
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn mailroot(&self) -> PathBuf {
        self.dir().join("mail")
    }

    pub fn data_file(&self) -> PathBuf {
        self.mailroot().join("winpop.db")
    }

    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// The program by one of its names: a command that has the mail root and everything else in this directory.
    pub fn program(&self, path: &Path) -> Command {
        let mut command = match &self.etc {
            None => Command::new(path),
            Some(etc) => etc.command(path),
        };
        command
            .env("WINPOP_MAILROOT", self.mailroot())
            .env("HOME", self.dir())
            .env("XDG_CONFIG_HOME", self.dir().join("config"))
            .env("XDG_DATA_HOME", self.dir().join("data"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `pop3svc` with these words.
    pub fn run(&self, words: &[&str]) -> Done {
        self.run_with_input(words, b"")
    }

    pub fn run_with_input(&self, words: &[&str], input: &[u8]) -> Done {
        finish(self.program(Path::new(PROGRAM)).args(words), input)
    }

    /// `pop3svc` with these words, which have to succeed; what it prints.
    #[track_caller]
    pub fn succeed(&self, words: &[&str]) -> String {
        let done = self.run(words);
        assert_eq!((done.exit_code, done.errors.as_str()), (0, ""), "{words:?}: {done:?}");
        done.output
    }

    /// `pop3svc winpop` with these words, which have to succeed.
    #[track_caller]
    pub fn winpop(&self, words: &[&str]) -> String {
        self.succeed(&[&["winpop"], words].concat())
    }

    /// The domain too, where it is not there.
    #[track_caller]
    pub fn add_mailbox(&self, address: &str) {
        let (_, domain) = address.split_once('@').expect("an address");
        if self.run(&["winpop", "list", domain]).exit_code != 0 {
            self.winpop(&["add", domain]);
        }
        self.winpop(&["add", address, "/createuser", PASSWORD]);
    }

    #[track_caller]
    pub fn assert_clean(&self) {
        self.succeed(&["check"]);
    }

    /// Starts the service, and waits until it can be reached.
    #[track_caller]
    pub fn start(&mut self) -> Service {
        self.start_by(|site| {
            let mut command = site.program(Path::new(PROGRAM));
            command.arg("serve");
            command
        })
    }

    /// The same by a command that ends up as the service.
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

impl Ports {
    /// Nobody listens on them now, and no other test of this process gets them.
    fn free() -> Self {
        Self { pop3: free_port(), pop3s: free_port(), smtp: free_port(), lmtp: free_port() }
    }
}

pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    // Asked by connecting: a socket bound here could live on for a moment in a process that another test is just
    // starting, and be in the way itself.
    let is_free = |port| {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        loopback.into_iter().all(|ip| TcpStream::connect((ip, port)).is_err())
    };
    loop {
        let port = fastrand::u16(PORTS);
        if GIVEN.lock().unwrap().insert(port) && is_free(port) {
            return port;
        }
    }
}

/// Runs a command to its end.
pub fn finish(command: &mut Command, input: &[u8]) -> Done {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the program can be run");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // Beside the reading below: a program that prints before it has read all must not stop both.
    let writing = thread::spawn(move || {
        // A command that reads nothing may be gone already.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("the program ends");
    writing.join().expect("writing does not panic");
    Done {
        output: String::from_utf8(output.stdout).expect("it prints UTF-8"),
        errors: String::from_utf8(output.stderr).expect("it prints UTF-8"),
        exit_code: output.status.code().expect("it ends by itself"),
    }
}

/// A running service; killed when dropped.
pub struct Service {
    child: Child,
    ports: Ports,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

/// What the service has written to standard error.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    text: String,
    ended: bool,
}

impl Service {
    /// Starts it, without waiting for anything.
    pub fn spawn(site: &Site) -> Self {
        Self::spawn_by(site, site.program(Path::new(PROGRAM)).arg("serve"))
    }

    /// Starts it by a command that ends up as the service.
    pub fn spawn_by(site: &Site, command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the program can be run");
        let log = Arc::new(Log::default());
        let errors = child.stderr.take().expect("it is piped");
        let reader = thread::spawn({
            let log = log.clone();
            move || log.read(errors)
        });
        Self { child, ports: site.ports, log, reader: Some(reader) }
    }

    /// Waits until it serves; false where it ends instead.
    pub fn is_ready(&self) -> bool {
        // It greets nobody before it listens on every port, so with a greeting the start is done. SMTP's takes no
        // connection slot from a test that counts them.
        self.log.wait_for("SMTP on 127.0.0.1") && self.smtp().is_ok_and(|mut smtp| smtp.line().is_ok())
    }

    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that the process has had so far, in octets (proc_pid_status(5), VmHWM).
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
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

    /// Waits for a session of before to let go of the maildrop: its end is seen by the service a moment after the
    /// client has hung up.
    #[track_caller]
    pub fn log_in(&self, address: &str) -> Pop3 {
        let mut session = None;
        eventually("the maildrop is free", || {
            let mut pop3 = Pop3::connect(self.ports.pop3).expect("the service greets");
            // Messages are to come as they are stored.
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
        assert!(self.log.wait_for(words), "the service ended without \"{words}\": {}", self.log.text());
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Has it hang, or go on.
    pub fn freeze(&self, frozen: bool) {
        self.signal(if frozen { Signal::STOP } else { Signal::CONT });
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child that was not waited for");
    }

    /// Ends it by SIGTERM, and holds that it had nothing to complain about.
    #[track_caller]
    pub fn stop(self) {
        self.terminate();
        let (status, log) = self.wait();
        assert!(status.success(), "{status}: {log}");
        assert!(!log.contains("critical: ") && !log.contains("panicked"), "{log}");
    }

    /// Ends it by SIGKILL: nothing of it runs any more, and nothing was said.
    pub fn kill(self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Waits for its end: how it exited, and the log.
    #[track_caller]
    pub fn wait(mut self) -> (ExitStatus, String) {
        self.log.wait_for_end();
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading the log does not panic");
        }
        (self.child.wait().expect("it is our child"), self.log.text())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Log {
    fn read(&self, errors: impl Read) {
        let mut errors = BufReader::new(errors);
        let mut line = Vec::new();
        while errors.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            self.state.lock().unwrap().text += &String::from_utf8_lossy(&line);
            self.changed.notify_all();
            line.clear();
        }
        self.state.lock().unwrap().ended = true;
        self.changed.notify_all();
    }

    /// False where the service ends without a word of it.
    fn wait_for(&self, words: &str) -> bool {
        let state = self.wait_until(&format!("\"{words}\" in the log"), |state| {
            state.ended || state.text.contains(words)
        });
        state.contains(words)
    }

    fn wait_for_end(&self) {
        self.wait_until("the end of the service", |state| state.ended);
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&LogState) -> bool) -> String {
        let state = self.state.lock().unwrap();
        let (state, waited) =
            self.changed.wait_timeout_while(state, PATIENCE, |state| !is_so(state)).unwrap();
        assert!(!waited.timed_out(), "waited in vain for {what}: {}", state.text);
        state.text.clone()
    }

    fn text(&self) -> String {
        self.state.lock().unwrap().text.clone()
    }
}

/// Waits for what shows itself only to those who ask. Asks again and again.
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

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this is root, which the test needs for `what`. If not the test is to return: it is skipped with a line that
/// says so. Panics instead where the variable CI is set.
pub fn needs_root(what: &str) -> bool {
    if is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{what} takes root");
    // Past the test runner, which keeps what a passing test prints to itself.
    let _ = writeln!(std::io::stderr(), "skipped: {what} takes root");
    false
}
