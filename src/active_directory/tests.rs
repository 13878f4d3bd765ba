//! A directory's incomplete or late answers.

use std::fs;

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

#[test]
fn a_list_waits_no_longer_than_its_caller_says() {
    let double = crowded();
    let (server, _listening) = mute();
    let directory = active_directory(&server, &double);
    let within = Duration::from_millis(20);
    let outcome = directory.accounts_of(&["ann@x.test".parse().unwrap()], within);
    assert_eq!(outcome, Err(Unavailable("the directory did not answer in time".to_owned())));
}
