//! The cost of one durable delivery as the store grows: at each power of ten, one connection delivers for a while.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::client::Client;
use super::meter::{self, Figures};
use super::peers::{Peer, USERS};
use super::workloads::{message, together};

const CONNECTIONS: usize = 32;
/// Delivered one by one before the measurement, so that it does not include the checkpoint of the 32 connections.
const SETTLING_DELIVERIES: u64 = 4_000;
/// Enough to include checkpoints in the measurement as often as in normal operation.
const MEASURED_DELIVERIES: u64 = 10_000;
const OCTETS: usize = 1 << 10;
const FIRST_STOP: u64 = 10_000;

/// Delivers up to `messages`.
pub fn run(peer: &Peer, messages: u64) {
    let address = peer.lmtp.expect("a server that is started here has LMTP");
    println!("{}", meter::HEADING);
    let delivered = Cell::new(0);
    let (mut stop, mut first) = (FIRST_STOP, None);
    loop {
        let target = stop.min(messages);
        let filled = Instant::now();
        let count = target.saturating_sub(delivered.get());
        smol::block_on(fill(address, &delivered, target)).expect("the server takes mail");
        let filled_per_second = count as f64 / filled.elapsed().as_secs_f64();
        let figures = smol::block_on(one_by_one(peer, address, &delivered)).expect("the server takes mail");
        let rate = *first.get_or_insert(figures.per_second());
        println!("{}", figures.row(&format!("at {target}"), rate));
        let file = peer.data_file.as_deref().and_then(|path| path.metadata().ok());
        let allocated = file.map_or(0, |file| std::os::unix::fs::MetadataExt::blocks(&file) * 512);
        println!(
            "{:<16} {filled_per_second:.0}/s over {CONNECTIONS} connections before; the file takes {:.2} x the payload",
            "",
            allocated as f64 / (delivered.get() * message(0, OCTETS).len() as u64) as f64,
        );
        if target == messages {
            return;
        }
        stop = stop.saturating_mul(10);
    }
}

fn mailbox(number: u64) -> String {
    format!("user{}@bench.example", number % USERS as u64)
}

async fn fill(address: SocketAddr, delivered: &Cell<u64>, target: u64) -> io::Result<()> {
    let connection = || async {
        let mut client = Client::connect(address, None).await?;
        client.greet("LHLO").await?;
        while delivered.get() < target {
            let number = delivered.replace(delivered.get() + 1);
            client.deliver(&mailbox(number), &message(number, OCTETS)).await?;
        }
        Ok::<_, io::Error>(())
    };
    together((0..CONNECTIONS).map(|_| connection())).await
}

async fn one_by_one(peer: &Peer, address: SocketAddr, delivered: &Cell<u64>) -> io::Result<Figures> {
    let mut client = Client::connect(address, None).await?;
    client.greet("LHLO").await?;
    let next = || delivered.replace(delivered.get() + 1);
    for _ in 0..SETTLING_DELIVERIES {
        let number = next();
        client.deliver(&mailbox(number), &message(number, OCTETS)).await?;
    }
    let (begin, before) = (Instant::now(), meter::read(peer.pid, peer.directory.as_deref()));
    let mut latencies = Vec::new();
    for _ in 0..MEASURED_DELIVERIES {
        let number = next();
        let delivery = Instant::now();
        client.deliver(&mailbox(number), &message(number, OCTETS)).await?;
        latencies.push(delivery.elapsed().as_micros() as u32);
    }
    let after = meter::read(peer.pid, peer.directory.as_deref());
    let octets = MEASURED_DELIVERIES * OCTETS as u64;
    Ok(Figures { latencies, octets, elapsed: begin.elapsed(), before, after })
}
