//! What a script means, as data, and one call of it.

use crate::key::Key;
use crate::resp::{Protocol, Request, encode, parse_i64, reply};

/// What a script does with its key.
///
/// An argument is named by its place in the script's `ARGV`, from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Increments by 1 unless the value has reached a limit; a denial writes nothing.
    Limit {
        /// The argument with the limit: denied where the value is at or over it.
        limit: u8,
        /// When and to what the time to live is set, by calls that increment.
        ttl: Option<TtlArg>,
        /// The reply to a call that incremented.
        granted: Granted,
        /// The reply to a call that did not.
        denied: Denied,
    },
    /// Increments always.
    Increment {
        /// By how much.
        amount: Amount,
        /// When and to what the time to live is set.
        ttl: Option<TtlArg>,
        /// The reply to the call.
        reply: Reply,
    },
    /// Reads value and time to live: `{GET, PTTL}`.
    Read,
}

/// Where a script's time to live comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TtlArg {
    /// The argument.
    pub arg: u8,
    /// What it counts.
    pub unit: Unit,
    /// When it is set.
    pub rule: Rule,
    /// An argument that makes every call set it if it is `1`.
    pub always_if: Option<u8>,
}

/// Unit of a time to live.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// As in `EXPIRE`.
    Seconds,
    /// As in `PEXPIRE`.
    Milliseconds,
}

/// When an increment sets the time to live.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// When the new value is what this call added: the first hit of a window.
    First,
    /// When `PTTL` is negative: there is no key, or it has no deadline.
    Missing,
    /// As `Missing`, or `PTTL` is 0: the deadline is now.
    Due,
    /// Where `Due` does, and then the key is set anew, whatever it held.
    Restart,
    /// Always: the window slides.
    Always,
}

/// Size of an increment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Amount {
    /// 1.
    One,
    /// This argument.
    Arg(u8),
}

/// Reply to a call of [`Kind::Increment`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// The new value.
    Value,
    /// An array of the new value and the time to live in milliseconds.
    ValueAndTtl,
}

/// Reply to a call of [`Kind::Limit`] that incremented.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Granted {
    /// The new value.
    Value,
    /// This number.
    Integer(i64),
}

/// Reply to a call of [`Kind::Limit`] that did not increment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denied {
    /// This number; -1 in the canonical form.
    Integer(i64),
    /// Null: `false` or `nil` in the script.
    Null,
}

/// One call, read: which key, and what is to happen to it.
///
/// Calls that are equal may be combined, whichever script each of them came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Call {
    pub(super) key: Key,
    pub(super) effect: Effect,
}

/// A [`Kind`] with its arguments in place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Effect {
    Limit {
        limit: i64,
        expiry: Option<Expiry>,
        granted: Granted,
        denied: Denied,
    },
    Increment {
        amount: i64,
        expiry: Option<Expiry>,
        reply: Reply,
    },
    Read,
}

/// A time to live to be set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Expiry {
    pub(super) ms: i64,
    pub(super) rule: Rule,
    pub(super) always: bool,
}

impl Kind {
    /// Reads a call of a script that means this; `request` is an `EVAL` or an `EVALSHA`.
    ///
    /// `None` where the call is unusual in any way: not exactly one key, too few arguments, a
    /// number that is not spelled canonically, or out of the range in which Lua is exact. Such a
    /// call is left to the script itself.
    pub fn call(self, request: &Request<'_>) -> Option<Call> {
        if request.len() < FIRST_ARG || request.arg(2) != b"1" {
            return None;
        }
        let number = |arg: u8| {
            // An argument that is not there reads as empty, which is no number.
            let value = parse_i64(argument(request, arg))?;
            (-EXACT..=EXACT).contains(&value).then_some(value)
        };
        let expiry = |ttl: Option<TtlArg>| {
            let Some(ttl) = ttl else { return Some(None) };
            let ms = ttl.unit.ms(number(ttl.arg)?)?;
            let always = match ttl.always_if {
                Some(flag) if !has_argument(request, flag) => return None,
                flag => flag.is_some_and(|flag| argument(request, flag) == b"1"),
            };
            let rule = ttl.rule;
            Some(Some(Expiry { ms, rule, always }))
        };
        let effect = match self {
            Self::Limit {
                limit,
                ttl,
                granted,
                denied,
            } => Effect::Limit {
                limit: number(limit)?,
                expiry: expiry(ttl)?,
                granted,
                denied,
            },
            Self::Increment { amount, ttl, reply } => {
                let amount = match amount {
                    Amount::One => 1,
                    Amount::Arg(arg) => number(arg)?,
                };
                // With 0, every call that finds 0 would be the first one; nobody counts by 0.
                if amount == 0 || amount.abs() > MAX_AMOUNT {
                    return None;
                }
                let expiry = expiry(ttl)?;
                Effect::Increment {
                    amount,
                    expiry,
                    reply,
                }
            }
            Self::Read => Effect::Read,
        };
        let key = Key::new(request.arg(FIRST_ARG - 1));
        Some(Call { key, effect })
    }

