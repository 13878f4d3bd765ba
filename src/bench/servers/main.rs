//! Measures several mail servers from outside in one run.
//!
//! ```text
//! cargo bench --bench servers                                   pop3svc, Dovecot if installed, the null responder
//! cargo bench --bench servers -- --install-dovecot              the same; first installs Dovecot on Debian, as root
//! cargo bench --bench servers -- --only sessions,drain          some of the workloads
//! cargo bench --bench servers -- --grow 5000000                 what a change costs as the store grows
//! cargo bench --bench servers -- --against PROGRAM              this build and another one of pop3svc
//! cargo bench --bench servers -- --pop3 HOST:PORT --lmtp HOST:PORT --password P     any server by its address
//! ```
//!
//! The generator is one thread, so it takes the same share of the machine whatever it drives. The *null responder*
//! answers every command from memory and stores nothing. Its figure is the generator's own ceiling on this machine; no
//! server can gain more than its ratio to that. Only `read-mixed` has a second process, for its deliveries.
//!
//! A server named by its address needs the mailboxes `user0@bench.example` to `user63@bench.example`, all with the
//! one password. Servers started here get them automatically.
//!
//! Figures are printed and nothing is asserted. Every workload ends by count or after `--seconds`.

#[path = "../../tests/any_certificate.rs"]
mod any_certificate;
mod client;
mod growth;
mod meter;
mod null_responder;
mod peers;
mod tls;
mod workloads;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;

use peers::Peer;
use workloads::WORKLOADS;

/// Measures several mail servers from outside.
#[derive(FromArgs)]
struct Arguments {
    /// workloads to run, separated by commas (default: all)
    #[argh(option)]
    only: Option<String>,
    /// seconds each workload runs (default: 4)
    #[argh(option, default = "4")]
    seconds: u64,
    /// deliver this many messages into pop3svc, and print the cost of a change along the way
    #[argh(option)]
    grow: Option<u64>,
    /// install Debian's Dovecot first, unless it is there
    #[argh(switch)]
    install_dovecot: bool,
    /// another build of pop3svc, measured alternately with this one
    #[argh(option)]
    against: Option<PathBuf>,
    /// POP3 address of a server that is already running
    #[argh(option)]
    pop3: Option<SocketAddr>,
    /// its POP3S address
    #[argh(option)]
    pop3s: Option<SocketAddr>,
    /// its LMTP address
    #[argh(option)]
    lmtp: Option<SocketAddr>,
    /// its SMTP address
    #[argh(option)]
    smtp: Option<SocketAddr>,
    /// the password of its mailboxes (default: secret)
    #[argh(option, default = "String::from(\"secret\")")]
    password: String,
    /// its process, for CPU time
    #[argh(option)]
    pid: Option<u32>,
    /// run as the null responder (used by this program itself)
    #[argh(switch)]
    null_responder: bool,
    /// deliver to this LMTP address endlessly (used by this program itself)
    #[argh(option)]
    load: Option<SocketAddr>,
    /// connections that deliver
    #[argh(option, default = "32")]
    connections: usize,
    /// passed by Cargo
    #[argh(switch)]
    #[expect(dead_code, reason = "cargo bench passes --bench to every benchmark")]
    bench: bool,
}

fn main() {
    let arguments: Arguments = argh::from_env();
    if arguments.null_responder {
        return null_responder::run();
    }
    if let Some(lmtp) = arguments.load {
        // Ends with the server or by a signal.
        let _ = smol::block_on(workloads::deliver_without_end(lmtp, arguments.connections));
        return;
    }
    if arguments.install_dovecot
        && let Err(why) = peers::install_dovecot()
    {
        eprintln!("Dovecot cannot be installed: {why}");
        std::process::exit(1);
    }
    let directory = std::env::temp_dir().join(format!("pop3svc-servers-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("the temporary directory can be written");
    if let Some(messages) = arguments.grow {
        let peer = peers::pop3svc(&directory, None);
        growth::run(&peer, messages);
        drop(peer);
    } else {
        let peers = match named(&arguments) {
            Some(peer) => vec![peer],
            None => peers::all(&directory, arguments.against.as_deref()),
        };
        compare(&peers, &arguments);
    }
    std::fs::remove_dir_all(&directory).expect("what was made can be removed");
}

/// The server whose addresses were typed.
fn named(arguments: &Arguments) -> Option<Peer> {
    let Arguments { pop3, pop3s, lmtp, smtp, .. } = *arguments;
    let is_named = [pop3, pop3s, lmtp, smtp].iter().any(Option::is_some);
    is_named.then(|| Peer::named(pop3, pop3s, lmtp, smtp, arguments.password.clone(), arguments.pid))
}

/// Runs each workload against each server in turn, so that a slow minute of the machine affects them all.
fn compare(peers: &[Peer], arguments: &Arguments) {
    let wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| only.split(',').any(|o| o == name));
    let seconds = Duration::from_secs(arguments.seconds);
    for workload in WORKLOADS.iter().filter(|workload| wanted(workload.name)) {
        println!("\n{}: {}", workload.name, workload.help);
        println!("{}", meter::HEADING);
        let mut first = None;
        for peer in peers {
            match smol::block_on(workloads::measure(workload, peer, seconds)) {
                Ok(Some(figures)) => {
                    let first = *first.get_or_insert(figures.per_second());
                    println!("{}", figures.row(&peer.name, first));
                }
                Ok(None) => println!("{:<16} not served", peer.name),
                Err(e) => println!("{:<16} {e}", peer.name),
            }
        }
    }
}
