//! `quickstart`: from nothing to a running service with a first message, in a minute.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use smol::block_on;

use super::commands::Quickstart;
use super::confinement::confine;
use super::{accounts, passwords, serve};
use crate::address::Address;
use crate::admin::commands::Add;
use crate::admin::reply::Code;
use crate::admin::secret::Secret;
use crate::admin::{self, Context, Op, Refusal, Request, Submission};
use crate::keyring::Keyring;
use crate::mailroot::{self, MailRoot, NamedBy};
use crate::random;
use crate::serve::{DOORS, Door, Running};
use crate::settings::{Listen, Settings};
use crate::store::{OpenErrorKind, Progress, Read as _, Store};

/// The mailbox if none is named.
pub const DEFAULT_ADDRESS: &str = "user@example.com";
const PASSWORD_CHARACTERS: usize = 16;
/// Ports for this run if those in the settings are not available, and how many are tried from there on.
const UNPRIVILEGED: [(Door, u16); 4] =
    [(Door::Pop3, 11110), (Door::Pop3s, 11995), (Door::Smtp, 11025), (Door::Lmtp, 11024)];
const PORTS_TRIED: u16 = 10;

pub fn quickstart(typed: &Quickstart, mailroot: MailRoot) -> Result<(), Refusal> {
    let address: Address = typed.address.as_deref().unwrap_or(DEFAULT_ADDRESS).parse()?;
    let listen = typed.listen.as_deref().map(str::parse::<Listen>).transpose();
    let listen = listen.map_err(|why| Refusal::new(Code::Malformed, why))?;
    random::number().map_err(Refusal::fault)?;
    mailroot::create(&mailroot.dir)
        .map_err(|error| Refusal::fault(format!("{} cannot be created: {error}", mailroot.dir.display())))?;
    let notes = confine(&mailroot)?;
    let store = serve::open(&mailroot, |path| match Store::open(path) {
        Err(error) if matches!(error.kind, OpenErrorKind::Missing) => Store::create(path),
        outcome => outcome,
    })?;
    let mut settings = serve::settings_with_log(&store)?;
    notes.iter().for_each(|note| log::info!("{note}"));
    settings.listen = match (listen, &settings.listen) {
        (Some(asked), _) => asked,
        (None, Listen::All) => Listen::Only(vec![Ipv4Addr::LOCALHOST.into()]),
        (None, named) => named.clone(),
    };
    // First, because a run that fails after making the mailbox has nowhere to show its password.
    for (door, first) in UNPRIVILEGED {
        choose_port(&mut settings, door, first, |settings| door.is_free(settings))?;
    }
    let password = make_mailbox(&store, &mailroot, &address, &settings)?;
    let (data_file, program) = (mailroot.data_file(), this_program(&mailroot));
    let running = serve::start(store, mailroot, settings).map_err(|refusal| match &password {
        // No later run can show it.
        Some(password) => {
            refusal.with_hint(format!("The mailbox {address} was added with password {password}"))
        }
        None => refusal,
    })?;
    let told = instructions(&running, &address, password.as_deref(), &data_file, &program);
    let mut output = std::io::stdout().lock();
    // The service runs whether or not anyone reads this.
    let _ = output.write_all(told.as_bytes()).and_then(|()| output.flush());
    drop(output);
    running.run();
    Ok(())
}

