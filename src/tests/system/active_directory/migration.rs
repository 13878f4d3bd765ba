//! The way from the password file into the directory, and back.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::super::service::eventually;
use super::controller::{ADMINISTRATOR_PASSWORD, Controller, PASSWORD};
use super::logins::log_in;
use crate::harness::PROGRAM;
use crate::harness::site::Site;

/// A mail store whose accounts are in the password file, with this many mailboxes `user0@DOMAIN` and so on, and with
/// settings for the directory.
fn site(controller: &Controller, domain: &str, mailboxes: usize) -> Site {
    let site = Site::new();
    controller.describe_to(&site);
    site.winpop(&["add", domain]);
    let list: String = (0..mailboxes).map(|user| format!("user{user}@{domain},{PASSWORD}{user}\n")).collect();
    let file = site.dir().join("list.csv");
    fs::write(&file, list).expect("it can be written");
    site.winpop(&["add", "/file", file.to_str().expect("a path in UTF-8")]);
    site
}

/// The number of this domain's users in the directory.
fn users(controller: &Controller, domain: &str) -> usize {
    controller.found(&format!("(mail=*@{domain})")).lines().filter(|line| line.starts_with("dn:")).count()
}

#[test]
fn a_domain_moves_into_the_directory_and_its_users_notice_nothing() {
    let Some(controller) = Controller::shared() else { return };
    let mut site = site(controller, "moved.test", 10);
    let service = site.start();
    let users_log_in = |by: &str| {
        for user in 0..10 {
            let reply = log_in(&service, &format!("user{user}@moved.test"), &format!("{PASSWORD}{user}"));
            assert!(reply.starts_with("+OK"), "user{user} by {by}: {reply}");
        }
    };
    let left_out = site.run(&["winpop", "set", "authentication", "1"]);
    assert_eq!(left_out.exit_code, 1);
    assert!(
        left_out.errors.contains("10 mailboxes could no longer log in: user0@moved.test, user1"),
        "{left_out:?}"
    );
    assert!(left_out.errors.contains("winpop migrateToAD DOMAIN"), "{left_out:?}");
    users_log_in("the password file");

    // First one of them, then all.
    let told = site.winpop(&["migrateToAD", "user3@moved.test"]);
    assert!(told.contains("user3@moved.test has its account in Active Directory now"), "{told}");
    let left_out = site.run(&["winpop", "set", "authentication", "1"]);
    assert!(left_out.errors.contains("9 mailboxes") && !left_out.errors.contains("user3@"), "{left_out:?}");
    for _ in 0..2 {
        let told = site.winpop(&["migrateToAD", "moved.test"]);
        assert!(
            told.starts_with("10 of 10 mailboxes of moved.test have an account in Active Directory"),
            "{told}"
        );
        assert_eq!(users(controller, "moved.test"), 10);
    }

    site.winpop(&["set", "authentication", "1"]);
    users_log_in("the directory");
    let wrong = log_in(&service, "user0@moved.test", &format!("{PASSWORD}1"));
    assert!(wrong.starts_with("-ERR [AUTH]"), "{wrong}");
    let again = site.run(&["winpop", "migrateToAD", "moved.test"]);
    assert!(again.errors.contains("there is nothing to migrate"), "{again:?}");

    // After a password is changed there, the old one must not work here.
    site.winpop(&["changepwd", "user0@moved.test", "Another-1-password"]);
    site.winpop(&["add", "new@moved.test", "/createuser", PASSWORD]);
    let left_out = site.run(&["winpop", "set", "authentication", "3"]);
    assert!(left_out.errors.contains("1 mailbox could no longer log in: new@moved.test"), "{left_out:?}");
    site.winpop(&["set", "authentication", "3", "/force"]);
    assert!(log_in(&service, "new@moved.test", PASSWORD).starts_with("-ERR [AUTH]"));
    assert!(log_in(&service, "user0@moved.test", &format!("{PASSWORD}0")).starts_with("-ERR [AUTH]"));
    assert!(log_in(&service, "user0@moved.test", "Another-1-password").starts_with("+OK"));
    site.winpop(&["changepwd", "user0@moved.test", &format!("{PASSWORD}0")]);
    users_log_in("the password file again");
    service.stop();
    site.assert_clean();
}

