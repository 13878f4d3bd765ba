//! The states of a session, and what each makes of an event.

use std::fmt::Arguments;
use std::mem;
use std::time::SystemTime;

use super::capabilities::{language_for, write_capabilities, write_languages};
use super::command::{Command, ListedCommand, Malformed, Number};
use super::maildrop::Maildrop;
use super::mechanism::{Claim, Mechanism};
use super::reply::{LOGGED_IN_ALREADY, NO_SUCH_MESSAGE, ok, refuse, reply, report_totals, sign_off};
use super::{
    BAD_LINES_MAX, COMMAND_OCTETS_MAX, Event, Next, Policy, RESPONSE_OCTETS_MAX, SLICE_OCTETS, Send,
    TERMINATOR,
};
use crate::auth::digest;
use crate::auth::nonce::{self, Nonces};
use crate::message::{Entry, Totals};

pub(super) const READ_COMMAND: Next = Next::ReadLine { octets_max: COMMAND_OCTETS_MAX };
pub(super) const READ_RESPONSE: Next = Next::ReadLine { octets_max: RESPONSE_OCTETS_MAX };

/// One client's session, from the greeting to the end. See the head of [`crate::pop3`].
#[derive(Debug)]
pub struct Session {
    pub(super) policy: Policy,
    pub(super) state: State,
    /// Lines in a row that were no command.
    pub(super) bad_lines: u32,
    pub(super) refused_logins: u32,
    pub(super) nonces: Nonces,
    pub(super) connected: SystemTime,
    /// Whether the client said UTF8, and so takes UTF-8 in headers (RFC 6856 section 2).
    pub(super) utf8: bool,
    /// By what the client wanted to log in last.
    pub(super) mechanism: &'static str,
    /// Whether the client's QUIT was answered with +OK.
    has_quit: bool,
    /// What the greeting asked of APOP, if it did: `<stamp@hostname>`. Stays as it was when TLS begins.
    pub(super) apop_challenge: Option<String>,
}

/// Where a session stands: RFC 1939's state, and what is awaited in it.
#[derive(Debug)]
pub(super) enum State {
    /// The connection.
    New,
    /// AUTHORIZATION: a command. The name is that of the last USER.
    Authorization {
        user: Option<Vec<u8>>,
    },
    /// AUTHORIZATION: the response to a mechanism's challenge.
    Exchange(Mechanism),
    /// AUTHORIZATION: what is known of an account.
    Finding(Claim),
    /// AUTHORIZATION: the verdict on a login.
    Checking,
    /// AUTHORIZATION: the end of the TLS handshake.
    Securing,
    /// TRANSACTION: a command.
    Transaction(View),
    /// TRANSACTION: the list, which this command needs.
    Opening {
        totals: Totals,
        command: ListedCommand,
    },
    /// TRANSACTION: room for the rest of a listing, which goes on at this position.
    Listing {
        maildrop: Maildrop,
        column: Column,
        index: usize,
    },
    /// TRANSACTION: the end of a message's text.
    Sending(Maildrop),
    /// UPDATE: the deletions.
    Committing,
    Ended,
}

/// What is known of the maildrop: its totals from the login on, its list once a command needed it.
#[derive(Debug)]
pub(super) enum View {
    Totals(Totals),
    List(Maildrop),
}

/// What a listing shows of each message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    Octets,
    Uid,
}

