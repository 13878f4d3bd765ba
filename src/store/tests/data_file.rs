//! The real file: its lock, its bounds, its holes, and files that are not a store.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use super::*;
use crate::store::upkeep::backup::BackupError;

const ANN: &str = "ann@example.com";

fn kind_of(outcome: Result<Store, OpenError>) -> OpenErrorKind {
    match outcome {
        Ok(_) => panic!("it was opened"),
        Err(e) => e.kind,
    }
}

#[test]
fn a_store_is_created_once_locked_while_open_and_private() {
    let directory = scratch::directory();
    let path = directory.path().join("winpop.db");
    assert!(matches!(kind_of(Store::open(&path)), OpenErrorKind::Missing));
    assert!(!path.exists());
    let store = Store::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(kind_of(Store::open(&path)), OpenErrorKind::Locked));
    assert!(matches!(kind_of(Store::create(&path)), OpenErrorKind::Locked));
    assert!(matches!(
        Store::repair(&path, UnixTime(1), &Progress::default()).map_err(|e| e.kind),
        Err(OpenErrorKind::Locked)
    ));
    add_mailbox(&store, ANN);
    deliver(&store, &[ANN], b"kept");
    drop(store);
    assert!(matches!(kind_of(Store::create(&path)), OpenErrorKind::AlreadyExists));
    assert!(Store::check_file(&path, &Progress::default()).unwrap().is_clean());
    let store = Store::open(&path).unwrap();
    assert_eq!(contents(&store, ANN).len(), 1);
    assert_clean(&store);
}

/// Following a link, root would read, write or create a file chosen by someone else.
#[test]
fn a_symbolic_link_is_not_followed() {
    let directory = scratch::directory();
    let (path, target) = (directory.path().join("winpop.db"), directory.path().join("elsewhere"));
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let refused = |outcome| match kind_of(outcome) {
        OpenErrorKind::Io(error) => assert!(error.to_string().contains("symbolic link"), "{error}"),
        kind => panic!("{kind:?}"),
    };
    refused(Store::create(&path));
    assert!(!target.exists(), "nothing was made through it");
    drop(Store::create(&target).unwrap());
    let before = fs::read(&target).unwrap();
    refused(Store::open(&path));
    refused(Store::create(&path));
    assert!(Store::repair(&path, UnixTime(1), &Progress::default()).is_err());
    assert!(fs::read(&target).unwrap() == before);
}

