//! The open store: what handles, readers and writer share, and how the index is opened.

pub mod claims;
mod error;
mod handle;
pub mod queue;
pub mod recovery;
mod shared;
mod snapshot;
pub mod verified;
pub mod window;

pub use error::{OpenError, OpenErrorKind};
pub use handle::{Inner, Store};
pub use shared::{Oldest, OpenIndex, Shared, Trust, open_database};
pub use snapshot::{Snapshot, Visit};
