//! Batches that were settled lately, for a node that comes back without them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Increment;

/// A settled batch.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) number: u64,
    /// What the node applied as usual. They stand in no slot any more.
    pub(super) increments: Vec<Increment>,
    /// When it was settled.
    at: Instant,
}

/// The last settled batches of a series, in order. At the bound the oldest is forgotten: should the
/// node come back without it, its increments are reported as lost.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Kept>);

impl History {
    /// Keeps batch `number`, settled `now`, and forgets what is too old or too much.
    pub(super) fn push(&mut self, number: u64, increments: Vec<Increment>, now: Instant) {
        self.0.push_back(Kept {
            number,
            increments,
            at: now,
        });
        while self.0.len() > MAX_KEPT || self.0.front().is_some_and(|kept| kept.is_old(now)) {
            self.0.pop_front();
        }
    }

    /// The batches above `number` that are kept, the last one first; the history is empty then.
    pub(super) fn take_above(
        &mut self,
        number: u64,
        now: Instant,
    ) -> impl Iterator<Item = Kept> + use<> {
        let kept = std::mem::take(&mut self.0).into_iter().rev();
        kept.take_while(move |kept| kept.number > number && !kept.is_old(now))
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Kept {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) > KEPT_FOR
    }
}

/// How long a settled batch is kept: longer than what a server with `appendfsync everysec` loses,
/// and its restart.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Most settled batches that are kept: 32,768 keys, about three megabytes.
const MAX_KEPT: usize = 512;
