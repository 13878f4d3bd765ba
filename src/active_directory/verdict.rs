//! What the directory's answers mean.

use std::fmt;

use crate::address::Address;
use crate::auth::directory::Verdict;
use crate::ldap::Outcome;

/// Why an account may not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    Hours,
    Workstation,
    PasswordExpired,
    Disabled,
    AccountExpired,
    PasswordMustChange,
    LockedOut,
    /// By an unnamed rule of the directory.
    Restricted,
    /// Several accounts claim the name.
    Ambiguous,
    /// The password is right, but the account is outside the service's search base.
    OutsideBase,
}

/// The verdict on a bind as the account with these addresses.
pub fn of_bind(outcome: &Outcome, addresses: Vec<Address>) -> Verdict {
    match outcome.code {
        Outcome::SUCCESS => Verdict::Right(addresses),
        Outcome::INVALID_CREDENTIALS => match barred(&outcome.message) {
            Some(why) => why.verdict(),
            None => Verdict::Wrong,
        },
        _ => {
            let why = format!("is refused by the directory: {outcome}");
            Verdict::Barred { why, is_proven: false }
        }
    }
}

/// The reason if a bind was refused for anything but a wrong name or password. It is the Windows logon error after
/// `data` ([MS-ERREF] section 2.2), for example 0x533, ERROR_ACCOUNT_DISABLED.
fn barred(message: &str) -> Option<Barred> {
    let (_, rest) = message.split_once("data ")?;
    let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next().unwrap_or_default();
    match u32::from_str_radix(digits, 16).ok()? {
        0x530 => Some(Barred::Hours),
        0x531 => Some(Barred::Workstation),
        0x532 => Some(Barred::PasswordExpired),
        0x533 => Some(Barred::Disabled),
        0x701 => Some(Barred::AccountExpired),
        0x773 => Some(Barred::PasswordMustChange),
        0x775 => Some(Barred::LockedOut),
        // 525 means no such user, 52e a wrong password.
        _ => None,
    }
}

/// A sentence that says why the directory made no change.
pub fn refusal(outcome: &Outcome) -> String {
    // 0x52d is ERROR_PASSWORD_RESTRICTION.
    let is_password = outcome.code == Outcome::CONSTRAINT_VIOLATION
        || (outcome.code == Outcome::UNWILLING_TO_PERFORM
            && outcome.message.to_ascii_lowercase().contains("52d"));
    match outcome.code {
        _ if is_password => {
            format!("the directory's password policy does not take this password ({outcome})")
        }
        Outcome::INSUFFICIENT_ACCESS => format!("adbinduser may not do that in the directory ({outcome})"),
        Outcome::NO_SUCH_OBJECT => format!("the directory has no such place ({outcome})"),
        _ => format!("the directory refuses it ({outcome})"),
    }
}

impl Barred {
    /// A directory gives a reason only after it has compared the password, unless the account is locked out.
    pub fn verdict(self) -> Verdict {
        let is_proven = !matches!(self, Self::LockedOut | Self::Ambiguous);
        Verdict::Barred { why: self.to_string(), is_proven }
    }
}

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hours => "may not log in at this time",
            Self::Workstation => "may not log in from this machine",
            Self::PasswordExpired => "has a password that has expired",
            Self::Disabled => "is disabled",
            Self::AccountExpired => "has expired",
            Self::PasswordMustChange => "must change the password first",
            Self::LockedOut => "is locked out",
            Self::Restricted => "is kept out by a rule of the directory",
            Self::OutsideBase => "has its account outside of adbasedn",
            Self::Ambiguous => "is claimed by several accounts of the directory",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(code: u32, message: &str) -> Verdict {
        of_bind(&Outcome { code, message: message.to_owned() }, vec![])
    }

    #[test]
    fn the_code_of_a_refused_bind_gives_the_reason() {
        let refused = |data: &str| {
            bind(
                49,
                &format!(
                    "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data {data}, v1db1"
                ),
            )
        };
        assert_eq!(bind(0, ""), Verdict::Right(vec![]));
        for wrong in ["525", "52e", "57", "0", "x", ""] {
            assert_eq!(refused(wrong), Verdict::Wrong, "{wrong}");
        }
        for (data, reason) in [
            ("530", Barred::Hours),
            ("531", Barred::Workstation),
            ("532", Barred::PasswordExpired),
            ("533", Barred::Disabled),
            ("701", Barred::AccountExpired),
            ("773", Barred::PasswordMustChange),
            ("775", Barred::LockedOut),
        ] {
            assert_eq!(refused(data), reason.verdict());
        }
        assert_eq!(bind(49, "no data at all"), Verdict::Wrong);
        assert!(matches!(bind(53, "unwilling"), Verdict::Barred { .. }));
    }

    #[test]
    fn a_password_against_the_policy_is_told_apart_from_a_lack_of_rights() {
        let refusal = |code, message: &str| refusal(&Outcome { code, message: message.to_owned() });
        assert!(refusal(19, "0000052D: Constraint violation").contains("password policy"));
        assert!(refusal(53, "0000052D: SvcErr: DSID-031A12D2").contains("password policy"));
        assert!(refusal(50, "00000005").contains("adbinduser"));
        assert!(!refusal(53, "").contains("password"));
    }
}
