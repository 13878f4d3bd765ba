//! The results of commands, as data.
//!
//! `--json` prints them serialised. That format is stable: fields keep their names and kinds, though new ones may come;
//! every field is always present, null if there is no value; a number's unit is in its name. `cli/shape.rs` documents
//! it.

use std::fmt;
use std::path::Path;

use bincode::{Decode, Encode};
use serde::Serialize;

pub use super::accounts::{DirectoryLine, MailboxAccount};
pub use super::moving::{AdoptionLine, ImportSummary};
use crate::address::Malformed;
use crate::mailroot::Unusable;
use crate::store::{OpenError, OpenErrorKind};

/// The result of a command that was carried out.
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
    /// For `list /all`.
    AllMailboxes {
        mailboxes: Vec<MailboxLine>,
        accounts_error: Option<String>,
    },
    Health {
        service: ServiceState,
    },
    /// For `health ADDRESS`: the service's POP3 greeting.
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
    /// For `import --verify`.
    Verified(Verified),
    /// For `add /file`, in the order of the list.
    AddedMany {
        entries: Vec<Added>,
    },
    /// The command is allowed but changes a local account, which needs root. The tool does that itself and sends the
    /// rest of the command; it never prints this.
    Yours {
        command: String,
    },
}

/// For `test`: whether a user can log in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Tested {
    pub mailbox: String,
    /// The current authentication method.
    pub authentication: String,
    pub can_log_in: bool,
    /// In the order of the checks at login.
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
    /// Messages left out because their text is damaged.
    pub damaged: u64,
    pub skipped: Vec<SkippedFile>,
}

/// For `import --verify`: how mail programs will see the imported mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Verified {
    /// The format of the other server's ids, if given or found.
    pub uidl: Option<String>,
    pub mailboxes: Vec<VerifiedMailbox>,
    pub skipped: Vec<SkippedFile>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct VerifiedMailbox {
    pub mailbox: String,
    /// Messages on the other server.
    pub before: u64,
    /// Messages here.
    pub here: u64,
    /// Of those here, the ones that a mail program which leaves mail on the server has seen.
    pub known: u64,
    /// Those it fetched from the other server and will fetch again.
    pub again: u64,
    /// Those that arrived since.
    pub new: u64,
    /// Messages on the other server that are not here.
    pub missing: u64,
    /// Messages whose size differs from what the other server showed.
    pub sizes_differ: u64,
    /// True if the messages both have are in the same order.
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

/// The outcome of one line of `add /file`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Added {
    /// Counted from 1.
    pub line: u64,
    /// As written in the list.
    pub name: String,
    pub outcome: AddOutcome,
    /// Why it was not added: a sentence without its full stop.
    pub why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
pub enum AddOutcome {
    Added,
    /// It already exists and was not changed.
    Exists,
    /// The line cannot be carried out as it is.
    Refused,
    /// A fault occurred: it may or may not exist now.
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
    /// What it occupies on disk.
    pub allocated_octets_before: u64,
    pub allocated_octets: u64,
    /// Octets of texts that were moved within the file.
    pub moved_octets: u64,
}

/// The store was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Checked {
    pub domains: u64,
    pub mailboxes: u64,
    pub messages: u64,
    /// Texts, each counted once even if several messages share it.
    pub texts: u64,
    pub text_octets: u64,
    /// Problems found, one sentence each; the first two hundred.
    pub findings: Vec<String>,
    pub findings_total: u64,
    /// What the repair did before the check, one sentence each; the first two hundred.
    pub repaired: Vec<String>,
    pub repaired_total: u64,
    /// Every message that the repair could not save.
    pub lost: Vec<Lost>,
}

/// A lost message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Lost {
    pub mailbox: String,
    /// Its number in the mailbox, which is part of its UIDL.
    pub sequence: u64,
    /// `None` if its row is lost too.
    pub received_unix_seconds: Option<u64>,
    pub octets: Option<u64>,
}

/// The key that seals recoverable passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct KeyState {
    pub file: String,
    /// `None` if the key cannot be used.
    pub id: Option<String>,
    pub trouble: Option<String>,
    /// Mailboxes whose password is sealed under the key of the store.
    pub sealed: u64,
    pub unsealed: u64,
    pub advice: String,
}

/// The outcome of a delivery for one recipient.
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
    /// Another recipient cannot receive it, so nobody got it.
    Withheld,
}

/// Something was changed, or already was as requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Changed {
    /// The name of the command.
    pub action: String,
    /// The domain, mailbox or setting.
    pub name: String,
    /// One sentence without its full stop.
    pub message: String,
    pub removed: Option<Removed>,
    /// Further information: sentences without their full stops.
    pub notes: Vec<String>,
}

