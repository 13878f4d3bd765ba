//! Prints replies and refusals as text for 80 columns, or as JSON.
//!
//! Tables have numbers first and the name last, so that a long name disturbs no column and scripts find the name as the
//! last word of a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::table::{Paint, table};
use crate::admin::reply::{
    AddOutcome, Added, AdoptionLine, Changed, Checked, Connections, Delivered, DirectoryLine, DomainLine,
    ExportSummary, ImportSummary, KeyState, Lock, LockedBy, Lost, MailboxAccount, MailboxLine, Outcome,
    QuotaLine, Refusal, Removed, Reply, Server, ServiceState, SettingLine, SkippedFile, Tested, TestedStep,
    Verified, VerifiedMailbox,
};
use crate::units::{Octets, Seconds};

/// The reply as lines of text.
pub fn text(reply: &Reply, paint: Paint) -> String {
    match reply {
        Reply::Changed(changed) => changed_text(changed, paint),
        Reply::Domains { domains } => domain_table(domains, paint),
        Reply::Mailboxes { domain, mailboxes, accounts_error } => {
            mailbox_table(mailboxes, accounts_error.as_deref(), paint)
                .unwrap_or_else(|| format!("There are no mailboxes in {domain}\n"))
        }
        Reply::AllMailboxes { mailboxes, accounts_error } => {
            mailbox_table(mailboxes, accounts_error.as_deref(), paint)
                .unwrap_or_else(|| "There are no mailboxes\n".to_owned())
        }
        Reply::Server { statistics, domains } => server_text(statistics, domains, paint),
        Reply::Domain { statistics, mailboxes, accounts_error } => {
            domain_text(statistics, mailboxes, accounts_error.as_deref(), paint)
        }
        Reply::Health { service } => format!("healthy: {}\n", service_text(service)),
        Reply::Greeted { address, greeting } => format!("healthy: {address} answers {greeting}\n"),
        Reply::Settings { settings } => settings_text(settings),
        Reply::BackedUp(backup) => {
            let messages = count(backup.messages, "message", "messages");
            format!("{}: {messages}, {}\n", backup.file, Octets(backup.file_octets))
        }
        Reply::Compacted(compacted) => format!(
            "{} on disk, was {}; file length {}, was {}; {} moved\n",
            Octets(compacted.allocated_octets),
            Octets(compacted.allocated_octets_before),
            Octets(compacted.file_octets),
            Octets(compacted.file_octets_before),
            Octets(compacted.moved_octets)
        ),
        Reply::Checked(checked) => checked_text(checked, paint),
        Reply::Key(state) => key_text(state, paint),
        Reply::Tested(tested) => tested_text(tested),
        Reply::Delivered { recipients } => delivered_text(recipients),
        Reply::Exported(summary) => exported_text(summary, paint),
        Reply::Verified(verified) => verified_text(verified, paint),
        Reply::ImportBegun { .. } => String::new(),
        Reply::Imported(summary) => imported_text(summary, paint),
        Reply::AddedMany { entries } => added_text(entries, paint),
        Reply::Yours { command } => format!("{command}: not done, because it needs root\n"),
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

fn changed_text(changed: &Changed, paint: Paint) -> String {
    let notes = changed.notes.iter().map(|said| note(said, paint));
    format!("{}\n", changed.message) + &notes.collect::<String>()
}

fn note(said: &str, paint: Paint) -> String {
    format!("{} {said}\n", paint.word("Note:"))
}

fn key_text(state: &KeyState, paint: Paint) -> String {
    let notes = state.trouble.iter().chain([&state.advice]).map(|said| note(said, paint));
    let text = format!(
        "Key file   {}\nKey        {}\nPasswords  {} sealed, {} not\n",
        state.file,
        state.id.as_deref().unwrap_or("none"),
        state.sealed,
        state.unsealed
    );
    text + &notes.collect::<String>()
}

fn tested_text(tested: &Tested) -> String {
    let mut text = format!("Authentication  {}\n", tested.authentication);
    for TestedStep { step, passed, finding } in &tested.steps {
        let _ = writeln!(text, "{:<4}  {step:<8}  {finding}", if *passed { "ok" } else { "FAIL" });
    }
    let verdict = if tested.can_log_in { "can log in" } else { "cannot log in" };
    let _ = writeln!(text, "{} {verdict}", tested.mailbox);
    text
}

fn checked_text(checked: &Checked, paint: Paint) -> String {
    let mut text = format!(
        "{}, {}, {}, {}, {} in total\n",
        count(checked.domains, "domain", "domains"),
        count(checked.mailboxes, "mailbox", "mailboxes"),
        count(checked.messages, "message", "messages"),
        count(checked.texts, "text", "texts"),
        Octets(checked.text_octets)
    );
    for repaired in &checked.repaired {
        let _ = writeln!(text, "Repaired: {repaired}");
    }
    for lost in &checked.lost {
        let _ = writeln!(text, "{} {}", paint.word("Lost:"), lost_text(lost));
    }
    for finding in &checked.findings {
        let _ = writeln!(text, "{} {finding}", paint.word("Found:"));
    }
    match checked.findings_total {
        0 => text.push_str("No problems found\n"),
        found => {
            let _ = writeln!(text, "{}", count(found, "finding", "findings"));
        }
    }
    text
}

fn lost_text(lost: &Lost) -> String {
    let mut text = format!("message {} of {}", lost.sequence, lost.mailbox);
    if let (Some(received), Some(octets)) = (lost.received_unix_seconds.and_then(time_text), lost.octets) {
        let _ = write!(text, ", received {received}, {}", Octets(octets));
    }
    text
}

/// Unix time in RFC 3339 format.
fn time_text(unix_seconds: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_seconds).ok()?).ok()?;
    time.format(&Rfc3339).ok()
}

