//! Requests that concern several nodes: split, sent, and their replies gathered.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use super::dispatch::{Dispatch, Flow};
use super::local::{InfoText, NodeConfig, NodeKeyspace, finish_info};
use super::replies::{Place, Ticket};
use crate::command::{self, Class, Command, EveryNode, Flags, Merge, Policy};
use crate::counter::{Effect, Extent};
use crate::fan_out::{self, Cursor, Gather};
use crate::flush::RESERVED_PREFIX;
use crate::node::{Came, Deliver, Node, Refused};
use crate::resp::{Form, Request, encode, parse_i64, reply};

impl Dispatch<'_> {
    /// `DEL`, `EXISTS`, `MSET` and their kin: one command for each node that has some of the keys.
    pub(super) fn per_node(
        &mut self,
        command: &Command,
        request: &Request<'_>,
        peek: bool,
    ) -> Flow {
        let mut positions = Vec::new();
        if let Err(error) = command::key_positions(command, request, &mut positions) {
            self.error(error.to_string());
            return Flow::Continue;
        }
        if !is_whole(command, request, positions.len()) {
            // An odd number of arguments: the error is Redis's.
            self.error(command::LookupError::Arity.text(request));
            return Flow::Continue;
        }
        let parts = self.by_node(request, &positions);
        let keys = parts.iter().flat_map(|(_, positions)| positions);
        if let Some(flow) = self.admit_all(keys.map(|at| request.arg(*at))) {
            return flow;
        }
        let effect = if peek { Effect::Peek } else { Effect::Barrier };
        let place = self.place(command.form);
        let gather = Gather::new(parts.len(), place, merge_of(command, &parts));
        for (part, (index, positions)) in parts.into_iter().enumerate() {
            let keys: Vec<&[u8]> = positions.iter().map(|at| request.arg(*at)).collect();
            let wire = for_keys(command, request, &positions);
            let ticket = Ticket::Part(Arc::clone(&gather), part);
            let now = self.now;
            let (entry, woken) = self.lane(index);
            entry.step(now, woken, |lane, step| {
                lane.forward(step, &keys, &wire, effect, ticket);
            });
        }
        Flow::Continue
    }

    /// The arguments at these positions by the nodes of their keys, each node in the order in which
    /// it comes first.
    pub(super) fn by_node(
        &self,
        request: &Request<'_>,
        positions: &[usize],
    ) -> Vec<(usize, Vec<usize>)> {
        grouped(positions, |at| self.shared.router.index(request.arg(at)))
    }

    /// A command for all nodes.
    pub(super) fn every_node(
        &mut self,
        command: &Command,
        kind: EveryNode,
        request: &Request<'_>,
    ) -> Flow {
        let merge = match kind {
            EveryNode::DbSize => return self.db_size(command, request),
            EveryNode::Keys => fan_out::keys(),
            EveryNode::ScriptExists => return self.script_exists(command, request),
            EveryNode::RandomKey => return self.random_key(command),
            EveryNode::FlushAll if self.shared.config.server.databases > 1 => {
                return self.flush_all(command, request);
            }
            EveryNode::SwapDb => return self.swap_databases(command, request),
            EveryNode::FlushAll
            | EveryNode::FlushDb
            | EveryNode::ScriptLoad
            | EveryNode::ScriptFlush
            | EveryNode::Save
            | EveryNode::Purge
            | EveryNode::Function => fan_out::first(),
            EveryNode::LastSave => fan_out::folded(i64::min),
            EveryNode::Told(policy) => merge_by(policy),
            EveryNode::Scan => return self.scan(command, request),
            EveryNode::Wait => return self.wait(command, request),
            EveryNode::Kill => return self.ask_past_lanes(command, request),
        };
        match kind {
            EveryNode::ScriptLoad => self.shared.scripts.brought(request.arg(2)),
            EveryNode::ScriptFlush => self.shared.scripts.forget(),
            _ => {}
        }
        let has = |flag: &Flags| command.flags.contains(*flag);
        let extent = match kind {
            EveryNode::FlushAll | EveryNode::FlushDb => Extent::Wipe,
            EveryNode::Save => Extent::AnyKey,
            EveryNode::Told(_) if [Flags::WRITE, Flags::READONLY].iter().any(has) => Extent::AnyKey,
            _ => Extent::Ordered,
        };
        if let Some(flow) = self.admit_every() {
            return flow;
        }
        let place = self.place(command.form);
        // With one database only, what else is on the nodes is not Tally's.
        let flush_db = (kind == EveryNode::FlushAll).then(|| renamed(request, b"FLUSHDB"));
        let wire = flush_db.as_deref().unwrap_or_else(|| request.wire());
        self.send_every(wire, extent, place, merge);
        if kind == EveryNode::Function {
            self.learn_functions();
        }
        Flow::Continue
    }

    /// `SCRIPT EXISTS`. A script that a client brought by `EVAL` may be on one node only, so every node
    /// is given what it lacks first: the answer is that of all nodes then, and 0 for a text that does
    /// not compile.
    fn script_exists(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        if let Some(flow) = self.admit_every() {
            return flow;
        }
        for index in 0..self.nodes.len() {
            for name in request.args().skip(2) {
                self.remind(index, name);
            }
        }
        let place = self.place(command.form);
        self.send_every(
            request.wire(),
            Extent::Ordered,
            place,
            fan_out::folded(i64::min),
        );
        Flow::Continue
    }

    /// `DBSIZE`: the keys of every node, without the one that Tally keeps there.
    fn db_size(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        if let Some(flow) = self.admit_every() {
            return flow;
        }
        let place = self.place(command.form);
        let count = self.nodes.len();
        let gather = Gather::new(2 * count, place, fan_out::count_keys());
        for index in 0..count {
            let (waker, now) = (self.waker, self.now);
            let (entry, woken) = self.lane(index);
            let all = Ticket::Part(Arc::clone(&gather), 2 * index);
            let own = Ticket::Part(Arc::clone(&gather), 2 * index + 1);
            if let Err(Refused::Failed(text)) = entry.admit(waker) {
                let mut frame = Vec::new();
                encode::error(&mut frame, text.as_bytes());
                woken.extend(all.deliver(&frame, Came::here(now)));
                woken.extend(own.deliver(&frame, Came::here(now)));
                continue;
            }
            entry.step(now, woken, |lane, step| {
                let mut exists = Vec::new();
                encode::request(&mut exists, &[b"EXISTS".as_slice(), lane.marker()]);
                lane.keyless(step, request.wire(), all);
                lane.keyless(step, &exists, own);
            });
        }
        Flow::Continue
    }

    /// `RANDOMKEY`: a key of any node, but none of those that Tally keeps.
    fn random_key(&mut self, command: &Command) -> Flow {
        if let Some(flow) = self.admit_every() {
            return flow;
        }
        let mut wire = Vec::new();
        let request = [b"EVAL".as_slice(), RANDOM_KEY, b"0", RESERVED_PREFIX];
        encode::request(&mut wire, &request);
        let place = self.place(command.form);
        self.send_every(&wire, Extent::Ordered, place, fan_out::any_string(random()));
        Flow::Continue
    }

    /// `SCAN`: the cursor carries the node. A scan that begins at a node may also end there, so the
    /// nodes behind it are asked at the same time: a small database is told in one reply, as by one
    /// Redis. Where the first node has enough to tell, the answers of the others are dropped, which
    /// happens once for each node in a whole scan.
    fn scan(&mut self, command: &Command, request: &Request<'_>) -> Flow {
        let Some(cursor) = fan_out::parse_cursor(request.arg(1)) else {
            self.error("ERR invalid cursor");
            return Flow::Continue;
        };
        let nodes = self.nodes.len();
        let from = Cursor::of(cursor, nodes);
        let last = match from.inner {
            0 => nodes.min(from.node + SCANNED_AHEAD),
            _ => from.node + 1,
        };
        if let Some(flow) = self.admit(from.node) {
            return flow;
        }
        let place = self.place(command.form);
        let merge = fan_out::scan(from, nodes, scan_count(request));
        let gather = Gather::new(last - from.node, place, merge);
        let now = self.now;
        for (part, index) in (from.node..last).enumerate() {
            let inner = if part == 0 { from.inner } else { 0 };
            let inner = inner.to_string();
            let mut args: Vec<&[u8]> = request.args().collect();
            if let Some(cursor) = args.get_mut(1) {
                *cursor = inner.as_bytes();
            }
            let mut wire = Vec::new();
            encode::request(&mut wire, &args);
            let ticket = Ticket::Part(Arc::clone(&gather), part);
            let waker = self.waker;
            let (entry, woken) = self.lane(index);
            if let Err(Refused::Failed(text)) = entry.admit(waker) {
                let mut frame = Vec::new();
                encode::error(&mut frame, text.as_bytes());
                woken.extend(ticket.deliver(&frame, Came::here(now)));
                continue;
            }
            entry.step(now, woken, |lane, step| lane.keyless(step, &wire, ticket));
        }
        Flow::Continue
    }

    /// What of INFO is the nodes', without the keys that Tally keeps there. A node that is away is
    /// left out.
    pub(super) fn info_of_nodes(&mut self, info: InfoText) {
        self.leave();
        let place = self.place(Form::Plain);
        let wire = info.wire();
        // For each server the session's lane, then the lane of each database.
        let (own, shared) = (self.client.database(), self.shared);
        let mut asked = Vec::new();
        for (server, node) in self.nodes.iter().enumerate() {
            asked.push((node, None));
            let lanes = shared.router.server(server);
            let lanes = lanes.filter(|node| node.database() == own || !node.is_away());
            asked.extend(lanes.map(|lane| (lane, Some(lane.database()))));
        }
        let first: Vec<_> = shared
            .config
            .nodes
            .iter()
            .map(|node| node.database)
            .collect();
        let databases = shared.config.server.databases;
        let whose: Vec<_> = asked.iter().map(|(_, database)| *database).collect();
        let merge: fan_out::Merge = Box::new(move |parts, place| {
            let mut nodes: Vec<NodeKeyspace<'_>> = Vec::new();
            for (frame, database) in parts.frames().zip(whose) {
                match (database, nodes.last_mut()) {
                    (None, _) => nodes.push(NodeKeyspace {
                        told: frame,
                        first: first.get(nodes.len()).copied().unwrap_or_default(),
                        databases,
                        own: Vec::new(),
                    }),
                    (Some(database), Some(node)) => node.own.push((database, frame)),
                    (Some(_), None) => {}
                }
            }
            nodes.retain(|node| !reply::is_error(node.told));
            let mut out = Vec::new();
            finish_info(info, &nodes, &mut out);
            place.fill(&out)
        });
        let gather = Gather::new(asked.len(), place, merge);
        for (part, (node, database)) in asked.into_iter().enumerate() {
            let mut entry = node.enter();
            let ticket = Ticket::Part(Arc::clone(&gather), part);
            if let Err(Refused::Failed(text)) = entry.admit(self.waker) {
                let mut frame = Vec::new();
                encode::error(&mut frame, text.as_bytes());
                self.woken
                    .extend(ticket.deliver(&frame, Came::here(self.now)));
                continue;
            }
            entry.step(self.now, self.woken, |lane, step| {
                let mut request = Vec::new();
                if database.is_some() {
                    encode::request(&mut request, &[b"PTTL".as_slice(), lane.marker()]);
                } else {
                    request.clone_from(&wire);
                }
                lane.keyless(step, &request, ticket);
            });
            drop(entry);
            if node.schedule() {
                shared.send_soon(node);
            }
        }
    }

    /// `CONFIG GET` or `SET` of options that are the nodes' own.
    pub(super) fn node_config(&mut self, config: NodeConfig) {
        if let Some(before) = config.before() {
            return self.set_config(&config, before);
        }
        let place = self.place(Form::Plain);
        let wire = config.wire().to_vec();
        let merge: fan_out::Merge = Box::new(move |parts, place| {
            let mut out = Vec::new();
            config.finish(parts.frames(), &mut out);
            place.fill(&out)
        });
        self.send_every(&wire, Extent::Ordered, place, merge);
    }

    /// Sends the same request to every node of the session's database.
    pub(super) fn send_every(
        &mut self,
        wire: &[u8],
        extent: Extent,
        place: Place,
        merge: fan_out::Merge,
    ) {
        let nodes: Vec<_> = self.nodes.iter().collect();
        self.send_lanes(&nodes, wire, extent, place, merge);
    }

    /// Sends the same request to these lanes. A part whose node is away fails at once.
    pub(super) fn send_lanes(
        &mut self,
        lanes: &[&Arc<Node<Ticket>>],
        wire: &[u8],
        extent: Extent,
        place: Place,
        merge: fan_out::Merge,
    ) {
        self.leave();
        let gather = Gather::new(lanes.len(), place, merge);
        for (part, node) in lanes.iter().enumerate() {
            let mut entry = node.enter();
            if let Err(Refused::Failed(text)) = entry.admit(self.waker) {
                let mut frame = Vec::new();
                encode::error(&mut frame, text.as_bytes());
                let came = Came::here(self.now);
                self.woken.extend(gather.part(part, &frame, came));
                continue;
            }
            let ticket = Ticket::Part(Arc::clone(&gather), part);
            entry.step(self.now, self.woken, |lane, step| match extent {
                Extent::Ordered => lane.keyless(step, wire, ticket),
                extent => lane.whole_node(step, wire, extent, ticket),
            });
            drop(entry);
            if node.schedule() {
                self.shared.send_soon(node);
            }
        }
    }

    /// As [`Dispatch::admit`], for the nodes of all these keys.
    pub(super) fn admit_all<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) -> Option<Flow> {
        let mut seen = Vec::new();
        for key in keys {
            if let Some(flow) = self.refuse_reserved(key) {
                return Some(flow);
            }
            let index = self.shared.router.index(key);
            if !seen.contains(&index) {
                seen.push(index);
            }
        }
        seen.into_iter().find_map(|index| self.admit(index))
    }

    /// As [`Dispatch::admit`], for all nodes.
    pub(super) fn admit_every(&mut self) -> Option<Flow> {
        (0..self.nodes.len()).find_map(|index| self.admit(index))
    }
}

