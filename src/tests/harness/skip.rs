//! Tests that cannot run here: they say so and return.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};

/// Whether all of these programs are installed. If not, the test that asks is to return. Panics instead if the variable
/// CI is set.
pub fn have(programs: &[&str]) -> bool {
    let is_installed =
        |program: &&str| env::split_paths(&path_of_programs()).any(|dir| dir.join(program).is_file());
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !is_installed(program)).collect();
    missing.is_empty() || lacks(&format!("{} (not installed)", missing.join(", ")))
}

/// The same for root, which the test needs for `what`.
pub fn needs_root(what: &str) -> bool {
    is_root() || lacks(&format!("root, for {what}"))
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that the test needs this. False; panics instead if the variable CI is set.
pub fn lacks(what: &str) -> bool {
    assert!(env::var_os("CI").is_none(), "this needs {what}");
    skip(&format!("it needs {what}"));
    false
}

/// Says why the test does not run, past the test runner, which keeps to itself what passing tests print.
pub fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "skipped: {why}");
}

/// The directories in which programs are looked for.
pub fn path_of_programs() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}
