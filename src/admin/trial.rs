//! `test`: tries a login and reports what each step found.
//!
//! It takes the path of a login without opening the maildrop, so it disturbs no session and counts no guess. Active
//! Directory counts a wrong password as it always does.

use std::sync::Arc;

use super::commands::Test;
use super::configure::settings_of;
use super::reply::{Refusal, Reply, Tested, TestedStep};
use super::{Context, accounts};
use crate::address::Address;
use crate::auth::directory::{Directory, Found, Place, Unavailable, Verdict};
use crate::auth::password::Credential;
use crate::directory;
use crate::settings::Settings;
use crate::store::{Fault, Mover, Quota, Read, Store, mover_of, quota_of_mailbox};
use crate::units::Octets;

impl Test {
    pub fn run(&self, store: &Store, context: &Context) -> Result<Reply, Refusal> {
        let password = self.password.as_ref().map(|password| password.password()).transpose()?.unwrap_or("");
        let login = Login { typed: &self.name, password };
        let settings = settings_of(store)?;
        let directory = accounts::in_force(store, context);
        let mut trial = Trial { steps: Vec::new() };
        let known = directory.as_ref().ok().and_then(|directory| directory.as_deref());
        let address = trial.resolve(&self.name, known, store)?;
        if let Some(address) = &address {
            trial.look(address, &login, &settings, directory, store, context).map_err(Refusal::fault)?;
        }
        Ok(Reply::Tested(Tested {
            mailbox: address.map_or_else(|| self.name.clone(), |address| address.to_string()),
            authentication: settings.authentication.name().to_owned(),
            can_log_in: trial.steps.iter().all(|step| step.passed),
            steps: trial.steps,
        }))
    }
}

struct Trial {
    steps: Vec<TestedStep>,
}

/// What a client would send.
struct Login<'a> {
    typed: &'a str,
    password: &'a str,
}

impl Trial {
    fn note(&mut self, step: &str, passed: bool, finding: impl Into<String>) {
        self.steps.push(TestedStep { step: step.to_owned(), passed, finding: finding.into() });
    }

    /// The mailbox that a login name means. An address means itself, even if there is no such mailbox. `None`: a step
    /// says why the name means no mailbox.
    fn resolve(
        &mut self,
        typed: &str,
        directory: Option<&dyn Directory>,
        store: &Store,
    ) -> Result<Option<Address>, Refusal> {
        let address = Address::from_login(typed);
        let Some(directory) = directory else { return Ok(Some(address?)) };
        if let Ok(address) = &address
            && store.read().and_then(|view| view.mailbox(address)).map_err(Refusal::fault)?.is_some()
        {
            return Ok(Some(address.clone()));
        }
        let found = match directory.place() {
            Place::Network => directory.find(typed),
            Place::ThisMachine => {
                let meant = store.read().and_then(|view| directory::mailbox_meant(&*view, typed));
                Ok(meant
                    .map_err(Refusal::fault)?
                    .map(|address| Found { name: typed.to_owned(), addresses: vec![address] }))
            }
        };
        match (found, address) {
            (Ok(Some(found)), _) => return self.mailbox_of(found, store).map_err(Refusal::fault),
            (Ok(None), Ok(address)) => return Ok(Some(address)),
            (Ok(None), Err(_)) => {
                self.note("account", false, format!("{typed} matches no account, or more than one"))
            }
            (Err(unavailable), _) => self.note("account", false, unavailable.to_string()),
        }
        Ok(None)
    }

    /// The first of an account's addresses that is a mailbox here.
    fn mailbox_of(&mut self, found: Found, store: &Store) -> Result<Option<Address>, Fault> {
        let view = store.read()?;
        for address in &found.addresses {
            if view.mailbox(address)?.is_some() {
                return Ok(Some(address.clone()));
            }
        }
        let addresses: Vec<String> = found.addresses.iter().map(Address::to_string).collect();
        self.note("account", true, format!("{} {}", found.name, Place::Network.words()));
        self.note(
            "mailbox",
            false,
            format!("it has no mailbox here; its addresses: {}", addresses.join(", ")),
        );
        Ok(None)
    }

