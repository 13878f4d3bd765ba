//! The hash functions the mechanisms use.
//!
//! Tests record each call, to compare the work done for different names.

use hmac::{Hmac, KeyInit, Mac};
use md4::Md4;
use md5::Md5;
use sha2::{Digest, Sha256};

pub fn md4(message: &[u8]) -> [u8; 16] {
    #[cfg(test)]
    work::note("md4");
    Md4::digest(message).into()
}

pub fn md5(parts: &[&[u8]]) -> [u8; 16] {
    #[cfg(test)]
    work::note("md5");
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

pub fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    #[cfg(test)]
    work::note("hmac-md5");
    let mut mac = Hmac::<Md5>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

pub fn sha256(message: &[u8]) -> [u8; 32] {
    #[cfg(test)]
    work::note("sha256");
    Sha256::digest(message).into()
}

pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    #[cfg(test)]
    work::note("hmac-sha256");
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Takes milliseconds at the usual number of rounds.
pub fn pbkdf2_sha256(password: &[u8], salt: &[u8], rounds: u32) -> [u8; 32] {
    #[cfg(test)]
    work::note("pbkdf2-sha256");
    pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, rounds)
}

#[cfg(test)]
pub mod work {
    use std::cell::RefCell;

    thread_local! {
        static DONE: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
    }

    pub fn note(what: &'static str) {
        DONE.with_borrow_mut(|done| done.push(what));
    }

    /// Runs `work` without recording it.
    pub fn unnoted<T>(work: impl FnOnce() -> T) -> T {
        let before = take();
        let outcome = work();
        DONE.set(before);
        outcome
    }

    /// The functions this thread called since the last call, in order.
    pub fn take() -> Vec<&'static str> {
        DONE.take()
    }
}
