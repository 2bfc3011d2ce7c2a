//! Behaviour of the reply scanner, checked against `redis-protocol` and random bytes.

use proptest::prelude::*;
use redis_protocol::resp3::decode::complete::decode;

use super::*;

/// Lengths of the frames in `bytes`, fed in pieces of the given sizes (used over and over), and
/// the error that ended it.
fn scan_in_pieces(bytes: &[u8], sizes: &[usize]) -> (Vec<usize>, Option<ReplyError>) {
    let mut scanner = ReplyScanner::new();
    let mut lengths = Vec::new();
    let (mut start, mut end) = (0, 0);
    let mut sizes = sizes.iter().cycle();
    loop {
        match scanner.scan(&bytes[start..end]) {
            Err(error) => return (lengths, Some(error)),
            Ok(Some(len)) => {
                lengths.push(len);
                start += len;
            }
            Ok(None) if end == bytes.len() => return (lengths, None),
            Ok(None) => end = bytes.len().min(end + sizes.next().unwrap()),
        }
    }
}

#[track_caller]
fn check(bytes: &[u8], expected: Result<&[usize], ReplyError>) {
    let whole = scan_in_pieces(bytes, &[usize::MAX / 2]);
    assert_eq!(scan_in_pieces(bytes, &[1]), whole, "depends on the split");
    let shown: String = bytes.escape_ascii().to_string().chars().take(80).collect();
    match expected {
        Ok(lengths) => assert_eq!(whole, (lengths.to_vec(), None), "{shown}"),
        Err(error) => assert_eq!(whole.1, Some(error), "{shown}"),
    }
}

#[test]
fn every_type_is_measured() {
    for frame in [
        "+OK\r\n",
        "+\r\n",
        "-ERR no\r\n",
        ":-12\r\n",
        ",1.5\r\n",
        ",inf\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "_\r\n",
        "#t\r\n",
        "#f\r\n",
        "$5\r\na\r\nbc\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "!5\r\nERR x\r\n",
        "=7\r\ntxt:abc\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*2\r\n*1\r\n:1\r\n$1\r\nx\r\n",
        "~2\r\n:1\r\n:2\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*0\r\n",
        "%0\r\n",
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n",
        "|1\r\n+ttl\r\n:3600\r\n$1\r\na\r\n",
        "|0\r\n|0\r\n+OK\r\n",
        "*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n",
    ] {
        check(frame.as_bytes(), Ok(&[frame.len()]));
        let twice = [frame, frame].concat();
        check(twice.as_bytes(), Ok(&[frame.len(), frame.len()]));
        for cut in 0..frame.len() {
            check(&frame.as_bytes()[..cut], Ok(&[]));
        }
    }
}

#[test]
fn malformed_frames_are_refused() {
    use ReplyError::{
        BulkTooLong, InvalidLength, InvalidScalar, MissingTerminator, Streamed, UnknownType,
    };
    for (bytes, error) in [
        (&b"x"[..], UnknownType(b'x')),
        (b"\r\n", UnknownType(b'\r')),
        (b"*1\r\n;4\r\n", UnknownType(b';')),
        (b"$?\r\n", Streamed),
        (b"*?\r\n", Streamed),
        (b"%?\r\n", Streamed),
        (b"$-2\r\n", InvalidLength),
        (b"*-2\r\n", InvalidLength),
        (b"!-1\r\n", InvalidLength),
        (b"=-1\r\n", InvalidLength),
        (b"~-1\r\n", InvalidLength),
        (b"%-1\r\n", InvalidLength),
        (b">-1\r\n", InvalidLength),
        (b"|-1\r\n", InvalidLength),
        (b"$03\r\n", InvalidLength),
        (b"$+3\r\n", InvalidLength),
        (b"$\r\n", InvalidLength),
        (b"$3\n", InvalidLength),
        (b"*9223372036854775808\r\n", InvalidLength),
        (b"*11111111111111111111111", InvalidLength),
        (b"$1073741825\r\n", BulkTooLong),
        (b"$3\r\nabcde", MissingTerminator),
        (b"_x", InvalidScalar),
        (b"_\rx", InvalidScalar),
        (b"#x", InvalidScalar),
        (b"#tt", InvalidScalar),
    ] {
        check(bytes, Err(error));
    }
    check(b"$1073741824\r\n", Ok(&[]));
}

