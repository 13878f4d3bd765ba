//! Accounts as passwd(5), shadow(5) and login.defs(5) describe them.

use std::collections::HashMap;

/// The lowest uid of an ordinary user, unless login.defs says otherwise.
const UID_MIN: u32 = 1000;
/// The uid of `nobody`, a system account despite its number.
const NOBODY: u32 = 65534;
const SECONDS_OF_DAY: u64 = 24 * 60 * 60;

/// The accounts in passwd(5), by name. If a name appears twice, the first line wins, as in the C library.
#[derive(Debug, Default)]
pub struct Accounts {
    of_users: HashMap<String, User>,
    uid_min: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    uid: u32,
    /// `None` if it is in shadow(5).
    hash: Option<String>,
}

/// An account of passwd(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    Nobody,
    /// An account of the system or a service, which cannot have a mailbox.
    System,
    User(&'a User),
}

impl Accounts {
    pub fn read(passwd: &str, login_defs: &str) -> Self {
        let mut of_users = HashMap::new();
        for line in passwd.lines() {
            // name:password:UID:…
            let mut fields = line.split(':');
            let (Some(name), Some(hash), Some(Ok(uid))) =
                (fields.next(), fields.next(), fields.next().map(str::parse))
            else {
                continue;
            };
            let hash = Some(hash.to_owned()).filter(|hash| hash != "x");
            of_users.entry(name.to_owned()).or_insert(User { uid, hash });
        }
        Self { of_users, uid_min: uid_min(login_defs) }
    }

    pub fn named(&self, name: &str) -> Named<'_> {
        match self.of_users.get(name) {
            None => Named::Nobody,
            Some(user) if user.uid < self.uid_min || user.uid == NOBODY => Named::System,
            Some(user) => Named::User(user),
        }
    }

    /// A user's line of shadow(5), and the hash of any user: we check an unknown name against that hash, so that it
    /// costs as much as a known one.
    pub fn shadow(&self, name: &str, shadow: &str) -> (Option<Shadow>, Option<String>) {
        let own = match self.named(name) {
            Named::User(User { hash: Some(hash), .. }) => Some(Shadow::without_dates(hash)),
            _ => shadow.lines().find_map(|line| Shadow::read(line.strip_prefix(name)?.strip_prefix(':')?)),
        };
        let example = shadow.lines().find_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let hash = rest.split(':').next()?;
            (hash.starts_with('$') && matches!(self.named(name), Named::User(_))).then(|| hash.to_owned())
        });
        (own, example)
    }
}

/// `UID_MIN` of login.defs(5).
fn uid_min(login_defs: &str) -> u32 {
    let value = login_defs.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "UID_MIN").then(|| words.next())?
    });
    value.and_then(|number| number.parse().ok()).unwrap_or(UID_MIN)
}

/// A line of shadow(5) without the name. Days count from 1970-01-01.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    pub password: Password,
    last_change: Option<u64>,
    days_max: Option<u64>,
    days_inactive: Option<u64>,
    expires: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// Empty: login(1) would ask for no password.
    None,
    /// Possibly still with the hash of the password that was locked.
    Locked {
        hash: Option<String>,
    },
    Hash(String),
}

/// Why an account cannot log in even with the right password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    Locked,
    Expired,
    MustChange,
    PasswordExpired,
    Inactive,
}

impl Shadow {
    /// Parses the fields after the name. `None` if this is not a line of shadow(5).
    fn read(fields: &str) -> Option<Self> {
        let mut fields = fields.split(':');
        let password = Password::read(fields.next()?);
        let mut day = || fields.next().and_then(|days| days.parse().ok());
        let (last_change, _days_min, days_max, _days_warned) = (day(), day(), day(), day());
        let (days_inactive, expires) = (day(), day());
        Some(Self { password, last_change, days_max, days_inactive, expires })
    }

    fn without_dates(hash: &str) -> Self {
        let password = Password::read(hash);
        Self { password, last_change: None, days_max: None, days_inactive: None, expires: None }
    }

    /// Whether the account may log in on this day. A mail program cannot ask for a new password, so we also refuse an
    /// expired password that login(1) would accept one last time.
    pub fn standing(&self, today: u64) -> Result<(), Barred> {
        if matches!(self.password, Password::Locked { .. }) {
            return Err(Barred::Locked);
        }
        if self.expires.is_some_and(|day| today >= day) {
            return Err(Barred::Expired);
        }
        if self.last_change == Some(0) {
            return Err(Barred::MustChange);
        }
        let good_until = self.last_change.zip(self.days_max).map(|(day, max)| day.saturating_add(max));
        match (good_until, self.days_inactive) {
            (Some(last), Some(more)) if today > last.saturating_add(more) => Err(Barred::Inactive),
            (Some(last), _) if today > last => Err(Barred::PasswordExpired),
            _ => Ok(()),
        }
    }
}

impl Password {
    fn read(field: &str) -> Self {
        let behind = field.trim_start_matches('!');
        let is_locked = behind.len() < field.len() || behind.starts_with('*');
        match (field, is_locked) {
            ("", _) => Self::None,
            (_, true) => Self::Locked { hash: Some(behind.to_owned()).filter(|hash| hash.starts_with('$')) },
            (_, false) => Self::Hash(field.to_owned()),
        }
    }
}

