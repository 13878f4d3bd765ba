//! The workloads. Each is a row of [`WORKLOADS`]: a number of connections that all repeat one operation until time is
//! up.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::client::Client;
use super::meter::{self, Figures};
use super::peers::{self, Peer, USERS};
use super::tls::Connector;

pub const SMALL_OCTETS: usize = 4 << 10;
pub const LARGE_OCTETS: usize = 10 << 20;
const DELIVERED_OCTETS: usize = 1 << 10;
/// Messages in a mailbox that is fetched from.
const FETCHED_MESSAGES: usize = 100;
const LARGE_MESSAGES: usize = 4;
const DRAINED_MESSAGES: usize = 10;
const IDLE_CONNECTIONS: usize = 10_000;

pub struct Workload {
    pub name: &'static str,
    pub help: &'static str,
    connections: usize,
    task: Task,
    door: Door,
}

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Session,
    Fetch,
    FetchPipelined,
    FetchLarge,
    Drain,
    Deliver,
    /// STAT and RETR, while another process delivers over this many connections.
    Read {
        deliveries: usize,
    },
    Idle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Pop3,
    Pop3s { resumes: bool },
    Lmtp,
    Smtp,
}

macro_rules! workload {
    ($name:literal, $connections:expr, $task:expr, $door:expr, $help:literal) => {
        Workload { name: $name, help: $help, connections: $connections, task: $task, door: $door }
    };
}

const FULL: Door = Door::Pop3s { resumes: false };
const RESUMED: Door = Door::Pop3s { resumes: true };

pub const WORKLOADS: &[Workload] = &[
    workload!("sessions", 4, Task::Session, Door::Pop3, "log in, STAT, QUIT; 4 connections"),
    workload!("fetch", 4, Task::Fetch, Door::Pop3, "RETR of 4 KiB one by one; 4 connections"),
    workload!("pipelined", 4, Task::FetchPipelined, Door::Pop3, "RETR of 4 KiB, 100 at once; 4 connections"),
    workload!("large", 2, Task::FetchLarge, Door::Pop3, "RETR of 10 MiB; 2 connections"),
    workload!("drain", 4, Task::Drain, Door::Pop3, "log in, RETR and DELE 10 messages, QUIT; 4 connections"),
    workload!("lmtp-1", 1, Task::Deliver, Door::Lmtp, "durable deliveries of 1 KiB; 1 connection"),
    workload!("lmtp-32", 32, Task::Deliver, Door::Lmtp, "durable deliveries of 1 KiB; 32 connections"),
    workload!("lmtp-256", 256, Task::Deliver, Door::Lmtp, "durable deliveries of 1 KiB; 256 connections"),
    workload!(
        "smtp-32",
        32,
        Task::Deliver,
        Door::Smtp,
        "durable deliveries of 1 KiB by SMTP; 32 connections"
    ),
    workload!(
        "tls-sessions",
        4,
        Task::Session,
        FULL,
        "log in, STAT, QUIT with a full handshake; 4 connections"
    ),
    workload!("tls-resumed", 4, Task::Session, RESUMED, "the same, the TLS session resumed; 4 connections"),
    workload!("tls-fetch", 4, Task::Fetch, RESUMED, "RETR of 4 KiB under TLS; 4 connections"),
    workload!(
        "read-alone",
        1,
        Task::Read { deliveries: 0 },
        Door::Pop3,
        "STAT and RETR of 4 KiB, nothing else"
    ),
    workload!(
        "read-mixed",
        1,
        Task::Read { deliveries: 32 },
        Door::Pop3,
        "STAT and RETR of 4 KiB while 32 connections deliver at full speed"
    ),
    workload!("idle", IDLE_CONNECTIONS, Task::Idle, Door::Pop3, "10,000 greeted connections; memory of each"),
];

