//! Looks at a key without touching it: no client notices.

use std::time::Instant;

use super::lane::Lane;
use super::queue::InFlight;
use super::state::State;
use super::table::KeyTable;

/// What is known here of a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Peek {
    /// A counter that is answered here.
    Counter {
        /// What a `GET` would say.
        value: i64,
        /// Acknowledged, and not confirmed by the node.
        pending: i64,
    },
    /// A value that is answered here; `None` for a key that does not exist.
    Cached(Option<Box<[u8]>>),
    /// A `GET` has to ask the node.
    Unknown,
}

impl<T> Lane<T> {
    /// When the oldest unanswered batch was sent. Cost: one pass over what is in flight.
    pub fn oldest_batch(&self) -> Option<Instant> {
        let is_batch = |what: &InFlight<T>| matches!(what, InFlight::Flush(_));
        let mut batches = self.fifo.iter().filter(|slot| is_batch(&slot.what));
        batches.next().map(|slot| slot.at).or(self.calling)
    }
}

impl KeyTable {
    /// What is known of `key`. Cost: one hash, one lock, one probe.
    pub fn peek(&self, key: &[u8], now: Instant) -> Peek {
        match self.lock(key).state() {
            Some(State::Warm(counter)) if counter.answers(now) => Peek::Counter {
                value: counter.value,
                pending: counter.pending.wrapping_add(counter.in_flight_delta),
            },
            Some(State::Cached { value, until }) if now < *until => Peek::Cached(value.clone()),
            _ => Peek::Unknown,
        }
    }
}
