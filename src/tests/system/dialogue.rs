//! Plays the client's side of a transcript over a socket.

use super::client::Client;
use crate::transcript::{Action, Step, Transcript, Values, matches};

/// Plays a transcript to its end. Panics if the server says anything it should not, except lines that `is_extra`
/// accepts. `other` carries out the `!` lines that [`Transcript`] does not define, and returns the connection to
/// continue with; its last argument is the place in the file.
pub fn play(
    transcript: &Transcript,
    client: Client,
    mut values: Values,
    is_extra: impl Fn(&[u8]) -> bool,
    mut other: impl FnMut(&str, Option<Client>, &Values, &str) -> Option<Client>,
) {
    let mut client = Some(client);
    let mut any = false;
    let mut to_send = Vec::new();
    for Step { line_number, action } in &transcript.steps {
        let place = format!("{}:{line_number}", transcript.name);
        if !matches!(action, Action::Client(_)) && !to_send.is_empty() {
            open(&mut client, &place).send(&to_send).unwrap_or_else(|e| panic!("{place}: {e}"));
            to_send.clear();
        }
        match action {
            // Lines in a row go out in one piece.
            Action::Client(octets) => to_send.extend_from_slice(octets),
            Action::ServerAny => any = true,
            Action::Server(pattern) => {
                let client = open(&mut client, &place);
                loop {
                    let line = client.octets();
                    let line = line.unwrap_or_else(|e| panic!("{place}: expected {pattern}, got {e}"));
                    if matches(pattern, &line, &mut values) {
                        break;
                    }
                    let is_allowed = any || is_extra(&line);
                    let line = String::from_utf8_lossy(&line);
                    assert!(is_allowed, "{place}: expected {pattern}, got {line}");
                }
                any = false;
            }
            Action::Other(words) => match words.as_str() {
                "closed" => {
                    let unread = client.take().map(|mut client| client.read_to_end().unwrap());
                    assert_eq!(unread.as_deref(), Some(""), "{place}: the server had more to say");
                }
                "hang up" => drop(client.take()),
                words => client = other(words, client.take(), &values, &place),
            },
        }
    }
    // A server that has closed hears no more.
    if let Some(mut client) = client {
        client.send(&to_send).unwrap();
        assert_eq!(client.rest().unwrap(), "", "{}: the server had more to say at the end", transcript.name);
    }
}

fn open<'a>(client: &'a mut Option<Client>, place: &str) -> &'a mut Client {
    client.as_mut().unwrap_or_else(|| panic!("{place}: the connection has ended"))
}