/// The UTC date of a Unix time.
fn day_text(unix_seconds: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_seconds).ok()?).ok()?;
    Some(time.date().to_string())
}

/// Failures only: a program that submits mail expects silence on success.
fn delivered_text(recipients: &[Delivered]) -> String {
    let mut text = String::new();
    for Delivered { recipient, outcome } in recipients {
        let told = match outcome {
            Outcome::Stored => continue,
            Outcome::NoSuchMailbox => "no such mailbox",
            Outcome::OverQuota => "the mailbox is over its quota",
            Outcome::Loop => "the message is in a mail loop",
            Outcome::DiskFull => "the disk is full",
            Outcome::Withheld => "not delivered, because another recipient cannot receive it",
        };
        let _ = writeln!(text, "{recipient}: {told}");
    }
    text
}

fn exported_text(summary: &ExportSummary, paint: Paint) -> String {
    let mut text = skipped_text(&summary.skipped, paint);
    let _ = writeln!(
        text,
        "{}, {} ({}) written",
        count(summary.mailboxes, "mailbox", "mailboxes"),
        count(summary.messages, "message", "messages"),
        Octets(summary.octets)
    );
    if summary.damaged > 0 {
        let damaged = count(summary.damaged, "message", "messages");
        let _ = writeln!(text, "{} {damaged} with damaged text; run pop3svc check", paint.word("Skipped:"));
    }
    text
}

fn skipped_text(skipped: &[SkippedFile], paint: Paint) -> String {
    let line =
        |SkippedFile { file, why }: &SkippedFile| format!("{} {file}: {why}\n", paint.word("Skipped:"));
    skipped.iter().map(line).collect()
}

