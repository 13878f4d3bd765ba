//! mbox files: messages behind lines that begin with `From `, and the fields in which their server kept its own notes.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use super::ids::{Facts, unique_id};
use super::{Item, not_read, time_of};
use crate::admin::reply::Refusal;

/// Dovecot's ids; those of UW IMAP are `%08Xv%08Xu`.
const DEFAULT_FORMAT: &str = "%08Xu%08Xv";
/// Fields that Dovecot and UW IMAP keep for themselves and do not show to a client.
const OWN_FIELDS: [&str; 7] =
    ["x-imapbase", "x-imap", "x-uid", "status", "x-status", "x-keywords", "content-length"];
/// The subject of the first message of UW IMAP, which is none.
const PSEUDO_SUBJECT: &str = "DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA";

/// What is noted of a message while its header goes by.
#[derive(Default)]
struct Noted {
    begin: u64,
    is_in_header: bool,
    own_id: Option<String>,
    uid: Option<u32>,
    is_pseudo: bool,
}

/// The messages of a file, in their order.
pub fn items(path: &Path, uidl: Option<&str>) -> Result<Vec<Item>, Refusal> {
    let failed = |error: std::io::Error| not_read(path, &error);
    let file = File::open(path).map_err(failed)?;
    let received_unix_seconds = time_of(&file.metadata().map_err(failed)?);
    let mut lines = BufReader::new(file);
    let (mut at, mut line) = (0u64, Vec::new());
    let (mut uidvalidity, mut after_empty_line, mut empty_octets) = (None, true, 0);
    let mut noted: Option<Noted> = None;
    let mut items = Vec::new();
    let mut finish = |noted: Option<Noted>, end: u64, uidvalidity: Option<u32>| -> Result<(), Refusal> {
        let Some(noted) = noted.filter(|noted| !noted.is_pseudo) else { return Ok(()) };
        // Dovecot and UW IMAP show an `X-UIDL` only where they have no numbers of their own.
        let facts = Facts { uid: noted.uid, uidvalidity, ..Facts::default() };
        let made = unique_id(uidl.unwrap_or(DEFAULT_FORMAT), &facts)?.or_else(|| noted.own_id.clone());
        items.push(Item {
            file: path.to_owned(),
            part: Some((noted.begin, end.saturating_sub(noted.begin))),
            unique_id: made,
            received_unix_seconds,
        });
        Ok(())
    };
    loop {
        line.clear();
        let octets = lines.read_until(b'\n', &mut line).map_err(failed)? as u64;
        if octets == 0 || after_empty_line && is_separator(&line) {
            // The empty line in front of the next one is not the message's.
            let end = if octets == 0 { at } else { at - empty_octets };
            finish(noted.take(), end, uidvalidity)?;
            if octets == 0 {
                return Ok(items);
            }
            noted = Some(Noted { begin: at + octets, is_in_header: true, ..Noted::default() });
        } else if let Some(noted) = noted.as_mut().filter(|noted| noted.is_in_header) {
            note(&line, noted, &mut uidvalidity);
        }
        at += octets;
        after_empty_line = matches!(&line[..], b"\n" | b"\r\n");
        empty_octets = if after_empty_line { octets } else { 0 };
    }
}

/// `From sender Thu Jan  1 00:00:00 2026`: with weekday, month, day and time, since a text may have lines that begin so too.
fn is_separator(line: &[u8]) -> bool {
    const WEEKDAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let is_day = |word: &[u8]| word.len() <= 2 && word.iter().all(u8::is_ascii_digit);
    let is_time = |word: &[u8]| {
        let parts: Vec<&[u8]> = word.split(|octet| *octet == b':').collect();
        parts.len() >= 2 && parts.iter().all(|part| part.len() <= 2 && part.iter().all(u8::is_ascii_digit))
    };
    let words: Vec<&[u8]> =
        line.trim_ascii_end().split(|octet| *octet == b' ').filter(|word| !word.is_empty()).collect();
    let is_date = |words: &[&[u8]]| {
        WEEKDAYS.contains(&words[0]) && MONTHS.contains(&words[1]) && is_day(words[2]) && is_time(words[3])
    };
    line.starts_with(b"From ") && words.windows(4).any(is_date)
}

fn note(line: &[u8], noted: &mut Noted, uidvalidity: &mut Option<u32>) {
    let text = String::from_utf8_lossy(line);
    let Some((name, value)) = text.split_once(':') else {
        noted.is_in_header = !text.trim_end_matches(['\r', '\n']).is_empty();
        return;
    };
    let value = value.trim();
    match name.to_ascii_lowercase().as_str() {
        "x-imapbase" | "x-imap" => *uidvalidity = value.split(' ').next().and_then(|v| v.parse().ok()),
        "x-uid" => noted.uid = value.parse().ok(),
        "x-uidl" => noted.own_id = Some(value.to_owned()),
        "subject" => noted.is_pseudo = value == PSEUDO_SUBJECT,
        _ => {}
    }
}

/// The message as its server showed it: without the fields that it kept for itself.
pub fn without_its_fields(text: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let (mut is_header, mut is_dropped) = (true, false);
    let mut rest = text;
    while is_header && !rest.is_empty() {
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let line = &rest[..end];
        rest = &rest[end..];
        is_header = !matches!(line, b"\n" | b"\r\n");
        let is_continuation = line.starts_with(b" ") || line.starts_with(b"\t");
        if !is_continuation {
            let name = line.split(|octet| *octet == b':').next().unwrap_or_default().to_ascii_lowercase();
            is_dropped = OWN_FIELDS.iter().any(|field| field.as_bytes() == name);
        }
        if !is_dropped {
            kept.extend_from_slice(line);
        }
    }
    kept.extend_from_slice(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_parted_where_a_from_line_follows_an_empty_one() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("mbox");
        let text = "From a Thu Jan  1 00:00:00 2026\nX-IMAPbase: 255 2\nX-UID: 1\nSubject: one\nX-UIDL: other\n\nFrom here on\n\nFrom now on it is at 10:30 daily\n\n\
                    From b Thu Jan  1 00:00:00 2026\nSubject: two\nX-UIDL: own\nStatus: RO\n\n>From x\nFrom y\n\nFrom c x Thu Jan  1 00:00 2026\nA: b\n";
        std::fs::write(&path, text).unwrap();
        let items = items(&path, None).unwrap();
        let texts: Vec<String> = items
            .iter()
            .map(|item| {
                let (from, octets) = item.part.unwrap();
                let part = &text.as_bytes()[from as usize..(from + octets) as usize];
                String::from_utf8(without_its_fields(part)).unwrap()
            })
            .collect();
        assert_eq!(
            texts,
            [
                "Subject: one\nX-UIDL: other\n\nFrom here on\n\nFrom now on it is at 10:30 daily\n",
                "Subject: two\nX-UIDL: own\n\n>From x\nFrom y\n",
                "A: b\n"
            ]
        );
        let ids: Vec<Option<&str>> = items.iter().map(|item| item.unique_id.as_deref()).collect();
        assert_eq!(ids, [Some("00000001000000ff"), Some("own"), None]);
    }
}
