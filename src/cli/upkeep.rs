//! `backup`, `check` and `key`.

use std::path::Path;

use super::commands::{Backup, Check, Key};
use super::winpop::carry_out;
use crate::admin::reply::Code;
use crate::admin::{self, Refusal, Request};
use crate::control::Answer;
use crate::mailroot::MailRoot;
use crate::store::Store;

pub fn backup(typed: &Backup, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    let file = std::path::absolute(&typed.file)
        .map_err(|error| Refusal::new(Code::Malformed, format!("\"{}\": {error}", typed.file)))?;
    let file = file.to_string_lossy().into_owned();
    carry_out(&Request::Backup { file }, b"", &mailroot()?)
}

pub fn key(typed: &Key, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    let request = if typed.rotate { Request::RotateKey } else { Request::Key };
    carry_out(&request, b"", &mailroot()?)
}

/// Checks the store of the mail root, whoever has it open, or another file, which nobody may have open.
pub fn check(typed: &Check, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    if typed.repair {
        return Err(Refusal::new(Code::NotAvailable, "mending is not available in this version")
            .with_mend("Without --repair, check says what is wrong"));
    }
    let Some(file) = &typed.file else {
        return carry_out(&Request::Check, b"", &mailroot()?);
    };
    let store = Store::open(Path::new(file)).map_err(Refusal::fault)?;
    admin::check(&store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_to_mend_does_not_merely_look() {
        let repair = Check { file: None, repair: true };
        assert_eq!(check(&repair, || panic!("nothing is opened")).unwrap_err().code, Code::NotAvailable);
    }
}
