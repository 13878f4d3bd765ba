//! Temporary directories for tests outside the library. Some tests run programs as another user.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::{Builder, TempDir};

/// An empty directory that every user may read, removed when dropped.
pub fn directory() -> TempDir {
    let made = Builder::new().prefix("pop3svc-").permissions(Permissions::from_mode(0o755)).tempdir();
    made.expect("the temporary directory can be written")
}