/// A line per mailbox, and the total that should be 0.
fn verified_text(verified: &Verified, paint: Paint) -> String {
    let mut text = skipped_text(&verified.skipped, paint);
    if let Some(uidl) = &verified.uidl {
        let _ = writeln!(text, "Unique ids are formed as {uidl}");
    }
    let (mut again, mut missing) = (0, 0);
    for mailbox in &verified.mailboxes {
        let VerifiedMailbox { mailbox: address, before, here, known, new, sizes_differ, .. } = mailbox;
        again += mailbox.again;
        missing += mailbox.missing;
        let _ = write!(
            text,
            "{address}: {before} there, {here} here: {known} known, {} fetched again, {new} new, {} missing",
            mailbox.again, mailbox.missing
        );
        if *sizes_differ > 0 {
            let _ = write!(text, "; {sizes_differ} with a different size");
        }
        let _ = writeln!(text, "{}", if mailbox.in_order { "" } else { "; order differs" });
    }
    let _ = writeln!(
        text,
        "{}: mail programs that leave mail on the server will fetch {} again; {} missing",
        count(verified.mailboxes.len() as u64, "mailbox", "mailboxes"),
        count(again, "message", "messages"),
        count(missing, "message is", "messages are")
    );
    text
}

fn imported_text(summary: &ImportSummary, paint: Paint) -> String {
    let mut text = skipped_text(&summary.skipped, paint);
    if let Some(uidl) = &summary.uidl {
        let _ = writeln!(text, "Unique ids are formed as {uidl}");
    }
    let _ = writeln!(
        text,
        "{}, {} ({}) {}",
        count(summary.mailboxes, "mailbox", "mailboxes"),
        count(summary.messages, "message", "messages"),
        Octets(summary.octets),
        if summary.dry_run { "would be imported" } else { "imported" }
    );
    let _ = writeln!(
        text,
        "{} with the unique id that mail programs know, {} with a new one; {} already here; {} skipped",
        summary.ids_kept,
        summary.ids_new,
        summary.there_already,
        summary.skipped.len()
    );
    if summary.ids_new > 0 {
        let messages = count(summary.ids_new, "message", "messages");
        let said = format!("mail programs that leave mail on the server will fetch {messages} again");
        text += &note(&said, paint);
    }
    if summary.ids_long > 0 {
        let ids = count(summary.ids_long, "id is", "ids are");
        let said = format!(
            "{ids} longer than the 70 octets RFC 1939 allows, kept because mail programs know them that way"
        );
        text += &note(&said, paint);
    }
    if let Some(why) = &summary.stopped {
        let _ = writeln!(text, "{} {why}", paint.word("Ended early:"));
    }
    text
}

/// A line per entry, and the totals.
fn added_text(entries: &[Added], paint: Paint) -> String {
    let mut text = String::new();
    for Added { line, name, outcome, why } in entries {
        let why = why.as_deref().unwrap_or_default();
        let _ = match outcome {
            AddOutcome::Added => writeln!(text, "line {line}: {name} added"),
            AddOutcome::Exists => writeln!(text, "line {line}: {name} already exists"),
            AddOutcome::Refused => writeln!(text, "line {line}: {name} {}: {why}", paint.word("refused")),
            AddOutcome::NotDone => writeln!(text, "line {line}: {name} {}: {why}", paint.word("not done")),
        };
    }
    let counted = |wanted| entries.iter().filter(|entry| entry.outcome == wanted).count();
    let (added, exist) = (counted(AddOutcome::Added), counted(AddOutcome::Exists));
    let _ =
        writeln!(text, "{added} added, {exist} already there, {} not added", entries.len() - added - exist);
    text
}

fn domain_table(domains: &[DomainLine], paint: Paint) -> String {
    if domains.is_empty() {
        return "There are no domains\n".to_owned();
    }
    let rows = domains.iter().map(|line| {
        vec![
            line.mailboxes.to_string(),
            line.messages.to_string(),
            Octets(line.octets).to_string(),
            status(line.lock).to_owned(),
            line.unicode.clone().unwrap_or_default(),
            line.domain.clone(),
        ]
    });
    table(&["Mailboxes", "Messages", "Size", "Status", "Reads", "Domain"], 3, rows, paint)
}

