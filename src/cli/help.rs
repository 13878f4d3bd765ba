//! The help, generated from the tables of commands and settings, for a terminal of 80 columns.

use argh::{ArgsInfo as _, CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality, PositionalInfo};

use super::commands::Pop3svc;
use super::shape;
use super::words::{self, Dialect, JSON, flags, no_such, unknown};
use crate::admin::Refusal;
use crate::admin::commands::{ALIASES, Winpop};
use crate::settings::{self, KeptIn, Key};

const COLUMNS: usize = 80;
/// Where explanations begin.
const EXPLANATION_COLUMN: usize = 24;
/// ` = ` with no-break spaces.
const UNBROKEN_EQUALS: &str = "\u{a0}=\u{a0}";

/// This binary under one of its names.
pub struct Program {
    pub name: &'static str,
    /// The sign before switches in help.
    pub switch_sign: &'static str,
    pub dialect: &'static Dialect,
    pub tree: CommandInfoWithArgs,
    /// Commands that are not in the tree, each with its description.
    pub extra: &'static [(&'static str, &'static str)],
    /// Switches of every command as shown, each with its explanation.
    pub switches: &'static [(&'static str, &'static str)],
    pub footer: &'static str,
}

pub fn winpop() -> Program {
    Program {
        name: "winpop",
        switch_sign: "/",
        dialect: &words::WINPOP,
        tree: Winpop::get_args_info(),
        extra: &[("help", "Shows this help, or help on a command or setting.")],
        switches: &[
            ("/json", "print JSON for programs; see winpop help json"),
            ("/?", "show help on the command"),
        ],
        footer: "Commands, settings and switches may be typed in any case, and a switch as /switch value, \
                 /switch:value or --switch value. Commands work whether or not the service is running. Exit codes: \
                 0 = done, 1 = refused or failed, 2 = wrong usage.",
    }
}

pub fn pop3svc() -> Program {
    Program {
        name: "pop3svc",
        switch_sign: "--",
        dialect: &words::POP3SVC,
        tree: Pop3svc::get_args_info(),
        extra: &[
            ("winpop", "Administers domains, mailboxes and settings; see pop3svc winpop help."),
            ("help", "Shows this help, or help on a command."),
        ],
        switches: &[
            ("--mailroot DIR", "the mail store directory (or set WINPOP_MAILROOT); goes before the command"),
            ("--help", "show help on the command"),
            ("--version", "show the version"),
        ],
        footer: "To try it out in a minute: pop3svc quickstart",
    }
}

/// Help on a command or a setting, or the overview.
pub fn about(program: &Program, about: Option<&str>) -> Result<String, Refusal> {
    let Some(word) = about else { return Ok(overview(program)) };
    let folded = word.to_ascii_lowercase();
    let name = ALIASES.iter().find(|(alias, _)| *alias == folded).map_or(folded.as_str(), |(_, name)| name);
    if let Some(command) = program.tree.commands.iter().find(|command| command.name == name) {
        return Ok(on_command(program, &command.command));
    }
    if name == JSON {
        return Ok(shape::page());
    }
    if program.extra.iter().any(|(extra, _)| *extra == name) {
        return Ok(overview(program));
    }
    if program.name == "winpop"
        && let Ok(key) = settings::find(name)
    {
        return Ok(on_setting(key));
    }
    let of_winpop = settings::find(name).is_ok().then_some("winpop");
    if let Some(other) = words::program_with(name).or(of_winpop) {
        return Err(no_such("command", word).with_hint(format!("Did you mean {other} help {name}?")));
    }
    let commands = program.tree.commands.iter().map(|command| command.name);
    let keys = settings::keys().map(|key| key.name).filter(|_| program.name == "winpop");
    Err(unknown("command", word, "", commands.chain(keys), "help"))
}

fn overview(program: &Program) -> String {
    let mut text = wrap(program.tree.description, 0);
    text += &format!("\nUsage: {} COMMAND ...\n\n", program.name);
    for command in &program.tree.commands {
        text += &entry(command.name, command.command.description);
    }
    for (name, sentence) in program.extra {
        text += &entry(name, sentence);
    }
    text.push('\n');
    for (switch, explanation) in program.switches {
        text += &entry(switch, explanation);
    }
    text.push('\n');
    text + &wrap(program.footer, 0)
}

