//! The commands of `winpop` as they are typed.
//!
//! One struct a command: what it takes, and its help. Parsing, help, completions and the manual page come from
//! here. The fields hold words; what they have to be is read where the command is carried out, since they may
//! come over the control socket too.

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
    note = "A domain comes before its mailboxes. Its name should be fully qualified, such as example.com. \
            Names are kept in lower case; internationalised names as A-labels.",
    note = "A mailbox name has 1 to 64 characters. The account of a mailbox is made together with it, which \
            takes /createuser and a password of 1 to 128 octets. With local accounts and Active Directory one that is \
            there is used without /createuser; the name of a local account has at most 20 characters.",
    note = "A password given as - is read from standard input; on a terminal it is asked for twice and not \
            shown.",
    example = "winpop add example.com",
    note = "A list has one domain or mailbox a line, a mailbox with a comma and its password behind it (CSV). Where \
            the password is left out, one is made and written to the file of /passwords, which only its owner can read. \
            Bad lines are told and passed over; a list can be given twice.",
    example = "winpop add bob@example.com /createuser -",
    example = "winpop add /file:users.csv /passwords:made.csv"
)]
pub struct Add {
    /// the domain or mailbox to add
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: Option<String>,
    /// make the account of the mailbox, with this password
    #[argh(option, arg_name = "PASSWORD")]
    pub createuser: Option<Secret>,
    /// add all that this list names
    #[argh(option, arg_name = "LIST")]
    pub file: Option<String>,
    /// the file to write made passwords to
    #[argh(option, arg_name = "FILE")]
    pub passwords: Option<String>,
}

/// Deletes a domain with all its mailboxes, or a mailbox, and all mail in them.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "delete",
    note = "For as many days as the setting undelete says, undelete brings it back.",
    note = "On a terminal, deleting a domain is asked about once more, unless /y is given. A script is not \
            asked.",
    note = "Open sessions on what is deleted end.",
    example = "winpop delete bob@example.com",
    example = "winpop delete example.com /y"
)]
pub struct Delete {
    /// the domain or mailbox to delete
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: String,
    /// delete the account of the mailbox too (in the password file it always goes)
    #[argh(switch)]
    pub deleteuser: bool,
    /// do not ask
    #[argh(switch)]
    pub y: bool,
}

/// Lists the domains, or the mailboxes of a domain or of all.
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

/// Locks a domain or a mailbox: no mail can be fetched from it.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "lock",
    note = "Open sessions end and delete nothing. Mail is still received and delivered.",
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

/// Shows the statistics of the server, or of a domain.
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
    note = "A password given as - is read from standard input; on a terminal it is asked for twice and not \
            shown. One that reads like a switch can stand after --.",
    example = "winpop changepwd bob@example.com -"
)]
pub struct ChangePwd {
    /// the mailbox
    #[argh(positional, arg_name = "USER@DOMAIN")]
    pub name: String,
    /// the new password, 1 to 128 octets (on a terminal it is asked for if left out)
    #[argh(positional, arg_name = "NEWPASSWORD")]
    pub password: Option<Secret>,
}

/// Gives a mailbox, or those of a domain, accounts in Active Directory with the same password.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "migratetoad",
    note = "While authentication is by the password file. The settings adbasedn, adbinduser and adbindpassword say where the \
            directory is. Mailboxes that have their account already are left as they are, so it can be typed again. When all \
            have theirs: winpop set authentication.",
    example = "winpop migrateToAD bob@example.com",
    example = "winpop migrateToAD example.com"
)]
pub struct MigrateToAd {
    /// the mailbox, or the domain whose mailboxes to migrate
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: String,
}

/// Brings back what was deleted: mail, a mailbox, or a domain.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "undelete",
    note = "Messages of a mailbox come back with their ids, so a mail program that has seen them does not fetch them \
            again; with /new it does. Without /since and /all these are the ones that were deleted last, by one session.",
    note = "A deleted mailbox comes back with its password, lock, quota and mail; a domain with the mailboxes that went with \
            it. Where there is a new mailbox of the name, that one stays, and /new brings the old mail into it.",
    note = "TIME is a day or a time of UTC, such as 2026-11-26 or 2026-11-26T10:00:00Z, or how long ago, such as 2h.",
    example = "winpop undelete bob@example.com",
    example = "winpop undelete bob@example.com /since:2d",
    example = "winpop undelete example.com"
)]
pub struct Undelete {
    /// the mailbox or domain
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: String,
    /// the mail that was deleted at this time or later
    #[argh(option, arg_name = "TIME")]
    pub since: Option<String>,
    /// all mail that can come back
    #[argh(switch)]
    pub all: bool,
    /// with new ids, as new mail
    #[argh(switch)]
    pub new: bool,
}

/// Shows step by step whether a user can log in.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "test",
    note = "Looks for the mailbox, its account and its lock under the authentication method in force, and checks the password. \
            Nothing changes, and no login is counted here; Active Directory may count a wrong password. Exits with 1 if the \
            login would be refused.",
    note = "LOGIN is a name as the user types it: USER@DOMAIN; with accounts elsewhere also USER, and DOMAIN\\USER with \
            Active Directory.",
    note = "A password given as - is read from standard input; on a terminal it is asked for twice and not shown.",
    example = "winpop test bob@example.com -"
)]
pub struct Test {
    /// the name to log in with
    #[argh(positional, arg_name = "LOGIN")]
    pub name: String,
    /// the password to try (on a terminal it is asked for if left out)
    #[argh(positional, arg_name = "PASSWORD")]
    pub password: Option<Secret>,
}

/// Lets the mail in a mailbox count against a quota.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(
    subcommand,
    name = "createquotafile",
    note = "Mail for a mailbox whose quota is used up is refused; fetching and deleting mail is not disturbed. \
            Several mailboxes may count against one account. Typed again, it changes account or limit.",
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
    /// the limit of that account, such as 50MB; 0 is none (default: the setting quotalimit)
    #[argh(option, arg_name = "SIZE")]
    pub limit: Option<String>,
}

/// Lets the mail in a mailbox count against no quota.
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
    note = "The value default brings a setting back to its default. A refused value changes nothing.",
    example = "winpop set port 110",
    example = "winpop set socket 10 50 10 10",
    example = "winpop set plaintext 192.168.7.0/24",
    example = "winpop set mailroot /srv/mail"
)]
pub struct Set {
    /// the setting
    #[argh(positional, arg_name = "KEY")]
    pub key: String,
    /// its new value; socket takes four, listen, plaintext, proxyfrom, lmtpfrom and adserver as many as are wanted
    #[argh(positional, greedy, arg_name = "VALUE")]
    pub values: Vec<String>,
    /// with mailroot: move the mail store there (the service must be stopped)
    #[argh(switch, long = "move")]
    pub move_mail: bool,
    /// with authentication: change it although some mailboxes cannot log in afterwards
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

/// Shows a setting, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, FromArgs, ArgsInfo, Encode, Decode)]
#[argh(subcommand, name = "get", example = "winpop get", example = "winpop get port")]
pub struct Get {
    /// the setting
    #[argh(positional, arg_name = "KEY")]
    pub key: Option<String>,
}
