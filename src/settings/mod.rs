//! The table of settings.
//!
//! The typed [`Settings`], `set`, `get`, the help, completions, manual and the README's table all come from it. The
//! store holds a setting as text, and only if it differs from the default.
//!
//! Invariants:
//! - a value is within the bounds of its type;
//! - `Settings` returned by [`Settings::with`] also satisfy the relations between settings;
//! - a stored value reads back as it was set.

mod adoption;
mod directory;
mod networks;
mod relations;
mod values;

pub use adoption::OldServers;
pub use directory::{BindName, DirectoryServers, DistinguishedName, SealedPassword};
pub use networks::{Listen, Networks, Plaintext};
pub use values::{
    DomainRole, FilePath, Hostname, Kind, Logging, MailboxName, Method, NtlmLevel, Size, Span, Switch, Value,
    Whole,
};

use crate::nearest::nearest;
use crate::units::Octets;

/// Maximum number of service threads.
const THREADS_MAX: u32 = 32;
/// RFC 1939 section 3: an autologout timer is at least ten minutes.
const RFC_IDLE_SECONDS_MIN: u64 = 600;
/// RFC 5321 section 4.5.3.1.7: a server accepts messages of at least 64K octets.
const RFC_MESSAGE_OCTETS_MIN: u64 = 64 << 10;
/// A row of the settings table that is not a setting: the secret, in hexadecimal digits, from which the salts of
/// unknown names are derived. It never changes, so that those salts do not either.
pub const DECOY_SECRET: &str = "decoysecret";
/// Prefix of rows that are not settings either: one for each mailbox still waiting for mail from another server,
/// followed by its id in hexadecimal digits.
pub const INCOMPLETE: &str = "incomplete/";
/// The setting whose value is sealed before it is stored, and not shown.
pub const BIND_PASSWORD: &str = Stored::adbindpassword.name();
/// Shown in place of its value.
const SEALED: &str = "sealed";
/// The word that restores the default.
const DEFAULT: &str = "default";

/// A row of the table.
pub struct Key {
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// What may be typed.
    pub allowed: fn() -> String,
    /// The default as it is shown.
    pub default: &'static str,
    pub kind: Kind,
    pub effect: Effect,
    /// One sentence without its full stop. `; 0 = MEANING` at its end says what 0 means.
    pub help: &'static str,
    pub kept_in: KeptIn,
}

impl Key {
    /// The meaning of 0, if that is not a plain number.
    fn zero_means(&self) -> Option<&'static str> {
        self.help.split_once("; 0 = ").map(|(_, meaning)| meaning)
    }
}

/// When a changed setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    AtOnce,
    NextStart,
}

impl Effect {
    pub fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::NextStart => "next start",
        }
    }
}

/// Where the value of a setting is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptIn {
    Store(Stored),
    /// `mailroot`: in the pointer file, because the store cannot say where it is.
    Pointer,
    /// `user`: the owner of the mail store directory.
    Owner,
    /// `socket`: four settings in one.
    Sockets,
}

/// Why a setting was not changed: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// True for a wrong number of values.
    pub is_usage: bool,
    pub why: String,
    pub hint: Option<String>,
}

/// No setting has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub nearest: Option<&'static str>,
}

/// The default as shown: as typed, or in words if it is empty or depends on the machine.
macro_rules! shown {
    ($default:expr) => {
        $default
    };
    ($default:expr, $shown:literal) => {
        $shown
    };
}

