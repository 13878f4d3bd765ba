use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::message::Flags;
use super::response::{NtHash, SessionKey, identity};
use super::*;
use crate::auth::hash::work;
use crate::doubles::accounts::{account, nobody};
use crate::doubles::ntlm_client::Client;

const SERVER_CHALLENGE: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
const CLIENT_CHALLENGE: [u8; 8] = [0xaa; 8];

fn octets(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn now() -> SystemTime {
    UNIX_EPOCH + std::time::Duration::from_secs(1_051_142_400)
}

fn begin(client: &Client) -> Exchange {
    Exchange::begin(&client.negotiate(), "mail.example.com", None, SERVER_CHALLENGE, now()).unwrap()
}

fn channel() -> ChannelBinding {
    ChannelBinding { exporter: None, endpoint: vec![2; 32] }
}

/// The verdict on a message that answers a challenge to this client.
fn verdict(client: &Client, message: &[u8], level: Level, account: &Account) -> Result<(), Denial> {
    begin(client).authenticate(message, level, None)?.check(account)
}

/// The verdict on a client that does everything right.
fn talk(client: &Client, level: Level, account: &Account) -> Result<(), Denial> {
    verdict(client, &client.authenticate(begin(client).challenge()), level, account)
}

fn bob() -> Client {
    Client::new("bob@example.com", "pässword")
}

fn session_bob() -> Client {
    Client { level: Level::Session, states_code: false, has_code: false, ..bob() }
}

#[test]
fn responses_match_the_examples_of_ms_nlmp_4_2() {
    let hash = NtHash::of("Password");
    assert_eq!(hash.v1(&SERVER_CHALLENGE)[..], octets("67c43011f30298a2 ad35ece64f16331c 44bdbed927841f94"));
    assert_eq!(
        hash.session(&SERVER_CHALLENGE, &CLIENT_CHALLENGE)[..],
        octets("7537f803ae367128 ca458204bde7caf8 1e97ed2683267232")
    );
    let client_data = octets(
        "0101000000000000 0000000000000000 aaaaaaaaaaaaaaaa 00000000
         02000c00 44006f006d00610069006e00 01000c00 530065007200760065007200 00000000 00000000",
    );
    let key = hash.v2_key(&identity("User", "Domain"));
    let proof = key.proof(&SERVER_CHALLENGE, &client_data);
    assert_eq!(proof[..], octets("68cd0ab851e51c96aabc927bebef6a1c"));
    // The example's session key is sixteen octets of 55. The integrity code of an empty message shows that ours is the
    // same.
    let base_key = octets("8de40ccadbc14a82f15cb0ad0de95ca3");
    let code = |key: &[u8]| crate::auth::hash::hmac_md5(key, &[b""]);
    let exported = |encrypted| SessionKey::exported(key.base_key(&proof), encrypted);
    assert_eq!(exported(None).integrity_code(b""), code(&base_key));
    let encrypted_key = octets("c5dad2544fc9799094ce1ce90bc9d03e").try_into().unwrap();
    assert_eq!(exported(Some(&encrypted_key)).integrity_code(b""), code(&[0x55; 16]));
}

/// Section 4.1 of MS-POP3, where "user" logs in with "password", and section 4.2, where the password is wrong.
#[test]
fn the_examples_of_ms_pop3_end_as_documented() {
    let challenge = "TlRMTVNTUAACAAAAFAAUADgAAAAFgoqinziKqGYjdlEAAAAAAAAAAGQAZABMAAAABQLODgAAAA9UAEUAUwBUAFMARQBS\
        AFYARQBSAAIAFABUAEUAUwBUAFMARQBSAFYARQBSAAEAFABUAEUAUwBUAFMARQBSAFYARQBSAAQAFABUAGUAcwB0AFMAZQByAHYAZQByAAMA\
        FABUAGUAcwB0AFMAZQByAHYAZQByAAAAAAA=";
    let accepted = "TlRMTVNTUAADAAAAGAAYAGIAAAAYABgAegAAAAAAAABIAAAACAAIAEgAAAASABIAUAAAAAAAAACSAAAABYKIogUBKAoAAAAP\
        dQBzAGUAcgBOAEYALQBDAEwASQBFAE4AVABKMiQ4djhcSgAAAAAAAAAAAAAAAAAAAAC7zUSgB0Auy98bRi6h3mwHMJfbKNtxmmo=";
    let refused = "TlRMTVNTUAADAAAAGAAYAGIAAAAYABgAegAAAAAAAABIAAAACAAIAEgAAAASABIAUAAAAAAAAACSAAAABYKIogUBKAoAAAAP\
        dQBzAGUAcgBOAEYALQBDAEwASQBFAE4AVAAOarJ6lZ5ZNwAAAAAAAAAAAAAAAAAAAACD9mD8jmWs4FkZe59/nNb1cF2HkL0CGZw=";
    let negotiate = STANDARD.decode("TlRMTVNTUAABAAAAB4IIogAAAAAAAAAAAAAAAAAAAAAFASgKAAAADw==").unwrap();
    let challenge = STANDARD.decode(challenge).unwrap();
    let exchange = |server_challenge| {
        Exchange::begin(&negotiate, "testserver.example.com", None, server_challenge, now()).unwrap()
    };

    // Ours says the same, with our own names and time, and says nothing about signing unless asked.
    let ours = exchange(challenge[24..32].try_into().unwrap()).challenge;
    assert_eq!(ours[..20], challenge[..20]);
    assert_eq!(ours[24..40], challenge[24..40]);
    assert_eq!(ours[48..76], challenge[48..76]);

    let proof = |server_challenge, message: &str, level| {
        exchange(server_challenge).authenticate(&STANDARD.decode(message).unwrap(), level, None)
    };
    let first = challenge[24..32].try_into().unwrap();
    let welcome = proof(first, accepted, Level::Session).unwrap();
    assert_eq!((welcome.name.as_str(), welcome.check(&account("password"))), ("user", Ok(())));
    assert_eq!(welcome.check(&account("Password")), Err(Denial::Wrong));
    assert_eq!(proof(first, accepted, Level::V2).err(), Some(Denial::OldNtlm));
    let second = octets("7945 9de4 44b8 062d").try_into().unwrap();
    let unwelcome = proof(second, refused, Level::V1).unwrap();
    assert_eq!(unwelcome.check(&account("password")), Err(Denial::Wrong));
}

#[test]
fn the_right_password_is_accepted_and_no_other() {
    let without_code = Client { states_code: false, has_code: false, ..bob() };
    let no_key = Client { exchanges_keys: false, flags: Flags::UNICODE.with(Flags::SIGN), ..bob() };
    let oem = Client { flags: Flags(bob().flags.0 & !Flags::UNICODE.0).with(Flags::OEM), ..bob() };
    for client in
        [bob(), without_code, no_key, oem, session_bob(), Client { level: Level::V1, ..session_bob() }]
    {
        assert_eq!(talk(&client, Level::V1, &account("pässword")), Ok(()));
        assert_eq!(talk(&client, Level::V1, &account("PÄSSWORD")), Err(Denial::Wrong));
        assert_eq!(talk(&client, Level::V1, &nobody()), Err(Denial::Wrong));
        let sealed_for_ever = Account { password: None, ..account("") };
        let no_password = Client { password: String::new(), ..client };
        assert_eq!(talk(&no_password, Level::V1, &sealed_for_ever), Err(Denial::Wrong));
    }
}

#[test]
fn responses_below_the_level_are_refused() {
    let responses = [
        (Level::V1, Client { level: Level::V1, ..session_bob() }),
        (Level::Session, session_bob()),
        (Level::V2, bob()),
    ];
    for (sent, client) in &responses {
        for level in [Level::V1, Level::Session, Level::V2] {
            let expected = if *sent >= level { Ok(()) } else { Err(Denial::OldNtlm) };
            assert_eq!(
                talk(client, level, &account("pässword")),
                expected,
                "{sent:?} where {level:?} is asked"
            );
        }
    }
}

#[test]
fn lm_alone_and_anonymous_logins_are_refused_at_every_level() {
    let mut lm_alone = session_bob().authenticate(begin(&session_bob()).challenge());
    lm_alone[20..24].fill(0);
    assert_eq!(verdict(&session_bob(), &lm_alone, Level::V1, &account("pässword")), Err(Denial::OldNtlm));
    let anonymous = Client { user: String::new(), ..session_bob() };
    assert_eq!(talk(&anonymous, Level::V1, &account("pässword")), Err(Denial::Wrong));
}

#[test]
fn a_name_is_made_of_user_and_domain() {
    for (user, domain, name) in [
        ("bob@example.com", "", "bob@example.com"),
        ("bob@example.com", "WORKGROUP", "bob@example.com"),
        ("bob%example.com", "WORKGROUP", "bob%example.com"),
        ("bob", "example.com", "bob@example.com"),
        ("bob", "", "bob"),
    ] {
        let client = Client { user: user.to_owned(), domain: domain.to_owned(), ..bob() };
        let message = client.authenticate(begin(&client).challenge());
        let proof = begin(&client).authenticate(&message, Level::V2, None).unwrap();
        assert_eq!(proof.name, name);
        assert_eq!(proof.check(&account("pässword")), Ok(()));
    }
}

#[test]
fn names_are_hashed_in_capitals_one_for_one() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    assert_eq!(identity("straßeé", "Domain"), utf16("STRAßEÉDomain"));
}

