//! What a request's options say beyond the table's line: whether it waits, whether it reads keys
//! that it does not name.

use super::keys::KeysError;
use super::{Class, Command, Flags, Keys};
use crate::resp::{Request, parse_i64};

/// Whether the request may wait for another client, so that it must not go on a shared connection.
/// `XREAD` and `XREADGROUP` do with `BLOCK` only.
pub fn blocks(command: &Command, request: &Request<'_>) -> bool {
    if !command.flags.contains(Flags::BLOCKING) {
        return false;
    }
    match command.keys {
        Keys::Streams => block_option(command, request).is_some(),
        _ => true,
    }
}

/// Where `BLOCK` stands in an `XREAD` or `XREADGROUP`.
pub fn block_option(command: &Command, request: &Request<'_>) -> Option<usize> {
    let mut at = if matches!(command.keys, Keys::Streams) {
        1
    } else {
        request.len()
    };
    while at < request.len() {
        match find_option(request.arg(at), STREAM_OPTIONS) {
            Some("block") => return Some(at),
            Some("count") => at += 1,
            Some("group") => at += 2,
            Some("streams") => return None,
            // Of a later version; how many values it has is not known.
            Some(_) | None => {}
        }
        at += 1;
    }
    None
}

/// The database that the request names for what it makes, as `MOVE` does and `COPY ... DB n` may;
/// the last one if it names several. A number that is none is left to Redis's own error.
pub fn other_database(command: &Command, request: &Request<'_>) -> Option<i64> {
    if command.name == "move" {
        return parse_i64(request.arg(2));
    }
    let mut named = None;
    let mut at = if command.name == "copy" {
        3
    } else {
        request.len()
    };
    while at < request.len() {
        match find_option(request.arg(at), &["replace", "db"]) {
            Some("db") => {
                at += 1;
                named = parse_i64(request.arg(at)).or(named);
            }
            Some(_) => {}
            None => return None,
        }
        at += 1;
    }
    named
}

/// Whether the request may touch keys of its node that it does not name: a script or function
/// without declared keys, `SORT` and `SORT_RO` with a pattern that names keys.
///
/// A pattern without `*` (`BY nosort`, `GET #`) looks nothing up (Redis `sort.c`).
pub fn needs_whole_node(command: &Command, request: &Request<'_>) -> bool {
    match (command.class, command.name) {
        (Class::Script, _) => request.arg(2) == b"0",
        (_, "sort" | "sort_ro") => !sort(request).patterns.is_empty(),
        _ => false,
    }
}

/// The patterns in the request that name further keys to be read: those of `SORT` with a `*`.
pub fn key_patterns<'r>(
    command: &Command,
    request: &Request<'r>,
) -> impl Iterator<Item = &'r [u8]> + use<'r> {
    let patterns = match command.name {
        "sort" | "sort_ro" => sort(request).patterns,
        _ => Vec::new(),
    };
    let request = *request;
    patterns.into_iter().map(move |at| request.arg(at))
}

/// The option of `SORT` that first names such a pattern, as Redis calls it.
pub fn looking_option(command: &Command, request: &Request<'_>) -> Option<&'static str> {
    if !matches!(command.name, "sort" | "sort_ro") {
        return None;
    }
    let at = *sort(request).patterns.first()?;
    let is_by = request.arg(at - 1).eq_ignore_ascii_case(b"by");
    Some(if is_by { "BY" } else { "GET" })
}

/// What the options of `SORT` say.
#[derive(Clone, Debug, Default)]
pub(super) struct SortOptions {
    /// Place of the key where the result goes.
    pub(super) store: Option<usize>,
    /// Places of patterns by which other keys are looked up.
    pub(super) patterns: Vec<usize>,
}

/// Reads the options as `sortCommandGeneric` does, so the last `STORE` wins. Redis's own
/// `COMMAND GETKEYS` takes the value of an option for an option after `STORE`; this does not.
pub(super) fn sort(request: &Request<'_>) -> SortOptions {
    let mut options = SortOptions::default();
    let mut at = 2;
    while at < request.len() {
        match find_option(request.arg(at), &["limit", "by", "get", "store"]) {
            Some("limit") => at += 2,
            Some("store") => {
                at += 1;
                options.store = (at < request.len()).then_some(at);
            }
            Some(_) => {
                at += 1;
                if request.arg(at).contains(&b'*') {
                    options.patterns.push(at);
                }
            }
            None => {}
        }
        at += 1;
    }
    options
}

/// Where the keys of `XREAD` are.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamsRead {
    pub(super) first: usize,
    pub(super) count: usize,
}

const STREAM_OPTIONS: &[&str] = &["block", "count", "streams", "group", "noack"];

/// Reads the options in `xreadCommand`'s order, which decides the error of a request with several
/// faults.
///
/// # Errors
///
/// Redis's.
pub(super) fn streams(command: &Command, request: &Request<'_>) -> Result<StreamsRead, KeysError> {
    let of_group = command.name == "xreadgroup";
    let mut group = false;
    let mut at = 1;
    let keys = loop {
        // An option without the values that it needs is unknown, as in Redis.
        let left = request.len().saturating_sub(at + 1);
        match find_option(request.arg(at), STREAM_OPTIONS) {
            Some("block") if left >= 1 => {
                at += 1;
                match parse_i64(request.arg(at)) {
                    None => return Err(KeysError::TimeoutNotAnInteger),
                    Some(..0) => return Err(KeysError::NegativeTimeout),
                    Some(_) => {}
                }
            }
            Some("count") if left >= 1 => {
                at += 1;
                parse_i64(request.arg(at)).ok_or(KeysError::NotAnInteger)?;
            }
            Some("streams") if left >= 1 => {
                if !left.is_multiple_of(2) {
                    return Err(KeysError::Unbalanced);
                }
                break StreamsRead {
                    first: at + 1,
                    count: left / 2,
                };
            }
            Some("group") if left >= 2 => {
                if !of_group {
                    return Err(KeysError::OnlyForGroups("GROUP"));
                }
                group = true;
                at += 2;
            }
            Some("noack") if of_group => {}
            Some("noack") => return Err(KeysError::OnlyForGroups("NOACK")),
            Some(_) => return Err(KeysError::Syntax),
            // A node that does not know it, either, says so.
            None => return behind_word(request, at + 1).ok_or(KeysError::Syntax),
        }
        at += 1;
        if at >= request.len() {
            return Err(KeysError::Syntax);
        }
    };
    if of_group && !group {
        return Err(KeysError::NoGroup);
    }
    Ok(keys)
}

/// Keys behind the first `STREAMS` from `at` on, wherever the options before it end.
fn behind_word(request: &Request<'_>, at: usize) -> Option<StreamsRead> {
    let is_word = |at: &usize| request.arg(*at).eq_ignore_ascii_case(b"streams");
    let first = (at..request.len()).find(is_word)? + 1;
    let left = request.len() - first;
    (left > 0 && left.is_multiple_of(2)).then_some(StreamsRead {
        first,
        count: left / 2,
    })
}

/// The option that `arg` is, in any case; `options` are lower case.
pub(super) fn find_option(arg: &[u8], options: &[&'static str]) -> Option<&'static str> {
    options
        .iter()
        .find(|option| arg.eq_ignore_ascii_case(option.as_bytes()))
        .copied()
}
