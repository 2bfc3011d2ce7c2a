//! Calls of limit scripts that are sent as they come, or, on different keys, together.
//!
//! ```text
//!   call of k ──┐
//!   call of l ──┼─> open bundle ── the lane's bytes are taken, or it is full ──> wire, FIFO
//!   call of m ──┘
//! ```
//!
//! A bundle never holds two calls of a key: from its call on a key is *opening*, and what comes for
//! it waits in its queue. One call alone is the client's own request.

use std::time::Instant;

use super::drain::{Drain, detach};
use super::lane::{Lane, Step};
use super::queue::InFlight;
use super::state::State;
use crate::key::Key;
use crate::limit::{Bundle, Call, MalformedAnswer, Part, Parts};
use crate::resp::encode;

/// Calls that are, or will be, in flight as one request.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct BundleRun<T> {
    bundle: Bundle,
    /// One for each of the bundle's keys.
    callers: Vec<Caller<T>>,
    /// Their requests as they came, one behind the other: for when one has to run alone.
    wire: Vec<u8>,
    /// The next reply is that to [`OPT_OUT`].
    opts_out: bool,
}

/// Who made a call.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Caller<T> {
    /// The number of the run in the key's state.
    id: u32,
    /// `None` once the client was told of a timeout.
    ticket: Option<T>,
    /// Where its request ends.
    end: usize,
}

impl<T> BundleRun<T> {
    fn new(call: Call) -> Self {
        Self {
            bundle: Bundle::new(call),
            callers: Vec::new(),
            wire: Vec::new(),
            opts_out: false,
        }
    }

    /// Adds who made the call that the bundle took last; returns whether it takes no more.
    fn add(&mut self, id: u32, wire: &[u8], ticket: T) -> bool {
        self.wire.extend_from_slice(wire);
        self.callers.push(Caller {
            id,
            ticket: Some(ticket),
            end: self.wire.len(),
        });
        self.bundle.is_full()
    }

    /// Whether this reply is not that of the calls.
    pub(super) fn passes_over(&mut self) -> bool {
        std::mem::take(&mut self.opts_out)
    }

    /// How many clients wait for it beyond the first.
    pub(super) fn joined(&self) -> usize {
        self.callers.len() - 1
    }

    /// Its keys, each with the number of the run there.
    pub(super) fn opening(&self) -> impl Iterator<Item = (Key, u32)> {
        let callers = self.callers.iter().map(|caller| caller.id);
        self.bundle.keys().iter().cloned().zip(callers)
    }

    /// Takes the clients that were not told yet.
    pub(super) fn take_tickets(&mut self) -> impl Iterator<Item = T> {
        let callers = self.callers.iter_mut();
        callers.filter_map(|caller| caller.ticket.take())
    }

    /// What each of the calls came to; `None` where the node does not know the script of bundles.
    fn parts(&self, frame: &[u8]) -> Option<Vec<Part>> {
        let all = |part: Part| vec![part; self.callers.len()];
        if self.callers.len() == 1 {
            return Some(all(Part::Answered(frame.to_vec())));
        }
        match self.bundle.settle(frame) {
            Ok(Parts::Each(parts)) => Some(parts),
            Ok(Parts::Alone) => Some(all(Part::Alone)),
            Ok(Parts::Unknown) => None,
            Err(MalformedAnswer) => {
                let mut reply = Vec::new();
                encode::error(&mut reply, format!("ERR {MalformedAnswer}"));
                Some(all(Part::Answered(reply)))
            }
        }
    }
}

impl<T> Lane<T> {
    /// A call whose key is *opening* with the run of this number. It is sent with the next bytes,
    /// together with equal calls of other keys.
    pub(super) fn bundle(&mut self, now: Instant, id: u32, call: (Call, &[u8]), ticket: T) {
        let (call, wire) = call;
        self.waiting += 1;
        let mut open = self.bundles.iter_mut();
        if let Some(index) = open.position(|open| open.bundle.join(&call)) {
            let open = self.bundles.get_mut(index);
            if open.is_some_and(|open| open.add(id, wire, ticket)) {
                let run = self.bundles.remove(index);
                self.send_bundle(now, run);
            }
            return;
        }
        let mut run = BundleRun::new(call);
        if run.add(id, wire, ticket) {
            return self.send_bundle(now, run);
        }
        if self.bundles.len() == MAX_OPEN {
            let run = self.bundles.remove(0);
            self.send_bundle(now, run);
        }
        self.bundles.push(run);
    }

    /// Sends all calls that were collected.
    pub(super) fn send_bundles(&mut self, now: Instant) {
        for run in std::mem::take(&mut self.bundles) {
            self.send_bundle(now, run);
        }
    }

    fn send_bundle(&mut self, now: Instant, run: BundleRun<T>) {
        self.waiting -= run.callers.len();
        self.joined += run.joined();
        self.append_bundle(now, run);
    }

    fn append_bundle(&mut self, now: Instant, mut run: BundleRun<T>) {
        self.counts.limit_requests += 1;
        if run.callers.len() == 1 {
            self.wire.extend_from_slice(&run.wire);
        } else {
            run.opts_out = self.takes_down_reads;
            if run.opts_out {
                self.wire.extend_from_slice(OPT_OUT);
            }
            let dialect = self.dialect(run.bundle.script());
            run.bundle.encode(dialect, &mut self.wire);
        }
        self.push(now, InFlight::Bundle(Box::new(run)));
    }

    /// Takes the answer to a bundle that was sent at `at`. After a denial the key's next call is
    /// sent as a script of ours, to find out for how long it holds.
    pub(super) fn finish_bundle(
        &mut self,
        step: &mut Step<'_, T>,
        run: BundleRun<T>,
        frame: &[u8],
        at: Instant,
    ) {
        let Some(parts) = run.parts(frame) else {
            // Nothing else of the keys was sent meanwhile.
            self.brought.clear();
            return self.append_bundle(step.now, run);
        };
        self.joined -= run.joined();
        let BundleRun {
            bundle,
            callers,
            wire,
            ..
        } = run;
        let mut work = Vec::new();
        let mut start = 0;
        for ((key, caller), part) in bundle.keys().iter().zip(callers).zip(parts) {
            let own = wire.get(start..caller.end).unwrap_or_default();
            start = caller.end;
            let mut place = step.table.lock(key.as_bytes());
            if matches!(place.state(), Some(State::Opening { run, .. }) if *run == caller.id) {
                let queue = detach(&mut place);
                let key = key.clone();
                let base = None;
                work.extend(queue.map(|queue| Drain { key, queue, base }));
                let until = step.table.policy(place.name()).fresh_until(at);
                match &part {
                    // What its own script leaves behind is not known here.
                    Part::Alone => place.clear(),
                    Part::Answered(reply) if bundle.is_denial(reply) => place.set(State::Denied {
                        denial: None,
                        until,
                    }),
                    Part::Answered(_) => place.set(State::Touched {
                        until,
                        cool_until: None,
                    }),
                }
            }
            drop(place);
            match (caller.ticket, part) {
                (None, _) => {}
                (Some(ticket), Part::Answered(reply)) => (step.deliver)(ticket, &reply),
                (Some(ticket), Part::Alone) => self.append(step.now, own, ticket),
            }
        }
        self.drain(step, work);
    }
}

/// Has a node that takes down which keys are read not do so for the next request: nothing is kept of
/// them, and taking down a key costs it as much as reading it.
const OPT_OUT: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n";

/// Most bundles collected at a time, each of another script or with other arguments; with one more
/// the oldest is sent.
const MAX_OPEN: usize = 4;
