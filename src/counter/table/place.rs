//! One key of a table, under its shard's lock: what the lane reads and changes.

use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::MutexGuard;
use twox_hash::XxHash3_64;

use super::warm::list_if_pending;
use super::{Entry, KeyTable, Shard, Spot, Stripe, cost, shard_of};
use crate::counter::deadlines::Timed;
use crate::counter::state::{Answer, Counter, State, Telling};
use crate::flush::Increment;
use crate::key::Key;

/// A key's place in the table, its shard locked.
#[derive(Debug)]
pub(in crate::counter) struct Place<'a> {
    pub(super) table: &'a KeyTable,
    pub(super) stripe: MutexGuard<'a, Stripe>,
    pub(super) spot: Spot,
    pub(super) key: &'a [u8],
}

impl Place<'_> {
    /// The key's state; `None` when it is cold.
    #[inline]
    pub(in crate::counter) fn state(&mut self) -> Option<&mut State> {
        self.occupied().map(|entry| &mut entry.state)
    }

    /// Appends the value as a reply if it is known; returns whether it was. Does not ask whether
    /// the table is closed: the lane comes here only with what is not held.
    #[inline]
    pub(in crate::counter) fn answer(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let asked = (self.spot.hash, self.key);
        self.shard().answer(asked, now, out)
    }

    #[inline]
    pub(super) fn shard(&mut self) -> &mut Shard {
        shard_of(&mut self.stripe, self.spot)
    }

    /// Whether a whole-node command waits: nothing is answered here.
    pub(in crate::counter) fn is_closed(&mut self) -> bool {
        self.shard().closed
    }

    /// The counter, when the key is warm.
    pub(in crate::counter) fn counter(&mut self) -> Option<&mut Counter> {
        match self.state() {
            Some(State::Warm(counter)) => Some(counter),
            _ => None,
        }
    }

    /// Counts an increment if the key is warm and that can be done here.
    pub(in crate::counter) fn add(&mut self, delta: i64, now: Instant) -> Answer {
        let (key, ledger) = (self.key, self.table.ledger);
        self.counter().map_or(Answer::Elsewhere, |counter| {
            counter.add(key, delta, now, ledger)
        })
    }

    /// What is pending was changed other than by [`Place::add`], see [`Counter::note`].
    pub(in crate::counter) fn note(&mut self) -> bool {
        let (key, ledger) = (self.key, self.table.ledger);
        self.counter()
            .is_none_or(|counter| counter.note(key, ledger))
    }

    /// Answers a request about the key's deadline, if the key is warm and that can be done here.
    pub(in crate::counter) fn timed(&mut self, timed: Timed, now: Instant) -> Option<i64> {
        let (table, asked) = (self.table, (self.spot.hash, self.key));
        self.shard().timed(table, asked, timed, now)
    }

    /// Whether the key is warm and everything acknowledged has been applied.
    pub(in crate::counter) fn is_clean(&mut self) -> bool {
        self.counter().is_some_and(|counter| counter.is_clean())
    }

    /// The key as the client spells it.
    pub(in crate::counter) fn name(&self) -> &[u8] {
        self.key
    }

    /// The key's hash, by which it is found.
    pub(in crate::counter) fn hash(&self) -> u64 {
        self.spot.hash
    }

    /// The key, to be kept.
    pub(in crate::counter) fn key(&self) -> Key {
        Key::new(self.key)
    }

    /// Puts a warm key with something pending on the list of keys to flush, once.
    #[inline]
    pub(in crate::counter) fn list_if_pending(&mut self) {
        let (table, asked) = (self.table, (self.spot.hash, self.key));
        if let Some((key, counter, dirty)) = self.shard().warm(asked) {
            list_if_pending(table, key, counter, dirty);
        }
    }

    /// The key has been taken off the lists of what to seal: takes what is pending, if the key is
    /// still warm.
    pub(in crate::counter) fn unlist_and_seal(
        &mut self,
        urgent: bool,
        telling: Option<Telling>,
    ) -> Option<Increment> {
        let (key, table) = (self.key(), self.table);
        let counter = self.counter()?;
        if urgent {
            counter.urgent = false;
        } else {
            counter.listed = false;
        }
        let sealed = counter.seal(key, telling);
        if let Some(increment) = &sealed {
            self.shard().sealed += u64::from(increment.count);
        } else {
            let nothing = u64::from(std::mem::take(&mut counter.count));
            table.cancelled.fetch_add(nothing, Ordering::Relaxed);
            table.release(counter.slot.take());
        }
        sealed
    }

    /// An increment was counted by the lane.
    pub(in crate::counter) fn acknowledged(&mut self) {
        self.shard().acknowledged += 1;
    }

    /// Puts the key into `state`; false when the table is full and the key new, then nothing
    /// changes.
    pub(in crate::counter) fn try_set(&mut self, state: State) -> bool {
        let vacant = self.occupied().is_none();
        if vacant && self.table.len() >= self.table.max_keys() {
            return false;
        }
        self.set(state);
        true
    }

    /// Puts the key into `state`, even past the bound of keys: commands wait for it.
    pub(in crate::counter) fn set(&mut self, state: State) {
        if let Some(entry) = self.occupied() {
            let old = std::mem::replace(&mut entry.state, state);
            self.table.uncount(self.key, &old);
            return;
        }
        let entry = Entry {
            key: Key::new(self.key),
            state,
        };
        let seed = self.table.seed;
        let hasher = |entry: &Entry| XxHash3_64::oneshot_with_seed(seed, entry.key.as_bytes());
        let hash = self.spot.hash;
        self.shard().entries.insert_unique(hash, entry, hasher);
        self.table.used.keys.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps a value as Redis gave it, if there is room for it; else the key is merely touched.
    pub(in crate::counter) fn cache(&mut self, value: Option<&[u8]>, until: Instant) {
        let bytes = cost(self.key, value);
        let used = &self.table.used;
        let (cached, most) = (&used.cached_bytes, &used.max_cached_bytes);
        if cached.load(Ordering::Relaxed) + bytes > most.load(Ordering::Relaxed) {
            self.set(State::Touched {
                until,
                cool_until: None,
            });
            return;
        }
        self.set(State::Cached {
            value: value.map(Into::into),
            until,
        });
        cached.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Makes the key cold.
    pub(in crate::counter) fn clear(&mut self) {
        let key = self.key;
        let hash = self.spot.hash;
        let found = self
            .shard()
            .entries
            .find_entry(hash, |entry| entry.key.as_bytes() == key);
        if let Ok(occupied) = found {
            let (entry, _) = occupied.remove();
            self.table.uncount(self.key, &entry.state);
            self.table.used.keys.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn occupied(&mut self) -> Option<&mut Entry> {
        let (hash, key) = (self.spot.hash, self.key);
        self.shard()
            .entries
            .find_mut(hash, |entry| entry.key.as_bytes() == key)
    }
}
