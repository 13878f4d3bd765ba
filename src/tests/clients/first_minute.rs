//! The first minute: what newcomers type and what they see.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::sync::Mutex;

use super::service::{READY, Service};
use crate::harness::PROGRAM;
use crate::harness::programs::have;
use crate::harness::site::Site;
use crate::harness::skip::is_root;

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
    let site = Site::new();
    let service = Service::quickstart(&site, &[]);
    shows_welcome(&site, &service, "user@example.com");
    service.end();

    // The second time the mailbox already exists, and nobody can show its password.
    let service = Service::quickstart(&site, &[]);
    assert!(service.told.contains("as before"), "{}", service.told);
    let line = service.told.lines().find(|line| line.trim_start().ends_with(" winpop help")).expect("a line");
    assert!(site.output("sh", &["-c", line], b"").contains("winpop"), "{line}");
    // In another terminal, where the variable is not set.
    let list = line.replace(" help", " list");
    let mut elsewhere = site.command("sh");
    let listed = elsewhere.env_remove("WINPOP_MAILROOT").args(["-c", &list]).output().expect("sh runs");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("example.com"), "{listed:?}");
    assert_eq!(site.messages_in("user@example.com"), 1);
    service.end();
}

#[test]
fn quickstart_serves_only_this_machine_unless_told_otherwise() {
    let _ports = PORTS.lock();
    let site = Site::new();
    site.make_store();
    let listens = |words: &[&str]| {
        let service = Service::quickstart(&site, words);
        // An unrelated setting does not change this.
        site.winpop("set expire 1");
        site.winpop("set expire 0");
        let port: u16 = service.port("POP3").parse().expect("a port");
        // Every address of 127.0.0.0/8 is this machine's, and none but the first is named localhost.
        let is_open = ["127.0.0.1", "127.0.0.2"].map(|address| TcpStream::connect((address, port)).is_ok());
        service.end();
        is_open
    };
    assert_eq!(listens(&[]), [true, false]);
    assert_eq!(listens(&["--listen", "*"]), [true, true]);
    site.winpop("set listen 127.0.0.2");
    assert_eq!(listens(&[]), [false, true]);
}

#[test]
fn quickstart_uses_another_port_if_port_110_is_taken() {
    if !have(&["curl"]) {
        return;
    }
    let _ports = PORTS.lock();
    // If this fails, the port is taken or not permitted, which is just as good here.
    let _taken = TcpListener::bind(("0.0.0.0", 110));
    let site = Site::new();
    let service = Service::quickstart(&site, &["Ann@Mail.Example.org"]);
    let port: u16 = service.port("POP3").parse().expect("a port");
    assert!((11110..11120).contains(&port), "{}", service.told);
    shows_welcome(&site, &service, "ann@mail.example.org");
    // The other port is only for this run.
    assert!(site.winpop("get port").contains("110\n"));
    service.end();
}

#[test]
fn quickstart_needs_no_root_and_keeps_to_the_home_of_its_user() {
    if !have(&["curl"]) {
        return;
    }
    let _ports = PORTS.lock();
    let site = Site::new();
    // Other users may be unable to enter the build directory.
    let program = site.path("pop3svc");
    fs::copy(PROGRAM, &program).expect("it can be copied");
    let mut command = site.command(&program);
    command.env_remove("WINPOP_MAILROOT").arg("quickstart");
    if is_root() {
        chown(site.dir(), Some(NOBODY), Some(NOBODY)).expect("root may");
        command.uid(NOBODY).gid(NOBODY);
    }
    let service = Service::start(&site, &mut command, READY);
    let store = site.path(".local/share/winpop/winpop.db");
    assert!(service.told.contains(&format!("Its mail store is {}\n", store.display())), "{}", service.told);
    shows_welcome(&site, &service, "user@example.com");
    service.stop();
    site.output("pop3svc", &["check", &store.to_string_lossy()], b"");
}

/// Types the line with `curl` in it, as it was printed.
fn shows_welcome(site: &Site, service: &Service, mailbox: &str) {
    let line = service.told.lines().find(|line| line.trim_start().starts_with("curl ")).expect("a line");
    assert!(line.contains(&service.password()), "{}", service.told);
    let shown = site.output("sh", &["-c", line], b"");
    for part in [
        "Subject: Welcome to pop3svc\r\n",
        "\r\n\r\nYour mailbox works.\r\n",
        &format!("\r\nTo: {mailbox}\r\n"),
    ] {
        assert!(shown.contains(part), "{shown}");
    }
}
