//! APOP (RFC 1939 section 7) and CRAM-MD5 (RFC 2195): a digest of the password and a challenge that never repeats.

use subtle::{Choice, ConstantTimeEq};

use super::hash::{hmac_md5, md5};
use super::password::Prepared;
use super::{Account, Denial};

/// How the digest is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// MD5 of challenge and password.
    Apop,
    /// HMAC-MD5 of the challenge, keyed with the password.
    CramMd5,
}

/// A name and the digest that should prove it.
#[derive(Debug)]
pub struct Proof {
    pub name: String,
    algorithm: Algorithm,
    challenge: String,
    /// As typed. Anything but 32 hexadecimal digits is simply wrong.
    digest: Vec<u8>,
}

/// The challenge for both mechanisms, in the form of a message id.
pub fn challenge(stamp: &str, hostname: &str) -> String {
    format!("<{stamp}@{hostname}>")
}

impl Proof {
    pub fn apop(name: &[u8], digest: &[u8], challenge: String) -> Self {
        Self::new(Algorithm::Apop, name, digest, challenge)
    }

    /// `name SP digest`. The name may contain spaces.
    pub fn cram_md5(response: &[u8], challenge: String) -> Result<Self, Denial> {
        let space = response.iter().rposition(|&b| b == b' ').ok_or(Denial::Malformed)?;
        let (name, digest) = (&response[..space], &response[space + 1..]);
        if name.is_empty() {
            return Err(Denial::Malformed);
        }
        Ok(Self::new(Algorithm::CramMd5, name, digest, challenge))
    }

    fn new(algorithm: Algorithm, name: &[u8], digest: &[u8], challenge: String) -> Self {
        let name = String::from_utf8_lossy(name).into_owned();
        Self { name, algorithm, challenge, digest: digest.to_ascii_lowercase() }
    }

    /// RFC 1939 and RFC 2195 predate SASLprep, and clients differ, so the password counts both as set and as prepared.
    /// Both are checked for every account, so that timing reveals nothing.
    pub fn check(&self, account: &Account) -> Result<(), Denial> {
        let raw = account.password_or_empty().as_bytes();
        let prepared = Prepared::new(raw);
        let is_right = self.is_digest_of(raw) | self.is_digest_of(&prepared.octets);
        account.admits(is_right.into())
    }

    fn is_digest_of(&self, password: &[u8]) -> Choice {
        let challenge = self.challenge.as_bytes();
        let digest = match self.algorithm {
            Algorithm::Apop => md5(&[challenge, password]),
            Algorithm::CramMd5 => hmac_md5(password, &[challenge]),
        };
        hexadecimal(digest)[..].ct_eq(&self.digest)
    }
}

fn hexadecimal(digest: [u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|at| {
        let octet = digest[at / 2];
        DIGITS[usize::from(if at % 2 == 0 { octet >> 4 } else { octet & 15 })]
    })
}

#[cfg(test)]
mod tests {
    use super::super::hash::work;
    use super::*;
    use crate::doubles::accounts::{account, nobody};

    const APOP_CHALLENGE: &str = "<1896.697170952@dbc.mtview.ca.us>";
    const CRAM_CHALLENGE: &str = "<1896.697170952@postoffice.reston.mci.net>";

    fn apop(digest: &[u8]) -> Proof {
        Proof::apop(b"mrose", digest, APOP_CHALLENGE.to_owned())
    }

    fn cram_md5(response: &[u8]) -> Proof {
        Proof::cram_md5(response, CRAM_CHALLENGE.to_owned()).unwrap()
    }

    #[test]
    fn apop_matches_the_example_of_rfc_1939() {
        let proof = apop(b"c4c9334bac560ecc979e58001b3e22fb");
        assert_eq!((proof.name.as_str(), proof.check(&account("tanstaaf"))), ("mrose", Ok(())));
        assert_eq!(proof.check(&account("tanstaa")), Err(Denial::Wrong));
        assert_eq!(apop(b"C4C9334BAC560ECC979E58001B3E22FB").check(&account("tanstaaf")), Ok(()));
    }

