//! AUTHORIZATION: the commands before the login, and what comes of a login.

use super::capabilities::{write_capabilities, write_mechanisms};
use super::command::Command;
use super::mechanism::{self, Mechanism, Step};
use super::reply::{
    BAD_RESPONSE, LOG_IN_FIRST, PLAINTEXT_REFUSED, WRONG_CREDENTIALS, ok, refuse, refuse_plaintext_login,
    reply, report_totals,
};
use super::session::{READ_COMMAND, READ_RESPONSE, Session, State, View, choose_language, close};
use super::{Credentials, Next, REFUSED_LOGINS_MAX};
use crate::message::Totals;
use crate::verdict::Login;

impl Session {
    pub(super) fn authorization(&mut self, user: Option<Vec<u8>>) -> Next {
        self.state = State::Authorization { user };
        READ_COMMAND
    }

    pub(super) fn authorize(
        &mut self,
        user: Option<Vec<u8>>,
        command: Command<'_>,
        out: &mut Vec<u8>,
    ) -> Next {
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

    pub(super) fn exchange(&mut self, mechanism: Mechanism, line: &[u8], out: &mut Vec<u8>) -> Next {
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
    pub(super) fn break_exchange(&mut self, out: &mut Vec<u8>) -> Next {
        self.refuse_login(BAD_RESPONSE, out)
    }

    fn check(&mut self, credentials: Credentials) -> Next {
        self.state = State::Checking;
        Next::Login(credentials)
    }

    pub(super) fn log_in(&mut self, verdict: Login<Totals>, out: &mut Vec<u8>) -> Next {
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

    pub(super) fn refuse_login(&mut self, why: &str, out: &mut Vec<u8>) -> Next {
        refuse(out, why);
        self.refused_logins += 1;
        if self.refused_logins >= REFUSED_LOGINS_MAX {
            return Next::Close;
        }
        self.authorization(None)
    }
}
