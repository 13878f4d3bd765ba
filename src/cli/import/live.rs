//! `import --from`: fetches mailboxes from a running POP3 server, several at a time.
//!
//! Each line of the list is `USER@DOMAIN<TAB>PASSWORD`, optionally followed by a tab and the login name if it differs
//! from the form in the URL. With a master user, whose password serves for all, the second field is the login name.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures_rustls::rustls::ClientConfig;
use zeroize::Zeroizing;

use super::super::carry_out::carry_out;
use super::super::commands::Import;
use super::super::progress::Line;
use super::verify;
use crate::address::Address;
use crate::admin::reply::{Code, ImportSummary, Refusal, Reply, SkippedFile, Verified};
use crate::admin::{Batch, Request, Working};
use crate::control::{Answer, Enclosed};
use crate::lock::Mutex;
use crate::mailroot::MailRoot;
use crate::moving::{Destination, Failure, Source, bring, wanted};
use crate::pop3_client::Server;
use crate::trust;

/// Mailboxes fetched at a time: the default and the maximum.
const PARALLEL: usize = 4;
const PARALLEL_MAX: usize = 32;
/// Between the login name and the master user's (Dovecot's `auth_master_user_separator`).
const MASTER_SEPARATOR: char = '*';

/// A mailbox to fetch.
struct User {
    mailbox: Address,
    login: String,
    password: Zeroizing<String>,
}

/// Fetches what the command line names.
pub fn import(typed: &Import, from: &str, mailroot: impl Fn() -> Result<MailRoot, Refusal>) -> Answer {
    if typed.words.len() > 1 || typed.uidl.is_some() || typed.seen.is_some() {
        return Err(Refusal::usage(
            "--from takes no format, path, --uidl or --seen: the server itself lists the unique ids",
        ));
    }
    let server: Server = from.parse().map_err(Refusal::usage)?;
    let parallel = match typed.parallel.as_deref().map(str::parse) {
        None => PARALLEL,
        Some(Ok(count @ 1..=PARALLEL_MAX)) => count,
        Some(_) => return Err(Refusal::usage(format!("--parallel takes a number from 1 to {PARALLEL_MAX}"))),
    };
    let users = users(typed, &server)?;
    let tls = match server.is_clear() {
        true => None,
        false => {
            let config = trust::client_config(typed.ca.as_deref().map(Path::new), "--ca");
            Some(Arc::new(config.map_err(Refusal::usage)?))
        }
    };
    let work = Work {
        store: Arc::new(Here { mailroot: mailroot()?, turn: Mutex::default() }),
        server,
        tls,
        makes: typed.make,
        dry_run: typed.dry_run,
        verified: typed.verify.then(Mutex::default),
        left: Mutex::new(users),
        summary: Mutex::new(ImportSummary { dry_run: typed.dry_run, ..ImportSummary::default() }),
        line: Mutex::new((Line::new(), 0, 0, Instant::now())),
    };
    smol::block_on(work.run_in_parallel(parallel))?;
    let summary = work.summary.into_inner();
    let Some(verified) = work.verified else { return Ok(Reply::Imported(summary)) };
    let mut verified = verified.into_inner();
    verified.mailboxes.sort_by(|one, other| one.mailbox.cmp(&other.mailbox));
    verified.skipped = summary.skipped;
    Ok(Reply::Verified(verified))
}

fn users(typed: &Import, server: &Server) -> Result<VecDeque<User>, Refusal> {
    let master = match (&typed.master, &typed.password_file) {
        (Some(master), Some(file)) => Some((master.as_str(), first_line(file)?)),
        (Some(_), None) => {
            return Err(Refusal::usage("--master needs --password-file"));
        }
        (None, _) => None,
    };
    let login_of = |mailbox: &Address, login: Option<&str>| {
        let login = login.map_or_else(|| server.login_of(mailbox), str::to_owned);
        match &master {
            Some((master, _)) => format!("{login}{MASTER_SEPARATOR}{master}"),
            None => login,
        }
    };
    let only = typed.words.first();
    match (&typed.users, only) {
        (Some(_), Some(_)) => Err(Refusal::usage("give either USER@DOMAIN or --users, not both")),
        (None, None) => Err(Refusal::usage("USER@DOMAIN or --users is missing")
            .with_hint("Each line of the --users list has USER@DOMAIN, a tab and the password")),
        (None, Some(mailbox)) => {
            let mailbox: Address = mailbox.parse()?;
            let password = match (&master, &typed.password_file) {
                (Some((_, password)), _) => password.clone(),
                (None, Some(file)) => first_line(file)?,
                (None, None) => {
                    return Err(Refusal::usage("--password-file is missing"));
                }
            };
            Ok([User { login: login_of(&mailbox, None), mailbox, password }].into())
        }
        (Some(list), None) => {
            if master.is_none() && typed.password_file.is_some() {
                return Err(Refusal::usage(
                    "with --users, --password-file is only for --master: the list has a password in each line",
                ));
            }
            let mut users = VecDeque::new();
            let mut seen = HashSet::new();
            for (number, line) in (1..).zip(read(list)?.lines()) {
                if line.trim().is_empty() || line.starts_with('#') {
                    continue;
                }
                let wrong = |why: &str| Refusal::new(Code::Malformed, format!("{list} line {number}: {why}"));
                let mut fields = line.split('\t');
                let mailbox: Address = fields
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .parse()
                    .map_err(|malformed: crate::address::Malformed| wrong(&malformed.to_string()))?;
                let password = match &master {
                    Some((_, password)) => password.clone(),
                    None => fields
                        .next()
                        .filter(|password| !password.is_empty())
                        .map(|password| Zeroizing::new(password.to_owned()))
                        .ok_or_else(|| wrong("a tab and the password must follow the mailbox"))?,
                };
                let login = fields.next().map(str::trim).filter(|login| !login.is_empty());
                if fields.next().is_some() {
                    return Err(wrong("the line has too many fields"));
                }
                // Two fetches of one mailbox would collide.
                if !seen.insert(mailbox.clone()) {
                    return Err(wrong("the mailbox is listed twice"));
                }
                users.push_back(User { login: login_of(&mailbox, login), mailbox, password });
            }
            Ok(users)
        }
    }
}

