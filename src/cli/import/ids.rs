//! Unique ids as other servers made them, by a format such as Dovecot's `pop3_uidl_format`.

use std::fmt::Write as _;

use crate::admin::reply::{Code, Refusal};

/// What an id can be made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Of the file.
    pub name: &'a str,
    /// Of IMAP.
    pub uid: Option<u32>,
    pub uidvalidity: Option<u32>,
    pub guid: Option<&'a str>,
}

/// The id, or none where something is not known that it is made of.
///
/// | in the format | is |
/// | --- | --- |
/// | `%u`, `%v` | UID and UIDVALIDITY, decimal |
/// | `%08Xu`, `%08Xv` | the same with eight hexadecimal digits, as Dovecot writes them: in lower case |
/// | `%f`, `%b` | the name of the file, and without its last extension |
/// | `%g` | the GUID |
/// | `%%` | a percent sign |
pub fn unique_id(format: &str, facts: &Facts) -> Result<Option<String>, Refusal> {
    let mut id = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        id += before;
        let (number, letters) =
            after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
        let is_hexadecimal = letters.starts_with(['X', 'x']);
        let letters = if is_hexadecimal { &letters[1..] } else { letters };
        let width = number.parse::<usize>().unwrap_or(0).min(16);
        let Some(letter) = letters.chars().next() else { return Err(no_format(format)) };
        rest = &letters[letter.len_utf8()..];
        let known = match letter {
            'u' | 'v' => {
                let value = if letter == 'u' { facts.uid } else { facts.uidvalidity };
                value.map(|value| match is_hexadecimal {
                    true => write!(id, "{value:0width$x}"),
                    false => write!(id, "{value:0width$}"),
                })
            }
            'f' => Some(write!(id, "{}", facts.name)),
            'b' => {
                let stem = facts.name.rsplit_once('.').map_or(facts.name, |(stem, _)| stem);
                Some(write!(id, "{stem}"))
            }
            'g' => facts.guid.map(|guid| write!(id, "{guid}")),
            '%' => Some(write!(id, "%")),
            _ => return Err(no_format(format)),
        };
        if known.is_none() {
            return Ok(None);
        }
    }
    id += rest;
    Ok(Some(id))
}

fn no_format(format: &str) -> Refusal {
    Refusal::new(Code::Usage, format!("\"{format}\" is not a format of unique ids"))
        .with_hint("It is made of %u, %v, %08Xu, %08Xv, %f, %b, %g and other characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_as_other_servers_made_them() {
        let facts = Facts { name: "P3A.eml", uid: Some(26), uidvalidity: Some(0xabcd), guid: Some("g1") };
        for (format, expected) in [
            ("%08Xu%08Xv", "0000001a0000abcd"),
            ("%v.%u", "43981.26"),
            ("UID%u-%v", "UID26-43981"),
            ("%f", "P3A.eml"),
            ("%b", "P3A"),
            ("%g%%", "g1%"),
        ] {
            assert_eq!(unique_id(format, &facts).unwrap().unwrap(), expected, "{format}");
        }
        assert_eq!(unique_id("%u", &Facts::default()).unwrap(), None);
        assert!(unique_id("%q", &facts).is_err() && unique_id("%", &facts).is_err());
    }
}
