//! The subscriptions on one node: what was asked of it, what it has confirmed, and who gets the
//! messages that come. No I/O: [`super::drive`] carries the bytes.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use super::confirm::Part;
use super::{NOTIFICATIONS, Subscriber, Topic};
use crate::command::Topics;
use crate::flush::RESERVED_PREFIX;
use crate::glob;
use crate::resp::{Form, Protocol, encode, reply, to_resp2};
use crate::session::{Client, Pushed};

/// Everything about one node. What the node is asked for is numbered; its answers come in that
/// order.
#[derive(Debug, Default)]
pub(super) struct Feed {
    channels: HashMap<Arc<[u8]>, Entry>,
    patterns: HashMap<Arc<[u8]>, Entry>,
    shards: HashMap<Arc<[u8]>, Entry>,
    link: Link,
    sent: VecDeque<Sent>,
    /// Number of the last request.
    last: u64,
    wire: Vec<u8>,
}

#[derive(Debug, Default)]
enum Link {
    /// There is none. A subscription opens one and waits for it.
    #[default]
    Closed,
    Up,
    /// The last attempt failed; subscriptions fail with this reason until one succeeds.
    Down(String),
}

/// One topic.
#[derive(Debug, Default)]
struct Entry {
    /// By the ids of the clients: messages go out in the order in which these connected.
    members: BTreeMap<u64, Subscriber>,
    asked: Asked,
    /// Confirmations that wait for the answer to the request with that number.
    waiting: Vec<(u64, Part)>,
}

/// What the node was asked last.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Asked {
    /// Not to send this topic.
    #[default]
    Nothing,
    ToSend(u64),
    /// To send it, and it has confirmed that.
    Confirmed,
    ToStop(u64),
}

/// A request without an answer.
#[derive(Debug)]
enum Sent {
    Subscribe(u64, Topic),
    Unsubscribe(u64, Topic, Option<Part>),
    Ping,
}

/// What is to be done once the feed's lock is free.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) settled: Vec<(Part, Result<(), String>)>,
    pub(super) wakes: Vec<Waker>,
    /// Clients that hold more messages than they may.
    pub(super) overrun: Vec<Arc<Client>>,
}

/// How many get a message from a node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Receivers {
    /// As the node counts Tally: once for each topic that matches.
    pub connections: i64,
    /// Tally's clients, once for each topic that matches.
    pub clients: i64,
}

/// The node's answers are not those of a Redis server: the connection must be closed.
#[derive(Debug, thiserror::Error)]
#[error("it answers what was not asked")]
pub(super) struct OutOfStep;

