//! The states of a session, and how each handles an event.

use std::fmt::Arguments;
use std::mem;
use std::time::SystemTime;

use super::capabilities::{language_for, write_languages};
use super::command::{Command, ListedCommand, Malformed};
use super::mechanism::{Mechanism, Proof};
use super::message_list::MessageList;
use super::reply::{MAILBOX_REVOKED, SHUTTING_DOWN, ok, refuse, reply, sign_off};
use super::transaction::{Column, Messages};
use super::{BAD_LINES_MAX, COMMAND_OCTETS_MAX, Ending, Event, Next, Policy, RESPONSE_OCTETS_MAX};
use crate::auth::digest;
use crate::auth::nonce::{self, Nonces};
use crate::message::Totals;

pub(super) const READ_COMMAND: Next = Next::ReadLine { octets_max: COMMAND_OCTETS_MAX };
pub(super) const READ_RESPONSE: Next = Next::ReadLine { octets_max: RESPONSE_OCTETS_MAX };

/// One client's session, from the greeting to the end. See the head of [`crate::pop3`].
#[derive(Debug)]
pub struct Session {
    pub(super) policy: Policy,
    pub(super) state: State,
    /// Consecutive lines that were not commands.
    pub(super) bad_lines: u32,
    pub(super) refused_logins: u32,
    pub(super) nonces: Nonces,
    pub(super) connected: SystemTime,
    /// Whether the client said UTF8 and so accepts UTF-8 in headers (RFC 6856 section 2).
    pub(super) utf8: bool,
    /// The mechanism of the last login attempt.
    pub(super) mechanism: &'static str,
    /// The APOP challenge in the greeting, `<stamp@hostname>`, if any. TLS does not change it.
    pub(super) apop_challenge: Option<String>,
}

/// The state: RFC 1939's, and what the session waits for in it.
#[derive(Debug)]
pub(super) enum State {
    /// Waits for the connection.
    New,
    /// AUTHORIZATION: waits for a command. `user` is the name from the last USER.
    Authorization {
        user: Option<Vec<u8>>,
    },
    /// AUTHORIZATION: waits for the response to a challenge.
    Exchange(Mechanism),
    /// AUTHORIZATION: waits for the account.
    Finding(Proof),
    /// AUTHORIZATION: waits for the verdict on a login.
    Checking,
    /// AUTHORIZATION: waits for the TLS handshake.
    Securing,
    /// TRANSACTION: waits for a command.
    Transaction(Messages),
    /// TRANSACTION: waits for the list that `command` needs.
    Opening {
        totals: Totals,
        command: ListedCommand,
    },
    /// TRANSACTION: waits for `out` to be flushed; the listing continues at `index`.
    Listing {
        list: MessageList,
        column: Column,
        index: usize,
    },
    /// TRANSACTION: waits for a message to be sent.
    Sending(MessageList),
    /// UPDATE: waits for the deletions.
    Committing,
    Ended,
}

impl Session {
    /// `seed` is 32 random octets for this session only; challenges are derived from it. `connected` is the time now,
    /// which NTLM tells the client.
    pub fn new(policy: Policy, seed: [u8; 32], connected: SystemTime) -> Self {
        let mut nonces = Nonces::new(seed);
        let stamp = nonce::stamp(&nonces.draw());
        let apop_challenge = (policy.secrets_available && !policy.passwords_wanted)
            .then(|| digest::challenge(&stamp, &policy.hostname));
        let state = State::New;
        Self {
            policy,
            state,
            bad_lines: 0,
            refused_logins: 0,
            nonces,
            connected,
            utf8: false,
            mechanism: "",
            apop_challenge,
        }
    }

    /// Whether the client gets messages as stored. If not, the driver substitutes surrogates for those with a non-ASCII
    /// header (RFC 6856 section 5), in totals, lists and texts alike. Settled by the time of a login.
    pub fn takes_utf8(&self) -> bool {
        self.utf8
    }

