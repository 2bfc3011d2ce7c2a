//! What is asked of all nodes at once, on pooled connections past the lanes: `WAIT` and `WAITAOF`, so
//! that the lanes go on meanwhile; `SCRIPT KILL` and `FUNCTION KILL`, because a lane waits for the script that
//! it has sent.
//!
//! `Shared::waits` bounds the clients that do so at once; another gets an error.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::dispatch::{Dispatch, Flow};
use super::replies::{Place, Ticket};
use crate::command::Command;
use crate::counter::Extent;
use crate::fan_out;
use crate::node::{Node, PoolError, Pooled};
use crate::resp::{Request, encode, parse_i64, reply};
use crate::router::Router;
use crate::telemetry::clock::now;

impl Dispatch<'_> {
    /// `WAIT`, `WAITAOF`: applies what is pending in every database of every node, then waits on a
    /// connection of its own to each, so that the lanes go on. The reply has the smallest numbers.
    ///
    /// A node waits for what the connection itself has written. So it first writes what changes
    /// nothing, behind everything else.
    pub(super) fn wait(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        let last = request.len() - 1;
        if (1..last).any(|at| parse_i64(request.arg(at)).is_none()) {
            self.error("ERR value is not an integer or out of range");
            return Flow::Continue;
        }
        let timeout = match parse_i64(request.arg(last)).map(u64::try_from) {
            Some(Ok(ms)) => Duration::from_millis(ms),
            Some(Err(_)) => {
                self.error("ERR timeout is negative");
                return Flow::Continue;
            }
            None => {
                self.error("ERR timeout is not an integer or out of range");
                return Flow::Continue;
            }
        };
        if let Some(flow) = self.admit_every() {
            return flow;
        }
        let config = self.shared.live();
        let upstream = &config.upstream;
        // A longer wait, and zero, which is for ever, ends with the bound of every other wait for a
        // node: else a client that left would hold its place for as long as it liked.
        let timeout = match timeout {
            Duration::ZERO => upstream.hard_timeout,
            timeout => timeout.min(upstream.hard_timeout),
        };
        let bound = timeout.saturating_add(upstream.connect_timeout + upstream.request_timeout);
        let router = Arc::clone(&self.shared.router);
        let ms = timeout.as_millis().max(1).to_string();
        let mut wait: Vec<&[u8]> = request.args().collect();
        wait.splice(last.., [ms.as_bytes()]);
        let requests = [WRITE, &wait].map(|request| {
            let mut wire = Vec::new();
            encode::request(&mut wire, request);
            wire
        });
        let slots = Arc::clone(&self.shared.waits);
        let place = self.place(command.form);
        let merge: fan_out::Merge = Box::new(move |parts, place| {
            if let Some(error) = parts.error() {
                return place.fill(error);
            }
            let Ok(slot) = slots.try_acquire_owned() else {
                return place.fill(b"-ERR too many clients are in WAIT\r\n");
            };
            let asked = ask_each(&router, &requests, bound);
            tokio::spawn(async move {
                wait_on(place, asked).await;
                drop(slot);
            });
            None
        });
        // A command on the whole node is sent when nothing is pending any more.
        let mut ping = Vec::new();
        encode::request(&mut ping, &[b"PING"]);
        // A node that lacks a database that somebody selected is away there, with nothing pending.
        let own = self.client.database();
        let lanes = self.shared.router.in_use();
        let lanes: Vec<_> = lanes
            .filter(|node| node.database() == own || !node.is_away() || !node.is_settled())
            .collect();
        self.send_lanes(&lanes, &ping, Extent::AnyKey, place, merge);
        Flow::Continue
    }

    /// Ends what runs too long on any node, or tells of it. It goes past the lanes: what this
    /// client has sent before may still wait there, behind the script.
    pub(super) fn ask_past_lanes(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        self.leave();
        let Ok(slot) = Arc::clone(&self.shared.waits).try_acquire_owned() else {
            self.error("ERR too many clients are in WAIT or SCRIPT KILL");
            return Flow::Continue;
        };
        let place = self.place(command.form);
        // A node says nothing before a script has run for its `busy-reply-threshold`.
        let bound = self.shared.live().upstream.hard_timeout;
        let asked = ask_each(&self.shared.router, &[request.wire().to_vec()], bound);
        tokio::spawn(async move {
            most_telling(place, asked).await;
            drop(slot);
        });
        Flow::Continue
    }
}

/// Changes nothing, and goes to replicas and to the append-only file like any other write
/// (`swapdbCommand` in Redis's `db.c`); unlike most of them it takes no memory and needs no key.
const WRITE: &[&[u8]] = &[b"SWAPDB", b"0", b"0"];

