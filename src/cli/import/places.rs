//! Finds the mailboxes: one path, or a template such as `/var/vmail/{domain}/{user}/Maildir`.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::not_read;
use crate::address::Address;
use crate::admin::reply::{Code, Refusal, SkippedFile};

const DOMAIN: &str = "{domain}";
const USER: &str = "{user}";
/// How the names of the Windows service's mailbox directories begin and end.
const WINDOWS_MAILBOX: (&str, &str) = ("P3_", ".mbx");

/// The mailboxes and their paths, by name. `typed` is the mailbox or, for a template without a domain, may be the
/// domain. Unreadable directories and malformed names go into `skipped`.
pub fn find(
    path: &str,
    typed: Option<&str>,
    skipped: &mut Vec<SkippedFile>,
) -> Result<Vec<(Address, PathBuf)>, Refusal> {
    if !path.contains(USER) {
        return match typed {
            Some(mailbox) => Ok(vec![(mailbox.parse()?, path.into())]),
            None => Err(Refusal::usage("USER@DOMAIN is missing")
                .with_hint("To import many mailboxes, write {domain} and {user} in the path")),
        };
    }
    let only: Option<Address> = typed.filter(|typed| typed.contains('@')).map(str::parse).transpose()?;
    let domain = match (&only, typed) {
        (Some(only), _) => Some(only.domain.as_str()),
        (None, typed) => typed,
    };
    if domain.is_none() && !path.contains(DOMAIN) {
        return Err(
            Refusal::usage("the path has {user} but no {domain}").with_hint("Name the domain after the path")
        );
    }
    let mut found = Vec::new();
    let begin = if path.starts_with('/') { "/" } else { "." };
    let components: Vec<&str> = path.split('/').filter(|component| !component.is_empty()).collect();
    descend(Path::new(begin), &components, &Named::default(), &mut found, skipped)?;
    let mut mailboxes = Vec::new();
    for (named, path) in found {
        let (Some(user), Some(domain)) = (named.user, named.domain.as_deref().or(domain)) else { continue };
        let address: Address = match format!("{}@{domain}", user_of(&user)).parse() {
            Ok(address) => address,
            Err(malformed) => {
                skipped.push(SkippedFile::new(&path, Refusal::from(malformed).message));
                continue;
            }
        };
        let is_wanted = match &only {
            Some(only) => address == *only,
            None => typed.is_none_or(|typed| address.domain.as_str().eq_ignore_ascii_case(typed)),
        };
        if is_wanted {
            mailboxes.push((address, path));
        }
    }
    if mailboxes.is_empty() {
        if let Some(SkippedFile { file, why }) = skipped.first() {
            return Err(Refusal::new(Code::NotFound, format!("no mailbox was found: {file}: {why}")));
        }
        let of = typed.map_or(String::new(), |typed| format!(" of {typed}"));
        return Err(Refusal::new(Code::NotFound, format!("no mailbox{of} was found at {path}")));
    }
    mailboxes.sort_by_key(|(address, _)| address.to_string());
    Ok(mailboxes)
}

/// The same for the Windows service's mail root, or the directory of one of its domains or mailboxes.
pub fn find_of_windows(
    path: &str,
    typed: Option<&str>,
    skipped: &mut Vec<SkippedFile>,
) -> Result<Vec<(Address, PathBuf)>, Refusal> {
    let (before, after) = WINDOWS_MAILBOX;
    let directory = fs::canonicalize(path).map_err(|error| not_read(Path::new(path), &error))?;
    let name_of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name_of(&directory).unwrap_or_default();
    let domain = match typed.map(|typed| typed.split_once('@').map_or(typed, |(_, domain)| domain)) {
        Some(domain) => Some(domain.to_owned()),
        None => directory.parent().and_then(name_of),
    };
    if let (Some(user), Some(domain)) = (between(&name, before, after), domain) {
        let mailbox = match typed.filter(|typed| typed.contains('@')) {
            Some(mailbox) => mailbox.parse()?,
            None => format!("{user}@{domain}").parse()?,
        };
        return Ok(vec![(mailbox, directory)]);
    }
    let entries = fs::read_dir(&directory).map_err(|error| not_read(&directory, &error))?;
    let mut names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_domain = names.any(|name| between(&name, before, after).is_some());
    let template = format!("{}/", directory.display()) + if is_domain { "" } else { "{domain}/" };
    let meant = typed.or(is_domain.then_some(name.as_str()));
    find(&format!("{template}{before}{{user}}{after}"), meant, skipped).map_err(|refusal| {
        match refusal.code {
            Code::NotFound if skipped.is_empty() => {
                let of = typed.map_or(String::new(), |typed| format!(" of {typed}"));
                let message =
                    format!("no {before}*{after} directory{of} was found in {}", directory.display());
                Refusal::new(Code::NotFound, message)
            }
            _ => refusal,
        }
    })
}

