//! A directory's incomplete or late answers.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::ldap::tests::{Double, Says, mute};
use crate::tests::scratch;

const CROWD: &str = "crowd@x.test";
const SIZE_LIMIT_EXCEEDED: u32 = 4;

fn active_directory(server: &Server, double: &Double) -> ActiveDirectory {
    let directory = scratch::directory();
    let file = directory.path().join("ca.pem");
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &double.certificate);
    fs::write(&file, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")).unwrap();
    let configuration = Configuration {
        servers: vec![server.clone()],
        base: "DC=x,DC=test".to_owned(),
        user: "service".to_owned(),
        password: Zeroizing::new("secret".to_owned()),
        authorities: Some(file),
        ntlm_socket: None,
    };
    ActiveDirectory::new(configuration).unwrap()
}

/// A directory in which so many accounts claim one address that a search for it returns only some of them.
fn crowded() -> Double {
    Double::answering(|request| {
        let asks_for = |text: &str| request.windows(text.len()).any(|octets| octets == text.as_bytes());
        let one = Says::Entry { name: "crowd1", principal: "crowd1@x.test", mail: CROWD };
        if asks_for(CROWD) {
            return vec![one, Says::Done(SIZE_LIMIT_EXCEEDED)];
        }
        let mut found = Vec::new();
        if asks_for("ann@x.test") {
            found.push(Says::Entry { name: "ann", principal: "ann@x.test", mail: "ann@x.test" });
        }
        if asks_for("bob@x.test") {
            found.push(Says::Entry { name: "bob1", principal: "bob1@y.test", mail: "bob@x.test" });
        }
        found.push(Says::Done(Outcome::SUCCESS));
        found
    })
}

#[test]
fn an_incomplete_answer_about_many_mailboxes_is_asked_for_again_in_parts() {
    let double = crowded();
    let directory = active_directory(&double.server, &double);
    let addresses: Vec<Address> =
        ["ann@x.test", "nobody@x.test", CROWD, "bob@x.test"].map(|address| address.parse().unwrap()).to_vec();
    let names = directory.accounts_of(&addresses, CALL_MAX).unwrap();
    assert_eq!(names, [Some("ann".to_owned()), None, None, Some("bob1".to_owned())]);
}

#[test]
fn an_incomplete_answer_about_one_name_admits_nobody_and_names_no_account() {
    let double = crowded();
    let directory = active_directory(&double.server, &double);
    assert_eq!(directory.verify(CROWD, "secret"), Ok(Barred::Ambiguous.verdict()));
    let crowd: Address = CROWD.parse().unwrap();
    for outcome in [
        directory.account_of(&crowd).map(drop),
        directory.find(CROWD).map(drop),
        directory.remove(&crowd).map(drop),
        directory.change_password(&crowd, "secret").map(drop),
        directory.create(&crowd, "secret").map(drop),
    ] {
        let Err(Unavailable(why)) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("several accounts of the directory claim the name crowd@x.test"), "{why}");
    }
}

/// A directory with the account of ann that makes each change and hangs up before it says so.
fn answering_no_change() -> Double {
    const DELETE: u8 = 0x4a;
    const MODIFY: u8 = 0x66;
    let is_deleted = AtomicBool::new(false);
    Double::answering(move |request| {
        // A message's length and its id take an octet each or more; the operation's tag follows.
        let is = |tag: u8| request[..8].contains(&tag);
        if is(DELETE) {
            is_deleted.store(true, Ordering::Relaxed);
        }
        if is(DELETE) || is(MODIFY) {
            return vec![Says::HangUp];
        }
        let ann = Says::Entry { name: "ann", principal: "ann@x.test", mail: "ann@x.test" };
        let found = if is_deleted.load(Ordering::Relaxed) { None } else { Some(ann) };
        found.into_iter().chain([Says::Done(Outcome::SUCCESS)]).collect()
    })
}

#[test]
fn after_a_lost_answer_the_directory_is_asked_whether_it_has_made_the_change() {
    let double = answering_no_change();
    let directory = active_directory(&double.server, &double);
    let ann: Address = "ann@x.test".parse().unwrap();
    assert_eq!(directory.change_password(&ann, "secret"), Ok(Change::Changed));
    assert_eq!(directory.remove(&ann), Ok(Removal::Removed { name: "ann".to_owned() }));
}

#[test]
fn a_change_in_doubt_is_told_as_one() {
    let is_gone = AtomicBool::new(false);
    let double = Double::answering(move |request| {
        let is_delete = request[..8].contains(&0x4a);
        if is_delete {
            is_gone.store(true, Ordering::Relaxed);
        }
        if is_gone.load(Ordering::Relaxed) {
            return vec![Says::HangUp];
        }
        let ann = Says::Entry { name: "ann", principal: "ann@x.test", mail: "ann@x.test" };
        vec![ann, Says::Done(Outcome::SUCCESS)]
    });
    let directory = active_directory(&double.server, &double);
    let Err(Unavailable(why)) = directory.remove(&"ann@x.test".parse().unwrap()) else { panic!() };
    assert!(why.ends_with("It may have made the change all the same"), "{why}");
}

#[test]
fn a_list_waits_no_longer_than_its_caller_says() {
    let double = crowded();
    let (server, _listening) = mute();
    let directory = active_directory(&server, &double);
    let within = Duration::from_millis(20);
    let outcome = directory.accounts_of(&["ann@x.test".parse().unwrap()], within);
    assert_eq!(outcome, Err(Unavailable("the directory did not answer in time".to_owned())));
}
