//! If the service cannot start, it prints one clear line on standard error and exits with 1.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown};
use std::path::Path;

use super::service::{Done, finish};
use crate::harness::ports::Ports;
use crate::harness::site::Site;
use crate::harness::skip::is_root;
use crate::harness::{PASSWORD, PROGRAM};

/// The version in the header of a data file: `u32`, little endian, after the 16 octets that name the format.
const VERSION_AT: u64 = 16;

/// `serve` must end by itself, and print this and nothing else.
#[track_caller]
fn assert_refused(site: &Site, sentence: &str) {
    assert_one_line(&site.run(&["serve"]), sentence);
}

#[track_caller]
fn assert_one_line(done: &Done, sentence: &str) {
    let expected = Done { output: String::new(), errors: format!("pop3svc: {sentence}\n"), exit_code: 1 };
    assert_eq!(*done, expected);
}

/// A site that logs no information, so that the message comes alone.
fn quiet_site() -> Site {
    let site = Site::new();
    site.winpop(&["set", "logging", "2"]);
    site
}

#[test]
fn without_a_store_serve_says_how_to_make_one() {
    let site = Site::without_store();
    let dir = site.mailroot();
    let sentence = format!(
        "there is no mail store in {} yet. To create one: pop3svc quickstart, or winpop add DOMAIN",
        dir.display()
    );
    assert_refused(&site, &sentence);
    assert!(!dir.exists(), "nothing was made");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_setting() {
    let cases = [
        ("POP3", "port", ""),
        ("POP3S", "tlsport", ", or 0 for none"),
        ("SMTP", "smtpport", ", or 0 for none"),
        ("LMTP", "lmtpport", ", or 0 for none"),
    ];
    for (index, (protocol, key, off)) in cases.into_iter().enumerate() {
        let site = quiet_site();
        let Ports { pop3, pop3s, smtp, lmtp } = site.ports();
        let port = [pop3, pop3s, smtp, lmtp][index];
        let _other = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        let sentence = format!(
            "port {port} for {protocol} is taken by another program. Stop that, or choose another port{off}: winpop \
             set {key} PORT"
        );
        assert_refused(&site, &sentence);
        assert!(!site.mailroot().join("winpop.sock").exists(), "no socket is left that nobody serves");
        site.assert_clean();
    }
}

#[test]
fn a_file_in_place_of_the_directory_is_reported() {
    let site = Site::without_store();
    fs::write(site.mailroot(), "not a directory").unwrap();
    let sentence = format!(
        "{:?} is not a directory. Name a directory, such as /srv/mail",
        site.mailroot().display().to_string()
    );
    assert_refused(&site, &sentence);
    assert_one_line(&site.run(&["quickstart"]), &sentence);
}

#[test]
fn a_quickstart_that_fails_shows_the_password_that_it_made() {
    let site = quiet_site();
    // In place of the control socket.
    fs::create_dir(site.mailroot().join("winpop.sock")).unwrap();
    let done = site.run(&["quickstart"]);
    assert_eq!(done.exit_code, 1, "{done:?}");
    let (_, password) = done.errors.trim_end().rsplit_once(' ').unwrap();
    assert!(site.winpop(&["test", "user@example.com", password]).contains("can log in"), "{done:?}");
}

#[test]
fn a_directory_that_cannot_be_written_is_reported() {
    const UID: u32 = 12_345;
    let site = quiet_site();
    if is_root() {
        // Root may write everywhere, but the service runs as the owner of the mail store.
        for path in [site.mailroot(), site.data_file(), site.mailroot().join("winpop.key")] {
            chown(path, Some(UID), Some(UID)).unwrap();
        }
    }
    let with_mode = |mode| fs::set_permissions(site.mailroot(), fs::Permissions::from_mode(mode)).unwrap();
    with_mode(0o500);
    let socket = site.mailroot().join("winpop.sock");
    let sentence =
        format!("the control socket {} cannot be created: Permission denied (os error 13)", socket.display());
    assert_refused(&site, &sentence);
    with_mode(0o700);
    site.assert_clean();
}

#[test]
fn a_data_file_of_a_newer_version_is_left_alone() {
    let site = quiet_site();
    let file = File::options().read(true).write(true).open(site.data_file()).unwrap();
    let mut version = [0; 4];
    file.read_exact_at(&mut version, VERSION_AT).unwrap();
    let newer = u32::from_le_bytes(version) + 1;
    file.write_all_at(&newer.to_le_bytes(), VERSION_AT).unwrap();
    let before = fs::read(site.data_file()).unwrap();
    let path = site.data_file();
    let sentence = format!(
        "{}: it is of format version {newer}, and this program knows versions up to {}: use a newer pop3svc",
        path.display(),
        newer - 1
    );
    assert_refused(&site, &sentence);
    assert_one_line(&site.run(&["check"]), &sentence);
    assert!(fs::read(site.data_file()).unwrap() == before, "not an octet of it was written");
}

#[test]
fn a_file_that_is_no_store_is_left_alone() {
    let site = Site::without_store();
    fs::create_dir(site.mailroot()).unwrap();
    let content = "To whom it may concern.\n".repeat(100);
    fs::write(site.data_file(), &content).unwrap();
    let path = site.data_file();
    assert_refused(&site, &format!("{}: it is not a mail store of this program", path.display()));
    assert_eq!(fs::read_to_string(site.data_file()).unwrap(), content);
}

#[test]
fn a_second_service_is_refused_and_the_first_goes_on() {
    let mut site = Site::new();
    site.add_mailbox("bob@example.com");
    let service = site.start();
    let dir = site.mailroot();
    let sentence = format!("a service is already running on {}", dir.display());
    assert_refused(&site, &sentence);
    assert_one_line(&site.run(&["quickstart"]), &sentence);
    assert_eq!(service.log_in("bob@example.com").count().unwrap(), 0);
    site.winpop(&["list"]);
    service.stop();
}

#[test]
fn serve_waits_for_a_data_file_kept_busy_by_a_command_and_then_says_so() {
    let site = quiet_site();
    let file = File::open(site.data_file()).unwrap();
    // As a long command would.
    file.try_lock().expect("nobody has it");
    let path = site.data_file();
    let sentence = format!(
        "{} is in use, but no service answers. Another command or a backup may be running; try again later",
        path.display()
    );
    assert_refused(&site, &sentence);
}

#[test]
fn a_data_file_is_served_as_soon_as_a_command_lets_go_of_it() {
    let mut site = Site::new();
    let file = File::open(site.data_file()).unwrap();
    file.try_lock().expect("nobody has it");
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| site.start());
        // Whether it tries before or after this, it must start.
        file.unlock().unwrap();
        starting.join().unwrap().stop();
    });
}

