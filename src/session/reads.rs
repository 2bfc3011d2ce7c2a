//! What each request means for clients that track keys: which reads are noted, and who is told of
//! changes.

use std::sync::Arc;

use super::Tracks;
use super::dispatch::{Dispatch, Fate, Flow};
use super::replies::Ticket;
use super::tracking::Deadline;
use crate::command::{self, Class, Command, EveryNode, Flags};
use crate::counter::{Extent, Remaining, Timed};
use crate::fan_out;
use crate::node::{BROADCAST, Came};
use crate::resp::{Form, Request, encode, reply};
use crate::telemetry::Use;

/// Keys of the present request which its client may keep.
#[derive(Debug, Default)]
pub(super) struct Reads {
    keys: Vec<Box<[u8]>>,
    /// The keys were noted: their changes will be told.
    noted: bool,
    /// The nodes may not tell of their changes, so the client is told at once.
    unsure: bool,
    script: Script,
}

/// What a script may do to what it reads.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Script {
    /// There is no script, or it only reads.
    #[default]
    None,
    /// It may write, and nobody will tell of it.
    MayWrite,
    /// The node tells of what it changes.
    Told,
}

impl Reads {
    /// The node tells of what the script of this request changes.
    pub(super) fn script_told(&mut self) {
        self.script = Script::Told;
    }
}

/// What a request changes.
#[derive(Debug)]
pub(super) enum Changed {
    Nothing,
    Keys(Vec<Box<[u8]>>),
    Everything,
}

impl Changed {
    pub(super) fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (_, Self::Nothing) | (Self::Everything, _) => {}
            (Self::Keys(keys), Self::Keys(more)) => keys.extend(more),
            (this, other) => *this = other,
        }
    }
}

