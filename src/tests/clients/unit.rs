//! The README's unit, run by systemd, while root types the commands of the README's chapters.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::machine::{BUILT, Machine};
use super::readme::{Block, blocks, commands_of_root};
use crate::harness::programs::have;

/// Mail in a file and in the store of a Windows service, a directory for backups, and the program where the build
/// leaves it.
const PREPARE: &str = "
    mkdir -p /root/target/x86_64-unknown-linux-gnu/release /srv/backup /srv/mailbox/example.net/P3_ann.mbx
    ln -s BUILT /root/target/x86_64-unknown-linux-gnu/release/pop3svc
    printf 'From: ann@example.org\\nTo: bob@example.com\\nSubject: hi\\n\\nText.\\n' >/root/message.eml
    cp /root/message.eml /srv/mailbox/example.net/P3_ann.mbx/P3A.eml";

/// A machine on which the README's chapters on installing and running have been followed.
pub fn installed() -> Option<Machine> {
    let machine = Machine::boot()?;
    machine.run(&PREPARE.replace("BUILT", BUILT));
    let blocks = blocks();
    let install = blocks.iter().find(|block| block.text.starts_with("install ")).expect("it is there");
    type_as_root(&machine, &install.text);
    machine.write("/etc/systemd/system/pop3svc.service", &unit(&blocks));
    type_as_root(&machine, &commands_of_root(&blocks, "useradd"));
    machine.run("systemctl is-active pop3svc");
    Some(machine)
}

fn unit(blocks: &[Block]) -> String {
    let unit = blocks.iter().find(|block| block.text.contains("ExecStart=")).expect("it is there");
    unit.text.clone()
}

/// The journal so far.
fn journal(machine: &Machine, options: &str) -> String {
    machine.run(&format!("journalctl --sync; journalctl --output=cat {options}"))
}

pub fn type_as_root(machine: &Machine, text: &str) -> String {
    machine.run(&format!("cd /root\n{text}"))
}

#[test]
fn the_chapters_of_the_readme_hold_under_its_unit() {
    let Some(machine) = installed() else { return };
    let started = machine.run("systemctl show --property=MainPID pop3svc");
    for Block { mark, text } in blocks() {
        let is_of_the_service =
            ["winpop ", "pop3svc ", "echo ", "sendmail "].iter().any(|w| text.starts_with(w));
        if mark != "sh" || !is_of_the_service || text == "pop3svc serve\n" {
            continue;
        }
        // The domain already exists, because the unit could not have started without it.
        type_as_root(&machine, text.strip_prefix("winpop add example.com\n").unwrap_or(&text));
    }
    assert_eq!(
        machine.run("systemctl show --property=MainPID pop3svc"),
        started,
        "it has served all the time"
    );
    let files = machine.run("stat --format='%U:%G %a %n' /var/lib/winpop /var/lib/winpop/*");
    for line in files.lines() {
        assert!(line.starts_with("winpop:winpop "), "{files}");
    }
    machine.run("systemctl restart pop3svc");
    let stat = machine.run("winpop stat");
    assert!(stat.contains("Mailboxes  3\n") && stat.contains("Messages   3\n"), "{stat}");

    // The backup predates the mailbox of the Windows service.
    type_as_root(&machine, &commands_of_root(&blocks(), "pop3svc restore"));
    let stat = machine.run("winpop stat && pop3svc check");
    assert!(stat.contains("Mailboxes  2\n") && stat.contains("Messages   2\n"), "{stat}");
    assert_eq!(machine.run("stat --format=%U:%G:%a /var/lib/winpop/winpop.db"), "winpop:winpop:600\n");
}

#[test]
fn the_mail_store_moves_as_the_readme_says_and_root_and_service_mean_the_same_one() {
    let Some(machine) = installed() else { return };
    machine.run(
        "winpop add bob@example.com /createuser:secret && pop3svc deliver bob@example.com </root/message.eml",
    );
    let commands = commands_of_root(&blocks(), "winpop set mailroot");
    type_as_root(&machine, &commands);
    let is_served_from = |dir: &str| {
        let owners = machine.run(&format!("stat --format='%U %n' {dir} {dir}/winpop.db {dir}/winpop.sock"));
        assert!(owners.lines().all(|line| line.starts_with("winpop ")), "{owners}");
    };
    is_served_from("/srv/mail");
    assert!(machine.run("winpop stat").contains("Messages   1\n"));
    // Another directory, named while the service runs. Its store is empty and has the current settings.
    let running = commands.lines().filter(|line| !line.contains("systemctl st"));
    let running: Vec<String> =
        running.map(|line| line.replace("/srv/mail", "/srv/new").replace(" /move", "")).collect();
    machine.run("winpop set quotalimit 5MB");
    type_as_root(&machine, &running.join("\n"));
    machine.run("systemctl restart pop3svc");
    is_served_from("/srv/new");
    assert!(machine.run("winpop list && winpop get quotalimit").contains("There are no domains\n5242880"));
}

