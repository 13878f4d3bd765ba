//! `deliver`, also called as `sendmail`: delivers the message on standard input.

use std::io::{self, Read as _};

use mail_parser::MessageParser;

use super::carry_out;
use super::commands::Deliver;
use crate::admin::reply::{Code, Outcome};
use crate::admin::{Refusal, Reply, Submission};
use crate::control::Answer;
use crate::mailroot::MailRoot;

/// Longest message: the largest value of `maxmessagesize`.
const CONTENT_OCTETS_MAX: u64 = 1 << 30;

// sysexits.h
const EX_DATAERR: u8 = 65;
const EX_NOUSER: u8 = 67;
const EX_UNAVAILABLE: u8 = 69;
const EX_CANTCREAT: u8 = 73;
const EX_TEMPFAIL: u8 = 75;

/// Delivers, and returns the exit code too.
pub fn deliver(deliver: Deliver, mailroot: Result<MailRoot, Refusal>) -> (u8, Answer) {
    let mut content = Vec::new();
    let read = io::stdin().lock().take(CONTENT_OCTETS_MAX + 1).read_to_end(&mut content);
    if let Err(error) = read {
        let refusal = Refusal::fault(format!("standard input cannot be read: {error}"));
        return (EX_TEMPFAIL, Err(refusal));
    }
    if content.len() as u64 > CONTENT_OCTETS_MAX {
        let refusal = Refusal::new(Code::Malformed, "the message is larger than 1 GiB");
        return (EX_DATAERR, Err(refusal));
    }
    let mut recipients = deliver.recipients;
    if deliver.to_header {
        recipients.extend(recipients_in_header(&content));
        content = without_bcc(&content);
    }
    if recipients.is_empty() {
        let refusal = Refusal::new(Code::Malformed, "the header names no recipient");
        return (EX_DATAERR, Err(refusal));
    }
    let submission = Submission {
        reverse_path: reverse_path(deliver.from.as_deref().unwrap_or_default()),
        recipients,
        to_each: deliver.each,
        octets: content.len() as u64,
    };
    let answer = mailroot.and_then(|mailroot| carry_out::deliver(submission, &content, &mailroot));
    let code = match &answer {
        Ok(reply) => exit_code(reply),
        Err(refusal) => match refusal.code {
            Code::Malformed => EX_DATAERR,
            Code::NoStore => EX_UNAVAILABLE,
            _ => EX_TEMPFAIL,
        },
    };
    (code, answer)
}

fn reverse_path(typed: &str) -> String {
    typed.trim().trim_start_matches('<').trim_end_matches('>').to_owned()
}

/// One exit code for all recipients. On any code but 0 a mail server bounces or retries the message for all of them;
/// that is why nobody gets it then, unless the caller asked for delivery to each. A temporary failure takes precedence:
/// better that some get the message twice than that others never do.
fn exit_code(reply: &Reply) -> u8 {
    let Reply::Delivered { recipients } = reply else { return EX_UNAVAILABLE };
    let code = |outcome: Outcome| match outcome {
        Outcome::Stored | Outcome::Withheld => 0,
        Outcome::DiskFull => EX_TEMPFAIL,
        Outcome::OverQuota => EX_CANTCREAT,
        Outcome::NoSuchMailbox => EX_NOUSER,
        Outcome::Loop => EX_DATAERR,
    };
    let codes = || recipients.iter().map(|recipient| code(recipient.outcome)).filter(|code| *code != 0);
    codes().find(|code| *code == EX_TEMPFAIL).or_else(|| codes().next()).unwrap_or(0)
}

/// The addresses of To, Cc and Bcc.
fn recipients_in_header(content: &[u8]) -> Vec<String> {
    let Some(message) = MessageParser::new().with_address_headers().parse_headers(content) else {
        return Vec::new();
    };
    [message.to(), message.cc(), message.bcc()]
        .into_iter()
        .flatten()
        .flat_map(|addresses| addresses.iter())
        .filter_map(|address| address.address.as_deref().map(str::to_owned))
        .collect()
}

