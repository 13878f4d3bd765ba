//! Shared by the two test programs outside the library (`system`, `clients`): a directory that serves as a small
//! machine, and child processes.
//!
//! - Nothing is written outside a temporary directory, whoever runs the tests: home and mail store are in it, and no
//!   test runs `set mailroot` as root, which would change the real machine's pointer file.
//! - Only processes started here are killed, each by its id.
//! - Every wait is for an event and has a limit: a log line ([`PATIENCE`]), the end of a program (`process::RUN_MAX`).
//!
//! Each program adds what only it needs in its own `service.rs`.

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
/// The password of every mailbox that [`site::Site::add_mailbox`] creates.
pub const PASSWORD: &str = "secret";
/// Longest wait for an event that must come: long enough for any machine, so that only a hang exceeds it.
pub const PATIENCE: Duration = Duration::from_secs(60);
