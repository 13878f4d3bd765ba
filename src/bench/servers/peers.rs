//! The servers to measure. Each is a child process on its own loopback ports, with the mailboxes `user0@bench.example`
//! and so on, and ends when it is dropped.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const USERS: usize = 64;
const PASSWORD: &str = "secret";
/// How long a server may take to start listening.
const START_MAX: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(20);

pub struct Peer {
    pub name: String,
    pub pop3: Option<SocketAddr>,
    pub pop3s: Option<SocketAddr>,
    pub lmtp: Option<SocketAddr>,
    pub smtp: Option<SocketAddr>,
    pub password: String,
    /// To measure CPU time.
    pub pid: Option<u32>,
    /// Where it keeps mail, to measure what reaches the device.
    pub directory: Option<PathBuf>,
    pub data_file: Option<PathBuf>,
    /// It stores nothing, so its mailboxes cannot be filled.
    pub keeps_nothing: bool,
    _process: Option<Process>,
}

/// A server or load generator started here.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // SIGTERM, so that Dovecot ends its own children. A process that is gone needs no signal.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

impl Peer {
    /// A server that is already running.
    pub fn named(
        pop3: Option<SocketAddr>,
        pop3s: Option<SocketAddr>,
        lmtp: Option<SocketAddr>,
        smtp: Option<SocketAddr>,
        password: String,
        pid: Option<u32>,
    ) -> Self {
        Self {
            name: "server".to_owned(),
            pop3,
            pop3s,
            lmtp,
            smtp,
            password,
            pid,
            directory: None,
            data_file: None,
            keeps_nothing: false,
            _process: None,
        }
    }

    fn started(name: &str, child: Child) -> Self {
        let pid = Some(child.id());
        let named = Self::named(None, None, None, None, PASSWORD.to_owned(), pid);
        Self { name: name.to_owned(), _process: Some(Process(child)), ..named }
    }
}

/// Everything that can be measured here, in the order of the rows. Ratios are to the first.
pub fn all(directory: &Path, against: Option<&Path>) -> Vec<Peer> {
    let mut peers = vec![pop3svc(directory, None)];
    peers.extend(against.map(|program| pop3svc(directory, Some(program))));
    match dovecot(directory) {
        Ok(peer) => peers.push(peer),
        Err(why) => {
            eprintln!("Dovecot is left out: {why} (as root on Debian, --install-dovecot installs it)")
        }
    }
    peers.push(null_responder());
    peers
}

/// This build of the program, or another one, on a new store.
pub fn pop3svc(directory: &Path, other: Option<&Path>) -> Peer {
    let program = other.unwrap_or(Path::new(env!("CARGO_BIN_EXE_pop3svc")));
    let name = if other.is_none() { "pop3svc" } else { "the other build" };
    let mailroot = directory.join(name);
    let command = |words: &[&str]| {
        let mut command = Command::new(program);
        command.env("WINPOP_MAILROOT", &mailroot).env("HOME", directory).args(words);
        command
    };
    let winpop = |words: &[&str]| {
        let status = command(&["winpop"]).args(words).stdout(Stdio::null()).status();
        assert!(status.expect("the program can be run").success(), "winpop {words:?}");
    };
    let [pop3, pop3s, lmtp, smtp] = std::array::from_fn(|_| free_port());
    winpop(&["add", "bench.example"]);
    for number in 0..USERS {
        winpop(&["add", &format!("user{number}@bench.example"), "/createuser", PASSWORD]);
    }
    for (key, value) in [
        ("logging", 1),
        ("port", pop3.port()),
        ("tlsport", pop3s.port()),
        ("lmtpport", lmtp.port()),
        ("smtpport", smtp.port()),
        ("socketmax", 11_000),
        ("socketmin", 100),
    ] {
        winpop(&["set", key, &value.to_string()]);
    }
    winpop(&["set", "listen", "127.0.0.1"]);
    let child = command(&["serve"]).spawn().expect("the program can be run");
    wait_for(&[pop3, pop3s, lmtp, smtp]);
    Peer {
        pop3: Some(pop3),
        pop3s: Some(pop3s),
        lmtp: Some(lmtp),
        smtp: Some(smtp),
        data_file: Some(mailroot.join("winpop.db")),
        directory: Some(mailroot),
        ..Peer::started(name, child)
    }
}

