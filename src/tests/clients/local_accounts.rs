//! Accounts of the operating system: created, used, changed and deleted as administrators and users do it, in a copy of
//! `/etc`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use super::service::Service;
use crate::harness::PROGRAM;
use crate::harness::etc::PrivateEtc;
use crate::harness::programs::have;
use crate::harness::site::{STORE, Site};
use crate::harness::skip::needs_root;

/// Other programs that the tests need.
const NEEDED: [&str; 8] =
    ["unshare", "mount", "useradd", "userdel", "groupadd", "usermod", "chage", "chpasswd"];

/// curl's exit code for a denied login (CURLE_LOGIN_DENIED).
const LOGIN_DENIED: i32 = 67;

/// A machine with its own accounts and a store. `None`, with a message, if that is impossible here.
fn machine() -> Option<Site> {
    if !needs_root("accounts of the operating system")
        || !have(&NEEDED)
        || !have(&["curl", "fetchmail", "setpriv"])
    {
        return None;
    }
    let site = Site::with_accounts(PrivateEtc::new()?);
    site.make_store();
    Some(site)
}

impl PrivateEtc {
    /// The line that begins with this name in a file of the copy.
    fn line(&self, file: &str, name: &str) -> Option<String> {
        let start = format!("{name}:");
        let text = fs::read_to_string(self.path("etc").join(file)).expect("it is there");
        text.lines().find(|line| line.starts_with(&start)).map(str::to_owned)
    }

