//! Reads the source and enforces what the compiler does not: who may import whom, and the house rules.

use std::fs;
use std::path::{Path, PathBuf};

/// The parts from the bottom up. Each may import only the rows above it here; the first two rows are the vocabulary. So
/// `pop3`, `smtp` and `wire` know neither store nor service, `store` knows no protocol, and `admin` does not know
/// whether a service runs.
const LAYERS: [&[&str]; 12] = [
    &[
        "address",
        "host",
        "lock",
        "message",
        "nearest",
        "random",
        "reachability",
        "replace",
        "trust",
        "units",
        "user",
        "verdict",
    ],
    &["envelope", "ldap", "mailroot", "pop3_client"],
    &["auth", "settings", "wire"],
    &["active_directory", "local_accounts", "log", "pop3", "smtp", "store"],
    &["intake", "keyring"],
    &["certificate", "directory"],
    &["admin"],
    &["control", "moving"],
    &["serve"],
    &["cli"],
    &["bench", "doubles", "fuzz", "lib"],
    &["main"],
];
/// The rooms of the store, ordered like [`LAYERS`]. Its facade `mod.rs` imports them all, and only tests import it.
const STOREYS: [&[&str]; 6] =
    [&["file"], &["index"], &["open"], &["mail", "writer"], &["start"], &["upkeep"]];
/// Tests may import everything, and some are separate programs.
const LOOKS_AT_ALL: &str = "tests";
/// Any part may name these, but only its tests can: they exist only in builds for tests and fuzzing.
const OF_TESTS: [&str; 2] = [LOOKS_AT_ALL, "doubles"];

/// Parts that decide, and so take time and randomness as arguments and do no I/O.
const DECIDE_ONLY: [&str; 7] = ["address", "envelope", "message", "pop3", "smtp", "units", "wire"];
const OF_THE_OUTSIDE: [&str; 10] = [
    "std::fs",
    "std::env",
    "std::process",
    "TcpStream",
    "TcpListener",
    "SystemTime::now",
    "Instant::now",
    "now_utc",
    "random::",
    "thread::sleep",
];

/// The files allowed at the top of the repository.
const TOP_LEVEL: [&str; 11] = [
    ".cargo",
    ".ci",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "fuzz",
    "src",
    "testdata",
];
/// Created there by Cargo and Git.
const NOT_OURS: [&str; 2] = [".git", "target"];

/// A file can be read in one sitting.
const LINES_MAX: usize = 600;
/// Longest comment line in characters, including indentation. rustfmt takes care of code.
const COMMENT_WIDTH_MAX: usize = 120;

/// A Rust file: its path from the top of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The part it belongs to: a folder of `src`, or a file there.
    fn part(&self) -> &str {
        let below = self.path.strip_prefix("src/").expect("it lies in src");
        below.split(['/', '.']).next().expect("a name")
    }

    /// The room of the store it belongs to. `None`: another part, the store's facade, its tests or its fuzz entries.
    fn room(&self) -> Option<&str> {
        let room = self.path.strip_prefix("src/store/")?.split(['/', '.']).next()?;
        (!["mod", "fuzz", LOOKS_AT_ALL].contains(&room)).then_some(room)
    }

    /// True if this file's `super` is the folder this many levels down.
    fn is_child_of(&self, depth: usize) -> bool {
        let folders = self.path.matches('/').count();
        folders == depth || folders == depth + 1 && self.path.ends_with("/mod.rs")
    }

    /// The lines outside inline modules that name something in the folder above, if this file's `super` is the folder
    /// this many levels down.
    fn looks_above(&self, depth: usize) -> impl Iterator<Item = (usize, &str)> {
        let mut is_in_module = false;
        self.code().filter(move |(_, line)| {
            // rustfmt indents what is inside, and only that.
            is_in_module = match line {
                line if line.ends_with(" {") && line.split(' ').any(|word| word == "mod") => {
                    is_in_module || !line.starts_with(' ')
                }
                line => is_in_module && *line != "}",
            };
            !is_in_module && self.is_child_of(depth) && line.contains("super::")
        })
    }

    /// The lines that are not comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The group of an import: the standard library, crates, our own.
    fn group(&self, root: &str) -> usize {
        let is_module_here = || self.text.lines().any(|line| line.ends_with(&format!("mod {root};")));
        match root {
            "std" => 0,
            "crate" | "super" | "self" => 2,
            _ if is_module_here() => 2,
            _ => 1,
        }
    }

    /// Panics if a line of code contains this.
    fn is_without(&self, forbidden: &str) {
        for (number, line) in self.code() {
            assert!(!line.contains(forbidden), "{}:{number}: {line}", self.path);
        }
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All source in a folder except this file, which contains the forbidden words.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![top().join(folder)];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("source is UTF-8");
                let path = path.strip_prefix(top()).expect("it lies there").to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    found.retain(|source| source.path != "src/tests/tidy.rs");
    assert!(!found.is_empty(), "{folder} holds source");
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("it can be listed").path()).collect()
}

