//! Shell completions, generated from the tables of commands and settings.
//!
//! They offer commands, then switches, settings after `set` and `get`, commands and settings after `help`, and the
//! names of domains and mailboxes after commands that take them.

use std::fmt::Write as _;
use std::str::FromStr;

use super::help::{Program, pop3svc, switch_words, winpop};
use crate::admin::reply::Refusal;
use crate::settings;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl FromStr for Shell {
    type Err = Refusal;

    fn from_str(typed: &str) -> Result<Self, Refusal> {
        match typed.to_ascii_lowercase().as_str() {
            "bash" => Ok(Self::Bash),
            "zsh" => Ok(Self::Zsh),
            "fish" => Ok(Self::Fish),
            _ => Err(Refusal::usage(format!("there are no completions for \"{typed}\""))
                .with_hint("The shells are bash, zsh and fish")),
        }
    }
}

/// The script for a shell, which completes `winpop`, `pop3svc` and `pop3svc winpop`.
pub fn script(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// The words that may follow each command.
fn words_after_commands(program: &Program) -> Vec<(&'static str, Vec<String>)> {
    let keys = || settings::keys().map(|key| key.name.to_owned());
    let mut all = Vec::new();
    for command in &program.tree.commands {
        let mut words = switch_words(program, &command.command);
        match command.name {
            "set" | "get" => words.extend(keys()),
            "completions" => words.extend(["bash", "zsh", "fish"].map(str::to_owned)),
            "man" => words.extend(["winpop", "pop3svc"].map(str::to_owned)),
            _ => {}
        }
        all.push((command.name, words));
    }
    let mut topics: Vec<String> =
        program.tree.commands.iter().map(|command| command.name.to_owned()).collect();
    if program.name == "winpop" {
        topics.extend(keys());
    }
    all.push(("help", topics));
    all
}

fn command_names(program: &Program) -> String {
    let commands = program.tree.commands.iter().map(|command| command.name);
    let names: Vec<&str> = commands.chain(program.extra.iter().map(|(name, _)| *name)).collect();
    names.join(" ")
}

/// The function of one program, for bash and zsh.
fn bash_function(program: &Program) -> String {
    let mut cases = String::new();
    for (command, words) in words_after_commands(program) {
        let _ = writeln!(cases, "        {command}) words=\"{}\" ;;", words.join(" "));
    }
    format!(
        "_{name}_words() {{\n    local words=\"\"\n    case \"$1\" in\n        \"\") words=\"{commands}\" ;;\n{cases}    \
         esac\n    echo \"$words\"\n}}\n",
        name = program.name,
        commands = command_names(program)
    )
}

/// Commands that take names of domains, and of mailboxes.
const DOMAINS_AFTER: &str = "add delete undelete list lock unlock stat";
const MAILBOXES_AFTER: &str = "delete undelete test lock unlock changepwd createquotafile deletequotafile";

/// Finds program and command on the line, and offers the words of the functions above and the names that `winpop list`
/// prints: the last word of each line down to the first empty line. Bash ends a word at @, so what precedes the @ is
/// cut off each offer.
const BASH: &str = r#"_pop3svc_names() {
    "${COMP_WORDS[@]:0:$at}" list "$@" 2> /dev/null < /dev/null | awk '!NF { exit } NR > 1 { print $NF }'
}
_pop3svc_complete() {
    local program="${COMP_WORDS[0]##*/}" at=1
    if [ "$program" != winpop ]; then
        program=pop3svc
        [ "${COMP_WORDS[1]}" = --mailroot ] && at=3
        if [ "$COMP_CWORD" -gt "$at" ] && [ "${COMP_WORDS[$at]}" = winpop ]; then
            program=winpop
            at=$((at + 1))
        fi
    fi
    local command="" line="${COMP_LINE:0:$COMP_POINT}" words
    local word="${line##* }"
    [ "$COMP_CWORD" -gt "$at" ] && command="${COMP_WORDS[$at],,}"
    [ "$command" = del ] && command=delete
    words="$("_${program}_words" "$command")"
    if [ "$program" = winpop ]; then
        case " DOMAINS " in *" $command "*) words="$words $(_pop3svc_names)" ;; esac
        case " MAILBOXES " in *" $command "*) words="$words $(_pop3svc_names --all)" ;; esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    local before="${word%"${word##*@}"}"
    [[ "$COMP_WORDBREAKS" = *@* ]] && COMPREPLY=("${COMPREPLY[@]#"$before"}")
}
complete -o default -F _pop3svc_complete pop3svc winpop
"#;

