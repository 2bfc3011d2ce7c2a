//! The counting core: what is known of each key, and what each command does to it. Pure: no
//! sockets, tasks or clocks; `now` is an argument.
//!
//! Two halves. The [`KeyTable`] of a node is shared by all threads and answers warm counters and
//! cached values under one shard's lock. Everything else goes through the node's [`Lane`], which
//! the caller keeps under a lock of its own: the FIFO of what is in flight, the queues of commands
//! that wait, and the bytes to be sent. Lock order: lane, then shard; never two shards.
//!
//! Invariants:
//! - A key becomes warm only by an atomic answer of Redis that tells its value and its deadline.
//! - A command that may change a key is appended to the lane only when no increment of the key is
//!   pending or in flight in a batch; from then on nothing older is answered or kept.
//! - Nothing passes what waits: while a key has a queue the table answers nothing about it, and
//!   while a command is held nothing at all. A warm key has its queue whenever its shard is not
//!   locked, because other threads ask the table without the lane.
//! - What the lane appends is executed in that order, so whatever is asked later is newer.

mod batches;
#[cfg(test)]
mod bench;
mod bundles;
mod calls;
mod deadlines;
mod drain;
mod fetch;
mod forward;
mod hold;
mod inspect;
mod lane;
mod limits;
mod lock;
mod losses;
mod queue;
mod recover;
mod replies;
mod rules;
#[cfg(test)]
mod search;
mod settle;
mod state;
mod stop;
mod table;
mod touches;
mod tracking;
mod treat;
mod window;

pub use deadlines::{Condition, Expiry, Remaining, Timed, When};
pub use inspect::Peek;
pub use lane::{Counts, Effect, Extent, Lane, Limits, Step};
pub use limits::Decision;
pub use losses::{Fates, Losses};
pub use recover::Recovered;
pub use replies::{UnexpectedReply, discarded};
pub use rules::{Mode, Policy, Rules, Treatment};
pub use state::Answer;
pub use table::{CROWD, Held, KeyTable, Source, Spot, TableLimits};
