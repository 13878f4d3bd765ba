//! What comes back from a command, as data.
//!
//! The serialised form is what `--json` prints. Its shape is written down in `shape.rs`, and stable: names and kinds of
//! fields stay, new ones may come. Every field of a shape is always there, and null where there is nothing to tell. A
//! number has its unit in its name.

use std::fmt;
use std::path::Path;

use bincode::{Decode, Encode};
use serde::Serialize;

pub use super::accounts::DirectoryLine;
pub use super::moving::{AdoptionLine, ImportSummary};
use crate::address::Malformed;
use crate::mailroot::Unusable;
use crate::store::{OpenError, OpenErrorKind};

/// The outcome of a command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(untagged)]
pub enum Reply {
    Changed(Changed),
    Domains {
        domains: Vec<DomainLine>,
    },
    Mailboxes {
        domain: String,
        mailboxes: Vec<MailboxLine>,
        /// Why the accounts of these mailboxes could not be found out.
        accounts_error: Option<String>,
    },
    Server {
        statistics: Box<Server>,
        domains: Vec<DomainLine>,
    },
    Domain {
        statistics: DomainLine,
        mailboxes: Vec<MailboxLine>,
        accounts_error: Option<String>,
    },
    /// Of `list /all`.
    AllMailboxes {
        mailboxes: Vec<MailboxLine>,
        accounts_error: Option<String>,
    },
    Health {
        service: ServiceState,
    },
    /// The greeting of the service, heard by who may not use its control socket.
    Greeted {
        address: String,
        greeting: String,
    },
    Settings {
        settings: Vec<SettingLine>,
    },
    BackedUp(BackedUp),
    Compacted(Compacted),
    Checked(Checked),
    Key(KeyState),
    Tested(Tested),
    Delivered {
        recipients: Vec<Delivered>,
    },
    Imported(ImportSummary),
    ImportBegun {
        unique_ids: Vec<String>,
    },
    Exported(ExportSummary),
    /// Of `import --verify`.
    Verified(Verified),
    /// Of `add /file`, in the order of the list.
    AddedMany {
        entries: Vec<Added>,
    },
    /// It can be done, but with an account of this machine, which takes root: the process of the administrator does
    /// that, and sends what is left of the command. So it is not shown.
    Yours {
        command: String,
    },
}

/// Whether a user can log in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Tested {
    pub mailbox: String,
    /// The method in force.
    pub authentication: String,
    pub can_log_in: bool,
    /// In the order of a login.
    pub steps: Vec<TestedStep>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct TestedStep {
    pub step: String,
    pub passed: bool,
    pub finding: String,
}

/// What an export wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct ExportSummary {
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
    /// Messages that were left out, since their texts are damaged.
    pub damaged: u64,
    /// What was passed over.
    pub skipped: Vec<SkippedFile>,
}

/// What became of the ids that mail programs know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Verified {
    /// How the other server made its ids, where that was given or found.
    pub uidl: Option<String>,
    pub mailboxes: Vec<VerifiedMailbox>,
    pub skipped: Vec<SkippedFile>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct VerifiedMailbox {
    pub mailbox: String,
    /// Messages that the other server had.
    pub before: u64,
    /// Messages that are here.
    pub here: u64,
    /// Of those here, how many a mail program knows that leaves its mail on the server.
    pub known: u64,
    /// How many it has fetched from the other server, and fetches again.
    pub again: u64,
    /// How many have come since.
    pub new: u64,
    /// Messages of the other server that are not here.
    pub missing: u64,
    /// Messages whose size is not the one that the other server told.
    pub sizes_differ: u64,
    /// Whether those that both have stand in the same order.
    pub in_order: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct SkippedFile {
    pub file: String,
    pub why: String,
}

impl SkippedFile {
    pub fn new(file: &Path, why: String) -> Self {
        Self { file: file.display().to_string(), why }
    }
}

/// What became of a line of a list of domains and mailboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Added {
    /// Counted from 1.
    pub line: u64,
    /// As it stands there.
    pub name: String,
    pub outcome: AddOutcome,
    /// Of what was not added: a sentence without its full stop.
    pub why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
pub enum AddOutcome {
    Added,
    /// It is there already, and was not changed.
    Exists,
    /// The line cannot be carried out.
    Refused,
    /// A fault came before it: it may be there or not.
    NotDone,
}

/// A copy of the store was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct BackedUp {
    pub file: String,
    pub messages: u64,
    /// The length of the copy.
    pub file_octets: u64,
}

/// Free space was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Compacted {
    /// The length of the data file.
    pub file_octets_before: u64,
    pub file_octets: u64,
    /// What it takes of the disk.
    pub allocated_octets_before: u64,
    pub allocated_octets: u64,
    /// Octets of texts that lie elsewhere now.
    pub moved_octets: u64,
}

