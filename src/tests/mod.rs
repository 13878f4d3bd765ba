//! Tests that span several parts of the library. `system` and `clients` are test programs that run the binary.

pub mod bench;
mod keyring;
mod pop3_mechanisms;
mod pop3_model;
mod pop3_transcripts;
mod readme;
pub mod replies;
pub mod scratch;
pub mod skip;
mod smtp_transcripts;
mod tidy;
mod transcript;