#[test]
fn counts_are_followed_up_to_i64_max_without_reserving_anything() {
    for header in [
        "*9223372036854775807\r\n",
        "%9223372036854775807\r\n",
        "|9223372036854775807\r\n",
    ] {
        let bytes = [header, ":1\r\n:2\r\n"].concat();
        let mut scanner = ReplyScanner::new();
        assert_eq!(scanner.scan(bytes.as_bytes()), Ok(None));
        assert!(scanner.open.capacity() <= 4);
        assert!(elements(bytes.as_bytes()).is_none());
    }
}

#[test]
fn nesting_is_bounded() {
    for header in ["*1\r\n", "~1\r\n", "%1\r\n:1\r\n", "|0\r\n", ">1\r\n"] {
        let deepest = [header.repeat(MAX_DEPTH).as_str(), ":1\r\n"].concat();
        check(deepest.as_bytes(), Ok(&[deepest.len()]));
        let deeper = header.repeat(MAX_DEPTH + 1);
        check(deeper.as_bytes(), Err(ReplyError::TooDeep));
    }
}

#[test]
fn lines_are_bounded_in_any_split() {
    let line_is_complete = |bytes: &[u8]| {
        let mut scanner = ReplyScanner::new();
        for end in 1..=bytes.len() {
            match scanner.line(&bytes[..end], 4)? {
                Item::Leaf { next } => return Ok(next == bytes.len()),
                Item::Aggregate { .. } | Item::Incomplete => {}
            }
        }
        Ok(false)
    };
    for (line, expected) in [
        (&b"+1234\r\n"[..], Ok(true)),
        (b"+12345\r\n", Err(ReplyError::LineTooLong)),
        (b"+12345", Ok(false)),
        (b"+123456", Err(ReplyError::LineTooLong)),
    ] {
        assert_eq!(line_is_complete(line), expected);
        let whole = ReplyScanner::new()
            .line(line, 4)
            .map(|item| matches!(item, Item::Leaf { .. }));
        assert_eq!(whole, expected);
    }
}

#[test]
fn stray_line_ends_do_not_end_a_line() {
    check(b"+a\rb\nc\r\n", Ok(&[8]));
    check(b"+\n\r\n", Ok(&[4]));
    check(b"+\r\r\n", Ok(&[4]));
}

#[test]
fn wanted_reaches_to_the_end_of_a_string() {
    let mut scanner = ReplyScanner::new();
    let mut buf = b"*2\r\n:1\r\n$1000\r\n".to_vec();
    let total = buf.len() + 1002;
    assert_eq!(scanner.scan(&buf), Ok(None));
    assert_eq!(scanner.wanted(), total);
    buf.resize(total - 2, b'x');
    assert_eq!(scanner.scan(&buf), Ok(None));
    assert_eq!(scanner.wanted(), total);
    buf.extend_from_slice(b"\r\n");
    assert_eq!(scanner.scan(&buf), Ok(Some(total)));
    assert_eq!(scanner.wanted(), 0);
}