    /// Replaces a tool in /usr/sbin by a script, which finds the real tool as `$REAL`.
    fn replace(&self, tool: &str, script: &str) {
        let real = self.path(tool);
        fs::copy(PathBuf::from("/usr/sbin").join(tool), &real).expect("it can be copied");
        let instead = self.path("instead").join(tool);
        fs::write(&instead, format!("#!/bin/sh\nREAL={}\n{script}", real.display())).expect("it is writable");
        fs::set_permissions(&instead, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    /// Restores the tool.
    fn put_back(&self, tool: &str) {
        fs::remove_file(self.path("instead").join(tool)).expect("it was replaced");
    }
}

impl Site {
    /// Runs a `winpop` command that must be refused, and returns what it says.
    #[track_caller]
    fn refused(&self, words: &str) -> String {
        let output = self.outcome("winpop", &words.split(' ').collect::<Vec<_>>(), b"");
        assert_eq!(output.status.code(), Some(1), "{words}: {output:?}");
        String::from_utf8(output.stderr).expect("it prints UTF-8")
    }

    fn curl(&self, service: &Service, user: &str, password: &str) -> Output {
        let user = format!("{user}:{password}");
        let url = format!("pop3://127.0.0.1:{}/1", service.port("POP3"));
        self.outcome("curl", &["-sS", "--user", &user, &url], b"")
    }

    #[track_caller]
    fn lets_in(&self, service: &Service, user: &str, password: &str) {
        let output = self.curl(service, user, password);
        assert!(output.status.success(), "{user}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Subject: the message"), "{output:?}");
    }

    #[track_caller]
    fn keeps_out(&self, service: &Service, user: &str, password: &str) {
        let output = self.curl(service, user, password);
        assert_eq!(output.status.code(), Some(LOGIN_DENIED), "{user}: {output:?}");
    }

    fn deliver(&self, mailbox: &str) {
        self.output("pop3svc", &["deliver", mailbox], b"Subject: the message\n\nText.\n");
    }

    /// Runs a tool of the operating system.
    fn tool(&self, words: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        self.output(words[0], &words[1..], b"");
    }
}

#[test]
fn an_account_is_created_used_by_curl_and_fetchmail_changed_and_deleted() {
    let Some(site) = machine() else { return };
    site.winpop("set logging 3");
    let service = Service::quickstart(&site, &[]);
    // Quickstart's mailbox belongs to the password file.
    site.winpop("delete user@example.com");
    assert_eq!(site.winpop("set authentication 1"), "authentication is now 1 (local accounts)\n");
    assert_eq!(
        site.output("winpop", &["add", "bob@example.com", "/createuser", "-"], b"secret\n"),
        "Mailbox bob@example.com added\n"
    );
    let passwd = site.etc().line("passwd", "bob").expect("it was made");
    assert!(passwd.contains(":POP3 mailbox bob@example.com:/nonexistent:"), "{passwd}");
    assert!(passwd.ends_with("/nologin"), "{passwd}");
    let group = site.etc().line("group", "pop3users").expect("it was made");
    assert_eq!(passwd.split(':').nth(3), group.split(':').nth(2));
    assert!(fs::read_to_string("/etc/passwd").expect("it is there").lines().all(|l| !l.starts_with("bob:")));

    site.deliver("bob@example.com");
    for name in ["bob@example.com", "BOB@Example.com", "bob%example.com", "bob"] {
        site.lets_in(&service, name, "secret");
    }
    for (name, password) in
        [("bob@example.com", "wrong"), ("bob", ""), ("bob@example.net", "secret"), ("root", "secret")]
    {
        site.keeps_out(&service, name, password);
    }
    let configuration = format!(
        "set no syslog\nset invisible\nset pidfile \"{pid}\"\npoll 127.0.0.1 service {port} protocol pop3 timeout 60\n  \
         username \"bob\" password \"secret\" sslproto '' no keep fetchall\n  mda \"cat >> {inbox}\"\n",
        pid = site.path("fetchmail.pid").display(),
        port = service.port("POP3"),
        inbox = site.path("inbox").display(),
    );
    fs::write(site.path("fetchmailrc"), configuration).expect("it can be written");
    fs::set_permissions(site.path("fetchmailrc"), fs::Permissions::from_mode(0o600)).expect("it is ours");
    site.output("fetchmail", &["--fetchmailrc", "fetchmailrc"], b"");
    let inbox = fs::read_to_string(site.path("inbox")).expect("fetchmail wrote it");
    assert!(inbox.contains("Subject: the message\n"), "{inbox}");
    assert_eq!(site.messages_in("bob@example.com"), 0);

    site.deliver("bob@example.com");
    assert_eq!(site.winpop("changepwd bob@example.com n:e,w"), "Password of bob@example.com changed\n");
    site.keeps_out(&service, "bob", "secret");
    site.lets_in(&service, "bob", "n:e,w");

    // The ways in which administrators lock accounts.
    for (bar, unbar) in [
        ("usermod --lock bob", "usermod --unlock bob"),
        ("chage --expiredate 0 bob", "chage --expiredate -1 bob"),
        ("chage --lastday 0 bob", "chage --lastday 2026-01-01 bob"),
        ("usermod --password * bob", "usermod --password $1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1 bob"),
    ] {
        site.tool(bar);
        site.keeps_out(&service, "bob", "n:e,w");
        site.tool(unbar);
    }
    site.lets_in(&service, "bob", "secret");

    let deleted = site.winpop("delete bob@example.com /deleteuser");
    assert_eq!(
        deleted,
        "Mailbox bob@example.com deleted with 1 message (120 B)\nNote: its account bob was deleted from this machine\n"
            .replace("120 B", deleted.split(['(', ')']).nth(1).expect("a size"))
    );
    assert_eq!(site.etc().line("passwd", "bob"), None);
    assert_eq!(site.etc().line("shadow", "bob"), None);
    site.keeps_out(&service, "bob", "secret");
    let log = service.log();
    for why in ["\"bob\" is locked", "\"bob\" has expired", "\"bob\" must change the password first"] {
        assert!(log.contains(why), "{why}: {log}");
    }
    assert!(!log.contains("n:e,w"), "{log}");
}

#[test]
fn changes_that_cannot_be_completed_are_refused_or_undone_and_reported() {
    let Some(site) = machine() else { return };
    site.winpop("add example.net");
    site.winpop("set authentication 1");
    let service = Service::start(&site, site.command("pop3svc").arg("serve"), " serves ");
    site.winpop("add bob@example.com /createuser secret");

    // An account belongs to one mailbox, and system accounts belong to none.
    assert!(site.refused("add bob@example.net /createuser secret").contains("bob@example.com exists; "));
    assert!(site.refused("add bob@example.net").contains("unique across all domains"));
    let daemon = site.refused("add daemon@example.com");
    assert!(daemon.contains("has no account on this machine: daemon is a system account"), "{daemon}");
    assert!(!daemon.contains("/createuser"), "{daemon}");
    assert!(site.refused("add daemon@example.com /createuser secret").contains("a system account"));
    assert!(site.refused("add abcdefghijklmnopqrstu@example.com /createuser x").contains("20 characters"));
    assert!(site.refused("add 1000@example.com /createuser secret").contains("not digits alone"));
    assert!(
        site.refused("add eve@example.org /createuser secret").contains("there is no domain example.org")
    );
    assert!(site.refused("add eve@example.com").contains("/createuser"));
    assert!(site.refused("changepwd eve@example.com secret").contains("there is no mailbox"));
    assert!(site.refused("delete eve@example.com /deleteuser").contains("there is no mailbox"));
    assert_eq!(site.etc().line("passwd", "eve"), None);
    // An existing account can be used.
    site.tool("useradd --no-create-home eve");
    assert!(
        site.refused("add eve@example.com /createuser secret").contains("has an account on this machine")
    );
    assert_eq!(site.winpop("add eve@example.com"), "Mailbox eve@example.com added\n");
    site.winpop("changepwd eve@example.com secret");
    site.deliver("eve@example.com");
    assert!(site.winpop("stat").contains("Mailboxes  2"));

    // The domain is deleted while the account is being created.
    let delete = format!("{PROGRAM} --mailroot {} winpop delete example.net", site.path(STORE).display());
    site.etc().replace("useradd", &format!("\"$REAL\" \"$@\" && {delete} > /dev/null\n"));
    assert!(
        site.refused("add dan@example.net /createuser secret").contains("there is no domain example.net")
    );
    assert_eq!(site.etc().line("passwd", "dan"), None);
    site.etc().put_back("useradd");
    // The password is refused.
    site.etc().replace("chpasswd", "echo 'too simple' >&2\nexit 1\n");
    assert!(site.refused("add dan@example.com /createuser secret").contains("too simple"));
    assert_eq!(site.etc().line("passwd", "dan"), None);
    assert!(site.refused("changepwd bob@example.com another").contains("too simple"));
    site.etc().put_back("chpasswd");
    // The account is in use.
    site.etc().replace("userdel", "echo 'userdel: user bob is currently used by process 1' >&2\nexit 8\n");
    let told = site.refused("delete bob@example.com /deleteuser");
    for part in
        ["Mailbox bob@example.com deleted", "its account was not: ", "used by process 1", "userdel bob"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(site.etc().line("passwd", "bob").is_some());
    site.etc().put_back("userdel");
    assert!(site.winpop("undelete bob@example.com").contains("bob@example.com"));
    service.end();
}

#[test]
fn list_stat_and_test_show_the_accounts_and_where_a_login_fails() {
    let Some(site) = machine() else { return };
    site.winpop("add example.net");
    for domain in ["example.com", "example.net"] {
        site.winpop(&format!("add cid@{domain} /createuser secret"));
    }
    site.tool("useradd --no-create-home cid");
    site.winpop("set authentication 1 /force");
    site.winpop("add bob@example.com /createuser secret");
    let listed = site.winpop("list /all");
    for (account, mailbox) in [("bob", "bob@example.com"), ("none", "cid@example.net")] {
        let line = listed.lines().find(|line| line.ends_with(mailbox)).expect("it is listed");
        assert!(line.contains(&format!("  {account} ")), "{listed}");
    }
    // No service runs, so the command has looked itself.
    let stat = site.winpop("stat");
    assert!(stat.contains("\nAccounts   local accounts, last answered by /etc/shadow at 2"), "{stat}");
    assert!(site.winpop("stat /json").contains(r#""authentication":"local accounts""#));

    let test = |login: &str, password: &str| {
        let output = site.outcome("winpop", &["test", login, password], b"");
        (output.status.code(), String::from_utf8(output.stdout).expect("it prints UTF-8"))
    };
    for login in ["bob@example.com", "BOB#example.com", "bob"] {
        let (exit_code, told) = test(login, "secret");
        assert!(exit_code == Some(0) && told.contains("ok    account   bob on this machine"), "{told}");
        let (exit_code, told) = test(login, "wrong");
        assert!(exit_code == Some(1) && told.contains("FAIL  password  wrong"), "{told}");
    }
    for (bar, why) in [
        ("usermod --lock bob", "is locked"),
        ("usermod --unlock --expiredate 1 bob", "has expired"),
        ("chage --expiredate -1 --lastday 0 bob", "must change the password first"),
    ] {
        site.tool(bar);
        let (exit_code, told) = test("bob", "secret");
        assert!(
            exit_code == Some(1) && told.contains(&format!("FAIL  password  the account {why}")),
            "{told}"
        );
    }
    let (_, told) = test("cid", "secret");
    assert!(told.contains("FAIL  account   cid matches no account, or more than one"), "{told}");
    let (_, told) = test("cid@example.net", "secret");
    assert!(told.contains("FAIL  account   2 mailboxes are named cid, so none has that account"), "{told}");
    let (_, told) = test("daemon", "secret");
    assert!(told.contains("FAIL  account   daemon matches no account, or more than one"), "{told}");
}

#[test]
fn adding_a_list_of_mailboxes_creates_their_accounts() {
    let Some(site) = machine() else { return };
    site.winpop("set authentication 1");
    fs::write(
        site.path("list"),
        "example.org\nann@example.org,secret\nbob@example.org,secret\nann@example.com,secret\n-x@example.org,secret\n",
    )
    .expect("it can be written");
    for (added, there) in [(3, 0), (0, 3)] {
        let output = site.outcome("winpop", &["add", "/file:list"], b"");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.ends_with(&format!("{added} added, {there} already there, 2 not added\n")), "{told}");
    }
    for name in ["ann", "bob"] {
        assert!(site.etc().line("passwd", name).is_some(), "{name}");
    }
    let listed = site.winpop("list /all");
    assert!(listed.contains("ann@example.org") && !listed.contains("ann@example.com"), "{listed}");
}

#[test]
fn only_root_may_change_accounts_and_others_are_refused_at_once() {
    let Some(site) = machine() else { return };
    let winpop = |words: &str| {
        let user = ["--reuid=12345", "--regid=12345", "--groups=42", PROGRAM, "--mailroot", "/dev/null"];
        let store = site.path("own");
        let store = store.to_str().expect("UTF-8");
        let words: Vec<&str> = words.split(' ').collect();
        site.outcome("setpriv", &[&user[..5], &[store, "winpop"], &words].concat(), b"")
    };
    fs::create_dir(site.path("own")).expect("it is writable");
    std::os::unix::fs::chown(site.path("own"), Some(12345), Some(12345)).expect("root may do that");
    // The group of the copy's shadow file, which may read it.
    site.tool("chgrp 42 /etc/shadow");
    for words in ["add example.com", "set authentication 1"] {
        let output = winpop(words);
        assert!(output.status.success(), "{words}: {output:?}");
    }
    let output = winpop("add bob@example.com /createuser secret");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "winpop: only root may create, change and delete accounts of this machine. Nothing was changed. Run the command as \
         root\n"
    );
    assert_eq!(site.etc().line("passwd", "bob"), None);
}

#[test]
fn the_method_changes_there_and_back_without_leaving_anybody_out() {
    let Some(site) = machine() else { return };
    site.winpop("add example.net");
    site.tool("useradd --system winpop");
    site.winpop("set user winpop");
    let store = site.path(STORE);
    for name in ["ann", "bob", "cid"] {
        site.winpop(&format!("add {name}@example.com /createuser secret"));
    }
    site.winpop("add cid@example.net /createuser secret");
    site.deliver("ann@example.com");
    let serve = || Service::quickstart(&site, &["ann@example.com"]);

    // As the user winpop it may not read the shadow file, and says so here and not at the first login.
    let service = serve();
    let refused = site.refused("set authentication 1");
    assert!(refused.contains("/etc/shadow cannot be read by the user winpop"), "{refused}");
    assert!(refused.contains("SupplementaryGroups=shadow"), "{refused}");
    assert_eq!(site.winpop("get authentication"), "2 (encrypted password file)\n");
    service.stop();
    site.tool("usermod --append --groups shadow winpop");

    let service = serve();
    let refused = site.refused("set authentication 1");
    let named = "4 mailboxes could no longer log in: ann@example.com, bob@example.com, cid@example.com, cid@example.net";
    assert!(refused.contains(named), "{refused}");
    for name in ["ann", "bob", "cid"] {
        site.tool(&format!("useradd --no-create-home --password $1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1 {name}"));
    }
    let refused = site.refused("set authentication 1");
    assert!(
        refused.contains("2 mailboxes could no longer log in: cid@example.com, cid@example.net"),
        "{refused}"
    );
    site.winpop("set authentication 1 /force");
    site.lets_in(&service, "ann@example.com", "secret");
    site.lets_in(&service, "ann", "secret");
    for name in ["cid", "cid@example.com", "cid@example.net"] {
        site.keeps_out(&service, name, "secret");
    }
    // Both passwords change, so that the old one does not come back with the password file.
    site.winpop("changepwd ann@example.com another");
    site.winpop("add dan@example.com /createuser secret");
    let refused = site.refused("set authentication 2");
    assert!(refused.contains("1 mailbox could no longer log in: dan@example.com"), "{refused}");
    site.lets_in(&service, "ann", "another");
    site.winpop("delete dan@example.com /deleteuser");
    site.winpop("set authentication 2");
    site.lets_in(&service, "ann@example.com", "another");
    for (name, password) in [("ann", "another"), ("ann@example.com", "secret")] {
        site.keeps_out(&service, name, password);
    }
    service.stop();
    assert!(store.join("winpop.db").exists());
}
