//! `backup`, `check` and `key`.

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
use crate::replace::Replacement;
use crate::store::{NotReplaced, OpenError, OpenErrorKind, may_replace};

/// Has the store copied into a file beside the target, which takes the target's place once it is whole. The file is
/// made here and not by the service: that may run as another user, and see another file system.
pub fn backup(typed: &Backup, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    let target = std::path::absolute(&typed.file)
        .map_err(|error| Refusal::new(Code::Malformed, format!("\"{}\": {error}", typed.file)))?;
    let mailroot = mailroot()?;
    if is_same_file(&target, &mailroot.data_file()) {
        return Err(Refusal::new(
            Code::Exists,
            format!("{} is the mail store itself, so it is not replaced", target.display()),
        )
        .with_hint("Name another file"));
    }
    may_replace(&target).map_err(|why| not_replaced(&target, why))?;
    let copy = Replacement::begin(&target, 0o600).map_err(|error| not_made(&target, &error))?;
    let request = Request::Backup { file: target.to_string_lossy().into_owned() };
    let reply = carry_out(request, Enclosed::File(copy.file()), &mailroot)?;
    copy.finish().map_err(|error| not_made(&target, &error))?;
    Ok(reply)
}

/// Whether two names lead to one file.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

fn not_replaced(target: &Path, why: NotReplaced) -> Refusal {
    let target_name = target.display();
    match why {
        NotReplaced::Foreign => Refusal::new(
            Code::Exists,
            format!("{target_name} exists and is not a backup of a mail store, so it is not replaced"),
        )
        .with_hint("Name another file, or remove it"),
        NotReplaced::InUse => {
            Refusal::new(Code::Exists, format!("{target_name} is a mail store in use, so it is not replaced"))
                .with_hint("Name another file")
        }
        NotReplaced::Io(error) => not_made(target, &error),
    }
}

/// A file could not be made in its directory.
fn not_made(target: &Path, error: &io::Error) -> Refusal {
    let directory = target.parent().unwrap_or(target);
    match error.kind() {
        io::ErrorKind::NotFound => {
            Refusal::new(Code::NotFound, format!("there is no directory {}", directory.display()))
                .with_hint("Make it first, or name a file in another one")
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
        (false, true) => return Err(Refusal::new(Code::Usage, "--discard goes with --rotate only")),
    };
    carry_out(request, Enclosed::Nothing, &mailroot()?)
}

/// Has the mail store made as short as can be.
pub fn compact(mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    carry_out(Request::Compact, Enclosed::Nothing, &mailroot()?)
}

/// Checks the store of the mail root, whoever has it open, or another file, which nobody may have open. It is read
/// here: a path that was typed is the administrator's, and a service may see another file system. Where it is opened
/// here, the checksums of its index are compared too.
pub fn check(typed: &Check, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    let mailroot = mailroot()?;
    // A path that was typed may lead through a link; the store's own name may not.
    let file = match &typed.file {
        Some(typed) => fs::canonicalize(typed).unwrap_or_else(|_| PathBuf::from(typed)),
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

/// Files of the mail store that belong to another user than its directory: root may read them, and the service may not.
fn files_of_others(mailroot: &MailRoot) -> Vec<String> {
    let owner = |path: &Path| fs::metadata(path).map(|file| file.uid()).ok();
    let Some(of_directory) = owner(&mailroot.dir) else { return Vec::new() };
    let files = mailroot::files(&mailroot.dir).into_iter();
    let misplaced = files.filter(|file| owner(file).is_some_and(|of_file| of_file != of_directory));
    let sentence = |file: PathBuf| {
        format!(
            "{} belongs to another user than its directory, so the service may be unable to open it; to fix it: chown \
             --reference={} {}",
            file.display(),
            mailroot.dir.display(),
            file.display()
        )
    };
    misplaced.map(sentence).collect()
}
