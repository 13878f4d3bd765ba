//! NTLM logins of the directory's users, by curl, through a real winbind.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::super::client::Pop3;
use super::super::service::{Service, eventually, finish};
use super::controller::{Controller, DOMAIN, PASSWORD};
use super::logins::log_in;
use crate::harness::programs::have;

const PROGRAMS: [&str; 4] = ["curl", "nsenter", "ntlm_auth", "systemd-socket-activate"];

/// The socket of the README's units: a process of ntlm_auth for each connection.
struct Helpers {
    holder: Child,
}

impl Helpers {
    fn behind(socket: &PathBuf, controller: &Controller) -> Self {
        let _ = std::fs::remove_file(socket);
        let samba = controller.id().to_string();
        let mut command = Command::new("systemd-socket-activate");
        command.args(["--accept", "--inetd", "--listen"]).arg(socket);
        // Winbind's socket is in the controller's mounts.
        command.args([
            "nsenter",
            "--mount",
            "--target",
            &samba,
            "ntlm_auth",
            "--helper-protocol=ntlm-server-1",
        ]);
        command.arg("--configfile").arg(controller.dir.join("smb.conf"));
        let holder = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be run");
        eventually("the socket is there", || socket.exists());
        Self { holder }
    }

    /// The process ids of the running helpers.
    fn ids(&self) -> Vec<i32> {
        let task = self.holder.id();
        let children =
            std::fs::read_to_string(format!("/proc/{task}/task/{task}/children")).unwrap_or_default();
        children.split_whitespace().map(|id| id.parse().expect("a number")).collect()
    }

    fn kill(&self) {
        for id in self.ids() {
            let _ = kill_process(Pid::from_raw(id).expect("not 0"), Signal::KILL);
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.kill();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// curl's exit code: 0, or 67 for a denied login (CURLE_LOGIN_DENIED).
fn curl(service: &Service, user: &str, password: &str) -> i32 {
    let mut command = Command::new("curl");
    command.args([
        "-sS",
        "--max-time",
        "60",
        "--login-options",
        "AUTH=NTLM",
        "--user",
        &format!("{user}:{password}"),
    ]);
    command.arg(format!("pop3://127.0.0.1:{}/", service.ports().pop3));
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()), b"").exit_code
}

/// Whether CAPA and bare AUTH name NTLM. They must agree.
fn is_offered(service: &Service) -> bool {
    let mut pop3 = Pop3::connect(service.ports().pop3).expect("the service greets");
    let capabilities = pop3.lines("CAPA").expect("a list");
    let mechanisms = pop3.lines("AUTH").expect("a list");
    let in_capa =
        capabilities.iter().any(|line| line.starts_with(b"SASL ") && line.windows(4).any(|w| w == b"NTLM"));
    assert_eq!(in_capa, mechanisms.contains(&b"NTLM".to_vec()));
    in_capa
}

#[test]
fn users_of_the_directory_log_in_by_ntlm_while_winbind_answers() {
    let Some(controller) = Controller::shared() else { return };
    if !have(&PROGRAMS) {
        return;
    }
    controller.add_user("nina", "nina@ntlm.test", &[]);
    controller.add_user("paul", &format!("paul@{DOMAIN}"), &["mail: paul.mail@ntlm.test"]);
    controller.add_user("gone", "gone@ntlm.test", &[]);
    let mut site = controller.site("ntlm.test");
    for mailbox in ["nina", "paul.mail", "gone"] {
        site.winpop(&["add", &format!("{mailbox}@ntlm.test")]);
    }
    controller.replace("gone", "userAccountControl: 514");
    let service = site.start();
    assert!(!is_offered(&service));
    let socket = site.dir().join("ntlm.sock");
    let word = socket.to_str().expect("a path in UTF-8");
    let nobody = site.run(&["winpop", "set", "adntlm", word]);
    assert!(nobody.exit_code == 1 && nobody.errors.contains("ntlm_auth at "), "{nobody:?}");

    let helpers = Helpers::behind(&socket, controller);
    controller.wait_for_winbind();
    site.winpop(&["set", "adntlm", word]);
    assert!(is_offered(&service));
    for user in [
        "CORP\\nina",
        "nina",
        "nina@ntlm.test",
        "corp.example.test\\nina",
        "CORP\\paul",
        "paul@corp.example.test",
    ] {
        assert_eq!(curl(&service, user, PASSWORD), 0, "{user}");
    }
    service.wait_for_log("nina@ntlm.test logged in from 127.0.0.1 by NTLM");
    service.wait_for_log("paul.mail@ntlm.test logged in from 127.0.0.1 by NTLM");
    // NTLM knows neither the address in `mail` nor a name of another domain.
    for (user, password) in [
        ("CORP\\nina", "Wrong-1-password"),
        ("CORP\\nobody", PASSWORD),
        ("OTHER\\nina", PASSWORD),
        ("paul.mail@ntlm.test", PASSWORD),
        ("CORP\\gone", PASSWORD),
    ] {
        assert_eq!(curl(&service, user, password), 67, "{user}");
    }
    service.wait_for_log("login refused: \"CORP\\\\gone\" is disabled");
    // With sparequired, proofs are accepted and passwords are not.
    site.winpop(&["set", "sparequired", "1"]);
    let mut pop3 = Pop3::connect(service.ports().pop3).expect("the service greets");
    assert!(pop3.ask("USER nina@ntlm.test").expect("a reply").starts_with("-ERR"));
    assert_eq!(curl(&service, "CORP\\nina", PASSWORD), 0);
    // By an address that NTLM does not know, too, the way to log in is shown.
    for (login, account) in [("nina", "nina"), ("paul.mail@ntlm.test", "paul")] {
        let told = site.winpop(&["test", login, PASSWORD]);
        let way = format!("ok    method    sparequired is 1: the client must use NTLM, as CORP\\{account}\n");
        assert!(told.contains(&way), "{told}");
    }

    // A helper that dies is replaced.
    let before = helpers.ids();
    assert!(!before.is_empty());
    helpers.kill();
    assert_eq!(curl(&service, "CORP\\nina", PASSWORD), 0);
    assert!(helpers.ids().iter().all(|id| !before.contains(id)));

    // Without helpers NTLM is not offered, and everything else works.
    drop(helpers);
    eventually("NTLM is not offered", || {
        curl(&service, "CORP\\nina", PASSWORD);
        !is_offered(&service)
    });
    service.wait_for_log("NTLM is not offered");
    let test = site.run(&["winpop", "test", "nina", PASSWORD]);
    let why = "FAIL  method    sparequired is 1, but NTLM cannot be checked: ntlm_auth at ";
    assert!(test.exit_code == 1 && test.output.contains(why), "{test:?}");
    site.winpop(&["set", "sparequired", "0"]);
    assert!(site.winpop(&["test", "nina", PASSWORD]).contains("nina@ntlm.test can log in"));
    assert!(log_in(&service, "nina@ntlm.test", PASSWORD).starts_with("+OK"));
    let _helpers = Helpers::behind(&socket, controller);
    eventually("NTLM is offered again", || is_offered(&service));
    assert_eq!(curl(&service, "CORP\\nina", PASSWORD), 0);
    service.terminate();
    assert!(service.wait().0.success());
    site.assert_clean();
}
