//! Mailboxes imported from Dovecot by `pop3svc import` and exported back by `export`: mail programs that leave mail on
//! the server fetch nothing twice.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::dovecot::{Dovecot, Kind, MAILBOX, PASSWORD, Session, have_dovecot_and, lists, unique_ids};
use super::pollers::{Fetched, PROGRAMS, move_on, mpop_configuration, notes, poll, write_secret};
use super::service::Service;
use crate::harness::site::Site;

/// Messages in the mailbox that moves.
const MESSAGES: usize = 1000;
const NOTHING: Fetched = [0; 3];
/// All together are larger than this.
const TEXTS_OCTETS_MIN: u64 = 900_000;
/// Characters that no id format produces.
const AWKWARD: &str = "~!\"#$%&'()*+,-./;<=>?@[]^_`{|}";

/// A text with an awkward length and dots.
fn text(number: usize) -> String {
    let lines = [".", "..", ".dot", "", "From here", "\u{fc}ber", ">From x"].map(|line| format!("{line}\n"));
    let long = "x".repeat(number * 37 % 2000);
    format!("Subject: {number}\n\n{}{long}\n", lines.concat().repeat(number % 5))
}

/// Fills a Maildir whose files are in no order. Some messages have ids that only its list knows.
fn fill_maildir(dovecot: &Dovecot) {
    let maildir = dovecot.mailbox();
    for part in ["cur", "new", "tmp"] {
        fs::create_dir_all(maildir.join(part)).expect("it can be made");
    }
    let mut list = format!("3 V1700000000 N{} G0123456789abcdef0123456789abcdef\n", MESSAGES + 1);
    for number in 1..=MESSAGES {
        let name = format!("{}.M{number}P1.host", 1_600_000_000 + number * 7919 % 5000);
        fs::write(maildir.join("cur").join(format!("{name}:2,S")), text(number)).expect("it can be written");
        let own_id = if number % 7 == 0 { format!(" P{number}{AWKWARD}") } else { String::new() };
        list += &format!("{number}{own_id} :{name}\n");
    }
    fs::write(maildir.join("dovecot-uidlist"), list).expect("it can be written");
    dovecot.own_mail();
}

/// Imports the mailbox, imports it again, which adds nothing, and compares it with the original.
fn import(site: &Site, words: &[&str]) {
    let words = [&["import"], words, &["--make"]].concat();
    let done = site.output("pop3svc", &words, b"");
    assert!(
        done.contains(&format!("{MESSAGES} with the unique id that mail programs know, 0 with")),
        "{done}"
    );
    let again = site.output("pop3svc", &words, b"");
    assert!(again.contains(&format!("{MESSAGES} already here")), "{again}");
    let verified = site.output("pop3svc", &[&words[..], &["--verify"]].concat(), b"");
    let expected =
        format!("{MESSAGES} there, {MESSAGES} here: {MESSAGES} known, 0 fetched again, 0 new, 0 missing\n");
    assert!(verified.contains(&expected), "{verified}");
}

fn port(service: &Service) -> u16 {
    service.port("POP3").parse().expect("a port")
}

