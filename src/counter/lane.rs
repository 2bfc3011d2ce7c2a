//! The commands of one node in the order in which it executes them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::batches::Pace;
use super::bundles::BundleRun;
use super::losses::Losses;
use super::queue::{
    Hold, InFlight, Parked, Queued, Run, Slot, Submission, Transaction, encode_increment,
};
use super::rules::{Classes, Mode, Rules};
use super::state::{Answer, State, Telling};
use super::table::{KeyTable, Place};
use super::touches::Touches;
use crate::flush::{Increment, Series};
use crate::key::Key;
use crate::resp::encode;

/// One node's FIFO: requests appended to [`Lane::take_wire`]'s bytes, replies taken by
/// [`Lane::on_reply`], and the queues of commands that may not be sent yet. `T` names the client
/// that waits for a reply.
///
/// ```text
///   submit ──> key state ──┬─> wire (bytes to send) + FIFO (who waits for what)
///      (cold, opening,     ├─> queue of the key ──── drained when a run or batch is answered ──> wire
///       warm, ...)         └─> hold ──── when nothing is in flight ──> wire
/// ```
#[cfg_attr(test, derive(Clone))]
pub struct Lane<T> {
    pub(super) limits: Limits,
    pub(super) wire: Vec<u8>,
    /// Bytes of this connection's stream: ever appended, and taken to be sent.
    appended: u64,
    pub(super) taken: u64,
    pub(super) fifo: VecDeque<Slot<T>>,
    /// How many of the first slots were told of a timeout.
    pub(super) told: usize,
    pub(super) fetches: Slab<Vec<T>>,
    pub(super) queues: Slab<VecDeque<Queued<T>>>,
    pub(super) parked: Slab<Parked<T>>,
    /// Calls of limit scripts that go with the next bytes.
    pub(super) bundles: Vec<BundleRun<T>>,
    /// Commands in `queues` and `bundles`, and behind `hold`.
    pub(super) waiting: usize,
    /// Clients of runs and fetches in flight beyond the first of each.
    pub(super) joined: usize,
    pub(super) hold: Option<Hold<T>>,
    /// Rules that the keys are to be treated by once nothing is pending.
    pub(super) next_rules: Option<Arc<Rules>>,
    /// How often the rules have changed.
    pub(super) treatments: u64,
    /// Keys that are used on other connections too, and how many times over: nothing about them is
    /// answered here or kept, and everything on them is sent as it is. They survive a lost
    /// connection.
    pub(super) barred: HashMap<Key, u32>,
    /// Keys whose first increment waits for company, and until when; those that end first, first.
    pub(super) windows: VecDeque<(Instant, Key)>,
    /// The newest run or fetch.
    last_id: u32,
    pub(super) losses: Losses,
    /// Keys whose value turned out to be another than was answered here.
    pub(super) revised: Vec<Key>,
    pub(super) counts: Counts,
    pub(super) series: Series,
    /// The note by which the last batch was sealed.
    pub(super) sealed_at: u64,
    /// The node does not take batches any more as it said when the connection began.
    pub(super) is_forbidden: bool,
    /// Since when a node without scripts is at work on a batch.
    pub(super) calling: Option<Instant>,
    /// How many connections were lost, and whether the present one tells of changes by others.
    pub(super) lost: u32,
    pub(super) tells: bool,
    /// Whether it takes down for that which keys are read.
    pub(super) takes_down_reads: bool,
    /// The limit scripts of ours that it was given; there are three.
    pub(super) brought: Vec<&'static str>,
    /// How often increments came of keys of which nothing is known.
    touches: Touches,
    /// Keys to be sealed at once: somebody waits.
    pub(super) urgent: Vec<Key>,
    /// Flushes under way: every dirty key of these classes is to be sealed.
    pub(super) flushing: Classes,
    /// The flush that begins when that one ends.
    pub(super) flush_next: Classes,
    /// How the flush is spread over time; not at all where somebody waits for it.
    pub(super) pace: Option<Pace>,
    /// Where the flush goes on in the table, and how many shards are left of its round.
    pub(super) next_shard: usize,
    pub(super) shards_left: usize,
    /// How often a flush came to its end, and the number of the last batch sealed then.
    pub(super) flushed: (u64, u64),
    /// Keys that the flush has taken off the lists and not sealed.
    pub(super) dirty: Vec<Key>,
    /// What a process before this one had in no batch: it goes first.
    pub(super) unsent: Vec<Increment>,
    /// What may have been applied before the machine lost power, see [`super::Recovered`].
    pub(super) suspects: Vec<(u32, Increment)>,
}

