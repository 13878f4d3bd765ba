//! The audit trail: a log line for each command that changes something or copies all mail.
//!
//! A line says what was done, by whom, and the outcome: `winpop set port 110, by user 0, process 4711: done`. It never
//! contains a password.

use super::commands::{
    Add, ChangePwd, CreateQuotaFile, Delete, DeleteQuotaFile, Lock, MigrateToAd, Set, Test, Undelete, Unlock,
};
use super::{Op, Refusal, Reply, Request};

/// Longer commands are cut.
const COMMAND_CHARACTERS_MAX: usize = 300;
/// Printed in place of a password.
const PASSWORD: &str = "***";

/// Who gave a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    pub user: u32,
    /// 0 for a process in another PID namespace, which we cannot see.
    pub process: u32,
}

impl Who {
    pub fn this_process() -> Self {
        Self { user: rustix::process::geteuid().as_raw(), process: std::process::id() }
    }
}

impl Request {
    /// The command as it could have been typed, without passwords. `None` if it changes nothing.
    pub fn trail(&self) -> Option<String> {
        let words = match self {
            Self::Command(op) => format!("winpop {}", op.trail()?),
            Self::PasswordChanged(change) => format!("winpop {}", Op::ChangePwd(change.clone()).trail()?),
            Self::AddMany(entries) => format!("winpop add /file with {} lines", entries.len()),
            Self::Backup { file } => format!("pop3svc backup {file}"),
            Self::Compact => "pop3svc compact".to_owned(),
            Self::RotateKey { discard: false } => "pop3svc key --rotate".to_owned(),
            Self::RotateKey { discard: true } => "pop3svc key --rotate --discard".to_owned(),
            // The tool records imports and exports as a whole.
            Self::BeginImport { .. } | Self::EndImport { .. } | Self::Import(_) => return None,
            Self::Export { .. } | Self::ExportAccounts { .. } => return None,
            Self::Check | Self::Ids { .. } | Self::Health | Self::Key | Self::Mailboxes { .. } => {
                return None;
            }
        };
        Some(words)
    }
}

impl Op {
    fn trail(&self) -> Option<String> {
        let mut words = match self {
            Self::Add(Add { name, createuser, .. }) => {
                let name = name.as_deref().unwrap_or_default();
                match createuser {
                    None => format!("add {name}"),
                    Some(_) => format!("add {name} /createuser {PASSWORD}"),
                }
            }
            Self::Delete(Delete { name, deleteuser, .. }) => {
                format!("delete {name}{}", if *deleteuser { " /deleteuser" } else { "" })
            }
            Self::Undelete(Undelete { name, since, all, new }) => {
                let since = since.as_ref().map_or(String::new(), |since| format!(" /since:{since}"));
                let switch = |given: &bool, word| if *given { word } else { "" };
                format!("undelete {name}{since}{}{}", switch(all, " /all"), switch(new, " /new"))
            }
            Self::Lock(Lock { name }) => format!("lock {name}"),
            Self::Unlock(Unlock { name }) => format!("unlock {name}"),
            Self::ChangePwd(ChangePwd { name, .. }) => format!("changepwd {name} {PASSWORD}"),
            Self::CreateQuotaFile(CreateQuotaFile { name, user, limit }) => {
                let option = |switch, value: &Option<String>| {
                    value.as_ref().map_or(String::new(), |value| format!(" /{switch}:{value}"))
                };
                format!("createquotafile {name}{}{}", option("user", user), option("limit", limit))
            }
            Self::Test(Test { name, .. }) => format!("test {name} {PASSWORD}"),
            Self::MigrateToAd(MigrateToAd { name }) => format!("migratetoad {name}"),
            Self::DeleteQuotaFile(DeleteQuotaFile { name }) => format!("deletequotafile {name}"),
            Self::Set(set) if set.is_secret() => format!("set {} {PASSWORD}", set.key),
            Self::Set(Set { key, values, .. }) => format!("set {key} {}", values.join(" ")),
            Self::List(_) | Self::Stat(_) | Self::Get(_) => return None,
        };
        if let Self::Set(set) = self {
            words += if set.move_mail { " /move" } else { "" };
            words += if set.force { " /force" } else { "" };
        }
        Some(words)
    }
}

/// Logs the line, if there is a trail.
pub fn record(trail: Option<&str>, who: Who, outcome: Result<&Reply, &Refusal>) {
    let Some(trail) = trail else { return };
    // Nothing has been done yet.
    if let Ok(Reply::Yours { .. }) = outcome {
        return;
    }
    log::warn!(target: crate::log::NOTICE, "{}", line(trail, who, outcome));
}

fn line(trail: &str, who: Who, outcome: Result<&Reply, &Refusal>) -> String {
    let command: String = trail.chars().take(COMMAND_CHARACTERS_MAX).collect();
    let Who { user, process } = who;
    match outcome {
        Ok(_) => format!("{command}, by user {user}, process {process}: done"),
        Err(refusal) => format!("{command}, by user {user}, process {process}: refused: {}", refusal.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::commands::{Get, List, Stat};
    use crate::admin::reply::Code;

    #[test]
    fn a_line_says_who_did_what_with_which_outcome() {
        let who = Who { user: 1000, process: 4711 };
        let refusal = Refusal::new(Code::Exists, "a.org already exists").with_hint("Choose another");
        let refused = line("winpop add a.org", who, Err(&refusal));
        assert_eq!(refused, "winpop add a.org, by user 1000, process 4711: refused: a.org already exists");
        assert!(line(&"x".repeat(1000), who, Err(&refusal)).len() < 400);
    }

    #[test]
    fn commands_that_change_something_leave_a_trail_without_passwords() {
        let secret = || "s3cret".to_owned().into();
        let name = || "ann@a.org".to_owned();
        let (user, limit) = (Some("bob@a.org".to_owned()), Some("5MB".to_owned()));
        let values = vec!["/srv/mail".to_owned()];
        let ops = [
            (
                Op::Add(Add { name: Some(name()), createuser: Some(secret()), file: None, passwords: None }),
                "add ann@a.org /createuser ***",
            ),
            (Op::Delete(Delete { name: name(), deleteuser: true, y: true }), "delete ann@a.org /deleteuser"),
            (Op::ChangePwd(ChangePwd { name: name(), password: Some(secret()) }), "changepwd ann@a.org ***"),
            (
                Op::CreateQuotaFile(CreateQuotaFile { name: name(), user, limit }),
                "createquotafile ann@a.org /user:bob@a.org /limit:5MB",
            ),
            (
                Op::Set(Set { key: "mailroot".to_owned(), values, move_mail: true, force: false }),
                "set mailroot /srv/mail /move",
            ),
        ];
        for (op, expected) in ops {
            assert_eq!(Request::Command(op).trail(), Some(format!("winpop {expected}")));
        }
        for op in [
            Op::List(List { domain: None, all: false }),
            Op::Stat(Stat { domain: None }),
            Op::Get(Get { key: None }),
        ] {
            assert_eq!(Request::Command(op).trail(), None);
        }
        assert_eq!(Request::Check.trail(), None);
    }
}
