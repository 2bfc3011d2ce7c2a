//! What is in flight on a lane, and what waits for its turn.

use std::collections::VecDeque;
use std::time::Instant;

use super::bundles::BundleRun;
use super::deadlines::Timed;
use super::lane::{Effect, Extent};
use super::limits::LimitRun;
use crate::flush::{self, Deadline, Head};
use crate::key::Key;
use crate::limit::Call;
use crate::resp::{encode, reply};
use crate::rule::{Rule, holds};

/// One place in the lane's FIFO: something that was appended and not answered.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Slot<T> {
    /// When it was appended.
    pub(super) at: Instant,
    /// Offset of its first byte in everything appended since the connection began.
    pub(super) start: u64,
    pub(super) what: InFlight<T>,
}

/// What was appended, and who waits for the reply. A ticket is gone once its client was told of
/// a timeout.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) enum InFlight<T> {
    /// A request as it came: one reply, passed on.
    Forwarded(Option<T>),
    /// Increments and reads of one counter.
    Run(Box<Run<T>>),
    /// `GET` of one key, for all who joined.
    Get(Box<Get>),
    /// `MGET` of several keys.
    GetMany(Box<GetMany<T>>),
    /// Increments that were acknowledged long ago: the batch of this number.
    Flush(u64),
    /// The keys of a batch that was applied on another connection are read.
    ReadBack(Box<ReadBack>),
    /// Calls of a limit script on one key.
    Limit(Box<LimitRun<T>>),
    /// The same on different keys, or one that is passed on.
    Bundle(Box<BundleRun<T>>),
    /// A command in a transaction of ours: several replies, and the first element of the last one
    /// is the command's own.
    Wrapped(Option<T>, Transaction),
    /// A client's transaction: the last reply is passed on.
    Transaction(Option<T>, Transaction),
}

/// A batch that a transaction has applied, whose keys are read.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct ReadBack {
    /// The batch.
    pub(super) of: u64,
    /// What is known of it.
    pub(super) head: Head,
    pub(super) transaction: Transaction,
}

/// Increments of one counter by several clients, sent as one `INCRBY` of their sum. All have the
/// same sign: a prefix of mixed signs could leave i64 where the sum does not.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Run<T> {
    pub(super) key: Key,
    pub(super) id: u32,
    pub(super) members: Vec<Member<T>>,
    pub(super) sum: i64,
    /// Asks for the time to live in the same atomic unit, so that the key may become warm.
    pub(super) promote: bool,
    transaction: Transaction,
}

/// `MULTI`, commands and `EXEC` under way.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Transaction {
    replies_left: u32,
    /// Its ticket is told of the result only, never of a timeout.
    pub(super) is_patient: bool,
    /// The first error among the replies.
    refused: Option<Vec<u8>>,
}

/// One client's part of a run.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Member<T> {
    pub(super) ticket: Option<T>,
    /// What it adds; `None` for a `GET` between the increments.
    pub(super) delta: Option<i64>,
}

/// What makes a key warm: read in one transaction with its increments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Promotion {
    /// The node's time, in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// Milliseconds left for the key then.
    pub(super) left: Deadline,
}

/// What a run came to.
#[derive(Debug)]
pub(super) enum RunReply {
    /// The value after all members, and what was asked for with it.
    Counted(i64, Option<Promotion>),
    /// The error reply: nothing was counted.
    Refused(Vec<u8>),
}

/// A `GET` in flight.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Get {
    pub(super) key: Key,
    /// Its number, as in the key's state.
    pub(super) fetch: u32,
    /// Its clients, in [`super::Lane`]'s list.
    pub(super) members: usize,
    /// A `PTTL` follows, so that the value may be kept.
    pub(super) keep: bool,
    /// The first of the two replies.
    pub(super) value: Option<Vec<u8>>,
}

/// An `MGET` in flight.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct GetMany<T> {
    /// Its number, as in the states of its keys.
    pub(super) fetch: u32,
    pub(super) keys: Vec<Wanted<T>>,
    pub(super) values: Option<Vec<u8>>,
    /// Times to live received so far, one for each key that is to be kept.
    pub(super) ttls: Vec<Option<Deadline>>,
    /// How many are asked for.
    pub(super) keep: usize,
}

/// One key of an `MGET`.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Wanted<T> {
    pub(super) key: Key,
    pub(super) ticket: Option<T>,
    pub(super) keep: bool,
}

