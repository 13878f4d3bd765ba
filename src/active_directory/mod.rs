//! Active Directory, asked over LDAP.
//!
//! - A mailbox uses the account whose `userPrincipalName` is its address, or else the only account whose `mail` is.
//! - A user logs in with that address or with a name of the account: `userPrincipalName`, `CORP\user` or the bare
//!   `sAMAccountName`. The service looks the account up under its own name and then binds with the account's
//!   distinguished name, so the password that is checked always belongs to the account that was found.
//! - An unknown name takes as long to refuse as a wrong password.
//! - A directory that does not answer is [`Unavailable`], which neither admits nor refuses anybody.
//! - An account is created with its password in one operation, so it is never half made.
//!
//! Calls wait for the network, up to [`CALL_MAX`] if the caller does not say otherwise: never make one on an executor.

mod account;
mod verdict;
mod winbind;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use smol::Timer;
use smol::future::{FutureExt as _, block_on};
use zeroize::Zeroizing;

use crate::address::Address;
use crate::auth::directory::{Change, Creation, Directory, Found, Place, Removal, Unavailable, Verdict};
use crate::auth::ntlm::{self, Question};
use crate::ldap::{Binding, Failure, Filter, Matches, Outcome, Pool, Server, domain_of, escaped};
use crate::lock::Mutex;
use crate::reachability::Reachability;
use crate::trust;
use account::{ATTRIBUTES, Account, account_names, attributes_of_new, container, quoted};
use verdict::Barred;
use winbind::{Answer, Winbind};

/// How long a call may take.
pub const CALL_MAX: Duration = Duration::from_secs(10);
/// How many accounts with the same name we look at.
const NAMESAKES_MAX: u32 = 10;
/// Mailboxes per search. With [`NAMESAKES_MAX`] entries each, a search stays below the thousand entries that Active
/// Directory returns.
const ADDRESSES_PER_SEARCH: usize = 50;
/// Weight of the latest bind in the running average of bind times: 1 in this many.
const BINDS_REMEMBERED: u32 = 8;

/// How to reach the directory.
pub struct Configuration {
    /// If empty, DNS names the servers for the domain of `base`.
    pub servers: Vec<Server>,
    /// The distinguished name below which accounts are looked for.
    pub base: String,
    pub user: String,
    pub password: Zeroizing<String>,
    /// A PEM file of trusted authorities. `None`: the system's.
    pub authorities: Option<PathBuf>,
    /// The socket of winbind's helpers. `None`: NTLM is not offered.
    pub ntlm_socket: Option<PathBuf>,
}

pub struct ActiveDirectory {
    pool: Pool,
    base: String,
    /// The NetBIOS name of the domain, once the directory has told it.
    netbios: OnceLock<Option<String>>,
    /// The running average of bind times.
    bind_takes: Mutex<Duration>,
    winbind: Option<Winbind>,
}

/// What a typed name means.
enum Named {
    Nobody,
    One(Account),
    Several,
}

impl ActiveDirectory {
    /// Reads the certificates but connects to nothing yet. An error is a sentence.
    pub fn new(configuration: Configuration) -> Result<Self, String> {
        let Configuration { servers, base, user, password, authorities, ntlm_socket } = configuration;
        let domain = domain_of(&base);
        if servers.is_empty() && domain.is_none() {
            return Err(
                "adserver is not set, and adbasedn has no DC= by which servers could be found".to_owned()
            );
        }
        let tls = trust::client_config(authorities.as_deref(), "adca")?;
        let binding = Binding { name: user, password };
        Ok(Self {
            pool: Pool::new(servers, domain, tls, binding),
            base,
            netbios: OnceLock::new(),
            bind_takes: Mutex::default(),
            winbind: ntlm_socket.map(Winbind::new),
        })
    }
}

impl Directory for ActiveDirectory {
    fn place(&self) -> Place {
        Place::Network
    }

