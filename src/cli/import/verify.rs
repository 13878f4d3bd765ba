//! `import … --verify`: compares what POP3 showed of each mailbox before with what it shows here. Changes nothing.
//!
//! A message is found here by its unique id or else by its text. One that has another id than the mail program knows
//! will be fetched again; one found by neither is missing.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Seek as _};
use std::path::{Path, PathBuf};

use super::files::Item;
use super::seen::{self, Seen};
use super::{Format, memory_file};
use crate::address::Address;
use crate::admin::reply::{Code, Refusal, Reply, SkippedFile, Verified, VerifiedMailbox};
use crate::admin::{ListedMessage, Request};
use crate::cli::carry_out::carry_out;
use crate::cli::commands::Import;
use crate::control::{Answer, Enclosed};
use crate::mailroot::MailRoot;
use crate::message::is_unique_id;
use crate::pop3_client::Listed as OnServer;
use crate::wire::Receiver;

/// The id formats of other servers, most frequent first.
const OF_NUMBERS: [&str; 5] = ["%08Xu%08Xv", "%08Xv%08Xu", "%v.%u", "%u", "UID%u-%v"];
const OF_FILES: [&str; 2] = ["%f", "%b"];

/// The other server's id format, as far as a mail program's list tells: the one that yields the most ids in that list.
pub fn likeliest_uidl(format: Format, path: &Path, seen: &Seen) -> Result<Option<&'static str>, Refusal> {
    let candidates: &[&str] = match format {
        Format::Maildir => &["%08Xu%08Xv", "%v.%u", "%f", "%g", "%Mf", "%08Xv%08Xu", "%u"],
        Format::Mbox => &OF_NUMBERS,
        Format::Eml | Format::Windows => &OF_FILES,
        Format::List => return Ok(None),
    };
    let mut best = None;
    for candidate in candidates {
        let items = format.items(path, Some(candidate), &mut Vec::new())?;
        let ids = items.iter().filter_map(|item| item.unique_id.as_ref());
        let known = ids.filter(|id| seen.contains(id)).count();
        if best.is_none_or(|(most, _)| known > most) {
            best = Some((known, *candidate));
        }
    }
    Ok(best.filter(|(known, _)| *known > 0).map(|(_, candidate)| candidate))
}

