//! Accounts as a driver would look them up.

use zeroize::Zeroizing;

use crate::auth::Account;
#[cfg(test)]
use crate::auth::hash::work;
use crate::auth::password::Verifier;

/// An account with this password, with few rounds to keep tests fast.
pub fn account(password: &str) -> Account {
    Account {
        exists: true,
        verifier: verifier(password),
        password: Some(Zeroizing::new(password.to_owned())),
    }
}

/// An account exists before its login, so the hashing for its verifier is not recorded.
fn verifier(password: &str) -> Verifier {
    let make = || Verifier::new(password, [9; 16], 16);
    #[cfg(test)]
    return work::unnoted(make);
    #[cfg(not(test))]
    make()
}

/// The decoy for an unknown name.
pub fn nobody() -> Account {
    Account {
        exists: false,
        verifier: Verifier { iterations: 16, ..Verifier::of_nobody([0; 16]) },
        password: None,
    }
}
