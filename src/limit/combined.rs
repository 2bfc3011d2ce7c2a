//! Equal calls as one, and what each of them is answered.

use std::sync::LazyLock;

use super::catalogue::Digest;
use super::meaning::{Call, Effect, Expiry, Granted, Reply, Rule};
use crate::flush::Deadline;
use crate::resp::{Protocol, encode, parse_i64, reply};

/// Calls that one script performs, one after the other, without anything in between.
#[derive(Clone, Debug)]
pub struct Combined {
    call: Call,
    calls: u32,
}

/// How a combined call is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// `EVALSHA`: the node is expected to know the script.
    Sha,
    /// `EVAL`: the node may not know it, and will afterwards.
    Body,
}

/// What a node's reply says about a combined call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settlement {
    /// Performed.
    Answered(Answers),
    /// Nothing was written: the node does not know the script (`NOSCRIPT`). To be sent again as
    /// [`Dialect::Body`], before anything that waits for the key.
    Unknown,
    /// Nothing was written: each of the calls is to be run as its own script, in order, so that
    /// what it is told is its own script's doing. An error (the wrong type, no memory), or a value
    /// for which Lua is not exact.
    Alone,
}

/// A reply that no script of ours gives. What happened is unknown, and must not be tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the node sent an unexpected reply to a combined script")]
pub struct MalformedAnswer;

/// Outcome of a combined call that was performed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answers {
    effect: Effect,
    calls: u32,
    outcome: Outcome,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Outcome {
    Counted {
        /// The value before the first of the calls, 0 where there was none.
        before: i64,
        /// How many of the calls incremented: the first ones.
        counted: u32,
        /// The time to live that the calls are told, in milliseconds.
        told_ms: i64,
        /// As read after the write; `None` where the node refused that.
        ttl: Option<Deadline>,
    },
    /// The reply to every call.
    Read { frame: Vec<u8> },
}

/// A denial from a call that read and did not write.
///
/// It holds until the key's deadline, or until somebody changes the key. Increments do not end it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Denial {
    /// The limit that was met.
    pub limit: i64,
    /// The value that met it; 0 if there is no key. Every call with a limit at or below it is
    /// denied too, see [`Call::is_denied_at`].
    pub value: i64,
    /// Time to live when the node answered.
    pub ttl: Deadline,
}

impl Combined {
    /// One call.
    pub fn new(call: Call) -> Self {
        Self { call, calls: 1 }
    }

    /// Adds a call if it is equal to those that are there and fewer than [`MAX_CALLS`]; says
    /// whether it did.
    pub fn join(&mut self, call: &Call) -> bool {
        let joins = self.calls < MAX_CALLS && self.call == *call;
        self.calls += u32::from(joins);
        joins
    }

