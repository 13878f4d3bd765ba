use crate::auth::ChannelBinding;
use crate::auth::scram::ClientFirst;
use crate::doubles::accounts::account;
use crate::doubles::scram_client::Client;

const NONCE: [u8; 18] = [7; 18];

/// Takes the octets for client-first and client-final, separated by a line feed, and for what a man in the middle
/// changes in a good client-final. The first octet chooses mechanism and channel.
pub fn scram(data: &[u8]) {
    let [choice, messages @ ..] = data else { return };
    let channel = ChannelBinding { exporter: Some([1; 32]), endpoint: vec![2; 32] };
    let channel = (choice & 1 == 1).then_some(&channel);
    let mut messages = messages.splitn(2, |&octet| octet == b'\n');
    let (first, last) = (messages.next().unwrap_or_default(), messages.next().unwrap_or_default());
    if let Ok(first) = ClientFirst::parse(first, choice & 2 == 2, channel) {
        assert!(!first.name.is_empty());
        let exchange = first.with_account(account("secret"), &NONCE);
        assert!(exchange.challenge().len() < 512 && exchange.challenge().starts_with("r="));
        assert!(exchange.check(last).is_err(), "nobody finds a proof by chance");
    }

    let client = Client::new("bob@example.com", "secret");
    let first = ClientFirst::parse(client.first().as_bytes(), false, None).expect("a good message");
    let exchange = first.with_account(account("secret"), &NONCE);
    let good = client.last(exchange.challenge()).0.into_bytes();
    let mut changed = good.clone();
    let at = usize::from(*choice) % good.len();
    changed[at..].iter_mut().zip(last).for_each(|(octet, change)| *octet ^= change);
    assert_eq!(exchange.check(&changed).is_ok(), changed == good, "the proof covers all of it");
}
