//! Sample values for replies, with everything optional filled in.

use crate::admin::reply::{
    AdoptionLine, CertificateLine, Connections, DirectoryLine, DomainLine, Lock, LockedBy, MailboxAccount,
    MailboxLine, Removed, Server, ServiceState,
};

pub fn domain() -> DomainLine {
    DomainLine {
        domain: "xn--bcher-kva.example".into(),
        unicode: Some("bücher.example".into()),
        lock: Lock(Some(LockedBy::Domain)),
        mailboxes: 1,
        messages: 2,
        octets: 3,
    }
}

pub fn mailbox() -> MailboxLine {
    MailboxLine {
        mailbox: "a@b".into(),
        unicode: None,
        lock: Lock(None),
        messages: 1,
        octets: 2,
        last_login_unix_seconds: Some(3),
        quota: None,
        has_password: true,
        is_whole: false,
        account: MailboxAccount::Found("a".into()),
    }
}

pub fn service() -> ServiceState {
    ServiceState { running: true, pid: Some(1), version: Some("1".into()), since_unix_seconds: Some(2) }
}

/// Without the values that only a running service has, unless `is_served`.
pub fn server(is_served: bool) -> Box<Server> {
    let connections = Connections { last_login_failure_seconds_ago: Some(1), ..Connections::default() };
    let certificate =
        CertificateLine { names: vec!["a".into()], fingerprint: "AB".into(), self_signed: true };
    Box::new(Server {
        service: if is_served { service() } else { ServiceState::default() },
        authentication: "a".into(),
        domains: 1,
        mailboxes: 2,
        messages: 3,
        octets: 4,
        deleted: Removed { mailboxes: 1, messages: 2, octets: 3 },
        file_octets: 5,
        allocated_octets: 6,
        copy_good_below_seconds: is_served.then_some(7),
        copy_kept_octets: 8,
        connections: is_served.then_some(connections),
        certificate: is_served.then_some(certificate),
        adoption: is_served.then(AdoptionLine::default),
        directory: is_served.then(|| DirectoryLine {
            method: "a".into(),
            last_contact_unix_seconds: Some(1),
            last_contact: Some("a".into()),
            last_error_unix_seconds: Some(1),
            last_error: Some("a".into()),
        }),
    })
}
