use super::*;

/// Stuffs content that has CRLF line ends, as a sender does (RFC 5321 section 4.5.2).
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            sent.push(b'.');
        }
        sent.extend_from_slice(line);
    }
    sent
}

/// What `Head` should keep of content with CRLF line ends, worked out line by line from the whole.
fn settled(content: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = content.split_inclusive(|&octet| octet == b'\n').collect();
    let name = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).into_owned();
        let (name, _) = line.split_once(':')?;
        let name = name.trim_end_matches([' ', '\t']);
        let is_name = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic());
        is_name.then(|| name.to_ascii_lowercase())
    };
    let is_mbox = |line: &[u8]| line.starts_with(b"From ") || line.starts_with(b">From ");
    let return_paths = |lines: &mut Vec<&[u8]>, from: usize| {
        while from < lines.len() && name(lines[from]).as_deref() == Some("return-path") {
            lines.remove(from);
            while lines.get(from).is_some_and(|line| line.starts_with(b" ") || line.starts_with(b"\t")) {
                lines.remove(from);
            }
        }
    };
    return_paths(&mut lines, 0);
    if lines.len() > 1 && is_mbox(lines[0]) && name(lines[0]).is_none() && name(lines[1]).is_some() {
        lines.remove(0);
        return_paths(&mut lines, 0);
    }
    match lines.first() {
        None | Some(&b"\r\n") => {}
        Some(first) if name(first).is_none() => lines.insert(0, b"\r\n"),
        Some(_) => {
            let mut at = 1;
            while at < lines.len() && lines[at] != b"\r\n" {
                let before = lines.len();
                return_paths(&mut lines, at);
                at += usize::from(before == lines.len());
            }
        }
    }
    lines.concat()
}

/// Pushes `sent` cut at `cuts` into a receiver of DATA; the result and the number of octets used.
fn receive_cut(
    line_ends: LineEnds,
    max: u64,
    sent: &[u8],
    cuts: &[usize],
) -> (Result<Text, Rejection>, usize) {
    let mut receiver = Receiver::data(line_ends, max);
    let mut from = 0;
    for &to in cuts.iter().chain([&sent.len()]) {
        if let Some(used) = receiver.push(&sent[from..to]) {
            return (receiver.finish(), from + used);
        }
        from = to;
    }
    panic!("no end of data in {:?}", String::from_utf8_lossy(sent));
}

fn receive(line_ends: LineEnds, sent: &[u8]) -> Result<Text, Rejection> {
    receive_cut(line_ends, u64::MAX, sent, &[]).0
}

fn content(line_ends: LineEnds, content: &[u8]) -> Result<Text, Rejection> {
    let mut receiver = Receiver::content(line_ends, u64::MAX);
    assert_eq!(receiver.push(content), None);
    receiver.finish()
}

/// Every subset of cut positions in a text of `length` octets.
fn all_cuts(length: usize) -> impl Iterator<Item = Vec<usize>> {
    (0u32..1 << length.saturating_sub(1))
        .map(move |subset| (1..length).filter(|at| subset >> (at - 1) & 1 == 1).collect())
}

fn random_cuts(random: &mut fastrand::Rng, length: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..random.usize(0..20)).map(|_| random.usize(0..=length)).collect();
    cuts.sort_unstable();
    cuts
}

/// Random octets, most of which have a meaning in this module.
fn random_octets(random: &mut fastrand::Rng, length_max: usize) -> Vec<u8> {
    (0..random.usize(0..=length_max)).map(|_| *random.choice(b"\r\n\r\n..ab:").unwrap()).collect()
}

#[test]
fn data_ends_at_crlf_dot_crlf_and_nowhere_else() {
    for (sent, wire) in [
        (&b".\r\n"[..], &b""[..]),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b"..\r\n"),
        (b"...\r\n.\r\n", b"...\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a.\r\n.\r\n", b"a.\r\n"),
        (b"..a\r\n..\r\n.\r\n", b"..a\r\n..\r\n"),
        (b".\x01\r\n.\r\n", b"\x01\r\n"),
    ] {
        let text = receive(LineEnds::Strict, sent).unwrap();
        let wire = stuffed(&settled(&unstuff(wire)));
        assert_eq!(text.wire, wire, "{}", String::from_utf8_lossy(sent));
        assert_eq!(text.octets, unstuff(&wire).len() as u64);
        assert_eq!(text.hash, blake3::hash(&wire));
    }
}

