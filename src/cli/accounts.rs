//! Commands that change local accounts. That needs root, so the administrator's process does it; the process that has
//! the data file open does the rest.
//!
//! - That process checks the command first, before anything changes ([`Reply::Yours`] means that it may go ahead).
//! - An account is created before its mailbox, and removed again if the mailbox is refused. A mailbox is deleted before
//!   its account, because it can be restored. Anything left half done is reported.
//! - That process records what it did with the mailbox, this one the command as typed and its outcome.

use std::path::Path;

use super::progress::Line;
use crate::address::Address;
use crate::admin::commands::{Add, ChangePwd, Delete, List};
use crate::admin::reply::Code;
use crate::admin::{self, Op, Refusal, Reply, Request, Target};
use crate::auth::directory::{Directory as _, Removal};
use crate::control::Answer;
use crate::local_accounts::{self, ETC, LocalAccounts};

/// Carries a request out. `send` does what concerns the data file.
pub fn carry_out(request: Request, send: &dyn Fn(Request) -> Answer) -> Answer {
    let reply = send(request.clone())?;
    if !matches!(reply, Reply::Yours { .. }) {
        return Ok(reply);
    }
    let trail = request.trail();
    let answer = change(request, send);
    if let Some(trail) = trail {
        super::leave_trail(&trail, &answer);
    }
    answer
}

fn change(request: Request, send: &dyn Fn(Request) -> Answer) -> Answer {
    local_accounts::ready().map_err(|why| {
        Refusal::new(Code::NotPermitted, why).with_hint("Nothing was changed. Run the command as root")
    })?;
    match request {
        Request::Command(Op::Add(add)) => create(&add, send),
        Request::Command(Op::Delete(delete)) => remove(&delete, send),
        Request::Command(Op::ChangePwd(change)) => change_password(change, send),
        Request::AddMany(entries) => {
            let mut line = Line::new();
            let mut done = 0;
            Ok(admin::one_by_one(&entries, |add| {
                line.show_items("adding", done, entries.len());
                done += 1;
                carry_out(Request::Command(Op::Add(add)), send)
            }))
        }
        request => panic!("no account is changed by {request:?}"),
    }
}

fn of_this_machine() -> LocalAccounts {
    LocalAccounts::of(Path::new(ETC))
}

fn create(add: &Add, send: &dyn Fn(Request) -> Answer) -> Answer {
    let (Target::Mailbox(address), Some(password)) = (add.target()?, &add.createuser) else {
        panic!("only the account of a mailbox is made, with a password")
    };
    let accounts = of_this_machine();
    let name = admin::create_account(&address, password.password()?, &accounts)?;
    let refusal = match send(Request::Command(Op::Add(Add { createuser: None, ..add.clone() }))) {
        Ok(reply) => return Ok(reply),
        Err(refusal) => refusal,
    };
    // If the service ended or the disk failed, the mailbox may or may not exist.
    match is_mailbox(&address, send) {
        Ok(false) => Err(admin::undone(refusal, &address, &name, &accounts)),
        Ok(true) | Err(_) => {
            let message = format!("{}; its account {name} was created and remains", refusal.message);
            Err(Refusal { message, ..refusal }
                .with_hint(format!("Check whether the mailbox exists: winpop list {}", address.domain)))
        }
    }
}

fn is_mailbox(address: &Address, send: &dyn Fn(Request) -> Answer) -> Result<bool, Refusal> {
    let list = List { domain: Some(address.domain.to_string()), all: false };
    match send(Request::Command(Op::List(list))) {
        Ok(Reply::Mailboxes { mailboxes, .. }) => {
            Ok(mailboxes.iter().any(|line| line.mailbox == address.to_string()))
        }
        Ok(_) => panic!("a domain is listed by its mailboxes"),
        Err(refusal) if refusal.code == Code::NotFound => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

fn remove(delete: &Delete, send: &dyn Fn(Request) -> Answer) -> Answer {
    let address: Address = delete.name.parse()?;
    let reply = send(Request::Command(Op::Delete(Delete { deleteuser: false, ..delete.clone() })))?;
    let Reply::Changed(mut changed) = reply else { panic!("a mailbox is deleted by a change") };
    let why = match of_this_machine().remove(&address).map_err(|unavailable| unavailable.0) {
        Ok(Removal::Removed { name }) => {
            changed.notes.push(format!("its account {name} was deleted from this machine"));
            return Ok(changed.into());
        }
        Ok(Removal::NoSuchAccount) => {
            changed.notes.push("it had no account on this machine".to_owned());
            return Ok(changed.into());
        }
        Ok(Removal::Refused(why)) | Err(why) => why,
    };
    let message = format!("{}, but its account was not: {why}", changed.message);
    Err(Refusal::new(Code::Fault, message).with_hint(format!("To delete it: userdel {}", address.local)))
}

fn change_password(change: ChangePwd, send: &dyn Fn(Request) -> Answer) -> Answer {
    let address: Address = change.name.parse()?;
    let Some(password) = &change.password else { panic!("without a password nothing is changed") };
    admin::change_password(&address, password.password()?, &of_this_machine())?;
    send(Request::PasswordChanged(change)).map_err(|refusal| Refusal {
        message: format!(
            "the account has the new password, but its copy in the password file could not be replaced: {}",
            refusal.message
        ),
        ..refusal
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_request_that_needs_no_account_is_sent_once() {
        let sent = Cell::new(0);
        let list = Request::Command(Op::List(List { domain: None, all: false }));
        let answer = carry_out(list, &|_| {
            sent.set(sent.get() + 1);
            Ok(Reply::Domains { domains: vec![] })
        });
        assert!(answer.is_ok() && sent.get() == 1);
    }

    #[test]
    fn after_an_unclear_answer_the_mailbox_is_looked_up() {
        let ann: Address = "ann@example.com".parse().unwrap();
        let of = |answer: Answer| is_mailbox(&ann, &|_| answer.clone());
        let nobody =
            Reply::Mailboxes { domain: "example.com".to_owned(), mailboxes: vec![], accounts_error: None };
        assert_eq!(of(Ok(nobody)), Ok(false));
        assert_eq!(of(Err(Refusal::new(Code::NotFound, "there is no domain"))), Ok(false));
        assert!(of(Err(Refusal::fault("the disk is gone"))).is_err());
    }
}