/// The positions by their places, each place in the order in which it comes first.
pub(super) fn grouped(
    positions: &[usize],
    place: impl Fn(usize) -> usize,
) -> Vec<(usize, Vec<usize>)> {
    let mut parts: Vec<(usize, Vec<usize>)> = Vec::new();
    for at in positions {
        let index = place(*at);
        match parts.iter_mut().find(|(node, _)| *node == index) {
            Some((_, positions)) => positions.push(*at),
            None => parts.push((index, vec![*at])),
        }
    }
    parts
}

/// How many keys a `SCAN` asks for. What is malformed is for the node to refuse.
fn scan_count(request: &Request<'_>) -> usize {
    let args: Vec<&[u8]> = request.args().skip(2).collect();
    let mut pairs = args.chunks_exact(2).filter_map(|pair| match pair {
        [name, value] if name.eq_ignore_ascii_case(b"count") => parse_i64(value),
        _ => None,
    });
    let count = pairs.next_back().map(usize::try_from);
    count.unwrap_or(Ok(SCAN_COUNT)).unwrap_or(0)
}

/// Redis's default for `COUNT` (`scanGenericCommand` in `db.c`).
const SCAN_COUNT: usize = 10;

/// Most nodes that one `SCAN` asks.
const SCANNED_AHEAD: usize = 16;

