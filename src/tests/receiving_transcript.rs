//! Dialogues of SMTP and LMTP as data files.
//!
//! A file's lines: `C:` is what the client sends, with CRLF; `c:` the same without; `S:` what the server says
//! to all before it; `D:` a message handed over: reverse path, recipients, protocol, text in wire form;
//! `X:` the server closes; `#` begins a remark. `\r`, `\n`, `\\` and `\xNN` stand for octets.
//!
//! This file uses nothing of the program, so that tests outside the library can read the files too.

#[derive(Debug)]
pub struct Step {
    pub line: usize,
    pub sent: Vec<u8>,
    /// `S:`, `D:` and `X:` lines as they stand in the file.
    pub expected: Vec<String>,
}

/// The first step is the connection, and sends nothing.
///
/// # Panics
/// At a line that is none of those above: a transcript is part of the tests.
pub fn read(transcript: &str) -> Vec<Step> {
    let mut steps = vec![Step { line: 0, sent: Vec::new(), expected: Vec::new() }];
    for (number, line) in (1..).zip(transcript.lines()) {
        let typed = line.get(2..).unwrap_or_default();
        let typed = typed.strip_prefix(' ').unwrap_or(typed);
        let mut sent = |octets| steps.push(Step { line: number, sent: octets, expected: Vec::new() });
        match line.get(..2) {
            Some("C:") => sent([unescaped(typed), b"\r\n".to_vec()].concat()),
            Some("c:") => sent(unescaped(typed)),
            Some("S:" | "D:" | "X:") => steps.last_mut().unwrap().expected.push(line.to_owned()),
            _ => assert!(line.is_empty() || line.starts_with('#'), "line {number}: {line}"),
        }
    }
    steps
}

fn unescaped(typed: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = typed.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits: String = rest.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&digits, 16).expect("two hexadecimal digits after \\x")
                }
                _ => panic!("unknown escape in {typed}"),
            },
            octet => octet,
        });
    }
    octets
}

/// Octets as they stand in a `D:` line.
pub fn escaped(octets: &[u8]) -> String {
    let escape = |&octet: &u8| match octet {
        b'\r' => "\\r".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\\' => "\\\\".to_owned(),
        b' '..=b'~' => char::from(octet).to_string(),
        _ => format!("\\x{octet:02x}"),
    };
    octets.iter().map(escape).collect()
}
