//! SIGTERM ends the service gracefully; a second one ends it at once.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use super::client::{Client, Pop3};
use super::service::{Service, eventually};
use crate::harness::ports::free_port;
use crate::harness::site::Site;
use crate::harness::{PASSWORD, PROGRAM};

const BOB: &str = "bob@example.com";

fn site_with_two_messages(shutdowngrace: &str) -> Site {
    let mut site = Site::new();
    site.add_mailbox(BOB);
    site.winpop(&["set", "shutdowngrace", shutdowngrace]);
    let service = site.start();
    let mut lmtp = service.lmtp();
    lmtp.store(BOB, b"Subject: first\r\n");
    lmtp.store(BOB, b"Subject: second\r\n");
    // The service gives a dismissed client some time to hang up.
    drop(lmtp);
    service.stop();
    site
}

fn subjects(service: &Service) -> Vec<Vec<u8>> {
    service.log_in(BOB).contents().unwrap()
}

/// Waits until nobody listens on the port any more.
fn wait_until_refused(port: u16) {
    eventually("connections are refused", || {
        Client::connect(port).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    });
}

#[test]
fn open_sessions_may_finish_and_no_new_ones_begin() {
    let mut site = site_with_two_messages("1h");
    let service = site.start();
    let mut session = service.log_in(BOB);
    session.delete(1).unwrap();
    let ports = service.ports();
    let mut idle = Client::connect(ports.smtp).unwrap();
    idle.line().unwrap();
    let mut stranger = Client::connect(ports.pop3).unwrap();
    stranger.line().unwrap();
    let mut sending = Client::connect(ports.lmtp).unwrap();
    sending.line().unwrap();
    sending.send(b"LHLO test.example\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n").unwrap();
    while !sending.line().unwrap().starts_with("354") {}

    service.terminate();
    [ports.pop3, ports.pop3s, ports.smtp, ports.lmtp].into_iter().for_each(wait_until_refused);
    // An idle sender is dismissed; a message under way is accepted and is the last.
    assert!(idle.read_to_end().unwrap().starts_with("421 "));
    assert!(stranger.read_to_end().unwrap().starts_with("-ERR [SYS/TEMP] "));
    drop((idle, stranger));
    sending.send(b"Subject: third\r\n.\r\n").unwrap();
    assert!(sending.line().unwrap().starts_with("250 "));
    assert!(sending.read_to_end().unwrap().starts_with("421 "));
    drop(sending);
    assert_eq!(session.content(2).unwrap(), b"Subject: second\r\n");
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
fn a_setting_changed_while_sessions_end_opens_no_door_and_counts_at_the_next_start() {
    let mut site = site_with_two_messages("1h");
    let service = site.start();
    let session = service.log_in(BOB);
    service.terminate();
    let before = service.ports().pop3;
    wait_until_refused(before);
    let port = free_port();
    site.winpop(&["set", "port", &port.to_string()]);
    site.winpop(&["set", "socketmax", "100"]);
    for port in [before, port] {
        let refused = Client::connect(port).err().map(|e| e.kind());
        assert_eq!(refused, Some(io::ErrorKind::ConnectionRefused), "{port}");
    }
    session.quit().unwrap();
    assert!(service.wait().0.success());
    assert_eq!(site.winpop(&["get", "port"]), format!("{port}\n"));
    let service = site.start();
    Pop3::connect(port).unwrap();
    service.stop();
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
    for end in [
        "bob@example.com from 127.0.0.1 ended: cut off when the service ended; messages sent 0, octets sent 0, \
         deleted 0, left 2",
        "POP3 from 127.0.0.1 ended: the service is shutting down; nobody logged in",
    ] {
        assert!(log.contains(end), "{end} in {log}");
    }
    assert!(session.client.line().is_err(), "its connection has ended");
    assert!(without_login.client.line().unwrap().starts_with("-ERR [SYS/TEMP] "));
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
    service.wait_for_log("stopping: no new connections");
    service.terminate();
    let (status, log) = service.wait();
    assert!(status.success(), "{log}");
    assert!(!site.mailroot().join("winpop.sock").exists());
    let service = site.start();
    assert_eq!(subjects(&service).len(), 2);
    service.stop();
}

#[test]
fn without_sessions_the_service_ends_at_once() {
    let mut site = site_with_two_messages("1h");
    let service = site.start();
    let session = service.log_in(BOB);
    session.quit().unwrap();
    service.stop();
}

#[test]
fn the_service_serves_and_ends_though_nobody_reads_its_log() {
    let site = site_with_two_messages("1");
    let (mut reader, writer) = io::pipe().unwrap();
    // Fill the pipe so that not one more line fits; for the service it blocks as usual.
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    let mut filled = 0;
    while let Ok(count) = (&writer).write(&[b'x'; 512]) {
        filled += count;
    }
    fcntl_setfl(&writer, flags).unwrap();
    let mut command = site.program(Path::new(PROGRAM));
    let mut child = command.arg("serve").stderr(writer).spawn().unwrap();
    drop(command);
    let ports = site.ports();
    let mut session = None;
    eventually("it serves", || {
        session = Pop3::connect(ports.pop3).ok();
        session.is_some()
    });
    let mut session = session.unwrap();
    assert!(session.log_in(BOB, "wrong").unwrap().starts_with("-ERR"));
    assert!(session.log_in(BOB, PASSWORD).unwrap().starts_with("+OK"));
    assert_eq!(session.count().unwrap(), 2);
    assert!(site.winpop(&["list"]).contains("example.com"));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    // Read only after the process has ended.
    assert!(child.wait().unwrap().success());
    let mut log = Vec::new();
    reader.read_to_end(&mut log).unwrap();
    assert_eq!(log, vec![b'x'; filled]);
    site.assert_clean();
}
