//! A bounded pool of connections to the servers of one directory.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_rustls::rustls::ClientConfig;
use smol::Timer;
use smol::future::FutureExt as _;
use smol::lock::Semaphore;
use zeroize::Zeroizing;

use super::connection::{Answer, Connection, Failure};
use super::locate;
use super::message::{Attribute, Entry, Filter, Outcome, Request};
use super::server::Server;
use crate::lock::Mutex;
use crate::reachability::Reachability;

/// Connections, and so questions, at a time.
const CONNECTIONS_MAX: usize = 16;
/// How long a question may take, including the search for a server that answers.
const QUESTION_MAX: Duration = Duration::from_secs(5);
/// How long a server may take to answer on an open connection. The rest of [`QUESTION_MAX`] is for another one.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How long a server may take to open a connection before we also try the next one. With as many servers as can be
/// named, the last one still gets its turn within [`QUESTION_MAX`].
const HEAD_START: Duration = Duration::from_millis(600);
/// How long an idle connection is kept. Active Directory closes it after 900 seconds.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// How long we wait before we try again once no server could be reached.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(500);
/// How long we rely on the servers that DNS named.
const LOCATED_FOR: Duration = Duration::from_secs(300);

/// The account that the service binds with.
pub struct Binding {
    pub name: String,
    pub password: Zeroizing<String>,
}

pub struct Pool {
    servers: Servers,
    tls: Arc<ClientConfig>,
    binding: Binding,
    places: Semaphore,
    /// Connections bound as the service.
    service: Mutex<Vec<Kept>>,
    /// Connections bound as the user who logged in last.
    users: Mutex<Vec<Kept>>,
    reachability: Mutex<Reachability>,
    /// Until when no server is tried, and why.
    resting: Mutex<Option<(Instant, String)>>,
    experience: Mutex<Experience>,
}

/// What the servers did lately, which decides the order in which they are tried.
#[derive(Default)]
struct Experience {
    /// The one that answered last is tried first.
    answered: Option<Server>,
    /// A server that left a question unanswered is tried last until it answers again.
    silent: Option<Server>,
}

/// What a search found.
#[derive(Debug)]
pub enum Matches {
    All(Vec<Entry>),
    /// More entries than asked for, or more than the server returns. Those it sent are only some of them, so we use
    /// none.
    TooMany,
}

enum Servers {
    Named(Vec<Server>),
    /// The servers that DNS names for the domain, and when it was asked.
    OfDomain(String, Mutex<Option<(Instant, Vec<Server>)>>),
}

struct Kept {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// If `servers` is empty, DNS names them. Connects to nothing yet.
    pub fn new(servers: Vec<Server>, domain: Option<String>, tls: ClientConfig, binding: Binding) -> Self {
        Self {
            servers: match domain {
                Some(domain) if servers.is_empty() => Servers::OfDomain(domain, Mutex::new(None)),
                _ => Servers::Named(servers),
            },
            tls: Arc::new(tls),
            binding,
            places: Semaphore::new(CONNECTIONS_MAX),
            service: Mutex::default(),
            users: Mutex::default(),
            reachability: Mutex::default(),
            resting: Mutex::default(),
            experience: Mutex::default(),
        }
    }

    pub fn reachability(&self) -> Reachability {
        self.reachability.lock().clone()
    }

