//! Mail and its owners: delivery, mailboxes and domains, quotas, and the maildrop a session sees.
//!
//! Changes are methods of a transaction, which the writer runs; this room does not know the writer.

mod body;
mod delivery;
mod directory;
mod export;
mod import;
mod maildrop;
pub mod moving;
pub mod placing;
mod purging;
pub mod quota;
mod refused;
mod undelete;

pub use body::{Body, Incoming, Spool};
pub use delivery::Letter;
pub use directory::{LockChange, Removed};
pub use export::Listed;
pub use import::{Import, Imported};
pub use maildrop::{Maildrop, Revocation, StoredMessage};
pub use moving::{Adoption, Mover, mover_of};
pub use refused::Refused;
#[cfg(test)]
pub use undelete::Kept;
pub use undelete::{Restored, Wanted};
