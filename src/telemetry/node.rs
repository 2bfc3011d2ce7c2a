//! What is known about one node, as plain data.

use std::time::Duration;

use super::histogram::Sample;

/// One node as it is seen from here, at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeStatus {
    /// Its place on the ring.
    pub name: String,
    /// `host:port` as configured.
    pub address: String,
    /// Whether requests reach it.
    pub state: NodeState,
    /// `redis_version` of its `INFO`; `None` before the first connection.
    pub redis_version: Option<String>,
    /// `valkey_version` of its `INFO`, which a Redis lacks.
    pub valkey_version: Option<String>,
    /// `run_id` of its `INFO`: another one means that it was restarted.
    pub run_id: Option<String>,
    /// Whether it tells of changes by others; else only `cache.ttl` bounds how old an answer from
    /// here may be.
    pub tracking: bool,
    /// Requests sent or queued that have no reply yet.
    pub in_flight: usize,
    /// Bytes of requests not yet written to the socket.
    pub unsent_bytes: usize,
    /// Requests so far.
    pub requests: u64,
    /// Requests that failed without a reply from the node.
    pub errors: u64,
    /// Keys remembered here that belong to it, of all databases.
    pub keys: usize,
    /// Of these, keys with increments that are acknowledged and not yet applied.
    pub pending_keys: usize,
    /// Connections made after the first.
    pub reconnects: u64,
    /// Most age of an acknowledged increment that the node has not confirmed (one flush interval
    /// more when several batches are in flight); zero when there is none.
    pub pending_for: Duration,
    /// Flush batches that were sealed and are not settled.
    pub batches: usize,
    /// Of these, those whose connection was lost before their answer came: the node's marker will
    /// tell whether they were applied.
    pub batches_unanswered: usize,
    /// From a request appended to its reply read.
    pub reply_times: Sample,
}

impl NodeStatus {
    /// The same server, with the figures of another of its databases added.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.in_flight += other.in_flight;
        self.unsent_bytes += other.unsent_bytes;
        self.requests += other.requests;
        self.errors += other.errors;
        self.pending_keys += other.pending_keys;
        self.reconnects += other.reconnects;
        self.batches += other.batches;
        self.batches_unanswered += other.batches_unanswered;
        self.pending_for = self.pending_for.max(other.pending_for);
        self.reply_times = self.reply_times.and(&other.reply_times);
        self
    }
}

/// Whether requests reach a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NodeState {
    /// The first connection is being made.
    Connecting,
    /// The handshake is done.
    Connected,
    /// Requests fail at once, until a new attempt succeeds.
    Down {
        /// What the last attempt or the end of the connection said.
        reason: String,
    },
}
