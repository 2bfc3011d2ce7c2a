//! Messages: `SUBSCRIBE` and its kin, `PUBLISH`, `PUBSUB`.

use std::sync::Arc;

use super::dispatch::{Dispatch, Flow};
use super::replies::Ticket;
use crate::command::{Class, Command, Messages, Topics};
use crate::counter::Extent;
use crate::fan_out::{self, Gather};
use crate::pubsub::{Confirmation, Confirmations, Hub, Subscriber, Topic};
use crate::resp::{Form, Request, encode, reply};

/// Whether a client of RESP2 may send this command while it has subscriptions.
pub(super) fn is_allowed(command: &Command) -> bool {
    match command.class {
        Class::PubSub(messages) => {
            matches!(messages, Messages::Subscribe(_) | Messages::Unsubscribe(_))
        }
        _ => matches!(command.name, "ping" | "quit" | "reset"),
    }
}

/// The error for every other command.
pub(super) fn not_allowed(command: &Command) -> String {
    format!(
        "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context",
        command.name
    )
}

impl Dispatch<'_> {
    /// A command about messages.
    pub(super) fn messages(&mut self, messages: Messages, request: &Request<'_>) -> Flow {
        match messages {
            // What the client published or asked before is no concern of the subscription.
            Messages::Subscribe(_) if self.replies.backlog().outstanding > 0 => return Flow::Await,
            Messages::Subscribe(kind) => {
                self.subscribe(kind, request);
                self.recheck_subscription(request);
            }
            Messages::Unsubscribe(kind) => self.unsubscribe(kind, request),
            Messages::Publish(kind) => return self.publish(kind, request),
            Messages::List(_) if request.len() > 3 => return self.wrong_subcommand(request),
            Messages::List(_) => return self.ask_every(request, channels()),
            Messages::Count(kind) => {
                let names: Vec<_> = request.args().skip(2).map(Arc::from).collect();
                let merge = subscribers(Arc::clone(&self.shared.hub), kind, names);
                return self.ask_every(request, merge);
            }
            Messages::PatternCount => {
                let merge = pattern_count(Arc::clone(&self.shared.hub));
                return self.ask_every(request, merge);
            }
        }
        Flow::Continue
    }

    fn subscribe(&mut self, kind: Topics, request: &Request<'_>) {
        self.leave();
        let shared = self.shared;
        let Some(client) = shared.registry.get(self.client.id) else {
            return self.error("ERR subscriptions need a connection");
        };
        let mut topics = Vec::with_capacity(request.len());
        let mut each = Vec::with_capacity(request.len());
        for name in request.args().skip(1) {
            let topic = Topic {
                kind,
                name: Arc::from(name),
            };
            let known = client.subscriptions();
            if !shared.hub.admit(name) {
                each.push(Confirmation {
                    bytes: encoded_error("ERR too many subscriptions"),
                    nodes: 0,
                    subscription: None,
                });
                topics.push(None);
                continue;
            }
            if !known.add(kind, &topic.name) {
                shared.hub.release(name);
            }
            each.push(Confirmation {
                bytes: self.confirmation(kind, SUBSCRIBED, Some(name)),
                nodes: shared.hub.spread(&topic),
                subscription: Some((Arc::clone(&client), topic.clone())),
            });
            topics.push(Some(topic));
        }
        let subscriber = Subscriber {
            client,
            replies: Arc::clone(&self.replies),
        };
        let confirmations = self.confirm(each);
        self.state.confirming = true;
        for (part, topic) in topics.iter().enumerate() {
            if let Some(topic) = topic {
                shared
                    .hub
                    .subscribe(topic, &subscriber, &confirmations, part);
            }
        }
    }

    fn unsubscribe(&mut self, kind: Topics, request: &Request<'_>) {
        self.leave();
        let shared = self.shared;
        let subscriptions = self.client.subscriptions();
        let names: Vec<Arc<[u8]>> = match request.len() {
            1 => subscriptions.names(kind),
            _ => request.args().skip(1).map(Arc::from).collect(),
        };
        let mut topics = Vec::with_capacity(names.len());
        let mut each = Vec::with_capacity(names.len().max(1));
        for name in names {
            let known = subscriptions.remove(kind, &name);
            let bytes = self.confirmation(kind, UNSUBSCRIBED, Some(&name));
            let topic = Topic { kind, name };
            if known {
                shared.hub.release(&topic.name);
            }
            each.push(Confirmation {
                bytes,
                nodes: if known { shared.hub.spread(&topic) } else { 0 },
                subscription: None,
            });
            topics.push(Some(topic).filter(|_| known));
        }
        if each.is_empty() {
            each.push(Confirmation {
                bytes: self.confirmation(kind, UNSUBSCRIBED, None),
                nodes: 0,
                subscription: None,
            });
        }
        let confirmations = self.confirm(each);
        for (part, topic) in topics.iter().enumerate() {
            if let Some(topic) = topic {
                let id = self.client.id;
                shared.hub.unsubscribe(topic, id, &confirmations, part);
            }
        }
    }

    /// Takes the place of the confirmations, which are sent even with `CLIENT REPLY OFF`.
    fn confirm(&mut self, each: Vec<Confirmation>) -> Arc<Confirmations> {
        let place = self.place_of_confirmation();
        let (confirmations, waker) = Confirmations::new(place, each);
        self.woken.extend(waker);
        confirmations
    }

    /// The reply that tells the client of a change to its subscriptions.
    fn confirmation(&self, kind: Topics, change: &str, name: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        let protocol = self.client.protocol();
        encode::push(&mut out, protocol, 3);
        let letter = match kind {
            Topics::Channels => "",
            Topics::Patterns => "p",
            Topics::Shards => "s",
        };
        encode::bulk(&mut out, [letter, change].concat().as_bytes());
        match name {
            Some(name) => encode::bulk(&mut out, name),
            None => encode::null(&mut out, protocol),
        }
        let count = self.client.subscriptions().counted_with(kind);
        encode::integer(&mut out, i64::try_from(count).unwrap_or(i64::MAX));
        out
    }

    /// `PUBLISH`: to the channel's node, in order with other commands. The reply counts Tally's
    /// clients where the node counts Tally's connection.
    fn publish(&mut self, kind: Topics, request: &Request<'_>) -> Flow {
        let channel = request.arg(1);
        let index = self.shared.router.channel(channel);
        if let Some(flow) = self.admit(index) {
            return flow;
        }
        let place = self.place(Form::Plain);
        let hub = Arc::clone(&self.shared.hub);
        let channel: Box<[u8]> = channel.into();
        let merge: fan_out::Merge = Box::new(move |parts, place| {
            let frame = parts.frames().next().unwrap_or_default();
            let Some(count) = reply::integer(frame) else {
                return place.fill(frame);
            };
            let mut out = Vec::new();
            encode::integer(&mut out, hub.receivers(kind, &channel, count));
            place.fill(&out)
        });
        let ticket = Ticket::Part(Gather::new(1, place, merge), 0);
        let now = self.now;
        let (entry, woken) = self.lane(index);
        entry.step(now, woken, |lane, step| {
            lane.keyless(step, request.wire(), ticket);
        });
        Flow::Continue
    }

    fn ask_every(&mut self, request: &Request<'_>, merge: fan_out::Merge) -> Flow {
        if let Some(flow) = self.admit_every() {
            return flow;
        }
        let place = self.place(Form::Plain);
        self.send_every(request.wire(), Extent::Ordered, place, merge);
        Flow::Continue
    }

    fn wrong_subcommand(&mut self, request: &Request<'_>) -> Flow {
        let mut text = b"ERR unknown subcommand or wrong number of arguments for '".to_vec();
        text.extend_from_slice(request.arg(1));
        text.extend_from_slice(b"'. Try PUBSUB HELP.");
        self.error(text);
        Flow::Continue
    }
}

