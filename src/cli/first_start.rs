//! The domain and mailbox that `serve` creates at start, named by environment variables, for containers with an empty
//! volume.
//!
//! | variable | names |
//! | --- | --- |
//! | `WINPOP_DOMAIN` | a domain |
//! | `WINPOP_USER` | a mailbox: `USER@DOMAIN`, or `USER` in `WINPOP_DOMAIN` |
//! | `WINPOP_PASSWORD_FILE` | the file whose first line is the password of that mailbox |
//!
//! An existing mailbox keeps its password, so the container can be restarted with the same variables, and without the
//! file. The password itself is not a variable, because anyone who can inspect the container could read it.

use std::fs;
use std::path::PathBuf;

use super::accounts;
use super::carry_out::carry_out;
use super::serve::open;
use crate::admin::commands::Add;
use crate::admin::reply::Code;
use crate::admin::secret::Secret;
use crate::admin::{Op, Refusal, Request, Target};
use crate::control::Enclosed;
use crate::mailroot::MailRoot;
use crate::store::{Read as _, Store};

const DOMAIN: &str = "WINPOP_DOMAIN";
const USER: &str = "WINPOP_USER";
const PASSWORD_FILE: &str = "WINPOP_PASSWORD_FILE";

/// The domain and mailbox that the variables name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FirstStart {
    domain: Option<String>,
    mailbox: Option<String>,
    password_file: Option<PathBuf>,
}

impl FirstStart {
    /// Reads the variables. An empty one counts as unset.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Refusal> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let mut domain = variable(DOMAIN);
        let address = match (variable(USER), &domain) {
            (None, _) => return Ok(Self { domain, ..Self::default() }),
            (Some(user), None) if !user.contains('@') => {
                return Err(Refusal::usage(format!("{USER} names \"{user}\" without a domain"))
                    .with_hint("Set it to USER@DOMAIN, or set WINPOP_DOMAIN"));
            }
            (Some(user), Some(domain)) if !user.contains('@') => format!("{user}@{domain}"),
            (Some(address), _) => address,
        };
        if domain.is_none() {
            domain = address.rsplit_once('@').map(|(_, domain)| domain.to_owned());
        }
        let password_file = variable(PASSWORD_FILE).map(PathBuf::from);
        Ok(Self { domain, mailbox: Some(address), password_file })
    }

    pub fn makes_something(&self) -> bool {
        self.domain.is_some()
    }

    /// Creates what does not exist yet.
    pub fn make(&self, mailroot: &MailRoot) -> Result<(), Refusal> {
        let new_mailbox = match &self.mailbox {
            Some(address) if !is_there(address, mailroot)? => Some((address, self.password()?)),
            _ => None,
        };
        if let Some(domain) = &self.domain
            && !is_there(domain, mailroot)?
        {
            add(domain, None, mailroot)?;
        }
        if let Some((address, password)) = new_mailbox {
            add(address, Some(password), mailroot)?;
        }
        Ok(())
    }

    fn password(&self) -> Result<Secret, Refusal> {
        let Some(file) = &self.password_file else {
            return Err(Refusal::usage(format!("{USER} is set without {PASSWORD_FILE}"))
                .with_hint("Put the password in a file and name the file there"));
        };
        let text = fs::read_to_string(file).map_err(|error| {
            Refusal::fault(format!("the password in {} cannot be read: {error}", file.display()))
        })?;
        Ok(text.lines().next().unwrap_or_default().to_owned().into())
    }
}

fn add(name: &str, createuser: Option<Secret>, mailroot: &MailRoot) -> Result<(), Refusal> {
    let add = Add { name: Some(name.to_owned()), createuser, file: None, passwords: None };
    accounts::carry_out(Request::Command(Op::Add(add)), &|request| {
        carry_out(request, Enclosed::Nothing, mailroot)
    })
    .map(drop)
}

fn is_there(name: &str, mailroot: &MailRoot) -> Result<bool, Refusal> {
    let name = name.parse()?;
    let store = match open(mailroot, Store::open) {
        Ok(store) => store,
        Err(refusal) if refusal.code == Code::NoStore => return Ok(false),
        Err(refusal) => return Err(refusal),
    };
    let view = store.read().map_err(Refusal::fault)?;
    let found = match &name {
        Target::Domain(domain) => view.domain(domain).map(|row| row.is_some()),
        Target::Mailbox(address) => view.mailbox(address).map(|row| row.is_some()),
    };
    found.map_err(Refusal::fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<FirstStart, String> {
        let value =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        FirstStart::from_variables(value).map_err(|refusal| refusal.to_string())
    }

    fn first(domain: &str, address: &str) -> FirstStart {
        FirstStart {
            domain: Some(domain.to_owned()),
            mailbox: Some(address.to_owned()),
            password_file: Some("/p".into()),
        }
    }

    #[test]
    fn a_mailbox_is_named_alone_or_in_a_domain() {
        assert_eq!(read(&[(DOMAIN, ""), (PASSWORD_FILE, "/p")]), Ok(FirstStart::default()));
        let only_domain = FirstStart { domain: Some("a.org".into()), ..FirstStart::default() };
        assert_eq!(read(&[(DOMAIN, "a.org")]), Ok(only_domain));
        let file = (PASSWORD_FILE, "/p");
        assert_eq!(read(&[(DOMAIN, "a.org"), (USER, "ann"), file]), Ok(first("a.org", "ann@a.org")));
        assert_eq!(read(&[(USER, "ann@b.org"), file]), Ok(first("b.org", "ann@b.org")));
        assert_eq!(read(&[(DOMAIN, "a.org"), (USER, "ann@b.org"), file]), Ok(first("a.org", "ann@b.org")));
        assert!(read(&[(USER, "ann"), file]).unwrap_err().contains("without a domain"));
    }
}
