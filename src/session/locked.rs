//! Keys of several nodes that one command has for itself until it is done.
//!
//! What else comes for the keys waits at their lanes, so clients of this Tally see all of the
//! command or nothing. The lanes are locked together while the locks are asked for, behind the lock
//! that orders whatever stops whole lanes: two commands that meet on several nodes find one order
//! on all of them, so none waits for another in a circle.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::aside::{kill, on_lane};
use super::dispatch::Dispatch;
use super::replies::Ticket;
use crate::counter::{Effect, Lane, Step};
use crate::key::Key;
use crate::node::{Node, Pooled, Refused, error_frame};
use crate::resp::{encode, reply};
use crate::telemetry::clock::now;

/// Locked keys; free again when it is dropped, which takes the locks of the lanes.
pub(super) struct Locked {
    parts: Vec<Part>,
}

/// Locks that have been asked for, and what each lane says.
pub(super) struct Locking {
    locked: Locked,
    told: Vec<Told>,
}

/// What is locked on one node.
struct Part {
    node: Arc<Node<Ticket>>,
    keys: Vec<Key>,
    /// How many connections the lane had lost by then: if it loses another, the lock is gone.
    losses: u32,
}

/// A key and where it lives.
#[derive(Clone, Debug)]
pub(super) struct Located {
    /// Place of the node in the ring.
    pub(super) index: usize,
    pub(super) node: Arc<Node<Ticket>>,
    pub(super) key: Key,
}

impl Located {
    /// Lanes are locked in this order: within a database as by `EXEC`.
    fn order(&self) -> (u32, usize, &[u8]) {
        (self.node.database(), self.index, self.key.as_bytes())
    }

    /// Sends a command about the key, which is locked.
    ///
    /// # Errors
    ///
    /// The frame of an error: nothing was sent.
    pub(super) fn ask(
        &self,
        locked: &Locked,
        command: &str,
        rest: &[&[u8]],
    ) -> Result<Told, Vec<u8>> {
        let mut args = vec![command.as_bytes(), self.key.as_bytes()];
        args.extend(rest);
        let mut wire = Vec::new();
        encode::request(&mut wire, &args);
        locked.send(&self.node, &wire, Effect::Barrier)
    }

    /// Reads the key, which is locked, as `RESTORE` takes it.
    ///
    /// # Errors
    ///
    /// The frame of an error.
    pub(super) async fn read(&self, locked: &Locked) -> Result<Option<Dumped>, Vec<u8>> {
        let left = self.ask(locked, "PTTL", &[])?;
        let value = self.ask(locked, "DUMP", &[])?;
        Ok(Dumped::of(&answer(left).await?, &answer(value).await?))
    }
}

/// A key's value, and the rest of its life in milliseconds; 0 is for ever.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Dumped {
    pub(super) left: u64,
    pub(super) value: Vec<u8>,
}

impl Dumped {
    /// Made of the replies to `PTTL` and `DUMP`; `None` where there is no such key, or no longer.
    pub(super) fn of(left: &[u8], value: &[u8]) -> Option<Self> {
        let left = match reply::integer(left)? {
            -2 => return None,
            // A key that ends within this millisecond still does not live for ever.
            left => u64::try_from(left).map_or(0, |left| left.max(1)),
        };
        let text = reply::text(value).filter(|_| !reply::is_null(value))?;
        let value = text.to_vec();
        Some(Self { left, value })
    }
}

impl Dispatch<'_> {
    /// Where a key of the session's database lives.
    pub(super) fn locate(&self, key: &[u8]) -> Located {
        let index = self.shared.router.index(key);
        Located {
            index,
            node: Arc::clone(self.node(index)),
            key: Key::new(key),
        }
    }
}

/// What a node answers.
pub(super) type Told = oneshot::Receiver<Vec<u8>>;

impl Locked {
    /// Locks keys, each with the place of its node in the ring. Waits until what is pending on them
    /// is applied.
    ///
    /// # Errors
    ///
    /// The frame of an error: nothing is locked.
    pub(super) async fn new(order: &Mutex<()>, keys: Vec<Located>) -> Result<Self, Vec<u8>> {
        let nodes = by_lane(keys);
        let asked = loop {
            if let Some(asked) = ask_for_all(order, &nodes, Bounds::Hold)? {
                break asked;
            }
            tokio::time::sleep(TURN).await;
        };
        asked.granted().await
    }

    /// Whether all keys are still locked: no lane has lost its connection.
    pub(super) fn holds(&self) -> bool {
        let losses = |part: &Part| with_lane(&part.node, |lane, _| lane.losses());
        self.parts.iter().all(|part| losses(part) == part.losses)
    }

    /// Closes a lost connection at its node too: what was sent on it is executed before the keys
    /// are free, or not at all. What waits for them does not hold that up.
    pub(super) async fn fence(&self, node: &Arc<Node<Ticket>>, connection: Pooled) {
        let wire = kill(connection);
        if let Ok(killed) = self.send(node, &wire, Effect::Barrier) {
            drop(told(killed).await);
        } else {
            let killed = on_lane(node, |lane, step, ticket| lane.keyless(step, &wire, ticket));
            killed.await;
        }
    }

