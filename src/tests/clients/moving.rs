//! Mailboxes of a Dovecot, taken in by `pop3svc import`, and given out to one by `export`: mail programs that leave
//! their mail on the server fetch nothing twice.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::dovecot::{Dovecot, Kind, MAILBOX, PASSWORD, Session, have_dovecot_and, lists, unique_ids};
use super::pollers::{Fetched, PROGRAMS, move_on, mpop_configuration, notes, poll, write_secret};
use super::scratch::{Scratch, Service};

/// Messages in the mailbox that moves.
const MESSAGES: usize = 1000;
const NOTHING: Fetched = [0; 3];
/// All of them together have more octets.
const TEXTS_OCTETS_MIN: u64 = 900_000;
/// Octets of an id that no format makes.
const AWKWARD: &str = "~!\"#$%&'()*+,-./;<=>?@[]^_`{|}";

/// A text, awkward in length and dots.
fn text(number: usize) -> String {
    let lines = [".", "..", ".dot", "", "From here", "\u{fc}ber", ">From x"].map(|line| format!("{line}\n"));
    let long = "x".repeat(number * 37 % 2000);
    format!("Subject: {number}\n\n{}{long}\n", lines.concat().repeat(number % 5))
}

/// A Maildir whose files are in no order, with ids for some of the messages that only its list knows.
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

