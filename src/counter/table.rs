//! The keys of one node, in shards; a lock guards one of them, or all where one thread serves.

#[cfg(test)]
mod copy;
mod forget;
mod place;
mod spot;
mod warm;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use twox_hash::XxHash3_64;

use super::deadlines::{NodeClock, Timed};
use super::rules::{Classes, Mode, Policy, Rules};
use super::state::{Answer, State};
use crate::flush::{Commits, Increment, Ledger, Slot};
use crate::key::Key;

pub(super) use place::Place;
pub use spot::Spot;
pub use warm::Held;

use spot::SHARD_BITS;

/// Bounds and times of a [`KeyTable`].
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// Most keys at once. Beyond it, commands on further keys are forwarded and leave no trace;
    /// a few more entries stand while commands wait for them.
    pub max_keys: usize,
    /// Most bytes of cached values (keys included). Beyond it, values are not kept.
    pub max_cached_bytes: usize,
    /// With so many keys known, counters that are touched now and then had better be cold. See
    /// [`CROWD`].
    pub crowd: usize,
    /// How long an answer of Redis may be repeated here. Zero: only counters with pending
    /// increments are answered. This time and those below are those of every key, unless the table
    /// is made by [`KeyTable::with_rules`].
    pub lease: Duration,
    /// The same for clean counters.
    pub counter_lease: Duration,
    /// How long before its deadline a key stops being answered here: two flush intervals and the
    /// time that sending a batch again may take.
    pub guard: Duration,
}

/// What is known of the keys of one node.
///
/// A warm increment costs one hash, one lock and one probe; of a [`Held`] table no lock. Own shards
/// instead of a `DashMap`, because the list of keys to flush and the gate of a whole-node command
/// belong under the same lock as the keys.
#[derive(Debug)]
pub struct KeyTable {
    /// Shard `n` is in the stripe that the lowest `stripe_bits` of `n` name, at the place that the
    /// others name.
    stripes: Box<[Mutex<Stripe>]>,
    stripe_bits: u32,
    seed: u64,
    used: Arc<Used>,
    /// Acknowledged increments that are gone from the table because their sum was zero.
    cancelled: AtomicU64,
    /// Changed only while no key is known; locked behind a shard.
    rules: RwLock<Arc<Rules>>,
    ledger: Option<Ledger>,
    /// The node's, once it was told.
    clock: RwLock<Option<NodeClock>>,
}

/// How much of the bounds is used up, by all tables that share them, and what they are.
#[derive(Debug, Default)]
struct Used {
    keys: AtomicUsize,
    cached_bytes: AtomicUsize,
    max_keys: AtomicUsize,
    max_cached_bytes: AtomicUsize,
    crowd: usize,
}

/// Where a GET would be answered from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// A warm counter.
    Memory,
    /// A cached value.
    Cache,
    /// The node.
    Node,
}

/// How many increments of clients were acknowledged from a table, and what became of them there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Increments {
    /// Acknowledged before the node applied them.
    pub(super) acknowledged: u64,
    /// Of these, not sealed into a batch yet.
    pub(super) pending: u64,
    /// Of these, nothing to apply: their sum was zero.
    pub(super) cancelled: u64,
}

/// What one lock guards.
type Stripe = Box<[Shard]>;

#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
struct Shard {
    entries: HashTable<Entry>,
    /// By class of flush interval, keys to look at when flushing: each warm one with something
    /// pending (see `Counter::listed`), and some that were sealed or forgotten since.
    dirty: Box<[Vec<Key>]>,
    /// Increments acknowledged here, ever.
    acknowledged: u64,
    /// Of them, those that were sealed into batches.
    sealed: u64,
    /// A whole-node command waits: nothing is answered here.
    closed: bool,
}

/// One cache line, and aligned to one: a warm increment touches one entry.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
#[repr(align(64))]
struct Entry {
    key: Key,
    state: State,
}

const _: () = assert!(size_of::<Entry>() == 64, "an entry is one cache line");

impl KeyTable {
    /// An empty table. `seed` should be random: it keeps clients from choosing keys that collide.
    pub fn new(limits: TableLimits, seed: u64) -> Self {
        let rules = Rules::uniform(Policy {
            mode: Mode::Buffered,
            lease: limits.lease,
            counter_lease: limits.counter_lease,
            touch: limits.lease.max(limits.counter_lease),
            touches: 2,
            guard: limits.guard,
            window: Duration::ZERO,
            local_grants: false,
            worth: 2,
            class: 0,
        });
        Self::with_rules(limits, rules, seed)
    }

