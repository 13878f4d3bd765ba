//! The lines that a session writes, and the words in more than one of them.

use std::fmt::Arguments;
use std::io::Write;

use crate::message::Totals;

pub const NO_SUCH_MESSAGE: &str = "no such message";
pub const LOG_IN_FIRST: &str = "log in first";
pub const LOGGED_IN_ALREADY: &str = "only before the login";
pub const WRONG_CREDENTIALS: &str = "[AUTH] wrong name or password";
pub const BAD_RESPONSE: &str = "the response to AUTH is malformed";
/// Behind `[AUTH]` where a password came or was announced with AUTH: RFC 3206 section 5 counts a login in
/// violation of policy among the faults of credentials, and `[SYS/PERM]` would blame the server. Without a
/// code for USER, as the same section asks.
pub const PLAINTEXT_REFUSED: &str = "a password in clear is not accepted on this connection, use TLS";

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

pub fn refuse_plaintext_login(out: &mut Vec<u8>) {
    reply(out, format_args!("-ERR [AUTH] {PLAINTEXT_REFUSED}"));
}

/// The last word of a session that ends well.
pub fn sign_off(out: &mut Vec<u8>) {
    ok(out, format_args!("good bye"));
}
