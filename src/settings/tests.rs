use super::*;

fn set(settings: &Settings, name: &str, typed: &str) -> Result<Settings, Refused> {
    let words: Vec<String> = typed.split(' ').map(str::to_owned).collect();
    settings.with(find(name).unwrap(), &words)
}

fn sockets(backlog_max_min_threshold: &str) -> Result<Settings, Refused> {
    set(&Settings::default(), "socket", backlog_max_min_threshold)
}

#[test]
fn each_bound_is_accepted_and_one_past_it_is_refused() {
    let table = [
        ("port", &["1", "65535"][..], &["0", "65536", "-1", "pop3"][..]),
        ("tlsport", &["0", "65535"], &["65536"]),
        ("tlscert", &["/etc/ssl/mail.pem", "/cert /key"], &["mail.pem"]),
        ("tlskey", &["/etc/ssl/mail.key"], &["mail.key"]),
        ("smtpport", &["0", "65535"], &["65536"]),
        ("lmtpport", &["0", "65535"], &["65536"]),
        ("logging", &["0", "1", "2", "3"], &["4", "-1", "all"]),
        ("threadcount", &["1", "32"], &["0", "33"]),
        ("socketmax", &["21", "32000"], &["20", "0", "32001"]),
        ("socketmin", &["1", "39"], &["0", "40", "32001"]),
        ("socketbacklog", &["0", "100"], &["101", "-1"]),
        ("socketthreshold", &["1", "39"], &["0", "40", "101"]),
        ("sparequired", &["0", "1"], &["2", "-1"]),
        ("ntlmlevel", &["0", "1", "2"], &["3", "-1"]),
        ("authentication", &["1", "2"], &["0", "3", "passwordfile"]),
        (
            "adserver",
            &["dc1.example.com", "ldap://dc1.example.com ldaps://dc2:1636", ""],
            &["http://dc1", "dc1:0"],
        ),
        ("adbasedn", &["DC=corp,DC=example", ""], &["corp.example"]),
        ("adbinduser", &["CORP\\svc", "svc@corp.example", ""], &["a\nb"]),
        ("adbindpassword", &["c2VhbGVk", ""], &["a b"]),
        ("adca", &["/etc/ssl/ad.pem", ""], &["ad.pem"]),
        ("adntlm", &["/run/pop3svc-ntlm.sock", ""], &["ntlm.sock"]),
        (
            "adopt",
            &["pop3s://old.example.com", "pop3s://a example.org=pop3://{user}@b", ""],
            &["old.example.com", "pop3s://bob@a", "pop3s://a pop3s://b"],
        ),
        ("adoptca", &["/etc/ssl/old.pem", ""], &["old.pem"]),
        ("domainrole", &["standalone", "Member", "DC"], &["pdc", ""]),
        ("maxmessagesize", &["64KB", "1GiB", "65536"], &["65535", "1073741825", "much"]),
        ("quotalimit", &["0", "50MB", "1024 TB"], &["-1", "much", "2000000 TB"]),
        ("expire", &["0", "3650"], &["3651", "-1", "never"]),
        ("undeletesize", &["0", "1GiB"], &["-1", "all"]),
        ("undelete", &["0", "3650"], &["3651", "-1", "never"]),
        ("erase", &["0", "1"], &["2", "yes"]),
        ("logindelay", &["0", "86400", "10m"], &["86401", "-1"]),
        ("connectionsperip", &["0", "32000"], &["32001", "-1"]),
        ("idletimeout", &["10", "86400", "10m", "1d"], &["9", "86401", "never"]),
        ("shutdowngrace", &["0", "3600"], &["3601", "-1"]),
        ("hostname", &["mail.example.com", "localhost"], &["", "a..b", "10.0.0.1"]),
        ("postmaster", &["ann@example.com", ""], &["ann", "a..b@example.com"]),
        ("listen", &["*", "127.0.0.1", "127.0.0.1 ::1"], &["", "eth0"]),
        ("plaintext", &["tls", "ALWAYS", "192.168.7.0/24 10.0.0.0/8"], &["", "never"]),
        ("lmtpfrom", &["none", "192.168.7.0/24"], &["", "*"]),
        ("lmtpsocket", &["/run/winpop/lmtp", ""], &["lmtp", "/a\nb"]),
        ("proxyfrom", &["none", "192.168.7.0/24 10.0.0.0/8", "::1"], &["", "tls"]),
    ];
    for (name, good, bad) in table {
        for typed in good {
            assert!(set(&Settings::default(), name, typed).is_ok(), "{name} {typed}");
        }
        for typed in bad {
            let refused = set(&Settings::default(), name, typed).unwrap_err();
            assert!(!refused.why.ends_with('.') && refused.hint.is_some(), "{name} {typed}: {refused:?}");
        }
    }
    for key in keys().filter(|key| matches!(key.kept_in, KeptIn::Store(_))) {
        assert!(table.iter().any(|(name, ..)| *name == key.name), "{} is in the table", key.name);
    }
}