#[test]
fn a_message_integrity_code_is_checked_if_announced() {
    let message = bob().authenticate(begin(&bob()).challenge());
    let refused = |message: &[u8]| verdict(&bob(), message, Level::V2, &account("pässword")).err();
    assert_eq!(refused(&message), None);

    let mut wiped = message.clone();
    wiped[72..88].fill(0);
    assert_eq!(refused(&wiped), Some(Denial::Wrong), "a code of zeros");
    let mut other_flags = message.clone();
    other_flags[60] ^= Flags::SEAL.0 as u8;
    assert_eq!(refused(&other_flags), Some(Denial::Wrong), "flags that were not sent so");
    let no_room = Client { has_code: false, ..bob() };
    assert_eq!(talk(&no_room, Level::V2, &account("pässword")), Err(Denial::Malformed), "stated and absent");
    let cut_out = [&message[..64], &message[88..]].concat();
    assert_eq!(refused(&cut_out), Some(Denial::Malformed), "cut out, the offsets as they were");

    // A man in the middle took signing out of NEGOTIATE.
    let downgraded = Client { flags: Flags(bob().flags.0 & !Flags::SIGN.0), ..bob() };
    let exchange = begin(&downgraded);
    let message = bob().authenticate(exchange.challenge());
    let proof = exchange.authenticate(&message, Level::V2, None).unwrap();
    assert_eq!(proof.check(&account("pässword")), Err(Denial::Wrong));
}

