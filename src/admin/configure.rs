//! `set` and `get`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Context;
use super::commands::{Get, Set};
use super::reply::{Changed, Code, Refusal, Reply, SettingLine};
use crate::certificate;
use crate::mailroot::{self, MailRoot, NamedBy};
use crate::settings::{self, Effect, Key, Place, Settings};
use crate::store::{OpenErrorKind, Read, Store};

/// Says for `mailroot` too that it shall be the default again.
const DEFAULT: &str = "default";

impl Set {
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let key = find(&self.key)?;
        if self.values.is_empty() {
            return Err(Refusal::new(Code::Usage, format!("the value for {} is missing", key.name))
                .with_hint(format!("Allowed: {}", (key.allowed)())));
        }
        if self.move_mail && key.place != Place::Pointer {
            return Err(Refusal::new(Code::Usage, "/move goes with mailroot only"));
        }
        match key.place {
            Place::Pointer => self.set_mailroot(store, context),
            Place::Store | Place::Sockets => self.set_stored(key, store, context),
        }
    }

    /// Whether the setting lies in the store. Refused where there is no such setting.
    pub fn is_stored(&self) -> Result<bool, Refusal> {
        Ok(find(&self.key)?.place != Place::Pointer)
    }

    /// The command with its path as seen from the present directory of whoever typed it.
    pub fn seen_from_here(&self) -> Result<Self, Refusal> {
        let mut set = self.clone();
        let key = find(&set.key)?;
        let paths = set.values.iter_mut().filter(|value| !value.eq_ignore_ascii_case(DEFAULT));
        match key.name {
            "mailroot" if self.values.len() == 1 => {
                for path in paths {
                    *path = mailroot::absolute(Path::new(path))?.to_string_lossy().into_owned();
                }
            }
            "tlscert" | "tlskey" => {
                for path in paths.filter(|path| !path.is_empty()) {
                    let absolute = std::path::absolute(&path).map_err(Refusal::fault)?;
                    *path = absolute.to_string_lossy().into_owned();
                }
            }
            _ => {}
        }
        Ok(set)
    }

    fn set_stored(&self, key: &'static Key, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let rows = stored_rows(store)?;
        let before = from_rows(&rows);
        let after = before.with(key, &self.values)?;
        if matches!(key.name, "tlscert" | "tlskey") {
            certificate::check(&after).map_err(|why| {
                Refusal::new(Code::Value, why)
                    .with_hint("To change both files at once: winpop set tlscert CERTIFICATE KEY")
            })?;
        }
        if key.name == "postmaster"
            && let Some(address) = after.postmaster.get()
            && store
                .read()
                .and_then(|directory| directory.mailbox(address))
                .map_err(Refusal::fault)?
                .is_none()
        {
            return Err(Refusal::new(Code::NotFound, format!("there is no mailbox {address}"))
                .with_hint(format!("To see the mailboxes: winpop list {}", address.domain)));
        }
        if let Some(service) = context.service {
            service.apply(&before, &after).map_err(|why| Refusal::new(Code::Value, why))?;
        }
        let stored = store_settings(store, rows, &before, &after);
        if let (Err(_), Some(service)) = (&stored, context.service)
            && let Err(why) = service.apply(&after, &before)
        {
            log::error!("the settings before the refused change are not in effect again: {why}");
        }
        stored?;

        let mut notes: Vec<String> = after.advice(key).into_iter().collect();
        if key.effect == Effect::NextStart {
            notes.push("it takes effect at the next start of the service".to_owned());
        }
        let message = match after.meaning(key) {
            Some(meaning) => format!("{} is now {} ({meaning})", key.name, after.text(key)),
            None => format!("{} is now {}", key.name, after.text(key)),
        };
        Ok(Changed { notes, ..Changed::new("set", &key.name, message) }.into())
    }

    fn set_mailroot(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let old = context.mailroot;
        let new = match &self.values[..] {
            [word] if word.eq_ignore_ascii_case(DEFAULT) => old.default_dir.clone(),
            [path] if Path::new(path).is_absolute() => mailroot::absolute(Path::new(path))?,
            [path] => {
                return Err(Refusal::new(Code::Malformed, format!("\"{path}\" is not an absolute path")));
            }
            _ => {
                return Err(Refusal::new(Code::Usage, "mailroot is one directory")
                    .with_hint("A path with spaces in it stands in quotes"));
            }
        };
        mailroot::check(&new)?;
        if self.move_mail {
            if context.service.is_some() {
                return Err(Refusal::new(
                    Code::Busy,
                    "the mail store cannot be moved while the service runs",
                )
                .with_hint("Stop the service and try again"));
            }
            move_store(&old.dir, &new)?;
        } else if new != old.dir {
            found_store(&new, store)?;
        }
        old.point_to(&new).map_err(|error| {
            Refusal::fault(format!("{} cannot be written: {error}", old.pointer.display()))
        })?;

        let message = format!("mailroot is now {}", new.display());
        let notes = self.mailroot_notes(&new, store, context)?;
        Ok(Changed { notes, ..Changed::new("set", &"mailroot", message) }.into())
    }

    fn mailroot_notes(&self, new: &Path, store: &Store, context: &Context) -> Result<Vec<String>, Refusal> {
        let old = context.mailroot;
        let mut notes = vec!["it takes effect at the next start of the service".to_owned()];
        if *new == old.dir {
            return Ok(notes);
        }
        if context.service.is_some() {
            notes.push(format!(
                "until then the service goes on with {}, while winpop already looks into the new one",
                old.dir.display()
            ));
        }
        if !self.move_mail && mail_is_in(store)? {
            notes.push(format!("the domains, mailboxes and mail in {} stay there", old.dir.display()));
        }
        match old.named_by {
            NamedBy::CommandLine => notes.push("--mailroot goes before this setting".to_owned()),
            NamedBy::Variable => notes.push("WINPOP_MAILROOT goes before this setting".to_owned()),
            NamedBy::Pointer | NamedBy::Default => {}
        }
        Ok(notes)
    }
}

