//! Accounts created, changed and deleted with their mailboxes.

use super::controller::{BASE, Controller, PASSWORD};
use super::logins::log_in;
use crate::harness::site::Site;

/// The refusal that `winpop` prints.
#[track_caller]
fn refused(site: &Site, words: &[&str]) -> String {
    let done = site.run(&[&["winpop"], words].concat());
    assert_eq!(done.exit_code, 1, "{words:?}: {done:?}");
    done.errors
}

#[test]
fn a_user_is_created_changed_and_deleted_with_the_mailbox() {
    let Some(controller) = Controller::shared() else { return };
    let mut site = controller.site("made.test");
    let service = site.start();
    let (ann, filter) = ("ann.made@made.test", "(userPrincipalName=ann.made@made.test)");
    let without = refused(&site, &["add", ann]);
    assert!(
        without.contains("has no account in the directory") && without.contains("/createuser"),
        "{without}"
    );

    let told = site.winpop(&["add", ann, "/createuser", PASSWORD]);
    assert_eq!(told, "Mailbox ann.made@made.test added\n");
    let user = controller.found(filter);
    for line in ["sAMAccountName: ann.made", "mail: ann.made@made.test", "userAccountControl: 512"] {
        assert!(user.contains(&format!("\n{line}\n")), "{user}");
    }
    assert!(log_in(&service, ann, PASSWORD).starts_with("+OK"));
    // The quota comes without asking.
    assert!(site.winpop(&["stat", "made.test", "/json"]).contains("\"account\":\"ann.made@made.test\""));
    assert!(refused(&site, &["add", ann, "/createuser", PASSWORD]).contains("already exists"));

    site.winpop(&["changepwd", ann, "Another-1-password"]);
    assert!(log_in(&service, ann, PASSWORD).starts_with("-ERR [AUTH]"));
    assert!(log_in(&service, ann, "Another-1-password").starts_with("+OK"));

    // The account stays unless /deleteuser is given.
    site.winpop(&["delete", ann]);
    assert!(controller.lets_in(ann, "Another-1-password"));
    assert!(log_in(&service, ann, "Another-1-password").starts_with("-ERR [AUTH]"));
    service.wait_for_log("has an account in the directory, but no mailbox here");
    let exists = refused(&site, &["add", ann, "/createuser", PASSWORD]);
    assert!(exists.contains("already has an account in the directory, ann.made"), "{exists}");
    site.winpop(&["add", ann]);
    let told = site.winpop(&["delete", ann, "/deleteuser"]);
    assert!(told.contains("its account ann.made was deleted from the directory"), "{told}");
    assert_eq!(controller.found(filter).lines().find(|line| line.starts_with("dn:")), None);

    // An account already deleted there.
    site.winpop(&["add", "bob.made@made.test", "/createuser", PASSWORD]);
    controller.modify(&format!("dn: CN=bob.made@made.test,CN=Users,{BASE}\nchangetype: delete\n"));
    assert!(refused(&site, &["changepwd", "bob.made@made.test", PASSWORD]).contains("has no account"));
    let told = site.winpop(&["delete", "bob.made@made.test", "/deleteuser"]);
    assert!(told.contains("it had no account in the directory"), "{told}");
    service.stop();
    site.assert_clean();
}

#[test]
fn an_account_name_that_is_taken_is_altered_and_the_mailbox_keeps_its_own() {
    let Some(controller) = Controller::shared() else { return };
    let mut site = controller.site("one.clash.test");
    site.winpop(&["add", "two.clash.test"]);
    let service = site.start();
    for (domain, note) in
        [("one.clash.test", None), ("two.clash.test", Some("so the account is called sam1"))]
    {
        let told = site.winpop(&["add", &format!("sam@{domain}"), "/createuser", PASSWORD]);
        assert_eq!(note.is_some(), told.contains("Note:"), "{told}");
        assert!(told.contains(note.unwrap_or_default()), "{told}");
    }
    let long = "a-name-of-more-than-twenty-characters@one.clash.test";
    let told = site.winpop(&["add", long, "/createuser", PASSWORD]);
    assert!(told.contains("so the account is called a-name-of-more-than-;"), "{told}");
    service.lmtp().store("sam@two.clash.test", b"Subject: x\r\n\r\nhello\r\n");
    for (name, messages) in
        [("sam@one.clash.test", 0), ("sam@two.clash.test", 1), ("sam", 0), ("sam1", 1), (long, 0)]
    {
        let reply = log_in(&service, name, PASSWORD);
        assert!(reply.contains(&format!(" {messages} message")), "{name}: {reply}");
    }
    service.stop();
}

#[test]
fn what_the_directory_refuses_leaves_neither_account_nor_mailbox() {
    let Some(controller) = Controller::shared() else { return };
    controller.add_user("clerk", "clerk@corp.example.test", &[]);
    let site = controller.site("refused.test");
    let (eve, filter) = ("eve@refused.test", "(userPrincipalName=eve@refused.test)");
    let policy = refused(&site, &["add", eve, "/createuser", "short"]);
    assert!(policy.contains("password policy does not take this password"), "{policy}");
    site.winpop(&["add", eve, "/createuser", PASSWORD]);
    let policy = refused(&site, &["changepwd", eve, "short"]);
    assert!(policy.contains("password policy does not take this password"), "{policy}");
    assert!(controller.lets_in(eve, PASSWORD));

    // An account that may only read the directory.
    site.winpop(&["set", "adbinduser", "CORP\\clerk"]);
    site.winpop(&["set", "adbindpassword", PASSWORD]);
    for words in [
        &["add", "bob@refused.test", "/createuser", PASSWORD][..],
        &["delete", eve, "/deleteuser"],
        &["changepwd", eve, "Another-1-password"],
    ] {
        let rights = refused(&site, words);
        assert!(rights.contains("adbinduser may not do that in the directory"), "{words:?}: {rights}");
    }
    assert!(controller.found(filter).contains("sAMAccountName: eve") && controller.lets_in(eve, PASSWORD));
    assert!(!controller.found("(userPrincipalName=bob@refused.test)").contains("\ndn:"));
    let list = site.winpop(&["list", "refused.test"]);
    assert!(list.contains(eve) && !list.contains("bob@"), "{list}");
    site.assert_clean();
}
