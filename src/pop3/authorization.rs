//! AUTHORIZATION: the commands before login, and the outcome of a login.

use super::capabilities::{write_capabilities, write_mechanisms};
use super::command::Command;
use super::mechanism::{
    self, Hindrance, Kind, Mechanism, Outcome, Proof, password_hindrance, secrets_hindrance,
};
use super::reply::{LOG_IN_FIRST, WRONG_CREDENTIALS, ok, refuse, refuse_way, reply, report_totals, text_of};
use super::session::{READ_COMMAND, READ_RESPONSE, Session, State, choose_language};
use super::transaction::Messages;
use super::{Channel, Credentials, Ending, Next, REFUSED_LOGINS_MAX};
use crate::auth::{Account, Denial, digest};
use crate::message::Totals;
use crate::verdict::Login;

impl Session {
    pub(super) fn authorization(&mut self, user: Option<Vec<u8>>) -> Next {
        self.state = State::Authorization { user };
        READ_COMMAND
    }

    pub(super) fn greet(&mut self, out: &mut Vec<u8>) -> Next {
        match &self.apop_challenge {
            Some(challenge) => ok(out, format_args!("POP3 service ready {challenge}")),
            None => ok(out, format_args!("POP3 service ready")),
        }
        self.authorization(None)
    }

    pub(super) fn authorize(
        &mut self,
        user: Option<Vec<u8>>,
        command: Command<'_>,
        out: &mut Vec<u8>,
    ) -> Next {
        self.bad_lines = 0;
        match command {
            Command::Quit => return self.close(out),
            Command::User(name) => match password_hindrance(&self.policy) {
                Some(hindrance) => refuse(out, hindrance.text()),
                None => {
                    ok(out, format_args!("now the password"));
                    return self.authorization(Some(name.to_vec()));
                }
            },
            Command::Pass(password) => match (password_hindrance(&self.policy), &user) {
                (Some(hindrance), _) => refuse_way(hindrance, out),
                (None, Some(name)) => {
                    self.mechanism = "USER";
                    self.state = State::Checking;
                    return Next::Login(Credentials::new(name, password));
                }
                (None, None) => refuse(out, "USER comes before PASS"),
            },
            Command::Apop { name, digest } => return self.apop(user, name, digest, out),
            Command::Stls => return self.begin_tls(user, out),
            Command::Auth { mechanism, initial } => return self.authenticate(user, mechanism, initial, out),
            Command::Mechanisms => write_mechanisms(&self.policy, out),
            // Names and passwords are UTF-8 with or without it.
            Command::Utf8 => {
                self.utf8 = true;
                ok(out, format_args!("UTF-8 it is"));
            }
            Command::Capa => write_capabilities(&self.policy, out),
            Command::Lang(range) => choose_language(range, out),
            Command::Noop | Command::Stat | Command::Rset | Command::Listed(_) => refuse(out, LOG_IN_FIRST),
        }
        self.authorization(user)
    }

    fn apop(&mut self, user: Option<Vec<u8>>, name: &[u8], digest: &[u8], out: &mut Vec<u8>) -> Next {
        match (&self.apop_challenge, secrets_hindrance(&self.policy)) {
            (Some(challenge), None) => {
                self.mechanism = "APOP";
                let proof = digest::Proof::apop(name, digest, challenge.clone());
                self.find(Proof::Digest(proof))
            }
            _ => {
                refuse_way(Hindrance::NoSecrets, out);
                self.authorization(user)
            }
        }
    }

