//! Where acknowledged increments stand until they are applied: in words of memory that may outlive
//! the process. Pure: whose memory it is, is the caller's.
//!
//! A slot holds the increments of one key that go, or went, in one batch. It is *pending* while
//! increments are added, *sealed* from the moment its batch has a number, and *free* again when
//! that batch is settled. One that is given up is *in doubt* until somebody was told. The next increment of a sealed key takes a slot of its own, so what is
//! in a sealed slot never changes.
//!
//! ```text
//!   word 0      state: free, pending, in doubt, or the number of the batch
//!   word 1      (elsewhere, see below) sum of the acknowledged increments (two's complement)
//!   word 2      deadline in milliseconds since 1970, 0 for none; the top bit: Redis was not told
//!   word 3      the value that Redis gave last (two's complement)
//!   word 4      bits 0 to 15: the series; 16 to 31: the key's length; 32 to 63: the number of the
//!               series' last batch when the slot was taken, its lower half
//!   word 5      checksum of word 4 and the key
//!   words 6-15  the key, little-endian, filled up with zeros
//! ```
//!
//! Four slots share a block of 512 bytes, and their sums stand together in it:
//!
//! ```text
//!   words 0-3     word 1 of each slot
//!   words 4-63    the other 15 words of each
//! ```
//!
//! An increment of a key that has a slot stores nothing but the sum. So the sums of 10,000 keys are
//! 2,500 cache lines, not 10,000. In each block the words are shifted round by one line more than in
//! the one before: else the sums of all would compete for an eighth of the cache. A block is a sector
//! of a disk, and no page of memory has a part of it: after a power cut a slot and its sum are of one
//! moment.
//!
//! A process may be killed between any two words, and the next one finds nothing lost and nothing
//! twice: a slot becomes pending by its last word; a sum is one word; a batch is sent only when
//! every one of its slots has its number, so a number stands for the same increments ever after,
//! and the node's marker says whether they were applied. Nothing has to be redone.
//!
//! When the machine lost power, a slot may be as it was some time before: one that is pending may
//! have been sealed and applied since. It was not if no batch was applied after it was taken, which
//! its word 4 tells; else nobody knows. With [`Commits`] it never was: a batch leaves when it is on
//! the disk that its slots have its number, and a slot is pending on the disk before its increments
//! are acknowledged.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use twox_hash::XxHash3_64;

use super::{Commits, Increment};
use crate::key::Key;

/// Words of one slot: 128 bytes.
const SLOT_WORDS: usize = 16;

/// Words of a block.
const BLOCK_WORDS: usize = 64;

/// Slots in a block.
const BLOCK_SLOTS: usize = BLOCK_WORDS / SLOT_WORDS;

/// Words of a cache line.
const LINE_WORDS: usize = 8;

/// Longest key that has room in a slot.
pub const MAX_KEY_BYTES: usize = 8 * (SLOT_WORDS - KEY);

/// The slots of one file, for all nodes.
#[derive(Debug)]
pub struct Slots {
    words: &'static [AtomicU64],
    /// Numbers every note, if somebody waits until it is on the disk.
    commits: Option<&'static Commits>,
    free: Mutex<Free>,
}

/// One slot: its index plus 1, so that an `Option` of it takes four bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot(NonZeroU32);

/// Which slots may be taken. Those used before come first, so that fewer pages of the file are
/// touched.
#[derive(Debug, Default)]
struct Free {
    again: Vec<Slot>,
    /// How many slots were ever taken, from the first on.
    used: u32,
}

/// The slots of one series. Copies stand for the same slots.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    slots: &'static Slots,
    series: u16,
    /// Number of the series' last batch.
    last: &'static AtomicU64,
}

/// What a slot says of its key beside the sum of increments.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// Sum of the acknowledged increments.
    pub delta: i64,
    /// When the key ends, in milliseconds since 1970 by the node's clock.
    pub deadline: Option<u64>,
    /// Whether a client was told of that deadline and Redis was not.
    pub due: bool,
    /// The value that Redis gave last.
    pub last: i64,
}

/// A used slot, as read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Which series it belongs to.
    pub series: u16,
    /// Where its increments are.
    pub stage: Stage,
    /// The lower half of the number of the last batch when it was taken.
    pub taken_after: u32,
    /// What it holds. How many increments that is the sum of is not kept, and reads as zero.
    pub increment: Increment,
}

/// Where a slot's increments are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// In no batch yet.
    Pending,
    /// In the batch of this number.
    Sealed(u64),
    /// Given up; perhaps nobody was told.
    InDoubt,
}

/// A slot whose words do not belong together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("slot {index} is damaged")]
pub struct Damaged {
    /// Which one, from 0.
    pub index: usize,
}

