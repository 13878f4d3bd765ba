//! Runs the shadow suite: useradd(8), userdel(8), chpasswd(8) and groupadd(8).
//!
//! Tools run by absolute path with a clean environment, and read passwords from standard input, which no process list
//! shows. A tool that runs longer than [`TOOL_MAX`] is killed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use zeroize::Zeroizing;

use crate::address::Address;

/// The primary group of the accounts that we create.
const GROUP: &str = "pop3users";
/// How long a tool may take, since it waits while another one holds the lock on the files.
const TOOL_MAX: Duration = Duration::from_secs(60);
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// Shells that allow no login; the first that exists is used.
const SHELLS: [&str; 3] = ["/usr/sbin/nologin", "/sbin/nologin", "/bin/false"];
const NEEDED: [&str; 4] = ["useradd", "userdel", "chpasswd", "groupadd"];
/// groupadd(8): the group exists.
const GROUP_EXISTS: i32 = 9;

/// Checks that this process can create and delete accounts. An error is a sentence.
pub fn ready() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may create, change and delete accounts of this machine".to_owned());
    }
    let missing: Vec<&str> = NEEDED.into_iter().filter(|tool| path_of(tool).is_none()).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "this machine has no {}; they come with the package passwd, shadow or shadow-utils",
            missing.join(", ")
        )),
    }
}

/// Creates an account that can only fetch mail. Deletes it again if it cannot get its password.
pub fn create(address: &Address, password: &str) -> Result<(), String> {
    let name = address.local.as_str();
    let shell = SHELLS.into_iter().find(|shell| Path::new(shell).exists()).unwrap_or(SHELLS[2]);
    match run("groupadd", &["--system", GROUP], "")? {
        output if output.status.success() || output.status.code() == Some(GROUP_EXISTS) => {}
        output => return Err(failure("groupadd", &output)),
    }
    let comment = format!("POP3 mailbox {address}");
    done(
        "useradd",
        &[
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--no-user-group",
            "--gid",
            GROUP,
            "--shell",
            shell,
            "--comment",
            &comment,
            "--",
            name,
        ],
        "",
    )?;
    set_password(name, password).map_err(|why| match remove(name) {
        Ok(()) => why,
        Err(rest) => format!("{why}; the account was created and could not be deleted again: {rest}"),
    })
}

/// Deletes the account but keeps its home directory.
pub fn remove(name: &str) -> Result<(), String> {
    done("userdel", &["--", name], "")
}

pub fn set_password(name: &str, password: &str) -> Result<(), String> {
    let line = Zeroizing::new(format!("{name}:{password}\n"));
    done("chpasswd", &[], &line)
}

fn path_of(tool: &str) -> Option<PathBuf> {
    DIRECTORIES.into_iter().map(|directory| Path::new(directory).join(tool)).find(|path| path.is_file())
}

fn done(tool: &str, words: &[&str], input: &str) -> Result<(), String> {
    match run(tool, words, input)? {
        output if output.status.success() => Ok(()),
        output => Err(failure(tool, &output)),
    }
}

fn failure(tool: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match said.is_empty() {
        true => format!("{tool} failed ({})", output.status),
        false => format!("{tool} failed ({}): {}", output.status, said.join("; ")),
    }
}

fn run(tool: &str, words: &[&str], input: &str) -> Result<Output, String> {
    let path = path_of(tool).ok_or_else(|| format!("this machine has no {tool}"))?;
    let failed = |error: std::io::Error| format!("{} cannot be run: {error}", path.display());
    let mut command = Command::new(&path);
    command.args(words).env_clear().env("PATH", DIRECTORIES.join(":")).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // This cannot block: the text fits into the pipe. If the tool does not read it, its own error says why.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    within_limit(child)
        .map_err(failed)?
        .ok_or_else(|| format!("{tool} did not finish within {} seconds and was killed", TOOL_MAX.as_secs()))
}

/// The tool's outcome, or `None` if we killed it.
fn within_limit(child: Child) -> std::io::Result<Option<Output>> {
    let process = Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(child.wait_with_output());
    });
    match receiver.recv_timeout(TOOL_MAX) {
        Ok(output) => output.map(Some),
        Err(_) => {
            kill_process(process, Signal::KILL)?;
            Ok(None)
        }
    }
}
