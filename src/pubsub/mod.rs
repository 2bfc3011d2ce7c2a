//! Messages: who is subscribed to what, and the one connection to each node that brings them.
//!
//! ```text
//!  session ──subscribe──> Hub ──> Feed of the channel's node ──SUBSCRIBE──> node
//!     ^                             │  topic -> members                      │
//!     │ confirmation, messages      │                                        │
//!     └─────────────────────────────┴── task of the feed <── confirmations, messages
//! ```
//!
//! A channel lives on the node that its name hashes to, like a key; a pattern, and a channel of
//! keyspace notifications, on every node. A feed subscribes once for all its members and hands
//! each message to every one. It opens its connection when the first of them comes, and closes it
//! when none is left. A client gets its confirmation when the node has given its own, so what is
//! published afterwards reaches it; the same holds when the last member leaves.
//!
//! When the connection is lost, its feed connects again and subscribes to everything anew. What
//! was published meanwhile is lost, as it is for a client of Redis that has to reconnect.
//!
//! `PUBLISH` goes on the lane, in order with the other commands. The node counts connections;
//! [`Hub::receivers`] makes clients of them.

mod confirm;
mod drive;
mod feed;
mod subscriptions;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::command::Topics;
use crate::router::Router;
use crate::session::{Client, Replies, Ticket};
use crate::telemetry::Stats;

pub use confirm::{Confirmation, Confirmations};
pub use drive::drive;
pub use feed::Receivers;
pub use subscriptions::Subscriptions;

use confirm::Part;
use feed::{Effects, Feed};

/// What a client subscribes to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Topic {
    /// Which names these are.
    pub kind: Topics,
    /// The channel, or the pattern.
    pub name: Arc<[u8]>,
}

/// Who gets messages.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// The client, which is closed when it does not read.
    pub client: Arc<Client>,
    /// Where its messages go.
    pub replies: Arc<Replies>,
}

/// All subscriptions of all clients. Shared by all workers.
pub struct Hub {
    router: Arc<Router<Ticket>>,
    stats: Arc<Stats>,
    nodes: Box<[At]>,
    /// Bytes that all subscriptions take, see [`MAX_BYTES`].
    bytes: AtomicUsize,
}

/// What is known about one node.
#[derive(Default)]
struct At {
    feed: Mutex<Feed>,
    /// The feed has something to send, or is not needed any more.
    changed: Notify,
}

impl Hub {
    /// A hub without subscriptions.
    pub fn new(router: Arc<Router<Ticket>>, stats: Arc<Stats>) -> Self {
        let nodes = router.nodes().iter().map(|_| At::default()).collect();
        Self {
            router,
            stats,
            nodes,
            bytes: AtomicUsize::new(0),
        }
    }

    /// Takes memory for a subscription to `name`; false when there is too much of it.
    pub fn admit(&self, name: &[u8]) -> bool {
        let more = name.len() + SUBSCRIPTION_BYTES;
        let before = self.bytes.fetch_add(more, Ordering::Relaxed);
        let fits = before + more <= MAX_BYTES;
        if !fits {
            self.bytes.fetch_sub(more, Ordering::Relaxed);
        }
        fits
    }

    /// Gives it back.
    pub fn release(&self, name: &[u8]) {
        self.bytes
            .fetch_sub(name.len() + SUBSCRIPTION_BYTES, Ordering::Relaxed);
    }

    /// On how many nodes a topic lives.
    pub fn spread(&self, topic: &Topic) -> usize {
        if everywhere(topic) {
            self.nodes.len()
        } else {
            1
        }
    }

    /// Makes a client a member. `part` of `confirmations` is settled once for each node. The caller
    /// holds no lane and has already taken the place of the confirmations, so that messages come
    /// behind it.
    pub fn subscribe(
        &self,
        topic: &Topic,
        subscriber: &Subscriber,
        confirmations: &Arc<Confirmations>,
        part: usize,
    ) {
        for node in self.nodes_of(topic) {
            let part = Part::new(confirmations, part);
            self.change(node, |feed, effects| {
                feed.subscribe(topic, subscriber.clone(), part, effects);
            });
        }
    }

    /// Ends a membership; otherwise like [`Hub::subscribe`].
    pub fn unsubscribe(
        &self,
        topic: &Topic,
        client: u64,
        confirmations: &Arc<Confirmations>,
        part: usize,
    ) {
        for node in self.nodes_of(topic) {
            let part = Part::new(confirmations, part);
            self.change(node, |feed, effects| {
                feed.unsubscribe(topic, client, Some(part), effects);
            });
        }
    }