macro_rules! settings {
    ($(
        $name:ident $(| $alias:ident)* : $type:ty = $default:expr $(=> $shown:literal)?, $effect:ident, $help:literal;
    )*) => {
        /// The settings of a store. Each field bears the name of its key.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Settings {
            $(#[doc = $help] pub $name: $type,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default.parse().expect("a default is a value of its setting"),)* }
            }
        }

        /// A setting that the store holds, spelled as its key.
        #[expect(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Stored {
            $($name,)*
        }

        impl Stored {
            const ALL: &[Self] = &[$(Self::$name),*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }

        impl Settings {
            /// Reads one setting as the store holds it.
            fn read(&mut self, which: Stored, text: &str) -> Result<(), String> {
                match which {
                    $(Stored::$name => self.$name = text.parse()?,)*
                }
                Ok(())
            }

            /// One setting as the store holds it.
            fn stored(&self, which: Stored) -> String {
                match which {
                    $(Stored::$name => self.$name.to_string(),)*
                }
            }

            fn meaning_of(&self, which: Stored) -> Option<String> {
                match which {
                    $(Stored::$name => self.$name.meaning(),)*
                }
            }
        }

        /// In the order of [`Stored`].
        static TABLE: &[Key] = &[$(Key {
            name: stringify!($name),
            aliases: &[$(stringify!($alias)),*],
            allowed: <$type as Value>::allowed,
            default: shown!($default $(, $shown)?),
            kind: <$type as Value>::KIND,
            effect: Effect::$effect,
            help: $help,
            kept_in: KeptIn::Store(Stored::$name),
        }),*];
    };
}

settings! {
    port: Whole<1, 65535> = "110", AtOnce,
        "TCP port for POP3";
    tlsport: Whole<0, 65535> = "995", AtOnce,
        "TCP port for POP3 with TLS from the start (POP3S); 0 = off";
    listen: Listen = "*", AtOnce,
        "IP addresses the service listens on";
    postmaster: MailboxName = "" => "the domain's first mailbox", AtOnce,
        "Mailbox for postmaster mail of domains without a postmaster mailbox";
    hostname: Hostname = values::name_of_this_machine() => "the machine's", AtOnce,
        "The service's name in greetings and Received fields";
    smtpport: Whole<0, 65535> = "25", AtOnce,
        "TCP port for incoming SMTP; 0 = off";
    lmtpport: Whole<0, 65535> = "24", AtOnce,
        "TCP port for LMTP from this machine and lmtpfrom; 0 = off";
    lmtpfrom: Networks = "none", AtOnce,
        "Networks of other machines that may deliver by LMTP";
    lmtpsocket: FilePath = "" => "none", AtOnce,
        "Unix socket for LMTP, for example from Postfix";
    logging: Logging = "2", AtOnce,
        "How much is logged";
    domainrole: DomainRole = "standalone", AtOnce,
        "This machine's role in a Windows domain; it determines how the authentication methods are numbered";
    authentication | auth: Method = "passwordfile" => "password file", AtOnce,
        "Where mailbox accounts are kept";
    adserver: DirectoryServers = "" => "found by DNS", AtOnce,
        "Active Directory servers, tried in order: NAME = LDAPS, ldap://NAME = StartTLS";
    adbasedn: DistinguishedName = "" => "none", AtOnce,
        "Distinguished name of the Active Directory subtree with the accounts";
    adbinduser: BindName = "" => "none", AtOnce,
        "Active Directory account the service uses to look up, create and change accounts";
    adbindpassword: SealedPassword = "" => "none", AtOnce,
        "Password of adbinduser; stored encrypted and never shown";
    adca: FilePath = "" => "the system's authorities", AtOnce,
        "PEM file with the certificate authority of the Active Directory servers";
    adntlm: FilePath = "" => "none", AtOnce,
        "Unix socket of winbind's ntlm_auth, which checks NTLM (SPA) logins against Active Directory";
    adopt: OldServers = "" => "none", AtOnce,
        "Old POP3 server: users without a password here are checked there at first login, and their mail is fetched";
    adoptca: FilePath = "" => "the system's authorities", AtOnce,
        "PEM file with the certificate authority of the servers in adopt";
    sparequired: Switch = "0", AtOnce,
        "1 = refuse logins that send the password in clear, even under TLS";
    tlscert: FilePath = "" => "self-signed", AtOnce,
        "PEM file with the certificate chain; a second value names the key file, if the key is not in the same file";
    tlskey: FilePath = "" => "in tlscert", AtOnce,
        "PEM file with the private key for tlscert";
    ntlmlevel: NtlmLevel = "2", AtOnce,
        "Lowest NTLM version accepted: 2 = NTLMv2 only, 1 = also NTLM2 session responses, 0 = also NTLMv1";
    proxyfrom: Networks = "none", AtOnce,
        "Networks of proxies; their connections must begin with a PROXY header, which gives the client's address";
    plaintext: Plaintext = "tls", AtOnce,
        "Clients that may send passwords without TLS; this machine always may";
    threadcount: Whole<1, THREADS_MAX> = cpus().min(THREADS_MAX).to_string() => "one per CPU, at most 32", NextStart,
        "Number of service threads";
    socketmax: Whole<1, 32000> = "50", AtOnce,
        "Maximum number of concurrent POP3 connections";
    socketmin: Whole<1, 32000> = "10", AtOnce,
        "Connection slots always kept ready";
    socketthreshold: Whole<0, 100> = "10", AtOnce,
        "Connection slots added at a time when the ready ones run out";
    socketbacklog: Whole<0, 100> = "10", AtOnce,
        "Connections that may wait once socketmax is reached";
    maxmessagesize: Size<RFC_MESSAGE_OCTETS_MIN, { 1 << 30 }> = "50 MiB", AtOnce,
        "Largest message accepted";
    quotalimit: Size<0, { 1 << 60 }> = "0", AtOnce,
        "Default limit for quotas without one; 0 = unlimited";
    expire: Whole<0, 3650> = "0", AtOnce,
        "Days after which mail is deleted, whether fetched or not; 0 = never";
    undelete: Whole<0, 3650> = "7", AtOnce,
        "Days for which deleted mail and mailboxes can be restored; 0 = not at all";
    undeletesize: Size<0, { 1 << 60 }> = "10 GiB", AtOnce,
        "Maximum size of the deleted mail kept for undelete; the oldest goes first; 0 = unlimited";
    erase: Switch = "1", AtOnce,
        "When a deleted mailbox can no longer be restored: 1 = overwrite its messages with zeros, 0 = only free the space";
    logindelay: Span<0, 86400> = "0", AtOnce,
        "Minimum seconds between two logins of a user; 0 = none";
    connectionsperip: Whole<0, 32000> = "0", AtOnce,
        "Maximum number of connections per IP address; 0 = unlimited";
    idletimeout: Span<10, 86400> = "600", AtOnce,
        "Seconds without a command after which a client is disconnected";
    shutdowngrace: Span<0, 3600> = "10", AtOnce,
        "Seconds that open sessions have to end when the service stops";
}

