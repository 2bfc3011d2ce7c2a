//! `EXEC`: what was queued is sent, a transaction for each node, and the replies become one array.
//!
//! The lanes of all nodes of a transaction are locked while its parts are given to them. So every
//! client of this Tally finds the same order of transactions and other commands on all nodes: who
//! has seen one part done, and asks for another, finds that done too. What a fault can do is in
//! `docs/semantics.md`.

use std::sync::Arc;

use super::amount::delta;
use super::behind_locks::{self, Asked, Executed};
use super::dispatch::{Dispatch, Flow, clamped};
use super::loan::Around;
use super::replies::{Elements, Replies, Ticket};
use super::spread::{for_keys, merge_of};
use super::together::Together;
use super::transaction::{Part, Queued, Transaction};
use crate::command::{self, Class, Command};
use crate::counter::{Effect, Extent};
use crate::fan_out::Gather;
use crate::node::{Came, Refused};
use crate::resp::{Form, Request, encode, reply};
use crate::telemetry::Use;

/// The commands for one node that follow each other.
pub(super) struct Run<'a> {
    pub(super) node: usize,
    /// `MULTI` and the commands.
    wire: Vec<u8>,
    pub(super) commands: u32,
    pub(super) keys: Vec<&'a [u8]>,
    /// Who waits for each.
    pub(super) tickets: Vec<Ticket>,
    /// Scripts that are called by these names.
    pub(super) scripts: Vec<&'a [u8]>,
    /// Whether a command may use keys that it does not name.
    whole: bool,
    has_script: bool,
}

impl<'a> Run<'a> {
    fn new(node: usize) -> Self {
        Self {
            node,
            wire: MULTI.to_vec(),
            commands: 0,
            keys: Vec::new(),
            tickets: Vec::new(),
            scripts: Vec::new(),
            whole: false,
            has_script: false,
        }
    }

    /// The commands, without `MULTI`.
    pub(super) fn commands_alone(&self) -> &[u8] {
        self.wire.get(MULTI.len()..).unwrap_or_default()
    }

    /// Adds a command whose keys are all at the node, at these positions, with what stands around
    /// it.
    fn add(&mut self, queued: &'a Queued, positions: &[usize], around: Option<&Around>) {
        let request = queued.request();
        self.commands += around.map_or(1, Around::commands);
        match around {
            Some(around) => self.wire.extend(around.wire(request.wire())),
            None => self.wire.extend_from_slice(request.wire()),
        }
        // A script that calls nothing has keys of any node.
        if !matches!(queued.part, Part::Keyless) {
            self.keys
                .extend(positions.iter().map(|at| request.arg(*at)));
        }
        self.has_script |= queued.command.class == Class::Script;
        self.whole |= command::needs_whole_node(queued.command, &request);
        if matches!(queued.command.name, "evalsha" | "evalsha_ro") {
            self.scripts.push(request.arg(1));
        }
    }

    /// Adds that part of a command that concerns the keys at these positions.
    fn add_part(&mut self, queued: &'a Queued, positions: &[usize]) {
        let request = queued.request();
        self.commands += 1;
        self.wire
            .extend(for_keys(queued.command, &request, positions));
        self.keys
            .extend(positions.iter().map(|at| request.arg(*at)));
    }
}

