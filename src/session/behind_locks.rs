//! `EXEC` whose keys are locked while its parts are executed: behind `WATCH` (see `watch.rs`), and
//! where keys have to be brought to one node (see `together.rs`).
//!
//! ```text
//!  locked ──> watches are looked at ──> guests' values ──> parts on all nodes ──> guests go home ──> unlocked
//! ```
//!
//! Behind `WATCH` a session waits for the locks, and executes nothing else. Otherwise they are asked
//! for in one step, as the parts of any `EXEC` are given to their lanes: what comes later for a key,
//! or for all keys of a node, waits behind them. A session has one task for that at most, which
//! executes one stretch of the transaction after the other.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::aside::PING;
use super::brought::{Guests, Visit};
use super::dispatch::Dispatch;
use super::exec::{Run, elements};
use super::locked::{Located, Locked, Locking, answer, told};
use super::replies::{Elements, Ticket};
use super::together::Together;
use super::watch::{Watch, at_once, lost_before};
use crate::counter::Effect;
use crate::node::{Came, Node};
use crate::resp::encode;
use crate::telemetry::clock::now;

/// The reply of one node to its part of a transaction.
#[derive(Debug)]
pub(super) struct Executed {
    /// Place of the node in the ring.
    pub(super) index: usize,
    /// A RESP3 frame: an array, or the error of a part that failed.
    pub(super) frame: Vec<u8>,
}

/// A stretch of a transaction on its way.
pub(super) struct BehindLocks {
    pub(super) watches: Vec<Watch>,
    parts: Vec<Part>,
    /// Scripts that these nodes have to know first.
    loads: Vec<(Arc<Node<Ticket>>, Vec<u8>)>,
    /// Place of the node where the guests come.
    home: usize,
    guests: Guests,
    /// Whether it stays behind what others have sent before.
    is_ordered: bool,
    /// For each answer on a pooled connection while the keys are locked.
    patience: Duration,
}

/// What a stretch has for one node.
struct Part {
    index: usize,
    node: Arc<Node<Ticket>>,
    wire: Vec<u8>,
    commands: u32,
}

/// A stretch whose locks have been asked for.
pub(super) struct Asked {
    stretch: BehindLocks,
    locking: Locking,
    waiting: Waiting,
}

/// Who waits for the replies of a stretch.
struct Waiting {
    /// The elements of each node, by its place in the ring.
    elements: Vec<(usize, Elements)>,
    /// Whether the transaction is nothing else.
    is_alone: bool,
}

impl Dispatch<'_> {
    /// A stretch, and the keys that are to be locked for it.
    pub(super) fn behind_locks(
        &self,
        watches: Vec<Watch>,
        runs: &[Run<'_>],
        together: Option<&Together>,
    ) -> (BehindLocks, Vec<Located>) {
        let named = runs.iter().flat_map(|run| &run.keys);
        let mut keys: Vec<Located> = named.map(|key| self.locate(key)).collect();
        keys.extend(watches.iter().flat_map(Watch::keys));
        let (mut parts, mut loads) = (Vec::new(), Vec::new());
        for run in runs {
            let (index, node) = (run.node, self.node(run.node));
            for name in &run.scripts {
                let (at, connection) = ((node.database(), index), node.enter().connection());
                if let Some(body) = self.shared.scripts.missing(at, connection, name) {
                    let mut load = Vec::new();
                    encode::request(&mut load, &[b"SCRIPT".as_slice(), b"LOAD", &body]);
                    loads.push((Arc::clone(node), load));
                }
            }
            parts.push(Part {
                index,
                node: Arc::clone(node),
                wire: run.commands_alone().to_vec(),
                commands: run.commands,
            });
        }
        let guests = together.into_iter().flat_map(|together| &together.guests);
        let guests = guests.map(|(key, changes)| (self.locate(key.as_bytes()), *changes));
        let upstream = &self.shared.live().upstream;
        let mut indices = keys.iter().map(|key| key.index);
        let first = indices.next();
        // What other nodes have to do with the keys waits for it as for a lane.
        let patience = if indices.all(|index| Some(index) == first) {
            upstream.hard_timeout
        } else {
            upstream.request_timeout
        };
        let stretch = BehindLocks {
            watches,
            parts,
            loads,
            home: together.map_or(0, |together| together.home),
            guests: self.guests(guests),
            is_ordered: self.splits(),
            patience,
        };
        (stretch, keys)
    }

    /// Asks for the locks of a stretch that has guests. `None` where that fails: the replies are
    /// the error.
    pub(super) fn lock_stretch(
        &mut self,
        runs: Vec<Run<'_>>,
        together: &Together,
        is_alone: bool,
    ) -> Option<Asked> {
        self.leave();
        let (stretch, keys) = self.behind_locks(Vec::new(), &runs, Some(together));
        let is_all = is_alone && runs.len() == 1;
        let replies = &self.replies;
        let elements = runs.into_iter().map(|run| {
            let elements = elements(replies, run.tickets, is_all);
            (run.node, elements)
        });
        let waiting = Waiting {
            elements: elements.collect(),
            is_alone,
        };
        match Locking::ask(&self.shared.crossings, keys) {
            Ok(locking) => Some(Asked {
                stretch,
                locking,
                waiting,
            }),
            Err(error) => {
                self.woken.extend(waiting.refuse(&aborted(error), self.now));
                None
            }
        }
    }
}

