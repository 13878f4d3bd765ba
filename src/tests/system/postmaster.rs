//! Every domain accepts mail for its postmaster (RFC 5321 section 4.5.1) and puts it where the settings say.

use crate::harness::site::Site;

const ANN: &str = "ann@example.com";

#[test]
fn every_domain_has_a_postmaster() {
    let mut site = Site::new();
    let added = site.winpop(&["add", "example.com"]);
    assert!(added.contains("postmaster@example.com goes to its first mailbox"), "{added}");
    // The oldest mailbox counts, not the first by name.
    ["zoe@example.com", ANN, "bob@example.org"].iter().for_each(|address| site.add_mailbox(address));
    site.winpop(&["add", "empty.example"]);
    let service = site.start();
    let mut lmtp = service.lmtp();
    let mut lies_in = |path: &str, mailbox: &str| {
        lmtp.store(path, format!("Subject: for {path}\r\n").as_bytes());
        let mut session = service.log_in(mailbox);
        let contents = session.contents().unwrap();
        assert_eq!(contents, [format!("Subject: for {path}\r\n").as_bytes()], "{path} in {mailbox}");
        session.delete(1).unwrap();
        session.quit().unwrap();
    };

    lies_in("postmaster@example.com", "zoe@example.com");
    lies_in("PostMaster+detail@EXAMPLE.com", "zoe@example.com");
    lies_in("postmaster@example.org", "bob@example.org");
    lies_in("Postmaster", "zoe@example.com");

    site.winpop(&["set", "postmaster", ANN]);
    lies_in("postmaster@example.org", ANN);
    lies_in("postmaster@empty.example", ANN);
    lies_in("Postmaster", ANN);
    let added = site.winpop(&["add", "later.example"]);
    assert!(added.contains("postmaster@later.example goes to ann@example.com"), "{added}");
    // A lock keeps readers out, but not mail.
    site.winpop(&["lock", ANN]);
    service.lmtp().store("postmaster@later.example", b"Subject: locked\r\n");
    site.winpop(&["unlock", ANN]);
    let mut session = service.log_in(ANN);
    assert_eq!(session.count().unwrap(), 1);
    session.delete(1).unwrap();
    session.quit().unwrap();

    // A mailbox with the name comes before the setting. Without the setting's mailbox everything is as before.
    site.add_mailbox("postmaster@example.org");
    lies_in("postmaster@example.org", "postmaster@example.org");
    lies_in("postmaster@empty.example", ANN);
    site.winpop(&["delete", ANN, "/y"]);
    lies_in("postmaster@example.com", "zoe@example.com");
    lies_in("Postmaster", "postmaster@example.org");
    let added = site.winpop(&["add", "last.example"]);
    assert!(added.contains("postmaster@last.example goes to its first mailbox"), "{added}");

    let refused = |path: &str, reply: &str| {
        let replies = service.lmtp().deliver(&[path], b"Subject: no\r\n").unwrap();
        assert!(replies[0].starts_with(reply), "{path}: {replies:?}");
    };
    refused("postmaster@empty.example", "550 5.1.1 ");
    refused("postmaster@elsewhere.example", "550 5.7.1 ");
    site.winpop(&["createquotafile", "zoe@example.com", "/limit:1"]);
    refused("postmaster@example.com", "552 5.2.2 ");

    let delivered = site.run_with_input(&["deliver", "Postmaster"], b"Subject: by deliver\n");
    assert_eq!(delivered.exit_code, 0, "{delivered:?}");
    assert_eq!(service.log_in("postmaster@example.org").count().unwrap(), 1);
    service.stop();
    site.assert_clean();
}

#[test]
fn the_setting_names_a_mailbox_that_exists() {
    let site = Site::new();
    site.add_mailbox(ANN);
    let refused = site.run(&["winpop", "set", "postmaster", "nobody@example.com"]);
    assert_eq!(refused.exit_code, 1, "{refused:?}");
    assert!(refused.errors.contains("there is no mailbox nobody@example.com"), "{refused:?}");
    assert_eq!(site.winpop(&["set", "postmaster", ANN]).trim(), "postmaster is now ann@example.com");
    site.winpop(&["set", "postmaster", "default"]);
}
