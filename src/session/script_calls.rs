//! Calls of scripts: which are limit scripts, which have to be loaded first. `SCRIPT KILL` and
//! `FUNCTION KILL`, on pooled connections, as a lane waits for the script that it has sent.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::dispatch::{Dispatch, Flow};
use super::replies::{Place, Ticket};
use crate::command::Command;
use crate::counter::Decision;
use crate::limit::Call;
use crate::node::{Node, TRACKING, TRACKING_LOOP};
use crate::resp::{Form, Request, encode, reply};
use crate::telemetry::Use;

impl Dispatch<'_> {
    /// A call of a script. Bodies are remembered.
    pub(super) fn script(&mut self, command: &'static Command, request: &Request<'_>) -> Flow {
        let scripts = &self.shared.scripts;
        if command.name == "eval_ro" {
            scripts.brought(request.arg(1));
        } else if let Some(call) = scripts.call(command.name, request) {
            let index = self.shared.router.index(call.key().as_bytes());
            if !self.is_through(index, call.key().as_bytes()) {
                return self.limit(command, index, call, request);
            }
        }
        self.keyed(command, request)
    }

    /// A call of a limit script: decided here if that can be done.
    fn limit(
        &mut self,
        command: &'static Command,
        index: usize,
        call: Call,
        request: &Request<'_>,
    ) -> Flow {
        let key = call.key().as_bytes();
        if let Some(flow) = self.refuse_reserved(key) {
            return flow;
        }
        let (limit, stats) = (call.limit(), &self.shared.stats);
        if let Some(decision) = self.node(index).table().limit(&call, self.now) {
            stats.limit_calls.increment();
            self.touch(key, Use::Limited(limit));
            let start = self.made.len();
            match decision {
                Decision::Denied => {
                    stats.limit_denied.increment();
                    call.deny(self.client.protocol(), self.made);
                }
                Decision::Granted(value) => {
                    self.tally.increments += 1;
                    self.tally.increments_local += 1;
                    call.grant(value, self.made);
                }
            }
            self.mute_from(start);
            return Flow::Continue;
        }
        if let Some(flow) = self.admit(index) {
            return flow;
        }
        stats.limit_calls.increment();
        self.touch(key, Use::Limited(limit));
        let ticket = if command.name == "evalsha" {
            self.call_by_name(index, request.arg(1), command.form_of(request))
        } else {
            self.ticket(command.form_of(request))
        };
        let now = self.now;
        let (entry, woken) = self.lane(index);
        entry.step(now, woken, |lane, step| {
            lane.limit(step, call, request.wire(), ticket);
        });
        Flow::Continue
    }

    /// A ticket for `EVALSHA`. A node that was not given the script on its present connection gets
    /// it first: it may have been restarted, or another client's `EVAL` was on another node.
    pub(super) fn call_by_name(&mut self, index: usize, name: &[u8], form: Form) -> Ticket {
        self.remind(index, name);
        let at = (self.client.database(), index);
        let place = self.place(form);
        match self.shared.scripts.reminded(at, name, place) {
            Ok(reminded) => Ticket::Script(reminded),
            Err(place) => Ticket::Reply(place),
        }
    }

    /// Loads a script whose body is known, if the lane was not given it on its present connection.
    pub(super) fn remind(&mut self, index: usize, name: &[u8]) {
        let at = (self.client.database(), index);
        let (scripts, now) = (&self.shared.scripts, self.now);
        let (entry, woken) = self.lane(index);
        scripts.load_missing(at, name, entry, now, woken);
    }

    /// Asks a node which functions there are now, behind a change of them.
    pub(super) fn learn_functions(&mut self) {
        self.leave();
        let Some(index) = self.nodes.iter().position(|node| !node.is_away()) else {
            return;
        };
        let mut wire = Vec::new();
        encode::request(&mut wire, &["FUNCTION", "LIST"]);
        let (sender, answer) = oneshot::channel();
        let now = self.now;
        let (entry, woken) = self.lane(index);
        entry.step(now, woken, |lane, step| {
            lane.keyless(step, &wire, Ticket::Told(sender));
        });
        let scripts = Arc::clone(&self.shared.scripts);
        tokio::spawn(async move {
            if let Ok(frame) = answer.await {
                scripts.know_functions(&frame);
            }
        });
    }

    /// The request of a script, between others that make the node tell of what it changes. `None`
    /// while nobody tracks keys; and where the nodes tell of all changes by others, because what is
    /// to be told is known only behind both then. An answer is the second element of the reply.
    pub(super) fn told_script(&mut self, request: &Request<'_>) -> Option<Vec<u8>> {
        let tracking = &self.shared.tracking;
        let is_told = tracking.is_on() && !tracking.broadcasts();
        if !is_told || !self.may_write_as_script(self.command, request) {
            return None;
        }
        let mut wire = Vec::new();
        encode::request(&mut wire, &[b"MULTI"]);
        encode::request(&mut wire, &TRACKING_LOOP);
        wire.extend_from_slice(request.wire());
        encode::request(&mut wire, &TRACKING);
        encode::request(&mut wire, &[b"EXEC"]);
        self.reads.script_told();
        Some(wire)
    }

    /// Whether a script may write, for all that is known of it.
    pub(super) fn may_write_as_script(&self, command: &Command, request: &Request<'_>) -> bool {
        // What a function declares is asked of the nodes later than it may be changed there.
        let is_fcall = command.name == "fcall";
        is_fcall
            || (self.may_change(command, request) && self.shared.scripts.access(request).writes)
    }

    /// Ends what runs too long on any node, or tells of it. It goes past the lanes: what this client
    /// has sent before may still wait there, behind the script.
    pub(super) fn ask_past_lanes(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        self.leave();
        let Ok(slot) = Arc::clone(&self.shared.waits).try_acquire_owned() else {
            self.error("ERR too many clients are in WAIT or SCRIPT KILL");
            return Flow::Continue;
        };
        let place = self.place(command.form);
        let wire = request.wire().to_vec();
        let bound = self.shared.live().upstream.request_timeout;
        let nodes = self.shared.router.nodes().to_vec();
        tokio::spawn(async move {
            ask_all(place, nodes, wire, bound).await;
            drop(slot);
        });
        Flow::Continue
    }
}

/// Asks all nodes at once. `OK` if one says so, what runs if one tells; else the most telling error: one that a script was
/// there, one that a node could not be asked, or that there was none.
async fn ask_all(place: Place, nodes: Vec<Arc<Node<Ticket>>>, wire: Vec<u8>, bound: Duration) {
    let mut asked = tokio::task::JoinSet::new();
    for node in nodes {
        let wire = wire.clone();
        asked.spawn(async move {
            let mut connection = node.borrow().await.map_err(|error| error.to_string())?;
            let answer = connection.ask(&wire, bound).await;
            let answer = answer.map_err(|lost| format!("node {}: {lost}", node.name()))?;
            node.take_back(connection);
            Ok::<_, String>(answer)
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = asked.join_next().await {
        answers.push(match answer {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => encoded(&format!("ERR {error}")),
            Err(error) => encoded(&format!("ERR {error}")),
        });
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

fn encoded(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    encode::error(&mut frame, text);
    frame
}