/// Imports the mailbox, and again, which adds nothing; then compares it with what was there.
fn import(scratch: &Scratch, words: &[&str]) {
    let words = [&["import"], words, &["--make"]].concat();
    let done = scratch.run("pop3svc", &words, b"");
    assert!(
        done.contains(&format!("{MESSAGES} with the unique id that mail programs know, 0 with")),
        "{done}"
    );
    let again = scratch.run("pop3svc", &words, b"");
    assert!(again.contains(&format!("{MESSAGES} already here")), "{again}");
    let verified = scratch.run("pop3svc", &[&words[..], &["--verify"]].concat(), b"");
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
    let scratch = Scratch::new();
    let dovecot = Dovecot::start_as(&scratch.path(""), &Kind { uidl_format, ..Kind::default() });
    fill_maildir(&dovecot);
    let before = lists(dovecot.port, MAILBOX);
    assert_eq!(before.len(), 2 * MESSAGES);
    assert!(poll(&scratch, dovecot.port, true).iter().all(|octets| *octets > TEXTS_OCTETS_MIN));

    let service = scratch.serve();
    let template = format!("{}/{{domain}}/{{user}}", dovecot.mail.display());
    import(&scratch, &["maildir", &template, "--uidl", uidl_format]);
    scratch.winpop(&format!("changepwd {MAILBOX} {PASSWORD}"));
    assert_eq!(lists(port(&service), MAILBOX), before);
    // By what each of the mail programs has noted, the ids are found to be made the way they are.
    let maildir = dovecot.mailbox().to_string_lossy().into_owned();
    for noted in notes(dovecot.port) {
        let words = ["import", "maildir", &maildir, MAILBOX, "--verify", "--seen", &noted];
        let verified = scratch.run("pop3svc", &words, b"");
        assert!(verified.starts_with(&format!("Unique ids are formed as {uidl_format}\n")), "{verified}");
        assert!(verified.contains(&format!("{MESSAGES} known, 0 fetched again")), "{verified}");
    }
    move_on(&scratch, dovecot.port, port(&service));
    assert_eq!(poll(&scratch, port(&service), false), NOTHING);
    drop(dovecot);

    // And back, into a Dovecot that is new, with the accounts: the same list again.
    let accounts = scratch.path("accounts");
    scratch.run("pop3svc", &["export", "accounts", "accounts"], b"");
    let kind = Kind { accounts: Some(&accounts), ..Kind::default() };
    let back = Dovecot::start_as(&scratch.path("back"), &kind);
    scratch.run("chgrp", &["dovecot", "accounts"], b"");
    scratch.run("chmod", &["640", "accounts"], b"");
    let directory = back.mail.to_string_lossy().into_owned();
    scratch.run("pop3svc", &["export", "maildir", &directory], b"");
    back.own_mail();
    assert_eq!(lists(back.port, MAILBOX), before);
    move_on(&scratch, port(&service), back.port);
    assert_eq!(poll(&scratch, back.port, false), NOTHING);
    // The password is right by SCRAM too, and no other one is.
    for (password, is_right) in [(PASSWORD, true), ("wrong", false)] {
        write_secret(&scratch, "mpoprc", &mpop_configuration(&scratch, back.port, "scram-sha-256", password));
        let outcome = scratch.outcome("mpop", &["--file=mpoprc"], b"");
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
    let scratch = Scratch::new();
    let dovecot = Dovecot::start_as(&scratch.path(""), &Kind { store: "mbox", ..Kind::default() });
    fs::create_dir_all(dovecot.mailbox().parent().expect("a domain")).expect("it can be made");
    let message = |number| format!("From x@y Thu Jan  1 00:00:{:02} 2026\n{}\n", number % 60, text(number));
    fs::write(dovecot.mailbox(), (1..=MESSAGES).map(message).collect::<String>()).expect("it can be written");
    dovecot.own_mail();
    let before = lists(dovecot.port, MAILBOX);
    assert_eq!(before.len(), 2 * MESSAGES);
    assert!(poll(&scratch, dovecot.port, true).iter().all(|octets| *octets > TEXTS_OCTETS_MIN));
    let service = scratch.serve();
    // Dovecot writes its numbers into the file when somebody deletes something, or it has nothing else to do.
    import(&scratch, &["mbox", &dovecot.mailbox().to_string_lossy(), MAILBOX]);
    scratch.winpop(&format!("changepwd {MAILBOX} {PASSWORD}"));
    assert_eq!(lists(port(&service), MAILBOX), before);
    move_on(&scratch, dovecot.port, port(&service));
    assert_eq!(poll(&scratch, port(&service), false), NOTHING);
    drop(dovecot);

    // In an mbox the ids are fields of the header, so they change the sizes; no mail program minds.
    let back = Dovecot::start_as(&scratch.path("back"), &Kind { store: "mbox", ..Kind::default() });
    let directory = back.mail.to_string_lossy().into_owned();
    scratch.run("pop3svc", &["export", "mbox", &directory], b"");
    back.own_mail();
    assert_eq!(unique_ids(back.port), unique_ids(port(&service)));
    move_on(&scratch, port(&service), back.port);
    assert_eq!(poll(&scratch, back.port, false), NOTHING);
    service.end();
}

/// For a server whose files nobody reads: what a client sees, written into files one by one.
#[test]
fn files_with_the_ids_in_a_list_or_as_their_names_move_unnoticed() {
    if !have_dovecot_and(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new();
    let dovecot = Dovecot::start_as(&scratch.path(""), &Kind::default());
    let maildir = dovecot.mailbox();
    for part in ["cur", "new", "tmp"] {
        fs::create_dir_all(maildir.join(part)).expect("it can be made");
    }
    for number in 1..=MESSAGES {
        fs::write(maildir.join(format!("new/{number}.host")), text(number)).expect("it can be written");
    }
    dovecot.own_mail();
    let before = lists(dovecot.port, MAILBOX);
    assert!(poll(&scratch, dovecot.port, true).iter().all(|octets| *octets > TEXTS_OCTETS_MIN));
    let directory = scratch.path("P3_bob.mbx");
    write_as_files(dovecot.port, &directory);
    let service = scratch.serve();
    let mut port_before = dovecot.port;
    let seen = scratch.path("uidls").to_string_lossy().into_owned();
    let directory = directory.to_string_lossy().into_owned();
    let list = format!("{directory}/list");
    for words in [
        &["list", &list, MAILBOX][..],
        &["eml", &directory, MAILBOX, "--uidl", "%b"],
        // What a mail program has noted decides between the names with and without `.eml`.
        &["windows", &directory, MAILBOX, "--seen", &seen],
    ] {
        import(&scratch, words);
        scratch.winpop(&format!("changepwd {MAILBOX} {PASSWORD}"));
        assert_eq!(lists(port(&service), MAILBOX), before, "{words:?}");
        if port_before != port(&service) {
            move_on(&scratch, port_before, port(&service));
        }
        port_before = port(&service);
        assert_eq!(poll(&scratch, port_before, false), NOTHING, "{words:?}");
        scratch.winpop(&format!("delete {MAILBOX} /y"));
    }
    service.end();
}

/// Each message in a file that is named after its id, in the order of the list, and a list of them.
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

/// A way of making ids that is not the other server's is found out before a mail program is.
#[test]
fn a_wrong_choice_of_ids_is_told_by_its_number() {
    if !have_dovecot_and(&PROGRAMS) {
        return;
    }
    let scratch = Scratch::new();
    let dovecot = Dovecot::start_as(&scratch.path(""), &Kind::default());
    fill_maildir(&dovecot);
    let maildir = dovecot.mailbox().to_string_lossy().into_owned();
    // Dovecot takes its list over.
    assert_eq!(lists(dovecot.port, MAILBOX).len(), 2 * MESSAGES);
    let service = scratch.serve();
    scratch.run("pop3svc", &["import", "maildir", &maildir, MAILBOX, "--make", "--uidl", "%f"], b"");
    let verified = scratch.outcome("pop3svc", &["import", "maildir", &maildir, MAILBOX, "--verify"], b"");
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let (kept, lost) = (MESSAGES / 7, MESSAGES - MESSAGES / 7);
    let told = String::from_utf8(verified.stdout).expect("it is UTF-8");
    assert!(told.contains(&format!("{kept} known, {lost} fetched again, 0 new, 0 missing")), "{told}");
    service.end();
}
