//! The manual pages, in roff's man macros, generated from the tables of commands and settings.

use argh::CommandInfoWithArgs;

use super::help::{Program, pop3svc, shown_flags, switch, synopsis, winpop};
use crate::admin::Refusal;
use crate::settings;

/// The manual page of `winpop` or `pop3svc`.
pub fn page(name: Option<&str>) -> Result<String, Refusal> {
    let (program, section) = match name.map(str::to_ascii_lowercase).as_deref() {
        Some("winpop") => (winpop(), 8),
        None | Some("pop3svc") => (pop3svc(), 8),
        Some(other) => {
            return Err(Refusal::usage(format!("there is no manual page \"{other}\""))
                .with_hint("The pages are winpop and pop3svc"));
        }
    };
    let mut page = format!(
        ".TH {} {section} \"\" \"pop3svc {}\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.B {}\n.I COMMAND\n\\&...\n",
        program.name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        program.name,
        escaped(&sentence_as_phrase(program.tree.description)),
        program.name
    );
    page += ".SH COMMANDS\n";
    for command in &program.tree.commands {
        page += &on_command(&program, &command.command);
    }
    for (name, sentence) in program.extra {
        page += &format!(".TP\n.B {name}\n{}\n", escaped(sentence));
    }
    page += ".SH SWITCHES\n";
    for (switch, explanation) in program.switches {
        page += &format!(".TP\n.B {}\n{}\n", escaped(switch), escaped(explanation));
    }
    page += &format!(".PP\n{}\n", escaped(program.footer));
    if program.name == "winpop" {
        page += &settings_section();
    }
    page += &section_of(".B", "ENVIRONMENT", &ENVIRONMENT);
    page += &section_of(".I", "FILES", &FILES);
    let other = if program.name == "winpop" { "pop3svc (8)" } else { "winpop (8)" };
    page += &format!(".SH SEE ALSO\n.BR {other}\n");
    Ok(page)
}

fn on_command(program: &Program, command: &CommandInfoWithArgs) -> String {
    let mut text =
        format!(".SS {}\n{}\n", escaped(&synopsis(program, command)), escaped(command.description));
    for positional in command.positionals {
        text += &format!(".TP\n.I {}\n{}\n", escaped(positional.name), escaped(positional.description));
    }
    for flag in shown_flags(command) {
        text += &format!(".TP\n.B {}\n{}\n", escaped(&switch(program, flag)), escaped(flag.description));
    }
    for note in command.notes {
        text += &format!(".PP\n{}\n", escaped(note));
    }
    if !command.examples.is_empty() {
        text += ".PP\n.nf\n";
        for example in command.examples {
            text += &format!("    {}\n", escaped(example));
        }
        text += ".fi\n";
    }
    text
}

fn settings_section() -> String {
    let mut text = ".SH SETTINGS\n".to_owned();
    for key in settings::keys() {
        text += &format!(
            ".TP\n.B {}\n{}. Allowed: {}. Default: {}. Takes effect: {}.\n",
            key.name,
            escaped(key.help),
            escaped(&(key.allowed)()),
            escaped(key.default),
            key.effect.name()
        );
    }
    text
}

const ENVIRONMENT: [(&str, &str); 5] = [
    ("WINPOP_MAILROOT", "The mail store directory. Overrides the setting mailroot."),
    ("WINPOP_KEY_FILE", "The file with the key that seals recoverable passwords."),
    (
        "CREDENTIALS_DIRECTORY",
        "Set by systemd. If it contains winpop.key, that is the key, and winpop does not change it.",
    ),
    (
        "XDG_CONFIG_HOME, XDG_DATA_HOME",
        "Where users other than root and the mail store's owner keep their private mail stores.",
    ),
    ("NO_COLOR", "If set, output is not coloured."),
];

const FILES: [(&str, &str); 5] = [
    ("/etc/winpop/mailroot", "Names the machine's mail store directory. Written by winpop set mailroot."),
    (
        "/var/lib/winpop",
        "The machine's default mail store directory, for root and the user who owns it. Other users have their own in \
         ~/.local/share/winpop.",
    ),
    ("winpop.db", "In the mail store directory: the data file, which holds everything."),
    ("winpop.key", "In the mail store directory: the key that seals recoverable passwords."),
    ("winpop.sock", "In the mail store directory: the control socket of the running service."),
];

fn section_of(font: &str, name: &str, entries: &[(&str, &str)]) -> String {
    let mut text = format!(".SH {name}\n");
    for (word, explanation) in entries {
        text += &format!(".TP\n{font} {}\n{}\n", escaped(word), escaped(explanation));
    }
    text
}

/// The sentence without its capital and full stop.
fn sentence_as_phrase(sentence: &str) -> String {
    let (first, rest) = sentence.trim_end_matches('.').split_at(1);
    first.to_ascii_lowercase() + rest
}

/// Text for roff: without requests and escapes, and with hyphens that can be copied.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_every_command_and_setting() {
        let page_of_winpop = page(Some("WINPOP")).unwrap();
        assert!(page_of_winpop.starts_with(".TH WINPOP 8 "));
        for command in &winpop().tree.commands {
            assert!(page_of_winpop.contains(&format!(".SS winpop {}", command.name)), "{}", command.name);
        }
        for key in settings::keys() {
            assert!(page_of_winpop.contains(&format!(".B {}\n", key.name)), "{}", key.name);
        }
        let page_of_pop3svc = page(None).unwrap();
        assert!(page_of_pop3svc.starts_with(".TH POP3SVC 8 "));
        assert!(page_of_pop3svc.contains(".SS pop3svc backup FILE"));
        for page in [page_of_winpop, page_of_pop3svc] {
            assert!(page.contains(".SH ENVIRONMENT\n.TP\n.B WINPOP_MAILROOT\n"), "{page}");
            assert!(page.contains(".SH FILES\n") && page.contains(".I winpop.key\n"), "{page}");
        }
        assert!(page(Some("ls")).is_err());
    }

    #[test]
    fn no_line_of_text_is_taken_for_a_request_or_an_escape() {
        assert_eq!(escaped(".sh -c \\n"), "\\&.sh \\-c \\en");
    }
}
