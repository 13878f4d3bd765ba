//! Maildirs of Dovecot (`dovecot-uidlist`), Courier (`courierpop3dsizelist`) and others, whose ids are file names.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use super::files::{Item, files_in, not_read};
use super::ids::{Facts, unique_id};
use crate::admin::reply::Refusal;

/// Dovecot's default for `pop3_uidl_format`.
const DOVECOT_FORMAT: &str = "%08Xu%08Xv";
/// The end of the year 9999, in Unix time.
const SECONDS_MAX: u64 = 253_402_300_799;

/// The messages in `cur` and `new`, in the order POP3 showed them.
pub fn items(directory: &Path, uidl: Option<&str>) -> Result<Vec<Item>, Refusal> {
    let mut files = files_in(&directory.join("cur"))?;
    files.extend(files_in(&directory.join("new"))?);
    let text = |name: &str| {
        let path = directory.join(name);
        match fs::read(&path) {
            Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(not_read(&path, &error)),
        }
    };
    let mut ordered: Vec<((u64, u64, String), Item)> = Vec::new();
    let dovecot = text("dovecot-uidlist")?.map(|text| Dovecot::read(&text));
    let courier = text("courierpop3dsizelist")?.map(|text| courier_ids(&text));
    // Names that begin with a dot are not messages (maildir(5)).
    for (file, time, name) in files.into_iter().filter(|(_, _, name)| !name.starts_with('.')) {
        let base = base_name(&name).to_owned();
        let received_unix_seconds = time_in_name(&base).unwrap_or(time);
        let (place, unique_id) = match (&dovecot, &courier) {
            (Some(dovecot), _) => dovecot.place_and_id(&base, uidl)?,
            (None, Some(ids)) if uidl.is_none() => {
                ((0, received_unix_seconds), ids.get(&name).or_else(|| ids.get(&base)).cloned())
            }
            _ => {
                let facts = Facts { name: &base, ..Facts::default() };
                ((0, received_unix_seconds), unique_id(uidl.unwrap_or("%f"), &facts)?)
            }
        };
        let item = Item { file, part: None, unique_id, received_unix_seconds };
        ordered.push(((place.0, place.1, base), item));
    }
    ordered.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(ordered.into_iter().map(|(_, item)| item).collect())
}

/// The name without its flags.
fn base_name(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// The Unix time at the start of a name, if it is plausible.
fn time_in_name(base: &str) -> Option<u64> {
    base.split('.').next()?.parse().ok().filter(|seconds| *seconds <= SECONDS_MAX)
}

/// The contents of `dovecot-uidlist`. Version 3: `3 V<uidvalidity> N<next> …`, then `<uid> [<key><value> …] :<file
/// name>`; version 1: `1 <uidvalidity> <next>`, then `<uid> <file name>`.
#[derive(Default)]
struct Dovecot {
    uidvalidity: Option<u32>,
    entries: HashMap<String, Listed>,
}

#[derive(Default)]
struct Listed {
    uid: u32,
    /// P: the id shown by POP3; if empty, the file name.
    id: Option<String>,
    /// O: the POP3 order; messages with it come first.
    order: Option<u64>,
    guid: Option<String>,
}

impl Dovecot {
    fn read(text: &str) -> Self {
        let mut lines = text.lines();
        let mut read = Self::default();
        let head = lines.next().unwrap_or_default();
        let is_of_version_1 = head.starts_with("1 ");
        read.uidvalidity = match is_of_version_1 {
            true => head.split(' ').nth(1).and_then(|word| word.parse().ok()),
            false => head.split(' ').find_map(|word| word.strip_prefix('V')?.parse().ok()),
        };
        for line in lines {
            let parts = line.split_once(if is_of_version_1 { " " } else { " :" });
            let Some((before, name)) = parts else { continue };
            let mut words = before.split(' ');
            let Some(uid) = words.next().and_then(|uid| uid.parse().ok()) else { continue };
            let mut listed = Listed { uid, ..Listed::default() };
            for word in words {
                match word.split_at_checked(1) {
                    Some(("P", id)) => listed.id = Some(id.to_owned()),
                    Some(("O", order)) => listed.order = order.parse().ok(),
                    Some(("G", guid)) => listed.guid = Some(guid.to_owned()),
                    _ => {}
                }
            }
            read.entries.insert(base_name(name).to_owned(), listed);
        }
        read
    }

    /// A message that Dovecot has not seen comes last and has no id.
    fn place_and_id(&self, base: &str, uidl: Option<&str>) -> Result<((u64, u64), Option<String>), Refusal> {
        let Some(listed) = self.entries.get(base) else { return Ok(((2, u64::MAX), None)) };
        let place = match listed.order {
            Some(order) => (0, order),
            None => (1, listed.uid.into()),
        };
        let id = match listed.id.as_deref() {
            Some("") => Some(base.to_owned()),
            Some(id) => Some(id.to_owned()),
            None => {
                let guid = listed.guid.as_deref().or(Some(base));
                let (uid, uidvalidity) = (Some(listed.uid), self.uidvalidity);
                unique_id(uidl.unwrap_or(DOVECOT_FORMAT), &Facts { name: base, uid, uidvalidity, guid })?
            }
        };
        Ok((place, id))
    }
}

/// The contents of `courierpop3dsizelist`: `/2 <next> <uidvalidity>` or `/1 <next>`, then `<file> <size>
/// <n>:<uidvalidity>`; without a first line of that kind `<file> <size>`, and the id is the name.
fn courier_ids(text: &str) -> HashMap<String, String> {
    let mut ids = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('/')) {
        let mut words = line.split(' ');
        let (Some(name), Some(_size)) = (words.next(), words.next()) else { continue };
        let Some(number) = words.next() else {
            ids.insert(base_name(name).to_owned(), name_as_id(base_name(name)));
            continue;
        };
        let mut parts = number.split(':');
        let (number, uidvalidity) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("0"));
        let id = match uidvalidity {
            "0" | "" => format!("UID{number}"),
            uidvalidity => format!("UID{number}-{uidvalidity}"),
        };
        ids.insert(base_name(name).to_owned(), id);
    }
    ids
}