fn mailbox_table(mailboxes: &[MailboxLine], accounts_error: Option<&str>, paint: Paint) -> Option<String> {
    let rows = mailboxes.iter().map(|line| {
        vec![
            line.messages.to_string(),
            Octets(line.octets).to_string(),
            match line.lock.0 {
                Some(LockedBy::Domain) => "domain locked".to_owned(),
                None if !line.is_whole => "incomplete".to_owned(),
                Some(LockedBy::Mailbox) | None => status(line.lock).to_owned(),
            },
            line.last_login_unix_seconds.and_then(day_text).unwrap_or_default(),
            match &line.account {
                MailboxAccount::Found(name) => name.clone(),
                MailboxAccount::None => "none".to_owned(),
                MailboxAccount::Here | MailboxAccount::Unknown => String::new(),
            },
            line.unicode.clone().unwrap_or_default(),
            line.mailbox.clone(),
        ]
    });
    let mut text =
        table(&["Messages", "Size", "Status", "Last login", "Account", "Reads", "Mailbox"], 2, rows, paint);
    if let Some(why) = accounts_error {
        text += &note(&format!("accounts are not shown: {why}"), paint);
    }
    if let Some(quotas) = quota_table(mailboxes, paint) {
        let _ = write!(text, "\n{quotas}");
    }
    (!mailboxes.is_empty()).then_some(text)
}

/// The accounts whose quotas the mailboxes count against, each once, by name.
fn quota_table(mailboxes: &[MailboxLine], paint: Paint) -> Option<String> {
    let quotas: BTreeMap<&str, &QuotaLine> = mailboxes
        .iter()
        .filter_map(|line| line.quota.as_ref())
        .map(|quota| (quota.account.as_str(), quota))
        .collect();
    let rows = quotas.values().map(|quota| {
        let limit = quota.limit_octets.map_or("none".to_owned(), |limit| Octets(limit).to_string());
        let used_up = quota.limit_octets.is_some_and(|limit| quota.used_octets >= limit);
        let status = if used_up { "used up" } else { "" };
        vec![Octets(quota.used_octets).to_string(), limit, status.to_owned(), quota.account.clone()]
    });
    (!quotas.is_empty()).then(|| table(&["Used", "Limit", "", "Quota of"], 2, rows, paint))
}

fn status(lock: Lock) -> &'static str {
    if lock.0.is_some() { "locked" } else { "open" }
}

fn service_text(service: &ServiceState) -> String {
    let (true, Some(pid), Some(version)) = (service.running, service.pid, &service.version) else {
        return "stopped".to_owned();
    };
    let since = service.since_unix_seconds.and_then(time_text).unwrap_or_default();
    format!("running since {since}, pid {pid}, version {version}")
}

/// The totals come last, so that they stay visible below a long list.
fn server_text(server: &Server, domains: &[DomainLine], paint: Paint) -> String {
    let mut text = format!("Service    {}\n", paint.word(&service_text(&server.service)));
    if let Some(connections) = &server.connections {
        text += &connections_text(connections);
    }
    if let Some(certificate) = &server.certificate {
        let made = if certificate.self_signed { ", self-signed" } else { "" };
        let (first, second) = certificate.fingerprint.split_at(certificate.fingerprint.len() / 2);
        let second = second.trim_start_matches(':');
        let _ = writeln!(text, "TLS        {}{made}", certificate.names.join(", "));
        let _ = writeln!(text, "           SHA-256 {first}\n                   {second}");
    }
    text += &match &server.directory {
        Some(directory) => directory_text(directory),
        None => format!("Accounts   {}\n", server.authentication),
    };
    if let Some(AdoptionLine { moved, incomplete, not_moved }) = server.adoption {
        let _ = writeln!(
            text,
            "Adoption   {} moved here, {not_moved} not yet, {incomplete} incomplete",
            count(moved, "mailbox has", "mailboxes have")
        );
    }
    text + &format!(
        "Disk       {}\n{}{}\n{}\nDomains    {}\nMailboxes  {}\nMessages   {}\nMail       {}\n",
        Octets(server.allocated_octets),
        deleted_text(&server.deleted),
        copies_text(server),
        domain_table(domains, paint),
        server.domains,
        server.mailboxes,
        server.messages,
        Octets(server.octets),
    )
}

