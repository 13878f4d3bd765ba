//! The privileges of the running service, as the kernel reports them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use super::service::Service;
use crate::harness::PASSWORD;
use crate::harness::ports::free_port;
use crate::harness::site::Site;
use crate::harness::skip::needs_root;

const UID: u32 = 12_345;
const BOB: &str = "bob@example.com";
/// CAP_NET_BIND_SERVICE is number 10 (capabilities(7)).
const NET_BIND_SERVICE: &str = "0000000000000400";
const NONE: &str = "0000000000000000";

/// A site that another user can reach.
fn site() -> Site {
    let site = Site::new();
    fs::set_permissions(site.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    site.add_mailbox(BOB);
    site
}

/// The `/proc` status of every thread of the service.
fn of_every_thread(service: &Service, key: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", service.id())).unwrap();
    let values = tasks.map(|task| {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{key}:"))).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    values.collect()
}

#[track_caller]
fn assert_of_every_thread(service: &Service, key: &str, wanted: &str) {
    let values = of_every_thread(service, key);
    assert!(values.len() > 1 && values.iter().all(|value| value == wanted), "{key}: {values:?}");
}

#[track_caller]
fn assert_confined(service: &Service) {
    for (key, wanted) in [
        ("CapEff", NET_BIND_SERVICE),
        ("CapPrm", NET_BIND_SERVICE),
        ("CapInh", NONE),
        ("CapAmb", NONE),
        ("CapBnd", NONE),
        ("NoNewPrivs", "1"),
    ] {
        assert_of_every_thread(service, key, wanted);
    }
    // The files of a process that is not dumpable belong to root, whoever it runs as (proc(5)).
    assert_eq!(fs::metadata(format!("/proc/{}/environ", service.id())).unwrap().uid(), 0);
}

#[test]
fn started_by_root_it_becomes_the_owner_of_the_mail_store_with_all_its_threads() {
    if !needs_root("giving a mail store to another user") {
        return;
    }
    let mut site = site();
    assert_eq!(site.winpop(&["set", "user", &UID.to_string()]), format!("user is now number {UID}\n"));
    let service = site.start();
    assert_of_every_thread(&service, "Uid", &[UID.to_string().as_str(); 4].join(" "));
    assert_of_every_thread(&service, "Gid", &[UID.to_string().as_str(); 4].join(" "));
    assert_of_every_thread(&service, "Groups", "");
    assert_confined(&service);

    // All of this makes the service write.
    service.lmtp().store(BOB, b"Subject: x\r\n\r\nhello\r\n");
    assert_eq!(service.log_in(BOB).count().unwrap(), 1);
    site.succeed(&["key", "--rotate"]);
    site.winpop(&["changepwd", BOB, PASSWORD]);
    let backup = site.dir().join("backup.db");
    site.succeed(&["backup", backup.to_str().unwrap()]);
    site.succeed(&["check", backup.to_str().unwrap()]);
    // A port below 1024 while it runs.
    let low = (600..1024).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    site.winpop(&["set", "port", &low.to_string()]);
    site.winpop(&["set", "port", &free_port().to_string()]);
    let refused = site.run(&["winpop", "set", "user", "root"]);
    assert!(refused.errors.contains("while the service runs"), "{refused:?}");
    service.stop();
    for file in ["winpop.db", "winpop.key", "winpop.key.old"] {
        assert_eq!(fs::metadata(site.mailroot().join(file)).unwrap().uid(), UID, "{file}");
    }
    site.assert_clean();
}

#[test]
fn a_mail_store_of_root_is_served_by_root_without_its_privileges() {
    if !needs_root("starting the service as root") {
        return;
    }
    let mut site = site();
    let service = site.start();
    assert_of_every_thread(&service, "Uid", "0 0 0 0");
    assert_confined(&service);
    service.wait_for_log("the service runs as root");
    assert_eq!(service.log_in(BOB).count().unwrap(), 0);
    service.stop();
}

#[test]
fn a_data_file_the_user_may_not_open_is_reported_with_a_hint() {
    if !needs_root("giving a directory to another user") {
        return;
    }
    let site = site();
    chown(site.mailroot(), Some(UID), Some(UID)).unwrap();
    let done = site.run(&["serve"]);
    assert!(done.errors.ends_with(&format!("winpop set user {UID}\n")), "{done:?}");
    assert_eq!(done.exit_code, 1);
}

/// Files that root creates in the service user's directory belong to that user.
#[test]
fn a_store_that_root_makes_belongs_to_the_owner_of_its_directory() {
    if !needs_root("giving a directory to another user") {
        return;
    }
    let site = Site::without_store();
    fs::create_dir(site.mailroot()).unwrap();
    chown(site.mailroot(), Some(UID), Some(UID)).unwrap();
    site.winpop(&["add", "example.com"]);
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    assert_eq!(owner(&site.data_file()), UID);
    assert_eq!(owner(&site.mailroot().join("winpop.key")), UID);
}
