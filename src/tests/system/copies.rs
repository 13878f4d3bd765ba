//! Plain copies of the data file while the service runs, made with everyday programs.
//!
//! `POP3SVC_COPIES` sets how many slow ones are made.

use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::backup::{BOB, contents_in, numbered, restored, stopped_with};
use super::client::Lmtp;
use super::service::{Service, eventually};
use crate::harness::programs::have;
use crate::harness::site::Site;

/// Her mail comes and goes, which frees space to be reused.
const ANN: &str = "ann@example.com";
/// What the log says of a copy when it is first opened.
const VERIFIES: &str = "verifying all of it before using it";
/// Number of pieces of the slow copy.
const PIECES: usize = 40;
/// Slow copies made by the tests of every day: one by each program.
const SLOW_COPIES: usize = 3;
/// Slow copies of one service. Its mail grows meanwhile, and all of it is compared in each copy.
const SLOW_COPIES_OF_ONE: usize = 6;

/// Both mailboxes, served; deleted mail leaves its space at once.
fn served() -> (Site, Service) {
    let mut site = Site::new();
    [BOB, ANN].iter().for_each(|mailbox| site.add_mailbox(mailbox));
    site.winpop(&["set", "undelete", "0"]);
    let service = site.start();
    (site, service)
}

/// Runs `work` while Bob gets numbered messages, and Ann gets others and deletes them. `work` is told how many Bob has.
fn under_load<T>(service: &Service, work: impl FnOnce(&AtomicUsize) -> T) -> T {
    let (acknowledged, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        // Also if `work` panics: the scope waits for the others.
        let _end = End(&enough);
        scope.spawn(|| {
            let mut lmtp = Lmtp::connect(service.ports().lmtp).unwrap();
            while !enough.load(Ordering::Acquire) {
                lmtp.store(BOB, &numbered(acknowledged.load(Ordering::Acquire)));
                acknowledged.fetch_add(1, Ordering::AcqRel);
            }
        });
        scope.spawn(|| {
            let mut lmtp = service.lmtp();
            for round in 0.. {
                if enough.load(Ordering::Acquire) {
                    break;
                }
                (0..20).for_each(|number| lmtp.store(ANN, &numbered(round * 37 + number * 50)));
                let mut pop3 = service.log_in(ANN);
                let count = pop3.count().unwrap();
                (1..=count).for_each(|number| pop3.delete(number).unwrap());
                pop3.quit().unwrap();
            }
        });
        work(&acknowledged)
    })
}

/// Sets the flag when dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Checks that the copy opens, is recognised as a copy, and has everything acknowledged before it was begun.
fn assert_good(name: &str, copy: &Path, acknowledged_before: usize) {
    let mut site = restored(copy);
    let contents = contents_in(&mut site);
    assert!(contents.len() >= acknowledged_before, "{name}: {} of {acknowledged_before}", contents.len());
    for (number, content) in contents.iter().enumerate() {
        assert!(*content == numbered(number), "{name}: message {number}");
    }
}

fn run(program: &str, words: &[&str], accepted: &[i32]) {
    let done = Command::new(program).args(words).output().unwrap();
    let code = done.status.code();
    assert!(code.is_some_and(|code| accepted.contains(&code)), "{program} {words:?}: {done:?}");
}

#[test]
fn cp_tar_and_rsync_of_a_service_under_load_make_good_copies() {
    let (site, service) = served();
    let rsync_is_there = have(&["rsync"]);
    let (file, dir) = (site.data_file(), site.dir().join("copies"));
    let in_copies = |name: &str| dir.join(name).to_string_lossy().into_owned();
    fs::create_dir(&dir).unwrap();
    let name_of = |path: &Path| path.to_string_lossy().into_owned();
    let mut copies = Vec::new();
    under_load(&service, |acknowledged| {
        let mut make = |name: &str, program: &str, words: &[&str], accepted: &[i32]| {
            let enough = acknowledged.load(Ordering::Acquire) + 30;
            eventually("some more mail is there", || acknowledged.load(Ordering::Acquire) >= enough);
            let before = acknowledged.load(Ordering::Acquire);
            run(program, words, accepted);
            copies.push((name.to_owned(), before));
        };
        make("cp", "cp", &[&name_of(&file), &in_copies("cp")], &[0]);
        let (parent, last) = (name_of(file.parent().unwrap()), name_of(Path::new(file.file_name().unwrap())));
        // Without -S, which is for files at rest (`open/window.rs`). tar exits with 1 if the file has changed.
        make("tar", "tar", &["-C", &parent, "-cf", &in_copies("archive"), &last], &[0, 1]);
        if rsync_is_there {
            make("rsync", "rsync", &[&name_of(&file), &in_copies("rsync")], &[0]);
            make("sparse", "rsync", &["--sparse", &name_of(&file), &in_copies("sparse")], &[0]);
            // Over an older copy, whose contents rsync reuses.
            fs::copy(dir.join("cp"), dir.join("inplace")).unwrap();
            let words =
                ["--ignore-times", "--inplace", "--no-whole-file", &name_of(&file), &in_copies("inplace")];
            make("inplace", "rsync", &words, &[0]);
        }
    });
    run("tar", &["-C", &in_copies(""), "-xf", &in_copies("archive")], &[0]);
    fs::rename(dir.join("winpop.db"), dir.join("tar")).unwrap();
    service.stop();
    for (name, before) in copies {
        assert_good(&name, &dir.join(&name), before);
    }
}