#[test]
fn the_word_default_brings_every_setting_back() {
    for key in keys().filter(|key| matches!(key.kept_in, KeptIn::Store(_))) {
        let settings = set(&Settings::default(), key.name, "Default").unwrap();
        assert_eq!(settings, Settings::default(), "{}", key.name);
    }
}

#[test]
fn the_socket_settings_are_checked_together() {
    for good in ["10 50 10 10", "0 22 11 10", "100 32000 1 100", "5 10 10 0", "0 3 1 1"] {
        assert!(sockets(good).is_ok(), "{good}");
    }
    for bad in [
        "0 21 11 10",   // max = min + threshold
        "0 50 10 0",    // threshold 0 although max > min
        "5 10 10 1",    // threshold although max = min
        "0 10 11 1",    // max < min
        "101 50 10 10", // one past a bound
        "0 32001 10 10",
        "10 50 10",
        "10 50 10 10 10",
        "10 50 10 ten",
    ] {
        assert!(sockets(bad).is_err(), "{bad}");
    }
    assert_eq!(sockets("1 40 3 4").unwrap().text(find("socket").unwrap()), "1 40 3 4");
}

#[test]
fn the_refusal_of_a_socket_setting_says_the_relation_and_how_to_set_them_together() {
    let refused = set(&Settings::default(), "socketmax", "20").unwrap_err();
    assert!(refused.why.starts_with("socketmax 20 must be greater than socketmin 10 + socketthreshold 10"));
    assert_eq!(refused.hint.unwrap(), "To set them together: winpop set socket BACKLOG MAX MIN THRESHOLD");
}

#[test]
fn two_protocols_cannot_share_a_port_but_may_both_be_off() {
    assert!(set(&Settings::default(), "port", "25").is_err());
    assert!(set(&Settings::default(), "lmtpport", "25").is_err());
    let no_smtp = set(&Settings::default(), "smtpport", "0").unwrap();
    assert!(set(&no_smtp, "lmtpport", "0").is_ok());
    let refused = set(&no_smtp, "lmtpport", "25").unwrap_err();
    assert!(refused.why.contains("RFC 2033"), "{}", refused.why);
    assert!(set(&no_smtp, "port", "25").is_ok());
}

#[test]
fn the_role_numbers_the_methods() {
    let auth = find("AUTH").unwrap();
    for (role, number, others) in
        [("standalone", "2", &["0", "3"][..]), ("member", "3", &["1", "4"]), ("dc", "2", &["1", "3"])]
    {
        let settings = set(&Settings::default(), "domainrole", role).unwrap();
        assert_eq!(settings.text(auth), number, "{role}");
        assert_eq!(settings.meaning(auth).unwrap(), "encrypted password file");
        assert!(set(&settings, "auth", number).is_ok(), "{role}");
        for other in others {
            assert!(set(&settings, "auth", other).is_err(), "{role} {other}");
        }
    }
    let member = set(&Settings::default(), "domainrole", "member").unwrap();
    for (settings, number) in [(&Settings::default(), "1"), (&member, "2")] {
        let chosen = set(settings, "auth", number).unwrap();
        assert_eq!((chosen.authentication, chosen.text(auth)), (Method::LocalAccounts, number.to_owned()));
        // A machine of another role may have no such method, and local accounts have no challenge mechanism.
        for (name, value) in [("domainrole", "dc"), ("sparequired", "1")] {
            assert!(set(&chosen, name, value).is_err(), "{name}");
        }
    }
}

