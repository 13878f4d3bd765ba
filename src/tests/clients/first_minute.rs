//! The first minute: what a newcomer types, and what they see.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::sync::Mutex;

use super::foreign::have;
use super::scratch::{PROGRAM, READY, Scratch, Service};

/// A user without rights.
const NOBODY: u32 = 65534;
/// Without other settings these tests use the same ports, one after the other.
static PORTS: Mutex<()> = Mutex::new(());

#[test]
fn the_line_that_quickstart_prints_shows_the_welcome_message() {
    if !have(&["curl"]) {
        return;
    }
    let _ports = PORTS.lock();
    let scratch = Scratch::new();
    let service = Service::quickstart(&scratch, &[]);
    shows_welcome(&scratch, &service, "user@example.com");
    service.end();

    // The second time there is a mailbox already, whose password nobody can say.
    let service = Service::quickstart(&scratch, &[]);
    assert!(service.told.contains("as before"), "{}", service.told);
    let line = service.told.lines().find(|line| line.trim_start().ends_with(" winpop help")).expect("a line");
    assert!(scratch.run("sh", &["-c", line], b"").contains("winpop"), "{line}");
    assert_eq!(service.messages_in("user@example.com"), 1);
    service.end();
}

#[test]
fn quickstart_serves_this_machine_alone_unless_it_is_asked() {
    let _ports = PORTS.lock();
    let scratch = Scratch::new();
    scratch.make_store();
    let listens = |words: &[&str]| {
        let service = Service::quickstart(&scratch, words);
        // A setting that has nothing to do with it leaves it alone.
        scratch.winpop("set expire 1");
        scratch.winpop("set expire 0");
        let port: u16 = service.port("POP3").parse().expect("a port");
        // Every address of 127.0.0.0/8 is this machine's, and none but the first is named localhost.
        let is_open = ["127.0.0.1", "127.0.0.2"].map(|address| TcpStream::connect((address, port)).is_ok());
        service.end();
        is_open
    };
    assert_eq!(listens(&[]), [true, false]);
    assert_eq!(listens(&["--listen", "*"]), [true, true]);
    scratch.winpop("set listen 127.0.0.2");
    assert_eq!(listens(&[]), [false, true]);
}

#[test]
fn quickstart_takes_another_port_where_that_of_pop3_is_taken() {
    if !have(&["curl"]) {
        return;
    }
    let _ports = PORTS.lock();
    // Where this fails, somebody else has the port, or it needs a right that we do not have: all the same here.
    let _taken = TcpListener::bind(("0.0.0.0", 110));
    let scratch = Scratch::new();
    let service = Service::quickstart(&scratch, &["Ann@Mail.Example.org"]);
    let port: u16 = service.port("POP3").parse().expect("a port");
    assert!((11110..11120).contains(&port), "{}", service.told);
    shows_welcome(&scratch, &service, "ann@mail.example.org");
    // The port is for this run alone.
    assert!(scratch.winpop("get port").contains("110\n"));
    service.end();
}

#[test]
fn quickstart_needs_no_root_and_keeps_to_the_home_of_its_user() {
    if !have(&["curl"]) {
        return;
    }
    let _ports = PORTS.lock();
    let scratch = Scratch::new();
    // The directory of the build may be closed to others.
    let program = scratch.path("pop3svc");
    fs::copy(PROGRAM, &program).expect("it can be copied");
    let mut command = scratch.command(&program.to_string_lossy());
    command.env_remove("WINPOP_MAILROOT").arg("quickstart");
    if rustix::process::geteuid().is_root() {
        chown(scratch.path(""), Some(NOBODY), Some(NOBODY)).expect("root may");
        command.uid(NOBODY).gid(NOBODY);
    }
    let service = Service::start(&scratch, &mut command, READY);
    let store = scratch.path(".local/share/winpop/winpop.db");
    assert!(service.told.contains(&format!("Its mail store is {}\n", store.display())), "{}", service.told);
    shows_welcome(&scratch, &service, "user@example.com");
    service.stop();
    scratch.run("pop3svc", &["check", &store.to_string_lossy()], b"");
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
