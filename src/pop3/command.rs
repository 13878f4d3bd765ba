//! Command lines, parsed once.
//!
//! Verbs are accepted in any case, and extra spaces are ignored, except by PASS: its argument is everything after one
//! space, because passwords may contain spaces.

use std::str;

/// What a client asks for.
#[derive(Debug, PartialEq)]
pub enum Command<'a> {
    Capa,
    Quit,
    Noop,
    Utf8,
    /// `None` lists the languages.
    Lang(Option<&'a [u8]>),
    User(&'a [u8]),
    Pass(&'a [u8]),
    Apop {
        name: &'a [u8],
        /// As typed.
        digest: &'a [u8],
    },
    Stls,
    /// Bare AUTH: lists the mechanisms, as Outlook expects.
    Mechanisms,
    Auth {
        mechanism: &'a [u8],
        /// Base64, or `=` for an empty one (RFC 5034 section 4).
        initial: Option<&'a [u8]>,
    },
    Stat,
    Rset,
    Listed(ListedCommand),
}

/// The commands that need the list of messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ListedCommand {
    List(Option<Number>),
    Uidl(Option<Number>),
    Retr(Number),
    Top { number: Number, body_lines: u64 },
    Dele(Number),
}

/// A message number as typed. Anything that is not a number or too large becomes 0, which no message has, so the client
/// gets the same answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(pub u64);

/// Why a line is not a command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Malformed {
    Empty,
    UnknownVerb,
    /// Wrong arguments. Holds the right syntax.
    Usage(&'static str),
}

/// Every verb with its syntax, in the order of RFC 1939 and its extensions.
const SYNTAX: &[(&[u8], &str)] = &[
    (b"USER", "USER name"),
    (b"PASS", "PASS password"),
    (b"QUIT", "QUIT"),
    (b"STAT", "STAT"),
    (b"LIST", "LIST [message]"),
    (b"RETR", "RETR message"),
    (b"DELE", "DELE message"),
    (b"NOOP", "NOOP"),
    (b"RSET", "RSET"),
    (b"TOP", "TOP message lines"),
    (b"UIDL", "UIDL [message]"),
    (b"CAPA", "CAPA"),
    (b"AUTH", "AUTH [mechanism [initial-response]]"),
    (b"UTF8", "UTF8"),
    (b"LANG", "LANG [language]"),
    (b"APOP", "APOP name digest"),
    (b"STLS", "STLS"),
];

impl<'a> Command<'a> {
    pub fn parse(line: &'a [u8]) -> Result<Self, Malformed> {
        let (verb, rest) = match line.iter().position(|&b| b == b' ') {
            Some(at) => (&line[..at], Some(&line[at + 1..])),
            None => (line, None),
        };
        let verb = verb.to_ascii_uppercase();
        let trimmed = rest.unwrap_or_default().trim_ascii();
        let mut words = trimmed.split(|&b| b == b' ').filter(|word| !word.is_empty());

        let command = match (verb.as_slice(), words.next(), words.next(), words.next()) {
            (b"USER", Some(_), _, _) => Command::User(trimmed),
            (b"PASS", _, _, _) if rest.is_some() => Command::Pass(rest.unwrap_or_default()),
            (b"QUIT", None, _, _) => Command::Quit,
            (b"STAT", None, _, _) => Command::Stat,
            (b"NOOP", None, _, _) => Command::Noop,
            (b"RSET", None, _, _) => Command::Rset,
            (b"CAPA", None, _, _) => Command::Capa,
            (b"UTF8", None, _, _) => Command::Utf8,
            (b"LANG", language, None, _) => Command::Lang(language),
            (b"APOP", Some(name), Some(digest), None) => Command::Apop { name, digest },
            (b"STLS", None, _, _) => Command::Stls,
            (b"AUTH", None, _, _) => Command::Mechanisms,
            (b"AUTH", Some(mechanism), initial, None) => Command::Auth { mechanism, initial },
            (b"LIST", number, None, _) => Command::Listed(ListedCommand::List(number.map(Number::parse))),
            (b"UIDL", number, None, _) => Command::Listed(ListedCommand::Uidl(number.map(Number::parse))),
            (b"RETR", Some(number), None, _) => Command::Listed(ListedCommand::Retr(Number::parse(number))),
            (b"DELE", Some(number), None, _) => Command::Listed(ListedCommand::Dele(Number::parse(number))),
            (b"TOP", Some(number), Some(lines), None) => {
                let body_lines = count_of_lines(lines).ok_or(syntax_of(b"TOP"))?;
                Command::Listed(ListedCommand::Top { number: Number::parse(number), body_lines })
            }
            (b"", None, _, _) => return Err(Malformed::Empty),
            (verb, ..) => return Err(syntax_of(verb)),
        };
        Ok(command)
    }
}

impl Number {
    fn parse(typed: &[u8]) -> Self {
        // `u64::from_str` takes a plus sign, RFC 1939 does not.
        let digits = str::from_utf8(typed).ok().filter(|typed| typed.bytes().all(|b| b.is_ascii_digit()));
        Self(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0))
    }
}

