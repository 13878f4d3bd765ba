//! Asks the person at the terminal for a password, without echo, or for confirmation.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use super::table::Paint;
use crate::admin::Refusal;
use crate::admin::reply::Code;
use crate::admin::secret::Secret;

/// Longest line read; longer than any password.
const LINE_OCTETS_MAX: u64 = 4096;

/// Colours, if standard output is a terminal that has them and NO_COLOR is not set (no-color.org).
pub fn paint() -> Paint {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    match io::stdout().is_terminal() && !is_dumb && !is_set("NO_COLOR") {
        true => Paint::Colours,
        false => Paint::Plain,
    }
}

/// Reads a password: the first line of standard input or, on a terminal, typed twice.
pub fn read_password() -> Result<Secret, Refusal> {
    if !io::stdin().is_terminal() {
        return Ok(read_line(None)?.into());
    }
    let quiet = Quiet::begin()?;
    let first = ask("Password: ", &quiet)?;
    let again = ask("Repeat it: ", &quiet)?;
    drop(quiet);
    if first != again {
        return Err(Refusal::new(Code::Malformed, "the passwords do not match"));
    }
    Ok(first.into())
}

/// True if standard input is a terminal.
pub fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// Asks a yes-or-no question on the terminal.
pub fn confirm(question: &str) -> Result<bool, Refusal> {
    print_prompt(&format!("{question} [y/N] "))?;
    let answer = read_line(None)?.trim().to_lowercase();
    Ok(matches!(answer.as_str(), "y" | "yes"))
}

fn ask(prompt: &str, quiet: &Quiet) -> Result<String, Refusal> {
    print_prompt(prompt)?;
    let line = read_line(Some(quiet.interrupt()));
    // The typed line end was not echoed.
    print_prompt("\n")?;
    line
}

fn print_prompt(prompt: &str) -> Result<(), Refusal> {
    let mut terminal = io::stderr();
    terminal.write_all(prompt.as_bytes()).and_then(|()| terminal.flush()).map_err(Refusal::fault)
}

/// Reads a line, up to the character that cancels the command, if one is given.
fn read_line(interrupt: Option<u8>) -> Result<String, Refusal> {
    let mut line = Vec::new();
    for octet in io::stdin().lock().take(LINE_OCTETS_MAX).bytes() {
        match octet.map_err(Refusal::fault)? {
            b'\n' => break,
            octet if Some(octet) == interrupt => return Err(Refusal::new(Code::Cancelled, "cancelled")),
            octet => line.push(octet),
        }
    }
    let line =
        String::from_utf8(line).map_err(|_| Refusal::new(Code::Malformed, "standard input is not UTF-8"))?;
    Ok(line.strip_suffix('\r').unwrap_or(&line).to_owned())
}

/// Turns off the terminal's echo while it lives. Ctrl-C then ends a line instead of the process, which would leave the
/// terminal without echo.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> Result<Self, Refusal> {
        let before = tcgetattr(io::stdin()).map_err(Refusal::fault)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VEOL] = before.special_codes[SpecialCodeIndex::VINTR];
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet).map_err(Refusal::fault)?;
        Ok(Self(before))
    }

    /// What the interrupt key types.
    fn interrupt(&self) -> u8 {
        self.0.special_codes[SpecialCodeIndex::VINTR]
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
