//! The service as an administrator starts it, and the administrator's commands.

use std::process::Command;

use rustix::process::Signal;

use crate::harness::etc::PrivateEtc;
use crate::harness::process::Process;
use crate::harness::site::Site;

/// The last line that quickstart prints.
pub const READY: &str = "Ctrl-C ends the service.\n";

impl Site {
    pub fn new() -> Self {
        Self::bare(None)
    }

    /// A site whose programs see their own accounts of the operating system.
    pub fn with_accounts(etc: PrivateEtc) -> Self {
        Self::bare(Some(etc))
    }

    pub fn etc(&self) -> &PrivateEtc {
        self.etc.as_ref().expect("it was made with accounts")
    }

    /// Runs `winpop` with these words, which must succeed.
    #[track_caller]
    pub fn winpop(&self, words: &str) -> String {
        self.output("winpop", &words.split(' ').collect::<Vec<_>>(), b"")
    }

    /// Runs one of the scripts in testdata/clients.
    pub fn python(&self, script: &str, words: &[&str]) -> String {
        let script = format!("{}/testdata/clients/{script}", env!("CARGO_MANIFEST_DIR"));
        self.output("python3", &[&[script.as_str()], words].concat(), b"")
    }

    /// Creates the store, with a domain and with free ports.
    pub fn make_store(&self) {
        self.winpop("add example.com");
        self.set_ports();
    }

    /// Creates the store and serves it.
    pub fn serve(&self) -> Service<'_> {
        self.make_store();
        Service::quickstart(self, &[])
    }

    /// How many messages a mailbox has according to `winpop list`.
    pub fn messages_in(&self, address: &str) -> u64 {
        let domain = address.split_once('@').expect("an address").1;
        let listed = self.winpop(&format!("list {domain} /json"));
        let listed: serde_json::Value = serde_json::from_str(&listed).expect("it is JSON");
        let mut mailboxes = listed["mailboxes"].as_array().expect("a list").iter();
        let mailbox = mailboxes.find(|mailbox| mailbox["mailbox"] == address).expect("it is listed");
        mailbox["messages"].as_u64().expect("a count")
    }
}

/// The running service.
pub struct Service<'a> {
    site: &'a Site,
    process: Process,
    /// What it had printed by the time it was ready.
    pub told: String,
}

impl<'a> Service<'a> {
    /// Runs `pop3svc quickstart` with these arguments.
    pub fn quickstart(site: &'a Site, words: &[&str]) -> Self {
        Self::start(site, site.command("pop3svc").arg("quickstart").args(words), READY)
    }

    /// Runs a command until it has printed that it is ready.
    pub fn start(site: &'a Site, command: &mut Command, ready: &str) -> Self {
        let process = Process::spawn(command);
        process.wait_for(ready);
        let mut told = process.told();
        // Only up to the end of that line: more may have been printed since.
        let at = told.find(ready.trim_end()).unwrap_or_else(|| panic!("it ended after {told:?}"));
        told.truncate(at + told[at..].find('\n').expect("it prints whole lines") + 1);
        Self { site, process, told }
    }

    /// The port of a protocol, as printed.
    pub fn port(&self, protocol: &str) -> String {
        let port = self.word_after(protocol, 2);
        assert!(port.parse::<u16>().is_ok(), "{}", self.told);
        port
    }

    /// The password of the first mailbox, as printed.
    pub fn password(&self) -> String {
        self.word_after("Password", 0)
    }

    fn word_after(&self, label: &str, index: usize) -> String {
        let mut lines = self.told.lines().map(str::split_whitespace);
        let line = lines.find_map(|mut words| (words.next()? == label).then_some(words));
        let word = line.and_then(|mut words| words.nth(index));
        word.unwrap_or_else(|| panic!("no {label} in {}", self.told)).to_owned()
    }

    /// Stops the service and verifies its store.
    pub fn end(self) {
        let site = self.site;
        self.stop();
        site.assert_clean();
    }

    /// Stops the service as systemd does.
    pub fn stop(self) {
        self.log();
    }

    /// Stops the service as systemd does. Returns what it has logged since it was ready.
    pub fn log(self) -> String {
        self.process.signal(Signal::TERM);
        let (status, log) = self.process.wait();
        assert!(status.success(), "{status}: {log}");
        log[self.told.len()..].to_owned()
    }
}