/// The parts that a line of code names: what follows `crate::`, or `crate::store::` for the store's rooms.
fn imported<'a>(line: &'a str, above: &'a str) -> impl Iterator<Item = &'a str> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.split(above).skip(1).map(move |rest| rest.split(|c| !is_of_name(c)).next().expect("a piece"))
}

#[test]
fn imports_go_downward_only() {
    for source in sources("src").iter().filter(|source| source.part() != LOOKS_AT_ALL) {
        let part = source.part();
        let layer = LAYERS.iter().position(|layer| layer.contains(&part));
        let layer = layer.unwrap_or_else(|| panic!("{part} is in no row of the layers"));
        let may_import = LAYERS[..layer].concat();
        // Other parts must be named from `crate::`, so that this test sees them.
        if let Some((number, line)) = source.looks_above(1).next() {
            panic!("{}:{number}: {line}", source.path);
        }
        for (number, line) in source.code() {
            for imported in imported(line, "crate::") {
                let allowed =
                    imported == part || OF_TESTS.contains(&imported) || may_import.contains(&imported);
                assert!(allowed, "{}:{number}: {part} may not import {imported:?}", source.path);
            }
        }
    }
}

#[test]
fn imports_in_the_store_go_downward_only() {
    for source in &sources("src/store") {
        let Some(room) = source.room() else { continue };
        let storey = STOREYS.iter().position(|storey| storey.contains(&room));
        let storey = storey.unwrap_or_else(|| panic!("{room} is in no storey of the store"));
        let may_import = STOREYS[..storey].concat();
        // Likewise, other rooms must be named from `crate::`.
        if let Some((number, line)) = source.looks_above(2).next() {
            panic!("{}:{number}: {line}", source.path);
        }
        source.is_without("super::super");
        for (number, line) in source.code() {
            for imported in imported(line, "crate::store::") {
                let allowed = [room, LOOKS_AT_ALL].contains(&imported) || may_import.contains(&imported);
                assert!(allowed, "{}:{number}: {room} may not import {imported:?}", source.path);
            }
        }
    }
}

#[test]
fn imports_are_found_in_a_line() {
    let parts = |line| imported(line, "crate::").collect::<Vec<_>>();
    assert_eq!(parts("use crate::store::{Fault, Read};"), ["store"]);
    assert_eq!(parts("fn f(a: crate::wire::Text) -> crate::log;"), ["wire", "log"]);
    // Several parts in one line are not recognised, and so are not allowed.
    assert_eq!(parts("use crate::{store, wire};"), [""]);
    assert!(parts("use super::store;").is_empty());
    let rooms = |line| imported(line, "crate::store::").collect::<Vec<_>>();
    assert_eq!(rooms("use crate::store::file::disk::Disk;"), ["file"]);
    assert!(rooms("use crate::message::Uid;").is_empty());
}

#[test]
fn a_look_at_the_folder_above_is_found_wherever_it_stands() {
    let looks = |path: &str, text: &str| {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        source.looks_above(2).map(|(number, _)| number).collect::<Vec<_>>()
    };
    let text = "use super::index;\npub use super::{a, b};\nfn f() {\n    super::open::g()\n}\n// super::h\n";
    assert_eq!(looks("src/store/writer.rs", text), [1, 2, 4]);
    assert_eq!(looks("src/store/open/mod.rs", text), [1, 2, 4]);
    assert!(looks("src/store/open/queue.rs", text).is_empty());
    // In an inline module, `super` is the file itself.
    let text = "mod tests {\n    use super::*;\n}\npub(super) mod m {\n    use super::a;\n}\nsuper::b!();\n";
    assert_eq!(looks("src/store/writer.rs", text), [7]);
}

