//! Looks up the accounts of many mailboxes, several at a time: a directory on the network may take milliseconds each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::address::Address;
use crate::auth::directory::{Directory, Unavailable};
use crate::lock::Mutex;

/// Queries under way at a time.
const AT_A_TIME: usize = 8;

/// The account name of each mailbox, in the same order. Calls `looked_up` after each. The first query that fails ends
/// it.
pub fn accounts_of(
    addresses: &[Address],
    directory: &dyn Directory,
    looked_up: impl Fn() + Sync,
) -> Result<Vec<Option<String>>, Unavailable> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(vec![None; addresses.len()]);
    let ask = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(address) = addresses.get(place) else { return Ok(()) };
            let account = directory.account_of(address).inspect_err(|_| {
                next.store(addresses.len(), Ordering::Relaxed);
            })?;
            found.lock()[place] = account;
            looked_up();
        }
    };
    thread::scope(|scope| {
        let askers: Vec<_> = (0..addresses.len().min(AT_A_TIME)).map(|_| scope.spawn(ask)).collect();
        askers.into_iter().try_for_each(|asker| asker.join().expect("no asker panics"))
    })?;
    Ok(found.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::directory::{Change, Creation, Place, Removal, State, Verdict};

    /// Everybody but bob has an account; the query for eve fails.
    struct Sample;

    impl Directory for Sample {
        fn place(&self) -> Place {
            Place::Network
        }

        fn verify(&self, _: &str, _: &str) -> Result<Verdict, Unavailable> {
            Ok(Verdict::Wrong)
        }

        fn reach(&self) -> Result<(), Unavailable> {
            Ok(())
        }

        fn account_of(&self, address: &Address) -> Result<Option<String>, Unavailable> {
            match address.local.as_str() {
                "bob" => Ok(None),
                "eve" => Err(Unavailable("it is down".to_owned())),
                name => Ok(Some(name.to_owned())),
            }
        }

        fn create(&self, _: &Address, _: &str) -> Result<Creation, Unavailable> {
            unreachable!()
        }

        fn remove(&self, _: &Address) -> Result<Removal, Unavailable> {
            unreachable!()
        }

        fn change_password(&self, _: &Address, _: &str) -> Result<Change, Unavailable> {
            unreachable!()
        }

        fn state(&self) -> State {
            State::default()
        }
    }

    #[test]
    fn each_mailbox_gets_its_own_account_and_an_outage_ends_it() {
        let names = |names: &[&str]| -> Vec<Address> {
            names.iter().map(|name| format!("{name}@example.com").parse().unwrap()).collect()
        };
        let many: Vec<String> =
            (0..100).map(|n| if n % 7 == 3 { "bob".to_owned() } else { format!("u{n}") }).collect();
        let addresses = names(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let looked_up = AtomicUsize::new(0);
        let count = || {
            looked_up.fetch_add(1, Ordering::Relaxed);
        };
        let found = accounts_of(&addresses, &Sample, count).unwrap();
        assert_eq!(looked_up.into_inner(), 100);
        for (name, account) in many.iter().zip(found) {
            assert_eq!(account, Some(name.clone()).filter(|name| name != "bob"));
        }
        assert_eq!(accounts_of(&[], &Sample, || {}), Ok(vec![]));
        assert!(accounts_of(&names(&["ann", "eve", "bob"]), &Sample, || {}).is_err());
    }
}