    /// The arguments that the meaning names.
    pub(super) fn arguments(self) -> impl Iterator<Item = u8> {
        let (number, ttl) = match self {
            Self::Limit { limit, ttl, .. } => (Some(limit), ttl),
            Self::Increment { amount, ttl, .. } => match amount {
                Amount::One => (None, ttl),
                Amount::Arg(arg) => (Some(arg), ttl),
            },
            Self::Read => (None, None),
        };
        let flag = ttl.and_then(|ttl| ttl.always_if);
        [number, ttl.map(|ttl| ttl.arg), flag].into_iter().flatten()
    }
}

impl Unit {
    /// `count` of this unit in milliseconds, if that is a time to live that can be set: zero and
    /// less delete the key.
    fn ms(self, count: i64) -> Option<i64> {
        let ms = match self {
            Self::Seconds => count.checked_mul(1000)?,
            Self::Milliseconds => count,
        };
        (1..=EXACT).contains(&ms).then_some(ms)
    }
}

impl Call {
    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether the call can not change the key, whatever it holds.
    pub fn is_read(&self) -> bool {
        self.effect == Effect::Read
    }

    /// The limit, for a call that can be denied.
    pub fn limit(&self) -> Option<i64> {
        match self.effect {
            Effect::Limit { limit, .. } => Some(limit),
            _ => None,
        }
    }

    /// Whether the call is certainly denied, and writes nothing, while the key holds `value`
    /// (0 for a key that does not exist). [`Call::deny`] is then its reply.
    pub fn is_denied_at(&self, value: i64) -> bool {
        self.limit().is_some_and(|limit| value >= limit)
    }

    /// Appends the reply of a denial; nothing for a call that can not be denied.
    pub fn deny(&self, protocol: Protocol, out: &mut Vec<u8>) {
        if let Effect::Limit { denied, .. } = self.effect {
            denied.encode(protocol, out);
        }
    }

    /// By how much the call increments the key, which holds `value`. `None` where it does more than
    /// that: it sets the time to live or tells it, or Lua is not exact. A denied call does not
    /// increment: see [`Call::is_denied_at`].
    pub fn adds(&self, value: i64, has_deadline: bool) -> Option<i64> {
        let (amount, expiry) = match self.effect {
            Effect::Limit { expiry, .. } => (1, expiry),
            Effect::Increment {
                amount,
                expiry,
                reply: Reply::Value,
            } => (amount, expiry),
            Effect::Increment { .. } | Effect::Read => return None,
        };
        let sets = expiry.is_some_and(|expiry| match expiry.rule {
            _ if expiry.always => true,
            Rule::First => value == 0,
            Rule::Missing | Rule::Due | Rule::Restart => !has_deadline,
            Rule::Always => true,
        });
        (!sets && (-EXACT..EXACT).contains(&value)).then_some(amount)
    }

    /// Appends the reply of a call that incremented the key to `value`.
    pub fn grant(&self, value: i64, out: &mut Vec<u8>) {
        match self.effect {
            Effect::Limit {
                granted: Granted::Integer(number),
                ..
            } => encode::integer(out, number),
            _ => encode::integer(out, value),
        }
    }
}

impl Effect {
    /// Whether this reply to the call's own script, in RESP3, says that it was denied.
    pub(super) fn is_denial(self, frame: &[u8]) -> bool {
        match self {
            Self::Limit {
                denied: Denied::Integer(number),
                ..
            } => reply::integer(frame) == Some(number),
            Self::Limit { .. } => reply::is_null(frame),
            _ => false,
        }
    }
}

impl Denied {
    /// Appends the reply.
    pub(super) fn encode(self, protocol: Protocol, out: &mut Vec<u8>) {
        match self {
            Self::Integer(number) => encode::integer(out, number),
            Self::Null => encode::null(out, protocol),
        }
    }
}

/// `ARGV[place]` of a script with one key; empty where there is none.
fn argument<'a>(request: &Request<'a>, place: u8) -> &'a [u8] {
    request.arg(index(place))
}

fn has_argument(request: &Request<'_>, place: u8) -> bool {
    index(place) < request.len()
}

fn index(place: u8) -> usize {
    FIRST_ARG - 1 + usize::from(place)
}

