//! What this machine offers to tests outside the library.

use std::env;
use std::ffi::OsString;
use std::process::Command;

use super::skip::{lacks, say};

/// True if all of these programs are installed. If not, the calling test must return.
pub fn have(programs: &[&str]) -> bool {
    let is_installed =
        |program: &&str| env::split_paths(&path_of_programs()).any(|dir| dir.join(program).is_file());
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !is_installed(program)).collect();
    missing.is_empty() || lacks(&format!("{} (not installed)", missing.join(", ")))
}

/// True if namespaces of these kinds (options of unshare(1)) can be created. If not, the calling test must return.
pub fn have_namespaces(kinds: &[&str]) -> bool {
    if !have(&["unshare"]) {
        return false;
    }
    let probed = Command::new("unshare").args(kinds).args(["--fork", "true"]).output();
    let can_be_made = probed.is_ok_and(|output| output.status.success());
    if !can_be_made {
        say(&format!("namespaces cannot be made here ({})", kinds.join(" ")));
    }
    can_be_made
}

/// Where to look for programs.
pub fn path_of_programs() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}
