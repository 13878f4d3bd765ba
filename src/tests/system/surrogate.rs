//! A client that did not send UTF8 gets surrogates, in STAT, LIST, RETR and TOP alike, and only for messages that need
//! them.

use super::client::{Pop3, without_trace};
use crate::harness::PASSWORD;
use crate::harness::site::Site;

const ANN: &str = "ann@example.com";
const RAW: &str = "Subject: Grüße\r\n\r\nSchöne Grüße\r\n.\r\n";
const SURROGATE: &str = "Subject: =?utf-8?B?R3LDvMOfZQ==?=\r\n\r\nSchöne Grüße\r\n.\r\n";

/// The octets in STAT and, for each message, its line of LIST, Return-Path and text.
fn seen(port: u16, utf8: bool) -> (u64, Vec<(String, Option<String>, String)>) {
    let mut session = Pop3::connect(port).unwrap();
    if utf8 {
        assert!(session.ask("UTF8").unwrap().starts_with("+OK"));
    }
    let reply = session.log_in(ANN, PASSWORD).unwrap();
    assert!(reply.starts_with("+OK"), "{reply}");
    let stat = session.ask("STAT").unwrap();
    let listed = session.octets().unwrap();
    let messages = listed.into_iter().enumerate().map(|(index, octets)| {
        let lines = session.lines(&format!("RETR {}", index + 1)).unwrap();
        let lines: Vec<Vec<u8>> =
            lines.iter().map(|line| line.strip_prefix(b".").unwrap_or(line).to_vec()).collect();
        let whole: usize = lines.iter().map(|line| line.len() + 2).sum();
        assert_eq!(whole.to_string(), octets, "LIST says what RETR gives");
        let top = session.lines(&format!("TOP {} 100", index + 1)).unwrap();
        assert_eq!(top.len(), lines.len());
        let (trace, text) = without_trace(&lines);
        let path =
            trace.strip_prefix("Return-Path: ").and_then(|rest| rest.split("\r\n").next()).map(str::to_owned);
        (octets, path, String::from_utf8(text).unwrap())
    });
    let messages: Vec<_> = messages.collect();
    session.quit().unwrap();
    let octets = stat.rsplit(' ').next().unwrap().parse().unwrap();
    let sum: u64 = messages.iter().map(|(octets, ..)| octets.parse::<u64>().unwrap()).sum();
    assert_eq!(octets, sum, "STAT says the sum of LIST: {stat}");
    (octets, messages)
}

#[test]
fn a_client_without_utf8_gets_surrogates_that_fit_their_counts() {
    let mut site = Site::new();
    site.add_mailbox(ANN);
    let plain = "Subject: plain\r\n\r\nSchöne Grüße\r\n";
    let service = site.start();
    service.lmtp().store(ANN, RAW.as_bytes());
    service.lmtp().store(ANN, plain.as_bytes());
    let mut smtp = service.smtp().unwrap();
    smtp.line().unwrap();
    smtp.send(
        "EHLO x\r\nMAIL FROM:<jörg@example.org> SMTPUTF8\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n".as_bytes(),
    )
    .unwrap();
    while !smtp.line().unwrap().starts_with("354") {}
    smtp.send(format!("{plain}.\r\n").as_bytes()).unwrap();
    assert!(smtp.line().unwrap().starts_with("250"));

    let port = service.ports().pop3;
    let (_, old) = seen(port, false);
    let texts: Vec<&str> = old.iter().map(|(_, _, text)| text.as_str()).collect();
    assert_eq!(texts, [SURROGATE, plain, plain]);
    assert_eq!(old[2].1, None, "an address that cannot be shown is left out");
    let (_, new) = seen(port, true);
    let texts: Vec<&str> = new.iter().map(|(_, _, text)| text.as_str()).collect();
    assert_eq!(texts, [RAW, plain, plain]);
    assert_eq!(new[2].1.as_deref(), Some("<jörg@example.org>"));
    assert_eq!(old[1], new[1], "what is ASCII is the same for both");
    assert_eq!(
        new[0].0.parse::<usize>().unwrap() - RAW.len(),
        old[0].0.parse::<usize>().unwrap() - SURROGATE.len()
    );

    // Deletion reduces the counts again.
    let mut session = service.log_in(ANN);
    (1..=3).for_each(|number| session.delete(number).unwrap());
    session.quit().unwrap();
    assert_eq!(seen(port, false), (0, vec![]));
    service.stop();
    site.assert_clean();
}
