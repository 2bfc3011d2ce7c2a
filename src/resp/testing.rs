//! Requests for unit tests.

use super::{Limits, Request, RequestScanner, encode};

/// Calls `check` with the request whose arguments are the words of `line`.
pub(crate) fn with_request<T>(line: &str, check: impl FnOnce(&Request<'_>) -> T) -> T {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let mut wire = Vec::new();
    encode::request(&mut wire, &words);
    let mut scanner = RequestScanner::new();
    let limits = Limits {
        authenticated: true,
        ..Limits::default()
    };
    scanner.scan(&wire, &limits).unwrap();
    check(&scanner.request(&wire))
}
