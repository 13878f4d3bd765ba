//! Quota files: the original's name for the rule that a mailbox counts against an account's quota.

use super::commands::{CreateQuotaFile, DeleteQuotaFile};
use super::configure::settings_of;
use super::directory::changed;
use super::reply::{Changed, Code, Refusal, Reply};
use crate::address::Address;
use crate::directory;
use crate::settings::Method;
use crate::store::{Refused, Store};
use crate::units::{self, Octets};

impl CreateQuotaFile {
    pub fn run(&self, store: &Store) -> Result<Reply, Refusal> {
        let mailbox: Address = self.name.parse()?;
        let account: Address = match &self.user {
            Some(typed) => account(typed, store)?,
            None => mailbox.clone(),
        };
        let limit = self.limit.as_deref().map(limit).transpose()?;
        let (counting, referred_to) = (mailbox.clone(), account.clone());
        let quota = changed(store, move |tx| tx.set_quota(&counting, &referred_to, limit))?;
        let limit = match quota.limit {
            Some(limit) => format!("{} of {}", Octets(quota.used), Octets(limit)),
            None => format!("{}, unlimited", Octets(quota.used)),
        };
        let message = format!("{mailbox} counts against the quota of {account}: {limit}");
        let mut changed = Changed::new("createquotafile", &mailbox, message);
        changed.notes.extend(self.limit.as_deref().and_then(units::taken_as_binary));
        if quota.limit.is_none() {
            changed.notes.push("to set a limit, use /limit:SIZE or the setting quotalimit".to_owned());
        }
        if !quota.has_room_for(0) {
            changed
                .notes
                .push("the quota is used up, so new mail is refused until some is deleted".to_owned());
        }
        Ok(changed.into())
    }
}

impl DeleteQuotaFile {
    pub fn run(&self, store: &Store) -> Result<Reply, Refusal> {
        let mailbox: Address = self.name.parse()?;
        let counting = mailbox.clone();
        let outcome = store.write(move |tx| tx.remove_quota(&counting)).wait().map_err(Refusal::fault)?;
        let message = match outcome {
            Ok(_) => format!("{mailbox} no longer counts against a quota"),
            Err(Refused::NoQuota(_)) => format!("{mailbox} does not count against a quota"),
            Err(why) => return Err(why.into()),
        };
        Ok(Changed::new("deletequotafile", &mailbox, message).into())
    }
}

/// The mailbox of the named account. With the password file, accounts are mailboxes.
fn account(typed: &str, store: &Store) -> Result<Address, Refusal> {
    if typed.contains('@') {
        return Ok(typed.parse()?);
    }
    let why = match settings_of(store)?.authentication {
        Method::PasswordFile => "with the password file, accounts are mailboxes",
        Method::LocalAccounts | Method::ActiveDirectory => {
            let view = store.read().map_err(Refusal::fault)?;
            if let Some(mailbox) = directory::mailbox_meant(&*view, typed).map_err(Refusal::fault)? {
                return Ok(mailbox);
            }
            "no mailbox has that name, or more than one has"
        }
    };
    Err(Refusal::new(Code::NotFound, format!("\"{typed}\" does not name one account: {why}"))
        .with_hint("Write it as /user:USER@DOMAIN"))
}

fn limit(typed: &str) -> Result<u64, Refusal> {
    let octets: Octets = typed.parse().map_err(|why: String| Refusal::new(Code::Value, why))?;
    Ok(octets.0)
}
