//! Which node a key belongs to, and the nodes in the order of the configuration, once for each
//! database.

use std::sync::Arc;

use crate::node::{Deliver, Node};
use crate::ring::Ring;
use crate::telemetry::NodeStatus;

/// The ring and the nodes on it, each once for every database: keys of different databases are
/// different keys, so a database has tables, lanes and connections of its own. Only those of
/// databases in use are connected.
#[derive(Debug)]
pub struct Router<T> {
    ring: Ring,
    /// By database, then by node.
    databases: Box<[Nodes<T>]>,
}

/// The nodes of one database.
type Nodes<T> = Box<[Arc<Node<T>>]>;

impl<T: Deliver> Router<T> {
    /// For each database, database 0 first, its nodes in the order in which the ring was made of
    /// them; at least one of each. Database 0 is open at once.
    pub fn new(ring: Ring, databases: Vec<Vec<Arc<Node<T>>>>) -> Self {
        let router = Self {
            ring,
            databases: databases.into_iter().map(Into::into).collect(),
        };
        for nodes in &router.databases {
            for (server, node) in nodes.iter().enumerate() {
                let all = router
                    .databases
                    .iter()
                    .filter_map(|nodes| nodes.get(server));
                let others = all.filter(|other| !Arc::ptr_eq(other, node));
                node.set_siblings(others.map(Arc::downgrade));
            }
        }
        router.open(0);
        router
    }

    /// Index of the node that holds `key`. Cost: that of [`Ring::node`].
    #[inline]
    pub fn index(&self, key: &[u8]) -> usize {
        self.ring.node(key)
    }

    /// Whether a script whose first key this is, is given values in the places of its other keys.
    pub fn passes_values(&self, first: &[u8]) -> bool {
        self.ring.passes_values(first)
    }

    /// Index of the node for scripts without keys.
    pub fn keyless(&self) -> usize {
        self.ring.keyless()
    }

    /// Index of the node of a channel.
    pub fn channel(&self, name: &[u8]) -> usize {
        self.ring.channel(name)
    }

    /// Whether every key that `pattern` can name belongs to the node `index`: because it is the
    /// only one, or because a route or a hash tag without a wildcard says so.
    pub fn holds_all(&self, pattern: &[u8], index: usize) -> bool {
        self.ring.holds_all(pattern, index)
    }

    /// The nodes of a database, in the order of the configuration; those of database 0 where there
    /// is no such database.
    pub fn database(&self, number: u32) -> &[Arc<Node<T>>] {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let found = self.databases.get(index).or_else(|| self.databases.first());
        found.map_or(&[], |nodes| nodes)
    }

    /// One node of a database, by its index.
    pub fn node(&self, database: u32, index: usize) -> &Arc<Node<T>> {
        #[expect(
            clippy::indexing_slicing,
            reason = "indices come from this router's ring"
        )]
        &self.database(database)[index]
    }

    /// The nodes of database 0: one for each server.
    pub fn nodes(&self) -> &[Arc<Node<T>>] {
        self.database(0)
    }

    /// Has a database's nodes connect, if they have not yet. Commands may be given to their lanes
    /// from now on: they wait for the first attempt.
    pub fn open(&self, number: u32) {
        self.database(number).iter().for_each(|node| node.open());
    }

    /// The nodes of every database that is in use.
    pub fn in_use(&self) -> impl Iterator<Item = &Arc<Node<T>>> {
        let all = self.databases.iter().flatten();
        all.filter(|node| node.is_open())
    }

    /// One server, as its nodes in all databases that are in use, database 0 first.
    pub fn server(&self, index: usize) -> impl Iterator<Item = &Arc<Node<T>>> {
        let all = self
            .databases
            .iter()
            .filter_map(move |nodes| nodes.get(index));
        all.filter(|node| node.is_open())
    }

    /// The nodes of every database, whether in use or not.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Node<T>>> {
        self.databases.iter().flatten()
    }

    /// A snapshot of every server. Its state is that of database 0, its figures are those of all
    /// databases. Locks the lanes one by one, so the caller holds none.
    pub fn statuses(&self) -> Vec<NodeStatus> {
        let count = self.nodes().len();
        let status = |index| {
            let statuses = self.server(index).map(|node| node.status());
            statuses.reduce(|all, status| all.with(&status))
        };
        (0..count).filter_map(status).collect()
    }
}