    fn look(
        &mut self,
        address: &Address,
        login: &Login,
        settings: &Settings,
        directory: Result<Option<Arc<dyn Directory>>, Refusal>,
        store: &Store,
        context: &Context,
    ) -> Result<(), Fault> {
        let view = store.read()?;
        let Some(domain) = view.domain(&address.domain)? else {
            self.note("mailbox", false, format!("there is no domain {}", address.domain));
            return Ok(());
        };
        let Some(mailbox) = view.mailbox(address)? else {
            self.note("mailbox", false, format!("there is no mailbox {address}"));
            return Ok(());
        };
        let messages = view.counts(mailbox.id)?.messages;
        let namesakes = directory::namesakes(&*view, &address.local)?.len();
        let mover = mover_of(&*view, mailbox.id)?;
        let quota = quota_of_mailbox(&*view, &mailbox)?;
        // A directory may take its time to answer, and nothing is held meanwhile.
        drop(view);
        self.note("mailbox", true, format!("found, messages {messages}"));

        let is_spa_required = settings.sparequired.is_on();
        match directory {
            Err(refusal) => self.note("account", false, refusal.message),
            Ok(None) => {
                self.check_stored(&mailbox.credential, login.password, address, context);
                if is_spa_required {
                    let finding = "sparequired is 1: the client must use APOP, CRAM-MD5, NTLM or SCRAM";
                    self.note("method", true, finding);
                }
            }
            Ok(Some(directory)) => {
                let account = self.ask(&*directory, namesakes, address, login);
                if let (true, Some(account)) = (is_spa_required, account) {
                    self.look_at_ntlm(&*directory, &account);
                }
            }
        }
        match (domain.locked, mailbox.locked) {
            (true, _) => self.note("lock", false, format!("the domain {} is locked", address.domain)),
            (_, true) => self.note("lock", false, "the mailbox is locked"),
            _ => self.note("lock", true, "not locked"),
        }
        match mover {
            None => {}
            Some(Mover::Import) => self.note("import", false, "an import into the mailbox is not complete"),
            Some(Mover::Adoption) => self.note("import", false, "its mail is still being fetched"),
        }
        self.look_at_quota(quota);
        Ok(())
    }

    /// Checks the password against the one in the data file.
    fn check_stored(&mut self, stored: &Credential, password: &str, address: &Address, context: &Context) {
        if stored.is_of_nobody() {
            let hint = format!("no password is set; to set one: winpop changepwd {address}");
            return self.note("account", false, hint);
        }
        self.note(
            "account",
            true,
            match context.keyring.recover(stored, address) {
                Some(_) => "has a password, for every login method",
                None => "has a password, but not for APOP, CRAM-MD5 and NTLM until its next login in clear",
            },
        );
        match stored.verifier.accepts(password.as_bytes()) {
            true => self.note("password", true, "correct"),
            false => self.note("password", false, "wrong"),
        }
    }

    /// Has a directory check the password, and returns the name of the account. `namesakes`: mailboxes that could have
    /// the same account.
    fn ask(
        &mut self,
        directory: &dyn Directory,
        namesakes: usize,
        address: &Address,
        login: &Login,
    ) -> Option<String> {
        let place = directory.place().words();
        if directory.place() == Place::ThisMachine && namesakes > 1 {
            let finding =
                format!("{namesakes} mailboxes are named {}, so none has that account", address.local);
            self.note("account", false, finding);
            return None;
        }
        let account = match directory.account_of(address) {
            Err(unavailable) => {
                self.note("account", false, unavailable.to_string());
                return None;
            }
            Ok(None) => {
                self.note("account", false, format!("there is none {place}"));
                return None;
            }
            Ok(Some(name)) => name,
        };
        self.note("account", true, format!("{account} {place}"));
        let verified = match directory.place() {
            Place::Network => directory.verify(login.typed, login.password),
            Place::ThisMachine => directory.verify(&address.to_string(), login.password),
        };
        match verified {
            Err(unavailable) => self.note("password", false, unavailable.to_string()),
            Ok(Verdict::Right(addresses)) if addresses.contains(address) => {
                self.note("password", true, "correct");
            }
            Ok(Verdict::Right(_)) => {
                self.note("password", false, "correct, but the account has another address")
            }
            Ok(Verdict::Wrong) => self.note("password", false, "wrong"),
            Ok(Verdict::Barred { why, .. }) => self.note("password", false, format!("the account {why}")),
        }
        Some(account)
    }

    /// With sparequired, NTLM is the only way to log in to an account of a directory, and it knows other names.
    fn look_at_ntlm(&mut self, directory: &dyn Directory, account: &str) {
        let tried = directory.try_ntlm();
        match (tried, directory.ntlm_domain()) {
            (Err(Unavailable(why)), _) => {
                self.note("method", false, format!("sparequired is 1, but NTLM cannot be checked: {why}"));
            }
            (Ok(()), None) => self.note("method", false, "sparequired is 1, but adntlm is not set"),
            (Ok(()), Some(domain)) => {
                let finding = format!("sparequired is 1: the client must use NTLM, as {domain}\\{account}");
                self.note("method", true, finding);
            }
        }
    }

    /// A full mailbox can still be read.
    fn look_at_quota(&mut self, quota: Option<Quota>) {
        let finding = match quota {
            None => "none".to_owned(),
            Some(quota) => {
                let used = Octets(quota.used);
                let full = if quota.has_room_for(0) { "" } else { "; new mail is refused" };
                match quota.limit {
                    None => format!("{used} used, no limit"),
                    Some(limit) => format!("{used} of {} used{full}", Octets(limit)),
                }
            }
        };
        self.note("quota", true, finding);
    }
}
