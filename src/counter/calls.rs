//! Batches for a node that takes no scripts: each is applied by a transaction on a connection of
//! its own, then its keys are read here.
//!
//! ```text
//!   sealed ──> next_call ──> the other connection: look, decide, apply (flush::Call)
//!                                │ finish_call
//!                                v
//!   lane: MULTI MGET PTTL... TIME EXEC ──> the answer, as the script would have given it
//! ```
//!
//! One batch at a time: what is read holds every settled batch and no other. It is read on the lane,
//! so the node tells of the next change by others in order with the lane's replies. To the node the
//! other connection is somebody else too: what it tells of a batch's keys comes before they are
//! read, and is forgotten with that.

use std::time::Instant;

use super::lane::{Lane, Step};
use super::queue::{InFlight, ReadBack, Transaction};
use crate::flush::{Call, Deadline, Outcome, time_ms};
use crate::resp::{encode, reply};

impl<T> Lane<T> {
    /// Whether the node has meanwhile refused batches in the form that was found to work when the
    /// connection began. The next connection may find another form.
    pub fn is_forbidden(&self) -> bool {
        self.is_forbidden
    }

    /// Whether [`Lane::next_call`] has one now.
    pub fn has_call(&self) -> bool {
        self.calling.is_none() && self.series.has_calls()
    }

    /// The next batch for a node that takes no scripts, and the note that has to be on the disk
    /// before it is applied. [`Lane::finish_call`] says what became of it.
    pub fn next_call(&mut self, now: Instant) -> Option<(Call, u64)> {
        if self.calling.is_some() {
            return None;
        }
        let call = self.series.next_call()?;
        self.calling = Some(now);
        Some((call, self.sealed_at))
    }

    /// Takes what a call came to. It has to be the connection on which the call began.
    pub fn finish_call(&mut self, step: &mut Step<'_, T>, call: &Call, outcome: Outcome) {
        match outcome {
            Outcome::Answer(frame) => {
                let at = self.calling.take().unwrap_or(step.now);
                self.finish_flush(step, call.of(), &frame, at);
                self.replied(step);
            }
            Outcome::Applied(head) => {
                let keys: Vec<&[u8]> = call.keys().collect();
                encode::request(&mut self.wire, &[b"MULTI"]);
                let values = [&[b"MGET".as_slice()], keys.as_slice()].concat();
                encode::request(&mut self.wire, &values);
                for key in &keys {
                    encode::request(&mut self.wire, &[b"PTTL", *key]);
                }
                encode::request(&mut self.wire, &[b"TIME"]);
                encode::request(&mut self.wire, &[b"EXEC"]);
                let replies = u32::try_from(keys.len()).unwrap_or(u32::MAX) + 4;
                let read = ReadBack {
                    of: call.of(),
                    head,
                    transaction: Transaction::new(replies),
                };
                self.push(step.now, InFlight::ReadBack(Box::new(read)));
            }
        }
    }

    /// The keys were read: `frame` is the reply to `EXEC`, or `None` when the node refused to tell.
    pub(super) fn finish_read_back(
        &mut self,
        step: &mut Step<'_, T>,
        read: &ReadBack,
        frame: Option<&[u8]>,
        at: Instant,
    ) {
        let begun = self.calling.take().unwrap_or(at);
        let parts: Vec<&[u8]> = frame
            .and_then(reply::elements)
            .into_iter()
            .flatten()
            .collect();
        let read_at = parts.last().and_then(|time| time_ms(time));
        let values = parts.first().and_then(|values| reply::elements(values));
        let lefts = parts.iter().skip(1);
        let keys = values.into_iter().flatten().zip(lefts);
        let keys = keys.map(|(value, left)| (value, Deadline::from_reply(left)));
        let keys = keys.map_while(|(value, left)| Some((value, left?)));
        let keys: Vec<_> = keys.collect();
        let (time_ms, at) = match read_at {
            Some(time_ms) => (time_ms, at),
            None => (read.head.time_ms(), begun),
        };
        let answer = read.head.answer(time_ms, keys.into_iter());
        self.finish_flush(step, read.of, &answer, at);
    }
}
