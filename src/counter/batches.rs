//! Sealing what is pending into numbered batches, and sending them, again if need be.

use std::time::{Duration, Instant};

use super::lane::Lane;
use super::queue::{InFlight, Transaction};
use super::recover;
use super::rules::Classes;
use super::table::{KeyTable, Place};
use crate::flush::{self, Applier, Forgotten, Increment};

impl<T> Lane<T> {
    /// A connection to the node is up. `applier` is how the node applies batches, if it can.
    /// `marker` is the value of its marker, which shows whether it came back with less than it had.
    /// `tells` says whether the connection reports changes by others. What was not acknowledged is
    /// sent again.
    pub fn connected(
        &mut self,
        table: &KeyTable,
        now: Instant,
        applier: Option<Applier>,
        marker: Option<&[u8]>,
        tells: bool,
    ) {
        self.tells = tells;
        self.series.set_applier(applier);
        if let Some(forgotten) = marker.and_then(|marker| self.series.on_marker(marker, now)) {
            self.heal(table, &forgotten, now);
        }
        if self.series.is_owned() && self.series.is_settled() {
            // From now on a missing marker means that the node has lost something.
            self.series.encode_marker(true, &mut self.wire);
            self.push(now, InFlight::Forwarded(None));
        }
    }

    /// The node came back with less than it had: what is still known of that is on its way again.
    fn heal(&mut self, table: &KeyTable, forgotten: &Forgotten, now: Instant) {
        self.losses.forgotten_count += forgotten.lost;
        self.losses.healed_count += u64::try_from(forgotten.again.len()).unwrap_or(u64::MAX);
        for increment in &forgotten.again {
            self.counts.healed += u64::from(increment.count);
            recover::on_counter(table, increment, now, |counter| {
                counter.in_flight += 1;
                counter.in_flight_delta = counter.in_flight_delta.wrapping_add(increment.delta);
            });
        }
    }

    /// Begins a flush: from now on [`Lane::take_wire`] seals every key that is dirty now, as far
    /// as there is room. It goes once round the shards of the table, so a key that is dirty again
    /// by then waits for the next flush.
    ///
    /// While one is under way it begins when that ends: begun anew at once, none would ever come
    /// round under a load that keeps the nodes busy for longer than an interval.
    pub fn begin_flush(&mut self, table: &KeyTable) {
        self.begin(table, Classes::ALL);
    }

    /// The same for the keys of one class of flush interval, see [`super::Rules::intervals`]. The
    /// flush is spread over `spread` unless somebody waits for it: [`Lane::next_batch`] says when
    /// to take the lane's bytes for the next batch. Sent all at once, 5,000 keys would keep the
    /// node, and whoever shares its processor, busy for some 30 ms.
    pub fn begin_flush_of(&mut self, table: &KeyTable, class: u8, now: Instant, spread: Duration) {
        let mut classes = Classes::default();
        classes.insert(class);
        if !self.is_flushing() {
            let dirty = table.dirty_by_class();
            let keys = dirty.get(usize::from(class)).copied().unwrap_or_default();
            self.pace = Pace::new(now, spread, keys + self.dirty.len());
        }
        self.go_round(table, classes);
    }

    fn begin(&mut self, table: &KeyTable, classes: Classes) {
        self.pace = None;
        self.go_round(table, classes);
    }

    fn go_round(&mut self, table: &KeyTable, classes: Classes) {
        if self.is_flushing() {
            self.flush_next.add(classes);
        } else {
            self.flushing = classes;
            self.shards_left = table.shards();
        }
    }

    /// When a flush that is spread over time goes on.
    pub fn next_batch(&self) -> Option<Instant> {
        let pace = self.pace.filter(|_| self.is_flushing())?;
        self.series.has_room().then(|| pace.next())
    }

    /// Whether a flush is under way, and its next batch is due.
    fn is_due(&self, now: Instant) -> bool {
        self.is_flushing() && self.pace.is_none_or(|pace| pace.next() <= now)
    }

    /// Whether a flush is under way.
    pub fn is_flushing(&self) -> bool {
        !self.flushing.is_empty()
    }

    /// How many flushes have ended, all that was dirty of their classes being sealed, and the
    /// number of the last batch when the latest one did.
    pub fn flushed(&self) -> (u64, u64) {
        self.flushed
    }

    /// Whether every batch up to this number is settled.
    pub fn is_settled_up_to(&self, number: u64) -> bool {
        self.series.settled() >= number
    }

    /// Increments of clients in batches that are not settled.
    pub(super) fn sealed_increments(&self) -> u64 {
        let increments = self.series.increments();
        increments.map(|increment| u64::from(increment.count)).sum()
    }

    /// Whether everything that was sealed has been applied, and nothing is to be sealed at once.
    pub fn is_applied(&self) -> bool {
        let is_recovered = self.unsent.is_empty() && self.suspects.is_empty();
        let is_settled = self.series.is_settled() && !self.series.is_calling();
        is_settled && self.urgent.is_empty() && self.dirty.is_empty() && is_recovered
    }

    /// Keys with increments that are in no batch yet: those on the table's lists, and those that a
    /// flush took off them. Locks each shard once.
    pub fn pending_keys(&self, table: &KeyTable) -> usize {
        self.unsent.len() + self.suspects.len() + self.dirty.len() + table.dirty()
    }

    /// Keys with increments of the process before that are not on their way yet. A key counts once
    /// for each batch that it is in.
    pub fn recovering(&self) -> usize {
        let sealed = if self.series.is_owned() {
            0
        } else {
            self.sealed_keys()
        };
        self.unsent.len() + self.suspects.len() + sealed
    }

