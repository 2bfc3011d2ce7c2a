//! `WATCH`, and what `EXEC` behind it sends.
//!
//! ```text
//!  WATCH ──> at each node of the keys: bar ──> WATCH on a pooled connection
//!
//!  EXEC ──> what is watched and what the commands name is locked on all nodes
//!             │
//!             v   (where transactions are split)
//!           what was sent to these nodes before is answered
//!             │
//!             v
//!           MULTI EXEC on the connections of all nodes that watch, but one ──> unchanged?
//!             │
//!             v
//!           that one's part, on its connection ──> executed?
//!             │
//!             v
//!           the parts of all other nodes, on their lanes ──> unlocked
//! ```
//!
//! Watched keys are barred until the end of the watch: everything on them is passed on as it is, so
//! their node sees every change. Between the first answer and the last part only somebody who
//! writes past this Tally could change what is watched, and where all is on one node, nobody.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::aside::{Answer, Bars};
use super::dispatch::{Dispatch, Flow};
use super::exec::Run;
use super::locked::{Located, Locked};
use super::replies::Ticket;
use super::together::Together;
use super::transaction::CROSS_SLOT;
use crate::key::Key;
use crate::node::{Lost, Node, Pooled, error_frame};
use crate::resp::{Form, Request, encode, reply};

/// Keys of one node that a client watches.
#[derive(Debug)]
pub(super) struct Watch {
    /// Place of their node in the ring.
    pub(super) index: usize,
    /// `None` before the first key, and when it is lost.
    connection: Option<Pooled>,
    bars: Bars,
    timeout: Duration,
}

impl Dispatch<'_> {
    /// `WATCH`
    pub(super) fn watch(&mut self, request: &Request<'_>) -> Flow {
        if self.state.transaction.is_some() {
            self.error("ERR WATCH inside MULTI is not allowed");
            return Flow::Continue;
        }
        if self.state.aside.is_none() {
            let mut keys = request.args().skip(1);
            if let Some(flow) = keys.find_map(|key| self.refuse_reserved(key)) {
                return flow;
            }
            let positions: Vec<usize> = (1..request.len()).collect();
            let parts = self.by_node(request, &positions);
            let before = self.state.watches.iter().map(|watch| watch.index);
            let mut nodes = parts.iter().map(|(index, _)| *index).chain(before);
            let first = nodes.next();
            if nodes.any(|index| Some(index) != first) && !self.splits() {
                self.error(CROSS_SLOT);
                return Flow::Continue;
            }
            let refused = parts.iter().find_map(|(index, _)| self.admit_aside(*index));
            if let Some(flow) = refused {
                return flow;
            }
            let mut watches = std::mem::take(&mut self.state.watches);
            let adding = parts.iter().map(|(index, positions)| {
                let open = watches.iter().position(|watch| watch.index == *index);
                let watch = match open {
                    Some(open) => watches.swap_remove(open),
                    None => self.no_watch(*index),
                };
                let keys = positions.iter().map(|at| Key::new(request.arg(*at)));
                (watch, keys.collect())
            });
            let adding: Vec<(Watch, Vec<Key>)> = adding.collect();
            self.begin_aside(add(watches, adding), None);
        }
        let Some(answer) = self.poll_aside() else {
            return Flow::Stall;
        };
        self.state.watches = answer.watches;
        self.pass(&answer.frame, Form::Plain);
        Flow::Continue
    }

    /// A watch without keys.
    fn no_watch(&self, index: usize) -> Watch {
        Watch {
            index,
            connection: None,
            bars: Bars::new(self.node(index)),
            timeout: self.shared.live().upstream.hard_timeout,
        }
    }

    /// Forgets what is watched.
    pub(super) fn unwatch(&mut self) {
        self.leave();
        for watch in std::mem::take(&mut self.state.watches) {
            tokio::spawn(watch.end());
        }
    }

    /// Begins a transaction that is executed only if nothing that is watched has changed.
    pub(super) fn exec_watched(&mut self, runs: &[Run<'_>], together: Option<&Together>) {
        self.leave();
        let watches = std::mem::take(&mut self.state.watches);
        let (mut stretch, keys) = self.behind_locks(watches, runs, together);
        let order = Arc::clone(&self.shared.crossings);
        let run = async move {
            let executed = match Locked::new(&order, keys).await {
                Ok(locked) => stretch.run(&locked).await,
                Err(error) => Err(error),
            };
            // Those that were not asked.
            at_once(stretch.watches.into_iter().map(Watch::end)).await;
            match executed {
                Ok(executed) => Answer {
                    frame: b"*0\r\n".to_vec(),
                    executed,
                    ..Answer::default()
                },
                Err(frame) => Answer::of(frame),
            }
        };
        self.begin_aside(run, None);
    }
}

/// Watches further keys, at all nodes at once. Where that fails at one, what began with this
/// request ends.
async fn add(mut watches: Vec<Watch>, adding: Vec<(Watch, Vec<Key>)>) -> Answer {
    let (mut begun, mut refused) = (Vec::new(), None);
    let adding = adding.into_iter().map(|(watch, keys)| watch.add(keys));
    for (watch, is_new, answer) in at_once(adding).await {
        refused = refused.or_else(|| answer.err());
        if is_new { &mut begun } else { &mut watches }.push(watch);
    }
    let frame = match refused {
        None => {
            watches.append(&mut begun);
            b"+OK\r\n".to_vec()
        }
        Some(error) => {
            at_once(begun.into_iter().map(Watch::end)).await;
            error
        }
    };
    Answer {
        frame,
        watches,
        ..Answer::default()
    }
}

