//! Calls of limit scripts: one at a time for a key, equal ones together, denials repeated here.

use std::time::{Duration, Instant};

use super::drain::{Stop, detach};
use super::lane::{Lane, Step};
use super::queue::{InFlight, Queued, Submission};
use super::state::{Answer, Counter, State, Told};
use super::table::{KeyTable, Place};
use crate::flush::Deadline;
use crate::key::Key;
use crate::limit::{Answers, Call, Combined, Dialect, Settlement};
use crate::resp::Protocol;

/// Equal calls in flight as one.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct LimitRun<T> {
    key: Key,
    id: u32,
    combined: Combined,
    /// Who called, each with the request as it came, for when the calls have to run alone.
    pub(super) callers: Vec<(Option<T>, Box<[u8]>)>,
}

impl<T> LimitRun<T> {
    /// Its key, and its number there.
    pub(super) fn opening(&self) -> (Key, u32) {
        (self.key.clone(), self.id)
    }
}

/// What is known here of a call of a limit script.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It is denied for certain, by a denial that still holds or a counter that is known.
    Denied,
    /// It was counted here, and this is the new value.
    Granted(i64),
}

impl KeyTable {
    /// Decides a call of a limit script without the lane, and counts what it grants; `None` where
    /// the lane has to be asked.
    pub fn limit(&self, call: &Call, now: Instant) -> Option<Decision> {
        let mut place = self.lock(call.key().as_bytes());
        if place.is_closed() {
            return None;
        }
        decide(&mut place, call, self.grants(call.key().as_bytes()), now)
    }

    /// Whether calls of limit scripts may be granted from memory.
    fn grants(&self, key: &[u8]) -> bool {
        self.policy(key).local_grants && self.buffers(key)
    }
}

impl<T> Lane<T> {
    /// A call of a limit script by a client, `wire` being the request as it came. Grants are
    /// decided by the node; a denial may be repeated here until the key's deadline, or a change.
    pub fn limit(&mut self, step: &mut Step<'_, T>, call: Call, wire: &[u8], ticket: T) {
        if let Some(hold) = &mut self.hold {
            let wire = wire.into();
            hold.queue
                .push_back(Submission::Limit { call, wire, ticket });
            self.waiting += 1;
            return;
        }
        let key = call.key().clone();
        let mut place = step.table.lock(key.as_bytes());
        if let Some(queue) = self.line(&mut place) {
            return self.enqueue(queue, Queued::limit(call, wire, ticket));
        }
        let grants = step.table.grants(key.as_bytes());
        if let Some(decision) = decide(&mut place, &call, grants, step.now) {
            drop(place);
            return self.decided(step, &call, decision, ticket);
        }
        if place.counter().is_some_and(|counter| !counter.is_clean()) {
            self.seal(&mut place);
            let queue = self.attach_queue(&mut place);
            return self.enqueue(queue, Queued::limit(call, wire, ticket));
        }
        if self.is_barred(key.as_bytes()) {
            drop(place);
            return self.append(step.now, wire, ticket);
        }
        let id = self.next_id();
        let is_plain = !grants && !was_denied(&mut place);
        place.set(State::Opening {
            run: id,
            members: SEVERAL,
            queue: None,
        });
        drop(place);
        if is_plain {
            return self.bundle(step.now, id, (call, wire), ticket);
        }
        let run = LimitRun {
            key,
            id,
            combined: Combined::new(call),
            callers: vec![(Some(ticket), wire.into())],
        };
        self.send_limit(step.now, run);
    }

