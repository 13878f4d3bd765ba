//! Temporary directories for all tests, inside the library and outside.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::{Builder, TempDir};

/// An empty directory, removed when dropped. Every user may read it: some tests run programs as another user.
pub fn directory() -> TempDir {
    let made = Builder::new().prefix("pop3svc-").permissions(Permissions::from_mode(0o755)).tempdir();
    made.expect("the temporary directory can be written")
}
