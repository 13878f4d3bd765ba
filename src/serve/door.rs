//! The doors of the service: its protocols, each with its port.

use crate::settings::{Settings, Whole};

/// What a client finds behind an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    Pop3,
    /// POP3 under TLS from the start (RFC 8314 section 3.3).
    Pop3s,
    Smtp,
    Lmtp,
}

pub const DOORS: [Door; 4] = [Door::Pop3, Door::Pop3s, Door::Smtp, Door::Lmtp];

impl Door {
    pub fn protocol(self) -> &'static str {
        match self {
            Door::Pop3 => "POP3",
            Door::Pop3s => "POP3S",
            Door::Smtp => "SMTP",
            Door::Lmtp => "LMTP",
        }
    }

    /// The setting that holds its port.
    pub fn key(self) -> &'static str {
        match self {
            Door::Pop3 => "port",
            Door::Pop3s => "tlsport",
            Door::Smtp => "smtpport",
            Door::Lmtp => "lmtpport",
        }
    }

    /// 0 = closed.
    pub fn port(self, settings: &Settings) -> u16 {
        let port = match self {
            Door::Pop3 => settings.port.get(),
            Door::Pop3s => settings.tlsport.get(),
            Door::Smtp => settings.smtpport.get(),
            Door::Lmtp => settings.lmtpport.get(),
        };
        u16::try_from(port).expect("the settings bound it")
    }

    pub fn set_port(self, settings: &mut Settings, port: u16) {
        match self {
            Door::Pop3 => settings.port = Whole::new(port.into()),
            Door::Pop3s => settings.tlsport = Whole::new(port.into()),
            Door::Smtp => settings.smtpport = Whole::new(port.into()),
            Door::Lmtp => settings.lmtpport = Whole::new(port.into()),
        }
    }
}