    fn reachability(&self) -> Reachability {
        self.pool.reachability()
    }

    fn reach(&self) -> Result<(), Unavailable> {
        within_limit(CALL_MAX, async {
            self.matching(Filter::Present("defaultNamingContext")).await.map(drop)
        })
    }

    fn verify(&self, typed: &str, password: &str) -> Result<Verdict, Unavailable> {
        within_limit(CALL_MAX, async {
            let named = match password.is_empty() {
                true => return Ok(Verdict::Wrong),
                false => self.named(typed).await?,
            };
            let account = match named {
                Named::One(account) => account,
                Named::Nobody | Named::Several => {
                    let takes = *self.bind_takes.lock();
                    Timer::after(takes).await;
                    return Ok(match named {
                        Named::Several => Barred::Ambiguous.verdict(),
                        _ => Verdict::Wrong,
                    });
                }
            };
            let began = Instant::now();
            let outcome = self.pool.bind(&account.dn, password).await?;
            {
                let mut takes = self.bind_takes.lock();
                *takes = match takes.is_zero() {
                    true => began.elapsed(),
                    false => (*takes * (BINDS_REMEMBERED - 1) + began.elapsed()) / BINDS_REMEMBERED,
                };
            }
            match verdict::of_bind(&outcome, account.addresses()) {
                Verdict::Right(addresses) => self.owned_by(&account, addresses).await.map(Verdict::Right),
                verdict => Ok(verdict),
            }
        })
    }

    fn find(&self, typed: &str) -> Result<Option<Found>, Unavailable> {
        within_limit(CALL_MAX, async {
            match self.named(typed).await? {
                Named::One(account) => {
                    let addresses = self.owned_by(&account, account.addresses()).await?;
                    Ok(Some(Found { name: account.name, addresses }))
                }
                Named::Nobody => Ok(None),
                Named::Several => Err(claimed_by_several(typed)),
            }
        })
    }

    fn account_of(&self, address: &Address) -> Result<Option<String>, Unavailable> {
        within_limit(CALL_MAX, async { Ok(self.of_mailbox(address).await?.map(|account| account.name)) })
    }

    fn accounts_of(
        &self,
        addresses: &[Address],
        within: Duration,
    ) -> Result<Vec<Option<String>>, Unavailable> {
        within_limit(within, async {
            let addresses: Vec<String> = addresses.iter().map(Address::to_string).collect();
            let mut names = Vec::with_capacity(addresses.len());
            for batch in addresses.chunks(ADDRESSES_PER_SEARCH) {
                names.extend(self.names_of(batch).await?);
            }
            Ok(names)
        })
    }

    fn create(&self, address: &Address, password: &str) -> Result<Creation, Unavailable> {
        within_limit(CALL_MAX, async {
            if let Some(account) = self.of_mailbox(address).await? {
                return Ok(Creation::Exists { name: account.name });
            }
            for name in account_names(&address.local) {
                let holders = self.matching(Filter::Equal("sAMAccountName", name.clone())).await?;
                if holders.is_none_or(|holders| !holders.is_empty()) {
                    continue;
                }
                let answer = self.add(address, &name, password).await;
                let outcome = settled(answer, Box::pin(self.takes(address, &name, password))).await?;
                match outcome.code {
                    Outcome::SUCCESS => return Ok(Creation::Created { name }),
                    // Another administrator was faster, or the common name is taken.
                    Outcome::ENTRY_ALREADY_EXISTS => {}
                    _ => return Ok(Creation::Refused(verdict::refusal(&outcome))),
                }
            }
            Ok(Creation::Refused(format!("every account name similar to {} is taken", address.local)))
        })
    }

