//! `backup`, `check`, `compact` and `key`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::carry_out::carry_out;
use super::commands::{Backup, Check, Key};
use super::progress;
use crate::admin::reply::Code;
use crate::admin::{self, Refusal, Reply, Request};
use crate::control::{Answer, Enclosed};
use crate::mailroot::{self, MailRoot};
use crate::replace::{Replacement, directory_of};
use crate::store::{NotReplaced, OpenError, OpenErrorKind, may_replace};

/// Copies the store into a file next to the target, which replaces the target when complete. This process creates the
/// file because the service may run as another user and see another file system.
pub fn backup(typed: &Backup, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    let target = std::path::absolute(&typed.file)
        .map_err(|error| Refusal::new(Code::Malformed, format!("\"{}\": {error}", typed.file)))?;
    let mailroot = mailroot()?;
    if is_same_file(&target, &mailroot.data_file()) {
        return Err(Refusal::new(
            Code::Exists,
            format!("{} is the mail store itself and is not overwritten", target.display()),
        )
        .with_hint("Choose another file"));
    }
    if is_of_another_store(&target) {
        return Err(Refusal::new(
            Code::Exists,
            format!(
                "{} seems to be another mail store's data file, because winpop.key lies next to it, and is not overwritten",
                target.display()
            ),
        )
        .with_hint("Choose another file; if this one is a backup, move that key to another place"));
    }
    may_replace(&target).map_err(|why| not_replaced(&target, why))?;
    let copy = Replacement::begin(&target, 0o600).map_err(|error| not_made(&target, &error))?;
    let request = Request::Backup { file: target.to_string_lossy().into_owned() };
    let reply = carry_out(request, Enclosed::File(copy.file()), &mailroot)?;
    copy.finish().map_err(|error| not_made(&target, &error))?;
    Ok(reply)
}

/// True for the data file of a mail store, which is not served now. A backup has no key next to it.
fn is_of_another_store(target: &Path) -> bool {
    let Ok(file) = fs::canonicalize(target) else { return false };
    let [data_file, key_file] = mailroot::files(directory_of(&file));
    file == data_file && key_file.exists()
}

/// True if two paths lead to the same file.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

fn not_replaced(target: &Path, why: NotReplaced) -> Refusal {
    let target_name = target.display();
    match why {
        NotReplaced::Foreign => Refusal::new(
            Code::Exists,
            format!("{target_name} exists and is not a backup, so it is not overwritten"),
        )
        .with_hint("Choose another file, or remove this one"),
        NotReplaced::InUse => {
            Refusal::new(Code::Exists, format!("{target_name} is a mail store in use and is not overwritten"))
                .with_hint("Choose another file")
        }
        NotReplaced::Io(error) => not_made(target, &error),
    }
}

/// The refusal if the target cannot be created.
fn not_made(target: &Path, error: &io::Error) -> Refusal {
    let directory = target.parent().unwrap_or(target);
    match error.kind() {
        io::ErrorKind::NotFound => {
            Refusal::new(Code::NotFound, format!("there is no directory {}", directory.display()))
                .with_hint("Create it first, or choose another directory")
        }
        io::ErrorKind::NotADirectory => {
            Refusal::new(Code::Malformed, format!("{} is not a directory", directory.display()))
        }
        _ => Refusal::fault(format!("{} cannot be written: {error}", target.display())),
    }
}

pub fn key(typed: &Key, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    let request = match (typed.rotate, typed.discard) {
        (true, discard) => Request::RotateKey { discard },
        (false, false) => Request::Key,
        (false, true) => return Err(Refusal::usage("--discard is only for use with --rotate")),
    };
    carry_out(request, Enclosed::Nothing, &mailroot()?)
}

/// Makes the data file as short as possible.
pub fn compact(mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    carry_out(Request::Compact, Enclosed::Nothing, &mailroot()?)
}

/// Checks the store of the mail root, even if a service has it open, or another file that no process has open. A typed
/// path is opened here, because a service may see another file system. Opened here, the checksums of its index are
/// compared too.
pub fn check(typed: &Check, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    let mailroot = mailroot()?;
    // A typed path may lead through a link; the store's own name may not.
    let file = match &typed.file {
        Some(typed) => match fs::canonicalize(typed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Refusal::new(Code::NotFound, format!("there is no file {typed}")));
            }
            found => found.unwrap_or_else(|_| PathBuf::from(typed)),
        },
        None => mailroot.data_file(),
    };
    if typed.repair {
        return progress::shown(|progress| admin::repair(&file, progress));
    }
    let is_of_mailroot = typed.file.is_none() || is_same_file(&file, &mailroot.data_file());
    let mut reply = match progress::shown(|progress| admin::check_file(&file, progress)) {
        Ok(reply) => reply,
        Err(OpenError { kind: OpenErrorKind::Locked | OpenErrorKind::Missing, .. }) if is_of_mailroot => {
            carry_out(Request::Check, Enclosed::Nothing, &mailroot)?
        }
        Err(error) => return Err(error.into()),
    };
    if let (true, Reply::Checked(checked)) = (is_of_mailroot, &mut reply) {
        let misplaced = files_of_others(&mailroot);
        checked.findings_total += misplaced.len() as u64;
        checked.findings.extend(misplaced);
    }
    Ok(reply)
}

/// Findings about files of the mail store whose owner is not its directory's: root can read them, the service may not.
fn files_of_others(mailroot: &MailRoot) -> Vec<String> {
    let owner = |path: &Path| fs::metadata(path).map(|file| file.uid()).ok();
    let Some(of_directory) = owner(&mailroot.dir) else { return Vec::new() };
    let files = mailroot::files(&mailroot.dir).into_iter();
    let misplaced = files.filter(|file| owner(file).is_some_and(|of_file| of_file != of_directory));
    let sentence = |file: PathBuf| {
        format!(
            "{} and its directory belong to different users, so the service may be unable to open it; to fix this: chown \
             --reference={} {}",
            file.display(),
            mailroot.dir.display(),
            file.display()
        )
    };
    misplaced.map(sentence).collect()
}
