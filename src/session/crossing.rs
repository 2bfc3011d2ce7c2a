//! Commands that concern several databases: on each server every lane that they concern is
//! stopped, one of them carries the command, then all go on.
//!
//! Lanes are stopped under one lock, so two such commands find the same order everywhere: each
//! lane carries out first the one that came first. A session has one such command under way at
//! most, and a transaction a few, which bounds the tasks.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::oneshot;

use super::dispatch::{Dispatch, Flow};
use super::replies::{Place, Ticket};
use crate::command::Command;
use crate::counter::{Extent, Lane, Step};
use crate::node::{Node, Refused, no_answer};
use crate::resp::{Request, encode, parse_i64, reply};
use crate::telemetry::clock::now;

/// What a command does to the keys in which Tally keeps the numbers of batches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Markers {
    /// They stay as they are.
    Stay,
    /// They are gone.
    Vanish,
    /// Each moves to the other database.
    Swap,
}

/// A command on one server.
struct Crossing {
    /// The lanes, each with the channel that tells of its stop.
    lanes: Vec<(Arc<Node<Ticket>>, Told)>,
    /// The lane that carries the command.
    carrier: Arc<Node<Ticket>>,
    wire: Vec<u8>,
    markers: Markers,
    timeout: Duration,
}

/// What a node answers, when it does.
type Told = oneshot::Receiver<Vec<u8>>;

impl Dispatch<'_> {
    /// `FLUSHALL`: of all databases, whether in use or not, so that none comes into use meanwhile.
    pub(super) fn flush_all(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        let databases: Vec<u32> = (0..self.shared.config.server.databases).collect();
        let servers = 0..self.nodes.len();
        self.cross(command, request, servers, (databases, Markers::Vanish))
    }

    /// `SWAPDB`: on every server, one after the other.
    pub(super) fn swap_databases(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        let mut numbers = Vec::with_capacity(2);
        for (at, which) in [(1, "first"), (2, "second")] {
            // Redis reads an int there, and looks at both before it looks for them.
            let number = parse_i64(request.arg(at)).and_then(|number| i32::try_from(number).ok());
            let Some(number) = number else {
                self.error(format!("ERR invalid {which} DB index"));
                return Flow::Continue;
            };
            numbers.push(i64::from(number));
        }
        let mut databases = vec![self.client.database()];
        for number in numbers {
            match self.database_here(number) {
                Some(number) if databases.contains(&number) => {}
                Some(number) => databases.push(number),
                None => {
                    self.error(OUT_OF_RANGE);
                    return Flow::Continue;
                }
            }
        }
        let servers = 0..self.nodes.len();
        self.cross(command, request, servers, (databases, Markers::Swap))
    }

    /// `MOVE` and `COPY ... DB n`: of one key, to `other`, which is not the session's database.
    pub(super) fn carry_over(
        &mut self,
        command: &Command,
        request: &Request<'_>,
        (server, other): (usize, i64),
    ) -> Flow {
        let Some(other) = self.database_here(other) else {
            self.error(no_database(other));
            return Flow::Continue;
        };
        let databases = vec![self.client.database(), other];
        self.cross(
            command,
            request,
            server..server + 1,
            (databases, Markers::Stay),
        )
    }

    /// The database of this number, if there is one.
    pub(super) fn database_here(&self, number: i64) -> Option<u32> {
        let number = u32::try_from(number).ok()?;
        (number < self.shared.config.server.databases).then_some(number)
    }

    /// Begins to stop the lanes and leaves the rest to a task.
    fn cross(
        &mut self,
        command: &Command,
        request: &Request<'_>,
        servers: std::ops::Range<usize>,
        (databases, markers): (Vec<u32>, Markers),
    ) -> Flow {
        let executing = self.state.executing;
        if self.replies.backlog().outstanding > 0 && !executing {
            return Flow::Await;
        }
        self.leave();
        let shared = self.shared;
        for server in servers.clone() {
            for database in &databases {
                let node = shared.router.node(*database, server);
                let mut entry = node.enter();
                let admitted = match database {
                    own if *own == self.client.database() => entry.admit(self.waker),
                    _ => entry.admit_stop(self.waker),
                };
                drop(entry);
                match admitted {
                    Ok(()) => {}
                    Err(Refused::Full) if executing => {}
                    Err(Refused::Full) => return Flow::Stall,
                    Err(Refused::Failed(text)) => {
                        self.error(text.as_bytes());
                        return Flow::Continue;
                    }
                }
            }
        }
        let place = self.place(command.form_of(request));
        let order = shared.crossings.lock();
        let mut crossings = Vec::new();
        for server in servers {
            let stop = |database: &u32| {
                let node = Arc::clone(shared.router.node(*database, server));
                let (ticket, stopped) = oneshot::channel();
                let ticket = Ticket::Told(ticket);
                node.enter().step(self.now, self.woken, |lane, step| {
                    lane.whole_node(step, &[], Extent::Stop, ticket);
                });
                if node.schedule() {
                    shared.send_soon(&node);
                }
                (node, stopped)
            };
            crossings.push(Crossing {
                lanes: databases.iter().map(stop).collect(),
                carrier: Arc::clone(self.node(server)),
                wire: request.wire().to_vec(),
                markers,
                timeout: shared.live().upstream.request_timeout,
            });
        }
        drop(order);
        tokio::spawn(run(place, crossings));
        Flow::Continue
    }
}

