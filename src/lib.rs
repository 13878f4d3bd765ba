//! pop3svc: a POP3 mail drop in one binary and one data file, administered by `winpop`.
//!
//! ```text
//! words typed ─► cli ─► admin::Request ─┬─ data file free: Store::open, request.run(&store)
//!                                       └─ service running: control socket ─► the same request.run(&store)
//!
//! socket ─► serve (accept, slots, TLS) ─► pop3::Session / smtp::Session   (pure: no I/O)
//!                     │                        │ asks for one thing at a time
//!                     └────── does it ◄────────┘
//!                                │
//!                              Store ── writer thread: one queue, group commit
//!                                │
//!                      winpop.db = redb (index) + blobs, one file, one order of syncs
//! ```
//!
//! **Files** at this level are vocabulary, which everything may know, or a single subject that several parts share
//! (`intake`, `keyring`, `certificate`, `control`, `moving`). **Folders** are parts. Who may know whom is held by `tests/tidy.rs`: arrows
//! go downward only, among the parts and among the rooms of the store.
//!
//! | part | is | knows nothing of |
//! | --- | --- | --- |
//! | `cli` | words into requests, help, manual, completions | sockets of clients |
//! | `admin` | each command of an administrator, its reply as data | whether a service runs |
//! | `serve` | listeners, slots, TLS, the drivers of sessions | how things are stored |
//! | `pop3`, `smtp` | the protocols as pure sessions | sockets, store, clock, chance |
//! | `auth` | mechanisms, verifiers, seals | store, protocols |
//! | `pop3_client`, `ldap` | dialogues in which we are the client | store, our own sessions |
//! | `wire` | lines, dot-stuffing, the head and the end of a message, surrogates | commands |
//! | `store` | the data file; its rooms are listed at the head of `store/mod.rs` | protocols, executor |
//!
//! A message's way: a client's octets ─ `wire::Receiver` ─► text in wire form ─ `smtp::Session` ─► envelope ─ `intake` ─►
//! letters ─ `store` ─► blob and rows, one commit ─► 250. And out: `pop3::Session` asks for a message ─ `store` ─► a
//! view of the mapped file ─ `serve` ─► one vectored write.
//!
//! What holds everywhere:
//! - nobody is told that something is done before it is durable;
//! - an expected outcome is a value (`verdict`), a fault of disk or network an `Err`, a bug a panic;
//! - every queue, list, line and wait has a named bound;
//! - a password is in no log, no `Debug` output, and in the data file only as a verifier or sealed.

mod active_directory;
mod address;
mod admin;
mod auth;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod certificate;
mod cli;
mod control;
mod directory;
mod envelope;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod intake;
mod keyring;
mod ldap;
mod local_accounts;
mod lock;
mod log;
mod mailroot;
mod message;
mod moving;
mod nearest;
mod pop3;
mod pop3_client;
mod random;
mod replace;
mod serve;
mod settings;
mod smtp;
mod store;
#[cfg(test)]
mod tests;
mod trust;
mod units;
mod user;
mod verdict;
mod wire;

pub fn main() -> std::process::ExitCode {
    let exit_code = cli::main();
    log::finish();
    exit_code
}
