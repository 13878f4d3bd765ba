//! The data file as octets: its map, redb's space and the blobs' in it, the log, and the disk below.
//!
//! This room knows neither table nor row.

mod beside;
pub mod container;
pub mod damaged_page;
pub mod disk;
pub mod format;
pub mod log_zone;
mod mapping;
pub mod overlay;
pub mod record;
pub mod resync;
#[cfg(test)]
pub mod simulated;
pub mod space;
