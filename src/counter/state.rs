//! What Tally knows of one key, and what a warm counter does with an increment.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use crate::flush::{Deadline, Increment, Ledger, Reading, Slot, Standing};
use crate::key::Key;
use crate::limit::Denial;
use crate::rule::{Rule, holds};

/// State of a key that is in the table. A key that is not is *cold*.
///
/// ```text
///            INCR                  answer                 INCR, atomic answer
///   cold ───────────> Opening ───────────────> Touched ─────────────────────> Warm
///    │  GET            (run in flight,           │  GET                        │ foreign command
///    └──> Fetching      later ones queue)        └──> Fetching ──> Cached      v
///            └── answer ──> Touched                                     Warm with a queue,
///                                                                       flushed, then cold
/// ```
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) enum State {
    /// Asked for lately, nothing kept: the next touch makes the key warm or cached.
    Touched {
        /// When the memory of the touch is dropped.
        until: Instant,
        /// Not to be made warm before: it had a deadline when last looked at.
        cool_until: Option<Instant>,
    },
    /// A GET is in flight, and its reply may be kept.
    Fetching {
        /// Which GET or MGET; a reply to another one says nothing about this state.
        fetch: u32,
        /// Where the clients that wait for it stand; `None` when others may not join.
        members: Option<usize>,
    },
    /// A value, or the lack of one, as Redis gave it.
    Cached {
        /// The string; `None` for a key that does not exist.
        value: Option<Box<[u8]>>,
        /// When it stops being answered here.
        until: Instant,
    },
    /// A limit script denied a call. Others are denied too, if it is known for how long.
    Denied {
        denial: Option<Box<Denial>>,
        /// When the node is asked again.
        until: Instant,
    },
    /// A run of increments, or of calls of a limit script, is in flight.
    Opening {
        /// Which run; a reply to another run says nothing about this state.
        run: u32,
        /// How many clients the run answers.
        members: usize,
        /// Where the commands that came later stand.
        queue: Option<usize>,
    },
    /// A counter whose value is known here.
    Warm(Counter),
    /// Nothing is known, and commands wait: for their turn on other keys.
    Waiting {
        /// Where they stand.
        queue: usize,
    },
}

/// A warm counter: `value` is what Redis will say once everything acknowledged has been applied.
///
/// In two parts, so that an entry of the table is one cache line and an increment of a hot key
/// touches no other. What an increment seldom asks is in [`Rest`], and read as if it stood here.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Counter {
    /// Redis's last answer plus `in_flight_delta` plus `pending`.
    pub(super) value: i64,
    /// Acknowledged and not sealed into a batch.
    pub(super) pending: i64,
    /// How many increments `pending` is the sum of. Past 2^32 - 1 in one batch no more are counted.
    pub(super) count: u32,
    /// Whether the key was put on its shard's list of keys to flush, and has not been taken off
    /// since.
    pub(super) listed: bool,
    /// Something is pending, and nothing in `rest` can end answering before that is sealed: no
    /// queue, no deadline, no cooling. Every change of `rest` resets it.
    open: bool,
    /// Where what is pending stands in the journal.
    pub(super) slot: Option<Slot>,
    rest: Box<Rest>,
}

/// What a [`Counter`] is asked once per flush, and by commands other than increments.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Rest {
    /// Sealed batches that have not been answered.
    pub(super) in_flight: u32,
    /// Which flushes take it, see [`super::Policy::class`].
    pub(super) class: u8,
    /// Sum of their deltas, wrapping.
    pub(super) in_flight_delta: i64,
    /// Whether the key is on the lane's list of keys to seal at once.
    pub(super) urgent: bool,
    /// Nothing more is answered here: the key is gone, or something else, or its value left i64.
    pub(super) cooling: bool,
    /// How sure it is that the node has no other deadline, apart from what was sent since.
    pub(super) told: Told,
    /// While clean, answered here until then.
    pub(super) fresh_until: Instant,
    seldom: Option<Box<Seldom>>,
}

/// What most counters never have. A [`Rest`] that had room for it would be twice as large.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Seldom {
    /// When the key ends, in milliseconds since 1970 by the node's clock.
    pub(super) deadline: Option<u64>,
    /// Whether a client was told of the deadline and no batch carries it yet.
    pub(super) due: bool,
    /// When answering here ends, so that what is acknowledged is applied before the deadline.
    pub(super) closes: Option<Instant>,
    /// Where the commands that wait for the batches stand.
    pub(super) queue: Option<usize>,
}

impl Rest {
    /// The deadline and the queue, empty for most counters.
    pub(super) fn seldom(&self) -> Seldom {
        self.seldom.as_deref().copied().unwrap_or_default()
    }

    /// See [`Seldom::deadline`].
    pub(super) fn deadline(&self) -> Option<u64> {
        self.seldom.as_ref().and_then(|seldom| seldom.deadline)
    }

