//! kill -9 during deliveries and deletions: what was acknowledged is there, and everything else is whole or absent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::client::{Lmtp, Pop3};
use super::service::Service;
use crate::harness::PASSWORD;
use crate::harness::ports::Ports;
use crate::harness::site::Site;

const KILLS: usize = 20;
const MAILBOXES: [&str; 3] = ["ann@example.com", "bob@example.com", "cid@example.com"];
/// The number of acknowledgements after which the service is killed.
const ACKNOWLEDGED: std::ops::Range<usize> = 20..120;
/// The least number of sessions with deletions among them.
const DELETED_MIN: usize = 2;
/// Binary logarithm of the longest body in octets.
const BODY_LOG2_MAX: u32 = 16;

/// What the clients know.
#[derive(Default)]
struct Known {
    /// Contents that must be there, by mailbox and subject.
    present: BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>,
    /// Messages without an answer, by subject: recipients and contents. Each must have reached all its recipients or
    /// none.
    sent: BTreeMap<String, (Vec<&'static str>, Vec<u8>)>,
    /// Deletions without an answer, by mailbox: all must be gone or none.
    deleting: BTreeMap<&'static str, BTreeSet<String>>,
    /// Mailbox and subject of messages that must never be seen again.
    gone: BTreeSet<(&'static str, String)>,
}

/// A client's actions, in order.
enum Told {
    Sending(Vec<&'static str>, String, Vec<u8>),
    Stored(String),
    Deleting(&'static str, BTreeSet<String>),
    Deleted(&'static str),
}

#[test]
fn killed_twenty_times_under_load_nothing_acknowledged_is_lost() {
    let mut site = Site::new();
    MAILBOXES.iter().for_each(|mailbox| site.add_mailbox(mailbox));
    let mut random = fastrand::Rng::with_seed(20_260_101);
    let mut known = Known::default();
    let mut was_stored = 0;
    let mut was_deleted = 0;
    for round in 0..KILLS {
        let service = site.start();
        let kill_after = random.usize(ACKNOWLEDGED);
        let told = load_until_killed(service, round, kill_after, &mut random);
        for told in told {
            was_stored += usize::from(matches!(told, Told::Stored(_)));
            was_deleted += usize::from(matches!(told, Told::Deleted(_)));
            known.learn(told);
        }
        // After the crash sometimes the check opens it first, sometimes the service.
        if round % 2 == 0 {
            site.assert_clean();
        }
        let service = site.start();
        known.compare(&service);
        site.assert_clean();
        service.kill();
    }
    println!("{was_stored} messages stored, {was_deleted} sessions with deletions ended by QUIT");
    assert!(was_stored > 10 * KILLS && was_deleted > KILLS, "the load was one");
}

/// Kills the service after this many acknowledgements. Returns what the clients were told before.
fn load_until_killed(
    service: Service,
    round: usize,
    kill_after: usize,
    random: &mut fastrand::Rng,
) -> Vec<Told> {
    let ports = service.ports();
    let (tell, told) = channel();
    thread::scope(|scope| {
        for client in 0..3 {
            let (tell, random) = (tell.clone(), random.fork());
            scope.spawn(move || bring_mail(ports, &format!("{round}.{client}"), random, &tell));
        }
        for mailbox in MAILBOXES {
            let (tell, random) = (tell.clone(), random.fork());
            scope.spawn(move || delete_mail(ports, mailbox, random, &tell));
        }
        drop(tell);
        let mut all = Vec::new();
        let (mut acknowledged, mut deleted) = (0, 0);
        // Mail comes much faster than sessions end.
        while acknowledged < kill_after || deleted < DELETED_MIN {
            let one = told.recv().expect("the clients go on until the service is killed");
            acknowledged += usize::from(matches!(one, Told::Stored(_) | Told::Deleted(_)));
            deleted += usize::from(matches!(one, Told::Deleted(_)));
            all.push(one);
        }
        service.kill();
        all.extend(told);
        all
    })
}

/// Sends messages until the connection breaks.
fn bring_mail(ports: Ports, name: &str, mut random: fastrand::Rng, tell: &Sender<Told>) {
    let _: io::Result<()> = (|| {
        let mut lmtp = Lmtp::connect(ports.lmtp)?;
        for number in 0.. {
            let subject = format!("Subject: {name}.{number}");
            let log2 = random.u32(1..=BODY_LOG2_MAX);
            let octets = random.usize(0..1 << log2);
            let body: String = std::iter::repeat_with(|| random.alphanumeric()).take(octets).collect();
            let content = format!("{subject}\r\n\r\n{body}\r\n").into_bytes();
            let count = random.usize(1..=MAILBOXES.len());
            let recipients: Vec<&str> = random.choose_multiple(MAILBOXES, count);
            tell.send(Told::Sending(recipients.clone(), subject.clone(), content.clone())).unwrap();
            let replies = lmtp.deliver(&recipients, &content)?;
            assert!(replies.iter().all(|reply| reply.starts_with("250")), "{replies:?}");
            tell.send(Told::Stored(subject)).unwrap();
        }
        Ok(())
    })();
}

/// Deletes about half of the messages, session after session, until the connection breaks.
fn delete_mail(ports: Ports, mailbox: &'static str, mut random: fastrand::Rng, tell: &Sender<Told>) {
    let _: io::Result<()> = (|| {
        loop {
            let mut session = Pop3::connect(ports.pop3)?;
            let reply = session.log_in(mailbox, PASSWORD)?;
            assert!(reply.starts_with("+OK"), "{reply}");
            let mut deleted = BTreeSet::new();
            for number in 1..=session.count()? {
                if random.bool() {
                    deleted.insert(subject_of(&session.content(number)?));
                    session.delete(number)?;
                }
            }
            let is_any = !deleted.is_empty();
            tell.send(Told::Deleting(mailbox, deleted)).unwrap();
            session.quit()?;
            if is_any {
                tell.send(Told::Deleted(mailbox)).unwrap();
            }
        }
    })();
}

fn subject_of(content: &[u8]) -> String {
    let line = content.split(|&octet| octet == b'\r').next().unwrap_or_default();
    String::from_utf8(line.to_vec()).expect("our subjects are text")
}

impl Known {
    fn learn(&mut self, told: Told) {
        match told {
            Told::Sending(recipients, subject, content) => {
                self.sent.insert(subject, (recipients, content));
            }
            Told::Stored(subject) => {
                let (recipients, content) = self.sent.remove(&subject).expect("it was sent");
                for recipient in recipients {
                    // It may have been read and deleted before we heard that it was stored.
                    if !self.gone.contains(&(recipient, subject.clone())) {
                        self.present.entry(recipient).or_default().insert(subject.clone(), content.clone());
                    }
                }
            }
            Told::Deleting(mailbox, subjects) => {
                self.deleting.insert(mailbox, subjects);
            }
            Told::Deleted(mailbox) => {
                for subject in self.deleting.remove(mailbox).expect("it was told before") {
                    self.present.entry(mailbox).or_default().remove(&subject);
                    self.gone.insert((mailbox, subject));
                }
            }
        }
    }

    /// Compares with what the service has, and adopts that.
    fn compare(&mut self, service: &Service) {
        for mailbox in MAILBOXES {
            let mut found = BTreeMap::new();
            for content in service.log_in(mailbox).contents().unwrap() {
                let subject = subject_of(&content);
                assert!(
                    found.insert(subject.clone(), content).is_none(),
                    "{mailbox}: {subject} is there twice"
                );
            }
            self.compare_mailbox(mailbox, &found);
            self.present.insert(mailbox, found);
        }
        for (subject, (recipients, _)) in &self.sent {
            let has_come = |mailbox: &&&str| {
                self.present[*mailbox].contains_key(subject)
                    || self.gone.contains(&(*mailbox, subject.clone()))
                    || self.deleting.get(*mailbox).is_some_and(|deleting| deleting.contains(subject))
            };
            let came = recipients.iter().filter(has_come).count();
            let all = recipients.len();
            assert!(came == 0 || came == all, "{subject} came to {came} of {all} recipients");
        }
        self.sent.clear();
        self.deleting.clear();
    }

    fn compare_mailbox(&self, mailbox: &'static str, found: &BTreeMap<String, Vec<u8>>) {
        let nothing = (BTreeMap::new(), BTreeSet::new());
        let present = self.present.get(mailbox).unwrap_or(&nothing.0);
        let deleting = self.deleting.get(mailbox).unwrap_or(&nothing.1);
        let left = deleting.iter().filter(|subject| found.contains_key(*subject)).count();
        let all = deleting.len();
        assert!(left == 0 || left == all, "{mailbox}: {left} of {all} messages of one session are left");
        for (subject, content) in present {
            match found.get(subject) {
                Some(found) => assert!(found == content, "{mailbox}: {subject} is another one now"),
                None => assert!(deleting.contains(subject), "{mailbox}: {subject} is lost"),
            }
        }
        for (subject, content) in found.iter().filter(|(subject, _)| !present.contains_key(*subject)) {
            let is_gone = self.gone.contains(&(mailbox, subject.clone()));
            assert!(!is_gone, "{mailbox}: {subject} has come back after it was deleted");
            let sent = self.sent.get(subject);
            assert!(
                sent.is_some_and(|(_, sent)| sent == content),
                "{mailbox}: {subject} is not what was sent"
            );
        }
    }
}