fn read(file: &str) -> Result<Zeroizing<String>, Refusal> {
    let path = PathBuf::from(file);
    fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| super::files::not_read(&path, &error))
}

fn first_line(file: &str) -> Result<Zeroizing<String>, Refusal> {
    let text = read(file)?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(Zeroizing::new(line.to_owned())),
        None => Err(Refusal::new(
            Code::Malformed,
            format!("the first line of {file} is empty; it must be the password"),
        )),
    }
}

/// The store. Requests take turns, because without a service each opens the data file.
struct Here {
    mailroot: MailRoot,
    turn: Mutex<()>,
}

impl Here {
    fn carry_out(&self, request: Request, enclosed: Enclosed) -> Answer {
        let _turn = self.turn.lock();
        carry_out(request, enclosed, &self.mailroot)
    }
}

impl Destination for Here {
    fn take(&self, batch: Batch, texts: fs::File) -> Answer {
        self.carry_out(Request::Import(batch), Enclosed::File(&texts))
    }
}

struct Work {
    store: Arc<Here>,
    server: Server,
    tls: Option<Arc<ClientConfig>>,
    makes: bool,
    dry_run: bool,
    /// For `--verify`.
    verified: Option<Mutex<Verified>>,
    left: Mutex<VecDeque<User>>,
    summary: Mutex<ImportSummary>,
    /// The line, the messages and octets so far, and when it was last shown.
    line: Mutex<(Line, u64, u64, Instant)>,
}

impl Work {
    async fn run_in_parallel(&self, parallel: usize) -> Result<(), Refusal> {
        let executor = smol::Executor::new();
        let workers: Vec<_> = (0..parallel).map(|_| executor.spawn(self.run())).collect();
        executor
            .run(async {
                for worker in workers {
                    worker.await?;
                }
                Ok(())
            })
            .await
    }

    /// Fetches mailboxes until none is left. Failures at the old server go into the summary; a failure here stops the
    /// import.
    async fn run(&self) -> Result<(), Refusal> {
        loop {
            let user = self.left.lock().pop_front();
            let Some(user) = user else { return Ok(()) };
            let why = match self.fetch(&user).await {
                Ok(()) => continue,
                Err(Failure::Here(refusal)) if refusal.code != Code::NotFound => {
                    self.left.lock().clear();
                    let mut summary = self.summary.lock();
                    return match summary.mailboxes == 0 && summary.messages == 0 {
                        true => Err(refusal),
                        false => {
                            summary.stopped = Some(refusal.to_string());
                            Ok(())
                        }
                    };
                }
                Err(Failure::Here(refusal)) => refusal.to_string(),
                Err(Failure::Refused(said)) => {
                    format!("the old server refuses the login of {}: {said}", user.login)
                }
                Err(Failure::Unavailable(why)) => why,
            };
            let skipped = SkippedFile { file: user.mailbox.to_string(), why };
            self.summary.lock().skipped.push(skipped);
        }
    }

