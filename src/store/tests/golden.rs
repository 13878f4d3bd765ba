//! Pins the format: the octets of every row, a record, a header and a whole data file. Since version 2 none of this
//! changes: a row type gets a new version next to the old one, with its own line in `testdata/store/rows.txt`.

use super::*;
use crate::auth::seal::{KeyId, Sealed};
use crate::store::index::rows::{
    Counts, DeletedCounts, DeletedRow, DomainRow, MailboxRow, MessageRow, QuotaRow, ROWS, RemovedDomainRow,
    RemovedMailboxRow, Row, StoreRow, TextRow,
};
use crate::store::index::tables::{self, DELETED, DELETED_COUNTS, REMOVED_DOMAINS, REMOVED_MAILBOXES};
use crate::store::open::Snapshot;

/// A name and hexadecimal digits per line.
const GOLDEN: &str = include_str!("../../../testdata/store/rows.txt");

/// Octets that differ from those of any other field.
fn octets<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|nth| first.wrapping_add(nth as u8))
}

fn sealed() -> Sealed {
    Sealed { key: KeyId(octets(0x10)), nonce: octets(0x20), ciphertext: octets::<5>(0x40).to_vec() }
}

fn domain() -> DomainRow {
    DomainRow { id: DomainId(OwnerId(0x101)), locked: true, created: UnixTime(0x102) }
}

fn mailbox() -> MailboxRow {
    MailboxRow {
        id: MailboxId(OwnerId(0x201)),
        locked: true,
        created: UnixTime(0x202),
        credential: Credential {
            version: 0x203,
            verifier: Verifier {
                salt: octets(0x50),
                iterations: 0x204,
                stored_key: octets(0x60),
                server_key: octets(0x80),
            },
            sealed: Some(sealed()),
        },
        quota: Some("ann@example.com".to_owned()),
        last_login: Some(UnixTime(0x205)),
    }
}

fn counts() -> Counts {
    Counts {
        messages: 0x301,
        octets: 0x302,
        octets_without_utf8: 0x303,
        next_sequence: 0x304,
        mailboxes: 0x305,
    }
}

fn quota() -> QuotaRow {
    QuotaRow { limit: Some(0x401), used: 0x402, mailboxes: 0x403 }
}

fn message() -> MessageRow {
    MessageRow {
        octets: 0x501,
        tag: 0x502,
        received: UnixTime(0x503),
        surrogate_octets: Some(0x504),
        foreign_id: Some("its-id".into()),
        text: TextId(0x505),
        prefix: b"Return-Path: <>\r\n".to_vec(),
    }
}

fn text_row() -> TextRow {
    TextRow { hash: octets(0xa0), at: 0x601, wire_octets: 0x602, references: 0x603 }
}

fn certificate(key: PrivateKey) -> CertificateRow {
    CertificateRow { certificate: octets::<3>(0xd0).to_vec(), key, hostname: "mail.example.com".to_owned() }
}

fn store_row() -> StoreRow {
    StoreRow {
        domains: 0x701,
        mailboxes: 0x702,
        messages: 0x703,
        octets: 0x704,
        text_octets: 0x705,
        next_id: OwnerId(0x706),
        next_text: TextId(0x707),
        commits: 0x708,
        epoch: 0x709,
        log_octets: 0x70a,
        key: Some(KeyId(octets(0xe0))),
    }
}

fn deleted() -> DeletedRow {
    DeletedRow { deleted: UnixTime(0x751), message: octets::<5>(0xf0).to_vec() }
}

fn deleted_counts() -> DeletedCounts {
    DeletedCounts { messages: 0x761, octets: 0x762 }
}

fn removed_mailbox() -> RemovedMailboxRow {
    RemovedMailboxRow {
        domain: "gone.example".to_owned(),
        local: "cat".to_owned(),
        removed: UnixTime(0x771),
        with: Some(DomainId(OwnerId(0x772))),
        quota_limit: Some(0x773),
        mailbox: octets::<6>(0xf0).to_vec(),
    }
}

