//! The account directory that the settings name, and the mailbox meant by a login name.

use std::path::Path;
use std::sync::Arc;

use crate::active_directory::{ActiveDirectory, Configuration};
use crate::address::{Address, LocalPart};
use crate::auth::directory::Directory;
use crate::keyring::Keyring;
use crate::local_accounts::{ETC, LocalAccounts};
use crate::settings::{Method, Settings};
use crate::store::{Fault, Read};

/// The current account directory; `None` if the data file holds the accounts. An error is a sentence.
pub fn in_force(settings: &Settings, keyring: &Keyring) -> Result<Option<Arc<dyn Directory>>, String> {
    match settings.authentication {
        Method::PasswordFile => Ok(None),
        Method::ActiveDirectory => active_directory(settings, keyring).map(Some),
        Method::LocalAccounts => Ok(Some(Arc::new(LocalAccounts::of(Path::new(ETC))))),
    }
}

/// Active Directory as the settings describe it, whether or not it is the current directory. An error is a sentence.
pub fn active_directory(settings: &Settings, keyring: &Keyring) -> Result<Arc<dyn Directory>, String> {
    let configuration = Configuration {
        servers: settings.adserver.get().to_vec(),
        base: settings.adbasedn.get().ok_or("adbasedn is not set")?.to_owned(),
        user: settings.adbinduser.get().ok_or("adbinduser is not set")?.to_owned(),
        password: keyring.bind_password(settings)?,
        authorities: settings.adca.get().map(Path::to_owned),
        ntlm_socket: settings.adntlm.get().map(Path::to_owned),
    };
    Ok(Arc::new(ActiveDirectory::new(configuration)?))
}

/// True if the two settings name different directories, or different ways to reach it.
pub fn is_another(before: &Settings, after: &Settings) -> bool {
    let of = |settings: &Settings| {
        let Settings { authentication, adserver, adbasedn, adbinduser, adbindpassword, adca, adntlm, .. } =
            settings.clone();
        (authentication, adserver, adbasedn, adbinduser, adbindpassword, adca, adntlm)
    };
    of(before) != of(after)
}

/// The mailboxes of this name in all domains.
pub fn namesakes(view: &impl Read, name: &LocalPart) -> Result<Vec<Address>, Fault> {
    let mut found = Vec::new();
    for (domain, _) in view.domains()? {
        let address = Address { local: name.clone(), domain };
        if view.mailbox(&address)?.is_some() {
            found.push(address);
        }
    }
    Ok(found)
}

/// The mailbox meant by a login name: an address, or the name of an account, bare or after `DOMAIN\`. `None` if several
/// mailboxes have the name.
pub fn mailbox_meant(view: &impl Read, typed: &str) -> Result<Option<Address>, Fault> {
    if let Ok(address) = Address::from_login(typed) {
        return Ok(view.mailbox(&address)?.map(|_| address));
    }
    let (_, name) = typed.split_once('\\').unwrap_or(("", typed));
    let Ok(name) = name.parse() else { return Ok(None) };
    let mut found = namesakes(view, &name)?;
    Ok(found.pop().filter(|_| found.is_empty()))
}
