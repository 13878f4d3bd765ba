//! The care of a store: checked, copied, repaired, salvaged.

pub mod backup;
pub mod check;
pub mod compact;
mod copied;
mod deleted;
mod foreign_ids;
pub mod progress;
mod reading;
pub mod repair;
pub mod salvage;
mod stretches;

/// The tables whose rows have rules of their own, by which they are checked and mended one by one. Of every other
/// table, those to come included, each row is to be one that can be read.
const HAVE_RULES: [&str; 12] = [
    "domains",
    "mailboxes",
    "counts",
    "quotas",
    "messages",
    "texts",
    "free",
    "blob extents",
    "store",
    "deleted",
    "removed mailboxes",
    "deleted counts",
];
