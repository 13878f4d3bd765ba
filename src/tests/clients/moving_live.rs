//! Mailboxes of a running Dovecot, fetched by `pop3svc import --from`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use super::dovecot::{Dovecot, MAILBOX, MASTER, MASTER_PASSWORD, PASSWORD, have_dovecot_and, lists};
use super::pollers::fetchmail_has;
use super::service::{READY, Service};
use crate::harness::site::Site;

/// Dovecot's `pop3_uidl_format`, and the number of messages in the mailbox: many in one case.
const FORMATS: [(&str, usize); 3] = [("%08Xu%08Xv", 1000), ("%v.%u", 40), ("%f", 40)];
/// The reply to a login before all mail of the mailbox is here.
pub const LATER: &str = "-ERR [SYS/TEMP] the mail of this mailbox is still being moved here";
/// Longest wait for what another program does.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[test]
fn nothing_of_a_running_dovecot_is_fetched_twice_after_the_import() {
    if !have_dovecot_and(&["fetchmail"]) {
        return;
    }
    for (uidl_format, messages) in FORMATS {
        let site = Site::new();
        let dovecot = Dovecot::start(site.dir(), uidl_format);
        dovecot.bring("bob", messages);
        dovecot.own_mail();
        let before = lists(dovecot.port, MAILBOX);
        assert_eq!(before.len(), 2 * messages, "{uidl_format}");
        let fetched = fetchmail_has(&site, dovecot.port, true);

        let service = site.serve();
        site.add_mailbox(MAILBOX);
        fs::write(site.path("users"), format!("{MAILBOX}\t{PASSWORD}\n")).expect("it can be written");
        let server = format!("pop3s://127.0.0.1:{}", dovecot.tls_port);
        let certificate = dovecot.certificate().to_string_lossy().into_owned();
        let import = ["import", "--from", &server, "--users", "users", "--ca", &certificate];
        let dry = site.output("pop3svc", &[&import[..], &["--dry-run"]].concat(), b"");
        let kept = format!("{messages} with the unique id that mail programs know, 0 with");
        assert!(dry.contains("would be imported") && dry.contains(&kept), "{dry}");
        assert_eq!(site.messages_in(MAILBOX), 0);
        let done = site.output("pop3svc", &import, b"");
        assert!(done.contains(&kept), "{done}");
        let again = site.output("pop3svc", &import, b"");
        assert!(again.contains(&format!("{messages} already here")), "{again}");
        let verified = site.output("pop3svc", &[&import[..], &["--verify"]].concat(), b"");
        let expected = format!(
            "{messages} there, {messages} here: {messages} known, 0 fetched again, 0 new, 0 missing\n"
        );
        assert!(verified.contains(&expected), "{verified}");

        let port = service.port("POP3").parse().expect("a port");
        assert_eq!(lists(port, MAILBOX), before, "{uidl_format}");
        // 1: there is nothing new.
        assert_eq!(fetchmail_has(&site, port, false), fetched, "{uidl_format}");
        assert_eq!(lists(dovecot.port, MAILBOX), before, "nothing was deleted there");
        service.end();
    }
}

#[test]
fn a_master_user_opens_every_mailbox_and_missing_messages_are_reported() {
    if !have_dovecot_and(&[]) {
        return;
    }
    let site = Site::new();
    let dovecot = Dovecot::start(site.dir(), FORMATS[0].0);
    let users: Vec<String> = (1..=6).map(|number| format!("user{number}")).collect();
    for (number, user) in users.iter().enumerate() {
        dovecot.bring(user, 20 * number);
    }
    dovecot.own_mail();
    let service = site.serve();
    let list: String = users.iter().map(|user| format!("{user}@example.com\n")).collect();
    fs::write(site.path("users"), list).expect("it can be written");
    fs::write(site.path("password"), format!("{MASTER_PASSWORD}\n")).expect("it can be written");
    let certificate = dovecot.certificate().to_string_lossy().into_owned();
    let server = format!("pop3://127.0.0.1:{}", dovecot.port);
    let master = ["--master", MASTER, "--password-file", "password"];
    let import = [&["import", "--from", &server, "--users", "users", "--make"], &master[..]].concat();
    // Only the file itself vouches for this certificate.
    let unverified = site.outcome("pop3svc", &import, b"");
    let said = String::from_utf8_lossy(&unverified.stdout).into_owned();
    assert!(!unverified.status.success() && said.contains("invalid peer certificate"), "{unverified:?}");
    let done = site.output("pop3svc", &[&import[..], &["--ca", &certificate]].concat(), b"");
    assert!(done.contains("6 mailboxes, 300 messages"), "{done}");
    // They have no password yet.
    let port = service.port("POP3").parse().expect("a port");
    assert_eq!(lists(port, "user2@example.com"), Vec::<String>::new());
    for user in &users {
        let mailbox = format!("{user}@example.com");
        site.winpop(&format!("changepwd {mailbox} {PASSWORD}"));
        assert_eq!(lists(port, &mailbox), lists(dovecot.port, &mailbox));
    }
    // A wrong password closes no mailbox.
    fs::write(site.path("password"), "wrong\n").expect("it can be written");
    let clear = format!("pop3+clear://127.0.0.1:{}", dovecot.port);
    let refused = ["import", "--from", &clear, "user3@example.com"];
    let refused = site.outcome("pop3svc", &[&refused[..], &master[..]].concat(), b"");
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        !refused.status.success() && said.contains("refuses the login of user3@example.com*admin"),
        "{said}"
    );
    assert_eq!(lists(port, "user3@example.com").len(), 2 * 40);
    service.end();
}