fn removed_domain() -> RemovedDomainRow {
    RemovedDomainRow {
        domain: "gone.example".to_owned(),
        removed: UnixTime(0x781),
        row: octets::<7>(0xf0).to_vec(),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn golden(name: &str) -> Option<Vec<u8>> {
    let digits = GOLDEN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("they are digits");
    Some((0..digits.len()).step_by(2).map(octet).collect())
}

/// The row encodes to these octets, and they decode to the row.
fn hold<R: Row + PartialEq>(missing: &mut String, name: &str, row: &R) {
    let octets = row.to_row();
    match golden(name) {
        Some(golden) => {
            assert_eq!(hex(&octets), hex(&golden), "{name} is written in another way than before");
            let read = R::from_row(&golden);
            assert!(read.is_ok_and(|read| read == *row), "{name} is read in another way than before");
        }
        None => *missing += &format!("{name} {}\n", hex(&octets)),
    }
}

/// Every field has a different value, so that swapping two is noticed.
#[test]
fn rows_are_written_and_read_as_they_always_were() {
    let mut missing = String::new();
    let it = &mut missing;
    hold(it, "DomainRow", &domain());
    hold(it, "MailboxRow", &mailbox());
    hold(it, "Counts", &counts());
    hold(it, "QuotaRow", &quota());
    hold(it, "MessageRow", &message());
    hold(it, "TextRow", &text_row());
    hold(it, "CertificateRow.clear", &certificate(PrivateKey::Clear(octets::<4>(0xc0).to_vec())));
    hold(it, "CertificateRow.sealed", &certificate(PrivateKey::Sealed(sealed())));
    hold(it, "StoreRow", &store_row());
    hold(it, "DeletedRow", &deleted());
    hold(it, "DeletedCounts", &deleted_counts());
    hold(it, "RemovedMailboxRow", &removed_mailbox());
    hold(it, "RemovedDomainRow", &removed_domain());
    for (row, _) in ROWS {
        let is_pinned = GOLDEN.lines().any(|line| line.split([' ', '.']).next() == Some(row));
        assert!(is_pinned || !missing.is_empty(), "{row} has no line");
    }
    assert!(missing.is_empty(), "testdata/store/rows.txt lacks these lines:\n{missing}");
}

#[test]
fn mutated_rows_of_every_type_decode_to_what_they_say_or_not_at_all() {
    let mut rng = fastrand::Rng::with_seed(1);
    for line in GOLDEN.lines() {
        let row = line.split(' ').next().and_then(golden).expect("a name and digits");
        for _ in 0..2_000 {
            let mut mutated = row.clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..mutated.len());
                mutated[at] = rng.u8(..);
            }
            mutated.truncate(rng.usize(row.len() / 2..=row.len()));
            fuzz::rows(&mutated);
        }
    }
}

#[test]
fn changes_in_the_log_are_written_as_they_always_were() {
    use crate::store::file::record;
    let mut changes = Vec::new();
    record::put(&mut changes, 1, b"key", b"row");
    record::remove(&mut changes, 2, b"gone");
    record::text(&mut changes, 0x801, b"a text");
    let golden = golden("changes").map(|golden| hex(&golden));
    assert_eq!(golden, Some(hex(&changes)));
}

/// Pages of a data file that are not all zeros: page number (4), length without trailing zeros (2), octets.
const PAGE: usize = 4096;

fn packed(disk: &SimulatedDisk) -> Vec<u8> {
    let mut packed = Vec::new();
    for (page, number) in disk.octets().chunks(PAGE).zip(0u32..) {
        if let Some(last) = page.iter().rposition(|octet| *octet != 0) {
            packed.extend_from_slice(&number.to_le_bytes());
            packed.extend_from_slice(&(last as u16 + 1).to_le_bytes());
            packed.extend_from_slice(&page[..=last]);
        }
    }
    packed
}

/// Unpacks into a file of this length.
fn unpack(mut packed: &[u8], file: &std::fs::File) {
    use std::os::unix::fs::FileExt as _;
    let mut extents = 0;
    while let Some((head, rest)) = packed.split_first_chunk::<6>() {
        let number = u32::from_le_bytes(head[..4].try_into().unwrap());
        let len = u16::from_le_bytes(head[4..].try_into().unwrap());
        let (page, rest) = rest.split_at(len.into());
        let at = u64::from(number) * PAGE as u64;
        file.write_all_at(page, at).unwrap();
        extents = format::Extent::holding(at).map_or(extents, |extent| extent.0 + 1);
        packed = rest;
    }
    file.set_len(format::Extent(extents).at()).unwrap();
}