/// Bounds of a lane.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most commands of clients in flight or waiting, see [`Lane::in_flight`]. Flush batches come
    /// on top: before a barrier one for its key, else none while there is no room.
    pub max_in_flight: usize,
    /// Most bytes waiting to be sent.
    pub max_unsent_bytes: usize,
    /// Whether counters may become warm: those whose policy says so.
    pub warm: bool,
}

/// What a forwarded command does to its keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Its reply does not depend on increments of an existing key, and it changes nothing.
    Peek,
    /// Anything else: what is pending is applied first, and nothing known of the key survives.
    Barrier,
    /// As [`Effect::Barrier`], for `MULTI`, so many commands and `EXEC`: the reply is that of
    /// `EXEC`, or `EXECABORT` with the first error before it.
    Transaction(u32),
    /// As [`Effect::Barrier`], but nothing is sent: the ticket is told when the keys are ready. From
    /// then on they are barred, until [`Lane::lift`]. Each key may be named once.
    Bar,
    /// The same, and what comes later on the keys waits until [`Lane::unlock`]; see there.
    Lock,
}

/// How much of its node a command without keys of its own concerns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// Changes nothing; waits only for what its client may have asked before.
    Ordered,
    /// May read or change any key.
    AnyKey,
    /// As [`Extent::AnyKey`], for a transaction; see [`Effect::Transaction`].
    Transaction(u32),
    /// Nothing of its own: the lane stops for a command that concerns other lanes too, see
    /// [`Lane::alone`].
    Stop,
    /// Nothing that is sent: the keys are treated by other rules then, see [`Lane::treat`].
    Treat,
    /// Removes every key, the one that holds the number of the last batch included: it is put
    /// back in the same transaction.
    Wipe,
}

/// What a lane did, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Entries of the FIFO appended: what is sent and answered together counts once.
    pub requests: u64,
    /// Flush batches sent.
    pub batches: u64,
    /// Keys in them.
    pub keys: u64,
    /// Increments that clients sent through the lane (not answered by the table).
    pub increments: u64,
    /// Requests that carried calls of limit scripts.
    pub limit_requests: u64,
    /// Calls of limit scripts that were denied here.
    pub limit_denied: u64,
    /// Batches that the node would not take then, for a reason of its own; they are kept.
    pub flush_errors: u64,
    /// Increments that were acknowledged before and have been applied.
    pub applied: u64,
    /// Of the applied ones, those that a node forgot and that are on their way again.
    pub healed: u64,
    /// Of those acknowledged before, the ones that died with their key.
    pub expired: u64,
    /// Of those acknowledged before, the ones that the node refused for good.
    pub refused: u64,
    /// Of those acknowledged before, the ones of which nobody knows whether they were applied.
    pub in_doubt: u64,
}

/// What every step of a lane needs from outside.
pub struct Step<'a, T> {
    /// The node's keys.
    pub table: &'a KeyTable,
    /// The present.
    pub now: Instant,
    /// Takes each reply (a RESP3 frame) for the client that the ticket names. Called while the
    /// lane is locked and no shard is.
    pub deliver: &'a mut dyn FnMut(T, &[u8]),
}