/// What is not executed yet of a transaction.
struct Rest<'t> {
    /// The replies to its first stretch, if that was executed.
    executed: Option<Vec<Executed>>,
    /// What each stretch has at one node.
    together: std::slice::Iter<'t, Together>,
    /// Whether all of it is one stretch.
    is_alone: bool,
    /// Stretches whose locks have been asked for.
    asked: Vec<Asked>,
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
        // Not once it is under way.
        if self.state.aside.is_none() {
            self.recheck_queued();
        }
        let Some(mut transaction) = self.state.transaction.take() else {
            self.error("ERR EXEC without MULTI");
            return Flow::Continue;
        };
        if transaction.refused {
            self.unwatch();
            self.error("EXECABORT Transaction discarded because of previous errors.");
            return Flow::Continue;
        }
        // What is brought to one node is so by a task, of which a session has one at most.
        let waits = transaction.selects || transaction.joins;
        if waits && self.replies.backlog().outstanding > 0 {
            self.state.transaction = Some(transaction);
            return Flow::Await;
        }
        if self.state.aside.is_some() || !self.state.watches.is_empty() {
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
        self.bring_together(&mut transaction);
        self.exec_admitted(&transaction, None)
    }

    /// Decides which keys are brought to one node, if some are.
    fn bring_together(&self, transaction: &mut Transaction) {
        if !transaction.joins {
            return;
        }
        let is_apart = |queued: &Queued| matches!(queued.part, Part::Apart);
        for queued in &mut transaction.commands {
            // What it needs is not locked.
            let is_sent = !matches!(queued.part, Part::Nowhere(_));
            if is_sent && command::needs_whole_node(queued.command, &queued.request()) {
                queued.part = Part::Apart;
            }
        }
        let place = |key: &[u8]| self.shared.router.index(key);
        let changes = |queued: &Queued| self.may_change(queued.command, &queued.request());
        let stretches = transaction.commands.split_mut(is_apart);
        let together = stretches.map(|stretch| Together::of(stretch, place, changes));
        transaction.together = together.collect();
    }

    /// `EXEC` after `WATCH`: what stands before the first command that is executed apart is sent if
    /// nothing that is watched has changed, and the rest follows if that was executed.
    fn exec_aside(&mut self, mut transaction: Transaction) -> Flow {
        if self.state.aside.is_none() {
            let mut nodes = transaction.nodes();
            nodes.extend(self.state.watches.iter().map(|watch| watch.index));
            if let Some(flow) = nodes.into_iter().find_map(|at| self.admit_aside(at)) {
                if matches!(flow, Flow::Stall | Flow::Await) {
                    self.state.transaction = Some(transaction);
                } else {
                    self.unwatch();
                }
                return flow;
            }
            self.bring_together(&mut transaction);
            let mut runs = Vec::new();
            for queued in transaction.watched() {
                self.add_watched(&mut runs, queued, &transaction);
            }
            self.exec_watched(&runs, transaction.together.first());
        }
        let Some(answer) = self.poll_aside() else {
            self.state.transaction = Some(transaction);
            return Flow::Stall;
        };
        if reply::elements(&answer.frame).is_none() {
            self.pass(&answer.frame, Form::NullArray);
            return Flow::Continue;
        }
        self.exec_admitted(&transaction, Some(answer.executed))
    }

    /// Adds a command to the runs of its nodes.
    fn add_watched<'q>(
        &mut self,
        runs: &mut Vec<Run<'q>>,
        queued: &'q Queued,
        transaction: &Transaction,
    ) {
        match (&queued.part, transaction.node_of(queued)) {
            (_, Some(node)) => {
                let around = self.around(queued, node);
                self.find_keys(queued);
                with_run(runs, node, |run| {
                    run.add(queued, &self.positions, around.as_ref());
                });
            }
            (Part::Spread(parts), _) => {
                for (node, positions) in parts {
                    with_run(runs, *node, |run| run.add_part(queued, positions));
                }
            }
            _ => {}
        }
    }

    /// Executes what is queued, all but what these are the replies to.
    fn exec_admitted(
        &mut self,
        transaction: &Transaction,
        executed: Option<Vec<Executed>>,
    ) -> Flow {
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
    fn execute_all(&mut self, transaction: &Transaction, executed: Option<Vec<Executed>>) -> Flow {
        let mut flow = Flow::Continue;
        let mut runs: Vec<Run<'_>> = Vec::new();
        let apart = |queued: &Queued| matches!(queued.part, Part::Apart);
        let mut rest = Rest {
            executed,
            together: transaction.together.iter(),
            is_alone: !transaction.commands.iter().any(apart),
            asked: Vec::new(),
        };
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
                    let around = self.around(queued, node);
                    self.find_keys(queued);
                    with_run(&mut runs, node, |run| {
                        run.add(queued, &self.positions, around.as_ref());
                        let ticket = Ticket::Reply(place);
                        match around {
                            Some(around) => run.tickets.extend(around.tickets(ticket)),
                            None => run.tickets.push(ticket),
                        }
                    });
                }
                (Part::Spread(parts), _) => self.spread_over(&mut runs, queued, parts),
                (Part::Nowhere(error), _) => self.error(error),
                (Part::Here, _) => flow = flow.and(self.run(&request)),
                _ => {
                    self.finish_runs(std::mem::take(&mut runs), &mut rest);
                    flow = flow.and(self.run(&request));
                }
            }
            if self.shared.monitors.is_watched() {
                self.tell_monitors(&request);
            }
            self.count();
        }
        self.finish_runs(runs, &mut rest);
        behind_locks::execute(rest.asked);
        flow
    }

    /// What stands around a script whose calls the node has to check.
    fn around(&self, queued: &Queued, node: usize) -> Option<Around> {
        let user = queued.user.as_ref()?;
        let is_script = queued.command.class == Class::Script;
        is_script.then(|| Around::new(user, self.node(node)))
    }

    /// Notes where the keys of a command are.
    fn find_keys(&mut self, queued: &Queued) {
        let positions = &mut self.positions;
        if command::key_positions(queued.command, &queued.request(), positions).is_err() {
            positions.clear();
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
                run.tickets.push(Ticket::Part(Arc::clone(&gather), part));
                run.add_part(queued, positions);
            });
        }
    }

    /// Ends a stretch: sends all runs, or hands out the replies to them if they were executed.
    fn finish_runs(&mut self, runs: Vec<Run<'_>>, rest: &mut Rest<'_>) {
        let together = rest.together.next();
        let is_all = rest.is_alone && runs.len() == 1;
        let Some(executed) = rest.executed.take() else {
            match together.filter(|together| !together.guests.is_empty()) {
                Some(together) => {
                    let asked = self.lock_stretch(runs, together, rest.is_alone);
                    rest.asked.extend(asked);
                }
                None => self.send_runs(runs, is_all),
            }
            return;
        };
        let came = Came {
            now: self.now,
            node_us: 0,
        };
        for run in runs {
            let part = executed.iter().find(|part| part.index == run.node);
            let frame = part.map(|part| part.frame.as_slice()).unwrap_or_default();
            let elements = elements(&self.replies, run.tickets, is_all);
            self.woken.extend(elements.fill(frame, came));
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
                let elements = elements(&self.replies, run.tickets, is_all);
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
            let elements = elements(&self.replies, run.tickets, is_all);
            let ticket = Ticket::Elements(Box::new(elements));
            let Run {
                wire,
                commands,
                keys,
                whole,
                ..
            } = run;
            entry.step(now, self.woken, |lane, step| {
                if whole && !step.table.rules().forwards_all() {
                    lane.whole_node(step, &wire, Extent::Transaction(commands), ticket);
                } else {
                    lane.forward(step, &keys, &wire, Effect::Transaction(commands), ticket);
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

/// Who waits for the elements of one node's reply.
pub(super) fn elements(replies: &Arc<Replies>, tickets: Vec<Ticket>, is_all: bool) -> Elements {
    Elements {
        replies: Arc::clone(replies),
        tickets,
        is_all,
    }
}

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
