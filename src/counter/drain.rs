//! Lets the commands go that wait in a key's queue.

use std::collections::VecDeque;

use super::deadlines::Timed;
use super::lane::{Effect, Lane, Step};
use super::queue::{Queued, Run, Wanted};
use super::rules::Mode;
use super::state::{Answer, State};
use super::table::Place;
use crate::key::Key;

impl<T> Lane<T> {
    /// Goes on with the queue at one key, of which Redis just gave the value `base`, if it did.
    pub(super) fn drain_key(
        &mut self,
        step: &mut Step<'_, T>,
        key: Key,
        queue: usize,
        base: Option<i64>,
    ) {
        self.drain(step, vec![Drain { key, queue, base }]);
    }

    /// Goes on with these queues until each is empty or its first command has to wait again.
    pub(super) fn drain(&mut self, step: &mut Step<'_, T>, mut work: Vec<Drain>) {
        // Letting a command go may free the queues of its other keys.
        while let Some(next) = work.pop() {
            self.drain_one(step, next, &mut work);
        }
    }

    fn drain_one(&mut self, step: &mut Step<'_, T>, next: Drain, work: &mut Vec<Drain>) {
        let Drain {
            key,
            queue,
            mut base,
        } = next;
        loop {
            // A warm key keeps its queue whenever its shard is not locked: else another thread
            // would answer an increment ahead of what waits.
            let mut place = step.table.lock(key.as_bytes());
            detach(&mut place);
            let Some(head) = self.queues.get_mut(queue).and_then(VecDeque::pop_front) else {
                self.queues.try_remove(queue);
                return;
            };
            self.waiting -= 1;
            let end = match head {
                Queued::Get { ticket, many } => {
                    self.drain_get(step, place, queue, (ticket, many), base)
                }
                Queued::Increment { delta, ticket } => {
                    self.drain_increment(step, place, queue, delta, ticket)
                }
                Queued::Limit { call, wire, ticket } => {
                    base = None;
                    self.drain_limit(step, place, queue, (call, wire), ticket)
                }
                Queued::Timed {
                    timed,
                    wire,
                    ticket,
                } => {
                    // The key may end with it.
                    base = None;
                    self.drain_timed(step, place, queue, (timed, wire), ticket)
                }
                Queued::Command(parked) => {
                    base = None;
                    self.drain_command(step, place, (&key, queue), parked, work)
                }
                Queued::Lock => Some(self.put_back(place, queue, Queued::Lock)),
            };
            if end.is_some() {
                return;
            }
        }
    }

    /// A GET goes on: answered with what is known, else upstream on its own.
    fn drain_get(
        &mut self,
        step: &mut Step<'_, T>,
        mut place: Place<'_>,
        queue: usize,
        (ticket, many): (T, bool),
        base: Option<i64>,
    ) -> Option<Stop> {
        let value = match place.counter() {
            Some(counter) if counter.answers(step.now) => Some(counter.value),
            Some(counter) if !counter.is_clean() => {
                self.seal(&mut place);
                return Some(self.put_back(place, queue, Queued::Get { ticket, many }));
            }
            _ => base,
        };
        self.keep_line(&mut place, queue);
        let key = place.key();
        let value = value.filter(|_| step.table.policy(key.as_bytes()).shares());
        drop(place);
        match value {
            Some(value) => step.decimal(ticket, value),
            None if many => {
                let wanted = Wanted {
                    key,
                    ticket: Some(ticket),
                    keep: false,
                };
                self.append_get_many(step.now, 0, vec![wanted]);
            }
            None => self.append_get(step.now, key.as_bytes(), ticket),
        }
        None
    }

    /// An increment goes on: counted here, or as the first of a run that takes along what stands
    /// right behind it.
    fn drain_increment(
        &mut self,
        step: &mut Step<'_, T>,
        mut place: Place<'_>,
        queue: usize,
        delta: i64,
        ticket: T,
    ) -> Option<Stop> {
        if place.counter().is_some() {
            let answer = self.add_warm(&mut place, delta, step.now);
            if answer != Answer::Elsewhere {
                self.keep_line(&mut place, queue);
                drop(place);
                step.answer(ticket, answer);
                return None;
            }
            if !place.is_clean() {
                return Some(self.put_back(place, queue, Queued::Increment { delta, ticket }));
            }
        }
        let key = place.key();
        if self.is_barred(key.as_bytes()) {
            drop(place);
            self.append_increment(step.now, key.as_bytes(), delta, ticket);
            return None;
        }
        let warms = self.warms(step.table, key.as_bytes());
        let cool = matches!(
            place.state(),
            Some(State::Touched { cool_until: Some(until), .. }) if *until > step.now
        );
        let mut run = Run::new(key, self.next_id(), warms && !cool);
        // The first member always fits.
        if run.join(Some(delta), ticket).is_err() {
            return None;
        }
        let empty = self.fill(&mut run, queue);
        place.set(State::Opening {
            run: run.id,
            members: run.members.len(),
            queue: (!empty).then_some(queue),
        });
        drop(place);
        self.append_run(step.now, run);
        if empty {
            self.queues.try_remove(queue);
        }
        Some(Stop)
    }

