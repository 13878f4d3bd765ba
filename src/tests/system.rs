//! Tests that drive the program from outside, as its users do.

mod winpop_transcripts;
