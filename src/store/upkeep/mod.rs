//! The care of a store: checked, copied, repaired, salvaged.

pub mod backup;
pub mod check;
pub mod progress;
mod reading;
pub mod repair;
pub mod salvage;
