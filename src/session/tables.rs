//! The key tables that several requests, or keys of one, ask.

use std::sync::Arc;
use std::time::Instant;

use super::Ticket;
use crate::counter::{Answer, Held, Spot, Timed};
use crate::node::Node;

/// The tables of a database. A table that one lock guards stays locked from one key to the next for
/// as long as this value lives: so nobody may wait for a lane, or ask anything else of a table,
/// meanwhile.
///
/// A key comes with its [`Spot`] in the table of the node `index`, which comes from the ring.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    nodes: &'a [Arc<Node<Ticket>>],
    /// Locked tables with the index of their node, at the place that the index modulo the length
    /// gives.
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

    /// See [`Held::increment`].
    #[inline]
    pub(super) fn increment(
        &mut self,
        index: usize,
        asked: (Spot, &[u8]),
        delta: i64,
        now: Instant,
    ) -> Answer {
        self.ask(index, asked.0, |table| table.increment(asked, delta, now))
            .unwrap_or(Answer::Elsewhere)
    }

    /// See [`Held::timed`].
    pub(super) fn timed(
        &mut self,
        index: usize,
        asked: (Spot, &[u8]),
        timed: Timed,
        now: Instant,
    ) -> Option<i64> {
        self.ask(index, asked.0, |table| table.timed(asked, timed, now))?
    }

    /// See [`Held::get`].
    #[inline]
    pub(super) fn get(
        &mut self,
        index: usize,
        asked: (Spot, &[u8]),
        now: Instant,
        out: &mut Vec<u8>,
    ) -> bool {
        self.ask(index, asked.0, |table| table.get(asked, now, out))
            .unwrap_or(false)
    }

    #[inline]
    fn ask<R>(
        &mut self,
        index: usize,
        spot: Spot,
        ask: impl FnOnce(&mut Held<'a>) -> R,
    ) -> Option<R> {
        let place = index % MOST_HELD;
        if let Some(Some((of, table))) = self.held.get_mut(place)
            && *of == index
        {
            return Some(ask(table));
        }
        let table = self.nodes.get(index)?.table();
        if !table.is_one() {
            return Some(ask(&mut table.hold(spot)));
        }
        // Whoever waited for one table with others locked could wait for ever.
        let mut held = table.try_hold(spot).unwrap_or_else(|| {
            self.held = [const { None }; MOST_HELD];
            table.hold(spot)
        });
        let answer = ask(&mut held);
        *self.held.get_mut(place)? = Some((index, held));
        Some(answer)
    }
}

/// Most tables that are locked at once; with more nodes than that, some take turns.
const MOST_HELD: usize = 4;
