//! What a process before this one acknowledged and did not settle.

use std::collections::BTreeMap;
use std::time::Instant;

use super::lane::{Lane, Limits, Step};
use super::state::{Counter, State};
use super::table::KeyTable;
use crate::flush::{Increment, Series};

/// What a journal holds of one series.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// What was sealed, by the number of its batch.
    pub batches: BTreeMap<u64, Vec<Increment>>,
    /// What was pending.
    pub pending: Vec<Increment>,
    /// What was pending some time before the machine lost power. Each increment comes with the
    /// lower half of the number of the last batch at the time it was noted.
    pub suspects: Vec<(u32, Increment)>,
    /// What was given up, and perhaps not named.
    pub in_doubt: Vec<Increment>,
    /// Whether the machine lost power: a batch may be missing that was sealed and not sent.
    pub after_outage: bool,
}

impl Recovered {
    /// Whether everything had been settled.
    pub fn is_empty(&self) -> bool {
        let lists = [&self.pending, &self.in_doubt];
        let is_empty = lists.iter().all(|list| list.is_empty());
        is_empty && self.batches.is_empty() && self.suspects.is_empty()
    }
}

impl<T> Lane<T> {
    /// A lane that goes on with the `series` of a process that is gone. Its batches are sent again
    /// under their own numbers, and what was pending after them; until then nothing is answered
    /// here about their keys, and commands on them wait. `table` is new.
    pub fn recover(
        limits: Limits,
        series: Series,
        recovered: Recovered,
        table: &KeyTable,
        now: Instant,
    ) -> Self {
        let sealed = recovered.batches.values().flatten();
        let suspects = recovered.suspects.iter().map(|(_, increment)| increment);
        for increment in sealed.chain(&recovered.pending).chain(suspects) {
            on_counter(table, increment, now, |counter| {
                counter.in_flight += 1;
                counter.in_flight_delta = counter.in_flight_delta.wrapping_add(increment.delta);
                counter.value = counter.value.wrapping_add(increment.delta);
                let deadline = increment.deadline.or_else(|| counter.deadline());
                counter.change_seldom(|seldom| seldom.deadline = deadline);
            });
        }
        let gaps = recovered.after_outage;
        let series = series.resuming(recovered.batches, gaps);
        let mut lane = Self::new(limits, series);
        lane.unsent = recovered.pending;
        lane.suspects = recovered.suspects;
        for increment in recovered.in_doubt {
            if let Err(increment) = lane.losses.doubt(increment) {
                table.release(increment.slot);
            }
        }
        lane
    }

    /// The series is this process's own, and the marker's number is known, which decides what
    /// became of each suspect. Of one after whose noting a batch was applied, nobody knows.
    pub(super) fn judge_suspects(&mut self, step: &mut Step<'_, T>) {
        let number = self.series.taken_at();
        let mut in_doubt = Vec::new();
        for (after, increment) in std::mem::take(&mut self.suspects) {
            let (after, number) = (u64::from(after), number & u64::from(u32::MAX));
            // Numbers of 32 bits wrap round.
            if after.wrapping_sub(number) & u64::from(u32::MAX) > u64::from(u32::MAX / 2) {
                in_doubt.push(increment);
                continue;
            }
            self.unsent.push(increment);
        }
        self.give_up(step, in_doubt);
    }
}

/// Changes a key's counter. One that is not there is made: nothing is answered from it, and its
/// value is what Redis gave last.
pub(super) fn on_counter(
    table: &KeyTable,
    increment: &Increment,
    now: Instant,
    change: impl FnOnce(&mut Counter),
) {
    let mut place = table.lock(increment.key.as_bytes());
    if place.counter().is_none() {
        let policy = table.policy(increment.key.as_bytes());
        let mut counter = Counter::recovered(policy.class, now);
        counter.value = increment.last;
        counter.change_seldom(|seldom| seldom.deadline = increment.deadline);
        place.set(State::Warm(counter));
    }
    if let Some(counter) = place.counter() {
        change(counter);
    }
}
