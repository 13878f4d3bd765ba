//! `set mailroot`: another directory for the mail store.
//!
//! The administrator's own process does this, even if a service is running, because the service may be unable to see or
//! write the new directory. A directory that root creates gets the old one's owner, so that the service can use it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::commands::Set;
use super::configure::{DEFAULT, Rows, stored_rows};
use super::ownership;
use super::reply::{Changed, Code, Refusal, Reply, SettingLine};
use crate::mailroot::{self, MailRoot, NamedBy};
use crate::replace::{give_to_owner_of, sync_directory};
use crate::settings::Settings;
use crate::store::{OpenErrorKind, Read as _, Store};

/// The state before the change. The default is that of no store.
#[derive(Default)]
pub struct Present {
    settings: Rows,
    has_domains: bool,
    is_served: bool,
}

impl Present {
    /// The state of a store that this process has open.
    pub fn of(store: &Store) -> Result<Self, Refusal> {
        let totals = store.read().and_then(|view| view.totals()).map_err(Refusal::fault)?;
        Ok(Self { settings: stored_rows(store)?, has_domains: totals.domains > 0, is_served: false })
    }

    /// The state as reported by a running service. Refused if the service's directory is named elsewhere, because it
    /// would keep using that.
    pub fn told(settings: &[SettingLine], has_domains: bool) -> Result<Self, Refusal> {
        let line = |name: &str| settings.iter().find(|line| line.setting == name);
        if let Some(named) = line("mailroot").and_then(|line| line.meaning.as_ref()) {
            return Err(Refusal::new(
                Code::Busy,
                format!("the mail store of the running service is {named}, which overrides this setting"),
            )
            .with_hint("Remove that from its unit, restart it, and then set mailroot"));
        }
        let shown = settings.iter().map(|line| (line.setting.as_str(), line.value.to_string()));
        let today = Settings::from_shown(shown)?;
        let changed = today.rows_changed_since(&Settings::default()).into_iter();
        let settings = changed.filter_map(|(key, text)| Some((key.to_owned(), text?))).collect();
        Ok(Self { settings, has_domains, is_served: true })
    }
}

/// Points to another directory, and creates a store with the current settings there if there is none.
pub fn set_mailroot(set: &Set, present: &Present, old: &MailRoot) -> Result<Reply, Refusal> {
    let new = match &set.values[..] {
        [word] if word.eq_ignore_ascii_case(DEFAULT) => old.default_dir.clone(),
        [path] if Path::new(path).is_absolute() => mailroot::absolute(Path::new(path))?,
        [path] => return Err(Refusal::new(Code::Malformed, format!("\"{path}\" is not an absolute path"))),
        _ => {
            return Err(
                Refusal::usage("mailroot takes one directory").with_hint("Put a path with spaces in quotes")
            );
        }
    };
    mailroot::check(&new)?;
    if set.move_mail && present.is_served {
        return Err(Refusal::new(Code::Busy, "the mail store cannot be moved while the service runs")
            .with_hint("Stop the service and try again"));
    }
    let unwritable = |error| Refusal::fault(format!("{} cannot be written: {error}", old.pointer.display()));
    // Before the mail moves: without a pointer nobody would find it.
    let pointer = old.pointer_to(&new).map_err(unwritable)?;
    if set.move_mail {
        move_store(&old.dir, &new)?;
    } else if new != old.dir {
        found_store(&new, &old.dir, &present.settings)?;
    }
    if let Err(error) = pointer.finish() {
        if set.move_mail {
            move_files(&new, &old.dir).map_err(|error| {
                let new = new.display();
                Refusal::fault(format!("the mail store is now in {new} and cannot be moved back: {error}"))
            })?;
        }
        return Err(unwritable(error));
    }

    let message = format!("mailroot is now {}", new.display());
    Ok(Changed { notes: notes(set, &new, present, old), ..Changed::new("set", &"mailroot", message) }.into())
}