#[test]
fn an_import_killed_with_the_service_continues_where_it_stopped() {
    if !have_dovecot_and(&[]) {
        return;
    }
    let site = Site::new();
    let dovecot = Dovecot::start(site.dir(), FORMATS[0].0);
    dovecot.bring("bob", 500);
    dovecot.own_mail();
    site.make_store();
    let service = Service::quickstart(&site, &[]);
    site.add_mailbox(MAILBOX);
    let port: u16 = service.port("POP3").parse().expect("a port");
    fs::write(site.path("password"), format!("{PASSWORD}\n")).expect("it can be written");
    let import = |port: u16| {
        let server = format!("pop3+clear://127.0.0.1:{port}");
        ["import", "--from", &server, MAILBOX, "--password-file", "password"].map(str::to_owned)
    };
    // More than a batch of 200 messages, and less than all.
    let gate = Gate::open(dovecot.port, 420 * 1024);
    let mut command = site.command("pop3svc");
    command.args(import(gate.port)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut tool = command.spawn().expect("it can be run");
    gate.closed.recv_timeout(WAIT_MAX).expect("so much comes");
    wait_for(|| site.messages_in(MAILBOX) >= 200);
    assert_eq!(answer_to_login(port, MAILBOX), LATER, "a part of the list is not shown");
    drop(service);
    tool.kill().expect("it runs");
    tool.wait().expect("it ends");
    drop(gate);

    let service = Service::start(&site, site.command("pop3svc").arg("quickstart"), READY);
    assert_eq!(answer_to_login(port, MAILBOX), LATER, "the promise outlives a crash");
    let words = import(dovecot.port);
    let done = site.output("pop3svc", &words.each_ref().map(String::as_str), b"");
    assert!(!done.contains(" 0 already here"), "{done}");
    assert_eq!(lists(port, MAILBOX), lists(dovecot.port, MAILBOX));
    service.end();
}

/// Checks repeatedly until it is so, up to the usual limit.
pub fn wait_for(mut is_so: impl FnMut() -> bool) {
    for _ in 0..WAIT_MAX.as_millis() / 50 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("it does not come to pass");
}

/// The reply to the login.
pub fn answer_to_login(port: u16, mailbox: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it answers");
    stream.set_read_timeout(Some(WAIT_MAX)).expect("it is no zero");
    stream.write_all(format!("USER {mailbox}\r\nPASS {PASSWORD}\r\nQUIT\r\n").as_bytes()).expect("it reads");
    BufReader::new(stream).lines().nth(2).expect("an answer").expect("text")
}

/// A proxy to a server that passes on this many octets per connection and then stops.
pub struct Gate {
    pub port: u16,
    /// Receives a message for each connection that has used up its octets.
    pub closed: Receiver<()>,
}

impl Gate {
    pub fn open(to: u16, octets: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (sender, closed) = channel();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let sender = sender.clone();
                thread::spawn(move || pass(client, server, octets, &sender));
            }
        });
        Self { port, closed }
    }
}

fn pass(client: TcpStream, server: TcpStream, octets: u64, closed: &Sender<()>) {
    let (mut from_client, mut to_server) =
        (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let commands = thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let mut client = client;
    if std::io::copy(&mut server.take(octets), &mut client).is_ok_and(|passed| passed == octets) {
        let _ = closed.send(());
        // Until the client gives up.
        let _ = commands.join();
    }
    let _ = client.shutdown(Shutdown::Both);
}