    /// A request about a deadline goes on: answered here, else upstream on its own, with nothing
    /// pending before it.
    fn drain_timed(
        &mut self,
        step: &mut Step<'_, T>,
        mut place: Place<'_>,
        queue: usize,
        (timed, wire): (Timed, Box<[u8]>),
        ticket: T,
    ) -> Option<Stop> {
        if let Some(reply) = place.timed(timed, step.now) {
            self.keep_line(&mut place, queue);
            drop(place);
            step.integer(ticket, reply);
            return None;
        }
        if place.counter().is_some_and(|counter| !counter.is_clean()) {
            self.seal(&mut place);
            return Some(self.put_back(
                place,
                queue,
                Queued::Timed {
                    timed,
                    wire,
                    ticket,
                },
            ));
        }
        let key = place.key();
        let policy = step.table.policy(key.as_bytes());
        let keeps = policy.mode != Mode::Through && !self.is_barred(key.as_bytes());
        if matches!(timed, Timed::Expire(_)) && keeps {
            let until = policy.fresh_until(step.now);
            place.set(State::Touched {
                until,
                cool_until: None,
            });
        } else {
            self.keep_line(&mut place, queue);
        }
        drop(place);
        self.append(step.now, &wire, ticket);
        None
    }

    /// Moves what may go along from the queue's front into the run; returns whether the queue is
    /// empty then.
    fn fill(&mut self, run: &mut Run<T>, queue: usize) -> bool {
        let Some(queue) = self.queues.get_mut(queue) else {
            return true;
        };
        while let Some(next) = queue.pop_front() {
            let back = match next {
                Queued::Increment { delta, ticket } => run
                    .join(Some(delta), ticket)
                    .err()
                    .map(|ticket| Queued::Increment { delta, ticket }),
                Queued::Get {
                    ticket,
                    many: false,
                } => run.join(None, ticket).err().map(|ticket| Queued::Get {
                    ticket,
                    many: false,
                }),
                other => Some(other),
            };
            if let Some(back) = back {
                queue.push_front(back);
                return false;
            }
            self.waiting -= 1;
        }
        true
    }

    /// A forwarded command stands first at one more of its keys. Once it does so at all of them, it
    /// is appended.
    fn drain_command(
        &mut self,
        step: &mut Step<'_, T>,
        mut place: Place<'_>,
        (key, queue): (&Key, usize),
        parked: usize,
        work: &mut Vec<Drain>,
    ) -> Option<Stop> {
        let command = self.parked.get_mut(parked)?;
        if command.ticket.is_none() {
            self.skip(parked);
            self.keep_line(&mut place, queue);
            return None;
        }
        let peek = command.effect == Effect::Peek;
        if !peek && place.counter().is_some_and(|counter| counter.delays()) {
            self.seal(&mut place);
            return Some(self.put_back(place, queue, Queued::Command(parked)));
        }
        let at = command
            .keys
            .binary_search_by(|(other, _)| other.as_bytes().cmp(key.as_bytes()));
        let ready = at.ok().and_then(|at| command.keys.get_mut(at));
        if let Some((_, ready)) = ready
            && !std::mem::replace(ready, true)
        {
            command.unready -= 1;
        }
        if command.unready > 0 {
            return Some(self.put_back(place, queue, Queued::Command(parked)));
        }
        let locks = command.effect == Effect::Lock;
        if peek {
            self.keep_line(&mut place, queue);
        } else if locks {
            place.set(State::Waiting { queue });
        } else {
            place.clear();
        }
        drop(place);
        let command = self.parked.try_remove(parked)?;
        for (other, _) in &command.keys {
            if other == key {
                continue;
            }
            let mut place = step.table.lock(other.as_bytes());
            let queue = place.state().and_then(|state| state.queue());
            if let (true, Some(queue)) = (locks, queue) {
                place.set(State::Waiting { queue });
            } else if !peek {
                place.clear();
            }
            drop(place);
            // The command itself stands first there.
            let Some(queue) = queue else { continue };
            let first = self.queues.get_mut(queue).and_then(VecDeque::pop_front);
            self.waiting -= usize::from(first.is_some());
            if locks {
                continue;
            }
            work.push(Drain {
                key: other.clone(),
                queue,
                base: None,
            });
        }
        if let Some(ticket) = command.ticket {
            let keys = command.keys.into_iter().map(|(key, _)| key);
            self.go(step, keys, (command.effect, &command.wire), ticket);
        }
        locks.then_some(Stop)
    }

