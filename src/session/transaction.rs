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

use super::aside::{Answer, on_lane};
use super::dispatch::{Dispatch, Fate, Flow};
use super::reads::Changed;
use super::replies::Ticket;
use super::spread::is_whole;
use crate::command::{
    self, Class, Command, EveryNode, Flags, KeysError, Messages, Transaction as Bracket,
};
use crate::node::{Node, is_full, try_full};
use crate::resp::{Request, Span, encode, reply};

/// What a client has queued since `MULTI`.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) commands: Vec<Queued>,
    bytes: usize,
    /// The node of its keys, once there is one.
    node: Option<usize>,
    /// The node of scripts without keys, as outside of a transaction, where there is none.
    keyless: usize,
    /// A command was refused: so will be `EXEC`.
    pub(super) refused: bool,
    /// There is a command that concerns several databases.
    crosses: bool,
    /// There is a `SELECT`.
    pub(super) selects: bool,
}

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) command: &'static Command,
    wire: Box<[u8]>,
    spans: Box<[Span]>,
    pub(super) part: Part,
}

/// Where a queued command is executed.
#[derive(Debug)]
pub(super) enum Part {
    /// At this node, in one transaction with the others there.
    Node(usize),
    /// A script without keys: wherever the others are.
    Keyless,
    /// Here.
    Here,
    /// At each of these nodes for some of its keys, whose positions these are.
    Spread(Vec<(usize, Vec<usize>)>),
    /// As outside of a transaction.
    Apart,
    /// Nowhere: it can only fail, with this error.
    Nowhere(KeysError),
}

impl Transaction {
    /// Forgets what was queued; `EXEC` will be refused.
    fn refuse(&mut self) {
        self.refused = true;
        self.commands = Vec::new();
        self.bytes = 0;
    }

    /// The commands that are executed only if nothing that is watched has changed: the others
    /// follow where these were.
    pub(super) fn watched(&self) -> impl Iterator<Item = &Queued> {
        let before = |queued: &&Queued| !matches!(queued.part, Part::Apart);
        self.commands.iter().take_while(before)
    }

    /// Nodes that its commands are sent to.
    pub(super) fn nodes(&self) -> Vec<usize> {
        let mut nodes = Vec::new();
        for queued in &self.commands {
            nodes.extend(self.node_of(queued));
            if let Part::Spread(parts) = &queued.part {
                nodes.extend(parts.iter().map(|(node, _)| *node));
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    pub(super) fn node_of(&self, queued: &Queued) -> Option<usize> {
        match queued.part {
            Part::Node(node) => Some(node),
            Part::Keyless => Some(self.node.unwrap_or(self.keyless)),
            Part::Spread(_) | Part::Here | Part::Apart | Part::Nowhere(_) => None,
        }
    }
}

impl Queued {
    pub(super) fn request(&self) -> Request<'_> {
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
                    node: self.state.watches.first().map(|watch| watch.index),
                    keyless: self.shared.router.keyless(),
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
        if matches!(flow, Flow::Stall | Flow::Await) {
            return flow;
        }
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
        let nodes: Vec<usize> = match &part {
            Part::Node(node) => vec![*node],
            Part::Spread(parts) => parts.iter().map(|(node, _)| *node).collect(),
            _ => Vec::new(),
        };
        if let Some(flow) = self.refuse_for(&nodes) {
            return flow;
        }
        let most = self.shared.live().server.query_buffer_bytes;
        let Some(transaction) = &mut self.state.transaction else {
            return Flow::Continue;
        };
        if !transaction.refused {
            let spans = request.spans();
            let bytes = request.wire().len() + size_of_val(spans) + size_of::<Queued>();
            if transaction.bytes + bytes > most || transaction.commands.len() == MAX_COMMANDS {
                transaction.refuse();
                self.reject("ERR the transaction is too large");
                return Flow::Continue;
            }
            match &part {
                Part::Node(node) => _ = transaction.node.get_or_insert(*node),
                Part::Spread(parts) => {
                    let first = parts.first().map_or(0, |(node, _)| *node);
                    transaction.node.get_or_insert(first);
                }
                _ => {}
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

    /// Refuses a command if one of its nodes is busy with a script, or has no memory left: any
    /// command, as Redis does.
    fn refuse_for(&mut self, nodes: &[usize]) -> Option<Flow> {
        let takes_all = |at: &usize| {
            let node = self.node(*at);
            node.busy().is_none() && !node.may_be_full()
        };
        if self.state.aside.is_none() && nodes.iter().all(takes_all) {
            return None;
        }
        let nodes: Vec<_> = nodes.iter().map(|at| Arc::clone(self.node(*at))).collect();
        if let Some(text) = nodes.iter().find_map(|node| node.busy()) {
            // What was asked would be told behind the script.
            self.state.aside = None;
            self.refuse_transaction();
            self.reject(text.as_bytes());
            return Some(Flow::Continue);
        }
        if self.state.aside.is_none() {
            if self.replies.backlog().outstanding > 0 {
                return Some(Flow::Await);
            }
            self.begin_aside(ask_for_room(nodes), None);
        }
        let Some(answer) = self.poll_aside() else {
            return Some(Flow::Stall);
        };
        if !is_full(&answer.frame) {
            return None;
        }
        self.refuse_transaction();
        self.reject(reply::text(&answer.frame).unwrap_or_default());
        Some(Flow::Continue)
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
            // Redis looks for the function first, and executes it in no case.
            if command.name.starts_with("fcall") {
                return Ok(Part::Keyless);
            }
            return Ok(Part::Nowhere(error));
        }
        for at in &positions {
            if let Some(error) = Self::reserved(request.arg(*at)) {
                return Err(error.into());
            }
        }
        let parts = self.by_node(request, &positions);
        if parts.len() > 1 {
            return match command.class {
                Class::Script if self.shared.scripts.calls_nothing(request) => Ok(Part::Keyless),
                Class::PerNode { .. } | Class::MultiGet if !self.splits() => Err(CROSS_SLOT.into()),
                // Without a value for each key: its error.
                Class::PerNode { .. } if !is_whole(command, request, positions.len()) => {
                    Ok(Part::Apart)
                }
                Class::PerNode { .. } | Class::MultiGet => Ok(Part::Spread(parts)),
                _ => Err(CROSS_SLOT.into()),
            };
        }
        let index = parts.first().map(|(index, _)| *index);
        let whole = command::needs_whole_node(command, request);
        if whole && !self.state.watches.is_empty() {
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
    pub(super) fn splits(&self) -> bool {
        self.shared.live().transactions.cross_node == crate::config::CrossNode::Split
    }
}

/// Asks those nodes that may have no memory left: the error of one that has none, or anything.
async fn ask_for_room(nodes: Vec<Arc<Node<Ticket>>>) -> Answer {
    let mut frame = Vec::new();
    for node in nodes.iter().filter(|node| node.may_be_full()) {
        let wire = try_full();
        let asked = on_lane(node, |lane, step, ticket| {
            lane.keyless(step, &wire, ticket);
        });
        frame = asked.await;
        if is_full(&frame) {
            break;
        }
        node.set_may_be_full(reply::is_error(&frame));
    }
    Answer::of(frame)
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
