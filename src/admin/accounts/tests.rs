//! Lists of mailboxes with their accounts, from a scripted directory.

use std::sync::MutexGuard;

use super::*;
use crate::address::Domain;
use crate::admin::commands::List;
use crate::admin::reply::{Connections, DirectoryLine, MailboxLine, ServiceState};
use crate::admin::{Request, Service};
use crate::auth::password::Fresh;
use crate::keyring::Keyring;
use crate::lock::Mutex;
use crate::reachability::Reachability;
use crate::store::UnixTime;
use crate::tests::bench::Bench;

/// Every mailbox has an account of its name, if the directory answers.
struct Double {
    place: Place,
    answers: bool,
    /// How many mailboxes were looked up at a time.
    asked: Mutex<Vec<usize>>,
}

impl Double {
    fn new(place: Place) -> Arc<Self> {
        Arc::new(Self { place, answers: true, asked: Mutex::default() })
    }
}

impl Directory for Double {
    fn place(&self) -> Place {
        self.place
    }

    fn verify(&self, _: &str, _: &str) -> Result<Verdict, Unavailable> {
        panic!("nobody logs in")
    }

    fn reach(&self) -> Result<(), Unavailable> {
        Ok(())
    }

    fn account_of(&self, address: &Address) -> Result<Option<String>, Unavailable> {
        match self.answers {
            true => Ok(Some(address.local.to_string())),
            false => Err(Unavailable("it is down".to_owned())),
        }
    }

    fn accounts_of(&self, addresses: &[Address], _: Duration) -> Result<Vec<Option<String>>, Unavailable> {
        self.asked.lock().push(addresses.len());
        addresses.iter().map(|address| self.account_of(address)).collect()
    }

    fn create(&self, _: &Address, _: &str) -> Result<Creation, Unavailable> {
        panic!("no account is made")
    }

    fn remove(&self, _: &Address) -> Result<Removal, Unavailable> {
        panic!("no account is deleted")
    }

    fn change_password(&self, _: &Address, _: &str) -> Result<Change, Unavailable> {
        panic!("no password is changed")
    }

    fn reachability(&self) -> Reachability {
        Reachability::default()
    }
}

/// A running service whose accounts are in this directory.
struct Served(Arc<Double>);

impl Service for Served {
    fn state(&self) -> ServiceState {
        ServiceState::default()
    }

    fn connections(&self) -> Connections {
        Connections::default()
    }

    fn accounts(&self) -> Result<Option<Arc<dyn Directory>>, String> {
        Ok(Some(self.0.clone()))
    }

    fn directory(&self) -> Option<DirectoryLine> {
        None
    }

    fn turn_to_change_settings(&self) -> MutexGuard<'_, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock()
    }

    fn apply(&self, _: &Settings, _: &Settings) -> Result<(), String> {
        Ok(())
    }
}

/// Adds mailboxes, and their domain.
fn add(bench: &Bench, domain: &str, names: impl Iterator<Item = String>) {
    let domain: Domain = domain.parse().unwrap();
    let addresses: Vec<Address> = names.map(|name| format!("{name}@{domain}").parse().unwrap()).collect();
    let added = bench.store.write(move |tx| {
        tx.add_domain(&domain, UnixTime(0))?.unwrap();
        for address in &addresses {
            let credential = Credential::of_nobody(Fresh::draw()?);
            tx.add_mailbox(address, credential, UnixTime(0))?.unwrap();
        }
        Ok(())
    });
    added.wait().unwrap();
}

fn run(bench: &Bench, request: Request, directory: &Arc<Double>) -> (Vec<MailboxLine>, Option<String>) {
    let keyring = Keyring::open(&bench.store, &bench.mailroot).unwrap();
    let served = Served(directory.clone());
    let context = Context::of_now(&bench.mailroot, &keyring, Some(&served)).unwrap();
    match request.run(&bench.store, &context, None, &Progress::default()).unwrap() {
        Reply::Mailboxes { mailboxes, accounts_error, .. }
        | Reply::AllMailboxes { mailboxes, accounts_error } => (mailboxes, accounts_error),
        other => panic!("{other:?}"),
    }
}

