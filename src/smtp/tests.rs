use super::*;
use crate::doubles::smtp_driver::Server;
use crate::envelope::Protocol;

/// A connection that has said hello.
fn greeted(dialect: Dialect) -> Server {
    let mut server = Server::connect(dialect);
    server.push(match dialect {
        Dialect::Smtp => b"EHLO mx.example.org\r\n",
        Dialect::Lmtp => b"LHLO mx.example.org\r\n",
    });
    server.said();
    server
}

fn said(server: &mut Server) -> String {
    String::from_utf8(server.said()).expect("replies are text")
}

/// The codes of the replies, and the whole last line.
fn codes_said(server: &mut Server) -> (Vec<u16>, String) {
    let said = said(server);
    let codes = said.lines().map(|line| line[..3].parse().expect("a line begins with its code")).collect();
    (codes, said.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn a_message_takes_a_thousand_recipients_and_leaves_the_others_to_the_next() {
    let mut server = greeted(Dialect::Smtp);
    server.push(b"MAIL FROM:<>\r\n");
    server.push(&b"RCPT TO:<bob@example.com>\r\n".repeat(1001));
    let (codes, last) = codes_said(&mut server);
    assert_eq!(codes.iter().filter(|&&code| code == 250).count(), 1001);
    assert!(last.starts_with("452 4.5.3 "), "{last}");
    server.push(b"DATA\r\nhi\r\n.\r\n");
    assert_eq!(codes_said(&mut server).0, [354, 250]);
    assert_eq!(server.handed_over[0].0.recipients.len(), 1000);
}

#[test]
fn a_peer_that_makes_no_sense_is_disconnected() {
    let mut server = greeted(Dialect::Smtp);
    server.push(&b"GET / HTTP/1.1\r\n".repeat(20));
    assert_eq!(codes_said(&mut server).0, [500; 20]);
    assert_eq!(server.ending(), None);
    server.push(b"Host: mail.example.com\r\nNOOP\r\n");
    let (codes, last) = codes_said(&mut server);
    assert_eq!(codes, [421], "{last}");
    assert_eq!(server.ending(), Some(Ending::TooManyErrors));
}

#[test]
fn a_line_too_long_is_refused_once_and_none_of_it_executed() {
    let mut server = greeted(Dialect::Smtp);
    server.push(&[b"NOOP ".as_slice(), &b" QUIT ".repeat(1000), b"\r\nNOOP\r\n"].concat());
    assert_eq!(codes_said(&mut server).0, [500, 250]);
    server.push(&[b"NOOP ".as_slice(), &[b'x'; 2041], b"\r\n"].concat());
    assert_eq!(codes_said(&mut server).0, [250], "2048 octets are not too long");
}

#[test]
fn idleness_and_the_end_of_the_service_are_reported_at_any_time() {
    for (event, reply, ending) in [
        (Event::TimedOut, "421 4.4.2 ", Ending::TimedOut),
        (Event::ShuttingDown, "421 4.3.2 ", Ending::ShuttingDown),
    ] {
        let mut server = greeted(Dialect::Lmtp);
        server.push(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nhalf a mess");
        server.said();
        server.interrupt(event);
        assert!(said(&mut server).starts_with(reply));
        assert_eq!(server.ending(), Some(ending));
        assert_eq!(server.handed_over, []);
    }
}

#[test]
fn the_announced_size_reaches_the_driver() {
    let mut server = greeted(Dialect::Smtp);
    server.push(b"MAIL FROM:<> SIZE=99\r\nRCPT TO:<small@example.com>\r\nRSET\r\n");
    server.push(b"MAIL FROM:<> SIZE=100\r\nRCPT TO:<small@example.com>\r\n");
    assert_eq!(codes_said(&mut server).0, [250, 250, 250, 250, 552]);
}

#[test]
fn a_chunk_of_any_size_is_skipped_octet_for_octet() {
    let mut server = greeted(Dialect::Smtp);
    server.push(b"BDAT 9999999999999999999 LAST\r\nQUIT\r\n");
    server.push(&b"QUIT\r\n".repeat(1000));
    assert_eq!(said(&mut server), "");
    assert_eq!(server.ending(), None);
}

#[test]
fn the_driver_is_told_how_the_message_arrived() {
    let mut server = greeted(Dialect::Smtp);
    server.push(b"MAIL FROM:<Ann@Example.ORG>\r\nRCPT TO:<bob+x@EXAMPLE.com>\r\nDATA\r\n.\r\n");
    let (envelope, text) = &server.handed_over[0];
    assert_eq!(envelope.reverse_path, "Ann@Example.ORG");
    assert_eq!(envelope.recipients[0].to_string(), "bob+x@example.com");
    assert_eq!(envelope.helo, "mx.example.org");
    assert_eq!(envelope.peer.to_string(), "[192.0.2.7]");
    assert_eq!(text.wire, b"");
}

/// RFC 3207 section 4.2: everything said before the handshake is forgotten, and input sent too early is discarded.
#[test]
fn nothing_from_before_starttls_counts_after_it() {
    let mut server = Server::connect(Dialect::Smtp);
    server.push(b"STARTTLS now\r\nEHLO mx.example.org\r\nMAIL FROM:<ann@example.org>\r\n");
    let before = String::from_utf8(server.said()).unwrap();
    assert!(before.contains("501 5.5.4 ") && before.contains("250-STARTTLS\r\n"), "{before}");
    server.push(b"STARTTLS\r\nMAIL FROM:<injected@example.org>\r\nRCPT TO:<bob@example.com>\r\n");
    assert_eq!(server.said(), b"220 2.0.0 Begin TLS\r\n");
    server.push(b"RCPT TO:<bob@example.com>\r\nMAIL FROM:<ann@example.org>\r\n");
    let after = String::from_utf8(server.said()).unwrap();
    assert_eq!(after.matches("503 5.5.1 ").count(), 2, "{after}");
    server.push(b"EHLO mx.example.org\r\nSTARTTLS\r\n");
    let after = String::from_utf8(server.said()).unwrap();
    assert!(!after.contains("250-STARTTLS") && after.ends_with("503 5.5.1 TLS is on already\r\n"), "{after}");
    server.push(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nx\r\n.\r\n");
    assert_eq!(server.handed_over[0].0.protocol, Protocol::Esmtps);
}

#[test]
fn lmtp_offers_no_tls() {
    let mut server = Server::connect(Dialect::Lmtp);
    server.push(b"LHLO x\r\nSTARTTLS\r\n");
    let said = String::from_utf8(server.said()).unwrap();
    assert!(
        !said.contains("250-STARTTLS") && said.ends_with("502 5.5.1 Command not implemented\r\n"),
        "{said}"
    );
}

#[test]
fn a_stranger_who_tries_out_names_is_sent_away_and_a_sender_with_a_stale_list_is_not() {
    const WRONG: &[u8] =
        b"RCPT TO:<nobody@example.com>\r\nRCPT TO:<bob@example.net>\r\nRCPT TO:<..@example.com>\r\n";
    let mut server = greeted(Dialect::Smtp);
    server.push(b"MAIL FROM:<>\r\n");
    (0..6).for_each(|_| server.push(WRONG));
    server.push(b"RCPT TO:<ann@example.com>\r\nDATA\r\nx\r\n.\r\nMAIL FROM:<>\r\n");
    assert_eq!(server.handed_over.len(), 1);
    (0..6).for_each(|_| server.push(WRONG));
    assert_eq!(server.ending(), None, "a message that was taken makes up for what was wrong before it");
    server.push(WRONG);
    assert_eq!(server.ending(), Some(Ending::TooManyWrongRecipients));
    assert!(said(&mut server).ends_with("421 4.7.0 Too many unknown recipients; closing\r\n"));

    let mut server = greeted(Dialect::Lmtp);
    server.push(b"MAIL FROM:<>\r\n");
    (0..1000).for_each(|_| server.push(WRONG));
    assert_eq!(server.ending(), None, "a mail server of ours may ask for as many as it likes");
}

#[test]
fn a_client_that_pipelines_is_not_blamed_for_a_text_whose_recipients_were_all_refused() {
    for text in [&b"DATA\r\n"[..], b"BDAT 3 LAST\r\nx\r\n"] {
        let mut server = greeted(Dialect::Lmtp);
        let sent = [b"MAIL FROM:<>\r\nRCPT TO:<nobody@example.com>\r\n", text, b"RSET\r\n"].concat();
        server.push(&sent.repeat(100));
        assert_eq!(codes_said(&mut server).0, [250, 550, 503, 250].repeat(100));
        // Without a recipient named, it is an error as ever.
        server.push(&[b"MAIL FROM:<>\r\n", &text.repeat(21)[..]].concat());
        assert_eq!(server.ending(), Some(Ending::TooManyErrors));
    }
}

#[test]
fn a_session_tells_why_it_ended_and_says_it_to_the_client() {
    for (sent, ending, reply) in [
        (&b"QUIT\r\n"[..], Ending::Quit, "221 2.0.0 "),
        (b"NOOP\n", Ending::BareLf, "421 4.5.2 "),
        (b"BDAT many\r\n", Ending::ChunkSyntax, "421 4.5.4 "),
    ] {
        let mut server = greeted(Dialect::Smtp);
        server.push(sent);
        assert_eq!(server.ending(), Some(ending));
        let said = said(&mut server);
        assert!(said.starts_with(reply), "{said}");
    }
}

#[test]
fn a_session_counts_what_it_took_and_what_it_refused() {
    let mut server = greeted(Dialect::Smtp);
    // Of three recipients one is unknown, one elsewhere, and one over quota.
    server.push(
        b"MAIL FROM:<>\r\nRCPT TO:<nobody@example.com>\r\nRCPT TO:<bob@example.net>\r\n\
          RCPT TO:<full@example.com>\r\nRCPT TO:<fault@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nx\r\n.\r\n",
    );
    // Messages refused as a whole: for their octets, for lack of a mailbox, and at the first chunk.
    server.push(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nbare\nLF\r\n.\r\n");
    server.push(b"MAIL FROM:<>\r\nRCPT TO:<late-gone@example.com>\r\nDATA\r\nx\r\n.\r\n");
    server.push(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nBDAT 2\r\n\0\0BDAT 0 LAST\r\n");
    let expected = Counts { messages_accepted: 1, messages_refused: 3, recipients_refused: 4 };
    assert_eq!(server.counts(), expected);
    // If each recipient gets its own reply, a message counts as accepted once one of them has it.
    let mut server = greeted(Dialect::Lmtp);
    server.push(b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\nRCPT TO:<late-gone@example.com>\r\n");
    server.push(b"DATA\r\nx\r\n.\r\n");
    assert_eq!(server.counts(), Counts { messages_accepted: 1, ..Counts::default() });
}
