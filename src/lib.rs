//! pop3svc: a POP3 mail drop in one binary and one data file.
//!
//! ```text
//! words typed ─► cli ─► admin::Op ─┬─ data file free: Store::open, op.run(&store)
//!                                  └─ service running: control socket ─► the same op.run(&store)
//!
//! socket ─► serve (accept, slots) ─► pop3::Session / smtp::Session   (pure: no I/O)
//!                     │                        │ asks for one thing at a time
//!                     └────── does it ◄────────┘
//!                                │
//!                              Store ── writer thread: one queue, group commit
//!                                │
//!                      winpop.db = redb (index) + blobs, one file, one order of syncs
//! ```

mod address;
mod admin;
mod auth;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod certificate;
mod cli;
mod control;
mod envelope;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod intake;
mod keyring;
mod log;
mod mailroot;
mod message;
mod nearest;
mod pop3;
mod serve;
mod settings;
mod smtp;
mod store;
#[cfg(test)]
mod tests;
mod units;
mod verdict;
mod wire;

pub fn main() -> std::process::ExitCode {
    cli::main()
}
