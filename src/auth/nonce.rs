//! A session's unpredictable values, derived from one seed so that tests can reproduce them.

use std::fmt::Write;

/// Octets per nonce: enough never to repeat, and no padding in Base64.
pub const NONCE_OCTETS: usize = 18;

/// Octets that cannot be predicted without the seed; none is used twice.
#[derive(Debug)]
pub struct Nonces(blake3::OutputReader);

/// For one exchange.
pub type Nonce = [u8; NONCE_OCTETS];

impl Nonces {
    /// `seed` is 32 random octets from the system, used for one session only.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(blake3::Hasher::new_keyed(&seed).finalize_xof())
    }

    pub fn draw(&mut self) -> Nonce {
        let mut octets = [0; NONCE_OCTETS];
        self.0.fill(&mut octets);
        octets
    }
}

/// A nonce as the left side of a message id (RFC 5322 section 3.6.4).
pub fn stamp(nonce: &Nonce) -> String {
    let mut stamp = String::with_capacity(2 * NONCE_OCTETS);
    for octet in nonce {
        write!(stamp, "{octet:02x}").expect("a String takes every write");
    }
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_nonces_each_time_and_none_of_them_twice() {
        let draw = |seed| {
            let mut nonces = Nonces::new([seed; 32]);
            [nonces.draw(), nonces.draw(), nonces.draw()]
        };
        let [first, second, third] = draw(1);
        assert_eq!(draw(1), [first, second, third]);
        assert!(first != second && second != third && first != third);
        assert_ne!(draw(2)[0], first);
    }
}
