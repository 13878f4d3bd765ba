//! The dialogues of testdata/winpop: commands, output and exit codes (format: `src/tests/transcript.rs`).
//!
//! A `C:` line is a command; a word in single quotes may contain spaces. Its `S:` lines are the exact standard output,
//! with `{mailroot}` for the mail store directory, `{method}` for the authentication method and `{place}` for where its
//! accounts are. There are no patterns. The other lines:
//!
//! ```text
//! ! input a line             before the command: a line of its standard input
//! ! under local accounts     before the command: it is typed under this method only; likewise "password file",
//!                            "Active Directory", and "directories" for the two that are not the password file
//! ! error winpop: …          after the command: a line of standard error
//! ! exit 1                   after the command: the exit code, if it is not 0
//! ```

use std::fs;
use std::mem;
use std::path::PathBuf;

use super::active_directory::controller::{BASE, Controller};
use super::client::Pop3;
use super::service::{Done, finish};
use crate::harness::PROGRAM;
use crate::harness::etc::PrivateEtc;
use crate::harness::site::Site;
use crate::harness::skip::needs_root;
use crate::transcript::{Action, Step, Transcript};

const PASSWORD_FILE: &str = "password file";
const LOCAL_ACCOUNTS: &str = "local accounts";
const ACTIVE_DIRECTORY: &str = "Active Directory";
const METHODS: [&str; 3] = [PASSWORD_FILE, LOCAL_ACCOUNTS, ACTIVE_DIRECTORY];
/// The transcript about choosing a method.
const CHOOSES_METHOD: &str = "settings.txt";
/// Every method but the password file.
const DIRECTORIES: &str = "directories";

/// A command of a transcript and its expected outcome.
struct Typed {
    line_number: usize,
    words: Vec<String>,
    input: String,
    done: Done,
    is_typed: bool,
}

/// The command by one of its names, on a test's mail root.
struct Bench<'a> {
    site: &'a Site,
    /// The program, and the words that precede those of the transcript.
    winpop: (PathBuf, &'static [&'static str]),
    /// Where the accounts are.
    method: &'static str,
}

impl<'a> Bench<'a> {
    /// By the symbolic link that the program creates itself.
    fn by_link(site: &'a Site) -> Self {
        let bin = site.path("bin");
        fs::create_dir_all(&bin).expect("it is writable");
        site.succeed(&["link", &bin.to_string_lossy()]);
        Self { site, winpop: (bin.join("winpop"), &[]), method: PASSWORD_FILE }
    }

    fn by_subcommand(site: &'a Site) -> Self {
        Self { site, winpop: (PROGRAM.into(), &["winpop"]), method: PASSWORD_FILE }
    }

    /// With this method in force on the site.
    fn with_method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    /// Plays a transcript. Panics at the first command with another outcome.
    fn play(&self, transcript: &Transcript) {
        for typed in commands(transcript, self.method) {
            let (program, words) = &self.winpop;
            let mut command = self.site.program(program);
            let done = finish(command.args(*words).args(&typed.words), typed.input.as_bytes());
            let expected = Done {
                output: self.filled_in(&typed.done.output),
                errors: self.filled_in(&typed.done.errors),
                ..typed.done
            };
            assert_eq!(done, expected, "{}:{}: {:?}", transcript.name, typed.line_number, typed.words);
        }
    }

    fn filled_in(&self, text: &str) -> String {
        let method = if self.method == PASSWORD_FILE { "encrypted password file" } else { self.method };
        let place = if self.method == LOCAL_ACCOUNTS { "on this machine" } else { "in the directory" };
        let mailroot = self.site.mailroot();
        text.replace("{mailroot}", &mailroot.to_string_lossy())
            .replace("{method}", method)
            .replace("{place}", place)
    }
}

/// The transcripts that hold with a service and without.
fn transcripts() -> Vec<Transcript> {
    Transcript::all_in("testdata/winpop")
}

/// The commands that are typed under this method.
fn commands(transcript: &Transcript, method: &str) -> Vec<Typed> {
    let mut commands: Vec<Typed> = Vec::new();
    let (mut input, mut is_typed) = (String::new(), true);
    for Step { line_number, action } in &transcript.steps {
        let place = format!("{}:{line_number}", transcript.name);
        match action {
            Action::Client(line) => {
                let line = str::from_utf8(line).expect("a transcript is UTF-8").trim_end();
                let words = line.strip_prefix("winpop ").unwrap_or_else(|| panic!("{place}: no winpop"));
                commands.push(Typed {
                    line_number: *line_number,
                    words: split(words),
                    input: mem::take(&mut input),
                    done: Done { output: String::new(), errors: String::new(), exit_code: 0 },
                    is_typed: mem::replace(&mut is_typed, true),
                });
            }
            Action::Server(line) => last(&mut commands).output += &format!("{line}\n"),
            Action::ServerAny => panic!("{place}: output is compared to the letter"),
            Action::Other(words) => match words.split_once(' ') {
                Some(("input", line)) => input += &format!("{line}\n"),
                Some(("under", of)) => {
                    assert!(METHODS.contains(&of) || of == DIRECTORIES, "{place}: no such method: {of}");
                    is_typed = of == method || of == DIRECTORIES && method != PASSWORD_FILE;
                }
                Some(("error", line)) => last(&mut commands).errors += &format!("{line}\n"),
                Some(("exit", code)) => {
                    last(&mut commands).exit_code = code.parse().expect("an exit code is a number")
                }
                _ => panic!("{place}: no such words: {words}"),
            },
        }
    }
    commands.retain(|typed| typed.is_typed);
    commands
}

