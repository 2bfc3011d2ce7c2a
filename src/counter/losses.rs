//! Acknowledged increments that did not reach their key.

use super::lane::Lane;
use super::table::KeyTable;
use crate::flush::{Cause, Increment, Slot};

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
    /// Another process goes on with the series: nothing is buffered any more.
    pub fenced: bool,
    /// How many batches a node had acknowledged and then forgot, which nobody can send again.
    pub forgotten_count: u64,
    /// How many keys' increments it forgot that are applied once more.
    pub healed_count: u64,
}

/// Where the increments are that were acknowledged before their node applied them; each is in one
/// place: `acknowledged` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fates {
    /// All of them.
    pub acknowledged: u64,
    /// Applied by the node, or cancelled out, so that there was nothing to apply.
    pub applied: u64,
    /// In batches that are not settled.
    pub in_flight: u64,
    /// Not in a batch yet.
    pub pending: u64,
    /// Died with their key.
    pub expired: u64,
    /// Refused by the node for good.
    pub refused: u64,
    /// Given up: nobody knows whether they were applied.
    pub in_doubt: u64,
}

impl std::ops::AddAssign for Fates {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.applied += other.applied;
        self.in_flight += other.in_flight;
        self.pending += other.pending;
        self.expired += other.expired;
        self.refused += other.refused;
        self.in_doubt += other.in_doubt;
    }
}

impl<T> Lane<T> {
    /// Where the increments are that were acknowledged from `table` and by this lane, at one
    /// moment. Cost: locks each shard once.
    pub fn fates(&self, table: &KeyTable) -> Fates {
        let (here, counts) = (table.increments(), self.counts());
        Fates {
            acknowledged: here.acknowledged,
            applied: counts.applied - counts.healed + here.cancelled,
            in_flight: self.sealed_increments(),
            pending: here.pending,
            expired: counts.expired,
            refused: counts.refused,
            in_doubt: counts.in_doubt,
        }
    }
}

impl KeyTable {
    /// The increment in this slot is given up, and still has to be named.
    pub(super) fn give_up(&self, slot: Option<Slot>) {
        if let (Some(ledger), Some(slot)) = (self.ledger(), slot) {
            ledger.give_up(slot);
        }
    }

    /// Somebody was told of these losses, so the journal need not keep them any more. Until then a
    /// process that is killed leaves them to the next one, which names them.
    pub fn named(&self, losses: &Losses) {
        let refused = losses.refused.iter().map(|(increment, _)| increment);
        for increment in refused.chain(&losses.in_doubt) {
            self.release(increment.slot);
        }
    }
}

impl Losses {
    /// Most losses of a kind kept by name between two calls of [`super::Lane::take_losses`].
    pub const LISTED: usize = 1000;

    /// Gives the increment back where it will not be named.
    pub(super) fn refuse(&mut self, increment: Increment, cause: Cause) -> Result<(), Increment> {
        self.refused_count += 1;
        if self.refused.len() >= Self::LISTED {
            return Err(increment);
        }
        self.refused.push((increment, cause));
        Ok(())
    }

    /// The same.
    pub(super) fn doubt(&mut self, increment: Increment) -> Result<(), Increment> {
        self.in_doubt_count += 1;
        if self.in_doubt.len() >= Self::LISTED {
            return Err(increment);
        }
        self.in_doubt.push(increment);
        Ok(())
    }
}
