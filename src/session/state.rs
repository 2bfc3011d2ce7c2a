//! What a session remembers from one request to the next, beside what [`super::Client`] shows.

use super::transaction::Transaction;

/// Owned by the task that serves the client.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Between `MULTI` and `EXEC`.
    pub(super) transaction: Option<Transaction>,
    /// The commands of a transaction are executed: a full lane takes them all the same. So it is
    /// passed by one transaction at most.
    pub(super) executing: bool,
}