    /// The mechanism of the last login attempt, for the log: an AUTH mechanism, APOP or USER.
    pub fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// Handles an event: appends replies to `out` and returns what the session needs next.
    ///
    /// # Panics
    /// If the event does not answer the last [`Next`].
    pub fn handle(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Next {
        match (mem::replace(&mut self.state, State::Ended), event) {
            (State::New, Event::Connected) => self.greet(out),
            (State::Authorization { user }, Event::Line(line)) => match Command::parse(line) {
                Ok(command) => self.authorize(user, command, out),
                Err(malformed) => self.refuse_line(State::Authorization { user }, malformed, out),
            },
            (State::Exchange(mechanism), Event::Line(line)) => self.exchange(mechanism, line, out),
            (State::Exchange(_), Event::LineTooLong) => self.break_exchange(out),
            (State::Finding(proof), Event::Account(account)) => self.judge(proof, account, out),
            (State::Checking, Event::LoggedIn(verdict)) => self.log_in(verdict, out),
            (State::Finding(_) | State::Checking, Event::Unavailable) => {
                self.refuse_login("[SYS/TEMP] logins cannot be checked now, try again later", out)
            }
            (State::Finding(_) | State::Checking, Event::Damaged) => {
                self.refuse_login("[SYS/PERM] the mailbox cannot be read: the mail store is damaged", out)
            }
            (State::Securing, Event::Secured(policy)) => {
                self.policy = policy;
                self.utf8 = false;
                self.authorization(None)
            }
            (State::Transaction(messages), Event::Line(line)) => match Command::parse(line) {
                Ok(command) => self.transact(messages, command, out),
                Err(malformed) => self.refuse_line(State::Transaction(messages), malformed, out),
            },
            (state @ (State::Authorization { .. } | State::Transaction(_)), Event::LineTooLong) => {
                let too_long = format_args!("a command line has at most {COMMAND_OCTETS_MAX} octets");
                self.refuse_bad_line(state, too_long, out)
            }
            (State::Opening { command, .. }, Event::Listed(entries)) => {
                self.carry_out(MessageList::new(entries), command, out)
            }
            (State::Opening { totals, .. }, Event::Unavailable) => {
                refuse(out, "[SYS/TEMP] the maildrop cannot be read now, try again later");
                self.transaction(Messages::Totals(totals))
            }
            (State::Opening { totals, .. }, Event::Damaged) => {
                refuse(out, "[SYS/PERM] the maildrop cannot be read: the mail store is damaged");
                self.transaction(Messages::Totals(totals))
            }
            (State::Listing { list, column, index }, Event::Flushed) => self.list(list, column, index, out),
            (State::Sending(list), Event::Sent) => self.transaction(Messages::List(list)),
            (State::Sending(list), Event::Gone) => {
                refuse(out, "the message no longer exists");
                self.transaction(Messages::List(list))
            }
            (State::Sending(list), Event::Unavailable) => {
                refuse(out, "[SYS/TEMP] the message cannot be read now, try again later");
                self.transaction(Messages::List(list))
            }
            (State::Sending(list), Event::Damaged) => {
                refuse(out, "[SYS/PERM] the message is damaged and cannot be read");
                self.transaction(Messages::List(list))
            }
            (State::Committing, Event::Committed) => self.close(out),
            (State::Committing, Event::Unavailable) => {
                refuse(out, "[SYS/TEMP] some deleted messages not removed: the store cannot be written now");
                Next::Close(Ending::NotCommitted)
            }
            (State::Committing, Event::Damaged) => {
                refuse(out, "[SYS/PERM] some deleted messages not removed: the mail store is damaged");
                Next::Close(Ending::NotCommitted)
            }
            (State::Committing, Event::Revoked) => {
                let locked =
                    "[SYS/PERM] some deleted messages not removed: the mailbox was locked or deleted";
                refuse(out, locked);
                Next::Close(Ending::Revoked)
            }
            (_, Event::Revoked) => {
                refuse(out, MAILBOX_REVOKED);
                Next::Close(Ending::Revoked)
            }
            // RFC 1939 section 3: a session that times out ends without a response.
            (_, Event::TimedOut) => Next::Close(Ending::TimedOut),
            (_, Event::ShuttingDown) => {
                refuse(out, SHUTTING_DOWN);
                Next::Close(Ending::ShuttingDown)
            }
            // The message leaves the event out: it may contain a password.
            _ => panic!("the driver answers what the session asked for, and nothing else"),
        }
    }

    fn refuse_line(&mut self, state: State, malformed: Malformed, out: &mut Vec<u8>) -> Next {
        match malformed {
            Malformed::Empty => {
                self.refuse_bad_line(state, format_args!("an empty line is not a command"), out)
            }
            Malformed::UnknownVerb => self.refuse_bad_line(state, format_args!("unknown command"), out),
            Malformed::Usage(syntax) => self.refuse_bad_line(state, format_args!("usage: {syntax}"), out),
        }
    }

    /// Answers QUIT when nothing is left to do.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> Next {
        sign_off(out);
        Next::Close(Ending::Quit)
    }

    /// Answers a line that is not a command, and closes after [`BAD_LINES_MAX`] of them.
    fn refuse_bad_line(&mut self, state: State, why: Arguments<'_>, out: &mut Vec<u8>) -> Next {
        self.bad_lines += 1;
        if self.bad_lines >= BAD_LINES_MAX {
            refuse(out, "too many lines that are not commands, goodbye");
            return Next::Close(Ending::TooManyErrors);
        }
        reply(out, format_args!("-ERR {why}"));
        self.state = state;
        READ_COMMAND
    }
}

pub(super) fn choose_language(range: Option<&[u8]>, out: &mut Vec<u8>) {
    match range {
        None => write_languages(out),
        // RFC 6856 section 3: the tag comes first in the reply.
        Some(range) => match language_for(range) {
            Some(tag) => ok(out, format_args!("{tag} replies are in English")),
            None => refuse(out, "unknown language, LANG alone lists the known ones"),
        },
    }
}
