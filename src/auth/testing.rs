//! Accounts for tests.

use super::Account;
use super::password::Verifier;
use zeroize::Zeroizing;

/// An account with this password, its verifier made with as few rounds as make no difference.
pub fn account(password: &str) -> Account {
    Account {
        exists: true,
        verifier: verifier(password),
        password: Some(Zeroizing::new(password.to_owned())),
    }
}

/// An account is there before anybody logs in to it, so making its verifier is no work of the login.
fn verifier(password: &str) -> Verifier {
    let make = || Verifier::new(password, [9; 16], 16);
    #[cfg(test)]
    return super::hash::work::unnoted(make);
    #[cfg(not(test))]
    make()
}

/// What an owner says of a name that there is not.
pub fn nobody() -> Account {
    Account {
        exists: false,
        verifier: Verifier { iterations: 16, ..Verifier::of_nobody([0; 16]) },
        password: None,
    }
}