/// How to call this program for the same mail store: by the name it was called by, because the link `winpop` may not
/// exist yet, and with the directory if a new terminal would not find it.
fn this_program(mailroot: &MailRoot) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "pop3svc".to_owned());
    match mailroot.named_by {
        NamedBy::CommandLine | NamedBy::Variable => {
            format!("{} --mailroot {}", quoted(&program), quoted(&mailroot.dir.to_string_lossy()))
        }
        NamedBy::Pointer | NamedBy::Default => quoted(&program),
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Creates domain and mailbox and delivers a first message. Returns the password, or `None` if the mailbox existed.
fn make_mailbox(
    store: &Store,
    mailroot: &MailRoot,
    address: &Address,
    settings: &Settings,
) -> Result<Option<String>, Refusal> {
    if store.read().and_then(|view| view.mailbox(address)).map_err(Refusal::fault)?.is_some() {
        return Ok(None);
    }
    let keyring = Keyring::open(store, mailroot).map_err(Refusal::fault)?;
    let add = |name: String, createuser: Option<Secret>| {
        let add = Add { name: Some(name), createuser, file: None, passwords: None };
        accounts::carry_out(Request::Command(Op::Add(add)), &|request| {
            let context = Context::of_now(mailroot, &keyring, None)?;
            request.run(store, &context, None, &Progress::default())
        })
    };
    match add(address.domain.to_string(), None) {
        Err(refusal) if refusal.code != Code::Exists => return Err(refusal),
        _ => {}
    }
    let password = passwords::made::<PASSWORD_CHARACTERS>().map_err(Refusal::fault)?;
    add(address.to_string(), Some(password.clone().into()))?;
    let id = random::number().map_err(Refusal::fault)?;
    let content = welcome(address, time::OffsetDateTime::now_utc(), id, &this_program(mailroot));
    let submission = Submission {
        reverse_path: String::new(),
        recipients: vec![address.to_string()],
        to_each: false,
        octets: content.len() as u64,
    };
    let mut receiver = admin::receiver(settings);
    receiver.push(content.as_bytes());
    block_on(admin::deliver(store, settings, &submission, receiver.finish().map(Into::into)))?;
    Ok(Some(password))
}

fn welcome(address: &Address, now: time::OffsetDateTime, id: u64, program: &str) -> String {
    let date = now
        .format(&time::format_description::well_known::Rfc2822)
        .expect("the clock shows a year from 1900 to 9999");
    format!(
        "From: pop3svc <postmaster@{domain}>\nTo: {address}\nSubject: Welcome to pop3svc\nDate: {date}\n\
         Message-ID: <welcome.{id:016x}@{domain}>\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=utf-8\n\n\
         Your mailbox works.\n\n\
         Mail for {address} that arrives by SMTP or LMTP, or is piped into\n\
         `{program} deliver {address}`, stays here until you delete it.\n\
         `{program} winpop help` lists what an administrator can do.\n",
        domain = address.domain,
    )
}

/// Keeps the port in the settings if it is available, otherwise takes the first free one from `first` on that no other
/// door has.
fn choose_port(
    settings: &mut Settings,
    door: Door,
    first: u16,
    is_free: impl Fn(&Settings) -> bool,
) -> Result<(), Refusal> {
    if door.port(settings) == 0 || is_free(settings) {
        return Ok(());
    }
    let is_of_another = |port, settings: &Settings| {
        DOORS.into_iter().any(|other| other != door && other.port(settings) == port)
    };
    for port in first..first + PORTS_TRIED {
        if is_of_another(port, settings) {
            continue;
        }
        door.set_port(settings, port);
        if is_free(settings) {
            return Ok(());
        }
    }
    let last = first + PORTS_TRIED - 1;
    Err(Refusal::fault(format!("no port from {first} to {last} is free for {}", door.protocol()))
        .with_hint(format!("Choose another: winpop set {} PORT", door.key())))
}

fn instructions(
    running: &Running,
    address: &Address,
    password: Option<&str>,
    data_file: &Path,
    program: &str,
) -> String {
    let pop3 = running.addresses(Door::Pop3).first().copied().map(reachable);
    let mut text = format!("pop3svc is running. Its mail store is {}\n\n", data_file.display());
    for door in DOORS {
        if let Some(at) = running.addresses(door).first().copied().map(reachable) {
            text += &format!("  {:<10}{} port {}\n", door.protocol(), at.ip(), at.port());
        }
    }
    text += &format!("  {:<10}{address}\n", "User");
    match password {
        Some(password) => text += &format!("  {:<10}{password}  (shown only now)\n", "Password"),
        None => {
            text += &format!(
                "  {:<10}as before; to change it: {program} winpop changepwd {address} -\n",
                "Password"
            )
        }
    }
    let Some(pop3) = pop3 else { return text };
    let user = match password {
        Some(password) => format!("{address}:{password}"),
        None => address.to_string(),
    };
    text + &format!(
        "\nIn another terminal, fetch the {}message:\n\n  curl --user '{user}' pop3://{pop3}/1\n\nand administer the \
         service:\n\n  {program} winpop help\n\nCtrl-C ends the service.\n",
        if password.is_some() { "welcome " } else { "first " },
    )
}

/// The address at which a client on this machine reaches a listener.
fn reachable(listening: SocketAddr) -> SocketAddr {
    match listening.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::from([127, 0, 0, 1]), listening.port()),
        _ => listening,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_doors_get_the_same_port() {
        let chosen = |taken: &[u16]| {
            let mut settings = Settings::default();
            for (door, first) in UNPRIVILEGED {
                choose_port(&mut settings, door, first, |settings| !taken.contains(&door.port(settings)))?;
            }
            Ok::<_, Refusal>(DOORS.map(|door| door.port(&settings)))
        };
        assert_eq!(chosen(&[]), Ok([110, 995, 25, 24]));
        assert_eq!(chosen(&[110, 995, 25, 24]), Ok([11110, 11995, 11025, 11024]));
        // Next to another quickstart.
        assert_eq!(chosen(&[110, 995, 25, 24, 11110, 11995, 11025, 11024]), Ok([11111, 11996, 11026, 11027]));
        let all: Vec<u16> = [110].into_iter().chain(11110..11120).collect();
        assert!(chosen(&all).unwrap_err().message.contains("from 11110 to 11119 is free for POP3"));
    }
}