const SAMPLE: &[u8] = include_bytes!("../../../testdata/store/version-2");
/// Names the file for a new sample: a later version makes its own with this, next to the old one.
const NEW_SAMPLE: &str = "POP3SVC_NEW_SAMPLE";

const ANN: &str = "ann@example.com";
const BEA: &str = "bea@example.com";
/// Both lie in day 20,777.
const GONE: UnixTime = UnixTime(0x6b00_0911);
const GONE_WITH_DOMAIN: UnixTime = UnixTime(0x6b00_0916);
/// Deleted, but can come back.
const CAT: &str = "cat@gone.example";
const OF_CAT: &[u8] = b"Subject: of the cat\n\nwhich is gone\n";
const OF_BOTH: &[u8] = b"Subject: of both\n\n.and stuffed\n";
const IN_UTF8: &[u8] = "Subject: gr\u{fc}n\n\nund Text\n".as_bytes();
const IMPORTED: &[u8] = b"Subject: of another server\n\nwith its id\n";
const GOES: &[u8] = b"Subject: goes\n\nbefore the checkpoint\n";
const LOGGED: &[u8] = b"Subject: logged\n\nafter the checkpoint\n";

fn long() -> Vec<u8> {
    [b"Subject: long\n\n".to_vec(), b"a line that comes again and again\n".repeat(2000)].concat()
}

/// A store with a row of every kind, some of them in the log only, as a kill leaves it.
fn make_sample() -> Arc<SimulatedDisk> {
    let disk = Arc::new(SimulatedDisk::default());
    let store = Store::create_on(disk.clone()).unwrap();
    let set = store.write(|tx| {
        let _ = tx.add_domain(&"example.com".parse().unwrap(), UnixTime(0x901))?;
        let _ = tx.add_mailbox(&address(ANN), mailbox().credential, UnixTime(0x902))?;
        let _ = tx.add_mailbox(&address(BEA), credential(), UnixTime(0x903))?;
        let _ = tx.set_quota(&address(ANN), &address(ANN), Some(1 << 30))?;
        tx.set_setting("banner", Some("ready"))?;
        tx.set_certificate(&certificate(PrivateKey::Sealed(sealed())))?;
        tx.note_login(&address(ANN), MailboxId(OwnerId(2)), UnixTime(0x910))?;
        tx.totals_mut().key = store_row().key;
        Ok(())
    });
    set.wait().unwrap();
    let deliver = |recipients: &[&str], content: &[u8], tag, now| {
        let letters: Vec<Letter> = recipients.iter().map(|recipient| letter(recipient, tag)).collect();
        let mut receiver = Receiver::content(crate::wire::LineEnds::Normalise, 1 << 20);
        receiver.push(content);
        let content = Incoming::from(receiver.finish().unwrap());
        let stored = store.write(move |tx| tx.deliver(&content, &letters, UnixTime(now))).wait().unwrap();
        assert!(stored.iter().all(|verdict| *verdict == Delivery::Stored));
    };
    deliver(&[ANN, BEA], OF_BOTH, 0x904, 0x905);
    deliver(&[ANN], GOES, 0x906, 0x907);
    deliver(&[ANN], IN_UTF8, 0x908, 0x909);
    deliver(&[ANN], &long(), 0x90a, 0x90b);
    let import = Import {
        text: text(IMPORTED),
        received: UnixTime(0x90f),
        unique_id: Some("its-id".to_owned()),
        repeat: 0,
        tag: 0x90e,
    };
    let import = store.write(move |tx| tx.import(&address(BEA), std::slice::from_ref(&import)));
    assert_eq!(import.wait().unwrap(), Ok(vec![Imported::Stored]));
    let deletions = store.write(|tx| {
        assert!(tx.delete_messages(&address(ANN), MailboxId(OwnerId(2)), &[2], Some(GONE))?);
        let _ = tx.add_domain(&address(CAT).domain, UnixTime(0x912))?;
        tx.add_mailbox(&address(CAT), credential(), UnixTime(0x913))
    });
    assert_eq!(deletions.wait().unwrap(), Ok(()));
    deliver(&[CAT], OF_CAT, 0x914, 0x915);
    assert!(
        store.write(|tx| tx.remove_domain(&address(CAT).domain, GONE_WITH_DOMAIN)).wait().unwrap().is_ok()
    );
    checkpoint(&store);
    deliver(&[BEA], LOGGED, 0x90c, 0x90d);
    assert!(store.write(|tx| tx.lock_mailbox(&address(BEA))).wait().unwrap().is_ok());
    Arc::new(disk.copy())
}

