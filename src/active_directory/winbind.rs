//! NTLM for users of the directory, through winbind. Only domain controllers can tell whether an NTLM response is
//! right, and they tell only machines that have joined the domain.
//!
//! - Winbind's `ntlm_auth` answers behind a Unix socket, one process per connection. Systemd holds the socket and
//!   starts the processes (see the units in the README), because the service itself executes nothing. If a process
//!   dies, the next connection starts another.
//! - The protocol is `ntlm-server-1` (ntlm_auth(1)): we ask only whether a response answers a challenge. Our own NTLM
//!   code makes the challenge and checks version, channel binding and integrity code as always. With the other
//!   protocols the helper makes the challenge, and a slow client would occupy it.
//! - `ntlm_auth` says "Authenticated: No" for its own troubles too. We take only known reasons for a refusal.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use smol::Timer;
use smol::future::{FutureExt as _, poll_once};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::lock::Semaphore;
use smol::net::unix::UnixStream;
use zeroize::Zeroizing;

use super::verdict::Barred;
use crate::auth::ntlm::Question;
use crate::ldap::Failure;
use crate::lock::Mutex;

/// Helpers, and so questions, at a time. One helper answers some hundred questions a second.
const HELPERS_MAX: usize = 8;
/// How long a question may take, including the wait for a helper.
const QUESTION_MAX: Duration = Duration::from_secs(5);
/// For how long an answer proves that winbind works.
const WORKS_FOR: Duration = Duration::from_secs(60);
/// The longest answer, in octets.
const ANSWER_OCTETS_MAX: usize = 4096;

/// The helper's texts for a wrong name or password: STATUS_WRONG_PASSWORD, STATUS_NO_SUCH_USER and STATUS_LOGON_FAILURE
/// ([MS-ERREF] section 2.3.1).
const WRONG: [&str; 3] = [
    "When trying to update a password, this return status indicates that the value provided as the current password is not correct.",
    "The specified account does not exist.",
    "The attempted logon is invalid. This is either due to a bad username or authentication information.",
];
/// Its texts for accounts that may not log in, from the same table.
const BARRED: [(&str, Barred); 8] = [
    ("The user account has time restrictions and", Barred::Hours),
    ("The user account is restricted so that it cannot be used to log on from", Barred::Workstation),
    ("The user account password has expired.", Barred::PasswordExpired),
    ("The referenced account is currently disabled and", Barred::Disabled),
    ("The user account has expired.", Barred::AccountExpired),
    ("The user password must be changed before logging on", Barred::PasswordMustChange),
    ("The user account has been automatically locked because", Barred::LockedOut),
    ("Indicates a referenced user name and authentication information are valid, but", Barred::Restricted),
];

/// The answer to a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The response is right. The session key verifies the integrity code.
    Right(Zeroizing<[u8; 16]>),
    Wrong,
    Barred(Barred),
}

/// The helpers behind a socket.
pub struct Winbind {
    socket: PathBuf,
    places: Semaphore,
    idle: Mutex<Vec<Helper>>,
    /// When a helper last answered. `None` if the last question failed.
    worked: Mutex<Option<Instant>>,
}

struct Helper {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Winbind {
    /// Connects to nothing yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, places: Semaphore::new(HELPERS_MAX), idle: Mutex::default(), worked: Mutex::default() }
    }

    /// True if the last question was answered.
    pub fn works(&self) -> bool {
        self.worked.lock().is_some()
    }

    /// True unless winbind has answered lately.
    pub fn is_unsure(&self) -> bool {
        self.worked.lock().is_none_or(|worked| worked.elapsed() > WORKS_FOR)
    }

    /// Asks whether this user's response proves the password.
    pub async fn ask(&self, user: &str, domain: &str, question: &Question) -> Result<Answer, Failure> {
        let late = async {
            Timer::after(QUESTION_MAX).await;
            Err("it did not answer in time".to_owned())
        };
        let answered = async {
            let _place = self.places.acquire().await;
            let mut helper = match self.take_alive().await {
                Some(helper) => helper,
                None => Helper::connect(&self.socket).await.map_err(|error| error.to_string())?,
            };
            let lines =
                helper.ask(&written(user, domain, question)).await.map_err(|error| error.to_string())?;
            self.idle.lock().push(helper);
            understood(&lines)
        };
        let outcome = answered.or(late).await;
        *self.worked.lock() = outcome.is_ok().then(Instant::now);
        outcome
            .map_err(|why| Failure::before_asking(format!("ntlm_auth at {}: {why}", self.socket.display())))
    }

    /// The helper that was used last, if it is still alive.
    async fn take_alive(&self) -> Option<Helper> {
        loop {
            let mut helper = self.idle.lock().pop()?;
            if helper.is_alive().await {
                return Some(helper);
            }
        }
    }
}

