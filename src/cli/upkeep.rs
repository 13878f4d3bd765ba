//! `backup`, `check` and `key`.

use std::path::PathBuf;

use super::carry_out::carry_out;
use super::commands::{Backup, Check, Key};
use crate::admin::reply::Code;
use crate::admin::{self, Refusal, Request};
use crate::control::Answer;
use crate::mailroot::MailRoot;
use crate::store::{OpenError, OpenErrorKind, Store};

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

/// Checks the store of the mail root, whoever has it open, or another file, which nobody may have open. Where it is opened
/// here, the checksums of its index are compared too.
pub fn check(typed: &Check, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    let mailroot = mailroot()?;
    let file = typed.file.as_ref().map_or_else(|| mailroot.data_file(), PathBuf::from);
    if typed.repair {
        return admin::repair(&file);
    }
    match Store::open_verified(&file) {
        Ok(store) => admin::check(&store),
        Err(OpenError { kind: OpenErrorKind::Locked | OpenErrorKind::Missing, .. })
            if typed.file.is_none() =>
        {
            carry_out(&Request::Check, b"", &mailroot)
        }
        Err(error) => Err(Refusal::fault(error)),
    }
}
