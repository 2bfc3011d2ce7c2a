//! Behaviour of the request scanner, checked against Redis, `redis-protocol` and random bytes.

use proptest::prelude::*;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;

use super::*;

/// What a stream of bytes was taken for: arguments of each request, then the error that ended it.
type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// Feeds `bytes` in pieces of the given sizes (used over and over).
fn scan_in_pieces(bytes: &[u8], sizes: &[usize], limits: &Limits) -> Outcome {
    let mut scanner = RequestScanner::new();
    let mut requests = Vec::new();
    let (mut start, mut end) = (0, 0);
    let mut sizes = sizes.iter().cycle();
    loop {
        match scanner.scan(&bytes[start..end], limits) {
            Err(error) => return (requests, Some(error)),
            Ok(Some(len)) => {
                let request = scanner.request(&bytes[start..end]);
                requests.push(request.args().map(<[u8]>::to_vec).collect());
                if !request.is_empty() {
                    assert_eq!(
                        redis_protocol_args(request.wire()),
                        requests[requests.len() - 1]
                    );
                }
                start += len;
            }
            Ok(None) if end == bytes.len() => return (requests, None),
            Ok(None) => end = bytes.len().min(end + sizes.next().unwrap()),
        }
    }
}

/// The oracle's reading of one array of bulk strings, which must fill `wire`.
fn redis_protocol_args(wire: &[u8]) -> Vec<Vec<u8>> {
    let (frame, len) = decode(wire).unwrap().expect("a whole frame");
    assert_eq!(len, wire.len());
    let OwnedFrame::Array(args) = frame else {
        panic!("not an array: {frame:?}");
    };
    let bytes = |arg| match arg {
        OwnedFrame::BulkString(bytes) => bytes,
        other => panic!("not a bulk string: {other:?}"),
    };
    args.into_iter().map(bytes).collect()
}

/// Scans `bytes` whole and byte by byte, and expects the last result of both to be the same.
#[track_caller]
fn check(bytes: &[u8], limits: &Limits, expected: Result<&[&[&[u8]]], &str>) {
    let (whole, error) = scan_in_pieces(bytes, &[usize::MAX / 2], limits);
    let single = scan_in_pieces(bytes, &[1], limits);
    assert_eq!(
        (&whole, error),
        (&single.0, single.1),
        "depends on the split"
    );
    let shown: String = bytes.escape_ascii().to_string().chars().take(80).collect();
    match expected {
        Ok(requests) => {
            assert_eq!(error, None, "{shown}");
            assert_eq!(whole, requests, "{shown}");
        }
        Err(text) => assert_eq!(
            error.map(|error| error.to_string()).as_deref(),
            Some(text),
            "{shown}"
        ),
    }
}

const INCOMPLETE: Result<&[&[&[u8]]], &str> = Ok(&[]);
const INVALID_COUNT: Result<&[&[&[u8]]], &str> = Err("Protocol error: invalid multibulk length");
const INVALID_LENGTH: Result<&[&[&[u8]]], &str> = Err("Protocol error: invalid bulk length");
const PING: &[&[u8]] = &[b"PING"];

/// `prefix` and then `byte` until the whole is `len` bytes long behind the prefix.
fn padded(prefix: &[u8], byte: u8, len: usize) -> Vec<u8> {
    let mut bytes = prefix.to_vec();
    bytes.resize(prefix.len() + len, byte);
    bytes
}

// The cases up to the next rule were sent to Redis 7.0.15 over a raw socket; it gives the same
// answers, except where a comment says otherwise.

#[test]
fn malformed_counts_are_refused_as_redis_refuses_them() {
    let limits = Limits::default();
    for bytes in [
        &b"*abc\r\n"[..],
        b"*\r\n",
        b"*-0\r\n",
        b"*00\r\n",
        b"*01\r\n",
        b"*+1\r\n",
        b"* 1\r\n",
        b"*2147483648\r\n",
        b"*-9223372036854775809\r\n",
        // Redis 7.0 goes on.
        b"*1048577\r\n",
        b"*2147483647\r\n",
        // Redis skips whatever follows a CR.
        b"*1\rX$4\r\nPING\r\n",
        // Redis finds no CR behind a NUL.
        b"*1\0\r\n",
    ] {
        check(bytes, &limits, INVALID_COUNT);
    }
    check(b"*1048576\r\n", &limits, INCOMPLETE);
}

