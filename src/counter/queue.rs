//! What is in flight on a lane, and what waits for its turn.

use std::collections::VecDeque;
use std::time::Instant;

use super::lane::Effect;
use crate::flush::{Batch, Ttl};
use crate::key::Key;
use crate::resp::{encode, reply};

/// One place in the lane's FIFO: something that was appended and not answered.
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
    /// Increments that were acknowledged long ago.
    Flush(Box<Batch>),
}

/// Increments of one counter by several clients, sent as one `INCRBY` of their sum. All have the
/// same sign: a prefix of mixed signs could leave i64 where the sum does not.
#[derive(Debug)]
pub(super) struct Run<T> {
    pub(super) key: Key,
    pub(super) id: u32,
    pub(super) members: Vec<Member<T>>,
    pub(super) sum: i64,
    /// Asks for the time to live in the same atomic unit, so that the key may become warm.
    pub(super) promote: bool,
    replies_left: u8,
    /// The first error among the replies.
    refused: Option<Vec<u8>>,
}

/// One client's part of a run.
#[derive(Debug)]
pub(super) struct Member<T> {
    pub(super) ticket: Option<T>,
    /// What it adds; `None` for a `GET` between the increments.
    pub(super) delta: Option<i64>,
}

/// What a run came to.
#[derive(Debug)]
pub(super) enum RunReply {
    /// The value after all members, and the time to live if it was asked for.
    Counted(i64, Option<Ttl>),
    /// The error reply: nothing was counted.
    Refused(Vec<u8>),
}

/// A `GET` in flight.
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
#[derive(Debug)]
pub(super) struct GetMany<T> {
    /// Its number, as in the states of its keys.
    pub(super) fetch: u32,
    pub(super) keys: Vec<Wanted<T>>,
    pub(super) values: Option<Vec<u8>>,
    /// Times to live received so far, one for each key that is to be kept.
    pub(super) ttls: Vec<Option<Ttl>>,
    /// How many are asked for.
    pub(super) keep: usize,
}

/// One key of an `MGET`.
#[derive(Debug)]
pub(super) struct Wanted<T> {
    pub(super) key: Key,
    pub(super) ticket: Option<T>,
    pub(super) keep: bool,
}

/// A command that waits in a key's queue.
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
    /// A forwarded command, kept once for all its keys.
    Command(usize),
}

/// A forwarded command that waits until it stands first in the queues of all its keys.
#[derive(Debug)]
pub(super) struct Parked<T> {
    pub(super) wire: Box<[u8]>,
    /// Its keys, each once, and whether it stands first there with nothing in flight before it.
    pub(super) keys: Vec<(Key, bool)>,
    /// Queues that it still stands in.
    pub(super) queues: usize,
    pub(super) effect: Effect,
    /// `None` once it failed: then it is skipped.
    pub(super) ticket: Option<T>,
}

/// Anything a session may ask of a lane, kept while a whole-node command waits.
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
    Forward {
        keys: Vec<Key>,
        wire: Box<[u8]>,
        effect: Effect,
        ticket: T,
    },
    WholeNode {
        wire: Box<[u8]>,
        ticket: T,
        forget: bool,
    },
}

/// A command on everything of the node, waiting until nothing is pending or in flight.
#[derive(Debug)]
pub(super) struct Hold<T> {
    pub(super) wire: Box<[u8]>,
    pub(super) ticket: Option<T>,
    /// Whether it may change keys: then everything known of them is forgotten.
    pub(super) forget: bool,
    /// What came after it.
    pub(super) queue: VecDeque<Submission<T>>,
}

impl<T> Submission<T> {
    /// Who waits for it.
    pub(super) fn into_tickets(self) -> Vec<T> {
        match self {
            Self::Increment { ticket, .. }
            | Self::Get { ticket, .. }
            | Self::Forward { ticket, .. }
            | Self::WholeNode { ticket, .. } => vec![ticket],
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
            replies_left: if promote { 4 } else { 1 },
            refused: None,
        }
    }

    /// Adds a member unless its sign or the sum's range forbids it; gives the ticket back then.
    pub(super) fn join(&mut self, delta: Option<i64>, ticket: T) -> Result<(), T> {
        if let Some(delta) = delta {
            let fits = self.sum.checked_add(delta);
            let (Some(sum), true) = (fits, self.sum.signum() * delta.signum() >= 0) else {
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
            encode::request(out, &[b"PTTL".as_slice(), key]);
            out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
        }
    }

    /// Takes the next reply; the last one says what the run came to.
    pub(super) fn on_reply(&mut self, frame: &[u8]) -> Option<RunReply> {
        self.replies_left = self.replies_left.saturating_sub(1);
        if reply::is_error(frame) && self.refused.is_none() {
            self.refused = Some(frame.to_vec());
        }
        if self.replies_left > 0 {
            return None;
        }
        if let Some(error) = self.refused.take() {
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
        let (Some(first), Some(ttl)) = (replies.next(), replies.next()) else {
            return Some(RunReply::Refused(UNEXPECTED.to_vec()));
        };
        Some(match (reply::integer(first), Ttl::from_reply(ttl)) {
            (Some(value), Some(ttl)) => RunReply::Counted(value, Some(ttl)),
            _ if reply::is_error(first) => RunReply::Refused(first.to_vec()),
            _ => RunReply::Refused(UNEXPECTED.to_vec()),
        })
    }
}

/// Appends `INCRBY key delta`.
pub(super) fn encode_increment(key: &[u8], delta: i64, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    encode::request(out, &[b"INCRBY", key, digits.format(delta).as_bytes()]);
}

/// A node answered something that no Redis answers to that command.
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
        for frame in [b"+OK\r\n".as_slice(), b"+QUEUED\r\n", b"+QUEUED\r\n"] {
            assert!(run.on_reply(frame).is_none());
        }
        let reply = run.on_reply(b"*2\r\n:12\r\n:-1\r\n");
        assert!(matches!(
            reply,
            Some(RunReply::Counted(12, Some(Ttl::Forever)))
        ));
    }

    #[test]
    fn the_first_error_is_the_run_s_error() {
        let mut run = run(true);
        let oom = b"-OOM command not allowed\r\n".as_slice();
        for frame in [b"+OK\r\n", oom, b"+QUEUED\r\n"] {
            assert!(run.on_reply(frame).is_none());
        }
        let reply = run.on_reply(b"-EXECABORT Transaction discarded\r\n");
        assert!(matches!(reply, Some(RunReply::Refused(text)) if text == oom));
    }

    #[test]
    fn an_error_inside_the_transaction_is_the_run_s_error() {
        let mut run = run(true);
        for frame in [b"+OK\r\n".as_slice(), b"+QUEUED\r\n", b"+QUEUED\r\n"] {
            run.on_reply(frame);
        }
        let reply = run.on_reply(b"*2\r\n-WRONGTYPE x\r\n:-1\r\n");
        assert!(matches!(reply, Some(RunReply::Refused(text)) if text == b"-WRONGTYPE x\r\n"));
    }
}