/// As in the test of the same name for requests: what must not be looked at again is overwritten.
#[test]
fn no_byte_is_scanned_twice() {
    const SHORT_HEADER_BYTES: usize = 12;
    let line = [&vec![b'+'; 1 << 20][..], b"\r\n"].concat();
    let text = [b"$1048576\r\n", &vec![b'x'; 1 << 20][..], b"\r\n"].concat();
    let list = [b"*60000\r\n", &b"$4\r\nabcd\r\n+OK\r\n".repeat(30_000)[..]].concat();
    for bytes in [line, text, list] {
        let mut scanner = ReplyScanner::new();
        let mut buf = Vec::new();
        let (mut before, mut searched) = (0, 0);
        let mut complete = None;
        for byte in &bytes {
            buf.push(*byte);
            complete = scanner.scan(&buf).unwrap();
            if complete.is_some() {
                break;
            }
            buf[before..scanner.pos].fill(b'\n');
            before = scanner.pos;
            let from = searched.max(scanner.pos + SHORT_HEADER_BYTES);
            let payload = scanner.wanted.saturating_sub(b"\r\n".len());
            // A line feed looks back one byte for its CR.
            let until = buf
                .len()
                .min(payload.max(scanner.searched.saturating_sub(1)));
            if from < until {
                // Line ends: another look would take the line for complete.
                for (index, byte) in (from..until).zip(&mut buf[from..until]) {
                    *byte = if index % 2 == 0 { b'\r' } else { b'\n' };
                }
                searched = until;
            }
        }
        assert_eq!((complete, buf.len()), (Some(bytes.len()), bytes.len()));
    }
}

#[test]
fn kinds_are_told_apart_behind_attributes() {
    for attribute in [
        "",
        "|0\r\n",
        "|1\r\n+a\r\n*1\r\n:1\r\n",
        "|1\r\n+a\r\n+b\r\n|0\r\n",
    ] {
        let with = |frame: &str| [attribute, frame].concat().into_bytes();
        assert!(is_push(&with(">1\r\n+x\r\n")));
        assert!(!is_push(&with("*1\r\n+x\r\n")));
        assert!(is_error(&with("-ERR x\r\n")));
        assert!(is_error(&with("!5\r\nERR x\r\n")));
        assert!(!is_error(&with("+ERR x\r\n")));
        for null in ["_\r\n", "$-1\r\n", "*-1\r\n"] {
            assert!(is_null(&with(null)));
            assert_eq!(text(&with(null)), None);
            assert!(elements(&with(null)).is_none());
        }
        assert!(!is_null(&with("$0\r\n\r\n")));
        assert!(!is_null(&with("*0\r\n")));
        assert_eq!(integer(&with(":-9223372036854775808\r\n")), Some(i64::MIN));
        assert_eq!(integer(&with(":9223372036854775808\r\n")), None);
        assert_eq!(integer(&with("$1\r\n1\r\n")), None);
        assert_eq!(text(&with("+OK\r\n")), Some(&b"OK"[..]));
        assert_eq!(text(&with("-ERR no\r\n")), Some(&b"ERR no"[..]));
        assert_eq!(text(&with("$4\r\na\r\nb\r\n")), Some(&b"a\r\nb"[..]));
        assert_eq!(text(&with("!2\r\nno\r\n")), Some(&b"no"[..]));
        assert_eq!(text(&with("=7\r\ntxt:abc\r\n")), Some(&b"abc"[..]));
        for other in [":1\r\n", ",1.5\r\n", "(1\r\n", "#t\r\n", "*0\r\n"] {
            assert_eq!(text(&with(other)), None);
        }
    }
}

#[test]
fn elements_are_whole_frames() {
    let frames: [&[u8]; 4] = [
        b"*2\r\n:1\r\n:2\r\n",
        b"$1\r\nx\r\n",
        b"|0\r\n+OK\r\n",
        b"%0\r\n",
    ];
    for header in ["*4\r\n", "~4\r\n", ">4\r\n", "%2\r\n", "|0\r\n*4\r\n"] {
        let frame = [header.as_bytes(), &frames.concat()].concat();
        let found = elements(&frame).unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!(found.collect::<Vec<_>>(), frames);
    }
    assert_eq!(elements(b"*0\r\n").unwrap().len(), 0);
    assert!(elements(b"+OK\r\n").is_none());
    // Cut off: what is there, and then the end.
    assert_eq!(elements(b"*3\r\n:123456\r\n:2\r\n:").unwrap().count(), 2);
}

