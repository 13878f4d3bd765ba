//! md5crypt (crypt(5), `$1$`), which FreeBSD introduced. Old accounts still have it.

use crate::auth::hash::md5;

const ROUNDS: usize = 1000;
const SALT_OCTETS_MAX: usize = 8;
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The octets of the hash, most significant first, that give four digits each. The last octet gives two.
const TRIPLES: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
const LAST: usize = 11;

/// The whole hash, `$1$salt$` and 22 digits.
pub fn md5crypt(password: &[u8], salt: &str) -> String {
    let salt_octets = &salt.as_bytes()[..salt.len().min(SALT_OCTETS_MAX)];
    let inner = md5(&[password, salt_octets, password]);
    let mut parts = vec![password, b"$1$", salt_octets];
    parts.extend(password.chunks(inner.len()).map(|chunk| &inner[..chunk.len()]));
    let mut length = password.len();
    while length > 0 {
        // A one bit adds a NUL, a zero bit the first character: an accident of the first implementation that everyone
        // copied.
        parts.push(if length & 1 == 1 { b"\0" } else { &password[..1] });
        length >>= 1;
    }
    let mut hash = md5(&parts);
    for round in 0..ROUNDS {
        let is_odd = round % 2 == 1;
        let salt = if round % 3 != 0 { salt_octets } else { b"" };
        let again = if round % 7 != 0 { password } else { b"" };
        hash = match is_odd {
            true => md5(&[password, salt, again, &hash]),
            false => md5(&[&hash, salt, again, password]),
        };
    }
    let mut text = format!("$1${salt}$");
    let mut put = |value: u32, digits: usize| {
        text.extend((0..digits).map(|place| DIGITS[(value >> (6 * place) & 63) as usize] as char));
    };
    for triple in TRIPLES {
        put(triple.iter().fold(0, |value, place| value << 8 | u32::from(hash[*place])), 4);
    }
    put(hash[LAST].into(), 2);
    text
}