/// The name under which `export` writes a user's mailbox: a mailbox name may contain a slash.
pub fn file_name(user: &str) -> String {
    user.replace('%', "%25").replace('/', "%2F")
}

/// The user whose mailbox has this name.
fn user_of(file_name: &str) -> String {
    file_name.replace("%2F", "/").replace("%25", "%")
}

/// What the names read so far say.
#[derive(Clone, Default)]
struct Named {
    domain: Option<String>,
    user: Option<String>,
}

fn descend(
    at: &Path,
    components: &[&str],
    named: &Named,
    found: &mut Vec<(Named, PathBuf)>,
    skipped: &mut Vec<SkippedFile>,
) -> Result<(), Refusal> {
    let Some((component, rest)) = components.split_first() else {
        if at.exists() {
            found.push((named.clone(), at.to_owned()));
        }
        return Ok(());
    };
    if !component.contains(USER) && !component.contains(DOMAIN) {
        return descend(&at.join(component), rest, named, found, skipped);
    }
    let entries = match fs::read_dir(at) {
        Ok(entries) => entries,
        Err(error) => {
            skipped.push(SkippedFile::new(at, error.to_string()));
            return Ok(());
        }
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') || (!rest.is_empty() && !entry.path().is_dir()) {
            continue;
        }
        if let Some(named) = read_name(&name, component, named)? {
            descend(&entry.path(), rest, &named, found, skipped)?;
        }
    }
    Ok(())
}

/// Matches a name with a component of the template. `None` if it does not fit.
fn read_name(name: &str, component: &str, named: &Named) -> Result<Option<Named>, Refusal> {
    let one = |mark: &str| {
        component.split_once(mark).and_then(|(before, after)| between(name, before, after)).map(str::to_owned)
    };
    let (user, domain) = match (component.find(USER), component.find(DOMAIN)) {
        (Some(user), Some(domain)) => {
            let (first, second) = if user < domain { (USER, DOMAIN) } else { (DOMAIN, USER) };
            let (before, rest) = component.split_once(first).unwrap_or_default();
            let (middle, after) = rest.split_once(second).unwrap_or_default();
            if middle.is_empty() {
                return Err(Refusal::usage("the path needs something between {user} and {domain}"));
            }
            let Some(both) = between(name, before, after) else { return Ok(None) };
            // The separator may occur in a user name, but hardly in a domain name.
            let parts = if user < domain { both.rsplit_once(middle) } else { both.split_once(middle) };
            let Some((first, second)) = parts else { return Ok(None) };
            let (user, domain) = if user < domain { (first, second) } else { (second, first) };
            if user.is_empty() || domain.is_empty() {
                return Ok(None);
            }
            (Some(user.to_owned()), Some(domain.to_owned()))
        }
        (Some(_), None) => (one(USER), None),
        _ => (None, one(DOMAIN)),
    };
    if user.is_none() && domain.is_none() {
        return Ok(None);
    }
    let agrees = |said: &Option<String>, before: &Option<String>| match (said, before) {
        (Some(said), Some(before)) => said.eq_ignore_ascii_case(before),
        _ => true,
    };
    let is_one = agrees(&user, &named.user) && agrees(&domain, &named.domain);
    Ok(is_one.then(|| Named {
        domain: domain.or_else(|| named.domain.clone()),
        user: user.or_else(|| named.user.clone()),
    }))
}