    /// A call that waited goes on, and with it the equal ones right behind it.
    pub(super) fn drain_limit(
        &mut self,
        step: &mut Step<'_, T>,
        mut place: Place<'_>,
        queue: usize,
        (call, wire): (Box<Call>, Box<[u8]>),
        ticket: T,
    ) -> Option<Stop> {
        let grants = step.table.grants(call.key().as_bytes());
        if let Some(decision) = decide(&mut place, &call, grants, step.now) {
            self.keep_line(&mut place, queue);
            drop(place);
            self.decided(step, &call, decision, ticket);
            return None;
        }
        if place.counter().is_some_and(|counter| !counter.is_clean()) {
            self.seal(&mut place);
            return Some(self.put_back(place, queue, Queued::Limit { call, wire, ticket }));
        }
        if self.is_barred(place.key().as_bytes()) {
            drop(place);
            self.append(step.now, &wire, ticket);
            return None;
        }
        let mut combined = Combined::new(*call);
        let mut others = Vec::new();
        let mut left = false;
        if let Some(waiting) = self.queues.get_mut(queue) {
            while let Some(next) = waiting.pop_front() {
                match next {
                    Queued::Limit { call, wire, ticket } if combined.join(&call) => {
                        others.push((Some(ticket), wire));
                        self.waiting -= 1;
                        self.joined += 1;
                    }
                    other => {
                        waiting.push_front(other);
                        left = true;
                        break;
                    }
                }
            }
        }
        if !left {
            self.queues.try_remove(queue);
        }
        let id = self.next_id();
        let key = place.key();
        let is_plain = others.is_empty() && !grants && !was_denied(&mut place);
        place.set(State::Opening {
            run: id,
            members: SEVERAL,
            queue: left.then_some(queue),
        });
        drop(place);
        if is_plain {
            let call = combined.call().clone();
            self.bundle(step.now, id, (call, &wire), ticket);
            return Some(Stop);
        }
        let mut callers = vec![(Some(ticket), wire)];
        callers.append(&mut others);
        let run = LimitRun {
            key,
            id,
            combined,
            callers,
        };
        self.send_limit(step.now, run);
        Some(Stop)
    }

    /// Takes the answer to a combined call that was sent at `at`.
    pub(super) fn finish_limit(
        &mut self,
        step: &mut Step<'_, T>,
        run: LimitRun<T>,
        frame: &[u8],
        at: Instant,
    ) {
        let settlement = run.combined.settle(frame);
        if let Ok(Settlement::Unknown) = settlement {
            // Nothing else of the key was sent meanwhile.
            self.brought.clear();
            return self.send_limit(step.now, run);
        }
        let LimitRun {
            key, id, callers, ..
        } = run;
        self.joined -= callers.len() - 1;
        let mut place = step.table.lock(key.as_bytes());
        let mine = matches!(place.state(), Some(State::Opening { run, .. }) if *run == id);
        let queue = if mine { detach(&mut place) } else { None };
        if mine {
            let until = step.table.policy(key.as_bytes()).fresh_until(at);
            let known = match &settlement {
                Ok(Settlement::Answered(answers)) => denied(answers, at, until)
                    .or_else(|| self.warmed(step, key.as_bytes(), (answers, queue), at)),
                _ => None,
            };
            place.set(known.unwrap_or(State::Touched {
                until,
                cool_until: None,
            }));
        }
        drop(place);
        match settlement {
            Ok(Settlement::Answered(answers)) => {
                for ((ticket, _), reply) in callers.into_iter().zip(answers.replies()) {
                    if let Some(ticket) = ticket {
                        (step.deliver)(ticket, &reply);
                    }
                }
            }
            Ok(Settlement::Alone | Settlement::Unknown) => {
                for (ticket, wire) in callers {
                    if let Some(ticket) = ticket {
                        self.append(step.now, &wire, ticket);
                    }
                }
                // What they leave behind on the key is not known here.
                let mut place = step.table.lock(key.as_bytes());
                if mine {
                    place.clear();
                }
            }
            Err(error) => {
                let mut reply = Vec::new();
                crate::resp::encode::error(&mut reply, format!("ERR {error}"));
                step.tell(callers.into_iter().filter_map(|(ticket, _)| ticket), &reply);
            }
        }
        if let Some(queue) = queue {
            self.drain_key(step, key, queue, None);
        }
    }

