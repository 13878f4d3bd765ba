//! What comes back from a command, as data.
//!
//! The serialised form is what `--json` prints, and stable: names and kinds of fields stay, new ones may come.
//! Sizes are exact numbers of octets.
//!
//! ```text
//! changes          {"ok":true,"action":"add","name":"example.com","message":"…","notes":["…"]}
//!   delete adds    "removed":{"mailboxes":2,"messages":5,"octets":12345}
//! list             {"ok":true,"domains":[DOMAIN…]}
//! list DOMAIN      {"ok":true,"domain":"example.com","mailboxes":[MAILBOX…]}
//! stat             {"ok":true,"statistics":{"domains","mailboxes","messages","octets","file_octets",
//!                   "allocated_octets","connections":{"open","waiting","refused","login_failures",
//!                   "last_login_failure","wrong_recipients"},
//!                   "certificate":{"names":["…"],"fingerprint","self_signed"}},"domains":[DOMAIN…]}
//! stat DOMAIN      {"ok":true,"statistics":DOMAIN,"mailboxes":[MAILBOX…]}
//! get [KEY]        {"ok":true,"settings":[{"setting","value","meaning","default","is_default",
//!                   "takes_effect"}…]}
//! backup           {"ok":true,"file","messages","file_octets"}
//! check            {"ok":true,"domains","mailboxes","messages","texts","text_octets","findings":["…"],"findings_total",
//!                   "repaired":["…"],"repaired_total","lost":[{"mailbox","sequence","received","octets"}…]}
//! key              {"ok":true,"file","id","trouble","sealed","unsealed","advice"}
//! deliver          {"ok":true,"recipients":[{"recipient","outcome"}…]}
//! refused          {"ok":false,"error":{"code":"not-found","message":"…","hint":"…"}}
//!
//! DOMAIN           {"domain","locked","mailboxes","messages","octets"}
//! MAILBOX          {"mailbox","lock","messages","octets"}     lock: "none", "mailbox" or "domain"
//!   with a quota   "quota":{"account","used","limit"}         limit: null where there is none
//! ```

use std::fmt;

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::address::Malformed;
use crate::mailroot::Unusable;

/// The outcome of a command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(untagged)]
pub enum Reply {
    Changed(Changed),
    Domains { domains: Vec<DomainLine> },
    Mailboxes { domain: String, mailboxes: Vec<MailboxLine> },
    Server { statistics: Server, domains: Vec<DomainLine> },
    Domain { statistics: DomainLine, mailboxes: Vec<MailboxLine> },
    Settings { settings: Vec<SettingLine> },
    BackedUp(BackedUp),
    Checked(Checked),
    Key(KeyState),
    Delivered { recipients: Vec<Delivered> },
}

/// A copy of the store was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct BackedUp {
    pub file: String,
    pub messages: u64,
    /// The length of the copy.
    pub file_octets: u64,
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
    /// Unix time in seconds; none where nothing is known of it.
    pub received: Option<u64>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<Removed>,
    /// What should be known beside: sentences without their full stops.
    pub notes: Vec<String>,
}

/// What went with a domain or mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Removed {
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct DomainLine {
    pub domain: String,
    pub locked: bool,
    pub mailboxes: u64,
    pub messages: u64,
    pub octets: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct MailboxLine {
    /// The whole address.
    pub mailbox: String,
    pub lock: Locked,
    pub messages: u64,
    pub octets: u64,
    /// Left out where the mailbox counts against none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaLine>,
}

/// The quota that a mailbox counts against, which others may count against too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct QuotaLine {
    pub account: String,
    pub used: u64,
    /// None: there is no limit.
    pub limit: Option<u64>,
}

/// What keeps the reader of a mailbox out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum Locked {
    None,
    Mailbox,
    /// The domain, whether or not the mailbox is locked by itself too.
    Domain,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Server {
    pub domains: u64,
    pub mailboxes: u64,
    pub messages: u64,
    /// The mail as its readers count it.
    pub octets: u64,
    /// The length of the data file.
    pub file_octets: u64,
    /// What the data file takes of the disk; its holes take nothing.
    pub allocated_octets: u64,
    pub connections: Connections,
    /// None where there is none yet.
    pub certificate: Option<CertificateLine>,
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

/// POP3 connections; none where no service runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct Connections {
    pub open: u64,
    /// Held without a greeting until one of the others ends.
    pub waiting: u64,
    /// Turned away since the service was started.
    pub refused: u64,
    /// Wrong names or passwords since the service was started.
    pub login_failures: u64,
    /// Seconds since the last of them; none where there was none.
    pub last_login_failure: Option<u64>,
    /// Recipients that do not exist here, named by SMTP since the service was started.
    pub wrong_recipients: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Encode, Decode)]
pub struct SettingLine {
    pub setting: String,
    /// As it would be typed.
    pub value: String,
    pub meaning: Option<String>,
    pub default: String,
    pub is_default: bool,
    /// `at once` or `next start`.
    pub takes_effect: String,
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
    NotFound,
    /// Not while the domain is locked.
    Locked,
    /// A command or choice that this version does not have.
    NotAvailable,
    /// There is no mail store in the directory.
    NoStore,
    /// The service, or another administrator's command, stands in the way for the moment.
    Busy,
    /// A file that is no whole mail store.
    Damaged,
    /// A fault of the disk, of the data file or of the connection to the service.
    Fault,
    /// The administrator thought better of it.
    Cancelled,
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
