//! Accounts in Active Directory, held against a real domain controller.

mod accounts;
pub mod controller;
mod logins;
mod migration;
mod ntlm;
mod outage;
mod state;
