//! Connections for what the lane can not carry: commands that wait, and transactions that watch
//! keys. Each is used by one client at a time; a few that are free are kept.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::connect::{ConnectError, Socket};
use crate::config;
use crate::counter::discarded;
use crate::resp::{encode, reply};

/// Free connections to one node, and how many are in use.
#[derive(Default)]
pub(super) struct Pool {
    free: Mutex<Vec<Link>>,
    used: Arc<AtomicUsize>,
}

/// A connection in use, counted until it is dropped.
#[derive(Debug)]
struct InUse(Arc<AtomicUsize>);

/// A connection and its number at the node.
#[derive(Debug)]
struct Link {
    socket: Socket,
    id: i64,
    /// Its address: the node may have moved since.
    address: String,
}

/// A connection to a node for one client. Dropped, it is closed.
#[derive(Debug)]
pub struct Pooled {
    link: Link,
    _in_use: InUse,
}

/// Why a pooled connection gave no answer; the text is for the client, after `ERR`.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// All connections are in use.
    #[error(
        "all {most} connections to node {node} for blocked and watching clients are in use \
         (upstream.max_pooled)"
    )]
    Full {
        /// The node's name.
        node: String,
        /// How many there are.
        most: usize,
    },
    /// None could be opened: nothing was sent.
    #[error("node {node} is unreachable ({reason})")]
    Unreachable {
        /// The node's name.
        node: String,
        /// What went wrong.
        reason: String,
    },
}

/// A pooled connection was lost while a request was under way: it may have been executed.
#[derive(Debug, thiserror::Error)]
#[error("connection lost: {0}; the command may have been executed")]
pub struct Lost(String);

impl Pool {
    /// A connection, opened and greeted within `upstream.connect_timeout` if none is free.
    pub(super) async fn borrow(
        &self,
        node: &config::Node,
        upstream: &config::Upstream,
    ) -> Result<Pooled, PoolError> {
        let Some(in_use) = InUse::count(&self.used, upstream.max_pooled) else {
            return Err(PoolError::Full {
                node: node.name.clone(),
                most: upstream.max_pooled,
            });
        };
        loop {
            // Not in the loop's head: the lock would be held through its body.
            let free = self.free.lock().pop();
            let Some(mut link) = free else {
                break;
            };
            if link.address == node.address && link.socket.is_quiet() {
                return Ok(Pooled {
                    link,
                    _in_use: in_use,
                });
            }
        }
        let opened = tokio::time::timeout(upstream.connect_timeout, Link::open(node)).await;
        let reason = match opened {
            Ok(Ok(link)) => {
                return Ok(Pooled {
                    link,
                    _in_use: in_use,
                });
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => ConnectError::Timeout(upstream.connect_timeout).to_string(),
        };
        Err(PoolError::Unreachable {
            node: node.name.clone(),
            reason,
        })
    }

    /// Takes a connection back. Nothing may be under way on it, and the server may remember nothing
    /// of its client.
    pub(super) fn take_back(&self, connection: Pooled) {
        let mut free = self.free.lock();
        if free.len() < MAX_FREE {
            free.push(connection.link);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl InUse {
    /// Counts one more, if there may be as many.
    fn count(used: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let below = |count: usize| (count < most).then_some(count + 1);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .ok()
            .map(|_| Self(Arc::clone(used)))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    async fn open(node: &config::Node) -> Result<Self, ConnectError> {
        let mut socket = Socket::open(node).await?;
        let peer = socket.hello(node).await?;
        let id = peer.client_id.unwrap_or_default();
        Ok(Self {
            socket,
            id,
            address: node.address.clone(),
        })
    }
}

impl Pooled {
    /// Its number at the node (`CLIENT ID`).
    pub fn id(&self) -> i64 {
        self.link.id
    }

    /// Whether it is open, as far as is known, and nothing unasked for has come.
    pub fn is_quiet(&mut self) -> bool {
        self.link.socket.is_quiet()
    }

    /// Sends one request.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub async fn send(&mut self, wire: &[u8]) -> Result<(), Lost> {
        self.link.socket.send(wire).await.map_err(Lost::from)
    }

    /// The next reply, a RESP3 frame. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub async fn read(&mut self) -> Result<Vec<u8>, Lost> {
        self.link.socket.read().await.map_err(Lost::from)
    }

    /// Sends one request and waits for its reply, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// The connection is lost, or of no use any more.
    pub async fn ask(&mut self, wire: &[u8], timeout: Duration) -> Result<Vec<u8>, Lost> {
        self.transact(wire, 1, timeout).await
    }

    /// Sends requests that have `replies` replies in all, and waits for the last one. If an error
    /// comes before it, the result is that error, see [`discarded`].
    ///
    /// # Errors
    ///
    /// As [`Pooled::ask`].
    pub async fn transact(
        &mut self,
        wire: &[u8],
        replies: usize,
        timeout: Duration,
    ) -> Result<Vec<u8>, Lost> {
        let exchange = async {
            self.send(wire).await?;
            let mut cause = None;
            for _ in 1..replies {
                let frame = self.read().await?;
                if reply::is_error(&frame) && cause.is_none() {
                    cause = Some(frame);
                }
            }
            let last = self.read().await?;
            Ok(cause.map_or(last, |cause| discarded(&cause)))
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(ended) => ended,
            Err(_) => Err(Lost(format!("no answer within {timeout:?}"))),
        }
    }
}

impl From<ConnectError> for Lost {
    fn from(error: ConnectError) -> Self {
        Self(error.to_string())
    }
}

/// An error frame with this text behind `ERR`.
pub fn error_frame(error: impl fmt::Display) -> Vec<u8> {
    let mut frame = Vec::new();
    encode::error(&mut frame, format!("ERR {error}"));
    frame
}

/// Most connections kept open for the next client: more than come and go in one tick.
const MAX_FREE: usize = 16;
