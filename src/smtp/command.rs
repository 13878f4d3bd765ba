//! Parses command lines.
//!
//! `smtp-proto` parses verbs, names and parameters. Version 0.2.5 is too lenient for a server that faces strangers, so
//! we check first what it gets wrong:
//! - it drops CR anywhere, so lines with control characters never reach it;
//! - its numbers overflow (`BDAT 184467440737095516155` becomes 5, and the rest of the chunk would run as commands), so
//!   numbers that are too long never reach it;
//! - it unquotes paths, refuses address literals and reads `<Postmaster>` as `<>`, so `path` parses paths;
//! - it ignores anything after `DATA`, `RSET` and `QUIT`.

use smtp_proto::request::parser::Rfc5321Parser;
use smtp_proto::{Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_SMTPUTF8, MailFrom, RcptTo, Request};

use super::path::{self, Path};
use super::reply::{self, Reply};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Hello {
        verb: Hello,
        name: String,
    },
    Mail {
        /// A mailbox or the null path.
        reverse_path: Path,
        /// The announced size in octets (RFC 1870); 0 if none.
        octets: u64,
        smtputf8: bool,
    },
    Rcpt {
        forward_path: Path,
    },
    Data,
    Bdat {
        octets: u64,
        last: bool,
    },
    /// A malformed BDAT. Its chunk follows and cannot be told from commands.
    BdatOfUnknownSize,
    Rset,
    Noop,
    Vrfy,
    Help,
    StartTls,
    Quit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    Ehlo,
    Helo,
    Lhlo,
}

/// Longer numbers may overflow 64 bits.
const DIGITS_MAX: usize = 19;

/// Parses a line without its line end. The error is the reply.
pub fn parse(line: &[u8]) -> Result<Command, Reply> {
    let verb = line.split(|&octet| octet == b' ').next().unwrap_or_default();
    if verb.eq_ignore_ascii_case(b"BDAT") {
        return Ok(bdat(line).unwrap_or(Command::BdatOfUnknownSize));
    }
    let text = text(line).ok_or(reply::NOT_SYNTAX)?;
    let arguments = text[verb.len()..].trim();
    if verb.eq_ignore_ascii_case(b"MAIL") {
        mail(arguments)
    } else if verb.eq_ignore_ascii_case(b"RCPT") {
        rcpt(arguments)
    } else {
        simple(text, arguments)
    }
}

/// The line as text, if it contains no control character and does not begin with a blank.
fn text(line: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(line).ok()?;
    let blank = text.starts_with(' ') || text.is_empty();
    (!blank && !text.chars().any(char::is_control)).then_some(text)
}

fn bdat(line: &[u8]) -> Option<Command> {
    let text = text(line).filter(|text| numbers_fit(text))?;
    match Request::parse(&mut terminated(text).iter()) {
        Ok(Request::Bdat { chunk_size, is_last }) => {
            Some(Command::Bdat { octets: chunk_size as u64, last: is_last })
        }
        _ => None,
    }
}

fn mail(arguments: &str) -> Result<Command, Reply> {
    let path = after_keyword(arguments, "FROM:").ok_or(reply::MAIL_SYNTAX)?;
    let (reverse_path, parameters) = path::parse(path).ok_or(reply::BAD_SENDER)?;
    if matches!(reverse_path, Path::LocalOnly(_)) {
        return Err(reply::BAD_SENDER);
    }
    let parameters = terminated_parameters(parameters)?;
    let given = Rfc5321Parser::new(&mut parameters.iter())
        .mail_from_parameters("".into())
        .map_err(parameter_refused)?;
    let taken = MAIL_BODY_7BIT | MAIL_BODY_8BITMIME | MAIL_SMTPUTF8;
    if given != (MailFrom { size: given.size, flags: given.flags & taken, ..MailFrom::default() }) {
        return Err(reply::UNKNOWN_PARAMETER);
    }
    let smtputf8 = given.flags & MAIL_SMTPUTF8 != 0;
    if !smtputf8 && !reverse_path.is_ascii() {
        return Err(reply::NEEDS_SMTPUTF8);
    }
    Ok(Command::Mail { reverse_path, octets: given.size as u64, smtputf8 })
}

fn rcpt(arguments: &str) -> Result<Command, Reply> {
    let path = after_keyword(arguments, "TO:").ok_or(reply::RCPT_SYNTAX)?;
    let (forward_path, parameters) = path::parse(path).ok_or(reply::BAD_RECIPIENT)?;
    let parameters = terminated_parameters(parameters)?;
    let given = Rfc5321Parser::new(&mut parameters.iter())
        .rcpt_to_parameters("".into())
        .map_err(parameter_refused)?;
    match given == RcptTo::default() {
        true => Ok(Command::Rcpt { forward_path }),
        false => Err(reply::UNKNOWN_PARAMETER),
    }
}

