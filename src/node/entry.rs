//! A node's lane, locked: whether it takes a command, and the steps that commands are.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Instant;

use parking_lot::MutexGuard;

use super::refused::{Refused, unreachable};
use super::{Came, Deliver, Inner, Link, Node, now};
use crate::counter::{Lane, Step};

/// A node's lane, locked.
pub struct Entry<'a, T> {
    pub(super) node: &'a Node<T>,
    pub(super) inner: MutexGuard<'a, Inner<T>>,
}

impl<T: Deliver> Node<T> {
    /// Locks the lane. Who needs several lanes at once locks them in the order of their nodes;
    /// everybody else lets this one go before taking another.
    pub fn enter(&self) -> Entry<'_, T> {
        Entry {
            node: self,
            inner: self.inner.lock(),
        }
    }
}

impl<T: Deliver> Entry<'_, T> {
    /// Number of the lane's connection: it rises with each new one.
    pub fn connection(&self) -> u64 {
        self.node.counters.connects.load(Ordering::Relaxed)
    }

    /// Whether a command may be appended now. `waker` is kept when there is no room.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn admit(&mut self, waker: &Waker) -> Result<(), Refused> {
        match self.inner.busy_with() {
            Some(text) => Err(Refused::Failed(Arc::clone(text))),
            None => self.admit_behind(waker),
        }
    }

    /// The same for what may wait for a script that keeps the node busy.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn admit_behind(&mut self, waker: &Waker) -> Result<(), Refused> {
        if let Link::Down(reason) = &self.inner.link {
            let text = unreachable(&self.node.name, reason);
            return Err(Refused::Failed(text.into()));
        }
        if !self.inner.lane.has_room() {
            if !self
                .inner
                .stalled
                .iter()
                .any(|stalled| stalled.will_wake(waker))
            {
                self.inner.stalled.push(waker.clone());
            }
            return Err(Refused::Full);
        }
        Ok(())
    }

    /// Whether the lane can be stopped, which takes a connection only if something is pending.
    /// `waker` is kept when there is no room.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn admit_stop(&mut self, waker: &Waker) -> Result<(), Refused> {
        if self.inner.lane.is_idle() && self.node.table.dirty() == 0 {
            return Ok(());
        }
        self.admit(waker)
    }

    /// Goes on to the rules that were given last, if it can.
    pub(super) fn begin_treatment(&mut self, wakes: &mut Vec<Waker>) {
        let is_connected = matches!(self.inner.link, Link::Up(_));
        self.step(now(), wakes, |lane, step| {
            lane.begin_treatment(step, is_connected);
        });
    }

    /// Runs one step of the lane. Sessions to wake are pushed to `wakes`: wake them when no lock
    /// is held.
    pub fn step<R>(
        &mut self,
        now: Instant,
        wakes: &mut Vec<Waker>,
        run: impl FnOnce(&mut Lane<T>, &mut Step<'_, T>) -> R,
    ) -> R {
        let came = Came::here(now);
        let mut deliver = |ticket: T, frame: &[u8]| wakes.extend(ticket.deliver(frame, came));
        let mut step = Step {
            table: &self.node.table,
            now,
            deliver: &mut deliver,
        };
        let lane = &mut self.inner.lane;
        let before = lane.next_window();
        let result = run(lane, &mut step);
        if lane.next_window() != before {
            // The driver waits for its end.
            self.node.attention.notify_one();
        }
        result
    }
}

impl<T> fmt::Debug for Entry<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("node", &self.node.name)
            .finish_non_exhaustive()
    }
}