/// Each takes a few seconds and must hold what was acknowledged before.
#[test]
fn slow_copies_by_cp_tar_and_rsync_of_a_service_under_load_are_good() {
    let asked = std::env::var("POP3SVC_COPIES").ok().map(|typed| typed.parse().expect("a number"));
    let wanted: usize = asked.unwrap_or(SLOW_COPIES);
    let programs = if have(&["rsync"]) { &["cp", "tar", "rsync"][..] } else { &["cp", "tar"] };
    let numbers: Vec<usize> = (0..wanted).collect();
    for numbers in numbers.chunks(SLOW_COPIES_OF_ONE) {
        let (site, service) = served();
        let copies = under_load(&service, |acknowledged| {
            let enough = acknowledged.load(Ordering::Acquire) + 100;
            eventually("some mail is there", || acknowledged.load(Ordering::Acquire) >= enough);
            let make = |number: &usize| {
                let before = acknowledged.load(Ordering::Acquire);
                let name = format!("{}-{number}", programs[number % programs.len()]);
                let seconds = 2 + *number as u64 / programs.len() as u64 % 5;
                copy_slowly(programs[number % programs.len()], &site, &name, seconds);
                assert!(acknowledged.load(Ordering::Acquire) > before, "{name}: no mail came meanwhile");
                (name, before)
            };
            numbers.iter().map(make).collect::<Vec<_>>()
        });
        service.stop();
        for (name, before) in copies {
            let copy = site.dir().join(&name);
            assert_good(&name, &copy, before);
            fs::remove_file(copy).unwrap();
            if asked.is_some() {
                println!("{name} is good");
            }
        }
    }
}

/// Copies the data file with a program, slowed down to take about this long.
fn copy_slowly(program: &str, site: &Site, name: &str, seconds: u64) {
    let begun = Instant::now();
    let (file, copy) = (site.data_file(), site.dir().join(name));
    let octets_per_second = fs::metadata(&file).unwrap().len() / seconds;
    let mut command = Command::new(program);
    match program {
        "cp" => command.arg(&file).arg("/dev/stdout"),
        "tar" => {
            command.arg("-C").arg(file.parent().unwrap()).args(["-cf", "-"]).arg(file.file_name().unwrap())
        }
        "rsync" => command.arg(format!("--bwlimit={}", octets_per_second >> 10)).arg(&file).arg(&copy),
        other => panic!("{other} is not known here"),
    };
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let from = child.stdout.take().unwrap();
    match program {
        "cp" => read_slowly(from, &copy, octets_per_second),
        "tar" => {
            let archive = site.dir().join("archive");
            read_slowly(from, &archive, octets_per_second);
            let to = fs::File::create(&copy).unwrap();
            let unpacked = Command::new("tar").arg("-xOf").arg(&archive).stdout(to).status().unwrap();
            assert!(unpacked.success());
            fs::remove_file(archive).unwrap();
        }
        _ => {}
    }
    // tar exits with 1 if the file has changed.
    let code = child.wait().unwrap().code();
    assert!(code == Some(0) || program == "tar" && code == Some(1), "{program}: {code:?}");
    assert!(begun.elapsed() >= Duration::from_secs(seconds) / 2, "{name} took only {:?}", begun.elapsed());
}

/// Writes to a file what comes from a pipe, and reads that no faster than this.
fn read_slowly(mut from: impl Read, to: &Path, octets_per_second: u64) {
    let (mut to, begun, mut octets) = (fs::File::create(to).unwrap(), Instant::now(), 0);
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut piece).unwrap();
        if count == 0 {
            return;
        }
        to.write_all(&piece[..count]).unwrap();
        octets += count as u64;
        let due = begun + Duration::from_micros(octets * 1_000_000 / octets_per_second);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// The copy takes long, and is restored over its original.
