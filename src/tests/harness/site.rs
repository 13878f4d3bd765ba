//! A directory that serves as a small machine: a home, the program under its three names, a mail store.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::etc::PrivateEtc;
use super::ports::Ports;
use super::process::finish;
use super::programs::path_of_programs;
use super::scratch;
use super::{PASSWORD, PROGRAM};

/// The program's names.
const NAMES: [&str; 3] = ["pop3svc", "winpop", "sendmail"];
/// Where the programs and the mail store are, below the directory.
pub const PROGRAMS: &str = "usr/local/bin";
pub const STORE: &str = "var/lib/winpop";

pub struct Site {
    dir: TempDir,
    /// The accounts that its programs see, if not the real machine's.
    pub etc: Option<PrivateEtc>,
    /// The service's ports, once [`Site::set_ports`] has set them.
    pub ports: Ports,
}

impl Site {
    /// Nothing but the program and a place for a mail store.
    pub fn bare(etc: Option<PrivateEtc>) -> Self {
        let site = Self { dir: scratch::directory(), etc, ports: Ports::free() };
        for dir in [PROGRAMS, "var/lib"] {
            fs::create_dir_all(site.path(dir)).expect("it is writable");
        }
        for name in NAMES {
            symlink(PROGRAM, site.path(PROGRAMS).join(name)).expect("a link can be made");
        }
        site
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path below the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that finds our program, and does not see the environment of whoever runs the tests.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut path = OsString::from(self.path(PROGRAMS));
        path.push(":");
        path.push(path_of_programs());
        let mut command = match &self.etc {
            None => Command::new(program),
            Some(etc) => etc.command(program),
        };
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.dir.path())
            .env("LC_ALL", "C.UTF-8")
            .env("WINPOP_MAILROOT", self.path(STORE))
            .current_dir(self.dir.path());
        command
    }

    /// Runs a program to its end.
    pub fn outcome(&self, program: &str, words: &[&str], input: &[u8]) -> Output {
        finish(self.command(program).args(words), input)
    }

    /// Runs a program and returns what it prints. Panics if it fails.
    #[track_caller]
    pub fn output(&self, program: &str, words: &[&str], input: &[u8]) -> String {
        let output = self.outcome(program, words, input);
        assert!(output.status.success(), "{program} {words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    }

    /// Gives the service free ports. Creates the store if there is none.
    #[track_caller]
    pub fn set_ports(&self) {
        let Ports { pop3, pop3s, smtp, lmtp } = self.ports;
        for (key, port) in [("port", pop3), ("tlsport", pop3s), ("smtpport", smtp), ("lmtpport", lmtp)] {
            self.output("winpop", &["set", key, &port.to_string()], b"");
        }
    }

    /// Creates a mailbox, and its domain if that is missing.
    #[track_caller]
    pub fn add_mailbox(&self, address: &str) {
        let (_, domain) = address.split_once('@').expect("an address");
        if !self.outcome("winpop", &["list", domain], b"").status.success() {
            self.output("winpop", &["add", domain], b"");
        }
        self.output("winpop", &["add", address, "/createuser", PASSWORD], b"");
    }

    /// Verifies the store.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.output("pop3svc", &["check"], b"");
    }
}
