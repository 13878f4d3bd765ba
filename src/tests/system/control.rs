//! The control socket with many clients, clumsy ones and hostile ones, and with a service that hangs or is gone.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::thread;

use super::service::{Service, finish};
use crate::harness::programs::have;
use crate::harness::site::Site;
use crate::harness::skip::needs_root;

const BOB: &str = "bob@example.com";

fn connect(site: &Site) -> UnixStream {
    UnixStream::connect(site.mailroot().join("winpop.sock")).expect("the service listens")
}

/// Sends octets and returns what comes back until the service closes.
fn answer(site: &Site, sent: &[u8]) -> Vec<u8> {
    let mut stream = connect(site);
    // A service that has seen enough may have closed already.
    let _ = stream.write_all(sent);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn forged_frames_are_refused_and_the_service_goes_on() {
    let mut site = Site::new();
    site.add_mailbox(BOB);
    let service = site.start();
    let frame = |length: u32, rest: &[u8]| [&length.to_le_bytes()[..], rest].concat();
    for (sent, is_answered) in [
        (frame(u32::MAX, b""), true),
        (frame(1 << 20, b"short"), false),
        (frame(3, b"abc"), true),
        (frame(8, b"\xff\xff\xff\x7f\0\0\0\0"), true),
        (frame(4, b"\x04\0\0\0"), true),
        (frame(0, b""), true),
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), true),
        (b"ab".to_vec(), false),
        (Vec::new(), false),
    ] {
        assert_eq!(!answer(&site, &sent).is_empty(), is_answered, "{sent:?}");
    }
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..200 {
        let body: Vec<u8> = (0..rng.usize(..64)).map(|_| rng.u8(..)).collect();
        answer(&site, &frame(body.len() as u32, &[&4u32.to_le_bytes()[..], &body].concat()));
    }
    assert!(site.winpop(&["list"]).contains("example.com"));
    let session = service.log_in(BOB);
    session.quit().unwrap();
    service.terminate();
    let (status, log) = service.wait();
    assert!(status.success() && !log.contains("panicked"), "{log}");
    site.assert_clean();
}

#[test]
fn clients_that_say_nothing_do_not_keep_others_waiting() {
    let mut site = Site::new();
    let service = site.start();
    let silent: Vec<UnixStream> = (0..4).map(|_| connect(&site)).collect();
    site.winpop(&["add", "example.com"]);
    drop(silent);
    service.terminate();
    assert!(service.wait().0.success());
}

#[test]
fn administrators_at_work_at_once_do_not_disturb_each_other() {
    let mut site = Site::new();
    site.winpop(&["add", "example.com"]);
    let add_many = |site: &Site, kind: &str| {
        thread::scope(|scope| {
            for admin in 0..4 {
                scope.spawn(move || {
                    for number in 0..6 {
                        let address = format!("{kind}-{admin}-{number}@example.com");
                        site.winpop(&["add", &address, "/createuser", "secret"]);
                    }
                });
            }
        });
    };
    add_many(&site, "stopped");
    let service = site.start();
    add_many(&site, "running");
    service.stop();
    let listed = site.winpop(&["list", "example.com"]);
    for kind in ["stopped", "running"] {
        assert_eq!(listed.matches(&format!("{kind}-")).count(), 24, "{listed}");
    }
    site.assert_clean();
}

#[test]
fn settings_changed_at_once_are_all_stored_and_in_effect() {
    let mut site = Site::new();
    let service = site.start();
    for round in 1..=5 {
        let (octets, seconds) = ((round * 100_000).to_string(), (round * 100).to_string());
        let changes = [("maxmessagesize", &octets), ("logindelay", &seconds), ("idletimeout", &seconds)];
        thread::scope(|scope| {
            for (key, value) in changes {
                let site = &site;
                scope.spawn(move || site.winpop(&["set", key, value]));
            }
        });
        for (key, value) in changes {
            assert_eq!(site.winpop(&["get", key]).split_whitespace().next(), Some(value.as_str()), "{key}");
        }
        let mut smtp = service.smtp().unwrap();
        smtp.line().unwrap();
        smtp.send(b"EHLO client.example\r\nQUIT\r\n").unwrap();
        let extensions = smtp.read_to_end().unwrap();
        assert!(extensions.contains(&format!("SIZE {octets}\r\n")), "{extensions}");
    }
    service.stop();
}