    /// The handshake follows our reply at once (RFC 2595 section 4). Anything already in the input may come from an
    /// attacker; the driver discards it.
    fn begin_tls(&mut self, user: Option<Vec<u8>>, out: &mut Vec<u8>) -> Next {
        match self.policy.channel {
            Channel::Clear { stls_offered: true } => {
                ok(out, format_args!("begin the TLS handshake"));
                self.state = State::Securing;
                return Next::StartTls;
            }
            Channel::Clear { stls_offered: false } => refuse(out, "TLS is not offered here"),
            Channel::Tls(_) => refuse(out, "TLS has begun already"),
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
        let Some(kind) = Kind::named(name) else {
            refuse(out, "unknown mechanism, AUTH alone lists the known ones");
            return self.authorization(user);
        };
        if let Some(hindrance) = kind.hindrance(&self.policy) {
            refuse_way(hindrance, out);
            return self.authorization(user);
        }
        self.mechanism = kind.name();
        let mechanism = Mechanism::start(kind, self.nonces.draw(), self.connected, &self.policy);
        match initial {
            None => self.ask(mechanism, out),
            Some(_) if kind.begins_with_challenge() => self.break_exchange(out),
            Some(typed) => self.respond(mechanism, typed, out),
        }
    }

    pub(super) fn exchange(&mut self, mechanism: Mechanism, line: &[u8], out: &mut Vec<u8>) -> Next {
        if line == b"*" {
            refuse(out, "AUTH is cancelled");
            return self.authorization(None);
        }
        self.respond(mechanism, line, out)
    }

    fn respond(&mut self, mechanism: Mechanism, typed: &[u8], out: &mut Vec<u8>) -> Next {
        let has_account = mechanism.has_account();
        let outcome =
            mechanism::decode(typed).and_then(|response| mechanism.respond(&response, &self.policy));
        self.follow(outcome, has_account, out)
    }

    pub(super) fn judge(&mut self, proof: Proof, account: Account, out: &mut Vec<u8>) -> Next {
        self.follow(proof.judge(account), true, out)
    }

    /// `has_account`: the driver has looked up the account of this exchange.
    fn follow(&mut self, outcome: Result<Outcome, Denial>, has_account: bool, out: &mut Vec<u8>) -> Next {
        let next = match outcome {
            Ok(Outcome::Ask(mechanism)) => return self.ask(mechanism, out),
            Ok(Outcome::Find(proof)) => return self.find(proof),
            Ok(Outcome::Check(credentials)) => Next::Login(credentials),
            Ok(Outcome::Prove(proof)) => Next::Prove(proof),
            Ok(Outcome::Open) => Next::Open,
            Err(Denial::Wrong) if has_account => Next::Deny,
            Err(denial) => return self.refuse_login(text_of(denial), out),
        };
        self.state = State::Checking;
        next
    }

    fn find(&mut self, proof: Proof) -> Next {
        let login = proof.name().into();
        self.state = State::Finding(proof);
        Next::Account { login }
    }

    fn ask(&mut self, mechanism: Mechanism, out: &mut Vec<u8>) -> Next {
        reply(out, format_args!("+ {}", mechanism.challenge()));
        self.state = State::Exchange(mechanism);
        READ_RESPONSE
    }

    /// A broken exchange counts as a refused login: no honest client breaks many.
    pub(super) fn break_exchange(&mut self, out: &mut Vec<u8>) -> Next {
        self.refuse_login(text_of(Denial::Malformed), out)
    }

    pub(super) fn log_in(&mut self, verdict: Login<Totals>, out: &mut Vec<u8>) -> Next {
        match verdict {
            Login::Welcome(totals) => {
                report_totals(totals, out);
                self.transaction(Messages::Totals(totals))
            }
            Login::WrongCredentials | Login::Barred { .. } => self.refuse_login(WRONG_CREDENTIALS, out),
            Login::Locked => self.refuse_login("[SYS/PERM] the mailbox is locked", out),
            Login::InUse => self.refuse_login("[IN-USE] another session holds the maildrop", out),
            Login::Incomplete => {
                self.refuse_login("[SYS/TEMP] the mail of this mailbox is still being moved here", out)
            }
            Login::TooSoon => self.refuse_login("[LOGIN-DELAY] too soon after the last login", out),
        }
    }

    pub(super) fn refuse_login(&mut self, why: &str, out: &mut Vec<u8>) -> Next {
        refuse(out, why);
        self.refused_logins += 1;
        if self.refused_logins >= REFUSED_LOGINS_MAX {
            return Next::Close(Ending::TooManyErrors);
        }
        self.authorization(None)
    }
}
