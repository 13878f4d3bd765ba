//! Operating system accounts that a test may change: its commands see a copy of `/etc` instead of the real one.
//!
//! Each command has its own mounts, which need root. All commands of a test share one copy, which nobody else sees and
//! which is removed with the test.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::programs::have_namespaces;
use super::scratch;

/// Mounts the copy and the replaced tools, then executes the command.
const SCRIPT: &str = "mount --bind \"$0/etc\" /etc
for tool in \"$0\"/instead/*; do
    [ ! -e \"$tool\" ] || mount --bind \"$tool\" \"/usr/sbin/${tool##*/}\"
done
exec \"$@\"";

pub struct PrivateEtc {
    dir: TempDir,
}

impl PrivateEtc {
    /// `None`, with a message, if mounts are impossible here.
    pub fn new() -> Option<Self> {
        if !have_namespaces(&["--mount"]) {
            return None;
        }
        let etc = Self { dir: scratch::directory() };
        fs::create_dir(etc.dir.path().join("instead")).expect("it is writable");
        let copied = Command::new("cp").args(["--archive", "/etc"]).arg(etc.path("etc")).status();
        assert!(copied.is_ok_and(|status| status.success()), "/etc can be copied");
        Some(etc)
    }

    /// A path in its directory, in which `etc` is the copy.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that sees the copy. The program gets the command's process id.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc", SCRIPT]);
        command.arg(self.dir.path()).arg(program);
        command
    }
}
