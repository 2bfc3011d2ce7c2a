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

/// Parses a whole text as C's `strtod` does, but for the white space that it would skip: decimal or
/// hexadecimal, with or without exponent, or `inf`.
///
/// `None` for anything else, for NaN, and for what has no normal double (`ERANGE`). Redis takes
/// such numbers as timeouts and as weights of `SORT`.
pub fn parse_double(bytes: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let prefixes = ["0x", "0X"];
    if let Some(digits) = prefixes
        .iter()
        .find_map(|prefix| unsigned.strip_prefix(prefix))
    {
        let number = hexadecimal(digits)?;
        return Some(if text.starts_with('-') {
            -number
        } else {
            number
        });
    }
    let number: f64 = text.parse().ok()?;
    let mantissa = unsigned.split(['e', 'E']).next().unwrap_or_default();
    let is_zero = !mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    let named = unsigned.starts_with(['i', 'I']);
    (named || number.is_normal() || (is_zero && number == 0.0)).then_some(number)
}

/// What stands behind `0x`: digits with or without a point, and a power of two behind `p`.
fn hexadecimal(digits: &str) -> Option<f64> {
    let (mantissa, exponent) = match digits.split_once(['p', 'P']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut number = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        number = number * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let places = i32::try_from(fraction.len()).ok()?.checked_mul(4)?;
    let scaled = number * 2.0_f64.powi(exponent.checked_sub(places)?);
    (number == 0.0 || scaled.is_normal()).then_some(scaled)
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
    fn doubles_are_read_as_strtod_reads_them() {
        for (text, expected) in [
            ("12.5", 12.5),
            ("+.5", 0.5),
            ("-1e3", -1000.0),
            ("0e9", 0.0),
            ("0x10", 16.0),
            ("-0X1.8p1", -3.0),
            ("0x.8", 0.5),
            ("0x0", 0.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(parse_double(text.as_bytes()), Some(expected), "{text}");
        }
        for wrong in [
            "", " 1", "1 ", "x", "1x", "1e", "--1", "nan", "-nan", "1e400", "1e-400", "0x", "0xg",
            "0x1p", "0x1p9999", "0x-1",
        ] {
            assert_eq!(parse_double(wrong.as_bytes()), None, "{wrong}");
        }
    }

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
