//! Writes replies and requests. Integers go through `itoa`: `redis-protocol` 6.0.0 leaves a NUL
//! byte behind integers just below 10^15 to 10^18.

use super::Protocol;

/// `+text`: a status such as `OK`. `text` must hold neither CR nor LF.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text.as_bytes());
}

/// `-text`: an error whose first word is its code (`ERR ...`, `WRONGTYPE ...`). CR and LF become
/// spaces, as Redis does (`afterErrorReply` in `networking.c`), so that no text can split a reply.
pub fn error(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    out.push(b'-');
    let clean = |byte: &u8| {
        if matches!(*byte, b'\r' | b'\n') {
            b' '
        } else {
            *byte
        }
    };
    out.extend(text.as_ref().iter().map(clean));
    out.extend_from_slice(b"\r\n");
}

/// `:value`.
#[inline]
pub fn integer(out: &mut Vec<u8>, value: i64) {
    let Some(digits) = Digits::of(value) else {
        return line(out, b':', itoa::Buffer::new().format(value).as_bytes());
    };
    let text = u128::from(digits.text) << 8 | u128::from(b':');
    short(out, text, 1 + digits.len);
}

/// `$len value`: an integer as a string.
#[inline]
pub fn decimal(out: &mut Vec<u8>, value: i64) {
    let Some(digits) = Digits::of(value) else {
        return bulk(out, itoa::Buffer::new().format(value).as_bytes());
    };
    let length = u128::from(b'0') + u128::from(digits.len);
    let header = u128::from(b'$') | length << 8 | CRLF << 16;
    short(out, u128::from(digits.text) << 32 | header, 4 + digits.len);
}

/// `$len value`: the same for an integer of any type. [`decimal`] is faster.
pub fn number(out: &mut Vec<u8>, value: impl itoa::Integer) {
    bulk(out, itoa::Buffer::new().format(value).as_bytes());
}

/// Appends the first `len` bytes of `text`, the lowest byte first, and CR LF.
///
/// It is put together in registers and stored at once. To copy it from a buffer that was written in
/// pieces would wait for these to reach the cache: a sixth of a warm increment's time (measured).
#[inline]
fn short(out: &mut Vec<u8>, text: u128, len: u32) {
    let line = text | CRLF << (8 * len);
    let end = out.len() + usize::try_from(len).unwrap_or_default() + 2;
    out.extend_from_slice(&line.to_le_bytes());
    out.truncate(end);
}

const CRLF: u128 = 0x0A0D;

/// Up to eight decimal digits in a register, the first one in the lowest byte.
#[derive(Clone, Copy)]
struct Digits {
    text: u64,
    len: u32,
}

impl Digits {
    /// `None` below 0 and from 10^8 on.
    #[inline]
    fn of(value: i64) -> Option<Self> {
        let value = u64::try_from(value)
            .ok()
            .filter(|value| *value < 100_000_000)?;
        // All numbers of a step are divided at once: by 100 where they are below 10,000, by 10
        // below 100. The multipliers are exact there.
        let fours = (value / 10_000) | (value % 10_000) << 32;
        let upper = ((fours * 10_486) >> 20) & 0x7F_0000_007F;
        let twos = upper | (fours - 100 * upper) << 16;
        let tens = ((twos * 103) >> 10) & 0x000F_000F_000F_000F;
        let digits = tens | (twos - 10 * tens) << 8;
        let zeros = (digits.trailing_zeros() / 8).min(7);
        Some(Self {
            text: (digits | 0x3030_3030_3030_3030) >> (8 * zeros),
            len: 8 - zeros,
        })
    }
}

/// `$len bytes`.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A string where there is none: `$-1` or `_`.
pub fn null(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// An array where there is none: `*-1` or `_`.
pub fn null_array(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Header of an array of `len` replies.
pub fn array(out: &mut Vec<u8>, len: usize) {
    header(out, b'*', len);
}

/// Header of a map of `pairs` keys and values: in RESP2 an array of twice as many.
pub fn map(out: &mut Vec<u8>, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', pairs * 2),
        Protocol::Resp3 => header(out, b'%', pairs),
    }
}

/// Header of a set of `len` members: in RESP2 an array.
pub fn set(out: &mut Vec<u8>, protocol: Protocol, len: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', len),
        Protocol::Resp3 => header(out, b'~', len),
    }
}

/// Header of a push of `len` replies: in RESP2 an array.
pub fn push(out: &mut Vec<u8>, protocol: Protocol, len: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', len),
        Protocol::Resp3 => header(out, b'>', len),
    }
}

/// Text for people: in RESP3 a verbatim string (`txt`), in RESP2 a bulk string.
pub fn verbatim(out: &mut Vec<u8>, protocol: Protocol, text: &str) {
    match protocol {
        Protocol::Resp2 => bulk(out, text.as_bytes()),
        Protocol::Resp3 => {
            header(out, b'=', text.len() + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A whole request: an array of bulk strings.
pub fn request<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    array(out, args.len());
    for arg in args {
        bulk(out, arg.as_ref());
    }
}

fn header(out: &mut Vec<u8>, marker: u8, len: usize) {
    line(out, marker, itoa::Buffer::new().format(len).as_bytes());
}

fn line(out: &mut Vec<u8>, marker: u8, text: &[u8]) {
    out.push(marker);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_at_every_power_of_ten() {
        let mut edges = vec![i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
        for exponent in 1..=18 {
            let power = 10_i64.pow(exponent);
            edges.extend([power - 1, power, power + 1, 1 - power, -power, -1 - power]);
        }
        for value in edges {
            check(value);
        }
    }

    #[test]
    fn integers_are_exact_whatever_their_digits() {
        (0..100_000_000).step_by(97).for_each(check);
        (0..100_000).for_each(check);
    }

    fn check(value: i64) {
        let mut out = Vec::new();
        integer(&mut out, value);
        decimal(&mut out, value);
        let text = value.to_string();
        let want = format!(":{text}\r\n${}\r\n{text}\r\n", text.len());
        assert_eq!(out, want.as_bytes());
    }

    #[test]
    fn an_error_text_can_not_split_a_reply() {
        let mut out = Vec::new();
        error(&mut out, "ERR bad\r\n+OK");
        assert_eq!(out, b"-ERR bad  +OK\r\n");
    }

    #[test]
    fn nulls_and_maps_follow_the_protocol() {
        let mut out = Vec::new();
        map(&mut out, Protocol::Resp2, 1);
        null(&mut out, Protocol::Resp2);
        null_array(&mut out, Protocol::Resp2);
        map(&mut out, Protocol::Resp3, 1);
        null(&mut out, Protocol::Resp3);
        assert_eq!(out, b"*2\r\n$-1\r\n*-1\r\n%1\r\n_\r\n");
    }
}
