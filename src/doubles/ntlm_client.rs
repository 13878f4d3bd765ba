//! An NTLM client that can make every mistake on purpose.

use crate::auth::ntlm::message::{AvId, Flags, write_pair};
use crate::auth::ntlm::response::{NtHash, SessionKey, identity};
use crate::auth::ntlm::{AV_FLAG_MIC, Level};

const CLIENT_CHALLENGE: [u8; 8] = [0xaa; 8];

#[derive(Clone)]
pub struct Client {
    pub user: String,
    pub domain: String,
    pub password: String,
    /// The response to send.
    pub level: Level,
    /// The flags in NEGOTIATE and AUTHENTICATE.
    pub flags: Flags,
    /// Whether the response announces a message integrity code.
    pub states_code: bool,
    /// Whether it contains one.
    pub has_code: bool,
    /// MsvAvChannelBindings, if any.
    pub channel_hash: Option<[u8; 16]>,
    /// Whether a session key is sent, encrypted with the key derived from the response.
    pub exchanges_keys: bool,
}

impl Client {
    /// A client that does everything modern clients do.
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            domain: String::new(),
            password: password.to_owned(),
            level: Level::V2,
            flags: Flags::UNICODE
                .with(Flags::NTLM)
                .with(Flags::SIGN)
                .with(Flags::EXTENDED_SESSION_SECURITY)
                .with(Flags::KEY_EXCHANGE),
            states_code: true,
            has_code: true,
            channel_hash: None,
            exchanges_keys: true,
        }
    }

    pub fn negotiate(&self) -> Vec<u8> {
        [&b"NTLMSSP\0\x01\0\0\0"[..], &self.flags.0.to_le_bytes(), &[0; 16]].concat()
    }

    /// AUTHENTICATE in answer to this CHALLENGE.
    ///
    /// # Panics
    /// If it is not a CHALLENGE.
    pub fn authenticate(&self, challenge: &[u8]) -> Vec<u8> {
        let server_challenge: [u8; 8] = challenge[24..32].try_into().expect("eight octets");
        let hash = NtHash::of(&self.password);
        let mut lm = [0x11; 24];
        let nt = match self.level {
            Level::V1 => hash.v1(&server_challenge).to_vec(),
            Level::Session => {
                lm = std::array::from_fn(|at| *CLIENT_CHALLENGE.get(at).unwrap_or(&0));
                hash.session(&server_challenge, &CLIENT_CHALLENGE).to_vec()
            }
            Level::V2 => {
                let client_data = self.client_data(target_info(challenge));
                let key = hash.v2_key(&identity(&self.user, &self.domain));
                [&key.proof(&server_challenge, &client_data)[..], &client_data].concat()
            }
        };
        // RC4 is its own inverse, so any octets are the encrypted form of some session key.
        let encrypted_key: &[u8] = if self.exchanges_keys { &[0x55; 16] } else { &[] };
        let mut message = self.message(&lm, &nt, encrypted_key);
        if self.has_code {
            let proof = nt.first_chunk().expect("a response of NTLMv2 begins with its proof");
            let key = hash.v2_key(&identity(&self.user, &self.domain));
            let key = SessionKey::exported(key.base_key(proof), encrypted_key.try_into().ok());
            let code = key.integrity_code(&[&self.negotiate(), challenge, &message].concat());
            message[72..88].copy_from_slice(&code);
        }
        message
    }

    fn client_data(&self, mut target_info: Vec<u8>) -> Vec<u8> {
        target_info.truncate(target_info.len() - 4);
        if self.states_code {
            write_pair(AvId::Flags, &AV_FLAG_MIC.to_le_bytes(), &mut target_info);
        }
        if let Some(hash) = self.channel_hash {
            write_pair(AvId::ChannelBindings, &hash, &mut target_info);
        }
        write_pair(AvId::End, &[], &mut target_info);
        let header = [&[1, 1][..], &[0; 14], &CLIENT_CHALLENGE, &[0; 4]].concat();
        [header, target_info, vec![0; 4]].concat()
    }

    fn message(&self, lm: &[u8], nt: &[u8], encrypted_key: &[u8]) -> Vec<u8> {
        let text = |text: &str| -> Vec<u8> {
            match self.flags.contains(Flags::UNICODE) {
                true => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
                false => text.as_bytes().to_vec(),
            }
        };
        let (domain, user) = (text(&self.domain), text(&self.user));
        let mut header = b"NTLMSSP\0\x03\0\0\0".to_vec();
        let mut payload = Vec::new();
        let payload_at = if self.has_code { 88 } else { 64 };
        for field in [lm, nt, &domain, &user, &[], encrypted_key] {
            let length = u16::try_from(field.len()).expect("a short field").to_le_bytes();
            header.extend_from_slice(&length);
            header.extend_from_slice(&length);
            header.extend_from_slice(&((payload_at + payload.len()) as u32).to_le_bytes());
            payload.extend_from_slice(field);
        }
        header.extend_from_slice(&self.flags.0.to_le_bytes());
        header.resize(payload_at, 0);
        [header, payload].concat()
    }
}

fn target_info(challenge: &[u8]) -> Vec<u8> {
    let length = usize::from(u16::from_le_bytes([challenge[40], challenge[41]]));
    let at = usize::from(u16::from_le_bytes([challenge[44], challenge[45]]));
    challenge[at..at + length].to_vec()
}