fn maildir_moves_there_and_back(uidl_format: &str) {
    if !have_dovecot_and(&PROGRAMS) {
        return;
    }
    let site = Site::new();
    let dovecot = Dovecot::start_as(site.dir(), &Kind { uidl_format, ..Kind::default() });
    fill_maildir(&dovecot);
    let before = lists(dovecot.port, MAILBOX);
    assert_eq!(before.len(), 2 * MESSAGES);
    assert!(poll(&site, dovecot.port, true).iter().all(|octets| *octets > TEXTS_OCTETS_MIN));

    let service = site.serve();
    let template = format!("{}/{{domain}}/{{user}}", dovecot.mail.display());
    import(&site, &["maildir", &template, "--uidl", uidl_format]);
    site.winpop(&format!("changepwd {MAILBOX} {PASSWORD}"));
    assert_eq!(lists(port(&service), MAILBOX), before);
    // From each mail program's notes the import finds out how the ids are made.
    let maildir = dovecot.mailbox().to_string_lossy().into_owned();
    for noted in notes(dovecot.port) {
        let words = ["import", "maildir", &maildir, MAILBOX, "--verify", "--seen", &noted];
        let verified = site.output("pop3svc", &words, b"");
        assert!(verified.starts_with(&format!("Unique ids are formed as {uidl_format}\n")), "{verified}");
        assert!(verified.contains(&format!("{MESSAGES} known, 0 fetched again")), "{verified}");
    }
    move_on(&site, dovecot.port, port(&service));
    assert_eq!(poll(&site, port(&service), false), NOTHING);
    drop(dovecot);

    // And back, with the accounts, into a new Dovecot: the same list again.
    let accounts = site.path("accounts");
    site.output("pop3svc", &["export", "accounts", "accounts"], b"");
    let kind = Kind { accounts: Some(&accounts), ..Kind::default() };
    let back = Dovecot::start_as(&site.path("back"), &kind);
    site.output("chgrp", &["dovecot", "accounts"], b"");
    site.output("chmod", &["640", "accounts"], b"");
    let directory = back.mail.to_string_lossy().into_owned();
    site.output("pop3svc", &["export", "maildir", &directory], b"");
    back.own_mail();
    assert_eq!(lists(back.port, MAILBOX), before);
    move_on(&site, port(&service), back.port);
    assert_eq!(poll(&site, back.port, false), NOTHING);
    // The password also works with SCRAM, and a wrong one does not.
    for (password, is_right) in [(PASSWORD, true), ("wrong", false)] {
        write_secret(&site, "mpoprc", &mpop_configuration(&site, back.port, "scram-sha-256", password));
        let outcome = site.outcome("mpop", &["--file=mpoprc"], b"");
        assert_eq!(outcome.status.success(), is_right, "{outcome:?}");
    }
    service.end();
}

#[test]
fn a_maildir_whose_ids_are_numbers_in_hexadecimal_moves_unnoticed() {
    maildir_moves_there_and_back("%08Xu%08Xv");
}

#[test]
fn a_maildir_whose_ids_are_numbers_moves_unnoticed() {
    maildir_moves_there_and_back("%v.%u");
}

#[test]
fn a_maildir_whose_ids_are_names_moves_unnoticed() {
    maildir_moves_there_and_back("%f");
}

#[test]
fn an_mbox_moves_unnoticed() {
    if !have_dovecot_and(&PROGRAMS) {
        return;
    }
    let site = Site::new();
    let dovecot = Dovecot::start_as(site.dir(), &Kind { store: "mbox", ..Kind::default() });
    fs::create_dir_all(dovecot.mailbox().parent().expect("a domain")).expect("it can be made");
    let message = |number| format!("From x@y Thu Jan  1 00:00:{:02} 2026\n{}\n", number % 60, text(number));
    fs::write(dovecot.mailbox(), (1..=MESSAGES).map(message).collect::<String>()).expect("it can be written");
    dovecot.own_mail();
    let before = lists(dovecot.port, MAILBOX);
    assert_eq!(before.len(), 2 * MESSAGES);
    assert!(poll(&site, dovecot.port, true).iter().all(|octets| *octets > TEXTS_OCTETS_MIN));
    let service = site.serve();
    // Dovecot writes its numbers into the file only when a message is deleted or changed.
    import(&site, &["mbox", &dovecot.mailbox().to_string_lossy(), MAILBOX]);
    site.winpop(&format!("changepwd {MAILBOX} {PASSWORD}"));
    assert_eq!(lists(port(&service), MAILBOX), before);
    move_on(&site, dovecot.port, port(&service));
    assert_eq!(poll(&site, port(&service), false), NOTHING);
    drop(dovecot);

    // In an mbox the ids are header fields, so they change the sizes, which mail programs ignore.
    let back = Dovecot::start_as(&site.path("back"), &Kind { store: "mbox", ..Kind::default() });
    let directory = back.mail.to_string_lossy().into_owned();
    site.output("pop3svc", &["export", "mbox", &directory], b"");
    back.own_mail();
    assert_eq!(unique_ids(back.port), unique_ids(port(&service)));
    move_on(&site, port(&service), back.port);
    assert_eq!(poll(&site, back.port, false), NOTHING);
    service.end();
}

