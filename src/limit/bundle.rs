//! Calls on different keys as one script.

use std::sync::LazyLock;

use super::combined::{Dialect, MalformedAnswer, Ours, is_unknown, rule};
use super::meaning::{Call, Effect, Granted, Reply};
use crate::key::Key;
use crate::resp::{Protocol, encode, reply};

/// Calls of one effect, each on a key of its own, that one script makes one after the other.
///
/// What a call costs a node is mostly the call itself. Measured on Redis 7.0, a limit takes 2.7
/// microseconds in a call of its own, 3.0 in pairs, 1.7 in bundles of 8 and 1.3 in bundles of 32;
/// a hit whose client is told the time to live 3.2 alone, 2.3 in 8 and 1.8 in 32.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Bundle {
    effect: Effect,
    keys: Vec<Key>,
}

/// What one call of a bundle came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// Performed: its reply, in RESP3.
    Answered(Vec<u8>),
    /// It wrote nothing, and has to run as its own script: its answer is that script's doing.
    Alone,
}

/// What a node's reply says about a bundle.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Parts {
    /// One for each call, in order.
    Each(Vec<Part>),
    /// Nothing was written: the node does not know the script. To be sent again as
    /// [`Dialect::Body`], before anything that waits for the keys.
    Unknown,
    /// Nothing was written: every call has to run as its own script.
    Alone,
}

impl Bundle {
    /// One call.
    pub fn new(call: Call) -> Self {
        Self {
            effect: call.effect,
            keys: vec![call.key],
        }
    }

    /// Adds a call if its effect is the same and there are fewer than [`MAX_BUNDLE`]; says whether
    /// it did. No two calls of a bundle may be on one key.
    pub fn join(&mut self, call: &Call) -> bool {
        let joins = !self.is_full() && self.effect == call.effect;
        if joins {
            self.keys.push(call.key.clone());
        }
        joins
    }

    /// Whether it takes no further call: it has as many as it may, or is one that only reads.
    pub fn is_full(&self) -> bool {
        self.keys.len() >= MAX_BUNDLE || self.effect == Effect::Read
    }

    /// The keys, one for each call.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Whether this reply to one of the calls, in RESP3, says that it was denied.
    pub fn is_denial(&self, frame: &[u8]) -> bool {
        self.effect.is_denial(frame)
    }

    /// The script that makes its calls.
    pub fn script(&self) -> &'static str {
        SCRIPT.body
    }

    /// Appends the request; [`Bundle::settle`] takes its reply.
    pub fn encode(&self, dialect: Dialect, out: &mut Vec<u8>) {
        let (amount, limit, expiry) = match self.effect {
            Effect::Limit { limit, expiry, .. } => (1, Some(limit), expiry),
            Effect::Increment { amount, expiry, .. } => (amount, None, expiry),
            Effect::Read => return,
        };
        let (command, script) = SCRIPT.named(dialect);
        encode::array(out, 3 + self.keys.len() + 5);
        encode::bulk(out, command);
        encode::bulk(out, script);
        encode::number(out, self.keys.len());
        for key in &self.keys {
            encode::bulk(out, key.as_bytes());
        }
        encode::decimal(out, amount);
        for number in [limit, expiry.map(|expiry| expiry.ms)] {
            match number {
                Some(number) => encode::decimal(out, number),
                None => encode::bulk(out, b""),
            }
        }
        encode::bulk(out, rule(expiry));
        encode::bulk(out, if self.tells() { b"1" } else { b"" });
    }

    /// Whether the callers are told the time to live.
    fn tells(&self) -> bool {
        matches!(
            self.effect,
            Effect::Increment {
                reply: Reply::ValueAndTtl,
                ..
            }
        )
    }

    /// Reads the node's reply, one whole frame.
    ///
    /// # Errors
    ///
    /// [`MalformedAnswer`] if it is neither an error nor what the script returns.
    pub fn settle(&self, frame: &[u8]) -> Result<Parts, MalformedAnswer> {
        if reply::is_error(frame) {
            return Ok(if is_unknown(frame) {
                Parts::Unknown
            } else {
                Parts::Alone
            });
        }
        let parts = reply::elements(frame).ok_or(MalformedAnswer)?;
        if parts.len() != self.keys.len() {
            return Err(MalformedAnswer);
        }
        let parts: Option<_> = parts.map(|part| self.part(part)).collect();
        Ok(Parts::Each(parts.ok_or(MalformedAnswer)?))
    }

    /// Reads what the script returned for one key.
    fn part(&self, part: &[u8]) -> Option<Part> {
        if reply::is_null(part) {
            return Some(Part::Alone);
        }
        let mut out = Vec::new();
        match self.effect {
            _ if reply::is_error(part) => out.extend_from_slice(part),
            Effect::Limit { denied, .. } if reply::text(part) == Some(b"d") => {
                denied.encode(Protocol::Resp3, &mut out);
            }
            _ if self.tells() => {
                let is_pair = reply::elements(part)?.len() == 2;
                out.extend_from_slice(is_pair.then_some(part)?);
            }
            Effect::Limit {
                granted: Granted::Integer(number),
                ..
            } if reply::integer(part).is_some() => encode::integer(&mut out, number),
            _ => {
                reply::integer(part)?;
                out.extend_from_slice(part);
            }
        }
        Some(Part::Answered(out))
    }
}

