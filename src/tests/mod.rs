//! Tests that are about more than one file. (`system.rs` beside them is a test target of its own.)

mod pop3_mechanisms;
mod pop3_model;
mod pop3_transcripts;
mod smtp_transcripts;
mod transcript;
