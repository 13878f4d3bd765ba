//! The states of a session, and what each makes of an event.

use std::fmt::Arguments;
use std::mem;

use super::capabilities::{language_for, write_capabilities, write_languages, write_mechanisms};
use super::command::{Command, ListedCommand, Malformed, Number};
use super::maildrop::Maildrop;
use super::mechanism::{self, Mechanism, Step};
use super::reply::{
    BAD_RESPONSE, LOG_IN_FIRST, LOGGED_IN_ALREADY, NO_SUCH_MESSAGE, PLAINTEXT_REFUSED, WRONG_CREDENTIALS, ok,
    refuse, refuse_plaintext_login, reply, report_totals, sign_off,
};
use super::{
    BAD_LINES_MAX, COMMAND_OCTETS_MAX, Credentials, Event, Next, Policy, REFUSED_LOGINS_MAX,
    RESPONSE_OCTETS_MAX, SLICE_OCTETS, Send, TERMINATOR,
};
use crate::message::{Entry, Totals};
use crate::verdict::Login;

const READ_COMMAND: Next = Next::ReadLine { octets_max: COMMAND_OCTETS_MAX };
const READ_RESPONSE: Next = Next::ReadLine { octets_max: RESPONSE_OCTETS_MAX };

/// One client's session, from the greeting to the end. See the head of [`crate::pop3`].
#[derive(Debug)]
pub struct Session {
    policy: Policy,
    state: State,
    /// Lines in a row that were no command.
    bad_lines: u32,
    refused_logins: u32,
}

/// Where a session stands: RFC 1939's state, and what is awaited in it.
#[derive(Debug)]
enum State {
    /// The connection.
    New {
        stamp: String,
    },
    /// AUTHORIZATION: a command. The name is that of the last USER.
    Authorization {
        user: Option<Vec<u8>>,
    },
    /// AUTHORIZATION: the response to a mechanism's challenge.
    Exchange(Mechanism),
    /// AUTHORIZATION: the verdict on a login.
    Checking,
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
enum View {
    Totals(Totals),
    List(Maildrop),
}

/// What a listing shows of each message.
#[derive(Clone, Copy, Debug)]
enum Column {
    Octets,
    Uid,
}

impl Session {
    /// `stamp` is the part of the greeting that must not be foreseeable (RFC 1939 section 7, APOP): printable
    /// ASCII without `<`, `>`, `@` and spaces, at most 128 octets.
    pub fn new(policy: Policy, stamp: String) -> Self {
        Self { policy, state: State::New { stamp }, bad_lines: 0, refused_logins: 0 }
    }

