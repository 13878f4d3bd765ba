//! The data file as octets: its map, redb's space, the blob space, the log, and the disk underneath.
//!
//! Nothing in this room knows a table or a row.

pub mod container;
pub mod damaged_page;
pub mod disk;
pub mod format;
pub mod log_zone;
mod mapping;
mod open_files;
pub mod overlay;
pub mod record;
pub mod resync;
#[cfg(test)]
pub mod simulated;
pub mod space;
