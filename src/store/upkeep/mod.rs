//! The care of a store: checked, copied, repaired, salvaged.

pub mod backup;
pub mod check;
mod copied;
pub mod repair;
pub mod salvage;