impl Helper {
    async fn connect(socket: &PathBuf) -> std::io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(socket).await?, received: Vec::new() })
    }

    /// Also reads whatever the last answer left unread.
    async fn is_alive(&mut self) -> bool {
        let mut octets = [0; 64];
        match poll_once(self.stream.read(&mut octets)).await {
            None => true,
            Some(Ok(count @ 1..)) => {
                self.received.extend_from_slice(&octets[..count]);
                true
            }
            Some(_) => false,
        }
    }

    /// The lines of the helper's answer.
    async fn ask(&mut self, question: &str) -> std::io::Result<Vec<String>> {
        self.stream.write_all(question.as_bytes()).await?;
        let mut lines = Vec::new();
        loop {
            while let Some(end) = self.received.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                match String::from_utf8_lossy(&line).trim_end() {
                    // A refusal ends with two of them.
                    "." if lines.is_empty() => {}
                    "." => return Ok(lines),
                    line => lines.push(line.to_owned()),
                }
            }
            let read: usize = lines.iter().map(String::len).sum::<usize>() + self.received.len();
            let mut octets = [0; 512];
            match self.stream.read(&mut octets).await? {
                0 => return Err(std::io::Error::other("it closed the connection")),
                _ if read > ANSWER_OCTETS_MAX => return Err(std::io::Error::other("it sent too much")),
                count => self.received.extend_from_slice(&octets[..count]),
            }
        }
    }
}

/// A question in the helper's format. What the client chose goes in Base64, so that it cannot add lines.
fn written(user: &str, domain: &str, question: &Question) -> String {
    let hexadecimal = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    format!(
        "Username:: {}\nNT-Domain:: {}\nLANMAN-Challenge: {}\nNT-Response: {}\nRequest-User-Session-Key: Yes\n.\n",
        STANDARD.encode(user),
        STANDARD.encode(domain),
        hexadecimal(&question.challenge),
        hexadecimal(&question.response)
    )
}

/// An error is a sentence.
fn understood(lines: &[String]) -> Result<Answer, String> {
    let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    match value("Authenticated") {
        Some("Yes") => {
            let key = value("User-Session-Key").and_then(session_key);
            key.map(Answer::Right).ok_or_else(|| "it sent no session key".to_owned())
        }
        Some("No") => {
            let why = value("Authentication-Error").unwrap_or("it gave no reason");
            let barred = BARRED.iter().find(|(text, _)| why.starts_with(text));
            match barred {
                Some((_, barred)) => Ok(Answer::Barred(*barred)),
                None if WRONG.contains(&why) => Ok(Answer::Wrong),
                None => Err(why.to_owned()),
            }
        }
        _ => Err(lines.join("; ")),
    }
}

fn session_key(digits: &str) -> Option<Zeroizing<[u8; 16]>> {
    let mut key = Zeroizing::new([0; 16]);
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    for (octet, at) in key.iter_mut().zip((0..).step_by(2)) {
        *octet = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn only_known_reasons_are_refusals() {
        let key = Zeroizing::new(std::array::from_fn(|at| at as u8));
        let yes = "Authenticated: Yes\nUser-Session-Key: 000102030405060708090A0B0C0D0E0F";
        assert_eq!(understood(&lines(yes)), Ok(Answer::Right(key)));
        let no = |why: &str| understood(&lines(&format!("Authenticated: No\nAuthentication-Error: {why}")));
        for why in WRONG {
            assert_eq!(no(why), Ok(Answer::Wrong));
        }
        assert_eq!(no("The user account has expired."), Ok(Answer::Barred(Barred::AccountExpired)));
        for trouble in ["Reading winbind reply failed!", "No logon servers are currently available", ""] {
            assert!(no(trouble).is_err(), "{trouble}");
        }
        for none in [
            "",
            "Authenticated: Yes",
            "Authenticated: Yes\nUser-Session-Key: 00",
            "Authenticated: No",
            "Error: x",
        ] {
            assert!(understood(&lines(none)).is_err(), "{none}");
        }
    }

    #[test]
    fn what_a_client_chose_stays_one_word_of_the_question() {
        let question = Question { challenge: [1; 8], response: vec![2; 24] };
        let text = written("a\nUsername: b", "CORP", &question);
        assert_eq!(text.lines().count(), 6);
        assert!(text.starts_with("Username:: YQpVc2VybmFtZTogYg==\nNT-Domain:: Q09SUA==\n"), "{text}");
        assert!(text.contains("\nLANMAN-Challenge: 0101010101010101\nNT-Response: 0202"), "{text}");
    }
}