#[test]
fn bare_line_ends_neither_end_strict_data_nor_leave_anything_of_it() {
    for smuggled in [
        &b"a\n.\n"[..],
        b"a\n.\r\n",
        b"a\r\n.\n",
        b"a\r.\r",
        b"a\r.\r\n",
        b"a\r\n.\r",
        b"a\r\n.\r\r\n",
        b"a\r\r\n",
        b"\n",
        b"\r",
        b".\n",
        b".\r",
        b"a\n\r\n",
        b"a\r\n\x01.\n",
    ] {
        let sent = [smuggled, b"RCPT TO:<evil>\r\n.\r\nNOOP\r\n"].concat();
        let (result, used) = receive_cut(LineEnds::Strict, u64::MAX, &sent, &[]);
        assert_eq!(result, Err(Rejection::BareLineEnd), "{}", String::from_utf8_lossy(smuggled));
        assert_eq!(&sent[used..], b"NOOP\r\n");
    }
}

#[test]
fn bare_line_ends_are_made_crlf_and_their_dots_stay_content() {
    for (sent, wire) in [
        (&b"a\nb\r\n.\r\n"[..], &b"a\r\nb\r\n"[..]),
        (b"a\rb\r\n.\r\n", b"a\r\nb\r\n"),
        (b"a\n.\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n"),
        (b"a\n.\r\n.\r\n", b"a\r\n..\r\n"),
        (b"a\r.\rb\r\n.\r\n", b"a\r\n..\r\nb\r\n"),
        (b"a\n..b\r\n.\r\n", b"a\r\n...b\r\n"),
        // The line follows a real CRLF, so its first dot is the sender's stuffing.
        (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
        (b"a\r\n..\nb\r\n.\r\n", b"a\r\n..\r\nb\r\n"),
        (b".\r\r\n.\r\n", b"\r\n\r\n"),
        (b"a\r\r\n.\r\n", b"a\r\n\r\n"),
        (b"\n\n\r\n.\r\n", b"\r\n\r\n\r\n"),
    ] {
        let text = receive(LineEnds::Normalise, sent).unwrap();
        let wire = stuffed(&settled(&unstuff(wire)));
        assert_eq!(
            String::from_utf8_lossy(&text.wire),
            String::from_utf8_lossy(&wire),
            "{}",
            String::from_utf8_lossy(sent)
        );
        assert_eq!(text.octets, unstuff(&wire).len() as u64);
    }
}

#[test]
fn content_gets_its_dots_stuffed_and_its_last_line_ended() {
    for (sent, wire) in [
        (&b""[..], &b""[..]),
        (b"a", b"a\r\n"),
        (b".", b"..\r\n"),
        (b".\r\n", b"..\r\n"),
        (b".\r\n.\r\n", b"..\r\n..\r\n"),
        (b"a\r\n.\r\nQUIT\r\n", b"a\r\n..\r\nQUIT\r\n"),
        (b"a\n.b\n", b"a\r\n..b\r\n"),
        (b"a\r", b"a\r\n"),
        (b"a\r\n", b"a\r\n"),
    ] {
        assert_eq!(
            content(LineEnds::Normalise, sent).unwrap().wire,
            stuffed(&settled(&unstuff(wire))),
            "{}",
            String::from_utf8_lossy(sent)
        );
    }
    for bare in [&b"a\n"[..], b"a\r", b"\r\r\n", b"a\rb\r\n"] {
        assert_eq!(content(LineEnds::Strict, bare), Err(Rejection::BareLineEnd));
    }
}

#[test]
fn nul_is_refused_or_dropped_and_does_not_end_data() {
    for (sent, wire) in [
        (&b"A: a\x00b\r\n.\r\n"[..], &b"A: ab\r\n"[..]),
        (b"\x00A:\r\n.\r\n", b"A:\r\n"),
        (b"A:\r\n\x00\x00.\r\n.\r\n", b"A:\r\n..\r\n"),
        (b"A:\r\n.\x00\r\n.\r\n", b"A:\r\n\r\n"),
        (b"A:\r\n.\x00.\r\n.\r\n", b"A:\r\n..\r\n"),
        (b"A:\r\x00\n.\r\n.\r\n", b"A:\r\n\r\n..\r\n"),
    ] {
        let (text, used) = receive_cut(LineEnds::Normalise, u64::MAX, sent, &[]);
        assert_eq!(text.unwrap().wire, wire, "{}", String::from_utf8_lossy(sent));
        assert_eq!(used, sent.len());
        let (refused, used) = receive_cut(LineEnds::Strict, u64::MAX, sent, &[]);
        assert!(matches!(refused, Err(Rejection::Nul | Rejection::BareLineEnd)), "{refused:?}");
        assert_eq!(used, sent.len());
        for cuts in all_cuts(sent.len()) {
            let text = receive_cut(LineEnds::Normalise, u64::MAX, sent, &cuts).0.unwrap();
            assert_eq!(text.wire, wire, "{sent:?} at {cuts:?}");
        }
    }
    let long = [&b"A: "[..], &[b'x'; 5000], &[0], &[b'y'; 5000], b"\r\n"].concat();
    assert_eq!(content(LineEnds::Strict, &long), Err(Rejection::Nul));
    assert_eq!(content(LineEnds::Normalise, &long).unwrap().octets, 10_005);
}

#[test]
fn a_text_gets_a_header_that_our_fields_can_precede() {
    for (sent, kept) in [
        ("", ""),
        ("\r\n", "\r\n"),
        ("Subject: a\r\n", "Subject: a\r\n"),
        ("X-Obsolete \t: a\r\n", "X-Obsolete \t: a\r\n"),
        ("The backup failed\r\n\r\nsee\r\n", "\r\nThe backup failed\r\n\r\nsee\r\n"),
        (" a: blank\r\n", "\r\n a: blank\r\n"),
        ("\ta\r\n", "\r\n\ta\r\n"),
        (": a\r\n", "\r\n: a\r\n"),
        ("Ü: a\r\n", "\r\nÜ: a\r\n"),
        (".\r\n", "\r\n.\r\n"),
        ("word\r\n", "\r\nword\r\n"),
        ("two words: a\r\n", "\r\ntwo words: a\r\n"),
        // An mbox line is dropped only if a field follows.
        ("From a@b Tue Nov 14\r\nSubject: a\r\n", "Subject: a\r\n"),
        (">From a@b\r\nSubject: a\r\n", "Subject: a\r\n"),
        ("From now on\r\nall is well.\r\n", "\r\nFrom now on\r\nall is well.\r\n"),
        ("From a\r\n\r\nb\r\n", "\r\nFrom a\r\n\r\nb\r\n"),
        ("From a\r\n", "\r\nFrom a\r\n"),
        // An old Return-Path is dropped wherever it is in the header.
        ("Return-Path: <a>\r\n\t<b>\r\nA: 1\r\nreturn-path :<c>\r\nB: 2\r\n", "A: 1\r\nB: 2\r\n"),
        ("From a\r\nReturn-Path: <a>\r\n b\r\nA: 1\r\n", "A: 1\r\n"),
        ("Return-Path: <a>\r\ntext\r\n", "\r\ntext\r\n"),
        ("Return-Path: <a>\r\n", ""),
        ("Return-Paths: <a>\r\n", "Return-Paths: <a>\r\n"),
        ("A: 1\r\n\r\nReturn-Path: <a>\r\n", "A: 1\r\n\r\nReturn-Path: <a>\r\n"),
        ("A: 1\r\njunk\r\nReturn-Path: <a>\r\n", "A: 1\r\njunk\r\n"),
    ] {
        assert_eq!(String::from_utf8_lossy(&settled(sent.as_bytes())), kept, "{sent:?}, by the model");
        let text = content(LineEnds::Strict, sent.as_bytes()).unwrap();
        assert_eq!(String::from_utf8_lossy(&unstuff(&text.wire)), kept, "{sent:?}");
        assert_eq!(text.octets, kept.len() as u64, "{sent:?}");
        assert_eq!(content(LineEnds::Strict, kept.as_bytes()).unwrap(), text, "{sent:?}, a second time");
    }
    let long = [&[b'x'; 5000][..], b": a\r\n"].concat();
    assert!(content(LineEnds::Strict, &long).unwrap().wire.starts_with(b"\r\nxx"));
    // Line ends that we add do not count against the limit, which the sender respected.
    let mut exact = Receiver::content(LineEnds::Strict, 6);
    exact.push(b"text\r\n");
    assert_eq!(exact.finish().unwrap().octets, 8);
}

#[test]
fn random_heads_are_kept_as_the_model_says_in_any_cut() {
    let mut random = fastrand::Rng::with_seed(5322);
    let pieces =
        ["Return-Path", "From ", ">From ", "A", ":", " ", "\t", "\r\n", "\r\n", ".", "x", "Ü", "word"];
    for _ in 0..30_000 {
        let lines: String = (0..random.usize(0..14)).map(|_| *random.choice(&pieces).unwrap()).collect();
        let sent = format!("{lines}\r\n");
        let mut receiver = Receiver::content(LineEnds::Strict, u64::MAX);
        let mut from = 0;
        for to in random_cuts(&mut random, sent.len()).into_iter().chain([sent.len()]) {
            receiver.push(&sent.as_bytes()[from..to]);
            from = to;
        }
        let text = receiver.finish().unwrap();
        let kept = settled(sent.as_bytes());
        assert_eq!(String::from_utf8_lossy(&unstuff(&text.wire)), String::from_utf8_lossy(&kept), "{sent:?}");
        assert_eq!(text.octets, kept.len() as u64);
    }
}

#[test]
fn the_limit_counts_content_and_an_oversized_message_is_read_to_its_end() {
    let sent = b"..:3\r\n78\r\n.\r\nNOOP\r\n";
    assert_eq!(receive_cut(LineEnds::Strict, 9, sent, &[]).0.unwrap().octets, 9);
    assert_eq!(receive_cut(LineEnds::Strict, 8, sent, &[]), (Err(Rejection::TooLarge), sent.len() - 6));
}

#[test]
fn the_trace_is_read_only_from_the_header() {
    let text = content(
        LineEnds::Strict,
        b"Received: one\r\n\tfolded: on\r\nDELIVERED-TO: a@example.com\r\nreceived : two\r\n\
          Delivered-To:\r\n b@example.com \r\nX-Received: no\r\n .\r\n\r\nReceived: body\r\nDelivered-To: c@d\r\n",
    )
    .unwrap();
    assert_eq!(text.received_fields, 2);
    assert_eq!(text.delivered_to, ["a@example.com", "b@example.com"]);
}

#[test]
fn the_trace_read_is_bounded() {
    let long = format!("Delivered-To: {}\r\n", "x".repeat(1000));
    let header = long + &"Delivered-To: a@example.com\r\n".repeat(1000);
    assert_eq!(content(LineEnds::Strict, header.as_bytes()).unwrap().delivered_to.len(), 100);
}

#[test]
fn any_cut_of_a_short_message_gives_the_same_text() {
    for sent in
        [&b"..a\r\n.b\r\n.\r\nX"[..], b"a\n.\n.\r\n.\r\nX", b".\r\r\n..\r\n.\r\nX", b"\r.\r\n\r\n.\r\n.\r\n"]
    {
        for line_ends in [LineEnds::Strict, LineEnds::Normalise] {
            for max in [u64::MAX, 3, 0] {
                let whole = receive_cut(line_ends, max, sent, &[]);
                for cuts in all_cuts(sent.len()) {
                    assert_eq!(receive_cut(line_ends, max, sent, &cuts), whole, "{sent:?} at {cuts:?}");
                }
            }
        }
    }
}

#[test]
fn any_cut_of_random_octets_gives_the_same_text() {
    let mut random = fastrand::Rng::with_seed(5321);
    for _ in 0..5_000 {
        let sent = [random_octets(&mut random, 300), b"\r\n.\r\n".to_vec()].concat();
        let line_ends = if random.bool() { LineEnds::Strict } else { LineEnds::Normalise };
        let max = if random.bool() { u64::MAX } else { random.u64(0..200) };
        let cuts = random_cuts(&mut random, sent.len());
        let whole = receive_cut(line_ends, max, &sent, &[]);
        assert_eq!(receive_cut(line_ends, max, &sent, &cuts), whole, "{sent:?} at {cuts:?}");
    }
}

#[test]
fn special_octets_are_found_anywhere_in_a_long_text() {
    let text = b"an ordinary line of a long message, one of many.\r\n".repeat(24);
    for unusual in [&b"\n"[..], b"\r", b"\n.", b"\r\n.", b"\r\n..", b"\r\r\n", b"\r\n.\n", b"\r\n.\r\n"] {
        for at in 480..1100 {
            let sent = [&text[..at], unusual, &text[at..], b"\r\n.\r\n"].concat();
            let cuts: Vec<usize> = (1..sent.len() / 100).map(|n| n * 100).collect();
            for line_ends in [LineEnds::Strict, LineEnds::Normalise] {
                let whole = receive_cut(line_ends, u64::MAX, &sent, &[]);
                assert_eq!(receive_cut(line_ends, u64::MAX, &sent, &cuts), whole, "{unusual:?} at {at}");
                let (expected, used) = receive_slowly(line_ends, &sent);
                assert_eq!((whole.0.map(|text| text.wire), whole.1), (expected, used), "{unusual:?} at {at}");
            }
        }
    }
}

/// The rules of `Receiver::data` as a slow model: one octet at a time, on the whole input.
fn receive_slowly(line_ends: LineEnds, sent: &[u8]) -> (Result<Vec<u8>, Rejection>, usize) {
    let end = match sent.starts_with(b".\r\n") {
        true => 0,
        false => sent.windows(5).position(|octets| octets == b"\r\n.\r\n").unwrap() + 2,
    };
    let (mut content, mut at, mut bare, mut line_start) = (Vec::new(), 0, false, true);
    while at < end {
        if line_start && sent[at] == b'.' {
            at += 1;
        }
        line_start = sent[at..end].starts_with(b"\r\n");
        if line_start {
            content.extend_from_slice(b"\r\n");
            at += 2;
        } else if at < end && matches!(sent[at], b'\r' | b'\n') {
            bare = true;
            content.extend_from_slice(b"\r\n");
            at += 1;
        } else if at < end {
            content.push(sent[at]);
            at += 1;
        }
    }
    let refused = bare && line_ends == LineEnds::Strict;
    (if refused { Err(Rejection::BareLineEnd) } else { Ok(stuffed(&settled(&content))) }, end + 3)
}

#[test]
fn the_receiver_does_what_the_rules_say_for_random_octets() {
    let mut random = fastrand::Rng::with_seed(2033);
    for _ in 0..50_000 {
        let sent = [random_octets(&mut random, 40), b"\r\n.\r\n".to_vec()].concat();
        for line_ends in [LineEnds::Strict, LineEnds::Normalise] {
            let (result, used) = receive_cut(line_ends, u64::MAX, &sent, &[]);
            let expected = receive_slowly(line_ends, &sent);
            assert_eq!(
                (result.map(|text| text.wire), used),
                expected,
                "{:?}",
                String::from_utf8_lossy(&sent)
            );
        }
    }
}

#[test]
fn content_survives_stuffing_receiving_and_unstuffing() {
    let mut random = fastrand::Rng::with_seed(1939);
    for _ in 0..2_000 {
        let lines: Vec<u8> = random_octets(&mut random, 400)
            .split(|&octet| octet == b'\n')
            .flat_map(|line| line.iter().copied().filter(|&octet| octet != b'\r').chain(*b"\r\n"))
            .collect();
        let sent = [&stuffed(&lines)[..], b".\r\n"].concat();
        let cuts = random_cuts(&mut random, sent.len());
        let text = receive_cut(LineEnds::Strict, u64::MAX, &sent, &cuts).0.unwrap();
        let kept = settled(&lines);
        assert_eq!(unstuff(&text.wire), kept);
        assert_eq!(text.octets, kept.len() as u64);
        assert_eq!(text.hash, blake3::hash(&text.wire));
        assert_eq!(content(LineEnds::Strict, &lines).unwrap(), text);
    }
}

#[test]
fn a_long_message_is_hashed_as_stored() {
    let lines = [&b"A: field\r\n\r\n"[..], &b".line of a long message\r\n".repeat(20_000)].concat();
    let sent = [&stuffed(&lines)[..], b".\r\n"].concat();
    let cuts: Vec<usize> = (1..sent.len() / 9999).map(|n| n * 9999).collect();
    let text = receive_cut(LineEnds::Strict, u64::MAX, &sent, &cuts).0.unwrap();
    assert_eq!(text.hash, blake3::hash(&text.wire));
    assert_eq!(text.octets, lines.len() as u64);
}

#[test]
fn top_is_the_header_the_empty_line_and_some_lines() {
    let wire = b"A: 1\r\nB: 2\r\n\r\n..one\r\ntwo\r\n";
    for (lines, part) in
        [(0, &wire[..14]), (1, &wire[..21]), (2, &wire[..]), (3, &wire[..]), (u64::MAX, &wire[..])]
    {
        assert_eq!(&wire[..top_end(wire, lines)], part, "{lines}");
    }
    for all_header in [&b""[..], b"A: 1\r\n", b"A: 1\r\nB: 2\r\n"] {
        assert_eq!(top_end(all_header, 0), all_header.len());
    }
    assert_eq!(top_end(b"\r\nbody\r\n", 0), 2);
    assert_eq!(top_end(b"\r\n\r\nbody\r\n", 1), 4);
}

/// The lines a reader gets from `sent`, cut at `cuts`.
fn read_lines(sent: &[u8], octets_max: usize, cuts: &[usize]) -> Vec<String> {
    let (mut lines, mut seen, mut from) = (Lines::new(), Vec::new(), 0);
    for &to in cuts.iter().chain([&sent.len()]) {
        lines.push(&sent[from..to]);
        from = to;
        while let Some(line) = lines.next(octets_max) {
            seen.push(format!("{line:?}"));
        }
        assert!(lines.rest().len() < octets_max, "what is kept is bounded");
    }
    seen.push(format!("{:?}", lines.rest()));
    seen
}

#[test]
fn a_line_that_is_too_long_is_reported_once_and_skipped() {
    let mut lines = Lines::new();
    lines.push(b"12345678\r\n123456789\r\nQUIT\r\n\nA\n");
    assert_eq!(lines.next(10), Some(Line::Whole(b"12345678")));
    assert_eq!(lines.next(10), Some(Line::TooLong));
    assert_eq!(lines.next(10), Some(Line::Whole(b"QUIT")));
    assert_eq!(lines.next(10), Some(Line::BareLf(b"")));
    assert_eq!(lines.next(10), Some(Line::BareLf(b"A")));
    assert_eq!(lines.next(10), None);
}

#[test]
fn any_cut_gives_the_same_lines() {
    for sent in [&b"ab\r\n\n123456\r\nc\r\n"[..], b"\r\r\n12345\n1234\nx", b"1234567890\n\r\n"] {
        let whole = read_lines(sent, 5, &[]);
        for cuts in all_cuts(sent.len()) {
            assert_eq!(read_lines(sent, 5, &cuts), whole, "{sent:?} at {cuts:?}");
        }
    }
    let mut random = fastrand::Rng::with_seed(821);
    for _ in 0..5_000 {
        let sent = random_octets(&mut random, 200);
        let cuts = random_cuts(&mut random, sent.len());
        assert_eq!(read_lines(&sent, 6, &cuts), read_lines(&sent, 6, &[]), "{sent:?} at {cuts:?}");
    }
}

#[test]
fn what_follows_a_line_is_there_for_another_reader_or_forgotten() {
    let mut lines = Lines::new();
    lines.push(b"DATA\r\ntext\r\n.\r\nQUIT\r\n");
    assert_eq!(lines.next(10), Some(Line::Whole(b"DATA")));
    let mut receiver = Receiver::data(LineEnds::Strict, 100);
    let used = receiver.push(lines.rest()).unwrap();
    lines.consume(used);
    assert_eq!(lines.rest(), b"QUIT\r\n");
    lines.clear();
    assert_eq!(lines.next(10), None);
}

#[test]
fn parts_taken_early_and_the_rest_make_the_message() {
    let header = b"Received: a\r\n b\r\nDelivered-To: ann@example.com\r\nX: y\r\nReceived: c\r\n\r\nReceived: body\r\n";
    let random = &mut fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let sent = [&header[..], &stuffed(&random_octets(random, 300)), b"\r\n.\r\n"].concat();
        let expected = receive(LineEnds::Normalise, &sent).unwrap();
        assert_eq!(expected.received_fields, 2);
        assert_eq!(expected.delivered_to, ["ann@example.com"]);
        let mut receiver = Receiver::data(LineEnds::Normalise, u64::MAX);
        let mut taken = Vec::new();
        let mut from = 0;
        for to in random_cuts(random, sent.len()).into_iter().chain([sent.len()]) {
            if receiver.push(&sent[from..to]).is_some() {
                break;
            }
            from = to;
            taken.extend(receiver.take_held());
            assert_eq!((receiver.held_octets(), receiver.taken_octets()), (0, taken.len() as u64));
        }
        let text = receiver.finish().unwrap();
        assert_eq!(text.with_wire(|rest| [taken, rest].concat()), expected);
    }
}