    fn remove(&self, address: &Address) -> Result<Removal, Unavailable> {
        within_limit(CALL_MAX, async {
            let Some(account) = self.of_mailbox(address).await? else { return Ok(Removal::NoSuchAccount) };
            let is_gone = async { Ok(self.of_mailbox(address).await?.is_none()) };
            let outcome = settled(self.pool.delete(&account.dn).await, Box::pin(is_gone)).await?;
            Ok(match outcome.code {
                Outcome::SUCCESS => Removal::Removed { name: account.name },
                Outcome::NO_SUCH_OBJECT => Removal::NoSuchAccount,
                _ => Removal::Refused(verdict::refusal(&outcome)),
            })
        })
    }

    fn change_password(&self, address: &Address, password: &str) -> Result<Change, Unavailable> {
        within_limit(CALL_MAX, async {
            let Some(account) = self.of_mailbox(address).await? else { return Ok(Change::NoSuchAccount) };
            let change = [("unicodePwd", vec![quoted(password)])];
            let is_taken = async { Ok(self.pool.bind(&account.dn, password).await?.is_success()) };
            let outcome = settled(self.pool.replace(&account.dn, &change).await, Box::pin(is_taken)).await?;
            Ok(match outcome.code {
                Outcome::SUCCESS => Change::Changed,
                Outcome::NO_SUCH_OBJECT => Change::NoSuchAccount,
                _ => Change::Refused(verdict::refusal(&outcome)),
            })
        })
    }

    fn ntlm_domain(&self) -> Option<String> {
        let works = self.winbind.as_ref().is_some_and(Winbind::works);
        self.netbios.get().cloned().flatten().filter(|_| works)
    }

    fn prove(&self, proof: &ntlm::Proof) -> Result<Verdict, Unavailable> {
        within_limit(CALL_MAX, async {
            match self.ask_winbind(&proof.user, &proof.domain, &proof.question()).await? {
                Answer::Right(key) if proof.is_intact(key.clone()) => {}
                Answer::Right(_) | Answer::Wrong => return Ok(Verdict::Wrong),
                Answer::Barred(why) => return Ok(why.verdict()),
            }
            match self.of_ntlm_user(&proof.user).await? {
                Named::One(account) => {
                    let addresses = account.addresses();
                    self.owned_by(&account, addresses).await.map(Verdict::Right)
                }
                Named::Nobody => Ok(Barred::OutsideBase.verdict()),
                Named::Several => Ok(Barred::Ambiguous.verdict()),
            }
        })
    }

    fn try_ntlm(&self) -> Result<(), Unavailable> {
        if !self.winbind.as_ref().is_some_and(Winbind::is_unsure) {
            return Ok(());
        }
        // No account can have this name ([MS-SAMR] section 3.1.1.8.4).
        const NOBODY: &str = "pop3svc?";
        let question = Question { challenge: [0; 8], response: vec![0; 24] };
        within_limit(CALL_MAX, async { self.ask_winbind(NOBODY, "", &question).await.map(drop) })
    }
}

impl ActiveDirectory {
    /// Asks winbind about a user of our own domain, since another domain may have an account of the same name.
    async fn ask_winbind(&self, user: &str, domain: &str, question: &Question) -> Result<Answer, Failure> {
        let winbind = self.winbind.as_ref().ok_or_else(|| Failure::before_asking("adntlm is not set"))?;
        let netbios = self.netbios().await?;
        let netbios = netbios.ok_or_else(|| Failure::before_asking("the domain has no NetBIOS name"))?;
        // The response hashes in the domain name that the client uses.
        let is_dns_name = domain_of(&self.base).is_some_and(|name| name.eq_ignore_ascii_case(domain));
        winbind.ask(user, if is_dns_name { domain } else { &netbios }, question).await
    }

    /// The account behind an NTLM user name: `userPrincipalName`, explicit or implicit, or `sAMAccountName`.
    async fn of_ntlm_user(&self, user: &str) -> Result<Named, Failure> {
        let Some((name, suffix)) = user.rsplit_once('@') else { return self.of_account_name(user).await };
        let filter = Filter::Equal("userPrincipalName", user.to_owned());
        let Some(found) = self.matching(filter).await? else { return Ok(Named::Several) };
        let is_implicit = domain_of(&self.base).is_some_and(|domain| domain.eq_ignore_ascii_case(suffix));
        match found.is_empty() && is_implicit {
            true => self.of_account_name(name).await,
            false => Ok(only(found)),
        }
    }