/// Asks each node these requests on a connection of its own. An answer is what the node gave to the
/// last one, its error for one before, or the error of one that gave none.
fn ask_each(
    router: &Arc<Router<Ticket>>,
    requests: &[Vec<u8>],
    bound: Duration,
) -> JoinSet<Vec<u8>> {
    let mut asked = JoinSet::new();
    for (index, node) in router.nodes().iter().enumerate() {
        let (router, node, requests) = (Arc::clone(router), Arc::clone(node), requests.to_vec());
        asked.spawn(async move {
            match ask(&node, &requests, bound).await {
                Ok(answer) => {
                    if answer == KILLED {
                        // Its reply may still be on its way.
                        router.server(index).for_each(|lane| lane.end_busy());
                    }
                    answer
                }
                Err(error) => frame_of(&error),
            }
        });
    }
    asked
}

/// The reply of a node whose script ends now.
const KILLED: &[u8] = b"+OK\r\n";

/// One node's answer, or why there is none, in words for a client.
async fn ask(
    node: &Node<Ticket>,
    requests: &[Vec<u8>],
    bound: Duration,
) -> Result<Vec<u8>, String> {
    let unasked = |error: PoolError| error.to_string();
    let mut connection = borrow(node, bound).await.map_err(unasked)?;
    let mut answer = Vec::new();
    for wire in requests {
        let frame = connection.ask(wire, bound).await;
        answer = frame.map_err(|lost| format!("node {}: {lost}", node.name()))?;
        if reply::is_error(&answer) {
            break;
        }
    }
    node.take_back(connection);
    Ok(answer)
}

/// A connection to a node; it may take a script's time, but not more than `bound`, to open one.
async fn borrow(node: &Node<Ticket>, bound: Duration) -> Result<Pooled, PoolError> {
    let until = now().checked_add(bound);
    loop {
        let borrowed = node.borrow().await;
        let is_late = until.is_none_or(|until| now() >= until);
        let waits = matches!(borrowed, Err(PoolError::Unreachable { .. }));
        if !waits || is_late || node.is_away() || !node.may_run_script() {
            return borrowed;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Before a connection is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// The next answer; `None` when all nodes have been heard.
async fn next_answer(asked: &mut JoinSet<Vec<u8>>) -> Option<Vec<u8>> {
    let answer = asked.join_next().await?;
    Some(answer.unwrap_or_else(|error| frame_of(&error.to_string())))
}

fn frame_of(error: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    encode::error(&mut frame, format!("ERR {error}"));
    frame
}

/// Fills in how many servers of every node have everything, or the first error.
async fn wait_on(place: Place, mut asked: JoinSet<Vec<u8>>) {
    let mut answers = Vec::new();
    while let Some(answer) = next_answer(&mut asked).await {
        answers.push(answer);
    }
    if let Some(waker) = place.fill(&least(&answers)) {
        waker.wake();
    }
}

/// The least of numbers, or of each place in arrays of them; the first answer that is neither.
fn least(answers: &[Vec<u8>]) -> Vec<u8> {
    let numbers = |frame: &Vec<u8>| -> Option<Vec<i64>> {
        let each = reply::elements(frame)?;
        each.map(reply::integer).collect()
    };
    let is_number = |frame: &Vec<u8>| reply::integer(frame).is_some();
    let is_other = |frame: &&Vec<u8>| !is_number(frame) && numbers(frame).is_none();
    if let Some(other) = answers.iter().find(is_other) {
        return other.clone();
    }
    let mut frame = Vec::new();
    if answers.iter().all(is_number) {
        let least = answers
            .iter()
            .filter_map(|frame| reply::integer(frame))
            .min();
        encode::integer(&mut frame, least.unwrap_or_default());
    } else {
        let least = answers.iter().filter_map(numbers).reduce(|least, more| {
            let pairs = least.into_iter().zip(more);
            pairs.map(|(one, other)| one.min(other)).collect()
        });
        let least = least.unwrap_or_default();
        encode::array(&mut frame, least.len());
        for number in least {
            encode::integer(&mut frame, number);
        }
    }
    frame
}

/// Fills in `OK` if one node says so, what runs if one tells; else the most telling error: that a
/// script was there, that a node could not be asked, or that there was none.
async fn most_telling(place: Place, mut asked: JoinSet<Vec<u8>>) {
    let mut answers = Vec::new();
    while let Some(answer) = next_answer(&mut asked).await {
        answers.push(answer);
    }
    // Of `FUNCTION STATS` the one that names a script: of the others that field is null.
    let names_none = |frame: &[u8]| {
        let mut fields = reply::elements(frame).into_iter().flatten();
        fields.nth(1).is_some_and(reply::is_null)
    };
    let rank = |frame: &Vec<u8>| match frame {
        frame if !reply::is_error(frame) => u8::from(names_none(frame)),
        frame if frame.starts_with(b"-UNKILLABLE") => 2,
        frame if !frame.starts_with(b"-NOTBUSY") => 3,
        _ => 4,
    };
    let best = answers.into_iter().min_by_key(rank).unwrap_or_default();
    if let Some(waker) = place.fill(&best) {
        waker.wake();
    }
}