impl Feed {
    pub(super) fn subscribe(
        &mut self,
        topic: &Topic,
        subscriber: Subscriber,
        part: Part,
        effects: &mut Effects,
    ) {
        let client = subscriber.client.id;
        if let Link::Down(reason) = &self.link {
            let known = self
                .entry(topic)
                .is_some_and(|entry| entry.members.contains_key(&client));
            let result = if known { Ok(()) } else { Err(reason.clone()) };
            return effects.settled.push((part, result));
        }
        let is_up = matches!(self.link, Link::Up);
        let next = self.last + 1;
        let entry = match self.of_kind(topic.kind).entry(Arc::clone(&topic.name)) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => slot.insert(Entry::default()),
        };
        entry.members.insert(client, subscriber);
        match entry.asked {
            Asked::Confirmed => effects.settled.push((part, Ok(()))),
            Asked::ToSend(number) => entry.waiting.push((number, part)),
            Asked::Nothing | Asked::ToStop(_) if is_up => {
                entry.asked = Asked::ToSend(next);
                entry.waiting.push((next, part));
                self.ask_to_send(topic);
            }
            Asked::Nothing | Asked::ToStop(_) => entry.waiting.push((0, part)),
        }
    }

    /// `part` is settled when the node sends nothing more for this client.
    pub(super) fn unsubscribe(
        &mut self,
        topic: &Topic,
        client: u64,
        part: Option<Part>,
        effects: &mut Effects,
    ) {
        let next = self.last + 1;
        let mut settle =
            |part: Option<Part>| effects.settled.extend(part.map(|part| (part, Ok(()))));
        let Some(entry) = self.of_kind(topic.kind).get_mut(&topic.name) else {
            return settle(part);
        };
        let was_member = entry.members.remove(&client).is_some();
        if !was_member || !entry.members.is_empty() {
            return settle(part);
        }
        match entry.asked {
            Asked::ToSend(_) | Asked::Confirmed => {
                entry.asked = Asked::ToStop(next);
                self.ask_to_stop(topic, part);
            }
            Asked::Nothing | Asked::ToStop(_) => {
                if entry.waiting.is_empty() && entry.asked == Asked::Nothing {
                    self.of_kind(topic.kind).remove(&topic.name);
                }
                settle(part);
            }
        }
    }

    /// There is a new connection: everything is asked for.
    pub(super) fn connected(&mut self, effects: &mut Effects) {
        self.link = Link::Up;
        for kind in KINDS {
            let names: Vec<_> = self.of_kind(kind).keys().cloned().collect();
            for name in names {
                let topic = Topic { kind, name };
                let next = self.last + 1;
                let Some(entry) = self.of_kind(kind).get_mut(&topic.name) else {
                    continue;
                };
                if entry.members.is_empty() {
                    let parts = entry.waiting.drain(..);
                    effects
                        .settled
                        .extend(parts.map(|(_, part)| (part, Ok(()))));
                    self.of_kind(kind).remove(&topic.name);
                    continue;
                }
                entry.asked = Asked::ToSend(next);
                entry
                    .waiting
                    .iter_mut()
                    .for_each(|(number, _)| *number = next);
                self.ask_to_send(&topic);
            }
        }
    }

    /// The connection is gone; another attempt is made at once. Whoever waits for a confirmation
    /// goes on waiting.
    pub(super) fn lost(&mut self, effects: &mut Effects) {
        self.link = Link::Closed;
        self.wire = Vec::new();
        for sent in std::mem::take(&mut self.sent) {
            if let Sent::Unsubscribe(_, _, Some(part)) = sent {
                effects.settled.push((part, Ok(())));
            }
        }
        for kind in KINDS {
            self.of_kind(kind).retain(|_, entry| {
                entry.asked = Asked::Nothing;
                if entry.members.is_empty() {
                    let parts = entry.waiting.drain(..);
                    effects
                        .settled
                        .extend(parts.map(|(_, part)| (part, Ok(()))));
                }
                !entry.members.is_empty()
            });
        }
    }

    /// An attempt to connect failed; `reason` is the error for those who wait.
    pub(super) fn failed(&mut self, reason: &str, effects: &mut Effects) {
        self.lost(effects);
        self.link = Link::Down(reason.to_owned());
        for kind in KINDS {
            for entry in self.of_kind(kind).values_mut() {
                let parts = entry.waiting.drain(..);
                effects
                    .settled
                    .extend(parts.map(|(_, part)| (part, Err(reason.to_owned()))));
            }
        }
    }

    /// Closes the connection if nobody needs it any more: the next subscription opens one. Returns
    /// whether it did.
    pub(super) fn close_if_unused(&mut self) -> bool {
        let unused = self.is_unused();
        if unused {
            self.link = Link::Closed;
            self.sent.clear();
            self.wire = Vec::new();
        }
        unused
    }

    fn is_unused(&self) -> bool {
        KINDS.iter().all(|kind| self.topics(*kind).is_empty())
    }

    /// Whether the task has something to do: bytes to send, or a connection to open.
    pub(super) fn is_wanting(&self) -> bool {
        match self.link {
            Link::Up => !self.wire.is_empty(),
            Link::Closed => !self.is_unused(),
            Link::Down(_) => false,
        }
    }

    /// What is to be sent.
    pub(super) fn take_wire(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.wire)
    }

    /// Asks whether the node is there.
    pub(super) fn ping(&mut self) {
        encode::request(&mut self.wire, &[b"PING"]);
        self.sent.push_back(Sent::Ping);
    }

    /// Whether the node owes an answer.
    pub(super) fn is_waiting(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Takes one frame.
    ///
    /// # Errors
    ///
    /// The frame answers nothing.
    pub(super) fn on_frame(
        &mut self,
        frame: &[u8],
        effects: &mut Effects,
    ) -> Result<(), OutOfStep> {
        let mut parts = reply::elements(frame).into_iter().flatten();
        let word = parts.next().and_then(reply::text).unwrap_or_default();
        if reply::is_push(frame)
            && let Some(kind) = kind_of_message(word)
        {
            let name = parts.next().and_then(reply::text).unwrap_or_default();
            let channel = match kind {
                Topics::Patterns => parts.next().and_then(reply::text).unwrap_or_default(),
                Topics::Channels | Topics::Shards => name,
            };
            let payload = parts.next().and_then(reply::text).unwrap_or_default();
            if !is_own(channel, payload) {
                self.deliver(kind, name, frame, effects);
            }
            return Ok(());
        }
        if reply::is_push(frame) && word == b"invalidate" {
            return Ok(());
        }
        self.confirm(frame, effects)
    }

    /// How a message to `channel` is counted: by the node, and by clients.
    pub(super) fn receivers(&self, kind: Topics, channel: &[u8]) -> Receivers {
        let mut receivers = Receivers::default();
        let mut count = |entry: &Entry| {
            receivers.connections += i64::from(entry.asked != Asked::Nothing);
            receivers.clients += members(entry);
        };
        if let Some(entry) = self.topics(kind).get(channel) {
            count(entry);
        }
        if kind == Topics::Channels {
            let matching = |pattern: &[u8]| glob::matches(pattern, channel, glob::Case::Exact);
            self.patterns
                .iter()
                .filter(|(pattern, _)| matching(pattern))
                .for_each(|(_, entry)| count(entry));
        }
        receivers
    }

    /// How many clients have a topic; `None` if the node does not send it here.
    pub(super) fn members(&self, topic: &Topic) -> Option<i64> {
        let entry = self.entry(topic)?;
        (entry.asked != Asked::Nothing).then(|| members(entry))
    }

    /// How many topics of a kind have members.
    pub(super) fn count(&self, kind: Topics) -> usize {
        let entries = self.topics(kind).values();
        entries.filter(|entry| !entry.members.is_empty()).count()
    }

    fn deliver(&self, kind: Topics, name: &[u8], frame: &[u8], effects: &mut Effects) {
        let Some(entry) = self.topics(kind).get(name) else {
            return; // Its last member has just left.
        };
        let mut in_resp2 = Vec::new();
        for subscriber in entry.members.values() {
            let bytes = match subscriber.client.protocol() {
                Protocol::Resp3 => frame,
                Protocol::Resp2 => {
                    if in_resp2.is_empty() {
                        to_resp2(frame, Form::Plain, &mut in_resp2);
                    }
                    &in_resp2
                }
            };
            match subscriber.replies.push_message(bytes) {
                Pushed::Kept(waker) => effects.wakes.extend(waker),
                Pushed::Overrun => effects.overrun.push(Arc::clone(&subscriber.client)),
            }
        }
    }

    /// Takes the answer to the oldest request.
    fn confirm(&mut self, frame: &[u8], effects: &mut Effects) -> Result<(), OutOfStep> {
        let refused = reply::is_error(frame);
        let result = || match reply::text(frame).filter(|_| refused) {
            Some(text) => Err(String::from_utf8_lossy(text).into_owned()),
            None => Ok(()),
        };
        match self.sent.pop_front().ok_or(OutOfStep)? {
            Sent::Ping => {}
            Sent::Subscribe(number, topic) => {
                let Some(entry) = self.of_kind(topic.kind).get_mut(&topic.name) else {
                    return Ok(());
                };
                if entry.asked == Asked::ToSend(number) {
                    entry.asked = if refused {
                        Asked::Nothing
                    } else {
                        Asked::Confirmed
                    };
                }
                let (answered, later) = std::mem::take(&mut entry.waiting)
                    .into_iter()
                    .partition(|(waits_for, _)| *waits_for == number);
                entry.waiting = later;
                let answered: Vec<(u64, Part)> = answered;
                let answered = answered.into_iter().map(|(_, part)| (part, result()));
                effects.settled.extend(answered);
            }
            Sent::Unsubscribe(number, topic, part) => {
                if self
                    .entry(&topic)
                    .is_some_and(|entry| entry.asked == Asked::ToStop(number))
                {
                    self.of_kind(topic.kind).remove(&topic.name);
                }
                effects.settled.extend(part.map(|part| (part, Ok(()))));
            }
        }
        Ok(())
    }

    fn ask_to_send(&mut self, topic: &Topic) {
        self.ask(topic, Sent::Subscribe);
    }

    /// `part` waits for the answer.
    fn ask_to_stop(&mut self, topic: &Topic, part: Option<Part>) {
        self.ask(topic, |number, topic| {
            Sent::Unsubscribe(number, topic, part)
        });
    }

    fn ask(&mut self, topic: &Topic, sent: impl FnOnce(u64, Topic) -> Sent) {
        self.last += 1;
        let sent = sent(self.last, topic.clone());
        let verb: &[u8] = match (topic.kind, &sent) {
            (_, Sent::Ping) => b"PING",
            (Topics::Channels, Sent::Subscribe(..)) => b"SUBSCRIBE",
            (Topics::Channels, Sent::Unsubscribe(..)) => b"UNSUBSCRIBE",
            (Topics::Patterns, Sent::Subscribe(..)) => b"PSUBSCRIBE",
            (Topics::Patterns, Sent::Unsubscribe(..)) => b"PUNSUBSCRIBE",
            (Topics::Shards, Sent::Subscribe(..)) => b"SSUBSCRIBE",
            (Topics::Shards, Sent::Unsubscribe(..)) => b"SUNSUBSCRIBE",
        };
        encode::request(&mut self.wire, &[verb, &topic.name]);
        self.sent.push_back(sent);
    }

    fn entry(&self, topic: &Topic) -> Option<&Entry> {
        self.topics(topic.kind).get(&topic.name)
    }

    fn topics(&self, kind: Topics) -> &HashMap<Arc<[u8]>, Entry> {
        match kind {
            Topics::Channels => &self.channels,
            Topics::Patterns => &self.patterns,
            Topics::Shards => &self.shards,
        }
    }

    fn of_kind(&mut self, kind: Topics) -> &mut HashMap<Arc<[u8]>, Entry> {
        match kind {
            Topics::Channels => &mut self.channels,
            Topics::Patterns => &mut self.patterns,
            Topics::Shards => &mut self.shards,
        }
    }
}

fn members(entry: &Entry) -> i64 {
    i64::try_from(entry.members.len()).unwrap_or(i64::MAX)
}

fn kind_of_message(word: &[u8]) -> Option<Topics> {
    match word {
        b"message" => Some(Topics::Channels),
        b"pmessage" => Some(Topics::Patterns),
        b"smessage" => Some(Topics::Shards),
        _ => None,
    }
}

/// Whether it is a notification about a key that Tally keeps on the node.
fn is_own(channel: &[u8], payload: &[u8]) -> bool {
    if !NOTIFICATIONS
        .iter()
        .any(|prefix| channel.starts_with(prefix))
    {
        return false;
    }
    let mut halves = channel.splitn(2, |byte| *byte == b':');
    let key_or_event = halves.nth(1).unwrap_or_default();
    key_or_event.starts_with(RESERVED_PREFIX) || payload.starts_with(RESERVED_PREFIX)
}

const KINDS: [Topics; 3] = [Topics::Channels, Topics::Patterns, Topics::Shards];