#[test]
fn a_migration_that_is_cut_short_continues_where_it_stopped() {
    let Some(controller) = Controller::shared() else { return };
    const ALL: usize = 40;
    let mut site = site(controller, "cut.test", ALL);
    let service = site.start();
    let mut command = site.program(PROGRAM.as_ref());
    let mut migrating = command.args(["winpop", "migrateToAD", "cut.test"]).spawn().expect("it can be run");
    eventually("some are migrated", || users(controller, "cut.test") > 2);
    // The migration may have ended already.
    let _ = kill_process(Pid::from_child(&migrating), Signal::KILL);
    let was_cut = !migrating.wait().expect("it ends").success();
    let before = users(controller, "cut.test");
    assert!(was_cut && before < ALL, "{before} of {ALL}");
    let left_out = site.run(&["winpop", "set", "authentication", "1"]).errors;
    assert!(left_out.contains("could no longer log in"), "{left_out}");
    let told = site.winpop(&["migrateToAD", "cut.test"]);
    assert!(told.starts_with(&format!("{ALL} of {ALL} mailboxes")), "{told}");
    assert_eq!(users(controller, "cut.test"), ALL);
    site.winpop(&["set", "authentication", "1"]);
    for user in 0..ALL {
        let reply = log_in(&service, &format!("user{user}@cut.test"), &format!("{PASSWORD}{user}"));
        assert!(reply.starts_with("+OK"), "user{user}: {reply}");
    }
    service.stop();
}

#[test]
fn the_obstacle_of_each_mailbox_is_reported() {
    let Some(controller) = Controller::shared() else { return };
    let mut site = site(controller, "ways.test", 1);
    for (name, password) in
        [("short", "x"), ("same", PASSWORD), ("other", "Other-1-password"), ("barred", PASSWORD)]
    {
        site.winpop(&["add", &format!("{name}@ways.test"), "/createuser", password]);
    }
    for name in ["same", "other", "barred"] {
        controller.add_user(&format!("{name}.ways"), &format!("{name}@ways.test"), &[]);
    }
    controller.replace("barred.ways", "userAccountControl: 514");
    let service = site.start();
    let done = site.run(&["winpop", "migrateToAD", "ways.test"]);
    let told = &done.errors;
    assert_eq!(done.exit_code, 1, "{told}");
    assert!(
        told.contains("2 of 5 mailboxes of ways.test have an account in Active Directory; not migrated: "),
        "{told}"
    );
    for (name, why) in [
        ("short", "password policy does not take this password"),
        ("other", "already has an account in Active Directory, other.ways, with another password"),
        ("barred", "the account of barred@ways.test in Active Directory, barred.ways, is disabled"),
    ] {
        assert!(told.contains(&format!("{name}@ways.test: ")) && told.contains(why), "{told}");
        let alone = site.run(&["winpop", "migrateToAD", &format!("{name}@ways.test")]);
        assert!(alone.exit_code == 1 && alone.errors.contains(why), "{alone:?}");
    }
    assert!(
        site.winpop(&["migrateToAD", "same@ways.test"]).contains("in Active Directory, with this password")
    );
    // Existing accounts are unchanged, and refused ones do not exist.
    assert!(controller.lets_in("other@ways.test", PASSWORD));
    assert!(!controller.found("(userPrincipalName=short@ways.test)").contains("dn: CN="));

    // Without the key that seals passwords none can be recovered.
    site.winpop(&["add", "sealed@ways.test", "/createuser", PASSWORD]);
    service.stop();
    fs::remove_file(site.mailroot().join("winpop.key")).expect("it is there");
    site.succeed(&["key", "--rotate", "--discard"]);
    site.winpop(&["set", "adbindpassword", ADMINISTRATOR_PASSWORD]);
    let sealed = site.run(&["winpop", "migrateToAD", "sealed@ways.test"]);
    assert!(sealed.errors.contains("the password of sealed@ways.test cannot be recovered"), "{sealed:?}");
    assert!(sealed.errors.contains("winpop changepwd sealed@ways.test -"), "{sealed:?}");
    site.assert_clean();
}