fn on_command(program: &Program, command: &CommandInfoWithArgs) -> String {
    let mut text = wrap(command.description, 0);
    let usage = "Usage: ";
    text += &format!("\n{usage}{}", wrap(&synopsis(program, command), usage.len()).trim_start());
    let mut entries = String::new();
    for positional in command.positionals {
        entries += &entry(positional.name, positional.description);
    }
    for flag in shown_flags(command) {
        entries += &entry(&switch(program, flag), flag.description);
    }
    if !entries.is_empty() {
        text += &format!("\n{entries}");
    }
    for note in command.notes {
        text += &format!("\n{}", wrap(note, 0));
    }
    if matches!(command.name, "set" | "get") {
        text += "\nSettings:\n";
        for key in settings::keys() {
            text += &entry(key.name, key.help);
        }
        text += "\nFor more on a setting: winpop help KEY\n";
    }
    if !command.examples.is_empty() {
        text += "\nExamples:\n";
        for example in command.examples {
            text += &format!("  {example}\n");
        }
    }
    text
}

fn on_setting(key: &Key) -> String {
    let mut text = wrap(&format!("{}.", key.help), 0);
    let allowed = (key.allowed)();
    let values = if key.kept_in == KeptIn::Sockets { &allowed } else { "VALUE" };
    text += &format!("\nUsage: winpop set {} {values}\n       winpop get {}\n\n", key.name, key.name);
    text += &entry("Allowed", &allowed);
    text += &entry("Default", key.default);
    text += &entry("Takes effect", key.effect.name());
    if !key.aliases.is_empty() {
        text += &entry("Also called", &key.aliases.join(", "));
    }
    text
}

/// How a command is typed.
pub fn synopsis(program: &Program, command: &CommandInfoWithArgs) -> String {
    let mut text = format!("{} {}", program.name, command.name);
    for positional in command.positionals {
        text += &format!(" {}", shown_positional(positional));
    }
    for flag in shown_flags(command) {
        text += &format!(" [{}]", switch(program, flag));
    }
    text
}

/// An argument as the usage shows it: in brackets if it is optional.
fn shown_positional(positional: &PositionalInfo) -> String {
    match positional.optionality {
        Optionality::Required => positional.name.to_owned(),
        Optionality::Optional => format!("[{}]", positional.name),
        Optionality::Repeating | Optionality::Greedy => format!("{}...", positional.name),
    }
}

/// The switches shown in help.
pub fn shown_flags<'a>(command: &'a CommandInfoWithArgs) -> impl Iterator<Item = &'a FlagInfo<'a>> {
    flags(command).filter(|flag| !flag.hidden)
}

/// A switch as it is shown, with the name of its value.
pub fn switch(program: &Program, flag: &FlagInfo) -> String {
    let name = match flag.short {
        Some(short) => format!("-{short}"),
        None => format!("{}{}", program.switch_sign, &flag.long[2..]),
    };
    match flag.kind {
        FlagInfoKind::Switch => name,
        FlagInfoKind::Option { arg_name } => format!("{name} {arg_name}"),
    }
}

/// The switches of a command, for completions.
pub fn switch_words(program: &Program, command: &CommandInfoWithArgs) -> Vec<String> {
    let mut words: Vec<String> = shown_flags(command)
        .map(|flag| match flag.short {
            Some(short) => format!("-{short}"),
            None => format!("--{}", &flag.long[2..]),
        })
        .collect();
    if program.name == "winpop" {
        words.push(format!("--{JSON}"));
    }
    words.push("--help".to_owned());
    words
}

/// A word and its explanation, which starts on a new line if the word is long.
fn entry(word: &str, explanation: &str) -> String {
    let indented = wrap(explanation, EXPLANATION_COLUMN);
    let head = format!("  {word}");
    match head.chars().count() + 2 <= EXPLANATION_COLUMN {
        true => format!("{head:EXPLANATION_COLUMN$}{}", indented.trim_start()),
        false => format!("{head}\n{indented}"),
    }
}

