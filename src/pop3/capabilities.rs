//! The lists that CAPA, bare AUTH and LANG give.

use super::reply::{ok, reply};
use super::{Channel, Policy, TERMINATOR, mechanism};

/// The languages of our replies (RFC 6856 section 3): tag, and the language's own name for itself. `i-default` (RFC
/// 2277 section 4.5) is the one everybody is presumed to read.
const LANGUAGES: &[(&str, &str)] = &[("en", "English"), ("i-default", "English, the default")];

/// The list is the same before and after login, as each capability's definition says (RFC 2449 section 6; RFC 2595
/// section 4 for STLS, although the command only works before). A difference would look like an attack.
///
/// Under TLS it differs: STLS goes, and USER and the mechanisms that send the password may come. A client asks again
/// after STLS (RFC 2595 section 4).
pub fn write_capabilities(policy: &Policy, out: &mut Vec<u8>) {
    let takes_passwords = mechanism::password_hindrance(policy).is_none();
    let mut lines = vec!["TOP".to_owned()];
    if takes_passwords {
        lines.push("USER".to_owned());
    }
    // With an account directory and without TLS, none is left.
    let mechanisms = mechanism::offered(policy);
    if !mechanisms.is_empty() {
        lines.push(format!("SASL {}", mechanisms.join(" ")));
    }
    if policy.channel == (Channel::Clear { stls_offered: true }) {
        lines.push("STLS".to_owned());
    }
    lines.push("RESP-CODES".to_owned());
    lines.push("AUTH-RESP-CODE".to_owned());
    if policy.login_delay_seconds > 0 {
        lines.push(format!("LOGIN-DELAY {}", policy.login_delay_seconds));
    }
    lines.push("PIPELINING".to_owned());
    lines.push(match policy.expire_days {
        Some(days) => format!("EXPIRE {days}"),
        None => "EXPIRE NEVER".to_owned(),
    });
    lines.push("UIDL".to_owned());
    // The argument says that USER and PASS take UTF-8 (RFC 6856 section 2.2).
    lines.push(if takes_passwords { "UTF8 USER" } else { "UTF8" }.to_owned());
    lines.push("LANG".to_owned());
    lines.push("IMPLEMENTATION pop3svc".to_owned());
    write_listing("capability list follows", &lines, out);
}

/// One mechanism a line, as Outlook asks for them.
pub fn write_mechanisms(policy: &Policy, out: &mut Vec<u8>) {
    write_listing("mechanisms follow", &mechanism::offered(policy), out);
}

pub fn write_languages(out: &mut Vec<u8>) {
    let lines: Vec<String> = LANGUAGES.iter().map(|(tag, name)| format!("{tag} {name}")).collect();
    write_listing("languages follow", &lines, out);
}

/// The tag for a client's language range (RFC 4647 section 2.1): `*` leaves the choice to us, and `en-GB` accepts `en`.
pub fn language_for(range: &[u8]) -> Option<&'static str> {
    if range == b"*" {
        return Some(LANGUAGES[0].0);
    }
    let matches = |tag: &str| match range.split_at_checked(tag.len()) {
        Some((front, rest)) => {
            front.eq_ignore_ascii_case(tag.as_bytes()) && (rest.is_empty() || rest[0] == b'-')
        }
        None => false,
    };
    LANGUAGES.iter().map(|(tag, _)| *tag).find(|tag| matches(tag))
}

fn write_listing(title: &str, lines: &[impl AsRef<str>], out: &mut Vec<u8>) {
    ok(out, format_args!("{title}"));
    for line in lines {
        reply(out, format_args!("{}", line.as_ref()));
    }
    out.extend_from_slice(TERMINATOR);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_range_finds_its_language() {
        for (range, tag) in [
            ("en", Some("en")),
            ("EN-gb", Some("en")),
            ("*", Some("en")),
            ("i-default", Some("i-default")),
            ("de", None),
            ("eng", None),
            ("e", None),
        ] {
            assert_eq!(language_for(range.as_bytes()), tag, "{range}");
        }
    }
}
