//! Pending increments on their way to a node. Pure: bytes out, replies in.
//!
//! A [`Batch`] is sealed: nothing is added to it later, and it is encoded once. Each entry is an
//! `INCRBY` followed by a `PTTL` of the same key, so that the answer that re-bases a key also says
//! whether it has a deadline now.

use crate::key::Key;
use crate::resp::{encode, reply};

/// Most keys in one batch. Bounds how long a node is busy with it: 3 to 5 microseconds a key
/// (measured on Redis 7.0 with scripts, which is the slower way).
pub const MAX_KEYS: usize = 128;

/// One key's sealed increments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Increment {
    /// The counter.
    pub key: Key,
    /// Sum of the acknowledged increments; never zero.
    pub delta: i64,
}

/// A sealed set of increments, settled in order. (A key may be in it twice, when more was counted
/// while it was made.)
#[derive(Debug, Default)]
pub struct Batch {
    increments: Vec<Increment>,
    settled: usize,
    /// The answer to the `INCRBY` of `increments[settled]`, kept until its `PTTL` is answered.
    value: Option<Result<i64, Refusal>>,
}

/// What became of one key's increments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Applied; the key's value and deadline right afterwards.
    Applied {
        /// The value Redis answered.
        value: i64,
        /// Its time to live.
        ttl: Ttl,
    },
    /// Not applied.
    Refused(Refusal),
}

/// Why a node did not apply an increment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The error as the node gave it, without the leading `-`.
    pub text: String,
    /// Whether the same increment may be applied later: the node's state, not the key, is at
    /// fault.
    pub transient: bool,
}

/// A key's time to live, as `PTTL` answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ttl {
    /// -2: there is no such key.
    NoKey,
    /// -1: the key has no deadline.
    Forever,
    /// Milliseconds until the deadline, at least 0.
    Ms(u64),
}

impl Ttl {
    /// Reads the reply to `PTTL`; `None` when it is no integer.
    pub fn from_reply(frame: &[u8]) -> Option<Self> {
        Some(match reply::integer(frame)? {
            -2 => Self::NoKey,
            ms => u64::try_from(ms).map_or(Self::Forever, Self::Ms),
        })
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key's sealed sum, other than zero.
    pub fn push(&mut self, key: Key, delta: i64) {
        self.increments.push(Increment { key, delta });
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.increments.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.increments.is_empty()
    }

    /// Appends the batch as requests; [`Batch::on_reply`] takes their replies.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for increment in &self.increments {
            let key = increment.key.as_bytes();
            let mut digits = itoa::Buffer::new();
            let delta = digits.format(increment.delta);
            encode::request(out, &[b"INCRBY", key, delta.as_bytes()]);
            encode::request(out, &[b"PTTL".as_slice(), key]);
        }
    }

    /// Takes the next reply. Returns the key that it settled, with its outcome, at every second
    /// one.
    pub fn on_reply(&mut self, frame: &[u8]) -> Option<(Increment, Outcome)> {
        let Some(value) = self.value.take() else {
            self.value = Some(reply::integer(frame).ok_or_else(|| Refusal::from_reply(frame)));
            return None;
        };
        let increment = self.increments.get(self.settled)?.clone();
        self.settled += 1;
        let outcome = match value {
            Ok(value) => Outcome::Applied {
                value,
                // Without an answer the key is treated as one with a deadline: it cools down.
                ttl: Ttl::from_reply(frame).unwrap_or(Ttl::Ms(0)),
            },
            Err(refusal) => Outcome::Refused(refusal),
        };
        Some((increment, outcome))
    }

    /// Whether every key has been settled.
    pub fn is_settled(&self) -> bool {
        self.settled == self.increments.len()
    }

    /// The keys whose outcome is not known (yet), as after a lost connection.
    pub fn into_unsettled(self) -> impl Iterator<Item = Increment> {
        self.increments.into_iter().skip(self.settled)
    }
}

impl Refusal {
    /// Reads an error reply.
    pub fn from_reply(frame: &[u8]) -> Self {
        let text = reply::text(frame).unwrap_or(frame);
        let text = String::from_utf8_lossy(text).into_owned();
        let code = text.split(' ').next().unwrap_or_default();
        let transient = TRANSIENT.contains(&code);
        Self { text, transient }
    }
}

/// Error codes of Redis that speak of the server's state, not of the key or the command
/// (`shared` in Redis `server.c`): the command was not executed and may succeed later.
const TRANSIENT: &[&str] = &[
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::new();
        batch.push(Key::new(b"a"), 5);
        batch.push(Key::new(b"b"), -1);
        batch
    }

    #[test]
    fn sends_an_increment_and_a_read_for_each_key() {
        let mut wire = Vec::new();
        batch().encode(&mut wire);
        let want = "*3\r\n$6\r\nINCRBY\r\n$1\r\na\r\n$1\r\n5\r\n*2\r\n$4\r\nPTTL\r\n$1\r\na\r\n\
                    *3\r\n$6\r\nINCRBY\r\n$1\r\nb\r\n$2\r\n-1\r\n*2\r\n$4\r\nPTTL\r\n$1\r\nb\r\n";
        assert_eq!(String::from_utf8(wire).unwrap(), want);
    }

    #[test]
    fn settles_each_key_with_its_own_outcome() {
        let mut batch = batch();
        assert_eq!(batch.on_reply(b":12\r\n"), None);
        let (increment, outcome) = batch.on_reply(b":-1\r\n").unwrap();
        assert_eq!(increment.key, Key::new(b"a"));
        let ttl = Ttl::Forever;
        assert_eq!(outcome, Outcome::Applied { value: 12, ttl });
        assert!(!batch.is_settled());
        assert_eq!(batch.on_reply(b"-WRONGTYPE Operation\r\n"), None);
        let (_, outcome) = batch.on_reply(b":-1\r\n").unwrap();
        let Outcome::Refused(refusal) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(!refusal.transient);
        assert!(batch.is_settled());
    }

    #[test]
    fn knows_what_is_not_settled() {
        let mut batch = batch();
        batch.on_reply(b":12\r\n");
        batch.on_reply(b":-1\r\n");
        batch.on_reply(b":1\r\n");
        let left: Vec<_> = batch.into_unsettled().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].key, Key::new(b"b"));
    }

    #[test]
    fn tells_transient_refusals() {
        let transient = |frame: &[u8]| Refusal::from_reply(frame).transient;
        assert!(transient(b"-OOM command not allowed\r\n"));
        assert!(transient(b"-LOADING Redis is loading\r\n"));
        assert!(!transient(b"-ERR value is not an integer\r\n"));
    }
}
