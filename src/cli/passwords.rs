//! Generates passwords.

use std::io;

use crate::random;

/// Without letters and digits that are easily mistaken for one another. 32, so that an octet modulo 32 is unbiased.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A random password of this many characters, with five bits of entropy each.
pub fn made<const CHARACTERS: usize>() -> io::Result<String> {
    let octets: [u8; CHARACTERS] = random::octets()?;
    Ok(octets.iter().map(|octet| char::from(ALPHABET[usize::from(octet % 32)])).collect())
}
