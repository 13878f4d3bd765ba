//! How replies read.

use super::*;
use crate::admin::reply::{CertificateLine, Code, SettingValue};

fn domain(name: &str, mailboxes: u64, messages: u64, octets: u64, locked: bool) -> DomainLine {
    DomainLine {
        domain: name.to_owned(),
        unicode: None,
        lock: Lock(locked.then_some(LockedBy::Domain)),
        mailboxes,
        messages,
        octets,
    }
}

fn mailbox(name: &str, messages: u64, octets: u64, lock: Option<LockedBy>) -> MailboxLine {
    MailboxLine {
        mailbox: name.to_owned(),
        unicode: None,
        lock: Lock(lock),
        messages,
        octets,
        last_login_unix_seconds: None,
        quota: None,
        has_password: true,
        is_whole: true,
        account: MailboxAccount::Here,
    }
}

#[test]
fn domains_are_listed_with_their_names_last() {
    let domains = vec![domain("example.com", 2, 5, 12_345, false), domain("example.org", 10_000, 0, 0, true)];
    assert_eq!(
        text(&Reply::Domains { domains }, Paint::Plain),
        "\
Mailboxes  Messages       Size  Status  Domain
        2         5  12.06 KiB  open    example.com
    10000         0        0 B  locked  example.org
"
    );
    assert_eq!(text(&Reply::Domains { domains: vec![] }, Paint::Plain), "There are no domains\n");
}

#[test]
fn the_statistics_of_a_domain_end_with_its_totals() {
    let reply = Reply::Domain {
        statistics: domain("example.com", 3, 5, 12_345, true),
        mailboxes: vec![
            mailbox("ann@example.com", 5, 12_345, Some(LockedBy::Domain)),
            mailbox("bob@example.com", 0, 0, Some(LockedBy::Mailbox)),
            mailbox("cid@example.com", 0, 0, None),
        ],
        accounts_error: None,
    };
    assert_eq!(
        text(&reply, Paint::Plain),
        "\
Domain     example.com
Status     locked

Messages       Size  Status         Mailbox
       5  12.06 KiB  domain locked  ann@example.com
       0        0 B  locked         bob@example.com
       0        0 B  open           cid@example.com

Mailboxes  3
Messages   5
Mail       12.06 KiB
"
    );
}

#[test]
fn quotas_follow_the_mailboxes_each_account_once() {
    let quota = |used, limit| {
        Some(QuotaLine { account: "ann@example.com".to_owned(), used_octets: used, limit_octets: limit })
    };
    let with = |mailbox: MailboxLine, quota| MailboxLine { quota, ..mailbox };
    let mailboxes = vec![
        with(mailbox("ann@example.com", 1, 2048, None), quota(3072, Some(3072))),
        MailboxLine {
            last_login_unix_seconds: Some(1_800_000_000),
            ..with(mailbox("bob@example.com", 1, 1024, None), quota(3072, Some(3072)))
        },
    ];
    let reply = Reply::Mailboxes { domain: "example.com".to_owned(), mailboxes, accounts_error: None };
    assert_eq!(
        text(&reply, Paint::Plain),
        "\
Messages   Size  Status  Last login  Mailbox
       1  2 KiB  open                ann@example.com
       1  1 KiB  open    2027-01-15  bob@example.com

 Used  Limit           Quota of
3 KiB  3 KiB  used up  ann@example.com
"
    );
    assert!(json(&reply).contains(
        "\"octets\":2048,\"last_login_unix_seconds\":null,\"quota\":{\"account\":\"ann@example.com\",\"used_octets\":3072,\"limit_octets\":3072},\"has_password\":true,\"is_whole\":true,\"account_state\":\"here\",\"account\":null}"
    ));
}

