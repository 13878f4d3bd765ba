//! Logging in, by every mechanism, with the programs that speak it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::foreign::{have, passed_over};
use super::scratch::{Scratch, Service};

const MAILBOX: &str = "bob@example.com";
const PASSWORD: &str = "secret";

/// A service with a mailbox that has one message in it.
fn served(scratch: &Scratch) -> Service<'_> {
    let service = scratch.serve();
    service.add_mailbox(MAILBOX);
    scratch.run("pop3svc", &["deliver", MAILBOX], b"Subject: the message\n\nText.\n");
    service
}

fn curl(scratch: &Scratch, mechanism: &str, password: &str, url: &str) -> Result<String, i32> {
    let user = format!("{MAILBOX}:{password}");
    let options = format!("AUTH={mechanism}");
    let tls: &[&str] =
        if url.starts_with("pop3s:") || url.contains("localhost") { &["--ssl-reqd"] } else { &[] };
    let words = [&["-sS", "-k", "--user", &user, "--login-options", &options], tls, &[url]].concat();
    let output = scratch.outcome("curl", &words, b"");
    match output.status.code() {
        Some(0) => Ok(String::from_utf8(output.stdout).expect("mail in UTF-8")),
        code => Err(code.expect("it exits")),
    }
}

/// What curl exits with when a login is denied (CURLE_LOGIN_DENIED).
const LOGIN_DENIED: i32 = 67;

#[test]
fn curl_logs_in_by_every_mechanism_in_clear_by_stls_and_by_pop3s() {
    if !have(&["curl"]) {
        return;
    }
    let scratch = Scratch::new();
    let service = served(&scratch);
    let (port, tls_port) = (service.port("POP3"), service.port("POP3S"));
    // For a name curl asks for STLS here, for an address it does not.
    let urls = [
        format!("pop3://127.0.0.1:{port}/1"),
        format!("pop3://localhost:{port}/1"),
        format!("pop3s://127.0.0.1:{tls_port}/1"),
    ];
    for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "NTLM", "+APOP"] {
        for url in &urls {
            let mail = curl(&scratch, mechanism, PASSWORD, url);
            assert!(
                mail.as_ref().is_ok_and(|m| m.contains("Subject: the message")),
                "{mechanism} {url}: {mail:?}"
            );
        }
        assert_eq!(curl(&scratch, mechanism, "wrong", &urls[0]), Err(LOGIN_DENIED), "{mechanism}");
    }
    service.end();
}

#[test]
fn only_proofs_are_taken_when_spa_is_required() {
    if !have(&["curl"]) {
        return;
    }
    let scratch = Scratch::new();
    let service = served(&scratch);
    scratch.winpop("set sparequired 1");
    let url = format!("pop3s://127.0.0.1:{}/1", service.port("POP3S"));
    for mechanism in ["CRAM-MD5", "NTLM", "+APOP"] {
        assert!(curl(&scratch, mechanism, PASSWORD, &url).is_ok(), "{mechanism}");
    }
    for mechanism in ["PLAIN", "LOGIN"] {
        assert_eq!(curl(&scratch, mechanism, PASSWORD, &url), Err(LOGIN_DENIED), "{mechanism}");
    }
    service.end();
}

#[test]
fn without_the_key_file_passwords_and_scram_go_on() {
    if !have(&["curl", "mpop"]) {
        return;
    }
    let scratch = Scratch::new();
    served(&scratch).end();
    fs::remove_file(scratch.path("var/lib/winpop/winpop.key")).expect("it is there");
    let service = Service::quickstart(&scratch, &[MAILBOX]);
    let url = format!("pop3://127.0.0.1:{}/1", service.port("POP3"));
    assert!(curl(&scratch, "PLAIN", PASSWORD, &url).is_ok());
    assert_eq!(curl(&scratch, "NTLM", PASSWORD, &url), Err(LOGIN_DENIED));
    assert!(mpop(&scratch, &service, "scram-sha-256", PASSWORD));
    assert!(!mpop(&scratch, &service, "cram-md5", PASSWORD));
    assert!(scratch.run("pop3svc", &["key"], b"").contains("is missing"));
    // A new key serves the passwords to come.
    scratch.run("pop3svc", &["key", "--rotate", "--discard"], b"");
    scratch.winpop(&format!("changepwd {MAILBOX} another"));
    assert!(mpop(&scratch, &service, "cram-md5", "another"));
    service.end();
}

