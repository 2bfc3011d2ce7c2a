//! Which arguments of a request are keys.

use super::Command;
use super::options::{self, find_option};
use super::specs::{self, KeySpec};
use crate::resp::{Request, parse_i64};

/// Where the keys of a command are among its arguments; the name is argument 0. The channels of
/// `SPUBLISH` and its kin count as keys: Redis places them alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keys {
    /// Nowhere.
    None,
    /// Every `step`th argument from `first` to `last`; -1 is the last argument, -2 the one before.
    Range {
        /// At least 1.
        first: u8,
        /// Counted from the end if negative.
        last: i8,
        /// At least 1.
        step: u8,
    },
    /// As many as argument `at` says, directly after it.
    Counted {
        /// Place of the number.
        at: u8,
        /// What the number may be, and the error if it is not.
        rule: CountRule,
    },
    /// `XREAD`, `XREADGROUP`: the first half of what follows `STREAMS`.
    Streams,
    /// `SORT`: the first argument and the last `STORE`'s.
    Sort,
    /// `GEORADIUS`, `GEORADIUSBYMEMBER`: the first argument and the last `STORE`'s or
    /// `STOREDIST`'s.
    GeoRadius,
    /// `MIGRATE`: argument 3, or those after `KEYS` if that is empty.
    Migrate,
    /// As a node says it of a command that the table lacks.
    Specified(&'static [KeySpec]),
}

/// Who counts its keys, and so what is an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CountRule {
    /// `EVAL` and its kin: zero or more.
    Script,
    /// `FCALL` and its kin: zero or more, with a text of its own.
    Function,
    /// `ZUNION` and its kin: one or more.
    Sets,
    /// `ZUNIONSTORE` and its kin: like `Sets`, after a destination, which is a key too.
    Store,
    /// `SINTERCARD`: one or more.
    Card,
    /// `LMPOP` and its kin: one or more, and an argument after them.
    Pop,
}

/// Why a request's keys can not be told. The text is Redis's, code first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeysError {
    /// A number is none, or beyond 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// `BLOCK` of `XREAD` is no integer.
    #[error("ERR timeout is not an integer or out of range")]
    TimeoutNotAnInteger,
    /// `BLOCK` of `XREAD` is negative.
    #[error("ERR timeout is negative")]
    NegativeTimeout,
    /// `FCALL` with a number that is none.
    #[error("ERR Bad number of keys provided")]
    BadNumber,
    /// A script with less than zero keys.
    #[error("ERR Number of keys can't be negative")]
    Negative,
    /// More keys than arguments.
    #[error("ERR Number of keys can't be greater than number of args")]
    TooMany,
    /// No key for this command, which needs one.
    #[error("ERR at least 1 input key is needed for '{0}' command")]
    NoInputKey(&'static str),
    /// No key, or a number that is none.
    #[error("ERR numkeys should be greater than 0")]
    NotPositive,
    /// An option that does not exist or lacks its value.
    #[error("ERR syntax error")]
    Syntax,
    /// A key of this command has no value.
    #[error("ERR wrong number of arguments for '{0}' command")]
    OddPairs(&'static str),
    /// `XREAD` with an odd number of arguments after `STREAMS`.
    #[error(
        "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified."
    )]
    Unbalanced,
    /// An option of `XREADGROUP` given to `XREAD`.
    #[error("ERR The {0} option is only supported by XREADGROUP. You called XREAD instead.")]
    OnlyForGroups(&'static str),
    /// `XREADGROUP` without `GROUP`.
    #[error("ERR Missing GROUP option for XREADGROUP")]
    NoGroup,
    /// `EVALSHA` with something that can not be a hash; checked before the keys.
    #[error("NOSCRIPT No matching script. Please use EVAL.")]
    NotAHash,
}

impl Keys {
    /// A [`Keys::Range`].
    pub const fn range(first: u8, last: i8, step: u8) -> Self {
        Self::Range { first, last, step }
    }

    /// A [`Keys::Counted`].
    pub const fn counted(at: u8, rule: CountRule) -> Self {
        Self::Counted { at, rule }
    }

    /// First key, last key and step as `COMMAND` reports them: what can be said without the
    /// request, (0, 0, 0) if nothing.
    pub const fn static_range(self) -> (u8, i8, u8) {
        match self {
            Self::Range { first, last, step } => (first, last, step),
            Self::Sort
            | Self::GeoRadius
            | Self::Counted {
                rule: CountRule::Store,
                ..
            } => (1, 1, 1),
            Self::Migrate => (3, 3, 1),
            Self::None | Self::Streams | Self::Counted { .. } | Self::Specified(_) => (0, 0, 0),
        }
    }
}

