//! The users in `/etc/passwd` and `/etc/group`.
//!
//! We read the files ourselves, because the C library looks users up through modules that a static binary cannot load.
//! Users from LDAP and other sources are therefore known by number only.

use std::fmt;
use std::fs;

/// A user, and the groups whose files it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Groups besides `gid`.
    pub groups: Vec<u32>,
    name: Option<String>,
}

impl User {
    /// The user with this number. If no file lists it, its only group is `gid`.
    pub fn of_id(uid: u32, gid: u32) -> Self {
        Self::find(&read("/etc/passwd"), &read("/etc/group"), |_, id| id == uid).unwrap_or(Self {
            uid,
            gid,
            groups: Vec::new(),
            name: None,
        })
    }

    /// The user with this name, or with this number even if no file lists it.
    pub fn named(typed: &str) -> Option<Self> {
        let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
        Self::find(&passwd, &group, |name, _| name == typed).or_else(|| {
            let uid = typed.parse().ok()?;
            Some(Self::of_id(uid, uid))
        })
    }

    /// The user of this process.
    pub fn of_this_process() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self::of_id(uid.as_raw(), gid.as_raw())
    }

    /// The name, or the number if there is no name: what commands such as usermod take.
    pub fn typed(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uid.to_string())
    }

    fn find(passwd: &str, group: &str, is_wanted: impl Fn(&str, u32) -> bool) -> Option<Self> {
        let (name, uid, gid) = passwd.lines().find_map(|line| {
            // name:password:UID:GID:…
            let mut fields = line.split(':');
            let (name, uid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
            is_wanted(name, uid).then_some((name, uid, fields.next()?.parse().ok()?))
        })?;
        let groups = group.lines().filter_map(|line| {
            // name:password:GID:member,member
            let mut fields = line.split(':').skip(2);
            let id: u32 = fields.next()?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == name).then_some(id)
        });
        let groups = groups.filter(|id| *id != gid).collect();
        Some(Self { uid, gid, groups, name: Some(name.to_owned()) })
    }
}

/// The name of a group.
pub fn group_name(gid: u32) -> Option<String> {
    read("/etc/group").lines().find_map(|line| {
        // name:password:GID:member,member
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

/// A missing file lists nobody.
fn read(path: &str) -> String {
    fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "number {}", self.uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_groups_that_name_it() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nwinpop:x:998:997::/var/lib/winpop:/usr/sbin/nologin\n";
        let group =
            "root:x:0:\nssl-cert:x:110:postgres,winpop\nwinpop:x:997:winpop\nmail:x:8:winpopper\nbroken:x\n";
        let user = User::find(passwd, group, |_, uid| uid == 998).unwrap();
        assert_eq!((user.gid, &user.groups[..], user.to_string().as_str()), (997, &[110][..], "winpop"));
        assert_eq!(User::find(passwd, group, |name, _| name == "nobody"), None);
    }

    #[test]
    fn an_unlisted_user_is_a_number() {
        let user = User::of_id(4_000_000_001, 7);
        assert_eq!((user.gid, user.groups.len(), user.to_string().as_str()), (7, 0, "number 4000000001"));
    }
}
