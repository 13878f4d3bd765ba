//! The Unix socket for LMTP (setting `lmtpsocket`), Postfix's natural way to deliver.
//!
//! Its mode is 0660, so members of its group can deliver. In a directory with the set-group-ID bit it gets the
//! directory's group; that is how an administrator chooses it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use async_io::Async;

const MODE: u32 = 0o660;

/// Listens at this path, replacing a socket left by a crash. Fails with `AddrInUse` if somebody answers on the socket,
/// with `AlreadyExists` if the file is not a socket.
pub fn bind(path: &Path) -> io::Result<Async<UnixListener>> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => fs::remove_file(path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    Async::new(listener)
}

/// Removes the file of a socket that is closed.
pub fn remove(path: &Path) {
    if let Err(e) = fs::remove_file(path) {
        log::warn!("the socket {} could not be removed: {e}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::scratch;

    #[test]
    fn a_stale_socket_is_replaced_and_nothing_else_is() {
        let directory = scratch::directory();
        let path = directory.path().join("lmtp");
        let listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        drop(bind(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"precious").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
