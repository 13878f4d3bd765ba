//! Replies and refusals as they are printed: text that reads well at 80 columns, or JSON.
//!
//! In tables the numbers stand first and the name last, so that a long name disturbs no column and the last
//! word of a line is always the name.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::reply::{
    Changed, Checked, Delivered, DomainLine, KeyState, Locked, Lost, MailboxLine, Outcome, QuotaLine,
    Refusal, Reply, Server, SettingLine,
};
use crate::units::{Octets, Seconds};

/// The reply as lines of text.
pub fn text(reply: &Reply) -> String {
    match reply {
        Reply::Changed(changed) => changed_text(changed),
        Reply::Domains { domains } => domain_table(domains),
        Reply::Mailboxes { domain, mailboxes } => mailbox_table(domain, mailboxes),
        Reply::Server { statistics, domains } => server_text(statistics, domains),
        Reply::Domain { statistics, mailboxes } => domain_text(statistics, mailboxes),
        Reply::Settings { settings } => settings_text(settings),
        Reply::BackedUp(backup) => {
            format!("{}: {} messages, {}\n", backup.file, backup.messages, Octets(backup.file_octets))
        }
        Reply::Checked(checked) => checked_text(checked),
        Reply::Key(state) => key_text(state),
        Reply::Delivered { recipients } => delivered_text(recipients),
    }
}

/// The reply as one line of JSON.
pub fn json(reply: &Reply) -> String {
    #[derive(Serialize)]
    struct Done<'a> {
        ok: bool,
        #[serde(flatten)]
        reply: &'a Reply,
    }
    line(&Done { ok: true, reply })
}

/// The refusal as one line of JSON.
pub fn refusal_json(refusal: &Refusal) -> String {
    #[derive(Serialize)]
    struct Refused<'a> {
        ok: bool,
        error: &'a Refusal,
    }
    line(&Refused { ok: false, error: refusal })
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("replies are made of texts and numbers") + "\n"
}

fn changed_text(changed: &Changed) -> String {
    let mut text = format!("{}\n", changed.message);
    for note in &changed.notes {
        let _ = writeln!(text, "Note: {note}");
    }
    text
}

fn key_text(state: &KeyState) -> String {
    let mut text = format!(
        "Key file   {}\nKey        {}\nSealed     {} passwords, {} not\n",
        state.file,
        state.id.as_deref().unwrap_or("none"),
        state.sealed,
        state.unsealed
    );
    for told in state.trouble.iter().chain([&state.advice]) {
        let _ = writeln!(text, "Note: {told}");
    }
    text
}

fn checked_text(checked: &Checked) -> String {
    let mut text = format!(
        "{} domains, {} mailboxes, {} messages, {} texts of {}\n",
        checked.domains,
        checked.mailboxes,
        checked.messages,
        checked.texts,
        Octets(checked.text_octets)
    );
    for repaired in &checked.repaired {
        let _ = writeln!(text, "Repaired: {repaired}");
    }
    for lost in &checked.lost {
        let _ = writeln!(text, "Lost: {}", lost_text(lost));
    }
    for finding in &checked.findings {
        let _ = writeln!(text, "Found: {finding}");
    }
    match checked.findings_total {
        0 => text.push_str("Everything is as it should be\n"),
        found => {
            let _ = writeln!(text, "{found} findings");
        }
    }
    text
}

fn lost_text(lost: &Lost) -> String {
    let mut text = format!("message {} of {}", lost.sequence, lost.mailbox);
    let received = lost.received.and_then(|received| i64::try_from(received).ok());
    let received = received.and_then(|received| OffsetDateTime::from_unix_timestamp(received).ok());
    if let (Some(received), Some(octets)) = (received.and_then(|at| at.format(&Rfc3339).ok()), lost.octets) {
        let _ = write!(text, ", received {received}, {}", Octets(octets));
    }
    text
}