#[test]
fn a_lock_of_another_process_holds() {
    let directory = scratch::directory();
    let path = directory.path().join("winpop.db");
    drop(Store::create(&path).unwrap());
    // It prints a word when it has the lock, and ends when told to.
    let mut other = Command::new("flock")
        .arg(&path)
        .args(["sh", "-c", "echo locked; read end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut word = [0; 7];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut word).unwrap();
    assert!(matches!(kind_of(Store::open(&path)), OpenErrorKind::Locked));
    drop(other.stdin.take());
    other.wait().unwrap();
    drop(Store::open(&path).unwrap());
}

#[test]
fn a_file_that_is_no_store_is_reported_and_left_alone() {
    let directory = scratch::directory();
    let path = directory.path().join("other");
    for (content, is_right) in [
        (vec![], (|kind| matches!(kind, OpenErrorKind::Missing)) as fn(&OpenErrorKind) -> bool),
        (b"From ann Thu Jan  1 00:00:00 1970\n".repeat(100), |kind| matches!(kind, OpenErrorKind::NotAStore)),
        (vec![b'x'; 10 << 20], |kind| matches!(kind, OpenErrorKind::NotAStore)),
        // Like the start of a disk image.
        (vec![0; 20 << 20], |kind| matches!(kind, OpenErrorKind::NotAStore)),
    ] {
        fs::write(&path, &content).unwrap();
        let kind = kind_of(Store::open(&path));
        assert!(is_right(&kind), "{} octets: {kind:?}", content.len());
        if !content.is_empty() {
            kind_of(Store::create(&path));
        }
        assert!(fs::read(&path).unwrap() == content, "it was changed");
    }
}

#[test]
fn a_file_newer_than_the_program_or_older_than_the_first_release_is_refused() {
    let disk = Arc::new(SimulatedDisk::default());
    drop(store_with(&[ANN], disk.clone()));
    for header in [0, 32 << 10] {
        disk.write_at(header + 16, &(format::VERSION + 1).to_le_bytes()).unwrap();
    }
    assert!(matches!(Store::open_on(disk.clone()), Err(OpenErrorKind::Newer { version: 3 })));
    assert!(matches!(Store::create_on(disk.clone()), Err(OpenErrorKind::Newer { version: 3 })));
    for header in [0, 32 << 10] {
        disk.write_at(header + 16, &1u32.to_le_bytes()).unwrap();
    }
    assert!(matches!(Store::open_on(disk.clone()), Err(OpenErrorKind::Older { version: 1 })));
    assert!(matches!(Store::create_on(disk), Err(OpenErrorKind::Older { version: 1 })));
}

#[test]
fn one_lost_header_or_superblock_costs_nothing() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    let fields = format!("Received: {}\r\n", "x".repeat(40_000)).into_bytes();
    for tag in 0..60 {
        let letters = [Letter { prefix: fields.clone(), ..letter(ANN, tag) }];
        assert!(store.write(move |tx| tx.deliver(&text(b"x"), &letters, UnixTime(1))).wait().is_ok());
    }
    drop(store);
    let places = [format::HEADERS, format::SLOTS].concat();
    for at in places {
        let len = 4096;
        let damaged = Arc::new(disk.copy());
        damaged.write_at(at, &vec![0; len]).unwrap();
        assert!(Store::create_on(damaged.clone()).is_err(), "a store that lost {at} is made anew");
        // The older superblock may not suffice without the newer one. Then the file must not open, rather than lose
        // mail.
        match Store::open_on(damaged) {
            Ok(store) => {
                assert_clean(&store);
                assert_eq!(open_maildrop(&store, ANN).list().unwrap().len(), 60);
            }
            Err(e) => assert!(format::SLOTS.contains(&at), "{at}: {e}"),
        }
    }
}

/// A superblock with a valid checksum that places an extent at the end of the largest possible file.
#[test]
fn a_forged_superblock_makes_no_file_grow() {
    let disk = Arc::new(SimulatedDisk::default());
    let store = store_with(&[ANN], disk.clone());
    deliver(&store, &[ANN], b"text");
    drop(store);
    let len = disk.file_len();
    for place in [(len >> 20) as u32, 1 << 20, u32::MAX - 1] {
        for index_len in [None, Some(u64::MAX), Some(1 << 50)] {
            let forged = Arc::new(disk.copy());
            container::forge_superblock(&*forged, format::Extent(place), index_len);
            let before = forged.octets();
            // Whether it opens or not, everything it needs is still where it was.
            if let Ok(store) = Store::open_to_check_on(forged.clone(), Trust::Verified) {
                let _ = store.check(&Progress::default());
            }
            assert!(forged.octets() == before, "{place}, {index_len:?}: a check changed the file");
            drop(Store::open_on(forged.clone()));
            assert!(forged.file_len() < len + 10 * format::EXTENT, "{place}: {}", forged.file_len());
        }
    }
}

#[test]
fn a_check_changes_no_octet_of_the_file() {
    let directory = scratch::directory();
    let path = directory.path().join("winpop.db");
    let store = Store::create(&path).unwrap();
    add_mailbox(&store, ANN);
    deliver(&store, &[ANN], b"text");
    // As after a crash: redb has to recover, and may do so in memory only.
    fs::copy(&path, directory.path().join("unclean.db")).unwrap();
    drop(store);
    fs::copy(&path, directory.path().join("read only.db")).unwrap();
    fs::set_permissions(directory.path().join("read only.db"), fs::Permissions::from_mode(0o400)).unwrap();
    for name in ["winpop.db", "unclean.db", "read only.db"] {
        let path = directory.path().join(name);
        let (before, modified) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
        assert!(Store::check_file(&path, &Progress::default()).unwrap().is_clean(), "{name}");
        assert!(fs::read(&path).unwrap() == before, "{name}");
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), modified, "{name}");
    }
}

