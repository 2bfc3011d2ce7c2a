//! A lane that stands still while a command runs that concerns several lanes: one for each database
//! of a node.
//!
//! ```text
//!   whole_node(Stop) ──> held like any whole-node command ──> quiet: forget everything, tell `+OK`
//!                                                                │
//!        one of the stopped lanes: alone(requests) ──> reply ────┤
//!                                                                v
//!   go_on ──> what came meanwhile, in its order
//! ```
//!
//! From `+OK` to [`Lane::go_on`] nothing is answered and nothing else is sent, whatever becomes of
//! the connection. Who stops several lanes does so in one order for all, or two would wait for each
//! other.

use std::collections::VecDeque;

use super::lane::{Extent, Lane, Step};
use super::queue::{Hold, InFlight, Transaction};
use crate::resp::encode;

impl<T> Hold<T> {
    /// Whether the lane stands still, and whoever asked for it has been told.
    pub(super) fn is_stopped(&self) -> bool {
        self.extent == Extent::Stop && self.ticket.is_none()
    }
}

impl<T> Lane<T> {
    /// Everything is applied and nothing is in flight.
    pub(super) fn stopped(&mut self, step: &mut Step<'_, T>) {
        let ticket = self.hold.as_mut().and_then(|hold| hold.ticket.take());
        step.table.forget();
        if let Some(ticket) = ticket {
            (step.deliver)(ticket, b"+OK\r\n");
        }
    }

    /// The connection of a stopped lane was lost.
    pub(super) fn stay_stopped(&mut self, step: &Step<'_, T>) {
        self.hold = Some(Hold {
            wire: Box::default(),
            ticket: None,
            extent: Extent::Stop,
            queue: VecDeque::new(),
        });
        step.table.close();
    }

    /// Sends requests in one transaction on a stopped lane. `ticket` gets the reply to the first
    /// one, or the error that prevented it. A slow node is waited for as long as the connection
    /// lives, so that nothing of the transaction is executed after the lane went on.
    pub fn alone(&mut self, step: &Step<'_, T>, requests: &[Vec<u8>], ticket: T) {
        encode::request(&mut self.wire, &[b"MULTI"]);
        for request in requests {
            self.wire.extend_from_slice(request);
        }
        encode::request(&mut self.wire, &[b"EXEC"]);
        let replies = requests.len() + 2;
        let mut transaction = Transaction::new(u32::try_from(replies).unwrap_or(u32::MAX));
        transaction.is_patient = true;
        self.push(step.now, InFlight::Wrapped(Some(ticket), transaction));
    }

    /// Ends a stop, whose ticket has been told `+OK`.
    pub fn go_on(&mut self, step: &mut Step<'_, T>) {
        if let Some(hold) = self.hold.take_if(|hold| hold.is_stopped()) {
            self.resume(step, hold);
            // The next of its kind waits for no reply.
            self.release_hold(step);
        }
    }

    /// The request that puts the number of the last batch back into its marker when all keys are
    /// removed or replaced, so that nothing settled is sent again. `None` when this process has not
    /// taken the series over yet, so that there is no marker.
    pub fn put_marker_back(&mut self) -> Option<Vec<u8>> {
        self.series.wiped();
        self.series.is_owned().then(|| {
            let mut request = Vec::new();
            self.series.encode_marker(false, &mut request);
            request
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;
    use super::*;

    fn stop(bench: &mut Bench, ticket: u8) {
        bench.step(|lane, step| lane.whole_node(step, &[], Extent::Stop, ticket));
    }

    #[test]
    fn a_lane_stops_when_it_is_quiet_and_sends_nothing_until_it_goes_on() {
        let mut bench = Bench::new();
        bench.step(|lane, step| lane.increment(step, b"a", 1, 1));
        stop(&mut bench, 2);
        bench.step(|lane, step| lane.increment(step, b"a", 1, 3));
        bench.was_told(&[]);
        bench.wire();
        bench.reply(b":7\r\n");
        bench.was_told(&[(1, ":7\r\n"), (2, "+OK\r\n")]);
        assert_eq!(bench.wire(), "");
        let flush = b"*1\r\n$8\r\nFLUSHALL\r\n".to_vec();
        bench.step(|lane, step| lane.alone(step, &[flush], 4));
        let wire = bench.wire();
        assert!(
            wire.contains("FLUSHALL") && !wire.contains("INCR"),
            "{wire}"
        );
        for frame in ["+OK\r\n", "+QUEUED\r\n", "*1\r\n+OK\r\n"] {
            bench.reply(frame.as_bytes());
        }
        bench.was_told(&[(4, "+OK\r\n")]);
        assert_eq!(bench.wire(), "");
        bench.step(Lane::go_on);
        assert!(bench.wire().contains("INCR"));
        bench.reply(b":1\r\n");
        bench.was_told(&[(3, ":1\r\n")]);
        assert!(bench.lane.is_idle());
    }

    #[test]
    fn two_stops_follow_each_other() {
        let mut bench = Bench::new();
        stop(&mut bench, 1);
        stop(&mut bench, 2);
        bench.step(|lane, step| lane.increment(step, b"a", 1, 3));
        bench.was_told(&[(1, "+OK\r\n")]);
        bench.step(Lane::go_on);
        bench.was_told(&[(2, "+OK\r\n")]);
        assert_eq!(bench.wire(), "");
        bench.step(Lane::go_on);
        bench.step(Lane::go_on);
        bench.wire();
        bench.reply(b":1\r\n");
        bench.was_told(&[(3, ":1\r\n")]);
        assert!(bench.lane.is_idle());
    }

    #[test]
    fn a_lost_connection_fails_what_waits_and_the_lane_stays_stopped() {
        let mut bench = Bench::new();
        stop(&mut bench, 1);
        bench.step(|lane, step| lane.increment(step, b"a", 1, 2));
        bench.step(|lane, step| lane.disconnected(step, b"-unknown\r\n", b"-unsent\r\n"));
        bench.was_told(&[(1, "+OK\r\n"), (2, "-unsent\r\n")]);
        bench.step(|lane, step| lane.increment(step, b"a", 1, 3));
        assert_eq!(bench.wire(), "");
        bench.step(Lane::go_on);
        assert!(bench.wire().contains("INCR"));
        // One that has not come to its stop is told.
        stop(&mut bench, 4);
        bench.step(|lane, step| lane.disconnected(step, b"-unknown\r\n", b"-unsent\r\n"));
        bench.was_told(&[(3, "-unknown\r\n"), (4, "-unsent\r\n")]);
        assert!(bench.lane.is_idle());
    }
}
