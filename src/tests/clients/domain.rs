//! The README's chapter on Active Directory, typed by root in a domain whose controller is the machine itself.

use super::readme::{Block, blocks};
use super::unit::{installed, type_as_root};
use crate::harness::programs::have;

const NEEDED: [&str; 6] = ["samba", "samba-tool", "wbinfo", "ntlm_auth", "openssl", "curl"];
/// The password of the account that the README names, and that of bob.
const OF_SERVICE: &str = "Serv1ce-of-tests";
const OF_BOB: &str = "Right-1-password";
/// curl's exit code for a denied login (CURLE_LOGIN_DENIED).
const LOGIN_DENIED: i32 = 67;

/// Makes the machine the controller that the README names, with its authority's certificate and the service's account.
const PROVISION: &str = "
    rm -rf /etc/samba/smb.conf /var/lib/samba/private
    hostname dc1
    echo '127.0.0.1 dc1.corp.example.com dc1' >>/etc/hosts
    samba-tool domain provision --realm=CORP.EXAMPLE.COM --domain=CORP --host-name=dc1 --host-ip=127.0.0.1 \
        --server-role=dc --dns-backend=SAMBA_INTERNAL --adminpass=Adm1n-of-tests \
        --option='interfaces=127.0.0.1/8' --option='bind interfaces only=yes'
    cd /etc/ssl
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=Authority -keyout corp-ca.key \
        -out corp-ca.pem -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=dc1 -keyout dc.key -out dc.csr
    printf 'subjectAltName=DNS:dc1.corp.example.com\\nbasicConstraints=CA:FALSE\\n' >names
    openssl x509 -req -in dc.csr -CA corp-ca.pem -CAkey corp-ca.key -CAcreateserial -extfile names -out dc.pem -days 30
    chmod 600 dc.key
    sed -i '/^\\[global\\]/a tls certfile = /etc/ssl/dc.pem\\n tls keyfile = /etc/ssl/dc.key\\n \
        tls cafile = /etc/ssl/corp-ca.pem\\n server services = ldap, dns, kdc, rpc, winbindd' /etc/samba/smb.conf
    samba-tool user create mail Serv1ce-of-tests
    samba-tool group addmembers 'Domain Admins' mail
    systemctl start samba-ad-dc
    until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 636))'; do sleep 0.1; done
    until wbinfo --ping-dc; do sleep 0.1; done";

#[test]
fn the_chapter_on_active_directory_and_its_units_for_spa_hold_in_a_domain() {
    if !have(&NEEDED) {
        return;
    }
    let Some(machine) = installed() else { return };
    machine.run_slow(PROVISION);
    machine.run(&format!("winpop add bob@example.com /createuser:{OF_BOB}"));
    let blocks = blocks();
    let block = |words: &str| {
        let mut with: Vec<&Block> = blocks.iter().filter(|block| block.text.contains(words)).collect();
        let block = with.pop().unwrap_or_else(|| panic!("no {words} in README.md"));
        assert!(with.is_empty(), "{words} is in one block");
        &block.text
    };
    // Whoever types it is asked for the password.
    let typed = block("winpop set adbinduser")
        .replace("winpop set adbindpassword -", &format!("echo {OF_SERVICE} | winpop set adbindpassword -"));
    type_as_root(&machine, &typed);
    assert_eq!(machine.run("winpop get authentication"), "1 (Active Directory)\n");
    let log_in = |options: &str, user: &str, password: &str| {
        let curl = "curl --silent --show-error --max-time 50";
        machine
            .outcome(&format!("{curl} {options} --user '{user}:{password}' pop3://127.0.0.1/"))
            .status
            .code()
    };
    for user in ["bob@example.com", "bob", "CORP\\bob"] {
        assert_eq!(log_in("", user, OF_BOB), Some(0), "{user}");
        assert_eq!(log_in("", user, "wrong"), Some(LOGIN_DENIED), "{user}");
    }
    let stat = machine.run("winpop stat");
    assert!(stat.contains("Active Directory, last answered by dc1.corp.example.com at 2"), "{stat}");

    const NTLM: &str = "--login-options AUTH=NTLM";
    assert_ne!(log_in(NTLM, "CORP\\bob", OF_BOB), Some(0), "nobody could check it yet");
    machine.write("/etc/systemd/system/pop3svc-ntlm.socket", block("ListenStream=/run/pop3svc-ntlm.sock"));
    machine.write("/etc/systemd/system/pop3svc-ntlm@.service", block("ExecStart=/usr/bin/ntlm_auth"));
    type_as_root(&machine, block("winpop set adntlm"));
    for user in ["CORP\\bob", "bob", "bob@example.com"] {
        assert_eq!(log_in(NTLM, user, OF_BOB), Some(0), "{user}");
        assert_eq!(log_in(NTLM, user, "wrong"), Some(LOGIN_DENIED), "{user}");
    }
    let log = machine.run("journalctl --sync; journalctl --output=cat --unit=pop3svc");
    assert!(!log.contains("NTLM is not offered"), "{log}");
}
