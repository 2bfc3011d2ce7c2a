//! Reads arguments as Redis reads them, and words its errors about them.

use crate::resp::Request;

/// Whether an option is this word, in any case.
pub(super) fn is(bytes: &[u8], word: &str) -> bool {
    bytes.eq_ignore_ascii_case(word.as_bytes())
}

/// As much of an argument as an error shows: up to a NUL, as C does, and 128 bytes, which is
/// Redis's bound for names of commands (`commandCheckExistence` in `server.c`).
pub(super) fn shown(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.get(..MAX_SHOWN_BYTES).unwrap_or(bytes);
    memchr::memchr(0, bytes).map_or(bytes, |end| bytes.get(..end).unwrap_or_default())
}

/// An error's text with an argument in it: `before` argument `after`.
pub(super) fn naming(before: &str, argument: &[u8], after: &str) -> Vec<u8> {
    [before.as_bytes(), shown(argument), after.as_bytes()].concat()
}

/// The error for arguments that a subcommand's arity allows and the subcommand does not.
pub(super) fn wrong_subcommand(container: &str, request: &Request<'_>) -> Vec<u8> {
    let before = "ERR unknown subcommand or wrong number of arguments for '";
    naming(before, request.arg(1), &format!("'. Try {container} HELP."))
}

/// The error for what exists in Redis and not here.
pub(super) fn not_supported(full_name: &str) -> Vec<u8> {
    let name = full_name.replace('|', " ").to_ascii_uppercase();
    format!("ERR {name} is not supported by Tally").into_bytes()
}

/// Text that fits into a field of `CLIENT LIST`: printable ASCII without spaces
/// (`validateClientAttr` in Redis's `networking.c`). `None` for anything else.
pub(super) fn field(bytes: &[u8]) -> Option<String> {
    bytes
        .iter()
        .all(u8::is_ascii_graphic)
        .then(|| String::from_utf8_lossy(bytes).into_owned())
}

pub(super) const SYNTAX_ERROR: &str = "ERR syntax error";
pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

const MAX_SHOWN_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_no_more_than_128_bytes_of_an_argument() {
        assert_eq!(naming("<", &[b'a'; 1000], ">").len(), 130);
        assert_eq!(naming("<", b"ab\0cd", ">"), b"<ab>");
    }

    #[test]
    fn a_field_can_not_hold_what_would_split_a_line() {
        assert_eq!(field(b"web-1").as_deref(), Some("web-1"));
        assert_eq!(field(b"").as_deref(), Some(""));
        for bytes in [&b"a b"[..], b"a\n", b"\x7f", b"\xc3\xa9", b"\0"] {
            assert_eq!(field(bytes), None);
        }
    }
}
