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
//! # Parts
//!
//! Folders are parts. Files are vocabulary that everything may use (`address`, `message`, `units`, `verdict` and the
//! like), or one subject that several parts share (`control`, `intake`, `keyring`, `moving` and the like). Each begins
//! with what it is, what it never does, and its invariants.
//!
//! | part | is | knows nothing of |
//! | --- | --- | --- |
//! | `cli` | words into requests; help, manual, completions | clients' sockets |
//! | `admin` | every administrator's command, and its reply as data | whether a service runs |
//! | `serve` | listeners, slots, TLS, the drivers of sessions | how things are stored |
//! | `pop3`, `smtp` | the protocols as pure sessions (LMTP is a dialect of SMTP) | sockets, store, clock, randomness |
//! | `auth` | login mechanisms, verifiers, sealed passwords | store, protocols |
//! | `local_accounts`, `active_directory` | accounts that live outside the data file | store, protocols |
//! | `pop3_client`, `ldap` | dialogues in which we are the client | store, our own sessions |
//! | `wire` | lines, dot-stuffing, the head and the end of a message, surrogates | commands |
//! | `store` | the data file; the head of `store/mod.rs` lists its rooms | protocols, executor |
//! | `doubles`, `fuzz` | test doubles; what the fuzz targets run: for tests and fuzzing only | files, sockets |
//!
//! # Where things go
//!
//! **A message in**: `serve::receiving` reads octets. `smtp::Session` turns the commands into an envelope, and `wire`
//! turns the data into a text in wire form. `intake` makes one letter for each recipient, with its trace fields. The
//! writer thread puts rows and text into one record of the log (`store::mail::delivery`). Once that is durable, the
//! session says `250`.
//!
//! **A message out**: after RETR, `pop3::Session` returns `Next::Send`. `serve::pop3` takes a view of the mapped file
//! from the maildrop (`store::mail::maildrop`) and sends it in one vectored write. DELE only marks; after QUIT comes
//! `Next::Commit`, the writer deletes the rows, and once that is durable the session says `+OK`.
//!
//! **A lock**: `winpop lock` becomes `admin::commands::Lock`, whose `run` sets a flag in the row of the mailbox or
//! domain. The same job revokes the claim of an open session (`store::open::claims`). The session's driver passes it
//! `Event::Revoked`; the session sends a last reply and closes without deleting anything. At the next login
//! `open_maildrop` finds the flag and returns `verdict::Login::Locked`, after the password was checked. Deliveries do
//! not look at it.
//!
//! **A password**, set: it travels as `admin::Secret`, which neither `Debug` output nor the log shows. `auth::password`
//! derives a SCRAM verifier from it and seals the password with the key from `keyring`; both go into the mailbox's row.
//! If accounts live elsewhere, `auth::directory` changes it there instead.
//!
//! **A password**, at a login: a mechanism in `pop3` asks for `Next::Login` if the client sent the password itself, and
//! otherwise for `Next::Account`, to compare a proof. `serve::guard` makes guessers wait. `serve::accounts` derives and
//! compares off the executor, or asks the directory, and answers with a `verdict::Login`.
//!
//! # House rules
//!
//! - Nobody is told that something is done before it is durable.
//! - An expected outcome is a value (`verdict`), a fault of disk, network or directory an `Err`, a bug a panic.
//! - Code that decides does no I/O, and gets time and randomness as arguments.
//! - Every queue, list, line and wait has a named bound.
//! - A password is in no log and no `Debug` output, and in the data file only as a verifier or sealed.
//! - One fact, one place: a setting, a command, a reply, a file offset is one row, from which help, manual and parsing
//!   follow.
//! - Imports go downward only, between parts and between the store's rooms. `tests/tidy.rs` enforces that, and also:
//!   unsafe code in one file, bincode in two, files of at most 600 lines, the order of imports, the width of comments.

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
#[cfg(any(test, fuzzing))]
mod doubles;
mod envelope;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod host;
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
mod reachability;
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
