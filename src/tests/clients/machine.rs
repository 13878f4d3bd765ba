//! A machine run by systemd, in namespaces of this one: it has the same programs, and keeps no changes.
//!
//! It needs root; `testdata/clients/machine.sh` sets it up.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::PROGRAM;
use crate::harness::programs::{have, have_namespaces};
use crate::harness::scratch;
use crate::harness::skip::needs_root;

/// Longest that a script may take, in seconds; then it hangs.
const SCRIPT_SECONDS_MAX: &str = "60";
/// The same for a script that installs much.
const SLOW_SCRIPT_SECONDS_MAX: &str = "300";
/// Longest that systemd may take to start.
const BOOT_MAX: Duration = Duration::from_secs(60);
/// The time between two checks whether the machine has ended early.
const LOOK: Duration = Duration::from_millis(200);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const NEEDED: [&str; 7] =
    ["unshare", "nsenter", "setpriv", "ip", "hostname", "systemctl", "/lib/systemd/systemd"];
const NAMESPACES: [&str; 6] = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"];
/// Where the program lies before anything is installed.
pub const BUILT: &str = "/usr/local/lib/pop3svc";

/// Ends with everything in it when dropped.
pub struct Machine {
    dir: TempDir,
    child: Child,
}

impl Machine {
    /// Boots a machine with our program at [`BUILT`] and nothing else of ours. `None`, with a message, if this machine
    /// does not allow it; panics if CI is set and root or a program is missing.
    pub fn boot() -> Option<Self> {
        if !needs_root("namespaces") || !have(&NEEDED) || !have_namespaces(&NAMESPACES) {
            return None;
        }
        let dir = scratch::directory();
        fs::create_dir(dir.path().join("host")).expect("it is writable");
        let ready = UnixDatagram::bind(dir.path().join("host/notify")).expect("a socket can be made");
        let log = fs::File::create(dir.path().join("log")).expect("a file can be made");
        let mut command = Command::new("setpriv");
        // It ends with the thread that runs the test.
        command.args(["--pdeathsig", "KILL"]).args(script(dir.path(), "start")).arg(PROGRAM);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let child = command.spawn().expect("setpriv can be run");
        let mut machine = Self { dir, child };
        machine.wait_until_up(&ready);
        Some(machine)
    }

    /// Waits until systemd reports that it is up (sd_notify(3)).
    fn wait_until_up(&mut self, ready: &UnixDatagram) {
        ready.set_read_timeout(Some(LOOK)).expect("a wait can be bounded");
        let mut said = [0; 4096];
        for _ in 0..BOOT_MAX.as_millis() / LOOK.as_millis() {
            match ready.recv(&mut said) {
                Ok(octets) if said[..octets].split(|octet| *octet == b'\n').any(|l| l == b"READY=1") => {
                    return;
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}"),
            }
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("the machine ended early ({status}): {}", self.log());
            }
        }
        panic!("the machine does not come up: {}", self.log());
    }

    /// The machine's first process, as seen from outside.
    fn first_process(&self) -> Option<Pid> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Runs a shell script to its end, as root of the machine.
    pub fn outcome(&self, script: &str) -> Output {
        self.outcome_within(SCRIPT_SECONDS_MAX, script)
    }

    fn outcome_within(&self, seconds: &str, script: &str) -> Output {
        let of = |namespace: &str| format!("/proc/{}/ns/{namespace}", self.child.id());
        Command::new("timeout")
            .args(["--signal=KILL", seconds, "nsenter"])
            .args(["mnt", "net", "uts", "ipc"].map(|namespace| {
                format!("--{}={}", if namespace == "mnt" { "mount" } else { namespace }, of(namespace))
            }))
            .arg(format!("--pid={}", of("pid_for_children")))
            .args(["sh", "-euc", script])
            .env_clear()
            .envs([("PATH", PATH), ("HOME", "/root"), ("LC_ALL", "C.UTF-8")])
            .stdin(Stdio::null())
            .output()
            .expect("programs can be run")
    }

    /// Runs a script and returns what it prints. Panics with the service's log if it fails.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        self.run_within(SCRIPT_SECONDS_MAX, script)
    }

    #[track_caller]
    pub fn run_slow(&self, script: &str) -> String {
        self.run_within(SLOW_SCRIPT_SECONDS_MAX, script)
    }

    #[track_caller]
    fn run_within(&self, seconds: &str, script: &str) -> String {
        let output = self.outcome_within(seconds, script);
        if !output.status.success() {
            let log =
                self.outcome("journalctl --no-pager --lines=40 --output=short-precise; systemctl --failed");
            let log = String::from_utf8_lossy(&log.stdout).into_owned();
            panic!("{script}\n{output:?}\n{log}");
        }
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    }

    /// Writes a file in the machine, creating its directory.
    pub fn write(&self, path: &str, text: &str) {
        let passed_on = self.dir.path().join("host/file");
        fs::write(passed_on, text).expect("it can be written");
        self.run(&format!("install -D -m 644 /run/host/file '{path}'"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // When the machine's first process ends, so do all others, and unshare waits for that.
        match self.first_process() {
            Some(first) => drop(kill_process(first, Signal::KILL)),
            None => drop(self.child.kill()),
        }
        let _ = self.child.wait();
        let [unshare, words @ ..] = script(self.dir.path(), "clean");
        let cleaned = Command::new(unshare).args(words).output();
        if !std::thread::panicking() {
            assert!(cleaned.is_ok_and(|output| output.status.success()), "its cgroups cannot be removed");
        }
    }
}

/// The script, with its own mounts.
fn script(dir: &Path, what: &str) -> [String; 6] {
    let script = format!("{}/testdata/clients/machine.sh", env!("CARGO_MANIFEST_DIR"));
    let dir = dir.to_string_lossy().into_owned();
    ["unshare".into(), "--mount".into(), "--".into(), script, what.into(), dir]
}