/// Only what did not go well: a program that hands mail over expects silence otherwise.
fn delivered_text(recipients: &[Delivered]) -> String {
    let mut text = String::new();
    for Delivered { recipient, outcome } in recipients {
        let told = match outcome {
            Outcome::Stored => continue,
            Outcome::NoSuchMailbox => "there is no such mailbox here",
            Outcome::OverQuota => "the mailbox is over its quota",
            Outcome::Loop => "the message has been here before: it is in a loop",
            Outcome::DiskFull => "there is no room on the disk now",
            Outcome::Withheld => "not delivered, because another recipient cannot take it",
        };
        let _ = writeln!(text, "{recipient}: {told}");
    }
    text
}

fn domain_table(domains: &[DomainLine]) -> String {
    if domains.is_empty() {
        return "There are no domains\n".to_owned();
    }
    let rows = domains.iter().map(|line| {
        [
            line.mailboxes.to_string(),
            line.messages.to_string(),
            Octets(line.octets).to_string(),
            domain_status(line).to_owned(),
            line.domain.clone(),
        ]
    });
    table(["Mailboxes", "Messages", "Size", "Status", "Domain"], 3, rows)
}

fn mailbox_table(domain: &str, mailboxes: &[MailboxLine]) -> String {
    if mailboxes.is_empty() {
        return format!("There are no mailboxes in {domain}\n");
    }
    let rows = mailboxes.iter().map(|line| {
        let status = match line.lock {
            Locked::None => "open",
            Locked::Mailbox => "locked",
            Locked::Domain => "domain locked",
        };
        [line.messages.to_string(), Octets(line.octets).to_string(), status.to_owned(), line.mailbox.clone()]
    });
    let mailboxes_table = table(["Messages", "Size", "Status", "Mailbox"], 2, rows);
    match quota_table(mailboxes) {
        Some(quotas) => format!("{mailboxes_table}\n{quotas}"),
        None => mailboxes_table,
    }
}

/// The accounts that mailboxes of the list count against, each once, in the order of their names.
fn quota_table(mailboxes: &[MailboxLine]) -> Option<String> {
    let quotas: BTreeMap<&str, &QuotaLine> = mailboxes
        .iter()
        .filter_map(|line| line.quota.as_ref())
        .map(|quota| (quota.account.as_str(), quota))
        .collect();
    let rows = quotas.values().map(|quota| {
        let limit = quota.limit.map_or("none".to_owned(), |limit| Octets(limit).to_string());
        let used_up = quota.limit.is_some_and(|limit| quota.used >= limit);
        let status = if used_up { "used up" } else { "" };
        [Octets(quota.used).to_string(), limit, status.to_owned(), quota.account.clone()]
    });
    (!quotas.is_empty()).then(|| table(["Used", "Limit", "", "Quota of"], 2, rows))
}

fn domain_status(line: &DomainLine) -> &'static str {
    if line.locked { "locked" } else { "open" }
}

fn server_text(server: &Server, domains: &[DomainLine]) -> String {
    let mut text = format!(
        "Domains    {}\nMailboxes  {}\nMessages   {}\nMail       {}\nDisk       {}\n\
         Clients    {} open, {} waiting, {} refused\n",
        server.domains,
        server.mailboxes,
        server.messages,
        Octets(server.octets),
        Octets(server.allocated_octets),
        server.connections.open,
        server.connections.waiting,
        server.connections.refused,
    );
    if let Some(seconds) = server.connections.last_login_failure {
        let _ = writeln!(
            text,
            "Refused    {} logins, the last one {} ago",
            server.connections.login_failures,
            Seconds(seconds)
        );
    }
    if server.connections.wrong_recipients > 0 {
        let _ = writeln!(text, "Unknown    {} recipients", server.connections.wrong_recipients);
    }
    if let Some(certificate) = &server.certificate {
        let made = if certificate.self_signed { ", self-signed" } else { "" };
        let (first, second) = certificate.fingerprint.split_at(certificate.fingerprint.len() / 2);
        let _ = writeln!(text, "TLS        {}{made}", certificate.names.join(", "));
        let _ = writeln!(
            text,
            "           SHA-256 {first}\n                   {}",
            second.trim_start_matches(':')
        );
    }
    text + "\n" + &domain_table(domains)
}