/// For a server whose files cannot be read: what a client sees, written into one file per message.
#[test]
fn files_with_the_ids_in_a_list_or_as_their_names_move_unnoticed() {
    if !have_dovecot_and(&PROGRAMS) {
        return;
    }
    let site = Site::new();
    let dovecot = Dovecot::start_as(site.dir(), &Kind::default());
    let maildir = dovecot.mailbox();
    for part in ["cur", "new", "tmp"] {
        fs::create_dir_all(maildir.join(part)).expect("it can be made");
    }
    for number in 1..=MESSAGES {
        fs::write(maildir.join(format!("new/{number}.host")), text(number)).expect("it can be written");
    }
    dovecot.own_mail();
    let before = lists(dovecot.port, MAILBOX);
    assert!(poll(&site, dovecot.port, true).iter().all(|octets| *octets > TEXTS_OCTETS_MIN));
    let directory = site.path("P3_bob.mbx");
    write_as_files(dovecot.port, &directory);
    let service = site.serve();
    let mut port_before = dovecot.port;
    let seen = site.path("uidls").to_string_lossy().into_owned();
    let directory = directory.to_string_lossy().into_owned();
    let list = format!("{directory}/list");
    for words in [
        &["list", &list, MAILBOX][..],
        &["eml", &directory, MAILBOX, "--uidl", "%b"],
        // A mail program's notes decide between the names with and without `.eml`.
        &["windows", &directory, MAILBOX, "--seen", &seen],
    ] {
        import(&site, words);
        site.winpop(&format!("changepwd {MAILBOX} {PASSWORD}"));
        assert_eq!(lists(port(&service), MAILBOX), before, "{words:?}");
        if port_before != port(&service) {
            move_on(&site, port_before, port(&service));
        }
        port_before = port(&service);
        assert_eq!(poll(&site, port_before, false), NOTHING, "{words:?}");
        site.winpop(&format!("delete {MAILBOX} /y"));
    }
    service.end();
}

/// Writes each message into a file named after its id, and a list of the files in order.
fn write_as_files(port: u16, directory: &Path) {
    fs::create_dir_all(directory).expect("it can be made");
    let mut list = String::new();
    for (number, id) in (1..).zip(unique_ids(port)) {
        let name = format!("{id}.eml");
        fs::write(directory.join(&name), Session::message(port, number)).expect("it can be written");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + number as u64);
        let file = File::options().write(true).open(directory.join(&name)).expect("it was just written");
        file.set_modified(time).expect("it is ours");
        list += &format!("{name}\t{id}\n");
    }
    fs::write(directory.join("list"), list).expect("it can be written");
}

/// Choosing the wrong id format shows before mail programs fetch everything again.
#[test]
fn a_wrong_choice_of_ids_shows_in_the_number_fetched_again() {
    if !have_dovecot_and(&PROGRAMS) {
        return;
    }
    let site = Site::new();
    let dovecot = Dovecot::start_as(site.dir(), &Kind::default());
    fill_maildir(&dovecot);
    let maildir = dovecot.mailbox().to_string_lossy().into_owned();
    // Dovecot takes over its list.
    assert_eq!(lists(dovecot.port, MAILBOX).len(), 2 * MESSAGES);
    let service = site.serve();
    site.output("pop3svc", &["import", "maildir", &maildir, MAILBOX, "--make", "--uidl", "%f"], b"");
    let verified = site.outcome("pop3svc", &["import", "maildir", &maildir, MAILBOX, "--verify"], b"");
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let (kept, lost) = (MESSAGES / 7, MESSAGES - MESSAGES / 7);
    let told = String::from_utf8(verified.stdout).expect("it is UTF-8");
    assert!(told.contains(&format!("{kept} known, {lost} fetched again, 0 new, 0 missing")), "{told}");
    service.end();
}