fn name_as_id(name: &str) -> String {
    let octet = |octet: u8| match octet {
        b'\'' | b'"' | b'+' => format!("+{octet:02X}"),
        0x21..=0x7e => char::from(octet).to_string(),
        _ => format!("+{octet:02X}"),
    };
    name.bytes().map(octet).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::tests::scratch;

    fn put(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn ids(directory: &Path, uidl: Option<&str>) -> Vec<(String, Option<String>)> {
        let items = items(directory, uidl).unwrap();
        let content = |item: &Item| fs::read_to_string(&item.file).unwrap();
        items.iter().map(|item| (content(item), item.unique_id.clone())).collect()
    }

    #[test]
    fn an_implausible_time_in_a_name_is_ignored() {
        assert_eq!(time_in_name("1800000000.M1P2.host"), Some(1_800_000_000));
        assert_eq!(time_in_name("18446744073709551615.a"), None);
    }

    #[test]
    fn ids_and_order_are_those_of_each_server() {
        let scratch = scratch::directory();
        let directory = scratch.path().join("Maildir");
        for (name, text) in [
            ("cur/30.a:2,S", "a"),
            ("new/20.b", "b"),
            ("cur/10.c:2,", "c"),
            ("new/40.d", "d"),
            ("new/.nfs1", "e"),
        ] {
            put(&directory, name, text);
        }
        fs::create_dir_all(directory.join("tmp")).unwrap();
        let some = |text: &str, id: &str| (text.to_owned(), Some(id.to_owned()));
        // By time, as in qmail.
        assert_eq!(ids(&directory, None)[..2], [some("c", "10.c"), some("b", "20.b")]);
        let courier = put(&directory, "courierpop3dsizelist", "/2 9 77\n10.c 1 5:77\n20.b:2, 1 6:0\n");
        assert_eq!(ids(&directory, None)[..2], [some("c", "UID5-77"), some("b", "UID6")]);
        assert_eq!(ids(&directory, None)[2], ("a".to_owned(), None));
        put(&directory, "dovecot-uidlist", "3 V1 N9 Gabc\n1 S5 W6 :10.c\n2 P :20.b:2,\n3 Pown-id O7 :30.a\n");
        assert_eq!(
            ids(&directory, None),
            [some("a", "own-id"), some("c", "0000000100000001"), some("b", "20.b"), ("d".to_owned(), None)]
        );
        assert_eq!(ids(&directory, Some("%v.%u"))[1], some("c", "1.1"));
        put(&directory, "dovecot-uidlist", "1 171 9\n1 10.c:2,S\n3 20.b\n");
        assert_eq!(
            ids(&directory, None)[..2],
            [some("c", "00000001000000ab"), some("b", "00000003000000ab")]
        );
        fs::remove_file(directory.join("dovecot-uidlist")).unwrap();
        put(&directory, "courierpop3dsizelist", "10.c 1\n20.b+' 1\n");
        assert_eq!(ids(&directory, None)[0], some("c", "10.c"));
        assert_eq!(courier_ids("20.b+' 1\n")["20.b+'"], "20.b+2B+27");
        fs::remove_file(courier).unwrap();
    }
}