#[test]
fn active_directory_can_be_chosen_once_the_settings_to_reach_it_exist() {
    let mut settings = set(&Settings::default(), "domainrole", "dc").unwrap();
    for (name, value) in
        [("adbasedn", "DC=corp,DC=example"), ("adbinduser", "CORP\\svc"), ("adbindpassword", "c2VhbGVk")]
    {
        let refused = set(&settings, "auth", "1").unwrap_err();
        assert_eq!(refused.why, format!("authentication by Active Directory needs {name}"));
        settings = set(&settings, name, value).unwrap();
    }
    let chosen = set(&settings, "auth", "1").unwrap();
    assert_eq!(chosen.authentication, Method::ActiveDirectory);
    assert_eq!(chosen.text(find("adbindpassword").unwrap()), "sealed");
    for (name, value) in [("domainrole", "standalone"), ("adbasedn", ""), ("sparequired", "1")] {
        assert!(set(&chosen, name, value).is_err(), "{name}");
    }
    assert_eq!(set(&chosen, "auth", "2").unwrap().authentication, Method::PasswordFile);
}

#[test]
fn only_what_differs_from_the_default_is_stored_and_it_reads_back() {
    let default = Settings::default();
    let mut settings = default.clone();
    for (name, typed) in [
        ("port", "1110"),
        ("listen", "127.0.0.1 ::1"),
        ("plaintext", "192.168.7.9/24"),
        ("maxmessagesize", "10MB"),
        ("idletimeout", "20m"),
        ("domainrole", "member"),
        ("logging", "3"),
        ("hostname", "Mail.Example.com"),
    ] {
        settings = set(&settings, name, typed).unwrap();
    }
    let rows = settings.rows_changed_since(&default);
    assert_eq!(rows.len(), 8);
    let texts = rows.iter().map(|(name, text)| (*name, text.as_deref().unwrap()));
    assert_eq!(Settings::from_rows(texts), (settings.clone(), vec![]));

    let back = set(&settings, "port", "110").unwrap();
    assert_eq!(back.rows_changed_since(&settings), [("port", None)]);
}

#[test]
fn rows_that_are_not_understood_leave_the_default_and_are_reported() {
    let (settings, complaints) =
        Settings::from_rows([("port", "70000"), ("colour", "red"), ("mailroot", "/x"), ("logging", "3")]);
    assert_eq!(settings, set(&Settings::default(), "logging", "3").unwrap());
    assert_eq!(complaints.len(), 3, "{complaints:?}");
}

#[test]
fn keys_are_found_in_any_case_and_a_mistyped_one_gets_the_nearest() {
    assert_eq!(find("SocketMax").unwrap().name, "socketmax");
    assert_eq!(find("auth").unwrap().name, "authentication");
    assert_eq!(find("prot").err(), Some(Unknown { nearest: Some("port") }));
    assert_eq!(find("xyzzy").err(), Some(Unknown { nearest: None }));
}

#[test]
fn an_unwise_value_comes_with_a_warning() {
    let advice = |name: &str, typed: &str| {
        set(&Settings::default(), name, typed).unwrap().advice(find(name).unwrap()).is_some()
    };
    assert!(advice("idletimeout", "599") && !advice("idletimeout", "600"));
    assert!(advice("plaintext", "always") && !advice("plaintext", "10.0.0.0/8"));
    assert_eq!(advice("threadcount", "32"), cpus() < 32);
    assert!(!advice("threadcount", "1"));
}

#[test]
fn a_certificate_named_alone_brings_its_own_key() {
    let tlscert = find("tlscert").ok().unwrap();
    let set = |settings: &Settings, typed: &[&str]| {
        let typed: Vec<String> = typed.iter().map(|word| (*word).to_owned()).collect();
        settings.with(tlscert, &typed).ok().unwrap()
    };
    let both = set(&Settings::default(), &["/a/cert.pem", "/a/key.pem"]);
    assert!(both.tlskey.get().is_some());
    assert!(set(&both, &["/b/both.pem"]).tlskey.get().is_none());
    assert_eq!(set(&both, &["default"]), Settings::default());
}
