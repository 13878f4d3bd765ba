use super::*;

/// Passwords and their hashes.
fn vectors() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../../../testdata/auth/crypt.txt").lines();
    lines.filter(|line| !line.starts_with('#')).map(|line| line.split_once('\t').expect("a tab"))
}

#[test]
fn hashes_of_every_kind_match_only_their_password() {
    let mut kinds = Vec::new();
    for (password, hash) in vectors() {
        assert_eq!(verify(password.as_bytes(), hash), Ok(true), "{password}: {hash}");
        for wrong in [format!("{password}x"), password[..password.len() - 1].to_owned(), String::new()] {
            // bcrypt reads only 72 octets.
            let is_alike = hash.starts_with("$2") && wrong.len().min(password.len()) >= 72;
            assert_eq!(verify(wrong.as_bytes(), hash), Ok(is_alike), "{wrong}: {hash}");
        }
        kinds.push(hash.split('$').nth(1).expect("a kind"));
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["1", "2a", "2b", "2y", "5", "6", "y"]);
}

#[test]
fn a_password_with_a_nul_in_it_is_wrong() {
    for (password, hash) in vectors() {
        assert_eq!(verify(format!("{password}\0x").as_bytes(), hash), Ok(false), "{hash}");
        assert_eq!(verify(b"\0", hash), Ok(false), "{hash}");
    }
}

#[test]
fn a_truncated_hash_matches_nothing() {
    for (password, hash) in vectors() {
        for octets in 0..hash.len() {
            let outcome = verify(password.as_bytes(), &hash[..octets]);
            assert!(!matches!(outcome, Ok(true)), "{}", &hash[..octets]);
        }
    }
}

#[test]
fn a_hash_that_would_keep_the_processor_busy_is_not_computed() {
    for costly in [
        "$6$rounds=999999999$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl",
        "$5$rounds=1000001$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY",
        "$2b$31$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
        // 1 GiB, and an impossible number of threads: eleven.
        "$y$jFT$abcdefgh$IUWJt2doU4Kf6E/JP1UkAT3S5O3Q7SSA8SJirXIlEu9",
        "$y$jD5.7$LdJMENpBABJJ3hIHjB1Bi.$HboGM6qPrsK.StKYGt6KErmUYtioHreJd98oIugoNB6",
    ] {
        assert_eq!(verify(b"secret", costly), Err(Unusable::TooCostly), "{costly}");
    }
}

#[test]
fn unknown_hashes_are_told_apart_from_broken_ones() {
    for unknown in
        ["", "x", "abJnggxhB/yWI", "$7$CU..../....2Q$", "$gy$j9T$a$b", "$md5$x$y", "x$6$a$b", "$6$a"]
    {
        assert_eq!(verify(b"secret", unknown), Err(Unusable::Unknown), "{unknown}");
    }
    for malformed in ["$6$rounds=x$a$b", "$6$rounds=5000$a", "$y$$a$b", "$y$j9T$a$b", "$2b$x$b", "$6$a$b$c"] {
        assert_eq!(verify(b"secret", malformed), Err(Unusable::Malformed), "{malformed}");
    }
}
