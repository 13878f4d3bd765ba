//! Turns the words of a command line into the form that `argh` parses.
//!
//! Commands and switches may be typed in any case, and a switch as `/createuser x`, `/createuser:x`, `--createuser x`
//! or `--createuser=x`. The command table (`argh::ArgsInfo`) lists the switches.
//!
//! A word that begins with `-` or `/` but is not a switch of the command is
//! - a value, after the first value of a command that takes several (`changepwd bob@example.com -x/y`,
//!   `set mailroot /srv/mail`);
//! - a value, if it contains `@`: mailbox names may begin like that;
//! - otherwise a mistake.
//!
//! After `--`, every word is a value.

use argh::{ArgsInfo as _, CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

use super::commands::Pop3svc;
use crate::admin::commands::{ALIASES, Winpop};
use crate::admin::reply::Refusal;
use crate::nearest::nearest;

/// Switches of every command, without their dashes.
pub const JSON: &str = "json";
const HELP: [&str; 3] = ["help", "h", "?"];

/// How a program's words are read.
pub struct Dialect {
    /// Other names of commands.
    pub aliases: &'static [(&'static str, &'static str)],
    /// True if switches may begin with `/`. Not where values are paths, except for `/?` and `/json`.
    pub slash_switches: bool,
}

impl Dialect {
    /// How a switch of this name begins in messages.
    fn sign(&self, name: &str) -> &'static str {
        match (self.slash_switches, name.len()) {
            (true, _) => "/",
            (false, 1) => "-",
            (false, _) => "--",
        }
    }
}

pub static WINPOP: Dialect = Dialect { aliases: &ALIASES, slash_switches: true };
pub static POP3SVC: Dialect = Dialect { aliases: &[], slash_switches: false };

/// A command line, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Understood {
    /// A command with its switches and values as `argh` expects them.
    Command { words: Vec<String> },
    /// A request for help on a command or setting, or in general.
    Help { about: Option<String> },
}

/// Switches that apply to every command.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Common {
    pub json: bool,
    pub mailroot: Option<String>,
}

impl Common {
    /// With JSON also if it is asked for after a mistake, where reading ends.
    pub fn or_json(self, typed: &[String]) -> Self {
        Self { json: self.json || typed.iter().any(|word| is_json(word)), ..self }
    }
}

/// Reads the switches before the command, and returns the rest.
pub fn take_common<'a>(mut typed: &'a [String], common: &mut Common) -> Result<&'a [String], Refusal> {
    while let [word, rest @ ..] = typed {
        match split_switch(word) {
            Some(_) if is_json(word) => {
                common.json = true;
                typed = rest;
            }
            Some((name, value)) if name == "mailroot" => {
                let (dir, rest) = match (value, rest) {
                    (Some(dir), rest) => (dir, rest),
                    (None, [dir, rest @ ..]) => (dir.as_str(), rest),
                    (None, []) => return Err(Refusal::usage("--mailroot needs a directory")),
                };
                common.mailroot = Some(dir.to_owned());
                typed = rest;
            }
            _ => break,
        }
    }
    Ok(typed)
}

/// Reads a command with its arguments.
pub fn understand(
    tree: &CommandInfoWithArgs,
    dialect: &Dialect,
    typed: &[String],
    common: &mut Common,
) -> Result<Understood, Refusal> {
    let Some((word, rest)) = typed.split_first() else {
        return Ok(Understood::Help { about: None });
    };
    if is_help(word) || word.eq_ignore_ascii_case("help") {
        return Ok(Understood::Help { about: rest.first().cloned() });
    }
    let folded = word.to_ascii_lowercase();
    let name =
        dialect.aliases.iter().find(|(alias, _)| *alias == folded).map_or(folded.as_str(), |(_, name)| name);
    let Some(command) = tree.commands.iter().find(|command| command.name == name) else {
        let refusal = match program_with(&folded) {
            Some(program) => no_such("command", word).with_hint(format!("Did you mean {program} {folded}?")),
            None => unknown("command", word, "", tree.commands.iter().map(|command| command.name), "help"),
        };
        return Err(refusal);
    };
    arguments(&command.command, dialect, rest, common)
}

