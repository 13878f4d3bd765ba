//! The first minute: what a newcomer types, and what they see.

use std::net::TcpListener;
use std::sync::Mutex;

use super::foreign::have;
use super::scratch::{Scratch, Service};

/// Without other settings these tests use the same ports, one after the other.
static PORTS: Mutex<()> = Mutex::new(());

#[test]
fn the_line_that_quickstart_prints_shows_the_welcome_message() {
    if !have(&["curl"]) {
        return;
    }
    let _ports = PORTS.lock();
    let scratch = Scratch::new("first");
    let service = Service::start(&scratch, &["quickstart"]);
    shows_welcome(&scratch, &service, "user@example.com");
    service.end();

    // The second time there is a mailbox already, whose password nobody can say.
    let service = Service::start(&scratch, &["quickstart"]);
    assert!(service.told.contains("as before"), "{}", service.told);
    assert_eq!(service.messages_in("user@example.com"), 1);
    service.end();
}

#[test]
fn quickstart_takes_another_port_where_that_of_pop3_is_taken() {
    if !have(&["curl"]) {
        return;
    }
    let _ports = PORTS.lock();
    // Where this fails, somebody else has the port, or it needs a right that we do not have: all the same here.
    let _taken = TcpListener::bind(("0.0.0.0", 110));
    let scratch = Scratch::new("taken");
    let service = Service::start(&scratch, &["quickstart", "Ann@Mail.Example.org"]);
    let port: u16 = service.port("POP3").parse().expect("a port");
    assert!((11110..11120).contains(&port), "{}", service.told);
    shows_welcome(&scratch, &service, "ann@mail.example.org");
    // The port is for this run alone.
    assert!(scratch.winpop("get port").contains("110\n"));
    service.end();
}

/// Types the line with `curl` in it, as it was printed.
fn shows_welcome(scratch: &Scratch, service: &Service, mailbox: &str) {
    let line = service.told.lines().find(|line| line.trim_start().starts_with("curl ")).expect("a line");
    assert!(line.contains(&service.password()), "{}", service.told);
    let shown = scratch.run("sh", &["-c", line], b"");
    for part in [
        "Subject: Welcome to pop3svc\r\n",
        "\r\n\r\nYour mailbox works.\r\n",
        &format!("\r\nTo: {mailbox}\r\n"),
    ] {
        assert!(shown.contains(part), "{shown}");
    }
}