    /// Sends a request, or a transaction, about locked keys of `node`. The caller waits for the
    /// answer.
    ///
    /// # Errors
    ///
    /// The frame of an error: nothing was sent.
    pub(super) fn send(
        &self,
        node: &Arc<Node<Ticket>>,
        wire: &[u8],
        effect: Effect,
    ) -> Result<Told, Vec<u8>> {
        let part = self.parts.iter().find(|part| Arc::ptr_eq(&part.node, node));
        let losses = part.map_or(0, |part| part.losses);
        let (sender, told) = oneshot::channel();
        let ticket = Ticket::Told(sender);
        if matches!(effect, Effect::Transaction(_)) {
            // A script of a client may be in it.
            node.enter().note_script();
        }
        let is_locked = with_lane(node, |lane, step| {
            lane.within(step, losses, (effect, wire), ticket)
        });
        if is_locked {
            Ok(told)
        } else {
            let text = format!("node {}: the connection was lost, not sent", node.name());
            Err(error_frame(text))
        }
    }
}

impl Locking {
    /// Asks for the locks at once, by one command more than a lane takes if need be.
    ///
    /// # Errors
    ///
    /// The frame of an error: nothing was asked for.
    pub(super) fn ask(order: &Mutex<()>, keys: Vec<Located>) -> Result<Self, Vec<u8>> {
        let asked = ask_for_all(order, &by_lane(keys), Bounds::Pass)?;
        asked.ok_or_else(|| error_frame("a lane has no room"))
    }

    /// Waits until what is pending on the keys is applied.
    ///
    /// # Errors
    ///
    /// The frame of an error: nothing is locked.
    pub(super) async fn granted(self) -> Result<Locked, Vec<u8>> {
        let Self { mut locked, told } = self;
        let mut refused = None;
        for (part, told) in locked.parts.iter_mut().zip(told) {
            if let Err(error) = answer(told).await {
                part.keys.clear();
                refused = refused.or(Some(error));
            }
        }
        refused.map_or(Ok(locked), Err)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        for part in &self.parts {
            with_lane(&part.node, |lane, step| {
                lane.unlock(step, part.losses, &part.keys);
            });
        }
    }
}

/// The keys of each lane, in the order in which lanes are locked.
fn by_lane(mut keys: Vec<Located>) -> Vec<(Arc<Node<Ticket>>, Vec<Key>)> {
    keys.sort_by(|one, other| one.order().cmp(&other.order()));
    keys.dedup_by(|one, other| one.order() == other.order());
    let mut nodes: Vec<(Arc<Node<Ticket>>, Vec<Key>)> = Vec::new();
    for Located { node, key, .. } in keys {
        match nodes.last_mut() {
            Some((last, keys)) if Arc::ptr_eq(last, &node) => keys.push(key),
            _ => nodes.push((node, vec![key])),
        }
    }
    nodes
}

/// What a lane without room means for locks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Bounds {
    Hold,
    /// It takes them all the same.
    Pass,
}

/// Asks for all locks in one step; `None` while a lane has no room.
fn ask_for_all(
    order: &Mutex<()>,
    keys: &[(Arc<Node<Ticket>>, Vec<Key>)],
    bounds: Bounds,
) -> Result<Option<Locking>, Vec<u8>> {
    let order = order.lock();
    let mut entries = Vec::with_capacity(keys.len());
    for (node, _) in keys {
        let mut entry = node.enter();
        match entry.admit_behind(Waker::noop()) {
            Err(Refused::Full) if bounds == Bounds::Hold => return Ok(None),
            Ok(()) | Err(Refused::Full) => entries.push(entry),
            Err(Refused::Failed(text)) => {
                let mut frame = Vec::new();
                encode::error(&mut frame, text.as_bytes());
                return Err(frame);
            }
        }
    }
    let (mut parts, mut told, mut woken) = (Vec::new(), Vec::new(), Vec::new());
    for ((node, keys), entry) in keys.iter().zip(&mut entries) {
        let (sender, answer) = oneshot::channel();
        let wanted: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
        let losses = entry.step(now(), &mut woken, |lane, step| {
            lane.forward(step, &wanted, &[], Effect::Lock, Ticket::Told(sender));
            lane.losses()
        });
        told.push(answer);
        parts.push(Part {
            node: Arc::clone(node),
            keys: keys.clone(),
            losses,
        });
    }
    drop(entries);
    drop(order);
    woken.into_iter().for_each(Waker::wake);
    for (node, _) in keys {
        node.send();
    }
    let locked = Locked { parts };
    Ok(Some(Locking { locked, told }))
}

/// The answer, if it is no error.
///
/// # Errors
///
/// The frame of the error.
pub(super) async fn answer(asked: Told) -> Result<Vec<u8>, Vec<u8>> {
    let frame = told(asked).await;
    if reply::is_error(&frame) {
        Err(frame)
    } else {
        Ok(frame)
    }
}

/// The answer, an error or not.
pub(super) async fn told(asked: Told) -> Vec<u8> {
    let frame = asked.await;
    frame.unwrap_or_else(|_| error_frame("the node's lane is gone"))
}

/// Runs one step of a lane, then wakes the sessions that it answered and sends what it left.
fn with_lane<R>(
    node: &Node<Ticket>,
    run: impl FnOnce(&mut Lane<Ticket>, &mut Step<'_, Ticket>) -> R,
) -> R {
    let mut woken = Vec::new();
    let result = node.enter().step(now(), &mut woken, run);
    woken.into_iter().for_each(Waker::wake);
    node.send();
    result
}

/// Between two looks at full lanes.
const TURN: Duration = Duration::from_millis(2);
