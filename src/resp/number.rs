//! Decimal numbers as Redis reads them, in arguments, in values and in protocol headers.

/// Parses a signed 64-bit integer exactly as Redis's `string2ll` (`util.c`) does.
///
/// Accepted is only the one canonical spelling: an optional `-`, no `+`, no spaces, no leading
/// zero, no `-0`; 1 to 20 bytes. `str::parse` would accept `+1` and `007`, which Redis refuses
/// with `value is not an integer or out of range`.
pub fn parse_i64(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'0'] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // 19 digits stay below 10^19, which a u64 holds, so the loop can not overflow.
    if !matches!(digits, [b'1'..=b'9', ..]) || digits.len() > 19 {
        return None;
    }
    let mut magnitude = 0_u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit);
    }
    if negative {
        0_i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// The number that starts `bytes` and the offset behind its CRLF, for the headers that matter for
/// speed: canonical, not negative, 1 to 9 digits, complete.
///
/// `None` says only that the header is not of that kind: incomplete, longer, negative or wrong.
/// At most eleven bytes are examined.
#[inline]
pub(super) fn short_header(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut number = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            number = number * 10 + usize::from(digit);
            continue;
        }
        let canonical = index == 1 || (index > 1 && bytes.first() != Some(&b'0'));
        let ended = *byte == b'\r' && bytes.get(index + 1) == Some(&b'\n');
        return (canonical && ended).then_some((number, index + 2));
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_of_the_range_are_exact() {
        for (text, expected) in [
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("9999999999999999999", None),
            ("-9999999999999999999", None),
            // Would wrap a u64 to a small number.
            ("18446744073709551616", None),
            ("18446744073709551617", None),
            ("-18446744073709551617", None),
            ("10000000000000000000", None),
            ("1000000000000000000", Some(1_000_000_000_000_000_000)),
            ("0", Some(0)),
            ("1", Some(1)),
            ("-1", Some(-1)),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn only_the_canonical_spelling_is_a_number() {
        let wrong: [&[u8]; 20] = [
            b"", b"-", b"--1", b"+1", b"+0", b"-0", b"00", b"01", b"-01", b" 1", b"1 ", b"1\n",
            b"1\0", b"1.0", b"1e3", b"0x1", b"a", b"1a", b"/", b":",
        ];
        for text in wrong {
            assert_eq!(parse_i64(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn short_headers_are_canonical_and_complete() {
        for (text, expected) in [
            ("0\r\n", Some((0, 3))),
            ("7\r\nx", Some((7, 3))),
            ("999999999\r\n", Some((999_999_999, 11))),
            ("1000000000\r\n", None),
            ("00\r\n", None),
            ("03\r\n", None),
            ("-1\r\n", None),
            ("\r\n", None),
            ("1\n", None),
            ("1\rx", None),
            ("1\r", None),
            ("1", None),
            ("", None),
        ] {
            assert_eq!(short_header(text.as_bytes()), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_integer_survives_its_own_spelling(value: i64) {
            prop_assert_eq!(parse_i64(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn what_is_accepted_is_spelled_canonically(text in "[-+]?[0-9]{0,21}") {
            let canonical = text.parse::<i64>().ok().filter(|value| value.to_string() == text);
            prop_assert_eq!(parse_i64(text.as_bytes()), canonical);
        }
    }
}
