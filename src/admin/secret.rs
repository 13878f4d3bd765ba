//! A password on its way from the administrator to the store.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use zeroize::Zeroize as _;

use super::reply::{Code, Refusal};
use crate::auth::password::acceptable;

/// What was given for a password. Not printed by `Debug`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Secret(String);

/// It is not left behind in memory.
impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Secret {
    /// Whether `-` was typed: the password itself comes from standard input.
    pub fn is_elsewhere(&self) -> bool {
        self.0 == "-"
    }

    /// The password, if it can be one.
    pub fn password(&self) -> Result<&str, Refusal> {
        acceptable(&self.0).map_err(|bad| Refusal::new(Code::Malformed, bad.to_string()))?;
        Ok(&self.0)
    }
}

impl From<String> for Secret {
    fn from(typed: String) -> Self {
        Self(typed)
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(typed: &str) -> Result<Self, Infallible> {
        Ok(Self(typed.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_printed() {
        assert!(!format!("{:?}", Secret::from("hunter2".to_owned())).contains("hunter2"));
    }
}