#[test]
fn malformed_lengths_are_refused_as_redis_refuses_them() {
    let limits = Limits::default();
    for bytes in [
        &b"*1\r\n$-1\r\n"[..],
        b"*1\r\n$+3\r\n",
        b"*1\r\n$03\r\nabc\r\n",
        b"*1\r\n$\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$9223372036854775808\r\n",
        // Redis skips whatever follows a CR.
        b"*1\r\n$4\rXPING\r\n",
    ] {
        check(bytes, &limits, INVALID_LENGTH);
    }
    check(b"*1\r\n$536870912\r\n", &limits, INCOMPLETE);
}

#[test]
fn only_bulk_strings_are_arguments() {
    let limits = Limits::default();
    for (bytes, shown) in [
        (&b"*1\r\n:5\r\n"[..], ':'),
        (b"*1\r\n*1\r\n$1\r\na\r\n", '*'),
        (b"*2\r\n$1\r\na\r\n+OK\r\n", '+'),
        (b"*1\r\n\r\n", ' '),
        (b"*1\r\n\n\r\n", ' '),
        (b"*1\r\n\x01\r\n", '\x01'),
        (b"*1\r\nx\rx", 'x'),
    ] {
        let text = format!("Protocol error: expected '$', got '{shown}'");
        check(bytes, &limits, Err(&text));
    }
    // Redis does not look before the line is complete, either.
    check(b"*1\r\nx", &limits, INCOMPLETE);
    check(b"*1\r\nx\r", &limits, INCOMPLETE);
    check(b"*1\r\n\r", &limits, INCOMPLETE);
}

#[test]
fn lines_without_an_end_are_refused_at_64_kib() {
    const LIMIT: usize = 65_536;
    let limits = Limits::default();
    for (prefix, text) in [
        (&b"*"[..], "Protocol error: too big mbulk count string"),
        (b"*1\r\n$", "Protocol error: too big bulk count string"),
        (b"*1\r\nx", "Protocol error: too big bulk count string"),
        (b"x", "Protocol error: too big inline request"),
    ] {
        check(&padded(prefix, b'1', LIMIT - 1), &limits, INCOMPLETE);
        check(&padded(prefix, b'1', LIMIT), &limits, Err(text));
    }
    let mut longest = padded(b"", b'x', LIMIT);
    let command = longest.clone();
    longest.push(b'\n');
    check(&longest, &limits, Ok(&[&[&command]]));
    let mut longest = padded(b"*", b'1', LIMIT - 1);
    longest.extend_from_slice(b"\r\n");
    check(&longest, &limits, INVALID_COUNT);
}

#[test]
fn strangers_may_send_little() {
    let limits = Limits {
        authenticated: false,
        ..Limits::default()
    };
    let count = Err("Protocol error: unauthenticated multibulk length");
    let length = Err("Protocol error: unauthenticated bulk length");
    check(b"*10\r\n", &limits, INCOMPLETE);
    check(b"*11\r\n", &limits, count);
    check(b"*1048577\r\n", &limits, count);
    check(b"*2147483647\r\n", &limits, count);
    check(b"*2147483648\r\n", &limits, INVALID_COUNT);
    check(b"*10\r\n$16384\r\n", &limits, INCOMPLETE);
    check(b"*10\r\n$16385\r\n", &limits, length);
    check(b"*1\r\n$536870912\r\n", &limits, length);
    check(b"*1\r\n$536870913\r\n", &limits, INVALID_LENGTH);
    check(b"*1\r\n$4\r\nPING\r\n", &limits, Ok(&[PING]));
}

#[test]
fn empty_requests_are_consumed() {
    let limits = Limits::default();
    for bytes in [
        &b"\r\n"[..],
        b"\n",
        b"   \r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*-5\r\n",
        b"*-9223372036854775808\r\n",
    ] {
        let pipeline = [bytes, b"PING\r\n", bytes, b"*1\r\n$4\r\nPING\r\n"].concat();
        check(&pipeline, &limits, Ok(&[&[], PING, &[], PING]));
    }
}

