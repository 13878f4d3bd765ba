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
//! A line `@ local accounts` has the next command typed only where the accounts are those of the operating system;
//! likewise
//! `@ password file`, `@ Active Directory`, and `@ directories` for the two that are not the password file.
//!
//! `{mailroot}` stands for the mail store directory, `{method}` for the authentication method, `{place}` for where its
//! accounts are. An empty line ends what a command prints, unless more follows
//! that is none of the above.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::active_directory::controller::{BASE, Controller};
use super::client::Pop3;
use super::harness::{Done, PROGRAM, Site, finish, needs_root};
use crate::private_etc::PrivateEtc;

const PASSWORD_FILE: &str = "password file";
const LOCAL_ACCOUNTS: &str = "local accounts";
const ACTIVE_DIRECTORY: &str = "Active Directory";
/// The transcript that is about choosing among them.
const CHOOSES_METHOD: &str = "settings.txt";
/// Not the password file.
const DIRECTORIES: &str = "directories";

/// A command of a transcript and what must come of it.
struct Step {
    line: usize,
    words: Vec<String>,
    input: String,
    done: Done,
    is_typed: bool,
}

/// The command by one of its names, on the mail root of a test.
struct Bench<'a> {
    site: &'a Site,
    /// The program, and the words that stand before those of the transcript.
    winpop: (PathBuf, &'static [&'static str]),
    /// Where the accounts are.
    method: &'static str,
}

impl<'a> Bench<'a> {
    /// By the symbolic link that the program makes itself.
    fn by_link(site: &'a Site) -> Self {
        let bin = site.dir().join("bin");
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

    /// Plays a transcript; panics at the first step that comes out otherwise.
    fn play(&self, transcript: &Path) {
        let text = fs::read_to_string(transcript).expect("the transcript can be read");
        for step in steps(
            &text
                .replace("{mailroot}", &self.site.mailroot().to_string_lossy())
                .replace(
                    "{method}",
                    if self.method == PASSWORD_FILE { "encrypted password file" } else { self.method },
                )
                .replace(
                    "{place}",
                    if self.method == LOCAL_ACCOUNTS { "on this machine" } else { "in the directory" },
                ),
            self.method,
        ) {
            let done = self.run(&step);
            assert_eq!(done, step.done, "{} line {}: {:?}", transcript.display(), step.line, step.words);
        }
    }

    fn run(&self, step: &Step) -> Done {
        let (program, words) = &self.winpop;
        finish(self.site.program(program).args(*words).args(&step.words), step.input.as_bytes())
    }
}

/// Transcripts that hold with a service running and without.
fn transcripts() -> Vec<PathBuf> {
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

/// The steps that are typed under this method.
fn steps(transcript: &str, method: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut input = String::new();
    let mut is_typed = true;
    for (number, line) in transcript.lines().enumerate() {
        if line.starts_with("# ") {
            continue;
        }
        if let Some(of) = line.strip_prefix("@ ") {
            assert!([PASSWORD_FILE, DIRECTORIES, LOCAL_ACCOUNTS, ACTIVE_DIRECTORY].contains(&of), "{line}");
            is_typed = of == method || of == DIRECTORIES && method != PASSWORD_FILE;
        } else if let Some(typed) = line.strip_prefix("< ") {
            input += &format!("{typed}\n");
        } else if let Some(command) = line.strip_prefix("$ winpop") {
            let input = std::mem::take(&mut input);
            let done = Done { output: String::new(), errors: String::new(), exit_code: 0 };
            steps.push(Step { line: number + 1, words: split(command), input, done, is_typed });
            is_typed = true;
        } else if let Some(step) = steps.last_mut() {
            if let Some(error) = line.strip_prefix("! ") {
                step.done.errors += &format!("{error}\n");
            } else if let Some(code) = line.strip_prefix("? ") {
                step.done.exit_code = code.parse().expect("an exit code is a number");
            } else {
                step.done.output += &format!("{line}\n");
            }
        }
    }
    steps.retain(|step| step.is_typed);
    for step in &mut steps {
        let printed = step.done.output.trim_end_matches('\n');
        step.done.output = if printed.is_empty() { String::new() } else { format!("{printed}\n") };
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

/// The transcripts begin with the settings as they come.
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

/// Plays the transcripts under a method, each on a site of its own with that method in force and no accounts of
/// mailboxes:
/// `site` makes it. False where that cannot be done here.
fn play_under(method: &'static str, site: impl Fn() -> Option<Site>) -> bool {
    for transcript in transcripts().iter().filter(|transcript| !transcript.ends_with(CHOOSES_METHOD)) {
        let Some(mut site) = site() else { return false };
        let service = site.start();
        settings_as_they_come(&site);
        Bench::by_link(&site).with_method(method).play(transcript);
        service.stop();
        site.assert_clean();
    }
    true
}

#[test]
fn winpop_does_as_its_transcripts_say_with_local_accounts() {
    if !needs_root("accounts of the operating system") {
        return;
    }
    let could_be_played = play_under(LOCAL_ACCOUNTS, || {
        let site = Site::with_accounts(PrivateEtc::new()?);
        site.winpop(&["set", "authentication", "1"]);
        Some(site)
    });
    if !could_be_played {
        let _ = writeln!(std::io::stderr(), "skipped: mounts cannot be made here");
    }
}

#[test]
fn winpop_does_as_its_transcripts_say_with_active_directory() {
    let Some(controller) = Controller::own(4) else { return };
    // Passwords of any kind, as in the other files.
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

/// A list twice over, with a service and without: what is there is told apart, bad lines are named, made passwords
/// work.
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
    assert_eq!(lines[6], "3 added, 0 there already, 3 not added");
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
    for transcript in transcripts_in("testdata/winpop/stopped") {
        let site = Site::without_store();
        Bench::by_link(&site).play(&transcript);
    }
}
