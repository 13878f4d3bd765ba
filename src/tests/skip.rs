//! Tests that cannot run here print a message and return.
//!
//! If the variable CI is set they fail instead, unless only namespaces are missing, which many containers forbid.

use std::env;
use std::io::{self, Write as _};

/// True if the test runs as root, which it needs for `what`. If not, it must return.
pub fn needs_root(what: &str) -> bool {
    is_root() || lacks(&format!("root, for {what}"))
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Prints that this is missing, and returns false.
///
/// # Panics
/// If the variable CI is set.
pub fn lacks(what: &str) -> bool {
    assert!(env::var_os("CI").is_none(), "this needs {what}");
    say(&format!("it needs {what}"));
    false
}

/// Prints why a test is skipped, bypassing the test runner, which hides the output of passing tests.
pub fn say(why: &str) {
    let _ = writeln!(io::stderr(), "skipped: {why}");
}
