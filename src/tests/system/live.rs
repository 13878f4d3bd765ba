//! Settings and administration while sessions are open.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::client::{Client, Lmtp, Pop3};
use super::service::eventually;
use crate::harness::PASSWORD;
use crate::harness::ports::free_port;
use crate::harness::site::Site;

const ANN: &str = "ann@example.com";
const BOB: &str = "bob@example.com";

fn assert_refused(connected: io::Result<Client>) {
    assert_eq!(connected.err().map(|e| e.kind()), Some(io::ErrorKind::ConnectionRefused));
}

#[test]
fn another_port_or_address_takes_effect_at_once_and_sessions_live_on() {
    let mut site = Site::new();
    site.add_mailbox(BOB);
    let service = site.start();
    service.lmtp().store(BOB, b"Subject: x\r\n");
    let mut session = service.log_in(BOB);
    session.delete(1).unwrap();

    let before = service.ports().pop3;
    let port = free_port();
    site.winpop(&["set", "port", &port.to_string()]);
    assert_refused(Client::connect(before));
    Pop3::connect(port).unwrap();

    let other: Ipv4Addr = [127, 0, 0, 2].into();
    site.winpop(&["set", "listen", &other.to_string()]);
    assert_refused(Client::connect(port));
    Pop3::greeted(Client::connect_to(other.into(), port).unwrap()).unwrap();
    // LMTP is only for this machine, whatever `listen` says.
    service.lmtp();
    site.winpop(&["set", "lmtpport", "0"]);
    assert_refused(Client::connect(service.ports().lmtp));

    session.quit().unwrap();
    site.winpop(&["set", "listen", "127.0.0.1"]);
    let mut again = Pop3::connect(port).unwrap();
    assert!(again.log_in(BOB, PASSWORD).unwrap().starts_with("+OK maildrop has 0 messages"));
    service.stop();
    assert_eq!(site.winpop(&["get", "port"]), format!("{port}\n"), "it is kept for the next start");
}

#[test]
fn a_taken_port_is_refused_and_nothing_changes() {
    let mut site = Site::new();
    site.add_mailbox(BOB);
    let service = site.start();
    let session = service.log_in(BOB);
    let before = service.ports().pop3;
    let port = free_port();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
    let done = site.run(&["winpop", "set", "port", &port.to_string()]);
    assert_eq!((done.output.as_str(), done.exit_code), ("", 1), "{done:?}");
    let sentence = format!("winpop: port {port} for POP3 is taken by another program.");
    assert!(done.errors.starts_with(&sentence) && done.errors.lines().count() == 1, "{}", done.errors);
    assert_eq!(site.winpop(&["get", "port"]), format!("{before}\n"));
    Pop3::connect(before).unwrap();
    session.quit().unwrap();
    drop(other);
    // A process that another test is just starting may still hold the socket.
    eventually("the port is free", || site.run(&["winpop", "set", "port", &port.to_string()]).exit_code == 0);
    Pop3::connect(port).unwrap();
    service.stop();
}

#[test]
fn a_lock_ends_the_session_and_mail_still_comes_in() {
    let mut site = Site::new();
    site.add_mailbox(ANN);
    site.add_mailbox(BOB);
    let service = site.start();
    let mut lmtp = service.lmtp();
    lmtp.store(BOB, b"Subject: first\r\n");
    for (lock, unlock) in
        [(["lock", BOB], ["unlock", BOB]), (["lock", "example.com"], ["unlock", "example.com"])]
    {
        let mut session = service.log_in(BOB);
        session.delete(1).unwrap();
        site.winpop(&lock);
        assert_eq!(
            session.client.read_to_end().unwrap(),
            "-ERR [SYS/PERM] the mailbox was locked or deleted\r\n"
        );
        let mut refused = Pop3::connect(service.ports().pop3).unwrap();
        assert!(refused.log_in(BOB, PASSWORD).unwrap().starts_with("-ERR [SYS/PERM] "));
        assert!(refused.log_in(BOB, "wrong").unwrap().starts_with("-ERR [AUTH] "));
        lmtp.store(BOB, b"Subject: while locked\r\n");
        site.winpop(&unlock);
    }
    let first = b"Subject: first\r\n".to_vec();
    let meanwhile = b"Subject: while locked\r\n".to_vec();
    let expected = [first, meanwhile.clone(), meanwhile];
    assert_eq!(service.log_in(BOB).contents().unwrap(), expected, "nothing was deleted, nothing refused");
    service.stop();
    site.assert_clean();
}