#[test]
fn the_statistics_of_the_server_begin_with_the_service_and_end_with_the_totals() {
    let statistics = Server {
        service: ServiceState {
            running: true,
            pid: Some(123),
            version: Some("0.1.0".to_owned()),
            since_unix_seconds: Some(1_800_000_000),
        },
        authentication: "Active Directory".to_owned(),
        domains: 1,
        mailboxes: 2,
        messages: 5,
        octets: 12_345,
        deleted: Removed { mailboxes: 1, messages: 3, octets: 2048 },
        file_octets: 8 << 20,
        allocated_octets: 1 << 20,
        copy_good_below_seconds: Some(45),
        copy_kept_octets: 3 << 20,
        connections: Some(Connections {
            open: 3,
            waiting: 0,
            refused: 1,
            login_failures: 2,
            last_login_failure_seconds_ago: Some(60),
            wrong_recipients: 7,
        }),
        certificate: Some(CertificateLine {
            names: vec!["mail.example.com".to_owned(), "localhost".to_owned()],
            fingerprint: ["AB"; 32].join(":"),
            self_signed: true,
        }),
        adoption: None,
        directory: Some(DirectoryLine {
            method: "Active Directory".to_owned(),
            last_contact_unix_seconds: Some(1_800_000_060),
            last_contact: Some("dc1.example.com".to_owned()),
            last_error_unix_seconds: Some(1_800_000_000),
            last_error: Some("dc2.example.com: Connection refused".to_owned()),
        }),
    };
    let stopped = Server {
        service: ServiceState::default(),
        authentication: "encrypted password file".to_owned(),
        connections: None,
        directory: None,
        copy_good_below_seconds: None,
        ..statistics.clone()
    };
    let without_window = Server { copy_good_below_seconds: Some(0), ..statistics.clone() };
    let domains = vec![domain("example.com", 2, 5, 12_345, false)];
    let reply = Reply::Server { statistics: Box::new(statistics), domains: domains.clone() };
    assert_eq!(
        text(&reply, Paint::Plain),
        "\
Service    running since 2027-01-15T08:00:00Z, pid 123, version 0.1.0
Clients    3 open, 0 waiting, 1 refused
Refused    2 logins, the last one 60 s ago
Unknown    7 recipients
TLS        mail.example.com, localhost, self-signed
           SHA-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB
                   AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB
Accounts   Active Directory, last answered by dc1.example.com at 2027-01-15T08:01:00Z
           last failed at 2027-01-15T08:00:00Z: dc2.example.com: Connection refused
Disk       1 MiB
Deleted    3 messages (2 KiB) and 1 mailbox can be restored
Copies     usable if made in less than 45 s; 3 MiB kept for them

Mailboxes  Messages       Size  Status  Domain
        2         5  12.06 KiB  open    example.com

Domains    1
Mailboxes  2
Messages   5
Mail       12.06 KiB
"
    );
    let reply = Reply::Server { statistics: Box::new(without_window), domains: domains.clone() };
    assert!(text(&reply, Paint::Plain).contains("\nCopies     may be unusable for now: "));
    let reply = Reply::Server { statistics: Box::new(stopped), domains };
    assert!(text(&reply, Paint::Plain).starts_with("Service    stopped\nTLS "));
    assert!(text(&reply, Paint::Plain).contains("\nAccounts   encrypted password file\nDisk "));
    assert!(text(&reply, Paint::Colours).starts_with("Service    \x1b[31mstopped\x1b[0m\n"));
}

#[test]
fn one_setting_is_its_value_and_several_are_a_table() {
    let port = SettingLine {
        setting: "port".to_owned(),
        value: SettingValue::Number(1110),
        unit: None,
        meaning: None,
        default: SettingValue::Number(110),
        is_default: false,
        takes_effect: "at once".to_owned(),
    };
    let logging = SettingLine {
        setting: "logging".to_owned(),
        value: SettingValue::Number(2),
        unit: None,
        meaning: Some("critical events and warnings".to_owned()),
        default: SettingValue::Number(2),
        is_default: true,
        takes_effect: "at once".to_owned(),
    };
    assert_eq!(text(&Reply::Settings { settings: vec![port.clone()] }, Paint::Plain), "1110\n");
    assert_eq!(
        text(&Reply::Settings { settings: vec![logging.clone()] }, Paint::Plain),
        "2 (critical events and warnings)\n"
    );
    assert_eq!(
        text(&Reply::Settings { settings: vec![port, logging] }, Paint::Plain),
        "\
Setting  Value
port     1110   default: 110
logging  2      critical events and warnings
"
    );
}