#[test]
fn inline_requests_end_with_lf_or_crlf() {
    let limits = Limits::default();
    check(b"PING\n", &limits, Ok(&[PING]));
    check(b"PING\r\n", &limits, Ok(&[PING]));
    check(b"PING\r\r\n", &limits, Ok(&[PING]));
    check(b"\x0bPING\r\n", &limits, Ok(&[PING]));
    check(
        b"GET a\r\nGET 'b c'\n",
        &limits,
        Ok(&[&[b"GET", b"a"], &[b"GET", b"b c"]]),
    );
    check(
        b"GET \"a\"b\r\n",
        &limits,
        Err("Protocol error: unbalanced quotes in request"),
    );
    // Redis waits for ever.
    check(b"A\0B\r\n", &limits, Ok(&[&[b"A\0B"]]));
}

// Ours alone.

#[test]
fn a_bulk_must_end_with_crlf() {
    let text = Err("Protocol error: expected CRLF after bulk");
    for bytes in [
        &b"*1\r\n$4\r\nPINGxx"[..],
        b"*1\r\n$4\r\nPING\n\r",
        b"*1\r\n$3\r\nPING\r\n",
        b"*1\r\n$0\r\nPING\r\n",
    ] {
        check(bytes, &Limits::default(), text);
    }
    check(b"*1\r\n$4\r\nPING\r", &Limits::default(), INCOMPLETE);
    check(b"*1\r\n$0\r\n\r\n", &Limits::default(), Ok(&[&[b""]]));
}

#[test]
fn offsets_never_wrap_at_4_gib() {
    let limits = Limits {
        max_bulk_bytes: usize::MAX,
        ..Limits::default()
    };
    let text = Err("Protocol error: request of 4 GiB or more");
    // 17 bytes come before this payload, and 2 behind it.
    check(b"*1\r\n$4294967276\r\n", &limits, INCOMPLETE);
    check(b"*1\r\n$4294967277\r\n", &limits, text);
    check(b"*1\r\n$4294967296\r\n", &limits, text);
    check(b"*1\r\n$9223372036854775807\r\n", &limits, text);
}

#[test]
fn configured_limits_hold() {
    let limits = Limits {
        max_bulk_bytes: 3,
        max_args: 2,
        max_inline_bytes: 5,
        authenticated: true,
    };
    check(
        b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
        &limits,
        Ok(&[&[b"GET", b"a"]]),
    );
    check(b"*3\r\n", &limits, INVALID_COUNT);
    check(b"*1\r\n$4\r\n", &limits, INVALID_LENGTH);
    check(b"GET a\n", &limits, Ok(&[&[b"GET", b"a"]]));
    check(
        b"GET ab\n",
        &limits,
        Err("Protocol error: too big inline request"),
    );
}

#[test]
fn wanted_reaches_to_the_end_of_a_bulk() {
    let limits = Limits::default();
    let mut scanner = RequestScanner::new();
    let mut buf = b"*2\r\n$3\r\nGET\r\n$1000".to_vec();
    assert_eq!(scanner.scan(&buf, &limits), Ok(None));
    assert_eq!(scanner.wanted(), 0);
    buf.extend_from_slice(b"00\r\n");
    assert_eq!(scanner.scan(&buf, &limits), Ok(None));
    let total = buf.len() + 100_002;
    assert_eq!(scanner.wanted(), total);
    buf.resize(total - 2, b'x');
    assert_eq!(scanner.scan(&buf, &limits), Ok(None));
    assert_eq!(scanner.wanted(), total);
    buf.extend_from_slice(b"\r\n");
    assert_eq!(scanner.scan(&buf, &limits), Ok(Some(total)));
    assert_eq!(scanner.wanted(), 0);
    assert_eq!(scanner.request(&buf).wire(), buf);
}

