//! What clients rely on across sessions: one session at a time, and unique ids that never change.

use std::collections::BTreeSet;
use std::fs;

use super::client::Pop3;
use super::service::Service;
use crate::harness::PASSWORD;
use crate::harness::site::Site;

const BOB: &str = "bob@example.com";

fn site_with_bob() -> Site {
    let site = Site::new();
    site.add_mailbox(BOB);
    site
}

fn store(service: &Service, subjects: &[&str]) {
    let mut lmtp = service.lmtp();
    subjects.iter().for_each(|subject| lmtp.store(BOB, format!("Subject: {subject}\r\n").as_bytes()));
}

fn uids(service: &Service) -> Vec<String> {
    let mut session = service.log_in(BOB);
    let uids = session.uids().unwrap();
    session.quit().unwrap();
    uids
}

#[test]
fn a_maildrop_belongs_to_one_session_at_a_time() {
    let mut site = site_with_bob();
    let service = site.start();
    store(&service, &["first"]);
    let mut first = service.log_in(BOB);
    let connect = || Pop3::connect(service.ports().pop3).unwrap();
    // A refused login must not let the next one in, either.
    for _ in 0..3 {
        assert!(connect().log_in(BOB, PASSWORD).unwrap().starts_with("-ERR [IN-USE] "));
    }
    // Only someone with the right password learns that the maildrop is in use.
    assert!(connect().log_in(BOB, "wrong").unwrap().starts_with("-ERR [AUTH] "));
    store(&service, &["second"]);
    assert_eq!(first.count().unwrap(), 1, "messages do not change during a session");
    first.delete(1).unwrap();
    assert!(first.ask("QUIT").unwrap().starts_with("+OK"));
    // The reply to QUIT is enough, even while the connection is still open.
    let mut next = connect();
    let reply = next.log_in(BOB, PASSWORD).unwrap();
    assert!(reply.starts_with("+OK maildrop has 1 messages"), "{reply}");
    assert_eq!(next.content(1).unwrap(), b"Subject: second\r\n");
    service.stop();
}

#[test]
fn list_announces_exactly_what_retr_sends() {
    let mut site = site_with_bob();
    let service = site.start();
    let mut lmtp = service.lmtp();
    let contents: [&[u8]; 6] = [
        b"",
        b".\r\n",
        b"Subject: dots\r\n\r\n.\r\n..\r\n...a\r\n",
        b"Subject: no end of line",
        b"8-bit \xe4\xf6\xfc\r\n\0\r\n",
        &[b"Subject: long\r\n\r\n", &[b'.'; 70_000][..], b"\r\n"].concat(),
    ];
    for content in contents {
        let whole_lines = if content.is_empty() || content.ends_with(b"\n") { &b""[..] } else { b"\r\n" };
        lmtp.store(BOB, &[content, whole_lines].concat());
    }
    let mut session = service.log_in(BOB);
    for (number, announced) in (1..).zip(session.octets().unwrap()) {
        let lines = session.lines(&format!("RETR {number}")).unwrap();
        let octets = |line: &Vec<u8>| line.strip_prefix(b".").unwrap_or(line).len() + 2;
        assert_eq!(announced, lines.iter().map(octets).sum::<usize>().to_string(), "message {number}");
    }
    service.stop();
}

#[test]
fn unique_ids_survive_restart_crash_backup_and_restore() {
    let mut site = site_with_bob();
    let service = site.start();
    store(&service, &["one", "two", "three", "four"]);
    let mut session = service.log_in(BOB);
    session.delete(2).unwrap();
    session.quit().unwrap();
    let before = uids(&service);
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3, "they are unique: {before:?}");
    let printable = |uid: &String| (1..=70).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_graphic());
    assert!(before.iter().all(printable), "RFC 1939 section 7: {before:?}");

    service.stop();
    let service = site.start();
    assert_eq!(uids(&service), before);
    service.kill();
    let service = site.start();
    assert_eq!(uids(&service), before);

    let backup = site.dir().join("winpop.backup");
    site.succeed(&["backup", &backup.to_string_lossy()]);
    store(&service, &["five"]);
    service.stop();
    fs::rename(&backup, site.data_file()).unwrap();
    let service = site.start();
    assert_eq!(uids(&service), before);
    service.stop();
    site.assert_clean();
}

