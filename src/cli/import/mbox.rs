//! mbox files: messages separated by `From ` lines, with header fields for their server's own use.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use time::{Date, Month, Time};

use super::files::{Item, Part, not_read, time_of};
use super::ids::{Facts, unique_id};
use crate::admin::reply::{Code, Refusal};

/// Dovecot's ids; those of UW IMAP are `%08Xv%08Xu`.
const DEFAULT_FORMAT: &str = "%08Xu%08Xv";
/// Fields of Dovecot and UW IMAP that clients never see.
const OWN_FIELDS: [&str; 7] =
    ["x-imapbase", "x-imap", "x-uid", "status", "x-status", "x-keywords", "content-length"];
/// The subject of UW IMAP's pseudo-message, which comes first in its files.
const PSEUDO_SUBJECT: &str = "DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA";

/// The sender in the From lines of our exports, which are followed by the fields [`FIELDS_OF_EXPORT`] and the unchanged
/// text.
pub const SENDER_OF_EXPORT: &str = "pop3svc";
pub const FIELDS_OF_EXPORT: [&str; 2] = ["X-UIDL", "Content-Length"];
/// Longest From line looked for after a message of known length.
const SEPARATOR_OCTETS_MAX: usize = 1024;

/// What is known of a message while its header is read.
#[derive(Default)]
struct Noted {
    begin: u64,
    received_unix_seconds: Option<u64>,
    is_in_header: bool,
    is_of_export: bool,
    /// How many of [`FIELDS_OF_EXPORT`] have been read.
    fields_of_export: usize,
    body_octets: Option<u64>,
    own_id: Option<String>,
    uid: Option<u32>,
    is_pseudo: bool,
}

/// The messages of a file, in order. As in Dovecot, an empty line at the end of a message is not part of it. If a
/// message states its body's length and a message does end there, From lines inside it do not count.
pub fn items(path: &Path, uidl: Option<&str>) -> Result<Vec<Item>, Refusal> {
    let failed = |error: io::Error| not_read(path, &error);
    let file = File::open(path).map_err(failed)?;
    let time_of_file = time_of(&file.metadata().map_err(failed)?);
    let mut lines = BufReader::new(&file);
    let (mut at, mut line) = (0u64, Vec::new());
    let (mut uidvalidity, mut after_empty_line, mut empty_octets) = (None, true, 0);
    let mut noted: Option<Noted> = None;
    let mut items = Vec::new();
    let mut finish = |noted: Option<Noted>, end: u64, uidvalidity: Option<u32>| -> Result<(), Refusal> {
        let Some(noted) = noted.filter(|noted| !noted.is_pseudo) else { return Ok(()) };
        // Dovecot and UW IMAP show `X-UIDL` only if they have no numbers themselves.
        let facts = Facts { uid: noted.uid, uidvalidity, ..Facts::default() };
        let made = unique_id(uidl.unwrap_or(DEFAULT_FORMAT), &facts)?.or_else(|| noted.own_id.clone());
        items.push(Item {
            file: path.to_owned(),
            part: Some(Part {
                at: noted.begin,
                octets: end.saturating_sub(noted.begin),
                has_fields_of_server: !noted.is_of_export,
            }),
            unique_id: made,
            received_unix_seconds: noted.received_unix_seconds.unwrap_or(time_of_file),
        });
        Ok(())
    };
    loop {
        line.clear();
        let octets = lines.read_until(b'\n', &mut line).map_err(failed)? as u64;
        let date = if after_empty_line { date_of_separator(&line) } else { None };
        if octets == 0 || date.is_some() {
            finish(noted.take(), at - empty_octets, uidvalidity)?;
            if octets == 0 {
                return Ok(items);
            }
            noted = Some(Noted {
                begin: at + octets,
                received_unix_seconds: date.and_then(unix_seconds),
                is_in_header: true,
                is_of_export: sender(&line) == SENDER_OF_EXPORT.as_bytes(),
                ..Noted::default()
            });
        } else if let Some(noted) = &mut noted {
            if noted.is_in_header {
                note(&line, noted, at, &mut uidvalidity);
            }
        } else {
            return Err(Refusal::new(Code::Malformed, format!("{} is not an mbox file", path.display()))
                .with_hint(
                    "An mbox file begins with a line like: From bob@example.com Thu Jan  1 00:00:00 2026",
                ));
        }
        at += octets;
        after_empty_line = matches!(&line[..], b"\n" | b"\r\n");
        empty_octets = if after_empty_line { octets } else { 0 };
        // The body begins.
        if let Some(noted) = noted.as_mut().filter(|noted| after_empty_line && !noted.is_in_header)
            && let Some(body) = noted.body_octets.take()
            && at.checked_add(body).is_some_and(|end| is_end(&file, end).unwrap_or(false))
        {
            lines.seek_relative(i64::try_from(body).unwrap_or(i64::MAX)).map_err(failed)?;
            at += body;
            (after_empty_line, empty_octets) = (false, 0);
        }
    }
}

