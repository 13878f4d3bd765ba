//! Tests in which programs by other people use this one, as they will.
//!
//! A test whose programs are not installed says so and is passed over; where the variable CI is set, it fails.

#[path = "../private_etc.rs"]
mod private_etc;
#[path = "../world_readable.rs"]
mod world_readable;

mod adoption;
mod container;
mod dovecot;
mod fail2ban;
mod fetchers;
mod first_minute;
mod foreign;
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
mod scratch;
mod senders;
mod unit;