    /// An empty table whose keys are treated as `rules` say; the times in `limits` are not used.
    pub fn with_rules(limits: TableLimits, rules: Rules, seed: u64) -> Self {
        Self {
            stripes: stripes(SHARD_BITS, &rules),
            stripe_bits: SHARD_BITS,
            seed,
            used: Arc::new(Used {
                max_keys: AtomicUsize::new(limits.max_keys),
                max_cached_bytes: AtomicUsize::new(limits.max_cached_bytes),
                crowd: limits.crowd,
                ..Used::default()
            }),
            cancelled: AtomicU64::new(0),
            rules: RwLock::new(Arc::new(rules)),
            ledger: None,
            clock: RwLock::default(),
        }
    }

    /// An empty table of another database of the node: what both know together stays within the
    /// bounds of one.
    #[must_use]
    pub fn sharing(&self, seed: u64) -> Self {
        let rules = self.rules();
        Self {
            stripes: stripes(self.stripe_bits, &rules),
            stripe_bits: self.stripe_bits,
            seed,
            used: Arc::clone(&self.used),
            cancelled: AtomicU64::new(0),
            rules: RwLock::new(rules),
            ledger: None,
            clock: RwLock::default(),
        }
    }

    /// The same table, every increment standing in `ledger` from before it is acknowledged until
    /// it is settled. Keys that are too long for it are not buffered.
    #[must_use]
    pub fn with_ledger(self, ledger: Option<Ledger>) -> Self {
        Self { ledger, ..self }
    }

    /// Where what is acknowledged and not settled stands.
    pub(super) fn ledger(&self) -> Option<Ledger> {
        self.ledger
    }