#[test]
fn a_mailbox_that_exists_needs_no_file_with_its_password() {
    let mut site = Site::new();
    let file = site.path("password");
    let started = |site: &mut Site, file: &Path| {
        site.start_by(|site| {
            let mut command = site.command(PROGRAM);
            command.arg("serve").env("WINPOP_USER", "bob@example.com").env("WINPOP_PASSWORD_FILE", file);
            command
        })
    };
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    started(&mut site, &file).stop();
    fs::remove_file(&file).unwrap();
    for file in [&*file, Path::new("")] {
        let service = started(&mut site, file);
        service.log_in("bob@example.com").quit().unwrap();
        service.stop();
    }
    let done = finish(site.command(PROGRAM).arg("serve").env("WINPOP_USER", "eve@example.com"), b"");
    assert_eq!(done.exit_code, 2, "{done:?}");
    assert!(done.errors.contains("WINPOP_USER is set without WINPOP_PASSWORD_FILE"), "{done:?}");
}

#[test]
fn a_socket_left_by_a_crash_does_not_prevent_a_start() {
    let mut site = Site::new();
    site.start().kill();
    assert!(site.mailroot().join("winpop.sock").exists(), "nobody took it away");
    site.winpop(&["list"]);
    let service = site.start();
    site.winpop(&["list"]);
    service.stop();
    assert!(!site.mailroot().join("winpop.sock").exists());
}
