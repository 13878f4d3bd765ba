//! Whether a directory of accounts can be reached, as far as is known.

use std::time::SystemTime;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reachability {
    /// When the directory last answered, and which server or file did.
    pub last_contact: Option<(SystemTime, String)>,
    /// When a question last failed, and why.
    pub last_error: Option<(SystemTime, String)>,
}