/// True if a message ends there: with an empty line, then a From line or the end of the file.
fn is_end(file: &File, at: u64) -> io::Result<bool> {
    let mut octets = [0; SEPARATOR_OCTETS_MAX];
    let count = file.read_at(&mut octets, at)?;
    let after = octets[..count].strip_prefix(b"\r\n").or_else(|| octets[..count].strip_prefix(b"\n"));
    let line = |after: &[u8]| after.iter().position(|octet| *octet == b'\n').map_or(count, |end| end);
    Ok(after.is_some_and(|after| {
        after.is_empty() || date_of_separator(&after[..line(after).min(after.len())]).is_some()
    }))
}

fn sender(line: &[u8]) -> &[u8] {
    line.split(|octet| *octet == b' ').nth(1).unwrap_or_default()
}

/// The date of a From line, in the format of asctime(3).
struct FromDate<'a> {
    month: u8,
    day: u8,
    /// Hours, minutes and perhaps seconds.
    time: Vec<u8>,
    /// The words after the time: the year, and perhaps a zone before or after it.
    rest: Vec<&'a [u8]>,
}

/// `From sender Thu Jan  1 00:00:00 2026`. Requires weekday, month, day and time, because lines of a text may begin
/// with `From ` too.
fn date_of_separator(line: &[u8]) -> Option<FromDate<'_>> {
    const WEEKDAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let line = line.strip_prefix(b"From ")?.trim_ascii_end();
    let words: Vec<&[u8]> = line.split(|octet| *octet == b' ').filter(|word| !word.is_empty()).collect();
    let number = |word: &[u8]| match word.len() {
        1..=2 => std::str::from_utf8(word).ok()?.parse::<u8>().ok(),
        _ => None,
    };
    (0..words.len().saturating_sub(3)).find_map(|first| {
        let [weekday, month, day, time, rest @ ..] = &words[first..] else { return None };
        let time: Vec<u8> = time.split(|octet| *octet == b':').map(number).collect::<Option<_>>()?;
        let month = MONTHS.iter().position(|name| name == month)? as u8 + 1;
        let is_date = WEEKDAYS.contains(weekday) && (2..=3).contains(&time.len());
        is_date.then_some(FromDate { month, day: number(day)?, time, rest: rest.to_vec() })
    })
}

/// The Unix time. Only numeric zones are understood.
fn unix_seconds(date: FromDate) -> Option<u64> {
    let words: Vec<&str> = date.rest.iter().filter_map(|word| std::str::from_utf8(word).ok()).collect();
    let year = words.iter().find(|word| word.len() == 4)?.parse().ok()?;
    let day = Date::from_calendar_date(year, Month::try_from(date.month).ok()?, date.day).ok()?;
    let second = date.time.get(2).copied().unwrap_or(0);
    let time = Time::from_hms(date.time[0], date.time[1], second.min(59)).ok()?;
    let zone = words.iter().find(|word| word.len() == 5 && word.starts_with(['+', '-']));
    let east = zone.and_then(|zone| zone.parse::<i64>().ok()).unwrap_or(0);
    let seconds_east = (east / 100 * 60 + east % 100) * 60;
    let seconds = day.with_time(time).assume_utc().unix_timestamp() - seconds_east;
    u64::try_from(seconds).ok()
}

/// Takes note of a header line, which begins at offset `at` in the file.
fn note(line: &[u8], noted: &mut Noted, at: u64, uidvalidity: &mut Option<u32>) {
    let text = String::from_utf8_lossy(line);
    let Some((name, value)) = text.split_once(':') else {
        noted.is_in_header = !text.trim_end_matches(['\r', '\n']).is_empty();
        return;
    };
    let value = value.trim();
    if noted.is_of_export {
        if noted.begin != at || FIELDS_OF_EXPORT.get(noted.fields_of_export) != Some(&name) {
            return;
        }
        noted.begin += line.len() as u64;
        noted.fields_of_export += 1;
    }
    match name.to_ascii_lowercase().as_str() {
        "x-imapbase" | "x-imap" => *uidvalidity = value.split(' ').next().and_then(|v| v.parse().ok()),
        "x-uid" => noted.uid = value.parse().ok(),
        "content-length" => noted.body_octets = value.parse().ok(),
        "x-uidl" => noted.own_id = Some(value.to_owned()),
        "subject" => noted.is_pseudo = value == PSEUDO_SUBJECT,
        _ => {}
    }
}

