//! `winpop`: turns a command into a request, with what only this process has: the terminal and the current directory.

use std::path::Path;

use super::accounts;
use super::bulk;
use super::carry_out::{self, no_store};
use super::progress::Line;
use super::terminal;
use crate::address::Domain;
use crate::admin::commands::{Add, Delete, Get, List, MigrateToAd};
use crate::admin::reply::{Changed, Code};
use crate::admin::secret::Secret;
use crate::admin::{self, Op, Present, Refusal, Reply, Request, Target};
use crate::control::{Answer, Enclosed};
use crate::mailroot::MailRoot;
use crate::store::{OpenErrorKind, Store};
use crate::units::Octets;

/// Does what only this process can: reads passwords and makes paths absolute.
pub fn prepare(op: Op) -> Result<Op, Refusal> {
    match op {
        Op::Add(mut add) => {
            add.createuser = add.createuser.map(password_from_elsewhere).transpose()?;
            Ok(Op::Add(add))
        }
        Op::ChangePwd(mut change) => {
            change.password = Some(password_of("NEWPASSWORD", change.password)?);
            Ok(Op::ChangePwd(change))
        }
        Op::Test(mut test) => {
            test.password = Some(password_of("PASSWORD", test.password)?);
            Ok(Op::Test(test))
        }
        Op::Set(mut set) if set.is_secret() && set.values == ["-"] => {
            set.values = vec![terminal::read_password()?.password()?.to_owned()];
            Ok(Op::Set(set))
        }
        Op::Set(set) => Ok(Op::Set(set.seen_from_here()?)),
        op => Ok(op),
    }
}

/// Carries the command out, here or in the running service. `set mailroot` is always carried out here.
pub fn carry_out(op: Op, mailroot: &MailRoot) -> Answer {
    if let Some(dir) = &mailroot.of_machine {
        eprintln!(
            "winpop: note: using your own mail store in {}; the machine's, in {}, needs root",
            mailroot.dir.display(),
            dir.display()
        );
    }
    if let Op::Delete(delete) = &op {
        confirm(delete, mailroot)?;
    }
    match op {
        Op::Set(ref set) if set.is_mailroot()? => {
            let not_opened = Store::open(&mailroot.data_file()).err().map(|error| error.kind);
            let present = match not_opened {
                Some(OpenErrorKind::Locked) => present_as_told(mailroot),
                Some(OpenErrorKind::Missing) if set.move_mail => Err(no_store(mailroot)),
                Some(OpenErrorKind::Missing) => Ok(Present::default()),
                _ => return run(Request::Command(op), mailroot),
            };
            let answer = present.and_then(|present| admin::set_mailroot(set, &present, mailroot));
            if let Some(trail) = Request::Command(op).trail() {
                super::leave_trail(&trail, &answer);
            }
            answer
        }
        Op::Add(Add { file: Some(list), passwords, name: None, createuser: None }) => {
            bulk::add(Path::new(&list), passwords.as_deref().map(Path::new), |request| run(request, mailroot))
        }
        Op::MigrateToAd(ref migrate) if let Target::Domain(domain) = migrate.name.parse()? => {
            migrate_domain(&domain, |op| run(Request::Command(op), mailroot))
        }
        _ => run(Request::Command(op), mailroot),
    }
}

/// Migrates the mailboxes of a domain one by one, so that an interruption leaves none half done. A failure of one
/// mailbox is reported at the end; a fault of the directory stops the migration.
fn migrate_domain(domain: &Domain, send: impl Fn(Op) -> Answer) -> Answer {
    let list = Op::List(List { domain: Some(domain.to_string()), all: false });
    let Reply::Mailboxes { mailboxes, .. } = send(list)? else {
        panic!("a domain is listed by its mailboxes")
    };
    let mut line = Line::new();
    let mut left_out = Vec::new();
    let mut notes = Vec::new();
    for (done, mailbox) in mailboxes.iter().enumerate() {
        line.show_items("migrating mailboxes", done, mailboxes.len());
        match send(Op::MigrateToAd(MigrateToAd { name: mailbox.mailbox.clone() })) {
            Ok(Reply::Changed(changed)) => {
                notes.extend(changed.notes.into_iter().map(|note| format!("{}: {note}", mailbox.mailbox)));
            }
            Ok(_) => panic!("a mailbox is migrated by a change"),
            Err(refusal) if refusal.code == Code::Fault => {
                let all = mailboxes.len();
                let message =
                    format!("stopped after {done} of {all} mailboxes of {domain}: {}", refusal.message);
                return Err(Refusal { message, ..refusal });
            }
            Err(refusal) => left_out.push(format!("{}: {refusal}", mailbox.mailbox)),
        }
    }
    drop(line);
    let (all, done) = (mailboxes.len(), mailboxes.len() - left_out.len());
    let message = format!("{done} of {all} mailboxes of {domain} have an account in Active Directory");
    match left_out.is_empty() {
        true => Ok(Changed { notes, ..Changed::new("migratetoad", domain, message) }.into()),
        false => {
            Err(Refusal::new(Code::NotFound, format!("{message}; not migrated: {}", left_out.join("; ")))
                .with_hint(
                    "Fix that and repeat the command; mailboxes already migrated are left as they are",
                ))
        }
    }
}

/// Before a domain is deleted, asks on a terminal for confirmation and says how much would go.
fn confirm(delete: &Delete, mailroot: &MailRoot) -> Result<(), Refusal> {
    let Target::Domain(domain) = delete.name.parse()? else { return Ok(()) };
    if delete.y || !terminal::is_there() {
        return Ok(());
    }
    // Unlike `stat DOMAIN`, this asks nobody for accounts.
    let list = Op::List(List { domain: None, all: false });
    let Reply::Domains { domains } = run(Request::Command(list), mailroot)? else {
        panic!("list is answered by domains")
    };
    // An unknown domain is refused when it comes to deleting it.
    let Some(statistics) = domains.iter().find(|line| line.domain == domain.to_string()) else {
        return Ok(());
    };
    let question = format!(
        "Delete {domain} with its mailboxes ({}) and messages ({}, {})?",
        statistics.mailboxes,
        statistics.messages,
        Octets(statistics.octets)
    );
    match terminal::confirm(&question)? {
        true => Ok(()),
        false => Err(Refusal::new(Code::Cancelled, "nothing was deleted")),
    }
}

fn run(request: Request, mailroot: &MailRoot) -> Answer {
    accounts::carry_out(request, &|request| carry_out::carry_out(request, Enclosed::Nothing, mailroot))
}

fn present_as_told(mailroot: &MailRoot) -> Result<Present, Refusal> {
    let ask = |op| run(Request::Command(op), mailroot);
    let (settings, domains) =
        (ask(Op::Get(Get { key: None }))?, ask(Op::List(List { domain: None, all: false }))?);
    let (Reply::Settings { settings }, Reply::Domains { domains }) = (settings, domains) else {
        panic!("get is answered by settings, and list by domains")
    };
    Present::told(&settings, !domains.is_empty())
}

/// The password typed, or read from the terminal or standard input.
fn password_of(argument: &str, typed: Option<Secret>) -> Result<Secret, Refusal> {
    match typed {
        Some(password) => password_from_elsewhere(password),
        None if terminal::is_there() => terminal::read_password(),
        None => Err(Refusal::usage(format!("{argument} is missing"))
            .with_hint("To read it from standard input, type - in its place")),
    }
}

fn password_from_elsewhere(secret: Secret) -> Result<Secret, Refusal> {
    if secret.is_elsewhere() { terminal::read_password() } else { Ok(secret) }
}
