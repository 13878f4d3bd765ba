//! Mail programs' lists of fetched messages: the files of fetchmail, mpop and getmail, or one unique id per line.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use super::files::not_read;
use crate::address::Address;
use crate::admin::reply::{Code, Refusal};

/// The ids of each account. If a file names no accounts, all are under none.
type Accounts = BTreeMap<Option<String>, HashSet<String>>;

/// The ids that a mail program has fetched.
pub struct Seen {
    ids: HashSet<String>,
    /// getmail replaces slashes by dashes.
    has_dashes_for_slashes: bool,
}

impl Seen {
    #[cfg(test)]
    pub fn of(ids: &[&str]) -> Self {
        Self { ids: ids.iter().map(|id| (*id).to_owned()).collect(), has_dashes_for_slashes: false }
    }

    pub fn contains(&self, id: &str) -> bool {
        match self.has_dashes_for_slashes {
            true => self.ids.contains(&id.replace('/', "-")),
            false => self.ids.contains(id),
        }
    }
}

/// The ids of the mailbox: those of the account with its name, or of the only account.
pub fn read(path: &Path, mailbox: &Address) -> Result<Seen, Refusal> {
    let text = fs::read(path).map_err(|error| not_read(path, &error))?;
    let mut accounts = accounts(&String::from_utf8_lossy(&text));
    let is_mailboxs = |account: &Option<String>| {
        let names = [mailbox.to_string(), mailbox.local.to_string()];
        account.as_ref().is_some_and(|account| names.iter().any(|name| name.eq_ignore_ascii_case(account)))
    };
    let wanted: Vec<Option<String>> = match accounts.len() {
        0 | 1 => accounts.keys().cloned().collect(),
        _ => accounts.keys().filter(|account| is_mailboxs(account)).cloned().collect(),
    };
    if wanted.is_empty() {
        let names: Vec<&str> = accounts.keys().flatten().map(String::as_str).collect();
        let of = if names.is_empty() { String::new() } else { format!(", but of {}", names.join(", ")) };
        return Err(Refusal::new(
            Code::NotFound,
            format!("{} has no unique ids of {mailbox}{of}", path.display()),
        )
        .with_hint("Name the file of fetchmail (.fetchids), mpop (uidls) or getmail (oldmail-…)"));
    }
    let ids = wanted.iter().filter_map(|account| accounts.remove(account)).flatten().collect();
    Ok(Seen { ids, has_dashes_for_slashes: text.contains(&0) })
}

/// | program | its file |
/// | --- | --- |
/// | fetchmail | lines `USER@HOST ID` |
/// | mpop | ` COUNT HOST USER`, then a line for each id; remarks begin with `#` |
/// | getmail | lines `ID`, NUL, the time; the account is in the name of the file |
fn accounts(text: &str) -> Accounts {
    let mut accounts = Accounts::new();
    let mut account_of_mpop = None;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (account, id) = if let Some((id, _time)) = line.split_once('\0') {
            (None, id)
        } else if let Some(head) = line.strip_prefix(' ') {
            account_of_mpop = head.splitn(3, ' ').nth(2).map(str::to_owned);
            continue;
        } else if let Some((account, id)) = line.rsplit_once(' ') {
            (Some(account.rsplit_once('@').map_or(account, |(user, _host)| user).to_owned()), id)
        } else {
            (account_of_mpop.clone(), line)
        };
        accounts.entry(account).or_default().insert(id.to_owned());
    }
    accounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::scratch;

    #[test]
    fn ids_are_read_as_each_program_wrote_them() {
        let ids = |text: &str, account: Option<&str>| {
            let accounts = accounts(text);
            let mut ids: Vec<String> = accounts[&account.map(str::to_owned)].iter().cloned().collect();
            ids.sort();
            ids
        };
        let fetchmail = "bob@example.com@127.0.0.1 01\nbob@example.com@127.0.0.1 02\neve@host 03\n";
        assert_eq!(ids(fetchmail, Some("bob@example.com")), ["01", "02"]);
        assert_eq!(ids(fetchmail, Some("eve")), ["03"]);
        let mpop = "# This file\n#\n 2 127.0.0.1 bob@example.com\n01\n02\n 1 host e v\n#3\n";
        assert_eq!(ids(mpop, Some("bob@example.com")), ["01", "02"]);
        assert_eq!(ids("01\x001795704950\n02\x001795704950\n", None), ["01", "02"]);
        assert_eq!(ids("01\n02\n", None), ["01", "02"]);
    }

    #[test]
    fn the_ids_of_an_account_are_found_by_its_name() {
        let directory = scratch::directory();
        let path = directory.path().join("ids");
        let count = |text: &str, mailbox: &str| {
            fs::write(&path, text).unwrap();
            read(&path, &mailbox.parse().unwrap())
                .map(|seen| seen.ids.len())
                .map_err(|refusal| refusal.message)
        };
        let two = "bob@host 1\nbob@host 2\neve@x@host 3\n";
        assert_eq!(count(two, "Bob@example.com"), Ok(2));
        assert_eq!(
            count(two, "eve@x.org").unwrap_err().split("ids of").nth(1),
            Some(" eve@x.org, but of bob, eve@x")
        );
        assert_eq!(count("joe@host 1\n", "bob@example.com"), Ok(1));
        assert!(count("", "bob@example.com").is_err());
        fs::write(&path, "a-b\x001\n").unwrap();
        let seen = read(&path, &"bob@example.com".parse().unwrap()).unwrap();
        assert!(seen.contains("a/b") && seen.contains("a-b") && !seen.contains("ab"));
    }
}
