//! `health`: checks that the service answers, for containers and monitors.
//!
//! That a process exists says little, so it must answer: over the control socket, where it also reads its index, or
//! with its greeting to a POP3 client, which needs no rights.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::commands::Health;
use crate::admin::reply::Code;
use crate::admin::{Refusal, Reply, Request};
use crate::control::{Answer, CallError, Enclosed, Job, call};
use crate::mailroot::MailRoot;

/// How long a healthy service may take. Docker's own limit for a health check is 30 seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest greeting (RFC 2449 section 4).
const GREETING_OCTETS_MAX: u64 = 512;

pub fn health(typed: &Health, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    if let Some(address) = &typed.address {
        return greeted(address);
    }
    let mailroot = mailroot()?;
    match (asked(&mailroot.socket()), mailroot.of_machine.clone()) {
        // Nobody serves the user's own store, so the machine's service is meant.
        (Err(refusal), Some(dir)) if refusal.code == Code::NotRunning => {
            asked(&MailRoot { dir, ..mailroot }.socket())
        }
        (answer, _) => answer,
    }
}

fn asked(socket: &Path) -> Answer {
    match call(socket, &Job::Request(Request::Health), Enclosed::Nothing, PATIENCE, &mut |_| {}) {
        Ok(answer) => answer,
        Err(CallError::NotTaken(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Refusal::new(Code::NotPermitted, format!("{} belongs to another user", socket.display()))
                .with_hint("Ask as that user or as root, or name an address: pop3svc health 127.0.0.1:110"))
        }
        Err(CallError::NotTaken(error)) => Err(Refusal::new(
            Code::NotRunning,
            format!("the service is not running: {}: {error}", socket.display()),
        )),
        Err(CallError::Silent(_) | CallError::Broken(_)) => Err(silent()),
        Err(CallError::BadAnswer(bad)) => Err(bad.into()),
    }
}

fn silent() -> Refusal {
    Refusal::new(Code::Busy, format!("the service did not answer within {} seconds", PATIENCE.as_secs()))
}

/// Connects as a POP3 client and waits for the greeting.
fn greeted(typed: &str) -> Answer {
    let address: SocketAddr = typed.parse().map_err(|_| {
        Refusal::usage(format!("\"{typed}\" is not an IP address with a port"))
            .with_hint("Write it like 127.0.0.1:110")
    })?;
    match greeting(address) {
        Ok(greeting) if greeting.starts_with("+OK") => {
            Ok(Reply::Greeted { address: address.to_string(), greeting })
        }
        Ok(greeting) => Err(Refusal::new(
            Code::Fault,
            format!("{address} does not greet like a POP3 server: {greeting:?}"),
        )),
        Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) => {
            Err(silent())
        }
        Err(error) => Err(Refusal::new(Code::NotRunning, format!("{address} does not answer: {error}"))),
    }
}

fn greeting(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::new(&stream).take(GREETING_OCTETS_MAX).read_until(b'\n', &mut line)?;
    // A courtesy; it may fail.
    let _ = stream.write_all(b"QUIT\r\n");
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailroot::NamedBy;
    use crate::tests::scratch;

    #[test]
    fn a_user_without_a_service_asks_that_of_the_machine() {
        let scratch = scratch::directory();
        let told = |of_machine: Option<&str>| {
            let of_machine = of_machine.map(|dir| scratch.path().join(dir));
            let mailroot = MailRoot {
                dir: scratch.path().join("private"),
                named_by: NamedBy::Default,
                pointer: scratch.path().join("pointer"),
                default_dir: scratch.path().join("private"),
                of_machine,
            };
            health(&Health { address: None }, || Ok(mailroot.clone())).unwrap_err().message
        };
        assert!(told(None).contains("/private/winpop.sock: "));
        assert!(told(Some("machine")).contains("/machine/winpop.sock: "));
    }
}
