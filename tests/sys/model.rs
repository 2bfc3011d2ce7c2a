//! A small Redis of a few strings: what commands on one key or several mean, for the checker of
//! histories. A deadline is known by its length, which no test reaches.

use std::collections::BTreeMap;

use crate::connection::{Request, words};
use crate::history::{Expected, Model, integer};
use crate::reply::Reply;
use tally::limit::CANONICAL_WITH_TTL;

/// A key; its name is the test's.
pub(crate) type At = usize;

/// A condition of `EXPIRE`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum If {
    Always,
    None,
    Any,
    Later,
    Sooner,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    IncrBy(At, i64),
    Get(At),
    Strlen(At),
    Exists(At),
    Ttl(At),
    Set(At, &'static str),
    SetKeepTtl(At, &'static str),
    SetEx(At, &'static str, i64),
    SetNx(At, &'static str),
    GetSet(At, &'static str),
    GetDel(At),
    Del(At),
    Append(At, &'static str),
    SetRange(At, &'static str),
    Float(At),
    Expire(At, i64, If),
    Persist(At),
    Rename(At, At),
    Copy(At, At),
    MSetNx(At, At),
    /// A script that increments both.
    Both(At, At),
    /// An increment with a limit, as Tally knows it.
    Limit(At, i64),
    /// `MULTI` to `EXEC`.
    Transaction(Vec<Self>),
    /// `WATCH`, and `SET`s of values one higher than what was read, in a transaction.
    Raise(Vec<(At, Option<Vec<u8>>)>),
}

/// Values with the length of their deadline.
pub(crate) type State = BTreeMap<At, (Vec<u8>, Option<i64>)>;

impl Model for Action {
    type State = State;

    fn after(&self, state: &State) -> (State, Expected) {
        let mut state = state.clone();
        let expected = self.apply(&mut state);
        (state, expected)
    }

    fn is_harmless(&self, reply: &Reply) -> bool {
        match (self, reply) {
            // The first of the two may have been incremented.
            (Self::Both(..), _) => false,
            // From -2 an increment gives what a denial gives.
            (Self::Limit(..), reply) => reply.is_error(),
            (Self::Get(_) | Self::Strlen(_) | Self::Exists(_) | Self::Ttl(_), _)
            | (Self::Raise(..) | Self::GetDel(_), Reply::Nil)
            | (_, Reply::Error(_)) => true,
            (
                Self::Del(_)
                | Self::Expire(..)
                | Self::Persist(_)
                | Self::Copy(..)
                | Self::MSetNx(..)
                | Self::SetNx(..),
                reply,
            ) => *reply == Reply::Integer(0),
            _ => false,
        }
    }
}

impl Action {
    /// The requests, the last of which has the reply.
    pub(crate) fn requests(&self, names: &[String]) -> Vec<Request> {
        let name = |at: &At| names[*at].as_str();
        let line = match self {
            Self::IncrBy(key, 1) => format!("INCR {}", name(key)),
            Self::IncrBy(key, -1) => format!("DECR {}", name(key)),
            Self::IncrBy(key, by) => format!("INCRBY {} {by}", name(key)),
            Self::Get(key) => format!("GET {}", name(key)),
            Self::Strlen(key) => format!("STRLEN {}", name(key)),
            Self::Exists(key) => format!("EXISTS {}", name(key)),
            Self::Ttl(key) => format!("TTL {}", name(key)),
            Self::Set(key, value) => format!("SET {} {value}", name(key)),
            Self::SetKeepTtl(key, value) => format!("SET {} {value} KEEPTTL", name(key)),
            Self::SetEx(key, value, ttl) => format!("SET {} {value} EX {ttl}", name(key)),
            Self::SetNx(key, value) => format!("SETNX {} {value}", name(key)),
            Self::GetSet(key, value) => format!("GETSET {} {value}", name(key)),
            Self::GetDel(key) => format!("GETDEL {}", name(key)),
            Self::Del(key) => format!("DEL {}", name(key)),
            Self::Append(key, tail) => format!("APPEND {} {tail}", name(key)),
            Self::SetRange(key, value) => format!("SETRANGE {} 0 {value}", name(key)),
            Self::Float(key) => format!("INCRBYFLOAT {} 1", name(key)),
            Self::Expire(key, ttl, condition) => {
                let condition = match condition {
                    If::Always => "",
                    If::None => " NX",
                    If::Any => " XX",
                    If::Later => " GT",
                    If::Sooner => " LT",
                };
                format!("EXPIRE {} {ttl}{condition}", name(key))
            }
            Self::Persist(key) => format!("PERSIST {}", name(key)),
            Self::Rename(from, to) => format!("RENAME {} {}", name(from), name(to)),
            Self::Copy(from, to) => format!("COPY {} {} REPLACE", name(from), name(to)),
            Self::MSetNx(one, two) => format!("MSETNX {} 1 {} 2", name(one), name(two)),
            Self::Both(one, two) => {
                let body = "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[2])";
                format!("EVAL \"{body}\" 2 {} {}", name(one), name(two))
            }
            Self::Limit(key, limit) => {
                let call = ["EVAL", CANONICAL_WITH_TTL, "1", name(key)];
                let mut call = call.map(|word| word.as_bytes().to_vec()).to_vec();
                call.extend([limit.to_string().into(), LIMIT_TTL.to_string().into()]);
                return vec![call];
            }
            Self::Transaction(actions) => {
                let queued = actions.iter().flat_map(|action| action.requests(names));
                let ends = [words("MULTI"), words("EXEC")];
                let [begin, end] = ends;
                return [begin].into_iter().chain(queued).chain([end]).collect();
            }
            Self::Raise(reads) => {
                let sets = reads.iter().map(|(key, read)| {
                    let next = next(read.as_deref());
                    words(&format!("SET {} {next}", name(key)))
                });
                let (begin, end) = (words("MULTI"), words("EXEC"));
                return [begin].into_iter().chain(sets).chain([end]).collect();
            }
        };
        vec![words(&line)]
    }

    fn apply(&self, state: &mut State) -> Expected {
        match self {
            Self::IncrBy(key, by) => increment(state, *key, *by),
            Self::Get(key) => bulk(state.get(key)),
            Self::Strlen(key) => number(length(state.get(key))),
            Self::Exists(key) => number(i64::from(state.contains_key(key))),
            Self::Ttl(key) => match state.get(key) {
                None => number(-2),
                Some((_, None)) => number(-1),
                Some((_, Some(ttl))) => Expected::Seconds(*ttl),
            },
            Self::Set(key, value) => put(state, *key, value, None),
            Self::SetKeepTtl(key, value) => {
                let ttl = state.get(key).and_then(|(_, ttl)| *ttl);
                put(state, *key, value, ttl)
            }
            Self::SetEx(key, value, ttl) => put(state, *key, value, Some(*ttl)),
            Self::SetNx(key, value) => {
                let is_free = !state.contains_key(key);
                if is_free {
                    put(state, *key, value, None);
                }
                number(i64::from(is_free))
            }
            Self::GetSet(key, value) => {
                let old = bulk(state.get(key));
                put(state, *key, value, None);
                old
            }
            Self::GetDel(key) => bulk(state.remove(key).as_ref()),
            Self::Del(key) => number(i64::from(state.remove(key).is_some())),
            Self::Append(key, tail) => {
                let (value, _) = state.entry(*key).or_default();
                value.extend_from_slice(tail.as_bytes());
                number(length(state.get(key)))
            }
            Self::SetRange(key, new) => {
                let (value, _) = state.entry(*key).or_default();
                let rest = value.split_off(value.len().min(new.len()));
                *value = [new.as_bytes(), &rest].concat();
                number(length(state.get(key)))
            }
            Self::Float(key) => increment_float(state, *key),
            Self::Expire(key, ttl, condition) => expire(state, *key, *ttl, *condition),
            Self::Persist(key) => {
                let ttl = state.get_mut(key).and_then(|(_, ttl)| ttl.take());
                number(i64::from(ttl.is_some()))
            }
            Self::Rename(..) | Self::Copy(..) | Self::MSetNx(..) | Self::Both(..) => {
                self.apply_to_two(state)
            }
            Self::Limit(key, limit) => limited(state, *key, *limit),
            Self::Transaction(actions) => {
                Expected::Each(actions.iter().map(|action| action.apply(state)).collect())
            }
            Self::Raise(reads) => {
                let is_as_read = |(key, read): &(At, Option<Vec<u8>>)| {
                    state.get(key).map(|(value, _)| value) == read.as_ref()
                };
                if !reads.iter().all(is_as_read) {
                    return Expected::Reply(Reply::Nil);
                }
                for (key, read) in reads {
                    put(state, *key, &next(read.as_deref()).to_string(), None);
                }
                let done = reads.iter().map(|_| status()).collect();
                Expected::Either([Reply::Nil, Reply::Array(done)])
            }
        }
    }

    fn apply_to_two(&self, state: &mut State) -> Expected {
        match self {
            Self::Rename(from, to) => match state.remove(from) {
                None => Expected::Error("ERR no such key"),
                Some(held) => {
                    state.insert(*to, held);
                    ok()
                }
            },
            Self::Copy(from, to) => match state.get(from).cloned() {
                None => number(0),
                Some(held) => {
                    state.insert(*to, held);
                    number(1)
                }
            },
            Self::MSetNx(one, two) => {
                let is_free = !state.contains_key(one) && !state.contains_key(two);
                if is_free {
                    put(state, *one, "1", None);
                    put(state, *two, "2", None);
                }
                number(i64::from(is_free))
            }
            Self::Both(one, two) => match increment(state, *one, 1) {
                Expected::Reply(_) => increment(state, *two, 1),
                error => error,
            },
            other => panic!("{other:?} is on one key"),
        }
    }
}

/// What a client sets that has read this.
fn next(read: Option<&[u8]>) -> i64 {
    read.and_then(integer).unwrap_or_default().wrapping_add(1)
}

fn status() -> Reply {
    Reply::Simple(b"OK".to_vec())
}

fn ok() -> Expected {
    Expected::Reply(status())
}

fn number(value: i64) -> Expected {
    Expected::Reply(Reply::Integer(value))
}

fn bulk(held: Option<&(Vec<u8>, Option<i64>)>) -> Expected {
    Expected::Reply(held.map_or(Reply::Nil, |(value, _)| Reply::Bulk(value.clone())))
}

fn length(held: Option<&(Vec<u8>, Option<i64>)>) -> i64 {
    held.map_or(0, |(value, _)| i64::try_from(value.len()).unwrap())
}

fn put(state: &mut State, key: At, value: &str, ttl: Option<i64>) -> Expected {
    state.insert(key, (value.into(), ttl));
    ok()
}

fn increment(state: &mut State, key: At, by: i64) -> Expected {
    let held = state.get(&key);
    let Some(current) = held.map_or(Some(0), |(value, _)| integer(value)) else {
        return Expected::Error("ERR value is not an integer");
    };
    let Some(sum) = current.checked_add(by) else {
        return Expected::Error("ERR increment or decrement would overflow");
    };
    state.entry(key).or_default().0 = sum.to_string().into();
    number(sum)
}

/// The values of a test are integers, if with leading zeros, or no numbers.
fn increment_float(state: &mut State, key: At) -> Expected {
    let text = state
        .get(&key)
        .map_or(Some("0"), |(value, _)| std::str::from_utf8(value).ok());
    let Some(current) = text.and_then(|text| text.parse::<i128>().ok()) else {
        return Expected::Error("ERR value is not a valid float");
    };
    let sum = (current + 1).to_string();
    state.entry(key).or_default().0 = sum.clone().into();
    Expected::Reply(Reply::Bulk(sum.into()))
}

fn expire(state: &mut State, key: At, new: i64, condition: If) -> Expected {
    let Some((_, ttl)) = state.get_mut(&key) else {
        return number(0);
    };
    let is_met = match (condition, *ttl) {
        (If::Always, _) | (If::None | If::Sooner, None) | (If::Any, Some(_)) => true,
        (If::None, Some(_)) | (If::Any | If::Later, None) => false,
        // By less than the test's length: either may be the later one.
        (If::Later | If::Sooner, Some(old)) if old == new => {
            return Expected::Either([Reply::Integer(0), Reply::Integer(1)]);
        }
        (If::Later, Some(old)) => new > old,
        (If::Sooner, Some(old)) => new < old,
    };
    if is_met {
        *ttl = Some(new);
    }
    number(i64::from(is_met))
}

fn limited(state: &mut State, key: At, limit: i64) -> Expected {
    let held = state.get(&key);
    let current = held.map_or(Some(0), |(value, _)| {
        std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<i128>().ok())
    });
    let Some(current) = current else {
        return Expected::Error("ERR");
    };
    if current >= limit.into() {
        return number(-1);
    }
    let expected = increment(state, key, 1);
    if matches!(expected, Expected::Reply(Reply::Integer(1)))
        && let Some((_, ttl)) = state.get_mut(&key)
    {
        *ttl = Some(LIMIT_TTL);
    }
    expected
}

/// How long a limit lasts; no other deadline is as long.
const LIMIT_TTL: i64 = 70_000;
