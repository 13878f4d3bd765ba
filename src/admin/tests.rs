//! What the `winpop` transcripts cannot test: the part of a running service, and other mail roots.

use std::cell::RefCell;
use std::fs;

use super::commands::{Get, Set};
use super::reply::{Changed, Code, Connections};
use super::*;
use crate::lock::Mutex;
use crate::mailroot::data_file;
use crate::tests::bench::Bench;
use crate::tests::skip::needs_root;

impl Bench {
    fn run(&self, op: &Op, service: Option<&dyn Service>) -> Result<Reply, Refusal> {
        self.run_on(&self.store, op, service)
    }

    fn run_on(&self, store: &Store, op: &Op, service: Option<&dyn Service>) -> Result<Reply, Refusal> {
        let keyring = Keyring::open(store, &self.mailroot).unwrap();
        op.run(store, &Context::of_now(&self.mailroot, &keyring, service).unwrap())
    }

    fn set(&self, key: &str, value: &str, service: Option<&dyn Service>) -> Result<Changed, Refusal> {
        match self.run(&set(key, value, false), service)? {
            Reply::Changed(changed) => Ok(changed),
            other => panic!("{other:?}"),
        }
    }

    /// `set mailroot` as the tool carries it out while a service runs.
    fn set_while_served(&self, op: &Op) -> Result<Reply, Refusal> {
        let Op::Set(set) = op else { panic!() };
        let Reply::Settings { settings } = self.run(&Op::Get(Get { key: None }), None)? else { panic!() };
        set_mailroot(set, &Present::told(&settings, false)?, &self.mailroot)
    }

