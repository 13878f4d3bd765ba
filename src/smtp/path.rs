//! Paths: the argument in angle brackets of MAIL and RCPT (RFC 5321 section 4.1.2).
//!
//! Three deviations from the grammar are accepted because legitimate mail contains them: a path without brackets, dots
//! anywhere in a local part, and the empty address literal (`<#@[]>` is the sender of qmail's double bounces).
//!
//! Every path in the grammar parses, even if no mailbox of ours can have that name: `"john doe"@[192.0.2.1]` is
//! answered with "no such mailbox", not "malformed".

/// Longest path in octets, including angle brackets (256, RFC 5321 section 4.5.3.1.3) and source route.
const PATH_OCTETS_MAX: usize = 1024;
/// Longest mailbox in octets: 256 minus the brackets.
const MAILBOX_OCTETS_MAX: usize = 254;

/// A path without brackets and source route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// `<>`
    Null,
    /// `<Postmaster>` and the like.
    LocalOnly(String),
    Mailbox {
        /// As typed.
        text: String,
        /// The local part, unquoted.
        local: String,
        /// A domain name or an address literal, as typed.
        domain: String,
    },
}

impl Path {
    pub fn is_ascii(&self) -> bool {
        match self {
            Path::Null => true,
            Path::LocalOnly(text) | Path::Mailbox { text, .. } => text.is_ascii(),
        }
    }

    /// As typed; empty for the null path.
    pub fn into_text(self) -> String {
        match self {
            Path::Null => String::new(),
            Path::LocalOnly(text) | Path::Mailbox { text, .. } => text,
        }
    }
}

/// Parses the path at the start of `typed`, and returns the parameters after it. `None` if malformed.
///
/// A source route `@a,@b:` is accepted and ignored, as RFC 5321 section 4.1.1.3 and appendix F.2 recommend.
pub fn parse(typed: &str) -> Option<(Path, &str)> {
    let Some(inside) = typed.strip_prefix('<') else { return bare(typed) };
    let inside = match inside.starts_with('@') {
        true => inside.split_once(':').filter(|(route, _)| is_route(route))?.1,
        false => inside,
    };
    if let Some(rest) = inside.strip_prefix('>') {
        let null = typed.starts_with("<>");
        return null.then_some((Path::Null, rest));
    }
    let (path, rest) = mailbox(inside)?;
    let rest = rest.strip_prefix('>')?;
    (typed.len() - rest.len() <= PATH_OCTETS_MAX).then_some((path, rest))
}

/// A path without brackets ends at the first blank outside quotes.
fn bare(typed: &str) -> Option<(Path, &str)> {
    mailbox(typed).filter(|(_, rest)| rest.is_empty() || rest.starts_with(' '))
}

/// The mailbox, or name without domain, at the start of `typed`, and the rest.
fn mailbox(typed: &str) -> Option<(Path, &str)> {
    let (local, after_local) = local_part(typed)?;
    let Some(at_domain) = after_local.strip_prefix('@') else {
        return Some((Path::LocalOnly(local), after_local));
    };
    let (domain, rest) = at_domain.split_at(domain_length(at_domain)?);
    let text = &typed[..typed.len() - rest.len()];
    let path = Path::Mailbox { text: text.to_owned(), local, domain: domain.to_owned() };
    (text.len() <= MAILBOX_OCTETS_MAX).then_some((path, rest))
}

fn is_route(route: &str) -> bool {
    route.split(',').all(|hop| {
        hop.strip_prefix('@').is_some_and(|domain| domain_length(domain).is_some_and(|n| n == domain.len()))
    })
}

/// The unquoted local part, and the rest.
fn local_part(typed: &str) -> Option<(String, &str)> {
    match typed.strip_prefix('"') {
        Some(quoted) => quoted_string(quoted),
        None => {
            let (local, rest) =
                typed.split_at(typed.find(|c| !is_atext(c) && c != '.').unwrap_or(typed.len()));
            (!local.is_empty()).then(|| (local.to_owned(), rest))
        }
    }
}

