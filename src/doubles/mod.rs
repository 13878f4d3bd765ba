//! Test doubles: the other ends of our sessions, for tests and fuzz targets.
//!
//! They live in memory, use no clock, randomness or socket, and are compiled only for tests and fuzzing. The simulated
//! disk belongs to the store and stays there (`store/file/simulated.rs`).

pub mod accounts;
pub mod ntlm_client;
pub mod pop3_driver;
pub mod scram_client;
pub mod smtp_driver;