    /// Whether this mailbox's account has this name and accepts this password.
    async fn takes(&self, address: &Address, name: &str, password: &str) -> Result<bool, Failure> {
        match self.of_mailbox(address).await? {
            Some(account) if account.name == name => {
                Ok(self.pool.bind(&account.dn, password).await?.is_success())
            }
            _ => Ok(false),
        }
    }

    async fn add(&self, address: &Address, name: &str, password: &str) -> Result<Outcome, Failure> {
        let (common_name, attributes) = attributes_of_new(address, name, password);
        let dn = format!("CN={},{}", escaped(&common_name), container(&self.base));
        self.pool.add(&dn, &attributes).await
    }

    /// The account of a mailbox. It fails if several claim the address.
    async fn of_mailbox(&self, address: &Address) -> Result<Option<Account>, Failure> {
        match self.of_address(&address.to_string()).await? {
            Named::One(account) => Ok(Some(account)),
            Named::Nobody => Ok(None),
            Named::Several => Err(claimed_by_several(&address.to_string())),
        }
    }

    /// The addresses that belong only to this account: its `mail` may hold another account's principal name.
    async fn owned_by(&self, account: &Account, addresses: Vec<Address>) -> Result<Vec<Address>, Failure> {
        let mut owned = Vec::with_capacity(addresses.len());
        for address in addresses {
            match self.of_address(&address.to_string()).await? {
                Named::One(owner) if owner.dn == account.dn => owned.push(address),
                Named::One(_) | Named::Nobody | Named::Several => {}
            }
        }
        Ok(owned)
    }

    async fn named(&self, typed: &str) -> Result<Named, Failure> {
        if let Some((domain, name)) = typed.split_once('\\') {
            let is_ours = self.netbios().await?.is_some_and(|ours| ours.eq_ignore_ascii_case(domain));
            return if is_ours { self.of_account_name(name).await } else { Ok(Named::Nobody) };
        }
        if let Ok(address) = Address::from_login(typed) {
            return self.of_address(&address.to_string()).await;
        }
        match typed.contains('@') {
            true => self.of_address(typed).await,
            false => self.of_account_name(typed).await,
        }
    }

    async fn of_address(&self, address: &str) -> Result<Named, Failure> {
        let found = self.matching(Filter::Or(claims(address).to_vec())).await?;
        Ok(found.map_or(Named::Several, |found| owner(found, address)))
    }

    async fn of_account_name(&self, name: &str) -> Result<Named, Failure> {
        if name.is_empty() {
            return Ok(Named::Nobody);
        }
        let found = self.matching(Filter::Equal("sAMAccountName", name.to_owned())).await?;
        Ok(found.map_or(Named::Several, only))
    }

    /// The name of each address's account. If a search finds too many, each half of the addresses gets its own.
    async fn names_of(&self, addresses: &[String]) -> Result<Vec<Option<String>>, Failure> {
        let filter = Filter::Or(addresses.iter().flat_map(|address| claims(address)).collect());
        let Some(found) = self.search(filter, NAMESAKES_MAX * addresses.len() as u32).await? else {
            if addresses.len() < 2 {
                return Ok(vec![None; addresses.len()]);
            }
            let (these, those) = addresses.split_at(addresses.len() / 2);
            let mut names = Box::pin(self.names_of(these)).await?;
            names.extend(Box::pin(self.names_of(those)).await?);
            return Ok(names);
        };
        let name_of = |address: &String| {
            let claimants = found.iter().filter(|account| account.claims(address)).cloned();
            match owner(claimants.collect(), address) {
                Named::One(account) => Some(account.name),
                Named::Nobody | Named::Several => None,
            }
        };
        Ok(addresses.iter().map(name_of).collect())
    }

