//! Tests that cannot run here: they say so and return.
//!
//! If the variable CI is set they fail instead, unless only namespaces are missing: many a container forbids those.

use std::env;
use std::io::{self, Write as _};

/// Whether this is root, which the test needs for `what`. If not, the test is to return.
pub fn needs_root(what: &str) -> bool {
    is_root() || lacks(&format!("root, for {what}"))
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that the test needs this, which is missing. Always false.
///
/// # Panics
/// If the variable CI is set.
pub fn lacks(what: &str) -> bool {
    assert!(env::var_os("CI").is_none(), "this needs {what}");
    say(&format!("it needs {what}"));
    false
}

/// Says why a test does not run, past the test runner, which keeps to itself what passing tests print.
pub fn say(why: &str) {
    let _ = writeln!(io::stderr(), "skipped: {why}");
}
