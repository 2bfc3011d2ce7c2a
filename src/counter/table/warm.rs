//! What is answered from a table without the lane.

use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::MutexGuard;

use super::{Entry, KeyTable, Shard, Spot, Stripe, shard_of};
use crate::counter::deadlines::Timed;
use crate::counter::state::{Answer, Counter, State};
use crate::key::Key;
use crate::resp::{Protocol, encode};

/// Some keys of a table, locked, perhaps over several requests. Without an atomic step between them
/// the processor looks for the next key while it waits for the memory of the last one.
///
/// A key comes with its [`Spot`], which has to be one of what is locked.
#[derive(Debug)]
pub struct Held<'a> {
    pub(super) table: &'a KeyTable,
    pub(super) stripe: MutexGuard<'a, Stripe>,
}

impl Held<'_> {
    /// Counts an increment if the key is warm.
    #[inline]
    pub fn increment(&mut self, (spot, key): (Spot, &[u8]), delta: i64, now: Instant) -> Answer {
        let shard = shard_of(&mut self.stripe, spot);
        shard.increment(self.table, spot.hash, (key, delta), now)
    }

    /// Answers a request about a deadline if the key is warm and that can be done here.
    pub fn timed(&mut self, (spot, key): (Spot, &[u8]), timed: Timed, now: Instant) -> Option<i64> {
        let shard = shard_of(&mut self.stripe, spot);
        if shard.closed {
            return None;
        }
        shard.timed(self.table, (spot.hash, key), timed, now)
    }

    /// Appends the value of the key as a reply (a RESP3 null when there is none) if it is known
    /// here; returns whether it was.
    #[inline]
    pub fn get(&mut self, (spot, key): (Spot, &[u8]), now: Instant, out: &mut Vec<u8>) -> bool {
        let shard = shard_of(&mut self.stripe, spot);
        !shard.closed && shard.answer((spot.hash, key), now, out)
    }
}

/// Puts a warm key with something pending on the list of keys to flush, once.
#[inline]
pub(super) fn list_if_pending(
    table: &KeyTable,
    key: &Key,
    counter: &mut Counter,
    dirty: &mut [Vec<Key>],
) {
    if counter.listed {
        return;
    }
    if !counter.is_pending() {
        let nothing = u64::from(std::mem::take(&mut counter.count));
        table.cancelled.fetch_add(nothing, Ordering::Relaxed);
        return;
    }
    counter.listed = true;
    if let Some(dirty) = dirty.get_mut(usize::from(counter.class)) {
        dirty.push(key.clone());
    }
}

impl Shard {
    /// Counts an increment if the key is warm.
    #[inline]
    pub(super) fn increment(
        &mut self,
        table: &KeyTable,
        hash: u64,
        (key, delta): (&[u8], i64),
        now: Instant,
    ) -> Answer {
        let is_closed = self.closed;
        let Some((key, counter, dirty)) = self.warm((hash, key)) else {
            return Answer::Elsewhere;
        };
        if is_closed {
            return Answer::Elsewhere;
        }
        let answer = counter.add(key.as_bytes(), delta, now, table.ledger);
        list_if_pending(table, key, counter, dirty);
        if let Answer::Value(_) = answer {
            self.acknowledged += 1;
        }
        answer
    }

    /// A warm counter and its key, with the lists of keys to flush at hand: one probe.
    #[inline]
    pub(super) fn warm(
        &mut self,
        (hash, key): (u64, &[u8]),
    ) -> Option<(&Key, &mut Counter, &mut [Vec<Key>])> {
        let found = self
            .entries
            .find_mut(hash, |entry| entry.key.as_bytes() == key);
        match found {
            Some(Entry {
                key,
                state: State::Warm(counter),
            }) => Some((key, counter, &mut self.dirty)),
            _ => None,
        }
    }

    /// Answers a request about the deadline of a warm key, if that can be done here.
    pub(super) fn timed(
        &mut self,
        table: &KeyTable,
        asked: (u64, &[u8]),
        timed: Timed,
        now: Instant,
    ) -> Option<i64> {
        let (key, counter, dirty) = self.warm(asked)?;
        let node = (table.clock(), table.rules.read().guard(counter.class));
        let reply = counter.timed(key.as_bytes(), timed, now, node, table.ledger)?;
        list_if_pending(table, key, counter, dirty);
        Some(reply)
    }

    /// Appends the value of a key as a reply if it is known; returns whether it was.
    #[inline]
    pub(super) fn answer(
        &mut self,
        (hash, key): (u64, &[u8]),
        now: Instant,
        out: &mut Vec<u8>,
    ) -> bool {
        let found = self.entries.find(hash, |entry| entry.key.as_bytes() == key);
        match found.map(|entry| &entry.state) {
            Some(State::Warm(counter)) if counter.answers(now) => {
                encode::decimal(out, counter.value);
            }
            Some(State::Cached { value, until }) if now < *until => match value {
                Some(value) => encode::bulk(out, value),
                None => encode::null(out, Protocol::Resp3),
            },
            _ => return false,
        }
        true
    }
}