/// The part of a name between the two, ignoring case, as the Windows service does.
fn between<'a>(name: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let end = name.len().checked_sub(after.len()).filter(|end| *end > before.len())?;
    let fits =
        |part: Option<&str>, expected: &str| part.is_some_and(|part| part.eq_ignore_ascii_case(expected));
    let is_between = fits(name.get(..before.len()), before) && fits(name.get(end..), after);
    if is_between { name.get(before.len()..end) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::scratch;

    fn found(root: &Path, template: &str, typed: Option<&str>) -> Vec<String> {
        let mut skipped = Vec::new();
        let found = find(&format!("{}/{template}", root.display()), typed, &mut skipped).unwrap();
        assert!(skipped.iter().all(|skipped| skipped.file.contains("x@y")), "{skipped:?}");
        let line = |(address, path): &(Address, PathBuf)| {
            format!("{address} {}", path.strip_prefix(root).unwrap().display())
        };
        found.iter().map(line).collect()
    }

    #[test]
    fn users_and_domains_are_read_from_names_of_any_shape() {
        let scratch = scratch::directory();
        let root = scratch.path();
        for path in
            ["flat/bob@a.org/in", "flat/x@y@b.org/in", "deep/A.org/Bob", "deep/b.org/eve", "users/a.org_bob"]
        {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        assert_eq!(found(root, "flat/{user}@{domain}/in", None), ["bob@a.org flat/bob@a.org/in"]);
        assert_eq!(
            found(root, "flat/{user}@{domain}/in", Some("bob@A.org")),
            ["bob@a.org flat/bob@a.org/in"]
        );
        assert_eq!(found(root, "users/{domain}_{user}", None), ["bob@a.org users/a.org_bob"]);
        assert_eq!(
            found(root, "deep/{domain}/{user}", None),
            ["bob@a.org deep/A.org/Bob", "eve@b.org deep/b.org/eve"]
        );
        assert_eq!(found(root, "deep/{domain}/{user}", Some("BOB@A.ORG")), ["bob@a.org deep/A.org/Bob"]);
        assert_eq!(found(root, "deep/b.org/{user}", Some("c.org")), ["eve@c.org deep/b.org/eve"]);
        let refused = |template: &str, typed| {
            find(&format!("{}/{template}", root.display()), typed, &mut Vec::new()).is_err()
        };
        assert!(refused("users/{domain}{user}", None) && refused("deep/b.org/{user}", None));
        assert!(refused("deep/{domain}/{user}", Some("nobody@a.org")));
    }

    #[test]
    fn the_name_that_export_writes_is_read_back() {
        for (user, name) in [("a/b", "a%2Fb"), ("a%2Fb", "a%252Fb"), ("a_b", "a_b"), ("50%", "50%25")] {
            assert_eq!((file_name(user).as_str(), user_of(name).as_str()), (name, user));
        }
    }

    #[test]
    fn a_directory_within_the_windows_mail_root_is_accepted_too() {
        let scratch = scratch::directory();
        let root = scratch.path();
        fs::create_dir_all(root.join("Example.org/p3_Ann.MBX")).unwrap();
        fs::create_dir_all(root.join("example.net/P3_eve.mbx")).unwrap();
        let of = |below: &str, typed| {
            let found = find_of_windows(&root.join(below).to_string_lossy(), typed, &mut Vec::new()).unwrap();
            found.into_iter().map(|(address, _)| address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of("", None), ["ann@example.org", "eve@example.net"]);
        assert_eq!(of("", Some("example.ORG")), ["ann@example.org"]);
        assert_eq!(of("Example.org", None), ["ann@example.org"]);
        assert_eq!(of("Example.org", Some("ANN@example.org")), ["ann@example.org"]);
        assert_eq!(of("Example.org/p3_Ann.MBX", None), ["ann@example.org"]);
        assert_eq!(of("Example.org/p3_Ann.MBX", Some("bob@b.org")), ["bob@b.org"]);
        fs::create_dir(root.join("empty")).unwrap();
        let empty = root.join("empty").canonicalize().unwrap();
        for (typed, of) in [(None, ""), (Some("example.org"), " of example.org")] {
            let refusal = find_of_windows(&empty.to_string_lossy(), typed, &mut Vec::new()).unwrap_err();
            assert_eq!(
                refusal.message,
                format!("no P3_*.mbx directory{of} was found in {}", empty.display())
            );
        }
    }
}