/// What can still be restored, if anything.
fn deleted_text(deleted: &Removed) -> String {
    if *deleted == Removed::default() {
        return String::new();
    }
    format!(
        "Deleted    {} ({}) and {} can be restored\n",
        count(deleted.messages, "message", "messages"),
        Octets(deleted.octets),
        count(deleted.mailboxes, "mailbox", "mailboxes")
    )
}

/// What to know about copies made with `cp`, `tar` or `rsync`.
fn copies_text(server: &Server) -> String {
    let kept = Octets(server.copy_kept_octets);
    match server.copy_good_below_seconds {
        None => String::new(),
        Some(0) => "\
Copies     may be unusable for now: the disk is nearly full, the load is heavy,
           or the file was just compacted or reopened after a fault
"
        .to_owned(),
        Some(seconds) => {
            format!("Copies     usable if made in less than {}; {kept} kept for them\n", Seconds(seconds))
        }
    }
}

fn directory_text(directory: &DirectoryLine) -> String {
    let time = |seconds: Option<u64>| seconds.and_then(time_text).unwrap_or_default();
    let mut text = match &directory.last_contact {
        Some(server) => {
            let at = time(directory.last_contact_unix_seconds);
            format!("Accounts   {}, last answered by {server} at {at}\n", directory.method)
        }
        None => format!("Accounts   {}, not contacted yet\n", directory.method),
    };
    if let Some(why) = &directory.last_error {
        let _ =
            writeln!(text, "           last failed at {}: {why}", time(directory.last_error_unix_seconds));
    }
    text
}

fn connections_text(connections: &Connections) -> String {
    let Connections { open, waiting, refused, login_failures, .. } = connections;
    let mut text = format!("Clients    {open} open, {waiting} waiting, {refused} refused\n");
    if let Some(seconds) = connections.last_login_failure_seconds_ago {
        let logins = count(*login_failures, "login", "logins");
        let _ = writeln!(text, "Refused    {logins}, the last one {} ago", Seconds(seconds));
    }
    if connections.wrong_recipients > 0 {
        let _ =
            writeln!(text, "Unknown    {}", count(connections.wrong_recipients, "recipient", "recipients"));
    }
    text
}

fn domain_text(
    domain: &DomainLine,
    mailboxes: &[MailboxLine],
    accounts_error: Option<&str>,
    paint: Paint,
) -> String {
    let unicode = domain.unicode.as_ref().map(|unicode| format!(" ({unicode})"));
    format!(
        "Domain     {}{}\nStatus     {}\n\n{}\nMailboxes  {}\nMessages   {}\nMail       {}\n",
        domain.domain,
        unicode.unwrap_or_default(),
        paint.word(status(domain.lock)),
        mailbox_table(mailboxes, accounts_error, paint)
            .unwrap_or_else(|| "There are no mailboxes\n".to_owned()),
        domain.mailboxes,
        domain.messages,
        Octets(domain.octets),
    )
}

/// A single setting is shown as its bare value, for scripts.
fn settings_text(settings: &[SettingLine]) -> String {
    let with_meaning = |line: &SettingLine| match &line.meaning {
        Some(meaning) => format!("{} ({meaning})", line.value).trim_start().to_owned(),
        None => line.value.to_string(),
    };
    if let [line] = settings {
        return with_meaning(line) + "\n";
    }
    let rows = settings.iter().map(|line| {
        let default = (!line.is_default).then(|| format!("default: {}", line.default));
        let remarks: Vec<&str> = line.meaning.iter().chain(&default).map(String::as_str).collect();
        vec![line.setting.clone(), line.value.to_string(), remarks.join("; ")]
    });
    table(&["Setting", "Value", ""], 0, rows, Paint::Plain)
}

fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests;
