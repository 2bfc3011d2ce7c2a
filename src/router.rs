//! Which node a key belongs to, and all nodes in the order of the configuration.

use std::sync::Arc;

use crate::node::{Deliver, Node};
use crate::ring::Ring;
use crate::telemetry::NodeStatus;

/// The ring and the nodes on it.
#[derive(Debug)]
pub struct Router<T> {
    ring: Ring,
    nodes: Box<[Arc<Node<T>>]>,
}

impl<T: Deliver> Router<T> {
    /// `nodes` in the order in which the ring was made of them; at least one.
    pub fn new(ring: Ring, nodes: Vec<Arc<Node<T>>>) -> Self {
        Self {
            ring,
            nodes: nodes.into(),
        }
    }

    /// Index of the node that holds `key`. Cost: one hash and one binary search.
    #[inline]
    pub fn index(&self, key: &[u8]) -> usize {
        self.ring.node(key)
    }

    /// Whether every key that `pattern` can name belongs to the node `index`: there is only that
    /// one, or a hash tag without a wildcard says so.
    pub fn holds_all(&self, pattern: &[u8], index: usize) -> bool {
        let tag = self.ring.tag(pattern).filter(|tag| !tag.contains(&b'*'));
        self.nodes.len() == 1 || tag.is_some() && self.index(pattern) == index
    }

    /// A node by its index.
    #[inline]
    pub fn node(&self, index: usize) -> &Arc<Node<T>> {
        #[expect(
            clippy::indexing_slicing,
            reason = "indices come from this router's ring"
        )]
        &self.nodes[index]
    }

    /// All nodes, in the order of the configuration.
    pub fn nodes(&self) -> &[Arc<Node<T>>] {
        &self.nodes
    }

    /// A node that is connected, else the first one.
    pub fn any(&self) -> usize {
        self.nodes
            .iter()
            .position(|node| !node.is_away())
            .unwrap_or(0)
    }

    /// A snapshot of every node. Locks each lane once: the caller holds none.
    pub fn statuses(&self) -> Vec<NodeStatus> {
        self.nodes.iter().map(|node| node.status()).collect()
    }
}