    async fn fetch(&self, user: &User) -> Result<(), Failure> {
        let User { mailbox, login, password } = user;
        let source = Source {
            server: self.server.clone(),
            tls: self.tls.clone(),
            login: login.clone(),
            password: password.clone(),
        };
        // Before anything changes here: a wrong password must not close the mailbox.
        let mut session = source.open().await?;
        if let Some(verified) = &self.verified {
            let listed = session.list().await?;
            session.quit().await;
            let (store, mailbox) = (self.store.clone(), mailbox.clone());
            let compared = smol::unblock(move || {
                let _turn = store.turn.lock();
                verify::compare_with_server(&mailbox, listed, &store.mailroot)
            });
            let compared = compared.await.map_err(Failure::Here)?;
            verified.lock().mailboxes.push(compared);
            return Ok(());
        }
        if self.dry_run {
            let listed = session.list().await?;
            session.quit().await;
            let (store, mailbox, makes) = (self.store.clone(), mailbox.clone(), self.makes);
            let here = smol::unblock(move || {
                let _turn = store.turn.lock();
                verify::before_import(&mailbox, makes, &store.mailroot)
            });
            let here = here.await.map_err(Failure::Here)?;
            let known: HashSet<String> = here.into_iter().map(|message| message.unique_id).collect();
            let all = listed.len();
            let listed = wanted(listed, &known);
            let octets = listed.iter().map(|message| message.octets).sum::<u64>();
            let ids = listed.iter().filter(|message| message.unique_id.is_some()).count() as u64;
            let mut summary = self.summary.lock();
            summary.mailboxes += 1;
            summary.messages += listed.len() as u64;
            summary.there_already += (all - listed.len()) as u64;
            summary.octets += octets;
            summary.ids_kept += ids;
            summary.ids_new += listed.len() as u64 - ids;
            return Ok(());
        }
        let known =
            match self.ask(Request::BeginImport { mailbox: mailbox.to_string(), makes: self.makes }).await? {
                Reply::ImportBegun { unique_ids } => unique_ids.into_iter().collect(),
                other => panic!("the begin of an import is answered by unique ids, not {other:?}"),
            };
        let told = |messages, octets| self.show(messages, octets);
        let brought = bring(&source, Some(session), mailbox, known, self.store.clone(), &told).await;
        let brought = brought.map_err(|failure| match failure {
            Failure::Unavailable(why) => Failure::Unavailable(format!(
                "{why}. Some mail is missing, so the mailbox stays closed; repeat the command"
            )),
            failure => failure,
        })?;
        self.ask(Request::EndImport { mailbox: mailbox.to_string() }).await?;
        let mut summary = self.summary.lock();
        summary.mailboxes += 1;
        summary.skipped.extend_from_slice(&brought.skipped);
        let stopped = summary.stopped.take();
        summary.add(brought);
        summary.stopped = stopped;
        Ok(())
    }

    async fn ask(&self, request: Request) -> Result<Reply, Failure> {
        let store = self.store.clone();
        let asked = smol::unblock(move || store.carry_out(request, Enclosed::Nothing)).await;
        asked.map_err(Failure::Here)
    }

    fn show(&self, messages: u64, octets: u64) {
        let mut line = self.line.lock();
        line.1 += messages;
        line.2 += octets;
        if line.3.elapsed() >= super::super::progress::INTERVAL {
            line.3 = Instant::now();
            let stage = format!("fetching, {} messages", line.1);
            let working = Working { stage, is_in_octets: true, done: line.2, total: 0 };
            line.0.show(&working);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::scratch;

    fn typed(users: Option<&Path>) -> Import {
        Import {
            words: Vec::new(),
            uidl: None,
            make: false,
            dry_run: false,
            seen: None,
            verify: false,
            from: None,
            users: users.map(|path| path.to_string_lossy().into_owned()),
            master: None,
            password_file: None,
            ca: None,
            parallel: None,
        }
    }

    #[test]
    fn a_list_has_mailboxes_passwords_and_login_names() {
        let scratch = scratch::directory();
        let file = scratch.path().join("users");
        let server: Server = "pop3s://{user}@old".parse().unwrap();
        let of = |list: &str, master: Option<&str>| {
            fs::write(&file, list).unwrap();
            let password = file.with_extension("password");
            fs::write(&password, "of all\n").unwrap();
            let master = master.map(str::to_owned);
            let password_file = master.as_ref().map(|_| password.to_string_lossy().into_owned());
            let users = users(&Import { master, password_file, ..typed(Some(&file)) }, &server);
            users.map(|users| {
                let text = |user: User| format!("{} {} {}", user.mailbox, user.login, *user.password);
                users.into_iter().map(text).collect::<Vec<_>>()
            })
        };
        let list = "# remark\n\nBob@example.com\tse cret\nann@example.com\tx\tEX\\ann\n";
        assert_eq!(of(list, None).unwrap(), ["bob@example.com bob se cret", "ann@example.com EX\\ann x"]);
        let list = "bob@example.com\nann@example.com\told-ann\n";
        assert_eq!(
            of(list, Some("root")).unwrap(),
            ["bob@example.com bob*root of all", "ann@example.com old-ann*root of all"]
        );
        for bad in ["bob\tx", "bob@example.com", "bob@example.com\t", "a@b.c\tx\ty\tz", "a@b.c\tx\na@b.c\ty"]
        {
            assert!(of(bad, None).is_err(), "{bad}");
        }
    }
}