#[test]
fn the_account_of_a_mailbox_is_shown_or_why_it_is_not_known() {
    let listed = |accounts: &[MailboxAccount], accounts_error: Option<&str>| {
        let line = |(account, name): (&MailboxAccount, &str)| MailboxLine {
            account: account.clone(),
            ..mailbox(name, 0, 0, None)
        };
        let mailboxes = accounts.iter().zip(["ann@example.com", "bob@example.com"]).map(line).collect();
        Reply::AllMailboxes { mailboxes, accounts_error: accounts_error.map(str::to_owned) }
    };
    let reply = listed(&[MailboxAccount::Found("ann1".to_owned()), MailboxAccount::None], None);
    assert_eq!(
        text(&reply, Paint::Plain),
        "\
Messages  Size  Status  Account  Mailbox
       0   0 B  open    ann1     ann@example.com
       0   0 B  open    none     bob@example.com
"
    );
    assert!(json(&reply).contains("\"account_state\":\"found\",\"account\":\"ann1\"}"));
    assert!(json(&reply).contains("\"account_state\":\"none\",\"account\":null}"));
    // Not one has an account, which is not the same as not knowing.
    assert_eq!(
        text(&listed(&[MailboxAccount::None], None), Paint::Plain),
        "\
Messages  Size  Status  Account  Mailbox
       0   0 B  open    none     ann@example.com
"
    );
    let reply = listed(&[MailboxAccount::Unknown], Some("it is down"));
    assert_eq!(
        text(&reply, Paint::Plain),
        "\
Messages  Size  Status  Mailbox
       0   0 B  open    ann@example.com
Note: accounts are not shown: it is down
"
    );
    assert!(json(&reply).contains("\"account_state\":\"unknown\",\"account\":null}"));
}

#[test]
fn ten_thousand_mailboxes_read_well_at_80_columns() {
    let mailboxes: Vec<_> = (0..10_000u64)
        .map(|i| {
            mailbox(&format!("user-number-{i}@mail.example.com"), i * i, i << 30, Some(LockedBy::Domain))
        })
        .collect();
    let reply = Reply::Mailboxes { domain: "mail.example.com".to_owned(), mailboxes, accounts_error: None };
    let table = text(&reply, Paint::Plain);
    assert_eq!(table.lines().count(), 10_001);
    assert!(table.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn changes_and_refusals_have_a_stable_json() {
    let changed = Changed {
        action: "delete".to_owned(),
        name: "example.com".to_owned(),
        message: "Domain example.com deleted".to_owned(),
        removed: Some(Removed { mailboxes: 2, messages: 5, octets: 12_345 }),
        notes: vec!["a note".to_owned()],
    };
    assert_eq!(
        json(&Reply::Changed(changed.clone())),
        "{\"ok\":true,\"action\":\"delete\",\"name\":\"example.com\",\
         \"message\":\"Domain example.com deleted\",\
         \"removed\":{\"mailboxes\":2,\"messages\":5,\"octets\":12345},\"notes\":[\"a note\"]}\n"
    );
    assert_eq!(text(&Reply::Changed(changed), Paint::Plain), "Domain example.com deleted\nNote: a note\n");
    let refusal = Refusal::new(Code::NotFound, "there is no \"x\"").with_hint("Add it");
    assert_eq!(
        refusal_json(&refusal),
        "{\"ok\":false,\"error\":{\"code\":\"not-found\",\"message\":\"there is no \\\"x\\\"\",\
         \"hint\":\"Add it\"}}\n"
    );
    assert_eq!(refusal.to_string(), "there is no \"x\". Add it");
}

/// A check that found nothing wrong.
fn clean() -> Checked {
    Checked {
        domains: 1,
        mailboxes: 1,
        messages: 0,
        texts: 0,
        text_octets: 0,
        findings: vec![],
        findings_total: 0,
        repaired: vec![],
        repaired_total: 0,
        lost: vec![],
    }
}

#[test]
fn every_lost_message_is_named() {
    let lost = |received, octets| Lost {
        mailbox: "ann@example.com".into(),
        sequence: 3,
        received_unix_seconds: received,
        octets,
    };
    let lost = vec![lost(Some(1_800_000_000), Some(1234)), lost(None, None)];
    let checked = Reply::Checked(Checked { lost, ..clean() });
    let shown = text(&checked, Paint::Plain);
    assert!(shown.contains("Lost: message 3 of ann@example.com, received 2027-01-15T08:00:00Z, "), "{shown}");
    assert!(shown.contains("Lost: message 3 of ann@example.com\n"), "{shown}");
    assert!(shown.ends_with("No problems found\n"), "{shown}");
    let json = json(&checked);
    assert!(json.contains(
        r#""lost":[{"mailbox":"ann@example.com","sequence":3,"received_unix_seconds":1800000000,"octets":1234},{"#
    ));
}

#[test]
fn findings_are_shown_and_counted() {
    let checked = Reply::Checked(Checked {
        findings: vec!["text 0 has changed since it was stored".into()],
        findings_total: 1,
        repaired: vec!["text 1 was dropped".into()],
        repaired_total: 1,
        ..clean()
    });
    let shown = text(&checked, Paint::Plain);
    assert!(shown.contains("\nRepaired: text 1 was dropped\n"), "{shown}");
    assert!(shown.ends_with("\nFound: text 0 has changed since it was stored\n1 finding\n"), "{shown}");
}
