//! Programs that fetch all mail of a maildrop and delete it there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::service::Service;
use crate::harness::programs::have;
use crate::harness::site::Site;

const MAILBOX: &str = "bob@example.com";

#[test]
fn fetchmail_fetches_everything_and_deletes_it() {
    if !have(&["fetchmail"]) {
        return;
    }
    let site = Site::new();
    let service = site.serve();
    let messages = deliver_some(&site);
    let inbox = fetchmail(&site, &service);
    let mut rest = inbox.as_str();
    for message in &messages {
        let (_trace, after) = rest.split_once(message.as_str()).unwrap_or_else(|| panic!("{message}{inbox}"));
        rest = after;
    }
    assert_eq!(rest, "");
    assert_eq!(site.messages_in(MAILBOX), 0);
    // 1: there is no mail.
    assert_eq!(site.outcome("fetchmail", &["--fetchmailrc", "fetchmailrc"], b"").status.code(), Some(1));
    service.end();
}

/// Fetches all mail of the mailbox. Returns what fetchmail hands to its delivery program, without the CRs of line ends.
fn fetchmail(site: &Site, service: &Service) -> String {
    let configuration = format!(
        "set no syslog\nset invisible\nset pidfile \"{pid}\"\n\
         poll 127.0.0.1 service {port} protocol pop3 timeout 60\n  \
         username \"{MAILBOX}\" password \"secret\" sslproto '' no keep fetchall\n  \
         mda \"cat >> {inbox}\"\n",
        pid = site.path("fetchmail.pid").display(),
        port = service.port("POP3"),
        inbox = site.path("inbox").display(),
    );
    write_secret(site, "fetchmailrc", &configuration);
    site.output("fetchmail", &["--fetchmailrc", "fetchmailrc"], b"");
    fs::read_to_string(site.path("inbox")).expect("fetchmail wrote it")
}

/// Without an empty line between our fields and this text, fetchmail takes its first line for a broken header.
#[test]
fn fetchmail_takes_a_text_without_a_header() {
    if !have(&["fetchmail"]) {
        return;
    }
    let site = Site::new();
    let service = site.serve();
    site.add_mailbox(MAILBOX);
    let text = "The backup failed on host7\n\nsee the log\n";
    site.output("sendmail", &[MAILBOX], text.as_bytes());
    site.output("pop3svc", &["deliver", MAILBOX], format!(" {text}").as_bytes());
    let inbox = fetchmail(&site, &service);
    let (first, second) = inbox.split_once(text).expect("the first message is there");
    for (fields, blank) in [(first, ""), (second.strip_suffix(text).expect("so is the second"), " ")] {
        let fields = fields.strip_suffix(blank).expect("the blank of the text");
        assert!(fields.contains("Delivered-To: bob@example.com\n") && fields.ends_with("\n\n"), "{inbox}");
    }
    assert_eq!(site.messages_in(MAILBOX), 0);
    service.end();
}

#[test]
fn mpop_fetches_everything_and_deletes_it() {
    if !have(&["mpop"]) {
        return;
    }
    let site = Site::new();
    let service = site.serve();
    let messages = deliver_some(&site);
    let inbox = site.path("inbox");
    for dir in ["cur", "new", "tmp"] {
        fs::create_dir_all(inbox.join(dir)).expect("it can be made");
    }
    let configuration = format!(
        "account default\nhost 127.0.0.1\nport {port}\nuser {MAILBOX}\npassword secret\ntls off\nauth user\n\
         keep off\ntimeout 60\nuidls_file {uidls}\nreceived_header off\ndelivery maildir {inbox}\n",
        port = service.port("POP3"),
        uidls = site.path("uidls").display(),
        inbox = inbox.display(),
    );
    write_secret(&site, "mpoprc", &configuration);
    site.output("mpop", &["--file=mpoprc"], b"");
    let files = fs::read_dir(inbox.join("new")).expect("it can be listed");
    let mut found: Vec<String> = files
        .map(|file| fs::read_to_string(file.expect("it can be listed").path()).expect("mail in UTF-8"))
        .map(|text| text.split_once("Subject: ").expect("a subject").1.to_owned())
        .map(|rest| format!("Subject: {rest}"))
        .collect();
    found.sort();
    assert_eq!(found, messages);
    assert_eq!(site.messages_in(MAILBOX), 0);
    site.output("mpop", &["--file=mpoprc"], b"");
    service.end();
}

/// Creates the mailbox and delivers some messages to it. Returns their contents in order.
fn deliver_some(site: &Site) -> Vec<String> {
    site.add_mailbox(MAILBOX);
    let lines =
        ["Text.", ".", "..", ".dot", "", "Grüße", &"long ".repeat(1000)].map(|line| format!("{line}\n"));
    let message = |number: usize| format!("Subject: message {number}\n\n{}", lines[..number].concat());
    let messages: Vec<String> = (1..=lines.len()).map(message).collect();
    for message in &messages {
        site.output("pop3svc", &["deliver", "-f", "ann@example.org", MAILBOX], message.as_bytes());
    }
    messages
}

/// Writes a file with a password; these programs insist that nobody else can read it.
fn write_secret(site: &Site, name: &str, text: &str) {
    fs::write(site.path(name), text).expect("it can be written");
    fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o600)).expect("it is ours");
}