static SCRIPT: LazyLock<Ours> = LazyLock::new(|| Ours::new(include_str!("bundle.lua")));

/// Most calls in one. With twice as many a call costs a node as much (measured on Redis 7.0), and
/// the node is kept from others for longer: these take it some 40 microseconds.
pub const MAX_BUNDLE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::meaning::{Denied, Expiry, Rule};

    fn limit(key: &str, limit: i64, rule: Rule) -> Call {
        Call {
            key: Key::new(key.as_bytes()),
            effect: Effect::Limit {
                limit,
                expiry: Some(Expiry {
                    ms: 60_000,
                    rule,
                    always: false,
                }),
                granted: Granted::Value,
                denied: Denied::Integer(-1),
            },
        }
    }

    fn bundle(keys: &[&str]) -> Bundle {
        let mut calls = keys.iter().map(|key| limit(key, 5, Rule::First));
        let mut bundle = Bundle::new(calls.next().unwrap());
        for call in calls {
            assert!(bundle.join(&call));
        }
        bundle
    }

    #[test]
    fn takes_equal_calls_up_to_its_bound() {
        let mut bundle = bundle(&["k"]);
        let other = limit("l", 6, Rule::First);
        assert!(!bundle.join(&other));
        while !bundle.is_full() {
            assert!(bundle.join(&limit("l", 5, Rule::First)));
        }
        assert_eq!(bundle.keys().len(), MAX_BUNDLE);
        assert!(!bundle.join(&limit("l", 5, Rule::First)));
        let read = Call {
            key: Key::new(b"k"),
            effect: Effect::Read,
        };
        assert!(Bundle::new(read).is_full());
    }

    #[test]
    fn sends_its_own_script() {
        let mut wire = Vec::new();
        bundle(&["k", "l"]).encode(Dialect::Sha, &mut wire);
        let wire = String::from_utf8(wire).unwrap();
        let words: Vec<_> = wire.split("\r\n").skip(2).step_by(2).collect();
        assert_eq!(words[0], "EVALSHA");
        assert_eq!(words[1].as_bytes(), SCRIPT.named(Dialect::Sha).1);
        assert_eq!(&words[2..], ["2", "k", "l", "1", "5", "60000", "first", ""]);
    }

    #[test]
    fn each_call_gets_what_its_own_script_would_say() {
        let bundle = bundle(&["a", "b", "c", "d"]);
        let frame = b"*4\r\n:4\r\n$1\r\nd\r\n_\r\n-ERR x\r\n";
        let answered = |reply: &[u8]| Part::Answered(reply.to_vec());
        let want = [
            answered(b":4\r\n"),
            answered(b":-1\r\n"),
            Part::Alone,
            answered(b"-ERR x\r\n"),
        ];
        assert_eq!(bundle.settle(frame), Ok(Parts::Each(want.into())));
    }

    #[test]
    fn an_error_for_all_is_the_answer_of_nobody() {
        let bundle = bundle(&["a", "b"]);
        let unknown = b"-NOSCRIPT No matching script. Please use EVAL.\r\n";
        assert_eq!(bundle.settle(unknown), Ok(Parts::Unknown));
        assert_eq!(bundle.settle(b"-OOM x\r\n"), Ok(Parts::Alone));
        for frame in [
            "+OK\r\n",
            ":1\r\n",
            "*1\r\n:1\r\n",
            "*2\r\n:1\r\n$1\r\ne\r\n",
        ] {
            assert_eq!(
                bundle.settle(frame.as_bytes()),
                Err(MalformedAnswer),
                "{frame}"
            );
        }
    }
}
