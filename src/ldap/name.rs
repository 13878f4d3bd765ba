//! Distinguished names.

use std::fmt::Write as _;

/// Escapes a value for a distinguished name (RFC 4514 section 2.4).
pub fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (place, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => {
                escaped.push('\\');
                escaped.push(c);
            }
            '#' if place == 0 => escaped.push_str("\\#"),
            ' ' if place == 0 || place == last => escaped.push_str("\\ "),
            c if c.is_ascii_control() => {
                write!(escaped, "\\{:02x}", u32::from(c)).expect("a String takes every write");
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// The DNS domain in the `DC=` components of a name: `corp.example.com` in `OU=Mail,DC=corp,DC=example,DC=com` (RFC
/// 2247 section 2).
pub fn domain_of(dn: &str) -> Option<String> {
    let components = dn.split(',').map(|component| component.trim().split_once('='));
    let labels: Vec<&str> = components
        .flatten()
        .filter(|(attribute, _)| attribute.trim().eq_ignore_ascii_case("dc"))
        .map(|(_, label)| label.trim())
        .collect();
    (!labels.is_empty()).then(|| labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_in_a_name_are_escaped() {
        assert_eq!(escaped("ann@example.com"), "ann@example.com");
        assert_eq!(escaped("a,b+c=d;e<f>g\"h\\i"), "a\\,b\\+c\\=d\\;e\\<f\\>g\\\"h\\\\i");
        assert_eq!(escaped(" #a "), "\\ #a\\ ");
        assert_eq!(escaped("#a#"), "\\#a#");
        assert_eq!(escaped("a\0\n"), "a\\00\\0a");
        assert_eq!(escaped(" "), "\\ ");
        assert_eq!(escaped("é"), "é");
    }

    #[test]
    fn a_base_names_its_domain() {
        assert_eq!(domain_of("OU=Mail, dc=corp,DC=example").as_deref(), Some("corp.example"));
        assert_eq!(domain_of("o=Example"), None);
    }
}
