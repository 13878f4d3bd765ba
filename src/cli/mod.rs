//! The command line.
//!
//! The binary goes by three names: `pop3svc`, `winpop` for administration only, and `sendmail` for programs that send
//! mail. [`main`] dispatches every command.

mod accounts;
mod bulk;
mod carry_out;
mod commands;
mod completions;
mod confinement;
mod deliver;
mod export;
mod first_start;
mod health;
mod help;
mod import;
mod man;
mod passwords;
mod patience;
mod progress;
mod quickstart;
mod render;
mod restore;
mod sendmail;
mod serve;
mod shape;
mod table;
mod terminal;
mod upkeep;
mod winpop;
mod words;

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::FromArgs;

use crate::admin::Refusal;
use crate::admin::audit::{self, Who};
use crate::admin::commands::Winpop;
use crate::admin::reply::Code;
use crate::control::Answer;
use crate::mailroot::{self, Environment, MailRoot};
use crate::settings::Logging;
use commands::{Command, Deliver, Link, Pop3svc};
use help::Program;
use table::Paint;
use words::{Common, Understood};

/// Refused or failed.
const EXIT_REFUSED: u8 = 1;
/// Wrong usage.
const EXIT_USAGE: u8 = 2;
/// Wrong usage, for programs that send mail (sysexits.h).
const EX_USAGE: u8 = 64;

/// Carries out the command line of this process and returns its exit code.
pub fn main() -> ExitCode {
    let typed: Result<Vec<String>, _> = env::args_os().map(|word| word.into_string()).collect();
    let typed = match typed {
        Ok(typed) => typed,
        Err(word) => {
            let refusal = Refusal::usage(format!("\"{}\" is not UTF-8", word.display()));
            return fail("pop3svc", &refusal);
        }
    };
    let (invoked_as, words) =
        typed.split_first().map_or(("", &[][..]), |(name, words)| (name.as_str(), words));
    match Path::new(invoked_as).file_name().and_then(|name| name.to_str()) {
        Some("winpop") => administer(words, Common::default()),
        Some("sendmail") => match sendmail::read(words) {
            Ok(deliver) => run(Command::Deliver(deliver), &Common::default()),
            Err(refusal) => conclude_sending("sendmail", EX_USAGE, &Err(refusal), &Common::default()),
        },
        _ => pop3svc(words),
    }
}

