//! Batches for a node that takes no scripts: one at a time, on a connection beside the lane's that
//! carries nothing else. Both are lost together, so what was under way on it is settled like any
//! batch that was unanswered when a connection was lost; see [`Call`] for its late bytes.

use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::timeout;

use super::connect::{ConnectError, Socket};
use super::drive::{Driver, answered_for};
use super::{Deliver, Node, now};
use crate::flush::{CONTENDED, Call, Decision, Outcome, Wait};

/// The connection for batches.
pub(super) enum Transactions {
    Idle(Socket),
    Busy(Work),
    /// It was lost: nothing more comes of it.
    Gone,
}

/// A batch under way. Dropped, it closes the connection.
type Work = Pin<Box<dyn Future<Output = Result<(Socket, Call, Outcome), String>> + Send>>;

impl Transactions {
    pub(super) fn new(socket: Socket) -> Self {
        Self::Idle(socket)
    }

    /// Begins with the next batch, if nothing is under way and there is one.
    pub(super) fn begin<T: Deliver>(&mut self, node: &Arc<Node<T>>) {
        if !matches!(self, Self::Idle(_)) {
            return;
        }
        let next = node.inner.lock().lane.next_call(now());
        let Some((call, sealed_at)) = next else {
            return;
        };
        *self = match std::mem::replace(self, Self::Gone) {
            Self::Idle(socket) => {
                let node = Arc::clone(node);
                Self::Busy(Box::pin(work(node, socket, call, sealed_at)))
            }
            other => other,
        };
    }

    /// Waits for what the batch under way comes to; for ever when there is none. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    ///
    /// Why the connection can not go on; the batch may have been applied.
    pub(super) async fn applied(aside: &mut Option<Self>) -> Result<(Call, Outcome), String> {
        let Some(Self::Busy(work)) = aside else {
            return pending().await;
        };
        match work.await {
            Ok((socket, call, outcome)) => {
                *aside = Some(Self::Idle(socket));
                Ok((call, outcome))
            }
            Err(reason) => {
                *aside = Some(Self::Gone);
                Err(reason)
            }
        }
    }
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactions").finish_non_exhaustive()
    }
}

impl<T: Deliver> Driver<T> {
    /// A batch came to this.
    pub(super) fn finish_call(&mut self, call: &Call, outcome: Outcome) {
        let mut entry = self.node.enter();
        entry.step(now(), &mut self.wakes, |lane, step| {
            lane.finish_call(step, call, outcome);
        });
        let losses = answered_for(&self.node, &mut entry.inner, &mut self.wakes);
        drop(entry);
        self.wake();
        self.report(&losses);
        self.node.send();
    }
}

/// Applies one batch, once the note of its sealing is on the disk.
async fn work<T: Deliver>(
    node: Arc<Node<T>>,
    mut socket: Socket,
    mut call: Call,
    sealed_at: u64,
) -> Result<(Socket, Call, Outcome), String> {
    if let Some(commits) = node.table.commits() {
        commits.kept(sealed_at, &mut Wait::default()).await;
    }
    let hard = node.upstream().hard_timeout;
    drop(node);
    match timeout(hard, apply(&mut socket, &mut call)).await {
        Ok(Ok(outcome)) => Ok((socket, call, outcome)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {hard:?}")),
    }
}

async fn apply(socket: &mut Socket, call: &mut Call) -> Result<Outcome, ConnectError> {
    let mut wire = Vec::new();
    while let Some(replies) = call.look(&mut wire) {
        socket.send(&wire).await?;
        let looked = socket.read_all(replies).await?;
        match call.decide(&looked) {
            Decision::Done(outcome) => return Ok(outcome),
            Decision::Apply(apply) => {
                socket.send(&apply.wire).await?;
                let replies = socket.read_all(apply.replies).await?;
                if let Some(outcome) = call.applied(apply, &replies) {
                    return Ok(outcome);
                }
            }
        }
        wire.clear();
    }
    Ok(Outcome::Answer(CONTENDED.to_vec()))
}
