//! Unique ids in the formats of other servers, in the notation of Dovecot's `pop3_uidl_format`.

use md5::{Digest as _, Md5};

use crate::admin::reply::Refusal;

/// Maximum width of a field.
const WIDTH_MAX: usize = 255;

/// What ids are made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The file name.
    pub name: &'a str,
    /// IMAP's UID.
    pub uid: Option<u32>,
    pub uidvalidity: Option<u32>,
    pub guid: Option<&'a str>,
}

/// The id, or `None` if a part of it is unknown.
///
/// | in the format | is |
/// | --- | --- |
/// | `%u`, `%v` | UID and UIDVALIDITY |
/// | `%f`, `%b` | the name of the file, and without its last extension |
/// | `%g` | the GUID |
/// | `%%` | a percent sign |
///
/// As in Dovecot's variables, a width may follow the percent sign, to which the value is cut or, if the width begins
/// with 0, padded with zeros; then `X` for hexadecimal digits, `L` or `U` for lower or upper case, `M` for its MD5, `R`
/// for its reverse.
pub fn unique_id(format: &str, facts: &Facts) -> Result<Option<String>, Refusal> {
    let mut id = String::new();
    let mut rest = format;
    let mut is_known = true;
    while let Some((before, after)) = rest.split_once('%') {
        id += before;
        let (width, after) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
        let (modifiers, after) =
            after.split_at(after.find(|c| !MODIFIERS.contains(&c)).unwrap_or(after.len()));
        let mut letters = after.chars();
        let value = match letters.next() {
            Some('u') => facts.uid.map(|uid| uid.to_string()),
            Some('v') => facts.uidvalidity.map(|uidvalidity| uidvalidity.to_string()),
            Some('f') => Some(facts.name.to_owned()),
            Some('b') => Some(facts.name.rsplit_once('.').map_or(facts.name, |(stem, _)| stem).to_owned()),
            Some('g') => facts.guid.map(str::to_owned),
            Some('%') => Some("%".to_owned()),
            _ => return Err(no_format(format)),
        };
        rest = letters.as_str();
        match value {
            Some(value) => id += &in_width(modifiers.chars().fold(value, modified), width),
            // Keep reading, to find mistakes in the rest.
            None => is_known = false,
        }
    }
    id += rest;
    Ok(is_known.then_some(id))
}

const MODIFIERS: [char; 5] = ['X', 'L', 'U', 'M', 'R'];

fn modified(value: String, modifier: char) -> String {
    match modifier {
        'X' => value.parse::<u64>().map_or(value, |number| format!("{number:x}")),
        'L' => value.to_ascii_lowercase(),
        'U' => value.to_ascii_uppercase(),
        'R' => value.chars().rev().collect(),
        _ => hexadecimal(&Md5::digest(value)),
    }
}

fn in_width(value: String, width: &str) -> String {
    let octets = width.parse().unwrap_or(usize::MAX).min(WIDTH_MAX);
    match width.starts_with('0') {
        true => format!("{value:0>octets$}"),
        false if width.is_empty() => value,
        false => value.chars().take(octets).collect(),
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn no_format(format: &str) -> Refusal {
    Refusal::usage(format!("\"{format}\" is not a format of unique ids"))
        .with_hint("It may contain %u, %v, %08Xu, %08Xv, %f, %Mf, %b, %g and other characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_formed_as_other_servers_form_them() {
        let facts = Facts { name: "P3A.eml", uid: Some(26), uidvalidity: Some(0xabcd), guid: Some("g1") };
        for (format, expected) in [
            ("%08Xu%08Xv", "0000001a0000abcd"),
            ("%v.%u", "43981.26"),
            ("UID%u-%v", "UID26-43981"),
            ("%f", "P3A.eml"),
            ("%b", "P3A"),
            ("%g%%", "g1%"),
            // As Dovecot 2.3 makes them.
            ("%05u", "00026"),
            ("%5u", "26"),
            ("%1u", "2"),
            ("%Xu", "1a"),
            ("%Uf", "P3A.EML"),
            ("%Rf", "lme.A3P"),
            ("%Mf", "cea4a53cd99da19b9b3ca1ee3a527b74"),
        ] {
            assert_eq!(unique_id(format, &facts).unwrap().unwrap(), expected, "{format}");
        }
        assert_eq!(unique_id("%u", &Facts::default()).unwrap(), None);
        for bad in ["%q", "%", "%u%q", "%08Nf"] {
            assert!(unique_id(bad, &Facts::default()).is_err(), "{bad}");
        }
    }
}
