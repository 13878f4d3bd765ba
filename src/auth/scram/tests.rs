use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{ClientFirst, Exchange};
use crate::auth::hash::work;
use crate::auth::password::Verifier;
use crate::auth::{Account, ChannelBinding, Denial};
use crate::doubles::accounts::{account, nobody};
use crate::doubles::scram_client::Client;

const OURS: [u8; 18] = [5; 18];

fn channel() -> ChannelBinding {
    ChannelBinding { exporter: Some([1; 32]), endpoint: vec![2; 32] }
}

fn client() -> Client {
    Client::new("bob", "pencil")
}

fn bound(kind: &str, data: &[u8]) -> Client {
    Client { gs2_header: format!("p={kind},,"), channel_data: data.to_vec(), ..client() }
}

fn exchange(first: &str, account: Account) -> Exchange {
    ClientFirst::parse(first.as_bytes(), false, None).unwrap().with_account(account, &OURS)
}

/// The verdict on a client that does everything right.
fn talk(
    client: &Client,
    plus: bool,
    channel: Option<&ChannelBinding>,
    account: Account,
) -> Result<(), Denial> {
    let first = ClientFirst::parse(client.first().as_bytes(), plus, channel)?;
    let exchange = first.with_account(account, &OURS);
    let (last, expected) = client.last(exchange.challenge());
    assert_eq!(exchange.check(last.as_bytes())?, expected, "the client knows us by it");
    Ok(())
}

#[test]
fn the_exchange_matches_the_example_of_rfc_7677() {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let account =
        Account { verifier: Verifier::new("pencil", salt.try_into().unwrap(), 4096), ..account("") };
    let mut exchange = exchange("n,,n=user,r=rOprNGfwEbeRWgbNEkqO", account);
    // The RFC's server nonce is not Base64.
    exchange.nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
    exchange.server_first = format!("r={},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", exchange.nonce);
    let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    assert_eq!(
        exchange.check(last.as_bytes()).as_deref(),
        Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    );
}

#[test]
fn the_right_password_is_accepted_and_no_other() {
    assert_eq!(talk(&client(), false, None, account("pencil")), Ok(()));
    assert_eq!(talk(&client(), false, None, account("Pencil")), Err(Denial::Wrong));
    assert_eq!(talk(&client(), false, None, nobody()), Err(Denial::Wrong));
}

#[test]
fn a_name_may_have_commas_and_equals_signs() {
    let client = Client { name: "a=2Cb=3Dc".to_owned(), ..client() };
    let first = ClientFirst::parse(client.first().as_bytes(), false, None).unwrap();
    assert_eq!(first.name, "a,b=c");
    assert_eq!(talk(&client, false, None, account("pencil")), Ok(()));
}

#[test]
fn plus_binds_to_the_exporter_or_to_the_certificate() {
    for client in [bound("tls-exporter", &[1; 32]), bound("tls-server-end-point", &[2; 32])] {
        assert_eq!(talk(&client, true, Some(&channel()), account("pencil")), Ok(()));
    }
    for client in [
        bound("tls-exporter", &[3; 32]),
        bound("tls-exporter", &[2; 32]),
        bound("tls-server-end-point", &[]),
        bound("tls-unique", &[1; 32]),
    ] {
        let verdict = talk(&client, true, Some(&channel()), account("pencil"));
        assert_eq!(verdict, Err(Denial::Channel), "{}", client.gs2_header);
    }
    let no_exporter = ChannelBinding { exporter: None, ..channel() };
    let exporter = bound("tls-exporter", &[1; 32]);
    assert_eq!(talk(&exporter, true, Some(&no_exporter), account("pencil")), Err(Denial::Channel));
    assert_eq!(talk(&exporter, true, None, account("pencil")), Err(Denial::Channel));
}

#[test]
fn the_flag_must_fit_the_mechanism() {
    let flagged = |flag: &str| Client { gs2_header: format!("{flag},,"), ..client() };
    let tls = channel();
    let verdict = |flag, plus, channel| talk(&flagged(flag), plus, channel, account("pencil"));
    assert_eq!(verdict("n", false, Some(&tls)), Ok(()), "a client that cannot bind");
    assert_eq!(verdict("y", false, None), Ok(()), "a client that could, but we cannot");
    assert_eq!(verdict("y", false, Some(&tls)), Err(Denial::Channel), "-PLUS was taken out of our list");
    for (flag, plus) in [("n", true), ("y", true), ("p=tls-exporter", false), ("x", false), ("", false)] {
        assert_eq!(verdict(flag, plus, Some(&tls)), Err(Denial::Malformed), "{flag} {plus}");
    }
}