fn pop3svc(typed: &[String]) -> ExitCode {
    let program = help::pop3svc();
    let mut common = Common::default();
    let words = match words::take_common(typed, &mut common) {
        Ok(words) => words,
        Err(refusal) => return conclude(program.name, &Err(refusal), &common.or_json(typed)),
    };
    match words.first().map(|word| word.to_ascii_lowercase()).as_deref() {
        Some("winpop") => return administer(&words[1..], common),
        Some("--version" | "-v") => return print(concat!("pop3svc ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => {}
    }
    match read::<Pop3svc>(&program, words, &mut common) {
        Ok(Asked::Command(pop3svc)) => run(pop3svc.command, &common),
        Ok(Asked::Help(text)) => print(&text),
        Err(refusal) if words[0].eq_ignore_ascii_case("deliver") => {
            conclude_sending(program.name, EX_USAGE, &Err(refusal), &common.or_json(typed))
        }
        Err(refusal) => conclude(program.name, &Err(refusal), &common.or_json(typed)),
    }
}

/// What a command line asks for.
enum Asked<T> {
    Command(T),
    Help(String),
}

fn read<T: FromArgs>(program: &Program, typed: &[String], common: &mut Common) -> Result<Asked<T>, Refusal> {
    let typed = words::take_common(typed, common)?;
    match words::understand(&program.tree, program.dialect, typed, common)? {
        Understood::Help { about } => Ok(Asked::Help(help::about(program, about.as_deref())?)),
        Understood::Command { words } => {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let command = T::from_args(&[program.name], &words)
                .map_err(|exit| Refusal::usage(exit.output.trim_end()))?;
            Ok(Asked::Command(command))
        }
    }
}

/// Carries a command out.
fn run(command: Command, common: &Common) -> ExitCode {
    let mailroot = || mailroot(common);
    let answer = match command {
        Command::Link(link) => return print_or_fail(make_link(&link)),
        Command::Completions(wanted) => return print_or_fail(wanted.shell.parse().map(completions::script)),
        Command::Man(wanted) => return print_or_fail(man::page(wanted.name.as_deref())),
        Command::Quickstart(typed) => {
            let ended = mailroot().and_then(|mailroot| quickstart::quickstart(&typed, mailroot));
            return print_or_fail(ended.map(|()| String::new()));
        }
        Command::Serve(_) => {
            return print_or_fail(mailroot().and_then(serve::serve).map(|()| String::new()));
        }
        Command::Deliver(Deliver { recipients, to_header: false, .. }) if recipients.is_empty() => {
            let refusal =
                Refusal::usage("USER@DOMAIN is missing").with_hint("For help: pop3svc deliver --help");
            return conclude_sending("pop3svc", EX_USAGE, &Err(refusal), common);
        }
        Command::Deliver(typed) => {
            let (exit_code, answer) = deliver::deliver(typed, mailroot());
            return conclude_sending("pop3svc", exit_code, &answer, common);
        }
        Command::Backup(typed) => upkeep::backup(&typed, mailroot),
        Command::Export(typed) => {
            let answer = export::export(&typed, mailroot);
            leave_trail(&format!("pop3svc export {} {}", typed.format, typed.target), &answer);
            answer
        }
        Command::Import(typed) => {
            let answer = import::import(&typed, mailroot);
            if !typed.dry_run && !typed.verify {
                let from = typed.from.as_ref().map(|from| format!("--from {from}"));
                let words: Vec<&str> = from.iter().chain(&typed.words).map(String::as_str).collect();
                leave_trail(&format!("pop3svc import {}", words.join(" ")), &answer);
            }
            answer
        }
        Command::Health(typed) => health::health(&typed, mailroot),
        Command::Restore(typed) => {
            let answer = restore::restore(&typed, mailroot);
            leave_trail(&format!("pop3svc restore {}", typed.file), &answer);
            answer
        }
        Command::Compact(_) => upkeep::compact(mailroot),
        Command::Key(typed) => upkeep::key(&typed, mailroot),
        Command::Check(typed) => {
            let answer = upkeep::check(&typed, mailroot);
            if typed.repair {
                let file = typed.file.as_deref().unwrap_or_default();
                leave_trail(&format!("pop3svc check {file} --repair"), &answer);
            }
            answer
        }
    };
    conclude("pop3svc", &answer, common)
}

/// Records a command that this process carried out itself in the audit trail.
fn leave_trail(command: &str, answer: &Answer) {
    crate::log::begin_for_command(Logging::Warnings);
    audit::record(Some(command), Who::this_process(), answer.as_ref());
}

/// The `winpop` command, by whichever name.
fn administer(typed: &[String], mut common: Common) -> ExitCode {
    let program = help::winpop();
    let answer = match read::<Winpop>(&program, typed, &mut common) {
        Ok(Asked::Help(text)) => return print(&text),
        Ok(Asked::Command(winpop)) => {
            winpop::prepare(winpop.op).and_then(|op| winpop::carry_out(op, &mailroot(&common)?))
        }
        Err(refusal) => {
            common = common.or_json(typed);
            Err(refusal)
        }
    };
    conclude(program.name, &answer, &common)
}

/// Prints what became of a command. Findings, losses and refused lines count as failure.
fn conclude(program: &str, answer: &Answer, common: &Common) -> ExitCode {
    match answer {
        Ok(reply) => {
            let text = if common.json { render::json(reply) } else { render::text(reply, terminal::paint()) };
            let printed = print(&text);
            if reply.is_success() { printed } else { ExitCode::from(EXIT_REFUSED) }
        }
        Err(refusal) if common.json => {
            print(&render::refusal_json(refusal));
            exit_code(refusal)
        }
        Err(refusal) => fail(program, refusal),
    }
}

/// The same for a command that sends mail: it says nothing when all went well, and has the exit codes of sysexits.h.
fn conclude_sending(program: &str, exit_code: u8, answer: &Answer, common: &Common) -> ExitCode {
    match answer {
        Ok(reply) if common.json => drop(print(&render::json(reply))),
        Err(refusal) if common.json => drop(print(&render::refusal_json(refusal))),
        Ok(reply) if exit_code != 0 => {
            let told = render::text(reply, Paint::Plain);
            tell(program, &Refusal::new(Code::Fault, told.trim_end().replace('\n', "; ")));
        }
        Ok(_) => {}
        Err(refusal) => tell(program, refusal),
    }
    ExitCode::from(exit_code)
}

fn mailroot(common: &Common) -> Result<MailRoot, Refusal> {
    let given = common.mailroot.as_deref().map(Path::new);
    let mailroot = MailRoot::find(given, &Environment::of_this_process())?;
    mailroot::check(&mailroot.dir)?;
    Ok(mailroot)
}

fn make_link(link: &Link) -> Result<String, Refusal> {
    let program = env::current_exe().map_err(Refusal::fault)?;
    let dir = match &link.dir {
        Some(dir) => PathBuf::from(dir),
        None => program.parent().map(PathBuf::from).unwrap_or_default(),
    };
    let name = dir.join("winpop");
    // In the program's own directory the link is relative, so that both can be moved together.
    let is_beside = dir.canonicalize().ok().as_deref() == program.parent();
    let target = if is_beside { program.file_name().map(PathBuf::from) } else { None }.unwrap_or(program);
    if fs::read_link(&name).is_ok_and(|present| present == target) {
        return Ok(format!("{} already exists\n", name.display()));
    }
    match symlink(&target, &name) {
        Ok(()) => Ok(format!("{} made\n", name.display())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Refusal::new(
            Code::Exists,
            format!("{} already exists and is not a link to this program", name.display()),
        )
        .with_hint("Remove it or name another directory")),
        Err(error) => Err(Refusal::fault(format!("{} cannot be created: {error}", name.display()))),
    }
}

fn print(text: &str) -> ExitCode {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader, such as `head`, has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail("pop3svc", &Refusal::fault(format!("the output cannot be written: {error}"))),
    }
}

fn print_or_fail(text: Result<String, Refusal>) -> ExitCode {
    match text {
        Ok(text) => print(&text),
        Err(refusal) => fail("pop3svc", &refusal),
    }
}

fn fail(program: &str, refusal: &Refusal) -> ExitCode {
    tell(program, refusal);
    exit_code(refusal)
}

fn tell(program: &str, refusal: &Refusal) {
    // If standard error is closed, the exit code must do.
    let _ = writeln!(io::stderr(), "{program}: {refusal}");
}

fn exit_code(refusal: &Refusal) -> ExitCode {
    ExitCode::from(if refusal.code == Code::Usage { EXIT_USAGE } else { EXIT_REFUSED })
}