#[test]
fn a_file_cut_short_does_not_open_as_if_it_were_whole() {
    let directory = scratch::directory();
    let path = directory.path().join("winpop.db");
    let store = Store::create(&path).unwrap();
    add_mailbox(&store, ANN);
    for number in 0..30 {
        deliver(&store, &[ANN], format!("{number}{}", "x".repeat(200_000)).as_bytes());
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    for part in 1..16 {
        fs::write(&path, &whole[..whole.len() * part / 16]).unwrap();
        if let Ok(store) = Store::open(&path) {
            assert!(
                !store.check(&Progress::default()).is_ok_and(|report| report.is_clean()),
                "{part} of 16 parts"
            );
        }
    }
}

#[test]
fn a_view_has_bounds_and_is_fetched() {
    let directory = scratch::directory();
    let file =
        DataFile::open(&directory.path().join("file"), true).unwrap_or_else(|_| panic!("it can be made"));
    file.set_len(1 << 20).unwrap();
    file.write_at(5000, b"octets").unwrap();
    assert_eq!(&file.view(5000, 6).unwrap()[..], b"octets");
    for (at, len) in [(1 << 20, 1), ((1 << 20) - 1, 2), (u64::MAX, 1), (0, usize::MAX)] {
        assert!(file.view(at, len).is_err(), "{at}, {len}");
    }
    let whole = file.view(0, 1 << 20).unwrap();
    whole.fetch().unwrap();
    assert!(whole.is_resident());
    assert!(file.view(1 << 20, 0).unwrap().is_resident());
}

#[test]
fn a_hole_gives_its_blocks_back_and_a_reserve_takes_them() {
    let directory = scratch::directory();
    let path = directory.path().join("file");
    let file = DataFile::open(&path, true).unwrap_or_else(|_| panic!("it can be made"));
    let blocks = || fs::metadata(&path).unwrap().blocks() * 512;
    file.set_len(8 << 20).unwrap();
    assert_eq!(blocks(), 0, "growth takes nothing");
    file.write_at(0, &vec![1; 4 << 20]).unwrap();
    file.sync().unwrap();
    assert!(blocks() >= 4 << 20);
    file.punch(1 << 20, 2 << 20).unwrap();
    assert!(blocks() <= (2 << 20) + 65_536, "{}", blocks());
    assert!(file.view(1 << 20, 2 << 20).unwrap().iter().all(|octet| *octet == 0));
    assert_eq!(file.view(0, 1 << 20).unwrap()[(1 << 20) - 1], 1);
    assert_eq!(file.view(3 << 20, 1).unwrap()[0], 1);
    file.reserve_zeroed(4 << 20, 1 << 20).unwrap();
    assert!(blocks() >= 3 << 20);
    assert_eq!(file.len().unwrap(), 8 << 20);
    assert_eq!(file.usage().unwrap().allocated_octets, blocks());
}

#[test]
fn the_space_of_deleted_mail_goes_back_to_the_file_system() {
    let directory = scratch::directory();
    let path = directory.path().join("winpop.db");
    let store = Store::create(&path).unwrap();
    keep_deleted(&store, "0");
    add_mailbox(&store, ANN);
    // Each is too short to be punched alone.
    for number in 0..400 {
        deliver(&store, &[ANN], format!("{number}{}", "x".repeat(20_000)).as_bytes());
    }
    let full = store.disk_usage().unwrap().allocated_octets;
    let maildrop = open_maildrop(&store, ANN);
    let entries = maildrop.list().unwrap();
    for part in [entries.iter().step_by(2).collect::<Vec<_>>(), entries.iter().skip(1).step_by(2).collect()] {
        let uids: Vec<_> = part.iter().map(|entry| entry.uid).collect();
        assert!(maildrop.delete(&uids).wait().unwrap());
    }
    checkpoint(&store);
    let empty = store.disk_usage().unwrap().allocated_octets;
    assert!(full - empty > 400 * 20_000 * 9 / 10, "{full} before, {empty} after");
    assert_clean(&store);
}

#[test]
fn a_backup_may_replace_a_backup_and_nothing_else() {
    let directory = scratch::directory();
    let (path, copy) = (directory.path().join("winpop.db"), directory.path().join("copy.db"));
    let store = Store::create(&path).unwrap();
    add_mailbox(&store, ANN);
    deliver(&store, &[ANN], b"first");
    assert!(may_replace(&copy).is_ok());
    back_up(&store, &copy);
    assert_eq!(contents(&Store::open(&copy).unwrap(), ANN), contents(&store, ANN));
    assert!(Store::check_file(&copy, &Progress::default()).unwrap().is_clean());
    assert!(may_replace(&copy).is_ok());

    let foreign = directory.path().join("letter.txt");
    fs::write(&foreign, "Dear Ann").unwrap();
    assert!(matches!(may_replace(&foreign), Err(NotReplaced::Foreign)));
    assert!(matches!(may_replace(directory.path()), Err(NotReplaced::Foreign)));
    // Neither the store itself, nor another one in use.
    assert!(matches!(may_replace(&path), Err(NotReplaced::InUse)));
}

#[test]
fn a_backup_goes_into_an_empty_file_only() {
    let directory = scratch::directory();
    let store = Store::create(&directory.path().join("winpop.db")).unwrap();
    let foreign = directory.path().join("letter.txt");
    fs::write(&foreign, "Dear Ann").unwrap();
    let open = |options: &mut fs::OpenOptions| options.open(&foreign).unwrap();
    assert!(matches!(
        store.backup(open(fs::OpenOptions::new().read(true).write(true)), &Progress::default()),
        Err(BackupError::Copy(_))
    ));
    assert_eq!(fs::read(&foreign).unwrap(), b"Dear Ann");
    // It must be open for reading and writing.
    fs::write(&foreign, "").unwrap();
    assert!(matches!(
        store.backup(open(fs::OpenOptions::new().read(true)), &Progress::default()),
        Err(BackupError::Copy(_))
    ));
    assert!(matches!(
        store.backup(open(fs::OpenOptions::new().write(true)), &Progress::default()),
        Err(BackupError::Copy(_))
    ));
    assert!(matches!(
        store.backup(fs::File::open("/dev/null").unwrap(), &Progress::default()),
        Err(BackupError::Copy(_))
    ));
}

/// Between opening the file and locking it, a restore may replace it.
#[test]
fn a_file_that_another_one_has_replaced_is_told_apart() {
    let directory = scratch::directory();
    let (path, other) = (directory.path().join("winpop.db"), directory.path().join("other"));
    let open = |path: &Path| fs::File::options().read(true).write(true).create_new(true).open(path).unwrap();
    let Ok(file) = DataFile::empty(open(&path)) else { panic!("it is locked") };
    assert!(file.lies_at(&path));
    drop(open(&other));
    fs::rename(&other, &path).unwrap();
    assert!(!file.lies_at(&path));
}