impl Barred {
    /// Follows the account's name in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Locked => "is locked",
            Self::Expired => "has expired",
            Self::MustChange => "must change the password first",
            Self::PasswordExpired => "has a password that has expired",
            Self::Inactive => "has a password that expired, and the days to change it have passed",
        }
    }
}

/// Days since 1970-01-01.
pub fn day_of(unix_seconds: u64) -> u64 {
    unix_seconds / SECONDS_OF_DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken\n:\ndaemon:x:1:1::/:/usr/sbin/nologin\n\
        nobody:x:65534:65534::/:/bin/false\nann:x:1000:1000:Ann:/home/ann:/bin/sh\nann:x:0:0::/:/bin/sh\n\
        old:$1$ab$dslkcXxVH.x8LwW1W/oAB/:1001:1000::/:/bin/sh\nopen::1002:1000::/:/bin/sh\nshort:x:500:1::/:/bin/sh\n";

    #[test]
    fn accounts_below_the_lowest_uid_are_system_accounts() {
        let accounts = Accounts::read(PASSWD, "# UID_MIN 5\nUID_MAX 60000\n");
        for system in ["root", "daemon", "nobody", "short"] {
            assert_eq!(accounts.named(system), Named::System, "{system}");
        }
        for nobody in ["", "broken", "an", "ann:x", "Ann", "bob"] {
            assert_eq!(accounts.named(nobody), Named::Nobody, "{nobody}");
        }
        assert!(matches!(accounts.named("ann"), Named::User(User { uid: 1000, .. })));
        let accounts = Accounts::read(PASSWD, "UID_MIN\t\t  500 # as it was long ago\n");
        assert!(matches!(accounts.named("short"), Named::User(_)));
        assert!(matches!(Accounts::read(PASSWD, "UID_MIN x").named("short"), Named::System));
    }

    #[test]
    fn the_hash_is_in_shadow_or_in_old_files_in_passwd() {
        let accounts = Accounts::read(PASSWD, "");
        let shadow = "root:$6$a$b:1::::::\nann2:$6$x$y:1\nann:$y$j9T$s$h:19000:0:99999:7:::\n";
        let (own, example) = accounts.shadow("ann", shadow);
        assert_eq!(own.unwrap().password, Password::Hash("$y$j9T$s$h".to_owned()));
        // Not root's, which may cost more.
        assert_eq!(example.as_deref(), Some("$y$j9T$s$h"));
        let (own, _) = accounts.shadow("old", shadow);
        assert!(matches!(own.unwrap().password, Password::Hash(hash) if hash.starts_with("$1$")));
        assert_eq!(accounts.shadow("open", shadow).0.unwrap().password, Password::None);
        assert_eq!(accounts.shadow("an", shadow).0, None);
        assert_eq!(accounts.shadow("ann", "").0, None);
    }

    #[test]
    fn locked_expired_and_must_change_are_told_apart() {
        let today = 20_000;
        let standing = |fields: &str| Shadow::read(fields).unwrap().standing(today);
        for good in [
            "$6$a$b:19990:0:99999:7:::",
            "$6$a$b::::::",
            "$6$a$b",
            "$6$a$b:19990:0:10:7:::",
            "$6$a$b:19990:0:10:7:5::",
            "$6$a$b:30000:0:10:7:5:20001:",
            "$6$a$b:19990::-1:::-1:",
            // The sum is more than a number holds.
            "$6$a$b:1:0:18446744073709551615:7:1::",
        ] {
            assert_eq!(standing(good), Ok(()), "{good}");
        }
        for (fields, why) in [
            ("!$6$a$b:19990:0:99999:7:::", Barred::Locked),
            ("!:19990:0:99999:7:::", Barred::Locked),
            ("!!:19990:0:99999:7:::", Barred::Locked),
            ("*:19990:0:99999:7:::", Barred::Locked),
            ("!*:19990:0:99999:7:::", Barred::Locked),
            ("$6$a$b:19990:0:99999:7::20000:", Barred::Expired),
            ("$6$a$b:19990:0:99999:7::0:", Barred::Expired),
            ("$6$a$b:0:0:99999:7:::", Barred::MustChange),
            ("$6$a$b:19989:0:10:7:::", Barred::PasswordExpired),
            ("$6$a$b:19989:0:10:7:1::", Barred::PasswordExpired),
            ("$6$a$b:19988:0:10:7:1::", Barred::Inactive),
        ] {
            assert_eq!(standing(fields), Err(why), "{fields}");
        }
    }

    #[test]
    fn a_hash_may_follow_a_lock() {
        let hash = |field: &str| match Password::read(field) {
            Password::Locked { hash } => hash,
            other => panic!("{other:?}"),
        };
        assert_eq!(hash("!$6$a$b").as_deref(), Some("$6$a$b"));
        assert!(["!", "!!", "*", "*LK*", "!x"].iter().all(|field| hash(field).is_none()));
    }
}
