//! Tests in which other programs use this one.
//!
//! A test whose programs are missing is skipped with a line that says so; if the variable CI is set, it fails.

#[path = "../harness/mod.rs"]
mod harness;

mod adoption;
mod container;
mod domain;
mod dovecot;
mod fail2ban;
mod fetchers;
mod first_minute;
mod local_accounts;
mod logins;
mod machine;
mod moving;
mod moving_live;
mod pollers;
mod pop3;
mod postfix;
mod readme;
mod real_mail;
mod samples;
mod senders;
mod service;
mod unit;
