use tempfile::TempDir;

use super::*;
use crate::tests::scratch;

/// Of "secret".
const HASHES: [&str; 5] = [
    "$y$j75$F5Jx5fExrKuPp53xLKQ..1$l5YiXCKNY/N9ezall4xjJAFS/wg.kWVcFXfOzyxVn1.",
    "$6$rounds=1000$s$jWKWW4frHd2UJCMnzN3684fspPDUebzE6OnlK.F/bIYlUl9ch1/YyU4YMwEz1ya6974pdkzQ/w/5/LikcSsVm.",
    "$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi.",
    "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
    "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1",
];

/// Files of accounts in a directory of their own, which goes with it.
struct Etc(TempDir);

impl Etc {
    fn new(accounts: &[(&str, u32, &str)]) -> Self {
        let etc = Self(scratch::directory());
        etc.write(accounts);
        etc
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, accounts: &[(&str, u32, &str)]) {
        let of = |line: &dyn Fn(&str, u32, &str) -> String| -> String {
            accounts.iter().map(|(name, uid, shadow)| line(name, *uid, shadow)).collect()
        };
        let passwd = of(&|name, uid, _| format!("{name}:x:{uid}:100::/nonexistent:/usr/sbin/nologin\n"));
        let shadow = of(&|name, _, shadow| format!("{name}:{shadow}\n"));
        for (name, text) in [("passwd", passwd), ("shadow", shadow)] {
            // As the system's tools do it.
            fs::write(self.path().join("new"), text).unwrap();
            fs::rename(self.path().join("new"), self.path().join(name)).unwrap();
        }
    }
}

fn right(name: &str) -> Verdict {
    Verdict::Right(vec![format!("{name}@example.com").parse().unwrap()])
}

fn barred(why: &str, is_proven: bool) -> Verdict {
    Verdict::Barred { why: why.to_owned(), is_proven }
}

#[test]
fn the_password_of_an_account_opens_its_mailbox_whatever_the_hash() {
    let lines: Vec<(String, u32, String)> = (1000..)
        .zip(HASHES)
        .map(|(uid, hash)| (format!("u{uid}"), uid, format!("{hash}:19000:0:99999:7:::")))
        .collect();
    let accounts: Vec<(&str, u32, &str)> = lines.iter().map(|(n, u, s)| (&**n, *u, &**s)).collect();
    let etc = Etc::new(&accounts);
    let local = LocalAccounts::of(etc.path());
    assert_eq!(local.reach(), Ok(()));
    for (name, ..) in accounts {
        assert_eq!(local.verify(&format!("{name}@example.com"), "secret"), Ok(right(name)));
        assert_eq!(local.verify(&format!("{}%EXAMPLE.com", name.to_uppercase()), "secret"), Ok(right(name)));
        for wrong in ["Secret", "", "secret\0"] {
            assert_eq!(local.verify(&format!("{name}@example.com"), wrong), Ok(Verdict::Wrong), "{name}");
        }
    }
    for nobody in ["u@example.com", "u1000", "", "x@y@z", "u1000\n@example.com"] {
        assert_eq!(local.verify(nobody, "secret"), Ok(Verdict::Wrong), "{nobody}");
    }
    assert!(local.reachability().last_contact.is_some() && local.reachability().last_error.is_none());
}

