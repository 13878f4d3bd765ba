//! The transcripts of `winpop` in testdata: what is typed, what is printed, how it exits.
//!
//! ```text
//! # a remark
//! < a line for standard input of the next command
//! $ winpop add example.com     the words; '…' keeps one together
//! Domain example.com added     standard output, as it stands
//! ! winpop: …                  standard error
//! ? 1                          the exit code, where it is not 0
//! ```
//! `{mailroot}` stands for the mail store directory. An empty line ends what a command prints, unless more follows
//! that is none of the above.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A command of a transcript and what must come of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    line: usize,
    words: Vec<String>,
    input: String,
    output: String,
    errors: String,
    exit_code: i32,
}

/// A mail store directory of its own, and `winpop` as a symbolic link to the program.
pub struct Bench {
    dir: PathBuf,
}

impl Bench {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("pop3svc-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("the temporary directory can be written");
        symlink(env!("CARGO_BIN_EXE_pop3svc"), dir.join("winpop")).expect("the link can be made");
        Self { dir }
    }

    pub fn mailroot(&self) -> PathBuf {
        self.dir.join("mail")
    }

    /// Plays a transcript; panics at the first step that comes out otherwise.
    pub fn play(&self, transcript: &Path) {
        let text = fs::read_to_string(transcript).expect("the transcript can be read");
        for step in steps(&text.replace("{mailroot}", &self.mailroot().to_string_lossy())) {
            let done = self.run(&step);
            assert_eq!(done, step, "{} line {}", transcript.display(), step.line);
        }
    }

    /// The step with what really came of it.
    fn run(&self, step: &Step) -> Step {
        let mut child = Command::new(self.dir.join("winpop"))
            .args(&step.words)
            .env("WINPOP_MAILROOT", self.mailroot())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("winpop can be run");
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().expect("it is piped").write_all(step.input.as_bytes());
        let output = child.wait_with_output().expect("winpop ends");
        Step {
            line: step.line,
            words: step.words.clone(),
            input: step.input.clone(),
            output: String::from_utf8(output.stdout).expect("it prints UTF-8"),
            errors: String::from_utf8(output.stderr).expect("it prints UTF-8"),
            exit_code: output.status.code().expect("it ends by itself"),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Transcripts that hold with a service running and without.
pub fn transcripts() -> Vec<PathBuf> {
    transcripts_in("testdata/winpop")
}

fn transcripts_in(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("the transcripts are there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(!files.is_empty());
    files
}

fn steps(transcript: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut input = String::new();
    for (number, line) in transcript.lines().enumerate() {
        if line.starts_with("# ") {
            continue;
        }
        if let Some(typed) = line.strip_prefix("< ") {
            input += &format!("{typed}\n");
        } else if let Some(command) = line.strip_prefix("$ winpop") {
            let input = std::mem::take(&mut input);
            steps.push(Step { line: number + 1, words: split(command), input, ..Step::default() });
        } else if let Some(step) = steps.last_mut() {
            if let Some(error) = line.strip_prefix("! ") {
                step.errors += &format!("{error}\n");
            } else if let Some(code) = line.strip_prefix("? ") {
                step.exit_code = code.parse().expect("an exit code is a number");
            } else {
                step.output += &format!("{line}\n");
            }
        }
    }
    for step in &mut steps {
        let printed = step.output.trim_end_matches('\n');
        step.output = if printed.is_empty() { String::new() } else { format!("{printed}\n") };
    }
    steps
}

/// Words between spaces; a word in single quotes may have spaces in it, or nothing.
fn split(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = command.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("a quote is closed"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

#[test]
fn winpop_does_as_its_transcripts_say_without_a_service() {
    for transcript in transcripts() {
        let bench = Bench::new("stopped");
        // A store, as where a service has run before.
        bench.run(&Step { words: split("set logging 2"), ..Step::default() });
        bench.play(&transcript);
    }
}

#[test]
fn winpop_does_as_its_transcripts_say_before_there_is_a_store() {
    for transcript in transcripts_in("testdata/winpop/stopped") {
        Bench::new("before").play(&transcript);
    }
}