    /// The call of which all of them are copies.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Number of calls, at least 1.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// The script that makes its calls.
    pub fn script(&self) -> &'static str {
        self.ours().body
    }

    fn ours(&self) -> &'static Ours {
        match self.call.effect {
            Effect::Read => &READ,
            _ => &COUNT,
        }
    }

    /// Appends the request; [`Combined::settle`] takes its reply.
    pub fn encode(&self, dialect: Dialect, out: &mut Vec<u8>) {
        let (command, script) = self.ours().named(dialect);
        let key = self.call.key.as_bytes();
        let (amount, limit, expiry) = match self.call.effect {
            Effect::Read => {
                encode::request(out, &[command, script, b"1", key]);
                return;
            }
            Effect::Limit { limit, expiry, .. } => (1, Some(limit), expiry),
            Effect::Increment { amount, expiry, .. } => (amount, None, expiry),
        };
        let [mut calls, mut by, mut bound, mut ms] = [itoa::Buffer::new(); 4];
        let args = [
            command,
            script,
            b"1",
            key,
            calls.format(self.calls).as_bytes(),
            by.format(amount).as_bytes(),
            limit.map_or(b"".as_slice(), |limit| bound.format(limit).as_bytes()),
            expiry.map_or(b"".as_slice(), |expiry| ms.format(expiry.ms).as_bytes()),
            rule(expiry),
        ];
        encode::request(out, &args);
    }

    /// Reads the node's reply, one whole frame.
    ///
    /// # Errors
    ///
    /// [`MalformedAnswer`] if it is neither an error nor what the script returns.
    pub fn settle(&self, frame: &[u8]) -> Result<Settlement, MalformedAnswer> {
        if reply::is_error(frame) {
            return Ok(if is_unknown(frame) {
                Settlement::Unknown
            } else {
                Settlement::Alone
            });
        }
        let effect = self.call.effect;
        if effect == Effect::Read {
            return self.settle_read(frame);
        }
        if reply::is_null(frame) {
            return Ok(Settlement::Alone);
        }
        let outcome = counted(frame, self.calls).ok_or(MalformedAnswer)?;
        let calls = self.calls;
        Ok(Settlement::Answered(Answers {
            effect,
            calls,
            outcome,
        }))
    }

    fn settle_read(&self, frame: &[u8]) -> Result<Settlement, MalformedAnswer> {
        let pair = reply::elements(frame).ok_or(MalformedAnswer)?;
        if pair.len() != 2 {
            return Err(MalformedAnswer);
        }
        Ok(Settlement::Answered(Answers {
            effect: Effect::Read,
            calls: self.calls,
            outcome: Outcome::Read {
                frame: frame.to_vec(),
            },
        }))
    }
}

/// Reads the four elements that `combined.lua` returns.
fn counted(frame: &[u8], calls: u32) -> Option<Outcome> {
    let elements: Vec<_> = reply::elements(frame)?.take(5).collect();
    let [before, counted, told_ms, ttl] = elements.as_slice() else {
        return None;
    };
    let counted = u32::try_from(reply::integer(counted)?).ok()?;
    Some(Outcome::Counted {
        before: parse_i64(reply::text(before)?)?,
        counted: (counted <= calls).then_some(counted)?,
        told_ms: reply::integer(told_ms)?,
        ttl: Deadline::from_reply(ttl),
    })
}

impl Answers {
    /// Appends the reply to call number `index`, counted from 0, in RESP3.
    pub fn reply(&self, index: u32, out: &mut Vec<u8>) {
        let (before, counted, told_ms) = match &self.outcome {
            Outcome::Read { frame } => {
                out.extend_from_slice(frame);
                return;
            }
            Outcome::Counted {
                before,
                counted,
                told_ms,
                ..
            } => (*before, *counted, *told_ms),
        };
        match self.effect {
            Effect::Limit { denied, .. } if index >= counted => denied.encode(Protocol::Resp3, out),
            Effect::Limit { granted, .. } => match granted {
                Granted::Value => encode::integer(out, after(before, 1, index + 1)),
                Granted::Integer(number) => encode::integer(out, number),
            },
            Effect::Increment { amount, reply, .. } => {
                let value = after(before, amount, index.saturating_add(1));
                if reply == Reply::ValueAndTtl {
                    encode::array(out, 2);
                }
                encode::integer(out, value);
                if reply == Reply::ValueAndTtl {
                    encode::integer(out, told_ms);
                }
            }
            Effect::Read => {}
        }
    }

    /// The reply to each call, in order, in RESP3.
    pub fn replies(&self) -> impl ExactSizeIterator<Item = Vec<u8>> + '_ {
        (0..self.calls).map(|index| {
            let mut out = Vec::new();
            self.reply(index, &mut out);
            out
        })
    }

    /// Value of the counter now; `None` if there is no key, or it was only read.
    pub fn value(&self) -> Option<i64> {
        match (&self.outcome, self.effect) {
            (
                Outcome::Counted {
                    before,
                    counted,
                    ttl,
                    ..
                },
                effect,
            ) if *ttl != Some(Deadline::NoKey) => Some(after(*before, effect.amount(), *counted)),
            _ => None,
        }
    }

    /// Time to live of the key now, read after the last write; `None` if it is not known.
    pub fn ttl(&self) -> Option<Deadline> {
        match &self.outcome {
            Outcome::Counted { ttl, .. } => *ttl,
            Outcome::Read { frame } => Deadline::from_reply(reply::elements(frame)?.nth(1)?),
        }
    }

    /// Whether the calls changed the key.
    pub fn wrote(&self) -> bool {
        matches!(&self.outcome, Outcome::Counted { counted, .. } if *counted > 0)
    }

    /// The denial, if all calls were denied: nothing was written, so the node is tracking the key
    /// for us, and the denial may be repeated from here while it holds.
    pub fn denial(&self) -> Option<Denial> {
        match (&self.outcome, self.effect) {
            (
                Outcome::Counted {
                    before,
                    counted: 0,
                    ttl: Some(ttl),
                    ..
                },
                Effect::Limit { limit, .. },
            ) => Some(Denial {
                limit,
                value: *before,
                ttl: *ttl,
            }),
            _ => None,
        }
    }
}

