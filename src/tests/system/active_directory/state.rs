//! What `test`, `list` and `stat` show of accounts and their directory, with a service and without.

use super::controller::{BASE, Controller, DOMAIN, PASSWORD};
use crate::harness::site::Site;

/// The steps of `test`, as `name: finding` or `name: FAIL finding`, and whether the login would succeed.
fn test(site: &Site, login: &str, password: &str) -> (Vec<String>, bool) {
    let done = site.run(&["winpop", "test", login, password, "/json"]);
    let reply: serde_json::Value = serde_json::from_str(&done.output).unwrap_or_else(|_| panic!("{done:?}"));
    let steps = reply["steps"].as_array().expect("a list").iter().map(|step| {
        let failed = if step["passed"] == true { "" } else { "FAIL " };
        format!("{}: {failed}{}", step["step"].as_str().unwrap(), step["finding"].as_str().unwrap())
    });
    let can_log_in = reply["can_log_in"] == true;
    assert_eq!(done.exit_code, i32::from(!can_log_in), "{done:?}");
    (steps.collect(), can_log_in)
}

#[test]
fn test_says_where_a_login_fails_by_whatever_name() {
    let Some(controller) = Controller::shared() else { return };
    controller.add_user("tess", "tess@tried.test", &[]);
    controller.add_user("toby", &format!("tobias@{DOMAIN}"), &["mail: toby@tried.test"]);
    controller.add_user("tina", &format!("tina@{DOMAIN}"), &["mail: tina@untried.test"]);
    for twin in ["tim1", "tim2"] {
        controller.add_user(twin, &format!("{twin}@{DOMAIN}"), &["mail: tim@tried.test"]);
    }
    // More than a search about one name returns.
    for number in 0..12 {
        let mail = "mail: crowd@tried.test";
        controller.add_user(&format!("crowd{number}"), &format!("crowd{number}@{DOMAIN}"), &[mail]);
    }
    let mut site = controller.site("tried.test");
    site.winpop(&["add", "tess@tried.test"]);
    site.winpop(&["add", "toby@tried.test"]);
    let service = site.start();
    for name in ["toby@tried.test", "toby%tried.test", "tobias@corp.example.test", "toby", "CORP\\Toby"] {
        let (steps, can_log_in) = test(&site, name, PASSWORD);
        assert!(can_log_in, "{name}: {steps:?}");
        assert_eq!(steps[0], "mailbox: found, messages 0");
        assert_eq!(steps[1], "account: toby in the directory");
        let (steps, can_log_in) = test(&site, name, "Wrong-1-password");
        assert!(!can_log_in && steps.contains(&"password: FAIL wrong".to_owned()), "{name}: {steps:?}");
    }
    let failures = |name| test(&site, name, PASSWORD).0.into_iter().filter(|step| step.contains("FAIL "));
    let only_failure = |name| {
        let failures: Vec<String> = failures(name).collect();
        assert_eq!(failures.len(), 1, "{name}: {failures:?}");
        failures[0].clone()
    };
    for nobody in ["nobody", "OTHER\\toby", "CORP\\nobody"] {
        assert_eq!(
            only_failure(nobody),
            format!("account: FAIL {nobody} matches no account, or more than one")
        );
    }
    assert_eq!(only_failure("nobody@tried.test"), "mailbox: FAIL there is no mailbox nobody@tried.test");
    let elsewhere =
        "mailbox: FAIL it has no mailbox here; its addresses: tina@corp.example.test, tina@untried.test";
    assert_eq!(only_failure("tina"), elsewhere);
    for name in ["tim@tried.test", "crowd@tried.test"] {
        let several = only_failure(name);
        let why = format!("several accounts of the directory claim the name {name}");
        assert!(several.contains(&why), "{several}");
    }

    controller.replace("tess", "userAccountControl: 514");
    assert_eq!(only_failure("tess"), "password: FAIL the account is disabled");
    controller.replace("tess", "userAccountControl: 512");
    site.winpop(&["lock", "tess@tried.test"]);
    assert_eq!(only_failure("CORP\\tess"), "lock: FAIL the mailbox is locked");
    service.stop();

    site.winpop(&["set", "adbindpassword", "Wrong-1-password"]);
    let unasked = only_failure("toby");
    assert!(unasked.contains("the account directory is unavailable: "), "{unasked}");
    site.assert_clean();
}

#[test]
fn list_and_stat_show_the_account_of_each_mailbox_and_the_directory_with_and_without_a_service() {
    let Some(controller) = Controller::shared() else { return };
    controller.add_user("lisa", "lisa@listed.test", &[]);
    controller.add_user("leo", &format!("leopold@{DOMAIN}"), &["mail: Leo@listed.test"]);
    controller.add_user("lost", "lost@listed.test", &[]);
    let mut site = controller.site("listed.test");
    for mailbox in ["lisa", "leo", "lost"] {
        site.winpop(&["add", &format!("{mailbox}@listed.test")]);
    }
    // More than one search returns.
    for user in 0..60 {
        site.winpop(&["add", &format!("many{user}@listed.test"), "/createuser", PASSWORD]);
    }
    controller.modify(&format!("dn: CN=lost,CN=Users,{BASE}\nchangetype: delete\n"));
    let shown = |site: &Site| {
        let list = site.winpop(&["list", "listed.test"]);
        for (account, mailbox) in [("lisa", "lisa"), ("leo", "leo"), ("none", "lost"), ("many59", "many59")] {
            let end = format!("  {mailbox}@listed.test");
            let line = list.lines().find(|line| line.ends_with(&end)).unwrap_or_else(|| panic!("{list}"));
            assert_eq!(line.split_whitespace().nth_back(1), Some(account), "{line}");
        }
        assert_eq!(list.lines().filter(|line| line.contains("open    none ")).count(), 1, "{list}");
        let stat = site.winpop(&["stat", "listed.test", "/json"]);
        for state in
            [r#""account_state":"found","account":"leo"}"#, r#""account_state":"none","account":null}"#]
        {
            assert!(stat.contains(state), "{stat}");
        }
        assert!(site.winpop(&["list", "/all", "/json"]).contains(r#""accounts_error":null"#));
        let stat = site.winpop(&["stat"]);
        let answered = format!("\nAccounts   Active Directory, last answered by {} at 2", controller.ip);
        assert!(stat.contains(&answered), "{stat}");
        assert!(site.winpop(&["stat", "/json"]).contains(r#""authentication":"Active Directory""#));
    };
    shown(&site);
    let service = site.start();
    shown(&site);
    service.stop();

    // Nothing listens there.
    site.winpop(&["set", "adserver", "127.0.0.1:9"]);
    let stat = site.winpop(&["stat"]);
    assert!(stat.contains("\nAccounts   Active Directory, not contacted yet\n"), "{stat}");
    assert!(stat.contains("\n           last failed at 2"), "{stat}");
    let list = site.winpop(&["list", "listed.test"]);
    assert!(list.contains("Note: accounts are not shown: the account directory is unavailable: "), "{list}");
    assert!(list.contains("lisa@listed.test"), "{list}");
    site.assert_clean();
}
