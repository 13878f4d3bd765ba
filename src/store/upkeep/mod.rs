//! The care of a store: check, backup, repair, salvage and compaction.

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

/// Tables whose rows are checked and repaired by rules of their own. In every other table, including future
/// ones, each row must simply be readable.
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

#[cfg(test)]
mod tests {
    use super::HAVE_RULES;
    use crate::store::index::tables::LIST;

    /// A table that is misspelt or renamed would be checked and repaired by both kinds of rules.
    #[test]
    fn every_table_with_rules_of_its_own_exists() {
        for name in HAVE_RULES {
            assert!(LIST.iter().any(|table| table.name == name), "there is no table {name:?}");
        }
    }
}
