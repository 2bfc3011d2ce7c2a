//! Which arguments are secrets, and how a request is shown without them.

use crate::resp::Request;

/// Whether argument `index` (0 is the name) is a password or a part of one: what `AUTH`, `HELLO`,
/// `CONFIG SET`, `ACL SETUSER` and `MIGRATE` are given. Redis hides the same arguments
/// (`redactClientCommandArgument`).
pub fn is_secret(request: &Request<'_>, index: usize) -> bool {
    let word = |at: usize, word: &str| request.arg(at).eq_ignore_ascii_case(word.as_bytes());
    let after = |at: usize, name: &str| index > at && word(index - at, name);
    match request.arg(0).first().map(u8::to_ascii_lowercase) {
        Some(b'a') if word(0, "auth") => index > 0,
        Some(b'a') if word(0, "acl") => index > 1 && word(1, "setuser"),
        Some(b'c') if word(0, "config") => {
            let is_value = index > 2 && index % 2 == 1;
            is_value && word(1, "set") && is_password(request.arg(index - 1))
        }
        // HELLO 3 AUTH name password
        Some(b'h') if word(0, "hello") => index > 2 && (after(1, "auth") || after(2, "auth")),
        // MIGRATE host port key db timeout AUTH password | AUTH2 name password
        Some(b'm') if word(0, "migrate") => {
            index > 6 && (after(1, "auth") || after(1, "auth2") || after(2, "auth2"))
        }
        _ => false,
    }
}

/// The arguments as they may be shown: at most 32, each at most 128 bytes, secrets hidden. What is
/// left out is said in Redis's words (`slowlogCreateEntry` in `slowlog.c`).
pub fn shown(request: &Request<'_>) -> Vec<Vec<u8>> {
    let count = request.len();
    let kept = if count > MAX_SHOWN {
        MAX_SHOWN - 1
    } else {
        count
    };
    let mut shown: Vec<_> = (0..kept)
        .map(|index| {
            if is_secret(request, index) {
                b"(redacted)".to_vec()
            } else {
                shortened(request.arg(index), request.arg(index).len())
            }
        })
        .collect();
    if kept < count {
        shown.push(more_arguments(count - kept));
    }
    shown
}

/// The same for a forwarded request of which only the first bytes were kept. Nothing that is
/// forwarded holds secrets.
pub fn shown_prefix(wire: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = wire;
    let Some(count) = header(&mut rest, b'*') else {
        return Vec::new();
    };
    let most = if count > MAX_SHOWN {
        MAX_SHOWN - 1
    } else {
        count
    };
    let mut shown = Vec::new();
    while shown.len() < most {
        let Some(length) = header(&mut rest, b'$') else {
            break;
        };
        let there = rest.get(..length).unwrap_or(rest);
        shown.push(shortened(there, length));
        rest = rest.get(length + 2..).unwrap_or_default();
    }
    if shown.len() < count {
        shown.push(more_arguments(count - shown.len()));
    }
    shown
}

/// Takes a line such as `$12` from the front.
fn header(rest: &mut &[u8], mark: u8) -> Option<usize> {
    let end = memchr::memchr(b'\r', rest)?;
    let line = rest.get(..end)?.strip_prefix(&[mark])?;
    *rest = rest.get(end + 2..)?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// At most 128 bytes of an argument that has `length` of them.
fn shortened(bytes: &[u8], length: usize) -> Vec<u8> {
    let kept = bytes.get(..MAX_BYTES).unwrap_or(bytes);
    let mut text = kept.to_vec();
    if kept.len() < length {
        let left = format!("... ({} more bytes)", length - kept.len());
        text.extend_from_slice(left.as_bytes());
    }
    text
}

fn more_arguments(count: usize) -> Vec<u8> {
    format!("... ({count} more arguments)").into_bytes()
}

/// Whether a parameter of a server is a password, by its name: `requirepass`, `masterauth`,
/// `tls-key-file-pass`, Valkey's `primaryauth`.
pub fn is_password(name: &[u8]) -> bool {
    let end = name.last_chunk::<4>();
    end.is_some_and(|end| end.eq_ignore_ascii_case(b"auth") || end.eq_ignore_ascii_case(b"pass"))
}

/// Redis's `SLOWLOG_ENTRY_MAX_ARGC` and `SLOWLOG_ENTRY_MAX_STRING`.
const MAX_SHOWN: usize = 32;
const MAX_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::testing::with_request;
    use crate::resp::{Limits, RequestScanner, encode};

    fn wire(args: &[&str]) -> Vec<u8> {
        let mut wire = Vec::new();
        encode::request(
            &mut wire,
            &args.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>(),
        );
        wire
    }

    #[track_caller]
    fn check(args: &str, want: &str) {
        let shown = with_request(args, shown);
        let shown: Vec<_> = shown
            .iter()
            .map(|arg| String::from_utf8_lossy(arg))
            .collect();
        assert_eq!(shown.join(" "), want);
    }

    #[test]
    fn secrets_are_hidden() {
        check("GET auth", "GET auth");
        check("AUTH p", "AUTH (redacted)");
        check("auth u p", "auth (redacted) (redacted)");
        check(
            "HELLO 3 AUTH u p SETNAME n",
            "HELLO 3 AUTH (redacted) (redacted) SETNAME n",
        );
        check(
            "CONFIG SET maxclients 3 RequirePass p",
            "CONFIG SET maxclients 3 RequirePass (redacted)",
        );
        check("CONFIG GET requirepass", "CONFIG GET requirepass");
        check(
            "ACL SETUSER u on >p",
            "ACL SETUSER (redacted) (redacted) (redacted)",
        );
        check(
            "MIGRATE h 1 k 0 9 AUTH2 u p COPY",
            "MIGRATE h 1 k 0 9 AUTH2 (redacted) (redacted) COPY",
        );
    }

    #[test]
    fn what_is_left_out_is_said() {
        let long = "x".repeat(200);
        let many: Vec<&str> = std::iter::repeat_n("a", 40).collect();
        for args in [vec!["SET", "k", &long], many] {
            let whole = wire(&args);
            let mut scanner = RequestScanner::new();
            scanner.scan(&whole, &Limits::default()).unwrap();
            let shown = shown(&scanner.request(&whole));
            assert_eq!(shown_prefix(&whole), shown);
            let last = String::from_utf8_lossy(shown.last().unwrap());
            assert!(
                last.ends_with("more bytes)") || last.ends_with("more arguments)"),
                "{last}"
            );
        }
    }

    #[test]
    fn the_first_bytes_of_a_request_show_what_they_hold() {
        let whole = wire(&["SET", "key", "0123456789", "EX", "10"]);
        let shown = |len: usize| {
            let shown = shown_prefix(&whole[..len]);
            let shown: Vec<_> = shown
                .iter()
                .map(|arg| String::from_utf8_lossy(arg))
                .collect();
            shown.join(" ")
        };
        assert_eq!(shown(whole.len()), "SET key 0123456789 EX 10");
        assert_eq!(
            shown(31),
            "SET key 0123... (6 more bytes) ... (2 more arguments)"
        );
        for len in 0..whole.len() {
            shown(len);
        }
    }
}