/// How many arguments belong to a key, itself included.
fn stride(command: &Command) -> usize {
    if command.name == "mset" { 2 } else { 1 }
}

/// Whether each of so many keys has all its arguments.
pub(super) fn is_whole(command: &Command, request: &Request<'_>, keys: usize) -> bool {
    request.len() == 1 + keys * stride(command)
}

/// The command for the keys at these positions alone.
pub(super) fn for_keys(command: &Command, request: &Request<'_>, positions: &[usize]) -> Vec<u8> {
    let stride = stride(command);
    let mut wire = Vec::new();
    encode::array(&mut wire, 1 + positions.len() * stride);
    encode::bulk(&mut wire, request.arg(0));
    for at in positions {
        for arg in *at..at + stride {
            encode::bulk(&mut wire, request.arg(arg));
        }
    }
    wire
}

/// How the replies of several nodes become one. `parts` are the nodes, each with the positions of
/// the arguments that it was asked for.
pub(super) fn merge_of(command: &Command, parts: &[(usize, Vec<usize>)]) -> fan_out::Merge {
    match command.class {
        Class::PerNode {
            merge: Merge::Sum, ..
        } => fan_out::folded(i64::saturating_add),
        Class::MultiGet => fan_out::interleaved(parts.iter().map(|(_, at)| at.clone()).collect()),
        _ => fan_out::first(),
    }
}

