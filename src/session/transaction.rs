//! Commands between `MULTI` and `EXEC`: queued here, and sent as one transaction of their node.
//!
//! ```text
//!  MULTI  a  PING  b  EXEC          places of the array's elements: [a][PING][b]
//!                                                                    │    │    │
//!  MULTI a b EXEC ──> lane of the node of a and b                    └─<──┼──<─┘ the node's array
//!  PING ──> answered here ────────────────────────────────────────────────┘
//! ```
//!
//! A command that concerns every node is executed in its place as outside of a transaction; what
//! stands before and after it are transactions of their own.

use std::mem::size_of;
use std::sync::Arc;

use super::amount::delta;
use super::dispatch::{Dispatch, Fate, Flow, clamped};
use super::reads::Changed;
use super::replies::{Elements, Place, Ticket};
use crate::command::{
    self, Class, Command, EveryNode, Flags, KeysError, Messages, Transaction as Bracket,
};
use crate::counter::{Effect, Extent};
use crate::node::{Came, Refused};
use crate::resp::{Form, Request, Span, encode, reply};
use crate::telemetry::Use;

/// What a client has queued since `MULTI`.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    commands: Vec<Queued>,
    bytes: usize,
    /// The node of its keys, once there is one.
    node: Option<usize>,
    /// A command was refused: so will be `EXEC`.
    refused: bool,
    /// There is a command that concerns several databases.
    crosses: bool,
    /// There is a `SELECT`.
    selects: bool,
}

#[derive(Debug)]
struct Queued {
    command: &'static Command,
    wire: Box<[u8]>,
    spans: Box<[Span]>,
    part: Part,
}

/// Where a queued command is executed.
#[derive(Debug)]
enum Part {
    /// At this node, in one transaction with the others there.
    Node(usize),
    /// A script without keys: wherever the others are.
    Keyless,
    /// Here.
    Here,
    /// As outside of a transaction.
    Apart,
    /// Nowhere: it can only fail, with this error.
    Nowhere(KeysError),
}

/// The commands for one node that follow each other.
struct Run<'a> {
    node: usize,
    /// With the places of their replies.
    commands: Vec<(&'a Queued, Place)>,
}

impl Transaction {
    /// Forgets what was queued; `EXEC` will be refused.
    fn refuse(&mut self) {
        self.refused = true;
        self.commands = Vec::new();
        self.bytes = 0;
    }

    /// The commands for the node of the watched keys that are executed with the watch.
    fn watched(&self) -> impl Iterator<Item = &Queued> {
        let before = |queued: &&Queued| !matches!(queued.part, Part::Apart);
        let commands = self.commands.iter().take_while(before);
        commands.filter(|queued| self.node_of(queued).is_some())
    }

    /// Nodes that its commands are sent to.
    fn nodes(&self) -> Vec<usize> {
        let mut nodes: Vec<usize> = self
            .commands
            .iter()
            .filter_map(|queued| self.node_of(queued))
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    fn node_of(&self, queued: &Queued) -> Option<usize> {
        match queued.part {
            Part::Node(node) => Some(node),
            // As outside of a transaction: the first node.
            Part::Keyless => Some(self.node.unwrap_or(0)),
            Part::Here | Part::Apart | Part::Nowhere(_) => None,
        }
    }
}

impl Queued {
    fn request(&self) -> Request<'_> {
        Request::new(&self.wire, &self.spans)
    }
}