#[test]
fn no_unique_id_is_used_again() {
    let mut site = site_with_bob();
    let service = site.start();
    let mut seen = BTreeSet::new();
    let mut see_new = |uids: Vec<String>| {
        assert!(!uids.is_empty());
        uids.into_iter().for_each(|uid| assert!(seen.insert(uid.clone()), "{uid} came before"));
    };
    store(&service, &["one", "one"]);
    see_new(uids(&service));
    // After everything is deleted.
    let mut session = service.log_in(BOB);
    (1..=2).for_each(|number| session.delete(number).unwrap());
    session.quit().unwrap();
    let backup = site.dir().join("winpop.backup");
    site.succeed(&["backup", &backup.to_string_lossy()]);
    store(&service, &["one", "two"]);
    see_new(uids(&service));
    // After an older store is restored, which does not know the last two messages.
    service.stop();
    fs::rename(&backup, site.data_file()).unwrap();
    let service = site.start();
    store(&service, &["one", "two"]);
    see_new(uids(&service));
    // In a recreated mailbox.
    site.winpop(&["delete", BOB]);
    site.add_mailbox(BOB);
    store(&service, &["one", "two"]);
    see_new(uids(&service));
    service.stop();
}

/// Mail deleted by a client or an administrator returns under the ids that clients know.
#[test]
fn undeleted_mail_keeps_the_ids_that_clients_know() {
    let mut site = Site::new();
    for address in ["ann@example.com", "bob@example.com"] {
        site.add_mailbox(address);
    }
    let service = site.start();
    for content in [&b"Subject: one\r\n\r\none\r\n"[..], b"Subject: two\r\n\r\ntwo\r\n"] {
        service.lmtp().store("ann@example.com", content);
    }
    let log_in = || service.log_in("ann@example.com");
    let mut client = log_in();
    let (uids, contents) = (client.uids().unwrap(), client.contents().unwrap());
    client.delete(1).unwrap();
    let refused = site.run(&["winpop", "undelete", "ann@example.com"]);
    assert!(refused.exit_code == 1 && refused.errors.contains("a client is reading"), "{refused:?}");
    client.quit().unwrap();

    let stat = site.winpop(&["stat"]);
    assert!(stat.contains("Deleted    1 message (") && stat.contains("Messages   1\n"), "{stat}");
    assert!(site.winpop(&["undelete", "ann@example.com"]).starts_with("1 message ("));
    let mut client = log_in();
    assert_eq!((client.uids().unwrap(), client.contents().unwrap()), (uids.clone(), contents.clone()));
    client.quit().unwrap();

    let done = site.winpop(&["delete", "example.com"]);
    assert!(done.starts_with("Domain example.com deleted with 2 mailboxes and 2 messages"), "{done}");
    let done = site.winpop(&["undelete", "example.com", "/json"]);
    assert!(
        done.contains("\"message\":\"Domain example.com restored with 2 mailboxes and 2 messages ("),
        "{done}"
    );
    let mut client = log_in();
    assert_eq!((client.uids().unwrap(), client.contents().unwrap()), (uids, contents));
    client.quit().unwrap();

    site.winpop(&["set", "undelete", "0"]);
    site.winpop(&["delete", "bob@example.com"]);
    let gone = site.run(&["winpop", "undelete", "bob@example.com"]);
    assert!(
        gone.exit_code == 1 && gone.errors.contains("nothing to restore for bob@example.com"),
        "{gone:?}"
    );
    service.stop();
    site.assert_clean();
}
