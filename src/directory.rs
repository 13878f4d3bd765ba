//! The directory of accounts that the settings name.

use std::path::Path;
use std::sync::Arc;

use crate::active_directory::{ActiveDirectory, Configuration};
use crate::auth::directory::Directory;
use crate::keyring::Keyring;
use crate::settings::{Method, Settings};

/// The directory in force; none where the data file itself holds the accounts. An error is a sentence.
pub fn in_force(settings: &Settings, keyring: &Keyring) -> Result<Option<Arc<dyn Directory>>, String> {
    match settings.authentication {
        Method::PasswordFile => Ok(None),
        Method::ActiveDirectory => active_directory(settings, keyring).map(Some),
        Method::LocalAccounts => Err("local accounts are not available in this version".to_owned()),
    }
}

/// Active Directory as the settings describe it, in force or not. An error is a sentence.
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

/// Whether another directory is in force under other settings, or the same one is asked in another way.
pub fn is_another(before: &Settings, after: &Settings) -> bool {
    let of = |settings: &Settings| {
        let Settings { authentication, adserver, adbasedn, adbinduser, adbindpassword, adca, adntlm, .. } =
            settings.clone();
        (authentication, adserver, adbasedn, adbinduser, adbindpassword, adca, adntlm)
    };
    of(before) != of(after)
}
