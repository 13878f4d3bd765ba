//! User accounts as the directory stores them.

use zeroize::Zeroizing;

use crate::address::{Address, LocalPart};
use crate::ldap::{Attribute, Entry};

/// The attributes that we read.
pub const ATTRIBUTES: [&str; 3] = ["sAMAccountName", "userPrincipalName", "mail"];
/// `sAMAccountType` of a person's account (SAM_NORMAL_USER_ACCOUNT, [MS-SAMR] section 2.2.1.9); computers have another.
pub const ORDINARY_USER: &str = "805306368";
/// `userAccountControl` of an enabled account (NORMAL_ACCOUNT, [MS-ADTS] section 2.2.16).
const NORMAL_ACCOUNT: &str = "512";
/// The longest pre-Windows 2000 name, in characters.
const NAME_CHARACTERS_MAX: usize = 20;
/// How many names we try for a new account.
const NAMES_TRIED: usize = 100;
/// The longest common name, in characters.
const COMMON_NAME_CHARACTERS_MAX: usize = 64;

/// A user of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub dn: String,
    /// The pre-Windows 2000 name.
    pub name: String,
    principal: Option<String>,
    mail: Option<String>,
}

impl Account {
    /// `None` if the service may not read the attributes.
    pub fn of_entry(entry: &Entry) -> Option<Self> {
        let text = |name| entry.text(name).map(str::to_owned);
        Some(Self {
            dn: entry.dn.clone(),
            name: text("sAMAccountName")?,
            principal: text("userPrincipalName"),
            mail: text("mail"),
        })
    }

    pub fn is_principal(&self, name: &str) -> bool {
        is_alike(&self.principal, name)
    }

    /// Whether an address is this account's `userPrincipalName` or `mail`.
    pub fn claims(&self, address: &str) -> bool {
        self.is_principal(address) || is_alike(&self.mail, address)
    }

    /// The account's own addresses, the likeliest first.
    pub fn addresses(&self) -> Vec<Address> {
        let mut addresses: Vec<Address> = [&self.principal, &self.mail]
            .into_iter()
            .flatten()
            .filter_map(|name| name.parse().ok())
            .collect();
        addresses.dedup();
        addresses
    }
}

/// Ignores case, as the directory does.
fn is_alike(attribute: &Option<String>, name: &str) -> bool {
    attribute.as_ref().is_some_and(|value| value.to_lowercase() == name.to_lowercase())
}

/// Pre-Windows 2000 names for a new account, best first.
pub fn account_names(mailbox: &LocalPart) -> impl Iterator<Item = String> {
    // Characters that such a name must not contain ([MS-SAMR] section 3.1.1.8.4). It must not end with a dot either.
    let allowed = |c: char| if "\"/\\[]:;|=,+*?<>@".contains(c) { '_' } else { c };
    let name: String = mailbox.as_str().chars().map(allowed).collect();
    (0..NAMES_TRIED).map(move |number| {
        let number = if number == 0 { String::new() } else { number.to_string() };
        let kept: String = name.chars().take(NAME_CHARACTERS_MAX - number.len()).collect();
        format!("{}{number}", kept.trim_end_matches('.'))
    })
}

/// The common name and the attributes of a new account.
pub fn attributes_of_new(address: &Address, name: &str, password: &str) -> (String, Vec<Attribute<'static>>) {
    let address = address.to_string();
    // No other account has the address as its common name.
    let common_name =
        if address.chars().count() <= COMMON_NAME_CHARACTERS_MAX { address.clone() } else { name.to_owned() };
    let text = |value: &str| vec![Zeroizing::new(value.as_bytes().to_vec())];
    let attributes = vec![
        ("objectClass", text("user")),
        ("sAMAccountName", text(name)),
        ("userPrincipalName", text(&address)),
        ("mail", text(&address)),
        ("displayName", text(&address)),
        ("userAccountControl", text(NORMAL_ACCOUNT)),
        ("unicodePwd", vec![quoted(password)]),
    ];
    (common_name, attributes)
}

