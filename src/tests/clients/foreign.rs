//! Programs that are not ours and may not be installed.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};

/// Whether all of these programs are installed. Where one is not, the test that asks is to return: it is passed over,
/// with a line that says so. Panics instead where the variable CI is set.
pub fn have(programs: &[&str]) -> bool {
    let is_installed =
        |program: &&str| env::split_paths(&path_of_programs()).any(|dir| dir.join(program).is_file());
    let missing: Vec<&str> = programs.iter().copied().filter(|program| !is_installed(program)).collect();
    passed_over(&missing.join(", "))
}

/// The same for the tests of a language's own library and other things that are not programs: `missing` names what is
/// not there, and is empty where all is.
pub fn passed_over(missing: &str) -> bool {
    if missing.is_empty() {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "not installed: {missing}");
    write_past_the_runner(&format!("passed over, because this is not installed: {missing}"));
    false
}

/// Says something that the test runner does not keep to itself, as it does with what tests that pass print.
pub fn write_past_the_runner(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The directories in which programs are looked for.
pub fn path_of_programs() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}
