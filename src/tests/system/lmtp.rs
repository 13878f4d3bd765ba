//! LMTP beyond the loopback port: on a Unix socket, and for the machines that `lmtpfrom` names.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::client::{Client, Lmtp};
use super::pop3::address_of_this_machine;
use super::service::eventually;
use crate::harness::site::Site;
use crate::harness::skip::{is_root, lacks};

const ANN: &str = "ann@example.com";

fn set_socket(site: &Site, path: &Path) {
    site.winpop(&["set", "lmtpsocket", path.to_str().expect("a path in UTF-8")]);
}

#[test]
fn mail_comes_over_a_unix_socket() {
    const GROUP: u32 = 12345;
    let mut site = Site::new();
    site.add_mailbox(ANN);
    let directory = site.dir().join("spool");
    fs::create_dir(&directory).unwrap();
    if is_root() {
        std::os::unix::fs::chown(&directory, None, Some(GROUP)).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o2750)).unwrap();
    }
    let path = directory.join("lmtp");
    set_socket(&site, &path);
    let service = site.start();
    let mut lmtp = Lmtp::greeted(Client::connect_to_unix(&path).unwrap()).unwrap();
    lmtp.store(ANN, b"Subject: over the socket\r\n\r\n");
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert!(!is_root() || metadata.gid() == GROUP, "it has the group of its directory");
    let header = service.log_in(ANN).lines("TOP 1 0").unwrap().join(&b'\n');
    let header = String::from_utf8(header).unwrap();
    assert!(header.contains("(local)") && header.contains(" with LMTP id "), "{header}");

    // A socket left by a crash is replaced.
    service.kill();
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    let service = site.start();
    Lmtp::greeted(Client::connect_to_unix(&path).unwrap()).unwrap();
    // A file that is not a socket is left alone, and the setting does not change.
    let precious = directory.join("precious");
    fs::write(&precious, b"x").unwrap();
    let refused = |site: &Site| {
        let refused = site.run(&["winpop", "set", "lmtpsocket", precious.to_str().unwrap()]);
        assert!(refused.exit_code == 1 && refused.errors.contains("is left alone"), "{refused:?}");
    };
    refused(&site);
    Lmtp::greeted(Client::connect_to_unix(&path).unwrap()).unwrap();
    site.winpop(&["set", "lmtpsocket", "default"]);
    assert!(!path.exists() && precious.exists());
    set_socket(&site, &path);
    assert!(path.exists());
    service.stop();
    assert!(!path.exists());
    refused(&site);
}

#[test]
fn other_machines_reach_lmtp_only_if_they_are_named() {
    let mut site = Site::new();
    site.add_mailbox(ANN);
    let service = site.start();
    let Some(ip) = address_of_this_machine() else {
        lacks("an address that is not loopback's");
        return;
    };
    let port = service.ports().lmtp;
    assert!(Client::connect_to(ip, port).is_err(), "nobody listens there");
    site.winpop(&["set", "listen", "127.0.0.1", &ip.to_string()]);
    site.winpop(&["set", "lmtpfrom", "203.0.113.0/24"]);
    eventually("the connection is closed without a word", || {
        Client::connect_to(ip, port).is_ok_and(|mut client| client.line().is_err())
    });
    service.lmtp().store(ANN, b"Subject: from here\r\n\r\n");
    site.winpop(&["set", "lmtpfrom", &format!("{ip}/32")]);
    let mut lmtp = Lmtp::greeted(Client::connect_to(ip, port).unwrap()).unwrap();
    lmtp.store(ANN, b"Subject: from there\r\n\r\n");
    site.winpop(&["set", "lmtpfrom", "none"]);
    assert!(Client::connect_to(ip, port).is_err());
    service.lmtp().store(ANN, b"Subject: from here again\r\n\r\n");
    assert_eq!(service.log_in(ANN).count().unwrap(), 3);
    service.stop();
}
