//! Mail and whom it is for: delivery, mailboxes and domains, quotas, and a mailbox as a session has it.
//!
//! Changes are methods of a transaction, for which the writer is asked; this room knows no writer.

mod body;
mod delivery;
mod directory;
mod export;
mod import;
mod maildrop;
pub mod moving;
pub mod placing;
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