/// Needs root.
pub fn install_dovecot() -> Result<(), String> {
    const PACKAGES: [&str; 3] = ["dovecot-core", "dovecot-lmtpd", "dovecot-pop3d"];
    let mut command = Command::new("apt-get");
    command.args(["install", "--yes", "--no-install-recommends"]).args(PACKAGES);
    let status = command.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("apt-get: {status}")),
        Err(e) => Err(format!("apt-get cannot be run: {e}")),
    }
}

/// Debian's Dovecot with a Maildir per user, the cheapest password checks it offers, and durable deliveries
/// (`mail_fsync = always`).
fn dovecot(directory: &Path) -> Result<Peer, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("it is started as root only".to_owned());
    }
    let base = directory.join("dovecot");
    fs::create_dir_all(base.join("mail")).map_err(|e| e.to_string())?;
    let (certificate, key) = (base.join("certificate.pem"), base.join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(|e| e.to_string())?;
    fs::write(&certificate, pem("CERTIFICATE", made.cert.der())).map_err(|e| e.to_string())?;
    fs::write(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).map_err(|e| e.to_string())?;
    let [pop3, pop3s, lmtp] = std::array::from_fn(|_| free_port());
    let configuration = format!(
        "protocols = pop3 lmtp
base_dir = {base}/run
log_path = {base}/log
listen = 127.0.0.1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
auth_mechanisms = plain
auth_cache_size = 1M
mail_location = maildir:{base}/mail/%u
mail_fsync = always
first_valid_uid = 1
passdb {{
  driver = static
  args = password={PASSWORD}
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={base}/mail/%u
}}
service pop3-login {{
  service_count = 0
  process_min_avail = 2
  client_limit = 11000
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
}}
service pop3 {{
  service_count = 1000
  process_min_avail = 4
}}
service lmtp {{
  process_limit = 300
  process_min_avail = 4
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
",
        base = base.display(),
        certificate = certificate.display(),
        key = key.display(),
        pop3 = pop3.port(),
        pop3s = pop3s.port(),
        lmtp = lmtp.port(),
    );
    let file = base.join("dovecot.conf");
    fs::write(&file, configuration).map_err(|e| e.to_string())?;
    // Its processes run as other users, who must be able to enter the directories above.
    let owned = Command::new("chown").args(["-R", "mail:mail"]).arg(base.join("mail")).status();
    owned.map_err(|e| e.to_string())?;
    let output = File::create(base.join("output")).map_err(|e| e.to_string())?;
    let child = Command::new("dovecot").arg("-F").arg("-c").arg(&file).stderr(output).spawn();
    let child = child.map_err(|e| format!("it cannot be run: {e}"))?;
    wait_for(&[pop3, pop3s, lmtp]);
    Ok(Peer {
        pop3: Some(pop3),
        pop3s: Some(pop3s),
        lmtp: Some(lmtp),
        directory: Some(base.join("mail")),
        ..Peer::started("Dovecot", child)
    })
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// This program again, as a server.
fn null_responder() -> Peer {
    let itself = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(itself);
    command.arg("--null-responder").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("this program can be run");
    let mut ports = String::new();
    let output = child.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut ports).expect("it prints its ports");
    let port = |number| {
        let port = ports.split_whitespace().nth(number).and_then(|port| port.parse().ok());
        SocketAddr::from((Ipv4Addr::LOCALHOST, port.expect("two ports")))
    };
    Peer {
        pop3: Some(port(0)),
        lmtp: Some(port(1)),
        keeps_nothing: true,
        ..Peer::started("null responder", child)
    }
}

/// This program again, delivering at full speed, in another process so that this work does not delay what is measured.
pub fn load(lmtp: SocketAddr, connections: usize) -> Process {
    let itself = std::env::current_exe().expect("this program has a path");
    let (lmtp, connections) = (lmtp.to_string(), connections.to_string());
    let words = ["--load", &lmtp, "--connections", &connections];
    Process(Command::new(itself).args(words).stderr(Stdio::null()).spawn().expect("this program can be run"))
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port can be had");
    listener.local_addr().expect("it is bound")
}

/// Waits until something listens on every address.
fn wait_for(addresses: &[SocketAddr]) {
    let tries = START_MAX.as_millis() / ASK_EVERY.as_millis();
    for address in addresses {
        let listens = (0..tries).any(|_| {
            let is_there = TcpStream::connect(address).is_ok();
            if !is_there {
                std::thread::sleep(ASK_EVERY);
            }
            is_there
        });
        assert!(listens, "nobody listens on {address}");
    }
}
