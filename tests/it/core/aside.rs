//! Batches of a node without scripts, on a connection beside the lane's.

use tally::flush::{Apply, CONTENDED, Call, Decision, Outcome};

use super::book::show_wire;
use super::node::Held;
use super::sim::Sim;

/// How far a batch has come on the connection beside.
pub(super) enum Aside {
    /// It waits for the disk.
    Sealed { call: Call, note: u64 },
    /// Its transaction is sent.
    Looked {
        call: Call,
        apply: Apply,
        watched: Watched,
    },
    /// Its replies have come.
    Told { call: Call, outcome: Outcome },
}

/// Keys that are watched, and what was there.
pub(super) type Watched = (Vec<Vec<u8>>, Vec<Option<Held>>);

/// A transaction of a lost connection.
pub(super) type Late = (Apply, Watched);

impl Sim {
    /// One step on the connection beside; false when there is none to take.
    pub(super) fn turn_aside(&mut self) -> bool {
        if self.away {
            return false;
        }
        match self.aside.take() {
            None => {
                let Some((call, note)) = self.lane.next_call(self.now) else {
                    return false;
                };
                self.aside = Some(Aside::Sealed { call, note });
            }
            Some(Aside::Sealed { call, note }) => {
                if self.commits.is_some_and(|commits| !commits.is_kept(note)) {
                    self.aside = Some(Aside::Sealed { call, note });
                    return false;
                }
                self.look(call);
            }
            Some(Aside::Looked {
                call,
                apply,
                watched,
            }) => {
                let replies = self.apply(&apply, &watched);
                match call.applied(apply, &replies) {
                    Some(outcome) => self.aside = Some(Aside::Told { call, outcome }),
                    None => self.look(call),
                }
            }
            Some(Aside::Told { call, outcome }) => {
                self.step(|lane, step| lane.finish_call(step, &call, outcome));
                self.losses_are_told();
            }
        }
        true
    }

    fn look(&mut self, mut call: Call) {
        let mut wire = Vec::new();
        let Some(count) = call.look(&mut wire) else {
            let outcome = Outcome::Answer(CONTENDED.to_vec());
            self.aside = Some(Aside::Told { call, outcome });
            return;
        };
        let keys: Vec<_> = call.keys().map(<[u8]>::to_vec).collect();
        let keys = [vec![self.lane.marker().to_vec()], keys].concat();
        let watched = self.node.watched(&keys);
        let replies = self.node.execute_aside(&wire);
        assert_eq!(replies.len(), count);
        self.book.note(|| format!("  aside: {}", show_wire(&wire)));
        self.aside = Some(match call.decide(&replies) {
            Decision::Done(outcome) => Aside::Told { call, outcome },
            Decision::Apply(apply) => Aside::Looked {
                call,
                apply,
                watched: (keys, watched),
            },
        });
    }

    /// What a transaction does that watched these keys.
    fn apply(&mut self, apply: &Apply, (keys, watched): &Watched) -> Vec<Vec<u8>> {
        let is_changed = self.node.watched(keys) != *watched;
        self.book
            .note(|| format!("  aside: {} {is_changed}", show_wire(&apply.wire)));
        if is_changed {
            return vec![b"_\r\n".to_vec()];
        }
        let replies = self.node.execute_aside(&apply.wire);
        assert_eq!(replies.len(), apply.replies);
        replies
    }

    /// A transaction of a connection that is lost is executed after all.
    pub(super) fn execute_late(&mut self) {
        if let Some((apply, watched)) = self.late.take() {
            self.apply(&apply, &watched);
        }
    }

    /// The connection is lost. What was sent on it is executed now, later, or never.
    pub(super) fn lose_aside(&mut self) {
        if let Some(Aside::Looked { apply, watched, .. }) = self.aside.take() {
            self.late = Some((apply, watched));
            if self.book.random.one_in(2) {
                self.execute_late();
            }
        }
    }
}
