//! What a test from outside finds on this machine.

use std::env;
use std::ffi::OsString;
use std::process::Command;

use super::skip::{lacks, say};

/// Whether all of these programs are installed. If not, the test that asks is to return.
pub fn have(programs: &[&str]) -> bool {
    let is_installed =
        |program: &&str| env::split_paths(&path_of_programs()).any(|dir| dir.join(program).is_file());
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !is_installed(program)).collect();
    missing.is_empty() || lacks(&format!("{} (not installed)", missing.join(", ")))
}

/// Whether namespaces of these kinds, options of unshare(1), can be made. If not, the test that asks is to return.
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

/// The directories in which programs are looked for.
pub fn path_of_programs() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}
