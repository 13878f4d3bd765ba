//! `deliver` and the name `sendmail`: where mail goes, and the exit codes (sysexits.h).

use std::fs::File;

use super::service::{Done, finish};
use crate::harness::site::Site;

const ANN: &str = "ann@example.com";
const BOB: &str = "bob@example.com";
/// This mailbox has a quota of 1 KiB.
const LITTLE: &str = "little@example.com";
const EX_OK: i32 = 0;
const EX_USAGE: i32 = 64;
const EX_DATAERR: i32 = 65;
const EX_NOUSER: i32 = 67;
const EX_UNAVAILABLE: i32 = 69;
const EX_CANTCREAT: i32 = 73;
const EX_TEMPFAIL: i32 = 75;

fn site() -> Site {
    let site = Site::new();
    site.add_mailbox(ANN);
    site.add_mailbox(BOB);
    site
}

/// Acts once without a service and once with one, and then checks that the mailboxes have every message twice.
#[track_caller]
fn stopped_and_running(mut site: Site, act: impl Fn(&Site), left: &[(&str, &[&[u8]])]) {
    act(&site);
    let service = site.start();
    act(&site);
    for (mailbox, contents) in left {
        let contents: Vec<&[u8]> = [*contents, *contents].concat();
        assert_eq!(service.log_in(mailbox).contents().unwrap(), contents, "{mailbox}");
    }
    service.stop();
    site.assert_clean();
}

#[track_caller]
fn assert_exit(done: &Done, exit_code: i32) {
    assert_eq!(done.exit_code, exit_code, "{done:?}");
    let lines = if exit_code == EX_OK { 0 } else { 1 };
    assert_eq!((done.output.as_str(), done.errors.lines().count()), ("", lines), "{done:?}");
}

#[test]
fn deliver_exits_as_sysexits_says() {
    let act = |site: &Site| {
        let deliver = |recipients: &[&str], content: &[u8], exit_code| {
            assert_exit(&site.run_with_input(&[&["deliver"], recipients].concat(), content), exit_code);
        };
        deliver(&[ANN], b"Subject: bare\n\nline\rends\n.\n", EX_OK);
        deliver(&["-f", "sender@example.org", ANN, BOB], b"Subject: both\r\n", EX_OK);
        deliver(&["nobody@example.com"], b"Subject: x\n", EX_NOUSER);
        deliver(&["bob@elsewhere.example"], b"Subject: x\n", EX_NOUSER);
        deliver(&["not an address"], b"Subject: x\n", EX_NOUSER);
        // One exit code covers all recipients: if one is refused, nobody gets the message.
        deliver(&[BOB, "nobody@example.com"], b"Subject: one of two\n", EX_NOUSER);
        deliver(&["not an address", BOB], b"Subject: one of two\n", EX_NOUSER);
        deliver(&[BOB, LITTLE], &b"Subject: one of two\n".repeat(200), EX_CANTCREAT);
        deliver(&["--each", BOB, "nobody@example.com"], b"Subject: one of two\n", EX_NOUSER);
        deliver(&[BOB], &b"too large\n".repeat(7000), EX_DATAERR);
        deliver(&[LITTLE], &b"over quota\n".repeat(200), EX_CANTCREAT);
        deliver(&[], b"Subject: x\n", EX_USAGE);
        deliver(&["--nonsense", BOB], b"Subject: x\n", EX_USAGE);
    };
    let site = site();
    site.add_mailbox(LITTLE);
    site.winpop(&["createquotafile", LITTLE, "/limit:1KiB"]);
    site.winpop(&["set", "maxmessagesize", "64KiB"]);
    let both = &b"Subject: both\r\n"[..];
    stopped_and_running(
        site,
        act,
        &[
            (ANN, &[b"Subject: bare\r\n\r\nline\r\nends\r\n.\r\n", both]),
            (BOB, &[both, b"Subject: one of two\r\n"]),
            (LITTLE, &[]),
        ],
    );
}

