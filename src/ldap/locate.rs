//! Finds a domain's servers through its SRV records (RFC 2782).

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name, ParsedName};
use domain::rdata::Srv;
use smol::Timer;
use smol::future::FutureExt as _;
use smol::net::UdpSocket;

use super::server::{Security, Server};
use crate::random;

/// This machine's name servers (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How many of them we ask; the system's resolver asks as many.
const NAME_SERVERS_MAX: usize = 3;
/// How long a name server may take to answer.
const ANSWER_MAX: Duration = Duration::from_millis(1500);
/// The largest answer that we accept (DNS flag day 2020).
const ANSWER_OCTETS_MAX: u16 = 1232;
/// How many directory servers we try.
const SERVERS_MAX: usize = 5;

/// The Active Directory servers that DNS names for a domain, best first. They get StartTLS. An error is a sentence.
pub async fn servers_of(domain: &str) -> Result<Vec<Server>, String> {
    let trouble = |why: String| format!("the directory servers of {domain} cannot be found: {why}");
    let resolv_conf = fs::read_to_string(RESOLV_CONF).map_err(|e| trouble(format!("{RESOLV_CONF}: {e}")))?;
    let mut troubles = Vec::new();
    for name_server in name_servers(&resolv_conf) {
        match ask(SocketAddr::new(name_server, 53), domain).await {
            Ok(servers) if !servers.is_empty() => return Ok(servers),
            Ok(_) => troubles.push(format!("{name_server} knows no SRV record _ldap._tcp.{domain}")),
            Err(why) => troubles.push(format!("{name_server}: {why}")),
        }
    }
    Err(trouble(if troubles.is_empty() {
        format!("there is no name server in {RESOLV_CONF}")
    } else {
        troubles.join("; ")
    }))
}

fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let words =
        resolv_conf.lines().filter_map(|line| line.split_whitespace().collect::<Vec<_>>().try_into().ok());
    let addresses = words.filter(|[keyword, _]: &[&str; 2]| *keyword == "nameserver");
    addresses.filter_map(|[_, address]| address.parse().ok()).take(NAME_SERVERS_MAX).collect()
}

async fn ask(name_server: SocketAddr, domain: &str) -> io::Result<Vec<Server>> {
    // Unpredictable, so that an attacker off the path cannot forge an answer. The port differs each time, too.
    let id = u16::from_ne_bytes(random::octets()?);
    let question = question(domain, id)?;
    let socket = UdpSocket::bind((if name_server.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).await?;
    socket.connect(name_server).await?;
    socket.send(&question).await?;
    let answer = async {
        let mut octets = [0; ANSWER_OCTETS_MAX as usize];
        loop {
            let count = socket.recv(&mut octets).await?;
            if let Some(servers) = servers_in(&octets[..count], id)? {
                return Ok(servers);
            }
        }
    };
    let late = async {
        Timer::after(ANSWER_MAX).await;
        Err(io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time"))
    };
    answer.or(late).await
}

fn question(domain: &str, id: u16) -> io::Result<Vec<u8>> {
    let name: Name<Vec<u8>> = format!("_ldap._tcp.{domain}").parse().map_err(io::Error::other)?;
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name, Rtype::SRV, Class::IN)).map_err(io::Error::other)?;
    let mut builder = builder.additional();
    builder
        .opt(|opt| {
            opt.set_udp_payload_size(ANSWER_OCTETS_MAX);
            Ok(())
        })
        .map_err(io::Error::other)?;
    Ok(builder.finish())
}

/// The servers in an answer, by priority and then by weight. `None` if it answers another question. We ignore
/// truncation: even a truncated answer names more servers than we try.
fn servers_in(answer: &[u8], id: u16) -> io::Result<Option<Vec<Server>>> {
    let malformed = |_| io::Error::other("its answer is malformed");
    let Ok(message) = Message::from_octets(answer) else { return Ok(None) };
    if message.header().id() != id || !message.header().qr() {
        return Ok(None);
    }
    match message.header().rcode() {
        Rcode::NOERROR | Rcode::NXDOMAIN => {}
        code => return Err(io::Error::other(format!("it answers {code}"))),
    }
    let mut records = Vec::new();
    for record in message.answer().map_err(malformed)?.limit_to_in::<Srv<ParsedName<_>>>() {
        records.push(record.map_err(malformed)?.into_data());
    }
    records.sort_by_key(|srv| (srv.priority(), u16::MAX - srv.weight()));
    let servers = records.iter().filter_map(|srv| {
        // Parsing what an administrator could type verifies the host name.
        let host = srv.target().to_string();
        let mut server: Server = host.trim_end_matches('.').parse().ok()?;
        (server.port, server.security) = (srv.port(), Security::StartTls);
        Some(server)
    });
    Ok(Some(servers.take(SERVERS_MAX).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_come_from_resolv_conf() {
        let text = "# a\nsearch example.com\nnameserver 192.0.2.1\nnameserver ::1\nnameserver x\noptions edns0\n\
                    nameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let expected: Vec<IpAddr> = ["192.0.2.1", "::1", "192.0.2.2"].map(|ip| ip.parse().unwrap()).to_vec();
        assert_eq!(name_servers(text), expected);
    }

    /// An answer to the question with these records: priority, weight, port, target.
    fn answer(records: &[(u16, u16, u16, &str)], id: u16) -> Vec<u8> {
        let question = question("corp.example", id).unwrap();
        let question = Message::from_octets(&question[..]).unwrap();
        let mut answer = MessageBuilder::new_vec().start_answer(&question, Rcode::NOERROR).unwrap();
        for (priority, weight, port, target) in records {
            let name: Name<Vec<u8>> = "_ldap._tcp.corp.example".parse().unwrap();
            let target: Name<Vec<u8>> = target.parse().unwrap();
            answer.push((name, 60, Srv::new(*priority, *weight, *port, target))).unwrap();
        }
        answer.finish()
    }

    #[test]
    fn servers_are_tried_in_the_order_of_their_records() {
        let records = [
            (10, 1, 389, "far.corp.example"),
            (0, 1, 389, "light.corp.example"),
            (0, 9, 1389, "heavy.corp.example"),
        ];
        let servers = servers_in(&answer(&records, 7), 7).unwrap().unwrap();
        let shown: Vec<String> = servers.iter().map(Server::to_string).collect();
        assert_eq!(
            shown,
            ["ldap://heavy.corp.example:1389", "ldap://light.corp.example", "ldap://far.corp.example"]
        );
        assert_eq!(servers_in(&answer(&[], 7), 7).unwrap(), Some(vec![]));
    }

    #[test]
    fn an_answer_to_another_question_is_ignored_and_a_truncated_one_reported() {
        let whole = answer(&[(0, 0, 389, "dc1.corp.example")], 7);
        assert_eq!(servers_in(&whole, 8).unwrap(), None);
        assert_eq!(servers_in(&question("corp.example", 7).unwrap(), 7).unwrap(), None);
        assert_eq!(servers_in(&whole[..5], 7).unwrap(), None);
        assert!(servers_in(&whole[..whole.len() - 1], 7).is_err());
    }
}