impl BehindLocks {
    /// The replies of all parts, or what the whole stretch is answered with: nothing of it was
    /// executed then, or nobody knows.
    pub(super) async fn run(&mut self, locked: &Locked) -> Result<Vec<Executed>, Vec<u8>> {
        for (node, load) in &self.loads {
            let load = locked.send(node, load, Effect::Barrier);
            told(load.map_err(aborted)?).await;
        }
        if self.is_ordered && !self.are_lanes_through(locked).await {
            // A node that is silent would not answer `UNWATCH` either.
            self.watches.clear();
            return Err(lost_before());
        }
        let has_both = |watch: &&Watch| {
            let mut parts = self.parts.iter();
            parts.any(|part| part.index == watch.index)
        };
        let last = self.watches.iter().find(has_both);
        let last = last.map(|watch| watch.index);
        let visit = self.guests.fetch(locked).await.map_err(aborted)?;
        look(&mut self.watches, last, self.patience).await?;
        if !locked.holds() {
            // Others may have changed what was unlocked since it was looked at.
            return Err(lost_before());
        }
        let wire = |part: &Part| {
            if part.index == self.home {
                visit.transaction(&part.wire, part.commands)
            } else {
                Visit::of_nobody().transaction(&part.wire, part.commands)
            }
        };
        let (own, others): (Vec<_>, Vec<_>) =
            self.parts.iter().partition(|part| Some(part.index) == last);
        let mut executed = Vec::with_capacity(self.parts.len());
        if let (Some(part), Some(watch)) = (own.first(), self.watches.first_mut()) {
            let (index, sent) = (part.index, wire(part));
            let frame = watch.execute(locked, sent, self.patience).await?;
            executed.push(Executed { index, frame });
        }
        let send = |part: &Part| {
            let (wire, commands) = wire(part);
            let effect = Effect::Transaction(commands);
            (part.index, locked.send(&part.node, &wire, effect))
        };
        let asked: Vec<_> = others.into_iter().map(send).collect();
        for (index, asked) in asked {
            let frame = match asked {
                Ok(asked) => told(asked).await,
                Err(error) => error,
            };
            executed.push(Executed { index, frame });
        }
        let home = executed.iter_mut().find(|part| part.index == self.home);
        if let Some(home) = home {
            let mut parts = self.parts.iter();
            let commands = parts.find(|part| part.index == self.home);
            let commands = commands.map_or(0, |part| part.commands);
            let ended = visit.end(locked, commands, &home.frame).await;
            home.frame = ended.unwrap_or_else(|error| error);
        }
        Ok(executed)
    }

    /// Waits until everything has been executed that was sent before to the nodes of what is
    /// watched: what is asked on other connections would overtake it. Returns false where nobody
    /// knows.
    async fn are_lanes_through(&self, locked: &Locked) -> bool {
        let asked = self.watches.iter().map(|watch| {
            let node = watch.node();
            locked.send(node, PING, Effect::Barrier)
        });
        let asked: Vec<_> = asked.collect();
        for asked in asked {
            let Ok(asked) = asked else { return false };
            if answer(asked).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// Asks all nodes but that of `last` whether what they watch is unchanged, and forgets these.
async fn look(
    watches: &mut Vec<Watch>,
    last: Option<usize>,
    patience: Duration,
) -> Result<(), Vec<u8>> {
    let all = std::mem::take(watches).into_iter();
    let (kept, asked): (Vec<_>, Vec<_>) = all.partition(|watch| Some(watch.index) == last);
    *watches = kept;
    let asked = asked.into_iter().map(|mut watch| async move {
        let unchanged = watch.look(patience).await;
        (watch, unchanged)
    });
    // Their keys stay barred until all have answered.
    let answers = at_once(asked).await;
    answers.into_iter().try_for_each(|(_, unchanged)| unchanged)
}

impl Asked {
    async fn run(self) {
        let Self {
            mut stretch,
            locking,
            waiting,
        } = self;
        let executed = match locking.granted().await {
            Ok(locked) => stretch.run(&locked).await,
            Err(error) => Err(aborted(error)),
        };
        let now = now();
        let woken = match executed {
            Ok(executed) => waiting.take(&executed, now),
            Err(error) => waiting.refuse(&error, now),
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Waiting {
    /// Hands out the replies of all parts. Returns whom to wake.
    fn take(self, executed: &[Executed], now: Instant) -> Vec<Waker> {
        let filled = self.elements.into_iter().map(|(index, elements)| {
            let part = executed.iter().find(|part| part.index == index);
            let frame = part.map_or(&[][..], |part| part.frame.as_slice());
            elements.fill(frame, Came::here(now))
        });
        filled.flatten().collect()
    }

    /// Nothing was executed. Returns whom to wake.
    fn refuse(self, error: &[u8], now: Instant) -> Vec<Waker> {
        let filled = self.elements.into_iter().map(|(_, mut elements)| {
            elements.is_all = self.is_alone;
            elements.fill(error, Came::here(now))
        });
        filled.flatten().collect()
    }
}

/// Executes stretches of one transaction, in order.
pub(super) fn execute(stretches: Vec<Asked>) {
    if !stretches.is_empty() {
        tokio::spawn(async move {
            for stretch in stretches {
                stretch.run().await;
            }
        });
    }
}

/// Why nothing was executed, as `EXEC` says it.
fn aborted(error: Vec<u8>) -> Vec<u8> {
    let Some(cause) = error.strip_prefix(b"-ERR ") else {
        return error;
    };
    [b"-EXECABORT Transaction discarded because of: ", cause].concat()
}
