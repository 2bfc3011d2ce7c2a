//! What a node tells of itself: figures for `INFO` and the metrics, and how far its flushes are.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::rounds::Round;
use super::{Deliver, Inner, Link, Node, now};
use crate::counter::{Counts, Fates};
use crate::telemetry::{NodeState, NodeStatus};

impl<T: Deliver> Node<T> {
    /// A snapshot for INFO and the metrics.
    pub fn status(&self) -> NodeStatus {
        let inner = self.inner.lock();
        let address = self.config().address.clone();
        let state = match &inner.link {
            Link::Unused | Link::Connecting => NodeState::Connecting,
            Link::Up(_) if self.moved.load(Ordering::Acquire) => NodeState::Connecting,
            Link::Up(_) => NodeState::Connected,
            Link::Down(reason) => NodeState::Down {
                reason: reason.to_string(),
            },
        };
        let now = now();
        let pending_keys = inner.lane.pending_keys(&self.table);
        let pending_since = self.pending_since(&inner, pending_keys);
        let connects = self.counters.connects.load(Ordering::Relaxed);
        let (batches, batches_unanswered) = inner.lane.batches();
        NodeStatus {
            name: self.name.clone(),
            address,
            state,
            redis_version: inner.peer.version.clone(),
            valkey_version: inner.peer.valkey_version.clone(),
            run_id: inner.peer.run_id.clone(),
            tracking: inner.peer.tracking && matches!(inner.link, Link::Up(_)),
            in_flight: inner.lane.in_flight(),
            unsent_bytes: inner.lane.unsent_bytes() + inner.rest.0.len() - inner.rest.1,
            requests: inner.lane.counts().requests,
            errors: self.counters.errors.load(Ordering::Relaxed),
            keys: self.table.len(),
            pending_keys,
            batches,
            batches_unanswered,
            reconnects: connects.saturating_sub(1),
            pending_for: pending_since
                .map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            reply_times: self.counters.reply_times.sample(),
        }
    }

    /// A time before which nothing was acknowledged that is still pending or unsettled; `None` when
    /// everything is applied. It is that of the flush before the one that takes, or took, the keys.
    fn pending_since(&self, inner: &Inner<T>, pending_keys: usize) -> Option<Instant> {
        let rounds = &inner.rounds;
        let before = |round: &Round| round.before;
        let batch = inner.lane.oldest_batch();
        let sealed = batch.map(|sent| rounds.first().map_or(sent, before).min(sent));
        let dirty = self.table.dirty_by_class();
        // The flush under way took keys off the lists and has not sealed them: of any class.
        let is_taken = pending_keys > dirty.iter().sum();
        let taken = rounds.iter().map(before).min().filter(|_| is_taken);
        let is_flushing = inner.lane.is_flushing();
        let unsealed = rounds.iter().zip(dirty).filter(|(_, keys)| *keys > 0);
        let unsealed = unsealed.map(|(round, _)| {
            if is_flushing {
                round.before
            } else {
                round.begun
            }
        });
        unsealed.chain(sealed).chain(taken).min()
    }

    /// What the lane has done so far.
    pub fn counts(&self) -> Counts {
        self.inner.lock().lane.counts()
    }

    /// Keys with increments that are in no batch yet.
    pub fn pending_keys(&self) -> usize {
        self.inner.lock().lane.pending_keys(&self.table)
    }

    /// Keys with increments that are not settled: those in no batch yet, and those in each batch.
    pub fn unflushed_keys(&self) -> usize {
        let inner = self.inner.lock();
        inner.lane.pending_keys(&self.table) + inner.lane.sealed_keys()
    }

    /// Of these, keys whose increments a process before this one acknowledged and which are not on
    /// their way yet.
    pub fn recovering_keys(&self) -> usize {
        self.inner.lock().lane.recovering()
    }

    /// Where the increments are that were acknowledged before they were applied.
    pub fn fates(&self) -> Fates {
        self.inner.lock().lane.fates(&self.table)
    }

    /// Whether everything acknowledged has been applied and nothing is in flight.
    pub fn is_settled(&self) -> bool {
        let inner = self.inner.lock();
        inner.lane.is_idle() && self.table.dirty() == 0
    }

    /// Whether the first attempt to connect, or to connect again, is under way.
    pub fn is_connecting(&self) -> bool {
        matches!(self.inner.lock().link, Link::Connecting)
    }

    /// Whether commands fail at once, or wait for a first connection.
    pub fn is_away(&self) -> bool {
        !matches!(self.inner.lock().link, Link::Up(_))
    }
}