impl<T> fmt::Debug for Step<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl<T> Step<'_, T> {
    /// Answers an increment that was decided here.
    pub(super) fn answer(&mut self, ticket: T, answer: Answer) {
        match answer {
            Answer::Value(value) => self.integer(ticket, value),
            Answer::Overflow | Answer::Elsewhere => (self.deliver)(ticket, OVERFLOW),
        }
    }

    /// Answers with an integer.
    pub(super) fn integer(&mut self, ticket: T, value: i64) {
        let mut frame = Vec::with_capacity(24);
        encode::integer(&mut frame, value);
        (self.deliver)(ticket, &frame);
    }

    /// Answers with an integer as a string.
    pub(super) fn decimal(&mut self, ticket: T, value: i64) {
        let mut frame = Vec::with_capacity(32);
        encode::decimal(&mut frame, value);
        (self.deliver)(ticket, &frame);
    }
}

impl<T> fmt::Debug for Lane<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("in_flight", &self.fifo.len())
            .field("waiting", &self.waiting)
            .field("joined", &self.joined)
            .field("queues", &self.queues.len())
            .field("parked", &self.parked.len())
            .field("fetches", &self.fetches.len())
            .field("unsent_bytes", &self.wire.len())
            .finish_non_exhaustive()
    }
}

impl<T> Lane<T> {
    /// An empty lane.
    pub fn new(limits: Limits, series: Series) -> Self {
        Self {
            limits,
            wire: Vec::new(),
            appended: 0,
            taken: 0,
            fifo: VecDeque::new(),
            told: 0,
            fetches: Slab::new(),
            queues: Slab::new(),
            parked: Slab::new(),
            bundles: Vec::new(),
            waiting: 0,
            joined: 0,
            hold: None,
            next_rules: None,
            treatments: 0,
            barred: HashMap::new(),
            windows: VecDeque::new(),
            last_id: 0,
            losses: Losses::default(),
            revised: Vec::new(),
            counts: Counts::default(),
            series,
            sealed_at: 0,
            is_forbidden: false,
            calling: None,
            lost: 0,
            tells: false,
            takes_down_reads: false,
            brought: Vec::new(),
            touches: Touches::default(),
            urgent: Vec::new(),
            flushing: Classes::default(),
            flush_next: Classes::default(),
            pace: None,
            next_shard: 0,
            shards_left: 0,
            flushed: (0, 0),
            dirty: Vec::new(),
            unsent: Vec::new(),
            suspects: Vec::new(),
        }
    }

    /// Whether another command may be submitted. When not, nothing is lost by trying later: no
    /// state was changed.
    pub fn has_room(&self) -> bool {
        self.in_flight() < self.limits.max_in_flight
            && self.wire.len() < self.limits.max_unsent_bytes
    }

    /// Sets other bounds; what is there beyond them stays.
    pub fn set_bounds(&mut self, max_in_flight: usize, max_unsent_bytes: usize) {
        self.limits.max_in_flight = max_in_flight;
        self.limits.max_unsent_bytes = max_unsent_bytes;
    }

