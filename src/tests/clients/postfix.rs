//! Postfix in front, configured as the README says.

use super::machine::Machine;
use super::readme::blocks;
use super::unit::installed;
use crate::harness::programs::have;

/// What every Postfix needs; lines added later override it.
const MAIN: &str = "
    compatibility_level = 3.6
    inet_interfaces = loopback-only
    inet_protocols = ipv4
    myhostname = mail.example.com
    mydestination =
    alias_maps =
    maillog_file = /var/log/postfix.log
    address_verify_poll_delay = 1s
";

/// Prints the server's reply to each recipient: SENDER RECIPIENT...
const SEND: &str = "
import smtplib, sys
sender, *recipients = sys.argv[1:]
with smtplib.SMTP('127.0.0.1', 25, timeout=50) as smtp:
    smtp.ehlo()
    smtp.mail(sender)
    codes = [smtp.rcpt(recipient)[0] for recipient in recipients]
    print(*codes)
    if 250 in codes:
        assert smtp.data('Subject: by Postfix\\r\\n\\r\\nText.\\r\\n')[0] == 250
";

/// A machine with our service, and on port 25 a Postfix with these lines of the README.
fn with_postfix(of_main: &str) -> Option<Machine> {
    if !have(&["postfix", "curl", "python3"]) {
        return None;
    }
    let machine = installed()?;
    machine.run("winpop set smtpport 0");
    for mailbox in ["bob", "ann", "carol"] {
        machine.run(&format!("winpop add {mailbox}@example.com /createuser secret"));
    }
    let block = |words: &str| {
        let blocks = blocks();
        let found = blocks.iter().find(|block| block.mark == "ini" && block.text.contains(words));
        found.unwrap_or_else(|| panic!("no block with {words}")).text.clone()
    };
    let main: String = MAIN.lines().map(|line| format!("{}\n", line.trim())).collect();
    machine.write("/etc/postfix/main.cf", &(main + &block(of_main)));
    machine.write("/run/winpop-of-master", &block("argv="));
    machine.write("/run/send.py", SEND);
    // Debian runs Postfix's services in the queue directory, which its unit fills at the start.
    machine.run(
        "cat /run/winpop-of-master >>/etc/postfix/master.cf
        postconf -F '*/*/chroot = n'
        newaliases 2>/dev/null || true
        postfix start",
    );
    Some(machine)
}

/// The server's reply to each recipient, once the queue is empty.
#[track_caller]
fn send(machine: &Machine, sender: &str, recipients: &str) -> String {
    let codes = machine.run(&format!("python3 /run/send.py {sender} {recipients}"));
    machine.run("until postqueue -p | grep -q 'queue is empty'; do sleep 0.1; done");
    codes.trim().to_owned()
}

/// Takes all messages out of a mailbox.
#[track_caller]
fn take(machine: &Machine, name: &str) -> Vec<String> {
    let list = format!("curl -sS --user {name}@example.com:secret pop3://127.0.0.1/");
    let count = machine.run(&list).lines().filter(|line| !line.is_empty()).count();
    let take = |number| {
        let text = machine.run(&format!("{list}{number}"));
        machine.run(&format!("{list}{number} --request DELE --head >/dev/null"));
        text
    };
    // Each is the first message when its turn comes.
    (0..count).map(|_| take(1)).collect()
}

#[test]
fn postfix_bounces_only_what_the_pipe_did_not_deliver() {
    let Some(machine) = with_postfix("winpop_destination_recipient_limit") else { return };
    let all = "bob@example.com nobody@example.com ann@example.com";
    assert_eq!(send(&machine, "carol@example.com", all), "250 250 250");
    assert_eq!((take(&machine, "bob").len(), take(&machine, "ann").len()), (1, 1));
    let bounces = take(&machine, "carol");
    let [bounce] = &bounces[..] else { panic!("{bounces:?}") };
    let is_lost = |name: &str| bounce.contains(&format!("Final-Recipient: rfc822; {name}@example.com"));
    assert!(is_lost("nobody") && !is_lost("bob") && !is_lost("ann"), "{bounce}");

    // Without the limit the message is reported as lost to all, so nobody may have it.
    machine.run("postconf -X winpop_destination_recipient_limit && postfix reload");
    assert_eq!(send(&machine, "carol@example.com", all), "250 250 250");
    let bounce = take(&machine, "carol").concat();
    for name in ["bob", "ann", "nobody"] {
        assert!(bounce.contains(&format!("Final-Recipient: rfc822; {name}@example.com")), "{bounce}");
    }
    assert_eq!((take(&machine, "bob").len(), take(&machine, "ann").len()), (0, 0));
}

#[test]
fn postfix_refuses_unknown_recipients_at_once_and_soon_asks_again() {
    let Some(machine) = with_postfix("lmtp:inet:") else { return };
    // The client is a stranger. The test does not wait for the README's minute.
    let soon = "postconf -h address_verify_negative_expire_time | grep -qx 1m";
    let soon = format!("{soon} && postconf mynetworks=192.0.2.0/24 address_verify_negative_expire_time=1s");
    machine.run(&format!("{soon} && postfix reload"));
    assert_eq!(send(&machine, "ann@example.org", "bob@example.com dave@example.com"), "250 550");
    let [text] = &take(&machine, "bob")[..] else { panic!("one message") };
    assert!(text.contains("Subject: by Postfix\r\n") && text.contains(" with LMTP id "), "{text}");
    machine.run("winpop add dave@example.com /createuser secret");
    machine.run(
        "until python3 /run/send.py ann@example.org dave@example.com | grep -qx 250; do sleep 0.2; done",
    );
    machine.run("until postqueue -p | grep -q 'queue is empty'; do sleep 0.1; done");
    assert_eq!(take(&machine, "dave").len(), 1);
}