impl Dispatch<'_> {
    /// Whether the command is queued now, instead of executed.
    pub(super) fn queues(&self) -> bool {
        let command = self.command;
        self.state.transaction.is_some()
            && !matches!(command.class, Class::Transaction(bracket) if bracket != Bracket::Unwatch)
            && !matches!(command.name, "quit" | "reset")
    }

    /// A command was refused: the transaction, if there is one, will be.
    pub(super) fn refuse_transaction(&mut self) {
        if let Some(transaction) = &mut self.state.transaction {
            transaction.refuse();
        }
    }

    /// Whether a command of the transaction may change data, or publish.
    pub(super) fn transaction_may_change(&self) -> bool {
        let open = self.state.transaction.as_ref();
        let mut commands = open.into_iter().flat_map(|open| &open.commands);
        commands.any(|queued| self.may_change(queued.command, &queued.request()))
    }

    /// What the commands of the transaction read, and whether some of them may write what they
    /// read.
    pub(super) fn transaction_reads(&self) -> (Vec<Box<[u8]>>, bool) {
        let open = self.state.transaction.as_ref();
        let commands = open.into_iter().flat_map(|open| &open.commands);
        let mut all = (Vec::new(), false);
        for queued in commands {
            let (keys, may_write) = self.read_keys(queued.command, &queued.request());
            all.0.extend(keys);
            all.1 |= may_write;
        }
        all
    }

    /// What the commands of the transaction may change.
    pub(super) fn transaction_changes(&self) -> Changed {
        let mut all = Changed::Nothing;
        let open = self.state.transaction.as_ref();
        for queued in open.into_iter().flat_map(|open| &open.commands) {
            all.add(self.changes(queued.command, &queued.request()));
        }
        all
    }

    /// Whether `CLIENT CACHING` or `CLIENT TRACKING` is in the transaction.
    pub(super) fn transaction_opts(&self) -> bool {
        let open = self.state.transaction.as_ref();
        let mut commands = open.into_iter().flat_map(|open| &open.commands);
        commands.any(|queued| matches!(queued.command.name, "client|caching" | "client|tracking"))
    }

    /// `MULTI` and its kin.
    pub(super) fn bracket(&mut self, bracket: Bracket, request: &Request<'_>) -> Flow {
        match bracket {
            Bracket::Exec => return self.exec(),
            Bracket::Watch => return self.watch(request),
            Bracket::Unwatch => {
                self.unwatch();
                self.status("OK");
            }
            Bracket::Multi if self.state.transaction.is_some() => {
                self.error("ERR MULTI calls can not be nested");
            }
            Bracket::Multi => {
                self.state.transaction = Some(Transaction {
                    node: self.state.watch.as_ref().map(|watch| watch.index),
                    ..Transaction::default()
                });
                self.status("OK");
            }
            Bracket::Discard => match self.state.transaction.take() {
                Some(_) => {
                    self.unwatch();
                    self.status("OK");
                }
                None => self.error("ERR DISCARD without MULTI"),
            },
        }
        Flow::Continue
    }

    /// `EXEC` with arguments, which ends the transaction (`rejectCommand` in `server.c`).
    pub(super) fn abort(&mut self, error: &[u8]) {
        self.state.transaction = None;
        let cause = error.strip_prefix(b"ERR ").unwrap_or(error);
        self.error([b"EXECABORT Transaction discarded because of: ", cause].concat());
    }

    fn status(&mut self, text: &str) {
        if self.client.finish_command() {
            encode::simple(self.made, text);
        }
    }

    /// Takes a command into the transaction.
    pub(super) fn queue(&mut self, request: &Request<'_>) -> Flow {
        let flow = self.enqueue(request);
        self.tally.commands += 1;
        if std::mem::take(&mut self.fate) == Fate::Rejected {
            self.shared.stats.commands.reject(self.command);
        }
        flow
    }

    fn enqueue(&mut self, request: &Request<'_>) -> Flow {
        let command = self.command;
        let part = match self.part(command, request) {
            Ok(part) => part,
            Err(text) => {
                self.refuse_transaction();
                self.reject(text);
                return Flow::Continue;
            }
        };
        let most = self.shared.live().server.query_buffer_bytes;
        let nodes = self.nodes;
        let busy = |node: usize| nodes.get(node).and_then(|node| node.busy());
        let Some(transaction) = &mut self.state.transaction else {
            return Flow::Continue;
        };
        if let Part::Node(node) = part
            && let Some(text) = busy(node)
        {
            transaction.refuse();
            self.reject(text.as_bytes());
            return Flow::Continue;
        }
        if !transaction.refused {
            let spans = request.spans();
            let bytes = request.wire().len() + size_of_val(spans) + size_of::<Queued>();
            if transaction.bytes + bytes > most || transaction.commands.len() == MAX_COMMANDS {
                transaction.refuse();
                self.reject("ERR the transaction is too large");
                return Flow::Continue;
            }
            if let Part::Node(node) = part {
                transaction.node.get_or_insert(node);
            }
            transaction.crosses |= crosses(command);
            transaction.selects |= command.name == "select";
            transaction.bytes += bytes;
            transaction.commands.push(Queued {
                command,
                wire: request.wire().into(),
                spans: spans.into(),
                part,
            });
        }
        self.status("QUEUED");
        Flow::Continue
    }

    /// Where the command is to be executed, or why the transaction is refused.
    fn part(&self, command: &Command, request: &Request<'_>) -> Result<Part, String> {
        if command.flags.contains(Flags::NO_MULTI) || command.name == "client|reply" {
            // A reply that is left out would break the array.
            return Err(NOT_INSIDE.into());
        }
        match command.class {
            Class::Refused(refusal) => return Err(refusal.text(command)),
            // What follows goes to other lanes.
            Class::Local if command.name == "select" => return Ok(Part::Apart),
            Class::Local | Class::Transaction(_) => return Ok(Part::Here),
            // They have as many replies as channels.
            Class::PubSub(Messages::Subscribe(_) | Messages::Unsubscribe(_)) => {
                return Err(NOT_INSIDE.into());
            }
            // Each stops all lanes for itself.
            Class::EveryNode(_) if crosses(command) && self.has(|open| open.crosses) => {
                return Err(TWICE.into());
            }
            Class::EveryNode(_) | Class::AnyNode | Class::PubSub(_) | Class::Own(_) => {
                return Ok(Part::Apart);
            }
            Class::Increment(_)
            | Class::Get
            | Class::MultiGet
            | Class::Peek
            | Class::Keyed
            | Class::PerNode { .. }
            | Class::Script => {}
        }
        let other = command::other_database(command, request);
        let own = i64::from(self.client.database());
        if other.is_some_and(|other| other != own || self.has(|open| open.selects)) {
            return Err(OTHER_DATABASE.into());
        }
        let mut positions = Vec::new();
        if let Err(error) = command::key_positions(command, request, &mut positions) {
            return Ok(Part::Nowhere(error));
        }
        let mut index = None;
        for at in positions {
            let key = request.arg(at);
            if let Some(error) = Self::reserved(key) {
                return Err(error.into());
            }
            let here = self.shared.router.index(key);
            if *index.get_or_insert(here) != here {
                return match command.class {
                    Class::PerNode { .. } | Class::MultiGet if self.splits() => Ok(Part::Apart),
                    _ => Err(CROSS_SLOT.into()),
                };
            }
        }
        let whole = command::needs_whole_node(command, request);
        if whole && self.state.watch.is_some() {
            return Err(UNNAMED_WATCHED.into());
        }
        let Some(index) = index else {
            return Ok(Part::Keyless);
        };
        let mut patterns = command::key_patterns(command, request);
        if patterns.any(|pattern| !self.shared.router.holds_all(pattern, index)) {
            return Err(CROSS_SLOT_PATTERN.into());
        }
        let node = self.state.transaction.as_ref().and_then(|open| open.node);
        if node.is_some_and(|node| node != index) && !self.splits() {
            return Err(CROSS_SLOT.into());
        }
        Ok(Part::Node(index))
    }

    fn has(&self, what: fn(&Transaction) -> bool) -> bool {
        self.state.transaction.as_ref().is_some_and(what)
    }

    /// Whether the parts of a transaction on several nodes are executed as one each.
    fn splits(&self) -> bool {
        self.state.watch.is_none()
            && self.shared.live().transactions.cross_node == crate::config::CrossNode::Split
    }

    /// `EXEC`. Nothing is executed while a node that is needed is away or has no room.
    fn exec(&mut self) -> Flow {
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
        let mut nodes = transaction.nodes().into_iter();
        if let Some(text) = nodes.find_map(|at| self.node(at).busy()) {
            self.abort(text.as_bytes());
            return Flow::Continue;
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
                    let place = self.place(queued.command.form_of(&request));
                    if let Some(element) = executed.as_mut().and_then(Iterator::next) {
                        self.note_increment(queued.command, &request);
                        self.woken.extend(place.fill(element));
                        self.count();
                        continue;
                    }
                    match runs.iter_mut().find(|run| run.node == node) {
                        Some(run) => run.commands.push((queued, place)),
                        None => runs.push(Run {
                            node,
                            commands: vec![(queued, place)],
                        }),
                    }
                }
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

    fn send_runs(&mut self, runs: Vec<Run<'_>>, is_all: bool) {
        for run in runs {
            self.send_run(run, is_all);
        }
    }

    fn send_run(&mut self, run: Run<'_>, is_all: bool) {
        let Run {
            node: index,
            commands,
        } = run;
        let count = u32::try_from(commands.len()).unwrap_or(u32::MAX);
        let mut places = Vec::with_capacity(commands.len());
        let mut wire = Vec::new();
        let mut keys = Vec::new();
        let mut positions = Vec::new();
        let (mut whole, mut has_script) = (false, false);
        let mut names = Vec::new();
        encode::request(&mut wire, &[b"MULTI"]);
        for (queued, place) in commands {
            places.push(place);
            let request = queued.request();
            wire.extend_from_slice(request.wire());
            if command::key_positions(queued.command, &request, &mut positions).is_ok() {
                keys.extend(positions.iter().map(|at| request.arg(*at)));
            }
            whole |= command::needs_whole_node(queued.command, &request);
            has_script |= queued.command.class == Class::Script;
            match queued.command.name {
                "evalsha" | "evalsha_ro" => names.push(request.arg(1)),
                "eval" | "eval_ro" => self.shared.scripts.brought(request.arg(1)),
                _ => {}
            }
            self.note_increment(queued.command, &request);
        }
        encode::request(&mut wire, &[b"EXEC"]);
        let elements = Box::new(Elements { places, is_all });
        let (waker, now) = (self.waker, self.now);
        let (entry, woken) = self.lane(index);
        if let Err(Refused::Failed(text)) = entry.admit(waker) {
            // It went away since the transaction was admitted.
            let mut frame = Vec::new();
            encode::error(&mut frame, text.as_bytes());
            woken.extend(elements.fill(&frame, Came { now, node_us: 0 }));
            return;
        }
        for name in names {
            self.remind(index, name);
        }
        let (entry, woken) = self.lane(index);
        if has_script {
            entry.note_script();
        }
        let ticket = Ticket::Elements(elements);
        entry.step(now, woken, |lane, step| {
            if whole && !step.table.rules().forwards_all() {
                lane.whole_node(step, &wire, Extent::Transaction(count), ticket);
            } else {
                lane.forward(step, &keys, &wire, Effect::Transaction(count), ticket);
            }
        });
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

/// Whether a command stops lanes of several databases.
fn crosses(command: &Command) -> bool {
    let class = command.class;
    matches!(
        class,
        Class::EveryNode(EveryNode::FlushAll | EveryNode::SwapDb)
    )
}

/// Most commands of a transaction: as many as a request may have arguments.
const MAX_COMMANDS: usize = 1 << 20;

/// Redis's words (`processCommand` in `server.c`).
const NOT_INSIDE: &str = "ERR Command not allowed inside a transaction";

const OTHER_DATABASE: &str =
    "ERR MOVE and COPY to another database are not available inside a transaction";
const TWICE: &str = "ERR more than one FLUSHALL or SWAPDB in a transaction";
/// The watched keys are of the database before.
pub(super) const SELECT_WATCHED: &str =
    "ERR SELECT of another database after WATCH is not supported by Tally";

/// A script may touch keys there that are not watched, or not written through.
const UNNAMED_WATCHED: &str = "ERR a command that may use keys which it does not name is not \
    allowed in a transaction after WATCH";

pub(super) const CROSS_SLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";
const CROSS_SLOT_PATTERN: &str =
    "CROSSSLOT Keys of a pattern may belong to several nodes: use a hash tag";