const ZSH: &str = r#"_pop3svc_names() {
    "${(@)words[1,$((at - 1))]}" list "$@" 2> /dev/null < /dev/null | awk '!NF { exit } NR > 1 { print $NF }'
}
_pop3svc_complete() {
    local program="${words[1]:t}" at=2 command=""
    if [[ "$program" != winpop ]]; then
        program=pop3svc
        [[ "${words[2]}" = --mailroot ]] && at=4
        if (( CURRENT > at )) && [[ "${words[$at]}" = winpop ]]; then
            program=winpop
            (( at++ ))
        fi
    fi
    (( CURRENT > at )) && command="${words[$at]:l}"
    [[ "$command" = del ]] && command=delete
    local -a offered
    offered=(${(z)"$(_${program}_words "$command")"})
    if [[ "$program" = winpop ]]; then
        [[ " DOMAINS " = *" $command "* ]] && offered+=(${(f)"$(_pop3svc_names)"})
        [[ " MAILBOXES " = *" $command "* ]] && offered+=(${(f)"$(_pop3svc_names --all)"})
    fi
    compadd -- $offered || _files
}
if [[ "$funcstack[1]" = _pop3svc ]]; then
    _pop3svc_complete "$@"
else
    compdef _pop3svc_complete pop3svc winpop
fi
"#;

fn with_names(script: &str) -> String {
    script.replace("DOMAINS", DOMAINS_AFTER).replace("MAILBOXES", MAILBOXES_AFTER)
}

fn bash() -> String {
    format!("{}{}{}", bash_function(&winpop()), bash_function(&pop3svc()), with_names(BASH))
}

fn zsh() -> String {
    format!(
        "#compdef pop3svc winpop\n{}{}{}",
        bash_function(&winpop()),
        bash_function(&pop3svc()),
        with_names(ZSH)
    )
}

fn fish() -> String {
    let mut script = String::new();
    for program in [winpop(), pop3svc()] {
        let name = program.name;
        let commands = command_names(&program);
        for command in &program.tree.commands {
            let description = command.command.description.trim_end_matches('.').replace('\'', "\\'");
            let _ = writeln!(
                script,
                "complete -c {name} -f -n 'not __fish_seen_subcommand_from {commands}' -a {} -d '{description}'",
                command.name
            );
        }
        for (command, sentence) in program.extra {
            let description = sentence.trim_end_matches('.').replace('\'', "\\'");
            let _ = writeln!(
                script,
                "complete -c {name} -f -n 'not __fish_seen_subcommand_from {commands}' -a {command} -d '{description}'"
            );
        }
        for (command, words) in words_after_commands(&program) {
            let _ = writeln!(
                script,
                "complete -c {name} -n '__fish_seen_subcommand_from {command}' -a '{}'",
                words.join(" ")
            );
        }
    }
    let names = r#"2> /dev/null | awk "!NF { exit } NR > 1 { print \$NF }""#;
    for (commands, words) in [(DOMAINS_AFTER, "list"), (MAILBOXES_AFTER, "list --all")] {
        let _ = writeln!(
            script,
            "complete -c winpop -f -n '__fish_seen_subcommand_from {commands}' -a '(winpop {words} {names})'"
        );
    }
    script
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn each_script_has_every_command_switch_and_setting() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for word in ["changepwd", "--createuser", "socketthreshold", "quickstart", "--repair", "--json"] {
                assert!(script.contains(word), "{shell:?} {word}");
            }
            assert!(!script.contains("--to-header"), "{shell:?}");
        }
    }

    /// A stand-in for `winpop list`: lists domains, or mailboxes with --all.
    const NAMES: &str = "winpop() { printf 'Status  Name\\nopen  example.com\\n'; \
                         [ \"$2\" = --all ] && printf 'open  ann@example.com\\n\\nUsed  Quota of\\n1  no@name\\n'; }\n";

    /// What bash offers for the last word of a line.
    fn offered(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        let ask = format!(
            "{}{NAMES}COMP_WORDS=({}); COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_CWORD={}; _pop3svc_complete; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            bash(),
            words.join(" "),
            words.len() - 1
        );
        let output = Command::new("bash").args(["--norc", "-c", &ask]).output().expect("bash can be run");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn bash_offers_what_may_come_next() {
        assert_eq!(offered("winpop unl"), ["unlock"]);
        assert_eq!(offered("/usr/bin/winpop set socketm"), ["socketmax", "socketmin"]);
        assert_eq!(offered("winpop DEL --d"), ["--deleteuser"]);
        assert_eq!(offered("pop3svc qu"), ["quickstart"]);
        assert_eq!(offered("pop3svc winpop get thr"), ["threadcount"]);
        assert_eq!(offered("pop3svc --mailroot /srv/mail winpop ch"), ["changepwd"]);
        assert_eq!(offered("pop3svc completions z"), ["zsh"]);
        assert_eq!(offered("winpop list ex"), ["example.com"]);
        assert_eq!(offered("winpop delete a"), ["ann@example.com"]);
        // Bash takes the part before the @ for a separate word.
        assert_eq!(offered("winpop CHANGEPWD ann@e"), ["example.com"]);
        assert!(offered("winpop changepwd n").is_empty());
    }
}
