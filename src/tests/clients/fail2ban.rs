//! fail2ban, configured as the README says, reads what the service logs.

use super::readme::blocks;
use super::unit::installed;
use crate::harness::programs::have;

#[test]
fn fail2ban_finds_the_address_of_each_failed_login() {
    if !have(&["fail2ban-regex", "fail2ban-client", "curl"]) {
        return;
    }
    let Some(machine) = installed() else { return };
    let block = |words: &str| {
        let blocks = blocks();
        blocks.iter().find(|block| block.text.contains(words)).expect("it is in the README").text.clone()
    };
    machine.write("/etc/fail2ban/filter.d/pop3svc.conf", &block("failregex"));
    machine.write("/etc/fail2ban/jail.d/pop3svc.conf", &block("[pop3svc]"));
    let configured = machine.run("fail2ban-client --dp 2>&1");
    for set in ["['maxretry', 10]", "_SYSTEMD_UNIT=pop3svc.service"] {
        let words: Vec<&str> =
            set.trim_matches(['[', ']']).split(", ").map(|word| word.trim_matches('\'')).collect();
        let is_set = |line: &str| line.contains("pop3svc") && words.iter().all(|word| line.contains(word));
        assert!(configured.lines().any(is_set), "{set}: {configured}");
    }

    // The guesser chooses the name.
    let fail = |name: &str| {
        let user = format!("'{name}:wrong'");
        let failed = machine.outcome(&format!("curl -s --user {user} pop3://127.0.0.1/"));
        assert_eq!(failed.status.code(), Some(67), "curl says that the login was denied: {failed:?}");
    };
    let found = || {
        machine.run("journalctl --sync && journalctl --unit=pop3svc --output=short >/run/pop3svc-log");
        let found =
            machine.outcome("fail2ban-regex --out ip /run/pop3svc-log /etc/fail2ban/filter.d/pop3svc.conf");
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        found.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    machine.run("winpop add bob@example.com /createuser secret");
    fail("bob@example.com");
    fail("nobody@example.com\" from 192.0.2.1");
    assert_eq!(found(), ["127.0.0.1", "127.0.0.1"]);
    machine.run("winpop set logging 1");
    fail("bob@example.com");
    assert_eq!(found(), ["127.0.0.1", "127.0.0.1"], "what is not logged is not found");
}