fn list(bench: &Bench, domain: &str, directory: &Arc<Double>) -> (Vec<MailboxLine>, Option<String>) {
    let list = List { domain: Some(domain.to_owned()), all: false };
    run(bench, Request::Command(super::super::Op::List(list)), directory)
}

#[test]
fn accounts_are_shown_for_a_thousand_mailboxes_and_for_more_nobody_is_asked() {
    let bench = Bench::new();
    add(&bench, "thousand.test", (0..SHOWN_MAX).map(|number| format!("u{number}")));
    add(&bench, "more.test", (0..=SHOWN_MAX).map(|number| format!("v{number}")));
    let directory = Double::new(Place::Network);
    let (lines, accounts_error) = list(&bench, "thousand.test", &directory);
    assert_eq!((lines.len(), accounts_error), (SHOWN_MAX, None));
    let is_found = |line: &MailboxLine| {
        line.account == MailboxAccount::Found(line.mailbox.split('@').next().unwrap().to_owned())
    };
    assert!(lines.iter().all(is_found));
    assert_eq!(*directory.asked.lock(), [SHOWN_MAX]);

    let (lines, accounts_error) = list(&bench, "more.test", &directory);
    assert_eq!(lines.len(), SHOWN_MAX + 1);
    assert!(lines.iter().all(|line| line.account == MailboxAccount::Unknown));
    assert_eq!(accounts_error.unwrap(), "they are looked up only for 1000 mailboxes or fewer");
    assert_eq!(*directory.asked.lock(), [SHOWN_MAX]);
}

#[test]
fn a_list_comes_without_accounts_if_the_directory_does_not_answer() {
    let bench = Bench::new();
    add(&bench, "down.test", ["ann".to_owned()].into_iter());
    let directory = Arc::new(Double { place: Place::Network, answers: false, asked: Mutex::default() });
    let (lines, accounts_error) = list(&bench, "down.test", &directory);
    assert_eq!(lines[0].account, MailboxAccount::Unknown);
    assert_eq!(accounts_error.unwrap(), "the account directory is unavailable: it is down");
}

#[test]
fn those_who_need_no_accounts_ask_for_none() {
    let bench = Bench::new();
    add(&bench, "one.test", ["ann".to_owned()].into_iter());
    add(&bench, "two.test", ["bob".to_owned()].into_iter());
    let directory = Double::new(Place::Network);
    for (domain, mailboxes) in [(None, 2), (Some("two.test".to_owned()), 1)] {
        let (lines, accounts_error) = run(&bench, Request::Mailboxes { domain }, &directory);
        assert_eq!((lines.len(), accounts_error), (mailboxes, None));
    }
    assert!(directory.asked.lock().is_empty());
}

#[test]
fn a_name_in_several_domains_has_no_local_account_however_many_mailboxes_there_are() {
    let bench = Bench::new();
    add(&bench, "one.test", ["ann".to_owned(), "cid".to_owned()].into_iter());
    add(&bench, "two.test", ["bob".to_owned(), "cid".to_owned()].into_iter());
    let directory = Double::new(Place::ThisMachine);
    let shown = || {
        let (lines, _) = list(&bench, "one.test", &directory);
        lines.into_iter().map(|line| (line.mailbox, line.account)).collect::<Vec<_>>()
    };
    let expected = [
        ("ann@one.test".to_owned(), MailboxAccount::Found("ann".to_owned())),
        ("cid@one.test".to_owned(), MailboxAccount::None),
    ];
    assert_eq!(shown(), expected);
    // Now it is quicker to look the two names up in each domain than to go through all mailboxes.
    add(&bench, "many.test", (0..100).map(|number| format!("u{number}")));
    assert_eq!(shown(), expected);
}
