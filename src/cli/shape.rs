//! The format of `--json`, shown by `winpop help json`. A test compares it with every reply.

use std::fmt::Write as _;

/// An object: its name, and its fields with the kind of each.
///
/// A kind is `text`, `number`, `true/false`, the words that a text can be (`…|…`) or the name of an object; `[…]` is a
/// list, and `…?` may be null.
pub type Shape = (&'static str, &'static [(&'static str, &'static str)]);

/// The reply of each command. All begin with the field `ok`, which is true.
pub const REPLIES: [Shape; 19] = [
    (
        "a change",
        &[
            ("action", "text"),
            ("name", "text"),
            ("message", "text"),
            ("removed", "REMOVED?"),
            ("notes", "[text]"),
        ],
    ),
    ("list", &[("domains", "[DOMAIN]")]),
    ("list DOMAIN", &[("domain", "text"), ("mailboxes", "[MAILBOX]"), ("accounts_error", "text?")]),
    ("list /all", &[("mailboxes", "[MAILBOX]"), ("accounts_error", "text?")]),
    ("stat", &[("statistics", "SERVER"), ("domains", "[DOMAIN]")]),
    ("stat DOMAIN", &[("statistics", "DOMAIN"), ("mailboxes", "[MAILBOX]"), ("accounts_error", "text?")]),
    ("get", &[("settings", "[SETTING]")]),
    ("health", &[("service", "SERVICE")]),
    ("health ADDRESS", &[("address", "text"), ("greeting", "text")]),
    ("backup", &[("file", "text"), ("messages", "number"), ("file_octets", "number")]),
    (
        "compact",
        &[
            ("file_octets_before", "number"),
            ("file_octets", "number"),
            ("allocated_octets_before", "number"),
            ("allocated_octets", "number"),
            ("moved_octets", "number"),
        ],
    ),
    (
        "check",
        &[
            ("domains", "number"),
            ("mailboxes", "number"),
            ("messages", "number"),
            ("texts", "number"),
            ("text_octets", "number"),
            ("findings", "[text]"),
            ("findings_total", "number"),
            ("repaired", "[text]"),
            ("repaired_total", "number"),
            ("lost", "[LOST]"),
        ],
    ),
    (
        "key",
        &[
            ("file", "text"),
            ("id", "text?"),
            ("trouble", "text?"),
            ("sealed", "number"),
            ("unsealed", "number"),
            ("advice", "text"),
        ],
    ),
    (
        "test",
        &[("mailbox", "text"), ("authentication", "text"), ("can_log_in", "true/false"), ("steps", "[STEP]")],
    ),
    ("deliver", &[("recipients", "[RECIPIENT]")]),
    ("add /file", &[("entries", "[ENTRY]")]),
    (
        "export",
        &[
            ("mailboxes", "number"),
            ("messages", "number"),
            ("octets", "number"),
            ("damaged", "number"),
            ("skipped", "[SKIPPED]"),
        ],
    ),
    ("import --verify", &[("uidl", "text?"), ("mailboxes", "[VERIFIED]"), ("skipped", "[SKIPPED]")]),
    (
        "import",
        &[
            ("dry_run", "true/false"),
            ("uidl", "text?"),
            ("mailboxes", "number"),
            ("messages", "number"),
            ("octets", "number"),
            ("ids_kept", "number"),
            ("ids_new", "number"),
            ("ids_long", "number"),
            ("there_already", "number"),
            ("skipped", "[SKIPPED]"),
            ("stopped", "text?"),
        ],
    ),
];

/// The field `error`, present if `ok` is false.
pub const ERROR: Shape = ("error", &[("code", "text"), ("message", "text"), ("hint", "text?")]);