impl Effect {
    fn amount(self) -> i64 {
        match self {
            Self::Limit { .. } => 1,
            Self::Increment { amount, .. } => amount,
            Self::Read => 0,
        }
    }
}

/// `before` and `times` increments by `amount`. Never saturates for what `combined.lua` returns.
fn after(before: i64, amount: i64, times: u32) -> i64 {
    before.saturating_add(amount.saturating_mul(i64::from(times)))
}

/// Whether a node says that it does not know the script.
pub(super) fn is_unknown(error: &[u8]) -> bool {
    reply::text(error).is_some_and(|text| text.starts_with(b"NOSCRIPT"))
}

/// The word for a rule that our scripts take.
pub(super) fn rule(expiry: Option<Expiry>) -> &'static [u8] {
    let Some(Expiry { rule, always, .. }) = expiry else {
        return b"";
    };
    match (rule, always) {
        (Rule::Restart, true) => b"restart-always",
        (Rule::Restart, false) => b"restart",
        (_, true) | (Rule::Always, _) => b"always",
        (Rule::First, _) => b"first",
        (Rule::Missing, _) => b"missing",
        (Rule::Due, _) => b"due",
    }
}

/// A script of ours.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) body: &'static str,
    sha: [u8; 40],
}

impl Ours {
    pub(super) fn new(body: &'static str) -> Self {
        let sha = Digest::of(body.as_bytes()).to_hex();
        Self { body, sha }
    }

    /// The command that calls it, and what it is called by.
    pub(super) fn named(&self, dialect: Dialect) -> (&[u8], &[u8]) {
        match dialect {
            Dialect::Sha => (b"EVALSHA", &self.sha),
            Dialect::Body => (b"EVAL", self.body.as_bytes()),
        }
    }
}

static COUNT: LazyLock<Ours> = LazyLock::new(|| Ours::new(include_str!("combined.lua")));
static READ: LazyLock<Ours> = LazyLock::new(|| Ours::new(include_str!("read.lua")));

