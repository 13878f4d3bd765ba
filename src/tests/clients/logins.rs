//! Every login mechanism, with the programs that speak it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::service::Service;
use crate::harness::programs::have;
use crate::harness::site::Site;
use crate::harness::skip::lacks;

const MAILBOX: &str = "bob@example.com";
const PASSWORD: &str = "secret";

/// A service with a mailbox that has one message in it.
fn served(site: &Site) -> Service<'_> {
    let service = site.serve();
    site.add_mailbox(MAILBOX);
    site.output("pop3svc", &["deliver", MAILBOX], b"Subject: the message\n\nText.\n");
    service
}

fn curl(site: &Site, mechanism: &str, password: &str, url: &str) -> Result<String, i32> {
    let user = format!("{MAILBOX}:{password}");
    let options = format!("AUTH={mechanism}");
    let tls: &[&str] =
        if url.starts_with("pop3s:") || url.contains("localhost") { &["--ssl-reqd"] } else { &[] };
    let words = [&["-sS", "-k", "--user", &user, "--login-options", &options], tls, &[url]].concat();
    let output = site.outcome("curl", &words, b"");
    match output.status.code() {
        Some(0) => Ok(String::from_utf8(output.stdout).expect("mail in UTF-8")),
        code => Err(code.expect("it exits")),
    }
}

/// curl's exit code for a denied login (CURLE_LOGIN_DENIED).
const LOGIN_DENIED: i32 = 67;

#[test]
fn curl_logs_in_by_every_mechanism_in_clear_by_stls_and_by_pop3s() {
    if !have(&["curl"]) {
        return;
    }
    let site = Site::new();
    let service = served(&site);
    let (port, tls_port) = (service.port("POP3"), service.port("POP3S"));
    // For a name curl asks for STLS here, for an address it does not.
    let urls = [
        format!("pop3://127.0.0.1:{port}/1"),
        format!("pop3://localhost:{port}/1"),
        format!("pop3s://127.0.0.1:{tls_port}/1"),
    ];
    for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "NTLM", "+APOP"] {
        for url in &urls {
            let mail = curl(&site, mechanism, PASSWORD, url);
            assert!(
                mail.as_ref().is_ok_and(|m| m.contains("Subject: the message")),
                "{mechanism} {url}: {mail:?}"
            );
        }
        assert_eq!(curl(&site, mechanism, "wrong", &urls[0]), Err(LOGIN_DENIED), "{mechanism}");
    }
    service.end();
}

#[test]
fn only_proofs_are_accepted_when_spa_is_required() {
    if !have(&["curl"]) {
        return;
    }
    let site = Site::new();
    let service = served(&site);
    site.winpop("set sparequired 1");
    let url = format!("pop3s://127.0.0.1:{}/1", service.port("POP3S"));
    for mechanism in ["CRAM-MD5", "NTLM", "+APOP"] {
        assert!(curl(&site, mechanism, PASSWORD, &url).is_ok(), "{mechanism}");
    }
    for mechanism in ["PLAIN", "LOGIN"] {
        assert_eq!(curl(&site, mechanism, PASSWORD, &url), Err(LOGIN_DENIED), "{mechanism}");
    }
    service.end();
}

#[test]
fn without_the_key_file_passwords_and_scram_still_work() {
    if !have(&["curl", "mpop"]) {
        return;
    }
    let site = Site::new();
    served(&site).end();
    fs::remove_file(site.path("var/lib/winpop/winpop.key")).expect("it is there");
    let service = Service::quickstart(&site, &[MAILBOX]);
    let url = format!("pop3://127.0.0.1:{}/1", service.port("POP3"));
    assert!(curl(&site, "PLAIN", PASSWORD, &url).is_ok());
    assert_eq!(curl(&site, "NTLM", PASSWORD, &url), Err(LOGIN_DENIED));
    assert!(mpop(&site, &service, "scram-sha-256", PASSWORD));
    assert!(!mpop(&site, &service, "cram-md5", PASSWORD));
    assert!(site.output("pop3svc", &["key"], b"").contains("is missing"));
    // A new key serves the passwords to come.
    site.output("pop3svc", &["key", "--rotate", "--discard"], b"");
    site.winpop(&format!("changepwd {MAILBOX} another"));
    assert!(mpop(&site, &service, "cram-md5", "another"));
    service.end();
}