#[test]
fn a_message_that_the_driver_cannot_keep_is_read_to_its_end() {
    let mut receiver = Receiver::data(LineEnds::Strict, u64::MAX);
    receiver.push(b"a\r\n");
    receiver.take_held();
    receiver.give_up(Rejection::DiskFull);
    assert_eq!(receiver.push(b"b\n\r\n.\r\nNOOP\r\n"), Some(7));
    assert_eq!(receiver.finish(), Err(Rejection::DiskFull));
}

#[test]
fn the_ids_that_other_servers_log_are_read_from_the_header() {
    let origin = |header: &str| {
        content(LineEnds::Normalise, format!("{header}\nSubject: x\n\ny\n").as_bytes()).unwrap().origin
    };
    let named = |message_id: Option<&str>, queue_id: Option<&str>| Origin {
        message_id: message_id.map(str::to_owned),
        queue_id: queue_id.map(str::to_owned),
    };
    let postfix = "Received: from a (id 1 of (id 2) it)\n by b (Postfix) with ESMTP id 4XyZ;\n Mon, id 3";
    assert_eq!(origin(postfix), named(None, Some("4XyZ")));
    assert_eq!(origin(&format!("{postfix}\nReceived: by c id 9; x")), named(None, Some("4XyZ")));
    assert_eq!(origin("Received: by c with SMTP; x\nReceived: by d id 9; x"), named(None, None));
    assert_eq!(origin("Received: by c id <9@c>; x"), named(None, Some("9@c")));
    assert_eq!(origin("message-id :\n <1@a>\nMessage-ID: <2@a>"), named(Some("<1@a>"), None));
    assert_eq!(origin(&format!("Message-ID: <{}@a>", "1".repeat(400))), named(None, None));
    assert_eq!(origin("Received: id"), named(None, None));
}

#[test]
fn a_delivered_to_field_of_any_length_takes_bounded_memory() {
    let long = "x".repeat(2000);
    let sent = format!("Delivered-To: {long}\r\nDelivered-To:\r\n{}\tbob@example.com\r\n", " ".repeat(500));
    let text = content(LineEnds::Strict, sent.as_bytes()).unwrap();
    assert_eq!(text.delivered_to, ["bob@example.com"]);
}

#[test]
fn content_is_counted_as_it_is_unstuffed_however_it_is_cut() {
    let mut rng = fastrand::Rng::with_seed(9);
    for _ in 0..500 {
        let wire: Vec<u8> =
            (0..rng.usize(..40)).map(|_| [b'.', b'\n', b'\r', b'x'][rng.usize(..4)]).collect();
        let mut count = ContentCount::default();
        let cut = rng.usize(..=wire.len());
        count.push(&wire[..cut]);
        count.push(&wire[cut..]);
        assert_eq!(count.octets(), unstuff(&wire).len() as u64, "{wire:?} cut at {cut}");
    }
}