    #[test]
    fn cram_md5_matches_the_example_of_rfc_2195() {
        let proof = cram_md5(b"tim b913a602c7eda7a495b4e6e7334d3890");
        assert_eq!((proof.name.as_str(), proof.check(&account("tanstaaftanstaaf"))), ("tim", Ok(())));
        assert_eq!(proof.check(&account("tanstaaf")), Err(Denial::Wrong));
    }

    #[test]
    fn a_password_longer_than_a_block_is_hashed_first() {
        let password = "p".repeat(100);
        let digest = hexadecimal(hmac_md5(&md5(&[password.as_bytes()]), &[CRAM_CHALLENGE.as_bytes()]));
        assert_eq!(cram_md5(&[b"tim ", &digest[..]].concat()).check(&account(&password)), Ok(()));
    }

    #[test]
    fn wrong_digests_are_refused() {
        for wrong in
            ["", "c4c9334bac560ecc979e58001b3e22f", "c4c9334bac560ecc979e58001b3e22fbb", APOP_CHALLENGE]
        {
            assert_eq!(apop(wrong.as_bytes()).check(&account("tanstaaf")), Err(Denial::Wrong), "{wrong}");
        }
        // The digest of another challenge, and that of the other mechanism.
        let digest = b"c4c9334bac560ecc979e58001b3e22fb";
        let replayed = Proof::apop(b"mrose", digest, CRAM_CHALLENGE.to_owned());
        assert_eq!(replayed.check(&account("tanstaaf")), Err(Denial::Wrong));
        let swapped = Proof::cram_md5(&[b"mrose ", &digest[..]].concat(), APOP_CHALLENGE.to_owned()).unwrap();
        assert_eq!(swapped.check(&account("tanstaaf")), Err(Denial::Wrong));
    }

    /// SASLprep turns U+00AA into an a and drops U+00AD.
    #[test]
    fn a_password_that_saslprep_changes_counts_as_set_and_as_prepared() {
        let set = account("\u{aa}b\u{ad}c");
        for (password, verdict) in
            [("\u{aa}b\u{ad}c", Ok(())), ("abc", Ok(())), ("ab\u{ad}c", Err(Denial::Wrong))]
        {
            let digest = hexadecimal(md5(&[APOP_CHALLENGE.as_bytes(), password.as_bytes()]));
            assert_eq!(apop(&digest).check(&set), verdict, "{password:?} by APOP");
            let digest = hexadecimal(hmac_md5(password.as_bytes(), &[CRAM_CHALLENGE.as_bytes()]));
            assert_eq!(
                cram_md5(&[b"tim ", &digest[..]].concat()).check(&set),
                verdict,
                "{password:?} by CRAM-MD5"
            );
        }
    }

    #[test]
    fn a_response_has_a_name_and_a_digest() {
        for bad in ["", "tim", " b913a602c7eda7a495b4e6e7334d3890", CRAM_CHALLENGE] {
            assert_eq!(
                Proof::cram_md5(bad.as_bytes(), CRAM_CHALLENGE.to_owned()).err(),
                Some(Denial::Malformed),
                "{bad}"
            );
        }
        assert_eq!(cram_md5(b"tim of reston 00").name, "tim of reston");
    }

    #[test]
    fn nobody_gets_in_with_an_empty_password_and_the_work_is_the_same() {
        let digest = hexadecimal(md5(&[APOP_CHALLENGE.as_bytes()]));
        let response = hexadecimal(hmac_md5(b"", &[CRAM_CHALLENGE.as_bytes()]));
        for proof in [apop(&digest), cram_md5(&[b"tim ", &response[..]].concat())] {
            let work_for = |account: Account| {
                work::take();
                assert_eq!(proof.check(&account), Err(Denial::Wrong));
                work::take()
            };
            assert_eq!(work_for(account("secret")), work_for(nobody()));
            let sealed_for_ever = Account { password: None, ..account("secret") };
            assert_eq!(proof.check(&sealed_for_ever), Err(Denial::Wrong));
        }
    }
}