/// The measurement under way.
struct Run<'a> {
    peer: &'a Peer,
    address: SocketAddr,
    tls: Option<Connector>,
    ends: Cell<Instant>,
    latencies: RefCell<Vec<u32>>,
    octets: Cell<u64>,
}

/// `None` if the peer does not offer the protocol.
pub async fn measure(workload: &Workload, peer: &Peer, length: Duration) -> io::Result<Option<Figures>> {
    let address = match workload.door {
        Door::Pop3 => peer.pop3,
        Door::Pop3s { .. } => peer.pop3s,
        Door::Lmtp => peer.lmtp,
        Door::Smtp => peer.smtp,
    };
    let Some(address) = address else { return Ok(None) };
    let tls = match workload.door {
        Door::Pop3s { resumes } => Some(Connector::new(resumes)),
        _ => None,
    };
    let run = &Run {
        peer,
        address,
        tls,
        ends: Cell::new(Instant::now()),
        latencies: RefCell::default(),
        octets: Cell::new(0),
    };
    run.prepare(workload).await?;
    if workload.task == Task::Idle {
        return run.hold_idle(workload.connections).await.map(Some);
    }
    let _load = match (workload.task, peer.lmtp) {
        (Task::Read { deliveries }, Some(lmtp)) if deliveries > 0 => Some(peers::load(lmtp, deliveries)),
        _ => None,
    };
    let begin = Instant::now();
    run.ends.set(begin + length);
    let before = meter::read(peer.pid, peer.directory.as_deref());
    together((0..workload.connections).map(|number| run.repeat(workload, number))).await?;
    Ok(Some(run.figures(begin.elapsed(), before)))
}

/// Delivers over this many connections until the server ends or this process is killed.
pub async fn deliver_without_end(lmtp: SocketAddr, connections: usize) -> io::Result<()> {
    // So that the texts also differ from those of the measuring process.
    NEXT.set(u64::from(std::process::id()) << 32);
    together((0..connections).map(|number| deliver_to_one(lmtp, number))).await
}

/// Runs several connections on this thread. The first error ends them all.
pub async fn together<'a>(
    connections: impl Iterator<Item = impl Future<Output = io::Result<()>> + 'a>,
) -> io::Result<()> {
    let executor = smol::LocalExecutor::new();
    let tasks: Vec<_> = connections.map(|connection| executor.spawn(connection)).collect();
    executor
        .run(async {
            for task in tasks {
                task.await?;
            }
            Ok(())
        })
        .await
}

async fn deliver_to_one(lmtp: SocketAddr, number: usize) -> io::Result<()> {
    let mailbox = mailbox(Task::Deliver, number);
    let mut client = Client::connect(lmtp, None).await?;
    client.greet("LHLO").await?;
    loop {
        client.deliver(&mailbox, &message(next_number(), DELIVERED_OCTETS)).await?;
    }
}

/// A message in wire form with its final dot; `number` makes it unique.
pub fn message(number: u64, octets: usize) -> Vec<u8> {
    let mut text = format!(
        "From: <sender@client.example>\r\nSubject: {number}\r\nMessage-ID: <{number}.{octets}@client.example>\r\n\r\n"
    )
    .into_bytes();
    while text.len() < octets {
        text.extend_from_slice(b"The quick brown fox jumps over the lazy dog and sixteen more.\r\n");
    }
    text.extend_from_slice(b".\r\n");
    text
}

thread_local!(static NEXT: Cell<u64> = const { Cell::new(0) });

fn next_number() -> u64 {
    NEXT.replace(NEXT.get() + 1)
}

fn user(number: usize) -> String {
    format!("user{}@bench.example", number % USERS)
}

/// Each task has its own mailboxes, so that what one leaves behind does not affect the next.
fn mailbox(task: Task, connection: usize) -> String {
    let first = match task {
        Task::Session => 0,
        Task::Fetch | Task::FetchPipelined | Task::Read { .. } => 8,
        Task::FetchLarge => 16,
        Task::Drain => 24,
        Task::Deliver | Task::Idle => 32,
    };
    user(first + connection % (USERS - first))
}