/// Where `ARGV[1]` stands: behind the command, the script, the number of keys and one key.
const FIRST_ARG: usize = 4;

/// 2^52: Lua's numbers are exact up to 2^53, so sums of two such values are too. `combined.lua`
/// has the same number.
pub(super) const EXACT: i64 = 1 << 52;

/// 2^40: with [`super::MAX_CALLS`] calls no sum exceeds [`EXACT`].
pub(super) const MAX_AMOUNT: i64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{Limits, RequestScanner};

    const LIMIT: Kind = Kind::Limit {
        limit: 1,
        ttl: Some(TtlArg {
            arg: 2,
            unit: Unit::Seconds,
            rule: Rule::First,
            always_if: None,
        }),
        granted: Granted::Value,
        denied: Denied::Integer(-1),
    };

    /// Reads a call from a line, as a client would type it.
    fn call(kind: Kind, line: &str) -> Option<Call> {
        let mut wire = Vec::new();
        let args: Vec<_> = line.split(' ').collect();
        encode::request(&mut wire, &args);
        let mut scanner = RequestScanner::new();
        scanner.scan(&wire, &Limits::default()).unwrap().unwrap();
        kind.call(&scanner.request(&wire))
    }

    #[test]
    fn reads_the_arguments_that_it_names() {
        let read = call(LIMIT, "EVALSHA sha 1 key 100 60 more").unwrap();
        assert_eq!(read.key().as_bytes(), b"key");
        assert_eq!(read.limit(), Some(100));
        let Effect::Limit { expiry, .. } = read.effect else {
            panic!("{read:?}");
        };
        assert_eq!(expiry.unwrap().ms, 60_000);
        assert_eq!(call(LIMIT, "EVAL body 1 key 100 60"), Some(read));
    }

    #[test]
    fn what_is_unusual_is_no_call() {
        for line in [
            "EVALSHA sha",
            "EVALSHA sha 1",
            "EVALSHA sha 1 key",
            "EVALSHA sha 1 key 100",
            "EVALSHA sha 0 key 100 60",
            "EVALSHA sha 2 key 100 60 60",
            "EVALSHA sha 01 key 100 60",
            "EVALSHA sha 1 key 1e2 60",
            "EVALSHA sha 1 key 100.0 60",
            "EVALSHA sha 1 key +100 60",
            "EVALSHA sha 1 key 9007199254740993 60",
            "EVALSHA sha 1 key -9223372036854775808 60",
            "EVALSHA sha 1 key 100 0",
            "EVALSHA sha 1 key 100 -1",
            "EVALSHA sha 1 key 100 0x3c",
            "EVALSHA sha 1 key 100 9223372036854775807",
        ] {
            assert_eq!(call(LIMIT, line), None, "{line}");
        }
    }

    #[test]
    fn an_amount_is_bounded_and_not_zero() {
        let kind = Kind::Increment {
            amount: Amount::Arg(1),
            ttl: None,
            reply: Reply::Value,
        };
        let reads = |amount: i64| call(kind, &format!("EVALSHA sha 1 key {amount}")).is_some();
        assert!(reads(1) && reads(-1) && reads(MAX_AMOUNT) && reads(-MAX_AMOUNT));
        assert!(!reads(0) && !reads(MAX_AMOUNT + 1) && !reads(-MAX_AMOUNT - 1));
        let most = i64::from(crate::limit::MAX_CALLS) * MAX_AMOUNT;
        assert!(most <= EXACT);
    }

    #[test]
    fn a_flag_makes_another_call() {
        let kind = Kind::Increment {
            amount: Amount::One,
            ttl: Some(TtlArg {
                arg: 2,
                unit: Unit::Milliseconds,
                rule: Rule::Due,
                always_if: Some(1),
            }),
            reply: Reply::ValueAndTtl,
        };
        let plain = call(kind, "EVALSHA sha 1 key 0 1000").unwrap();
        assert_eq!(
            call(kind, "EVALSHA sha 1 key x 1000").as_ref(),
            Some(&plain)
        );
        assert_ne!(
            call(kind, "EVALSHA sha 1 key 1 1000").as_ref(),
            Some(&plain)
        );
    }

    #[test]
    fn a_known_value_denies_what_it_has_reached() {
        let call = call(LIMIT, "EVALSHA sha 1 key 100 60").unwrap();
        assert!(call.is_denied_at(100) && call.is_denied_at(i64::MAX));
        assert!(!call.is_denied_at(99));
        let mut out = Vec::new();
        call.deny(Protocol::Resp3, &mut out);
        assert_eq!(out, b":-1\r\n");
    }
}
