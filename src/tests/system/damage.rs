//! Flipped bits in the data file: no altered octet is sent after `+OK`, and nothing stops the service.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use super::client::Pop3;
use super::service::Service;
use crate::harness::PASSWORD;
use crate::harness::site::Site;

const MAILBOXES: [&str; 3] = ["ann@example.com", "bob@example.com", "cid@example.com"];
/// Messages per mailbox; the last one is sent in several pieces.
const MESSAGES: usize = 20;
const LONG_OCTETS: usize = 2_500_000;

/// A site with mail, the octets of its data file, and its messages' contents by mailbox.
fn site_with_mail(random: &mut fastrand::Rng) -> (Site, Vec<u8>, Vec<Vec<Vec<u8>>>) {
    let mut site = Site::new();
    MAILBOXES.iter().for_each(|mailbox| site.add_mailbox(mailbox));
    let service = site.start();
    let mut lmtp = service.lmtp();
    let mut contents = Vec::new();
    for mailbox in MAILBOXES {
        let mut stored = Vec::new();
        for number in 0..MESSAGES {
            let octets = if number + 1 == MESSAGES { LONG_OCTETS } else { 1 << random.u32(8..16) };
            let content = content(random, octets);
            lmtp.store(mailbox, &content);
            stored.push(content);
        }
        contents.push(stored);
    }
    drop(lmtp);
    service.stop();
    let file = fs::read(site.data_file()).expect("the data file can be read");
    (site, file, contents)
}

fn content(random: &mut fastrand::Rng, octets: usize) -> Vec<u8> {
    let mut content = b"Subject: of no importance\r\n\r\n".to_vec();
    while content.len() < octets {
        content.extend((0..70).map(|_| random.alphanumeric() as u8));
        content.extend_from_slice(b"\r\n");
    }
    content
}

/// Where this text lies in the file. The log may have an earlier copy.
fn place_of(file: &[u8], content: &[u8]) -> usize {
    memchr::memmem::rfind(file, content).expect("a text lies in one piece in the file")
}

/// The outcome of RETR.
enum Fetched {
    Whole(Vec<u8>),
    Refused(String),
}

fn fetch(pop3: &mut Pop3, number: usize) -> io::Result<Fetched> {
    match pop3.content(number) {
        Ok(content) => Ok(Fetched::Whole(content)),
        Err(e) if e.to_string().starts_with("-ERR") => Ok(Fetched::Refused(e.to_string())),
        Err(e) => Err(e),
    }
}

/// 2,700 flips: with that many, altered texts were once served.
#[test]
fn no_altered_octet_is_sent_after_ok() {
    const ROUNDS: usize = 30;
    const FLIPS: usize = 90;
    let mut random = fastrand::Rng::with_seed(2_700);
    let (mut site, file, contents) = site_with_mail(&mut random);
    let places: Vec<Vec<usize>> = contents
        .iter()
        .map(|stored| stored.iter().map(|content| place_of(&file, content)).collect())
        .collect();
    let (mut refused, mut whole) = (0, 0);
    for _ in 0..ROUNDS {
        let mut damaged = file.clone();
        let mut hit = BTreeSet::new();
        for _ in 0..FLIPS {
            // One bit in a third of the texts; the others must be served as before.
            let (mailbox, number) = (random.usize(..MAILBOXES.len()), 3 * random.usize(..=MESSAGES / 3) + 1);
            let at = random.usize(..contents[mailbox][number].len());
            damaged[places[mailbox][number] + at] ^= 1 << random.u8(..8);
            hit.insert((mailbox, number));
        }
        // Two flips may have undone each other.
        hit.retain(|(mailbox, number)| {
            let (at, len) = (places[*mailbox][*number], contents[*mailbox][*number].len());
            damaged[at..at + len] != file[at..at + len]
        });
        fs::write(site.data_file(), &damaged).expect("the data file can be written");
        let service = site.start();
        for (mailbox, stored) in contents.iter().enumerate() {
            let mut pop3 = service.log_in(MAILBOXES[mailbox]);
            for (number, content) in stored.iter().enumerate() {
                match fetch(&mut pop3, number + 1).expect("the session goes on") {
                    Fetched::Whole(octets) => {
                        assert!(octets == *content, "message {number} of {mailbox} was altered");
                        assert!(!hit.contains(&(mailbox, number)));
                        whole += 1;
                    }
                    Fetched::Refused(reply) => {
                        assert!(reply.starts_with("-ERR [SYS/PERM]"), "{reply}");
                        assert!(hit.contains(&(mailbox, number)), "{number} of {mailbox}: {reply}");
                        let top = pop3.ask(&format!("TOP {} 1", number + 1)).expect("the session goes on");
                        assert!(top.starts_with("-ERR [SYS/PERM]"), "{top}");
                        refused += 1;
                    }
                }
            }
            pop3.quit().expect("nothing was deleted");
        }
        service.terminate();
        let (status, log) = service.wait();
        assert!(status.success(), "{status}: {log}");
        for (mailbox, number) in &hit {
            let sentence = format!(": message {} of {} cannot be sent: ", number + 1, MAILBOXES[*mailbox]);
            assert!(log.contains(&sentence), "{sentence}: {log}");
        }
    }
    assert!(refused > 10 * ROUNDS && whole > 10 * ROUNDS, "{refused} refused, {whole} whole");
}

