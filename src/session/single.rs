//! Increments and `GET` one by one: those that tables did not answer, or may not be asked about
//! ahead.

use super::amount::delta;
use super::dispatch::{Dispatch, Flow, OVERFLOW, clamped};
use crate::command::{Command, Increment};
use crate::counter::Answer;
use crate::resp::{Form, Request};
use crate::telemetry::Use;

impl Dispatch<'_> {
    /// `INCR` and its kin.
    pub(super) fn increment(
        &mut self,
        command: &Command,
        kind: Increment,
        request: &Request<'_>,
    ) -> Flow {
        let delta = match delta(kind, request.arg(2)) {
            Ok(delta) => delta,
            Err(text) => {
                self.error(text);
                return Flow::Continue;
            }
        };
        let key = request.arg(1);
        let index = self.shared.router.index(key);
        let answer = if self.is_elsewhere() {
            Answer::Elsewhere
        } else {
            self.node(index).table().increment(key, delta, self.now)
        };
        match answer {
            Answer::Value(value) => self.counted(key, value),
            Answer::Overflow => self.error(OVERFLOW),
            Answer::Elsewhere if self.is_through(index, key) => {
                let flow = self.keyed(command, request);
                if flow != Flow::Stall {
                    self.touch(key, Use::Rose(clamped(delta)));
                    self.tally.increments += 1;
                }
                return flow;
            }
            Answer::Elsewhere => {
                if let Some(flow) = self.refuse_reserved(key).or_else(|| self.admit(index)) {
                    return flow;
                }
                self.touch(key, Use::Rose(clamped(delta)));
                let (ticket, now) = (self.ticket(Form::Plain), self.now);
                let (entry, woken) = self.lane(index);
                entry.step(now, woken, |lane, step| {
                    lane.increment(step, key, delta, ticket);
                });
            }
        }
        self.tally.increments += 1;
        Flow::Continue
    }

    /// `GET`.
    pub(super) fn get(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        let key = request.arg(1);
        let index = self.shared.router.index(key);
        if self.is_tracked()
            && let Some(flow) = self.get_tracked(request, index)
        {
            return flow;
        }
        let start = self.made.len();
        if !self.is_elsewhere() && self.node(index).table().get(key, self.now, self.made) {
            self.found(key, start);
            return Flow::Continue;
        }
        if self.is_through(index, key) {
            let flow = self.keyed(command, request);
            if flow != Flow::Stall {
                self.touch(key, Use::Read(1));
                self.tally.misses += 1;
            }
            return flow;
        }
        if let Some(flow) = self.refuse_reserved(key).or_else(|| self.admit(index)) {
            return flow;
        }
        self.tally.misses += 1;
        self.touch(key, Use::Read(1));
        let ticket = self.ticket(Form::Plain);
        let now = self.now;
        let (entry, woken) = self.lane(index);
        entry.step(now, woken, |lane, step| lane.get(step, key, ticket));
        Flow::Continue
    }
}