impl Stored {
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|which| which.name() == name)
    }

    fn key(self) -> &'static Key {
        &TABLE[self as usize]
    }

    /// What may be typed, as a hint.
    fn allowed(self) -> String {
        format!("Allowed for {}: {}", self.name(), (self.key().allowed)())
    }
}

static MAILROOT: Key = Key {
    name: "mailroot",
    aliases: &[],
    allowed: || "a directory, at most 260 characters".to_owned(),
    default: "/var/lib/winpop",
    kind: Kind::Text,
    effect: Effect::NextStart,
    help: "Mail store directory",
    kept_in: KeptIn::Pointer,
};

static SOCKET: Key = Key {
    name: "socket",
    aliases: &[],
    allowed: || "BACKLOG MAX MIN THRESHOLD".to_owned(),
    default: "10 50 10 10",
    kind: Kind::Text,
    effect: Effect::AtOnce,
    help: "The four socket settings at once",
    kept_in: KeptIn::Sockets,
};

/// The settings that `socket` sets, in the order typed.
const FOUR_SOCKETS: [Stored; 4] =
    [Stored::socketbacklog, Stored::socketmax, Stored::socketmin, Stored::socketthreshold];

static USER: Key = Key {
    name: "user",
    aliases: &[],
    allowed: || "a user of this machine, by name or ID".to_owned(),
    default: "the owner of the mail store",
    effect: Effect::NextStart,
    help: "User the service runs as when root starts it; setting it gives the mail store to that user",
    kind: Kind::Text,
    kept_in: KeptIn::Owner,
};

/// All keys, in the order shown.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    [&MAILROOT, &USER].into_iter().chain(TABLE).chain(std::iter::once(&SOCKET))
}

