//! A folder of real mail, delivered in every way and fetched by two clients.

use std::fs;

use super::samples::{Sample, samples};
use super::service::Service;
use crate::harness::programs::have;
use crate::harness::site::Site;

/// The fields that delivery puts in front, in their order.
const TRACE: [&str; 3] = ["Return-Path: <ann@example.org>\r\n", "Delivered-To: ", "Received: "];

#[test]
fn mail_piped_into_deliver_comes_back_as_it_went_in() {
    comes_back("deliver", |_, site, samples| {
        for sample in samples {
            let words = ["deliver", "-f", "ann@example.org", "deliver@example.com"];
            assert_eq!(site.output("pop3svc", &words, &sample.content), "", "{}", sample.name());
        }
    });
}

#[test]
fn mail_sent_by_lmtp_comes_back_as_it_went_in() {
    comes_back("lmtp", |service, site, samples| send(site, "lmtp", &service.port("LMTP"), samples));
}

#[test]
fn mail_sent_by_smtp_comes_back_as_it_went_in() {
    comes_back("smtp", |service, site, samples| send(site, "smtp", &service.port("SMTP"), samples));
}

#[test]
fn mail_with_nul_is_refused_by_smtp() {
    if !have(&["python3"]) {
        return;
    }
    let site = Site::new();
    let service = site.serve();
    site.add_mailbox("smtp@example.com");
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/mail/nul.eml");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/clients/send.py");
    let words = [script, "smtp", &service.port("SMTP"), "smtp@example.com", sample];
    let refused = site.outcome("python3", &words, b"");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("550") && told.contains("NUL"), "{told}");
    assert_eq!(site.messages_in("smtp@example.com"), 0);
    service.end();
}

fn send(site: &Site, protocol: &str, port: &str, samples: &[Sample]) {
    let recipient = format!("{protocol}@example.com");
    let files: Vec<String> = samples.iter().map(|sample| sample.name().into_owned()).collect();
    let words = [protocol, port, &recipient].into_iter().chain(files.iter().map(String::as_str));
    site.python("send.py", &words.collect::<Vec<_>>());
}

/// Sends the samples to the mailbox of that name, and fetches them with `poplib` and with `curl`.
fn comes_back(name: &str, sent: impl Fn(&Service, &Site, &[Sample])) {
    if !have(&["curl", "python3"]) {
        return;
    }
    let site = Site::new();
    let service = site.serve();
    let mailbox = format!("{name}@example.com");
    site.add_mailbox(&mailbox);
    let mut samples = samples(&site);
    samples.retain(|sample| name != "smtp" || !sample.has_nul());
    sent(&service, &site, &samples);
    assert_eq!(site.messages_in(&mailbox), samples.len() as u64);

    let by_poplib = fetched_by_poplib(&site, &service, &mailbox);
    let by_curl = fetched_by_curl(&site, &service, &mailbox, samples.len());
    assert_eq!(by_poplib.len(), samples.len());
    for ((sample, (octets, text)), by_curl) in samples.iter().zip(&by_poplib).zip(&by_curl) {
        assert_eq!(text.len(), *octets, "{} has the octets that LIST says", sample.name());
        // curl cannot say UTF8, so it gets a surrogate for a header in UTF-8: in ASCII, with the same body.
        if header_is_utf8(text) {
            let (header, body) = header_and_body(by_curl);
            assert!(header.is_ascii() && body == header_and_body(text).1, "{} for curl", sample.name());
        } else {
            assert!(text == by_curl, "{} is the same by both clients", sample.name());
        }
        hold(sample, text, &mailbox);
    }
    service.end();
}

fn header_and_body(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.windows(4).position(|octets| octets == b"\r\n\r\n");
    text.split_at(end.map_or(text.len(), |at| at + 4))
}

fn header_is_utf8(text: &[u8]) -> bool {
    let header = header_and_body(text).0;
    !header.is_ascii() && std::str::from_utf8(header).is_ok()
}

/// The size in LIST and the text of each message.
fn fetched_by_poplib(site: &Site, service: &Service, mailbox: &str) -> Vec<(usize, Vec<u8>)> {
    let dir = site.path("by poplib");
    fs::create_dir(&dir).expect("it can be made");
    let port = service.port("POP3");
    let listed = site.python("fetch.py", &[&port, mailbox, "secret", &dir.to_string_lossy()]);
    let message = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [number, octets, _unique_id] = words[..] else { panic!("{line}") };
        let text = fs::read(dir.join(format!("{number}.eml"))).expect("it was written");
        (octets.parse().expect("a number of octets"), text)
    };
    listed.lines().map(message).collect()
}

fn fetched_by_curl(site: &Site, service: &Service, mailbox: &str, count: usize) -> Vec<Vec<u8>> {
    let user = format!("{mailbox}:secret");
    let messages = format!("pop3://127.0.0.1:{}/[1-{count}]", service.port("POP3"));
    site.output("curl", &["-sS", "--user", &user, "-o", "by curl #1", &messages], b"");
    let text = |number| fs::read(site.path(&format!("by curl {number}"))).expect("curl wrote it");
    (1..=count).map(text).collect()
}

/// Checks that the text is the fields added by delivery, followed by the content that was sent, and nothing else.
fn hold(sample: &Sample, text: &[u8], mailbox: &str) {
    let mut content = sample.normalised();
    // smtplib cannot send an empty message: it sends an empty line.
    if content.is_empty() && mailbox.starts_with("smtp@") {
        content.extend(b"\r\n");
    }
    let Some(prefix) = text.strip_suffix(content.as_slice()) else {
        panic!("{} came back as {}", sample.name(), String::from_utf8_lossy(text));
    };
    let prefix = std::str::from_utf8(prefix).expect("the fields of delivery are UTF-8");
    let mut lines: Vec<&str> = prefix.split_inclusive("\r\n").collect();
    lines.retain(|line| !line.starts_with('\t'));
    assert_eq!(lines.len(), TRACE.len(), "{}: {prefix}", sample.name());
    for (line, field) in lines.iter().zip(TRACE) {
        assert!(line.starts_with(field) && line.ends_with("\r\n"), "{}: {prefix}", sample.name());
    }
    assert_eq!(lines[1], format!("Delivered-To: {mailbox}\r\n"));
}