/// A count too large for `u64` exceeds any message, so the largest `u64` does as well.
fn count_of_lines(typed: &[u8]) -> Option<u64> {
    typed.iter().try_fold(0u64, |count, b| {
        b.is_ascii_digit().then(|| count.saturating_mul(10).saturating_add(u64::from(b - b'0')))
    })
}

fn syntax_of(verb: &[u8]) -> Malformed {
    match SYNTAX.iter().find(|(known, _)| *known == verb) {
        Some((_, syntax)) => Malformed::Usage(syntax),
        None => Malformed::UnknownVerb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command<'_>, Malformed> {
        Command::parse(line.as_bytes())
    }

    #[test]
    fn every_verb_of_the_table_is_understood_and_counts_its_arguments() {
        for (verb, syntax) in SYNTAX {
            let example = syntax.replace(['[', ']'], "").replace("message", "1").replace("lines", "2");
            assert!(parse(&example).is_ok(), "{example}");
            assert!(parse(&example.to_ascii_lowercase()).is_ok(), "{example}");
            if !matches!(*verb, b"USER" | b"PASS") {
                let one_too_many = format!("{example} more");
                assert_eq!(parse(&one_too_many), Err(Malformed::Usage(syntax)), "{one_too_many}");
            }
            if syntax.contains(' ') && !syntax.contains('[') {
                let bare = str::from_utf8(verb).unwrap();
                assert_eq!(parse(bare), Err(Malformed::Usage(syntax)), "{bare}");
            }
        }
    }

    #[test]
    fn a_number_is_decimal_digits_that_fit() {
        for (typed, number) in [
            ("1", 1),
            ("007", 7),
            ("4294967297", 4294967297),
            ("0", 0),
            ("-1", 0),
            ("+1", 0),
            ("1a", 0),
            ("1.0", 0),
            ("0x1", 0),
            ("99999999999999999999", 0),
        ] {
            assert_eq!(Number::parse(typed.as_bytes()), Number(number), "{typed}");
        }
    }

    #[test]
    fn a_password_is_the_rest_of_the_line_after_one_space() {
        assert_eq!(parse("PASS  two words "), Ok(Command::Pass(b" two words ")));
        assert_eq!(parse("PASS "), Ok(Command::Pass(b"")));
        assert_eq!(parse("PASS"), Err(Malformed::Usage("PASS password")));
    }

    #[test]
    fn a_line_count_that_is_too_large_means_all_lines() {
        let top = |body_lines| Ok(Command::Listed(ListedCommand::Top { number: Number(1), body_lines }));
        assert_eq!(parse("TOP 1 0"), top(0));
        assert_eq!(parse("TOP 1 99999999999999999999"), top(u64::MAX));
        assert_eq!(parse("TOP 1 -1"), Err(Malformed::Usage("TOP message lines")));
    }

    #[test]
    fn extra_spaces_are_ignored_except_at_the_start() {
        assert_eq!(parse("retr  2  "), Ok(Command::Listed(ListedCommand::Retr(Number(2)))));
        assert_eq!(parse("STAT "), Ok(Command::Stat));
        assert_eq!(parse(" STAT"), Err(Malformed::UnknownVerb));
        assert_eq!(parse(""), Err(Malformed::Empty));
        assert_eq!(parse("  "), Err(Malformed::Empty));
    }
}