#[test]
fn a_changed_password_applies_to_the_next_login() {
    let mut site = Site::new();
    site.add_mailbox(BOB);
    let service = site.start();
    let mut session = service.log_in(BOB);
    site.winpop(&["changepwd", BOB, "another"]);
    assert_eq!(session.count().unwrap(), 0, "the open session goes on");
    session.quit().unwrap();
    let mut pop3 = Pop3::connect(service.ports().pop3).unwrap();
    assert!(pop3.log_in(BOB, PASSWORD).unwrap().starts_with("-ERR [AUTH] "));
    assert!(pop3.log_in(BOB, "another").unwrap().starts_with("+OK "));
    service.stop();
}

#[test]
fn a_domain_with_thousands_of_messages_is_deleted_while_in_use() {
    const MAILBOXES: usize = 10;
    const MESSAGES_EACH: usize = 300;
    let mut site = Site::new();
    let names: Vec<String> = (0..MAILBOXES).map(|number| format!("user{number}@example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.iter().for_each(|name| site.add_mailbox(name));
    site.add_mailbox("other@example.org");
    let service = site.start();
    let mut lmtp = service.lmtp();
    for number in 0..MESSAGES_EACH {
        let content = format!("Subject: {number}\r\n\r\n{}", "text of it\r\n".repeat(number));
        let replies = lmtp.deliver(&names, content.as_bytes()).unwrap();
        assert!(replies.iter().all(|reply| reply.starts_with("250")), "{replies:?}");
    }
    let mut sessions: Vec<Pop3> = names.iter().take(5).map(|name| service.log_in(name)).collect();
    sessions.iter_mut().for_each(|session| session.delete(1).unwrap());
    let mut reader = service.log_in(names[MAILBOXES - 1]);

    let deleted = AtomicBool::new(false);
    let lmtp_port = service.ports().lmtp;
    let stored = thread::scope(|scope| {
        let arriving = scope.spawn(|| keep_delivering(lmtp_port, &[names[0], "other@example.org"], &deleted));
        let reading = scope.spawn(move || {
            // If a message is on its way when the domain is deleted, it arrives whole or the session ends.
            while let Ok(content) = reader.content(MESSAGES_EACH) {
                assert_eq!(content.len(), "Subject: 299\r\n\r\n".len() + 299 * "text of it\r\n".len());
            }
        });
        let said = site.winpop(&["delete", "example.com", "/y"]);
        deleted.store(true, Ordering::Release);
        assert!(
            said.starts_with(&format!("Domain example.com deleted with {MAILBOXES} mailboxes and ")),
            "{said}"
        );
        reading.join().unwrap();
        arriving.join().unwrap()
    });
    for session in &mut sessions {
        let last = session.client.read_to_end().unwrap();
        assert_eq!(last, "-ERR [SYS/PERM] the mailbox was locked or deleted\r\n");
    }
    let refused = service.lmtp().deliver(&[names[0]], b"\r\n").unwrap();
    assert!(refused[0].starts_with("550 5.7.1"), "{refused:?}");
    assert_eq!(service.log_in("other@example.org").count().unwrap(), stored);
    site.assert_clean();
    site.add_mailbox(names[0]);
    assert_eq!(service.log_in(names[0]).count().unwrap(), 0, "nothing comes back");
    service.stop();
    site.assert_clean();
}

/// Delivers to both until the first is refused and `enough` is set. Returns how many messages the second one got.
fn keep_delivering(port: u16, recipients: &[&str; 2], enough: &AtomicBool) -> usize {
    let mut lmtp = Lmtp::connect(port).unwrap();
    let mut stored = 0;
    for number in 0.. {
        let is_last = enough.load(Ordering::Acquire);
        let content = format!("Subject: arriving {number}\r\n");
        let replies = lmtp.deliver(recipients, content.as_bytes()).unwrap();
        assert!(replies[1].starts_with("250"), "{replies:?}");
        stored += 1;
        if is_last {
            assert!(replies[0].starts_with("550"), "{replies:?}");
            break;
        }
    }
    stored
}