fn notes(set: &Set, new: &Path, present: &Present, old: &MailRoot) -> Vec<String> {
    let mut notes = vec!["this takes effect when the service next starts".to_owned()];
    if *new == old.dir {
        return notes;
    }
    if old.is_of_machine() {
        notes.push(format!(
            "if systemd restricts where the service may write, its unit needs the line ReadWritePaths={}",
            new.display()
        ));
    }
    if present.is_served {
        notes.push(format!(
            "until then the service keeps using {}, while winpop already uses the new one",
            old.dir.display()
        ));
    }
    if !set.move_mail && present.has_domains {
        notes.push(format!("the domains, mailboxes and mail in {} were not moved", old.dir.display()));
    }
    if let (Some(before), Some(now)) = (ownership::owner(&old.dir), ownership::owner(new))
        && before.uid != now.uid
    {
        notes.push(format!(
            "{} belongs to the user {now}; if the service runs as {before}: winpop set user {}",
            new.display(),
            before.typed()
        ));
    }
    match old.named_by {
        NamedBy::CommandLine => notes.push("--mailroot overrides this setting".to_owned()),
        NamedBy::Variable => notes.push("WINPOP_MAILROOT overrides this setting".to_owned()),
        NamedBy::Pointer | NamedBy::Default => {}
    }
    notes
}

/// Creates a store with these settings, unless the directory has one, which keeps its own.
fn found_store(dir: &Path, old: &Path, settings: &Rows) -> Result<(), Refusal> {
    let failed = |error: io::Error| Refusal::fault(format!("{} cannot be created: {error}", dir.display()));
    make_directory(dir, old).map_err(failed)?;
    let data_file = mailroot::data_file(dir);
    let store = match Store::create(&data_file) {
        Ok(store) => store,
        Err(error) if matches!(error.kind, OpenErrorKind::AlreadyExists | OpenErrorKind::Locked) => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let rows = settings.clone();
    let written =
        store.write(move |tx| rows.iter().try_for_each(|(key, text)| tx.set_setting(key, Some(text))));
    written.wait().map_err(Refusal::fault)?;
    give_to_owner_of(&data_file, if old.exists() { old } else { dir }).map_err(failed)
}

/// Creates the directory if it is missing. A new or empty one gets the owner of the old mail store directory, if that
/// exists.
fn make_directory(dir: &Path, old: &Path) -> io::Result<()> {
    mailroot::create(dir)?;
    // A new file system has a directory for what fsck finds.
    let is_empty = fs::read_dir(dir)?.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lost+found"));
    if is_empty && old.exists() { give_to_owner_of(dir, old) } else { Ok(()) }
}

/// Moves the store's files, which this process has locked, to a directory without a store.
fn move_store(from: &Path, to: &Path) -> Result<(), Refusal> {
    if from == to {
        return Ok(());
    }
    if mailroot::data_file(to).exists() {
        return Err(Refusal::new(Code::Exists, format!("{} already has a mail store", to.display()))
            .with_hint("Choose another directory, or leave out /move to use the mail store there"));
    }
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::CrossesDevices => {
            Refusal::fault(format!("{} is on another file system", to.display())).with_hint(copying(from, to))
        }
        _ => Refusal::fault(format!("the mail store cannot be moved to {}: {error}", to.display())),
    };
    make_directory(to, from).and_then(|()| move_files(from, to)).map_err(failed)
}

/// The commands that copy a store to another file system.
fn copying(from: &Path, to: &Path) -> String {
    let ([data_file, _], [_, key_file]) = (mailroot::files(to), mailroot::files(from));
    let (data_file, to) = (data_file.display(), to.display());
    // The key file may be kept elsewhere.
    let key = match key_file.exists() {
        true => format!("cp {} {to} && ", key_file.display()),
        false => String::new(),
    };
    let user = ownership::owner(from).map_or_else(|| "NAME".to_owned(), |owner| owner.typed());
    format!(
        "To copy it there: pop3svc backup {data_file} && {key}winpop set mailroot {to} && winpop set user {user}"
    )
}

/// Moves the store's files, all or none of them.
fn move_files(from: &Path, to: &Path) -> io::Result<()> {
    let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
    for (old, new) in mailroot::files(from).into_iter().zip(mailroot::files(to)) {
        match fs::rename(&old, &new) {
            Ok(()) => moved.push((old, new)),
            // A store need not have a key file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                for (old, new) in moved.iter().rev() {
                    fs::rename(new, old)?;
                }
                return Err(error);
            }
        }
    }
    sync_directory(to)?;
    sync_directory(from)
}
