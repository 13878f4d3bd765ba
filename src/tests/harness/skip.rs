//! Tests that cannot run here print a message and return.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};

/// True if all of these programs are installed; if not, the calling test must return. Panics instead if the variable CI
/// is set.
pub fn have(programs: &[&str]) -> bool {
    let is_installed =
        |program: &&str| env::split_paths(&path_of_programs()).any(|dir| dir.join(program).is_file());
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !is_installed(program)).collect();
    missing.is_empty() || lacks(&format!("{} (not installed)", missing.join(", ")))
}

/// True if the test runs as root, which it needs for `what`. Otherwise as in [`have`].
pub fn needs_root(what: &str) -> bool {
    is_root() || lacks(&format!("root, for {what}"))
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Prints that the test needs this, and returns false. Panics instead if the variable CI is set.
pub fn lacks(what: &str) -> bool {
    assert!(env::var_os("CI").is_none(), "this needs {what}");
    skip(&format!("it needs {what}"));
    false
}

/// Prints why the test is skipped, bypassing the test runner, which hides the output of passing tests.
pub fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "skipped: {why}");
}

/// Where to look for programs.
pub fn path_of_programs() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}
