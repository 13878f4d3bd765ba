//! What we know about whether the account directory can be reached.

use std::time::SystemTime;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reachability {
    /// When the directory last answered, and which server or file did.
    pub last_contact: Option<(SystemTime, String)>,
    /// When a question last failed, and why.
    pub last_error: Option<(SystemTime, String)>,
}