    fn get(&self, key: &str) -> String {
        match self.run(&Op::Get(Get { key: Some(key.to_owned()) }), None) {
            Ok(Reply::Settings { settings }) => settings[0].value.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

fn set(key: &str, value: &str, move_mail: bool) -> Op {
    Op::Set(Set { key: key.to_owned(), values: vec![value.to_owned()], move_mail, force: false })
}

/// A service that records the ports it should use, and refuses one.
#[derive(Default)]
struct Listening {
    taken: u32,
    applied: RefCell<Vec<(u32, u32)>>,
    turn: Mutex<()>,
}

impl Service for Listening {
    fn state(&self) -> reply::ServiceState {
        reply::ServiceState { running: true, ..Default::default() }
    }

    fn connections(&self) -> Connections {
        Connections { open: 1, waiting: 2, refused: 3, ..Connections::default() }
    }

    fn accounts(&self) -> Result<Option<Arc<dyn Directory>>, String> {
        Ok(None)
    }

    fn directory(&self) -> Option<reply::DirectoryLine> {
        None
    }

    fn turn_to_change_settings(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    fn apply(&self, before: &Settings, after: &Settings) -> Result<(), String> {
        assert!(self.turn.try_lock().is_none(), "settings are put into effect one change at a time");
        if after.port.get() == self.taken {
            return Err(format!("port {} is taken by another program", after.port));
        }
        self.applied.borrow_mut().push((before.port.get(), after.port.get()));
        Ok(())
    }
}

#[test]
fn a_setting_is_in_effect_before_it_is_stored() {
    let bench = Bench::new();
    let service = Listening::default();
    bench.set("port", "1110", Some(&service)).unwrap();
    assert_eq!(*service.applied.borrow(), [(110, 1110)]);
    assert_eq!(bench.get("port"), "1110");
}

#[test]
fn a_setting_the_service_refuses_is_not_stored() {
    let bench = Bench::new();
    let service = Listening { taken: 1110, ..Listening::default() };
    let refusal = bench.set("port", "1110", Some(&service)).unwrap_err();
    assert_eq!(refusal.to_string(), "port 1110 is taken by another program");
    assert_eq!(bench.get("port"), "110");
}

#[test]
fn a_new_mail_root_gets_a_store_with_the_current_settings() {
    let bench = Bench::new();
    bench.set("port", "1110", None).unwrap();
    let new = bench.home.join("elsewhere/mail");
    let changed = bench.set("mailroot", new.to_str().unwrap(), None).unwrap();
    assert_eq!(changed.notes, ["this takes effect when the service next starts"]);
    assert_eq!(bench.get("mailroot"), new.to_str().unwrap());

    let founded = Store::open(&data_file(&new)).unwrap();
    let answer = bench.run_on(&founded, &Op::Get(Get { key: None }), None);
    let Ok(Reply::Settings { settings }) = answer else { panic!() };
    assert!(settings.iter().any(|line| line.setting == "port" && line.value.to_string() == "1110"));
}

#[test]
fn a_store_already_in_the_new_mail_root_keeps_its_settings() {
    let bench = Bench::new();
    let other = Bench::new();
    other.set("port", "2110", None).unwrap();
    bench.set("mailroot", other.mailroot.dir.to_str().unwrap(), None).unwrap();
    assert_eq!(other.get("port"), "2110");
}

#[test]
fn mail_moves_only_when_told_to_and_only_while_stopped() {
    let bench = Bench::new();
    let new = bench.home.join("moved");
    let move_there = set("mailroot", new.to_str().unwrap(), true);
    assert_eq!(bench.set_while_served(&move_there).unwrap_err().code, Code::Busy);
    assert!(bench.mailroot.data_file().exists() && !new.exists());

    bench.run(&move_there, None).unwrap();
    assert!(!bench.mailroot.data_file().exists() && data_file(&new).exists());
    assert_eq!(bench.get("mailroot"), new.to_str().unwrap());

    let full = Bench::new();
    let onto = set("mailroot", new.to_str().unwrap(), true);
    assert_eq!(full.run(&onto, None).unwrap_err().code, Code::Exists);
    assert!(full.mailroot.data_file().exists());
}

#[test]
fn mail_does_not_move_if_the_pointer_cannot_be_written() {
    let block: [fn(&MailRoot); 2] = [
        // No draft can be made.
        |mailroot| {
            let config = mailroot.pointer.parent().unwrap().parent().unwrap();
            fs::write(config, "").unwrap();
        },
        // The draft cannot be renamed.
        |mailroot| fs::create_dir_all(&mailroot.pointer).unwrap(),
    ];
    for block in block {
        let bench = Bench::new();
        block(&bench.mailroot);
        let new = bench.home.join("moved");
        let refusal = bench.run(&set("mailroot", new.to_str().unwrap(), true), None).unwrap_err();
        assert!(
            refusal.message.ends_with("cannot be written: Is a directory (os error 21)")
                || refusal.message.ends_with("cannot be written: Not a directory (os error 20)"),
            "{refusal}"
        );
        assert!(bench.mailroot.data_file().exists() && bench.mailroot.key_file().exists());
        assert!(!data_file(&new).exists());
    }
}

#[test]
fn an_unusable_mail_root_changes_nothing() {
    let bench = Bench::new();
    for bad in ["relative", "//server/share", "\\\\server\\share", "/proc/nowhere", "/dev/null"] {
        assert!(bench.set("mailroot", bad, None).is_err(), "{bad}");
    }
    assert!(!bench.mailroot.pointer.exists());
}

#[test]
fn with_a_running_service_the_settings_go_to_the_new_store_and_a_note_says_which_is_used() {
    let bench = Bench::new();
    bench.set("port", "1110", None).unwrap();
    bench.set("quotalimit", "1GiB", None).unwrap();
    let new = bench.home.join("new");
    let Reply::Changed(changed) =
        bench.set_while_served(&set("mailroot", new.to_str().unwrap(), false)).unwrap()
    else {
        panic!()
    };
    assert!(changed.notes[1].starts_with("until then the service keeps using "), "{:?}", changed.notes);
    // The settings it reported are in the new store.
    let founded = Store::open(&data_file(&new)).unwrap();
    let get = |key: &str| match bench.run_on(&founded, &Op::Get(Get { key: Some(key.to_owned()) }), None) {
        Ok(Reply::Settings { settings }) => settings[0].value.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (get("port"), get("quotalimit"), get("tlsport")),
        ("1110".into(), (1u64 << 30).to_string(), "995".into())
    );
}

#[test]
fn mailroot_is_refused_if_the_unit_names_it() {
    let mut bench = Bench::new();
    bench.mailroot.named_by = crate::mailroot::NamedBy::Variable;
    let refusal = bench.set_while_served(&set("mailroot", "/nowhere/new", false)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the mail store of the running service is named by WINPOP_MAILROOT, which overrides this setting. Remove that \
         from its unit, restart it, and then set mailroot"
    );
    assert!(!bench.mailroot.pointer.exists());
}

#[test]
fn a_new_mail_root_belongs_to_the_owner_of_the_old_one() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    if !needs_root("giving files to another user") {
        return;
    }
    let bench = Bench::new();
    chown(&bench.mailroot.dir, Some(12345), Some(54321)).unwrap();
    let (new, disk) = (bench.home.join("new"), bench.home.join("disk"));
    fs::create_dir_all(disk.join("lost+found")).unwrap();
    for new in [new, disk] {
        let changed = bench.set("mailroot", new.to_str().unwrap(), None).unwrap();
        assert_eq!(changed.notes.len(), 1, "{:?}", changed.notes);
        for path in [data_file(&new), new] {
            let present = fs::metadata(&path).unwrap();
            assert_eq!((present.uid(), present.gid()), (12345, 54321), "{}", path.display());
        }
    }
    // A directory with files in it keeps its owner.
    let used = bench.home.join("used");
    fs::create_dir_all(used.join("letters")).unwrap();
    let used = used.to_str().unwrap();
    let changed = bench.set("mailroot", used, None).unwrap();
    let note = format!(
        "{used} belongs to the user root; if the service runs as number 12345: winpop set user 12345"
    );
    assert_eq!(changed.notes[1], note);
}

#[test]
fn a_store_is_created_only_for_a_command_that_can_be_carried_out() {
    let founds = |op: Op| op.founds_store();
    let add = |name: &str| {
        Op::Add(commands::Add { name: Some(name.to_owned()), createuser: None, file: None, passwords: None })
    };
    assert_eq!(founds(add("example.com")), Ok(true));
    assert_eq!(founds(add("bob@example.com")), Ok(false));
    assert!(founds(add("a..b")).is_err());
    assert_eq!(founds(set("port", "1110", false)), Ok(true));
    assert_eq!(founds(set("adbindpassword", "secret", false)), Ok(true));
    assert_eq!(founds(set("postmaster", "default", false)), Ok(true));
    assert_eq!(founds(set("postmaster", "ann@example.com", false)), Ok(false));
    assert!(founds(set("port", "0", false)).is_err());
    assert!(founds(set("tlscert", "/nowhere/cert.pem", false)).is_err());
    assert!(founds(set("prot", "1110", false)).is_err());
    assert_eq!(founds(Op::Get(Get { key: None })), Ok(false));
}

#[test]
fn a_relative_path_is_resolved_where_it_was_typed() {
    let Op::Set(typed) = set("MailRoot", "mail", false) else { panic!() };
    let here = std::env::current_dir().unwrap();
    assert_eq!(typed.seen_from_here().unwrap().values, [here.join("mail").to_str().unwrap()]);
    let Op::Set(typed) = set("hostname", "mail", false) else { panic!() };
    assert_eq!(typed.seen_from_here().unwrap().values, ["mail"]);
}

#[test]
fn a_store_in_use_is_not_repaired_and_a_damaged_one_is() {
    let bench = Bench::new();
    let mailbox: crate::address::Address = "ann@example.com".parse().unwrap();
    let delivered = bench.store.write(move |tx| {
        let credential = crate::auth::password::Credential {
            version: 0,
            verifier: crate::auth::password::Verifier::of_nobody([0; 16]),
            sealed: None,
        };
        let _ = tx.add_domain(&mailbox.domain, UnixTime(1))?;
        let _ = tx.add_mailbox(&mailbox, credential, UnixTime(1))?;
        let mut receiver = crate::wire::Receiver::content(crate::wire::LineEnds::Normalise, 1000);
        receiver.push(b"a text to be found again");
        let text = receiver.finish().expect("it is short").into();
        let letter = crate::store::Letter { recipient: mailbox.clone(), prefix: vec![], tag: 1 };
        tx.deliver(&text, &[letter], UnixTime(1))
    });
    assert_eq!(delivered.wait().unwrap(), [crate::verdict::Delivery::Stored]);
    let file = bench.mailroot.data_file();
    let refusal = repair(&file, &Progress::default()).unwrap_err();
    assert_eq!(refusal.code, Code::Busy);

    // Copy the closed file and change one octet of the text.
    let copy = bench.home.join("damaged.db");
    let path = bench.home.join("backup.db");
    let backup = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    bench.store.backup(backup, &Progress::default()).unwrap();
    let mut octets = fs::read(&path).unwrap();
    let at = octets.windows(6).position(|octets| octets == b"a text").unwrap();
    octets[at] = b'A';
    fs::write(&copy, &octets).unwrap();
    // A copy must be whole before it is served.
    assert!(Store::open(&copy).err().is_some_and(|e| e.to_string().contains("an incomplete copy")));
    let found = upkeep::check_file(&copy, &Progress::default()).unwrap();
    let Reply::Checked(found) = found else { panic!("{found:?}") };
    assert!(
        matches!(&found.findings[..], [finding] if finding.ends_with("has changed since it was stored")),
        "{found:?}"
    );
    let Reply::Checked(repaired) = repair(&copy, &Progress::default()).unwrap() else { panic!() };
    assert!(repaired.repaired[0].starts_with("text "), "{repaired:?}");
    assert_eq!(repaired.findings_total, 0);
}