/// The same by what a node has told.
fn merge_by(policy: Policy) -> fan_out::Merge {
    match policy {
        Policy::Joined => fan_out::joined(),
        Policy::Succeeded => fan_out::first(),
        Policy::Sum => fan_out::folded(i64::saturating_add),
        Policy::Least => fan_out::folded(i64::min),
        Policy::Greatest => fan_out::folded(i64::max),
    }
}

/// The request under another name.
fn renamed(request: &Request<'_>, name: &[u8]) -> Vec<u8> {
    let arguments: Vec<&[u8]> = std::iter::once(name)
        .chain(request.args().skip(1))
        .collect();
    let mut wire = Vec::new();
    encode::request(&mut wire, &arguments);
    wire
}

/// A script: a random key of the node that does not begin with the argument. With one key beside
/// Tally's own, a hundred tries miss it once in 2^100.
const RANDOM_KEY: &[u8] = b"for _ = 1, 100 do \
    local key = redis.call('RANDOMKEY') \
    if not key then return false end \
    if string.sub(key, 1, #ARGV[1]) ~= ARGV[1] then return key end \
end \
return false";

/// Which node is asked first for a random key.
fn random() -> usize {
    let random = RandomState::new().build_hasher().finish();
    usize::try_from(random % 64).unwrap_or(0)
}