/// Whether mpop can log in and fetch.
fn mpop(scratch: &Scratch, service: &Service, mechanism: &str, password: &str) -> bool {
    let configuration = format!(
        "account default\nhost 127.0.0.1\nport {port}\nuser {MAILBOX}\npassword {password}\nauth {mechanism}\n\
         tls off\nkeep on\ntimeout 60\nuidls_file {uidls}\ndelivery mbox {inbox}\n",
        port = service.port("POP3"),
        uidls = scratch.path("uidls").display(),
        inbox = scratch.path("inbox").display(),
    );
    let file = scratch.path("mpoprc");
    fs::write(&file, configuration).expect("it can be written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    scratch.outcome("mpop", &["--file=mpoprc"], b"").status.success()
}

#[test]
fn mpop_logs_in_by_each_of_its_mechanisms() {
    if !have(&["mpop"]) {
        return;
    }
    let scratch = Scratch::new();
    let service = served(&scratch);
    for mechanism in ["user", "plain", "login", "cram-md5", "apop", "scram-sha-256"] {
        assert!(mpop(&scratch, &service, mechanism, PASSWORD), "{mechanism}");
        assert!(!mpop(&scratch, &service, mechanism, "wrong"), "{mechanism}");
    }
    // Its NTLM is of the older kinds.
    assert!(!mpop(&scratch, &service, "ntlm", PASSWORD));
    scratch.winpop("set ntlmlevel 0");
    assert!(mpop(&scratch, &service, "ntlm", PASSWORD));
    assert!(!mpop(&scratch, &service, "ntlm", "wrong"));
    service.end();
}

#[test]
fn fetchmail_logs_in_by_its_mechanisms() {
    if !have(&["fetchmail"]) {
        return;
    }
    let scratch = Scratch::new();
    let service = served(&scratch);
    // Its NTLM is of the older kinds.
    scratch.winpop("set ntlmlevel 0");
    for (protocol, mechanism) in
        [("pop3", "password"), ("pop3", "cram-md5"), ("pop3", "ntlm"), ("apop", "password")]
    {
        for (password, succeeds) in [(PASSWORD, true), ("wrong", false)] {
            let configuration = format!(
                "set no syslog\nset pidfile \"{pid}\"\npoll 127.0.0.1 service {port} protocol {protocol} auth \
                 {mechanism} timeout 60\n username \"{MAILBOX}\" password \"{password}\" sslproto '' keep fetchall \
                 mda \"cat\"\n",
                pid = scratch.path("fetchmail.pid").display(),
                port = service.port("POP3"),
            );
            let file = scratch.path("fetchmailrc");
            fs::write(&file, configuration).expect("it can be written");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
            let output = scratch.outcome("fetchmail", &["--fetchmailrc", "fetchmailrc"], b"");
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
    let scratch = Scratch::new();
    let service = served(&scratch);
    scratch.python("logins.py", &[&service.port("POP3"), &service.port("POP3S"), MAILBOX, PASSWORD]);
    service.end();
}

/// Whether Python has this module.
fn have_module(module: &str) -> bool {
    let imported = Command::new("python3").args(["-c", &format!("import {module}")]).output();
    let is_there = imported.is_ok_and(|output| output.status.success());
    passed_over(if is_there { "" } else { module })
}

#[test]
fn pyspnego_logs_in_by_ntlm_with_integrity_code_and_channel_binding() {
    if !have(&["python3"]) || !have_module("spnego") {
        return;
    }
    let scratch = Scratch::new();
    let service = served(&scratch);
    scratch.python("ntlm.py", &[&service.port("POP3"), &service.port("POP3S"), MAILBOX, PASSWORD]);
    service.end();
}

#[test]
fn neomutt_logs_in_by_scram() {
    if !have(&["neomutt", "python3"]) {
        return;
    }
    let scratch = Scratch::new();
    let service = served(&scratch);
    scratch.winpop("set sparequired 1");
    scratch.winpop("set logging 3");
    fs::create_dir(scratch.path("folder")).expect("it can be made");
    fs::write(scratch.path("folder/inbox"), "").expect("it can be written");
    let configuration = format!(
        "set folder=\"{folder}\"\nset spoolfile=\"{folder}/inbox\"\nset pop_user=\"{MAILBOX}\"\nset pop_pass=\"{PASSWORD}\"\nset pop_delete=no\nset pop_reconnect=no\n\
         set ssl_starttls=no\nset ssl_force_tls=no\nset wait_key=no\nset quit=yes\nset debug_level=2\n\
         set debug_file=\"{debug}\"\n",
        folder = scratch.path("folder").display(),
        debug = scratch.path("debug").display(),
    );
    fs::write(scratch.path("muttrc"), configuration).expect("it can be written");
    let url = format!("pop://{MAILBOX}@127.0.0.1:{}/", service.port("POP3"));
    let shown = scratch.python("neomutt.py", &["muttrc", &url]);
    assert!(shown.contains("Msgs:1"), "{shown}");
    let debug = fs::read_to_string(scratch.path("debug0")).expect("it wrote it");
    assert!(debug.contains("AUTH SCRAM-SHA-256"), "{debug}");
    service.end();
}