#[test]
fn a_slow_copy_is_good_and_can_be_written_over_the_file_that_it_was_made_of() {
    let (mut site, service) = served();
    let copy = site.dir().join("slow");
    let before = under_load(&service, |acknowledged| {
        eventually("some mail is there", || acknowledged.load(Ordering::Acquire) >= 100);
        let before = acknowledged.load(Ordering::Acquire);
        let mut from = fs::File::open(site.data_file()).unwrap();
        let mut to = fs::File::create(&copy).unwrap();
        let octets = from.metadata().unwrap().len();
        for _ in 0..PIECES {
            let so_far = acknowledged.load(Ordering::Acquire);
            let mut piece = Vec::new();
            (&mut from).take(octets / PIECES as u64 + 1).read_to_end(&mut piece).unwrap();
            to.write_all(&piece).unwrap();
            eventually("more mail came meanwhile", || acknowledged.load(Ordering::Acquire) >= so_far + 10);
        }
        std::io::copy(&mut from, &mut to).unwrap();
        before
    });
    let stat = site.winpop(&["stat"]);
    assert!(stat.contains("Copies     usable if made in less than 45 s; "), "{stat}");
    service.stop();
    assert_good("slow", &copy, before);
    fs::copy(&copy, site.data_file()).unwrap();
    let contents = contents_of(&mut site);
    assert!(contents.len() >= before, "{} of {before}", contents.len());
}

fn contents_of(site: &mut Site) -> Vec<Vec<u8>> {
    let service = site.start();
    let contents = service.log_in(BOB).contents().unwrap();
    service.stop();
    contents
}

#[test]
fn copies_are_recognised_and_bad_ones_are_not_served() {
    let site = stopped_with(50);
    let mut copied = restored(&site.data_file());
    fs::copy(copied.data_file(), copied.dir().join("again")).unwrap();
    fs::rename(copied.dir().join("again"), copied.data_file()).unwrap();
    let service = copied.start();
    service.wait_for_log(&format!("is a copy, or was restored from one: {VERIFIES}"));
    service.wait_for_log("is intact: 50 messages");
    service.terminate();
    service.wait();
    // Once is enough.
    let service = copied.start();
    service.terminate();
    let (_, log) = service.wait();
    assert!(!log.contains(VERIFIES), "{log}");

    let mut octets = fs::read(site.data_file()).unwrap();
    let text = octets.windows(12).rposition(|octets| octets == b"Subject: 37\r").unwrap();
    octets[text] = b's';
    let bad = Site::without_store();
    fs::create_dir(bad.mailroot()).unwrap();
    fs::write(bad.data_file(), &octets).unwrap();
    let done = bad.run(&["winpop", "list"]);
    assert_eq!(done.exit_code, 1, "{done:?}");
    assert!(done.errors.contains("is an incomplete copy (text "), "{}", done.errors);
    assert_eq!(done.errors.lines().count(), 1, "{}", done.errors);
    bad.run(&["check", "--repair"]);
    bad.succeed(&["winpop", "list"]);
}

#[test]
fn space_is_given_back_while_the_service_is_under_load_and_while_it_is_stopped() {
    let (mut site, service) = served();
    // Enough to be worth compacting, after most of it is deleted.
    let large = "of which much is needed ".repeat(20_000);
    for number in 0..60 {
        service.lmtp().store(ANN, format!("Subject: {number}\r\n\r\n{number}{large}\r\n").as_bytes());
    }
    let mut pop3 = service.log_in(ANN);
    (1..60).for_each(|number| pop3.delete(number).unwrap());
    pop3.quit().unwrap();
    let on_disk = || fs::metadata(site.data_file()).unwrap().blocks() * 512;
    let before = on_disk();
    let bobs = under_load(&service, |acknowledged| {
        eventually("some mail is there", || acknowledged.load(Ordering::Acquire) >= 50);
        let told = site.succeed(&["compact"]);
        assert!(told.contains(" on disk, was "), "{told}");
        acknowledged.load(Ordering::Acquire)
    });
    assert!(on_disk() < before - (16 << 20), "{} of {before}", on_disk());
    site.succeed(&["check"]);
    service.stop();
    let told = site.succeed(&["--json", "compact"]);
    assert!(told.contains("\"moved_octets\":"), "{told}");
    site.assert_clean();
    let contents = contents_of(&mut site);
    assert!(contents.len() >= bobs);
    for (number, content) in contents.iter().enumerate() {
        assert!(*content == numbered(number), "message {number}");
    }
}
