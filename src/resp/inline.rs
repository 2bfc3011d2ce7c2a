//! Inline requests: a line of words, as typed into telnet or `nc`.

use super::{ProtocolError, Span, encode};

/// Splits `line` (without its line end) and writes the words into `wire` as a RESP array of bulk
/// strings, and their places into `spans`. Both are left empty when the line holds no word.
///
/// The rules are those of Redis's `sdssplitargs` (`sds.c`), except that a NUL is a byte like any
/// other: Redis finds no line end behind one, and waits until the client has sent 64 KiB.
///
/// # Errors
///
/// [`ProtocolError::UnbalancedQuotes`], and [`ProtocolError::RequestTooLarge`] where the line
/// limit is configured in the range of GiB.
pub(super) fn encode_line(
    line: &[u8],
    wire: &mut Vec<u8>,
    spans: &mut Vec<Span>,
) -> Result<(), ProtocolError> {
    let words = split(line).ok_or(ProtocolError::UnbalancedQuotes)?;
    if words.is_empty() {
        return Ok(());
    }
    encode::array(wire, words.len());
    for word in &words {
        encode::bulk(wire, word);
        let start = wire.len() - b"\r\n".len() - word.len();
        let (Ok(start), Ok(len)) = (u32::try_from(start), u32::try_from(word.len())) else {
            return Err(ProtocolError::RequestTooLarge);
        };
        spans.push(Span { start, len });
    }
    Ok(())
}

/// The words of `line` (`sdssplitargs`), or `None` when a quote is not closed or is followed by text.
pub fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = match rest {
            [] => return Some(words),
            [byte, tail @ ..] if is_space(*byte) => tail,
            _ => {
                let mut word = Vec::new();
                let tail = take_word(rest, &mut word)?;
                words.push(word);
                tail
            }
        };
    }
}

/// Appends one word to `word`, and returns what follows it.
fn take_word<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            // Vertical tab and form feed are skipped before a word, yet they don't end one.
            [] | [b' ' | b'\t' | b'\r' | b'\n', ..] => return Some(rest),
            [b'"', tail @ ..] => return end_of_quote(take_double_quoted(tail, word)?),
            [b'\'', tail @ ..] => return end_of_quote(take_single_quoted(tail, word)?),
            [byte, tail @ ..] => {
                word.push(*byte);
                tail
            }
        };
    }
}

fn take_double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'"', tail @ ..] => return Some(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex_value(*high) << 4 | hex_value(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                tail
            }
            [byte, tail @ ..] => {
                word.push(*byte);
                tail
            }
        };
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'\'', tail @ ..] => return Some(tail),
            [b'\\', b'\'', tail @ ..] => {
                word.push(b'\'');
                tail
            }
            [byte, tail @ ..] => {
                word.push(*byte);
                tail
            }
        };
    }
}

fn end_of_quote(rest: &[u8]) -> Option<&[u8]> {
    rest.first()
        .is_none_or(|byte| is_space(*byte))
        .then_some(rest)
}

/// C's `isspace`; `u8::is_ascii_whitespace` leaves out the vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Value of an ASCII hexadecimal digit.
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &[u8], expected: Option<&[&[u8]]>) {
        let words = split(line);
        let words: Option<Vec<&[u8]>> = words
            .as_ref()
            .map(|words| words.iter().map(Vec::as_slice).collect());
        assert_eq!(words.as_deref(), expected, "{}", line.escape_ascii());
    }

    /// Each line was sent to Redis 7.0.15; the expected words are what it made of them.
    #[test]
    fn quotes_and_escapes_are_read_as_redis_reads_them() {
        check(
            br#"ECHO "a b\n\r\t\b\a\x41\xzz\q\"""#,
            Some(&[b"ECHO", b"a b\n\r\t\x08\x07Axzzq\""]),
        );
        check(br"ECHO 'a\'b\n'", Some(&[b"ECHO", b"a'b\\n"]));
        check(br#"ECHO "a" "#, Some(&[b"ECHO", b"a"]));
        check(br#"ECHO foo"bar""#, Some(&[b"ECHO", b"foobar"]));
        check(br#"ECHO """#, Some(&[b"ECHO", b""]));
        check(br#"ECHO "\x4""#, Some(&[b"ECHO", b"x4"]));
        check(br"ECHO \x41", Some(&[b"ECHO", br"\x41"]));
        check(b"ECHO \xff\xfe", Some(&[b"ECHO", b"\xff\xfe"]));
        check(br#""""#, Some(&[b""]));
        check(br#""\xaF\xFa""#, Some(&[b"\xaf\xfa"]));
    }

    #[test]
    fn unbalanced_quotes_are_refused_as_redis_refuses_them() {
        let lines: [&[u8]; 9] = [
            br#"ECHO "a"b"#,
            br#"ECHO "a"#,
            b"ECHO 'a",
            b"ECHO 'a'b",
            br#"ECHO foo"bar baz"'x'"#,
            br#"ECHO "\"#,
            br#"ECHO "\""#,
            br"ECHO '\\'",
            b"\"",
        ];
        for line in lines {
            check(line, None);
        }
    }

    #[test]
    fn white_space_separates_as_in_redis() {
        check(b"", Some(&[]));
        check(b" \t\x0b\x0c\r ", Some(&[]));
        check(b"\x0bPING", Some(&[b"PING"]));
        check(b"PING\x0b", Some(&[b"PING\x0b"]));
        check(b"ECHO a\rb", Some(&[b"ECHO", b"a", b"b"]));
        check(b"ECHO \x0ba\x0cb\x0b", Some(&[b"ECHO", b"a\x0cb\x0b"]));
        check(b"ECHO \"a\"\x0b", Some(&[b"ECHO", b"a"]));
        check(b"ECHO a\x0b\"b\"", Some(&[b"ECHO", b"a\x0bb"]));
        check(b"A\0B C", Some(&[b"A\0B", b"C"]));
    }
}
