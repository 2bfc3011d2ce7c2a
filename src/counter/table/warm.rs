//! What is answered from a table without the lane.

use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::MutexGuard;

use super::{Entry, KeyTable, Shard, Stripe, list, shard_of};
use crate::counter::state::{Answer, State};
use crate::resp::{Protocol, encode};

/// A table that stays locked over several requests.
///
/// Without an atomic step between them the processor looks for the next key while it waits for the
/// memory of the last one.
#[derive(Debug)]
pub struct Held<'a> {
    pub(super) table: &'a KeyTable,
    pub(super) stripe: MutexGuard<'a, Stripe>,
}

impl Held<'_> {
    /// As [`KeyTable::increment`].
    #[inline]
    pub fn increment(&mut self, key: &[u8], delta: i64, now: Instant) -> Answer {
        let spot = self.table.spot(key);
        let shard = shard_of(&mut self.stripe, spot);
        shard.increment(self.table, spot.hash, (key, delta), now)
    }

    /// As [`KeyTable::get`].
    #[inline]
    pub fn get(&mut self, key: &[u8], now: Instant, out: &mut Vec<u8>) -> bool {
        let spot = self.table.spot(key);
        let shard = shard_of(&mut self.stripe, spot);
        !shard.closed && shard.answer((spot.hash, key), now, out)
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
        // One probe, with the list of dirty keys at hand.
        let found = self
            .entries
            .find_mut(hash, |entry| entry.key.as_bytes() == key);
        let Some(Entry {
            key,
            state: State::Warm(counter),
        }) = found
        else {
            return Answer::Elsewhere;
        };
        if self.closed {
            return Answer::Elsewhere;
        }
        let answer = counter.add(key.as_bytes(), delta, now, table.ledger);
        if let Answer::Value(_) = answer {
            self.acknowledged += 1;
        }
        if !counter.listed {
            if counter.is_pending() {
                counter.listed = true;
                list(&mut self.dirty, counter.class, key);
            } else {
                let nothing = u64::from(std::mem::take(&mut counter.count));
                table.cancelled.fetch_add(nothing, Ordering::Relaxed);
            }
        }
        answer
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
