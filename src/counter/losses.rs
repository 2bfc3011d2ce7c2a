//! Acknowledged increments that did not reach their key.

use crate::flush::{Cause, Increment};

/// Acknowledged increments that did not reach their key, for the log and the metrics. The first
/// [`Losses::LISTED`] of each kind are named, all are counted.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// Refused by the node: mostly because somebody else put something there that is no counter.
    pub refused: Vec<(Increment, Cause)>,
    /// Nobody knows whether they were applied: the node has lost its marker.
    pub in_doubt: Vec<Increment>,
    /// How many keys' increments were refused.
    pub refused_count: u64,
    /// How many keys' increments are in doubt.
    pub in_doubt_count: u64,
    /// How many keys' increments died with their key, as they would have in Redis.
    pub expired_count: u64,
    /// How many batches a node had acknowledged and forgot.
    pub forgotten_count: u64,
}

impl Losses {
    /// Most losses of a kind kept by name between two calls of [`super::Lane::take_losses`].
    pub const LISTED: usize = 100;

    pub(super) fn refuse(&mut self, increment: Increment, cause: Cause) {
        self.refused_count += 1;
        if self.refused.len() < Self::LISTED {
            self.refused.push((increment, cause));
        }
    }

    pub(super) fn doubt(&mut self, increment: Increment) {
        self.in_doubt_count += 1;
        if self.in_doubt.len() < Self::LISTED {
            self.in_doubt.push(increment);
        }
    }
}
