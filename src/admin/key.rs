//! `key`: shows or replaces the key that seals recoverable passwords.

use super::Context;
use super::reply::{Changed, Code, KeyState, Refusal, Reply};
use crate::keyring::Unchanged;
use crate::store::{Fault, Read, Store};

const KEEP: &str =
    "back up this file too, but keep it apart from the data file: without it, a backup reveals no passwords";

pub fn show(store: &Store, context: &Context) -> Result<Reply, Refusal> {
    let key = context.keyring.key();
    let (mut sealed, mut unsealed) = (0, 0);
    count(store, |is_sealed| *(if is_sealed { &mut sealed } else { &mut unsealed }) += 1)
        .map_err(Refusal::fault)?;
    let trouble = key.as_ref().err().map(|trouble| {
        format!(
            "{trouble}: APOP, CRAM-MD5 and NTLM do not work until the key is back or passwords are set again"
        )
    });
    Ok(Reply::Key(KeyState {
        file: context.keyring.path().to_string_lossy().into_owned(),
        id: key.as_ref().ok().map(|key| key.id().to_string()),
        trouble,
        sealed,
        unsealed,
        advice: KEEP.to_owned(),
    }))
}

fn count(store: &Store, mut one: impl FnMut(bool)) -> Result<(), Fault> {
    let view = store.read()?;
    let key = view.totals()?.key;
    for (domain, _) in view.domains()? {
        for (_, row) in view.mailboxes(&domain)? {
            one(row.credential.sealed.is_some_and(|sealed| Some(sealed.key) == key));
        }
    }
    Ok(())
}

pub fn rotate(store: &Store, context: &Context, discard: bool) -> Result<Reply, Refusal> {
    let resealed = context.keyring.rotate(store, discard).map_err(|unchanged| {
        let refusal = Refusal::new(Code::Fault, unchanged.to_string());
        match unchanged {
            Unchanged::WouldGiveUp { .. } => refusal.with_hint(
                "Restore the key they are sealed under, or give them up with pop3svc key --rotate --discard: each is sealed \
                 again when its user next logs in with the password itself",
            ),
            Unchanged::Failed(_) => refusal,
        }
    })?;
    let message = format!("The key was changed; passwords sealed under the new one: {}", resealed.resealed);
    let mut changed = Changed::new("key", &context.keyring.path().display(), message);
    if resealed.left > 0 {
        changed.notes.push(format!(
            "passwords not sealed again: {}; each will be when its user next logs in with the password itself",
            resealed.left
        ));
    }
    if let Some(old) = &resealed.old {
        changed.notes.push(format!("the old key is in {}; backups made until now need it", old.display()));
    }
    Ok(changed.into())
}