#[test]
fn a_response_is_good_only_for_its_challenge() {
    for client in [bob(), session_bob(), Client { level: Level::V1, ..session_bob() }] {
        let seen = client.authenticate(begin(&client).challenge());
        let other = Exchange::begin(&client.negotiate(), "mail.example.com", None, [7; 8], now()).unwrap();
        let proof = other.authenticate(&seen, Level::V1, None).unwrap();
        assert_eq!(proof.check(&account("pässword")), Err(Denial::Wrong));
    }
}

#[test]
fn what_challenge_said_must_come_back_unchanged() {
    let without_code = Client { states_code: false, has_code: false, ..bob() };
    let challenge = begin(&without_code).challenge().to_vec();
    let time_at = challenge.len() - 4 - 8;
    let mut other_time = challenge.clone();
    other_time[time_at] ^= 1;
    // The time is the last pair. Remove its twelve octets from the message and from the length.
    let mut no_time = [&challenge[..time_at - 4], &challenge[time_at + 8..]].concat();
    no_time[40] -= 12;
    for forged in [other_time, no_time] {
        let message = without_code.authenticate(&forged);
        assert_eq!(verdict(&without_code, &message, Level::V2, &account("pässword")), Err(Denial::Wrong));
    }
}

/// MsvAvChannelBindings for a certificate whose hash repeats this octet.
fn hash_for(octet: u8) -> [u8; 16] {
    channel_hash(&ChannelBinding { exporter: None, endpoint: vec![octet; 32] })
}

#[test]
fn a_channel_binding_must_match_our_certificate() {
    let bound = |hash| Client { channel_hash: Some(hash), ..bob() };
    let verdict = |client: &Client, channel: Option<&ChannelBinding>| {
        let exchange = begin(client);
        let message = client.authenticate(exchange.challenge());
        exchange.authenticate(&message, Level::V2, channel)?.check(&account("pässword"))
    };
    let (tls, ours, theirs) = (channel(), hash_for(2), hash_for(3));
    assert_eq!(verdict(&bound(ours), Some(&tls)), Ok(()));
    assert_eq!(verdict(&bound(theirs), Some(&tls)), Err(Denial::Channel));
    assert_eq!(verdict(&bound(ours), None), Err(Denial::Channel), "the client's TLS ended somewhere else");
    assert_eq!(verdict(&bound([0; 16]), Some(&tls)), Ok(()), "all zero is none");
    assert_eq!(verdict(&bob(), Some(&tls)), Ok(()));
}

