//! Accounts for tests.

use super::Account;
use super::password::Verifier;
use zeroize::Zeroizing;

/// An account with this password, its verifier made with as few rounds as make no difference.
pub fn account(password: &str) -> Account {
    Account {
        exists: true,
        verifier: Verifier::new(password, [9; 16], 16),
        password: Some(Zeroizing::new(password.to_owned())),
    }
}

/// What an owner says of a name that there is not.
pub fn nobody() -> Account {
    Account {
        exists: false,
        verifier: Verifier { iterations: 16, ..Verifier::of_nobody([0; 16]) },
        password: None,
    }
}
