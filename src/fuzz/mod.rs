//! The bodies of the fuzz targets. Each takes any octets and panics if a promise is broken.

mod address;
mod control;
mod ldap;
mod ntlm;
mod pop3;
mod pop3_client;
mod scram;
mod settings;
mod smtp;
mod wire;

pub use crate::store::fuzz::{rows, tree};
pub use address::address;
pub use control::control;
pub use ldap::ldap;
pub use ntlm::ntlm;
pub use pop3::pop3;
pub use pop3_client::pop3_client;
pub use scram::scram;
pub use settings::settings;
pub use smtp::smtp;
pub use wire::wire;
