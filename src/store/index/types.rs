//! The ids and times of the index, as types.

use std::cmp::Ordering;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use bincode::{Decode, Encode};

use crate::store::file::format::Extent;

/// A domain or a mailbox: an owner of counts. Never reused in the life of a store, so a new mailbox under an
/// old name is a different one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct OwnerId(pub u32);

/// A domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct DomainId(pub OwnerId);

/// A mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct MailboxId(pub OwnerId);

/// A stored text. Given out in sequence, so that new rows lie next to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct TextId(pub u64);

/// Whole seconds since 1970-01-01 UTC, without leap seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct UnixTime(pub u64);

/// A UTC day; 1970-01-01 is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub u32);

const DAY_SECONDS: u64 = 24 * 60 * 60;

impl Day {
    /// Later than every other day.
    pub const LAST: Self = Self(u32::MAX);

    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl OwnerId {
    /// The id after this one; `None` after the last possible one.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl From<DomainId> for OwnerId {
    fn from(id: DomainId) -> Self {
        id.0
    }
}

impl From<MailboxId> for OwnerId {
    fn from(id: MailboxId) -> Self {
        id.0
    }
}

impl UnixTime {
    /// The day it lies in; capped at the last one after some millions of years.
    pub fn day(self) -> Day {
        Day(u32::try_from(self.0 / DAY_SECONDS).unwrap_or(u32::MAX))
    }

    /// This many days earlier.
    pub fn less_days(self, days: u32) -> Self {
        Self(self.0.saturating_sub(u64::from(days) * DAY_SECONDS))
    }

    /// The time by this machine's clock; 1970 if that is set earlier.
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

impl TextId {
    /// The id after this one; `None` after the last possible one.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for TextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MailboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number under a type of our own as a redb key, in numeric order.
macro_rules! keys {
    ($($name:ident is $number:ty, from $from:expr, to $to:expr;)*) => { $(
        impl redb::Value for $name {
            type SelfType<'a> = Self;
            type AsBytes<'a> = <$number as redb::Value>::AsBytes<'a>;

            fn fixed_width() -> Option<usize> {
                <$number as redb::Value>::fixed_width()
            }

            fn from_bytes<'a>(data: &'a [u8]) -> Self
            where
                Self: 'a,
            {
                $from(<$number as redb::Value>::from_bytes(data))
            }

            fn as_bytes<'a, 'b: 'a>(value: &'a Self) -> Self::AsBytes<'a>
            where
                Self: 'b,
            {
                let number: $number = $to(*value);
                <$number as redb::Value>::as_bytes(&number)
            }

            fn type_name() -> redb::TypeName {
                redb::TypeName::new(concat!("pop3svc ", stringify!($name)))
            }
        }

        impl redb::Key for $name {
            fn compare(one: &[u8], other: &[u8]) -> Ordering {
                <$number as redb::Key>::compare(one, other)
            }
        }
    )* };
}

keys! {
    OwnerId is u32, from OwnerId, to |id: OwnerId| id.0;
    MailboxId is u32, from |id| MailboxId(OwnerId(id)), to |id: MailboxId| id.0.0;
    Day is u32, from Day, to |day: Day| day.0;
    TextId is u64, from TextId, to |id: TextId| id.0;
    Extent is u32, from Extent, to |extent: Extent| extent.0;
}
