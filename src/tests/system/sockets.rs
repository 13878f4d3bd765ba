//! Connection slots as clients see them: who is greeted, who waits without a greeting, who is refused.

use std::path::Path;

use super::client::{Client, Pop3};
use super::service::Service;
use crate::harness::site::Site;
use crate::harness::{PASSWORD, PROGRAM};

const REFUSAL: &str = "-ERR [SYS/TEMP] too many connections, try again later\r\n";

fn connect(service: &Service) -> Client {
    Client::connect(service.ports().pop3).unwrap()
}

fn assert_refused(service: &Service) {
    assert_eq!(connect(service).read_to_end().unwrap(), REFUSAL);
}

const MAILBOXES: [&str; 2] = ["ann@example.com", "bob@example.com"];

/// One slot, this many waiting places, and mailboxes to log in to: a logged-in session is not pushed out.
fn site(backlog: &str) -> Site {
    let site = Site::new();
    site.winpop(&["set", "socket", backlog, "1", "1", "0"]);
    MAILBOXES.iter().for_each(|mailbox| site.add_mailbox(mailbox));
    site
}

/// Waits for the greeting and logs in.
fn log_in(client: Client, mailbox: &str) -> Pop3 {
    let mut session = Pop3::greeted(client).unwrap();
    assert!(session.log_in(mailbox, PASSWORD).unwrap().starts_with("+OK"));
    session
}

/// Quits and waits for the reply, so that the slot is free.
fn leave(session: Pop3) {
    session.quit().unwrap();
}

#[test]
fn past_socketmax_clients_are_held_in_order_and_past_the_backlog_refused() {
    let mut site = site("2");
    let service = site.start();
    let served = log_in(connect(&service), MAILBOXES[0]);
    let mut second = connect(&service);
    let mut third = connect(&service);
    // Once the service refuses a third client, it has seen both.
    assert_refused(&service);
    assert!(second.is_silent() && third.is_silent());
    leave(served);
    let second = log_in(second, MAILBOXES[1]);
    assert!(third.is_silent(), "the slot is the second's");
    let fourth = connect(&service);
    assert_refused(&service);
    leave(second);
    leave(Pop3::greeted(third).unwrap());
    leave(Pop3::greeted(fourth).unwrap());
    service.stop();
}

#[test]
fn a_client_that_gives_up_waiting_is_skipped() {
    let mut site = site("2");
    let service = site.start();
    let served = log_in(connect(&service), MAILBOXES[0]);
    let second = connect(&service);
    let third = connect(&service);
    assert_refused(&service);
    drop(second);
    leave(served);
    leave(Pop3::greeted(third).unwrap());
    service.stop();
}

#[test]
fn a_waiting_client_s_commands_are_answered_in_turn() {
    let mut site = site("2");
    let service = site.start();
    let served = log_in(connect(&service), MAILBOXES[0]);
    let mut second = connect(&service);
    second.send(b"NOOP\r\nQUIT\r\n").unwrap();
    leave(served);
    let said = second.read_to_end().unwrap();
    let lines: Vec<&str> = said.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(lines, ["+OK", "-ERR", "+OK"], "{said}");
    service.stop();
}

#[test]
fn new_limits_apply_at_once_and_open_sessions_go_on() {
    let mut site = site("1");
    let service = site.start();
    let mut served = log_in(connect(&service), MAILBOXES[0]);
    let second = connect(&service);
    assert_refused(&service);
    site.winpop(&["set", "socket", "0", "2", "2", "0"]);
    let second = log_in(second, MAILBOXES[1]);
    assert_refused(&service);
    site.winpop(&["set", "socket", "0", "1", "1", "0"]);
    assert!(served.ask("NOOP").unwrap().starts_with("+OK"));
    leave(second);
    assert_refused(&service);
    leave(served);
    service.stop();
}

/// Starts the service from a shell that has set these limits on open files.
fn start_with_limits(site: &mut Site, limits: &str) -> Service {
    site.start_by(|site| {
        let mut command = site.program(Path::new("sh"));
        command.args(["-c", &format!("{limits} && exec \"$0\" serve"), PROGRAM]);
        command
    })
}

#[test]
fn the_soft_limit_on_open_files_is_raised_and_socketmax_stays_within_the_hard_one() {
    let mut site = Site::new();
    site.winpop(&["set", "socketmax", "100"]);
    let service = start_with_limits(&mut site, "ulimit -Sn 32 && ulimit -Hn 4096");
    let clients: Vec<Client> = (0..80)
        .map(|_| {
            let mut client = connect(&service);
            assert!(client.line().unwrap().starts_with("+OK"));
            client
        })
        .collect();
    let done = site.run(&["winpop", "set", "socketmax", "30000"]);
    assert_eq!(done.exit_code, 1);
    assert!(
        done.errors.contains("socketmax 30000 needs more open files") && done.errors.contains("at most ")
    );
    assert!(site.winpop(&["get", "socketmax"]).contains("100"), "a refused value is not kept");
    drop(clients);
    service.stop();
    let service = start_with_limits(&mut site, "ulimit -n 512");
    service.wait_for_log(
        "socketmax 100 needs more open files than the service may have: with 512 it can be at most",
    );
    service.stop();
}