/// Encodes a password for `unicodePwd`: in quotation marks, as UTF-16 with the low octet first ([MS-ADTS] section
/// 3.1.1.3.1.5).
pub fn quoted(password: &str) -> Zeroizing<Vec<u8>> {
    let units = std::iter::once(u16::from(b'"')).chain(password.encode_utf16()).chain([u16::from(b'"')]);
    let mut octets = Zeroizing::new(Vec::with_capacity(2 * (password.len() + 2)));
    units.for_each(|unit| octets.extend_from_slice(&unit.to_le_bytes()));
    octets
}

/// Where new accounts go: into the base itself, or into `CN=Users` if the base is a whole domain.
pub fn container(base: &str) -> String {
    match domain_part(base).len() == base.trim().len() {
        true => format!("CN=Users,{base}"),
        false => base.to_owned(),
    }
}

/// The domain part of a base: its components from the first `DC=` on.
pub fn domain_part(base: &str) -> String {
    let is_domain =
        |component: &&str| component.trim_start().get(..3).is_some_and(|dc| dc.eq_ignore_ascii_case("dc="));
    let mut rest = base.trim();
    loop {
        match (is_domain(&rest), rest.split_once(',')) {
            (false, Some((_, behind))) => rest = behind.trim_start(),
            _ => return rest.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_or_too_long_is_altered_and_stays_within_twenty_characters() {
        let names = |mailbox: &str| account_names(&mailbox.parse().unwrap()).take(3).collect::<Vec<_>>();
        assert_eq!(names("ann"), ["ann", "ann1", "ann2"]);
        assert_eq!(names("a+b/c"), ["a_b_c", "a_b_c1", "a_b_c2"]);
        assert_eq!(
            names("abcdefghijklmnopqrstuvwxyz"),
            ["abcdefghijklmnopqrst", "abcdefghijklmnopqrs1", "abcdefghijklmnopqrs2"]
        );
        assert_eq!(names("abcdefghijklmnopqrs.uvw")[0], "abcdefghijklmnopqrs");
        let all: Vec<String> = account_names(&"x".repeat(64).parse().unwrap()).collect();
        assert!(all.len() == NAMES_TRIED && all.iter().all(|name| name.len() <= NAME_CHARACTERS_MAX));
    }

    #[test]
    fn a_password_is_quoted_as_unicode_pwd_takes_it() {
        assert_eq!(**quoted("aé"), *b"\"\0a\0\xe9\0\"\0");
    }

    #[test]
    fn accounts_are_created_in_the_base_or_in_the_users_container_of_a_domain() {
        assert_eq!(container("DC=corp,DC=example"), "CN=Users,DC=corp,DC=example");
        assert_eq!(container("OU=Mail,DC=corp,DC=example"), "OU=Mail,DC=corp,DC=example");
        assert_eq!(domain_part("OU=Mail, dc=corp,DC=example"), "dc=corp,DC=example");
    }

    #[test]
    fn the_addresses_of_an_account_are_its_principal_name_and_its_mail() {
        let values = |value: &str| vec![value.as_bytes().to_vec()];
        let entry = Entry {
            dn: "CN=Ann,DC=x".to_owned(),
            attributes: vec![
                ("sAMAccountName".to_owned(), values("ann")),
                ("userPrincipalName".to_owned(), values("Ann@corp.example")),
                ("mail".to_owned(), values("ann@example.com")),
            ],
        };
        let account = Account::of_entry(&entry).unwrap();
        assert!(account.is_principal("ANN@corp.example") && !account.is_principal("ann@example.com"));
        assert!(account.claims("ann@Example.com") && !account.claims("ann"));
        let addresses: Vec<String> = account.addresses().iter().map(Address::to_string).collect();
        assert_eq!(addresses, ["ann@corp.example", "ann@example.com"]);
    }
}