    /// Keys in batches that are not settled. A key counts once for each batch that it is in.
    pub fn sealed_keys(&self) -> usize {
        self.series.keys().count()
    }

    /// How many batches are not settled, and how many of these lost their connection before the
    /// answer came.
    pub fn batches(&self) -> (usize, usize) {
        (self.series.unsettled(), self.series.unanswered())
    }

    /// The note by which the last batch was sealed, see [`flush::Ledger::seal`].
    pub fn sealed_at(&self) -> u64 {
        self.sealed_at
    }

    /// The key on the node in which it keeps the number of the last flush batch.
    pub fn marker(&self) -> &[u8] {
        self.series.marker()
    }

    /// Has what is pending on a warm key sealed with the next bytes.
    pub(super) fn seal(&mut self, place: &mut Place<'_>) {
        let key = place.key();
        if let Some(counter) = place.counter()
            && counter.is_pending()
            && !counter.urgent
        {
            counter.urgent = true;
            self.urgent.push(key);
        }
    }

    /// Sends batches again that have to be sent again, and seals what is to be sealed, as far as
    /// there is room.
    pub(super) fn seal_batches(&mut self, table: &KeyTable, now: Instant) {
        if self.series.wants_again(!self.flushing.is_empty()) {
            for number in self.series.send_again(&mut self.wire) {
                self.counts.batches += 1;
                self.await_answer(now, number);
            }
        }
        while self.series.has_room()
            && (self.is_due(now) || !self.urgent.is_empty() || !self.unsent.is_empty())
        {
            let mut batch = self.take_unsent();
            let telling = self.telling();
            let mut ended = false;
            while batch.len() < flush::MAX_KEYS {
                let Some(key) = self.urgent.pop() else {
                    break;
                };
                batch.extend(table.lock(key.as_bytes()).unlist_and_seal(true, telling));
            }
            while !self.flushing.is_empty() && batch.len() < flush::MAX_KEYS {
                if let Some(key) = self.dirty.pop() {
                    batch.extend(table.lock(key.as_bytes()).unlist_and_seal(false, telling));
                } else if self.shards_left > 0 {
                    table.take_dirty(self.next_shard, self.flushing, &mut self.dirty);
                    self.next_shard = (self.next_shard + 1) % table.shards();
                    self.shards_left -= 1;
                } else {
                    ended = true;
                    break;
                }
            }
            if let Some(pace) = &mut self.pace {
                pace.sealed = pace.sealed.saturating_add(1);
            }
            if !batch.is_empty() {
                self.counts.batches += 1;
                self.counts.keys += u64::try_from(batch.len()).unwrap_or(u64::MAX);
                let number = self.series.send(batch, &mut self.wire);
                self.sealed_at = self.series.keep(number, table.ledger());
                self.await_answer(now, number);
            }
            if ended {
                self.flushing = std::mem::take(&mut self.flush_next);
                self.pace = None;
                self.shards_left = table.shards();
                self.flushed = (self.flushed.0 + 1, self.series.last());
            }
        }
    }

    /// A batch was appended, or waits to be given to the node in its turn: see [`Lane::next_call`].
    fn await_answer(&mut self, now: Instant, number: u64) {
        if !self.series.makes_calls() {
            self.push(now, InFlight::Flush(number));
        }
    }

    /// As many recovered increments as go in one batch, each of another key.
    fn take_unsent(&mut self) -> Vec<Increment> {
        let mut batch: Vec<Increment> = Vec::new();
        let mut index = 0;
        while batch.len() < flush::MAX_KEYS
            && let Some(next) = self.unsent.get(index)
        {
            if batch.iter().any(|increment| increment.key == next.key) {
                index += 1;
            } else {
                batch.push(self.unsent.swap_remove(index));
            }
        }
        batch
    }

    /// A command that removes every key, in one transaction that puts the marker back.
    pub(super) fn append_wipe(&mut self, now: Instant, wire: &[u8], ticket: T) {
        self.wire.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
        self.wire.extend_from_slice(wire);
        self.series.encode_marker(false, &mut self.wire);
        self.series.wiped();
        self.wire.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
        self.push(now, InFlight::Wrapped(Some(ticket), Transaction::new(4)));
    }
}

/// The pace of a flush that is spread over time: a few batches at a time, at equal intervals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    begun: Instant,
    gap: Duration,
    /// Batches sealed since it began.
    sealed: u32,
}

impl Pace {
    /// The pace at which so many keys take `spread`; `None` if they are few enough to go at once.
    fn new(begun: Instant, spread: Duration, keys: usize) -> Option<Self> {
        let batches = u32::try_from(keys.div_ceil(flush::MAX_KEYS)).unwrap_or(u32::MAX);
        let times = batches.div_ceil(AT_A_TIME);
        (times > 1).then(|| Self {
            begun,
            gap: spread / times,
            sealed: 0,
        })
    }

    /// When the next one is due.
    fn next(&self) -> Instant {
        self.begun + self.gap * (self.sealed / AT_A_TIME)
    }
}

/// How many batches go at a time in a flush that is spread over time. With fewer keys at a time,
/// each finds the node's caches cold: with a thousand keys flushed each second, a key cost the node
/// 10 microseconds when batches of 32 came one by one, and 4 when they came four by four (Redis
/// 7.0, on a machine with other work).
const AT_A_TIME: u32 = 2;
