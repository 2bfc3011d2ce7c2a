//! What a session remembers from one request to the next, beside what [`super::Client`] shows.

use super::aside::Aside;
use super::many::Begun;
use super::transaction::Transaction;
use super::watch::Watch;

/// Owned by the task that serves the client.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Between `MULTI` and `EXEC`.
    pub(super) transaction: Option<Transaction>,
    /// The commands of a transaction are being executed: a lane takes them even when it is full, so
    /// it goes past its bound by one transaction at most.
    pub(super) executing: bool,
    /// Between `WATCH` and what ends it, one for each node.
    pub(super) watches: Vec<Watch>,
    /// The request at the front, if it is under way on a connection of its own.
    pub(super) aside: Option<Aside>,
    /// A subscription may not be confirmed yet: what the client sends behind it, a `PUBLISH` for
    /// itself say, waits.
    pub(super) confirming: bool,
    /// The request at the front, if it is an `MGET` that goes on.
    pub(super) begun: Option<Begun>,
}

impl State {
    /// Whether the client waits in a command such as `BLPOP`.
    pub(super) fn waits(&self) -> bool {
        self.aside.as_ref().is_some_and(Aside::waits)
    }
}