/// Flips may hit anything: the index, the lists of free space, superblocks. The service either says in one line why it
/// does not start, or keeps serving what it can.
#[test]
fn flipped_bits_all_over_the_file_stop_no_service() {
    const ROUNDS: usize = 20;
    const FLIPS: usize = 12;
    let mut random = fastrand::Rng::with_seed(2_701);
    let (site, file, contents) = site_with_mail(&mut random);
    let used: Vec<usize> = (0..file.len()).filter(|at| file[*at] != 0).collect();
    let is_text = |at: usize| file[at].is_ascii_graphic() && at > 2 << 20;
    let elsewhere: Vec<usize> = used.into_iter().filter(|at| !is_text(*at)).collect();
    let (mut started, mut refused, mut whole) = (0, 0, 0);
    for _ in 0..ROUNDS {
        let mut damaged = file.clone();
        for _ in 0..FLIPS {
            damaged[elsewhere[random.usize(..elsewhere.len())]] ^= 1 << random.u8(..8);
        }
        fs::write(site.data_file(), &damaged).expect("the data file can be written");
        let service = Service::spawn(&site);
        if service.is_ready() {
            started += 1;
            for (mailbox, stored) in contents.iter().enumerate() {
                whole += use_mailbox(&service, MAILBOXES[mailbox], stored);
            }
            service.terminate();
        } else {
            refused += 1;
        }
        let (status, log) = service.wait();
        assert!(status.code().is_some() && !log.contains("panicked"), "{status}: {log}");
        // Whatever the service did, a repair turns the damaged file into a sound store.
        fs::write(site.data_file(), &damaged).expect("the data file can be written");
        let checked = site.run(&["check"]);
        assert!([0, 1].contains(&checked.exit_code) && !checked.errors.contains("panicked"), "{checked:?}");
        assert!(fs::read(site.data_file()).unwrap() == damaged, "check has changed the file");
        let repaired = site.run(&["check", "--repair"]);
        assert!(!repaired.errors.contains("panicked"), "{repaired:?}");
        site.assert_clean();
    }
    assert!(started > 0 && whole > 0, "{started} started, {refused} did not, {whole} messages were whole");
}

/// Reads all messages, deletes one, delivers one. Returns how many came whole. Any reply may be a refusal.
fn use_mailbox(service: &Service, mailbox: &str, stored: &[Vec<u8>]) -> usize {
    let mut whole = 0;
    let mut pop3 = Pop3::connect(service.ports().pop3).expect("the service greets");
    let reply = pop3.log_in(mailbox, PASSWORD).expect("a reply to PASS");
    if reply.starts_with("+OK") {
        for (number, content) in stored.iter().enumerate() {
            if let Fetched::Whole(octets) = fetch(&mut pop3, number + 1).expect("the session goes on") {
                assert!(octets == *content, "message {number} of {mailbox} was altered");
                whole += 1;
            }
        }
        pop3.ask("DELE 1").expect("a reply to DELE");
        pop3.ask("QUIT").expect("a reply to QUIT");
    }
    let replies = service.lmtp().deliver(&[mailbox], b"Subject: new\r\n\r\nText.\r\n").expect("replies");
    assert!(["250", "451", "452", "550"].iter().any(|code| replies[0].starts_with(code)), "{replies:?}");
    whole
}