/// What these come to, each on a task of its own, in the order in which they end.
pub(super) async fn at_once<T: Send + 'static>(
    tasks: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    tasks.collect::<JoinSet<T>>().join_all().await
}

impl Watch {
    pub(super) fn node(&self) -> &Arc<Node<Ticket>> {
        &self.bars.node
    }

    /// What is watched.
    pub(super) fn keys(&self) -> impl Iterator<Item = Located> {
        let keys = self.bars.keys.iter();
        keys.map(|key| Located {
            index: self.index,
            node: Arc::clone(&self.bars.node),
            key: key.clone(),
        })
    }

    /// Watches further keys, and returns whether they are the first ones.
    async fn add(mut self, keys: Vec<Key>) -> (Self, bool, Result<(), Vec<u8>>) {
        let is_new = self.bars.keys.is_empty();
        let added = self.try_add(&keys).await;
        (self, is_new, added)
    }

    async fn try_add(&mut self, keys: &[Key]) -> Result<(), Vec<u8>> {
        if self.bars.keys.is_empty() {
            self.connection = Some(self.bars.node.borrow().await.map_err(error_frame)?);
        }
        self.bars.add(keys).await?;
        let mut args: Vec<&[u8]> = vec![b"WATCH"];
        args.extend(keys.iter().map(Key::as_bytes));
        let mut wire = Vec::new();
        encode::request(&mut wire, &args);
        let frame = match self.transact(&wire, 1, self.timeout).await {
            Ok(frame) => frame,
            Err(None) => lost_before(),
            Err(Some((_, lost))) => self.lost(&lost),
        };
        if reply::is_error(&frame) {
            return Err(frame);
        }
        Ok(())
    }

    /// Ends the watch with a transaction of nothing.
    ///
    /// # Errors
    ///
    /// A null: something has changed. An error: nobody knows.
    pub(super) async fn look(&mut self, patience: Duration) -> Result<(), Vec<u8>> {
        let mut wire = Vec::new();
        encode::request(&mut wire, &[b"MULTI"]);
        encode::request(&mut wire, &[b"EXEC"]);
        let frame = self.transact(&wire, 2, patience).await;
        self.finish(frame.map_err(|_| lost_before())?).map(drop)
    }

    /// Ends the watch with a part of a transaction.
    ///
    /// # Errors
    ///
    /// A null: something has changed. An error: it was not executed, or nobody knows.
    pub(super) async fn execute(
        &mut self,
        locked: &Locked,
        (wire, commands): (Vec<u8>, u32),
        patience: Duration,
    ) -> Result<Vec<u8>, Vec<u8>> {
        let replies = usize::try_from(commands).unwrap_or(usize::MAX);
        match self.transact(&wire, replies + 2, patience).await {
            Ok(frame) => self.finish(frame),
            Err(None) => Err(lost_before()),
            Err(Some((connection, lost))) => {
                locked.fence(&self.bars.node, connection).await;
                Err(self.lost(&lost))
            }
        }
    }

    /// A transaction was answered, so the node remembers nothing of the watch.
    fn finish(&mut self, frame: Vec<u8>) -> Result<Vec<u8>, Vec<u8>> {
        if let Some(connection) = self.connection.take() {
            self.bars.node.take_back(connection);
        }
        if reply::elements(&frame).is_some() {
            Ok(frame)
        } else {
            Err(frame)
        }
    }

    async fn end(mut self) {
        let mut wire = Vec::new();
        encode::request(&mut wire, &[b"UNWATCH"]);
        if self.transact(&wire, 1, self.timeout).await.is_ok()
            && let Some(connection) = self.connection.take()
        {
            self.bars.node.take_back(connection);
        }
    }

    /// Sends requests on the connection, and waits for the last of their replies.
    ///
    /// # Errors
    ///
    /// The connection is lost: `None` if that was before they were sent.
    async fn transact(
        &mut self,
        wire: &[u8],
        replies: usize,
        patience: Duration,
    ) -> Result<Vec<u8>, Option<(Pooled, Lost)>> {
        let mut open = self.connection.take();
        let quiet = open.as_mut().is_some_and(Pooled::is_quiet);
        let mut connection = open.filter(|_| quiet).ok_or(None)?;
        match connection.transact(wire, replies, patience).await {
            Ok(frame) => {
                self.connection = Some(connection);
                Ok(frame)
            }
            Err(lost) => Err(Some((connection, lost))),
        }
    }

    fn lost(&self, lost: &Lost) -> Vec<u8> {
        error_frame(format!("node {}: {lost}", self.bars.node.name()))
    }
}

/// The error when the connection was lost between `WATCH` and `EXEC`.
pub(super) fn lost_before() -> Vec<u8> {
    let mut frame = Vec::new();
    encode::error(&mut frame, LOST);
    frame
}

const LOST: &str = "EXECABORT Transaction discarded because of: the connection that watched its \
    keys was lost";