    /// The entries below `base` that match the filter, if there are at most `entries_max`.
    pub async fn search(
        &self,
        base: &str,
        filter: &Filter,
        attributes: &[&'static str],
        entries_max: u32,
    ) -> Result<Matches, Failure> {
        let request = Request::Search { base, whole_tree: true, filter, attributes, entries_max };
        let answer = self.ask(&request).await?;
        match answer.outcome.code {
            Outcome::SUCCESS => Ok(Matches::All(answer.entries)),
            Outcome::SIZE_LIMIT_EXCEEDED => Ok(Matches::TooMany),
            _ => Err(self.failed(Failure::before_asking(format!("a search in {base}: {}", answer.outcome)))),
        }
    }

    /// The entry with this name. `""` is the root, which describes the server (RFC 4512 section 5.1).
    pub async fn read(&self, dn: &str, attributes: &[&'static str]) -> Result<Option<Entry>, Failure> {
        let filter = &Filter::Present("objectClass");
        let request = Request::Search { base: dn, whole_tree: false, filter, attributes, entries_max: 1 };
        self.ask(&request).await.map(|mut answer| answer.entries.pop())
    }

    /// Binds as `name` to check its password. An empty password is refused here.
    pub async fn bind(&self, name: &str, password: &str) -> Result<Outcome, Failure> {
        if password.is_empty() || name.is_empty() {
            let message = "an empty name or password is not sent".to_owned();
            return Ok(Outcome { code: Outcome::INVALID_CREDENTIALS, message });
        }
        self.ask(&Request::Bind { name, password }).await.map(|answer| answer.outcome)
    }

    pub async fn add(&self, dn: &str, attributes: &[Attribute<'_>]) -> Result<Outcome, Failure> {
        self.ask(&Request::Add { dn, attributes }).await.map(|answer| answer.outcome)
    }

    pub async fn replace(&self, dn: &str, attributes: &[Attribute<'_>]) -> Result<Outcome, Failure> {
        self.ask(&Request::Replace { dn, attributes }).await.map(|answer| answer.outcome)
    }

    pub async fn delete(&self, dn: &str) -> Result<Outcome, Failure> {
        self.ask(&Request::Delete { dn }).await.map(|answer| answer.outcome)
    }

    async fn ask(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let late = async {
            Timer::after(QUESTION_MAX).await;
            Err(Failure { why: "the directory did not answer in time".to_owned(), may_be_done: true })
        };
        let answered = async {
            let _place = self.places.acquire().await;
            self.ask_somebody(request).await
        };
        match answered.or(late).await {
            Ok(answer) if answer.outcome.is_trouble() => {
                Err(self.failed(Failure::before_asking(answer.outcome)))
            }
            Ok(answer) => Ok(answer),
            Err(failure) => Err(self.failed(failure)),
        }
    }

    /// Asks on an idle connection or a new one. If an idle one dies under a question, or its server falls silent, the
    /// question is repeated, unless that could make a change twice.
    async fn ask_somebody(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let is_login = matches!(request, Request::Bind { .. });
        let kept = if is_login { &self.users } else { &self.service };
        if let Some(mut connection) = take_alive(kept).await {
            match self.ask_on(&mut connection, request).await {
                Ok(answer) => return Ok(self.answered(connection, kept, answer)),
                Err(_) if matches!(request, Request::Bind { .. } | Request::Search { .. }) => {}
                Err(failure) => return Err(failure),
            }
        }
        let mut connection = self.open().await.map_err(Failure::before_asking)?;
        if !is_login {
            self.introduce(&mut connection).await?;
        }
        let answer = self.ask_on(&mut connection, request).await?;
        Ok(self.answered(connection, kept, answer))
    }

    async fn ask_on(&self, connection: &mut Connection, request: &Request<'_>) -> Result<Answer, Failure> {
        let server = connection.server.clone();
        let late = async {
            Timer::after(ANSWER_MAX).await;
            self.pass_over(&server);
            Err(Failure { why: format!("{server}: it did not answer in time"), may_be_done: true })
        };
        connection.ask(request).or(late).await
    }

    /// Tries this server last from now on. Its other connections would be as silent.
    fn pass_over(&self, server: &Server) {
        for kept in [&self.service, &self.users] {
            kept.lock().retain(|kept| kept.connection.server != *server);
        }
        let mut experience = self.experience.lock();
        experience.answered.take_if(|answered| answered == server);
        experience.silent = Some(server.clone());
    }

    /// Binds as the service.
    async fn introduce(&self, connection: &mut Connection) -> Result<(), Failure> {
        let Binding { name, password } = &self.binding;
        if password.is_empty() {
            return Err(Failure::before_asking("adbindpassword is not set"));
        }
        let bind = Request::Bind { name, password };
        let outcome = self.ask_on(connection, &bind).await.map_err(Failure::before_asking)?.outcome;
        match outcome.is_success() {
            true => Ok(()),
            false => Err(Failure::before_asking(format!(
                "{} does not let adbinduser {name} in: {outcome}",
                connection.server
            ))),
        }
    }

    /// Connects to a server that can be reached.
    async fn open(&self) -> Result<Connection, String> {
        if let Some((until, why)) = &*self.resting.lock()
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        let servers = self.in_order(self.servers.list().await?);
        let opened = first_to_open(&servers, &self.tls).await;
        *self.resting.lock() = match &opened {
            Ok(_) => None,
            Err(why) => {
                self.servers.forget();
                Some((Instant::now() + REST_AFTER_FAILURE, why.clone()))
            }
        };
        opened
    }

    /// As listed, except for what [`Experience`] says.
    fn in_order(&self, mut servers: Vec<Server>) -> Vec<Server> {
        let experience = self.experience.lock();
        servers.sort_by_key(|server| match Some(server) {
            known if known == experience.answered.as_ref() => 0,
            known if known == experience.silent.as_ref() => 2,
            _ => 1,
        });
        servers
    }

    fn answered(&self, connection: Connection, kept: &Mutex<Vec<Kept>>, answer: Answer) -> Answer {
        self.reachability.lock().last_contact = Some((SystemTime::now(), connection.server.to_string()));
        let mut experience = self.experience.lock();
        experience.silent.take_if(|silent| *silent == connection.server);
        experience.answered = Some(connection.server.clone());
        drop(experience);
        kept.lock().push(Kept { connection, since: Instant::now() });
        answer
    }

    fn failed(&self, failure: Failure) -> Failure {
        self.reachability.lock().last_error = Some((SystemTime::now(), failure.why.clone()));
        failure
    }
}

impl Servers {
    async fn list(&self) -> Result<Vec<Server>, String> {
        let (domain, located) = match self {
            Self::Named(servers) => return Ok(servers.clone()),
            Self::OfDomain(domain, located) => (domain, located),
        };
        if let Some((since, servers)) = &*located.lock()
            && since.elapsed() < LOCATED_FOR
        {
            return Ok(servers.clone());
        }
        let servers = locate::servers_of(domain).await?;
        *located.lock() = Some((Instant::now(), servers.clone()));
        Ok(servers)
    }

    /// Nobody could be reached, so DNS may name others by now.
    fn forget(&self) {
        if let Self::OfDomain(_, located) = self {
            *located.lock() = None;
        }
    }
}

/// The first connection that opens. If one server fails, the next one is tried at once; if it hesitates, as well.
async fn first_to_open(servers: &[Server], tls: &Arc<ClientConfig>) -> Result<Connection, String> {
    let (server, others) = servers.split_first().expect("there is a server to try");
    let mut first = Box::pin(Connection::open(server, tls));
    if others.is_empty() {
        return first.await;
    }
    let mut others = Box::pin(first_to_open(others, tls));
    let hesitating = async {
        Timer::after(HEAD_START).await;
        None
    };
    let both = |why: String, also: String| format!("{why}; {also}");
    let early = async { Some(first.as_mut().await) };
    match early.or(hesitating).await {
        Some(Ok(connection)) => return Ok(connection),
        Some(Err(why)) => return others.await.map_err(|also| both(why, also)),
        None => {}
    }
    let of_first = async { (true, first.as_mut().await) };
    let of_others = async { (false, others.as_mut().await) };
    match of_first.or(of_others).await {
        (_, Ok(connection)) => Ok(connection),
        (true, Err(why)) => others.await.map_err(|also| both(why, also)),
        (false, Err(also)) => first.await.map_err(|why| both(why, also)),
    }
}

/// The connection used last, if it is still good. Closes those that are not.
async fn take_alive(kept: &Mutex<Vec<Kept>>) -> Option<Connection> {
    loop {
        let Kept { mut connection, since } = kept.lock().pop()?;
        if since.elapsed() >= IDLE_MAX {
            // The ones below it have been idle for longer.
            drop(mem::take(&mut *kept.lock()));
            return None;
        }
        if connection.is_alive().await {
            return Some(connection);
        }
    }
}