impl Session {
    /// `seed` is 32 octets of chance, of this session alone: challenges are drawn from it. `connected` is the time
    /// now, which NTLM tells the client.
    pub fn new(policy: Policy, seed: [u8; 32], connected: SystemTime) -> Self {
        let mut nonces = Nonces::new(seed);
        let stamp = nonce::stamp(&nonces.draw());
        let apop_challenge = policy.secrets_available.then(|| digest::challenge(&stamp, &policy.hostname));
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
            has_quit: false,
            apop_challenge,
        }
    }

    /// Whether messages, and their octets, are given as they are. Otherwise the owner gives surrogates of those whose
    /// header is not ASCII (RFC 6856 section 5), in totals, lists and texts alike. Settled when a login is asked for.
    pub fn takes_utf8(&self) -> bool {
        self.utf8
    }

    /// How the client wanted to log in last, as logs name it: a mechanism of AUTH, APOP, or USER.
    pub fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// Whether the session ended as the client wanted it to.
    pub fn has_quit(&self) -> bool {
        self.has_quit
    }

    /// Takes what happened, appends replies to `out`, and says what is wanted next.
    ///
    /// # Panics
    /// When the event is not an answer to what was wanted.
    pub fn handle(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Next {
        match (mem::replace(&mut self.state, State::Ended), event) {
            (State::New, Event::Connected) => self.greet(out),
            (State::Authorization { user }, Event::Line(line)) => match Command::parse(line) {
                Ok(command) => self.authorize(user, command, out),
                Err(malformed) => self.refuse_line(State::Authorization { user }, malformed, out),
            },
            (State::Exchange(mechanism), Event::Line(line)) => self.exchange(mechanism, line, out),
            (State::Exchange(_), Event::LineTooLong) => self.break_exchange(out),
            (State::Finding(claim), Event::Account(account)) => self.judge(claim, account, out),
            (State::Checking, Event::LoggedIn(verdict)) => self.log_in(verdict, out),
            (State::Finding(_) | State::Checking, Event::Unavailable) => {
                self.refuse_login("[SYS/TEMP] logins cannot be checked now, try again later", out)
            }
            (State::Finding(_) | State::Checking, Event::Damaged) => {
                self.refuse_login("[SYS/PERM] the mailbox cannot be read: the mail store is damaged", out)
            }
            (State::Securing, Event::Secured(policy)) => {
                self.policy = policy;
                self.authorization(None)
            }
            (State::Transaction(view), Event::Line(line)) => match Command::parse(line) {
                Ok(command) => self.transact(view, command, out),
                Err(malformed) => self.refuse_line(State::Transaction(view), malformed, out),
            },
            (state @ (State::Authorization { .. } | State::Transaction(_)), Event::LineTooLong) => {
                let too_long = format_args!("a command line has at most {COMMAND_OCTETS_MAX} octets");
                self.refuse_bad_line(state, too_long, out)
            }
            (State::Opening { command, .. }, Event::Listed(entries)) => {
                self.carry_out(Maildrop::new(entries), command, out)
            }
            (State::Opening { totals, .. }, Event::Unavailable) => {
                refuse(out, "[SYS/TEMP] the maildrop cannot be read now, try again later");
                self.transaction(View::Totals(totals))
            }
            (State::Opening { totals, .. }, Event::Damaged) => {
                refuse(out, "[SYS/PERM] the maildrop cannot be read: the mail store is damaged");
                self.transaction(View::Totals(totals))
            }
            (State::Listing { maildrop, column, index }, Event::Flushed) => {
                self.list(maildrop, column, index, out)
            }
            (State::Sending(maildrop), Event::Sent) => self.transaction(View::List(maildrop)),
            (State::Sending(maildrop), Event::Gone) => {
                refuse(out, "the message is not there any more");
                self.transaction(View::List(maildrop))
            }
            (State::Sending(maildrop), Event::Unavailable) => {
                refuse(out, "[SYS/TEMP] the message cannot be read now, try again later");
                self.transaction(View::List(maildrop))
            }
            (State::Sending(maildrop), Event::Damaged) => {
                refuse(out, "[SYS/PERM] the message is damaged and cannot be read");
                self.transaction(View::List(maildrop))
            }
            (State::Committing, Event::Committed) => self.close(out),
            (State::Committing, Event::Unavailable) => {
                refuse(out, "[SYS/TEMP] the deletions could not be written, nothing is deleted");
                Next::Close
            }
            (State::Committing, Event::Damaged) => {
                refuse(out, "[SYS/PERM] the mail store is damaged, nothing is deleted");
                Next::Close
            }
            // Named without its contents: passwords and lists are among them.
            _ => panic!("an owner answers what the session asked for, and nothing else"),
        }
    }

    fn transact(&mut self, view: View, command: Command<'_>, out: &mut Vec<u8>) -> Next {
        self.bad_lines = 0;
        match command {
            Command::Quit => return self.update(&view, out),
            Command::Listed(command) => {
                return match view {
                    View::List(maildrop) => self.carry_out(maildrop, command, out),
                    View::Totals(totals) => {
                        self.state = State::Opening { totals, command };
                        Next::List
                    }
                };
            }
            Command::Stat => {
                let Totals { messages, octets } = view.remaining();
                ok(out, format_args!("{messages} {octets}"));
            }
            Command::Rset => return self.reset(view, out),
            Command::Noop => ok(out, format_args!("still here")),
            Command::Capa => write_capabilities(&self.policy, out),
            Command::Lang(range) => choose_language(range, out),
            Command::User(_)
            | Command::Pass(_)
            | Command::Apop { .. }
            | Command::Stls
            | Command::Auth { .. }
            | Command::Mechanisms
            | Command::Utf8 => refuse(out, LOGGED_IN_ALREADY),
        }
        self.transaction(view)
    }

    fn reset(&mut self, mut view: View, out: &mut Vec<u8>) -> Next {
        if let View::List(maildrop) = &mut view {
            maildrop.unmark_all();
        }
        report_totals(view.remaining(), out);
        self.transaction(view)
    }

    fn carry_out(&mut self, mut maildrop: Maildrop, command: ListedCommand, out: &mut Vec<u8>) -> Next {
        let number = match command {
            ListedCommand::List(None) => {
                let Totals { messages, octets } = maildrop.remaining();
                ok(out, format_args!("{messages} messages ({octets} octets)"));
                return self.list(maildrop, Column::Octets, 0, out);
            }
            ListedCommand::Uidl(None) => {
                ok(out, format_args!("unique ids follow"));
                return self.list(maildrop, Column::Uid, 0, out);
            }
            ListedCommand::List(Some(number))
            | ListedCommand::Uidl(Some(number))
            | ListedCommand::Retr(number)
            | ListedCommand::Top { number, .. }
            | ListedCommand::Dele(number) => number,
        };
        let Some(index) = maildrop.position(number) else {
            refuse(out, NO_SUCH_MESSAGE);
            return self.transaction(View::List(maildrop));
        };
        match command {
            ListedCommand::Retr(_) => {
                let status = format!("+OK {} octets\r\n", maildrop.entry(index).octets);
                return self.send(maildrop, Send { index, body_lines: None, status });
            }
            ListedCommand::Top { body_lines, .. } => {
                let status = "+OK the top of the message follows\r\n".to_owned();
                return self.send(maildrop, Send { index, body_lines: Some(body_lines), status });
            }
            ListedCommand::List(_) => {
                let Entry { octets, .. } = maildrop.entry(index);
                ok(out, format_args!("{} {octets}", number.0));
            }
            ListedCommand::Uidl(_) => {
                ok(out, format_args!("{} {}", number.0, maildrop.entry(index).unique_id()));
            }
            ListedCommand::Dele(Number(number)) => {
                maildrop.mark(index);
                ok(out, format_args!("message {number} is deleted when you QUIT"));
            }
        }
        self.transaction(View::List(maildrop))
    }

    fn send(&mut self, maildrop: Maildrop, send: Send) -> Next {
        self.state = State::Sending(maildrop);
        Next::Send(send)
    }

    /// Writes lines from this position on, at least one, until a slice is full or none is left.
    fn list(&mut self, maildrop: Maildrop, column: Column, mut index: usize, out: &mut Vec<u8>) -> Next {
        while let Some(listed) = maildrop.listed_from(index) {
            let entry = maildrop.entry(listed);
            index = listed + 1;
            match column {
                Column::Octets => reply(out, format_args!("{index} {}", entry.octets)),
                Column::Uid => reply(out, format_args!("{index} {}", entry.unique_id())),
            }
            if out.len() >= SLICE_OCTETS {
                self.state = State::Listing { maildrop, column, index };
                return Next::Flush;
            }
        }
        out.extend_from_slice(TERMINATOR);
        self.transaction(View::List(maildrop))
    }

    fn update(&mut self, view: &View, out: &mut Vec<u8>) -> Next {
        match view {
            View::List(maildrop) if maildrop.has_marks() => {
                self.state = State::Committing;
                Next::Commit { deleted: maildrop.marked() }
            }
            View::List(_) | View::Totals(_) => self.close(out),
        }
    }

    pub(super) fn transaction(&mut self, view: View) -> Next {
        self.state = State::Transaction(view);
        READ_COMMAND
    }

    fn refuse_line(&mut self, state: State, malformed: Malformed, out: &mut Vec<u8>) -> Next {
        match malformed {
            Malformed::Empty => self.refuse_bad_line(state, format_args!("an empty line is no command"), out),
            Malformed::UnknownVerb => self.refuse_bad_line(state, format_args!("unknown command"), out),
            Malformed::Usage(syntax) => {
                self.refuse_bad_line(state, format_args!("write it as: {syntax}"), out)
            }
        }
    }

    /// Answers QUIT when there is nothing more to do.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> Next {
        self.has_quit = true;
        sign_off(out);
        Next::Close
    }

    /// Answers a line that was no command, and leaves the session as it was, unless it is one too many.
    fn refuse_bad_line(&mut self, state: State, why: Arguments<'_>, out: &mut Vec<u8>) -> Next {
        self.bad_lines += 1;
        if self.bad_lines >= BAD_LINES_MAX {
            refuse(out, "too many lines that are no commands, good bye");
            return Next::Close;
        }
        reply(out, format_args!("-ERR {why}"));
        self.state = state;
        READ_COMMAND
    }
}

impl View {
    fn remaining(&self) -> Totals {
        match self {
            View::Totals(totals) => *totals,
            View::List(maildrop) => maildrop.remaining(),
        }
    }
}

pub(super) fn choose_language(range: Option<&[u8]>, out: &mut Vec<u8>) {
    match range {
        None => write_languages(out),
        // RFC 6856 section 3: the tag comes first in the reply.
        Some(range) => match language_for(range) {
            Some(tag) => ok(out, format_args!("{tag} replies are in English")),
            None => refuse(out, "that language is not spoken here, LANG alone lists those that are"),
        },
    }
}