#[test]
fn a_backup_lies_where_the_administrator_says_whatever_the_unit_may_write_to() {
    let Some(machine) = installed() else { return };
    for directory in ["/tmp", "/root", "/etc", "/var/lib/winpop"] {
        let file = format!("{directory}/copy.db");
        machine.run(&format!("pop3svc backup {file} && pop3svc check {file} && test -O {file}"));
    }
}

#[test]
fn the_unit_comes_back_after_a_crash_and_once_its_port_is_free() {
    let Some(machine) = installed() else { return };
    let started = journal(&machine, "--unit=pop3svc --priority=notice");
    let ports = "POP3 110, POP3S 995, SMTP 25, LMTP 127.0.0.1:24, LMTP [::1]:24";
    let expected = format!(
        "pop3svc {} serves /var/lib/winpop/winpop.db: {ports}; the certificate is valid until ",
        env!("CARGO_PKG_VERSION")
    );
    assert!(started.lines().any(|line| line.starts_with(&expected)), "{started}");
    assert!(machine.run("systemctl status pop3svc").contains(&format!("Status: \"{ports}\"")));

    let main = machine.run("systemctl show --value --property=MainPID pop3svc");
    machine.run(&format!("kill -KILL {}", main.trim()));
    wait_until_active(&machine);
    assert_ne!(machine.run("systemctl show --value --property=MainPID pop3svc"), main);

    machine.run(
        "systemctl stop pop3svc; systemd-run --quiet --unit=other --service-type=notify python3 -c '
import os, socket
taken = socket.create_server((\"\", 110))
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b\"READY=1\", os.environ[\"NOTIFY_SOCKET\"])
taken.accept()'",
    );
    assert!(!machine.outcome("systemctl start pop3svc").status.success());
    assert!(journal(&machine, "--unit=pop3svc").contains("port 110 for POP3 is taken by another program"));
    // However long that lasts: systemd does not count attempts.
    assert_eq!(machine.run("systemctl show --value --property=StartLimitIntervalUSec pop3svc"), "0\n");
    machine.run("systemctl stop other");
    wait_until_active(&machine);
}

/// A certificate for this name with its key, in PEM format.
fn certificate(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("it can be made");
    (pem("CERTIFICATE", made.cert.der()), pem("PRIVATE KEY", &made.signing_key.serialize_der()))
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn certbots_certificate_is_copied_for_the_service_and_shown() {
    let Some(machine) = installed() else { return };
    let (lineage, hook) =
        ("/etc/letsencrypt/live/mail.example.com", "/etc/letsencrypt/renewal-hooks/deploy/pop3svc");
    // Only root may enter certbot's directories.
    machine.run(&format!("umask 077; mkdir -p {lineage} $(dirname {hook})"));
    let issue = |name: &str| {
        let (certificate, key) = certificate(name);
        machine.write(&format!("{lineage}/fullchain.pem"), &certificate);
        machine.write(&format!("{lineage}/privkey.pem"), &key);
        certificate
    };
    // In one line, because programs break it differently.
    let shown = || {
        let script = "import ssl; print(ssl.get_server_certificate((\"127.0.0.1\", 995)))";
        machine.run(&format!("python3 -c '{script}'")).split_whitespace().collect::<String>()
    };
    let in_one_line = |text: &str| text.split_whitespace().collect::<String>();
    let first = in_one_line(&issue("first.example"));
    let blocks = blocks();
    let script = blocks.iter().find(|block| block.text.contains("RENEWED_LINEAGE") && block.mark == "text");
    machine.write(hook, &script.expect("it is there").text);
    type_as_root(&machine, &commands_of_root(&blocks, "chmod +x"));
    assert_eq!(shown(), first);
    let mode = machine.run("stat --format='%U:%G %a' /etc/pop3svc/tls.pem");
    assert_eq!(mode, "root:winpop 640\n");
    // A renewal of this certificate, and one of another.
    let second = in_one_line(&issue("second.example"));
    machine.run(&format!("RENEWED_LINEAGE=/etc/letsencrypt/live/other.example {hook}"));
    assert_eq!(shown(), first);
    machine.run(&format!("RENEWED_LINEAGE={lineage} {hook}"));
    // The service checks the files once a second.
    assert!((0..200).any(|_| shown() == second));

    let refused =
        machine.outcome(&format!("winpop set tlscert {lineage}/fullchain.pem {lineage}/privkey.pem"));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("the user winpop may not read it"), "{said}");
    // If the key belongs to another certificate, the service reports that and starts nevertheless.
    let ((one, _), (_, other)) = (certificate("one.example"), certificate("other.example"));
    machine.write("/etc/pop3svc/tls.pem", &(one.clone() + &other));
    machine.run("systemctl restart pop3svc && systemctl is-active pop3svc");
    let log = machine.run("journalctl --output=cat --unit=pop3svc --priority=crit");
    assert!(log.contains("the key is not that of the certificate"), "{log}");
    assert_ne!(shown(), in_one_line(&one));
    machine.run("winpop set tlscert default");
}

/// Asks two of winbind's helpers as the service does, prints what they answer, and holds them until its input ends.
const ASK_HELPERS: &str = r#"
import socket, sys
question = (b"Username:: Ym9i\nNT-Domain:: Q09SUA==\nLANMAN-Challenge: 0102030405060708\nNT-Response: " + b"00" * 24
    + b"\nRequest-User-Session-Key: Yes\n.\n")
connections = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for connection in connections:
    connection.settimeout(30)
    connection.connect("/run/pop3svc-ntlm.sock")
    connection.sendall(question)
    answer = b""
    while not answer.endswith(b"\n.\n"):
        octets = connection.recv(1000)
        assert octets, answer
        answer += octets
    print(answer.decode())
print("asked", flush=True)
sys.stdin.read()
"#;

/// The helpers are real, but without a domain and winbindd they answer that they cannot tell.
#[test]
fn the_units_for_spa_give_the_service_alone_a_helper_for_each_connection() {
    if !have(&["ntlm_auth", "ps"]) {
        return;
    }
    let Some(machine) = installed() else { return };
    let blocks = blocks();
    let block =
        |words: &str| &blocks.iter().find(|block| block.text.contains(words)).expect("it is there").text;
    machine.write("/etc/systemd/system/pop3svc-ntlm.socket", block("ListenStream=/run/pop3svc-ntlm.sock"));
    machine.write("/etc/systemd/system/pop3svc-ntlm@.service", block("ExecStart=/usr/bin/ntlm_auth"));
    let commands = block("systemctl enable --now pop3svc-ntlm.socket");
    // The other command, `winpop set adntlm`, needs a directory.
    type_as_root(&machine, commands.lines().next().expect("a line"));

    // As in the service's unit.
    let as_user = |user: &str, program: &str| {
        format!(
            "nsenter --mount --target $(systemctl show --value --property=MainPID pop3svc) \
             setpriv --reuid={user} --regid={user} --clear-groups python3 -c '{program}'"
        )
    };
    let said = machine.run(&format!(
        "mkfifo /run/hold
        {} </run/hold >/run/answers &
        exec 3>/run/hold
        until grep --quiet asked /run/answers; do sleep 0.1; done
        cat /run/answers
        ps -o user:30,supgrp:30,args -C ntlm_auth
        exec 3>&-
        wait",
        as_user("winpop", ASK_HELPERS)
    ));
    assert_eq!(said.matches("Authenticated: No\nAuthentication-Error: ").count(), 2, "{said}");
    let helpers: Vec<&str> = said.lines().filter(|line| line.contains("/usr/bin/ntlm_auth ")).collect();
    assert_eq!(helpers.len(), 2, "{said}");
    assert!(
        helpers.iter().all(|line| line.contains("winbindd_priv") && !line.starts_with("root ")),
        "{said}"
    );

    // The helpers end with their connections.
    machine.run("while ps -C ntlm_auth; do sleep 0.1; done");
    let connect = "import socket; socket.socket(socket.AF_UNIX).connect(\"/run/pop3svc-ntlm.sock\")";
    let stranger = machine.outcome(&as_user("daemon", connect));
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("PermissionError"), "{stranger:?}");
}

fn wait_until_active(machine: &Machine) {
    machine.run("until systemctl --quiet is-active pop3svc; do sleep 0.1; done; winpop stat");
}

#[test]
fn the_unit_leaves_the_service_few_ways_to_do_harm() {
    /// The score of `systemd-analyze security`, in tenths; a unit without restrictions has 10.0.
    const EXPOSURE_MAX: u32 = 14;
    let Some(machine) = installed() else { return };
    machine.run(&format!(
        "systemd-analyze --offline=true --threshold={EXPOSURE_MAX} security /etc/systemd/system/pop3svc.service"
    ));
    // The service has used no system call that the unit forbids.
    type_as_root(&machine, "pop3svc deliver user@example.com <message.eml || :; winpop set logging 3");
    assert!(!journal(&machine, "--unit=pop3svc").contains("Operation not permitted"));
}

#[test]
fn the_journal_tells_who_did_what_with_and_without_the_service() {
    let Some(machine) = installed() else { return };
    machine.run(
        "winpop set logging 3
        winpop add eve@example.com /createuser s3cret
        winpop add eve@example.com /createuser s3cret || :
        winpop list
        python3 -c '
import smtplib
lmtp = smtplib.LMTP(\"127.0.0.1\", 24)
text = \"\"\"Received: from a.example.org (id of nobody) by mail.example.org (Postfix) with ESMTP id 4XyZ12abcD;
 Mon, 1 Jan 2024 00:00:00 +0000
Message-ID: <1@example.org>
Subject: x

y
\"\"\"
refused = lmtp.sendmail(\"ann@example.org\", [\"eve@example.com\", \"nobody@example.com\"], text)
assert list(refused) == [\"nobody@example.com\"]'
        systemctl stop pop3svc
        winpop changepwd eve@example.com t0psecret
        pop3svc deliver -f ann@example.org eve@example.com </root/message.eml",
    );
    let of_service = journal(&machine, "--unit=pop3svc");
    let of_commands = journal(&machine, "--identifier=pop3svc --facility=mail");
    let has = |log: &str, parts: [&str; 2]| {
        let line = |line: &str| line.starts_with(parts[0]) && line.ends_with(parts[1]);
        assert!(log.lines().any(line), "{parts:?} in {log}");
    };
    has(&of_service, ["winpop add eve@example.com /createuser ***, by user 0, process ", ": done"]);
    let refused = ": refused: the mailbox eve@example.com already exists";
    has(&of_service, ["winpop add eve@example.com /createuser ***, by user 0, process ", refused]);
    has(
        &of_service,
        ["session ", ": recipient <nobody@example.com> refused: no such mailbox, from 127.0.0.1"],
    );
    has(&of_service, ["session ", ", Message-ID <1@example.org>, queue id 4XyZ12abcD"]);
    has(&of_commands, ["winpop changepwd eve@example.com ***, by user 0, process ", ": done"]);
    let is_stored = |line: &str| {
        line.starts_with("message ")
            && line.contains(" to <eve@example.com>: stored; from <ann@example.org>, ")
    };
    assert!(of_commands.lines().any(is_stored), "{of_commands}");
    assert!(!of_service.contains("winpop list") && !(of_service + &of_commands).contains("ecret"));
}

#[test]
fn a_new_key_is_the_services_whoever_makes_it() {
    let Some(machine) = installed() else { return };
    machine.run("winpop add eve@example.com /createuser secret");
    // APOP needs the password itself, which the key unseals.
    let apop = "curl --silent --show-error --user eve@example.com:secret --login-options AUTH=+APOP pop3://127.0.0.1/";
    machine.run(apop);
    machine.run("pop3svc key --rotate");
    machine.run(apop);
    machine.run("systemctl stop pop3svc; pop3svc key --rotate; systemctl start pop3svc");
    machine.run(apop);
    machine.run("systemctl restart pop3svc; pop3svc key --rotate");
    machine.run(apop);
    assert_eq!(machine.run("stat --format='%U:%G %a' /var/lib/winpop/winpop.key"), "winpop:winpop 600\n");
}

#[test]
fn systemd_waits_as_long_as_sessions_may_take_to_end() {
    let Some(machine) = installed() else { return };
    machine.write("/etc/systemd/system/pop3svc.service.d/stop.conf", "[Service]\nTimeoutStopSec=1\n");
    machine.run(
        "systemctl daemon-reload
        winpop set shutdowngrace 2
        python3 -c '
import socket, subprocess
session = socket.create_connection((\"127.0.0.1\", 110))
assert session.recv(100).startswith(b\"+OK\")
subprocess.run([\"systemctl\", \"stop\", \"pop3svc\"], check=True)'",
    );
    assert_eq!(machine.run("systemctl show --value --property=Result pop3svc"), "success\n");
    assert!(journal(&machine, "--unit=pop3svc").contains("\nended\n"));
}