impl Slots {
    /// Slots in `words`, as many as there are whole blocks of four: see [`words_of`]. Used ones are
    /// found by [`Slots::read`] and taken out of use by [`Ledger::release`] alone.
    pub fn new(words: &'static [AtomicU64]) -> Self {
        let mut free = Free::default();
        for index in 0..capacity(words.len()) {
            let state = words.get(place(index, STATE));
            let state = state.map_or(FREE, |word| word.load(Ordering::Acquire));
            if state != FREE {
                // The ones before that are free are found again when they are asked for.
                let skipped = usize::try_from(free.used).unwrap_or(usize::MAX)..index;
                free.again.extend(skipped.filter_map(Slot::at));
                free.used = u32::try_from(index + 1).unwrap_or(u32::MAX);
            }
        }
        Self {
            words,
            commits: None,
            free: Mutex::new(free),
        }
    }

    /// The same slots, whose changes are noted in `commits` from now on.
    #[must_use]
    pub fn with_commits(self, commits: Option<&'static Commits>) -> Self {
        Self { commits, ..self }
    }

    /// How many slots there are.
    pub fn capacity(&self) -> usize {
        capacity(self.words.len())
    }

    /// How many of them are taken.
    pub fn taken(&self) -> usize {
        let free = self.free.lock();
        usize::try_from(free.used)
            .unwrap_or(usize::MAX)
            .saturating_sub(free.again.len())
    }

    /// Every used slot, in order. Cost: one look at each.
    pub fn read(&self) -> impl Iterator<Item = Result<Found, Damaged>> {
        let slots = (0..self.capacity()).filter_map(Slot::at);
        slots.filter_map(|slot| self.read_one(slot).transpose())
    }

    fn read_one(&self, slot: Slot) -> Result<Option<Found>, Damaged> {
        let load = |at| {
            self.word(slot, at)
                .map_or(0, |word| word.load(Ordering::Acquire))
        };
        let state = load(STATE);
        if state == FREE {
            return Ok(None);
        }
        let damaged = Damaged {
            index: slot.index(),
        };
        let fixed = load(FIXED);
        let (series, length) = (fixed & 0xFFFF, fixed >> 16 & 0xFFFF);
        let length = usize::try_from(length).map_err(|_| damaged)?;
        let mut key = Vec::with_capacity(8 * (SLOT_WORDS - KEY));
        for at in KEY..SLOT_WORDS {
            key.extend_from_slice(&load(at).to_le_bytes());
        }
        let key = key.get(..length).ok_or(damaged)?;
        if load(SUM) != checksum(fixed, key) {
            return Err(damaged);
        }
        let deadline = load(DEADLINE);
        Ok(Some(Found {
            series: u16::try_from(series).map_err(|_| damaged)?,
            stage: match state {
                PENDING => Stage::Pending,
                IN_DOUBT => Stage::InDoubt,
                number => Stage::Sealed(number),
            },
            taken_after: u32::try_from(fixed >> 32).map_err(|_| damaged)?,
            increment: Increment {
                key: Key::new(key),
                delta: load(DELTA).cast_signed(),
                count: 0,
                deadline: Some(deadline & !DUE).filter(|deadline| *deadline != 0),
                due: deadline & DUE != 0,
                asks: true,
                last: load(LAST).cast_signed(),
                slot: Some(slot),
            },
        }))
    }

    fn take(&self) -> Option<Slot> {
        let mut free = self.free.lock();
        if let Some(slot) = free.again.pop() {
            return Some(slot);
        }
        let next = usize::try_from(free.used).ok()?;
        let slot = Slot::at(next).filter(|_| next < self.capacity())?;
        free.used += 1;
        Some(slot)
    }

    fn word(&self, slot: Slot, at: usize) -> Option<&AtomicU64> {
        self.words.get(place(slot.index(), at))
    }

    /// Words were stored that have to be on the disk before somebody goes on. Returns the note's
    /// number; 0 where nobody waits for the disk.
    #[inline]
    fn noted(&self) -> u64 {
        self.commits.map_or(0, Commits::note)
    }

    #[inline]
    fn store(&self, slot: Slot, at: usize, value: u64) {
        if let Some(word) = self.word(slot, at) {
            word.store(value, Ordering::Release);
        }
    }
}

impl Slot {
    fn at(index: usize) -> Option<Self> {
        let number = u32::try_from(index).ok()?.checked_add(1)?;
        NonZeroU32::new(number).map(Self)
    }

    fn index(self) -> usize {
        usize::try_from(self.0.get() - 1).unwrap_or(usize::MAX)
    }
}

impl Ledger {
    /// The part of `slots` that one series uses; `last` is a word beside them for the number of its
    /// last batch.
    pub fn new(slots: &'static Slots, series: u16, last: &'static AtomicU64) -> Self {
        Self {
            slots,
            series,
            last,
        }
    }