#[test]
fn an_account_that_may_not_log_in_says_why_once_the_password_is_right() {
    let today = account::day_of(now_unix_seconds());
    let hash = HASHES[1];
    let locked = format!("!{hash}:19000:0:99999:7:::");
    let expired = format!("{hash}:19000:0:99999:7::{today}:");
    let must_change = format!("{hash}:0:0:99999:7:::");
    let too_old = format!("{hash}:{}:0:10:7:::", today - 11);
    let etc = Etc::new(&[
        ("locked", 1000, &locked),
        ("starred", 1001, "*:19000:0:99999:7:::"),
        ("open", 1002, ":19000:0:99999:7:::"),
        ("expired", 1003, &expired),
        ("changing", 1004, &must_change),
        ("old", 1005, &too_old),
        ("des", 1006, "abJnggxhB/yWI:19000:0:99999:7:::"),
        ("daemon", 1, &format!("{hash}:19000:0:99999:7:::")),
    ]);
    let local = LocalAccounts::of(etc.path());
    let verdict =
        |name: &str, password: &str| local.verify(&format!("{name}@example.com"), password).unwrap();
    for (name, why) in [
        ("locked", Barred::Locked),
        ("expired", Barred::Expired),
        ("changing", Barred::MustChange),
        ("old", Barred::PasswordExpired),
    ] {
        assert_eq!(verdict(name, "secret"), barred(why.words(), true));
        // A stranger learns nothing.
        assert_eq!(verdict(name, "wrong"), Verdict::Wrong, "{name}");
    }
    for password in ["secret", "wrong", ""] {
        assert_eq!(verdict("starred", password), barred("is locked", false));
        assert_eq!(verdict("open", password), barred("has no password", false));
        assert_eq!(
            verdict("daemon", password),
            barred("is a system account, which cannot have a mailbox", false)
        );
        assert!(matches!(verdict("des", password), Verdict::Barred { is_proven: false, .. }));
    }
    let account = |name: &str| local.account_of(&format!("{name}@example.com").parse().unwrap()).unwrap();
    assert_eq!(account("locked").as_deref(), Some("locked"));
    assert_eq!((account("daemon"), account("nobody")), (None, None));
}

#[test]
fn an_unknown_name_costs_what_a_wrong_password_does() {
    use crate::auth::hash::work;
    let hash = format!("{}:19000:0:99999:7:::", HASHES[1]);
    let etc = Etc::new(&[("ann", 1000, &hash), ("daemon", 1, "*:1::::::"), ("none", 1001, "!:1::::::")]);
    let local = LocalAccounts::of(etc.path());
    for name in ["ann@example.com", "bob@example.com", "daemon@example.com", "none@example.com", "", "bob"] {
        work::take();
        assert!(!matches!(local.verify(name, "wrong"), Ok(Verdict::Right(_))));
        assert_eq!(work::take(), ["sha-crypt"], "{name}");
    }
    // If no account has a hash, the built-in one is computed.
    etc.write(&[("daemon", 1, "*:1::::::")]);
    work::take();
    assert_eq!(local.verify("bob@example.com", "wrong"), Ok(Verdict::Wrong));
    assert_eq!(work::take(), ["yescrypt"]);
}

#[test]
fn what_changes_in_the_files_counts_at_once() {
    let etc = Etc::new(&[]);
    let local = LocalAccounts::of(etc.path());
    let ann: Address = "ann@example.com".parse().unwrap();
    assert_eq!(local.account_of(&ann), Ok(None));
    let of_hash = |hash: &str| format!("{hash}:19000:0:99999:7:::");
    etc.write(&[("ann", 1000, &of_hash(HASHES[1]))]);
    assert_eq!(local.account_of(&ann), Ok(Some("ann".to_owned())));
    assert_eq!(local.verify("ann@example.com", "secret"), Ok(right("ann")));
    etc.write(&[("ann", 1000, &of_hash(&format!("!{}", HASHES[1])))]);
    assert_eq!(local.verify("ann@example.com", "secret"), Ok(barred("is locked", true)));
    fs::write(etc.path().join("login.defs"), "UID_MIN 2000\n").unwrap();
    assert_eq!(local.account_of(&ann), Ok(None));
    etc.write(&[]);
    assert_eq!(local.verify("ann@example.com", "secret"), Ok(Verdict::Wrong));
}

#[test]
fn unreadable_files_give_no_verdict() {
    let etc = Etc::new(&[("ann", 1000, "x")]);
    let local = LocalAccounts::of(etc.path());
    fs::remove_file(etc.path().join("shadow")).unwrap();
    let Err(Unavailable(why)) = local.reach() else { panic!() };
    assert!(why.contains("shadow cannot be read"), "{why}");
    assert!(local.verify("ann@example.com", "secret").is_err());
    assert!(local.reachability().last_error.is_some());
}

#[test]
fn names_that_tools_could_misread_are_refused() {
    let creatable = |name: &str| super::creatable(&name.parse().unwrap());
    for good in ["ann", "a.b-c_d", "3com", "_x", &"x".repeat(20)] {
        assert_eq!(creatable(good), Ok(()), "{good}");
    }
    for bad in ["-rf", "0", "1000", "a+b", "a'b", "a$b", &"x".repeat(21)] {
        assert!(creatable(bad).is_err(), "{bad}");
    }
}
