//! `set` and `get`.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::commands::{Get, Set};
use super::reply::{Changed, Code, Refusal, Reply, SettingLine, SettingValue};
use super::{Context, accounts, ownership, relocate};
use crate::certificate;
use crate::keyring::Sealing;
use crate::mailroot::{self, MailRoot, NamedBy};
use crate::settings::{self, BIND_PASSWORD, Effect, KeptIn, Key, Kind, Settings, Stored};
use crate::store::{Fault, Progress, Read, Store};
use crate::units;

/// The value that restores the default, also of `mailroot` and `user`.
pub const DEFAULT: &str = "default";

/// What `get mailroot` says if something overrides the setting.
const BY_COMMAND_LINE: &str = "named by --mailroot";
const BY_VARIABLE: &str = "named by WINPOP_MAILROOT";

impl Set {
    pub fn run(&self, store: &Store, context: &Context, progress: &Progress) -> Result<Reply, Refusal> {
        let key = self.key()?;
        match key.kept_in {
            KeptIn::Pointer => relocate::set_mailroot(self, &relocate::Present::of(store)?, context.mailroot),
            KeptIn::Owner => ownership::set_user(self, context),
            KeptIn::Store(_) | KeptIn::Sockets => self.set_stored(key, store, context, progress),
        }
    }

    /// The setting, if the command has a value and the switches suit.
    fn key(&self) -> Result<&'static Key, Refusal> {
        let key = find(&self.key)?;
        if self.values.is_empty() {
            return Err(Refusal::usage(format!("the value for {} is missing", key.name))
                .with_hint(format!("Allowed: {}", (key.allowed)())));
        }
        if self.move_mail && key.kept_in != KeptIn::Pointer {
            return Err(Refusal::usage("/move is only for mailroot"));
        }
        Ok(key)
    }

    /// True for `mailroot`, which the administrator's own process sets because the service may be unable to write
    /// there. An error if there is no such setting.
    pub fn is_mailroot(&self) -> Result<bool, Refusal> {
        Ok(find(&self.key)?.kept_in == KeptIn::Pointer)
    }

    /// True if the command may create a missing mail store. An error if it would be refused anyway.
    pub fn founds_store(&self) -> Result<bool, Refusal> {
        let key = self.key()?;
        match key.kept_in {
            KeptIn::Pointer => Ok(false),
            KeptIn::Owner => ownership::typed_user(self).map(|_| true),
            KeptIn::Store(_) if self.is_secret() => Ok(true),
            KeptIn::Store(_) | KeptIn::Sockets => {
                let after = self.changed(key, &Settings::default(), &self.values)?;
                // A new store does not have that mailbox.
                Ok(after.postmaster.get().is_none())
            }
        }
    }

    /// The command with its paths made absolute, from the current directory.
    pub fn seen_from_here(&self) -> Result<Self, Refusal> {
        let mut set = self.clone();
        let key = find(&set.key)?;
        let paths = set.values.iter_mut().filter(|value| !value.eq_ignore_ascii_case(DEFAULT));
        match key.kept_in {
            KeptIn::Pointer if self.values.len() == 1 => {
                for path in paths {
                    *path = mailroot::absolute(Path::new(path))?.to_string_lossy().into_owned();
                }
            }
            KeptIn::Store(Stored::tlscert | Stored::tlskey | Stored::adca | Stored::adntlm) => {
                for path in paths.filter(|path| !path.is_empty()) {
                    let absolute = std::path::absolute(&path).map_err(Refusal::fault)?;
                    *path = absolute.to_string_lossy().into_owned();
                }
            }
            _ => {}
        }
        Ok(set)
    }

    /// The typed password, sealed.
    fn sealed(&self, sealing: &Sealing, context: &Context) -> Result<Vec<String>, Refusal> {
        let typed = match &self.values[..] {
            [typed] if typed.is_empty() || typed.eq_ignore_ascii_case(DEFAULT) => {
                return Ok(self.values.clone());
            }
            [typed] => typed,
            _ => return Err(Refusal::usage(format!("{BIND_PASSWORD} takes one value"))),
        };
        let key = sealing
            .key()
            .map_err(|trouble| Refusal::fault(format!("the password cannot be encrypted: {trouble}")))?;
        Ok(vec![key.seal_setting(typed, BIND_PASSWORD, context.fresh.nonce).to_text()])
    }

    /// True if the value is a password.
    pub fn is_secret(&self) -> bool {
        self.is_of(Stored::adbindpassword)
    }

    /// True for `authentication`, for which every mailbox is checked.
    pub fn is_of_authentication(&self) -> bool {
        self.is_of(Stored::authentication)
    }

    fn is_of(&self, which: Stored) -> bool {
        settings::find(&self.key).is_ok_and(|key| key.kept_in == KeptIn::Store(which))
    }

    /// The settings with the value, unless it is refused whatever the store holds.
    fn changed(&self, key: &Key, before: &Settings, values: &[String]) -> Result<Settings, Refusal> {
        let after = before.with(key, values)?;
        if self.force && after.authentication == before.authentication {
            return Err(Refusal::usage("/force is only for a change of authentication"));
        }
        if matches!(key.kept_in, KeptIn::Store(Stored::tlscert | Stored::tlskey)) {
            certificate::check(&after).map_err(|why| {
                Refusal::new(Code::Value, why)
                    .with_hint("To change both files at once: winpop set tlscert CERTIFICATE KEY")
            })?;
        }
        if key.kept_in == KeptIn::Store(Stored::lmtpsocket)
            && let Some(path) = after.lmtpsocket.get()
            && fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket())
        {
            let message = format!("{} is a file, which is left alone", path.display());
            return Err(Refusal::new(Code::Value, message)
                .with_hint("Choose another path: winpop set lmtpsocket PATH"));
        }
        Ok(after)
    }

    fn set_stored(
        &self,
        key: &'static Key,
        store: &Store,
        context: &Context,
        progress: &Progress,
    ) -> Result<Reply, Refusal> {
        let _turn = context.service.map(|service| service.turn_to_change_settings());
        // Before the rows are read: a change of the key changes that of the password.
        let sealing = self.is_secret().then(|| context.keyring.sealing());
        let before = settings_of(store)?;
        let after = match &sealing {
            Some(sealing) => self.changed(key, &before, &self.sealed(sealing, context)?)?,
            None => self.changed(key, &before, &self.values)?,
        };
        if after.authentication != before.authentication {
            accounts::refuse_to_leave_out(&after, self.force, store, context, progress)?;
        }
        if key.kept_in == KeptIn::Store(Stored::adntlm) {
            accounts::check_ntlm(&after, context)?;
        }
        if key.kept_in == KeptIn::Store(Stored::postmaster)
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
        let stored = store_settings(store, &before, &after);
        if let (Err(_), Some(service)) = (&stored, context.service)
            && let Err(why) = service.apply(&after, &before)
        {
            log::error!("the refused change could not be undone in the running service: {why}");
        }
        stored?;

        let mut notes: Vec<String> = after.advice(key).into_iter().collect();
        if after.authentication != before.authentication {
            notes.extend(accounts::note_of_rights(&after, context));
        }
        if key.kind == Kind::Octets {
            notes.extend(units::taken_as_binary(&self.values.join(" ")));
        }
        if key.effect == Effect::NextStart {
            notes.push("this takes effect when the service next starts".to_owned());
        }
        let (name, text) = (key.name, after.text(key));
        let message = match after.meaning(key) {
            Some(meaning) if text.is_empty() => format!("{name} is now {meaning}"),
            Some(meaning) => format!("{name} is now {text} ({meaning})"),
            None => format!("{name} is now {text}"),
        };
        Ok(Changed { notes, ..Changed::new("set", &key.name, message) }.into())
    }
}