    /// Batches are numbered from here on.
    pub fn number(self, last: u64) {
        self.last.store(last, Ordering::Release);
    }

    /// Whether a key has room in a slot.
    pub fn holds(self, key: &[u8]) -> bool {
        key.len() <= MAX_KEY_BYTES
    }

    /// Takes a slot for a key's pending increments; `None` when all are taken or the key is too
    /// long. Cost: a lock shared by all threads, and some 15 words.
    pub fn take(self, key: &[u8], standing: &Standing) -> Option<Slot> {
        let length = u64::try_from(key.len()).ok().filter(|_| self.holds(key))?;
        let slot = self.slots.take()?;
        let after = self.last.load(Ordering::Acquire);
        let fixed = u64::from(self.series) | length << 16 | after << 32;
        self.slots.store(slot, FIXED, fixed);
        self.slots.store(slot, SUM, checksum(fixed, key));
        for (at, part) in (KEY..).zip(key.chunks(8)) {
            let mut bytes = [0; 8];
            for (to, from) in bytes.iter_mut().zip(part) {
                *to = *from;
            }
            self.slots.store(slot, at, u64::from_le_bytes(bytes));
        }
        self.describe(slot, standing);
        // From now on it counts.
        self.slots.store(slot, STATE, PENDING);
        self.slots.noted();
        Some(slot)
    }

    /// The sum of a pending slot, one more increment being added. Cost: one store.
    #[inline]
    pub fn set_delta(self, slot: Slot, delta: i64) {
        self.slots.store(slot, DELTA, delta.cast_unsigned());
        self.slots.noted();
    }

    /// What a pending slot says of its key.
    pub fn note(self, slot: Slot, standing: &Standing) {
        self.describe(slot, standing);
        self.slots.noted();
    }

    fn describe(self, slot: Slot, standing: &Standing) {
        let due = if standing.due { DUE } else { 0 };
        let deadline = standing.deadline.unwrap_or_default() & !DUE | due;
        self.slots.store(slot, DEADLINE, deadline);
        self.slots.store(slot, LAST, standing.last.cast_unsigned());
        self.slots
            .store(slot, DELTA, standing.delta.cast_unsigned());
    }

    /// A batch has got its number: its slots do not change any more. To be called before its first
    /// byte is sent; with [`Commits`] none may be before the note whose number this returns is on
    /// the disk.
    pub fn seal(self, number: u64, increments: &[Increment]) -> u64 {
        self.number(number);
        for increment in increments {
            if let Some(slot) = increment.slot {
                self.slots.store(slot, STATE, number);
            }
        }
        self.slots.noted()
    }

    /// Where notes are numbered, if somebody waits until they are on the disk.
    pub fn commits(self) -> Option<&'static Commits> {
        self.slots.commits
    }

    /// What is in the slot is given up: the slot is free once somebody was told.
    pub fn give_up(self, slot: Slot) {
        self.slots.store(slot, STATE, IN_DOUBT);
    }

    /// What was in the slot is settled, or nothing was.
    pub fn release(self, slot: Slot) {
        self.slots.store(slot, STATE, FREE);
        self.slots.free.lock().again.push(slot);
    }
}

impl Increment {
    /// What a slot says of it.
    pub fn standing(&self) -> Standing {
        Standing {
            delta: self.delta,
            deadline: self.deadline,
            due: self.due,
            last: self.last,
        }
    }
}

/// Which of all words belong to the slot of this index, from 0. Every slot has as many.
pub fn words_of(index: usize) -> impl Iterator<Item = usize> {
    (0..SLOT_WORDS).map(move |at| place(index, at))
}

/// How many slots there are in so many words.
fn capacity(words: usize) -> usize {
    words / BLOCK_WORDS * BLOCK_SLOTS
}

/// Where a word of a slot is.
#[inline]
fn place(index: usize, at: usize) -> usize {
    let (block, slot) = (index / BLOCK_SLOTS, index % BLOCK_SLOTS);
    let word = match at {
        DELTA => slot,
        STATE => BLOCK_SLOTS + slot * (SLOT_WORDS - 1),
        _ => BLOCK_SLOTS + slot * (SLOT_WORDS - 1) + at - 1,
    };
    block * BLOCK_WORDS + (word + block * LINE_WORDS) % BLOCK_WORDS
}

fn checksum(fixed: u64, key: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(fixed, key)
}

/// Places of the words in a slot.
const STATE: usize = 0;
const DELTA: usize = 1;
const DEADLINE: usize = 2;
const LAST: usize = 3;
const FIXED: usize = 4;
const SUM: usize = 5;
const KEY: usize = 6;

