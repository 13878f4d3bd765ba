//! Where the mailboxes lie: one path, or a template such as `/var/vmail/{domain}/{user}/Maildir`.

use std::fs;
use std::path::{Path, PathBuf};

use super::not_read;
use crate::address::Address;
use crate::admin::reply::{Code, Refusal};

const DOMAIN: &str = "{domain}";
const USER: &str = "{user}";

/// The mailboxes and their paths, in the order of their names.
pub fn find(path: &str, mailbox: Option<&str>) -> Result<Vec<(Address, PathBuf)>, Refusal> {
    let is_template = path.contains(USER);
    match (is_template, mailbox) {
        (false, Some(mailbox)) => Ok(vec![(mailbox.parse()?, path.into())]),
        (false, None) => Err(Refusal::new(Code::Usage, "USER@DOMAIN is missing")
            .with_hint("For the mailboxes of many users, write {domain} and {user} into the path")),
        (true, Some(only)) if path.contains(DOMAIN) => {
            let only: Address = only.parse()?;
            let path = path.replace(DOMAIN, only.domain.as_str()).replace(USER, only.local.as_str());
            Ok(vec![(only, path.into())])
        }
        (true, _) => {
            let mut found = Vec::new();
            let begin = if path.starts_with('/') { PathBuf::from("/") } else { PathBuf::from(".") };
            let components: Vec<&str> = path.split('/').filter(|component| !component.is_empty()).collect();
            descend(&begin, &components, None, None, &mut found)?;
            let domain = mailbox.map(str::to_owned);
            let mut mailboxes = Vec::new();
            for Found { domain: of, user, path } in found {
                let Some(of) = of.or_else(|| domain.clone()) else {
                    return Err(Refusal::new(Code::Usage, "the path has {user} and no {domain}"));
                };
                mailboxes.push((format!("{user}@{of}").parse()?, path));
            }
            if mailboxes.is_empty() {
                return Err(Refusal::new(Code::NotFound, format!("there is no mailbox at {path}")));
            }
            mailboxes.sort_by_key(|(address, _): &(Address, PathBuf)| address.to_string());
            Ok(mailboxes)
        }
    }
}

struct Found {
    domain: Option<String>,
    user: String,
    path: PathBuf,
}

fn descend(
    at: &Path,
    components: &[&str],
    domain: Option<&str>,
    user: Option<&str>,
    found: &mut Vec<Found>,
) -> Result<(), Refusal> {
    let Some((component, rest)) = components.split_first() else {
        if let (Some(user), true) = (user, at.exists()) {
            let domain = domain.map(str::to_owned);
            found.push(Found { domain, user: user.to_owned(), path: at.to_owned() });
        }
        return Ok(());
    };
    let Some((mark, (before, after))) =
        [DOMAIN, USER].into_iter().find_map(|mark| component.split_once(mark).map(|around| (mark, around)))
    else {
        return descend(&at.join(component), rest, domain, user, found);
    };
    let entries = match fs::read_dir(at) {
        Ok(entries) => entries,
        Err(error) => return Err(not_read(at, &error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| not_read(at, &error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Names of the Windows service are of any case.
        let folded = name.to_ascii_lowercase();
        let fits = folded.starts_with(&before.to_ascii_lowercase())
            && folded.ends_with(&after.to_ascii_lowercase())
            && name.len() > before.len() + after.len();
        if !fits || name.starts_with('.') || (!rest.is_empty() && !entry.path().is_dir()) {
            continue;
        }
        let value = &name[before.len()..name.len() - after.len()];
        let (domain, user) = if mark == DOMAIN { (Some(value), user) } else { (domain, Some(value)) };
        descend(&entry.path(), rest, domain, user, found)?;
    }
    Ok(())
}