/// A command that waits in a key's queue.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) enum Queued<T> {
    Increment {
        delta: i64,
        ticket: T,
    },
    Get {
        ticket: T,
        many: bool,
    },
    /// A call of a limit script.
    Limit {
        call: Box<Call>,
        wire: Box<[u8]>,
        ticket: T,
    },
    /// A request about the key's deadline.
    Timed {
        timed: Timed,
        wire: Box<[u8]>,
        ticket: T,
    },
    /// A forwarded command, kept once for all its keys.
    Command(usize),
    /// The key is locked: what stands behind waits for [`super::Lane::unlock`].
    Lock,
}

impl<T> Queued<T> {
    /// A request about the key's deadline, as it came.
    pub(super) fn timed(timed: Timed, wire: &[u8], ticket: T) -> Self {
        Self::Timed {
            timed,
            wire: wire.into(),
            ticket,
        }
    }

    /// A call of a limit script, as it came.
    pub(super) fn limit(call: Call, wire: &[u8], ticket: T) -> Self {
        Self::Limit {
            call: Box::new(call),
            wire: wire.into(),
            ticket,
        }
    }
}

/// A forwarded command that waits until it stands first in the queues of all its keys.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Parked<T> {
    pub(super) wire: Box<[u8]>,
    /// Its keys, each once and in order. Each with whether the command stands first there with
    /// nothing in flight before it.
    pub(super) keys: Vec<(Key, bool)>,
    /// At how many of them it does not yet stand first.
    pub(super) unready: usize,
    /// Queues that it still stands in.
    pub(super) queues: usize,
    pub(super) effect: Effect,
    /// `None` once it failed: then it is skipped.
    pub(super) ticket: Option<T>,
}

/// Anything a session may ask of a lane, kept while a whole-node command waits.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) enum Submission<T> {
    Increment {
        key: Key,
        delta: i64,
        ticket: T,
    },
    Get {
        key: Key,
        ticket: T,
    },
    GetMany(Vec<(Key, T)>),
    Limit {
        call: Call,
        wire: Box<[u8]>,
        ticket: T,
    },
    Forward {
        keys: Vec<Key>,
        wire: Box<[u8]>,
        effect: Effect,
        ticket: T,
    },
    WholeNode {
        wire: Box<[u8]>,
        /// `None`: nobody is told.
        ticket: Option<T>,
        extent: Extent,
    },
}

/// A command on everything of the node, waiting until nothing is pending or in flight.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Hold<T> {
    pub(super) wire: Box<[u8]>,
    pub(super) ticket: Option<T>,
    pub(super) extent: Extent,
    /// What came after it.
    pub(super) queue: VecDeque<Submission<T>>,
}

impl<T> GetMany<T> {
    /// Takes the next reply; whether it was the last one.
    pub(super) fn on_reply(&mut self, frame: &[u8]) -> bool {
        match self.values {
            None => self.values = Some(frame.to_vec()),
            Some(_) => self.ttls.push(Deadline::from_reply(frame)),
        }
        self.ttls.len() >= self.keep
    }
}

impl<T> Queued<T> {
    /// `GET` of the key alone.
    pub(super) fn get(ticket: T) -> Self {
        Self::Get {
            ticket,
            many: false,
        }
    }
}

impl<T> Submission<T> {
    /// Who waits for it.
    pub(super) fn into_tickets(self) -> Vec<T> {
        match self {
            Self::Increment { ticket, .. }
            | Self::Get { ticket, .. }
            | Self::Limit { ticket, .. }
            | Self::Forward { ticket, .. } => vec![ticket],
            Self::WholeNode { ticket, .. } => ticket.into_iter().collect(),
            Self::GetMany(keys) => keys.into_iter().map(|(_, ticket)| ticket).collect(),
        }
    }
}

impl<T> Run<T> {
    pub(super) fn new(key: Key, id: u32, promote: bool) -> Self {
        Self {
            key,
            id,
            members: Vec::with_capacity(1),
            sum: 0,
            promote,
            transaction: Transaction::new(if promote { 5 } else { 1 }),
        }
    }

    /// Adds a member unless its sign or the sum's range forbids it; gives the ticket back then.
    pub(super) fn join(&mut self, delta: Option<i64>, ticket: T) -> Result<(), T> {
        if let Some(delta) = delta {
            let fits = self.sum.checked_add(delta);
            let one_sign = self.sum.signum() * delta.signum() >= 0 || !holds(Rule::OneSign);
            let (Some(sum), true) = (fits, one_sign) else {
                return Err(ticket);
            };
            self.sum = sum;
        }
        self.members.push(Member {
            ticket: Some(ticket),
            delta,
        });
        Ok(())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let key = self.key.as_bytes();
        if self.promote {
            out.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
        }
        encode_increment(key, self.sum, out);
        if self.promote {
            out.extend_from_slice(b"*1\r\n$4\r\nTIME\r\n");
            encode::request(out, &[b"PTTL".as_slice(), key]);
            out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
        }
    }