/// Whether mpop can log in and fetch.
fn mpop(site: &Site, service: &Service, mechanism: &str, password: &str) -> bool {
    let configuration = format!(
        "account default\nhost 127.0.0.1\nport {port}\nuser {MAILBOX}\npassword {password}\nauth {mechanism}\n\
         tls off\nkeep on\ntimeout 60\nuidls_file {uidls}\ndelivery mbox {inbox}\n",
        port = service.port("POP3"),
        uidls = site.path("uidls").display(),
        inbox = site.path("inbox").display(),
    );
    let file = site.path("mpoprc");
    fs::write(&file, configuration).expect("it can be written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    site.outcome("mpop", &["--file=mpoprc"], b"").status.success()
}

#[test]
fn mpop_logs_in_by_each_of_its_mechanisms() {
    if !have(&["mpop"]) {
        return;
    }
    let site = Site::new();
    let service = served(&site);
    for mechanism in ["user", "plain", "login", "cram-md5", "apop", "scram-sha-256"] {
        assert!(mpop(&site, &service, mechanism, PASSWORD), "{mechanism}");
        assert!(!mpop(&site, &service, mechanism, "wrong"), "{mechanism}");
    }
    // It speaks only the older versions of NTLM.
    assert!(!mpop(&site, &service, "ntlm", PASSWORD));
    site.winpop("set ntlmlevel 0");
    assert!(mpop(&site, &service, "ntlm", PASSWORD));
    assert!(!mpop(&site, &service, "ntlm", "wrong"));
    service.end();
}

#[test]
fn fetchmail_logs_in_by_its_mechanisms() {
    if !have(&["fetchmail"]) {
        return;
    }
    let site = Site::new();
    let service = served(&site);
    // It speaks only the older versions of NTLM.
    site.winpop("set ntlmlevel 0");
    for (protocol, mechanism) in
        [("pop3", "password"), ("pop3", "cram-md5"), ("pop3", "ntlm"), ("apop", "password")]
    {
        for (password, succeeds) in [(PASSWORD, true), ("wrong", false)] {
            let configuration = format!(
                "set no syslog\nset pidfile \"{pid}\"\npoll 127.0.0.1 service {port} protocol {protocol} auth \
                 {mechanism} timeout 60\n username \"{MAILBOX}\" password \"{password}\" sslproto '' keep fetchall \
                 mda \"cat\"\n",
                pid = site.path("fetchmail.pid").display(),
                port = service.port("POP3"),
            );
            let file = site.path("fetchmailrc");
            fs::write(&file, configuration).expect("it can be written");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
            let output = site.outcome("fetchmail", &["--fetchmailrc", "fetchmailrc"], b"");
            assert_eq!(output.status.success(), succeeds, "{protocol} {mechanism} {password}: {output:?}");
        }
    }
    service.end();
}

#[test]
fn poplib_logs_in_by_password_and_apop_in_clear_and_under_tls() {
    if !have(&["python3"]) {
        return;
    }
    let site = Site::new();
    let service = served(&site);
    site.python("logins.py", &[&service.port("POP3"), &service.port("POP3S"), MAILBOX, PASSWORD]);
    service.end();
}

/// Whether Python has this module.
fn have_module(module: &str) -> bool {
    let imported = Command::new("python3").args(["-c", &format!("import {module}")]).output();
    let is_there = imported.is_ok_and(|output| output.status.success());
    is_there || lacks(module)
}

#[test]
fn pyspnego_logs_in_by_ntlm_with_integrity_code_and_channel_binding() {
    if !have(&["python3"]) || !have_module("spnego") {
        return;
    }
    let site = Site::new();
    let service = served(&site);
    site.python("ntlm.py", &[&service.port("POP3"), &service.port("POP3S"), MAILBOX, PASSWORD]);
    service.end();
}

#[test]
fn neomutt_logs_in_by_scram() {
    if !have(&["neomutt", "python3"]) {
        return;
    }
    let site = Site::new();
    let service = served(&site);
    site.winpop("set sparequired 1");
    site.winpop("set logging 3");
    fs::create_dir(site.path("folder")).expect("it can be made");
    fs::write(site.path("folder/inbox"), "").expect("it can be written");
    let configuration = format!(
        "set folder=\"{folder}\"\nset spoolfile=\"{folder}/inbox\"\nset pop_user=\"{MAILBOX}\"\nset pop_pass=\"{PASSWORD}\"\nset pop_delete=no\nset pop_reconnect=no\n\
         set ssl_starttls=no\nset ssl_force_tls=no\nset wait_key=no\nset quit=yes\nset debug_level=2\n\
         set debug_file=\"{debug}\"\n",
        folder = site.path("folder").display(),
        debug = site.path("debug").display(),
    );
    fs::write(site.path("muttrc"), configuration).expect("it can be written");
    let url = format!("pop://{MAILBOX}@127.0.0.1:{}/", service.port("POP3"));
    let shown = site.python("neomutt.py", &["muttrc", &url]);
    assert!(shown.contains("Msgs:1"), "{shown}");
    let debug = fs::read_to_string(site.path("debug0")).expect("it wrote it");
    assert!(debug.contains("AUTH SCRAM-SHA-256"), "{debug}");
    service.end();
}
