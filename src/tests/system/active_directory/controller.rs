//! An Active Directory domain controller: Samba, provisioned for these tests, on a loopback address.
//!
//! - All tests of this process share one and use different user names. A test that stops and starts it has its own.
//! - It ends with this process, however that ends: Samba runs only while its standard input is open. A shell that waits
//!   for the same event then removes the directories.
//! - Without Samba or root the tests are skipped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};

use super::super::service::{Done, eventually, finish};
use crate::harness::programs::have;
use crate::harness::scratch;
use crate::harness::site::Site;
use crate::harness::skip::needs_root;

const PROGRAMS: [&str; 5] = ["samba", "samba-tool", "ldapmodify", "ldapsearch", "openssl"];
pub const BASE: &str = "DC=corp,DC=example,DC=test";
const REALM: &str = "CORP.EXAMPLE.TEST";
/// The DNS domain, which is also the domain of a `userPrincipalName` by default.
pub const DOMAIN: &str = "corp.example.test";
const HOST: &str = "dc1.corp.example.test";
/// The account that the service uses.
pub const ADMINISTRATOR: &str = "Administrator@corp.example.test";
pub const ADMINISTRATOR_PASSWORD: &str = "Adm1n-of-tests";
/// The password of every user that [`Controller::add_user`] creates.
pub const PASSWORD: &str = "Right-1-password";
/// Longest life of Samba, and of its provisioning, in seconds, in case it hangs.
const LIFE_SECONDS_MAX: &str = "1200";
const MAKING_SECONDS_MAX: &str = "300";
/// Samba's services, without files and replication.
const SERVICES: &str = "ldap, dns, kdc, rpc, winbindd";

/// A script that replaces an attribute. Its arguments: database file, entry name, attribute, value.
const STORE: &str = "
import ldb, sys
file, dn, attribute, value = sys.argv[1:]
database = ldb.Ldb(file)
entry = ldb.Message(ldb.Dn(database, dn))
entry[attribute] = ldb.MessageElement(value, ldb.FLAG_MOD_REPLACE, attribute)
database.modify(entry)
";

/// A running domain controller; ended when dropped.
pub struct Controller {
    pub dir: PathBuf,
    pub ip: String,
    services: &'static str,
    /// Samba ends when its standard input is closed.
    running: Option<(Child, ChildStdin)>,
}