    /// Where it is numbered what has to be on the disk before it is acknowledged, if so wished.
    pub fn commits(&self) -> Option<&'static Commits> {
        self.ledger.and_then(Ledger::commits)
    }

    /// Whether increments of `key` can be acknowledged before Redis has applied them.
    pub(super) fn buffers(&self, key: &[u8]) -> bool {
        self.policy(key).mode == Mode::Buffered
            && self.ledger.is_none_or(|ledger| ledger.holds(key))
    }

    /// The same, still empty, for so many threads that serve clients. With one a single lock guards
    /// all shards, so that it can be kept over a batch of requests, see [`KeyTable::hold`].
    #[must_use]
    pub fn for_threads(self, threads: usize) -> Self {
        let stripe_bits = if threads == 1 { 0 } else { SHARD_BITS };
        Self {
            stripes: stripes(stripe_bits, &self.rules()),
            stripe_bits,
            ..self
        }
    }

    /// The node's clock, once it was told.
    pub(super) fn clock(&self) -> Option<NodeClock> {
        *self.clock.read()
    }

    /// The node said what time it is.
    pub(super) fn tell_clock(&self, clock: NodeClock) {
        *self.clock.write() = Some(clock);
    }

    /// Whether there are so many keys that those touched now and then had better be cold.
    pub(super) fn is_crowded(&self) -> bool {
        self.len() >= self.used.crowd
    }

    /// Whether a key that so many increments came for, from one flush to the next, is worth being
    /// warm.
    pub(super) fn is_worth(&self, increment: &Increment) -> bool {
        if !self.is_crowded() {
            return true;
        }
        increment.count.saturating_add(increment.due.into())
            >= self.policy(increment.key.as_bytes()).worth
    }

    /// How keys are treated now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    /// How `key` is treated; see [`Rules::policy`] for the cost, and a lock that is free.
    #[inline]
    pub fn policy(&self, key: &[u8]) -> Policy {
        *self.rules.read().policy(key)
    }

    /// From now on keys are treated otherwise. The caller has forgotten all keys, and lets none
    /// become known meanwhile.
    pub(super) fn treat(&self, rules: Arc<Rules>) {
        let classes = rules.intervals().len();
        *self.rules.write() = rules;
        self.each(|shard| shard.dirty = vec![Vec::new(); classes].into());
    }

    /// Sets other bounds, for all tables that share them. What is there beyond them stays until it
    /// is forgotten as usual.
    pub fn set_bounds(&self, max_keys: usize, max_cached_bytes: usize) {
        self.used.max_keys.store(max_keys, Ordering::Relaxed);
        self.used
            .max_cached_bytes
            .store(max_cached_bytes, Ordering::Relaxed);
    }

    fn max_keys(&self) -> usize {
        self.used.max_keys.load(Ordering::Relaxed)
    }

    /// Counts an increment if the key is warm.
    #[inline]
    pub fn increment(&self, key: &[u8], delta: i64, now: Instant) -> Answer {
        let spot = self.spot(key);
        self.hold(spot).increment((spot, key), delta, now)
    }

    /// Answers a request about a deadline if the key is warm and that can be done here.
    pub fn timed(&self, key: &[u8], timed: Timed, now: Instant) -> Option<i64> {
        let spot = self.spot(key);
        self.hold(spot).timed((spot, key), timed, now)
    }

    /// Whether one lock guards all keys.
    #[inline]
    pub fn is_one(&self) -> bool {
        self.stripes.len() == 1
    }

    /// Locks what `spot` is in. Whoever holds it may wait for no lane and no other table, and ask
    /// the table only by what [`Held`] has.
    #[inline]
    pub fn hold(&self, spot: Spot) -> Held<'_> {
        Held {
            table: self,
            stripe: self.stripe(spot).lock(),
        }
    }

    /// The same, if nobody has it.
    #[inline]
    pub fn try_hold(&self, spot: Spot) -> Option<Held<'_>> {
        Some(Held {
            table: self,
            stripe: self.stripe(spot).try_lock()?,
        })
    }

    /// Whether `key` was incremented lately, as far as is known here.
    pub fn counts(&self, key: &[u8]) -> bool {
        let mut place = self.lock(key);
        let state = place.state();
        matches!(
            state,
            Some(State::Opening { .. } | State::Touched { .. } | State::Warm(_))
        )
    }

    /// Where a GET of `key` would be answered from.
    pub fn source(&self, key: &[u8], now: Instant) -> Source {
        let mut place = self.lock(key);
        if place.shard().closed {
            return Source::Node;
        }
        match place.state() {
            Some(State::Warm(counter)) if counter.answers(now) => Source::Memory,
            Some(State::Cached { until, .. }) if now < *until => Source::Cache,
            _ => Source::Node,
        }
    }

    /// What was acknowledged here before it was applied. Locks each shard once.
    pub(super) fn increments(&self) -> Increments {
        let mut sum = Increments {
            cancelled: self.cancelled.load(Ordering::Relaxed),
            ..Increments::default()
        };
        self.each(|shard| {
            sum.acknowledged += shard.acknowledged;
            sum.pending += shard.acknowledged.wrapping_sub(shard.sealed);
        });
        sum.pending = sum.pending.saturating_sub(sum.cancelled);
        sum
    }

    /// Appends the value of `key` as a reply (a RESP3 null when there is none) if it is known
    /// here; returns whether it was.
    #[inline]
    pub fn get(&self, key: &[u8], now: Instant, out: &mut Vec<u8>) -> bool {
        let spot = self.spot(key);
        self.hold(spot).get((spot, key), now, out)
    }

    /// Number of keys known, whatever their state, in all tables that share these bounds.
    pub fn len(&self) -> usize {
        self.used.keys.load(Ordering::Relaxed)
    }

    /// Whether no key is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of cached values, their keys included, in all tables that share these bounds.
    pub fn cached_bytes(&self) -> usize {
        self.used.cached_bytes.load(Ordering::Relaxed)
    }

    /// Number of keys on the lists that a flush takes; what was sealed for a barrier meanwhile
    /// counts until then. See [`super::Lane::pending_keys`]. Locks each shard once.
    pub fn dirty(&self) -> usize {
        let mut keys = 0;
        self.each(|shard| keys += shard.dirty.iter().map(Vec::len).sum::<usize>());
        keys
    }

    /// The same for each class of flush interval, see [`super::Rules::intervals`].
    pub fn dirty_by_class(&self) -> Vec<usize> {
        let mut sums = vec![0; self.rules.read().intervals().len()];
        self.each(|shard| {
            for (sum, list) in sums.iter_mut().zip(&shard.dirty) {
                *sum += list.len();
            }
        });
        sums
    }

    /// Locks the shard of `key`.
    #[inline]
    pub(super) fn lock<'a>(&'a self, key: &'a [u8]) -> Place<'a> {
        #[cfg(test)]
        super::search::moments::pass();
        let spot = self.spot(key);
        Place {
            table: self,
            stripe: self.stripe(spot).lock(),
            spot,
            key,
        }
    }

    /// Where `key` belongs. Cost: one hash.
    #[inline]
    pub fn spot(&self, key: &[u8]) -> Spot {
        let hash = XxHash3_64::oneshot_with_seed(self.seed, key);
        Spot::new(hash, self.stripe_bits)
    }

    #[inline]
    fn stripe(&self, spot: Spot) -> &Mutex<Stripe> {
        let stripe = usize::try_from(spot.stripe).unwrap_or_default();
        #[expect(clippy::indexing_slicing, reason = "there are 2^stripe_bits stripes")]
        &self.stripes[stripe]
    }

    /// Looks at every shard, one lock after the other.
    fn each(&self, mut look: impl FnMut(&mut Shard)) {
        for stripe in &self.stripes {
            stripe.lock().iter_mut().for_each(&mut look);
        }
    }

    /// Looks at the shard of this number, which wraps round.
    fn nth<R>(&self, number: usize, look: impl FnOnce(&mut Shard) -> R) -> R {
        let spot = Spot::in_shard(number % self.shards(), self.stripe_bits);
        look(shard_of(&mut self.stripe(spot).lock(), spot))
    }

    /// Stops answering anything here until [`KeyTable::open`].
    pub(super) fn close(&self) {
        self.each(|shard| shard.closed = true);
    }

    /// Answers again.
    pub(super) fn open(&self) {
        self.each(|shard| shard.closed = false);
    }

    /// Takes all keys off one shard's lists of keys to flush, of these classes only.
    pub(super) fn take_dirty(&self, shard: usize, classes: Classes, out: &mut Vec<Key>) {
        self.nth(shard, |shard| {
            let lists = shard.dirty.iter_mut().enumerate();
            for (_, dirty) in lists.filter(|(class, _)| classes.holds(*class)) {
                out.append(dirty);
            }
        });
    }

    /// Number of shards.
    pub(super) fn shards(&self) -> usize {
        self.stripes.len() << (SHARD_BITS - self.stripe_bits)
    }

    /// All keys of which something is known. Cost: a copy of each, one shard at a time.
    pub(super) fn known(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        self.each(|shard| {
            let known = shard.entries.iter().filter(|entry| match entry.state {
                State::Cached { .. }
                | State::Denied { .. }
                | State::Fetching { .. }
                | State::Warm(_) => true,
                State::Touched { .. } | State::Opening { .. } | State::Waiting { .. } => false,
            });
            keys.extend(known.map(|entry| entry.key.clone()));
        });
        keys
    }

    /// What was in the slot is settled, or nothing was.
    pub(super) fn release(&self, slot: Option<Slot>) {
        if let (Some(ledger), Some(slot)) = (self.ledger, slot) {
            ledger.release(slot);
        }
    }
}

