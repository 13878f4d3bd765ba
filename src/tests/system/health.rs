//! Whether the service runs, as `stat` and `health` report it.

use std::net::TcpListener;
use std::path::Path;

use rustix::process::Pid;
use serde_json::Value;

use super::service::{Done, finish};
use crate::harness::PROGRAM;
use crate::harness::site::Site;

fn health(site: &Site, words: &[&str]) -> Done {
    site.run(&[&["health"], words].concat())
}

fn stat(site: &Site) -> Value {
    let stat = serde_json::from_str(&site.winpop(&["stat", "/json"])).expect("it is JSON");
    let Value::Object(mut stat) = stat else { panic!("{stat}") };
    stat.remove("statistics").expect("it has statistics")
}

#[test]
fn a_running_service_is_told_from_a_stopped_one() {
    let mut site = Site::new();
    assert!(site.winpop(&["stat"]).starts_with("Service    stopped\n"));
    let statistics = stat(&site);
    assert_eq!(
        (&statistics["service"]["running"], &statistics["connections"]),
        (&Value::Bool(false), &Value::Null)
    );
    let stopped = health(&site, &[]);
    assert_eq!((stopped.exit_code, stopped.output.as_str(), stopped.errors.lines().count()), (1, "", 1));
    assert!(stopped.errors.starts_with("pop3svc: the service is not running: "), "{}", stopped.errors);

    let service = site.start();
    let told = site.winpop(&["stat"]);
    let pid = Pid::as_raw(Some(service.pid()));
    let version = env!("CARGO_PKG_VERSION");
    let first = told.lines().next().unwrap();
    assert!(first.starts_with("Service    running since 2"), "{first}");
    assert!(first.ends_with(&format!(", pid {pid}, version {version}")), "{first}");
    let statistics = stat(&site);
    assert_eq!(statistics["service"]["pid"], pid);
    assert!(statistics["service"]["since_unix_seconds"].as_u64().unwrap() > 1_700_000_000);
    let running = health(&site, &[]);
    assert_eq!((running.exit_code, running.output.lines().count()), (0, 1));
    assert!(running.output.starts_with("healthy: running since 2"), "{}", running.output);
    let json = health(&site, &["--json"]).output;
    assert!(json.starts_with(r#"{"ok":true,"service":{"running":true,"pid":"#), "{json}");
    service.stop();
    assert!(health(&site, &["--json"]).output.starts_with(r#"{"ok":false,"error":{"code":"not-running""#));
}

#[test]
fn a_service_that_hangs_is_reported_unhealthy_in_bounded_time() {
    let mut site = Site::new();
    let service = site.start();
    service.freeze(true);
    let done = health(&site, &[]);
    let told = "pop3svc: the service did not answer within 5 seconds\n";
    assert_eq!((done.errors.as_str(), done.exit_code), (told, 1));
    let done = health(&site, &[&format!("127.0.0.1:{}", service.ports().pop3)]);
    assert_eq!((done.errors.as_str(), done.exit_code), (told, 1));
    service.freeze(false);
    assert_eq!(health(&site, &[]).exit_code, 0);
    service.stop();
}

#[test]
fn anyone_may_ask_for_the_greeting() {
    let mut site = Site::new();
    let service = site.start();
    let address = format!("127.0.0.1:{}", service.ports().pop3);
    // No mail root, no home: nothing but the address.
    let mut command = site.program(Path::new(PROGRAM));
    command.env_remove("WINPOP_MAILROOT").env_remove("HOME");
    let done = finish(command.args(["health", &address]), b"");
    assert_eq!(done.exit_code, 0, "{done:?}");
    assert!(done.output.starts_with(&format!("healthy: {address} answers +OK ")), "{done:?}");
    // Another protocol's greeting does not count.
    let done = health(&site, &[&format!("127.0.0.1:{}", service.ports().smtp)]);
    assert_eq!(done.exit_code, 1);
    assert!(done.errors.contains("does not greet like a POP3 server"), "{done:?}");
    service.stop();
    let done = health(&site, &[&address]);
    assert!(done.exit_code == 1 && done.errors.contains("does not answer: "), "{done:?}");
    assert_eq!(health(&site, &["localhost"]).exit_code, 2);
    // A server that accepts and says nothing is given five seconds.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(health(&site, &[&silent.local_addr().unwrap().to_string()]).exit_code, 1);
}
