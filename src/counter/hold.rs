//! Commands that concern no key, or all of them. While one has to wait, what comes after it waits
//! too.

use std::collections::VecDeque;

use super::lane::{Extent, Lane, Step};
use super::queue::{Hold, Submission};
use crate::key::Key;
use crate::rule::{Rule, holds};

impl<T> Lane<T> {
    /// A command without keys that changes none, behind everything that waits.
    pub fn keyless(&mut self, step: &mut Step<'_, T>, wire: &[u8], ticket: T) {
        self.send_bundles(step.now);
        if self.waiting == 0 && self.hold.is_none() {
            self.append(step.now, wire, ticket);
        } else {
            self.hold(step, wire.into(), Some(ticket), Extent::Ordered);
        }
    }

    /// A command that may read or change any key of the node. It is sent alone, after everything
    /// that is pending, and nothing known of any key survives it.
    pub fn whole_node(&mut self, step: &mut Step<'_, T>, wire: &[u8], extent: Extent, ticket: T) {
        self.hold(step, wire.into(), Some(ticket), extent);
    }

    /// Holds back everything that comes from now on until a command can be sent alone.
    pub(super) fn hold(
        &mut self,
        step: &mut Step<'_, T>,
        wire: Box<[u8]>,
        ticket: Option<T>,
        extent: Extent,
    ) {
        if let Some(hold) = &mut self.hold {
            hold.queue.push_back(Submission::WholeNode {
                wire,
                ticket,
                extent,
            });
            self.waiting += 1;
            return;
        }
        self.hold = Some(Hold {
            wire,
            ticket,
            extent,
            queue: VecDeque::new(),
        });
        self.send_bundles(step.now);
        // Nothing that comes from now on may pass what is held.
        step.table.close();
        self.release_hold(step);
    }

    /// Sends the command that everything waits for, if its time has come.
    pub(super) fn release_hold(&mut self, step: &mut Step<'_, T>) {
        let Some(hold) = &self.hold else {
            return;
        };
        if self.waiting > hold.queue.len() || hold.is_stopped() {
            return;
        }
        let extent = hold.extent;
        if extent != Extent::Ordered && holds(Rule::WholeNodeAlone) {
            // Commands that left their queues meanwhile may have counted something.
            self.begin_flush(step.table);
            self.seal_batches(step.table, step.now);
            if !self.is_quiet(step) {
                return;
            }
        }
        if extent == Extent::Stop {
            return self.stopped(step);
        }
        let Some(mut hold) = self.hold.take() else {
            return;
        };
        if hold.extent != Extent::Ordered {
            step.table.forget();
        }
        match (hold.ticket.take(), hold.extent) {
            (_, Extent::Treat) => self.treated(step),
            (None, _) => {}
            (Some(ticket), Extent::Wipe) => self.append_wipe(step.now, &hold.wire, ticket),
            (Some(ticket), Extent::Transaction(commands)) => {
                self.append_transaction(step.now, commands, &hold.wire, ticket);
            }
            (Some(ticket), _) => self.append(step.now, &hold.wire, ticket),
        }
        self.resume(step, hold);
    }

    /// Whether nothing is in flight and everything acknowledged has been applied.
    fn is_quiet(&self, step: &Step<'_, T>) -> bool {
        self.fifo.is_empty() && self.is_applied() && step.table.dirty() == 0
    }

    /// Gives up a whole-node command: it was not sent.
    pub(super) fn fail_hold(&mut self, step: &mut Step<'_, T>, error: &[u8]) {
        let Some(mut hold) = self.hold.take_if(|hold| !hold.is_stopped()) else {
            return;
        };
        if let Some(ticket) = hold.ticket.take() {
            (step.deliver)(ticket, error);
        }
        self.resume(step, hold);
    }

    /// Goes on with what was held. The table answers again when all of it has had its turn.
    pub(super) fn resume(&mut self, step: &mut Step<'_, T>, hold: Hold<T>) {
        for submission in hold.queue {
            self.waiting -= 1;
            match submission {
                Submission::Increment { key, delta, ticket } => {
                    self.counts.increments -= 1;
                    self.increment(step, key.as_bytes(), delta, ticket);
                }
                Submission::Get { key, ticket } => self.get(step, key.as_bytes(), ticket),
                Submission::GetMany(keys) => self.get_many(step, keys),
                Submission::Limit { call, wire, ticket } => self.limit(step, call, &wire, ticket),
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
                    extent,
                } => {
                    self.hold(step, wire, ticket, extent);
                }
            }
        }
        if self.hold.is_none() {
            step.table.open();
        }
    }
}