    /// The users that match a filter about one name. `None` if there are more than we look at.
    async fn matching(&self, filter: Filter) -> Result<Option<Vec<Account>>, Failure> {
        self.search(filter, NAMESAKES_MAX).await
    }

    /// All users that match the filter. `None` if there are more than `entries_max`.
    async fn search(&self, filter: Filter, entries_max: u32) -> Result<Option<Vec<Account>>, Failure> {
        let is_user = Filter::Equal("sAMAccountType", account::ORDINARY_USER.to_owned());
        let filter = Filter::And(vec![is_user, filter]);
        Ok(match self.pool.search(&self.base, &filter, &ATTRIBUTES, entries_max).await? {
            Matches::All(entries) => Some(entries.iter().filter_map(Account::of_entry).collect()),
            Matches::TooMany => None,
        })
    }

    /// The NetBIOS name of the base's domain, from the directory's configuration.
    async fn netbios(&self) -> Result<Option<String>, Failure> {
        if let Some(known) = self.netbios.get() {
            return Ok(known.clone());
        }
        let root = self.pool.read("", &["configurationNamingContext"]).await?;
        let Some(configuration) = root.as_ref().and_then(|entry| entry.text("configurationNamingContext"))
        else {
            return Ok(None);
        };
        let filter = Filter::And(vec![
            Filter::Equal("nCName", account::domain_part(&self.base)),
            Filter::Present("nETBIOSName"),
        ]);
        let partitions = format!("CN=Partitions,{configuration}");
        let Matches::All(found) = self.pool.search(&partitions, &filter, &["nETBIOSName"], 1).await? else {
            return Err(Failure::before_asking("several partitions of the directory have the base's name"));
        };
        let name = found.first().and_then(|entry| entry.text("nETBIOSName")).map(str::to_owned);
        Ok(self.netbios.get_or_init(|| name).clone())
    }
}

/// The attributes that claim an address.
fn claims(address: &str) -> [Filter; 2] {
    ["userPrincipalName", "mail"].map(|attribute| Filter::Equal(attribute, address.to_owned()))
}

/// The claimant whose `userPrincipalName` is the address, or else the only claimant.
fn owner(mut claimants: Vec<Account>, address: &str) -> Named {
    match claimants.iter().position(|account| account.is_principal(address)) {
        Some(place) => Named::One(claimants.swap_remove(place)),
        None => only(claimants),
    }
}

/// The outcome of a change. If the answer was lost, `is_made` asks the directory whether it made the change.
async fn settled(
    answer: Result<Outcome, Failure>,
    is_made: impl Future<Output = Result<bool, Failure>>,
) -> Result<Outcome, Failure> {
    let failure = match answer {
        Err(failure) if failure.may_be_done => failure,
        answer => return answer,
    };
    match is_made.await {
        Ok(true) => Ok(Outcome { code: Outcome::SUCCESS, message: String::new() }),
        Ok(false) => Err(failure),
        Err(_) => {
            Err(Failure { why: format!("{failure}. It may have made the change all the same"), ..failure })
        }
    }
}

fn claimed_by_several(name: &str) -> Failure {
    Failure::before_asking(format!("several accounts of the directory claim the name {name}"))
}

fn only(mut found: Vec<Account>) -> Named {
    match (found.pop(), found.is_empty()) {
        (None, _) => Named::Nobody,
        (Some(account), true) => Named::One(account),
        (Some(_), false) => Named::Several,
    }
}

fn within_limit<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Unavailable> {
    let late = async {
        Timer::after(limit).await;
        Err(Failure { why: "the directory did not answer in time".to_owned(), may_be_done: true })
    };
    block_on(call.or(late)).map_err(|failure| Unavailable(failure.why))
}

#[cfg(test)]
mod tests;
