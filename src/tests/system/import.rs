//! Mailboxes of other servers are imported with the ids, the order and the sizes that mail programs know.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use super::service::{Service, eventually};
use crate::harness::PROGRAM;
use crate::harness::site::Site;

const BOB: &str = "bob@example.com";

fn put(path: &Path, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("it can be made");
    fs::write(path, text).expect("it can be written");
}

/// Dovecot's Maildirs: a thousand messages with dots and awkward ids, one of them compressed, and a second mailbox.
fn maildirs(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut uidlist = "3 V1700000000 N2000 Gabc\n".to_owned();
    let mut expected = Vec::new();
    for number in 1..=1000u32 {
        let content =
            format!("Subject: {number}\n\n.\n..\n.dot {}\n", "x".repeat(number as usize * 7 % 3000));
        let name = format!("{}.M{number}.host", 1_600_000_000 + (number * 7919) % 1000);
        put(&root.join(format!("example.com/bob/Maildir/cur/{name}:2,S")), &content);
        let id = match number % 3 {
            // Longer than RFC 1939 allows.
            0 if number == 3 => "x".repeat(255),
            0 => format!("own!{number}~"),
            _ => format!("{number:08x}{:08x}", 1_700_000_000),
        };
        uidlist += &match number % 3 {
            0 => format!("{number} P{id} S1 :{name}\n"),
            _ => format!("{number} :{name}\n"),
        };
        expected.push((id, content.replace('\n', "\r\n").into_bytes()));
    }
    put(&root.join("example.com/bob/Maildir/dovecot-uidlist"), uidlist);
    put(&root.join("example.com/bob/Maildir/cur/1.zip.host:2,"), b"\x1f\x8b\x08");
    put(&root.join("example.com/bob/Maildir/new/2.unseen.host"), "Subject: no id\n\n");
    // Not a message, according to its name.
    put(&root.join("example.com/bob/Maildir/new/.nfs1"), "Subject: none\n\n");
    put(&root.join("example.net/eve/Maildir/new/1.a.host"), "Subject: eve's\n\n");
    fs::create_dir_all(root.join("example.net/eve/Maildir/cur")).expect("it can be made");
    expected
}

/// A site with Bob's mailbox, and Maildirs to import.
fn with_maildirs() -> (Site, Vec<(String, Vec<u8>)>) {
    let site = Site::new();
    site.add_mailbox(BOB);
    let expected = maildirs(&site.path("vmail"));
    (site, expected)
}

fn maildir(site: &Site, domain: &str, user: &str) -> String {
    site.path("vmail").join(domain).join(user).join("Maildir").to_string_lossy().into_owned()
}

fn start(site: &Site, words: &[&str]) -> Child {
    let mut command = site.program(Path::new(PROGRAM));
    command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be run")
}

/// Begins to import Bob's Maildir, and waits until part of it is here.
fn importing(site: &Site) -> Child {
    let import = start(site, &["import", "maildir", &maildir(site, "example.com", "bob"), BOB]);
    eventually("something is imported", || !site.winpop(&["stat"]).contains("Messages   0\n"));
    import
}

#[test]
fn maildirs_of_many_users_come_in_while_the_service_runs_and_only_once() {
    let (mut site, expected) = with_maildirs();
    let service = site.start();
    let template = maildir(&site, "{domain}", "{user}");
    let words = ["import", "maildir", &template, "--make", "/json"];
    let dry = site.run(&[&words[..], &["--dry-run"]].concat());
    assert!(dry.output.contains("\"messages\":1002,") && dry.output.contains("\"ids_new\":1,"), "{dry:?}");
    assert_eq!(service.log_in(BOB).count().unwrap(), 0);
    let done = site.run(&words);
    // A compressed file is skipped, which counts as failure.
    assert_eq!(done.exit_code, 1, "{done:?}");
    assert!(done.output.contains("1.zip.host:2,\",\"why\":\"it is compressed (gzip)\""), "{done:?}");
    assert!(
        done.output.contains("\"ids_kept\":1001,\"ids_new\":1,\"ids_long\":1,\"there_already\":0,"),
        "{done:?}"
    );
    let again = site.run(&words);
    assert!(
        again.output.contains("\"messages\":0,") && again.output.contains("\"there_already\":1002,"),
        "{again:?}"
    );

    let mut client = service.log_in(BOB);
    let (uids, octets) = (client.uids().unwrap(), client.octets().unwrap());
    assert_eq!(uids.len(), 1001);
    for (number, (id, content)) in expected.iter().enumerate() {
        assert_eq!((&uids[number], &octets[number]), (id, &content.len().to_string()));
    }
    for number in [1, 333, 1000] {
        let lines = client.lines(&format!("RETR {number}")).unwrap();
        let text: Vec<u8> = lines
            .iter()
            .flat_map(|line| [line.strip_prefix(b".").unwrap_or(line), b"\r\n"].concat())
            .collect();
        assert_eq!(text, expected[number - 1].1);
    }
    client.quit().unwrap();
    assert!(site.winpop(&["list", "example.net"]).contains("eve@example.net"));
    service.stop();
    site.assert_clean();
}