/// The channels of all nodes; those of notifications are on several nodes.
fn channels() -> fan_out::Merge {
    fan_out::merged(|parts, out| {
        let names = parts.frames().filter_map(reply::elements).flatten();
        let mut names: Vec<&[u8]> = names.collect();
        names.sort_unstable();
        names.dedup();
        encode::array(out, names.len());
        out.extend(names.concat());
    })
}

/// Adds up what the nodes say of each channel, and counts clients in place of connections.
fn subscribers(hub: Arc<Hub>, kind: Topics, names: Vec<Arc<[u8]>>) -> fan_out::Merge {
    fan_out::merged(move |parts, out| {
        let mut counts = vec![0; names.len()];
        for frame in parts.frames() {
            let numbers = reply::elements(frame).into_iter().flatten();
            let numbers = numbers.skip(1).step_by(2).filter_map(reply::integer);
            counts
                .iter_mut()
                .zip(numbers)
                .for_each(|(sum, more)| *sum += more);
        }
        encode::array(out, 2 * names.len());
        for (name, count) in names.into_iter().zip(counts) {
            encode::bulk(out, &name);
            let topic = Topic { kind, name };
            encode::integer(out, hub.subscribers(&topic, count));
        }
    })
}

/// Tally's patterns are on every node, and count once.
fn pattern_count(hub: Arc<Hub>) -> fan_out::Merge {
    fan_out::merged(move |parts, out| {
        let own = i64::try_from(hub.topics(Topics::Patterns)).unwrap_or(i64::MAX);
        let counts = parts.frames().filter_map(reply::integer);
        let others: i64 = counts.map(|count| (count - own).max(0)).sum();
        encode::integer(out, own + others);
    })
}

fn encoded_error(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode::error(&mut out, text);
    out
}

const SUBSCRIBED: &str = "subscribe";
const UNSUBSCRIBED: &str = "unsubscribe";
