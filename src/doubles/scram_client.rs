//! A SCRAM-SHA-256 client that can make every mistake on purpose.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::auth::hash::{hmac_sha256, sha256};

pub const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

/// The part before client-first-message-bare, and the channel binding data.
#[derive(Clone)]
pub struct Client {
    pub name: String,
    pub password: String,
    pub gs2_header: String,
    pub channel_data: Vec<u8>,
}

impl Client {
    pub fn new(name: &str, password: &str) -> Self {
        Self {
            name: name.to_owned(),
            password: password.to_owned(),
            gs2_header: "n,,".to_owned(),
            channel_data: Vec::new(),
        }
    }

    fn bare(&self) -> String {
        format!("n={},r={NONCE}", self.name)
    }

    pub fn first(&self) -> String {
        format!("{}{}", self.gs2_header, self.bare())
    }

    /// client-final for this server-first, and the server-final to expect.
    ///
    /// # Panics
    /// If `server-first` is malformed.
    pub fn last(&self, server_first: &str) -> (String, String) {
        let value = |key: &str| {
            server_first.split(',').find_map(|attribute| attribute.strip_prefix(key)).expect("an attribute")
        };
        let binding = STANDARD.encode([self.gs2_header.as_bytes(), &self.channel_data].concat());
        let signed = format!("c={binding},r={}", value("r="));
        let exchange = format!("{},{server_first},{signed}", self.bare());
        let salt = STANDARD.decode(value("s=")).expect("Base64");
        let rounds = value("i=").parse().expect("a number");
        let salted = pbkdf2::pbkdf2_hmac_array::<sha2::Sha256, 32>(self.password.as_bytes(), &salt, rounds);
        let client_key = hmac_sha256(&salted, b"Client Key");
        let signature = hmac_sha256(&sha256(&client_key), exchange.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, mask)| key ^ mask).collect();
        let server_signature = hmac_sha256(&hmac_sha256(&salted, b"Server Key"), exchange.as_bytes());
        let last = format!("{signed},p={}", STANDARD.encode(proof));
        (last, format!("v={}", STANDARD.encode(server_signature)))
    }
}