/// A whole frame of RESP3, attributes aside, which the oracle does not take inside of others.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::collection::vec(any::<u8>(), 0..30);
    let leaf = prop_oneof![
        "[a-zA-Z0-9 ]{0,40}".prop_map(|text| format!("+{text}\r\n").into_bytes()),
        "ERR [a-z]{0,40}".prop_map(|text| format!("-{text}\r\n").into_bytes()),
        any::<i64>().prop_map(|value| format!(":{value}\r\n").into_bytes()),
        (-1e9..1e9_f64).prop_map(|value| format!(",{value}\r\n").into_bytes()),
        any::<i128>().prop_map(|value| format!("({value}\r\n").into_bytes()),
        prop::sample::select(vec!["_\r\n", "#t\r\n", "#f\r\n"])
            .prop_map(|text| text.as_bytes().to_vec()),
        text.prop_map(|text| [format!("${}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat()),
        "[a-z]{0,20}".prop_map(|text| format!("!{}\r\n{text}\r\n", text.len()).into_bytes()),
        "[a-z]{0,20}"
            .prop_map(|text| format!("={}\r\ntxt:{text}\r\n", text.len() + 4).into_bytes()),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let marker = prop::sample::select(vec!['*', '%']);
        (marker, prop::collection::vec(inner, 0..5)).prop_map(|(marker, mut frames)| {
            let mut len = frames.len();
            if marker == '%' {
                len /= 2;
                frames.truncate(len * 2);
                // The oracle refuses some types as keys, and merges equal ones.
                for (index, frame) in frames.iter_mut().enumerate().step_by(2) {
                    *frame = format!("+{index}\r\n").into_bytes();
                }
            }
            [format!("{marker}{len}\r\n").as_bytes(), &frames.concat()].concat()
        })
    })
}

/// Visits every frame inside of `frame`; the number of them.
fn walk(frame: &[u8]) -> usize {
    let _ = (
        is_push(frame),
        is_error(frame),
        is_null(frame),
        integer(frame),
        text(frame),
    );
    1 + elements(frame).map_or(0, |inner| inner.map(walk).sum())
}

proptest! {
    #[test]
    fn any_split_measures_the_frames_that_were_sent(
        frames in prop::collection::vec(any_frame(), 1..6),
        sizes in prop::collection::vec(1..50_usize, 1..20),
    ) {
        let bytes = frames.concat();
        let expected = (frames.iter().map(Vec::len).collect::<Vec<_>>(), None);
        prop_assert_eq!(scan_in_pieces(&bytes, &sizes), expected.clone());
        prop_assert_eq!(scan_in_pieces(&bytes, &[1]), expected.clone());
        prop_assert_eq!(scan_in_pieces(&bytes, &[bytes.len()]), expected);
    }

    #[test]
    fn frames_are_as_long_as_redis_protocol_takes_them_for(frame in any_frame(), tail: [u8; 4]) {
        let bytes = [&frame[..], &tail].concat();
        let (_, len) = decode(&bytes).unwrap().expect("a whole frame");
        prop_assert_eq!(ReplyScanner::new().scan(&bytes), Ok(Some(len)));
        walk(&frame);
    }

    #[test]
    fn damaged_frames_end_the_same_in_any_split(
        frames in prop::collection::vec(any_frame(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), damaged_byte()), 1..4),
        sizes in prop::collection::vec(1..50_usize, 1..20),
    ) {
        let mut bytes = frames.concat();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let whole = scan_in_pieces(&bytes, &[bytes.len()]);
        prop_assert_eq!(scan_in_pieces(&bytes, &sizes), whole.clone());
        prop_assert_eq!(scan_in_pieces(&bytes, &[1]), whole.clone());
        if let Some(len) = whole.0.first() {
            walk(&bytes[..*len]);
        }
        walk(&bytes);
    }

    #[test]
    fn random_bytes_end_the_same_in_any_split(
        bytes in prop::collection::vec(damaged_byte(), 0..200),
        sizes in prop::collection::vec(1..50_usize, 1..20),
    ) {
        let whole = scan_in_pieces(&bytes, &[usize::MAX / 2]);
        prop_assert_eq!(scan_in_pieces(&bytes, &sizes), whole);
        walk(&bytes);
    }
}

/// Any byte, those that mean something more often.
fn damaged_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        prop::sample::select(b"*$-:+,(_#!=%~>|0123456789\r\n\r\n?".to_vec())
    ]
}
