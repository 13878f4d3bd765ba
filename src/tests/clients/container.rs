//! The README's container: a root directory that holds only the program, in its own process and network namespaces.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::readme::blocks;
use crate::harness::PROGRAM;
use crate::harness::programs::{have, have_namespaces};
use crate::harness::site::Site;
use crate::harness::skip::needs_root;

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The image and container described by the README's Dockerfile and `docker run -d`.
struct Image {
    variables: Vec<(String, String)>,
    words: Vec<String>,
    /// User and group, as numbers.
    user: String,
    /// Where the password file is mounted.
    password_file: String,
}

fn image() -> Image {
    let blocks = blocks();
    let file = blocks.iter().find(|block| block.mark == "dockerfile").expect("it is there");
    let run = blocks.iter().find(|block| block.text.contains("docker run -d")).expect("it is there");
    // Earlier stages are not in the image.
    let (_, text) = file.text.split_once("FROM scratch\n").expect("an image with nothing else in it");
    let instruction = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        lines.next().unwrap_or_else(|| panic!("no {name} in the Dockerfile")).to_owned()
    };
    let words = ["ENTRYPOINT", "CMD"].map(|name| serde_json::from_str::<Vec<String>>(&instruction(name)));
    let words = words.into_iter().flat_map(|words| words.expect("a list of words")).collect();
    let run: Vec<&str> = run.text.split_whitespace().collect();
    let options = |name| run.windows(2).filter(move |pair| pair[0] == name).map(|pair| pair[1]);
    let set = [instruction("ENV")];
    let set = set.iter().map(String::as_str).chain(options("-e"));
    let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let variables = set.map(|text| pair(text).expect("NAME=VALUE")).collect();
    let mounted = options("-v").filter_map(|volume| volume.strip_suffix(":ro")?.split_once(':'));
    let password_file = mounted.map(|(_, inside)| inside.to_owned()).next().expect("a mounted file");
    Image { variables, words, user: instruction("USER"), password_file }
}

impl Image {
    /// The first process of a container on this root directory. Docker lets every user of a container have every port.
    fn run(&self, root: &Path) -> Child {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--pid", "--net", "--fork", "--kill-child"]);
        command
            .args(["sh", "-euc", "ip link set lo up; echo 0 > \"$0\"; exec chroot \"$@\""])
            .args(["/proc/sys/net/ipv4/ip_unprivileged_port_start", "--userspec", &self.user])
            .arg(root)
            .args(&self.words);
        command.env_clear().env("PATH", PATH).envs(self.variables.clone());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("it can be run")
    }
}

/// The log up to the line that contains this.
fn log_until(child: &mut Child, words: &str) -> String {
    let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut said = String::new();
    while !said.contains(words) {
        assert!(log.read_line(&mut said).expect("UTF-8") > 0, "it ended after {said}");
    }
    child.stderr = Some(log.into_inner());
    said
}

/// Stops it like `docker stop`.
fn stop(mut child: Child) {
    let id = child.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("it runs");
    let first = children.trim().parse().ok().and_then(Pid::from_raw).expect("unshare has a child");
    kill_process(first, Signal::TERM).expect("it runs");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_container_on_an_empty_volume_creates_what_its_variables_name_and_keeps_it() {
    if !needs_root("namespaces")
        || !have(&["unshare", "nsenter", "setpriv", "ip", "chroot", "curl"])
        || !have_namespaces(&["--pid", "--net"])
    {
        return;
    }
    let image = image();
    let site = Site::new();
    let root = site.path("root");
    let password_file = root.join(&image.password_file[1..]);
    fs::create_dir_all(password_file.parent().expect("a directory")).expect("it can be made");
    let mail = root.join("mail");
    fs::create_dir(&mail).expect("it can be made");
    fs::set_permissions(&mail, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let (user, group) = image.user.split_once(':').expect("USER:GROUP");
    chown(&mail, user.parse().ok(), group.parse().ok()).expect("root may do that");
    fs::copy(PROGRAM, root.join("pop3svc")).expect("it can be copied");
    fs::write(&password_file, "secret\n").expect("it can be written");
    let inside = |words: &[&str]| {
        let root = root.to_str().expect("UTF-8");
        let words = [&["--userspec", &image.user, root, "/pop3svc", "--mailroot", "/mail"], words].concat();
        site.output("chroot", &words, b"")
    };

    let mut service = image.run(&root);
    let log = log_until(&mut service, " serves /mail/winpop.db");
    for line in log.lines() {
        let (time, _) = line.split_once(' ').expect("a time and words");
        assert!(time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000Z".len(), "{log}");
    }
    let fetch = |service: &Child, password: &str| {
        let (net, user) =
            (format!("--net=/proc/{}/ns/net", service.id()), format!("bob@example.com:{password}"));
        site.outcome("nsenter", &[&net, "curl", "-sS", "--user", &user, "pop3://127.0.0.1/"], b"").status
    };
    assert!(fetch(&service, "secret").success());
    assert!(inside(&["winpop", "stat"]).contains("Mailboxes  1\n"));
    inside(&["winpop", "changepwd", "bob@example.com", "changed"]);
    stop(service);

    // The same variables again: what exists does not change.
    let mut service = image.run(&root);
    log_until(&mut service, " serves /mail/winpop.db");
    assert!(fetch(&service, "changed").success());
    assert!(!fetch(&service, "secret").success());
    stop(service);
}
