//! Lets the commands go that wait in a key's queue, or behind a whole-node command.

use std::collections::VecDeque;

use super::lane::{Effect, Lane, OVERFLOW, Step};
use super::queue::{Hold, Queued, Run, Submission, Wanted};
use super::state::{Answer, State};
use super::table::Place;
use crate::key::Key;
use crate::resp::encode;

impl<T> Lane<T> {
    /// Goes on with the queue that stood at `key` and was detached from it, until it is empty or
    /// its first command has to wait again. `base` is the value that Redis just gave for the key.
    pub(super) fn drain(
        &mut self,
        step: &mut Step<'_, T>,
        key: &Key,
        queue: usize,
        base: Option<i64>,
    ) {
        // Letting a command go may free the queues of its other keys.
        let mut work = vec![(key.clone(), queue, base)];
        while let Some((key, queue, base)) = work.pop() {
            self.drain_one(step, &key, queue, base, &mut work);
        }
    }

    fn drain_one(
        &mut self,
        step: &mut Step<'_, T>,
        key: &Key,
        queue: usize,
        mut base: Option<i64>,
        work: &mut Vec<(Key, usize, Option<i64>)>,
    ) {
        while let Some(head) = self.queues.get_mut(queue).and_then(VecDeque::pop_front) {
            self.waiting -= 1;
            let back = match head {
                Queued::Get { ticket, many } => {
                    self.drain_get(step, key, ticket, many, base);
                    None
                }
                Queued::Increment { delta, ticket } => {
                    self.drain_increment(step, key, queue, delta, ticket)
                }
                Queued::Command(parked) => {
                    base = None;
                    self.drain_command(step, key, queue, parked, work)
                }
            };
            match back {
                None => {}
                Some(Stop::Attached) => return,
                Some(Stop::PutBack(head)) => {
                    if let Some(queue) = self.queues.get_mut(queue) {
                        queue.push_front(head);
                        self.waiting += 1;
                    }
                    return;
                }
            }
        }
        self.queues.try_remove(queue);
    }

    /// A GET goes on: answered with what is known, else upstream on its own.
    fn drain_get(
        &mut self,
        step: &mut Step<'_, T>,
        key: &Key,
        ticket: T,
        many: bool,
        base: Option<i64>,
    ) {
        let Err(ticket) = step.known(key.as_bytes(), ticket) else {
            return;
        };
        match base {
            Some(value) => step.decimal(ticket, value),
            None if many => {
                let wanted = Wanted {
                    key: key.clone(),
                    ticket: Some(ticket),
                    keep: false,
                };
                self.append_get_many(step.now, vec![wanted]);
            }
            None => self.append_get(step.now, key.as_bytes(), ticket),
        }
    }

