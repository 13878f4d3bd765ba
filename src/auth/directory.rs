//! Account directories: where accounts live if not in the data file.
//!
//! A directory can check a password, so USER/PASS, PLAIN and LOGIN work with it. It reveals neither passwords nor
//! verifiers, so SCRAM, APOP and CRAM-MD5 do not.
//!
//! Calls block for a bounded time: never make one on an executor or with a lock held. Expected outcomes are values. If
//! the directory cannot answer, the call fails with [`Unavailable`], which neither admits nor refuses anybody.

use std::fmt;
use std::time::Duration;

use super::ntlm;
use crate::address::Address;
use crate::reachability::Reachability;

/// What every account directory can do.
pub trait Directory: Send + Sync {
    fn place(&self) -> Place;

    /// Checks the password of a login name. A directory on the network takes every form of name; local accounts, which
    /// have no domains, take the address of the mailbox. An empty password is always wrong.
    fn verify(&self, typed: &str, password: &str) -> Result<Verdict, Unavailable>;

    /// Checks that the directory answers the service.
    fn reach(&self) -> Result<(), Unavailable>;

    /// The account behind a login name, in any form that `verify` takes.
    fn find(&self, typed: &str) -> Result<Option<Found>, Unavailable> {
        let Ok(address) = Address::from_login(typed) else { return Ok(None) };
        let name = self.account_of(&address)?;
        Ok(name.map(|name| Found { name, addresses: vec![address] }))
    }

    /// The name of a mailbox's account, or `None` if it has none.
    fn account_of(&self, address: &Address) -> Result<Option<String>, Unavailable>;

    /// The name of each mailbox's account, in the same order. An address that several accounts claim has none. A
    /// directory on the network gets this long to answer.
    fn accounts_of(
        &self,
        addresses: &[Address],
        _within: Duration,
    ) -> Result<Vec<Option<String>>, Unavailable> {
        addresses.iter().map(|address| self.account_of(address)).collect()
    }

    /// Why a mailbox cannot have an account, if that is known without trying to create it. A sentence.
    fn bars(&self, _: &Address) -> Result<Option<String>, Unavailable> {
        Ok(None)
    }

    /// Creates a mailbox's account, with its password or not at all.
    fn create(&self, address: &Address, password: &str) -> Result<Creation, Unavailable>;

    fn remove(&self, address: &Address) -> Result<Removal, Unavailable>;

    fn change_password(&self, address: &Address, password: &str) -> Result<Change, Unavailable>;

    fn reachability(&self) -> Reachability;

    /// The NetBIOS name of the domain, while NTLM proofs of its users can be checked.
    fn ntlm_domain(&self) -> Option<String> {
        None
    }

    /// Checks an NTLM proof of a password.
    fn prove(&self, _: &ntlm::Proof) -> Result<Verdict, Unavailable> {
        Ok(Verdict::Wrong)
    }

    /// Tries NTLM again, unless it worked a moment ago. Call it from time to time.
    fn try_ntlm(&self) -> Result<(), Unavailable> {
        Ok(())
    }
}

/// Where a directory keeps its accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the operating system. A mailbox uses the account with its name, so names are unique over all domains.
    /// Checking a password costs our own processor time, and only root can change accounts; the service is not root.
    ThisMachine,
    /// On a server.
    Network,
}

impl Place {
    /// Follows "an account" in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::ThisMachine => "on this machine",
            Self::Network => "in the directory",
        }
    }
}

/// The account behind a login name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    /// The addresses that belong to the account, the likeliest first.
    pub addresses: Vec<Address>,
}

/// The outcome of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right. These addresses belong to the account, the likeliest first.
    Right(Vec<Address>),
    /// No such account, or a wrong password.
    Wrong,
    /// The account may not log in, whatever the password.
    Barred {
        /// Follows the account's name in a sentence.
        why: String,
        /// True if the password was right. If nobody checked it, the attempt may be a guess.
        is_proven: bool,
    },
}

/// The outcome of creating an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// Under this name.
    Created { name: String },
    /// The account exists and was left unchanged.
    Exists { name: String },
    /// A sentence.
    Refused(String),
}

/// The outcome of deleting an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    Removed {
        name: String,
    },
    NoSuchAccount,
    /// A sentence.
    Refused(String),
}

/// The outcome of changing a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Changed,
    NoSuchAccount,
    /// A sentence.
    Refused(String),
}

/// The directory cannot answer. The text is a sentence that says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the account directory is unavailable: {}", self.0)
    }
}
