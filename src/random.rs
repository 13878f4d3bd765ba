//! Randomness from the kernel, by getrandom(2).
//!
//! Libraries that look the call up at run time do not find it in a static binary and fall back to `/dev/urandom`, which
//! a chroot or bare container lacks.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Fills the slice. Waits only right after boot, until the kernel has gathered enough entropy. Fails if the kernel
/// lacks the call (before Linux 3.17) or a filter forbids it.
pub fn fill(mut octets: &mut [u8]) -> io::Result<()> {
    while !octets.is_empty() {
        let filled = rustix::io::retry_on_intr(|| getrandom(&mut *octets, GetRandomFlags::empty()))
            .map_err(|error| io::Error::other(format!("the kernel gives no randomness: {error}")))?;
        octets = &mut octets[filled..];
    }
    Ok(())
}

pub fn octets<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    fill(&mut octets)?;
    Ok(octets)
}

pub fn number() -> io::Result<u64> {
    octets().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_draws_are_alike_and_every_octet_is_drawn() {
        assert_ne!(octets::<32>().unwrap(), octets::<32>().unwrap());
        // A signal may cut the call short after 256 octets.
        let mut long = vec![0; 1 << 16];
        fill(&mut long).unwrap();
        assert!(long.chunks(64).all(|piece| piece.iter().any(|octet| *octet != 0)));
        fill(&mut []).unwrap();
    }
}
