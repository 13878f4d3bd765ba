//! Programs that deliver mail: by SMTP, by LMTP, and under the name sendmail.

use std::fs;

use super::service::Service;
use crate::harness::programs::have;
use crate::harness::site::Site;

const MESSAGE: &str = "From: ann@example.org\nTo: bob@example.com\nSubject: sent\n\nOne line.\n.\n..two\n";
/// The message as the mailbox holds it.
const CONTENT: &str =
    "From: ann@example.org\r\nTo: bob@example.com\r\nSubject: sent\r\n\r\nOne line.\r\n.\r\n..two\r\n";

#[test]
fn swaks_sends_by_smtp_and_lmtp_and_cannot_relay() {
    if !have(&["swaks", "curl"]) {
        return;
    }
    let site = Site::new();
    let service = serve_bob(&site);
    for (protocol, door, pipelined) in [
        ("SMTP", "SMTP", false),
        ("ESMTP", "SMTP", false),
        ("ESMTP", "SMTP", true),
        ("LMTP", "LMTP", false),
        ("LMTP", "LMTP", true),
    ] {
        let swaks = |recipient: &str| {
            let server = format!("127.0.0.1:{}", service.port(door));
            let mut words = vec!["--server", &server, "--protocol", protocol, "--timeout", "60"];
            words.extend(["--helo", "client.example.org", "--from", "ann@example.org", "--to", recipient]);
            words.extend(["--data", "-"]);
            if pipelined {
                words.push("--pipeline");
            }
            // swaks adds a line end after the last line.
            site.outcome("swaks", &words, MESSAGE.trim_end().as_bytes())
        };
        let sent = swaks("bob@example.com,bob+detail@example.com");
        assert!(sent.status.success(), "{protocol} {pipelined}: {sent:?}");
        // Both name the same mailbox, which gets one copy.
        let text = take(&site, &service);
        assert!(text.ends_with(CONTENT), "{text}");
        assert!(text.contains(&format!("with {protocol} id ")), "{text}");
        // 24: no recipient was accepted.
        for (recipient, code) in [("nobody@example.com", "550 5.1.1 "), ("bob@example.org", "550 5.7.1 ")] {
            let refused = swaks(recipient);
            assert_eq!(refused.status.code(), Some(24), "{refused:?}");
            assert!(String::from_utf8_lossy(&refused.stdout).contains(code), "{refused:?}");
        }
    }
    assert_eq!(site.messages_in("bob@example.com"), 0);
    service.end();
}

#[test]
fn msmtp_sends_by_smtp_and_lmtp() {
    if !have(&["msmtp", "curl"]) {
        return;
    }
    let site = Site::new();
    let service = serve_bob(&site);
    for protocol in ["smtp", "lmtp"] {
        let port = format!("--port={}", service.port(&protocol.to_uppercase()));
        let protocol = format!("--protocol={protocol}");
        let mut words = vec!["--host=127.0.0.1", &port, &protocol, "--tls=off", "--auth=off", "--timeout=60"];
        words.extend(["--from=ann@example.org", "bob@example.com"]);
        site.output("msmtp", &words, MESSAGE.as_bytes());
        let text = take(&site, &service);
        assert!(text.ends_with(CONTENT), "{text}");
    }
    service.end();
}

#[test]
fn curl_sends_by_smtp() {
    if !have(&["curl"]) {
        return;
    }
    let site = Site::new();
    let service = serve_bob(&site);
    fs::write(site.path("message"), CONTENT).expect("it can be written");
    let url = format!("smtp://127.0.0.1:{}/client.example.org", service.port("SMTP"));
    let mut words = vec!["-sS", &url, "--mail-from", "ann@example.org", "--mail-rcpt", "bob@example.com"];
    words.extend(["--upload-file", "message"]);
    site.output("curl", &words, b"");
    assert!(take(&site, &service).ends_with(CONTENT));
    // Bare line ends may hide a second message, so SMTP refuses them.
    fs::write(site.path("message"), MESSAGE).expect("it can be written");
    let refused = site.outcome("curl", &[&["-v"], &words[..]].concat(), b"");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("< 550 5.6.11 "), "{told}");
    assert_eq!(site.messages_in("bob@example.com"), 0);
    service.end();
}

#[test]
fn the_name_sendmail_delivers_to_the_recipients_of_the_header() {
    if !have(&["curl"]) {
        return;
    }
    let site = Site::new();
    let service = serve_bob(&site);
    site.add_mailbox("ann@example.com");
    let message = "To: bob@example.com\nBcc: ann@example.com\nSubject: sent\n\nText.\n";
    site.output("sendmail", &["-t", "-oi", "-f", "ann@example.org"], message.as_bytes());
    let text = take(&site, &service);
    assert!(
        text.starts_with("Return-Path: <ann@example.org>\r\nDelivered-To: bob@example.com\r\n"),
        "{text}"
    );
    assert!(text.ends_with("To: bob@example.com\r\nSubject: sent\r\n\r\nText.\r\n"), "{text}");
    assert_eq!(site.messages_in("ann@example.com"), 1);
    let refused = site.outcome("sendmail", &["-i", "nobody@example.com"], message.as_bytes());
    assert_eq!(refused.status.code(), Some(67), "{refused:?}");
    service.end();
}

fn serve_bob(site: &Site) -> Service<'_> {
    let service = site.serve();
    site.add_mailbox("bob@example.com");
    service
}

/// Fetches the first message of the mailbox and deletes it.
fn take(site: &Site, service: &Service) -> String {
    let url = format!("pop3://127.0.0.1:{}/1", service.port("POP3"));
    let curl = ["-sS", "--user", "bob@example.com:secret", &url];
    let text = site.output("curl", &curl, b"");
    site.output("curl", &[&curl[..], &["--request", "DELE", "--head"]].concat(), b"");
    text
}