fn simple(text: &str, arguments: &str) -> Result<Command, Reply> {
    let hello = |verb, name: String| Ok(Command::Hello { verb, name });
    let alone = |command| if arguments.is_empty() { Ok(command) } else { Err(reply::NO_ARGUMENT) };
    match Request::parse(&mut terminated(text).iter()) {
        Ok(Request::Ehlo { host }) => hello(Hello::Ehlo, host.into_owned()),
        Ok(Request::Helo { host }) => hello(Hello::Helo, host.into_owned()),
        Ok(Request::Lhlo { host }) => hello(Hello::Lhlo, host.into_owned()),
        Ok(Request::Data) => alone(Command::Data),
        Ok(Request::Rset) => alone(Command::Rset),
        Ok(Request::Quit) => alone(Command::Quit),
        Ok(Request::StartTls) => alone(Command::StartTls),
        Ok(Request::Noop { .. }) => Ok(Command::Noop),
        Ok(Request::Vrfy { .. }) => Ok(Command::Vrfy),
        Ok(Request::Help { .. }) => Ok(Command::Help),
        Ok(_) => Err(reply::NOT_IMPLEMENTED),
        Err(Error::UnknownCommand) => Err(reply::UNKNOWN),
        Err(Error::SyntaxError { syntax }) => Err(match syntax.split(' ').next() {
            Some("EHLO" | "HELO" | "LHLO") => reply::HELLO_SYNTAX,
            Some("VRFY") => reply::ARGUMENT_SYNTAX,
            _ => reply::NOT_IMPLEMENTED,
        }),
        Err(_) => Err(reply::NOT_SYNTAX),
    }
}

/// What follows `keyword`, in any case. Blanks before the path break the grammar but are common.
fn after_keyword<'a>(arguments: &'a str, keyword: &str) -> Option<&'a str> {
    let (typed, path) = arguments.split_at_checked(keyword.len())?;
    let path = path.trim_start();
    (typed.eq_ignore_ascii_case(keyword) && !path.is_empty()).then_some(path)
}

fn terminated_parameters(parameters: &str) -> Result<Vec<u8>, Reply> {
    let apart = parameters.is_empty() || parameters.starts_with(' ');
    match apart && numbers_fit(parameters) {
        true => Ok(terminated(parameters)),
        false => Err(reply::BAD_PARAMETER),
    }
}

fn parameter_refused(error: Error) -> Reply {
    match error {
        Error::UnsupportedParameter { .. } => reply::UNKNOWN_PARAMETER,
        _ => reply::BAD_PARAMETER,
    }
}

fn numbers_fit(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit()).all(|digits| digits.len() <= DIGITS_MAX)
}

