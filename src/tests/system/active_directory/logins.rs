//! Who may log in, and under which names.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use super::super::client::{Client, Pop3};
use super::super::service::Service;
use super::controller::{ADMINISTRATOR, BASE, Controller, DOMAIN, PASSWORD};
use crate::harness::PROGRAM;

/// The reply to PASS. Connects from a different address each time, because after a wrong guess an address must wait.
pub fn log_in(service: &Service, name: &str, password: &str) -> String {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    log_in_from([127, 2, high, low].into(), service, name, password)
}

pub fn log_in_from(ip: Ipv4Addr, service: &Service, name: &str, password: &str) -> String {
    let client = Client::connect_from(ip, service.ports().pop3).expect("the service accepts");
    let mut pop3 = Pop3::greeted(client).expect("the service greets");
    let reply = pop3.log_in(name, password).expect("a reply to PASS");
    if reply.starts_with("+OK") {
        pop3.quit().expect("the maildrop is let go");
    }
    reply
}

#[test]
fn a_user_logs_in_by_address_principal_name_and_account_name() {
    let Some(controller) = Controller::shared() else { return };
    controller.add_user("ann", "ann@logins.test", &[]);
    controller.add_user("bob", &format!("robert@{DOMAIN}"), &["mail: bob@logins.test"]);
    let mut site = controller.site("logins.test");
    site.winpop(&["add", "ann@logins.test"]);
    site.winpop(&["add", "bob@logins.test"]);
    let service = site.start();
    service.lmtp().store("bob@logins.test", b"Subject: x\r\n\r\nhello\r\n");
    let of_ann = ["ann@logins.test", "Ann%LOGINS.test", "ann", "ANN", "CORP\\ann", "corp\\Ann"];
    let of_bob = ["bob@logins.test", "robert@corp.example.test", "bob", "CORP\\bob"];
    for (names, messages) in [(&of_ann[..], 0), (&of_bob, 1)] {
        for name in names {
            let reply = log_in(&service, name, PASSWORD);
            assert!(reply.starts_with(&format!("+OK maildrop has {messages} message")), "{name}: {reply}");
            let reply = log_in(&service, name, "Wrong-1-password");
            assert!(reply.starts_with("-ERR [AUTH]"), "{name}: {reply}");
        }
    }
    for nobody in ["robert", "OTHER\\ann", "ann@corp.example.test", "\\ann", "CORP\\", "ann@elsewhere.test"] {
        let reply = log_in(&service, nobody, PASSWORD);
        assert!(reply.starts_with("-ERR [AUTH]"), "{nobody}: {reply}");
    }
    service.stop();
    site.assert_clean();
}

/// Names with characters that have a meaning in filters (RFC 4515) and distinguished names (RFC 4514).
#[test]
fn special_characters_of_filters_and_distinguished_names_may_be_in_names() {
    let Some(controller) = Controller::shared() else { return };
    controller.modify(&format!(
        "dn: CN=a*(b)\\\\c\\,d\\+\\\"e\\\"\\;\\<f\\>#\\=g,CN=Users,{BASE}\nchangetype: add\nobjectClass: user\n\
         sAMAccountName: a(b)#c\nuserPrincipalName: a.b@escapes.test\nuserAccountControl: 514\n"
    ));
    let mut site = controller.site("escapes.test");
    site.winpop(&["add", "a.b@escapes.test"]);
    // Setting the password and binding use the entry's distinguished name.
    site.winpop(&["changepwd", "a.b@escapes.test", PASSWORD]);
    controller.modify(&format!(
        "dn: CN=a*(b)\\\\c\\,d\\+\\\"e\\\"\\;\\<f\\>#\\=g,CN=Users,{BASE}\nchangetype: modify\n\
         replace: userAccountControl\nuserAccountControl: 512\n"
    ));
    let made = "o'neil*+/=&x@escapes.test";
    site.winpop(&["add", made, "/createuser", PASSWORD]);
    assert!(
        controller
            .found("(userPrincipalName=o'neil\\2a+/=&x@escapes.test)")
            .contains("\nsAMAccountName: o'neil")
    );
    let service = site.start();
    for name in ["a.b@escapes.test", "a(b)#c", "CORP\\a(b)#c", made] {
        let reply = log_in(&service, name, PASSWORD);
        assert!(reply.starts_with("+OK"), "{name}: {reply}");
    }
    for pattern in
        ["*", "a*", "a(b)*", "*)(sAMAccountName=a(b)#c", "a.b@*", "o'neil*@escapes.test", "CORP\\*"]
    {
        let reply = log_in(&service, pattern, PASSWORD);
        assert!(reply.starts_with("-ERR [AUTH]"), "{pattern}: {reply}");
    }
    service.stop();
}

