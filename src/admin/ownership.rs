//! `set user`: the owner of the mail store, who is also the user the service runs as when root starts it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

use super::Context;
use super::commands::Set;
use super::configure::DEFAULT;
use super::reply::{Changed, Code, Refusal, Reply};
use crate::user::User;

/// How the names of a mail store's files and their drafts begin.
const OURS: [&str; 3] = ["winpop.", ".winpop.", ".incoming-"];

/// The owner of a mail store directory.
pub fn owner(dir: &Path) -> Option<User> {
    fs::metadata(dir).ok().map(|dir| User::of_id(dir.uid(), dir.gid()))
}

/// Gives the mail store to another user.
pub fn set_user(set: &Set, context: &Context) -> Result<Reply, Refusal> {
    let dir = &context.mailroot.dir;
    let present = owner(dir).ok_or_else(|| Refusal::fault(format!("{} cannot be read", dir.display())))?;
    let user = typed_user(set)?.unwrap_or_else(|| present.clone());
    if context.service.is_some() && user.uid != present.uid {
        return Err(Refusal::new(Code::Busy, "the user cannot be changed while the service runs")
            .with_hint("Stop the service and try again"));
    }
    // Even if the owner stays the same: root may have copied files into the directory.
    if context.service.is_none() {
        give(dir, &user).map_err(|error| {
            let refusal =
                Refusal::fault(format!("{} cannot be given to the user {user}: {error}", dir.display()));
            match error.kind() {
                io::ErrorKind::PermissionDenied => refusal.with_hint("Run the command as root"),
                _ => refusal,
            }
        })?;
    }
    Ok(Changed::new("set", &"user", format!("user is now {user}")).into())
}

/// `None` for the present owner.
pub fn typed_user(set: &Set) -> Result<Option<User>, Refusal> {
    match &set.values[..] {
        [word] if word.eq_ignore_ascii_case(DEFAULT) => Ok(None),
        [typed] => User::named(typed).map(Some).ok_or_else(|| {
            Refusal::new(Code::Value, format!("there is no user \"{typed}\" on this machine"))
                .with_hint("To create one: useradd --system --shell /usr/sbin/nologin winpop")
        }),
        _ => Err(Refusal::usage("user takes one user")),
    }
}

/// The directory comes last, so that a failed attempt can be repeated.
fn give(dir: &Path, user: &User) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if is_ours(&entry.file_name()) {
            lchown(entry.path(), Some(user.uid), Some(user.gid))?;
        }
    }
    lchown(dir, Some(user.uid), Some(user.gid))
}

fn is_ours(name: &OsStr) -> bool {
    OURS.iter().any(|ours| name.as_encoded_bytes().starts_with(ours.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::scratch;
    use crate::tests::skip::needs_root;

    #[test]
    fn other_files_in_the_directory_keep_their_owner() {
        if !needs_root("giving a file to another user") {
            return;
        }
        let scratch = scratch::directory();
        let dir = scratch.path();
        for name in ["winpop.db", "winpop.key", ".winpop.db.1.0.unfinished", "letters"] {
            fs::write(dir.join(name), "").unwrap();
        }
        give(dir, &User::of_id(12_345, 54_321)).unwrap();
        let owner = |path: &Path| (fs::metadata(path).unwrap().uid(), fs::metadata(path).unwrap().gid());
        for name in ["", "winpop.db", "winpop.key", ".winpop.db.1.0.unfinished"] {
            assert_eq!(owner(&dir.join(name)), (12_345, 54_321), "{name}");
        }
        assert_eq!(owner(&dir.join("letters")), (0, 0));
    }
}
