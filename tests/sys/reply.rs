//! Replies as a client sees them: the end of a frame in a buffer, and its parsed form.

use std::fmt;

/// One parsed reply; strings are bytes, doubles and big numbers stay text.
#[derive(Clone, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Reply {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Self>),
    /// Keys and values in turn.
    Map(Vec<Self>),
    Set(Vec<Self>),
    Push(Vec<Self>),
    /// A double, boolean, big number or verbatim string, with its type byte.
    Other(u8, Vec<u8>),
}

impl Reply {
    /// Parses one whole frame.
    #[track_caller]
    pub(crate) fn parse(frame: &[u8]) -> Self {
        let mut at = 0;
        let reply = parse_at(frame, &mut at);
        assert_eq!(at, frame.len(), "one frame: {}", frame.escape_ascii());
        reply
    }

    /// The number of an integer reply.
    #[track_caller]
    pub(crate) fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("an integer was expected, not {other:?}"),
        }
    }

    /// The bytes of a simple or bulk string, or of an error.
    #[track_caller]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Simple(bytes) | Self::Error(bytes) | Self::Bulk(bytes) => bytes,
            other => panic!("a string was expected, not {other:?}"),
        }
    }

    /// [`bytes`](Self::bytes) as text.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// The elements of an array, set, push or map.
    #[track_caller]
    pub(crate) fn elements(&self) -> &[Self] {
        match self {
            Self::Array(items) | Self::Map(items) | Self::Set(items) | Self::Push(items) => items,
            other => panic!("an array was expected, not {other:?}"),
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Whether this is the status `+OK`.
    pub(crate) fn is_ok(&self) -> bool {
        *self == Self::Simple(b"OK".to_vec())
    }

    /// The same reply with its elements in a canonical order; pairs of a map stay together.
    pub(crate) fn sorted(self) -> Self {
        match self {
            Self::Array(mut items) => {
                items.sort();
                Self::Array(items)
            }
            Self::Set(mut items) => {
                items.sort();
                Self::Set(items)
            }
            Self::Map(items) => {
                let mut pairs: Vec<_> = items.chunks(2).map(<[Self]>::to_vec).collect();
                pairs.sort();
                Self::Map(pairs.concat())
            }
            other => other,
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(bytes) => write!(f, "+{}", bytes.escape_ascii()),
            Self::Error(bytes) => write!(f, "-{}", bytes.escape_ascii()),
            Self::Integer(number) => write!(f, ":{number}"),
            Self::Bulk(bytes) if bytes.len() > 200 => write!(f, "\"... {} bytes\"", bytes.len()),
            Self::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Nil => f.write_str("nil"),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Map(items) => f.debug_tuple("Map").field(items).finish(),
            Self::Set(items) => f.debug_tuple("Set").field(items).finish(),
            Self::Push(items) => f.debug_tuple("Push").field(items).finish(),
            Self::Other(kind, text) => {
                write!(f, "{}{}", char::from(*kind), text.escape_ascii())
            }
        }
    }
}

/// Where the frame that starts at `start` ends; `None` while it is incomplete.
pub(crate) fn frame_end(buffer: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    let mut missing = 1_usize;
    while missing > 0 {
        let (kind, header, next) = header_at(buffer, at)?;
        at = next;
        missing -= 1;
        match kind {
            b'$' | b'=' | b'!' => {
                if let Ok(length) = usize::try_from(number(header)) {
                    at += length + 2;
                    if at > buffer.len() {
                        return None;
                    }
                }
            }
            b'*' | b'~' | b'>' => missing += usize::try_from(number(header)).unwrap_or(0),
            b'%' => missing += 2 * usize::try_from(number(header)).unwrap_or(0),
            _ => {}
        }
    }
    Some(at)
}

fn parse_at(frame: &[u8], at: &mut usize) -> Reply {
    let (kind, header, next) = header_at(frame, *at).expect("a whole frame");
    *at = next;
    match kind {
        b'+' => Reply::Simple(header.to_vec()),
        b'-' => Reply::Error(header.to_vec()),
        b':' => Reply::Integer(number(header)),
        b'_' => Reply::Nil,
        b'$' | b'=' | b'!' => {
            let Ok(length) = usize::try_from(number(header)) else {
                return Reply::Nil;
            };
            let bytes = frame[next..next + length].to_vec();
            *at = next + length + 2;
            match kind {
                b'$' => Reply::Bulk(bytes),
                b'!' => Reply::Error(bytes),
                _ => Reply::Other(kind, bytes),
            }
        }
        b'*' | b'~' | b'>' | b'%' => {
            let Ok(length) = usize::try_from(number(header)) else {
                return Reply::Nil;
            };
            let count = if kind == b'%' { 2 * length } else { length };
            let items = (0..count).map(|_| parse_at(frame, at)).collect();
            match kind {
                b'*' => Reply::Array(items),
                b'~' => Reply::Set(items),
                b'>' => Reply::Push(items),
                _ => Reply::Map(items),
            }
        }
        b',' | b'#' | b'(' => Reply::Other(kind, header.to_vec()),
        _ => panic!("not a reply: {}", frame.escape_ascii()),
    }
}

/// Type byte, rest of the line, and where the next line starts.
fn header_at(buffer: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let rest = buffer.get(at..)?;
    let end = memchr::memchr(b'\n', rest)?;
    assert!(
        end >= 2 && rest[end - 1] == b'\r',
        "a line ends in CRLF: {}",
        rest[..=end].escape_ascii()
    );
    Some((rest[0], &rest[1..end - 1], at + end + 1))
}

#[track_caller]
fn number(digits: &[u8]) -> i64 {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("not a number in a reply: {}", digits.escape_ascii()))
}

#[test]
fn frames_end_where_their_last_element_ends() {
    let frame = b"*3\r\n:1\r\n%1\r\n$1\r\na\r\n_\r\n$-1\r\n";
    for cut in 0..frame.len() {
        assert_eq!(frame_end(&frame[..cut], 0), None, "cut at {cut}");
    }
    assert_eq!(frame_end(frame, 0), Some(frame.len()));
    let expected = Reply::Array(vec![
        Reply::Integer(1),
        Reply::Map(vec![Reply::Bulk(b"a".to_vec()), Reply::Nil]),
        Reply::Nil,
    ]);
    assert_eq!(Reply::parse(frame), expected);
}
