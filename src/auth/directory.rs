//! Directories of accounts: where the accounts of mailboxes live when not in the data file.
//!
//! A directory checks passwords that are sent to it as they are, so USER/PASS, PLAIN and LOGIN work with it; it gives
//! no password and no verifier away, so SCRAM, APOP and CRAM-MD5 do not.
//!
//! Calls wait for somebody else, for a bounded time: not to be made on an executor, nor with a lock held. An outcome is
//! a value; that the directory cannot be asked is an [`Unavailable`], which is no verdict in either direction.

use std::fmt;
use std::time::SystemTime;

use super::ntlm;
use crate::address::Address;

/// What every directory of accounts can do.
pub trait Directory: Send + Sync {
    fn place(&self) -> Place;

    /// Checks a password for a login name in any of its forms; on this machine, which knows no domains, for the address
    /// of a mailbox. An empty password is wrong.
    fn verify(&self, typed: &str, password: &str) -> Result<Verdict, Unavailable>;

    /// Whether the service itself is let in, and finds what it is to look for.
    fn reach(&self) -> Result<(), Unavailable>;

    /// The account that a login name means, in any form that `verify` takes.
    fn find(&self, typed: &str) -> Result<Option<Found>, Unavailable> {
        let Ok(address) = Address::from_login(typed) else { return Ok(None) };
        let name = self.account_of(&address)?;
        Ok(name.map(|name| Found { name, addresses: vec![address] }))
    }

    /// The name of a mailbox's account, or `None` if it has none.
    fn account_of(&self, address: &Address) -> Result<Option<String>, Unavailable>;

    /// The name of each mailbox's account, in the same order. An address that several accounts claim has none.
    fn accounts_of(&self, addresses: &[Address]) -> Result<Vec<Option<String>>, Unavailable> {
        addresses.iter().map(|address| self.account_of(address)).collect()
    }

    /// Makes the account of a mailbox, whole or not at all.
    fn create(&self, address: &Address, password: &str) -> Result<Creation, Unavailable>;

    fn remove(&self, address: &Address) -> Result<Removal, Unavailable>;

    fn change_password(&self, address: &Address, password: &str) -> Result<Change, Unavailable>;

    fn state(&self) -> State;

    /// The NetBIOS name of the domain whose users can prove a password by NTLM now; none where nobody checks that.
    fn ntlm_domain(&self) -> Option<String> {
        None
    }

    /// Checks what a client sent to prove a password by NTLM.
    fn prove(&self, _: &ntlm::Proof) -> Result<Verdict, Unavailable> {
        Ok(Verdict::Wrong)
    }

    /// Finds out whether NTLM can be checked, where it was not found out lately. To be called now and then.
    fn try_ntlm(&self) -> Result<(), Unavailable> {
        Ok(())
    }
}

/// Where the accounts of a directory are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Among those of the system. A mailbox's account has its name, so that the names are unique over all domains;
    /// checking a password takes our processors; and changes take root, which the service is not.
    ThisMachine,
    /// At a server, which is asked for everything.
    Network,
}

impl Place {
    /// Words for where an account is.
    pub fn words(self) -> &'static str {
        match self {
            Self::ThisMachine => "on this machine",
            Self::Network => "in the directory",
        }
    }
}

/// An account that a login name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    /// The addresses whose mailbox may be this account's, the likelier first.
    pub addresses: Vec<Address>,
}

/// What became of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right. The addresses whose mailbox may be this account's, the likelier first.
    Right(Vec<Address>),
    /// No such account, or not its password.
    Wrong,
    /// The account may not log in, whatever the password.
    Barred {
        /// In words that go on from its name.
        why: String,
        /// Whether the password was the right one. Where that was not found out, it may have been a guess.
        is_proven: bool,
    },
}

/// What became of making an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// With the name that it got.
    Created { name: String },
    /// There is one of that name, which was left as it is.
    Exists { name: String },
    /// A sentence.
    Refused(String),
}

/// What became of deleting an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    Removed {
        name: String,
    },
    NoSuchAccount,
    /// A sentence.
    Refused(String),
}

/// What became of changing a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Changed,
    NoSuchAccount,
    /// A sentence.
    Refused(String),
}

/// The directory cannot be asked: a sentence that says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

/// What is known of a directory's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// When it last answered, and by which server.
    pub last_contact: Option<(SystemTime, String)>,
    /// When a question last failed, and why.
    pub last_error: Option<(SystemTime, String)>,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the directory of accounts cannot be asked: {}", self.0)
    }
}