impl Run<'_> {
    fn is_over(&self) -> bool {
        Instant::now() >= self.ends.get()
    }

    /// Times an operation.
    async fn time<T>(&self, operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let begin = Instant::now();
        let outcome = operation.await?;
        self.latencies.borrow_mut().push(begin.elapsed().as_micros() as u32);
        Ok(outcome)
    }

    fn figures(&self, elapsed: Duration, before: meter::Reading) -> Figures {
        Figures {
            latencies: self.latencies.take(),
            octets: self.octets.get(),
            elapsed,
            before,
            after: meter::read(self.peer.pid, self.peer.directory.as_deref()),
        }
    }

    /// Fills the mailboxes that the workload fetches from, and logs in once in case the server remembers passwords.
    async fn prepare(&self, workload: &Workload) -> io::Result<()> {
        let (messages, octets) = match workload.task {
            Task::Fetch | Task::FetchPipelined | Task::Read { .. } => (FETCHED_MESSAGES, SMALL_OCTETS),
            Task::FetchLarge => (LARGE_MESSAGES, LARGE_OCTETS),
            Task::Session => (1, SMALL_OCTETS),
            Task::Drain | Task::Deliver | Task::Idle => return Ok(()),
        };
        if self.peer.keeps_nothing {
            return Ok(());
        }
        for number in 0..workload.connections {
            let mailbox = mailbox(workload.task, number);
            let have = self.count(&mailbox).await?;
            self.fill(&mailbox, messages.saturating_sub(have), octets).await?;
        }
        Ok(())
    }

    async fn count(&self, mailbox: &str) -> io::Result<usize> {
        let Some(address) = self.peer.pop3 else { return Ok(0) };
        let mut client = Client::connect(address, None).await?;
        client.log_in(mailbox, &self.peer.password).await?;
        let reply = client.ask("STAT\r\n", "+OK").await?;
        client.quit().await?;
        Ok(reply.split(' ').nth(1).and_then(|count| count.parse().ok()).unwrap_or(0))
    }

    async fn fill(&self, mailbox: &str, messages: usize, octets: usize) -> io::Result<()> {
        let Some(address) = self.peer.lmtp else { return Ok(()) };
        if messages == 0 {
            return Ok(());
        }
        let mut client = Client::connect(address, None).await?;
        client.greet("LHLO").await?;
        for _ in 0..messages {
            client.deliver(mailbox, &message(next_number(), octets)).await?;
        }
        Ok(())
    }

    async fn repeat(&self, workload: &Workload, number: usize) -> io::Result<()> {
        let mailbox = mailbox(workload.task, number);
        match workload.task {
            Task::Session => self.sessions(&mailbox).await,
            Task::Fetch => self.fetch(&mailbox, FETCHED_MESSAGES).await,
            Task::FetchPipelined => self.fetch_pipelined(&mailbox).await,
            Task::FetchLarge => self.fetch(&mailbox, LARGE_MESSAGES).await,
            Task::Drain => self.drain(&mailbox).await,
            Task::Deliver => {
                let hello = if workload.door == Door::Lmtp { "LHLO" } else { "EHLO" };
                self.deliver(hello, &mailbox).await
            }
            Task::Read { .. } => self.read(&mailbox).await,
            Task::Idle => unreachable!("it is measured by `hold_idle`"),
        }
    }

    async fn connect(&self) -> io::Result<Client> {
        Client::connect(self.address, self.tls.as_ref()).await
    }

    async fn logged_in(&self, mailbox: &str) -> io::Result<Client> {
        let mut client = self.connect().await?;
        client.log_in(mailbox, &self.peer.password).await?;
        Ok(client)
    }

    async fn sessions(&self, mailbox: &str) -> io::Result<()> {
        while !self.is_over() {
            self.time(async {
                let mut client = self.logged_in(mailbox).await?;
                client.ask("STAT\r\n", "+OK").await?;
                client.quit().await
            })
            .await?;
        }
        Ok(())
    }

    async fn retrieve(&self, client: &mut Client, number: usize) -> io::Result<()> {
        client.ask(&format!("RETR {number}\r\n"), "+OK").await?;
        self.octets.set(self.octets.get() + client.text().await?);
        Ok(())
    }

    async fn fetch(&self, mailbox: &str, messages: usize) -> io::Result<()> {
        let mut client = self.logged_in(mailbox).await?;
        for number in (1..=messages).cycle() {
            if self.is_over() {
                break;
            }
            self.time(self.retrieve(&mut client, number)).await?;
        }
        client.quit().await
    }

    async fn fetch_pipelined(&self, mailbox: &str) -> io::Result<()> {
        let mut client = self.logged_in(mailbox).await?;
        let commands: String = (1..=FETCHED_MESSAGES).map(|number| format!("RETR {number}\r\n")).collect();
        while !self.is_over() {
            client.send(commands.as_bytes()).await?;
            for _ in 0..FETCHED_MESSAGES {
                self.time(async {
                    client.expect("+OK").await?;
                    self.octets.set(self.octets.get() + client.text().await?);
                    Ok(())
                })
                .await?;
            }
        }
        client.quit().await
    }

    async fn drain(&self, mailbox: &str) -> io::Result<()> {
        while !self.is_over() {
            if !self.peer.keeps_nothing {
                self.fill(mailbox, DRAINED_MESSAGES, DELIVERED_OCTETS).await?;
            }
            self.time(async {
                let mut client = self.logged_in(mailbox).await?;
                for number in 1..=DRAINED_MESSAGES {
                    self.retrieve(&mut client, number).await?;
                }
                for number in 1..=DRAINED_MESSAGES {
                    client.ask(&format!("DELE {number}\r\n"), "+OK").await?;
                }
                client.quit().await
            })
            .await?;
        }
        Ok(())
    }

    async fn deliver(&self, hello: &str, mailbox: &str) -> io::Result<()> {
        let mut client = self.connect().await?;
        client.greet(hello).await?;
        while !self.is_over() {
            let text = message(next_number(), DELIVERED_OCTETS);
            self.time(client.deliver(mailbox, &text)).await?;
            self.octets.set(self.octets.get() + text.len() as u64);
        }
        Ok(())
    }

    async fn read(&self, mailbox: &str) -> io::Result<()> {
        let mut client = self.logged_in(mailbox).await?;
        for number in (1..=FETCHED_MESSAGES).cycle() {
            if self.is_over() {
                break;
            }
            self.time(client.ask("STAT\r\n", "+OK")).await?;
            self.time(self.retrieve(&mut client, number)).await?;
        }
        client.quit().await
    }

    /// Opens connections that stay until the last one is greeted, and reports the server's memory on the way.
    async fn hold_idle(&self, connections: usize) -> io::Result<Figures> {
        let begin = Instant::now();
        let before = meter::read(self.peer.pid, None);
        let memory = |peer: &Peer| peer.pid.map(meter::anonymous_octets);
        let empty = memory(self.peer);
        let mut open = Vec::new();
        for _ in 0..connections {
            let client = self
                .time(async {
                    let mut client = self.connect().await?;
                    client.expect("+OK").await?;
                    Ok(client)
                })
                .await?;
            // The client's buffers are not the server's cost, and 10,000 of them would only take memory.
            open.push(client.into_socket());
        }
        if let (Some(empty), Some(full)) = (empty, memory(self.peer)) {
            let each = full.saturating_sub(empty) / connections as u64;
            println!("{:<16} {each} octets of memory a connection", self.peer.name);
        }
        Ok(self.figures(begin.elapsed(), before))
    }
}