pub fn verify(
    typed: &Import,
    format: Format,
    uidl: Option<&str>,
    mailboxes: &[(Address, PathBuf)],
    skipped: Vec<SkippedFile>,
    mailroot: &MailRoot,
) -> Answer {
    let mut verified = Verified { uidl: uidl.map(str::to_owned), skipped, ..Verified::default() };
    for (address, path) in mailboxes {
        let seen = typed.seen.as_deref().map(|file| seen::read(Path::new(file), address)).transpose()?;
        let items = match format.items(path, uidl, &mut verified.skipped) {
            Ok(items) => items,
            Err(refusal) => {
                verified.skipped.push(SkippedFile::new(path, refusal.message));
                continue;
            }
        };
        let before: Vec<Before> = items
            .iter()
            .filter_map(|item| match Before::read(item) {
                Ok(before) => Some(before),
                Err(why) => {
                    verified.skipped.push(SkippedFile::new(&item.file, why));
                    None
                }
            })
            .collect();
        match listed(address, mailroot) {
            Ok(here) => verified.mailboxes.push(compare(address, &before, &here, seen.as_ref())),
            Err(refusal) if refusal.code == Code::NotFound => {
                verified.skipped.push(SkippedFile::new(path, refusal.message));
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(Reply::Verified(verified))
}

/// Compares a mailbox with what the other server lists now. The texts are not fetched, so a message here under another
/// id counts as missing.
pub fn compare_with_server(
    address: &Address,
    there: Vec<OnServer>,
    mailroot: &MailRoot,
) -> Result<VerifiedMailbox, Refusal> {
    let before =
        |message: OnServer| Before { id: message.unique_id, octets: message.octets, text_hash: None };
    let before: Vec<Before> = there.into_iter().map(before).collect();
    Ok(compare(address, &before, &listed(address, mailroot)?, None))
}

/// The messages that an import would find in the mailbox; none if it would make it.
pub fn before_import(
    address: &Address,
    makes: bool,
    mailroot: &MailRoot,
) -> Result<Vec<ListedMessage>, Refusal> {
    match listed(address, mailroot) {
        Err(refusal) if refusal.code == Code::NotFound && makes => Ok(Vec::new()),
        Err(refusal) if refusal.code == Code::NotFound => {
            Err(refusal.with_hint(format!("Add {address} first, or create what is missing with --make")))
        }
        listed => listed,
    }
}

/// A message as its server showed it.
struct Before {
    id: Option<String>,
    octets: u64,
    /// `None` if the text is not available.
    text_hash: Option<[u8; 32]>,
}

impl Before {
    fn read(item: &Item) -> Result<Self, String> {
        let text = item.read()?;
        let id = item.unique_id.clone().filter(|id| is_unique_id(id));
        Ok(Self { id, octets: octets_shown(&text), text_hash: Some(text_hash(&text)) })
    }
}

/// The hash that a message with this text has once it is imported.
pub fn text_hash(text: &[u8]) -> [u8; 32] {
    let mut receiver = Receiver::verbatim();
    receiver.push(text);
    *receiver.finish().expect("a verbatim text is never refused").hash.as_bytes()
}

/// The size that other servers' LIST shows: with each line end as CR LF, and none added at the end.
fn octets_shown(text: &[u8]) -> u64 {
    let bare = |at: usize| at == 0 || text[at - 1] != b'\r';
    text.len() as u64 + memchr::memchr_iter(b'\n', text).filter(|at| bare(*at)).count() as u64
}

/// The messages of the mailbox here.
fn listed(address: &Address, mailroot: &MailRoot) -> Result<Vec<ListedMessage>, Refusal> {
    let mut file = memory_file()?;
    carry_out(Request::Ids { mailbox: address.to_string() }, Enclosed::File(&file), mailroot)?;
    file.rewind().map_err(Refusal::fault)?;
    let lines = BufReader::new(file).lines();
    lines.map(|line| line.map_err(Refusal::fault)?.parse().map_err(Refusal::fault)).collect()
}

fn compare(
    address: &Address,
    before: &[Before],
    here: &[ListedMessage],
    seen: Option<&Seen>,
) -> VerifiedMailbox {
    let ids_before: HashSet<&str> = before.iter().filter_map(|message| message.id.as_deref()).collect();
    let texts_before: HashSet<[u8; 32]> = before.iter().filter_map(|message| message.text_hash).collect();
    let ids_here: HashMap<&str, &ListedMessage> =
        here.iter().map(|message| (message.unique_id.as_str(), message)).collect();
    let texts_here: HashSet<[u8; 32]> = here.iter().map(|message| message.text_hash).collect();
    let is_known = |id: &str| match seen {
        Some(seen) => seen.contains(id),
        None => ids_before.contains(id),
    };
    let mut mailbox = VerifiedMailbox {
        mailbox: address.to_string(),
        before: before.len() as u64,
        here: here.len() as u64,
        in_order: true,
        ..VerifiedMailbox::default()
    };
    for message in here {
        let was_there = ids_before.contains(&*message.unique_id) || texts_before.contains(&message.text_hash);
        match is_known(&message.unique_id) {
            true => mailbox.known += 1,
            false if was_there => mailbox.again += 1,
            false => mailbox.new += 1,
        }
    }
    for message in before {
        match message.id.as_deref().and_then(|id| ids_here.get(id)) {
            Some(here) => mailbox.sizes_differ += u64::from(here.octets != message.octets),
            None => {
                let is_here = message.text_hash.is_some_and(|hash| texts_here.contains(&hash));
                mailbox.missing += u64::from(!is_here);
            }
        }
    }
    let common_before = before.iter().filter_map(|message| message.id.as_deref());
    let common_before = common_before.filter(|id| ids_here.contains_key(id));
    let common_here = here.iter().map(|message| &*message.unique_id).filter(|id| ids_before.contains(id));
    let mut seen_once = HashSet::new();
    mailbox.in_order = common_before.filter(|id| seen_once.insert(*id)).eq(common_here);
    mailbox
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(id: &str, text: u8, octets: u64) -> Before {
        Before { id: Some(id.to_owned()), octets, text_hash: Some([text; 32]) }
    }

    fn here(id: &str, text: u8, octets: u64) -> ListedMessage {
        ListedMessage { unique_id: id.to_owned(), octets, text_hash: [text; 32] }
    }

    fn outcome(before: &[Before], here: &[ListedMessage], seen: Option<&[&str]>) -> [u64; 6] {
        let seen = seen.map(Seen::of);
        let of = compare(&"bob@example.com".parse().unwrap(), before, here, seen.as_ref());
        [of.known, of.again, of.new, of.missing, of.sizes_differ, of.in_order.into()]
    }

    #[test]
    fn what_a_mail_program_fetches_again_is_told_from_what_is_new_or_missing() {
        let two = || [before("a", 1, 10), before("b", 2, 20)];
        assert_eq!(outcome(&two(), &[here("a", 1, 10), here("b", 2, 20)], None), [2, 0, 0, 0, 0, 1]);
        assert_eq!(outcome(&two(), &[here("b", 2, 22), here("a", 1, 10)], None), [2, 0, 0, 0, 1, 0]);
        assert_eq!(outcome(&two(), &[here("a", 1, 10), here("x", 2, 20)], None), [1, 1, 0, 0, 0, 1]);
        assert_eq!(outcome(&two(), &[here("a", 1, 10), here("x", 3, 20)], None), [1, 0, 1, 1, 0, 1]);
        // A mail program that saw one of them under another id.
        assert_eq!(
            outcome(&two(), &[here("a", 1, 10), here("b", 2, 20)], Some(&["a", "c"])),
            [1, 1, 0, 0, 0, 1]
        );
    }

    #[test]
    fn sizes_count_line_ends_as_crlf() {
        for (text, octets) in [("", 0), ("\n", 2), ("a\r\nb\n", 6), ("a\rb", 3), ("a\n\nb", 6)] {
            assert_eq!(octets_shown(text.as_bytes()), octets, "{text:?}");
        }
    }
}