    /// See [`Seldom::due`].
    pub(super) fn is_due(&self) -> bool {
        self.seldom.as_ref().is_some_and(|seldom| seldom.due)
    }

    /// See [`Seldom::closes`].
    pub(super) fn closes(&self) -> Option<Instant> {
        self.seldom.as_ref().and_then(|seldom| seldom.closes)
    }

    /// See [`Seldom::queue`].
    pub(super) fn queue(&self) -> Option<usize> {
        self.seldom.as_ref().and_then(|seldom| seldom.queue)
    }

    /// Changes them; takes memory only where there is something to keep.
    pub(super) fn change_seldom<R>(&mut self, change: impl FnOnce(&mut Seldom) -> R) -> R {
        let mut seldom = self.seldom();
        let result = change(&mut seldom);
        match &mut self.seldom {
            Some(_) if seldom == Seldom::default() => self.seldom = None,
            Some(known) => **known = seldom,
            None if seldom == Seldom::default() => {}
            None => self.seldom = Some(Box::new(seldom)),
        }
        result
    }

    /// Where commands wait from now on, if some do.
    pub(super) fn set_queue(&mut self, queue: Option<usize>) {
        self.change_seldom(|seldom| seldom.queue = queue);
    }

    /// Sets when the key ends, and when answering ends, a while before; `None` when it never does.
    pub(super) fn set_end(&mut self, deadline: Option<u64>, closes: Option<Instant>) {
        self.change_seldom(|seldom| (seldom.deadline, seldom.closes) = (deadline, closes));
    }
}

impl Deref for Counter {
    type Target = Rest;

    fn deref(&self) -> &Rest {
        &self.rest
    }
}

impl DerefMut for Counter {
    fn deref_mut(&mut self) -> &mut Rest {
        self.open = false;
        &mut self.rest
    }
}

/// What is known of the deadline that the node has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Told {
    /// Told on this connection, which reports changes by others and has reported none since.
    On(Telling),
    /// Others may have changed it: the next batch asks.
    Doubted,
    /// Others did change the key. As for `Doubted`, and an answer without the deadline ends
    /// answering here.
    Changed,
}

impl Told {
    pub(super) fn on(telling: Option<Telling>) -> Self {
        telling.map_or(Self::Doubted, Self::On)
    }
}

/// A connection that tells of changes by others, by its number on its lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Telling(pub(super) u32);

/// What a table makes of an increment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Counted; the new value.
    Value(i64),
    /// Not counted: the value would leave i64.
    Overflow,
    /// Not counted: the lane has to be asked.
    Elsewhere,
}

impl State {
    /// Where commands on the key wait, if some do.
    pub(super) fn queue(&self) -> Option<usize> {
        match self {
            Self::Opening { queue, .. } => *queue,
            Self::Warm(counter) => counter.queue(),
            Self::Waiting { queue } => Some(*queue),
            _ => None,
        }
    }
}

impl Counter {
    /// A clean counter, as Redis just gave it.
    pub(super) fn new(value: i64, class: u8, fresh_until: Instant) -> Self {
        Self {
            value,
            pending: 0,
            count: 0,
            listed: false,
            open: false,
            slot: None,
            rest: Box::new(Rest {
                in_flight: 0,
                class,
                in_flight_delta: 0,
                urgent: false,
                cooling: false,
                told: Told::Doubted,
                fresh_until,
                seldom: None,
            }),
        }
    }

    /// A counter of which nothing is known but what a process before this one acknowledged. Nothing
    /// is answered here until Redis has told its value.
    pub(super) fn recovered(class: u8, now: Instant) -> Self {
        let mut counter = Self::new(0, class, now);
        counter.cooling = true;
        counter
    }

    /// Whether everything acknowledged has been applied.
    pub(super) fn is_clean(&self) -> bool {
        !self.is_pending() && self.in_flight == 0
    }

    /// Whether a command that may change the key has to wait: a batch may be refused whole while
    /// the command behind it runs.
    pub(super) fn delays(&self) -> bool {
        self.is_pending() || self.in_flight > 0 && holds(Rule::BatchesFirst)
    }

    /// Whether there is something to seal.
    pub(super) fn is_pending(&self) -> bool {
        self.pending != 0 || self.is_due()
    }

    /// Whether the value may be told to clients.
    pub(super) fn answers(&self, now: Instant) -> bool {
        (self.queue().is_none() || !holds(Rule::QueueFirst))
            && !self.cooling
            && (!self.is_clean() || now < self.fresh_until || !holds(Rule::Lease))
            && self.closes().is_none_or(|closes| now < closes)
    }

