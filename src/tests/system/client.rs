//! Small clients for POP3 and LMTP. They report only connection errors, so that a test can tell a killed service from a
//! wrong answer; the tests judge the answers.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::tls;
use crate::harness::PATIENCE;

/// Lines to and from a server on loopback.
pub struct Client {
    socket: TcpStream,
    /// The socket, or TLS over it.
    stream: BufReader<Box<dyn ReadWrite>>,
}

trait ReadWrite: Read + Write + Send {}

impl<S: Read + Write + Send> ReadWrite for S {}

impl Client {
    pub fn connect(port: u16) -> io::Result<Self> {
        Self::connect_to(Ipv4Addr::LOCALHOST.into(), port)
    }

    pub fn connect_to(ip: IpAddr, port: u16) -> io::Result<Self> {
        Self::connected(TcpStream::connect_timeout(&SocketAddr::new(ip, port), PATIENCE)?)
    }

    /// Connects from this loopback address.
    pub fn connect_from(ip: Ipv4Addr, port: u16) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddr::new(ip.into(), 0))?;
        connect(&socket, &SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))?;
        Self::connected(socket.into())
    }

    fn connected(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Self::over(stream.try_clone()?, stream)
    }

    /// Connects over a Unix socket, which reads, writes and shuts down like TCP.
    pub fn connect_to_unix(path: &Path) -> io::Result<Self> {
        let stream = TcpStream::from(OwnedFd::from(UnixStream::connect(path)?));
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Self::over(stream.try_clone()?, stream)
    }

    fn over(socket: TcpStream, stream: impl ReadWrite + 'static) -> io::Result<Self> {
        Ok(Self { socket, stream: BufReader::new(Box::new(stream)) })
    }

    /// Does the TLS handshake.
    pub fn secured(self) -> io::Result<Self> {
        let unread = String::from_utf8_lossy(self.stream.buffer());
        assert_eq!(unread, "", "the server says nothing between its reply and the handshake");
        let stream = tls::begin(self.socket.try_clone()?)?;
        Self::over(self.socket, stream)
    }

    pub fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(octets)
    }

    /// A line without its CRLF. The end of the connection is `UnexpectedEof`.
    pub fn octets(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(line.to_vec()),
            None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Err(io::Error::other(format!("no line: {}", String::from_utf8_lossy(&line)))),
        }
    }

    pub fn line(&mut self) -> io::Result<String> {
        String::from_utf8(self.octets()?).map_err(io::Error::other)
    }

    pub fn ask(&mut self, command: &str) -> io::Result<String> {
        self.send(format!("{command}\r\n").as_bytes())?;
        self.line()
    }

    /// Shuts down the writing side, and reads what the server still says until it closes.
    pub fn rest(&mut self) -> io::Result<String> {
        // The server may have closed already.
        let _ = self.socket.shutdown(Shutdown::Write);
        self.read_to_end()
    }

    /// Reads what the server says until it closes.
    pub fn read_to_end(&mut self) -> io::Result<String> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(String::from_utf8_lossy(&rest).into_owned())
    }

    /// True if nothing from the server is waiting to be read.
    pub fn is_silent(&mut self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        let peeked = self.socket.peek(&mut [0]);
        self.socket.set_nonblocking(false).expect("a socket");
        self.stream.buffer().is_empty() && peeked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A POP3 connection.
pub struct Pop3 {
    pub client: Client,
}

impl Pop3 {
    /// Connects and reads the greeting.
    pub fn connect(port: u16) -> io::Result<Self> {
        Self::greeted(Client::connect(port)?)
    }

    pub fn greeted(mut client: Client) -> io::Result<Self> {
        accepted(client.line()?)?;
        Ok(Self { client })
    }

    pub fn ask(&mut self, command: &str) -> io::Result<String> {
        self.client.ask(command)
    }

    /// The reply to PASS.
    pub fn log_in(&mut self, address: &str, password: &str) -> io::Result<String> {
        accepted(self.ask(&format!("USER {address}"))?)?;
        self.ask(&format!("PASS {password}"))
    }

    /// The number of messages.
    pub fn count(&mut self) -> io::Result<usize> {
        let reply = accepted(self.ask("STAT")?)?;
        let count = reply.split(' ').nth(1).and_then(|count| count.parse().ok());
        count.ok_or_else(|| io::Error::other(reply))
    }

    /// The lines of a multi-line reply, without the status line and the final dot; still stuffed.
    pub fn lines(&mut self, command: &str) -> io::Result<Vec<Vec<u8>>> {
        accepted(self.ask(command)?)?;
        let mut lines = Vec::new();
        loop {
            match self.client.octets()? {
                line if line == b"." => return Ok(lines),
                line => lines.push(line),
            }
        }
    }

    /// Unique ids, in the order of the messages.
    pub fn uids(&mut self) -> io::Result<Vec<String>> {
        self.second_words("UIDL")
    }

    /// The sizes that LIST gives.
    pub fn octets(&mut self) -> io::Result<Vec<String>> {
        self.second_words("LIST")
    }

    fn second_words(&mut self, command: &str) -> io::Result<Vec<String>> {
        let lines = self.lines(command)?;
        let word = |(number, line): (usize, &Vec<u8>)| {
            let line = String::from_utf8_lossy(line);
            let word = line.strip_prefix(&format!("{} ", number + 1)).map(str::to_owned);
            word.ok_or_else(|| io::Error::other(format!("{command}: {line}")))
        };
        lines.iter().enumerate().map(word).collect()
    }

    /// A message as it was sent, without the fields that the service adds in front.
    pub fn content(&mut self, number: usize) -> io::Result<Vec<u8>> {
        let lines = self.lines(&format!("RETR {number}"))?;
        let unstuffed = |line: &Vec<u8>| line.strip_prefix(b".").unwrap_or(line).to_vec();
        Ok(without_trace(&lines.iter().map(unstuffed).collect::<Vec<_>>()).1)
    }

    pub fn contents(&mut self) -> io::Result<Vec<Vec<u8>>> {
        (1..=self.count()?).map(|number| self.content(number)).collect()
    }

    pub fn delete(&mut self, number: usize) -> io::Result<()> {
        accepted(self.ask(&format!("DELE {number}"))?).map(drop)
    }

    /// The reply says that deletions are durable.
    pub fn quit(mut self) -> io::Result<()> {
        accepted(self.ask("QUIT")?).map(drop)
    }
}

fn accepted(reply: String) -> io::Result<String> {
    if reply.starts_with("+OK") { Ok(reply) } else { Err(io::Error::other(reply)) }
}

/// The three fields in front of a message, and the message without them, as octets with CRLF.
pub fn without_trace(lines: &[Vec<u8>]) -> (String, Vec<u8>) {
    let is_received = |line: &Vec<u8>| line.starts_with(b"Received:");
    let received = lines.iter().position(is_received).expect("the service puts Received in front");
    let folded = lines[received + 1..].iter().take_while(|line| line.starts_with(b"\t")).count();
    let (trace, content) = lines.split_at(received + 1 + folded);
    let joined = |lines: &[Vec<u8>]| lines.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect();
    (String::from_utf8(joined(trace)).expect("our own fields are text"), joined(content))
}

/// An LMTP connection.
pub struct Lmtp {
    client: Client,
}

impl Lmtp {
    pub fn connect(port: u16) -> io::Result<Self> {
        Self::greeted(Client::connect(port)?)
    }

    pub fn greeted(mut client: Client) -> io::Result<Self> {
        client.line()?;
        client.send(b"LHLO test.example\r\n")?;
        while client.line()?.starts_with("250-") {}
        Ok(Self { client })
    }

    /// Delivers a message. Returns each recipient's reply: the one to RCPT if that was refused.
    pub fn deliver(&mut self, recipients: &[&str], content: &[u8]) -> io::Result<Vec<String>> {
        let mut commands = "MAIL FROM:<sender@example.org>\r\n".to_owned();
        recipients.iter().for_each(|recipient| commands += &format!("RCPT TO:<{recipient}>\r\n"));
        self.client.send((commands + "DATA\r\n").as_bytes())?;
        let sender = self.client.line()?;
        if !sender.starts_with("250") {
            return Err(io::Error::other(sender));
        }
        let mut replies: Vec<String> =
            recipients.iter().map(|_| self.client.line()).collect::<Result<_, _>>()?;
        let data = self.client.line()?;
        if data.starts_with("354") {
            self.client.send(&[&stuffed(content)[..], b".\r\n"].concat())?;
            for reply in replies.iter_mut().filter(|reply| reply.starts_with("250")) {
                *reply = self.client.line()?;
            }
        } else {
            self.client.ask("RSET")?;
        }
        Ok(replies)
    }

    /// Delivers a message that must be accepted.
    #[track_caller]
    pub fn store(&mut self, recipient: &str, content: &[u8]) {
        let replies = self.deliver(&[recipient], content).expect("replies");
        assert!(replies[0].starts_with("250"), "{replies:?}");
    }
}

/// Doubles the first dot of each line (RFC 5321 section 4.5.2).
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(content.len() + 16);
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            text.push(b'.');
        }
        text.extend_from_slice(line);
    }
    text
}
