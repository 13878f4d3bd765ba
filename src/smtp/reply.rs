//! The table of replies.

use std::fmt::Display;
use std::io::Write;

use super::Ending;
use crate::verdict::{Delivery, Recipient};
use crate::wire::Rejection;

/// A one-line reply: code (RFC 5321 section 4.2), enhanced code (RFC 3463), text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    enhanced: &'static str,
    text: &'static str,
}

const fn reply(code: u16, enhanced: &'static str, text: &'static str) -> Reply {
    Reply { code, enhanced, text }
}

pub const DONE: Reply = reply(250, "2.0.0", "Ok");
pub const SENDER_OK: Reply = reply(250, "2.1.0", "Sender ok");
pub const RECIPIENT_OK: Reply = reply(250, "2.1.5", "Recipient ok");
pub const STORED: Reply = reply(250, "2.0.0", "Message stored");
pub const CHUNK_OK: Reply = reply(250, "2.0.0", "Chunk received");
pub const BYE: Reply = reply(221, "2.0.0", "Bye");
pub const BEGIN_TLS: Reply = reply(220, "2.0.0", "Begin TLS");
pub const HELP: Reply =
    reply(214, "2.0.0", "Commands: MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP (see RFC 5321)");
pub const NOT_VERIFIED: Reply = reply(252, "2.5.0", "Mailboxes are not verified; send the message and see");

pub const NOT_SYNTAX: Reply = reply(500, "5.5.2", "Line not understood");
pub const LINE_TOO_LONG: Reply = reply(500, "5.5.2", "Line too long");
pub const UNKNOWN: Reply = reply(500, "5.5.1", "Unknown command");
pub const NOT_THIS_DIALECT: Reply =
    reply(500, "5.5.1", "Wrong greeting: SMTP uses HELO or EHLO, LMTP uses LHLO");
pub const NOT_IMPLEMENTED: Reply = reply(502, "5.5.1", "Command not implemented");
pub const NO_ARGUMENT: Reply = reply(501, "5.5.4", "This command takes no argument");
pub const HELLO_SYNTAX: Reply = reply(501, "5.5.4", "The client's name is missing or too long");
pub const ARGUMENT_SYNTAX: Reply = reply(501, "5.5.4", "Argument missing or malformed");
pub const MAIL_SYNTAX: Reply = reply(501, "5.5.2", "Write it as MAIL FROM:<address>");
pub const RCPT_SYNTAX: Reply = reply(501, "5.5.2", "Write it as RCPT TO:<address>");
pub const BAD_SENDER: Reply = reply(501, "5.1.7", "Malformed sender address");
pub const BAD_RECIPIENT: Reply = reply(501, "5.1.3", "Malformed recipient address");
pub const BAD_PARAMETER: Reply = reply(501, "5.5.4", "Malformed parameter");
pub const UNKNOWN_PARAMETER: Reply = reply(555, "5.5.4", "Parameter not supported");
pub const NEEDS_SMTPUTF8: Reply = reply(553, "5.6.7", "A non-ASCII address needs MAIL with SMTPUTF8");

pub const HELLO_FIRST: Reply = reply(503, "5.5.1", "Introduce yourself first");
pub const TLS_ALREADY: Reply = reply(503, "5.5.1", "TLS is on already");
pub const MAIL_ALREADY: Reply = reply(503, "5.5.1", "A message is already under way; RSET drops it");
pub const MAIL_FIRST: Reply = reply(503, "5.5.1", "Begin with MAIL");
pub const NO_RECIPIENTS: Reply = reply(503, "5.5.1", "No valid recipients");
pub const CHUNKS_BEGUN: Reply = reply(503, "5.5.1", "After BDAT only BDAT or RSET can follow");
pub const TOO_MANY_RECIPIENTS: Reply =
    reply(452, "4.5.3", "Too many recipients; send the others in another message");

