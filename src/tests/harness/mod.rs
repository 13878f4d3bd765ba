//! What the two programs of tests from outside share (`system`, `clients`): a directory that is a machine of its own,
//! and child processes.
//!
//! - Nothing is written outside a temporary directory, whoever runs the tests: home and mail store lie in it, and no
//!   test runs `set mailroot` as root, whose pointer file is the machine's.
//! - Only processes that were started here are ended, each by its id.
//! - Every wait is for an event and has a limit: a line of the log ([`PATIENCE`]), the end of a program
//!   (`process::RUN_MAX`).
//!
//! Each program adds what it alone needs, in its own `service.rs`.

use std::time::Duration;

pub mod etc;
pub mod ports;
pub mod process;
pub mod programs;
#[path = "../scratch.rs"]
pub mod scratch;
pub mod site;
#[path = "../skip.rs"]
pub mod skip;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pop3svc");
/// The password of every mailbox that [`site::Site::add_mailbox`] makes.
pub const PASSWORD: &str = "secret";
/// Longest wait for an event that must come: long enough for any machine, and an end to what hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);