#[test]
fn client_first_is_parsed_strictly() {
    let long = format!("n,,n=bob,r={}", "x".repeat(257));
    for bad in [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=bob",
        "n,,n=bob,r=",
        "n,,r=abc,n=bob",
        "n,,n=,r=abc",
        "n,,n=b=2cb,r=abc",
        "n,,n=b=ob,r=abc",
        "n,,n=b\0ob,r=abc",
        "n,,n=bob,n=eve,r=abc",
        "n,,n=bob,r=abc,r=def",
        "n,,n=bob,r=abc,n=eve",
        "n,,n=bob,r=abc,m=x",
        "n,,m=x,n=bob,r=abc",
        "n,,n=bob,r=abc,x=1,x=2",
        "n,,n=bob,r=abc,xy=1",
        "n,,n=bob,r=abc,x=",
        "n,,n=bob,r=abc,",
        "n,,n=bob,r=a c",
        "n,bob,n=bob,r=abc",
        "n,a=,n=bob,r=abc",
        &long,
    ] {
        let refusal = ClientFirst::parse(bad.as_bytes(), false, None).err();
        assert_eq!(refusal, Some(Denial::Malformed), "{bad}");
    }
    assert!(ClientFirst::parse(b"n,,n=b\xff,r=abc", false, None).is_err());
    assert!(ClientFirst::parse(b"n,,n=bob,r=abc,x=1,y=2", false, None).is_ok());
    let for_eve = ClientFirst::parse(b"n,a=eve,n=bob,r=abc", false, None).unwrap();
    assert_eq!(for_eve.authorization_identity.as_deref(), Some("eve"));
}

#[test]
fn client_final_is_parsed_strictly() {
    let exchange = exchange(&client().first(), account("pencil"));
    let (last, _) = client().last(exchange.challenge());
    let (signed, proof) = last.split_once(",p=").unwrap();
    let (binding, nonce) = signed.split_once(",r=").unwrap();
    assert!(exchange.check(last.as_bytes()).is_ok());
    for (bad, refusal) in [
        (String::new(), Denial::Malformed),
        (signed.to_owned(), Denial::Malformed),
        (format!("{signed},p="), Denial::Malformed),
        (format!("{signed},p={}", &proof[..20]), Denial::Malformed),
        (format!("{last},x=1"), Denial::Malformed),
        (format!("{last},p={proof}"), Denial::Malformed),
        (format!("r={nonce},{binding},p={proof}"), Denial::Malformed),
        (format!("{signed},r={nonce},p={proof}"), Denial::Malformed),
        (format!("{signed},m=x,p={proof}"), Denial::Malformed),
        (format!("{binding},p={proof}"), Denial::Malformed),
        (exchange.challenge().to_owned(), Denial::Malformed),
        // An extension changes what is signed.
        (format!("{signed},x=1,p={proof}"), Denial::Wrong),
        (format!("{binding},r={nonce}x,p={proof}"), Denial::Wrong),
        (format!("{binding},r={},p={proof}", &nonce[..nonce.len() - 1]), Denial::Wrong),
        (format!("{signed},p={}", STANDARD.encode([0; 32])), Denial::Wrong),
        (format!("c=eSws,r={nonce},p={proof}"), Denial::Channel),
    ] {
        assert_eq!(exchange.check(bad.as_bytes()), Err(refusal), "{bad}");
    }
}

#[test]
fn a_proof_is_good_only_for_its_exchange() {
    let first = ClientFirst::parse(client().first().as_bytes(), false, None).unwrap();
    let seen = exchange(&client().first(), account("pencil"));
    let (last, _) = client().last(seen.challenge());
    let other = first.with_account(account("pencil"), &[6; 18]);
    assert_eq!(other.check(last.as_bytes()), Err(Denial::Wrong));
}

#[test]
fn a_wrong_password_and_an_unknown_name_are_the_same_work() {
    let work_for = |account| {
        let exchange = exchange(&client().first(), account);
        let (last, _) = Client::new("bob", "wrong").last(exchange.challenge());
        work::take();
        assert_eq!(exchange.check(last.as_bytes()), Err(Denial::Wrong));
        work::take()
    };
    assert_eq!(work_for(account("pencil")), work_for(nobody()));
}
