//! Accounts in Active Directory, with a real domain controller.

mod accounts;
pub mod controller;
mod logins;
mod migration;
mod ntlm;
mod outage;
mod state;
mod unasked;
