//! Runs the commands of README.md as they are written there.
//!
//! Blocks marked `sh` run in order on one small machine, whose directories replace those that the README names. Other
//! blocks are files or cannot run here. From the files, the command lines that start the program are tried.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::service::Service;
use crate::harness::PROGRAM;
use crate::harness::programs::have;
use crate::harness::site::{PROGRAMS, Site};

/// Directories that the README names.
const PLACES: [&str; 3] = ["/usr/local/bin", "/var/lib/winpop", "/srv"];
/// Where the build leaves the program, according to the README.
const BUILT: &str = "target/x86_64-unknown-linux-gnu/release/pop3svc";
/// Languages of the other blocks: output, what root types, files.
const NOT_RUN: [&str; 5] = ["text", "console", "ini", "dockerfile", "rust"];

const MESSAGE: &str = "From: ann@example.org\nTo: bob@example.com\nSubject: hi\n\nText.\n";

/// A block of the README: its language and its lines.
pub struct Block {
    pub mark: String,
    pub text: String,
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn blocks() -> Vec<Block> {
    let readme = fs::read_to_string(repository().join("README.md")).expect("it is there");
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_inside = false;
    for line in readme.lines() {
        match (line.strip_prefix("```"), is_inside) {
            (Some(mark), false) => blocks.push(Block { mark: mark.to_owned(), text: String::new() }),
            (Some(rest), true) => assert_eq!(rest, "", "a block is closed before the next"),
            (None, true) => {
                let block = blocks.last_mut().expect("one is open");
                block.text += &format!("{line}\n");
            }
            (None, false) => {}
        }
        is_inside ^= line.starts_with("```");
    }
    assert!(!is_inside, "the last block is closed");
    blocks
}

/// What root types in the `console` block that contains this.
pub fn commands_of_root(blocks: &[Block], with: &str) -> String {
    let mut terminals = blocks.iter().filter(|block| block.mark == "console" && block.text.contains(with));
    let terminal = terminals.next().unwrap_or_else(|| panic!("no {with} in README.md"));
    assert!(terminals.next().is_none(), "{with} stands in one block");
    terminal.text.lines().filter_map(|line| line.strip_prefix("# ")).map(|line| format!("{line}\n")).collect()
}

/// The only line in the README's files that contains this.
fn line_of_a_file(with: &str) -> String {
    let files = blocks().into_iter().filter(|block| block.mark == "ini");
    let text: String = files.map(|file| file.text).collect();
    let mut found = text.lines().filter(|line| line.contains(with));
    let line = found.next().unwrap_or_else(|| panic!("no {with} in README.md"));
    assert_eq!(found.next(), None);
    line.to_owned()
}

/// The text with the machine's directories replaced by the test's.
fn moved(text: &str, site: &Site) -> String {
    let place = |text: String, place: &str| text.replace(place, &site.path(&place[1..]).to_string_lossy());
    PLACES.into_iter().fold(text.to_owned(), place)
}

/// A machine without our program, with mail in a file and in the store of a Windows service.
fn machine() -> Site {
    let site = Site::new();
    fs::remove_dir_all(site.path(PROGRAMS)).expect("it can be removed");
    let windows = "srv/mailbox/example.net/P3_ann.mbx";
    let built = Path::new(BUILT).parent().and_then(Path::to_str).expect("a directory");
    for dir in [PROGRAMS, "srv/backup", windows, built] {
        fs::create_dir_all(site.path(dir)).expect("it can be made");
    }
    symlink(PROGRAM, site.path(BUILT)).expect("a link can be made");
    for file in ["message.eml", &format!("{windows}/P3A.eml")] {
        fs::write(site.path(file), MESSAGE).expect("it can be written");
    }
    site
}

#[test]
fn the_commands_of_the_readme_do_what_they_should() {
    let site = machine();
    let mut run = 0;
    for Block { mark, text } in blocks() {
        if mark != "sh" {
            assert!(NOT_RUN.contains(&mark.as_str()), "a block is marked {mark:?}");
            continue;
        }
        run += 1;
        if text.lines().all(is_for_developers) || text == "pop3svc serve\n" || text.starts_with("cargo run ")
        {
            continue;
        }
        let output = site.outcome("sh", &["-eu", "-c", &moved(&text, &site)], b"");
        assert!(output.status.success() && output.stderr.is_empty(), "{text}{output:?}");
    }
    assert!(run > 10, "the README has commands");
    let stat = site.winpop("stat");
    assert!(stat.contains("Mailboxes  5\n") && stat.contains("Messages   3\n"), "{stat}");
}

/// Commands that build and test. Checks that what they name exists.
fn is_for_developers(line: &str) -> bool {
    let (command, _comment) = line.split_once('#').unwrap_or((line, ""));
    let is_suite = |name: &str| repository().join(format!("src/tests/{name}/main.rs")).is_file();
    match command.split_whitespace().collect::<Vec<_>>()[..] {
        ["cargo", "build", "--release"] | ["cargo", "test"] | ["cargo", "test", "--lib"] => true,
        ["cargo", "test", "--test", suite] => is_suite(suite),
        ["cargo", "test", "--test", suite, "--", file] => {
            is_suite(suite) && repository().join(format!("src/tests/{suite}/{file}.rs")).is_file()
        }
        ["cargo", "install", "cargo-fuzz", "--locked"] => true,
        ["RUSTC_BOOTSTRAP=1", "cargo", "fuzz", "run", target] => {
            let targets = fs::read_to_string(repository().join("fuzz/Cargo.toml")).expect("it is there");
            targets.contains(&format!("name = \"{target}\"\n"))
        }
        [script @ ".ci/run"] => repository().join(script).is_file(),
        _ => false,
    }
}

#[test]
fn the_first_minute_goes_as_the_readme_shows_it() {
    if !have(&["curl"]) {
        return;
    }
    let blocks = blocks();
    let first = blocks.iter().position(|block| block.text.starts_with("cargo run ")).expect("it is there");
    assert_eq!(blocks[first].text, "cargo run --release -- quickstart\n");
    let site = Site::new();
    site.make_store();
    let service = Service::quickstart(&site, &[]);
    assert_eq!(outline(&service.told), outline(&blocks[first + 1].text));
    let line = service.told.lines().find(|line| line.contains("curl")).expect("a line to type");
    assert!(site.output("sh", &["-c", line], b"").contains("Subject: Welcome"));
    service.end();
}

/// The printed words, without those that differ each time: passwords, paths, ports.
fn outline(told: &str) -> String {
    let is_the_same = |word: &&str| {
        !word.contains("://") && !word.starts_with(['/', '\'', '-']) && !word.ends_with("pop3svc")
    };
    let line = |line: &str| {
        let mut words: Vec<&str> = line.split_whitespace().filter(is_the_same).collect();
        if words.first() == Some(&"Password") {
            words.remove(1);
        }
        words.retain(|word| word.parse::<u16>().is_err());
        words.join(" ") + "\n"
    };
    told.lines().map(line).collect()
}

#[test]
fn serve_runs_as_the_readme_types_it_and_as_its_unit_starts_it() {
    let unit = line_of_a_file("ExecStart=/usr/local/bin/pop3svc");
    for start in ["pop3svc serve", unit.strip_prefix("ExecStart=").expect("a command")] {
        let site = Site::new();
        site.make_store();
        site.winpop("set logging 3");
        let words = moved(start, &site);
        let words: Vec<&str> = words.split(' ').collect();
        Service::start(&site, site.command(words[0]).args(&words[1..]), "POP3 on ").end();
    }
}

#[test]
fn postfix_can_pipe_as_the_readme_configures_it() {
    let line = line_of_a_file("argv=");
    let words = line.split_once("argv=").expect("it is there").1;
    let site = Site::new();
    site.winpop("add example.com");
    site.winpop("add bob@example.com /createuser:secret");
    // A bounce has no sender.
    for sender in ["ann@example.org", ""] {
        let words = moved(words, &site);
        let mut words = words.split(' ').map(|word| match word {
            "${sender}" => sender,
            "${recipient}" => "bob@example.com",
            word => word,
        });
        let program = words.next().expect("a program");
        site.output(program, &words.collect::<Vec<_>>(), MESSAGE.as_bytes());
    }
    assert!(site.winpop("stat").contains("Messages   2\n"));
}

#[test]
fn every_command_of_the_help_is_in_the_readme() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("it is there");
    let site = Site::new();
    let help = site.output("pop3svc", &["help"], b"");
    let commands: Vec<&str> = help
        .lines()
        .filter(|line| line.starts_with("  ") && line[2..].starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "winpop")
        .collect();
    assert!(commands.len() > 8, "{help}");
    for command in commands {
        let said = [format!("pop3svc {command}"), format!("`{command}`")];
        let is_said = said.iter().any(|said| readme.contains(said)) || command == "quickstart";
        assert!(is_said, "README.md does not speak of `{command}`");
    }
}