fn arguments(
    command: &CommandInfoWithArgs,
    dialect: &Dialect,
    typed: &[String],
    common: &mut Common,
) -> Result<Understood, Refusal> {
    // A domain named help must follow `--`.
    if let [word] = typed
        && word.eq_ignore_ascii_case("help")
    {
        return Ok(Understood::Help { about: Some(command.name.to_owned()) });
    }
    let mut switches = Vec::new();
    let mut values: Vec<String> = Vec::new();
    let mut typed = typed.iter();
    while let Some(word) = typed.next() {
        if word == "--" {
            values.extend(typed.by_ref().cloned());
            break;
        }
        let Some((name, value)) = split_switch(word) else {
            values.push(word.clone());
            continue;
        };
        if is_help(word) {
            return Ok(Understood::Help { about: Some(command.name.to_owned()) });
        }
        if is_json(word) {
            common.json = true;
            continue;
        }
        if word.starts_with('/') && !dialect.slash_switches {
            values.push(word.clone());
            continue;
        }
        let Some(flag) = flags(command).find(|flag| is_named(flag, &name)) else {
            let is_value = (!values.is_empty() && command.positionals.len() > 1) || name.contains('@');
            if !is_value {
                let known = flags(command).map(|flag| &flag.long[2..]).chain([JSON]);
                let list = format!("help {}", command.name);
                return Err(unknown("switch", word, dialect.sign(""), known, &list));
            }
            values.push(word.clone());
            continue;
        };
        switches.push(flag.long.to_owned());
        match (&flag.kind, value) {
            (FlagInfoKind::Switch, None) => {}
            (FlagInfoKind::Switch, Some(_)) => {
                return Err(Refusal::usage(format!("{}{name} takes no value", dialect.sign(&name))));
            }
            (FlagInfoKind::Option { .. }, Some(value)) => switches.push(value.to_owned()),
            (FlagInfoKind::Option { arg_name }, None) => match typed.next() {
                Some(value) => switches.push(value.clone()),
                None => {
                    let sign = dialect.sign(&name);
                    return Err(Refusal::usage(format!("{arg_name} is missing after {sign}{name}")));
                }
            },
        }
    }
    check_count(command, &values)?;
    let words = [vec![command.name.to_owned()], switches, vec!["--".to_owned()], values].concat();
    Ok(Understood::Command { words })
}

fn check_count(command: &CommandInfoWithArgs, values: &[String]) -> Result<(), Refusal> {
    let missing =
        command.positionals.iter().skip(values.len()).find(|p| p.optionality == Optionality::Required);
    if let Some(missing) = missing {
        return Err(Refusal::usage(format!("{} is missing", missing.name)).with_hint(see_help(command)));
    }
    let endless = command
        .positionals
        .iter()
        .any(|positional| matches!(positional.optionality, Optionality::Repeating | Optionality::Greedy));
    match values.get(command.positionals.len()) {
        Some(surplus) if !endless => {
            Err(Refusal::usage(format!("\"{surplus}\" is one argument too many"))
                .with_hint(see_help(command)))
        }
        _ => Ok(()),
    }
}

/// The switches of a command, except `--help`.
pub fn flags<'a>(command: &'a CommandInfoWithArgs) -> impl Iterator<Item = &'a FlagInfo<'a>> {
    command.flags.iter().filter(|flag| flag.long != "--help")
}

fn is_named(flag: &FlagInfo, name: &str) -> bool {
    flag.long[2..] == *name || flag.short.is_some_and(|short| name == short.to_string())
}

/// The name of a switch in lower case, and its value if that is in the same word.
fn split_switch(word: &str) -> Option<(String, Option<&str>)> {
    let (name, signs) = match word.strip_prefix("--") {
        Some(name) => (name, [':', '=']),
        None => (word.strip_prefix('/').or_else(|| word.strip_prefix('-'))?, [':', ':']),
    };
    // A lone - stands for a password read from standard input.
    if name.is_empty() {
        return None;
    }
    Some(match name.split_once(signs) {
        Some((name, value)) => (name.to_ascii_lowercase(), Some(value)),
        None => (name.to_ascii_lowercase(), None),
    })
}

fn is_help(word: &str) -> bool {
    matches!(split_switch(word), Some((name, None)) if HELP.contains(&name.as_str()))
}

/// True if a word asks for JSON.
pub fn is_json(word: &str) -> bool {
    matches!(split_switch(word), Some((name, None)) if name == JSON)
}

fn see_help(command: &CommandInfoWithArgs) -> String {
    format!("For help: {} /?", command.name)
}

/// The name under which this binary has a command, if it has it at all.
pub fn program_with(command: &str) -> Option<&'static str> {
    let has = |tree: CommandInfoWithArgs| tree.commands.iter().any(|known| known.name == command);
    match (has(Winpop::get_args_info()), has(Pop3svc::get_args_info())) {
        (true, _) => Some("winpop"),
        (_, true) => Some("pop3svc"),
        _ => None,
    }
}

/// The refusal of an unknown command or switch.
pub fn no_such(kind: &str, word: &str) -> Refusal {
    Refusal::usage(format!("there is no {kind} \"{}\"", before_value(word)))
}

/// The rest of the word may be a password.
fn before_value(word: &str) -> &str {
    word.split([':', '=']).next().unwrap_or(word)
}