#[test]
fn declared_numbers_reserve_nothing_and_room_is_given_back() {
    let limits = Limits::default();
    let mut scanner = RequestScanner::new();
    assert_eq!(
        scanner.scan(b"*1048576\r\n$536870912\r\n", &limits),
        Ok(None)
    );
    assert!(scanner.spans.capacity() <= 4);

    let mut scanner = RequestScanner::new();
    let args = vec!["x"; 20_000];
    let mut wire = Vec::new();
    encode_request(&mut wire, &args);
    assert_eq!(scanner.scan(&wire, &limits), Ok(Some(wire.len())));
    let line = [args.join(" ").as_bytes(), b"\n"].concat();
    assert_eq!(scanner.scan(&line, &limits), Ok(Some(line.len())));
    assert_eq!(scanner.request(&line).wire(), wire);
    assert_eq!(scanner.scan(b"PING\n", &limits), Ok(Some(5)));
    assert!(scanner.spans.capacity() <= KEPT_SPANS);
    assert!(scanner.inline.capacity() <= KEPT_INLINE_BYTES);
}

#[test]
fn nothing_is_to_be_had_before_a_request_is_complete() {
    let limits = Limits::default();
    let mut scanner = RequestScanner::new();
    let buf = b"*2\r\n$3\r\nGET\r\n$1\r\n";
    assert_eq!(scanner.scan(buf, &limits), Ok(None));
    assert!(scanner.request(buf).is_empty());
    assert!(scanner.request(buf).wire().is_empty());
}

/// Feeds `bytes` one at a time, and overwrites with `poison` all that the scanner must not look at
/// again: what lies before its position, and behind a short header what is searched or payload.
/// If it looked, the result would be another. So each call examines a constant number of old
/// bytes, and the whole is linear.
#[track_caller]
fn check_no_rescan(bytes: &[u8], poison: u8, expected: Result<usize, ProtocolError>) {
    let limits = Limits::default();
    let mut scanner = RequestScanner::new();
    let mut buf = Vec::new();
    let (mut before, mut searched) = (0, 0);
    for byte in bytes {
        buf.push(*byte);
        if let Some(result) = scanner.scan(&buf, &limits).transpose() {
            assert_eq!((result, buf.len()), (expected, bytes.len()));
            return;
        }
        buf[before..scanner.pos].fill(poison);
        before = scanner.pos;
        let from = searched.max(scanner.pos + SHORT_HEADER_BYTES);
        let payload = scanner.wanted.saturating_sub(b"\r\n".len());
        let until = buf.len().min(scanner.searched.max(payload));
        if from < until {
            buf[from..until].fill(poison);
            searched = until;
        }
    }
    panic!("incomplete after {} bytes", bytes.len());
}

/// Marker, nine digits, CRLF: see [`short_header`].
const SHORT_HEADER_BYTES: usize = 12;

#[test]
fn no_byte_is_scanned_twice() {
    // One large argument, many small ones, and both kinds of line up to their limit.
    let mut bytes = Vec::new();
    encode_request(&mut bytes, &[vec![b'x'; 1 << 20]]);
    check_no_rescan(&bytes, b'\r', Ok(bytes.len()));
    let mut bytes = Vec::new();
    encode_request(&mut bytes, &vec!["key:123456"; 60_000]);
    check_no_rescan(&bytes, b'\r', Ok(bytes.len()));
    let bytes = padded(b"*", b'1', 65_536);
    check_no_rescan(&bytes, b'\r', Err(ProtocolError::TooBigMultibulkCount));
    let bytes = padded(b"*1\r\n$", b'1', 65_536);
    check_no_rescan(&bytes, b'\r', Err(ProtocolError::TooBigBulkCount));
    let bytes = padded(b"", b'x', 65_537);
    check_no_rescan(&bytes, b'\n', Err(ProtocolError::TooBigInlineRequest));
}

fn encode_request(out: &mut Vec<u8>, args: &[impl AsRef<[u8]>]) {
    super::super::encode::request(out, args);
}

