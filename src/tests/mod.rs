//! Tests that are about more than one file. (`system.rs` beside them is a test target of its own.)

pub mod bench;
mod keyring;
mod pop3_mechanisms;
mod pop3_model;
mod pop3_transcripts;
mod readme;
mod receiving_transcript;
mod smtp_transcripts;
mod tidy;
mod transcript;