/// The objects in the replies.
pub const OBJECTS: [Shape; 17] = [
    ("REMOVED", &[("mailboxes", "number"), ("messages", "number"), ("octets", "number")]),
    (
        "DOMAIN",
        &[
            ("domain", "text"),
            ("unicode", "text?"),
            ("locked", "true/false"),
            ("locked_by", "text?"),
            ("mailboxes", "number"),
            ("messages", "number"),
            ("octets", "number"),
        ],
    ),
    (
        "MAILBOX",
        &[
            ("mailbox", "text"),
            ("unicode", "text?"),
            ("locked", "true/false"),
            ("locked_by", "text?"),
            ("messages", "number"),
            ("octets", "number"),
            ("last_login_unix_seconds", "number?"),
            ("quota", "QUOTA?"),
            ("has_password", "true/false"),
            ("is_whole", "true/false"),
            ("account_state", "here|found|none|unknown"),
            ("account", "text?"),
        ],
    ),
    ("QUOTA", &[("account", "text"), ("used_octets", "number"), ("limit_octets", "number?")]),
    (
        "SERVER",
        &[
            ("service", "SERVICE"),
            ("authentication", "text"),
            ("domains", "number"),
            ("mailboxes", "number"),
            ("messages", "number"),
            ("octets", "number"),
            ("deleted", "REMOVED"),
            ("file_octets", "number"),
            ("allocated_octets", "number"),
            ("copy_good_below_seconds", "number?"),
            ("copy_kept_octets", "number"),
            ("connections", "CONNECTIONS?"),
            ("certificate", "CERTIFICATE?"),
            ("directory", "DIRECTORY?"),
            ("adoption", "ADOPTION?"),
        ],
    ),
    ("ADOPTION", &[("moved", "number"), ("incomplete", "number"), ("not_moved", "number")]),
    (
        "DIRECTORY",
        &[
            ("method", "text"),
            ("last_contact_unix_seconds", "number?"),
            ("last_contact", "text?"),
            ("last_error_unix_seconds", "number?"),
            ("last_error", "text?"),
        ],
    ),
    (
        "SERVICE",
        &[
            ("running", "true/false"),
            ("pid", "number?"),
            ("version", "text?"),
            ("since_unix_seconds", "number?"),
        ],
    ),
    (
        "CONNECTIONS",
        &[
            ("open", "number"),
            ("waiting", "number"),
            ("refused", "number"),
            ("login_failures", "number"),
            ("last_login_failure_seconds_ago", "number?"),
            ("wrong_recipients", "number"),
        ],
    ),
    ("CERTIFICATE", &[("names", "[text]"), ("fingerprint", "text"), ("self_signed", "true/false")]),
    (
        "SETTING",
        &[
            ("setting", "text"),
            ("value", "number or text"),
            ("unit", "text?"),
            ("meaning", "text?"),
            ("default", "number or text"),
            ("is_default", "true/false"),
            ("takes_effect", "text"),
        ],
    ),
    (
        "LOST",
        &[
            ("mailbox", "text"),
            ("sequence", "number"),
            ("received_unix_seconds", "number?"),
            ("octets", "number?"),
        ],
    ),
    ("RECIPIENT", &[("recipient", "text"), ("outcome", "text")]),
    ("SKIPPED", &[("file", "text"), ("why", "text")]),
    (
        "VERIFIED",
        &[
            ("mailbox", "text"),
            ("before", "number"),
            ("here", "number"),
            ("known", "number"),
            ("again", "number"),
            ("new", "number"),
            ("missing", "number"),
            ("sizes_differ", "number"),
            ("in_order", "true/false"),
        ],
    ),
    ("STEP", &[("step", "text"), ("passed", "true/false"), ("finding", "text")]),
    ("ENTRY", &[("line", "number"), ("name", "text"), ("outcome", "text"), ("why", "text?")]),
];