impl Dispatch<'_> {
    /// Before a request is executed: what it reads, and for `EXEC`, which forgets what was queued,
    /// what it changes.
    pub(super) fn before_tracked(&mut self, request: &Request<'_>) -> Option<Changed> {
        let tracks = self.client.tracks();
        let is_exec = self.command.name == "exec";
        self.reads = Reads::default();
        let inner = is_exec && self.transaction_opts();
        if tracks.notes_reads() || (inner && tracks.is_on() && !tracks.bcast()) {
            let (keys, may_write) = if is_exec {
                self.transaction_reads()
            } else {
                self.read_keys(self.command, request)
            };
            let joins = self
                .state
                .transaction
                .as_ref()
                .is_some_and(|open| open.joins);
            let elsewhere = is_exec && (joins || !self.state.watches.is_empty());
            let tells = |key: &[u8]| self.node(self.shared.router.index(key)).tells();
            self.reads.unsure = elsewhere || !keys.iter().all(|key| tells(key));
            if may_write {
                self.reads.script = Script::MayWrite;
            }
            self.reads.keys = keys;
        }
        (is_exec && self.shared.tracking.is_on()).then(|| self.transaction_changes())
    }

    /// Notes what is read, now that the reply has its place, and asks when it ends.
    #[inline]
    pub(super) fn note_reads(&mut self) {
        if self.is_tracked() {
            self.note_tracked();
        }
    }

    fn note_tracked(&mut self) {
        self.reads.noted = true;
        let keys = std::mem::take(&mut self.reads.keys);
        let tracking = &self.shared.tracking;
        for key in tracking.note(self.client.id, &keys, self.woken) {
            let index = self.shared.router.index(key);
            let mut wire = Vec::new();
            encode::request(&mut wire, &[b"PTTL".as_slice(), key]);
            let ticket = Ticket::Deadline(Box::new(Deadline::new(tracking, key)));
            let (waker, now) = (self.waker, self.now);
            let (entry, woken) = self.lane(index);
            if entry.admit(waker).is_ok() {
                let timed = Timed::Remaining(Remaining::Milliseconds);
                entry.step(now, woken, |lane, step| {
                    lane.read_afresh(step, key);
                    lane.timed(step, key, timed, &wire, ticket);
                });
            } else {
                self.reads.unsure = true;
            }
        }
        self.reads.keys = keys;
    }

    /// Whether the request reads keys that are to be noted.
    #[inline]
    pub(super) fn is_tracked(&self) -> bool {
        !self.reads.keys.is_empty() && !self.reads.noted
    }

    /// After a request was executed, or given to its lanes: tells of what it changes. `was_on` says
    /// whether anybody tracked before.
    pub(super) fn after_tracked(
        &mut self,
        request: &Request<'_>,
        was_on: bool,
        transaction: Option<Changed>,
    ) {
        let command = self.command;
        let shared = self.shared;
        let reads = std::mem::take(&mut self.reads);
        if self.fate != Fate::Rejected {
            let changed = match transaction {
                Some(changed) => changed,
                // Tracking began meanwhile, and what was queued is gone.
                None if command.name == "exec" => Changed::Everything,
                None if reads.script == Script::Told => Changed::Nothing,
                None => self.changes(command, request),
            };
            let writer = self.client.id;
            match changed {
                Changed::Nothing => {}
                Changed::Keys(keys) if was_on || command.name != "exec" => {
                    self.before_message();
                    let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
                    if command.class == Class::Script {
                        // A lane that is told of all changes may be told of the script's, too.
                        shared.tracking.changed(&keys, writer, self.woken);
                    } else {
                        shared.tracking.perhaps_changed(&keys, writer, self.woken);
                    }
                }
                Changed::Keys(_) | Changed::Everything => {
                    self.before_message();
                    shared.tracking.all_changed(self.woken);
                }
            }
        }
        let is_unsure = reads.unsure || !reads.noted || reads.script == Script::MayWrite;
        if !reads.keys.is_empty() && is_unsure {
            self.before_message();
            shared.tracking.tell(self.client, &reads.keys, self.woken);
        }
    }

    /// Ends `CLIENT CACHING` behind the command, or the transaction, that it was given for.
    pub(super) fn end_caching(&self) {
        let tracks = self.client.tracks();
        if tracks.has(Tracks::CACHING)
            && self.state.transaction.is_none()
            && !self.command.name.starts_with("client|")
        {
            self.client.change_tracks(tracks.without(Tracks::CACHING));
        }
    }

    /// Puts the replies made here so far before a message to this client.
    fn before_message(&mut self) {
        self.push_made();
    }

    /// `GET` by a client that tracks: the place comes first. `None` where it is treated like any
    /// other: the key is only forwarded, or its node is away.
    pub(super) fn get_tracked(&mut self, request: &Request<'_>, index: usize) -> Option<Flow> {
        let key = request.arg(1);
        self.leave();
        if self.is_through(index, key) || self.node(index).is_away() {
            return None;
        }
        if let Some(flow) = self.refuse_reserved(key).or_else(|| self.admit(index)) {
            return Some(flow);
        }
        let place = self.place(Form::Plain);
        let mut frame = Vec::new();
        let table = self.node(index).table();
        if table.get(key, self.now, &mut frame) {
            self.tally.hits += 1;
            self.touch(key, Use::Read(1));
            let now = self.now;
            self.woken.extend(place.filled(&frame, Came::here(now)));
            return Some(Flow::Continue);
        }
        self.tally.misses += 1;
        self.touch(key, Use::Read(1));
        let now = self.now;
        let (entry, woken) = self.lane(index);
        entry.step(now, woken, |lane, step| {
            lane.get(step, key, Ticket::Reply(place));
        });
        Some(Flow::Continue)
    }

    /// `CLIENT TRACKING ON BCAST` of this client: the first one asks every node for all changes by
    /// others. A node that is away is asked when it comes back.
    pub(super) fn broadcast(&mut self) {
        let shared = self.shared;
        if !shared.tracking.broadcast() {
            if self.client.finish_command() {
                encode::simple(self.made, "OK");
            }
            return;
        }
        self.leave();
        let servers = shared.router.nodes();
        for node in servers {
            node.broadcast();
        }
        let lanes: Vec<_> = servers.iter().filter(|node| !node.is_away()).collect();
        let mut wire = Vec::new();
        encode::request(&mut wire, &[b"MULTI"]);
        encode::request(&mut wire, &[b"CLIENT".as_slice(), b"TRACKING", b"OFF"]);
        encode::request(&mut wire, &BROADCAST);
        encode::request(&mut wire, &[b"EXEC"]);
        let tracking = Arc::clone(&shared.tracking);
        let client = shared.registry.get(self.client.id);
        let merge: fan_out::Merge = Box::new(move |parts, place| {
            let mut answers = parts.frames().map(|frame| (frame, reply::elements(frame)));
            let refused = answers.find_map(|(frame, elements)| match elements {
                Some(mut elements) => elements.find(|element| reply::is_error(element)),
                None => Some(frame),
            });
            if let Some(error) = refused {
                tracking.broadcast_failed();
                if let Some(client) = client {
                    tracking.end(&client);
                }
                return place.fill(error);
            }
            place.fill(b"+OK\r\n")
        });
        let place = self.place(Form::Plain);
        self.send_lanes(&lanes, &wire, Extent::Transaction(2), place, merge);
    }

    /// The keys that a command reads, and whether it may write too. Keys that it does not name are
    /// not among them.
    pub(super) fn read_keys(
        &self,
        command: &Command,
        request: &Request<'_>,
    ) -> (Vec<Box<[u8]>>, bool) {
        let is_script = command.class == Class::Script;
        if !command.flags.contains(Flags::READONLY) && !is_script {
            return (Vec::new(), false);
        }
        if !is_script {
            return (keys(command, request), false);
        }
        if !self.shared.scripts.access(request).reads {
            return (Vec::new(), false);
        }
        let may_write = self.may_write_as_script(command, request);
        (keys(command, request), may_write)
    }

    /// What a command may change.
    pub(super) fn changes(&self, command: &Command, request: &Request<'_>) -> Changed {
        match command.class {
            Class::EveryNode(EveryNode::FlushAll | EveryNode::FlushDb | EveryNode::SwapDb) => {
                return Changed::Everything;
            }
            Class::Increment(_)
            | Class::Keyed
            | Class::PerNode { .. }
            | Class::Script
            | Class::EveryNode(EveryNode::Told(_))
            | Class::Peek => {}
            _ => return Changed::Nothing,
        }
        let may_write = match command.class {
            Class::Script => self.may_write_as_script(command, request),
            _ => self.may_change(command, request),
        };
        if !may_write {
            return Changed::Nothing;
        }
        match keys(command, request) {
            // A script that names no keys may change any.
            keys if keys.is_empty() => Changed::Everything,
            keys => Changed::Keys(keys),
        }
    }
}

fn keys(command: &Command, request: &Request<'_>) -> Vec<Box<[u8]>> {
    let mut positions = Vec::new();
    match command::key_positions(command, request, &mut positions) {
        Ok(()) => positions.iter().map(|at| request.arg(*at).into()).collect(),
        Err(_) => Vec::new(),
    }
}