/// The same, with the nearest known word, which begins with `sign`, or else with the command that lists them.
pub fn unknown<'a>(
    kind: &str,
    word: &str,
    sign: &str,
    known: impl Iterator<Item = &'a str>,
    list: &str,
) -> Refusal {
    let hint = match nearest(before_value(word).trim_start_matches(['/', '-']), known) {
        Some(nearest) => format!("Did you mean {sign}{nearest}?"),
        None => format!("To list them: {list}"),
    };
    no_such(kind, word).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use argh::FromArgs as _;

    use super::*;
    use crate::admin::Op;
    use crate::admin::commands::{Add, ChangePwd, Delete, Get, List, Set};
    use crate::admin::reply::Code;

    /// Splits at single spaces, so that `''` stands for an empty word.
    fn read(typed: &str) -> (Result<Understood, Refusal>, Common) {
        let words: Vec<String> =
            typed.split(' ').map(|word| if word == "''" { "" } else { word }.to_owned()).collect();
        let mut common = Common::default();
        let understood = take_common(&words, &mut common)
            .map(<[String]>::to_vec)
            .and_then(|rest| understand(&Winpop::get_args_info(), &WINPOP, &rest, &mut common));
        (understood, common)
    }

    fn op(typed: &str) -> Op {
        match read(typed).0 {
            Ok(Understood::Command { words }) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                Winpop::from_args(&["winpop"], &words).unwrap_or_else(|exit| panic!("{}", exit.output)).op
            }
            other => panic!("{typed}: {other:?}"),
        }
    }

    fn mistake(typed: &str) -> String {
        let refusal = read(typed).0.unwrap_err();
        assert_eq!(refusal.code, Code::Usage);
        refusal.to_string()
    }

    #[test]
    fn a_switch_is_written_in_each_of_its_forms() {
        let meant = Op::Add(Add {
            name: Some("bob@example.com".to_owned()),
            createuser: Some("secret".to_owned().into()),
            file: None,
            passwords: None,
        });
        for typed in [
            "add bob@example.com /createuser secret",
            "ADD bob@example.com /CreateUser secret",
            "add /createuser secret bob@example.com",
            "add bob@example.com /createuser:secret",
            "add bob@example.com --createuser secret",
            "add bob@example.com --createuser=secret",
            "add --CREATEUSER:secret -- bob@example.com",
            "add bob@example.com -createuser secret",
        ] {
            assert_eq!(op(typed), meant, "{typed}");
        }
    }

    #[test]
    fn values_may_begin_with_a_dash_or_a_slash() {
        let changepwd = |password: &str| {
            Op::ChangePwd(ChangePwd {
                name: "bob@example.com".to_owned(),
                password: Some(password.to_owned().into()),
            })
        };
        for password in ["-x/y", "/x", "--x=y", "-", "--", "/a:b", "-p", "/jsonx"] {
            let typed = match password {
                "--" => "changepwd bob@example.com -- --".to_owned(),
                _ => format!("changepwd bob@example.com {password}"),
            };
            assert_eq!(op(&typed), changepwd(password), "{typed}");
        }
        assert_eq!(op("changepwd bob@example.com -- /json"), changepwd("/json"));
        assert_eq!(op("changepwd -- bob@example.com -x"), changepwd("-x"));
        for (typed, password) in
            [("/createuser -x/y", "-x/y"), ("/createuser /json", "/json"), ("/createuser:/a:b=c", "/a:b=c")]
        {
            let Op::Add(add) = op(&format!("add bob@example.com {typed}")) else { panic!() };
            assert_eq!(add.createuser, Some(password.to_owned().into()), "{typed}");
        }
        let set = |key: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            Op::Set(Set { key: key.to_owned(), values, move_mail: false, force: false })
        };
        assert_eq!(op("set mailroot /srv/mail"), set("mailroot", &["/srv/mail"]));
        assert_eq!(op("set MailRoot -x"), set("MailRoot", &["-x"]));
        assert_eq!(op("set socket 1 2 3 4"), set("socket", &["1", "2", "3", "4"]));
        assert_eq!(op("set port -1"), set("port", &["-1"]));
        assert_eq!(op("lock /bob@example.com"), op("lock -- /bob@example.com"));
    }

    #[test]
    fn switches_and_aliases_are_known_in_any_case_and_place() {
        let delete = |deleteuser, y| Op::Delete(Delete { name: "bob@example.com".to_owned(), deleteuser, y });
        assert_eq!(op("Del bob@example.com /DELETEUSER"), delete(true, false));
        assert_eq!(op("delete /y bob@example.com"), delete(false, true));
        assert_eq!(op("list"), Op::List(List { domain: None, all: false }));
        assert_eq!(op("get auth"), Op::Get(Get { key: Some("auth".to_owned()) }));
        for typed in ["list /json", "/JSON list", "--json list", "list --json", "-json list"] {
            assert!(read(typed).1.json, "{typed}");
        }
        for typed in ["--mailroot /srv/mail list", "/mailroot:/srv/mail list", "--mailroot=/srv/mail list"] {
            assert_eq!(read(typed).1.mailroot.as_deref(), Some("/srv/mail"), "{typed}");
        }
        let Op::Set(set) = op("set mailroot /srv/mail /move") else { panic!() };
        assert!(set.move_mail && set.values == ["/srv/mail"]);
    }

    #[test]
    fn help_is_asked_for_in_many_ways() {
        let help = |about: Option<&str>| Ok(Understood::Help { about: about.map(str::to_owned) });
        for typed in ["help", "/?", "--help", "-h", "HELP", "/Help"] {
            assert_eq!(read(typed).0, help(None), "{typed}");
        }
        for typed in
            ["help add", "add /?", "add --help", "add bob@example.com /?", "/? add", "ADD -?", "add HELP"]
        {
            assert_eq!(read(typed).0, help(Some("add")), "{typed}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_the_nearest_known_word() {
        for (typed, told) in [
            ("ad example.com", "there is no command \"ad\". Did you mean add?"),
            ("frobnicate", "there is no command \"frobnicate\". To list them: help"),
            ("add b@c /creatuser:p@ss", "there is no switch \"/creatuser\". Did you mean /createuser?"),
            ("add b@c --creatuser=pw", "there is no switch \"--creatuser\". Did you mean /createuser?"),
            ("list /jsno", "there is no switch \"/jsno\". Did you mean /json?"),
            ("list /frobnicate", "there is no switch \"/frobnicate\". To list them: help list"),
            ("Backup x", "there is no command \"Backup\". Did you mean pop3svc backup?"),
            ("delete", "DOMAIN|USER@DOMAIN is missing. For help: delete /?"),
            ("list a b", "\"b\" is one argument too many. For help: list /?"),
            ("add b@c /createuser", "PASSWORD is missing after /createuser"),
            ("delete a /y:1", "/y takes no value"),
            ("--mailroot", "--mailroot needs a directory"),
        ] {
            assert_eq!(mistake(typed), told, "{typed}");
        }
    }

    #[test]
    fn a_mistake_with_pop3svc_is_answered_in_its_own_words() {
        let tree = Pop3svc::get_args_info();
        for (typed, told) in [
            ("list", "there is no command \"list\". Did you mean winpop list?"),
            ("lnk", "there is no command \"lnk\". Did you mean link?"),
            ("import --verfy", "there is no switch \"--verfy\". Did you mean --verify?"),
            ("import --uidl", "IDS is missing after --uidl"),
            ("deliver -f", "SENDER is missing after -f"),
        ] {
            let words: Vec<String> = typed.split(' ').map(str::to_owned).collect();
            let refusal = understand(&tree, &POP3SVC, &words, &mut Common::default()).unwrap_err();
            assert_eq!(refusal.to_string(), told, "{typed}");
        }
    }

    #[test]
    fn paths_are_values_where_no_switch_begins_with_a_slash() {
        let tree = Pop3svc::get_args_info();
        for (typed, meant) in [
            ("backup /mail.db", vec!["backup", "--", "/mail.db"]),
            ("check /json", vec!["check", "--"]),
            ("check /srv/winpop.db --repair", vec!["check", "--repair", "--", "/srv/winpop.db"]),
            ("deliver -f a@b c@d", vec!["deliver", "--from", "a@b", "--", "c@d"]),
        ] {
            let words: Vec<String> = typed.split(' ').map(str::to_owned).collect();
            let understood = understand(&tree, &POP3SVC, &words, &mut Common::default());
            let words = meant.into_iter().map(str::to_owned).collect();
            assert_eq!(understood, Ok(Understood::Command { words }), "{typed}");
        }
    }

    /// Whatever is typed, `argh` itself never reports an error or panics.
    #[test]
    fn any_words_are_understood_or_refused() {
        let mut random = fastrand::Rng::with_seed(3);
        let words = [
            "add",
            "del",
            "set",
            "get",
            "list",
            "changepwd",
            "lock",
            "/?",
            "--",
            "-",
            "/",
            "/y",
            "/json",
            "''",
            "--createuser",
            "/createuser:",
            "--mailroot",
            "a@b",
            "/a@b",
            "--x",
            "help",
            "port",
            "/move",
        ];
        for _ in 0..20_000 {
            let typed: Vec<&str> =
                (0..random.usize(1..6)).map(|_| words[random.usize(..words.len())]).collect();
            let typed = typed.join(" ");
            if let Ok(Understood::Command { .. }) = read(&typed).0 {
                op(&typed);
            }
        }
    }
}