#[test]
fn mbox_lists_and_the_windows_mail_root_come_in_without_a_service() {
    let site = Site::new();
    site.add_mailbox(BOB);
    let mbox = site.dir().join("mbox");
    put(
        &mbox,
        "From a@b Thu Jan  1 00:00:00 2026\nX-UIDL: u1\nSubject: one\n\none\n\nFrom a@b Thu Jan  1 00:00:01 2026\nX: y\n\n",
    );
    let done = site.succeed(&["import", "mbox", &mbox.to_string_lossy(), BOB]);
    assert!(done.starts_with("1 mailbox, 2 messages ("), "{done}");
    assert!(
        done.contains("1 with the unique id that mail programs know, 1 with a new one; 0 already here"),
        "{done}"
    );

    put(&site.dir().join("loose/a.eml"), "Subject: a\r\n\r\n");
    let list = site.dir().join("list");
    put(&list, "loose/a.eml\tid-of-a\nloose/missing.eml\tid-of-b\nno tab\n");
    let done = site.run(&["import", "list", &list.to_string_lossy(), BOB]);
    assert!(done.exit_code == 1 && done.output.matches("Skipped:").count() == 2, "{done:?}");

    let windows = site.dir().join("mailbox");
    put(&windows.join("example.org/P3_ann.mbx/P3A.eml"), "Subject: w\r\n\r\n");
    let refused = site.run(&["import", "windows", &windows.to_string_lossy()]);
    assert!(
        refused.exit_code == 1 && refused.errors.contains("there is no domain example.org"),
        "{refused:?}"
    );
    let done = site.succeed(&["import", "windows", &windows.to_string_lossy(), "--make", "--uidl", "%b"]);
    assert!(done.contains("1 message (") && done.contains("1 with the unique id"), "{done}");
    let list = site.winpop(&["list", "/all"]);
    assert!(list.contains("ann@example.org"), "{list}");
    site.assert_clean();
}

#[test]
fn unreadable_mailboxes_are_reported_and_stop_nothing() {
    let site = Site::new();
    site.add_mailbox(BOB);
    let root = site.dir().join("vmail");
    put(&root.join("example.com/bob/new/1.a"), "Subject: a\n\n");
    fs::create_dir_all(root.join("example.com/bob/cur")).expect("it can be made");
    put(&root.join("example.com/eve/new/1.b"), "Subject: no cur\n\n");
    put(&root.join("example.net/ann/new/1.c"), "Subject: no such domain\n\n");
    fs::create_dir_all(root.join("example.net/ann/cur")).expect("it can be made");
    fs::create_dir_all(root.join("example.com/b b/cur")).expect("it can be made");
    let template = format!("{}/{{domain}}/{{user}}", root.display());
    let done = site.run(&["import", "maildir", &template]);
    assert_eq!(done.exit_code, 1, "{done:?}");
    for why in ["eve: ", "ann: there is no domain example.net", "b b: "] {
        assert!(done.output.contains(why), "{done:?}");
    }
    assert!(
        done.output.contains("\n1 mailbox, 1 message (") && done.output.contains("; 3 skipped"),
        "{done:?}"
    );

    let mbox = site.dir().join("mbox");
    put(&mbox, "Subject: no mbox\n\n");
    let refused = site.run(&["import", "mbox", &mbox.to_string_lossy(), BOB]);
    assert!(refused.exit_code == 1 && refused.errors.contains("is not an mbox file"), "{refused:?}");
    let refused = site.run(&["import", "maildir", &template, "--uidl", "%q"]);
    assert_eq!(refused.exit_code, 2, "{refused:?}");

    // The first of two messages with the same id keeps it, even in a dry run.
    for (file, text) in
        [("a.eml", "Subject: a\n\n"), ("b.eml", "Subject: b\n\n"), ("c.eml", "Subject: a\n\n")]
    {
        put(&site.dir().join(file), text);
    }
    let list = site.dir().join("list");
    put(&list, "a.eml\tone\nb.eml\tone\nc.eml\tone\n");
    let list = list.to_string_lossy().into_owned();
    for words in [&["import", "list", &list, BOB, "--dry-run"][..], &["import", "list", &list, BOB]] {
        let done = site.succeed(words);
        assert!(
            done.contains("1 with the unique id that mail programs know, 1 with a new one; 1 already here"),
            "{done}"
        );
        assert!(
            done.contains("Note: mail programs that leave mail on the server will fetch 1 message again"),
            "{done}"
        );
    }
    site.assert_clean();
}

