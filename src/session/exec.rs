//! `EXEC`: what was queued is sent, a transaction for each node, and the replies become one array.
//!
//! The lanes of all nodes of a transaction are locked while its parts are given to them. So every
//! client of this Tally finds the same order of transactions and other commands on all nodes: who
//! has seen one part done, and asks for another, finds that done too. What a fault can do is in
//! `docs/semantics.md`.

use std::sync::Arc;

use super::amount::delta;
use super::dispatch::{Dispatch, Flow, clamped};
use super::replies::{Elements, Replies, Ticket};
use super::spread::{for_keys, merge_of};
use super::transaction::{Part, Queued, Transaction};
use crate::command::{self, Class, Command};
use crate::counter::{Effect, Extent};
use crate::fan_out::Gather;
use crate::node::{Came, Refused};
use crate::resp::{Form, Request, encode, reply};
use crate::telemetry::Use;

/// The commands for one node that follow each other.
struct Run<'a> {
    node: usize,
    /// `MULTI` and the commands.
    wire: Vec<u8>,
    keys: Vec<&'a [u8]>,
    /// Who waits for each.
    tickets: Vec<Ticket>,
    /// Scripts that are called by these names.
    scripts: Vec<&'a [u8]>,
    /// Whether a command may use keys that it does not name.
    whole: bool,
    has_script: bool,
}

impl Run<'_> {
    fn new(node: usize) -> Self {
        let mut wire = Vec::new();
        encode::request(&mut wire, &[b"MULTI"]);
        Self {
            node,
            wire,
            keys: Vec::new(),
            tickets: Vec::new(),
            scripts: Vec::new(),
            whole: false,
            has_script: false,
        }
    }
}

/// Gives the run of a node to `add`, and begins it if there is none.
fn with_run<'q>(runs: &mut Vec<Run<'q>>, node: usize, add: impl FnOnce(&mut Run<'q>)) {
    if let Some(run) = runs.iter_mut().find(|run| run.node == node) {
        return add(run);
    }
    let mut run = Run::new(node);
    add(&mut run);
    runs.push(run);
}