    /// Takes the next reply; the last one says what the run came to.
    pub(super) fn on_reply(&mut self, frame: &[u8]) -> Option<RunReply> {
        if let Err(error) = self.transaction.on_reply(frame)? {
            return Some(RunReply::Refused(error));
        }
        if !self.promote {
            let value = reply::integer(frame);
            return Some(value.map_or_else(
                || RunReply::Refused(UNEXPECTED.to_vec()),
                |value| RunReply::Counted(value, None),
            ));
        }
        let mut replies = reply::elements(frame).into_iter().flatten();
        let first = replies.next().unwrap_or_default();
        let time_ms = replies.next().and_then(flush::time_ms);
        let left = replies.next().and_then(Deadline::from_reply);
        Some(match (reply::integer(first), time_ms, left) {
            (Some(value), Some(time_ms), Some(left)) => {
                RunReply::Counted(value, Some(Promotion { time_ms, left }))
            }
            _ if reply::is_error(first) => RunReply::Refused(first.to_vec()),
            _ => RunReply::Refused(UNEXPECTED.to_vec()),
        })
    }
}

impl Transaction {
    /// One that gets so many replies, of which the last one counts.
    pub(super) fn new(replies: u32) -> Self {
        Self {
            replies_left: replies,
            is_patient: false,
            refused: None,
        }
    }

    /// Takes the next reply. At the last one it says whether all went well, or what the first error
    /// was.
    pub(super) fn on_reply(&mut self, frame: &[u8]) -> Option<Result<(), Vec<u8>>> {
        self.replies_left = self.replies_left.saturating_sub(1);
        if reply::is_error(frame) && self.refused.is_none() {
            self.refused = Some(frame.to_vec());
        }
        (self.replies_left == 0).then(|| self.refused.take().map_or(Ok(()), Err))
    }
}

/// Appends `INCRBY key delta`.
pub(super) fn encode_increment(key: &[u8], delta: i64, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    encode::request(out, &[b"INCRBY", key, digits.format(delta).as_bytes()]);
}

/// The node gave a reply that no Redis gives to that command.
pub(super) const UNEXPECTED: &[u8] = b"-ERR the node gave an unexpected reply\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn run(promote: bool) -> Run<u8> {
        let mut run = Run::new(Key::new(b"k"), 1, promote);
        run.join(Some(2), 0).unwrap();
        run
    }

    #[test]
    fn a_run_keeps_one_sign_and_its_sum_in_range() {
        let mut run = run(false);
        assert_eq!(run.join(Some(-1), 7), Err(7));
        assert_eq!(run.join(Some(i64::MAX), 7), Err(7));
        assert_eq!(run.join(Some(0), 1), Ok(()));
        assert_eq!(run.join(None, 2), Ok(()));
        assert_eq!(run.join(Some(3), 3), Ok(()));
        assert_eq!(run.sum, 5);
    }

    #[test]
    fn a_promotion_reads_value_and_deadline_of_one_transaction() {
        let mut run = run(true);
        for frame in [
            b"+OK\r\n".as_slice(),
            b"+QUEUED\r\n",
            b"+QUEUED\r\n",
            b"+QUEUED\r\n",
        ] {
            assert!(run.on_reply(frame).is_none());
        }
        let reply = run.on_reply(b"*3\r\n:12\r\n*2\r\n$2\r\n17\r\n$4\r\n2500\r\n:-1\r\n");
        let want = Promotion {
            time_ms: 17_002,
            left: Deadline::Never,
        };
        assert!(matches!(reply, Some(RunReply::Counted(12, Some(told))) if told == want));
    }

    #[test]
    fn the_first_error_is_the_run_s_error() {
        let mut run = run(true);
        let oom = b"-OOM command not allowed\r\n".as_slice();
        for frame in [b"+OK\r\n", oom, b"+QUEUED\r\n", b"+QUEUED\r\n"] {
            assert!(run.on_reply(frame).is_none());
        }
        let reply = run.on_reply(b"-EXECABORT Transaction discarded\r\n");
        assert!(matches!(reply, Some(RunReply::Refused(text)) if text == oom));
    }

    #[test]
    fn an_error_inside_the_transaction_is_the_run_s_error() {
        let mut run = run(true);
        for frame in [
            b"+OK\r\n".as_slice(),
            b"+QUEUED\r\n",
            b"+QUEUED\r\n",
            b"+QUEUED\r\n",
        ] {
            run.on_reply(frame);
        }
        let reply = run.on_reply(b"*3\r\n-WRONGTYPE x\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n:-1\r\n");
        assert!(matches!(reply, Some(RunReply::Refused(text)) if text == b"-WRONGTYPE x\r\n"));
    }
}
