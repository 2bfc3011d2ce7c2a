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
use super::spread::{grouped, is_whole};
use super::together::Together;
use super::users::User;
use crate::command::{self, Class, Command, EveryNode, Flags, Messages, Transaction as Bracket};
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
    /// How many commands concern several databases.
    crossings: usize,
    /// There is a `SELECT`.
    pub(super) selects: bool,
    /// There is a command whose own keys are of several nodes.
    pub(super) joins: bool,
    /// What each stretch has at one node, if there is such a command.
    pub(super) together: Vec<Together>,
}

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) command: &'static Command,
    wire: Box<[u8]>,
    spans: Box<[Span]>,
    pub(super) part: Part,
    /// Who executes it, if a node has to check what a script calls; known from `EXEC` on.
    pub(super) user: Option<Arc<User>>,
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
    /// At one node, though its keys are of these: see [`Together`].
    Joint(Vec<usize>),
    /// As outside of a transaction.
    Apart,
    /// Nowhere: it can only fail, with this error.
    Nowhere(String),
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
            nodes.extend(queued.part.nodes());
        }
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    pub(super) fn node_of(&self, queued: &Queued) -> Option<usize> {
        match queued.part {
            Part::Node(node) => Some(node),
            Part::Keyless => Some(self.node.unwrap_or(self.keyless)),
            Part::Spread(_) | Part::Joint(_) | Part::Here | Part::Apart | Part::Nowhere(_) => None,
        }
    }
}

impl Part {
    /// The parts of a command whose keys, at these positions, are at these places.
    pub(super) fn over(positions: &[usize], place: impl Fn(usize) -> usize) -> Self {
        let parts = grouped(positions, place);
        match parts.as_slice() {
            [(node, _)] => Self::Node(*node),
            _ => Self::Spread(parts),
        }
    }

    /// The nodes of its keys.
    fn nodes(&self) -> Vec<usize> {
        match self {
            Self::Node(node) => vec![*node],
            Self::Spread(parts) => parts.iter().map(|(node, _)| *node).collect(),
            Self::Joint(nodes) => nodes.clone(),
            Self::Keyless | Self::Here | Self::Apart | Self::Nowhere(_) => Vec::new(),
        }
    }
}

impl Queued {
    pub(super) fn request(&self) -> Request<'_> {
        Request::new(&self.wire, &self.spans)
    }

    /// The node where all its keys are to be brought, if they are of several.
    pub(super) fn joint(&self) -> Option<usize> {
        match &self.part {
            Part::Joint(nodes) => nodes.first().copied(),
            _ => None,
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let request = self.request();
        let mut positions = Vec::new();
        // Where they can not be told there are none.
        _ = command::key_positions(self.command, &request, &mut positions);
        positions.into_iter().map(move |at| request.arg(at))
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
        let nodes = part.nodes();
        if let Some(flow) = self.refuse_for(&nodes) {
            return flow;
        }
        let most = self.shared.live().server.query_buffer_bytes;
        let crosses = self.crosses(command, request);
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
            transaction.node = transaction.node.or_else(|| nodes.first().copied());
            transaction.joins |= matches!(part, Part::Joint(_));
            transaction.crossings += usize::from(crosses);
            transaction.selects |= command.name == "select";
            transaction.bytes += bytes;
            transaction.commands.push(Queued {
                command,
                wire: request.wire().into(),
                spans: spans.into(),
                part,
                user: None,
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
        // Each stops lanes for itself, and has a task.
        if self.crosses(command, request) && self.has(|open| open.crossings == MAX_CROSSINGS) {
            return Err(MANY_CROSSINGS.into());
        }
        match command.class {
            Class::Refused(refusal) => Err(refusal.text(command)),
            // What follows goes to other lanes.
            Class::Local if command.name == "select" => Ok(Part::Apart),
            Class::Local | Class::Transaction(_) => Ok(Part::Here),
            // They have as many replies as channels.
            Class::PubSub(Messages::Subscribe(_) | Messages::Unsubscribe(_)) => {
                Err(NOT_INSIDE.into())
            }
            Class::EveryNode(_) | Class::AnyNode | Class::PubSub(_) | Class::Own(_) => {
                Ok(Part::Apart)
            }
            Class::Increment(_)
            | Class::Get
            | Class::MultiGet
            | Class::Peek
            | Class::Keyed
            | Class::PerNode { .. }
            | Class::Script => self.part_by_keys(command, request),
        }
    }

    /// The same for a command that may have keys.
    fn part_by_keys(&self, command: &Command, request: &Request<'_>) -> Result<Part, String> {
        let mut positions = Vec::new();
        if let Err(error) = command::key_positions(command, request, &mut positions) {
            // Redis looks for the function first, and executes it in no case.
            if command.name.starts_with("fcall") {
                return Ok(Part::Keyless);
            }
            return Ok(Part::Nowhere(error.to_string()));
        }
        for at in &positions {
            if let Some(error) = Self::reserved(request.arg(*at)) {
                return Err(error.into());
            }
        }
        let parts = self.by_node(request, &positions);
        let crosses = self.crosses(command, request);
        if parts.len() > 1 {
            return match command.class {
                _ if crosses => Err(OTHER_DATABASE.into()),
                Class::Script if self.shared.scripts.calls_nothing(request) => Ok(Part::Keyless),
                Class::PerNode { .. } | Class::MultiGet if !self.splits() => Err(CROSS_SLOT.into()),
                // Without a value for each key: its error.
                Class::PerNode { .. } if !is_whole(command, request, positions.len()) => {
                    Ok(Part::Apart)
                }
                Class::PerNode { .. } | Class::MultiGet => Ok(Part::Spread(parts)),
                _ if !self.splits() => Err(CROSS_SLOT.into()),
                _ if command::needs_whole_node(command, request) => Err(CROSS_SLOT_PATTERN.into()),
                _ => Ok(Part::Joint(
                    parts.into_iter().map(|(node, _)| node).collect(),
                )),
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
        Ok(if crosses {
            Part::Apart
        } else {
            Part::Node(index)
        })
    }

    /// Whether a command stops lanes of several databases.
    fn crosses(&self, command: &Command, request: &Request<'_>) -> bool {
        let own = i64::from(self.client.database());
        let other = command::other_database(command, request);
        let is_over_all = matches!(
            command.class,
            Class::EveryNode(EveryNode::FlushAll | EveryNode::SwapDb)
        );
        is_over_all || other.is_some_and(|other| other != own || self.has(|open| open.selects))
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

/// Most commands of a transaction: as many as a request may have arguments.
const MAX_COMMANDS: usize = 1 << 20;

/// Redis's words (`processCommand` in `server.c`).
const NOT_INSIDE: &str = "ERR Command not allowed inside a transaction";

/// Most commands of a transaction that concern several databases: each has a task for each node.
const MAX_CROSSINGS: usize = 64;

const OTHER_DATABASE: &str = "ERR COPY to another database of a key on another node is not available \
    inside a transaction";
const MANY_CROSSINGS: &str = "ERR too many commands over several databases in a transaction";
/// The watched keys are of the database before.
pub(super) const SELECT_WATCHED: &str =
    "ERR SELECT of another database after WATCH is not supported by Tally";

/// A script may touch keys there that are not watched, or not written through.
const UNNAMED_WATCHED: &str = "ERR a command that may use keys which it does not name is not \
    allowed in a transaction after WATCH";

pub(super) const CROSS_SLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";
const CROSS_SLOT_PATTERN: &str =
    "CROSSSLOT Keys of a pattern may belong to several nodes: use a hash tag";