    /// Puts the queue back at a warm key as long as something waits in it, see [`Lane::drain_one`].
    pub(super) fn keep_line(&self, place: &mut Place<'_>, queue: usize) {
        let waits = self
            .queues
            .get(queue)
            .is_some_and(|queue| !queue.is_empty());
        if let (true, Some(counter)) = (waits, place.counter()) {
            counter.set_queue(Some(queue));
        }
    }

    /// Puts a command back to the front of its queue, and the queue back at its key.
    pub(super) fn put_back(&mut self, mut place: Place<'_>, queue: usize, head: Queued<T>) -> Stop {
        match place.state() {
            Some(State::Warm(counter)) => counter.set_queue(Some(queue)),
            _ => place.set(State::Waiting { queue }),
        }
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.push_front(head);
            self.waiting += 1;
        }
        Stop
    }

    /// Takes a command that failed out of one of its queues.
    fn skip(&mut self, parked: usize) {
        if let Some(command) = self.parked.get_mut(parked) {
            command.queues -= 1;
            if command.queues == 0 {
                self.parked.try_remove(parked);
            }
        }
    }

    /// Fails what needs the node in the queue at `key` with a node's error; increments and reads
    /// stay. Returns the queues of other keys that waited only for one of them.
    pub(super) fn fail_commands(
        &mut self,
        step: &mut Step<'_, T>,
        (key, queue): (&Key, usize),
        error: &[u8],
    ) -> Vec<Drain> {
        let mut freed = Vec::new();
        let waiting = self.queues.get_mut(queue).map(std::mem::take);
        for waiting in waiting.into_iter().flatten() {
            let parked = match waiting {
                Queued::Limit { ticket, .. } | Queued::Timed { ticket, .. } => {
                    self.waiting -= 1;
                    (step.deliver)(ticket, error);
                    continue;
                }
                Queued::Command(parked) => Some(parked),
                Queued::Increment { .. } | Queued::Get { .. } | Queued::Lock => None,
            };
            if let Some(queue) = self.queues.get_mut(queue) {
                queue.push_back(waiting);
            }
            let Some(command) = parked.and_then(|parked| self.parked.get_mut(parked)) else {
                continue;
            };
            let Some(ticket) = command.ticket.take() else {
                continue;
            };
            (step.deliver)(ticket, error);
            for (other, ready) in std::mem::take(&mut command.keys) {
                if !ready || other == *key {
                    continue;
                }
                let mut place = step.table.lock(other.as_bytes());
                let queue = place.state().and_then(|state| state.queue());
                drop(place);
                freed.extend(queue.map(|queue| Drain {
                    key: other,
                    queue,
                    base: None,
                }));
            }
        }
        freed
    }

    /// Fails everything in the queue at `key`, and removes it. Returns what
    /// [`Lane::fail_commands`] does.
    pub(super) fn fail_queue(
        &mut self,
        step: &mut Step<'_, T>,
        (key, queue): (&Key, usize),
        error: &[u8],
    ) -> Vec<Drain> {
        let freed = self.fail_commands(step, (key, queue), error);
        detach(&mut step.table.lock(key.as_bytes()));
        for waiting in self.queues.try_remove(queue).into_iter().flatten() {
            self.waiting -= 1;
            match waiting {
                Queued::Increment { ticket, .. }
                | Queued::Get { ticket, .. }
                | Queued::Limit { ticket, .. }
                | Queued::Timed { ticket, .. } => {
                    (step.deliver)(ticket, error);
                }
                Queued::Command(parked) => self.skip(parked),
                Queued::Lock => {}
            }
        }
        freed
    }
}

/// A queue to go on with.
#[derive(Debug)]
pub(super) struct Drain {
    /// The key at which it stands.
    pub(super) key: Key,
    pub(super) queue: usize,
    /// The value that Redis just gave for the key.
    pub(super) base: Option<i64>,
}

/// The queue is drained no further for now: its first command waits, or a run that came out of it
/// does.
pub(super) struct Stop;

/// Takes the queue off a key.
pub(super) fn detach(place: &mut Place<'_>) -> Option<usize> {
    let queue = match place.state()? {
        State::Warm(counter) => return counter.change_seldom(|seldom| seldom.queue.take()),
        State::Opening { queue, .. } => return queue.take(),
        State::Waiting { queue } => *queue,
        _ => return None,
    };
    place.clear();
    Some(queue)
}