/// What was deleted with a domain or mailbox, or is deleted but restorable in the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Removed {
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct DomainLine {
    pub domain: String,
    /// The name in Unicode, if that differs.
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
    /// The first login on the most recent UTC day with a login.
    pub last_login_unix_seconds: Option<u64>,
    /// `None` if the mailbox counts against no quota.
    pub quota: Option<QuotaLine>,
    /// True if the data file holds a password for the mailbox, whether or not it is in force.
    pub has_password: bool,
    /// False while mail from another server is still missing.
    pub is_whole: bool,
    #[serde(flatten)]
    pub account: MailboxAccount,
}

/// The quota that a mailbox counts against, perhaps with others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct QuotaLine {
    pub account: String,
    pub used_octets: u64,
    /// `None` if unlimited.
    pub limit_octets: Option<u64>,
}

/// The lock of a domain or mailbox. Serialised as two fields, `locked` and `locked_by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lock(pub Option<LockedBy>);

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum LockedBy {
    Mailbox,
    /// The domain, whether or not the mailbox is locked too.
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

/// The service that has the store open. If none does, all fields but `running` are `None`.
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
    /// The size of the mail as POP3 reports it.
    pub octets: u64,
    /// Deleted mail that can still be restored; not counted above.
    pub deleted: Removed,
    /// The length of the data file.
    pub file_octets: u64,
    /// What the data file occupies on disk; holes occupy nothing.
    pub allocated_octets: u64,
    /// A plain copy of the data file is usable if it takes less than this. `None` if no service is running: then any
    /// copy is.
    pub copy_good_below_seconds: Option<u64>,
    /// Space kept allocated for such copies.
    pub copy_kept_octets: u64,
    /// `None` if no service is running.
    pub connections: Option<Connections>,
    /// `None` if there is none yet.
    pub certificate: Option<CertificateLine>,
    /// `None` if the data file holds the accounts.
    pub directory: Option<DirectoryLine>,
    /// How many mailboxes have moved here. `None` if `adopt` names no old server and no import is incomplete.
    pub adoption: Option<AdoptionLine>,
}

/// The certificate that TLS clients see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct CertificateLine {
    pub names: Vec<String>,
    /// SHA-256, in pairs of hexadecimal digits.
    pub fingerprint: String,
    /// True if this program made it.
    pub self_signed: bool,
}

/// POP3 connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Connections {
    pub open: u64,
    /// Held without a greeting until another connection ends.
    pub waiting: u64,
    /// Turned away since the service started.
    pub refused: u64,
    /// Wrong names or passwords since the service started.
    pub login_failures: u64,
    /// `None` if there was none.
    pub last_login_failure_seconds_ago: Option<u64>,
    /// Unknown recipients named by SMTP clients since the service started.
    pub wrong_recipients: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct SettingLine {
    pub setting: String,
    pub value: SettingValue,
    /// `octets` or `seconds`, for a number.
    pub unit: Option<String>,
    pub meaning: Option<String>,
    pub default: SettingValue,
    pub is_default: bool,
    /// `at once` or `next start`.
    pub takes_effect: String,
}

/// A value as it would be typed.
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

/// Why a command was not carried out. Printed as one line: what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Refusal {
    pub code: Code,
    /// A sentence without its full stop.
    pub message: String,
    pub hint: Option<String>,
}

/// The kind of a refusal, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The command line is wrong.
    Usage,
    /// A malformed name, address, path or password.
    Malformed,
    /// A value that the setting does not accept.
    Value,
    Exists,
    /// The account already exists, or belongs to another mailbox.
    AccountTaken,
    NotFound,
    /// Not possible while the domain is locked.
    Locked,
    /// Only root, or the user that owns the mail store, may do this.
    NotPermitted,
    /// Not available in this version or under this authentication method.
    NotAvailable,
    /// The directory has no mail store.
    NoStore,
    /// No service has the mail store open.
    NotRunning,
    /// The service or another command is in the way for now.
    Busy,
    /// The file is not an intact mail store.
    Damaged,
    /// A fault of the disk, the data file or the connection to the service.
    Fault,
    /// The administrator answered no.
    Cancelled,
}

impl Reply {
    /// False if there are findings, losses or refused lines: the exit code is then 1.
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

    /// A mistake in the command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// A fault of the disk or a file, in the words of the operating system or the store.
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
        let code = if refused.is_usage { Code::Usage } else { Code::Value };
        Self { code, message: refused.why, hint: refused.hint }
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
            | OpenErrorKind::DamagedLog
            | OpenErrorKind::BadCopy(_) => Code::Damaged,
            OpenErrorKind::Io(io) if io.kind() == std::io::ErrorKind::PermissionDenied => Code::NotPermitted,
            OpenErrorKind::Io(_) | OpenErrorKind::Fault(_) => Code::Fault,
        };
        Self::new(code, error.to_string())
    }
}
