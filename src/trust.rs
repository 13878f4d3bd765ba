//! TLS as a client of directory servers and of the mail servers that we fetch from: which certificates we trust.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_rustls::rustls::pki_types::CertificateDer;
use futures_rustls::rustls::pki_types::pem::PemObject as _;
use futures_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// The system's trusted certificates on Debian, Red Hat and SUSE.
const AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/var/lib/ca-certificates/ca-bundle.pem",
];

/// A TLS configuration that trusts the authorities in this PEM file, or the system's if there is none. `named_by` is
/// the setting or option that names the file. An error is a sentence.
pub fn client_config(authorities: Option<&Path>, named_by: &str) -> Result<ClientConfig, String> {
    let path = match authorities {
        Some(path) => path,
        None => AUTHORITIES.map(Path::new).into_iter().find(|path| path.exists()).ok_or_else(|| {
            format!("{named_by} is not set, and this system has no file of trusted certificates")
        })?,
    };
    let unusable = |why: String| format!("{} cannot be used: {why}", path.display());
    let text = fs::read(path).map_err(|e| {
        unusable(match e.kind() {
            io::ErrorKind::NotFound => "it does not exist".to_owned(),
            _ => e.to_string(),
        })
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|e| unusable(format!("it is not in PEM format ({e})")))?;
        // Skip what rustls cannot read: such an authority is simply not trusted.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate authority".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
