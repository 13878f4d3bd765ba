//! SIGTERM ends the service gracefully; a second one ends it at once.

use std::io;

use super::client::{Client, Pop3};
use super::harness::{Service, Site, eventually};

const BOB: &str = "bob@example.com";

fn site_with_two_messages(shutdowngrace: &str) -> Site {
    let mut site = Site::new();
    site.add_mailbox(BOB);
    site.winpop(&["set", "shutdowngrace", shutdowngrace]);
    let service = site.start();
    let mut lmtp = service.lmtp();
    lmtp.store(BOB, b"Subject: first\r\n");
    lmtp.store(BOB, b"Subject: second\r\n");
    // Otherwise the service would wait for it to end, too.
    drop(lmtp);
    service.stop();
    site
}

fn subjects(service: &Service) -> Vec<Vec<u8>> {
    service.log_in(BOB).contents().unwrap()
}

/// Waits until nobody listens any more on the port.
fn wait_until_refused(port: u16) {
    eventually("connections are refused", || {
        Client::connect(port).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    });
}

#[test]
fn a_session_may_go_on_to_quit_and_nobody_else_comes_in() {
    let mut site = site_with_two_messages("1h");
    let service = site.start();
    let mut session = service.log_in(BOB);
    let mut lmtp = service.lmtp();
    session.delete(1).unwrap();
    service.terminate();
    let ports = service.ports();
    [ports.pop3, ports.smtp, ports.lmtp].into_iter().for_each(wait_until_refused);
    // Sessions that are open go on: this one reads, that one brings mail.
    assert_eq!(session.content(2).unwrap(), b"Subject: second\r\n");
    lmtp.store(BOB, b"Subject: third\r\n");
    drop(lmtp);
    session.quit().unwrap();
    let (status, log) = service.wait();
    assert!(status.success(), "{log}");
    assert!(!site.mailroot().join("winpop.sock").exists(), "the control socket is gone");
    site.assert_clean();
    let service = site.start();
    assert_eq!(subjects(&service), [&b"Subject: second\r\n"[..], b"Subject: third\r\n"]);
    service.stop();
}

#[test]
fn administration_goes_on_while_sessions_end() {
    let mut site = site_with_two_messages("1h");
    let service = site.start();
    let session = service.log_in(BOB);
    service.terminate();
    wait_until_refused(service.ports().pop3);
    assert!(site.winpop(&["list"]).contains("example.com"));
    session.quit().unwrap();
    assert!(service.wait().0.success());
    assert!(site.winpop(&["list"]).contains("example.com"));
}

#[test]
fn an_idle_session_is_ended_after_the_grace_and_has_deleted_nothing() {
    let mut site = site_with_two_messages("1");
    let service = site.start();
    let mut session = service.log_in(BOB);
    session.delete(1).unwrap();
    let mut without_login = Pop3::connect(service.ports().pop3).unwrap();
    service.terminate();
    let (status, log) = service.wait();
    assert!(status.success(), "{log}");
    assert!(session.client.line().is_err(), "its connection has ended");
    assert!(without_login.client.line().is_err(), "its connection has ended");
    assert!(!site.mailroot().join("winpop.sock").exists());
    site.assert_clean();
    let service = site.start();
    assert_eq!(subjects(&service).len(), 2);
    service.stop();
}

#[test]
fn a_second_signal_ends_the_service_at_once() {
    let mut site = site_with_two_messages("1h");
    let service = site.start();
    let mut session = service.log_in(BOB);
    session.delete(1).unwrap();
    service.terminate();
    service.wait_for_log("ending: no new connections");
    service.terminate();
    let (status, log) = service.wait();
    assert!(status.success(), "{log}");
    assert!(!site.mailroot().join("winpop.sock").exists());
    let service = site.start();
    assert_eq!(subjects(&service).len(), 2);
    service.stop();
}

#[test]
fn without_sessions_the_grace_is_not_waited_for() {
    let mut site = site_with_two_messages("1h");
    let service = site.start();
    let session = service.log_in(BOB);
    session.quit().unwrap();
    service.stop();
}