/// The text wrapped before the last column, each line indented. What a value means, `0 = off`, stays on one line.
fn wrap(text: &str, indent: usize) -> String {
    let text = text.replace(" = ", UNBROKEN_EQUALS);
    let mut wrapped = String::new();
    let mut line = " ".repeat(indent);
    for word in text.split([' ', '\n']).filter(|word| !word.is_empty()) {
        let is_first = line.len() == indent;
        if !is_first && line.chars().count() + 1 + word.chars().count() >= COLUMNS {
            wrapped += &line;
            wrapped.push('\n');
            line = " ".repeat(indent);
        } else if !is_first {
            line.push(' ');
        }
        line += word;
    }
    (wrapped + &line + "\n").replace(UNBROKEN_EQUALS, " = ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_page() -> Vec<String> {
        let mut pages = Vec::new();
        for program in [winpop(), pop3svc()] {
            pages.push(about(&program, None).unwrap());
            for command in &program.tree.commands {
                pages.push(about(&program, Some(&command.name.to_uppercase())).unwrap());
            }
        }
        pages.extend(settings::keys().map(|key| about(&winpop(), Some(key.name)).unwrap()));
        pages
    }

    #[test]
    fn every_command_and_setting_has_help_that_reads_well_at_80_columns() {
        for page in every_page() {
            assert!(page.ends_with('\n') && !page.contains("\n\n\n") && page.lines().count() > 2, "{page}");
            for line in page.lines() {
                assert!(line.chars().count() < COLUMNS && line.trim_end() == line, "{line:?}");
                assert!(!line.ends_with(" =") && !line.trim_start().starts_with("= "), "{line:?}");
            }
        }
    }

    #[test]
    fn the_help_of_a_command_is_its_row_in_the_table() {
        assert_eq!(
            about(&winpop(), Some("unlock")).unwrap(),
            "\
Unlocks a domain with all its mailboxes, or a mailbox.

Usage: winpop unlock DOMAIN|USER@DOMAIN

  DOMAIN|USER@DOMAIN    the domain or mailbox to unlock

While its domain is locked, a mailbox cannot be unlocked by itself.

Examples:
  winpop unlock example.com
"
        );
        assert_eq!(about(&winpop(), Some("del")).unwrap(), about(&winpop(), Some("delete")).unwrap());
        assert!(about(&winpop(), Some("add")).unwrap().contains("[/createuser PASSWORD]"));
        assert!(about(&pop3svc(), Some("deliver")).unwrap().contains("[-f SENDER]"));
    }

    #[test]
    fn the_help_of_a_setting_is_its_row_in_the_table() {
        assert_eq!(
            about(&winpop(), Some("PORT")).unwrap(),
            "\
TCP port for POP3.

Usage: winpop set port VALUE
       winpop get port

  Allowed               1 to 65535
  Default               110
  Takes effect          at once
"
        );
    }

    #[test]
    fn a_setting_of_several_values_names_them() {
        let page = about(&winpop(), Some("socket")).unwrap();
        assert!(page.contains("winpop set socket BACKLOG MAX MIN THRESHOLD\n"), "{page}");
    }

    #[test]
    fn help_on_an_unknown_word_suggests_the_nearest() {
        let told = |word: &str| about(&winpop(), Some(word)).unwrap_err().to_string();
        assert_eq!(told("unlok"), "there is no command \"unlok\". Did you mean unlock?");
        assert_eq!(told("socketmx"), "there is no command \"socketmx\". Did you mean socketmax?");
        assert_eq!(told("backup"), "there is no command \"backup\". Did you mean pop3svc help backup?");
        let told = |word: &str| about(&pop3svc(), Some(word)).unwrap_err().to_string();
        assert_eq!(told("Port"), "there is no command \"Port\". Did you mean winpop help port?");
        assert_eq!(told("list"), "there is no command \"list\". Did you mean winpop help list?");
        assert_eq!(told("prot"), "there is no command \"prot\". To list them: help");
    }
}
