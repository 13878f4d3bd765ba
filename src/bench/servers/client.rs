//! A minimal POP3 and LMTP/SMTP client: it reads replies and counts the octets of messages.

use std::io;
use std::net::{SocketAddr, TcpStream};

use async_io::Async;
use futures_rustls::client::TlsStream;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use super::tls;

const READ_OCTETS: usize = 64 << 10;

pub struct Client {
    stream: Stream,
    buffer: Box<[u8]>,
    unread: std::ops::Range<usize>,
}

pub enum Stream {
    Clear(Async<TcpStream>),
    Tls(Box<TlsStream<Async<TcpStream>>>),
}

impl Client {
    /// The bare connection, to keep open.
    pub fn into_socket(self) -> Stream {
        self.stream
    }

    /// Connects, without waiting for the greeting.
    pub async fn connect(address: SocketAddr, tls: Option<&tls::Connector>) -> io::Result<Self> {
        let socket = Async::<TcpStream>::connect(address).await?;
        socket.get_ref().set_nodelay(true)?;
        let stream = match tls {
            None => Stream::Clear(socket),
            Some(connector) => Stream::Tls(Box::new(connector.connect(socket).await?)),
        };
        Ok(Self { stream, buffer: vec![0; READ_OCTETS].into(), unread: 0..0 })
    }

    pub async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Clear(stream) => stream.write_all(octets).await,
            Stream::Tls(stream) => {
                stream.write_all(octets).await?;
                stream.flush().await
            }
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.unread = 0..match &mut self.stream {
            Stream::Clear(stream) => stream.read(&mut self.buffer).await?,
            Stream::Tls(stream) => stream.read(&mut self.buffer).await?,
        };
        if self.unread.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// The next line without its line end.
    pub async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            if self.unread.is_empty() {
                self.fill().await?;
            }
            let unread = &self.buffer[self.unread.clone()];
            let end = memchr::memchr(b'\n', unread);
            let taken = end.map_or(unread.len(), |end| end + 1);
            line.extend_from_slice(&unread[..taken]);
            self.unread.start += taken;
            if end.is_some() {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }

    /// Reads a line, which must begin like this.
    pub async fn expect(&mut self, beginning: &str) -> io::Result<String> {
        let line = self.line().await?;
        if line.starts_with(beginning) { Ok(line) } else { Err(io::Error::other(line)) }
    }

    pub async fn ask(&mut self, command: &str, expected: &str) -> io::Result<String> {
        self.send(command.as_bytes()).await?;
        self.expect(expected).await
    }

    /// Reads a multi-line response up to its dot and returns its octets, including the dot line.
    pub async fn text(&mut self) -> io::Result<u64> {
        const END: &[u8] = b"\r\n.\r\n";
        let mut octets = 0;
        // The latest octets, to recognise the end. An empty text begins with the dot.
        let mut last = b"\r\n".to_vec();
        loop {
            if self.unread.is_empty() {
                self.fill().await?;
            }
            let unread = &self.buffer[self.unread.clone()];
            let seam = [&last[..], &unread[..unread.len().min(END.len() - 1)]].concat();
            let end = match memchr::memmem::find(&seam, END) {
                Some(at) => Some(at + END.len() - last.len()),
                None => memchr::memmem::find(unread, END).map(|at| at + END.len()),
            };
            let taken = end.unwrap_or(unread.len());
            last.extend_from_slice(&unread[taken.saturating_sub(END.len() - 1)..taken]);
            last.drain(..last.len().saturating_sub(END.len() - 1));
            self.unread.start += taken;
            octets += taken as u64;
            if end.is_some() {
                return Ok(octets);
            }
        }
    }

    /// Reads an SMTP reply, which may have several lines.
    pub async fn reply(&mut self, code: &str) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            if !line.starts_with(code) {
                return Err(io::Error::other(line));
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }

    pub async fn log_in(&mut self, user: &str, password: &str) -> io::Result<()> {
        self.expect("+OK").await?;
        self.ask(&format!("USER {user}\r\n"), "+OK").await?;
        self.ask(&format!("PASS {password}\r\n"), "+OK").await?;
        Ok(())
    }

    pub async fn quit(&mut self) -> io::Result<()> {
        self.ask("QUIT\r\n", "+OK").await?;
        Ok(())
    }

    /// Reads the greeting and says who we are, in SMTP (`EHLO`) or LMTP (`LHLO`).
    pub async fn greet(&mut self, hello: &str) -> io::Result<()> {
        self.reply("220").await?;
        self.send(format!("{hello} client.example\r\n").as_bytes()).await?;
        self.reply("250").await
    }

    /// Delivers one message to one mailbox, with its commands pipelined (RFC 2920) up to DATA.
    pub async fn deliver(&mut self, recipient: &str, text: &[u8]) -> io::Result<()> {
        let commands = format!("MAIL FROM:<sender@client.example>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n");
        self.send(commands.as_bytes()).await?;
        for code in ["250", "250", "354"] {
            self.reply(code).await?;
        }
        self.send(text).await?;
        self.reply("250").await
    }
}