    /// Takes what happened, appends replies to `out`, and says what is wanted next.
    ///
    /// # Panics
    /// When the event is not an answer to what was wanted.
    pub fn handle(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Next {
        match (mem::replace(&mut self.state, State::Ended), event) {
            (State::New { stamp }, Event::Connected) => {
                ok(out, format_args!("POP3 service ready <{stamp}@{}>", self.policy.hostname));
                self.authorization(None)
            }
            (State::Authorization { user }, Event::Line(line)) => match Command::parse(line) {
                Ok(command) => self.authorize(user, command, out),
                Err(malformed) => self.refuse_line(State::Authorization { user }, malformed, out),
            },
            (State::Exchange(mechanism), Event::Line(line)) => self.exchange(mechanism, line, out),
            (State::Exchange(_), Event::LineTooLong) => self.break_exchange(out),
            (State::Checking, Event::LoggedIn(verdict)) => self.log_in(verdict, out),
            (State::Checking, Event::Unavailable) => {
                self.refuse_login("[SYS/TEMP] logins cannot be checked now, try again later", out)
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
            (State::Committing, Event::Committed) => close(out),
            (State::Committing, Event::Unavailable) => {
                refuse(out, "[SYS/TEMP] the deletions could not be written, nothing is deleted");
                Next::Close
            }
            // Named without its contents: passwords and lists are among them.
            _ => panic!("an owner answers what the session asked for, and nothing else"),
        }
    }

    fn authorize(&mut self, user: Option<Vec<u8>>, command: Command<'_>, out: &mut Vec<u8>) -> Next {
        self.bad_lines = 0;
        match command {
            Command::Quit => return close(out),
            Command::User(_) if !self.policy.plaintext_allowed => refuse(out, PLAINTEXT_REFUSED),
            Command::User(name) => {
                ok(out, format_args!("now the password"));
                return self.authorization(Some(name.to_vec()));
            }
            Command::Pass(_) if !self.policy.plaintext_allowed => refuse_plaintext_login(out),
            Command::Pass(password) => match user {
                Some(name) => return self.check(Credentials::new(&name, password)),
                None => refuse(out, "USER comes before PASS"),
            },
            Command::Auth { mechanism, initial } => return self.authenticate(user, mechanism, initial, out),
            Command::Mechanisms => write_mechanisms(&self.policy, out),
            // Nothing is remembered: names and passwords are taken as UTF-8 with or without it, and message
            // texts go out as they came in.
            Command::Utf8 => ok(out, format_args!("UTF-8 it is")),
            Command::Capa => write_capabilities(&self.policy, out),
            Command::Lang(range) => choose_language(range, out),
            Command::Noop | Command::Stat | Command::Rset | Command::Listed(_) => refuse(out, LOG_IN_FIRST),
        }
        self.authorization(user)
    }

    fn authenticate(
        &mut self,
        user: Option<Vec<u8>>,
        name: &[u8],
        initial: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Next {
        if mechanism::is_plaintext(name) && !self.policy.plaintext_allowed {
            refuse_plaintext_login(out);
            return self.authorization(user);
        }
        let Some(mechanism) = Mechanism::start(name) else {
            refuse(out, "there is no such mechanism, AUTH alone lists those there are");
            return self.authorization(user);
        };
        match initial.map(mechanism::decode_initial) {
            None => self.ask(mechanism, out),
            Some(Ok(response)) => self.respond(mechanism, &response, out),
            Some(Err(mechanism::Malformed)) => self.break_exchange(out),
        }
    }

    fn exchange(&mut self, mechanism: Mechanism, line: &[u8], out: &mut Vec<u8>) -> Next {
        if line == b"*" {
            refuse(out, "AUTH is cancelled");
            return self.authorization(None);
        }
        match mechanism::decode(line) {
            Ok(response) => self.respond(mechanism, &response, out),
            Err(mechanism::Malformed) => self.break_exchange(out),
        }
    }

    fn respond(&mut self, mechanism: Mechanism, response: &[u8], out: &mut Vec<u8>) -> Next {
        match mechanism.respond(response) {
            Ok(Step::Ask(mechanism)) => self.ask(mechanism, out),
            Ok(Step::Check(credentials)) => self.check(credentials),
            Ok(Step::NotOneself) => self.refuse_login(WRONG_CREDENTIALS, out),
            Err(mechanism::Malformed) => self.break_exchange(out),
        }
    }

    fn ask(&mut self, mechanism: Mechanism, out: &mut Vec<u8>) -> Next {
        reply(out, format_args!("+ {}", mechanism.challenge()));
        self.state = State::Exchange(mechanism);
        READ_RESPONSE
    }

    /// A failed exchange counts as a refused login: there is no honest reason for many of them.
    fn break_exchange(&mut self, out: &mut Vec<u8>) -> Next {
        self.refuse_login(BAD_RESPONSE, out)
    }

    fn check(&mut self, credentials: Credentials) -> Next {
        self.state = State::Checking;
        Next::Login(credentials)
    }

    fn log_in(&mut self, verdict: Login<Totals>, out: &mut Vec<u8>) -> Next {
        match verdict {
            Login::Welcome(totals) => {
                report_totals(totals, out);
                self.transaction(View::Totals(totals))
            }
            Login::WrongCredentials => self.refuse_login(WRONG_CREDENTIALS, out),
            Login::Locked => self.refuse_login("[SYS/PERM] the mailbox is locked", out),
            Login::InUse => self.refuse_login("[IN-USE] another session holds the maildrop", out),
            Login::TooSoon => self.refuse_login("[LOGIN-DELAY] the last login was too short a time ago", out),
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
                let Entry { uid, .. } = maildrop.entry(index);
                ok(out, format_args!("{} {uid}", number.0));
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
            let Entry { octets, uid } = maildrop.entry(listed);
            index = listed + 1;
            match column {
                Column::Octets => reply(out, format_args!("{index} {octets}")),
                Column::Uid => reply(out, format_args!("{index} {uid}")),
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
            View::List(_) | View::Totals(_) => close(out),
        }
    }

    fn authorization(&mut self, user: Option<Vec<u8>>) -> Next {
        self.state = State::Authorization { user };
        READ_COMMAND
    }

    fn transaction(&mut self, view: View) -> Next {
        self.state = State::Transaction(view);
        READ_COMMAND
    }

    fn refuse_login(&mut self, why: &str, out: &mut Vec<u8>) -> Next {
        refuse(out, why);
        self.refused_logins += 1;
        if self.refused_logins >= REFUSED_LOGINS_MAX {
            return Next::Close;
        }
        self.authorization(None)
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

fn close(out: &mut Vec<u8>) -> Next {
    sign_off(out);
    Next::Close
}

fn choose_language(range: Option<&[u8]>, out: &mut Vec<u8>) {
    match range {
        None => write_languages(out),
        // RFC 6856 section 3: the tag comes first in the reply.
        Some(range) => match language_for(range) {
            Some(tag) => ok(out, format_args!("{tag} replies are in English")),
            None => refuse(out, "that language is not spoken here, LANG alone lists those that are"),
        },
    }
}
