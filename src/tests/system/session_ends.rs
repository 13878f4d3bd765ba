//! The last line that the log gets about each session: why it ended, and what it did.

use super::client::Client;
use super::service::Service;
use crate::harness::site::Site;

const ANN: &str = "ann@example.com";

fn site() -> (Site, Service) {
    let mut site = Site::new();
    site.add_mailbox(ANN);
    let service = site.start();
    (site, service)
}

#[test]
fn a_pop3_session_ends_with_its_reason_and_totals() {
    let (site, service) = site();
    for content in [&b"Subject: 1\r\n\r\none\r\n"[..], b"Subject: 2\r\n\r\ntwo\r\n"] {
        service.lmtp().store(ANN, content);
    }
    let mut first = service.log_in(ANN);
    let octets = first.octets().unwrap()[0].clone();
    first.content(1).unwrap();
    first.delete(1).unwrap();
    first.quit().unwrap();
    service.wait_for_log(&format!(
        ": ann@example.com from 127.0.0.1 ended: QUIT; messages sent 1, octets sent {octets}, deleted 1, left 1"
    ));
    service.wait_for_log(": ann@example.com logged in from 127.0.0.1 by USER over TCP: 2 messages");
    // Without QUIT nothing is deleted.
    let mut second = service.log_in(ANN);
    second.delete(1).unwrap();
    drop(second);
    service.wait_for_log("ended: the client vanished; messages sent 0, octets sent 0, deleted 0, left 1");
    let mut third = service.log_in(ANN);
    site.winpop(&["lock", ANN]);
    assert!(third.client.line().unwrap().starts_with("-ERR [SYS/PERM]"));
    service.wait_for_log("ended: the mailbox was locked or deleted; messages sent 0");
    let mut stranger = Client::connect(service.ports().pop3s).unwrap();
    stranger.send(b"no TLS\r\n").unwrap();
    service.wait_for_log("POP3 from 127.0.0.1 ended: TLS failed (");
    let mut rude = Client::connect(service.ports().pop3).unwrap();
    rude.send("rude\r\n".repeat(30).as_bytes()).unwrap();
    service.wait_for_log("POP3 from 127.0.0.1 ended: too many errors; nobody logged in");
    service.stop();
}

/// An SMTP client that has read its greeting.
fn greeted(service: &Service) -> Client {
    let mut client = service.smtp().unwrap();
    assert!(client.line().unwrap().starts_with("220"));
    client
}

#[test]
fn an_smtp_session_ends_with_its_reason_and_totals() {
    const TEXT: &str = "Subject: x\r\n\r\nhello\r\n.\r\n";
    let (_site, service) = site();
    let mut sender = greeted(&service);
    for command in
        ["HELO a", "MAIL FROM:<>", &format!("RCPT TO:<{ANN}>"), "RCPT TO:<bob@example.com>", "DATA"]
    {
        sender.ask(command).unwrap();
    }
    sender.send(TEXT.as_bytes()).unwrap();
    assert!(sender.line().unwrap().starts_with("250"));
    for command in ["MAIL FROM:<>", &format!("RCPT TO:<{ANN}>"), "DATA"] {
        sender.ask(command).unwrap();
    }
    sender.send(b"a bare\nline end\r\n.\r\n").unwrap();
    assert!(sender.line().unwrap().starts_with("550 5.6.11"));
    assert!(sender.ask("QUIT").unwrap().starts_with("221"));
    service.wait_for_log(&format!(
        ": SMTP from 127.0.0.1 ended: QUIT; messages accepted 1, refused 1, octets received {}, recipients refused 1",
        TEXT.len() + "a bare\nline end\r\n.\r\n".len()
    ));
    service.wait_for_log(": recipient <bob@example.com> refused: no such mailbox, from 127.0.0.1");

    drop(greeted(&service));
    service.wait_for_log("SMTP from 127.0.0.1 ended: the client vanished; messages accepted 0");
    let mut client = greeted(&service);
    assert!(client.ask("STARTTLS").unwrap().starts_with("220"));
    client.send(b"no TLS\r\n").unwrap();
    service.wait_for_log("SMTP from 127.0.0.1 ended: TLS failed (");
    for (sent, end) in [
        ("NOOP\n".to_owned(), "a command line without CR"),
        ("BDAT many\r\n".to_owned(), "BDAT without a size"),
        ("rude\r\n".repeat(30), "too many errors"),
    ] {
        let mut client = greeted(&service);
        client.send(sent.as_bytes()).unwrap();
        service.wait_for_log(&format!("SMTP from 127.0.0.1 ended: {end}; messages accepted 0"));
    }
    service.stop();
}

#[test]
fn an_lmtp_session_ends_with_the_service() {
    let (_site, service) = site();
    let mut lmtp = service.lmtp();
    lmtp.store(ANN, b"Subject: x\r\n\r\nhello\r\n");
    service.terminate();
    let (status, log) = service.wait();
    assert!(status.success(), "{log}");
    let end = "LMTP from 127.0.0.1 ended: the service is shutting down; messages accepted 1, refused 0, octets \
               received 24, recipients refused 0";
    assert!(log.contains(end), "{log}");
}