/// The page that `winpop help json` shows.
pub fn page() -> String {
    let mut text = "\
With /json, a command prints one object on one line. Its field ok is true, or
false if the command was refused or failed; the field error then says why.
Every field listed here is always present; those marked ? may be null.

A command that was carried out but found something wrong has ok true and still
exits with 1: test if the login would be refused; check, add /file, export and
import if something is damaged, missing or left out. deliver has its own exit
codes: pop3svc help deliver.

A mailbox's account_state says what is known about its account: here (it is
part of the mailbox, with the password file), found (in the directory; account
is its name), none (the directory has none for it) or unknown (accounts_error
says why). has_password tells whether the data file holds a password for the
mailbox, whether or not the password file is in force.
"
    .to_owned();
    for (name, fields) in REPLIES.iter().chain([&ERROR]).chain(&OBJECTS) {
        let _ = writeln!(text, "\n{name}");
        for (field, kind) in *fields {
            let _ = writeln!(text, "  {field:<31} {kind}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::admin::reply::*;
    use crate::cli::render::{json, refusal_json};
    use crate::tests::replies::{domain, mailbox, server, service};

    /// Panics if a value is not of this kind.
    fn assert_is(value: &Value, kind: &str, place: &str) {
        if let Some(kind) = kind.strip_suffix('?') {
            if !value.is_null() {
                assert_is(value, kind, place);
            }
        } else if let Some(kind) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
            let items = value.as_array().unwrap_or_else(|| panic!("{place} is no list"));
            items.iter().for_each(|item| assert_is(item, kind, place));
        } else if let Some((_, fields)) = OBJECTS.iter().find(|(name, _)| *name == kind) {
            assert_has(value, fields, place);
        } else {
            let is_so = match kind {
                "text" => value.is_string(),
                "number" => value.is_u64(),
                "number or text" => value.is_u64() || value.is_string(),
                "true/false" => value.is_boolean(),
                words if words.contains('|') => words.split('|').any(|word| value == word),
                other => panic!("{place}: there is no kind {other:?}"),
            };
            assert!(is_so, "{place}: {value} is not {kind}");
        }
    }

    /// Panics if an object does not have exactly these fields.
    fn assert_has(object: &Value, fields: &[(&str, &str)], place: &str) {
        let object = object.as_object().unwrap_or_else(|| panic!("{place} is no object"));
        let known: Vec<&str> = fields.iter().map(|(field, _)| *field).collect();
        let unknown: Vec<&String> = object.keys().filter(|key| !known.contains(&key.as_str())).collect();
        assert!(unknown.is_empty(), "{place}: {unknown:?} is not written down");
        for (field, kind) in fields {
            let value = object.get(*field).unwrap_or_else(|| panic!("{place} has no {field}"));
            assert_is(value, kind, &format!("{place}.{field}"));
        }
    }

    fn mailboxes() -> Vec<MailboxLine> {
        let quota = |limit_octets| QuotaLine { account: "a@b".into(), used_octets: 1, limit_octets };
        let of = |account| MailboxLine { account, ..mailbox() };
        let with =
            |lock, quota| MailboxLine { lock: Lock(lock), quota, account: MailboxAccount::Here, ..mailbox() };
        vec![
            mailbox(),
            of(MailboxAccount::None),
            of(MailboxAccount::Unknown),
            with(Some(LockedBy::Mailbox), Some(quota(None))),
            with(Some(LockedBy::Domain), Some(quota(Some(7)))),
        ]
    }

    fn setting(value: SettingValue, unit: Option<&str>) -> SettingLine {
        SettingLine {
            setting: "port".into(),
            default: value.clone(),
            value,
            unit: unit.map(str::to_owned),
            meaning: unit.map(str::to_owned),
            is_default: true,
            takes_effect: "at once".into(),
        }
    }

    /// One reply of each kind, with and without optional values, under the name of its shape.
    fn replies() -> Vec<(&'static str, Reply)> {
        let removed = Removed { mailboxes: 1, messages: 2, octets: 3 };
        let changed = Changed { notes: vec!["a".into()], ..Changed::new("add", &"a", "b".into()) };
        let lost = |known: Option<u64>| Lost {
            mailbox: "a@b".into(),
            sequence: 1,
            received_unix_seconds: known,
            octets: known,
        };
        let entry = |outcome| Added {
            line: 1,
            name: "a@b".into(),
            outcome,
            why: (outcome != AddOutcome::Added).then(|| "a".into()),
        };
        let key = |id: Option<&str>| {
            Reply::Key(KeyState {
                file: "/k".into(),
                id: id.map(str::to_owned),
                trouble: id.map(str::to_owned),
                sealed: 1,
                unsealed: 2,
                advice: "a".into(),
            })
        };
        vec![
            ("a change", changed.clone().into()),
            ("a change", Changed { removed: Some(removed), ..changed }.into()),
            ("list", Reply::Domains { domains: vec![domain()] }),
            (
                "list DOMAIN",
                Reply::Mailboxes { domain: "b".into(), mailboxes: mailboxes(), accounts_error: None },
            ),
            ("list /all", Reply::AllMailboxes { mailboxes: mailboxes(), accounts_error: Some("a".into()) }),
            ("stat", Reply::Server { statistics: server(true), domains: vec![domain()] }),
            ("stat", Reply::Server { statistics: server(false), domains: vec![] }),
            (
                "stat DOMAIN",
                Reply::Domain { statistics: domain(), mailboxes: mailboxes(), accounts_error: None },
            ),
            (
                "get",
                Reply::Settings {
                    settings: vec![
                        setting(SettingValue::Number(1), Some("octets")),
                        setting(SettingValue::Text("tls".into()), None),
                    ],
                },
            ),
            ("health", Reply::Health { service: service() }),
            ("health ADDRESS", Reply::Greeted { address: "127.0.0.1:110".into(), greeting: "+OK".into() }),
            ("backup", Reply::BackedUp(BackedUp { file: "/b".into(), messages: 1, file_octets: 2 })),
            (
                "compact",
                Reply::Compacted(Compacted {
                    file_octets_before: 5,
                    file_octets: 4,
                    allocated_octets_before: 3,
                    allocated_octets: 2,
                    moved_octets: 1,
                }),
            ),
            (
                "check",
                Reply::Checked(Checked {
                    domains: 1,
                    mailboxes: 1,
                    messages: 1,
                    texts: 1,
                    text_octets: 1,
                    findings: vec!["a".into()],
                    findings_total: 1,
                    repaired: vec!["a".into()],
                    repaired_total: 1,
                    lost: vec![lost(None), lost(Some(1))],
                }),
            ),
            ("key", key(None)),
            ("key", key(Some("a"))),
            ("export", Reply::Exported(ExportSummary::default())),
            (
                "import --verify",
                Reply::Verified(Verified {
                    mailboxes: vec![VerifiedMailbox::default()],
                    ..Verified::default()
                }),
            ),
            (
                "test",
                Reply::Tested(Tested {
                    steps: vec![TestedStep { step: "lock".into(), passed: true, finding: "none".into() }],
                    ..Tested::default()
                }),
            ),
            (
                "import",
                Reply::Imported(ImportSummary {
                    skipped: vec![SkippedFile { file: "a".into(), why: "b".into() }],
                    ..ImportSummary::default()
                }),
            ),
            (
                "add /file",
                Reply::AddedMany { entries: vec![entry(AddOutcome::Added), entry(AddOutcome::NotDone)] },
            ),
            (
                "deliver",
                Reply::Delivered {
                    recipients: vec![Delivered { recipient: "a@b".into(), outcome: Outcome::NoSuchMailbox }],
                },
            ),
        ]
    }

    #[test]
    fn every_reply_has_the_documented_shape() {
        for (name, reply) in replies() {
            let (_, fields) = REPLIES.iter().find(|(known, _)| *known == name).expect("a shape of the table");
            let fields = [&[("ok", "true/false")], *fields].concat();
            assert_has(&serde_json::from_str(&json(&reply)).unwrap(), &fields, name);
        }
        for (name, _) in REPLIES {
            assert!(replies().iter().any(|(of, _)| *of == name), "{name} is not tried");
        }
    }

    #[test]
    fn a_refusal_has_the_documented_shape() {
        let refusal = Refusal::new(Code::NotFound, "there is no \"x\"");
        for refusal in [refusal.clone(), refusal.with_hint("Add it")] {
            let object: Value = serde_json::from_str(&refusal_json(&refusal)).unwrap();
            assert_eq!(object["ok"], false);
            assert_has(&object["error"], ERROR.1, "error");
        }
    }

    #[test]
    fn the_page_reads_well_at_80_columns() {
        assert!(page().lines().all(|line| line.chars().count() < 80));
    }
}
