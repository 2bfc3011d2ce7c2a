//! The combining window of the mode `exact`: the first increment of a key waits for company.
//!
//! While a run is in flight, increments that come wait for it anyway and go as the next one. Only
//! the first of a key that is at rest opens a window: it stands in the key's queue, as does all that
//! comes for the key meanwhile, until the window ends. When that is the driver is told by
//! [`Lane::next_window`].

use std::time::Instant;

use super::lane::{Lane, Step};
use super::queue::Queued;
use super::state::State;
use super::table::Place;

impl<T> Lane<T> {
    /// When the next window ends, if one is open.
    pub fn next_window(&self) -> Option<Instant> {
        self.windows.front().map(|(end, _)| *end)
    }

    /// When the driver has to look after the lane next: a window ends, or a flush that is spread
    /// over time goes on.
    pub fn next_due(&self) -> Option<Instant> {
        self.next_window()
            .into_iter()
            .chain(self.next_batch())
            .min()
    }

    /// Sends what windows held back that have ended by now.
    pub fn end_windows(&mut self, step: &mut Step<'_, T>) {
        while self.next_window().is_some_and(|end| end <= step.now) {
            let Some((_, key)) = self.windows.pop_front() else {
                return;
            };
            // It waits no more: it was let go together with another key, or is in flight.
            let mut place = step.table.lock(key.as_bytes());
            let Some(State::Waiting { queue }) = place.state() else {
                continue;
            };
            let queue = *queue;
            drop(place);
            self.drain_key(step, key, queue, None);
        }
    }

    /// Has an increment of a key at rest wait until `end`.
    pub(super) fn open_window(
        &mut self,
        mut place: Place<'_>,
        end: Instant,
        delta: i64,
        ticket: T,
    ) {
        let key = place.key();
        let queue = self.attach_queue(&mut place);
        drop(place);
        self.enqueue(queue, Queued::Increment { delta, ticket });
        // The windows of different rules differ by milliseconds, so its place is near the end.
        let later = self
            .windows
            .iter()
            .rev()
            .take_while(|(other, _)| *other > end);
        let at = self.windows.len() - later.count();
        self.windows.insert(at, (end, key));
    }
}