/// The store was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Checked {
    pub domains: u64,
    pub mailboxes: u64,
    pub messages: u64,
    /// Texts, each counted once however many messages have it.
    pub texts: u64,
    pub text_octets: u64,
    /// What is not as it should be, in sentences; the first two hundred.
    pub findings: Vec<String>,
    pub findings_total: u64,
    /// What a repair did before, in sentences; the first two hundred.
    pub repaired: Vec<String>,
    pub repaired_total: u64,
    /// Every message that the repair could not keep.
    pub lost: Vec<Lost>,
}

/// A message that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Lost {
    pub mailbox: String,
    /// Its number in the mailbox, which is part of its UIDL.
    pub sequence: u64,
    /// None where nothing is known of it.
    pub received_unix_seconds: Option<u64>,
    pub octets: Option<u64>,
}

/// The key that seals recoverable passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct KeyState {
    pub file: String,
    /// None where the key cannot be used.
    pub id: Option<String>,
    pub trouble: Option<String>,
    /// Mailboxes whose password is sealed under the key of the store.
    pub sealed: u64,
    pub unsealed: u64,
    pub advice: String,
}

/// What became of a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Delivered {
    pub recipient: String,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Stored,
    NoSuchMailbox,
    OverQuota,
    Loop,
    DiskFull,
    /// Another recipient cannot take it, and so nobody got it.
    Withheld,
}

/// Something was changed, or was as wanted already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Changed {
    /// The name of the command.
    pub action: String,
    /// The domain, mailbox or setting.
    pub name: String,
    /// One sentence without its full stop.
    pub message: String,
    pub removed: Option<Removed>,
    /// What else to know: sentences without their full stops.
    pub notes: Vec<String>,
}

/// What went with a domain or mailbox, or what is gone of the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Removed {
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct DomainLine {
    pub domain: String,
    /// The name in the letters of its language, where that is another one.
    pub unicode: Option<String>,
    #[serde(flatten)]
    pub lock: Lock,
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct MailboxLine {
    /// The whole address.
    pub mailbox: String,
    pub unicode: Option<String>,
    #[serde(flatten)]
    pub lock: Lock,
    pub messages: u64,
    pub octets: u64,
    /// The first login of the last day, in UTC, that had one.
    pub last_login_unix_seconds: Option<u64>,
    /// None where the mailbox counts against none.
    pub quota: Option<QuotaLine>,
    /// Whether there is one, here or with an account elsewhere.
    pub has_password: bool,
    /// Whether no mail is still to come from another server.
    pub is_whole: bool,
    /// The name of the account elsewhere. `None` where the data file holds the accounts, where this mailbox has none,
    /// and where that could not be found out.
    pub account: Option<String>,
}

/// The quota that a mailbox counts against, which others may count against too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct QuotaLine {
    pub account: String,
    pub used_octets: u64,
    /// None: there is no limit.
    pub limit_octets: Option<u64>,
}

/// Whether mail can be fetched, from a domain or from a mailbox. Serialised as two fields, `locked` and `locked_by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lock(pub Option<LockedBy>);

/// What keeps readers out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum LockedBy {
    Mailbox,
    /// The domain, whether or not the mailbox is locked by itself too.
    Domain,
}

impl Serialize for Lock {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut lock = serializer.serialize_struct("Lock", 2)?;
        lock.serialize_field("locked", &self.0.is_some())?;
        lock.serialize_field("locked_by", &self.0)?;
        lock.end()
    }
}

/// Whether a service has the store open, and which. All but `running` is none where none does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct ServiceState {
    pub running: bool,
    pub pid: Option<u32>,
    pub version: Option<String>,
    pub since_unix_seconds: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Server {
    pub service: ServiceState,
    /// The method in force.
    pub authentication: String,
    pub domains: u64,
    pub mailboxes: u64,
    pub messages: u64,
    /// The mail as its readers count it.
    pub octets: u64,
    /// What was deleted and can still be brought back; none of it is counted above.
    pub deleted: Removed,
    /// The length of the data file.
    pub file_octets: u64,
    /// What the data file takes of the disk; its holes take nothing.
    pub allocated_octets: u64,
    /// A plain copy of the data file is good if it takes less. None where no service runs: then any is.
    pub copy_good_below_seconds: Option<u64>,
    /// What would be free but for such copies.
    pub copy_kept_octets: u64,
    /// None where no service runs.
    pub connections: Option<Connections>,
    /// None where there is none yet.
    pub certificate: Option<CertificateLine>,
    /// None where the data file holds the accounts.
    pub directory: Option<DirectoryLine>,
    /// Who has moved here; none where the setting adopt names no old server, and no import was cut short.
    pub adoption: Option<AdoptionLine>,
}