impl Controller {
    /// The controller that all tests share. `None`: the test is skipped and must return.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Controller> = OnceLock::new();
        is_possible().then(|| {
            SHARED.get_or_init(|| {
                let mut controller = Self::copied(template(), "shared", 1, SERVICES);
                controller.start();
                controller
            })
        })
    }

    /// A controller for one test, which may stop and start it, at the same address each time. It serves only LDAP.
    pub fn own(number: u8) -> Option<Self> {
        is_possible().then(|| {
            let mut controller = Self::copied(template(), &number.to_string(), 1 + number, "ldap");
            controller.start();
            controller
        })
    }

    fn copied(template: &Path, name: &str, network: u8, services: &'static str) -> Self {
        let dir = template.with_extension(name);
        let _ = fs::remove_dir_all(&dir);
        run(Command::new("cp").args(["-a", "--sparse=always"]).args([template, &dir]));
        let controller = Self { dir, ip: address(network), services, running: None };
        for dir in ["run/ncalrpc", "log"] {
            fs::create_dir_all(controller.dir.join(dir)).expect("it can be made");
        }
        controller.certify(30);
        fs::write(controller.dir.join("smb.conf"), controller.configuration()).expect("it can be written");
        controller
    }

    /// From the next start on, shows a certificate signed by its own authority, valid for this many days.
    pub fn certify(&self, days: i8) {
        let names = format!(
            "subjectAltName=DNS:{HOST},IP:{}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n",
            self.ip
        );
        fs::write(self.dir.join("names"), names).expect("it can be written");
        let days = days.to_string();
        let words =
            "x509 -req -in dc.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out dc.pem -days";
        run(self.openssl(words).arg(days));
    }

    fn openssl(&self, words: &str) -> Command {
        openssl(&self.dir, words)
    }

    fn configuration(&self) -> String {
        let Self { dir, ip, services, .. } = self;
        let dir = dir.display();
        format!(
            "[global]\n netbios name = DC1\n realm = {REALM}\n workgroup = CORP\n\
             server role = active directory domain controller\n server services = {services}\n\
             private dir = {dir}/private\n state directory = {dir}/state\n cache directory = {dir}/cache\n\
             lock directory = {dir}\n binddns dir = {dir}/bind-dns\n pid directory = {dir}/run\n\
             ncalrpc dir = {dir}/run/ncalrpc\n\
             log file = {dir}/log/%m\n interfaces = {ip}/8\n bind interfaces only = yes\n\
             tls certfile = {dir}/dc.pem\n tls keyfile = {dir}/dc.key\n tls cafile = {dir}/ca.pem\n\
             ldap server require strong auth = allow_sasl_over_tls\n old password allowed period = 0\n\
             dns forwarder =\n load printers = no\n disable spoolss = yes\n"
        )
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.join("log/samba")).expect("a log");
        let words = format!(
            "--interactive --model=single --debug-stdout --maximum-runtime={LIFE_SECONDS_MAX} -s smb.conf"
        );
        // Programs that talk to winbind look for it below /run.
        let script = "mount -t tmpfs none /run && mkdir -p /run/samba/winbindd && exec samba \"$@\"";
        let mut samba = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "samba"])
            .args(words.split(' '))
            .current_dir(&self.dir)
            .env_remove("SMB_CONF_PATH")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("Samba can be run");
        let life = samba.stdin.take().expect("it is piped");
        self.running = Some((samba, life));
        eventually("the domain controller answers", || self.answers());
    }

    fn answers(&self) -> bool {
        let search = ["-x", "-s", "base", "-b", "", "-o", "nettimeout=2", "dnsHostName"];
        // The certificate may be one that should be refused.
        let mut command = self.ldap("ldapsearch");
        command.env("LDAPTLS_REQCERT", "never").args(search);
        finish(&mut command, b"").exit_code == 0
    }

    /// Stops it; it can be started again.
    pub fn stop(&mut self) {
        if let Some((mut samba, life)) = self.running.take() {
            drop(life);
            samba.wait().expect("it is our child");
        }
    }

    /// The process in whose /run winbind has its socket.
    pub fn id(&self) -> u32 {
        self.running.as_ref().expect("it runs").0.id()
    }

    /// Winbind starts later than LDAP.
    pub fn wait_for_winbind(&self) {
        eventually("winbind answers", || {
            let mut command = Command::new("nsenter");
            command.args([
                "--mount",
                "--target",
                &self.id().to_string(),
                "wbinfo",
                "--ping-dc",
                "--domain=CORP",
            ]);
            finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()), b"").exit_code == 0
        });
    }

    /// Makes it hang, or continue.
    pub fn freeze(&self, frozen: bool) {
        let (samba, _) = self.running.as_ref().expect("it runs");
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(samba), signal).expect("a child that was not waited for");
    }

    /// One of OpenLDAP's programs, connected to this server.
    fn ldap(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-H", &format!("ldaps://{}", self.ip)]);
        command.env("LDAPTLS_CACERT", self.dir.join("ca.pem")).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Carries out an LDIF (RFC 2849) as the administrator.
    #[track_caller]
    pub fn modify(&self, ldif: &str) {
        let mut command = self.ldap("ldapmodify");
        let done =
            finish(command.args(["-x", "-D", ADMINISTRATOR, "-w", ADMINISTRATOR_PASSWORD]), ldif.as_bytes());
        assert_eq!(done.exit_code, 0, "{ldif}{done:?}");
    }

    /// True if the directory accepts this name and password.
    pub fn lets_in(&self, name: &str, password: &str) -> bool {
        self.bind(name, password).exit_code == 0
    }

    fn bind(&self, name: &str, password: &str) -> Done {
        let mut command = self.ldap("ldapsearch");
        finish(command.args(["-x", "-D", name, "-w", password, "-s", "base", "-b", BASE, "dn"]), b"")
    }

    /// The users that match a filter, as LDIF without folded lines.
    pub fn found(&self, filter: &str) -> String {
        let mut command = self.ldap("ldapsearch");
        command.args(["-x", "-D", ADMINISTRATOR, "-w", ADMINISTRATOR_PASSWORD, "-LLL", "-o", "ldif_wrap=no"]);
        let done = finish(command.args(["-b", BASE, filter]), b"");
        assert_eq!(done.exit_code, 0, "{filter}: {done:?}");
        done.output
    }

    /// Creates a user with the password [`PASSWORD`] and these attributes, given as LDIF lines.
    #[track_caller]
    pub fn add_user(&self, name: &str, principal: &str, attributes: &[&str]) {
        let mut lines = vec![
            format!("dn: CN={name},CN=Users,{BASE}"),
            "changetype: add".to_owned(),
            "objectClass: user".to_owned(),
            format!("sAMAccountName: {name}"),
            format!("userPrincipalName: {principal}"),
            format!("unicodePwd:: {}", encoded(PASSWORD)),
            "userAccountControl: 512".to_owned(),
        ];
        lines.extend(attributes.iter().map(|line| (*line).to_owned()));
        self.modify(&(lines.join("\n") + "\n"));
    }

    /// Removes every user that has an address.
    pub fn remove_users(&self) {
        for dn in self.found("(mail=*)").lines().filter(|line| line.starts_with("dn:")) {
            self.modify(&format!("{dn}\nchangetype: delete\n"));
        }
    }

    /// Replaces an attribute of a user: `attribute: value`.
    #[track_caller]
    pub fn replace(&self, name: &str, line: &str) {
        let attribute = line.split(':').next().expect("a name");
        self.modify(&format!(
            "dn: CN={name},CN=Users,{BASE}\nchangetype: modify\nreplace: {attribute}\n{line}\n"
        ));
    }

    /// Writes a value that the server itself would not accept, directly into its database.
    pub fn set_stored(&self, name: &str, attribute: &str, value: &str) {
        let database = format!("private/sam.ldb.d/{}.ldb", BASE.to_uppercase());
        let dn = format!("CN={name},CN=Users,{BASE}");
        // The Python that runs Samba's own tools.
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", STORE, &database, &dn, attribute, value]).current_dir(&self.dir);
        run(&mut python);
    }

    /// Tells a mail store where the directory is; the authentication method does not change.
    #[track_caller]
    pub fn describe_to(&self, site: &Site) {
        let ca = self.dir.join("ca.pem");
        for (key, value) in [
            ("domainrole", "member"),
            ("adserver", &*self.ip),
            ("adbasedn", BASE),
            ("adbinduser", ADMINISTRATOR),
            ("adbindpassword", ADMINISTRATOR_PASSWORD),
            ("adca", ca.to_str().expect("a path in UTF-8")),
        ] {
            site.winpop(&["set", key, value]);
        }
    }

    /// A mail store whose accounts are in this directory, with this domain.
    #[track_caller]
    pub fn site(&self, domain: &str) -> Site {
        let site = Site::new();
        self.describe_to(&site);
        site.winpop(&["set", "authentication", "1"]);
        site.winpop(&["add", domain]);
        site
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_possible() -> bool {
    needs_root("running a domain controller") && have(&PROGRAMS)
}

/// An address that only this process uses.
fn address(network: u8) -> String {
    let [.., middle, last] = std::process::id().to_be_bytes();
    // Neither the first nor the last address of a network.
    format!("127.{}.{middle}.{}", 70 + network, last.clamp(1, 254))
}

/// A domain as provisioned by Samba, and the authority that signs the controllers' certificates.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let dir = scratch::directory().keep();
        remove_at_the_end(&dir);
        // Ignore this machine's own configuration.
        fs::write(dir.join("none.conf"), "").expect("it can be written");
        let provision = format!(
            "{MAKING_SECONDS_MAX} samba-tool domain provision -s none.conf --targetdir=. --realm={REALM} --domain=CORP \
             --host-name=dc1 --host-ip={} --server-role=dc --dns-backend=SAMBA_INTERNAL --adminpass={ADMINISTRATOR_PASSWORD}",
            address(1)
        );
        let mut command = Command::new("timeout");
        run(command.args(provision.split(' ')).current_dir(&dir).env_remove("SMB_CONF_PATH"));
        let authority = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca.key -out ca.pem \
                         -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -subj";
        run(openssl(&dir, authority).arg("/CN=Authority of the tests"));
        let key = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout dc.key -out dc.csr -subj /CN=dc1";
        run(&mut openssl(&dir, key));
        run(Command::new("chmod").args(["600", "dc.key"]).current_dir(&dir));
        relax_policy(&dir);
        dir
    })
}

