//! Accounts of an operating system that a test may change: commands that see a copy of `/etc` instead of the real one.
//!
//! Each command has its own mounts, which need root; all commands of a test share one copy. It goes with the test, and
//! nobody else sees it.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::programs::have_namespaces;
use super::scratch;

/// Mounts the copy and the replaced tools; then becomes the command.
const SCRIPT: &str = "mount --bind \"$0/etc\" /etc
for tool in \"$0\"/instead/*; do
    [ ! -e \"$tool\" ] || mount --bind \"$tool\" \"/usr/sbin/${tool##*/}\"
done
exec \"$@\"";

pub struct PrivateEtc {
    dir: TempDir,
}

impl PrivateEtc {
    /// None, with a line that says so, if mounts cannot be made here.
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

    /// Below its directory, where `etc` is the copy.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that sees the copy. It becomes the program itself, which so has its process id.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc", SCRIPT]);
        command.arg(self.dir.path()).arg(program);
        command
    }
}