pub const NOT_LOCAL: Reply = reply(550, "5.7.1", "This server takes no mail for that domain");
pub const NO_SUCH_MAILBOX: Reply = reply(550, "5.1.1", "No such mailbox");
pub const OVER_QUOTA: Reply = reply(552, "5.2.2", "Mailbox full");
pub const TOO_LARGE: Reply = reply(552, "5.3.4", "Message too large");
pub const DISK_FULL: Reply = reply(452, "4.3.1", "No space to store the message now");
pub const FAULT: Reply = reply(451, "4.3.0", "Server fault; try again later");
pub const LOOP: Reply = reply(554, "5.4.6", "Mail loop: the message has been here before");
pub const BARE_LINE_END: Reply = reply(550, "5.6.11", "Lines of a message must end with CR LF");
pub const NUL: Reply = reply(550, "5.6.0", "A message must not contain NUL");

pub const BARE_LF: Reply = reply(421, "4.5.2", "A line must end with CR LF; closing");
pub const CHUNK_SYNTAX: Reply =
    reply(421, "4.5.4", "Usage: BDAT octets [LAST]; closing, because the size of this chunk is unknown");
pub const TOO_MANY_WRONG_RECIPIENTS: Reply = reply(421, "4.7.0", "Too many unknown recipients; closing");
pub const TOO_MANY_ERRORS: Reply = reply(421, "4.7.0", "Too many errors; closing");
pub const IDLE: Reply = reply(421, "4.4.2", "Idle for too long; closing");
pub const SHUTTING_DOWN: Reply = reply(421, "4.3.2", "The service is shutting down; closing");

/// Asks for the text after DATA (RFC 5321 section 4.1.1.4). 3yz replies have no enhanced code.
pub const SEND_DATA: &[u8] = b"354 End the message with a dot on its own line\r\n";

/// The line for a connection that gets no session. `why` is a clause.
pub fn turn_away(why: &str) -> String {
    let Reply { code, enhanced, .. } = SHUTTING_DOWN;
    format!("{code} {enhanced} {why}, try again later\r\n")
}

impl Reply {
    pub fn write(self, out: &mut Vec<u8>) {
        let Reply { code, enhanced, text } = self;
        write!(out, "{code} {enhanced} {text}\r\n").expect("a Vec takes every write");
    }

    /// The reply for one of several recipients (RFC 2033 section 4.2).
    pub fn write_for(self, recipient: &impl Display, out: &mut Vec<u8>) {
        let Reply { code, enhanced, text } = self;
        write!(out, "{code} {enhanced} <{recipient}> {text}\r\n").expect("a Vec takes every write");
    }
}

/// The last reply of a session.
impl From<Ending> for Reply {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Quit => BYE,
            Ending::TooManyErrors => TOO_MANY_ERRORS,
            Ending::TooManyWrongRecipients => TOO_MANY_WRONG_RECIPIENTS,
            Ending::BareLf => BARE_LF,
            Ending::ChunkSyntax => CHUNK_SYNTAX,
            Ending::TimedOut => IDLE,
            Ending::ShuttingDown => SHUTTING_DOWN,
        }
    }
}

impl From<Recipient> for Reply {
    fn from(verdict: Recipient) -> Self {
        match verdict {
            Recipient::Accepted => RECIPIENT_OK,
            Recipient::NotLocal => NOT_LOCAL,
            Recipient::NoSuchMailbox => NO_SUCH_MAILBOX,
            Recipient::OverQuota => OVER_QUOTA,
        }
    }
}

impl From<Delivery> for Reply {
    fn from(verdict: Delivery) -> Self {
        match verdict {
            Delivery::Stored => STORED,
            Delivery::NoSuchMailbox => NO_SUCH_MAILBOX,
            Delivery::OverQuota => OVER_QUOTA,
            Delivery::Loop => LOOP,
            Delivery::DiskFull => DISK_FULL,
            Delivery::Withheld => FAULT,
        }
    }
}

impl From<Rejection> for Reply {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::BareLineEnd => BARE_LINE_END,
            Rejection::Nul => NUL,
            Rejection::TooLarge => TOO_LARGE,
            Rejection::DiskFull => DISK_FULL,
            Rejection::Fault => FAULT,
        }
    }
}