    /// Ends all memberships of a client without a word: it has gone, or sent `RESET`.
    pub fn leave(&self, client: &Client) {
        for kind in [Topics::Channels, Topics::Patterns, Topics::Shards] {
            for name in client.subscriptions().take(kind) {
                self.release(&name);
                self.forget(&Topic { kind, name }, client.id);
            }
        }
    }

    /// How many clients the `count` receivers are that a node reports for a message. Exact unless
    /// subscriptions to the channel come or go at that moment.
    pub fn receivers(&self, kind: Topics, channel: &[u8], count: i64) -> i64 {
        if count == 0 {
            return 0;
        }
        let node = self.router.channel(channel);
        let Receivers {
            connections,
            clients,
        } = self.nodes.get(node).map_or_else(Receivers::default, |at| {
            at.feed.lock().receivers(kind, channel)
        });
        (count - connections).max(0) + clients
    }

    /// The same for all nodes' `PUBSUB NUMSUB`, which asks for one kind only.
    pub fn subscribers(&self, topic: &Topic, count: i64) -> i64 {
        let mut members = 0;
        let mut connections = 0;
        for node in self.nodes_of(topic) {
            let here = self
                .nodes
                .get(node)
                .and_then(|at| at.feed.lock().members(topic));
            connections += i64::from(here.is_some());
            members = members.max(here.unwrap_or(0));
        }
        (count - connections).max(0) + members
    }

    /// How many topics of a kind Tally's clients have; those that are on every node count once.
    pub fn topics(&self, kind: Topics) -> usize {
        let counts = self.nodes.iter().map(|at| at.feed.lock().count(kind));
        match kind {
            Topics::Patterns => counts.max().unwrap_or(0),
            Topics::Channels | Topics::Shards => counts.sum(),
        }
    }

    /// Whether nobody is subscribed to anything.
    pub fn is_empty(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) == 0
    }

    fn nodes_of(&self, topic: &Topic) -> std::ops::Range<usize> {
        if everywhere(topic) {
            return 0..self.nodes.len();
        }
        let node = self.router.channel(&topic.name);
        node..node + 1
    }

    fn forget(&self, topic: &Topic, client: u64) {
        for node in self.nodes_of(topic) {
            self.change(node, |feed, effects| {
                feed.unsubscribe(topic, client, None, effects);
            });
        }
    }

    /// Changes a node's feed, and then, without its lock, does what follows from the change.
    fn change(&self, node: usize, change: impl FnOnce(&mut Feed, &mut Effects)) {
        let Some(at) = self.nodes.get(node) else {
            return;
        };
        let mut effects = Effects::default();
        let changed = {
            let mut feed = at.feed.lock();
            change(&mut feed, &mut effects);
            feed.is_wanting()
        };
        if changed {
            at.changed.notify_one();
        }
        self.follow(effects);
    }

    /// Settles confirmations, closes clients that do not read, and wakes sessions.
    fn follow(&self, effects: Effects) {
        let Effects {
            settled,
            mut wakes,
            overrun,
        } = effects;
        for (part, result) in settled {
            let (undo, waker) = part.settle(result);
            wakes.extend(waker);
            if let Some((client, topic)) = undo {
                if client.subscriptions().remove(topic.kind, &topic.name) {
                    self.release(&topic.name);
                }
                self.forget(&topic, client.id);
            }
        }
        for client in overrun {
            if !client.kill.is_cancelled() {
                self.stats.output_limit_closed.increment();
                tracing::warn!(client = %client.addr, "closed: it does not read its messages");
                client.kill.cancel();
            }
        }
        wakes.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Whether a topic lives on every node: a pattern may match channels of any; notifications are
/// published by the node of the key.
fn everywhere(topic: &Topic) -> bool {
    match topic.kind {
        Topics::Patterns => true,
        Topics::Channels => NOTIFICATIONS
            .iter()
            .any(|prefix| topic.name.starts_with(prefix)),
        Topics::Shards => false,
    }
}

/// How channels of keyspace notifications begin (Redis `notify.c`).
const NOTIFICATIONS: [&[u8]; 2] = [b"__keyspace@", b"__keyevent@"];

/// Most memory that the subscriptions of all clients may take. Redis has no bound; this one is
/// 700,000 subscriptions with names of 100 bytes.
const MAX_BYTES: usize = 256 << 20;

/// What a subscription takes beside its name, roughly.
const SUBSCRIPTION_BYTES: usize = 256;