#[test]
fn code_that_decides_uses_no_clock_randomness_or_file() {
    for source in sources("src").iter().filter(|source| DECIDE_ONLY.contains(&source.part())) {
        OF_THE_OUTSIDE.iter().for_each(|forbidden| source.is_without(forbidden));
    }
}

#[test]
fn unsafe_code_lies_in_one_file() {
    for source in sources("src").iter().chain(&sources("fuzz/fuzz_targets")) {
        if source.path != "src/store/file/mapping.rs" {
            source.is_without("unsafe");
        }
    }
}

#[test]
fn bincode_is_called_by_rows_and_frames_only() {
    for source in sources("src") {
        if ["src/store/index/rows.rs", "src/control.rs"].contains(&source.path.as_str()) {
            continue;
        }
        for (number, line) in source.code() {
            // Rows and frames consist of these types, which need not know how they are encoded.
            let may_derive = ["src/admin/", "src/store/index/"].iter().any(|of| source.path.starts_with(of));
            let is_derive = may_derive && line == "use bincode::{Decode, Encode};";
            assert!(is_derive || !line.contains("bincode"), "{}:{number}: {line}", source.path);
        }
    }
}

#[test]
fn temporary_directories_have_one_maker() {
    for source in sources("src").iter().filter(|source| source.path != "src/tests/scratch.rs") {
        ["tempfile::tempdir", "tempfile::Builder", "tempfile::{"]
            .iter()
            .for_each(|maker| source.is_without(maker));
    }
}

#[test]
fn skipped_tests_are_reported_in_one_place() {
    for source in sources("src").iter().filter(|source| source.path != "src/tests/skip.rs") {
        ["\"skipped: ", "\"passed over: "].iter().for_each(|word| source.is_without(word));
    }
}

#[test]
fn no_file_is_too_long_or_left_undone() {
    for source in sources("src").iter().chain(&sources("fuzz/fuzz_targets")) {
        let lines = source.text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", source.path);
        for forbidden in
            ["todo!", "unimplemented!", "#[ignore", "allow(dead_code", "log::debug!", "log::trace!"]
        {
            source.is_without(forbidden);
        }
    }
}

#[test]
fn imports_come_in_three_groups() {
    for source in sources("src").iter().chain(&sources("fuzz/fuzz_targets")) {
        // The group of the previous import, and whether an empty line followed it.
        let mut above: Option<(usize, bool)> = None;
        let mut lines = source.code();
        while let Some((number, line)) = lines.next() {
            above = match (line.trim_start().strip_prefix("use "), above) {
                (Some(path), _) => {
                    let root = path.split([':', ';', ' ']).next().expect("a piece");
                    let group = source.group(root);
                    if let Some((before, is_apart)) = above {
                        let in_order = if is_apart { before < group } else { before == group };
                        assert!(in_order, "{}:{number}: {line}", source.path);
                    }
                    let _ = line.ends_with(';') || lines.any(|(_, line)| line.ends_with("};"));
                    Some((group, false))
                }
                (None, Some((group, _))) if line.is_empty() => Some((group, true)),
                (None, _) => None,
            };
        }
    }
}

#[test]
fn comments_are_no_wider_than_a_screen() {
    for source in sources("src").iter().chain(&sources("fuzz/fuzz_targets")) {
        for (number, line) in (1..).zip(source.text.lines()) {
            let is_table = line.trim_start_matches([' ', '/', '!']).starts_with('|');
            let is_too_wide = line.trim_start().starts_with("//") && line.chars().count() > COMMENT_WIDTH_MAX;
            assert!(
                is_table || !is_too_wide,
                "{}:{number} is wider than {COMMENT_WIDTH_MAX}: {line}",
                source.path
            );
        }
    }
}

#[test]
fn the_top_level_holds_what_belongs_there() {
    for path in entries(top()) {
        let name = path.file_name().expect("a name").to_string_lossy();
        let belongs = TOP_LEVEL.contains(&&*name) || NOT_OURS.contains(&&*name);
        assert!(belongs, "{name} does not belong at the top of the repository");
    }
    for name in TOP_LEVEL {
        assert!(top().join(name).exists(), "{name} is missing");
    }
}

#[test]
fn smol_is_the_only_executor() {
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let text = fs::read_to_string(top().join(lock)).expect("it is there");
        assert!(text.contains("name = \"smol\"") && !text.contains("name = \"tokio\""), "{lock}");
    }
}