/// Most calls in one. Their replies are of this process's making, so only the sums matter: with
/// the largest increment they stay where Lua is exact.
pub const MAX_CALLS: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::limit::Denied;

    fn limit(limit: i64) -> Call {
        Call {
            key: Key::new(b"k"),
            effect: Effect::Limit {
                limit,
                expiry: Some(Expiry {
                    ms: 60_000,
                    rule: Rule::First,
                    always: false,
                }),
                granted: Granted::Value,
                denied: Denied::Integer(-1),
            },
        }
    }

    fn combined(call: &Call, calls: u32) -> Combined {
        let mut combined = Combined::new(call.clone());
        for _ in 1..calls {
            assert!(combined.join(call));
        }
        combined
    }

    fn settle(combined: &Combined, frame: &str) -> Settlement {
        combined.settle(frame.as_bytes()).unwrap()
    }

    #[test]
    fn only_equal_calls_join_and_only_so_many() {
        let mut combined = combined(&limit(5), MAX_CALLS);
        assert!(!combined.join(&limit(5)));
        assert_eq!(combined.calls(), MAX_CALLS);
        let mut other = Combined::new(limit(5));
        assert!(!other.join(&limit(6)));
        let mut key = limit(5);
        key.key = Key::new(b"l");
        assert!(!other.join(&key));
        assert_eq!(other.calls(), 1);
    }

    #[test]
    fn sends_its_own_script() {
        let mut wire = Vec::new();
        combined(&limit(5), 3).encode(Dialect::Sha, &mut wire);
        let wire = String::from_utf8(wire).unwrap();
        let words: Vec<_> = wire.split("\r\n").skip(2).step_by(2).collect();
        assert_eq!(words[0], "EVALSHA");
        assert_eq!(words[1].as_bytes(), COUNT.sha);
        assert_eq!(&words[2..], ["1", "k", "3", "1", "5", "60000", "first"]);
    }

    #[test]
    fn the_first_calls_are_granted_and_the_rest_denied() {
        let combined = combined(&limit(5), 4);
        let Settlement::Answered(answers) =
            settle(&combined, "*4\r\n$1\r\n3\r\n:2\r\n:60000\r\n:59999\r\n")
        else {
            panic!("not answered");
        };
        let replies: Vec<_> = answers.replies().flatten().collect();
        assert_eq!(replies, b":4\r\n:5\r\n:-1\r\n:-1\r\n");
        assert_eq!(answers.value(), Some(5));
        assert_eq!(answers.ttl(), Some(Deadline::Ms(59_999)));
        assert!(answers.wrote());
        assert_eq!(answers.denial(), None);
    }

    #[test]
    fn a_denial_that_wrote_nothing_may_be_repeated() {
        let combined = combined(&limit(5), 2);
        let Settlement::Answered(answers) =
            settle(&combined, "*4\r\n$1\r\n9\r\n:0\r\n:70\r\n:70\r\n")
        else {
            panic!("not answered");
        };
        let denial = answers.denial().unwrap();
        assert_eq!((denial.limit, denial.value), (5, 9));
        assert_eq!(denial.ttl, Deadline::Ms(70));
        assert!(!answers.wrote());
    }

    #[test]
    fn an_error_is_not_the_answer_of_anybody() {
        let combined = combined(&limit(5), 2);
        let unknown = "-NOSCRIPT No matching script. Please use EVAL.\r\n";
        assert_eq!(settle(&combined, unknown), Settlement::Unknown);
        for frame in [
            "-WRONGTYPE x\r\n",
            "-OOM x\r\n",
            "!5\r\nERR x\r\n",
            "_\r\n",
            "$-1\r\n",
        ] {
            assert_eq!(settle(&combined, frame), Settlement::Alone, "{frame}");
        }
    }

    #[test]
    fn other_replies_are_malformed() {
        let combined = combined(&limit(5), 2);
        for frame in [
            "+OK\r\n",
            ":1\r\n",
            "*0\r\n",
            "*3\r\n$1\r\n3\r\n:2\r\n:1\r\n",
            "*5\r\n$1\r\n3\r\n:2\r\n:1\r\n:1\r\n:1\r\n",
            "*4\r\n$1\r\n3\r\n:3\r\n:1\r\n:1\r\n",
            "*4\r\n$1\r\n3\r\n:-1\r\n:1\r\n:1\r\n",
            "*4\r\n$1\r\nx\r\n:2\r\n:1\r\n:1\r\n",
            "*4\r\n:3\r\n:2\r\n:1\r\n:1\r\n",
            "*4\r\n$1\r\n3\r\n_\r\n:1\r\n:1\r\n",
            "*4\r\n$1\r\n3\r\n:2\r\n",
        ] {
            let settled = combined.settle(frame.as_bytes());
            assert_eq!(settled, Err(MalformedAnswer), "{frame}");
        }
    }

    #[test]
    fn a_node_that_hides_the_time_to_live_has_still_counted() {
        let combined = combined(&limit(5), 1);
        let frame = "*4\r\n$1\r\n3\r\n:1\r\n:60000\r\n-NOPERM x\r\n";
        let Settlement::Answered(answers) = settle(&combined, frame) else {
            panic!("not answered");
        };
        assert_eq!((answers.ttl(), answers.value()), (None, Some(4)));
    }
}