/// Appends the line end the parser expects.
fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\r\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(verb: Hello, name: &str) -> Result<Command, Reply> {
        Ok(Command::Hello { verb, name: name.to_owned() })
    }

    #[test]
    fn commands_are_read_in_any_case() {
        assert_eq!(parse(b"eHlO mx.example.org"), name(Hello::Ehlo, "mx.example.org"));
        assert_eq!(parse(b"HELO [192.0.2.1]"), name(Hello::Helo, "[192.0.2.1]"));
        assert_eq!(parse(b"lhlo x "), name(Hello::Lhlo, "x"));
        assert_eq!(parse(b"bdat 12"), Ok(Command::Bdat { octets: 12, last: false }));
        assert_eq!(parse(b"BDAT 0 last"), Ok(Command::Bdat { octets: 0, last: true }));
        assert_eq!(parse(b"noop what ever"), Ok(Command::Noop));
        assert_eq!(
            parse(b"mail from:<> size=10 body=8bitmime smtputf8"),
            Ok(Command::Mail { reverse_path: Path::Null, octets: 10, smtputf8: true })
        );
        assert_eq!(parse(b"RCPT TO: <> "), Ok(Command::Rcpt { forward_path: Path::Null }));
    }

    #[test]
    fn a_chunk_of_uncertain_size_is_of_unknown_size() {
        for line in [
            "BDAT",
            "BDAT ",
            "BDAT -1",
            "BDAT x",
            "BDAT 5x",
            "BDAT 5 LAS",
            "BDAT 18446744073709551615",
            "BDAT 184467440737095516155",
            "BDAT 00000000000000000000000000000000000000005",
            "BDAT 5\r",
            "BDAT 5\0 LAST",
            "BDAT 5 ü\u{85}",
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(Command::BdatOfUnknownSize), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_not_a_command_gets_a_reply_that_says_why() {
        for (line, reply) in [
            (&b""[..], reply::NOT_SYNTAX),
            (b" ", reply::NOT_SYNTAX),
            (b" NOOP", reply::NOT_SYNTAX),
            (b"NO\rOP", reply::NOT_SYNTAX),
            (b"NOOP \xff", reply::NOT_SYNTAX),
            (b"NOOP\0", reply::NOT_SYNTAX),
            (b"XYZZY", reply::UNKNOWN),
            (b"DATADATADATADATA", reply::UNKNOWN),
            (b"DATA now", reply::NO_ARGUMENT),
            (b"EHLO", reply::HELLO_SYNTAX),
            (b"VRFY", reply::ARGUMENT_SYNTAX),
            (b"EXPN", reply::NOT_IMPLEMENTED),
            (b"EXPN list", reply::NOT_IMPLEMENTED),
            (b"AUTH PLAIN AAAA", reply::NOT_IMPLEMENTED),
            (b"AUTH NOSUCH", reply::NOT_IMPLEMENTED),
            (b"ETRN example.com", reply::NOT_IMPLEMENTED),
            (b"MAIL", reply::MAIL_SYNTAX),
            (b"MAIL FROM:", reply::MAIL_SYNTAX),
            (b"MAIL FROM: SIZE=1", reply::BAD_SENDER),
            (b"MAIL FROM:a@b.example>", reply::BAD_SENDER),
            (b"MAIL TO:<a@b.example>", reply::MAIL_SYNTAX),
            (b"MAIL FROM:<a b@c.example>", reply::BAD_SENDER),
            (b"MAIL FROM:<postmaster>", reply::BAD_SENDER),
            (b"MAIL FROM:<a@b.example>SIZE=1", reply::BAD_PARAMETER),
            (b"MAIL FROM:<a@b.example> SIZE=", reply::BAD_PARAMETER),
            (b"MAIL FROM:<a@b.example> SIZE=x", reply::BAD_PARAMETER),
            (b"MAIL FROM:<a@b.example> SIZE=184467440737095516155", reply::BAD_PARAMETER),
            (b"MAIL FROM:<a@b.example> BODY=9BIT", reply::BAD_PARAMETER),
            (b"MAIL FROM:<a@b.example> BODY=BINARYMIME", reply::UNKNOWN_PARAMETER),
            (b"MAIL FROM:<a@b.example> RET=FULL", reply::UNKNOWN_PARAMETER),
            (b"MAIL FROM:<a@b.example> AUTH=<>", reply::UNKNOWN_PARAMETER),
            (b"MAIL FROM:<a@b.example> XYZZY=1", reply::UNKNOWN_PARAMETER),
            (b"RCPT", reply::RCPT_SYNTAX),
            (b"RCPT TO:<a@b", reply::BAD_RECIPIENT),
            (b"RCPT TO:<a@b.example> NOTIFY=NEVER", reply::UNKNOWN_PARAMETER),
            (b"RCPT TO:<a@b.example> ORCPT=rfc822;a@b", reply::UNKNOWN_PARAMETER),
            ("MAIL FROM:<jörg@b.example>".as_bytes(), reply::NEEDS_SMTPUTF8),
            ("MAIL FROM:ü".as_bytes(), reply::BAD_SENDER),
            ("MAIL FROMü<>".as_bytes(), reply::MAIL_SYNTAX),
        ] {
            assert_eq!(parse(line), Err(reply), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn no_line_makes_the_parser_panic() {
        let heads: [&[u8]; 5] = [b"", b"MAIL FROM:<>", b"MAIL FROM:<a@a> ", b"RCPT TO:<a", b"RCPT TO:<a@a> "];
        let words: Vec<&[u8]> = b"EHLO|BDAT|AUTH|ATRN|BURL|<|>|@|a|\"|\\|,|:|[|]|=|;| | |SIZE=|BY=|HOLDUNTIL=|MT-PRIORITY=\
            |ORCPT=|RRVS=|ENVID=+|MTRK=|TRANSID=<|NOTIFY=|-|+|1|99999999999999999999|2020-01-01T00:00:00Z|LAST|\xc3\xbc|\xff"
            .split(|&octet| octet == b'|')
            .collect();
        let mut random = fastrand::Rng::with_seed(5321);
        let mut read = 0;
        for _ in 0..200_000 {
            let mut line = random.choice(heads).unwrap().to_vec();
            (0..random.usize(1..12)).for_each(|_| line.extend_from_slice(random.choice(&words).unwrap()));
            read += usize::from(parse(&line).is_ok());
        }
        assert!(read > 1000, "the lines made are close to commands");
    }
}