/// Writes the indices of the key arguments (into [`Request::arg`]) to `out`, which is cleared
/// first. The same key may be there twice; a destination comes first or last.
///
/// The request must have passed [`super::lookup`], which checks the arity.
///
/// # Errors
///
/// The error that Redis gives for the request; `out` is empty then. `FCALL` of an unknown
/// function is the one case where Redis finds another fault first.
pub fn key_positions(
    command: &Command,
    request: &Request<'_>,
    out: &mut Vec<usize>,
) -> Result<(), KeysError> {
    out.clear();
    match command.keys {
        Keys::None => Ok(()),
        Keys::Range { first, last, step } => {
            let (first, step) = (usize::from(first), usize::from(step));
            let end = if last < 0 {
                // -1 is the last argument, so the end is the request's.
                (request.len() + 1).saturating_sub(usize::from(last.unsigned_abs()))
            } else {
                request.len().min(usize::from(last.unsigned_abs()) + 1)
            };
            if first >= end {
                return Err(KeysError::Syntax);
            }
            if !(end - first).is_multiple_of(step) {
                return Err(KeysError::OddPairs(command.name));
            }
            out.extend((first..end).step_by(step));
            Ok(())
        }
        Keys::Counted { at, rule } => {
            let at = usize::from(at);
            let count = counted(command, request, at, rule)?;
            if rule == CountRule::Store {
                out.push(1);
            }
            out.extend(at + 1..=at + count);
            Ok(())
        }
        Keys::Streams => {
            let streams = options::streams(command, request)?;
            out.extend(streams.first..streams.first + streams.count);
            Ok(())
        }
        Keys::Sort => {
            out.push(1);
            out.extend(options::sort(request).store);
            Ok(())
        }
        Keys::GeoRadius => {
            out.push(1);
            out.extend(geo_destination(command, request));
            Ok(())
        }
        Keys::Migrate => {
            migrated(request, out);
            Ok(())
        }
        Keys::Specified(specs) => {
            specs::positions(specs, request, out).inspect_err(|_| out.clear())
        }
    }
}

/// The number of keys, checked in the order of Redis's checks.
fn counted(
    command: &Command,
    request: &Request<'_>,
    at: usize,
    rule: CountRule,
) -> Result<usize, KeysError> {
    let room = request.len().saturating_sub(at + 1);
    let number = parse_i64(request.arg(at));
    let minimum = match rule {
        CountRule::Script | CountRule::Function => 0,
        CountRule::Sets | CountRule::Store | CountRule::Card | CountRule::Pop => 1,
    };
    if rule == CountRule::Script
        && command.name.starts_with("evalsha")
        && request.arg(1).len() != SHA1_HEX_BYTES
    {
        return Err(KeysError::NotAHash);
    }
    let number = number.ok_or(match rule {
        CountRule::Script | CountRule::Sets | CountRule::Store => KeysError::NotAnInteger,
        CountRule::Function => KeysError::BadNumber,
        CountRule::Card | CountRule::Pop => KeysError::NotPositive,
    })?;
    let count = usize::try_from(number).ok().filter(|n| *n >= minimum);
    let count = count.ok_or(match rule {
        CountRule::Script | CountRule::Function => KeysError::Negative,
        CountRule::Sets | CountRule::Store => KeysError::NoInputKey(command.name),
        CountRule::Card | CountRule::Pop => KeysError::NotPositive,
    })?;
    match rule {
        CountRule::Script | CountRule::Function | CountRule::Card if count > room => {
            Err(KeysError::TooMany)
        }
        CountRule::Sets | CountRule::Store if count > room => Err(KeysError::Syntax),
        CountRule::Pop if count >= room => Err(KeysError::Syntax),
        _ => Ok(count),
    }
}

/// Length of a script's hash in hexadecimal digits.
const SHA1_HEX_BYTES: usize = 40;

/// Place of the key that `STORE` or `STOREDIST` names. The options start at 6 after a longitude
/// and a latitude, at 5 after a member.
fn geo_destination(command: &Command, request: &Request<'_>) -> Option<usize> {
    let mut destination = None;
    let mut at = if command.name == "georadius" { 6 } else { 5 };
    while at + 1 < request.len() {
        match find_option(request.arg(at), &["store", "storedist", "count"]) {
            Some("count") => at += 1,
            Some(_) => {
                at += 1;
                destination = Some(at);
            }
            None => {}
        }
        at += 1;
    }
    destination
}

/// `MIGRATE host port key db timeout [COPY] [REPLACE] [AUTH p] [AUTH2 u p] [KEYS key ...]`.
fn migrated(request: &Request<'_>, out: &mut Vec<usize>) {
    let mut at = 6;
    while request.arg(3).is_empty() && at < request.len() {
        match find_option(request.arg(at), &["auth", "auth2", "keys"]) {
            Some("auth") => at += 1,
            Some("auth2") => at += 2,
            Some(_) => {
                out.extend(at + 1..request.len());
                return;
            }
            None => {}
        }
        at += 1;
    }
    out.push(3);
}