/// One request as it may be sent, and its arguments.
fn any_request() -> impl Strategy<Value = (Vec<u8>, Vec<Vec<u8>>)> {
    let binary = prop::collection::vec(any::<u8>(), 0..40);
    let array = prop::collection::vec(binary, 1..6).prop_map(|args| {
        let mut bytes = Vec::new();
        encode_request(&mut bytes, &args);
        (bytes, args)
    });
    // A first word that starts with an asterisk would be an array.
    let words = prop::collection::vec("[!#-&(-)+-~]{1,12}", 1..5);
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just(" \r\n")];
    let inline = (words, end).prop_map(|(words, end)| {
        let line = words.join(" ") + end;
        (
            line.into_bytes(),
            words.into_iter().map(String::into_bytes).collect(),
        )
    });
    let quoted = prop::collection::vec(any::<u8>(), 0..20).prop_map(|arg| {
        let hex = arg
            .iter()
            .fold(String::new(), |text, byte| text + &format!("\\x{byte:02x}"));
        (
            format!("SET \"{hex}\" ''\r\n").into_bytes(),
            vec![b"SET".to_vec(), arg, vec![]],
        )
    });
    let blank = prop_oneof![Just("\r\n"), Just("*0\r\n"), Just("*-1\r\n"), Just(" \n")]
        .prop_map(|line| (line.as_bytes().to_vec(), vec![]));
    prop_oneof![4 => array, 2 => inline, 1 => quoted, 1 => blank]
}

fn any_sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..50_usize, 1..20)
}

proptest! {
    #[test]
    fn any_split_gives_the_requests_that_were_sent(
        pipeline in prop::collection::vec(any_request(), 1..12),
        sizes in any_sizes(),
    ) {
        let bytes: Vec<u8> = pipeline.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let sent: Vec<_> = pipeline.into_iter().map(|(_, args)| args).collect();
        let limits = Limits::default();
        prop_assert_eq!(scan_in_pieces(&bytes, &sizes, &limits), (sent.clone(), None));
        prop_assert_eq!(scan_in_pieces(&bytes, &[1], &limits), (sent.clone(), None));
        prop_assert_eq!(scan_in_pieces(&bytes, &[bytes.len()], &limits), (sent, None));
    }

    #[test]
    fn arrays_are_what_redis_protocol_takes_them_for(
        pipeline in prop::collection::vec(prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..30), 1..8), 1..8),
    ) {
        let mut bytes = Vec::new();
        for args in &pipeline {
            encode_request(&mut bytes, args);
        }
        let limits = Limits::default();
        let mut scanner = RequestScanner::new();
        let mut rest = &bytes[..];
        while let Some((frame, len)) = decode(rest).unwrap() {
            prop_assert_eq!(scanner.scan(rest, &limits), Ok(Some(len)));
            let args: Vec<_> = scanner.request(rest).args()
                .map(|arg| OwnedFrame::BulkString(arg.to_vec())).collect();
            prop_assert_eq!(OwnedFrame::Array(args), frame);
            rest = &rest[len..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn damaged_requests_end_the_same_in_any_split(
        pipeline in prop::collection::vec(any_request(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), damaged_byte()), 1..4),
        sizes in any_sizes(),
        authenticated: bool,
    ) {
        let mut bytes: Vec<u8> = pipeline.into_iter().flat_map(|(bytes, _)| bytes).collect();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let limits = Limits { max_bulk_bytes: 35, max_args: 4, max_inline_bytes: 60, authenticated };
        let whole = scan_in_pieces(&bytes, &[bytes.len()], &limits);
        prop_assert_eq!(scan_in_pieces(&bytes, &sizes, &limits), whole.clone());
        prop_assert_eq!(scan_in_pieces(&bytes, &[1], &limits), whole);
    }

    #[test]
    fn random_bytes_end_the_same_in_any_split(
        bytes in prop::collection::vec(damaged_byte(), 0..200),
        sizes in any_sizes(),
    ) {
        let limits = Limits { max_inline_bytes: 60, ..Limits::default() };
        let whole = scan_in_pieces(&bytes, &[usize::MAX / 2], &limits);
        prop_assert_eq!(scan_in_pieces(&bytes, &sizes, &limits), whole);
    }
}

/// Any byte, those that mean something more often.
fn damaged_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        prop::sample::select(b"*$-:+0123456789\r\n\r\n\"'\\ ".to_vec())
    ]
}