    /// Whether nothing is in flight and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.fifo.is_empty() && self.waiting == 0 && self.hold.is_none() && self.is_applied()
    }

    /// Commands in flight or waiting, those that share a request included. A command that waits
    /// for several keys counts for each of them.
    pub fn in_flight(&self) -> usize {
        self.fifo.len() + self.joined + self.waiting + usize::from(self.hold.is_some())
    }

    /// Bytes appended and not taken.
    pub fn unsent_bytes(&self) -> usize {
        self.wire.len()
    }

    /// What was done since the lane was made.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many replies have come, or will not: the number of the one that comes next.
    pub fn answered(&self) -> u64 {
        let in_flight = u64::try_from(self.fifo.len()).unwrap_or(u64::MAX);
        self.counts.requests.saturating_sub(in_flight)
    }

    /// When the oldest command in flight was appended.
    pub fn oldest(&self) -> Option<Instant> {
        self.fifo.front().map(|slot| slot.at)
    }

    /// Says whether the node, to tell of changes by others, takes down which keys are read on the
    /// present connection. (It does not where it tells of all changes.)
    pub fn set_takes_down_reads(&mut self, takes_down_reads: bool) {
        self.takes_down_reads = takes_down_reads;
    }

    /// The present connection, if it tells of changes by others.
    pub(super) fn telling(&self) -> Option<Telling> {
        self.tells.then_some(Telling(self.lost))
    }

    /// A new connection begins: nothing was sent on it.
    pub(super) fn restart_stream(&mut self) {
        self.lost = self.lost.wrapping_add(1);
        self.tells = false;
        self.takes_down_reads = false;
        self.brought.clear();
        self.calling = None;
        self.is_forbidden = false;
        self.wire.clear();
        (self.appended, self.taken) = (0, 0);
    }

    /// Takes the bytes to send, leaving `spare` (emptied) in their place. From now on what they
    /// belong to may have been executed. Increments that somebody waits for, and while a flush is
    /// under way all, are sealed now, so that what came together goes in one batch; so do calls of
    /// limit scripts.
    pub fn take_wire(&mut self, table: &KeyTable, now: Instant, mut spare: Vec<u8>) -> Vec<u8> {
        self.send_bundles(now);
        self.seal_batches(table, now);
        spare.clear();
        self.taken = self.appended;
        std::mem::replace(&mut self.wire, spare)
    }

    /// Whether the key is used on another connection too.
    #[inline]
    pub(super) fn is_barred(&self, key: &[u8]) -> bool {
        !self.barred.is_empty() && self.barred.contains_key(key)
    }

    /// Ends one bar of each of these keys.
    pub fn lift(&mut self, keys: &[Key]) {
        for key in keys {
            match self.barred.get_mut(key.as_bytes()) {
                Some(bars) if *bars > 1 => *bars -= 1,
                _ => {
                    self.barred.remove(key.as_bytes());
                }
            }
        }
    }

    /// `INCRBY key delta` by a client, in any of its spellings.
    pub fn increment(&mut self, step: &mut Step<'_, T>, key: &[u8], delta: i64, ticket: T) {
        self.counts.increments += 1;
        if let Some(hold) = &mut self.hold {
            let key = Key::new(key);
            hold.queue
                .push_back(Submission::Increment { key, delta, ticket });
            self.waiting += 1;
            return;
        }
        let mut place = step.table.lock(key);
        if let Some(queue) = self.line(&mut place) {
            return self.enqueue(queue, Queued::Increment { delta, ticket });
        }
        if self.is_barred(key) || place.state().is_none() && self.is_seldom(step, &place) {
            drop(place);
            return self.append_increment(step.now, key, delta, ticket);
        }
        if place.counter().is_some() {
            let answer = self.add_warm(&mut place, delta, step.now);
            if answer != Answer::Elsewhere {
                drop(place);
                return step.answer(ticket, answer);
            }
            if !place.is_clean() {
                let queue = self.attach_queue(&mut place);
                return self.enqueue(queue, Queued::Increment { delta, ticket });
            }
        }
        if let Some(end) = step.table.policy(key).window_end(step.now) {
            return self.open_window(place, end, delta, ticket);
        }
        let again = match place.state() {
            // In a crowd it has been counted as frequent, above.
            None => step.table.is_crowded(),
            Some(State::Touched { until, cool_until }) => {
                step.now < *until && cool_until.is_none_or(|until| until <= step.now)
            }
            Some(_) => true,
        };
        let id = self.next_id();
        if !place.try_set(State::Opening {
            run: id,
            members: 1,
            queue: None,
        }) {
            drop(place);
            return self.append_increment(step.now, key, delta, ticket);
        }
        drop(place);
        let mut run = Run::new(Key::new(key), id, again && self.warms(step.table, key));
        if run.join(Some(delta), ticket).is_ok() {
            self.append_run(step.now, run);
        }
    }

    /// Where a client's increment or GET of the key has to stand in line: behind a run in flight,
    /// or behind commands that wait.
    pub(super) fn line(&mut self, place: &mut Place<'_>) -> Option<usize> {
        match place.state()? {
            State::Opening { .. } => Some(self.attach_queue(place)),
            state => state.queue(),
        }
    }

    /// The key's queue, made if there is none. A key without a state of its own just waits.
    pub(super) fn attach_queue(&mut self, place: &mut Place<'_>) -> usize {
        let slot = match place.state() {
            Some(State::Opening { queue, .. }) => Some(queue),
            Some(State::Warm(counter)) => {
                if let Some(queue) = counter.queue() {
                    return queue;
                }
                let queue = self.queues.insert(VecDeque::new());
                counter.set_queue(Some(queue));
                return queue;
            }
            Some(State::Waiting { queue }) => return *queue,
            _ => None,
        };
        match slot {
            Some(Some(queue)) => *queue,
            Some(slot) => *slot.insert(self.queues.insert(VecDeque::new())),
            None => {
                let queue = self.queues.insert(VecDeque::new());
                place.set(State::Waiting { queue });
                queue
            }
        }
    }

    pub(super) fn enqueue(&mut self, queue: usize, command: Queued<T>) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.push_back(command);
            self.waiting += 1;
        }
    }

    /// Counts an increment on a warm key. When that can not be done here, what is pending is
    /// sealed: it may be all that stands in the way.
    pub(super) fn add_warm(&mut self, place: &mut Place<'_>, delta: i64, now: Instant) -> Answer {
        let answer = place.add(delta, now);
        if answer == Answer::Elsewhere {
            self.seal(place);
        } else {
            if answer != Answer::Overflow {
                place.acknowledged();
            }
            place.list_if_pending();
        }
        answer
    }

    /// Whether a key may become warm: what is pending can be flushed.
    pub(super) fn warms(&self, table: &KeyTable, key: &[u8]) -> bool {
        let applies = self.series.is_ready() && !self.series.is_fenced();
        self.limits.warm && applies && table.buffers(key)
    }

    /// Whether an increment of a key of which nothing is known is sent and forgotten: where there
    /// are many keys, and this one does not come often.
    fn is_seldom(&mut self, step: &Step<'_, T>, place: &Place<'_>) -> bool {
        step.table.is_crowded() && {
            let policy = step.table.policy(place.name());
            policy.mode == Mode::Buffered
                && self.touches.touch(place.hash(), step.now) < policy.touches
        }
    }

    /// A number for a run or a fetch, never 0. (After 2^32 of them they repeat; by then the one
    /// before has long been answered.)
    pub(super) fn next_id(&mut self) -> u32 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    pub(super) fn append_run(&mut self, now: Instant, run: Run<T>) {
        run.encode(&mut self.wire);
        self.joined += run.members.len() - 1;
        self.push(now, InFlight::Run(Box::new(run)));
    }

    /// One client's increment on its own, leaving no state behind.
    pub(super) fn append_increment(&mut self, now: Instant, key: &[u8], delta: i64, ticket: T) {
        encode_increment(key, delta, &mut self.wire);
        self.push(now, InFlight::Forwarded(Some(ticket)));
    }

    pub(super) fn append(&mut self, now: Instant, wire: &[u8], ticket: T) {
        self.wire.extend_from_slice(wire);
        self.push(now, InFlight::Forwarded(Some(ticket)));
    }

    /// `MULTI`, so many commands, and `EXEC`.
    pub(super) fn append_transaction(
        &mut self,
        now: Instant,
        commands: u32,
        wire: &[u8],
        ticket: T,
    ) {
        self.wire.extend_from_slice(wire);
        let transaction = Transaction::new(commands.saturating_add(2));
        self.push(now, InFlight::Transaction(Some(ticket), transaction));
    }

    /// Puts what was just appended to `wire` into the FIFO.
    pub(super) fn push(&mut self, at: Instant, what: InFlight<T>) {
        let start = self.appended;
        let unsent = u64::try_from(self.wire.len()).unwrap_or(u64::MAX);
        self.appended = self.taken + unsent;
        self.fifo.push_back(Slot { at, start, what });
        self.counts.requests += 1;
    }
}

/// Redis's words (`incrDecrCommand` in `t_string.c`).
pub(super) const OVERFLOW: &[u8] = b"-ERR increment or decrement would overflow\r\n";