/// The key of that name or alias, in any case.
pub fn find(typed: &str) -> Result<&'static Key, Unknown> {
    let is_name = |key: &&Key| {
        key.name.eq_ignore_ascii_case(typed)
            || key.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(typed))
    };
    keys().find(is_name).ok_or_else(|| Unknown { nearest: nearest(typed, keys().map(|key| key.name)) })
}

impl Settings {
    /// The settings that a store holds as pairs of key and text, and one sentence for each pair that this version does
    /// not understand. Such a setting has its default.
    pub fn from_rows<'a>(rows: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Vec<String>) {
        let mut settings = Self::default();
        let mut complaints = Vec::new();
        for (name, text) in rows {
            match Stored::named(name) {
                None if name == DECOY_SECRET || name.starts_with(INCOMPLETE) => {}
                None => complaints.push(format!(
                    "the store has a setting {name}, which this version does not know; it is ignored"
                )),
                Some(which) => {
                    if let Err(why) = settings.read(which, text) {
                        complaints.push(format!("the stored {name} is ignored and its default used: {why}"));
                    }
                }
            }
        }
        if let Err(refused) = settings.check() {
            complaints.push(refused.why);
        }
        (settings, complaints)
    }

    /// The settings from pairs of key and [`Settings::text`]. Those that are not kept in the store are ignored.
    pub fn from_shown<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Result<Self, Refused> {
        let mut settings = Self::default();
        for (name, text) in pairs {
            // A sealed value is not shown, and another store's key could not open it.
            if let Some(which) = Stored::named(name).filter(|which| *which != Stored::adbindpassword) {
                settings.read_typed(which, &text)?;
            }
        }
        settings.check()?;
        Ok(settings)
    }

    /// These settings with one of them, or the four of `socket`, changed as typed. A list may be typed as one word or
    /// several. Panics for `mailroot` and `user`, which the store does not hold.
    pub fn with(&self, key: &Key, typed: &[String]) -> Result<Self, Refused> {
        let mut settings = self.clone();
        match key.kept_in {
            KeptIn::Pointer | KeptIn::Owner => panic!("{} is not kept in the store", key.name),
            // A certificate comes with its key: the one named with it, or the one in the same file.
            KeptIn::Store(Stored::tlscert) if matches!(typed.len(), 1 | 2) => {
                settings.read_typed(Stored::tlscert, &typed[0])?;
                settings.read_typed(Stored::tlskey, typed.get(1).map_or(DEFAULT, String::as_str))?;
            }
            KeptIn::Store(Stored::adopt) if !typed.iter().any(|word| word.contains([' ', '='])) => {
                settings.adopt = self.adopting(typed)?;
            }
            KeptIn::Store(which) => settings.read_typed(which, &typed.join(" "))?,
            KeptIn::Sockets => {
                let defaults = [DEFAULT; 4].map(str::to_owned);
                let typed = match typed {
                    [word] if word.eq_ignore_ascii_case(DEFAULT) => &defaults[..],
                    typed => typed,
                };
                let typed: &[String; 4] = typed.try_into().map_err(|_| Refused {
                    is_usage: true,
                    ..refused(
                        "socket takes four values",
                        "Usage: winpop set socket BACKLOG MAX MIN THRESHOLD",
                    )
                })?;
                for (which, value) in FOUR_SOCKETS.into_iter().zip(typed) {
                    settings.read_typed(which, value)?;
                }
            }
        }
        settings.check()?;
        Ok(settings)
    }

    /// `adopt SERVER`, `adopt SERVER DOMAIN` and `adopt default DOMAIN` change one server, `adopt default` removes all.
    fn adopting(&self, typed: &[String]) -> Result<OldServers, Refused> {
        let is_default = typed[0].is_empty() || typed[0].eq_ignore_ascii_case(DEFAULT);
        let changed = match typed {
            [_] if is_default => Ok(OldServers::default()),
            [server] => self.adopt.with_one_for_all(server),
            [server, domain] => self.adopt.with(domain, (!is_default).then_some(server)),
            _ => Err("adopt takes a server, or a server and a domain".to_owned()),
        };
        changed.map_err(|why| refused(&why, &Stored::adopt.allowed()))
    }

    fn read_typed(&mut self, which: Stored, typed: &str) -> Result<(), Refused> {
        if typed.eq_ignore_ascii_case(DEFAULT) {
            let default = Self::default().stored(which);
            return self.read(which, &default).map_err(|why| Refused { is_usage: false, why, hint: None });
        }
        if which == Stored::authentication {
            self.authentication = self.method_numbered(typed)?;
            return Ok(());
        }
        self.read(which, typed).map_err(|why| refused(&why, &which.allowed()))
    }

    fn method_numbered(&self, typed: &str) -> Result<Method, Refused> {
        let methods = self.domainrole.methods();
        let method = typed.parse::<usize>().ok().and_then(|number| methods.get(number.wrapping_sub(1)));
        method.copied().ok_or_else(|| {
            refused(
                &format!("\"{typed}\" is not an authentication method for domainrole {}", self.domainrole),
                &format!("The methods are: {}", numbered(methods)),
            )
        })
    }

    /// `None` if the role does not have the method, which [`Settings::check`] refuses.
    fn method_number(&self) -> Option<usize> {
        let place = self.domainrole.methods().iter().position(|method| *method == self.authentication);
        place.map(|place| 1 + place)
    }

    /// A setting as shown and typed.
    pub fn text(&self, key: &Key) -> String {
        match key.kept_in {
            KeptIn::Store(Stored::authentication) => self
                .method_number()
                .map_or_else(|| self.stored(Stored::authentication), |number| number.to_string()),
            KeptIn::Store(Stored::adbindpassword) if self.adbindpassword.get().is_some() => SEALED.to_owned(),
            KeptIn::Store(which) => self.stored(which),
            KeptIn::Sockets => FOUR_SOCKETS.map(|which| self.stored(which)).join(" "),
            KeptIn::Pointer | KeptIn::Owner => panic!("{} is not kept in the store", key.name),
        }
    }

    /// What the value means, if it does not say so itself.
    pub fn meaning(&self, key: &Key) -> Option<String> {
        let KeptIn::Store(which) = key.kept_in else { return None };
        match self.text(key).as_str() {
            "" => Some(key.default.to_owned()),
            "0" if key.zero_means().is_some() => key.zero_means().map(str::to_owned),
            _ => self.meaning_of(which),
        }
    }

    /// The rows to change in a store that holds `before`: each a key and its text, or none to remove the row because
    /// the value is the default.
    pub fn rows_changed_since(&self, before: &Self) -> Vec<(&'static str, Option<String>)> {
        let default = Self::default();
        let changed = Stored::ALL.iter().filter(|which| self.stored(**which) != before.stored(**which));
        changed
            .map(|&which| {
                let text = self.stored(which);
                (which.name(), (text != default.stored(which)).then_some(text))
            })
            .collect()
    }

    /// A warning about a value that is allowed but unwise.
    pub fn advice(&self, key: &Key) -> Option<String> {
        let KeptIn::Store(which) = key.kept_in else { return None };
        match which {
            Stored::threadcount if self.threadcount.get() > cpus() => {
                Some(format!("more threads than CPUs ({}) bring no benefit", cpus()))
            }
            Stored::idletimeout if self.idletimeout.seconds() < RFC_IDLE_SECONDS_MIN => Some(format!(
                "RFC 1939 requires at least {RFC_IDLE_SECONDS_MIN} seconds; slow clients may be disconnected"
            )),
            Stored::plaintext if self.plaintext == Plaintext::Always => {
                Some("anyone on the network path can read passwords sent without TLS".to_owned())
            }
            Stored::maxmessagesize if self.maxmessagesize.octets() < Octets::mebibytes(1).0 => {
                Some("most mail with attachments will be refused".to_owned())
            }
            _ => None,
        }
    }
}

/// `1 = Active Directory, 2 = encrypted password file`.
fn numbered(methods: &[Method]) -> String {
    let numbered = methods.iter().zip(1..).map(|(method, number)| format!("{number} = {}", method.name()));
    numbered.collect::<Vec<_>>().join(", ")
}

fn refused(why: &str, hint: &str) -> Refused {
    Refused { is_usage: false, why: why.to_owned(), hint: Some(hint.to_owned()) }
}

/// The CPUs that this process may use.
fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