/// The message as its server showed it, without internal fields.
pub fn without_fields_of_server(text: &[u8]) -> Vec<u8> {
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
    use crate::tests::scratch;

    #[test]
    fn a_from_line_after_an_empty_one_begins_a_message() {
        let scratch = scratch::directory();
        let path = scratch.path().join("mbox");
        let text = "From a Thu Jan  1 00:00:00 2026\nX-IMAPbase: 255 2\nX-UID: 1\nSubject: one\nX-UIDL: other\n\nFrom here on\n\nFrom now on it is at 10:30 daily\n\n\
                    From b Thu Jan  1 00:00:00 2026\nSubject: two\nX-UIDL: own\nStatus: RO\n\n>From x\nFrom y\n\nFrom c x Thu Jan  1 00:00 2026\nA: b\n";
        std::fs::write(&path, text).unwrap();
        let items = items(&path, None).unwrap();
        let texts: Vec<String> =
            items.iter().map(|item| String::from_utf8(item.read().unwrap()).unwrap()).collect();
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

    fn read(text: &str) -> Result<Vec<(String, Item)>, Refusal> {
        let scratch = scratch::directory();
        let path = scratch.path().join("mbox");
        std::fs::write(&path, text).unwrap();
        let items = items(&path, None);
        let read = |item: Item| (String::from_utf8(item.read().unwrap()).unwrap(), item);
        items.map(|items| items.into_iter().map(read).collect())
    }

    /// As Dovecot 2.3 does.
    #[test]
    fn an_empty_line_at_the_end_is_not_part_of_the_message() {
        for (text, expected) in [
            ("Subject: a\n\nlast\n\n\n", "Subject: a\n\nlast\n\n"),
            ("Subject: a\n\nlast\n\n", "Subject: a\n\nlast\n"),
            ("Subject: a\n\nlast\n", "Subject: a\n\nlast\n"),
            ("Subject: a\n\nlast", "Subject: a\n\nlast"),
            ("Subject: a\n\n", "Subject: a\n"),
        ] {
            let read = read(&format!("From a Thu Jan  1 00:00:00 2026\n{text}")).unwrap();
            assert_eq!(read.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>(), [expected]);
        }
    }

    #[test]
    fn a_body_of_stated_length_may_contain_from_lines() {
        let from = "From a Thu Jan  1 00:00:00 2026\n";
        let body = format!("one\n\n{from}two\n");
        let with = |octets: usize| {
            format!("{from}Content-Length: {octets}\nA: b\n\n{body}\n{from}Subject: next\n\nx\n")
        };
        let texts = |text: &str| read(text).unwrap().into_iter().map(|(text, _)| text).collect::<Vec<_>>();
        assert_eq!(texts(&with(body.len())), [format!("A: b\n\n{body}"), "Subject: next\n\nx\n".to_owned()]);
        // A wrong length is ignored.
        assert_eq!(texts(&with(body.len() - 1)).len(), 3);
        assert_eq!(texts(&with(usize::MAX)).len(), 3);
    }

    #[test]
    fn an_export_reads_back_unchanged() {
        let text = "From pop3svc Thu Jan  1 00:00:00 2026\nX-UIDL: the-id\nContent-Length: 2\n\
                    X-UIDL: of-the-text\nStatus: R\n\nx\n\n";
        let read = read(text).unwrap();
        assert_eq!(read[0].0, "X-UIDL: of-the-text\nStatus: R\n\nx\n");
        assert_eq!(read[0].1.unique_id.as_deref(), Some("the-id"));
    }

    #[test]
    fn the_time_of_a_message_is_that_of_its_from_line() {
        let time = |line: &str| date_of_separator(line.as_bytes()).and_then(unix_seconds);
        assert_eq!(time("From a@b Thu Jan  1 00:00:10 1970\n"), Some(10));
        assert_eq!(time("From a b c Thu Jan  1 01:00 1970 +0100\n"), Some(0));
        assert_eq!(time("From a Thu Jan  1 00:00:10 MET 1970\n"), Some(10));
        assert_eq!(time("From a Thu Jan  1 00:00:10\n"), None);
        assert_eq!(time("From a Thu Feb 30 00:00:10 2000\n"), None);
        assert!(date_of_separator(b"From now on it is at 10:30 daily\n").is_none());
        assert_eq!(read("From a Thu Jan  1 00:00:10 1970\n\n").unwrap()[0].1.received_unix_seconds, 10);
    }

    #[test]
    fn a_file_that_is_not_an_mbox_is_refused() {
        assert_eq!(read("").unwrap().len(), 0);
        for text in ["Subject: a\n\nFrom a Thu Jan  1 00:00:00 2026\n", "\n\n", "From me to you\n"] {
            assert_eq!(read(text).err().unwrap().code, Code::Malformed, "{text}");
        }
    }
}
