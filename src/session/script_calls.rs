//! Calls of scripts: which are limit scripts, which have to be loaded first.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::dispatch::{Dispatch, Flow};
use super::loan::Around;
use super::replies::Ticket;
use crate::command::{self, Command};
use crate::counter::Decision;
use crate::fan_out::{self, Gather};
use crate::limit::Call;
use crate::node::{TRACKING, TRACKING_LOOP};
use crate::resp::{Form, Request, encode};
use crate::telemetry::Use;

impl Dispatch<'_> {
    /// A call of a script.
    pub(super) fn script(&mut self, command: &'static Command, request: &Request<'_>) -> Flow {
        let scripts = &self.shared.scripts;
        if let Some(call) = scripts.call(command, request) {
            let index = self.shared.router.index(call.key().as_bytes());
            let key = call.key().as_bytes();
            if !self.is_through(index, key) && self.may_count_here(request, key) {
                return self.limit(command, index, call, request);
            }
        }
        let declares_none = request.arg(2) == b"0" || declares_patterns(command, request);
        if declares_none && !self.state.executing && scripts.sweeps(request) {
            return self.sweep(command, request);
        }
        self.keyed(command, request)
    }

    /// A script that looks for keys and declares none, or the pattern: each node runs it for those
    /// that it has. On one node it would miss the others, without an error.
    fn sweep(&mut self, command: &'static Command, request: &Request<'_>) -> Flow {
        if let Some(flow) = self.admit_every() {
            return flow;
        }
        let place = self.place(command.form_of(request));
        let nodes = self.nodes.len();
        let gather = Gather::new(nodes, place, fan_out::swept());
        for index in 0..nodes {
            if command.name.starts_with("evalsha") {
                self.remind(index, request.arg(1));
            }
            let ticket = Ticket::Part(Arc::clone(&gather), index);
            self.send_with(command, request, (index, &[]), true, ticket);
        }
        Flow::Continue
    }

    /// A call of a limit script, decided here if possible.
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

    /// Has a lane load a script whose body is known, if that was not done on its present
    /// connection.
    pub(super) fn remind(&mut self, index: usize, name: &[u8]) {
        let at = (self.client.database(), index);
        let (scripts, now) = (&self.shared.scripts, self.now);
        let (entry, woken) = self.lane(index);
        scripts.load_missing(at, name, entry, now, woken);
    }

    /// Asks a node which functions there are now, after a change of them.
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

    /// Whether the user may do to the key what a limit script does. If not, the node says so.
    fn may_count_here(&self, request: &Request<'_>, key: &[u8]) -> bool {
        self.checked_user().is_none_or(|user| {
            let called = self.shared.scripts.called(request);
            let may_call = |command: &&'static Command| user.account().allows_call(command, key);
            called.is_some_and(|called| called.iter().all(may_call))
        })
    }

    /// A script as a transaction, with who waits for the replies to its commands: where the node has
    /// to check what it calls, and where it has to tell of what it changes. `Err` where it is sent
    /// as it is.
    ///
    /// Where the nodes tell of all changes by others, what has to be told is known only after the
    /// script's reply and theirs.
    pub(super) fn wrapped(
        &mut self,
        index: usize,
        request: &Request<'_>,
        ticket: Ticket,
    ) -> Result<(Vec<u8>, Box<[Ticket]>), Ticket> {
        let tracking = &self.shared.tracking;
        let is_told = tracking.is_on()
            && !tracking.broadcasts()
            && self.may_write_as_script(self.command, request);
        let user = self.checked_user();
        if !is_told && user.is_none() {
            return Err(ticket);
        }
        let mut wire = Vec::new();
        let mut tickets = Vec::new();
        encode::request(&mut wire, &[b"MULTI"]);
        if is_told {
            encode::request(&mut wire, &TRACKING_LOOP);
            tickets.push(Ticket::Nobody);
        }
        if let Some(user) = user {
            let around = Around::new(&user, self.node(index));
            wire.extend(around.wire(request.wire()));
            tickets.extend(around.tickets(ticket));
        } else {
            wire.extend_from_slice(request.wire());
            tickets.push(ticket);
        }
        if is_told {
            encode::request(&mut wire, &TRACKING);
            tickets.push(Ticket::Nobody);
            self.reads.script_told();
        }
        encode::request(&mut wire, &[b"EXEC"]);
        Ok((wire, tickets.into()))
    }

    /// Whether a script may write, as far as is known.
    pub(super) fn may_write_as_script(&self, command: &Command, request: &Request<'_>) -> bool {
        // The nodes are asked what a function declares only after it may have changed there.
        let is_fcall = command.name == "fcall";
        is_fcall
            || (self.may_change(command, request) && self.shared.scripts.access(request).writes)
    }
}

/// Whether what a script declares as its keys are patterns.
fn declares_patterns(command: &Command, request: &Request<'_>) -> bool {
    let is_pattern = |at: &usize| request.arg(*at).contains(&b'*');
    if !is_pattern(&3) {
        return false;
    }
    let mut positions = Vec::new();
    command::key_positions(command, request, &mut positions).is_ok()
        && positions.iter().all(is_pattern)
}
