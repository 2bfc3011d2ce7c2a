//! Acknowledged increments on their way to a node, each applied exactly once. Pure: bytes out,
//! replies in.
//!
//! A [`Batch`] is sealed: nothing is added to it later. The batches of a [`Series`] are numbered,
//! and one script call applies a batch and writes its number into a marker key of the node, so that
//! a batch sent again after a lost connection is recognised. Marker and counters share the node:
//! they are lost or kept together.
//!
//! ```text
//!   pending ──seal──> batch 7 ──┐
//!                     batch 8 ──┼──> EVALSHA marker keys... ──> answer with the marker's number m
//!                     batch 9 ──┘      (up to 4 in flight)      settles every batch up to m
//! ```
//!
//! The call's arguments: epoch, number, certainty (`first`, `again`, `resync`), the marker's
//! milliseconds to live; then for each key its delta, or, where more is to be said, four words in one
//! argument: its delta, its deadline (milliseconds since 1970 by the node's clock, or `-`), the last
//! value that Redis gave, and a letter: `d` if that deadline is due (acknowledged to a client and not
//! sent before), `a` if it is asked for, `b` for both, `n` for neither. The answer: status, the
//! marker's number, the node's time, the exceptions of the last 8 numbers, the deadlines that were
//! asked for, each as ` index.deadline`, and each key's value.
//!
//! A process that goes on with the batches of one before it first makes the series its own, by a
//! call without keys: `claim` when nothing is unsettled (a missing marker is made), else `takeover`.
//! The answer has the epoch that is its own from now on, above that of any process before.
//!
//! A node that takes no scripts is given the same calls as transactions, see [`Call`]; numbers,
//! answers and what they settle are the same.

mod answer;
mod applier;
mod call;
mod commits;
mod kept;
mod series;
mod slots;
mod verdict;

pub use answer::{Deadline, Reading, Refusal, time_ms};
pub use applier::Applier;
pub use call::{Apply, CONTENDED, Call, Certainty, Decision, Head, Outcome};
pub use commits::{Commits, Wait};
pub use series::{Batch, Series};
pub use slots::{Damaged, Found, Ledger, MAX_KEY_BYTES, Slot, Slots, Stage, Standing, words_of};
pub use verdict::{Cause, Forgotten, Settled, Verdict};

use crate::key::Key;

/// Most keys in one batch. A key takes a node 3.5 microseconds in batches of 32 and 3.2 in batches
/// of 64 (measured on Redis 7.0), and more where deadlines are asked for: a server that tracks a
/// client's reads remembers every key of a script once for each read that the script makes (`call`
/// in its server.c).
pub const MAX_KEYS: usize = 64;

/// Most batches of a series in flight. Few, because a server executes all that it reads at once
/// before it turns to others: four take it nearly a millisecond (measured); a flush that has
/// time sends two. The marker keeps the exceptions of the last 8 numbers.
pub const MAX_IN_FLIGHT: usize = 4;

/// First bytes of the names of the keys that Tally keeps on nodes; clients may not touch them.
pub const RESERVED_PREFIX: &[u8] = b"__tally__:";

/// The script that applies a batch, for `SCRIPT LOAD`. From version 7 on servers let it exceed the
/// bound of memory, so that what was acknowledged is applied though nothing new is taken.
pub fn script(allow_oom: bool) -> Vec<u8> {
    let head: &[u8] = if allow_oom {
        b"#!lua flags=allow-oom\n"
    } else {
        b""
    };
    [head, include_bytes!("flush.lua")].concat()
}

/// One key's sealed increments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Increment {
    /// The counter.
    pub key: Key,
    /// Sum of the acknowledged increments; zero when only the deadline is to be set.
    pub delta: i64,
    /// How many increments of clients it is the sum of.
    pub count: u32,
    /// When the key ends, in milliseconds since 1970 by the node's clock, as far as known.
    pub deadline: Option<u64>,
    /// Whether a client was told of that deadline and Redis was not.
    pub due: bool,
    /// Whether Redis is asked for the key's deadline: it is not known, or another one may have been
    /// set without our being told.
    pub asks: bool,
    /// What Redis last gave as the key's value: past the deadline a smaller one shows that the key
    /// was created anew.
    pub last: i64,
    /// Where it stands until it is settled, if the process keeps a journal.
    pub slot: Option<Slot>,
}
