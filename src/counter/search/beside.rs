//! Batches of a node without scripts, on a connection beside the lane's.

use super::server::Watch;
use super::world::World;
use crate::flush::{Apply, Call, Decision, Outcome};

/// A batch on the connection beside.
#[derive(Clone, Debug)]
pub(super) enum Beside {
    /// Its transaction is sent.
    Looked {
        call: Call,
        apply: Apply,
        watch: Watch,
    },
    Told {
        call: Call,
        outcome: Outcome,
    },
}

impl World {
    /// Its next step; false when there is none to take.
    pub(super) fn turn_beside(&mut self) -> bool {
        match self.beside.take() {
            None => {
                let Some((call, _)) = self.lane.next_call(self.now) else {
                    return false;
                };
                self.look(call);
            }
            Some(Beside::Looked { call, apply, watch }) => {
                let replies = self.apply(&apply, &watch);
                match call.applied(apply, &replies) {
                    Some(outcome) => self.beside = Some(Beside::Told { call, outcome }),
                    None => self.look(call),
                }
            }
            Some(Beside::Told { call, outcome }) => {
                self.step(|lane, step| lane.finish_call(step, &call, outcome));
            }
        }
        true
    }

    fn look(&mut self, mut call: Call) {
        let mut wire = Vec::new();
        call.look(&mut wire).expect("few changes");
        let (replies, watch) = self.server.look(&wire);
        self.beside = Some(match call.decide(&replies) {
            Decision::Done(outcome) => Beside::Told { call, outcome },
            Decision::Apply(apply) => Beside::Looked { call, apply, watch },
        });
    }

    /// What a transaction does that watched these keys.
    pub(super) fn apply(&mut self, apply: &Apply, watch: &Watch) -> Vec<Vec<u8>> {
        let (replies, told) = self.server.apply(&apply.wire, watch);
        if self.up {
            self.outbox.extend(told);
        }
        replies
    }
}