/// States that are not the number of a batch; those begin with 1.
const FREE: u64 = 0;
const PENDING: u64 = u64::MAX;
const IN_DOUBT: u64 = u64::MAX - 1;

/// Beside a deadline that Redis was not told.
const DUE: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(slots: usize) -> &'static [AtomicU64] {
        let words = (0..slots * SLOT_WORDS).map(|_| AtomicU64::new(0));
        Box::leak(words.collect::<Box<[_]>>())
    }

    fn over(words: &'static [AtomicU64]) -> &'static Slots {
        Box::leak(Box::new(Slots::new(words)))
    }

    fn ledger_of(slots: &'static Slots, series: u16) -> Ledger {
        Ledger::new(slots, series, Box::leak(Box::new(AtomicU64::new(0))))
    }

    fn found(slots: &Slots) -> Vec<(String, Stage, Standing)> {
        let slots = slots.read().map(Result::unwrap);
        let parts = slots.map(|found| {
            let key = String::from_utf8_lossy(found.increment.key.as_bytes()).into_owned();
            (key, found.stage, found.increment.standing())
        });
        parts.collect()
    }

    #[test]
    fn what_is_in_the_words_is_found_by_the_next_process() {
        let words = memory(4);
        let ledger = ledger_of(over(words), 3);
        let standing = Standing {
            delta: -5,
            deadline: Some(1_700_000_000_000),
            due: true,
            last: i64::MIN,
        };
        let long = "k".repeat(MAX_KEY_BYTES);
        let slot = ledger.take(long.as_bytes(), &standing).unwrap();
        ledger.set_delta(slot, i64::MAX);
        let other = ledger.take(b"b", &Standing::default()).unwrap();
        ledger.seal(7, &[increment(other)]);
        let after = over(words);
        let delta = i64::MAX;
        let want = [
            (long, Stage::Pending, Standing { delta, ..standing }),
            ("b".into(), Stage::Sealed(7), Standing::default()),
        ];
        assert_eq!(found(after), want);
        assert_eq!(after.taken(), 2);
        assert!(after.read().all(|found| found.unwrap().series == 3));
    }

    #[test]
    fn slots_end_and_come_back() {
        let slots = over(memory(4));
        let ledger = ledger_of(slots, 0);
        let take = |key: &[u8]| ledger.take(key, &Standing::default());
        let [first, second, _, _] = [b"a", b"b", b"c", b"d"].map(|key| take(key).unwrap());
        assert_eq!((take(b"e"), slots.taken()), (None, 4));
        ledger.release(first);
        assert_eq!((take(b"e"), slots.taken()), (Some(first), 4));
        ledger.release(second);
        assert_eq!(take(&[b'k'; MAX_KEY_BYTES + 1]), None, "too long");
    }

    #[test]
    fn free_slots_before_used_ones_are_taken_by_the_next_process() {
        let words = memory(4);
        let ledger = ledger_of(over(words), 0);
        let take = |ledger: Ledger, key: &[u8]| ledger.take(key, &Standing::default());
        let first = take(ledger, b"a").unwrap();
        take(ledger, b"b").unwrap();
        ledger.release(first);
        let next = ledger_of(over(words), 0);
        assert_eq!(take(next, b"c"), Some(first));
        assert!(take(next, b"d").is_some() && take(next, b"e").is_some());
        assert_eq!(take(next, b"f"), None);
    }

    #[test]
    fn every_word_is_one_slot_s_and_in_its_block() {
        let mut words: Vec<_> = (0..4096).flat_map(words_of).collect();
        words.sort_unstable();
        assert!(words.iter().copied().eq(0..4096 * SLOT_WORDS));
        for index in 0..4096 {
            let block = |at: usize| at / BLOCK_WORDS;
            assert!(words_of(index).all(|at| block(at) == index / BLOCK_SLOTS));
            // Sums share a cache line.
            let line = |index| place(index, DELTA) / LINE_WORDS;
            assert_eq!(line(index), line(index / BLOCK_SLOTS * BLOCK_SLOTS));
        }
    }

    #[test]
    fn a_damaged_slot_is_named() {
        let words = memory(4);
        let slots = over(words);
        ledger_of(slots, 0).take(b"key", &Standing::default());
        words[place(0, KEY)].fetch_xor(1, Ordering::Relaxed);
        let read: Vec<_> = slots.read().collect();
        assert_eq!(read, [Err(Damaged { index: 0 })]);
        words[place(0, FIXED)].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(slots.read().next(), Some(Err(Damaged { index: 0 })));
    }

    fn increment(slot: Slot) -> Increment {
        Increment {
            key: Key::new(b"b"),
            delta: 0,
            count: 0,
            deadline: None,
            due: false,
            asks: true,
            last: 0,
            slot: Some(slot),
        }
    }
}