/// Checks that the sample holds what was put into it.
fn assert_sample(store: &Store) {
    let view = store.read().unwrap();
    assert_eq!(view.settings().unwrap(), [("banner".to_owned(), "ready".to_owned())]);
    let domain = DomainRow { id: DomainId(OwnerId(1)), locked: false, created: UnixTime(0x901) };
    assert_eq!(view.domains().unwrap(), [("example.com".parse().unwrap(), domain)]);
    let ann = MailboxRow {
        id: MailboxId(OwnerId(2)),
        locked: false,
        created: UnixTime(0x902),
        quota: Some(ANN.to_owned()),
        last_login: Some(UnixTime(0x910)),
        ..mailbox()
    };
    let (id, created) = (MailboxId(OwnerId(3)), UnixTime(0x903));
    let bea =
        MailboxRow { id, locked: true, created, credential: credential(), quota: None, last_login: None };
    let mailboxes = view.mailboxes(&"example.com".parse().unwrap()).unwrap();
    assert_eq!(mailboxes, [("ann".parse().unwrap(), ann.clone()), ("bea".parse().unwrap(), bea.clone())]);
    assert!(view.certificate().unwrap() == Some(certificate(PrivateKey::Sealed(sealed()))));
    let message = |mailbox: MailboxId, number| {
        let row = view.message(mailbox, number).unwrap().expect("it is there");
        let text = view.text(row.text).unwrap().expect("a message has its text");
        let wire = view.container().view_blob(text.at, text.wire_octets as usize).unwrap();
        assert_eq!(blake3::hash(&wire).as_bytes(), &text.hash);
        (row, text.references, crate::wire::unstuff(&wire).to_vec())
    };
    let contents = [
        (ann.id, 1, OF_BOTH.to_vec(), 2, 0x904),
        (ann.id, 3, IN_UTF8.to_vec(), 1, 0x908),
        (ann.id, 4, long(), 1, 0x90a),
        (bea.id, 1, OF_BOTH.to_vec(), 2, 0x904),
        (bea.id, 2, IMPORTED.to_vec(), 1, 0x90e),
        (bea.id, 3, LOGGED.to_vec(), 1, 0x90c),
    ];
    let mut octets = [0, 0];
    for (mailbox, number, content, references, tag) in contents {
        let (row, referred, stored) = message(mailbox, number);
        assert!(String::from_utf8_lossy(&stored).replace("\r\n", "\n").as_bytes() == content, "{tag:x}");
        assert_eq!((row.tag, row.received, referred), (tag, UnixTime(tag + 1), references));
        assert_eq!(row.octets, (row.prefix.len() + stored.len()) as u64);
        assert_eq!(row.surrogate_octets.is_some(), content == IN_UTF8);
        assert_eq!(row.foreign_id.as_deref(), (content == IMPORTED).then_some("its-id"));
        octets[usize::from(mailbox == bea.id)] += row.octets;
    }
    assert_eq!(view.message(ann.id, 2).unwrap(), None);
    assert_deleted(&view, ann.id);
    let of_ann = view.counts(ann.id).unwrap();
    assert_eq!((of_ann.messages, of_ann.octets, of_ann.next_sequence), (3, octets[0], 5));
    assert_eq!(view.counts(bea.id).unwrap().octets, octets[1]);
    assert_eq!(view.counts(domain_id()).unwrap().mailboxes, 2);
    let quota = QuotaRow { limit: Some(1 << 30), used: octets[0], mailboxes: 1 };
    assert_eq!(view.quota(ANN).unwrap(), Some(quota));
    let totals = view.totals().unwrap();
    assert_eq!((totals.domains, totals.mailboxes, totals.messages), (1, 2, 6));
    assert_eq!((totals.octets, totals.next_id), (octets[0] + octets[1], OwnerId(6)));
    assert_eq!(totals.next_text, TextId(7));
    assert_eq!(totals.key, store_row().key);
    drop(view);
    assert_clean(store);
}