    /// An increment goes on: counted here, or as the first of a run that takes along what stands
    /// right behind it.
    fn drain_increment(
        &mut self,
        step: &mut Step<'_, T>,
        key: &Key,
        queue: usize,
        delta: i64,
        ticket: T,
    ) -> Option<Stop<T>> {
        let mut place = step.table.lock(key.as_bytes());
        if place.counter().is_some() {
            match self.add_warm(&mut place, delta, step.now) {
                Answer::Value(value) => {
                    drop(place);
                    step.integer(ticket, value);
                    return None;
                }
                Answer::Overflow => {
                    drop(place);
                    (step.deliver)(ticket, OVERFLOW);
                    return None;
                }
                Answer::Elsewhere if place.is_clean() => {}
                Answer::Elsewhere => {
                    reattach(&mut place, queue);
                    return Some(Stop::PutBack(Queued::Increment { delta, ticket }));
                }
            }
        }
        let warm = self.limits.warm
            && !matches!(place.state(), Some(State::Touched { cool_until: Some(until), .. }) if *until > step.now);
        let mut run = Run::new(key.clone(), self.next_run(), warm);
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
        Some(Stop::Attached)
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

    /// A forwarded command stands first at one more of its keys; when it does at all of them it
    /// is appended.
    fn drain_command(
        &mut self,
        step: &mut Step<'_, T>,
        key: &Key,
        queue: usize,
        parked: usize,
        work: &mut Vec<(Key, usize, Option<i64>)>,
    ) -> Option<Stop<T>> {
        let command = self.parked.get_mut(parked)?;
        if command.ticket.is_none() {
            command.queues -= 1;
            if command.queues == 0 {
                self.parked.try_remove(parked);
            }
            return None;
        }
        let peek = command.effect == Effect::Peek;
        let mut place = step.table.lock(key.as_bytes());
        if !peek && place.counter().is_some() && !place.is_clean() {
            self.seal(&mut place, step.now);
            reattach(&mut place, queue);
            return Some(Stop::PutBack(Queued::Command(parked)));
        }
        let command = self.parked.get_mut(parked)?;
        let mut ready = true;
        for (other, other_ready) in &mut command.keys {
            *other_ready |= other == key;
            ready &= *other_ready;
        }
        if !ready {
            reattach(&mut place, queue);
            return Some(Stop::PutBack(Queued::Command(parked)));
        }
        drop(place);
        let command = self.parked.try_remove(parked)?;
        for (other, _) in &command.keys {
            let mut place = step.table.lock(other.as_bytes());
            let detached = if other == key {
                None
            } else {
                detach(&mut place)
            };
            if !peek {
                place.clear();
            }
            drop(place);
            if let Some(detached) = detached {
                // The command itself stands first there.
                if self
                    .queues
                    .get_mut(detached)
                    .and_then(VecDeque::pop_front)
                    .is_some()
                {
                    self.waiting -= 1;
                }
                work.push((other.clone(), detached, None));
            }
        }
        if let Some(ticket) = command.ticket {
            self.append(step.now, &command.wire, ticket);
        }
        None
    }

    /// Fails the forwarded commands in a queue with a node's error; the rest stays.
    pub(super) fn fail_commands(&mut self, step: &mut Step<'_, T>, queue: usize, error: &[u8]) {
        for waiting in self.queues.get(queue).into_iter().flatten() {
            if let Queued::Command(parked) = waiting {
                let command = self.parked.get_mut(*parked);
                if let Some(ticket) = command.and_then(|command| command.ticket.take()) {
                    (step.deliver)(ticket, error);
                }
            }
        }
    }

    /// Fails everything in a queue, and removes it.
    pub(super) fn fail_queue(&mut self, step: &mut Step<'_, T>, queue: usize, error: &[u8]) {
        self.fail_commands(step, queue, error);
        while let Some(head) = self.queues.get_mut(queue).and_then(VecDeque::pop_front) {
            self.waiting -= 1;
            match head {
                Queued::Increment { ticket, .. } | Queued::Get { ticket, .. } => {
                    (step.deliver)(ticket, error);
                }
                Queued::Command(parked) => {
                    if let Some(command) = self.parked.get_mut(parked) {
                        command.queues -= 1;
                        if command.queues == 0 {
                            self.parked.try_remove(parked);
                        }
                    }
                }
            }
        }
        self.queues.try_remove(queue);
    }

    /// Holds back everything that comes from now on until a command can be sent alone.
    pub(super) fn hold(
        &mut self,
        step: &mut Step<'_, T>,
        wire: Box<[u8]>,
        ticket: T,
        forget: bool,
    ) {
        if let Some(hold) = &mut self.hold {
            hold.queue.push_back(Submission::WholeNode {
                wire,
                ticket,
                forget,
            });
            self.waiting += 1;
            return;
        }
        let ticket = Some(ticket);
        self.hold = Some(Hold {
            wire,
            ticket,
            forget,
            queue: VecDeque::new(),
        });
        if forget {
            step.table.close();
            while self.flush_batch(step.table, step.now) {}
        }
        self.release_hold(step);
    }

    /// Sends the command that everything waits for, if its time has come.
    pub(super) fn release_hold(&mut self, step: &mut Step<'_, T>) {
        let Some(hold) = &self.hold else {
            return;
        };
        let quiet = self.waiting == hold.queue.len();
        if !quiet || hold.forget && (!self.fifo.is_empty() || step.table.dirty() > 0) {
            return;
        }
        let Some(mut hold) = self.hold.take() else {
            return;
        };
        if hold.forget {
            step.table.reopen();
        }
        if let Some(ticket) = hold.ticket.take() {
            self.append(step.now, &hold.wire, ticket);
        }
        self.resume(step, hold);
    }

    /// Gives up a whole-node command: it was not sent.
    pub(super) fn fail_hold(&mut self, step: &mut Step<'_, T>, error: &[u8]) {
        let Some(mut hold) = self.hold.take() else {
            return;
        };
        if let Some(ticket) = hold.ticket.take() {
            (step.deliver)(ticket, error);
        }
        if hold.forget {
            step.table.open();
        }
        self.resume(step, hold);
    }

    fn resume(&mut self, step: &mut Step<'_, T>, hold: Hold<T>) {
        for submission in hold.queue {
            self.waiting -= 1;
            match submission {
                Submission::Increment { key, delta, ticket } => {
                    self.counts.increments -= 1;
                    self.increment(step, key.as_bytes(), delta, ticket);
                }
                Submission::Get { key, ticket } => self.get(step, key.as_bytes(), ticket),
                Submission::GetMany(keys) => self.get_many(step, keys),
                Submission::Forward {
                    keys,
                    wire,
                    effect,
                    ticket,
                } => {
                    let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
                    self.forward(step, &keys, &wire, effect, ticket);
                }
                Submission::WholeNode {
                    wire,
                    ticket,
                    forget,
                } => {
                    self.hold(step, wire, ticket, forget);
                }
            }
        }
    }

    /// A whole-node command's error for clients that were not heard.
    pub(super) fn error_frame(text: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        encode::error(&mut frame, text);
        frame
    }
}

/// Why a queue is not drained further.
enum Stop<T> {
    /// A state of the key holds the queue, or the queue is used up.
    Attached,
    /// This command waits in front of it.
    PutBack(Queued<T>),
}

/// Puts a queue that still holds commands back at its key.
fn reattach(place: &mut Place<'_>, queue: usize) {
    match place.state() {
        Some(State::Warm(counter)) => counter.queue = Some(queue),
        Some(State::Opening { queue: place, .. }) => *place = Some(queue),
        _ => place.set(State::Waiting { queue }),
    }
}

/// Takes the queue off a key.
pub(super) fn detach(place: &mut Place<'_>) -> Option<usize> {
    let queue = match place.state()? {
        State::Warm(counter) => return counter.queue.take(),
        State::Opening { queue, .. } => return queue.take(),
        State::Waiting { queue } => *queue,
        _ => return None,
    };
    place.clear();
    Some(queue)
}
