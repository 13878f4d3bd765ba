//! The index: redb's tables, their rows, consistent views of them, and the transaction that changes them.

pub mod contained;
mod fault;
mod recent;
pub mod redb_header;
mod removed_names;
pub mod rows;
pub mod tables;
mod transaction;
pub mod types;

pub use fault::{Fault, described, miscounted};
pub use recent::RecentTexts;
pub use removed_names::RemovedNames;
pub use transaction::{Beginning, IndexSnapshot, Read, Tx};