/// The message without its Bcc fields, which other recipients must not see.
fn without_bcc(content: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(content.len());
    let mut lines = content.split_inclusive(|octet| *octet == b'\n');
    let mut in_bcc = false;
    for line in lines.by_ref() {
        if line == b"\n" || line == b"\r\n" {
            kept.extend_from_slice(line);
            break;
        }
        let is_continuation = line.starts_with(b" ") || line.starts_with(b"\t");
        in_bcc = if is_continuation { in_bcc } else { is_bcc(line) };
        if !in_bcc {
            kept.extend_from_slice(line);
        }
    }
    lines.for_each(|line| kept.extend_from_slice(line));
    kept
}

/// True if the line begins a Bcc field. Blanks may precede the colon (RFC 5322 section 4.5.3).
fn is_bcc(line: &[u8]) -> bool {
    let name = line.split(|octet| *octet == b':').next().filter(|name| name.len() < line.len());
    name.is_some_and(|name| name.trim_ascii_end().eq_ignore_ascii_case(b"bcc"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::reply::Delivered;

    const MESSAGE: &[u8] =
        b"To: Ann <ann@example.com>, bob@example.com\nBcc: carol@example.com,\n dave@example.com\n\
        cc: \"e, e\" <erin@example.com>\nSubject: x\n\nBcc: not a field\n";

    #[test]
    fn recipients_are_found_in_the_header() {
        let found = recipients_in_header(MESSAGE);
        let names = ["ann", "bob", "erin", "carol", "dave"].map(|name| format!("{name}@example.com"));
        assert_eq!(found, names);
    }

    #[test]
    fn bcc_is_removed_with_its_continuations_and_the_body_stays() {
        let kept = String::from_utf8(without_bcc(MESSAGE)).unwrap();
        assert!(!kept.contains("carol") && !kept.contains("dave"));
        assert!(kept.ends_with("Subject: x\n\nBcc: not a field\n"));
        assert!(kept.starts_with("To: Ann <ann@example.com>, bob@example.com\ncc:"));
    }

    /// Every form of Bcc from which recipients are read must also be removed.
    #[test]
    fn bcc_is_removed_in_every_form_in_which_it_is_read() {
        for field in ["Bcc:", "Bcc :", "bcc \t :", "BCC:\n ", "Bcc :\r\n\t", "bCc\t:"] {
            let content = format!("To: ann@example.com\n{field} carol@example.com\nSubject: x\n\nhello\n");
            assert!(
                recipients_in_header(content.as_bytes()).contains(&"carol@example.com".to_owned()),
                "{field:?}"
            );
            let kept = String::from_utf8(without_bcc(content.as_bytes())).unwrap();
            assert_eq!(kept, "To: ann@example.com\nSubject: x\n\nhello\n", "{field:?}");
        }
        for other in ["Bcc-Note: x", "X-Bcc: x", "Bcc", " Bcc: x"] {
            assert!(!is_bcc(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_temporary_failure_takes_precedence_over_a_permanent_one() {
        let reply = |outcomes: &[Outcome]| Reply::Delivered {
            recipients: outcomes
                .iter()
                .map(|outcome| Delivered { recipient: String::new(), outcome: *outcome })
                .collect(),
        };
        assert_eq!(exit_code(&reply(&[Outcome::Stored])), 0);
        assert_eq!(exit_code(&reply(&[Outcome::Stored, Outcome::NoSuchMailbox])), EX_NOUSER);
        assert_eq!(exit_code(&reply(&[Outcome::NoSuchMailbox, Outcome::DiskFull])), EX_TEMPFAIL);
        assert_eq!(exit_code(&reply(&[Outcome::OverQuota])), EX_CANTCREAT);
        assert_eq!(exit_code(&reply(&[Outcome::Withheld, Outcome::NoSuchMailbox])), EX_NOUSER);
    }
}
