//! Flushes of a node's keys: begins them, waits for them, and knows when they began.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Deliver, Inner, Link, Node, now};
use crate::counter::Rules;

/// When flushes of one class began.
#[derive(Clone, Copy)]
pub(super) struct Round {
    /// When the last one did: once it has ended, what is pending is younger.
    pub(super) begun: Instant,
    /// When the one before did: what is in the batches of the last is younger.
    pub(super) before: Instant,
}

impl<T: Deliver> Node<T> {
    /// Begins a flush: what is pending is sealed and sent as fast as it is acknowledged. Nothing
    /// happens while the node is away.
    pub fn flush(&self) {
        let mut inner = self.inner.lock();
        if matches!(inner.link, Link::Up(_)) {
            inner.begin_rounds(|_| true);
            inner.lane.begin_flush(&self.table);
            drop(inner);
            self.send();
        }
    }

    /// The same for the keys of one class, see [`Rules::intervals`].
    pub(super) fn flush_class(&self, class: u8) {
        let mut inner = self.inner.lock();
        if matches!(inner.link, Link::Up(_)) {
            inner.begin_rounds(|of| of == usize::from(class));
            let spread = self.table.rules().spread(class);
            inner.lane.begin_flush_of(&self.table, class, now(), spread);
            drop(inner);
            self.send();
        }
    }

    /// Begins a flush of everything and waits until what is acknowledged now is applied.
    ///
    /// # Errors
    ///
    /// The node is away, or was on the way; [`super::unreachable()`] has words for it.
    pub async fn apply(&self) -> Result<(), Arc<str>> {
        let before = {
            let mut inner = self.inner.lock();
            inner.link.reason()?;
            // One that is under way may have passed keys that are dirty now.
            let under_way = u64::from(inner.lane.is_flushing());
            inner.begin_rounds(|_| true);
            inner.lane.begin_flush(&self.table);
            inner.lane.flushed().0 + under_way
        };
        self.send();
        let mut last = None;
        loop {
            {
                let inner = self.inner.lock();
                inner.link.reason()?;
                let (ended, sealed) = inner.lane.flushed();
                if ended > before {
                    last.get_or_insert(sealed);
                }
                let nothing = inner.lane.is_applied() && self.table.dirty() == 0;
                if nothing || last.is_some_and(|last| inner.lane.is_settled_up_to(last)) {
                    return Ok(());
                }
            }
            tokio::time::sleep(TURN).await;
        }
    }
}

impl<T> Inner<T> {
    /// Begins to count flushes anew if the rules have changed; returns whether they had.
    pub(super) fn renew_rounds(&mut self, rules: &Rules) -> bool {
        let is_new = self.rounds_of != self.lane.treatments();
        if is_new {
            self.rounds_of = self.lane.treatments();
            self.rounds = rounds(rules);
        }
        is_new
    }

    /// Notes that flushes of these classes begin. While one is under way they begin later, when
    /// that ends, and nobody sees it: until the next flush, what is pending is taken for older than
    /// it is.
    pub(super) fn begin_rounds(&mut self, is_begun: impl Fn(usize) -> bool) {
        if self.lane.is_flushing() {
            return;
        }
        let now = now();
        for (class, round) in self.rounds.iter_mut().enumerate() {
            if is_begun(class) {
                round.before = std::mem::replace(&mut round.begun, now);
            }
        }
    }
}

/// No flush has begun yet.
pub(super) fn rounds(rules: &Rules) -> Vec<Round> {
    let round = Round {
        begun: now(),
        before: now(),
    };
    vec![round; rules.intervals().len()]
}

/// Between two looks at a flush.
const TURN: Duration = Duration::from_millis(2);