    /// Counts an increment if that can be done here. With a `ledger`, it stands there before this
    /// returns.
    #[inline]
    pub(super) fn add(
        &mut self,
        key: &[u8],
        delta: i64,
        now: Instant,
        ledger: Option<Ledger>,
    ) -> Answer {
        if !self.open && !self.answers(now) {
            return Answer::Elsewhere;
        }
        let Some(value) = checked(self.value, delta, Rule::ValueChecked) else {
            return Answer::Overflow;
        };
        // The value may fit where the pending sum does not: the lane seals it first.
        let Some(pending) = checked(self.pending, delta, Rule::PendingChecked) else {
            return Answer::Elsewhere;
        };
        if let Some(ledger) = ledger {
            match self.slot {
                Some(slot) => ledger.set_delta(slot, pending),
                None if pending == 0 => {}
                None => {
                    let standing = Standing {
                        delta: pending,
                        ..self.standing()
                    };
                    self.slot = ledger.take(key, &standing);
                    if self.slot.is_none() {
                        return Answer::Elsewhere;
                    }
                }
            }
        }
        self.value = value;
        self.pending = pending;
        self.count = self.count.saturating_add(1);
        // A clean counter is answered for a time only.
        self.open = pending != 0 && (self.open || self.closes().is_none());
        Answer::Value(value)
    }

    /// What is pending was changed other than by [`Counter::add`], so the journal is told. False
    /// when the journal has no room: then nothing may be acknowledged.
    pub(super) fn note(&mut self, key: &[u8], ledger: Option<Ledger>) -> bool {
        let Some(ledger) = ledger else {
            return true;
        };
        let standing = self.standing();
        match self.slot {
            Some(slot) => ledger.note(slot, &standing),
            None if self.is_pending() => self.slot = ledger.take(key, &standing),
            None => return true,
        }
        self.slot.is_some()
    }

    /// What is pending, as the journal has it.
    pub(super) fn standing(&self) -> Standing {
        let before = self.value.wrapping_sub(self.pending);
        Standing {
            delta: self.pending,
            deadline: self.deadline(),
            due: self.is_due(),
            last: before.wrapping_sub(self.in_flight_delta),
        }
    }

    /// Takes what is pending into a batch; `None` when there is nothing. `telling` is the lane's
    /// connection, if it tells of changes by others.
    pub(super) fn seal(&mut self, key: Key, telling: Option<Telling>) -> Option<Increment> {
        if !self.is_pending() {
            return None;
        }
        let Standing { last, .. } = self.standing();
        let delta = std::mem::take(&mut self.pending);
        self.in_flight += 1;
        self.in_flight_delta = self.in_flight_delta.wrapping_add(delta);
        Some(Increment {
            key,
            delta,
            count: std::mem::take(&mut self.count),
            deadline: self.deadline(),
            due: self.change_seldom(|seldom| std::mem::take(&mut seldom.due)),
            asks: telling.is_none_or(|telling| self.told != Told::On(telling)),
            last,
            slot: self.slot.take(),
        })
    }

    /// A batch with `delta` is settled. [`Counter::rebase`] sets the value anew.
    pub(super) fn settled(&mut self, delta: i64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.in_flight_delta = self.in_flight_delta.wrapping_sub(delta);
    }

    /// Redis gave the key as it is with every settled batch applied, and no other. `closes` says
    /// when answering has to end for a deadline by the node's clock, `telling` is as for
    /// [`Counter::seal`].
    pub(super) fn rebase(
        &mut self,
        reading: Reading,
        fresh_until: Instant,
        telling: Option<Telling>,
        closes: impl Fn(u64) -> Option<Instant>,
    ) {
        self.fresh_until = fresh_until;
        let later = self.in_flight_delta.wrapping_add(self.pending);
        match reading.value.and_then(|value| value.checked_add(later)) {
            Some(value) => self.value = value,
            // Gone, or something else, or moved so far that Redis will refuse what is pending.
            None => self.cooling = true,
        }
        let Some(deadline) = reading.deadline else {
            self.cooling |= self.told == Told::Changed;
            return;
        };
        // A batch on its way may carry a newer one. So this one is not taken, and not for told.
        if self.in_flight > 0 && deadline != Deadline::NoKey {
            return;
        }
        self.told = Told::on(telling);
        match deadline {
            Deadline::NoKey => self.cooling = true,
            // What no batch carries yet is newer than what Redis gave.
            _ if self.is_due() => {}
            Deadline::Never => self.set_end(None, None),
            Deadline::Ms(deadline) => {
                let closes = closes(deadline);
                self.set_end(Some(deadline), closes);
                self.cooling |= closes.is_none();
            }
        }
    }

    /// A batch with `delta` will never be applied, or nobody knows whether it was.
    pub(super) fn forget(&mut self, delta: i64) {
        self.settled(delta);
        self.value = self.value.wrapping_sub(delta);
        self.cooling = true;
    }
}

/// The sum, if it is one of i64.
fn checked(value: i64, delta: i64, rule: Rule) -> Option<i64> {
    if holds(rule) {
        value.checked_add(delta)
    } else {
        Some(value.wrapping_add(delta))
    }
}