/// Checks that deleted mail is there and can be restored.
fn assert_deleted(view: &Snapshot, ann: MailboxId) {
    let day = GONE.day();
    let row = view.table(DELETED).unwrap().get((day, ann, 2)).unwrap().expect("it is kept");
    let row = DeletedRow::from_row(row.value()).unwrap();
    let message = MessageRow::from_row(&row.message).unwrap();
    assert_eq!((row.deleted, message.tag, message.received), (GONE, 0x906, UnixTime(0x907)));
    let text = view.text(message.text).unwrap().expect("it has its text");
    let (of_day, cat) = ((day, OwnerId(4)), MailboxId(OwnerId(5)));
    assert_eq!((text.references, message.octets), (1, (message.prefix.len() + GOES.len() + 3) as u64));
    let counts = view.table(DELETED_COUNTS).unwrap().get(day).unwrap().expect("it is counted");
    let octets = message.octets;
    assert!(DeletedCounts::from_row(counts.value()) == Ok(DeletedCounts { messages: 1, octets }));
    let domain = view.table(REMOVED_DOMAINS).unwrap().get(of_day).unwrap().expect("it is kept");
    let domain = RemovedDomainRow::from_row(domain.value()).unwrap();
    let row = DomainRow { id: DomainId(OwnerId(4)), locked: false, created: UnixTime(0x912) };
    let removed = GONE_WITH_DOMAIN;
    assert!(domain == RemovedDomainRow { domain: "gone.example".to_owned(), removed, row: row.to_row() });
    let mailbox = view.table(REMOVED_MAILBOXES).unwrap().get((day, cat)).unwrap().expect("it is kept");
    let mailbox = RemovedMailboxRow::from_row(mailbox.value()).unwrap();
    let (created, credential) = (UnixTime(0x913), credential());
    let row = MailboxRow { id: cat, locked: false, created, credential, quota: None, last_login: None };
    let expected = RemovedMailboxRow {
        domain: "gone.example".to_owned(),
        local: "cat".to_owned(),
        removed,
        with: Some(DomainId(OwnerId(4))),
        quota_limit: None,
        mailbox: row.to_row(),
    };
    assert!(mailbox == expected);
    assert_eq!(view.message(cat, 1).unwrap().expect("it is kept").tag, 0x914);
}

fn domain_id() -> DomainId {
    DomainId(OwnerId(1))
}

/// Today's program makes a file like the sample. If [`NEW_SAMPLE`] is set, writes it there.
#[test]
fn a_sample_is_what_it_is_said_to_be() {
    let made = packed(&make_sample());
    if let Some(path) = std::env::var_os(NEW_SAMPLE) {
        std::fs::write(path, &made).unwrap();
    }
    let rows = open_sample(&made);
    for table in tables::LIST {
        assert!(rows.iter().any(|(name, ..)| *name == table.name), "no row of the table {}", table.name);
    }
}

/// Every later version must pass this test: it opens the files of all earlier ones.
#[test]
fn a_file_of_an_older_program_is_opened_and_has_everything() {
    open_sample(SAMPLE);
}

/// Opens a sample as the kill left it and returns the rows of all tables.
fn open_sample(packed: &[u8]) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let directory = scratch::directory();
    let path = directory.path().join("winpop.db");
    let options = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    unpack(packed, &options.unwrap());
    let rows = {
        let store = Store::open(&path).unwrap();
        assert_sample(&store);
        tables::every_row(&store.read().unwrap()).unwrap()
    };
    // The logged changes are in the index now.
    assert_sample(&Store::open(&path).unwrap());
    rows
}
