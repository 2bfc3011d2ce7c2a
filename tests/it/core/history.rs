//! Is there one order of a key's operations that explains every reply, keeps each client's own
//! order, and never puts an operation before one that had ended when it began? (Wing and Gong's
//! search with a memo.) The model node says what a reply must be.

use std::collections::HashSet;

use super::book::{Argv, Operation, keys_of};
use super::node::Node;
use super::sim::{UNKNOWN, UNSENT};

/// One operation as far as it concerns the key.
#[derive(Clone, Debug)]
struct Event {
    argv: Argv,
    began: u64,
    ended: u64,
    /// `None`: any reply.
    reply: Option<Vec<u8>>,
    /// It may have taken effect or not.
    optional: bool,
}

/// Asserts that `key`'s part of the operations has an explanation, from an empty node on.
pub(crate) fn explain(operations: &[Operation], key: &str) -> Result<(), String> {
    let clients = operations
        .iter()
        .map(|operation| operation.client + 1)
        .max();
    let mut queues: Vec<Vec<Event>> = vec![Vec::new(); clients.unwrap_or(0)];
    let mut ends = vec![0; queues.len()];
    for operation in operations {
        // Clients hear replies in the order of their requests.
        let end = &mut ends[operation.client];
        *end = operation.ended.max(*end);
        queues[operation.client].extend(events(operation, key, *end));
    }
    queues.retain(|queue| !queue.is_empty());
    let mut search = Search {
        seen: HashSet::new(),
        best: Vec::new(),
        queues,
    };
    let mut done = vec![0; search.queues.len()];
    let mut order = Vec::new();
    if search.run(&mut done, &Node::default(), &mut order) {
        return Ok(());
    }
    let explained: Vec<_> = search
        .best
        .iter()
        .map(|event| format!("{event:?}"))
        .collect();
    Err(format!(
        "key {key}: explained only\n{}",
        explained.join("\n")
    ))
}

fn events(operation: &Operation, key: &str, ended: u64) -> Vec<Event> {
    let key = key.as_bytes();
    let name = operation.argv[0].as_slice();
    let keys = keys_of(&operation.argv);
    let event = |argv: Argv, reply: Option<Vec<u8>>| {
        let unknown = reply.as_deref() == Some(UNKNOWN);
        let refused = reply.as_deref().is_some_and(is_refusal);
        (!refused).then_some(Event {
            argv,
            began: operation.began,
            ended: if unknown { u64::MAX } else { ended },
            reply: reply.filter(|_| !unknown),
            optional: unknown,
        })
    };
    let reply = operation.parts[0].clone();
    let own = |argv: Argv| Argv::from_iter([argv[0].clone(), key.to_vec()]);
    let found = match name {
        b"PING" | b"DBSIZE" | b"DEBUG" => Vec::new(),
        b"FLUSHALL" => vec![event(operation.argv.clone(), reply)],
        b"MGET" => {
            let parts = keys.iter().zip(&operation.parts);
            let own_parts = parts.filter(|(other, _)| **other == key);
            own_parts
                .map(|(_, part)| event(own(operation.argv.clone()), part.clone()))
                .collect()
        }
        b"DEL" | b"EXISTS" if keys.contains(&key) && keys.len() > 1 => {
            let refused = reply.as_deref().is_some_and(is_refusal);
            let unknown = reply.as_deref() == Some(UNKNOWN);
            let reply = reply.filter(|_| refused || unknown);
            vec![event(own(operation.argv.clone()), reply)]
        }
        b"MSET" => {
            let pairs = operation.argv[1..].chunks(2);
            let mine = pairs.filter(|pair| pair[0] == key);
            mine.map(|pair| {
                event(
                    vec![b"SET".to_vec(), key.to_vec(), pair[1].clone()],
                    reply.clone(),
                )
            })
            .collect()
        }
        _ if keys.contains(&key) => vec![event(operation.argv.clone(), reply)],
        _ => Vec::new(),
    };
    found.into_iter().flatten().collect()
}

/// An error that says that nothing was executed.
fn is_refusal(reply: &[u8]) -> bool {
    let starts = [UNSENT, b"-OOM", b"-READONLY", b"-LOADING"];
    starts.iter().any(|start| reply.starts_with(start))
}

struct Search {
    queues: Vec<Vec<Event>>,
    seen: HashSet<(Vec<usize>, String)>,
    best: Vec<Event>,
}

impl Search {
    fn run(&mut self, done: &mut Vec<usize>, node: &Node, order: &mut Vec<Event>) -> bool {
        let left = |(queue, done): (&Vec<Event>, &usize)| queue.len() - done;
        if self.queues.iter().zip(done.iter()).map(left).sum::<usize>() == 0 {
            return true;
        }
        if !self.seen.insert((done.clone(), node.fingerprint())) {
            return false;
        }
        if order.len() > self.best.len() {
            self.best.clone_from(order);
        }
        let next = |queue: usize| self.queues[queue].get(done[queue]);
        let ends = (0..done.len()).filter_map(next).map(|event| event.ended);
        let first_end = ends.min().unwrap_or(u64::MAX);
        for queue in 0..done.len() {
            let Some(event) = self.queues[queue].get(done[queue]).cloned() else {
                continue;
            };
            if event.began > first_end {
                continue;
            }
            let mut after = node.clone();
            let mut reply = after.command(&event.argv);
            if event.argv[0] == b"MGET" {
                reply.drain(..b"*1\r\n".len());
            }
            let fits = event.reply.as_ref().is_none_or(|told| *told == reply);
            let optional = event.optional;
            done[queue] += 1;
            order.push(event);
            if fits && self.run(done, &after, order) || optional && self.run(done, node, order) {
                return true;
            }
            order.pop();
            done[queue] -= 1;
        }
        false
    }
}