/// Exported in each format and imported elsewhere, the mail looks the same to a client.
#[test]
fn an_export_imports_under_the_same_ids() {
    let mut site = Site::new();
    site.add_mailbox(BOB);
    let service = site.start();
    let mut lmtp = service.lmtp();
    for number in 0..30usize {
        let from = "From a@b Thu Jan  1 00:00:00 2026";
        let text =
            format!("Subject: {number}\r\n\r\n.\r\n..a\r\n\r\n{from}\r\n{}\r\n", "x".repeat(number * 911));
        lmtp.store(BOB, text.as_bytes());
    }
    let list = |service: &Service| {
        let mut client = service.log_in(BOB);
        let list = (client.uids().unwrap(), client.octets().unwrap(), client.lines("RETR 7").unwrap());
        client.quit().unwrap();
        list
    };
    let before = list(&service);
    // An open session does not affect an export.
    let session = service.log_in(BOB);
    let mut sources = Vec::new();
    for format in ["maildir", "eml", "mbox"] {
        let directory = site.dir().join(format).to_string_lossy().into_owned();
        let done = site.succeed(&["export", format, &directory]);
        assert!(done.starts_with("1 mailbox, 30 messages ("), "{done}");
        let again = site.run(&["export", format, &directory, BOB]);
        assert!(again.exit_code == 1 && again.errors.contains("already exists"), "{again:?}");
        sources.push(format!("{directory}/example.com/bob"));
    }
    drop(session);
    service.stop();
    let list_of_files = format!("{}/list", sources[1]);
    for (format, source) in [("maildir", &sources[0]), ("list", &list_of_files), ("mbox", &sources[2])] {
        let mut other = Site::new();
        other.add_mailbox(BOB);
        let done = other.succeed(&["import", format, source, BOB]);
        assert!(done.contains("30 with the unique id that mail programs know, 0 with"), "{done}");
        let service = other.start();
        assert_eq!(list(&service), before, "{format}");
        service.stop();
        other.assert_clean();
    }
}

#[test]
fn an_import_whose_service_is_killed_continues_and_duplicates_nothing() {
    let (mut site, expected) = with_maildirs();
    let service = site.start();
    let mut import = importing(&site);
    service.kill();
    import.wait().expect("it ends");
    let service = site.start();
    let done = site.run(&["import", "maildir", &maildir(&site, "example.com", "bob"), BOB]);
    assert!(done.output.starts_with("Skipped: ") && !done.output.contains(" 0 already here"), "{done:?}");
    let mut client = service.log_in(BOB);
    let ids: Vec<String> = expected.into_iter().map(|(id, _)| id).collect();
    assert_eq!(client.uids().unwrap()[..1000], ids);
    assert_eq!(client.count().unwrap(), 1001);
    client.quit().unwrap();
    service.stop();
    site.assert_clean();
}