/// As other implementations compute it: MD5 over sixteen zeros, the length, and "tls-server-end-point:" with the hash.
#[test]
fn a_channel_binding_is_hashed_as_a_gss_structure() {
    let structure = [&[0; 16][..], &[53, 0, 0, 0], b"tls-server-end-point:", &[2; 32]].concat();
    assert_eq!(hash_for(2), md5(&[&structure]));
}

#[test]
fn negotiate_is_checked() {
    let good = bob().negotiate();
    let begin = |message: &[u8]| Exchange::begin(message, "mail.example.com", None, [0; 8], now()).map(drop);
    assert_eq!(begin(&good), Ok(()));
    assert_eq!(begin(&good[..16]), Ok(()), "the oldest clients send no more");
    for length in 0..16 {
        assert_eq!(begin(&good[..length]), Err(Denial::Malformed), "{length} octets");
    }
    let mut no_charset = good.clone();
    no_charset[12] = 0;
    assert_eq!(begin(&no_charset), Err(Denial::Malformed));
    let reflected = super::tests::begin(&bob()).challenge().to_vec();
    assert_eq!(begin(&reflected), Err(Denial::Malformed));
}

#[test]
fn a_challenge_sent_back_is_not_a_response() {
    let exchange = begin(&bob());
    let reflected = exchange.challenge().to_vec();
    assert_eq!(exchange.authenticate(&reflected, Level::V1, None).err(), Some(Denial::Malformed));
}

#[test]
fn a_challenge_answers_in_the_characters_that_the_client_knows() {
    let oem = Client { flags: Flags::OEM, ..bob() };
    assert_eq!(begin(&oem).challenge()[56..60], *b"MAIL");
    assert_eq!(begin(&bob()).challenge()[56..64], *b"M\0A\0I\0L\0");
    let time = 126_956_160_000_000_000u64.to_le_bytes();
    let challenge = begin(&bob()).challenge().to_vec();
    assert!(challenge.ends_with(&[&time[..], &[0; 4]].concat()), "2003-04-24 as a FILETIME");
}

#[test]
fn no_message_cut_short_or_changed_is_accepted() {
    for client in [bob(), session_bob()] {
        let message = client.authenticate(begin(&client).challenge());
        let verdict = |message: &[u8]| verdict(&client, message, Level::Session, &account("pässword"));
        assert_eq!(verdict(&message), Ok(()));
        let end = message.len() - if client.exchanges_keys { 16 } else { 0 };
        for length in 0..end {
            assert!(verdict(&message[..length]).is_err(), "cut to {length} octets");
        }
        for at in 0..message.len() {
            for bit in 0..8 {
                let mut changed = message.clone();
                changed[at] ^= 1 << bit;
                // Without a message integrity code, only proof, names and client data are protected.
                if client.has_code {
                    assert!(verdict(&changed).is_err(), "bit {bit} of octet {at}");
                } else if verdict(&changed).is_ok() {
                    assert!(!(88..112).contains(&at), "bit {bit} of octet {at}");
                }
            }
        }
    }
}

#[test]
fn fields_stay_within_the_message_and_apart() {
    let message = bob().authenticate(begin(&bob()).challenge());
    let refused = |at: usize, field: [u8; 8]| {
        let mut changed = message.clone();
        changed[at..at + 8].copy_from_slice(&field);
        assert_eq!(
            begin(&bob()).authenticate(&changed, Level::V1, None).err(),
            Some(Denial::Malformed),
            "{field:?} at {at}"
        );
    };
    for at in [12, 20, 36] {
        refused(at, [16, 0, 16, 0, 0xff, 0xff, 0xff, 0xff]);
        refused(at, [0xff, 0xff, 0xff, 0xff, 88, 0, 0, 0]);
        refused(at, [8, 0, 8, 0, 60, 0, 0, 0]);
    }
    // The workstation's name, which nobody reads, overlaps the user's.
    refused(44, message[36..44].try_into().unwrap());
}

#[test]
fn a_wrong_password_and_an_unknown_name_are_the_same_work() {
    let wrong = |client: Client| Client { password: "wrong".to_owned(), ..client };
    let without_code = Client { states_code: false, has_code: false, ..bob() };
    for client in [wrong(bob()), wrong(without_code), wrong(session_bob())] {
        let message = client.authenticate(begin(&client).challenge());
        let proof = begin(&client).authenticate(&message, Level::V1, None).unwrap();
        let work_for = |account: Account| {
            work::take();
            assert_eq!(proof.check(&account), Err(Denial::Wrong));
            work::take()
        };
        assert_eq!(work_for(account("pässword")), work_for(nobody()));
        assert!(!work_for(nobody()).is_empty());
    }
}