#[test]
fn barred_accounts_are_refused_alike_and_the_log_says_why() {
    let Some(controller) = Controller::shared() else { return };
    let mut site = controller.site("barred.test");
    let users = ["disabled", "overdue", "newcomer", "stale", "guessed-at"];
    for user in users {
        controller.add_user(user, &format!("{user}@barred.test"), &[]);
        site.winpop(&["add", &format!("{user}@barred.test")]);
    }
    // Tenths of microseconds since 1601: a day in 1980.
    controller.replace("overdue", "accountExpires: 119600064000000000");
    controller.replace("disabled", "userAccountControl: 514");
    controller.replace("newcomer", "pwdLastSet: 0");
    limit(controller, &["stale", "guessed-at"]);
    controller.set_stored("stale", "pwdLastSet", "119600064000000000");
    for _ in 0..3 {
        assert!(!controller.lets_in("guessed-at@barred.test", "Wrong-1-password"));
    }
    let service = site.start();
    let wrong = log_in(&service, "nobody@barred.test", PASSWORD);
    for (user, why) in [
        ("disabled", "is disabled"),
        ("overdue", "has expired"),
        ("newcomer", "must change the password first"),
        ("stale", "has a password that has expired"),
        ("guessed-at", "is locked out"),
    ] {
        let name = format!("{user}@barred.test");
        assert_eq!(log_in(&service, &name, PASSWORD), wrong, "{user}");
        service.wait_for_log(&format!("login refused: \"{name}\" {why}, from "));
    }
    service.stop();
}

/// Lets these users' passwords expire after a month, and locks the users out after three wrong ones.
fn limit(controller: &Controller, users: &[&str]) {
    let applies_to: String =
        users.iter().map(|user| format!("msDS-PSOAppliesTo: CN={user},CN=Users,{BASE}\n")).collect();
    controller.modify(&format!(
        "dn: CN=limits,CN=Password Settings Container,CN=System,{BASE}\nchangetype: add\n\
         objectClass: msDS-PasswordSettings\nmsDS-PasswordSettingsPrecedence: 10\n\
         msDS-PasswordReversibleEncryptionEnabled: FALSE\nmsDS-PasswordHistoryLength: 0\n\
         msDS-PasswordComplexityEnabled: TRUE\nmsDS-MinimumPasswordLength: 7\nmsDS-MinimumPasswordAge: 0\n\
         msDS-MaximumPasswordAge: -25920000000000\nmsDS-LockoutThreshold: 3\n\
         msDS-LockoutObservationWindow: -18000000000\nmsDS-LockoutDuration: -18000000000\n{applies_to}"
    ));
}

#[test]
fn the_servers_of_a_domain_are_found_by_dns() {
    let Some(controller) = Controller::shared() else { return };
    controller.add_user("found", "found@located.test", &[]);
    let mut site = controller.site("located.test");
    site.winpop(&["add", "found@located.test"]);
    // As on a member of the domain.
    let resolv_conf = site.dir().join("resolv.conf");
    std::fs::write(&resolv_conf, format!("nameserver {}\n", controller.ip)).expect("it can be written");
    let service = site.start_by(|site| {
        let mut command = site.program("unshare".as_ref());
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        command.arg(&resolv_conf).args([PROGRAM, "serve"]);
        command
    });
    site.winpop(&["set", "adserver", "default"]);
    let reply = log_in(&service, "found", PASSWORD);
    assert!(reply.starts_with("+OK"), "{reply}");
    let stat = site.winpop(&["stat"]);
    assert!(stat.contains("ldap://dc1.corp.example.test"), "{stat}");
    service.stop();
}

#[test]
fn a_bad_service_account_is_told_apart_from_a_directory_that_is_down() {
    let Some(controller) = Controller::shared() else { return };
    let site = controller.site("service.test");
    site.winpop(&["set", "adbindpassword", "Wrong-1-password"]);
    let done = site.run(&["winpop", "add", "x@service.test"]);
    assert!(done.errors.contains(&format!("does not let adbinduser {ADMINISTRATOR} in")), "{done:?}");
}
