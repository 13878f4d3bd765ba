//! A password given by the administrator.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use zeroize::Zeroize as _;

use super::reply::{Code, Refusal};
use crate::auth::password::acceptable;

/// A password as given. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Secret(String);

/// Leaves no copy in memory.
impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Secret {
    /// True if `-` was typed: the password comes from standard input.
    pub fn is_elsewhere(&self) -> bool {
        self.0 == "-"
    }

    /// The password, if it is acceptable.
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
