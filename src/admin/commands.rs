//! The commands of `winpop`, one struct each: its arguments and its help.
//!
//! Parsing, help, completions and the manual page come from here. The fields hold words as typed. They are checked
//! where the command is carried out, because they may also arrive over the control socket.

use std::fmt;

use argh::{ArgsInfo, FromArgs};
use bincode::{Decode, Encode};

use super::secret::Secret;

/// Administers the POP3 service and its mail store.
#[derive(FromArgs, ArgsInfo)]
#[argh(name = "winpop")]
pub struct Winpop {
    #[argh(subcommand)]
    pub op: Op,
}

/// A command of an administrator.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(subcommand)]
pub enum Op {
    Add(Add),
    Delete(Delete),
    List(List),
    Lock(Lock),
    Unlock(Unlock),
    Stat(Stat),
    ChangePwd(ChangePwd),
    MigrateToAd(MigrateToAd),
    Undelete(Undelete),
    Test(Test),
    CreateQuotaFile(CreateQuotaFile),
    DeleteQuotaFile(DeleteQuotaFile),
    Set(Set),
    Get(Get),
}

/// Other words for commands.
pub const ALIASES: [(&str, &str); 1] = [("del", "delete")];

/// Adds a domain or a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "add",
    note = "Add the domain before its mailboxes, with its fully qualified name, such as example.com. Names are stored in \
            lower case, internationalised names as A-labels.",
    note = "A mailbox name has 1 to 64 characters. /createuser creates the mailbox's account with a password of 1 to \
            128 octets; the encrypted password file always needs it. With local accounts and Active Directory, leave it \
            out to use an existing account. The name of a local account has at most 20 characters.",
    note = "If the password is -, it is read from standard input; on a terminal you are prompted for it twice, without \
            echo.",
    example = "winpop add example.com",
    note = "A list (CSV) has one domain or mailbox per line, each mailbox followed by a comma and its password. If the \
            password is missing, one is generated and written to the /passwords file, which only its owner can read. \
            Bad lines are reported and skipped, so you can give the same list again.",
    example = "winpop add bob@example.com /createuser -",
    example = "winpop add /file:users.csv /passwords:made.csv"
)]
pub struct Add {
    /// the domain or mailbox to add
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: Option<String>,
    /// create the mailbox's account with this password
    #[argh(option, arg_name = "PASSWORD")]
    pub createuser: Option<Secret>,
    /// add everything in this list
    #[argh(option, arg_name = "LIST")]
    pub file: Option<String>,
    /// the file for generated passwords
    #[argh(option, arg_name = "FILE")]
    pub passwords: Option<String>,
}

/// Deletes a mailbox, or a domain with all its mailboxes, and their mail.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "delete",
    note = "What you delete can be restored with winpop undelete for as many days as the setting undelete allows.",
    note = "On a terminal, you are asked to confirm the deletion of a domain unless you give /y. Scripts are not asked.",
    note = "Open sessions on deleted mailboxes end.",
    example = "winpop delete bob@example.com",
    example = "winpop delete example.com /y"
)]
pub struct Delete {
    /// the domain or mailbox to delete
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: String,
    /// also delete the mailbox's account (the password file always does)
    #[argh(switch)]
    pub deleteuser: bool,
    /// do not ask for confirmation
    #[argh(switch)]
    pub y: bool,
}

/// Lists the domains, or the mailboxes of one or all domains.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "list",
    example = "winpop list",
    example = "winpop list example.com /json",
    example = "winpop list /all"
)]
pub struct List {
    /// the domain whose mailboxes to list
    #[argh(positional, arg_name = "DOMAIN")]
    pub domain: Option<String>,
    /// list the mailboxes of all domains
    #[argh(switch)]
    pub all: bool,
}

/// Locks a domain or a mailbox, so that no mail can be fetched from it.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "lock",
    note = "Open sessions end without deleting anything. Mail is still received and delivered.",
    example = "winpop lock example.com"
)]
pub struct Lock {
    /// the domain or mailbox to lock
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: String,
}

/// Unlocks a domain with all its mailboxes, or a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "unlock",
    note = "While its domain is locked, a mailbox cannot be unlocked by itself.",
    example = "winpop unlock example.com"
)]
pub struct Unlock {
    /// the domain or mailbox to unlock
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: String,
}

/// Shows statistics of the server or of a domain.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(subcommand, name = "stat", example = "winpop stat", example = "winpop stat example.com")]
pub struct Stat {
    /// the domain to show
    #[argh(positional, arg_name = "DOMAIN")]
    pub domain: Option<String>,
}

/// Changes the password of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "changepwd",
    note = "If the password is -, it is read from standard input; on a terminal you are prompted for it twice, without \
            echo. Put a password that looks like a switch after --.",
    example = "winpop changepwd bob@example.com -"
)]
pub struct ChangePwd {
    /// the mailbox
    #[argh(positional, arg_name = "USER@DOMAIN")]
    pub name: String,
    /// the new password, 1 to 128 octets (if omitted on a terminal, you are prompted for it)
    #[argh(positional, arg_name = "NEWPASSWORD")]
    pub password: Option<Secret>,
}