impl Dispatch<'_> {
    /// `EXEC`. Nothing is executed while a node that is needed is away or has no room.
    pub(super) fn exec(&mut self) -> Flow {
        let Some(transaction) = self.state.transaction.take() else {
            self.error("ERR EXEC without MULTI");
            return Flow::Continue;
        };
        if transaction.refused {
            self.unwatch();
            self.error("EXECABORT Transaction discarded because of previous errors.");
            return Flow::Continue;
        }
        if transaction.selects && self.replies.backlog().outstanding > 0 {
            self.state.transaction = Some(transaction);
            return Flow::Await;
        }
        if self.state.aside.is_some() || self.state.watch.is_some() {
            return self.exec_aside(transaction);
        }
        if let Some(flow) = transaction
            .nodes()
            .into_iter()
            .find_map(|at| self.admit(at))
        {
            if flow == Flow::Stall {
                self.state.transaction = Some(transaction);
            }
            return flow;
        }
        self.exec_admitted(&transaction, None)
    }

    /// `EXEC` after `WATCH`: the commands for the node go where the keys are watched, and the rest
    /// follows if they were executed.
    fn exec_aside(&mut self, transaction: Transaction) -> Flow {
        if let Some(watch) = self.state.watch.as_ref() {
            if let Some(flow) = self.admit_aside(watch.index) {
                if matches!(flow, Flow::Stall | Flow::Await) {
                    self.state.transaction = Some(transaction);
                } else {
                    self.unwatch();
                }
                return flow;
            }
            let first = transaction.watched().map(|queued| queued.request());
            let mut wire = Vec::new();
            let mut keys = Vec::new();
            let mut positions = Vec::new();
            let mut commands = 0;
            encode::request(&mut wire, &[b"MULTI"]);
            for (queued, request) in transaction.watched().zip(first) {
                wire.extend_from_slice(request.wire());
                if command::key_positions(queued.command, &request, &mut positions).is_ok() {
                    keys.extend(positions.iter().map(|at| request.arg(*at)));
                }
                commands += 1;
            }
            encode::request(&mut wire, &[b"EXEC"]);
            if let Some(watch) = self.state.watch.take() {
                self.exec_watched(watch, &keys, (wire, commands));
            }
        }
        let Some(answer) = self.poll_aside() else {
            self.state.transaction = Some(transaction);
            return Flow::Stall;
        };
        if reply::elements(&answer.frame).is_none() {
            self.pass(&answer.frame, Form::NullArray);
            return Flow::Continue;
        }
        self.exec_admitted(&transaction, Some(&answer.frame))
    }

    /// Executes what is queued, all but what `executed` is the reply to.
    fn exec_admitted(&mut self, transaction: &Transaction, executed: Option<&[u8]>) -> Flow {
        let whole = self.place(Form::NullArray);
        let within = self.replies.within();
        let outside = std::mem::replace(&mut self.replies, Arc::clone(&within));
        let (command, fate) = (self.command, self.fate);
        self.state.executing = true;
        let flow = self.execute_all(transaction, executed);
        self.push_made();
        self.state.executing = false;
        self.replies = outside;
        (self.command, self.fate) = (command, fate);
        let last = within.close(transaction.commands.len(), whole);
        self.woken.extend(last);
        flow
    }

    /// Executes what is queued; the replies are the elements of the array.
    fn execute_all(&mut self, transaction: &Transaction, executed: Option<&[u8]>) -> Flow {
        let mut flow = Flow::Continue;
        let mut executed = executed.and_then(reply::elements);
        let mut runs: Vec<Run<'_>> = Vec::new();
        let apart = |queued: &Queued| matches!(queued.part, Part::Apart);
        let is_all = transaction.nodes().len() == 1 && !transaction.commands.iter().any(apart);
        for queued in &transaction.commands {
            let request = queued.request();
            self.command = queued.command;
            match (&queued.part, transaction.node_of(queued)) {
                (_, Some(node)) => {
                    let place = self.place(queued.command.form_queued(&request));
                    self.note_increment(queued.command, &request);
                    if matches!(queued.command.name, "eval" | "eval_ro") {
                        self.shared.scripts.brought(request.arg(1));
                    }
                    if let Some(element) = executed.as_mut().and_then(Iterator::next) {
                        self.woken.extend(place.fill(element));
                        self.count();
                        continue;
                    }
                    with_run(&mut runs, node, |run| {
                        self.add(run, queued, Ticket::Reply(place));
                    });
                }
                (Part::Spread(parts), _) => self.spread_over(&mut runs, queued, parts),
                (Part::Nowhere(error), _) => self.error(error.to_string()),
                (Part::Here, _) => flow = flow.and(self.run(&request)),
                _ => {
                    executed = None;
                    self.send_runs(std::mem::take(&mut runs), is_all);
                    flow = flow.and(self.run(&request));
                }
            }
            if self.shared.monitors.is_watched() {
                self.tell_monitors(&request);
            }
            self.count();
        }
        self.send_runs(runs, is_all);
        flow
    }

    /// Adds a command to the run of its node.
    fn add<'q>(&mut self, run: &mut Run<'q>, queued: &'q Queued, ticket: Ticket) {
        let request = queued.request();
        run.tickets.push(ticket);
        run.wire.extend_from_slice(request.wire());
        // A script that calls nothing has keys of any node.
        let found = command::key_positions(queued.command, &request, &mut self.positions);
        if found.is_ok() && !matches!(queued.part, Part::Keyless) {
            run.keys
                .extend(self.positions.iter().map(|at| request.arg(*at)));
        }
        run.has_script |= queued.command.class == Class::Script;
        run.whole |= command::needs_whole_node(queued.command, &request);
        if matches!(queued.command.name, "evalsha" | "evalsha_ro") {
            run.scripts.push(request.arg(1));
        }
    }

    /// Adds a command to the runs of all its nodes, to each with the keys there.
    fn spread_over<'q>(
        &mut self,
        runs: &mut Vec<Run<'q>>,
        queued: &'q Queued,
        parts: &[(usize, Vec<usize>)],
    ) {
        let request = queued.request();
        let place = self.place(queued.command.form_of(&request));
        let gather = Gather::new(parts.len(), place, merge_of(queued.command, parts));
        for (part, (node, positions)) in parts.iter().enumerate() {
            with_run(runs, *node, |run| {
                run.wire
                    .extend(for_keys(queued.command, &request, positions));
                run.keys.extend(positions.iter().map(|at| request.arg(*at)));
                run.tickets.push(Ticket::Part(Arc::clone(&gather), part));
            });
        }
    }

    /// Gives all runs to their lanes. The lanes are locked together meanwhile, in the order in
    /// which everybody locks several.
    fn send_runs(&mut self, mut runs: Vec<Run<'_>>, is_all: bool) {
        self.leave();
        runs.sort_unstable_by_key(|run| run.node);
        let (shared, now, waker) = (self.shared, self.now, self.waker);
        let mut entries = Vec::with_capacity(runs.len());
        let mut away = None;
        for run in &runs {
            let node = self.node(run.node);
            let mut entry = node.enter();
            if let Err(Refused::Failed(text)) = entry.admit(waker) {
                // It went away since the transaction was admitted.
                away = away.or(Some(text));
            }
            entries.push(entry);
        }
        if let Some(text) = away {
            drop(entries);
            let mut frame = Vec::new();
            encode::error(&mut frame, text.as_bytes());
            for run in runs {
                let (elements, _) = elements(&self.replies, run.tickets, is_all);
                self.woken
                    .extend(elements.fill(&frame, Came { now, node_us: 0 }));
            }
            return;
        }
        let database = self.client.database();
        for (mut run, entry) in runs.into_iter().zip(&mut entries) {
            if !self.touched.contains(&run.node) {
                self.touched.push(run.node);
            }
            let at = (database, run.node);
            if run.has_script {
                entry.note_script();
            }
            for name in &run.scripts {
                shared
                    .scripts
                    .load_missing(at, name, entry, now, self.woken);
            }
            encode::request(&mut run.wire, &[b"EXEC"]);
            let (elements, count) = elements(&self.replies, run.tickets, is_all);
            let ticket = Ticket::Elements(Box::new(elements));
            let Run {
                wire, keys, whole, ..
            } = run;
            entry.step(now, self.woken, |lane, step| {
                if whole && !step.table.rules().forwards_all() {
                    lane.whole_node(step, &wire, Extent::Transaction(count), ticket);
                } else {
                    lane.forward(step, &keys, &wire, Effect::Transaction(count), ticket);
                }
            });
        }
    }

    fn note_increment(&mut self, command: &Command, request: &Request<'_>) {
        if let Class::Increment(kind) = command.class
            && let Ok(delta) = delta(kind, request.arg(2))
        {
            self.tally.increments += 1;
            self.touch(request.arg(1), Use::Rose(clamped(delta)));
        }
    }
}

/// Who waits for the elements of one node's reply, and how many they are.
fn elements(replies: &Arc<Replies>, tickets: Vec<Ticket>, is_all: bool) -> (Elements, u32) {
    let count = u32::try_from(tickets.len()).unwrap_or(u32::MAX);
    let elements = Elements {
        replies: Arc::clone(replies),
        tickets,
        is_all,
    };
    (elements, count)
}
