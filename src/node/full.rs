//! A node without memory left refuses what takes memory, and in a transaction it does so when the
//! command is queued. Tally queues without asking the node; so where a node may be full, it is
//! asked after all.

use std::sync::atomic::Ordering;

use super::{Deliver, Node};
use crate::resp::{encode, reply};

impl<T: Deliver> Node<T> {
    /// Whether it may have no memory left: it said so, or its limit was set anew, and it has not
    /// been asked since.
    pub fn may_be_full(&self) -> bool {
        self.may_be_full.load(Ordering::Relaxed)
    }

    /// Says whether it may.
    pub fn set_may_be_full(&self, may: bool) {
        self.may_be_full.store(may, Ordering::Relaxed);
    }

    /// Whether a reply is an error; one for want of memory is noted.
    pub(super) fn note_error(&self, frame: &[u8]) -> bool {
        let is_error = reply::is_error(frame);
        if is_error && is_full(frame) {
            self.set_may_be_full(true);
        }
        is_error
    }
}

/// Whether this is the error for want of memory.
pub fn is_full(frame: &[u8]) -> bool {
    reply::text(frame).is_some_and(|text| text.starts_with(b"OOM "))
}

/// A request that is refused for want of memory, and otherwise does nothing: no list has that name,
/// which is Tally's own.
pub fn try_full() -> Vec<u8> {
    let mut wire = Vec::new();
    let request: [&[u8]; 3] = [b"LPUSHX", b"__tally__:none", b"x"];
    encode::request(&mut wire, &request);
    wire
}