#[test]
fn a_killed_export_continues_and_leaves_nothing_partial() {
    let (mut site, _) = with_maildirs();
    site.run(&["import", "maildir", &maildir(&site, "{domain}", "{user}"), "--make"]);
    let service = site.start();
    let directory = site.dir().join("out");
    let target = directory.to_string_lossy().into_owned();
    let whole = directory.join("example.com/bob");
    let draft = directory.join("example.com/bob.unfinished");
    let mut export = start(&site, &["export", "maildir", &target]);
    eventually("something is written", || draft.exists() || whole.exists());
    export.kill().expect("it is ours");
    export.wait().expect("it ends");
    // Complete mailboxes are skipped and reported.
    let was_whole = whole.exists();
    let done = site.run(&["export", "maildir", &target]);
    assert_eq!(done.exit_code, i32::from(was_whole), "{done:?}");
    let again = site.run(&["export", "maildir", &target]);
    assert!(again.exit_code == 1 && again.output.matches("already exists").count() == 2, "{again:?}");
    assert_eq!(fs::read_dir(whole.join("cur")).expect("it is there").count(), 1001);
    for domain in ["example.com", "example.net"] {
        let entries = fs::read_dir(directory.join(domain)).expect("it is there");
        let names: Vec<_> = entries.map(|entry| entry.expect("it can be listed").file_name()).collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }
    service.stop();
}

#[test]
fn a_killed_import_continues_and_duplicates_nothing() {
    let (mut site, _) = with_maildirs();
    let service = site.start();
    let mut import = importing(&site);
    import.kill().expect("it is ours");
    import.wait().expect("it ends");
    site.run(&["import", "maildir", &maildir(&site, "example.com", "bob"), BOB]);
    assert_eq!(service.log_in(BOB).count().unwrap(), 1001);
    service.stop();
    site.assert_clean();
}

#[test]
fn a_dry_run_and_verify_fail_where_the_import_would() {
    let site = Site::new();
    site.add_mailbox(BOB);
    let (list, empty) = (site.path("list"), site.path("empty"));
    put(&site.path("a.eml"), "Subject: a\n\n");
    put(&site.path("b.eml"), "Subject: b\n\n");
    put(&list, "a.eml\tone\nb.eml\t\n");
    put(&empty, "");
    let (list, empty) = (list.to_string_lossy(), empty.to_string_lossy());
    for more in [&[][..], &["--dry-run"]] {
        let done = site.run(&[&["import", "list", &list, "eve@example.com"], more].concat());
        assert_eq!((done.exit_code, done.output.as_str()), (1, ""), "{done:?}");
        assert!(done.errors.contains("Add eve@example.com first"), "{done:?}");
    }
    let done = site.run(&["import", "list", &empty, "eve@example.com", "--verify"]);
    assert!(done.exit_code == 1 && done.output.contains("there is no mailbox eve@example.com"), "{done:?}");
    let dry = |there_already: &str| {
        let done = site.succeed(&["import", "list", &list, BOB, "--dry-run"]);
        assert!(done.contains(there_already), "{done}");
    };
    dry("0 already here");
    site.succeed(&["import", "list", &list, BOB]);
    dry("2 already here");
}

#[test]
fn a_mailbox_with_a_slash_in_its_name_is_exported_and_comes_back() {
    let site = Site::new();
    let mailboxes = ["a/b@example.com", "a_b@example.com", "a%2fb@example.com"];
    for mailbox in mailboxes {
        site.add_mailbox(mailbox);
        site.run_with_input(&["deliver", mailbox], format!("Subject: {mailbox}\n\n").as_bytes());
    }
    let export = site.path("export").to_string_lossy().into_owned();
    assert!(site.succeed(&["export", "eml", &export]).starts_with("3 mailboxes"));
    site.winpop(&["delete", "example.com", "/y"]);
    let made = site.succeed(&["import", "list", &format!("{export}/{{domain}}/{{user}}/list"), "--make"]);
    assert!(made.starts_with("3 mailboxes"), "{made}");
    for mailbox in mailboxes {
        let again = site.path("again").to_string_lossy().into_owned();
        site.succeed(&["export", "mbox", &again, mailbox]);
        let name = mailbox.split('@').next().unwrap().replace('%', "%25").replace('/', "%2F");
        let mbox = fs::read_to_string(site.path("again/example.com").join(name)).unwrap();
        assert!(mbox.contains(&format!("Subject: {mailbox}")), "{mbox}");
    }
}

