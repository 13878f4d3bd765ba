//! Quotas: what counts, when it counts, and that the sums are right.

use super::*;

const ANN: &str = "ann@example.com";
const BOB: &str = "bob@example.com";
const CID: &str = "cid@example.com";

fn used(store: &Store, account: &str) -> Option<u64> {
    store.read().unwrap().quota(account).unwrap().map(|row| row.used)
}

fn octets_of(store: &Store, mailbox: &str) -> u64 {
    open_maildrop(store, mailbox).totals().octets
}

fn memory() -> Arc<SimulatedDisk> {
    Arc::new(SimulatedDisk::default())
}

#[test]
fn mailboxes_that_share_an_account_share_its_limit() {
    let store = store_with(&[ANN, BOB], memory());
    deliver(&store, &[ANN], b"before there was a quota");
    set_quota(&store, ANN, ANN, Some(300));
    set_quota(&store, BOB, ANN, None);
    while deliver(&store, &[BOB], b"a message") == [Delivery::Stored] {}
    let sum = octets_of(&store, ANN) + octets_of(&store, BOB);
    assert_eq!(used(&store, ANN), Some(sum));
    assert!(sum <= 300 && sum + 42 > 300, "{sum}");
    assert_eq!(deliver(&store, &[ANN], b"one more"), [Delivery::OverQuota]);
    assert_clean(&store);
}

#[test]
fn letters_of_one_message_cannot_pass_a_limit_together() {
    let store = store_with(&[ANN, BOB, CID], memory());
    for mailbox in [ANN, BOB, CID] {
        set_quota(&store, mailbox, ANN, Some(100));
    }
    let verdicts = deliver(&store, &[ANN, BOB, CID], b"0123456789");
    assert_eq!(verdicts, [Delivery::Stored, Delivery::Stored, Delivery::OverQuota]);
    assert_clean(&store);
}

#[test]
fn deleting_mail_makes_room_at_once() {
    let store = store_with(&[ANN], memory());
    set_quota(&store, ANN, ANN, Some(100));
    while deliver(&store, &[ANN], b"x") == [Delivery::Stored] {}
    let maildrop = open_maildrop(&store, ANN);
    let first = maildrop.list().unwrap().remove(0);
    assert!(maildrop.delete(&[first.uid]).wait().unwrap());
    drop(maildrop);
    assert_eq!(deliver(&store, &[ANN], b"x"), [Delivery::Stored]);
    assert_clean(&store);
}

#[test]
fn the_sum_follows_a_mailbox_to_another_account_and_away() {
    let store = store_with(&[ANN, BOB], memory());
    deliver(&store, &[ANN], b"some mail");
    let octets = octets_of(&store, ANN);
    set_quota(&store, ANN, ANN, Some(1000));
    set_quota(&store, BOB, BOB, None);
    assert_eq!(set_quota(&store, ANN, BOB, None).used, octets);
    assert_eq!(used(&store, ANN), None, "the account's quota goes with its last mailbox");
    assert!(store.write(|tx| tx.remove_quota(&address(ANN))).wait().unwrap().is_ok());
    assert_eq!(used(&store, BOB), Some(0));
    assert_eq!(
        store.write(|tx| tx.remove_quota(&address(ANN))).wait().unwrap(),
        Err(Refused::NoQuota(address(ANN)))
    );
    assert_clean(&store);
}

#[test]
fn deleting_a_mailbox_takes_its_mail_from_the_sum() {
    let store = store_with(&[ANN, BOB], memory());
    for mailbox in [ANN, BOB] {
        set_quota(&store, mailbox, BOB, None);
        deliver(&store, &[mailbox], b"some mail");
    }
    assert!(store.write(|tx| tx.remove_mailbox(&address(ANN), UnixTime(1))).wait().unwrap().is_ok());
    assert_eq!(used(&store, BOB), Some(octets_of(&store, BOB)));
    assert!(
        store
            .write(|tx| tx.remove_domain(&"example.com".parse().unwrap(), UnixTime(1)))
            .wait()
            .unwrap()
            .is_ok()
    );
    assert_eq!(used(&store, BOB), None);
    assert_clean(&store);
}

#[test]
fn the_setting_limits_accounts_without_a_limit_of_their_own() {
    let store = store_with(&[ANN, BOB], memory());
    set_quota(&store, ANN, ANN, None);
    set_quota(&store, BOB, BOB, Some(0));
    assert!(store.write(|tx| tx.set_setting("quotalimit", Some("50"))).wait().is_ok());
    assert_eq!(deliver(&store, &[ANN, BOB], &[b'x'; 60]), [Delivery::OverQuota, Delivery::Stored]);
    assert!(store.write(|tx| tx.set_setting("quotalimit", None)).wait().is_ok());
    assert_eq!(deliver(&store, &[ANN], &[b'x'; 60]), [Delivery::Stored]);
    assert_clean(&store);
}

#[test]
fn quotas_are_in_the_backup() {
    let store = store_with(&[ANN], memory());
    set_quota(&store, ANN, ANN, Some(1000));
    deliver(&store, &[ANN], b"some mail");
    let scratch = scratch::directory();
    let file = scratch.path().join("copy.db");
    back_up(&store, &file);
    let copy = Store::open(&file).unwrap();
    assert_eq!(used(&copy, ANN), used(&store, ANN));
    assert_clean(&copy);
    drop(copy);
}

#[test]
fn an_account_that_gets_a_mailbox_back_in_the_same_transaction_has_lost_its_own_limit() {
    let store = store_with(&[ANN], memory());
    deliver(&store, &[ANN], b"some mail");
    set_quota(&store, ANN, ANN, Some(1000));
    let again = store.write(|tx| {
        assert_eq!(tx.remove_quota(&address(ANN))?, Ok(()));
        tx.set_quota(&address(ANN), &address(ANN), None)
    });
    let quota = again.wait().unwrap().unwrap();
    assert_eq!((quota.used, quota.limit), (octets_of(&store, ANN), None));
    assert_eq!(set_quota(&store, ANN, ANN, None), quota);
    assert_clean(&store);
}
