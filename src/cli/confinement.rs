//! Least privilege: what the service gives up before it opens the mail store and starts its first thread.
//!
//! - Started by root, it becomes the owner of the mail store directory, with that user's groups.
//! - It keeps only the capability CAP_NET_BIND_SERVICE, if it has it, so that `winpop set port` can choose a port below
//!   1024 while it runs. Programs it executes do not inherit it.
//! - It cannot gain privileges by executing a program, and it is not dumpable: it leaves no core file, and other
//!   processes of the same user cannot read its memory.
//! - Landlock, if the kernel has it, lets it create and write files only below the mail store directory (and the
//!   directory of a key file named elsewhere), and execute nothing. Elsewhere it may create sockets and remove files,
//!   as file permissions allow: `lmtpsocket` may be anywhere, and Landlock cannot tell the removal of a socket from
//!   that of a file. Reading is left to file permissions, because certificates may be anywhere. The file for a backup
//!   arrives open, so none of this affects it.
//!
//! All of this applies per thread: a thread already running would keep its rights.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus,
};
use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::admin::Refusal;
use crate::keyring;
use crate::mailroot::MailRoot;
use crate::user::User;

/// The newest Landlock rules requested; an older kernel enforces those it knows.
const LANDLOCK: ABI = ABI::V5;

/// Gives up what the service does not need. Returns notes for the log, which has not begun yet. Does nothing if there
/// is no mail store directory, since there is nothing to serve.
pub fn confine(mailroot: &MailRoot) -> Result<Vec<String>, Refusal> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Refusal::fault(format!("{what}: {error}"));
    let dir = &mailroot.dir;
    let Some(directory) = fs::metadata(dir).ok().filter(Metadata::is_dir) else { return Ok(Vec::new()) };
    let owner = User::of_id(directory.uid(), directory.gid());
    if rustix::process::geteuid().is_root() && owner.uid != 0 {
        become_user(&owner)
            .map_err(|error| failed(&format!("the service cannot run as the user {owner}"), &error))?;
    }
    give_up_capabilities().map_err(|error| failed("privileges cannot be dropped", &error))?;
    let writable = [Some(dir.clone()), keyring::directory_elsewhere(mailroot)];
    let mut notes = Vec::new();
    match confine_files(&writable.into_iter().flatten().collect::<Vec<PathBuf>>()) {
        Ok(RulesetStatus::NotEnforced) => {
            notes.push(
                "the kernel has no Landlock, so only file permissions limit where the service writes"
                    .to_owned(),
            );
        }
        Ok(_) => {}
        Err(error) => return Err(failed("Landlock", &error)),
    }
    if rustix::process::geteuid().is_root() {
        notes.push(format!(
            "the service runs as root, without its privileges, because root owns {}. To run it as another user: winpop \
             set user NAME",
            dir.display()
        ));
    }
    Ok(notes)
}

/// Makes this thread run as that user. It keeps its permitted capabilities, for [`give_up_capabilities`] to choose
/// from.
fn become_user(user: &User) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = user.groups.iter().map(|id| Gid::from_raw(*id)).collect();
    // While it still may: the bounding set limits what an executed program could get back.
    give_up_bounding_set()?;
    set_keep_capabilities(true)?;
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn give_up_capabilities() -> io::Result<()> {
    give_up_bounding_set()?;
    clear_ambient_capability_set()?;
    let kept = capabilities(None)?.permitted & CapabilitySet::NET_BIND_SERVICE;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    match set_capabilities(None, sets) {
        // A system call filter may forbid it. If no others are left, there is nothing more to give up.
        Err(rustix::io::Errno::PERM) if capabilities(None)?.permitted == kept => {}
        outcome => outcome?,
    }
    set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Needs CAP_SETPCAP. Without it nothing could be regained either, because of no_new_privs.
fn give_up_bounding_set() -> io::Result<()> {
    if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The kernel knows no further ones.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Lets this thread write only below these directories, and execute nothing.
fn confine_files(writable: &[PathBuf]) -> Result<RulesetStatus, RulesetError> {
    let writing = AccessFs::from_write(LANDLOCK);
    let mut ruleset = Ruleset::default().handle_access(writing | AccessFs::Execute)?.create()?;
    let everywhere = (Path::new("/"), AccessFs::MakeSock | AccessFs::RemoveFile);
    for (directory, allowed) in writable.iter().map(|directory| (&**directory, writing)).chain([everywhere]) {
        // A missing directory cannot be written to anyway.
        if let Ok(directory) = PathFd::new(directory) {
            ruleset = ruleset.add_rule(PathBeneath::new(directory, allowed))?;
        }
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::tests::scratch;
    use crate::tests::skip::lacks;

    /// Uses a separate thread, because only that is confined.
    #[test]
    fn a_confined_thread_writes_only_in_its_directory_and_executes_nothing() {
        let (inside, outside) = (scratch::directory(), scratch::directory());
        let (inside, outside) = (inside.path(), outside.path());
        let (readable, directory, elsewhere) =
            (outside.join("readable"), inside.to_owned(), outside.to_owned());
        fs::write(&readable, "x").unwrap();
        let status = std::thread::spawn(move || {
            let status = confine_files(std::slice::from_ref(&directory)).unwrap();
            if status == RulesetStatus::NotEnforced {
                return status;
            }
            let denied = |error: io::Error| assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            fs::write(directory.join("draft"), "x").unwrap();
            fs::rename(directory.join("draft"), directory.join("file")).unwrap();
            fs::remove_file(directory.join("file")).unwrap();
            assert_eq!(fs::read_to_string(&readable).unwrap(), "x");
            denied(fs::write(elsewhere.join("file"), "x").unwrap_err());
            denied(fs::write(&readable, "y").unwrap_err());
            drop(std::os::unix::net::UnixListener::bind(elsewhere.join("socket")).unwrap());
            fs::remove_file(elsewhere.join("socket")).unwrap();
            denied(fs::create_dir(elsewhere.join("directory")).unwrap_err());
            denied(Command::new("/bin/true").status().unwrap_err());
            status
        });
        if status.join().unwrap() == RulesetStatus::NotEnforced {
            lacks("Landlock in the kernel");
        }
        fs::write(outside.join("file"), "other threads are not confined").unwrap();
    }
}
