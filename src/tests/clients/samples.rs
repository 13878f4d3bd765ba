//! Real mail, and mail more difficult than that.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::site::Site;
use crate::harness::skip::lacks;

/// A message in a file.
pub struct Sample {
    pub path: PathBuf,
    pub content: Vec<u8>,
}

/// The messages of testdata/mail and, if installed, those of the tests of Python's mail parser. CI must have them.
pub fn samples(site: &Site) -> Vec<Sample> {
    let mut samples = samples_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/mail"), "eml");
    let finding = "import os, test.test_email as tests; print(os.path.dirname(tests.__file__))";
    let found = site.outcome("python3", &["-c", finding], b"");
    if found.status.success() || lacks("the tests of Python's own library") {
        let dir = String::from_utf8(found.stdout).expect("a path in UTF-8");
        samples.extend(samples_in(&Path::new(dir.trim()).join("data"), "txt"));
    }
    samples
}

fn samples_in(dir: &Path, extension: &str) -> Vec<Sample> {
    let files = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("it can be listed").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    assert!(paths.len() > 10, "{} holds samples", dir.display());
    let sample = |path: PathBuf| Sample { content: fs::read(&path).expect("it can be read"), path };
    paths.into_iter().map(sample).collect()
}

impl Sample {
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        self.path.to_string_lossy()
    }

    /// Whether it contains NUL, so that SMTP refuses it.
    pub fn has_nul(&self) -> bool {
        self.content.contains(&0)
    }

    /// The content as a maildrop holds it: every CRLF, CR and LF becomes CRLF, and the last line ends with one. NUL,
    /// the mbox line and Return-Path fields are dropped. An empty line replaces a missing header.
    pub fn normalised(&self) -> Vec<u8> {
        let mut normalised = Vec::with_capacity(self.content.len() + 2);
        let mut octets = self.content.iter().copied().peekable();
        while let Some(octet) = octets.next() {
            if octet == b'\r' {
                octets.next_if_eq(&b'\n');
            }
            match octet {
                0 => {}
                b'\r' | b'\n' => normalised.extend(b"\r\n"),
                octet => normalised.push(octet),
            }
        }
        let header = normalised.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 2);
        let (header, body) = normalised.split_at(header);
        let mut in_return_path = false;
        let is_kept = |line: &&[u8]| {
            let folded = line.starts_with(b" ") || line.starts_with(b"\t");
            in_return_path = if folded { in_return_path } else { line.starts_with(b"Return-Path:") };
            !in_return_path
        };
        let header = header.split_inclusive(|&octet| octet == b'\n').filter(is_kept);
        let mut normalised = [&header.collect::<Vec<_>>().concat(), body].concat();
        if !normalised.is_empty() && !normalised.ends_with(b"\r\n") {
            normalised.extend(b"\r\n");
        }
        let first_line_end = normalised.iter().position(|&octet| octet == b'\n').map_or(0, |at| at + 1);
        if normalised.starts_with(b"From ") && begins_with_field(&normalised[first_line_end..]) {
            normalised.drain(..first_line_end);
        }
        if !normalised.is_empty() && !normalised.starts_with(b"\r\n") && !begins_with_field(&normalised) {
            normalised.splice(..0, *b"\r\n");
        }
        normalised
    }
}

fn begins_with_field(text: &[u8]) -> bool {
    let name = text.split(|&octet| octet == b':').next().unwrap_or_default();
    name.len() < text.len() && !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}