#[test]
fn deliver_prints_json_and_keeps_its_exit_codes() {
    let site = site();
    let deliver = |words: &[&str]| {
        let done = site.run_with_input(&[&["deliver", "--json"], words].concat(), b"Subject: x\n");
        assert_eq!(done.errors, "");
        (done.exit_code, done.output)
    };
    let recipients = |name: &str, outcome: &str| {
        format!("{{\"ok\":true,\"recipients\":[{{\"recipient\":\"{name}\",\"outcome\":\"{outcome}\"}}]}}\n")
    };
    assert_eq!(deliver(&[ANN]), (EX_OK, recipients(ANN, "stored")));
    let nobody = "nobody@example.com";
    assert_eq!(deliver(&[nobody]), (EX_NOUSER, recipients(nobody, "no-such-mailbox")));
    for wrong in [&[][..], &["--nonsense", ANN]] {
        let (exit_code, output) = deliver(wrong);
        assert_eq!(exit_code, EX_USAGE);
        assert!(output.starts_with("{\"ok\":false,\"error\":{\"code\":\"usage\","), "{output}");
    }
}

#[test]
fn wrong_usage_is_told_in_json_too() {
    for words in [&["--json", "backup"][..], &["backup", "--json"], &["frobnicate", "--json"]] {
        let done = site().run(words);
        assert_eq!((done.exit_code, done.errors.as_str()), (2, ""), "{done:?}");
        assert!(done.output.starts_with("{\"ok\":false,\"error\":{\"code\":\"usage\","), "{done:?}");
    }
}

#[test]
fn without_a_store_delivery_is_unavailable() {
    let site = Site::without_store();
    assert_exit(&site.run_with_input(&["deliver", BOB], b"Subject: x\n"), EX_UNAVAILABLE);
    assert!(!site.mailroot().exists(), "nothing was made");
}

#[test]
fn while_the_store_is_busy_the_mta_is_asked_to_try_again() {
    let site = site();
    let file = File::open(site.data_file()).unwrap();
    file.try_lock().expect("nobody has it");
    assert_exit(&site.run_with_input(&["deliver", BOB], b"Subject: x\n"), EX_TEMPFAIL);
    file.unlock().unwrap();
    assert_exit(&site.run_with_input(&["deliver", BOB], b"Subject: x\n"), EX_OK);
}

#[test]
fn sendmail_takes_recipients_from_the_header_and_keeps_bcc_to_itself() {
    let message =
        b"From: me\nTo: Ann <ann@example.com>\nBcc: bob@example.com\nSubject: -t\n\nBcc: stays\n.\nend\n";
    let act = |site: &Site| {
        let send = |words: &[&str], content: &[u8]| finish(site.command("sendmail").args(words), content);
        assert_exit(&send(&["-t", "-oi", "-fsender@example.org"], message), EX_OK);
        assert_exit(&send(&["-i", BOB], b"Subject: named\n"), EX_OK);
        assert_exit(&send(&["-t"], b"Subject: nobody\n\n"), EX_DATAERR);
        assert_exit(&send(&["-i"], b"Subject: nobody\n\n"), EX_USAGE);
        assert_exit(&send(&["-bs"], b""), EX_USAGE);
        assert_exit(&send(&["-i", "nobody@example.com"], b"Subject: x\n"), EX_NOUSER);
    };
    let seen = &b"From: me\r\nTo: Ann <ann@example.com>\r\nSubject: -t\r\n\r\nBcc: stays\r\n.\r\nend\r\n"[..];
    stopped_and_running(site(), act, &[(ANN, &[seen]), (BOB, &[seen, b"Subject: named\r\n"])]);
}

#[test]
fn ten_mebibytes_come_whole() {
    let mut random = fastrand::Rng::with_seed(10);
    let mut content = b"Subject: large\n\n".to_vec();
    while content.len() < 10 << 20 {
        let octets = random.usize(0..2000);
        // A third of the lines begin with a dot.
        content.extend_from_slice([&b""[..], b".", b" "][random.usize(0..3)]);
        content.extend(std::iter::repeat_with(|| random.u8(b' '..=b'~')).take(octets));
        content.push(b'\n');
    }
    let act = |site: &Site| {
        assert_exit(&site.run_with_input(&["deliver", ANN, BOB], &content), EX_OK);
    };
    let stored: Vec<u8> = content.split(|&b| b == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
    let site = site();
    act(&site);
    let mut site = site;
    let service = site.start();
    act(&site);
    for mailbox in [ANN, BOB] {
        let contents = service.log_in(mailbox).contents().unwrap();
        // Not with assert_eq, which would print them.
        assert!(contents.len() == 2 && contents.iter().all(|content| *content == stored), "{mailbox}");
    }
    service.stop();
    site.assert_clean();
}
