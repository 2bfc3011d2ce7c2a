//! What an answer to a flush batch changes.

use std::time::{Duration, Instant};

use super::deadlines::NodeClock;
use super::drain::Drain;
use super::lane::{Extent, Lane, Step};
use super::queue::Hold;
use super::rules::Classes;
use super::state::State;
use crate::flush::{Cause, Increment, Settled, Verdict};
use crate::key::Key;
use crate::resp::encode;

impl<T> Lane<T> {
    /// Takes the answer to batch `number`, which was sent at `at`.
    pub(super) fn finish_flush(
        &mut self,
        step: &mut Step<'_, T>,
        number: u64,
        frame: &[u8],
        at: Instant,
    ) {
        let verdict = self.series.on_reply(number, frame, step.now);
        if number == 0 && self.series.is_owned() {
            if let Some(ledger) = step.table.ledger() {
                ledger.number(self.series.last());
            }
            self.judge_suspects(step);
        }
        match verdict {
            Verdict::Settled(settled) => self.settle(step, settled, at),
            Verdict::Again(None) => {}
            Verdict::Again(Some(refusal)) => {
                let mut error = Vec::new();
                self.counts.flush_errors += 1;
                self.is_forbidden |= refusal.is_of_the_command();
                encode::error(&mut error, &refusal.text);
                self.refuse_waiting(step, &error);
            }
            Verdict::Forgotten(batches) => self.losses.forgotten_count += batches,
            Verdict::Doubt(increments) => {
                if self.series.is_fenced() {
                    step.table.cool();
                    self.losses.fenced = true;
                }
                self.give_up(step, increments);
            }
        }
    }

    fn settle(&mut self, step: &mut Step<'_, T>, settled: Settled, at: Instant) {
        step.table
            .tell_clock(NodeClock::told(settled.time_ms, at, step.now));
        let mut keys = Vec::with_capacity(settled.increments.len());
        for (increment, cause) in settled.increments {
            let mut place = step.table.lock(increment.key.as_bytes());
            if let Some(counter) = place.counter() {
                match cause {
                    None | Some(Cause::AfterDeadline) => counter.settled(increment.delta),
                    Some(_) => counter.forget(increment.delta),
                }
                // Until the key is read, further down.
                counter.cooling |= counter.is_clean();
            }
            drop(place);
            keys.push((increment.key.clone(), step.table.is_worth(&increment)));
            if cause.is_some() {
                self.revised.push(increment.key.clone());
            }
            match cause {
                Some(cause) if cause.is_refusal() => {
                    self.counts.refused += u64::from(increment.count);
                    // The slot is freed once the loss was named. Until then its batch's number
                    // stands for it, and the marker keeps the exceptions of that.
                    if let Err(increment) = self.losses.refuse(increment, cause) {
                        step.table.release(increment.slot);
                    }
                    continue;
                }
                Some(Cause::Expired) => {
                    self.counts.expired += u64::from(increment.count);
                    self.losses.expired_count += 1;
                }
                _ => self.counts.applied += u64::from(increment.count),
            }
            step.table.release(increment.slot);
        }
        for (key, reading) in settled.readings {
            let mut place = step.table.lock(key.as_bytes());
            if let Some(counter) = place.counter() {
                counter.cooling = false;
                let (before, end) = (counter.value, counter.deadline());
                let policy = step.table.policy(key.as_bytes());
                let closes = |deadline: u64| {
                    let left = deadline.saturating_sub(settled.time_ms);
                    policy.closes(at, Duration::from_millis(left))
                };
                let fresh_until = policy.counter_fresh_until(at);
                counter.rebase(reading, fresh_until, self.telling(), closes);
                // Whoever keeps the key was told another end of it, or none.
                let ends_earlier = counter
                    .deadline()
                    .is_some_and(|now| end.is_none_or(|end| now < end));
                if counter.cooling || counter.value != before || ends_earlier {
                    self.revised.push(key.clone());
                }
                // It was acknowledged under another rule, by a process before this one.
                counter.cooling |= !step.table.buffers(key.as_bytes());
                place.note();
            }
        }
        self.after_flush(step, keys, Some(at));
    }

    /// Nobody knows whether these were applied; they are not sent again.
    pub(super) fn give_up(&mut self, step: &mut Step<'_, T>, increments: Vec<Increment>) {
        let mut keys = Vec::with_capacity(increments.len());
        for increment in increments {
            let mut place = step.table.lock(increment.key.as_bytes());
            if let Some(counter) = place.counter() {
                counter.forget(increment.delta);
            }
            drop(place);
            step.table.give_up(increment.slot);
            keys.push((increment.key.clone(), true));
            self.revised.push(increment.key.clone());
            self.counts.in_doubt += u64::from(increment.count);
            if let Err(increment) = self.losses.doubt(increment) {
                step.table.release(increment.slot);
            }
        }
        self.after_flush(step, keys, None);
    }

    /// Goes on with keys whose batches were answered, each with whether it is worth being warm.
    /// `sent` is when the batch that brought the answer was sent.
    fn after_flush(
        &mut self,
        step: &mut Step<'_, T>,
        keys: Vec<(Key, bool)>,
        sent: Option<Instant>,
    ) {
        let mut work = Vec::new();
        for (key, worth) in keys {
            let mut place = step.table.lock(key.as_bytes());
            if place.counter().is_some_and(|counter| counter.cooling) {
                // As early as possible: the key may have a deadline.
                self.seal(&mut place);
            }
            let Some(counter) = place.counter() else {
                continue;
            };
            let (clean, cooling, base) = (counter.is_clean(), counter.cooling, counter.value);
            let queue = counter.queue().filter(|_| counter.in_flight == 0);
            if clean && cooling {
                let policy = step.table.policy(key.as_bytes());
                let until = sent.map_or(step.now, |sent| policy.counter_fresh_until(sent));
                place.set(State::Touched {
                    until,
                    cool_until: None,
                });
            } else if clean && !worth && queue.is_none() {
                place.clear();
            }
            drop(place);
            let base = (clean && !cooling).then_some(base);
            work.extend(queue.map(|queue| Drain { key, queue, base }));
        }
        self.drain(step, work);
    }

    /// The node takes no increments now, and what waits for them is not to wait for ever.
    pub(super) fn refuse_waiting(&mut self, step: &mut Step<'_, T>, error: &[u8]) {
        // A full window would be sent again and again.
        self.flushing = Classes::default();
        self.flush_next = Classes::default();
        // What stands in line for room in the window waits for the same.
        let keys = self.series.keys().chain(&self.urgent);
        let keys: Vec<Key> = keys.cloned().collect();
        for key in keys {
            let mut place = step.table.lock(key.as_bytes());
            let Some(counter) = place.counter() else {
                continue;
            };
            let (queue, closes) = (counter.queue(), counter.closes());
            let cooling = counter.cooling || closes.is_some_and(|closes| closes <= step.now);
            drop(place);
            let Some(queue) = queue else {
                continue;
            };
            let mut work = if cooling {
                self.fail_queue(step, (&key, queue), error)
            } else {
                self.fail_commands(step, (&key, queue), error)
            };
            if !cooling {
                work.push(Drain {
                    key,
                    queue,
                    base: None,
                });
            }
            self.drain(step, work);
        }
        if self
            .hold
            .as_ref()
            .is_some_and(|hold: &Hold<T>| hold.extent != Extent::Ordered)
        {
            self.fail_hold(step, error);
        }
    }
}