/// The expected outcome of the preceding command.
fn last(commands: &mut [Typed]) -> &mut Done {
    &mut commands.last_mut().expect("a command stands before what comes of it").done
}

/// Splits at spaces. A word in single quotes may contain spaces or be empty.
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

/// The transcripts begin with the default settings.
fn settings_as_they_come(site: &Site) {
    site.winpop(&["set", "logging", "default"]);
}

#[test]
fn winpop_does_as_its_transcripts_say_without_a_service() {
    for transcript in transcripts() {
        let site = Site::new();
        settings_as_they_come(&site);
        Bench::by_link(&site).play(&transcript);
    }
}

#[test]
fn winpop_does_as_its_transcripts_say_with_a_service() {
    for transcript in transcripts() {
        let mut site = Site::new();
        let service = site.start();
        settings_as_they_come(&site);
        Bench::by_link(&site).play(&transcript);
        service.stop();
        site.assert_clean();
    }
}

/// Plays the transcripts under a method, each on a new site from `site`, with that method in force and no accounts for
/// mailboxes. Stops if that is impossible here.
fn play_under(method: &'static str, site: impl Fn() -> Option<Site>) {
    for transcript in transcripts().iter().filter(|transcript| transcript.name != CHOOSES_METHOD) {
        let Some(mut site) = site() else { return };
        let service = site.start();
        settings_as_they_come(&site);
        Bench::by_link(&site).with_method(method).play(transcript);
        service.stop();
        site.assert_clean();
    }
}

#[test]
fn winpop_does_as_its_transcripts_say_with_local_accounts() {
    if !needs_root("accounts of the operating system") {
        return;
    }
    play_under(LOCAL_ACCOUNTS, || {
        let site = Site::with_accounts(PrivateEtc::new()?);
        site.winpop(&["set", "authentication", "1"]);
        Some(site)
    });
}

#[test]
fn winpop_does_as_its_transcripts_say_with_active_directory() {
    let Some(controller) = Controller::own(4) else { return };
    // Allow any password, as the transcripts need.
    controller.modify(&format!(
        "dn: {BASE}\nchangetype: modify\nreplace: pwdProperties\npwdProperties: 0\n-\nreplace: minPwdLength\nminPwdLength: 0\n"
    ));
    play_under(ACTIVE_DIRECTORY, || {
        controller.remove_users();
        let site = Site::new();
        controller.describe_to(&site);
        site.winpop(&["set", "authentication", "1"]);
        Some(site)
    });
}

#[test]
fn pop3svc_winpop_is_the_same_command() {
    for transcript in transcripts() {
        let mut site = Site::new();
        let service = site.start();
        settings_as_they_come(&site);
        Bench::by_subcommand(&site).play(&transcript);
        service.stop();
    }
}

/// The same list twice, with a service and without: existing entries and bad lines are reported, and generated
/// passwords work.
#[test]
fn a_list_is_added_line_by_line_and_can_be_given_twice() {
    let mut site = Site::new();
    let list = site.dir().join("list.csv");
    let made = site.dir().join("made.csv");
    let (list_word, made_word) = (list.to_string_lossy().into_owned(), made.to_string_lossy().into_owned());
    fs::write(
        &list,
        "\u{feff}# users\r\nexample.com\r\nann@example.com,se\"c,ret\r\nann@example.com,\"se\"\"c,ret\"\r\n\
         bob@example.com\r\neve@example.net,secret\r\nnot an address@,x\r\n",
    )
    .expect("the list can be written");
    let service = site.start();
    let words = ["winpop", "add", "/file", &list_word, "/passwords", &made_word];
    let done = site.run(&words);
    assert_eq!(done.exit_code, 1, "{done:?}");
    let lines: Vec<&str> = done.output.lines().collect();
    assert_eq!(lines[0], "line 2: example.com added");
    assert!(lines[1].starts_with("line 3: ann@example.com refused: more than two fields"), "{lines:?}");
    assert_eq!(lines[2..4], ["line 4: ann@example.com added", "line 5: bob@example.com added"]);
    assert_eq!(lines[4], "line 6: eve@example.net refused: there is no domain example.net");
    assert!(lines[5].starts_with("line 7: not an address@ refused: "), "{lines:?}");
    assert_eq!(lines[6], "3 added, 0 already there, 3 not added");
    let passwords = fs::read_to_string(&made).expect("the passwords were written");
    let (name, password) = passwords.trim_end().split_once(',').expect("one line, of bob");
    assert_eq!(name, "bob@example.com");
    for (name, password) in [("ann@example.com", "se\"c,ret"), (name, password)] {
        let mut client = Pop3::connect(service.ports().pop3).expect("the service answers");
        assert!(client.log_in(name, password).expect("it is answered").starts_with("+OK"), "{name}");
        client.quit().expect("it is answered");
    }
    service.stop();

    let again = site.run(&[&words[..], &["/json"]].concat());
    assert_eq!(again.exit_code, 1);
    assert_eq!(again.output.matches("\"exists\"").count(), 3, "{}", again.output);
    assert_eq!(fs::read_to_string(&made).expect("it is there"), passwords);
    site.assert_clean();
}

#[test]
fn winpop_does_as_its_transcripts_say_before_there_is_a_store() {
    for transcript in Transcript::all_in("testdata/winpop/stopped") {
        let site = Site::without_store();
        Bench::by_link(&site).play(&transcript);
    }
}