/// Has this directory and those of the controllers removed after this process has ended.
fn remove_at_the_end(dir: &Path) {
    static SHELL: OnceLock<Child> = OnceLock::new();
    // Samba takes a moment to end.
    let script = "trap '' INT TERM; read -r _; for _ in 1 2 3; do sleep 2; rm -rf \"$0\" \"$0\".*; done";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    SHELL.get_or_init(|| command.spawn().expect("a shell can be run"));
}

/// Allows changing a password immediately and repeatedly.
fn relax_policy(dir: &Path) {
    let words = "domain passwordsettings set -s etc/smb.conf -H private/sam.ldb --min-pwd-age=0 --max-pwd-age=0 --history-length=0";
    run(Command::new("samba-tool").args(words.split(' ')).current_dir(dir).env_remove("SMB_CONF_PATH"));
}

fn openssl(dir: &Path, words: &str) -> Command {
    let mut command = Command::new("openssl");
    command.args(words.split_whitespace()).current_dir(dir);
    command
}

#[track_caller]
fn run(command: &mut Command) {
    let done = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()), b"");
    assert_eq!(done.exit_code, 0, "{command:?}: {done:?}");
}

/// A password as `unicodePwd` takes it, in Base64 for an LDIF.
fn encoded(password: &str) -> String {
    let octets: Vec<u8> = format!("\"{password}\"").encode_utf16().flat_map(u16::to_le_bytes).collect();
    STANDARD.encode(octets)
}