/// The certificate that clients are shown under TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct CertificateLine {
    pub names: Vec<String>,
    /// SHA-256, in pairs of hexadecimal digits.
    pub fingerprint: String,
    /// Made by this program, not by an authority.
    pub self_signed: bool,
}

/// POP3 connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Connections {
    pub open: u64,
    /// Held without a greeting until one of the others ends.
    pub waiting: u64,
    /// Turned away since the service was started.
    pub refused: u64,
    /// Wrong names or passwords since the service was started.
    pub login_failures: u64,
    /// None where there was none.
    pub last_login_failure_seconds_ago: Option<u64>,
    /// Recipients that do not exist here, named by SMTP since the service was started.
    pub wrong_recipients: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct SettingLine {
    pub setting: String,
    pub value: SettingValue,
    /// Of a number: `octets` or `seconds`.
    pub unit: Option<String>,
    pub meaning: Option<String>,
    pub default: SettingValue,
    pub is_default: bool,
    /// `at once` or `next start`.
    pub takes_effect: String,
}

/// A setting as it would be typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(untagged)]
pub enum SettingValue {
    Number(u64),
    Text(String),
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// Why a command was not carried out. Printed as one line: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Refusal {
    pub code: Code,
    /// A sentence without its full stop.
    pub message: String,
    pub hint: Option<String>,
}

/// The kinds of refusals, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The words make no command.
    Usage,
    /// A name, address, path or password that cannot be one.
    Malformed,
    /// A value that the setting does not take.
    Value,
    Exists,
    /// The account is there already, or another mailbox has it.
    AccountTaken,
    NotFound,
    /// Not while the domain is locked.
    Locked,
    /// Only root, or the user that owns the mail store, may do this.
    NotPermitted,
    /// A command or choice that this version does not have.
    NotAvailable,
    /// There is no mail store in the directory.
    NoStore,
    /// No service has the mail store open.
    NotRunning,
    /// The service, or another administrator's command, stands in the way for the moment.
    Busy,
    /// A file that is no whole mail store.
    Damaged,
    /// A fault of the disk, of the data file or of the connection to the service.
    Fault,
    /// The administrator thought better of it.
    Cancelled,
}

impl Reply {
    /// Whether all is as it should be: there are no findings, no losses and no refused lines.
    pub fn is_success(&self) -> bool {
        match self {
            Self::Checked(found) => found.findings_total == 0 && found.lost.is_empty(),
            Self::Imported(summary) => summary.skipped.is_empty() && summary.stopped.is_none(),
            Self::Exported(summary) => summary.damaged == 0 && summary.skipped.is_empty(),
            Self::Verified(verified) => {
                let is_moved = |mailbox: &VerifiedMailbox| mailbox.again == 0 && mailbox.missing == 0;
                verified.mailboxes.iter().all(is_moved) && verified.skipped.is_empty()
            }
            Self::Tested(tested) => tested.can_log_in,
            Self::AddedMany { entries } => {
                entries.iter().all(|entry| matches!(entry.outcome, AddOutcome::Added | AddOutcome::Exists))
            }
            _ => true,
        }
    }
}

impl Changed {
    pub fn new(action: &str, name: &impl fmt::Display, message: String) -> Self {
        Self { action: action.to_owned(), name: name.to_string(), message, removed: None, notes: vec![] }
    }
}

impl From<Changed> for Reply {
    fn from(changed: Changed) -> Self {
        Self::Changed(changed)
    }
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// A fault of disk or file, as the operating system or the store tells it.
    pub fn fault(fault: impl fmt::Display) -> Self {
        Self::new(Code::Fault, fault.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, ". {hint}"),
            None => Ok(()),
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::new(Code::Malformed, malformed.to_string())
    }
}

impl From<Unusable> for Refusal {
    fn from(unusable: Unusable) -> Self {
        Self::new(Code::Malformed, unusable.why).with_hint(unusable.hint)
    }
}

impl From<crate::settings::Refused> for Refusal {
    fn from(refused: crate::settings::Refused) -> Self {
        Self { code: Code::Value, message: refused.why, hint: refused.hint }
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        let code = match &error.kind {
            OpenErrorKind::Missing => Code::NoStore,
            OpenErrorKind::Locked => Code::Busy,
            OpenErrorKind::AlreadyExists => Code::Exists,
            OpenErrorKind::NotAStore
            | OpenErrorKind::Newer { .. }
            | OpenErrorKind::Older { .. }
            | OpenErrorKind::Damaged(_)
            | OpenErrorKind::BadCopy(_) => Code::Damaged,
            OpenErrorKind::Io(io) if io.kind() == std::io::ErrorKind::PermissionDenied => Code::NotPermitted,
            OpenErrorKind::Io(_) | OpenErrorKind::Fault(_) => Code::Fault,
        };
        Self::new(code, error.to_string())
    }
}
