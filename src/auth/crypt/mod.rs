//! Password hashes of crypt(5), as `/etc/shadow` holds them: yescrypt, sha512crypt, sha256crypt, bcrypt and md5crypt.
//!
//! A hash states its own cost. We do not compute one above [`SHA_ROUNDS_MAX`], [`BCRYPT_COST_MAX`] or
//! [`YESCRYPT_OCTETS_MAX`], about a second of processor time, so that every login ends.

mod md5;

use sha_crypt::ShaCrypt;
use subtle::ConstantTimeEq as _;
use yescrypt::{Mode, Params, PasswordVerifier, Yescrypt};

#[cfg(test)]
use super::hash::work;

/// Rounds of sha256crypt and sha512crypt. Hashes without `rounds=` have 5000.
const SHA_ROUNDS_MAX: u32 = 1_000_000;
/// The binary logarithm of the rounds of bcrypt.
const BCRYPT_COST_MAX: u32 = 14;
/// Memory of yescrypt. Systems usually choose 16 MiB.
const YESCRYPT_OCTETS_MAX: u64 = 256 << 20;
/// Digits of the 256-bit hash at the end of a yescrypt line.
const YESCRYPT_DIGITS: usize = 43;

/// Why a hash cannot be checked. Follows "its password hash" in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    Unknown,
    Malformed,
    TooCostly,
}

impl Unusable {
    pub fn words(self) -> &'static str {
        match self {
            Self::Unknown => {
                "is of a kind that this service does not know (it knows yescrypt, sha512crypt, sha256crypt, bcrypt and md5crypt)"
            }
            Self::Malformed => "cannot be read",
            Self::TooCostly => "takes too long to compute",
        }
    }
}

/// Checks a password against a hash. Takes milliseconds, at most about a second.
pub fn verify(password: &[u8], hash: &str) -> Result<bool, Unusable> {
    // crypt(3) stops at a NUL, so it would accept a longer password too.
    let password = if password.contains(&0) { &[] } else { password };
    let fields: Vec<&str> = hash.split('$').collect();
    let (&[id, settings, _, ..], "") = (fields.get(1..).unwrap_or(&[]), fields[0]) else {
        return Err(Unusable::Unknown);
    };
    let is_right = match id {
        "y" => {
            check_yescrypt(&fields, settings)?;
            #[cfg(test)]
            work::note("yescrypt");
            Yescrypt::default().verify_password(password, hash).is_ok()
        }
        "5" | "6" => {
            check_sha(&fields, settings)?;
            #[cfg(test)]
            work::note("sha-crypt");
            ShaCrypt::default().verify_password(password, hash).is_ok()
        }
        "2a" | "2b" | "2y" => {
            let cost: u32 = settings.parse().map_err(|_| Unusable::Malformed)?;
            if cost > BCRYPT_COST_MAX {
                return Err(Unusable::TooCostly);
            }
            #[cfg(test)]
            work::note("bcrypt");
            bcrypt::verify(password, hash).map_err(|_| Unusable::Malformed)?
        }
        "1" => {
            #[cfg(test)]
            work::note("md5crypt");
            md5::md5crypt(password, settings).as_bytes().ct_eq(hash.as_bytes()).into()
        }
        _ => return Err(Unusable::Unknown),
    };
    Ok(is_right && !password.is_empty())
}

/// `$y$settings$salt$hash`. We verify the length, because the crate accepts a hash that is too short.
fn check_yescrypt(fields: &[&str], settings: &str) -> Result<(), Unusable> {
    let [_, _, _, salt, hash] = fields else { return Err(Unusable::Malformed) };
    let params: Params = settings.parse().map_err(|_| Unusable::Malformed)?;
    let usual = Params::new(Mode::default(), params.n(), params.r(), 1).map_err(|_| Unusable::Malformed)?;
    if salt.is_empty() || hash.len() != YESCRYPT_DIGITS {
        return Err(Unusable::Malformed);
    }
    let octets = 128_u64.saturating_mul(params.n()).saturating_mul(params.r().into());
    match params == usual && octets <= YESCRYPT_OCTETS_MAX {
        true => Ok(()),
        false => Err(Unusable::TooCostly),
    }
}

/// `$5$salt$hash` or `$5$rounds=5000$salt$hash`.
fn check_sha(fields: &[&str], settings: &str) -> Result<(), Unusable> {
    let Some(rounds) = settings.strip_prefix("rounds=") else {
        return if fields.len() == 4 { Ok(()) } else { Err(Unusable::Malformed) };
    };
    match rounds.parse::<u32>() {
        Ok(rounds) if fields.len() == 5 && rounds <= SHA_ROUNDS_MAX => Ok(()),
        Ok(_) if fields.len() == 5 => Err(Unusable::TooCostly),
        _ => Err(Unusable::Malformed),
    }
}

#[cfg(test)]
mod tests;
