//! Users of a Dovecot server move here by logging in. Nobody needs a new password, and nothing is fetched twice.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::dovecot::{Dovecot, MAILBOX, PASSWORD, have_dovecot_and, lists};
use super::moving_live::{Gate, LATER, wait_for};
use super::pollers::fetchmail_has;
use super::service::{READY, Service};
use crate::harness::site::Site;

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The time between a client's polls, and how many it makes until it has its mail.
const BETWEEN_POLLS: Duration = Duration::from_secs(1);
const POLLS_MAX: usize = 200;
const USERS: usize = 100;
const CLIENTS: usize = 8;

const UIDL_FORMAT: &str = "%08Xu%08Xv";
const WRONG: &str = "-ERR [AUTH]";

/// The reply to the login; `None` if nobody answers.
fn log_in(port: u16, mailbox: &str, password: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).expect("it is no zero");
    stream.write_all(format!("USER {mailbox}\r\nPASS {password}\r\nQUIT\r\n").as_bytes()).ok()?;
    BufReader::new(stream).lines().nth(2)?.ok()
}

fn adopt_from(site: &Site, port: u16) {
    site.winpop(&format!("set adopt pop3+clear://127.0.0.1:{port} example.com"));
}

#[test]
fn a_user_moves_at_the_first_poll_and_stays_here() {
    if !have_dovecot_and(&["fetchmail"]) {
        return;
    }
    let site = Site::new();
    let mut dovecot = Dovecot::start(site.dir(), UIDL_FORMAT);
    dovecot.bring("bob", 300);
    dovecot.own_mail();
    let before = lists(dovecot.port, MAILBOX);
    let fetched = fetchmail_has(&site, dovecot.port, true);

    let service = site.serve();
    let port = service.port("POP3").parse().expect("a port");
    let certificate = dovecot.certificate().display().to_string();
    site.winpop(&format!("set adoptca {certificate}"));
    site.winpop(&format!("set adopt pop3s://127.0.0.1:{}", dovecot.tls_port));
    // If the old server refuses or is silent, so do we, and no mailbox is created.
    let answer = log_in(port, MAILBOX, "wrong").expect("an answer");
    assert!(answer.starts_with(WRONG), "{answer}");
    dovecot.stop();
    let answer = log_in(port, MAILBOX, PASSWORD).expect("an answer");
    assert!(answer.starts_with("-ERR [SYS/TEMP]"), "{answer}");
    // The old server is not asked about domains that are not ours.
    let answer = log_in(port, "bob@example.org", PASSWORD).expect("an answer");
    assert!(answer.starts_with(WRONG), "{answer}");
    assert!(!site.winpop("list example.com").contains(MAILBOX));

    dovecot.start_again();
    assert_eq!(fetchmail_has(&site, port, false), fetched);
    dovecot.stop();
    assert_eq!(lists(port, MAILBOX), before);
    let answer = log_in(port, MAILBOX, "wrong").expect("an answer");
    assert!(answer.starts_with(WRONG), "the old server is not asked any more: {answer}");
    let told = site.winpop("stat");
    // Including the mailbox that quickstart creates.
    assert!(told.contains("2 mailboxes have moved here, 0 not yet, 0 incomplete"), "{told}");
    // A mailbox deleted here does not come back from the old server.
    dovecot.start_again();
    site.winpop(&format!("delete {MAILBOX} /y"));
    let answer = log_in(port, MAILBOX, PASSWORD).expect("an answer");
    assert!(answer.starts_with(WRONG), "{answer}");
    service.end();
}

#[test]
fn a_killed_adoption_continues_at_the_next_login() {
    if !have_dovecot_and(&[]) {
        return;
    }
    let site = Site::new();
    let dovecot = Dovecot::start(site.dir(), UIDL_FORMAT);
    dovecot.bring("bob", 500);
    dovecot.own_mail();
    site.make_store();
    let service = Service::quickstart(&site, &[]);
    let port: u16 = service.port("POP3").parse().expect("a port");
    // More than a batch of 200 messages, and less than all.
    let gate = Gate::open(dovecot.port, 420 * 1024);
    adopt_from(&site, gate.port);
    let client = thread::spawn(move || log_in(port, MAILBOX, PASSWORD));
    gate.closed.recv_timeout(ANSWER_MAX).expect("so much comes");
    wait_for(|| site.messages_in(MAILBOX) >= 200);
    assert_eq!(log_in(port, MAILBOX, PASSWORD).as_deref(), Some(LATER), "a second login meanwhile");
    assert!(log_in(port, MAILBOX, "wrong").is_some_and(|answer| answer.starts_with(WRONG)));
    drop(service);
    assert_eq!(client.join().expect("it ends"), None);

    let service = Service::start(&site, site.command("pop3svc").arg("quickstart"), READY);
    let told = site.winpop("stat");
    assert!(told.contains("1 incomplete"), "{told}");
    adopt_from(&site, dovecot.port);
    assert_eq!(lists(port, MAILBOX), lists(dovecot.port, MAILBOX));
    service.end();
}

#[test]
fn a_hundred_users_move_by_their_first_logins_while_servers_are_killed() {
    if !have_dovecot_and(&[]) {
        return;
    }
    let site = Site::new();
    let mut dovecot = Dovecot::start(site.dir(), UIDL_FORMAT);
    let users: Vec<String> = (1..=USERS).map(|number| format!("user{number}@example.com")).collect();
    for (number, user) in users.iter().enumerate() {
        dovecot.bring(user.split('@').next().expect("a name"), number % 20);
    }
    dovecot.own_mail();
    let before: HashMap<&str, Vec<String>> =
        users.iter().map(|user| (user.as_str(), lists(dovecot.port, user))).collect();
    site.make_store();
    let service = Service::quickstart(&site, &[]);
    let port: u16 = service.port("POP3").parse().expect("a port");
    adopt_from(&site, dovecot.port);

    let (left, moved) = (Mutex::new(users.iter()), AtomicUsize::new(0));
    let service = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let Some(user) = left.lock().expect("nobody panics with it").next() else { return };
                    let is_in = (0..POLLS_MAX).any(|_| match log_in(port, user, PASSWORD) {
                        Some(answer) if answer.starts_with("+OK") => true,
                        // Any other reply would make a mail program ask its user for the password.
                        Some(answer) => {
                            assert!(answer.starts_with("-ERR [SYS/TEMP]"), "{user}: {answer}");
                            thread::sleep(BETWEEN_POLLS);
                            false
                        }
                        None => {
                            thread::sleep(BETWEEN_POLLS);
                            false
                        }
                    });
                    assert!(is_in, "{user} never gets in");
                    moved.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let moved = || moved.load(Ordering::Relaxed);
        wait_for(|| moved() >= USERS / 4);
        dovecot.stop();
        // Users who have moved do not need the old server.
        assert!(log_in(port, &users[0], PASSWORD).is_some_and(|answer| answer.starts_with("+OK")));
        dovecot.start_again();
        wait_for(|| moved() >= USERS / 2);
        // kill -9.
        drop(service);
        Service::start(&site, site.command("pop3svc").arg("quickstart"), READY)
    });
    for (user, before) in before {
        assert_eq!(lists(port, user), before, "{user}");
    }
    let told = site.winpop("stat");
    // Including the mailbox that quickstart creates.
    let all = format!("{} mailboxes have moved here, 0 not yet, 0 incomplete", USERS + 1);
    assert!(told.contains(&all), "{told}");
    service.end();
}
