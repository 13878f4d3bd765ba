//! What strangers who only connect, stay silent or dawdle can take from everybody else.

use std::fs;

use super::client::Client;
use super::harness::{Service, Site};

const ANN: &str = "ann@example.com";
const BOB: &str = "bob@example.com";

fn line(number: usize) -> String {
    format!("{number} {}\r\n", "x".repeat(70))
}

/// A message of about so many octets that no other message shares.
fn message(number: usize, octets: usize) -> Vec<u8> {
    let line = line(number);
    format!("Subject: {number}\r\n\r\n{}", line.repeat(octets / line.len())).into_bytes()
}

/// An SMTP client that has been told to send its text.
fn sending(service: &Service, recipient: &str) -> Client {
    let mut smtp = service.smtp().unwrap();
    smtp.line().unwrap();
    for command in ["HELO test.example", "MAIL FROM:<>", &format!("RCPT TO:<{recipient}>"), "DATA"] {
        let reply = smtp.ask(command).unwrap();
        assert!(reply.starts_with(['2', '3']), "{command}: {reply}");
    }
    smtp
}

/// Sends the end of a text; the reply to it.
fn end(smtp: &mut Client, text: &[u8]) -> String {
    smtp.send(text).unwrap();
    smtp.ask(".").unwrap()
}

#[test]
fn silent_senders_of_large_messages_hold_up_nobody() {
    const SILENT: usize = 12;
    let mut site = Site::new();
    site.add_mailbox(ANN);
    site.add_mailbox(BOB);
    let service = site.start();
    let mut silent: Vec<Client> = (0..SILENT).map(|_| sending(&service, ANN)).collect();
    for (number, smtp) in silent.iter_mut().enumerate() {
        smtp.send(&message(number, 2 << 20)).unwrap();
    }
    let mut other = sending(&service, BOB);
    let reply = end(&mut other, &message(100, 2 << 20));
    assert!(reply.starts_with("250"), "{reply}");
    let done = site.run_with_input(&["deliver", BOB], &message(101, 2 << 20));
    assert_eq!(done.exit_code, 0, "{done:?}");
    assert!(site.winpop(&["list"]).contains("example.com"));
    let names: Vec<_> =
        fs::read_dir(site.mailroot()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name.to_string_lossy().starts_with("winpop.")), "{names:?}");

    // Half of them go without a word, the others end their messages after all.
    silent.truncate(SILENT / 2);
    for smtp in &mut silent {
        let reply = end(smtp, b"the last line\r\n");
        assert!(reply.starts_with("250"), "{reply}");
    }
    let contents = service.log_in(ANN).contents().unwrap();
    assert_eq!(contents.len(), SILENT / 2);
    for number in 0..SILENT / 2 {
        let whole = [message(number, 2 << 20), b"the last line\r\n".to_vec()].concat();
        assert!(contents.contains(&whole), "message {number} is as it was sent");
    }
    service.stop();
    site.assert_clean();
}

#[test]
fn a_large_message_in_chunks_can_be_dropped_and_another_sent() {
    let mut site = Site::new();
    site.add_mailbox(ANN);
    let service = site.start();
    let mut smtp = service.smtp().unwrap();
    smtp.line().unwrap();
    smtp.ask("HELO test.example").unwrap();
    for (number, is_kept) in [(1, false), (2, true)] {
        for command in ["MAIL FROM:<>", &format!("RCPT TO:<{ANN}>")] {
            assert!(smtp.ask(command).unwrap().starts_with("250"));
        }
        let message = message(number, 1 << 20);
        for chunk in message.chunks(300_000) {
            let mut sent = format!("BDAT {}\r\n", chunk.len()).into_bytes();
            sent.extend_from_slice(chunk);
            smtp.send(&sent).unwrap();
            assert!(smtp.line().unwrap().starts_with("250"));
        }
        let reply = smtp.ask(if is_kept { "BDAT 0 LAST" } else { "RSET" }).unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    assert!(service.log_in(ANN).contents().unwrap() == [message(2, 1 << 20)]);
    service.stop();
    site.assert_clean();
}