/// Migrates a mailbox, or all of a domain, to Active Directory accounts with the same passwords.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "migratetoad",
    note = "Works while authentication is by the encrypted password file. First set adbasedn, adbinduser and \
            adbindpassword, so that the directory can be reached. Mailboxes that already have an account are left as they \
            are, so you can repeat the command. When all are migrated, change the method with winpop set authentication.",
    example = "winpop migrateToAD bob@example.com",
    example = "winpop migrateToAD example.com"
)]
pub struct MigrateToAd {
    /// the mailbox, or the domain whose mailboxes to migrate
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: String,
}

/// Restores deleted mail, a deleted mailbox or a deleted domain.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "undelete",
    note = "Messages come back with their unique ids, so mail programs that have seen them do not fetch them again; with \
            /new they do. Without /since and /all, the messages deleted in the most recent session are restored.",
    note = "A deleted mailbox comes back with its password, lock, quota and mail; a domain with the mailboxes deleted with \
            it. A new mailbox of the same name is kept; /new puts the old mail into it.",
    note = "TIME is a date or time in UTC, such as 2026-11-26 or 2026-11-26T10:00:00Z, or how long ago, such as 2h.",
    example = "winpop undelete bob@example.com",
    example = "winpop undelete bob@example.com /since:2d",
    example = "winpop undelete example.com"
)]
pub struct Undelete {
    /// the mailbox or domain
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: String,
    /// restore mail deleted at this time or later
    #[argh(option, arg_name = "TIME")]
    pub since: Option<String>,
    /// restore all mail that can be restored
    #[argh(switch)]
    pub all: bool,
    /// give the messages new ids, as new mail
    #[argh(switch)]
    pub new: bool,
}

/// Shows step by step whether a user can log in.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "test",
    note = "Looks up the mailbox, its account and its lock under the current authentication method, and checks the \
            password. It changes nothing and counts no login here, but Active Directory may count a wrong password. The \
            exit code is 1 if the login would be refused.",
    note = "LOGIN is what the user types: USER@DOMAIN. With local accounts and Active Directory it may also be USER, and \
            with Active Directory DOMAIN\\USER.",
    note = "If the password is -, it is read from standard input; on a terminal you are prompted for it twice, without \
            echo.",
    example = "winpop test bob@example.com -"
)]
pub struct Test {
    /// the name to log in with
    #[argh(positional, arg_name = "LOGIN")]
    pub name: String,
    /// the password to try (if omitted on a terminal, you are prompted for it)
    #[argh(positional, arg_name = "PASSWORD")]
    pub password: Option<Secret>,
}

/// Counts the mail in a mailbox against a quota.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "createquotafile",
    note = "When the quota is used up, new mail for the mailbox is refused; mail can still be fetched and deleted. \
            Several mailboxes may count against one account. Repeat the command to change the account or the limit.",
    example = "winpop createquotafile bob@example.com /limit:50MB",
    example = "winpop createquotafile sales@example.com /user:bob@example.com"
)]
pub struct CreateQuotaFile {
    /// the mailbox
    #[argh(positional, arg_name = "USER@DOMAIN")]
    pub name: String,
    /// the account whose quota it counts against (default: its own)
    #[argh(option, arg_name = "USER@DOMAIN")]
    pub user: Option<String>,
    /// that account's limit, such as 50MB; 0 = unlimited (default: the setting quotalimit)
    #[argh(option, arg_name = "SIZE")]
    pub limit: Option<String>,
}

/// Stops counting the mail in a mailbox against a quota.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(subcommand, name = "deletequotafile", example = "winpop deletequotafile bob@example.com")]
pub struct DeleteQuotaFile {
    /// the mailbox
    #[argh(positional, arg_name = "USER@DOMAIN")]
    pub name: String,
}

/// Changes a setting.
#[derive(Clone, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "set",
    note = "The value default restores the default. A refused value changes nothing.",
    example = "winpop set port 110",
    example = "winpop set socket 10 50 10 10",
    example = "winpop set plaintext 192.168.7.0/24",
    example = "winpop set mailroot /srv/mail"
)]
pub struct Set {
    /// the setting
    #[argh(positional, arg_name = "KEY")]
    pub key: String,
    /// its new value; socket takes four, and listen, plaintext, proxyfrom, lmtpfrom and adserver take a list
    #[argh(positional, greedy, arg_name = "VALUE")]
    pub values: Vec<String>,
    /// with mailroot: move the mail store there (the service must be stopped)
    #[argh(switch, long = "move")]
    pub move_mail: bool,
    /// with authentication: change it even if some mailboxes can no longer log in
    #[argh(switch)]
    pub force: bool,
}

/// A password is not printed.
impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = if self.is_secret() { &[] } else { &self.values[..] };
        write!(f, "Set({} {values:?})", self.key)
    }
}

/// Shows one setting, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(subcommand, name = "get", example = "winpop get", example = "winpop get port")]
pub struct Get {
    /// the setting
    #[argh(positional, arg_name = "KEY")]
    pub key: Option<String>,
}