#[test]
fn a_socket_left_by_a_crash_misleads_nobody() {
    let mut site = Site::new();
    site.start().kill();
    assert!(site.mailroot().join("winpop.sock").exists());
    site.winpop(&["add", "example.com"]);
    let service = site.start();
    assert!(site.winpop(&["list"]).contains("example.com"));
    service.stop();
}

#[test]
fn commands_wait_for_a_service_that_is_just_starting_or_ending() {
    let site = Site::new();
    site.winpop(&["add", "example.com"]);
    for round in 0..4 {
        let service = Service::spawn(&site);
        let address = format!("starting-{round}@example.com");
        site.winpop(&["add", &address, "/createuser", "secret"]);
        service.wait_for_log("SMTP on");
        service.terminate();
        let address = format!("ending-{round}@example.com");
        site.winpop(&["add", &address, "/createuser", "secret"]);
        assert!(service.wait().0.success());
    }
    assert_eq!(site.winpop(&["list", "example.com"]).lines().count(), 1 + 8);
    site.assert_clean();
}

#[test]
fn commands_give_up_on_a_hanging_service_after_ten_seconds() {
    const MESSAGE: &[u8] = b"Subject: x\n\ntext\n";
    let mut site = Site::new();
    site.add_mailbox(BOB);
    let service = site.start();
    service.freeze(true);
    let (added, delivered) = thread::scope(|scope| {
        let add = scope.spawn(|| site.run(&["winpop", "add", "example.org"]));
        let deliver = scope.spawn(|| site.run_with_input(&["deliver", BOB], MESSAGE));
        (add.join().expect("it does not panic"), deliver.join().expect("it does not panic"))
    });
    let told = "the service did not accept the command within 10 seconds. Nothing was changed. The service hangs or \
                is very busy: check on it before you try again\n";
    assert_eq!((added.errors, added.exit_code), (format!("winpop: {told}"), 1));
    assert_eq!((delivered.errors, delivered.exit_code), (format!("pop3svc: {told}"), 75));
    service.freeze(false);
    assert!(!site.winpop(&["list"]).contains("example.org"));
    assert_eq!(service.log_in(BOB).count().unwrap(), 0);
    service.stop();
}

#[test]
fn a_probe_of_the_socket_causes_no_warning() {
    let mut site = Site::new();
    let service = site.start();
    assert!(answer(&site, b"ab").is_empty());
    assert!(answer(&site, b"").is_empty());
    service.wait_for_log("a connection to the control socket ended early");
    service.terminate();
    let (status, log) = service.wait();
    assert!(status.success() && !log.contains("<4>"), "{log}");
}

/// Another user is refused, even if the files are open to all.
#[test]
fn another_user_is_refused() {
    const NOBODY: u32 = 65534;
    if !needs_root("another user") || !have(&["perl"]) {
        return;
    }
    let mut site = Site::new();
    site.winpop(&["add", "example.com"]);
    let service = site.start();
    // Only root may be able to reach the program.
    let program = site.path("pop3svc");
    fs::copy(env!("CARGO_BIN_EXE_pop3svc"), &program).unwrap();
    let done = finish(site.program(&program).args(["winpop", "list"]).uid(NOBODY), b"");
    assert_eq!((done.exit_code, done.output.as_str()), (1, ""), "{done:?}");
    assert!(done.errors.contains("belongs to another user"), "{done:?}");

    let socket = site.mailroot().join("winpop.sock");
    fs::set_permissions(site.mailroot(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
    // A request to verify everything, which a permitted user would get an answer to.
    let script = "$SIG{PIPE} = 'IGNORE'; use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; connect($s, sockaddr_un($ARGV[0])) or die; \
                  syswrite($s, pack('VVV', 8, 4, 2)); my $n = sysread($s, my $got, 100); print \"got \", $n // 'none';";
    let done =
        finish(site.program(Path::new("/usr/bin/perl")).args(["-e", script]).arg(&socket).uid(NOBODY), b"");
    assert!(done.output == "got 0" || done.output == "got none", "{done:?}");
    service.wait_for_log("refused a command from user 65534, who may not give any");
    service.terminate();
    assert!(service.wait().0.success());
}
