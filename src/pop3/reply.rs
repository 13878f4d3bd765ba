//! Reply lines, and the texts that occur in several of them.

use std::fmt::Arguments;
use std::io::Write;

use super::mechanism::Hindrance;
use crate::auth::Denial;
use crate::message::Totals;

pub const NO_SUCH_MESSAGE: &str = "no such message";
pub const LOG_IN_FIRST: &str = "log in first";
pub const LOGGED_IN_ALREADY: &str = "only before the login";
pub const WRONG_CREDENTIALS: &str = "[AUTH] wrong name or password";
pub const MAILBOX_REVOKED: &str = "[SYS/PERM] the mailbox was locked or deleted";
pub const SHUTTING_DOWN: &str = "[SYS/TEMP] the service is shutting down, try again later";
pub const BAD_RESPONSE: &str = "the response to AUTH is malformed";

/// The line for a connection that gets no session. `why` is a clause.
pub fn turn_away(why: &str) -> String {
    format!("-ERR [SYS/TEMP] {why}, try again later\r\n")
}

pub fn ok(out: &mut Vec<u8>, text: Arguments<'_>) {
    reply(out, format_args!("+OK {text}"));
}

pub fn refuse(out: &mut Vec<u8>, text: &str) {
    reply(out, format_args!("-ERR {text}"));
}

pub fn reply(out: &mut Vec<u8>, line: Arguments<'_>) {
    write!(out, "{line}\r\n").expect("a Vec takes every write");
}

pub fn report_totals(totals: Totals, out: &mut Vec<u8>) {
    ok(out, format_args!("maildrop has {} messages ({} octets)", totals.messages, totals.octets));
}

/// A login against policy counts as a problem with the credentials (RFC 3206 section 5); `[SYS/PERM]` would blame the
/// server. The same section forbids the code in replies to USER.
pub fn refuse_way(hindrance: Hindrance, out: &mut Vec<u8>) {
    let code = match hindrance {
        Hindrance::PasswordInClear | Hindrance::SpaRequired => "[AUTH]",
        Hindrance::NoSecrets | Hindrance::NoVerifiers => "[SYS/PERM]",
        Hindrance::NotTls => return refuse(out, hindrance.text()),
    };
    reply(out, format_args!("-ERR {code} {}", hindrance.text()));
}

/// The text for a refused exchange.
pub fn text_of(denial: Denial) -> &'static str {
    match denial {
        Denial::Malformed => BAD_RESPONSE,
        Denial::Wrong => WRONG_CREDENTIALS,
        Denial::Channel => "[AUTH] channel binding mismatch: this TLS connection may be intercepted",
        Denial::OldNtlm => "[AUTH] this version of NTLM is not accepted, set the client to NTLMv2",
    }
}

impl Hindrance {
    pub fn text(self) -> &'static str {
        match self {
            Hindrance::PasswordInClear => "passwords in clear are not accepted on this connection, use TLS",
            Hindrance::SpaRequired => {
                "passwords in clear are not accepted, use a challenge-response mechanism"
            }
            Hindrance::NoSecrets => "this login method needs stored passwords, which are not available here",
            Hindrance::NoVerifiers => "passwords are checked elsewhere, use USER and PASS, PLAIN or LOGIN",
            Hindrance::NotTls => "this mechanism needs TLS",
        }
    }
}

/// The reply to QUIT.
pub fn sign_off(out: &mut Vec<u8>) {
    ok(out, format_args!("goodbye"));
}