/// The text of a quoted string after its opening quote, and the rest.
fn quoted_string(typed: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = typed.chars();
    loop {
        match characters.next()? {
            '"' => return Some((text, characters.as_str())),
            '\\' => text.push(characters.next().filter(char::is_ascii)?),
            character => text.push(character),
        }
    }
}

/// Length of the domain name or address literal at the start of `typed`. Checks characters only loosely; `Domain`
/// decides which names can be ours.
fn domain_length(typed: &str) -> Option<usize> {
    if typed.starts_with('[') {
        let end = typed.find(']')?;
        let literal = &typed[1..end];
        let printable = literal.bytes().all(|octet| octet.is_ascii_graphic() && !b"[\\".contains(&octet));
        return printable.then_some(end + 1);
    }
    let is_domain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || !c.is_ascii();
    let length = typed.find(|c| !is_domain(c)).unwrap_or(typed.len());
    let name = &typed[..length];
    let labels = name.strip_suffix('.').unwrap_or(name).split('.');
    labels.into_iter().all(|label| !label.is_empty()).then_some(length)
}

/// A character of an atom (RFC 5322 section 3.2.3, RFC 6531 section 3.3).
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(typed: &str) -> Option<(String, String, String)> {
        match parse(typed)?.0 {
            Path::Mailbox { text, local, domain } => Some((text, local, domain)),
            _ => None,
        }
    }

    #[test]
    fn a_mailbox_is_kept_as_typed_and_known_without_its_quoting() {
        for (typed, text, local, domain) in [
            ("<Bob@Example.com>", "Bob@Example.com", "Bob", "Example.com"),
            ("<\"john doe\"@example.com>", "\"john doe\"@example.com", "john doe", "example.com"),
            ("<\"a@b>\\\"c\"@d.example>", "\"a@b>\\\"c\"@d.example", "a@b>\"c", "d.example"),
            ("<bob@[192.0.2.1]>", "bob@[192.0.2.1]", "bob", "[192.0.2.1]"),
            ("<bob@[IPv6:2001:db8::1]>", "bob@[IPv6:2001:db8::1]", "bob", "[IPv6:2001:db8::1]"),
            ("<@a.example,@b.example:bob@c.example>", "bob@c.example", "bob", "c.example"),
            ("bob@example.com", "bob@example.com", "bob", "example.com"),
            ("\"john doe\"@example.com", "\"john doe\"@example.com", "john doe", "example.com"),
            ("<.bo..b.@example.com>", ".bo..b.@example.com", ".bo..b.", "example.com"),
            ("<#@[]>", "#@[]", "#", "[]"),
            ("<jörg@bücher.example>", "jörg@bücher.example", "jörg", "bücher.example"),
        ] {
            assert_eq!(
                mailbox(typed),
                Some((text.to_owned(), local.to_owned(), domain.to_owned())),
                "{typed}"
            );
        }
    }

    #[test]
    fn null_and_postmaster_are_told_apart() {
        assert_eq!(parse("<> SIZE=1"), Some((Path::Null, " SIZE=1")));
        assert_eq!(parse("<PostMaster>"), Some((Path::LocalOnly("PostMaster".to_owned()), "")));
        assert_eq!(parse("postmaster SIZE=1"), Some((Path::LocalOnly("postmaster".to_owned()), " SIZE=1")));
    }

    #[test]
    fn what_the_grammar_forbids_is_not_a_path() {
        for typed in [
            "",
            "bob@example.com>",
            "bob@example.com,ann@example.com",
            "bob @example.com",
            "<bob@example.com",
            "<bob@>",
            "<@example.com>",
            "<@a.example:>",
            "<@a.example,b.example:bob@c.example>",
            "<bo b@example.com>",
            "<\"bob@example.com>",
            "<bob@example..com>",
            "<bob@exam ple.com>",
            "<bob@[1.2.3.4>",
            "<bob@[a[b]>",
            "<a@b@c>",
            "<<bob@example.com>>",
            &format!("<{}@example.com>", "x".repeat(250)),
        ] {
            assert_eq!(parse(typed).filter(|(_, rest)| rest.is_empty()), None, "{typed}");
        }
    }
}
