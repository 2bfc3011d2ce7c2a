//! The key tables that a batch of requests asks.

use std::sync::Arc;
use std::time::Instant;

use super::Ticket;
use crate::counter::{Answer, Held, Timed};
use crate::node::Node;

/// The tables of a database. Each that one lock guards stays locked from one request to the next,
/// until [`Tables::let_go`]: before any other lock is waited for, or anything else is asked of a
/// table, and at the end of the batch.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    nodes: &'a [Arc<Node<Ticket>>],
    /// With the index of its node; that modulo the length says where.
    held: [Option<(usize, Held<'a>)>; MOST_HELD],
}

impl<'a> Tables<'a> {
    /// None is locked.
    pub(super) fn new(nodes: &'a [Arc<Node<Ticket>>]) -> Self {
        Self {
            nodes,
            held: [const { None }; MOST_HELD],
        }
    }

    /// See [`KeyTable::increment`](crate::counter::KeyTable::increment). `index` comes from the
    /// ring.
    #[inline]
    pub(super) fn increment(
        &mut self,
        index: usize,
        key: &[u8],
        delta: i64,
        now: Instant,
    ) -> Answer {
        match self.hold(index) {
            Some(table) => table.increment(key, delta, now),
            None => self.node(index).map_or(Answer::Elsewhere, |node| {
                node.table().increment(key, delta, now)
            }),
        }
    }

    /// See [`KeyTable::timed`](crate::counter::KeyTable::timed).
    pub(super) fn timed(
        &mut self,
        index: usize,
        key: &[u8],
        timed: Timed,
        now: Instant,
    ) -> Option<i64> {
        match self.hold(index) {
            Some(table) => table.timed(key, timed, now),
            None => self.node(index)?.table().timed(key, timed, now),
        }
    }

    /// See [`KeyTable::get`](crate::counter::KeyTable::get).
    #[inline]
    pub(super) fn get(
        &mut self,
        index: usize,
        key: &[u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) -> bool {
        match self.hold(index) {
            Some(table) => table.get(key, now, out),
            None => self
                .node(index)
                .is_some_and(|node| node.table().get(key, now, out)),
        }
    }

    /// Unlocks them all.
    #[inline]
    pub(super) fn let_go(&mut self) {
        for held in &mut self.held {
            *held = None;
        }
    }

    fn node(&self, index: usize) -> Option<&'a Arc<Node<Ticket>>> {
        self.nodes.get(index)
    }

    /// A table, locked. `None`, with none locked, when it has many locks or somebody else has it:
    /// who waited for it with others locked could wait for ever.
    #[inline]
    fn hold(&mut self, index: usize) -> Option<&mut Held<'a>> {
        let place = index % MOST_HELD;
        let is_held = matches!(self.held.get(place), Some(Some((of, _))) if *of == index);
        if !is_held {
            self.lock(index, place)?;
        }
        let (_, table) = self.held.get_mut(place)?.as_mut()?;
        Some(table)
    }

    fn lock(&mut self, index: usize, place: usize) -> Option<()> {
        let table = self.node(index)?.table().try_hold();
        if table.is_none() {
            self.let_go();
        }
        *self.held.get_mut(place)? = Some((index, table?));
        Some(())
    }
}

/// Most tables that are locked at once; with more nodes some take turns.
const MOST_HELD: usize = 4;
