//! `restore`: replaces the data file by a backup.
//!
//! The backup is copied next to the data file and the copy is verified; the backup itself is only read. Meanwhile the
//! data file is locked, so that no service or other command opens it; a command that has it open is waited for. Then
//! the old file gets a second name and the copy takes its place, so that a whole data file exists at every instant.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::macros::format_description;

use super::carry_out::OTHERS_MAX;
use super::commands::Restore;
use super::patience::until_free;
use super::progress;
use super::serve::service_answers;
use super::upkeep::is_same_file;
use crate::admin::reply::{Changed, Checked, Code};
use crate::admin::{self, Refusal, Reply};
use crate::auth::seal::KeyId;
use crate::control::Answer;
use crate::keyring;
use crate::mailroot::{self, MailRoot};
use crate::replace::Replacement;
use crate::store::{Read as _, Store};

pub fn restore(typed: &Restore, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    let mailroot = mailroot()?;
    let backup = Path::new(&typed.file);
    let data_file = mailroot.data_file();
    let read = |error| Refusal::fault(format!("{} cannot be read: {error}", backup.display()));
    let mut from = File::open(backup).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Refusal::new(Code::NotFound, format!("there is no file {}", backup.display()))
        }
        _ => read(error),
    })?;
    if is_same_file(backup, &data_file) {
        return Err(Refusal::new(Code::Exists, format!("{} is the mail store itself", backup.display())));
    }
    mailroot::create(&mailroot.dir).map_err(|error| unwritable(&mailroot.dir, &error))?;
    let present = until_free(&mailroot, OTHERS_MAX, || lock(&mailroot))?;
    let written = |error: io::Error| unwritable(&data_file, &error);
    let copy = Replacement::begin(&data_file, 0o600).map_err(written)?;
    if present.is_none() {
        copy.give_to_owner_of(&mailroot.dir).map_err(written)?;
    }
    io::copy(&mut from, &mut copy.file()).map_err(written)?;
    let (checked, key) = verified(&copy, backup)?;
    let kept = match present {
        Some(_) => Some(keep(&data_file).map_err(written)?),
        None => None,
    };
    copy.finish().map_err(written)?;
    drop(present);

    let message = format!(
        "{} restored from {}: domains {}, mailboxes {}, messages {}",
        data_file.display(),
        backup.display(),
        checked.domains,
        checked.mailboxes,
        checked.messages
    );
    let kept = kept.map(|kept| format!("the old data file is kept as {}", kept.display()));
    // A store without a key gets one from the service, owned by its user.
    let trouble = key.and_then(|key| keyring::trouble_with(key, &mailroot)).map(|trouble| {
        format!(
            "{trouble}; restore the key from the time of the backup, or APOP, CRAM-MD5 and NTLM will not work"
        )
    });
    let notes = kept.into_iter().chain(trouble).collect();
    Ok(Changed { notes, ..Changed::new("restore", &data_file.display(), message) }.into())
}

/// Locks the data file, whatever it contains: `Some(None)` if it does not exist, `None` if another command has it.
/// Refused if a service has it.
fn lock(mailroot: &MailRoot) -> Result<Option<Option<File>>, Refusal> {
    let data_file = mailroot.data_file();
    let fault = |error| Refusal::fault(format!("{}: {error}", data_file.display()));
    let file = match File::open(&data_file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(None)),
        Err(error) => return Err(fault(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(Some(file))),
        Err(TryLockError::WouldBlock) if service_answers(mailroot) => {
            Err(Refusal::new(Code::Busy, "the service has the mail store open")
                .with_hint("Stop the service, restore, then start it again"))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(fault(error)),
    }
}

/// Counts what the copy contains, if it is an intact store, and names the key that sealed its passwords.
fn verified(copy: &Replacement, backup: &Path) -> Result<(Checked, Option<KeyId>), Refusal> {
    let file = copy.file().try_clone().map_err(Refusal::fault)?;
    let store = Store::open_file_verified(file).map_err(|why| {
        Refusal::new(Code::Damaged, format!("{} was not restored: {why}", backup.display()))
    })?;
    let Reply::Checked(checked) = progress::shown(|progress| admin::check(&store, progress))? else {
        panic!("a check is answered by what was found")
    };
    let key = store.read().and_then(|view| view.totals()).map_err(Refusal::fault)?.key;
    match checked.findings.first() {
        None => Ok((checked, key)),
        Some(finding) => Err(Refusal::new(
            Code::Damaged,
            format!("{} is damaged and was not restored: {finding}", backup.display()),
        )
        .with_hint("To see what can be saved, repair a copy of it: pop3svc check --repair COPY")),
    }
}

/// Gives the data file a second name with the current time in it.
fn keep(data_file: &Path) -> io::Result<PathBuf> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let now = OffsetDateTime::now_utc().format(format).expect("a time has every field of the format");
    let kept = (1..).map(|number| match number {
        1 => data_file.with_extension(format!("db.before-{now}")),
        _ => data_file.with_extension(format!("db.before-{now}-{number}")),
    });
    for kept in kept {
        match fs::hard_link(data_file, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // The file system has no hard links: for an instant there is no data file.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                return fs::rename(data_file, &kept).map(|()| kept);
            }
            Err(error) => return Err(error),
        }
    }
    unreachable!("there are more numbers than files")
}

fn unwritable(path: &Path, error: &io::Error) -> Refusal {
    Refusal::fault(format!("{} cannot be written: {error}", path.display()))
}