    /// The state of a key whose calls may be granted here from now on.
    fn warmed(
        &self,
        step: &Step<'_, T>,
        key: &[u8],
        (answers, queue): (&Answers, Option<usize>),
        at: Instant,
    ) -> Option<State> {
        if !(step.table.grants(key) && self.warms(step.table, key)) {
            return None;
        }
        let policy = step.table.policy(key);
        let until = policy.counter_fresh_until(at);
        let mut counter = Counter::new(answers.value()?, policy.class, until);
        match answers.ttl()? {
            Deadline::NoKey => return None,
            Deadline::Never => {}
            Deadline::Ms(ms) => {
                let deadline = step.table.clock()?.now(at).checked_add(ms);
                let closes = policy.closes(at, Duration::from_millis(ms));
                counter.set_end(deadline, closes);
                if closes.is_none_or(|closes| closes <= step.now) {
                    return None;
                }
            }
        }
        counter.set_queue(queue);
        counter.told = Told::on(self.telling());
        Some(State::Warm(counter))
    }

    /// Answers a call that was decided here.
    fn decided(&mut self, step: &mut Step<'_, T>, call: &Call, decision: Decision, ticket: T) {
        let mut reply = Vec::new();
        match decision {
            Decision::Denied => {
                self.counts.limit_denied += 1;
                call.deny(Protocol::Resp3, &mut reply);
            }
            Decision::Granted(value) => {
                self.counts.increments += 1;
                call.grant(value, &mut reply);
            }
        }
        (step.deliver)(ticket, &reply);
    }

    /// How a script of ours is called: on each connection first by its body. A node that does not
    /// know it would say so, and by then others would have been sent, in front of the call.
    pub(super) fn dialect(&mut self, script: &'static str) -> Dialect {
        if self.brought.iter().any(|body| std::ptr::eq(*body, script)) {
            return Dialect::Sha;
        }
        self.brought.push(script);
        Dialect::Body
    }

    fn send_limit(&mut self, now: Instant, run: LimitRun<T>) {
        self.counts.limit_requests += 1;
        let dialect = self.dialect(run.combined.script());
        run.combined.encode(dialect, &mut self.wire);
        self.push(now, InFlight::Limit(Box::new(run)));
    }
}

/// Decides a call here if that can be done; counts what it grants, which only `grants` allows.
fn decide(place: &mut Place<'_>, call: &Call, grants: bool, now: Instant) -> Option<Decision> {
    match place.state()? {
        State::Denied {
            denial: Some(denial),
            until,
        } => (now < *until && call.is_denied_at(denial.value)).then_some(Decision::Denied),
        State::Warm(counter) if grants && counter.answers(now) => {
            if call.is_denied_at(counter.value) {
                return Some(Decision::Denied);
            }
            let amount = call.adds(counter.value, counter.deadline().is_some())?;
            let Answer::Value(value) = place.add(amount, now) else {
                return None;
            };
            place.acknowledged();
            place.list_if_pending();
            Some(Decision::Granted(value))
        }
        _ => None,
    }
}

/// Whether a call was denied lately.
fn was_denied(place: &mut Place<'_>) -> bool {
    matches!(place.state(), Some(State::Denied { .. }))
}

/// The state of a key at which a call was denied by a script that only read.
fn denied(answers: &Answers, at: Instant, lease: Instant) -> Option<State> {
    let denial = answers.denial()?;
    let until = match denial.ttl {
        Deadline::Never => lease,
        Deadline::Ms(ms) => at.checked_add(Duration::from_millis(ms))?.min(lease),
        Deadline::NoKey => return None,
    };
    Some(State::Denied {
        denial: Some(Box::new(denial)),
        until,
    })
}

/// A run that others wait for however few it serves: its calls may have to be sent again.
const SEVERAL: usize = 2;