#[inline]
fn shard_of(stripe: &mut Stripe, spot: Spot) -> &mut Shard {
    let place = usize::try_from(spot.place).unwrap_or_default();
    #[expect(
        clippy::indexing_slicing,
        reason = "stripes have 2^(SHARD_BITS - stripe_bits) shards"
    )]
    &mut stripe[place]
}

/// Empty shards behind so many locks.
fn stripes(stripe_bits: u32, rules: &Rules) -> Box<[Mutex<Stripe>]> {
    let shard = || Shard {
        dirty: vec![Vec::new(); rules.intervals().len()].into(),
        ..Shard::default()
    };
    let stripe = || {
        (0..1 << (SHARD_BITS - stripe_bits))
            .map(|_| shard())
            .collect()
    };
    (0..1 << stripe_bits)
        .map(|_| Mutex::new(stripe()))
        .collect()
}

fn cost(key: &[u8], value: Option<&[u8]>) -> usize {
    key.len() + value.map_or(0, <[u8]>::len) + OVERHEAD
}

/// [`TableLimits::crowd`] of a node: a flush of as many keys takes 4 % of a core a second, so up to
/// that number all may be warm that are touched now and then.
pub const CROWD: usize = 8192;

/// Bytes that a cached value costs beside its key and itself: the entry and its share of empty
/// places (an entry is 64 bytes, a table is at most 7/8 full, and 7/16 after it has grown).
const OVERHEAD: usize = 110;