/// Carries out the command on all servers at once; the first error is the reply, else what the
/// first server says.
async fn run(place: Place, crossings: Vec<Crossing>) {
    let mut replies = Vec::new();
    for crossing in crossings {
        let (answer, reply) = oneshot::channel();
        tokio::spawn(crossing.run(answer));
        replies.push(reply);
    }
    let mut frame = None;
    for told in replies {
        let told = told.await.unwrap_or_else(|_| GONE.to_vec());
        if frame.is_none() || reply::is_error(&told) {
            frame = Some(told);
        }
        if frame.as_ref().is_some_and(|frame| reply::is_error(frame)) {
            break;
        }
    }
    if let Some(waker) = place.fill(&frame.unwrap_or_default()) {
        waker.wake();
    }
}

impl Crossing {
    /// Gives `answer` the reply. Ends when the lanes go on, which may be later.
    async fn run(mut self, answer: oneshot::Sender<Vec<u8>>) {
        let mut stopped = Vec::new();
        let mut failed = None;
        for (node, told) in std::mem::take(&mut self.lanes) {
            match told.await {
                Ok(frame) if !reply::is_error(&frame) => stopped.push(node),
                Ok(error) => failed = Some(error),
                Err(_) => failed = Some(GONE.to_vec()),
            }
        }
        let reply = match failed {
            None => self.send(&stopped),
            Some(error) => Err(error),
        };
        let frame = match reply {
            Err(error) => error,
            Ok(mut reply) => {
                if let Ok(frame) = tokio::time::timeout(self.timeout, &mut reply).await {
                    frame.unwrap_or_else(|_| GONE.to_vec())
                } else {
                    let mut error = Vec::new();
                    encode::error(&mut error, no_answer(self.carrier.name(), self.timeout));
                    // The client goes on; the lanes may have to wait.
                    drop(answer.send(error));
                    drop(reply.await);
                    return go_on(&stopped);
                }
            }
        };
        go_on(&stopped);
        drop(answer.send(frame));
    }

    /// Sends the command on its lane.
    fn send(&self, stopped: &[Arc<Node<Ticket>>]) -> Result<Told, Vec<u8>> {
        let requests = self.requests(stopped);
        let mut entry = self.carrier.enter();
        if let Err(Refused::Failed(text)) = entry.admit_behind(Waker::noop()) {
            let mut error = Vec::new();
            encode::error(&mut error, text.as_bytes());
            return Err(error);
        }
        let (ticket, reply) = oneshot::channel();
        let ticket = Ticket::Told(ticket);
        entry.step(now(), &mut Vec::new(), |lane, step| {
            lane.alone(step, &requests, ticket);
        });
        drop(entry);
        self.carrier.send();
        Ok(reply)
    }

    /// The command, and what puts the markers of all its lanes back into their places: where a
    /// marker is missing, or another lane's stands, increments of the next batches would be in
    /// doubt.
    fn requests(&self, stopped: &[Arc<Node<Ticket>>]) -> Vec<Vec<u8>> {
        let mut requests = vec![self.wire.clone()];
        if self.markers == Markers::Stay {
            return requests;
        }
        let mut markers = Vec::new();
        for node in stopped {
            with_lane(node, |lane, _| {
                let put = node.is_open().then(|| lane.put_marker_back()).flatten();
                markers.push((node.database(), lane.marker().to_vec(), put));
            });
        }
        for (database, marker, put) in &markers {
            let mut there = Vec::new();
            // Swapped into a database that was never used, a marker is in nobody's way, but counts
            // in its DBSIZE.
            for (_, other, _) in &markers {
                if self.markers == Markers::Swap && other != marker {
                    let mut delete = Vec::new();
                    encode::request(&mut delete, &[b"DEL".as_slice(), other]);
                    there.push(delete);
                }
            }
            there.extend(put.clone());
            if !there.is_empty() {
                requests.push(select(*database));
                requests.append(&mut there);
            }
        }
        requests.push(select(self.carrier.database()));
        requests
    }
}

fn select(database: u32) -> Vec<u8> {
    let mut request = Vec::new();
    let mut digits = itoa::Buffer::new();
    let number = digits.format(database).as_bytes();
    encode::request(&mut request, &[b"SELECT", number]);
    request
}

/// Ends the stop of these lanes.
fn go_on(stopped: &[Arc<Node<Ticket>>]) {
    for node in stopped {
        with_lane(node, Lane::go_on);
        node.send();
    }
}

/// Runs one step of a lane, then wakes the sessions that it answered.
fn with_lane(node: &Node<Ticket>, run: impl FnOnce(&mut Lane<Ticket>, &mut Step<'_, Ticket>)) {
    let mut woken = Vec::new();
    node.enter().step(now(), &mut woken, run);
    woken.into_iter().for_each(Waker::wake);
}

/// What a client is told of a number that is no database.
pub(super) fn no_database(number: i64) -> &'static str {
    match i32::try_from(number) {
        Ok(_) => OUT_OF_RANGE,
        // As `getIntFromObjectOrReply` in `object.c`.
        Err(_) => "ERR value is out of range, value must between -2147483648 and 2147483647",
    }
}

/// Redis's words (`selectDb` and its callers in `db.c`).
const OUT_OF_RANGE: &str = "ERR DB index is out of range";

/// Only at the end of the process.
const GONE: &[u8] = b"-ERR Tally is shutting down\r\n";
