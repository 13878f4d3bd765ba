//! `undelete`: restores deleted mail, mailboxes and domains.

use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime};

use super::Context;
use super::commands::Undelete;
use super::directory::{Target, changed, count};
use super::reply::{Changed, Code, Refusal, Reply};
use crate::store::{Refused, Restored, Store, UnixTime, Wanted};
use crate::units::{Octets, Seconds};

impl Undelete {
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let wanted = match (&self.since, self.all) {
            (Some(_), true) => {
                return Err(Refusal::usage("/since and /all cannot be combined"));
            }
            (Some(typed), false) => Wanted::Since(since(typed, context.now)?),
            (None, true) => Wanted::All,
            (None, false) => Wanted::Last,
        };
        match self.name.parse()? {
            Target::Domain(_) if wanted != Wanted::Last || self.new => Err(Refusal::usage(
                "/since, /all and /new are for mailboxes; a domain is restored with all its mailboxes",
            )),
            Target::Domain(domain) => {
                let name = domain.clone();
                let restored = changed(store, move |tx| tx.undelete_domain(&name))?;
                let message = format!(
                    "Domain {domain} restored with {} and {}",
                    count(restored.mailboxes, "mailbox", "mailboxes"),
                    amount(&restored)
                );
                let note = |address| {
                    format!(
                        "{address} was not restored, because a new mailbox has that name. To put its mail into the new one: \
                         winpop undelete {address} /new"
                    )
                };
                let notes = restored.replaced.iter().map(note).collect();
                Ok(Changed { notes, ..Changed::new("undelete", &domain, message) }.into())
            }
            Target::Mailbox(address) => {
                let restored = store.undelete_mailbox(&address, wanted, self.new).map_err(Refusal::fault)?;
                let restored = restored.map_err(|why| match why {
                    Refused::NoSuchDomain(ref domain) => {
                        let hint = format!("If it was deleted with its mailboxes: winpop undelete {domain}");
                        Refusal::from(why).with_hint(hint)
                    }
                    why => why.into(),
                })?;
                let message = match restored.mailboxes {
                    0 => format!("{} restored in {address}", amount(&restored)),
                    _ => format!("Mailbox {address} restored with {}", amount(&restored)),
                };
                Ok(Changed::new("undelete", &address, message).into())
            }
        }
    }
}

fn amount(restored: &Restored) -> String {
    format!("{} ({})", count(restored.messages, "message", "messages"), Octets(restored.octets))
}

/// A UTC date or time, or an age.
fn since(typed: &str, now: UnixTime) -> Result<UnixTime, Refusal> {
    let time = OffsetDateTime::parse(typed, &Rfc3339).ok();
    let day = || Some(Date::parse(typed, &Iso8601::DATE).ok()?.midnight().assume_utc());
    if let Some(time) = time.or_else(day) {
        return Ok(UnixTime(u64::try_from(time.unix_timestamp()).unwrap_or(0)));
    }
    match typed.parse::<Seconds>() {
        Ok(Seconds(ago)) => Ok(UnixTime(now.0.saturating_sub(ago))),
        Err(_) => Err(Refusal::new(Code::Malformed, format!("\"{typed}\" is not a time"))
            .with_hint("Write 2026-11-26, 2026-11-26T10:00:00Z, or an age such as 2h or 3d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_day_a_moment_or_how_long_ago() {
        let now = UnixTime(1_000_000);
        for (typed, expected) in [
            ("1970-01-02", 86_400),
            ("1970-01-02T00:00:01Z", 86_401),
            ("1970-01-02T01:00:00+01:00", 86_400),
            ("2h", 1_000_000 - 7200),
            ("3000d", 0),
        ] {
            assert_eq!(since(typed, now).unwrap(), UnixTime(expected), "{typed}");
        }
        assert!(["", "yesterday", "1970-13-01", "2 fortnights"].iter().all(|bad| since(bad, now).is_err()));
    }
}