impl Get {
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let settings = from_rows(&stored_rows(store)?);
        let lines = match &self.key {
            Some(typed) => vec![line(find(typed)?, &settings, context.mailroot)],
            None => settings::keys()
                .filter(|key| key.place != Place::Sockets)
                .map(|key| line(key, &settings, context.mailroot))
                .collect(),
        };
        Ok(Reply::Settings { settings: lines })
    }
}

fn find(typed: &str) -> Result<&'static Key, Refusal> {
    settings::find(typed).map_err(|unknown| {
        let refusal = Refusal::new(Code::Usage, format!("there is no setting \"{typed}\""));
        match unknown.nearest {
            Some(nearest) => refusal.with_hint(format!("Did you mean {nearest}?")),
            None => refusal.with_hint("To see the settings: winpop get"),
        }
    })
}

fn line(key: &Key, settings: &Settings, mailroot: &MailRoot) -> SettingLine {
    let (value, default) = match key.place {
        Place::Pointer => {
            (mailroot.at_next_start().display().to_string(), mailroot.default_dir.display().to_string())
        }
        Place::Store | Place::Sockets => (settings.text(key), Settings::default().text(key)),
    };
    SettingLine {
        setting: key.name.to_owned(),
        meaning: settings.meaning(key),
        is_default: value == default,
        value,
        default,
        takes_effect: key.effect.name().to_owned(),
    }
}

type Rows = Vec<(String, String)>;

fn stored_rows(store: &Store) -> Result<Rows, Refusal> {
    store.read().and_then(|view| view.settings()).map_err(Refusal::fault)
}

/// What a row that is not understood means for the service is told by the service.
fn from_rows(rows: &Rows) -> Settings {
    Settings::from_rows(rows.iter().map(|(key, text)| (key.as_str(), text.as_str()))).0
}

/// Stores the changed settings, unless another administrator has changed some since `rows` were read: then
/// the relations between settings were checked on what is not true any more.
fn store_settings(store: &Store, rows: Rows, before: &Settings, after: &Settings) -> Result<(), Refusal> {
    let changed = after.rows_changed_since(before);
    let stored = store.write(move |tx| {
        if tx.settings()? != rows {
            return Ok(false);
        }
        for (key, text) in &changed {
            tx.set_setting(key, text.as_deref())?;
        }
        Ok(true)
    });
    match stored.wait() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::new(Code::Busy, "another administrator has just changed the settings")
            .with_hint("Look at them and try again")),
        Err(fault) => Err(Refusal::fault(fault)),
    }
}

fn mail_is_in(store: &Store) -> Result<bool, Refusal> {
    let totals = store.read().and_then(|view| view.totals()).map_err(Refusal::fault)?;
    Ok(totals.domains > 0)
}

/// Makes a store with today's settings in a directory that has none. One that is there keeps its own.
fn found_store(dir: &Path, today: &Store) -> Result<(), Refusal> {
    mailroot::create(dir)
        .map_err(|error| Refusal::fault(format!("{} cannot be made: {error}", dir.display())))?;
    let rows = stored_rows(today)?;
    let store = match Store::create(&mailroot::data_file(dir)) {
        Ok(store) => store,
        Err(error) if matches!(error.kind, OpenErrorKind::AlreadyExists | OpenErrorKind::Locked) => {
            return Ok(());
        }
        Err(error) => return Err(Refusal::fault(error)),
    };
    let written =
        store.write(move |tx| rows.iter().try_for_each(|(key, text)| tx.set_setting(key, Some(text))));
    written.wait().map_err(Refusal::fault)
}

/// Moves the files of the store, which this process has open and locked, to a directory that has none.
fn move_store(from: &Path, to: &Path) -> Result<(), Refusal> {
    if from == to {
        return Ok(());
    }
    if mailroot::data_file(to).exists() {
        return Err(Refusal::new(Code::Exists, format!("there is a mail store in {} already", to.display()))
            .with_hint("Name another directory, or leave out /move to use that one"));
    }
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::CrossesDevices => {
            Refusal::fault(format!("{} lies on another file system", to.display())).with_hint(format!(
                "Copy the store with pop3svc backup {}, then set mailroot without /move",
                mailroot::data_file(to).display()
            ))
        }
        _ => Refusal::fault(format!("the mail store cannot be moved to {}: {error}", to.display())),
    };
    mailroot::create(to).map_err(failed)?;
    let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
    for (old, new) in mailroot::files(from).into_iter().zip(mailroot::files(to)) {
        match fs::rename(&old, &new) {
            Ok(()) => moved.push((old, new)),
            // A store without a key file is whole.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                for (old, new) in moved.iter().rev() {
                    fs::rename(new, old).map_err(failed)?;
                }
                return Err(failed(error));
            }
        }
    }
    for dir in [to, from] {
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    }
    Ok(())
}
