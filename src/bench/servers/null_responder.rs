//! A server that answers from memory and stores nothing: one thread, no parsing worth the name.
//!
//! It prints the ports it listens on (POP3, LMTP), and ends when its standard input does.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;

use async_io::Async;
use smol::io::{AsyncReadExt, AsyncWriteExt};

const READ_OCTETS: usize = 64 << 10;

pub fn run() {
    let executor = Rc::new(smol::LocalExecutor::new());
    let pop3 = listen();
    let lmtp = listen();
    let port = |listener: &Async<TcpListener>| listener.get_ref().local_addr().expect("it is bound").port();
    println!("{} {}", port(&pop3), port(&lmtp));
    io::stdout().flush().expect("the parent reads it");
    let large = super::workloads::message(0, super::workloads::LARGE_OCTETS);
    let small = super::workloads::message(0, super::workloads::SMALL_OCTETS);
    let texts = Rc::new((small, large));
    let accepting = executor.clone();
    executor
        .spawn(async move {
            while let Ok((socket, _)) = pop3.accept().await {
                accepting.spawn(answer_pop3(socket, texts.clone())).detach();
            }
        })
        .detach();
    let accepting = executor.clone();
    executor
        .spawn(async move {
            while let Ok((socket, _)) = lmtp.accept().await {
                accepting.spawn(answer_lmtp(socket)).detach();
            }
        })
        .detach();
    let parent_has_gone = smol::unblock(|| io::stdin().read_to_end(&mut Vec::new()));
    let _ = smol::block_on(executor.run(parent_has_gone));
}

fn listen() -> Async<TcpListener> {
    Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port can be had")
}

async fn answer_pop3(mut socket: Async<TcpStream>, texts: Rc<(Vec<u8>, Vec<u8>)>) -> io::Result<()> {
    let (mut buffer, mut out) = (vec![0; READ_OCTETS], b"+OK ready\r\n".to_vec());
    let (mut begun, mut is_large) = (Vec::new(), false);
    loop {
        socket.write_all(&out).await?;
        out.clear();
        let count = socket.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        begun.extend_from_slice(&buffer[..count]);
        while let Some(end) = memchr::memchr(b'\n', &begun) {
            let line: Vec<u8> = begun.drain(..=end).collect();
            out.extend_from_slice(b"+OK 1 1\r\n");
            match line.get(..4) {
                Some(b"USER") => {
                    is_large = line.starts_with(b"USER user16@") || line.starts_with(b"USER user17@")
                }
                Some(b"RETR") => out.extend_from_slice(if is_large { &texts.1 } else { &texts.0 }),
                Some(b"QUIT") => return socket.write_all(&out).await,
                _ => {}
            }
        }
    }
}

async fn answer_lmtp(mut socket: Async<TcpStream>) -> io::Result<()> {
    let (mut buffer, mut out) = (vec![0; READ_OCTETS], b"220 ready\r\n".to_vec());
    let (mut begun, mut in_data) = (Vec::new(), false);
    loop {
        socket.write_all(&out).await?;
        out.clear();
        let count = socket.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        begun.extend_from_slice(&buffer[..count]);
        loop {
            let separator: &[u8] = if in_data { b"\r\n.\r\n" } else { b"\n" };
            let Some(at) = memchr::memmem::find(&begun, separator) else { break };
            let line: Vec<u8> = begun.drain(..at + separator.len()).collect();
            let is_data = !in_data && line.starts_with(b"DATA");
            out.extend_from_slice(if is_data { b"354 go on\r\n" } else { b"250 2.0.0 done\r\n" });
            in_data = is_data;
        }
    }
}
