use std::time::UNIX_EPOCH;

use crate::auth::ntlm::{Exchange, Level};
use crate::doubles::accounts::account;
use crate::doubles::ntlm_client::Client;

/// Takes the octets for NTLM messages, and for what a man in the middle writes over good ones, at the offset given by
/// the first two octets.
pub fn ntlm(data: &[u8]) {
    let client = Client::new("bob@example.com", "secret");
    if let Ok(exchange) = Exchange::begin(data, "mail.example.com", None, [7; 8], UNIX_EPOCH) {
        assert!(exchange.challenge().starts_with(b"NTLMSSP\0\x02\0\0\0") && exchange.challenge().len() < 512);
    }
    let exchange = || {
        Exchange::begin(&client.negotiate(), "mail.example.com", None, [7; 8], UNIX_EPOCH)
            .expect("a good message")
    };
    let is_accepted = |message: &[u8]| match exchange().authenticate(message, Level::V1, None) {
        Ok(proof) => proof.check(&account("secret")).is_ok(),
        Err(_) => false,
    };
    assert!(!is_accepted(data), "nobody finds a response by chance");

    let [at, at_too, change @ ..] = data else { return };
    let good = client.authenticate(exchange().challenge());
    let mut changed = good.clone();
    let at = usize::from(u16::from_le_bytes([*at, *at_too])) % good.len();
    changed[at..].iter_mut().zip(change).for_each(|(octet, change)| *octet ^= change);
    assert_eq!(is_accepted(&changed), changed == good, "the integrity code covers all of it");
}
