//! Sessions of Python clients that fetch and delete.

use crate::harness::programs::have;
use crate::harness::site::Site;

#[test]
fn poplib_lists_fetches_deletes_and_resets() {
    on_four_messages("session.py", 2);
}

#[test]
fn commands_sent_together_and_octet_by_octet_are_answered_alike() {
    on_four_messages("pipelining.py", 4);
}

/// Runs a script on a mailbox with four messages, and checks how many are left.
fn on_four_messages(script: &str, left: u64) {
    if !have(&["python3"]) {
        return;
    }
    let site = Site::new();
    let service = site.serve();
    site.add_mailbox("bob@example.com");
    for number in 1..=4 {
        let message = format!("Subject: message {number}\n\nText.\n.\n..\n{}\n", "x".repeat(1 << number));
        site.output("pop3svc", &["deliver", "bob@example.com"], message.as_bytes());
    }
    site.python(script, &[&service.port("POP3"), "bob@example.com", "secret"]);
    assert_eq!(site.messages_in("bob@example.com"), left);
    service.end();
}
