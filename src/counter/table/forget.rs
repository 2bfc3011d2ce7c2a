//! How keys leave a table: when their time is over, when the connection is lost, or all at once.

use std::sync::atomic::Ordering;
use std::time::Instant;

use twox_hash::XxHash3_64;

use super::{Entry, KeyTable, Shard, cost};
use crate::counter::state::State;
use crate::rule::{Rule, holds};

impl KeyTable {
    /// Answers no counter any more that is warm now.
    pub(in crate::counter) fn cool(&self) {
        self.each(|shard| {
            for entry in &mut shard.entries {
                if let State::Warm(counter) = &mut entry.state {
                    counter.cooling = true;
                }
            }
        });
    }

    /// Forgets every key. The caller has seen to it that nothing is pending. Cost: one pass over
    /// the table, which each key is part of once.
    pub(in crate::counter) fn forget(&self) {
        self.each(|shard| self.retain(shard, |_| false));
    }

    /// Drops what is no longer answered in `count` shards from `first` on (wrapping round);
    /// returns where to go on. Under pressure (three quarters of the keys used) mere touches go
    /// too. Cost: one pass over those shards.
    pub fn sweep(&self, first: usize, count: usize, now: Instant) -> usize {
        let pressure = self.len() > self.max_keys() / 4 * 3;
        let keep = |entry: &mut Entry| match &entry.state {
            State::Touched { until, .. } => now < *until && !pressure,
            State::Cached { until, .. } | State::Denied { until, .. } => now < *until,
            State::Warm(counter) => {
                counter.queue().is_some()
                    || !counter.is_clean()
                    || counter.listed
                    || now < counter.fresh_until
            }
            State::Fetching { .. } | State::Opening { .. } | State::Waiting { .. } => true,
        };
        for number in first..first + count.min(self.shards()) {
            self.nth(number, |shard| self.retain(shard, keep));
        }
        (first + count) % self.shards()
    }

    /// The connection was lost: keeps only counters with something pending, without their queues
    /// (whose clients the lane has told).
    pub(in crate::counter) fn disconnected(&self) {
        self.each(|shard| {
            shard.closed = false;
            self.retain(shard, |entry| match &mut entry.state {
                State::Warm(counter) => {
                    counter.set_queue(None);
                    if counter.is_clean() {
                        !holds(Rule::ForgetOnLoss)
                    } else {
                        holds(Rule::KeepOnLoss)
                    }
                }
                _ => false,
            });
        });
    }

    fn retain(&self, shard: &mut Shard, mut keep: impl FnMut(&mut Entry) -> bool) {
        let before = shard.entries.len();
        shard.entries.retain(|entry| {
            let keep = keep(entry);
            if !keep {
                self.uncount(entry.key.as_bytes(), &entry.state);
            }
            keep
        });
        let gone = before - shard.entries.len();
        self.used.keys.fetch_sub(gone, Ordering::Relaxed);
        // Memory falls again after a burst.
        if shard.entries.capacity() > 4 * shard.entries.len() + 64 {
            let seed = self.seed;
            let hash = |entry: &Entry| XxHash3_64::oneshot_with_seed(seed, entry.key.as_bytes());
            shard.entries.shrink_to_fit(hash);
        }
    }

    pub(super) fn uncount(&self, key: &[u8], state: &State) {
        if let State::Cached { value, .. } = state {
            let bytes = cost(key, value.as_deref());
            self.used.cached_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        if let State::Warm(counter) = state {
            // Nothing is pending on a counter that goes, so what was counted is zero in sum.
            let nothing = u64::from(counter.count);
            self.cancelled.fetch_add(nothing, Ordering::Relaxed);
            self.release(counter.slot);
        }
    }
}