#[test]
fn verify_says_what_a_mail_program_fetches_again_and_what_is_missing() {
    let site = Site::new();
    site.add_mailbox(BOB);
    let list = site.dir().join("list");
    for (file, text) in [
        ("a.eml", "Subject: a\r\n\r\n"),
        ("b.eml", "Subject: b\r\n\r\nno end"),
        ("c.eml", "Subject: c\r\n\r\n\r\r\n"),
    ] {
        put(&site.dir().join(file), text);
    }
    let list_path = list.to_string_lossy().into_owned();
    let verify = |lines: &str, more: &[&str]| {
        put(&list, lines);
        site.run(&[&["import", "list", &list_path, BOB, "--verify"], more].concat())
    };
    put(&list, "a.eml\tone\nb.eml\ttwo\n");
    site.succeed(&["import", "list", &list_path, BOB]);
    let done = verify("a.eml\tone\nb.eml\ttwo\n", &[]);
    assert_eq!(
        done.output,
        "bob@example.com: 2 there, 2 here: 2 known, 0 fetched again, 0 new, 0 missing; 1 with a different size\n\
         1 mailbox: mail programs that leave mail on the server will fetch 0 messages again; 0 messages are missing\n"
    );
    assert_eq!(done.exit_code, 0);
    let done = verify("b.eml\tTWO\na.eml\tone\nc.eml\tthree\n", &["/json"]);
    assert_eq!(done.exit_code, 1, "{done:?}");
    for expected in ["\"known\":1,", "\"again\":1,", "\"missing\":1,", "\"in_order\":true"] {
        assert!(done.output.contains(expected), "{done:?}");
    }
    let done = verify("b.eml\ttwo\na.eml\tone\n", &[]);
    assert!(done.exit_code == 0 && done.output.contains("order differs"), "{done:?}");
    let seen = site.dir().join("ids");
    put(&seen, "bob@host two\nbob@host one\nbob@host gone\n");
    let seen = seen.to_string_lossy().into_owned();
    assert_eq!(verify("a.eml\tone\nb.eml\ttwo\n", &["--seen", &seen]).exit_code, 0);
    let done = site.run(&["import", "eml", &site.dir().to_string_lossy(), BOB, "--seen", &seen, "--dry-run"]);
    assert!(done.exit_code == 1 && done.errors.contains("no known format of unique ids"), "{done:?}");
    site.assert_clean();
}

#[test]
fn accounts_are_exported_to_a_file_that_only_its_owner_reads() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut site = Site::new();
    site.add_mailbox(BOB);
    put(&site.dir().join("empty/cur/none"), "Subject: a\n\n");
    fs::create_dir_all(site.dir().join("empty/new")).expect("it can be made");
    let maildir = site.dir().join("empty").to_string_lossy().into_owned();
    site.succeed(&["import", "maildir", &maildir, "eve@example.com", "--make"]);
    let service = site.start();
    let file = site.dir().join("accounts");
    let path = file.to_string_lossy().into_owned();
    let done = site.run(&["export", "accounts", &path, "example.com"]);
    assert!(
        done.exit_code == 1 && done.output.contains("eve@example.com: the mailbox has no password"),
        "{done:?}"
    );
    let text = fs::read_to_string(&file).expect("it is there");
    let fields: Vec<&str> = text.trim_end().split(':').collect();
    assert_eq!((fields.len(), fields[0]), (8, BOB), "{text}");
    assert!(fields[1].starts_with("{SCRAM-SHA-256}65536,"), "{text}");
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = site.run(&["export", "accounts", &path]);
    assert!(again.exit_code == 1 && again.errors.contains("already exists"), "{again:?}");
    site.succeed(&["export", "accounts", &format!("{path}-of-bob"), BOB]);
    let missing = site.run(&["export", "accounts", &format!("{path}-x"), "x@example.com"]);
    assert!(missing.exit_code == 1 && !site.dir().join("accounts-x").exists(), "{missing:?}");
    service.stop();
}