impl Get {
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let settings = settings_of(store)?;
        let lines = match &self.key {
            Some(typed) => vec![line(find(typed)?, &settings, context.mailroot)],
            None => settings::keys()
                .filter(|key| key.kept_in != KeptIn::Sockets)
                .map(|key| line(key, &settings, context.mailroot))
                .collect(),
        };
        Ok(Reply::Settings { settings: lines })
    }
}

fn find(typed: &str) -> Result<&'static Key, Refusal> {
    settings::find(typed).map_err(|unknown| {
        let refusal = Refusal::usage(format!("there is no setting \"{typed}\""));
        match unknown.nearest {
            Some(nearest) => refusal.with_hint(format!("Did you mean {nearest}?")),
            None => refusal.with_hint("To see the settings: winpop get"),
        }
    })
}

fn line(key: &Key, settings: &Settings, mailroot: &MailRoot) -> SettingLine {
    let (value, default) = match key.kept_in {
        KeptIn::Pointer => {
            (mailroot.at_next_start().display().to_string(), mailroot.default_dir.display().to_string())
        }
        KeptIn::Owner => {
            let owner = ownership::owner(&mailroot.dir).map_or_else(String::new, |owner| owner.typed());
            (owner.clone(), owner)
        }
        KeptIn::Store(_) | KeptIn::Sockets => (settings.text(key), Settings::default().text(key)),
    };
    SettingLine {
        setting: key.name.to_owned(),
        meaning: match (key.kept_in, mailroot.named_by) {
            (KeptIn::Pointer, NamedBy::CommandLine) => Some(BY_COMMAND_LINE.to_owned()),
            (KeptIn::Pointer, NamedBy::Variable) => Some(BY_VARIABLE.to_owned()),
            _ => settings.meaning(key),
        },
        unit: match key.kind {
            Kind::Octets => Some("octets".to_owned()),
            Kind::Seconds => Some("seconds".to_owned()),
            Kind::Number | Kind::Text => None,
        },
        is_default: value == default,
        value: typed(key, value),
        default: typed(key, default),
        takes_effect: key.effect.name().to_owned(),
    }
}

fn typed(key: &Key, text: String) -> SettingValue {
    match (key.kind, text.parse()) {
        (Kind::Number | Kind::Octets | Kind::Seconds, Ok(number)) => SettingValue::Number(number),
        _ => SettingValue::Text(text),
    }
}

pub type Rows = Vec<(String, String)>;

pub fn stored_rows(store: &Store) -> Result<Rows, Refusal> {
    store.read().and_then(|view| view.settings()).map_err(Refusal::fault)
}

/// The settings in the store. The service, not this, complains about rows it does not understand.
pub fn settings_of(store: &Store) -> Result<Settings, Refusal> {
    let read = store.read().and_then(|view| read_settings(&*view));
    Ok(read.map_err(Refusal::fault)?.0)
}

/// The settings in the store, and one sentence for each row that this version does not understand.
pub fn read_settings(view: &impl Read) -> Result<(Settings, Vec<String>), Fault> {
    Ok(from_rows(&view.settings()?))
}

fn from_rows(rows: &Rows) -> (Settings, Vec<String>) {
    Settings::from_rows(rows.iter().map(|(key, text)| (key.as_str(), text.as_str())))
}

fn store_settings(store: &Store, before: &Settings, after: &Settings) -> Result<(), Refusal> {
    let changed = after.rows_changed_since(before);
    let stored = store
        .write(move |tx| changed.iter().try_for_each(|(key, text)| tx.set_setting(key, text.as_deref())));
    stored.wait().map_err(Refusal::fault)
}
