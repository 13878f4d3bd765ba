//! The service's certificate: from the files in the settings, or self-signed.
//!
//! The self-signed one is kept in the store with its private key encrypted. If the store's key is missing, as after
//! restoring only the data file, a temporary certificate is used until the key is back.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use futures_rustls::rustls;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::auth::seal::Key;
use crate::keyring::Keyring;
use crate::random;
use crate::settings::Settings;
use crate::store::{CertificateRow, PrivateKey, Read as _, Store};
use crate::user::User;

/// Validity of a self-signed certificate. Clients pin its fingerprint, so it should rarely change.
const OWN_VALIDITY: Duration = Duration::days(3650);
/// Backdating, so that a clock slightly behind does not reject a new certificate.
const OWN_BACKDATED: Duration = Duration::days(1);

/// Tags of DER (X.690 section 8.1.2).
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]`, the version of a certificate.
const VERSION: u8 = 0xa0;

/// The details an administrator reads out and a client compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The names in it (subject alternative names).
    pub names: Vec<String>,
    /// SHA-256 of the certificate: hexadecimal pairs separated by colons.
    pub fingerprint: String,
    pub is_our_own: bool,
}

/// The cryptographic provider for TLS.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificate in effect under these settings. Unusable files are an error: a sentence.
pub fn in_effect(store: &Store, keyring: &Keyring, settings: &Settings) -> Result<CertifiedKey, String> {
    let Some(file) = settings.tlscert.get() else { return our_own(store, keyring, settings) };
    let pair = from_files(file, settings.tlskey.get().unwrap_or(file))?;
    if let Some(ended) = ends(&pair.cert[0]).filter(|end| *end < OffsetDateTime::now_utc()) {
        let day = ended.date();
        log::error!("the TLS certificate in {} expired on {day}: mail programs refuse it", file.display());
    }
    Ok(pair)
}

/// The same, but falls back to a self-signed certificate while the files are unusable.
pub fn at_start(store: &Store, keyring: &Keyring, settings: &Settings) -> Result<CertifiedKey, String> {
    in_effect(store, keyring, settings).or_else(|why| match settings.tlscert.get() {
        Some(_) => {
            log::error!("{why}. Until it can be used, clients get a self-signed certificate");
            our_own(store, keyring, settings)
        }
        None => Err(why),
    })
}

/// Checks the files in the settings, if any.
pub fn check(settings: &Settings) -> Result<(), String> {
    match (settings.tlscert.get(), settings.tlskey.get()) {
        (Some(certificate), key) => from_files(certificate, key.unwrap_or(certificate)).map(drop),
        (None, Some(_)) => Err("tlskey is set, but tlscert is not".to_owned()),
        (None, None) => Ok(()),
    }
}

/// Describes the certificate in effect; `None` if there is no usable one yet.
pub fn describe(store: &Store, keyring: &Keyring, settings: &Settings) -> Option<Description> {
    if let Some(file) = settings.tlscert.get()
        && let Ok(pair) = from_files(file, settings.tlskey.get().unwrap_or(file))
    {
        return Some(description(&pair.cert[0], false));
    }
    let row = store.read().and_then(|view| view.certificate()).ok()??;
    keyring.private_key(&row).map(|_| description(&row.certificate, true))
}

/// The self-signed certificate for this host. Creates one if there is none, if the host name has changed, or if its key
/// cannot be decrypted.
fn our_own(store: &Store, keyring: &Keyring, settings: &Settings) -> Result<CertifiedKey, String> {
    let hostname = settings.hostname.as_str();
    let stored = store.read().and_then(|view| view.certificate()).map_err(|fault| fault.to_string())?;
    let stored = stored.filter(|row| row.hostname == hostname);
    let opened = stored.as_ref().and_then(|row| Some((row, keyring.private_key(row)?)));
    if stored.is_some() && opened.is_none() {
        let trouble = keyring
            .key()
            .err()
            .map_or_else(|| "its private key was encrypted under another key".into(), |t| t.to_string());
        log::error!(
            "the TLS certificate in the mail store cannot be used, so clients get a new one: {trouble}"
        );
    }
    let (certificate, private, is_kept) = match opened {
        Some((row, private)) => (row.certificate.clone(), private, matches!(row.key, PrivateKey::Sealed(_))),
        None => {
            let (certificate, private) = make(hostname, OffsetDateTime::now_utc())
                .map_err(|e| format!("a certificate cannot be created: {e}"))?;
            (certificate, private, false)
        }
    };
    if !is_kept {
        let sealing = keyring.sealing();
        match sealing.key() {
            Ok(key) => {
                let row = sealed(certificate.clone(), &private, hostname, key).map_err(|e| e.to_string())?;
                store.write(move |tx| tx.set_certificate(&row)).wait().map_err(|fault| fault.to_string())?;
            }
            Err(trouble) => log::warn!("this TLS certificate cannot be kept for the next start: {trouble}"),
        }
    }
    certified(vec![certificate.into()], PrivateKeyDer::Pkcs8(private.to_vec().into()))
}

fn sealed(certificate: Vec<u8>, private: &[u8], hostname: &str, key: &Key) -> io::Result<CertificateRow> {
    let private = key.seal_private_key(private, &certificate, random::octets()?);
    Ok(CertificateRow { certificate, key: PrivateKey::Sealed(private), hostname: hostname.to_owned() })
}

/// Creates a certificate for the host name, `localhost` and the loopback addresses, with its private key (PKCS #8). It
/// is not a CA.
fn make(hostname: &str, now: OffsetDateTime) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut names = vec![hostname.to_owned()];
    names.extend((hostname != "localhost").then(|| "localhost".to_owned()));
    let mut parameters = CertificateParams::new(names)?;
    let loopback: [IpAddr; 2] = ["127.0.0.1", "::1"].map(|ip| ip.parse().expect("it is an address"));
    parameters.subject_alt_names.extend(loopback.map(SanType::IpAddress));
    parameters.distinguished_name.push(DnType::CommonName, hostname);
    parameters.not_before = now - OWN_BACKDATED;
    parameters.not_after = now + OWN_VALIDITY;
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.der().to_vec(), Zeroizing::new(key.serialize_der())))
}

fn from_files(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let unusable = |path: &Path, why: &str| format!("{} cannot be used: {why}", path.display());
    let text = fs::read(certificate).map_err(|e| unusable(certificate, &reason(&e)))?;
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|e| unusable(certificate, &format!("it is not in PEM format ({e})")))?;
    if chain.is_empty() {
        return Err(unusable(certificate, "there is no certificate in it"));
    }
    let text = Zeroizing::new(fs::read(key).map_err(|e| unusable(key, &reason(&e)))?);
    let private =
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| unusable(key, "there is no private key in it"))?;
    certified(chain, private).map_err(|why| unusable(certificate, &why))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => {
            format!("the user {} may not read it or enter its directory", User::of_this_process())
        }
        _ => error.to_string(),
    }
}

/// The pair, after checking that key and certificate belong together.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, String> {
    CertifiedKey::from_der(chain, key, &provider()).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => "the key is not that of the certificate".to_owned(),
        e => format!("the certificate or its key is not understood ({e})"),
    })
}

fn description(der: &[u8], is_our_own: bool) -> Description {
    let hash = Sha256::digest(der);
    let pairs: Vec<String> = hash.iter().map(|octet| format!("{octet:02X}")).collect();
    let der = CertificateDer::from(der);
    let names = webpki::EndEntityCert::try_from(&der)
        .map(|certificate| certificate.valid_dns_names().map(str::to_owned).collect());
    Description { names: names.unwrap_or_default(), fingerprint: pairs.join(":"), is_our_own }
}

/// The channel binding of this certificate: its hash by the signature's algorithm, at least SHA-256 (RFC 5929 section
/// 4.1).
pub fn endpoint_binding(der: &[u8]) -> Vec<u8> {
    match signature_algorithm(der) {
        // ecdsa-with-SHA384 and sha384WithRSAEncryption (RFC 5758 section 3.2, RFC 8017 appendix A.2.4).
        Some([0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03])
        | Some([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c]) => Sha384::digest(der).to_vec(),
        // The same with SHA-512.
        Some([0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04])
        | Some([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d]) => Sha512::digest(der).to_vec(),
        _ => Sha256::digest(der).to_vec(),
    }
}

/// When the certificate expires (`Certificate.tbsCertificate.validity.notAfter`, RFC 5280 section 4.1.2.5). `None` if
/// it is malformed.
pub fn ends(der: &[u8]) -> Option<OffsetDateTime> {
    let (certificate, _) = der_element(der, SEQUENCE)?;
    let (tbs, _) = der_element(certificate, SEQUENCE)?;
    // Version 1 certificates have no version field.
    let from_serial = der_element(tbs, VERSION).map_or(tbs, |(_, rest)| rest);
    let (_, after_serial) = der_element(from_serial, INTEGER)?;
    let (_, after_algorithm) = der_element(after_serial, SEQUENCE)?;
    let (_, after_issuer) = der_element(after_algorithm, SEQUENCE)?;
    let (validity, _) = der_element(after_issuer, SEQUENCE)?;
    let after_begin = [UTC_TIME, GENERALIZED_TIME].iter().find_map(|tag| der_element(validity, *tag))?.1;
    let text = match der_element(after_begin, UTC_TIME) {
        Some((short, _)) => {
            let century = if short < b"50".as_slice() { "20" } else { "19" };
            format!("{century}{}", std::str::from_utf8(short).ok()?)
        }
        None => std::str::from_utf8(der_element(after_begin, GENERALIZED_TIME)?.0).ok()?.to_owned(),
    };
    let form = time::macros::format_description!("[year][month][day][hour][minute][second]Z");
    Some(time::PrimitiveDateTime::parse(&text, &form).ok()?.assume_utc())
}

/// The object identifier in `Certificate.signatureAlgorithm` (RFC 5280 section 4.1.1.2).
fn signature_algorithm(der: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = der_element(der, 0x30)?;
    let (_, after_tbs) = der_element(certificate, 0x30)?;
    let (algorithm, _) = der_element(after_tbs, 0x30)?;
    Some(der_element(algorithm, 0x06)?.0)
}

/// The contents of the first element, which must have this tag, and the rest (X.690 section 8.1).
fn der_element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) =
        der.split_first().filter(|(first, _)| **first == tag).map(|(_, rest)| rest.split_first())??;
    let (len, rest) = match first {
        0..0x80 => (usize::from(first), rest),
        _ => {
            let (octets, rest) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|(o, _)| o.len() <= 4)?;
            (octets.iter().fold(0, |len, octet| len << 8 | usize::from(*octet)), rest)
        }
    };
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::bench::Bench;
    use crate::tests::scratch;

    fn pem(label: &str, der: &[u8]) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    #[test]
    fn our_own_certificate_names_this_host_and_is_not_an_authority() {
        let (certificate, private) = make("mail.example.com", OffsetDateTime::now_utc()).unwrap();
        let described = description(&certificate, true);
        assert_eq!(described.names, ["mail.example.com", "localhost"]);
        assert_eq!(described.fingerprint.len(), 32 * 3 - 1);
        // ecdsa-with-SHA256
        let algorithm = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
        assert_eq!(signature_algorithm(&certificate), Some(&algorithm[..]));
        assert_eq!(endpoint_binding(&certificate), Sha256::digest(&certificate).to_vec());
        for end in 0..certificate.len() {
            assert_eq!(signature_algorithm(&certificate[..end]), None);
        }
        assert!(certified(vec![certificate.into()], PrivateKeyDer::Pkcs8(private.to_vec().into())).is_ok());
    }

    #[test]
    fn the_expiry_of_a_certificate_is_read() {
        let now = OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap();
        let (certificate, _) = make("mail.example.com", now).unwrap();
        assert_eq!(ends(&certificate), Some(now + OWN_VALIDITY));
        // From 2050 on the time is a GeneralizedTime (RFC 5280 section 4.1.2.5.2).
        let later = OffsetDateTime::from_unix_timestamp(2_600_000_000).unwrap();
        assert_eq!(ends(&make("mail.example.com", later).unwrap().0), Some(later + OWN_VALIDITY));
        assert_eq!(ends(b"no certificate"), None);
    }

    #[test]
    fn a_certificate_is_accepted_only_with_its_own_key() {
        let scratch = scratch::directory();
        let dir = scratch.path();
        let (one, other) =
            (make("a.example", OffsetDateTime::now_utc()), make("b.example", OffsetDateTime::now_utc()));
        let (one, other) = (one.unwrap(), other.unwrap());
        let (certificate, key, both) = (dir.join("cert.pem"), dir.join("key.pem"), dir.join("both.pem"));
        fs::write(&certificate, pem("CERTIFICATE", &one.0)).unwrap();
        fs::write(&key, pem("PRIVATE KEY", &one.1)).unwrap();
        fs::write(&both, pem("CERTIFICATE", &one.0) + &pem("PRIVATE KEY", &one.1)).unwrap();
        assert!(from_files(&certificate, &key).is_ok());
        assert!(from_files(&both, &both).is_ok());
        fs::write(&key, pem("PRIVATE KEY", &other.1)).unwrap();
        assert!(from_files(&certificate, &key).unwrap_err().contains("not that of the certificate"));
        assert!(from_files(&certificate, &certificate).unwrap_err().contains("no private key"));
        assert!(from_files(&key, &key).unwrap_err().contains("no certificate"));
        assert!(from_files(&dir.join("absent"), &key).unwrap_err().contains("does not exist"));
    }

    /// A mail store, its key, and the settings of a host named mail.example.com.
    fn with_store() -> (Bench, Keyring, Settings) {
        let bench = Bench::new();
        let keyring = Keyring::open(&bench.store, &bench.mailroot).unwrap();
        let key = crate::settings::find("hostname").ok().unwrap();
        let settings = Settings::default().with(key, &["mail.example.com".to_owned()]).ok().unwrap();
        (bench, keyring, settings)
    }

    fn stored(bench: &Bench) -> CertificateRow {
        bench.store.read().unwrap().certificate().unwrap().unwrap()
    }

    #[test]
    fn the_data_file_holds_the_private_key_only_sealed() {
        let (bench, keyring, settings) = with_store();
        let shown = in_effect(&bench.store, &keyring, &settings).unwrap();
        let row = stored(&bench);
        assert!(row.certificate == *shown.cert[0] && matches!(row.key, PrivateKey::Sealed(_)));
        let private = keyring.private_key(&row).unwrap();
        // The secret of a P-256 key: 32 octets after the SEC 1 header in PKCS #8 (RFC 5915 section 3).
        let secret = &private[36..68];
        let file = fs::read(bench.mailroot.data_file()).unwrap();
        assert!(memchr::memmem::find(&file, secret).is_none());
        // It stays the same after a restart and after a key change.
        let keyring = Keyring::open(&bench.store, &bench.mailroot).unwrap();
        assert_eq!(in_effect(&bench.store, &keyring, &settings).unwrap().cert, shown.cert);
        keyring.rotate(&bench.store, false).unwrap();
        assert_eq!(in_effect(&bench.store, &keyring, &settings).unwrap().cert, shown.cert);
    }

    #[test]
    fn a_private_key_that_an_earlier_version_stored_in_clear_is_sealed() {
        let (bench, keyring, settings) = with_store();
        let (certificate, private) = make("mail.example.com", OffsetDateTime::now_utc()).unwrap();
        let row = CertificateRow {
            certificate: certificate.clone(),
            key: PrivateKey::Clear(private.to_vec()),
            hostname: "mail.example.com".to_owned(),
        };
        bench.store.write(move |tx| tx.set_certificate(&row)).wait().unwrap();
        assert_eq!(*in_effect(&bench.store, &keyring, &settings).unwrap().cert[0], certificate[..]);
        assert!(stored(&bench).certificate == certificate);
        assert!(matches!(stored(&bench).key, PrivateKey::Sealed(_)));
    }

    #[test]
    fn without_the_key_file_another_certificate_is_shown_until_it_is_back() {
        let (bench, keyring, settings) = with_store();
        let first = in_effect(&bench.store, &keyring, &settings).unwrap();
        let (file, aside) = (bench.mailroot.key_file(), bench.home.join("aside"));
        fs::rename(&file, &aside).unwrap();
        let without = Keyring::open(&bench.store, &bench.mailroot).unwrap();
        assert_ne!(in_effect(&bench.store, &without, &settings).unwrap().cert, first.cert);
        assert_eq!(describe(&bench.store, &without, &settings), None);
        assert!(stored(&bench).certificate == *first.cert[0], "the one that belongs to the key stays");
        fs::rename(&aside, &file).unwrap();
        let back = Keyring::open(&bench.store, &bench.mailroot).unwrap();
        assert_eq!(in_effect(&bench.store, &back, &settings).unwrap().cert, first.cert);
        // With the key given up, a new certificate is created and kept.
        fs::remove_file(&file).unwrap();
        let given_up = Keyring::open(&bench.store, &bench.mailroot).unwrap();
        given_up.rotate(&bench.store, true).unwrap();
        let second = in_effect(&bench.store, &given_up, &settings).unwrap();
        assert_ne!(second.cert, first.cert);
        assert_eq!(in_effect(&bench.store, &given_up, &settings).unwrap().cert, second.cert);
    }

    #[test]
    fn unusable_files_leave_the_service_with_its_own_certificate() {
        let (bench, keyring, settings) = with_store();
        let file = bench.home.join("cert.pem");
        let key = crate::settings::find("tlscert").ok().unwrap();
        let named = settings.with(key, &[file.display().to_string()]).ok().unwrap();
        let own = in_effect(&bench.store, &keyring, &settings).unwrap();
        let (certificate, _) = make("a.example", OffsetDateTime::now_utc()).unwrap();
        let (_, other) = make("b.example", OffsetDateTime::now_utc()).unwrap();
        let mismatched = pem("CERTIFICATE", &certificate) + &pem("PRIVATE KEY", &other);
        for text in [None, Some(""), Some("nonsense"), Some(mismatched.as_str())] {
            if let Some(text) = text {
                fs::write(&file, text).unwrap();
            }
            assert!(in_effect(&bench.store, &keyring, &named).is_err(), "{text:?}");
            assert_eq!(at_start(&bench.store, &keyring, &named).unwrap().cert, own.cert, "{text:?}");
            assert!(describe(&bench.store, &keyring, &named).unwrap().is_our_own);
        }
    }

    #[test]
    fn an_expired_certificate_is_still_shown() {
        let (bench, keyring, settings) = with_store();
        let file = bench.home.join("cert.pem");
        let (certificate, private) = make("a.example", OffsetDateTime::now_utc() - 2 * OWN_VALIDITY).unwrap();
        fs::write(&file, pem("CERTIFICATE", &certificate) + &pem("PRIVATE KEY", &private)).unwrap();
        let key = crate::settings::find("tlscert").ok().unwrap();
        let named = settings.with(key, &[file.display().to_string()]).ok().unwrap();
        assert_eq!(*at_start(&bench.store, &keyring, &named).unwrap().cert[0], certificate[..]);
    }
}