fn domain_text(domain: &DomainLine, mailboxes: &[MailboxLine]) -> String {
    format!(
        "Domain     {}\nStatus     {}\nMailboxes  {}\nMessages   {}\nMail       {}\n\n{}",
        domain.domain,
        domain_status(domain),
        domain.mailboxes,
        domain.messages,
        Octets(domain.octets),
        mailbox_table(&domain.domain, mailboxes)
    )
}

/// One setting is shown by its value alone, for scripts.
fn settings_text(settings: &[SettingLine]) -> String {
    if let [line] = settings {
        return match &line.meaning {
            Some(meaning) => format!("{} ({meaning})\n", line.value),
            None => format!("{}\n", line.value),
        };
    }
    let rows = settings.iter().map(|line| {
        let default = (!line.is_default).then(|| format!("default: {}", line.default));
        let remarks: Vec<&str> = line.meaning.iter().chain(&default).map(String::as_str).collect();
        [line.setting.clone(), line.value.clone(), remarks.join("; ")]
    });
    table(["Setting", "Value", ""], 0, rows)
}

/// Columns as wide as they must be, two spaces apart; the first `numbers` of them to the right.
fn table<const N: usize>(head: [&str; N], numbers: usize, rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let _ = match column < numbers {
                true => write!(line, "{gap}{cell:>width$}"),
                false => write!(line, "{gap}{cell:<width$}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::reply::{CertificateLine, Code, Connections, Removed};
    use super::*;

    fn domain(name: &str, mailboxes: u64, messages: u64, octets: u64, locked: bool) -> DomainLine {
        DomainLine { domain: name.to_owned(), locked, mailboxes, messages, octets }
    }

    fn mailbox(name: &str, messages: u64, octets: u64, lock: Locked) -> MailboxLine {
        MailboxLine { mailbox: name.to_owned(), lock, messages, octets, quota: None }
    }

    #[test]
    fn domains_are_listed_with_their_names_last() {
        let domains =
            vec![domain("example.com", 2, 5, 12_345, false), domain("example.org", 10_000, 0, 0, true)];
        assert_eq!(
            text(&Reply::Domains { domains }),
            "\
Mailboxes  Messages       Size  Status  Domain
        2         5  12.06 KiB  open    example.com
    10000         0        0 B  locked  example.org
"
        );
        assert_eq!(text(&Reply::Domains { domains: vec![] }), "There are no domains\n");
    }

    #[test]
    fn the_statistics_of_a_domain_end_with_its_mailboxes() {
        let reply = Reply::Domain {
            statistics: domain("example.com", 3, 5, 12_345, true),
            mailboxes: vec![
                mailbox("ann@example.com", 5, 12_345, Locked::Domain),
                mailbox("bob@example.com", 0, 0, Locked::Mailbox),
                mailbox("cid@example.com", 0, 0, Locked::None),
            ],
        };
        assert_eq!(
            text(&reply),
            "\
Domain     example.com
Status     locked
Mailboxes  3
Messages   5
Mail       12.06 KiB

Messages       Size  Status         Mailbox
       5  12.06 KiB  domain locked  ann@example.com
       0        0 B  locked         bob@example.com
       0        0 B  open           cid@example.com
"
        );
    }

    #[test]
    fn quotas_stand_below_the_mailboxes_each_account_once() {
        let quota = |used, limit| Some(QuotaLine { account: "ann@example.com".to_owned(), used, limit });
        let with = |mailbox: MailboxLine, quota| MailboxLine { quota, ..mailbox };
        let mailboxes = vec![
            with(mailbox("ann@example.com", 1, 2048, Locked::None), quota(3072, Some(3072))),
            with(mailbox("bob@example.com", 1, 1024, Locked::None), quota(3072, Some(3072))),
        ];
        let reply = Reply::Mailboxes { domain: "example.com".to_owned(), mailboxes };
        assert_eq!(
            text(&reply),
            "\
Messages   Size  Status  Mailbox
       1  2 KiB  open    ann@example.com
       1  1 KiB  open    bob@example.com

 Used  Limit           Quota of
3 KiB  3 KiB  used up  ann@example.com
"
        );
        assert!(json(&reply).contains(
            "\"octets\":2048,\"quota\":{\"account\":\"ann@example.com\",\"used\":3072,\"limit\":3072}}"
        ));
    }

    #[test]
    fn the_statistics_of_the_server_end_with_its_domains() {
        let statistics = Server {
            domains: 1,
            mailboxes: 2,
            messages: 5,
            octets: 12_345,
            file_octets: 8 << 20,
            allocated_octets: 1 << 20,
            connections: Connections {
                open: 3,
                waiting: 0,
                refused: 1,
                login_failures: 2,
                last_login_failure: Some(60),
                wrong_recipients: 7,
            },
            certificate: Some(CertificateLine {
                names: vec!["mail.example.com".to_owned(), "localhost".to_owned()],
                fingerprint: ["AB"; 32].join(":"),
                self_signed: true,
            }),
        };
        let reply = Reply::Server { statistics, domains: vec![domain("example.com", 2, 5, 12_345, false)] };
        assert_eq!(
            text(&reply),
            "\
Domains    1
Mailboxes  2
Messages   5
Mail       12.06 KiB
Disk       1 MiB
Clients    3 open, 0 waiting, 1 refused
Refused    2 logins, the last one 60 s ago
Unknown    7 recipients
TLS        mail.example.com, localhost, self-signed
           SHA-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB
                   AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB

Mailboxes  Messages       Size  Status  Domain
        2         5  12.06 KiB  open    example.com
"
        );
        assert_eq!(
            json(&reply).replace(&["AB"; 32].join(":"), "AB:…"),
            "{\"ok\":true,\"statistics\":{\"domains\":1,\"mailboxes\":2,\"messages\":5,\"octets\":12345,\
             \"file_octets\":8388608,\"allocated_octets\":1048576,\"connections\":{\"open\":3,\"waiting\":0,\
             \"refused\":1,\"login_failures\":2,\"last_login_failure\":60,\"wrong_recipients\":7},\"certificate\":{\"names\":[\"mail.example.com\",\"localhost\"],\
             \"fingerprint\":\"AB:…\",\"self_signed\":true}},\"domains\":[{\"domain\":\"example.com\",\
             \"locked\":false,\"mailboxes\":2,\"messages\":5,\"octets\":12345}]}\n"
        );
    }

    #[test]
    fn one_setting_is_its_value_and_several_are_a_table() {
        let port = SettingLine {
            setting: "port".to_owned(),
            value: "1110".to_owned(),
            meaning: None,
            default: "110".to_owned(),
            is_default: false,
            takes_effect: "at once".to_owned(),
        };
        let logging = SettingLine {
            setting: "logging".to_owned(),
            value: "2".to_owned(),
            meaning: Some("critical events and warnings".to_owned()),
            default: "2".to_owned(),
            is_default: true,
            takes_effect: "at once".to_owned(),
        };
        assert_eq!(text(&Reply::Settings { settings: vec![port.clone()] }), "1110\n");
        assert_eq!(
            text(&Reply::Settings { settings: vec![logging.clone()] }),
            "2 (critical events and warnings)\n"
        );
        assert_eq!(
            text(&Reply::Settings { settings: vec![port, logging] }),
            "\
Setting  Value
port     1110   default: 110
logging  2      critical events and warnings
"
        );
    }

    #[test]
    fn ten_thousand_mailboxes_read_well_at_80_columns() {
        let mailboxes: Vec<_> = (0..10_000u64)
            .map(|i| mailbox(&format!("user-number-{i}@mail.example.com"), i * i, i << 30, Locked::Domain))
            .collect();
        let table = text(&Reply::Mailboxes { domain: "mail.example.com".to_owned(), mailboxes });
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
        assert_eq!(text(&Reply::Changed(changed)), "Domain example.com deleted\nNote: a note\n");
        let refusal = Refusal::new(Code::NotFound, "there is no \"x\"").with_hint("Add it");
        assert_eq!(
            refusal_json(&refusal),
            "{\"ok\":false,\"error\":{\"code\":\"not-found\",\"message\":\"there is no \\\"x\\\"\",\
             \"hint\":\"Add it\"}}\n"
        );
        assert_eq!(refusal.to_string(), "there is no \"x\". Add it");
    }
}
