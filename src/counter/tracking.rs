//! Changes by others, as the node tells of them (`CLIENT TRACKING`), in order with its replies.
//!
//! Every read that makes a key cached or warm is the last command on that key in its request, so
//! the node tells of the next change by anybody else (measured on Redis 7.0: a write of our own
//! makes it forget the key, a read behind it arms it again). A key carries no database there.

use std::time::Duration;

use super::lane::{Lane, Step};
use super::state::{State, Told};
use crate::rule::{Rule, holds};

impl<T> Lane<T> {
    /// Somebody else changed `key`: what is known of it is answered no more. What is pending is
    /// sealed, and the answer says what the key is now.
    pub fn invalidate(&mut self, step: &mut Step<'_, T>, key: &[u8]) {
        self.changed(step, key, true);
    }

    /// The same for a key whose name is counted in another database too: probably it was that one
    /// that changed. The next batch asks for the deadline, what is pending waits for the next
    /// flush, and a clean counter is answered for `GRACE` at most. Otherwise two hot counters of
    /// one name would make each other cold, or would set off each other's flushes, one in each
    /// round trip.
    pub fn invalidate_either(&mut self, step: &mut Step<'_, T>, key: &[u8]) {
        self.changed(step, key, false);
    }

    fn changed(&mut self, step: &mut Step<'_, T>, key: &[u8], at_once: bool) {
        let mut place = step.table.lock(key);
        if let Some(counter) = place.counter() {
            counter.told = match counter.told {
                Told::On(_) | Told::Doubted if !at_once => Told::Doubted,
                _ => Told::Changed,
            };
        }
        match place.state() {
            Some(State::Fetching { .. }) if !holds(Rule::InvalidateFetches) => {}
            Some(State::Cached { .. }) if !holds(Rule::InvalidateCached) => {}
            Some(State::Warm(counter)) if counter.is_clean() && !holds(Rule::InvalidateWarm) => {}
            Some(State::Cached { .. } | State::Denied { .. } | State::Fetching { .. }) => {
                place.clear();
            }
            Some(State::Warm(counter)) if !counter.is_clean() => {
                // The transaction of a batch counts as somebody else's change too; the key is read
                // behind it.
                let is_read = self.series.makes_calls() && counter.in_flight > 0;
                if at_once && !is_read {
                    self.seal(&mut place);
                }
            }
            Some(State::Warm(counter)) if counter.queue().is_some() => counter.cooling = true,
            Some(State::Warm(counter)) if !at_once => {
                let grace = step.now.checked_add(GRACE);
                counter.fresh_until = grace.map_or(step.now, |end| end.min(counter.fresh_until));
            }
            Some(State::Warm(_)) => place.clear(),
            // A run in flight is answered with what is true then; the rest knows nothing.
            Some(State::Opening { .. } | State::Touched { .. } | State::Waiting { .. }) | None => {}
        }
    }

    /// A client is about to read `key`, and keeps it until it is told of a change or of its end: the
    /// value has to come from the node, behind the question for its end. A kept one, or one on its
    /// way, may be of a key that has ended there meanwhile, and nobody would tell.
    pub fn read_afresh(&mut self, step: &mut Step<'_, T>, key: &[u8]) {
        let mut place = step.table.lock(key);
        if let Some(State::Cached { .. } | State::Fetching { .. }) = place.state() {
            place.clear();
        }
    }

    /// Somebody else changed every key, or the node lost track of them: as [`Lane::invalidate`] for
    /// all. Cost: one pass over the table.
    pub fn invalidate_all(&mut self, step: &mut Step<'_, T>) {
        for key in step.table.known() {
            self.invalidate(step, key.as_bytes());
        }
    }
}

/// Enough for the next increment of a key that is worth being warm (ten a second), and shorter than
/// anybody would notice.
const GRACE: Duration = Duration::from_millis(100);
