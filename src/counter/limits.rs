//! Calls of limit scripts: one at a time for a key, equal ones together, denials repeated here.

use std::time::{Duration, Instant};

use super::drain::{Drain, Stop, detach};
use super::lane::{Lane, Step};
use super::queue::{InFlight, Queued, Submission};
use super::state::State;
use super::table::Place;
use crate::flush::Deadline;
use crate::key::Key;
use crate::limit::{Answers, Call, Combined, Dialect, Settlement};

/// Equal calls in flight as one.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct LimitRun<T> {
    key: Key,
    id: u32,
    combined: Combined,
    /// Who called, and each original request, for when the calls have to run alone.
    pub(super) callers: Vec<(Option<T>, Box<[u8]>)>,
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
            let wire = wire.into();
            return self.enqueue(
                queue,
                Queued::Limit {
                    call: Box::new(call),
                    wire,
                    ticket,
                },
            );
        }
        if place.counter().is_some_and(|counter| !counter.is_clean()) {
            self.seal(&mut place);
            let queue = self.attach_queue(&mut place);
            let wire = wire.into();
            return self.enqueue(
                queue,
                Queued::Limit {
                    call: Box::new(call),
                    wire,
                    ticket,
                },
            );
        }
        if is_denied(&mut place, &call, step.now) {
            drop(place);
            self.counts.limit_denied += 1;
            return deny(step, &call, ticket);
        }
        if self.is_barred(key.as_bytes()) {
            drop(place);
            return self.append(step.now, wire, ticket);
        }
        let id = self.next_id();
        place.set(State::Opening {
            run: id,
            members: SEVERAL,
            queue: None,
        });
        drop(place);
        let callers = vec![(Some(ticket), wire.into())];
        self.send_limit(
            step.now,
            LimitRun {
                key,
                id,
                combined: Combined::new(call),
                callers,
            },
            Dialect::Sha,
        );
    }

    /// A call goes on that waited, with the equal ones right behind it.
    pub(super) fn drain_limit(
        &mut self,
        step: &mut Step<'_, T>,
        mut place: Place<'_>,
        queue: usize,
        (call, wire): (Box<Call>, Box<[u8]>),
        ticket: T,
    ) -> Option<Stop> {
        if place.counter().is_some_and(|counter| !counter.is_clean()) {
            self.seal(&mut place);
            return Some(self.put_back(place, queue, Queued::Limit { call, wire, ticket }));
        }
        if is_denied(&mut place, &call, step.now) {
            self.keep_line(&mut place, queue);
            drop(place);
            self.counts.limit_denied += 1;
            deny(step, &call, ticket);
            return None;
        }
        if self.is_barred(place.key().as_bytes()) {
            drop(place);
            self.append(step.now, &wire, ticket);
            return None;
        }
        let mut combined = Combined::new(*call);
        let mut callers = vec![(Some(ticket), wire)];
        let mut left = false;
        if let Some(waiting) = self.queues.get_mut(queue) {
            while let Some(next) = waiting.pop_front() {
                match next {
                    Queued::Limit { call, wire, ticket } if combined.join(&call) => {
                        callers.push((Some(ticket), wire));
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
        place.set(State::Opening {
            run: id,
            members: SEVERAL,
            queue: left.then_some(queue),
        });
        drop(place);
        self.send_limit(
            step.now,
            LimitRun {
                key,
                id,
                combined,
                callers,
            },
            Dialect::Sha,
        );
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
            return self.send_limit(step.now, run, Dialect::Body);
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
            let denied = match &settlement {
                Ok(Settlement::Answered(answers)) => denied(answers, at, until),
                _ => None,
            };
            place.set(denied.unwrap_or(State::Touched {
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
                // What they leave behind is not known here.
                let mut place = step.table.lock(key.as_bytes());
                if mine {
                    place.clear();
                }
            }
            Err(error) => {
                let mut reply = Vec::new();
                crate::resp::encode::error(&mut reply, format!("ERR {error}"));
                for ticket in callers.into_iter().filter_map(|(ticket, _)| ticket) {
                    (step.deliver)(ticket, &reply);
                }
            }
        }
        if let Some(queue) = queue {
            self.drain(
                step,
                vec![Drain {
                    key,
                    queue,
                    base: None,
                }],
            );
        }
    }

    fn send_limit(&mut self, now: Instant, run: LimitRun<T>, dialect: Dialect) {
        self.counts.limit_requests += 1;
        run.combined.encode(dialect, &mut self.wire);
        self.push(now, InFlight::Limit(Box::new(run)));
    }
}

/// Whether the call is denied for certain by a denial that still holds.
fn is_denied(place: &mut Place<'_>, call: &Call, now: Instant) -> bool {
    match place.state() {
        Some(State::Denied { denial, until }) => now < *until && call.is_denied_at(denial.value),
        _ => false,
    }
}

fn deny<T>(step: &mut Step<'_, T>, call: &Call, ticket: T) {
    let mut reply = Vec::new();
    call.deny(&mut reply);
    (step.deliver)(ticket, &reply);
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
        denial: Box::new(denial),
        until,
    })
}

/// A run that others wait for, however few it serves: its calls may have to be sent again.
const SEVERAL: usize = 2;
