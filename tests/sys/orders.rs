//! Clients that use a few keys at once in every way: single increments, deadlines, scripts, limits,
//! transactions, watches, moves from key to key. There is one order of it all that explains each
//! reply.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::{Connection, encode, words};
use crate::harness::{Settings, Stack, eventually, now, pause, say, skipped_on_bare_redis};
use crate::history::{Operation, explain};
use crate::model::{Action, If};
use crate::random::Random;
use crate::relay::Relay;
use crate::reply::Reply;
use crate::servers::Redis;

/// How clients load the stack.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// Whether all keys are on one node.
    together: bool,
    /// Whether commands and transactions take keys of both nodes.
    split: bool,
    links: Links,
}

/// What becomes of connections to the nodes meanwhile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Links {
    Good,
    /// They are cut now and then.
    Cut,
    /// Each has delays of its own.
    Slow,
}

const ONE_NODE: Load = Load {
    together: true,
    split: true,
    links: Links::Good,
};

/// What all clients of a round share.
struct Round<'a> {
    names: &'a [String],
    load: Load,
    seed: u64,
    clock: Instant,
    history: Mutex<Vec<Operation<Action>>>,
}

#[track_caller]
fn check(load: Load, settings: Settings<'_>) {
    if (load.links != Links::Good || !load.together) && skipped_on_bare_redis() {
        return;
    }
    let (stack, _relays) = if load.links == Links::Slow {
        let nodes = vec![Redis::start(&[]), Redis::start(&[])];
        let relays = nodes.iter().map(Redis::address).map(Relay::start_slow);
        let relays: Vec<_> = relays.collect();
        (Stack::behind(&relays, nodes, settings), relays)
    } else {
        (Stack::start(settings), Vec::new())
    };
    let names = if load.together {
        ["{o}a", "{o}b", "{o}c"].map(str::to_owned)
    } else {
        [(0, "a"), (1, "b"), (0, "c")].map(|(node, name)| stack.key_on(node, name))
    };
    let first = Random::seed_or(0x0DE5);
    let rounds = std::env::var("TALLY_SUITE_SCRIPTS").map_or(30, |n| n.parse().expect("a count"));
    for seed in first..first + rounds {
        // The connections may have been cut just now.
        let is_empty = || stack.connect().run("FLUSHALL").is_ok();
        assert!(eventually(Duration::from_secs(20), is_empty));
        let round = Round {
            names: &names,
            load,
            seed,
            clock: now(),
            history: Mutex::default(),
        };
        round.run(&stack);
        let history = round.history.into_inner().unwrap();
        match explain(&history) {
            // Much that was never answered may have happened in too many ways.
            Err(unexplained) if load.links == Links::Cut && unexplained.is_open => {
                say(&format!("TALLY_SUITE_SEED={seed}: not searched to the end"));
            }
            Err(unexplained) => panic!(
                "TALLY_SUITE_SEED={seed}, {load:?}, {settings:?}, {names:?}: {unexplained:?}"
            ),
            Ok(()) => {}
        }
    }
}

impl Round<'_> {
    fn run(&self, stack: &Stack) {
        let start = Barrier::new(CLIENTS);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let start = &start;
                    scope.spawn(move || {
                        let mut connection = stack.connect();
                        start.wait();
                        self.run_client(client, &mut connection);
                    })
                })
                .collect();
            let done = &done;
            if self.load.links == Links::Cut {
                scope.spawn(move || self.cut(stack, done));
            }
            let ended: Vec<_> = clients
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect();
            done.store(true, Ordering::Relaxed);
            for client in ended {
                client.unwrap();
            }
        });
    }

    /// Cuts the connections of a node now and then.
    fn cut(&self, stack: &Stack, done: &AtomicBool) {
        let mut random = Random::new(!self.seed);
        while !done.load(Ordering::Relaxed) {
            pause(Duration::from_millis(random.next() % 8));
            let node = &stack.nodes[random.below(stack.nodes.len())];
            node.connect().run("CLIENT KILL TYPE normal SKIPME yes");
            pause(Duration::from_millis(20));
        }
    }

    fn run_client(&self, client: usize, connection: &mut Connection) {
        let mut random = Random::new(self.seed ^ (u64::try_from(client).unwrap() << 32));
        let mut done = 0;
        while done < OPERATIONS {
            if random.one_in(12) {
                let key = random.below(self.names.len());
                let other = random.below(self.names.len());
                let keys = [key, other];
                let is_one = key == other || !self.load.split;
                self.raise(client, connection, &keys[..if is_one { 1 } else { 2 }]);
                done += 2;
                continue;
            }
            let depth = if client.is_multiple_of(2) {
                1
            } else {
                1 + random.below(6)
            };
            // Commands of one write that have no key in common are in no order.
            let key = random.below(self.names.len());
            let batch: Vec<_> = (0..depth).map(|_| self.any(&mut random, key)).collect();
            self.send(client, connection, batch);
            done += depth;
        }
    }

    /// Sends all actions in one write.
    fn send(&self, client: usize, connection: &mut Connection, batch: Vec<Action>) -> Vec<Reply> {
        let requests: Vec<_> = batch
            .iter()
            .map(|action| action.requests(self.names))
            .collect();
        let bytes: Vec<u8> = requests
            .iter()
            .flatten()
            .flat_map(|request| encode(request))
            .collect();
        let began = self.time();
        connection.write_raw(&bytes);
        let mut replies = Vec::new();
        for (action, requests) in batch.into_iter().zip(&requests) {
            let frames: Vec<_> = requests.iter().map(|_| connection.read_reply()).collect();
            let reply = frames.into_iter().next_back().unwrap();
            replies.push(reply.clone());
            self.note(client, began, action, reply);
        }
        replies
    }

    /// `WATCH`, `GET`, and a `SET` that depends on it, of several keys.
    fn raise(&self, client: usize, connection: &mut Connection, keys: &[usize]) {
        let names: Vec<&str> = keys.iter().map(|key| self.names[*key].as_str()).collect();
        let watched = connection.call(&words(&format!("WATCH {}", names.join(" "))));
        let mut reads = Vec::new();
        for key in keys {
            let read = self.send(client, connection, vec![Action::Get(*key)]);
            reads.extend(read);
        }
        if watched.is_error() || reads.iter().any(Reply::is_error) {
            connection.run_ok("UNWATCH");
            return;
        }
        let reads = keys.iter().zip(reads).map(|(key, read)| match read {
            Reply::Bulk(value) => (*key, Some(value)),
            _ => (*key, None),
        });
        let raise = Action::Raise(reads.collect());
        self.send(client, connection, vec![raise]);
    }

    fn note(&self, client: usize, began: u64, action: Action, reply: Reply) {
        let mut history = self.history.lock().unwrap();
        let mut operation = Operation {
            client,
            began,
            ended: self.time(),
            action,
            reply: Some(reply),
        };
        if let Some(Reply::Error(text)) = &operation.reply
            && self.load.links == Links::Cut
        {
            let text = String::from_utf8_lossy(text);
            if text.contains("may have been executed") {
                if matches!(
                    operation.action,
                    Action::Get(_) | Action::Ttl(_) | Action::Strlen(_)
                ) {
                    return;
                }
                // It may be none of those before the client's next one.
                operation.client = CLIENTS + history.len();
                operation.ended = u64::MAX;
                operation.reply = None;
            } else if text.contains("unreachable")
                || text.contains("EXECABORT")
                || text.contains("was not sent")
            {
                return;
            }
        }
        history.push(operation);
    }

    fn time(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap()
    }

    /// Something on this key.
    fn any(&self, random: &mut Random, key: usize) -> Action {
        let keys = self.names.len();
        // In every second round keys are warm most of the time.
        if self.seed.is_multiple_of(2) && !random.one_in(4) {
            return Action::IncrBy(key, 1);
        }
        match random.below(100) {
            0..50 => Action::IncrBy(key, *random.pick::<i64>(&[&1, &1, &1, &-1, &5, &-7])),
            50..62 => Action::Get(key),
            62..68 => Action::Limit(key, *random.pick::<i64>(&[&3, &20, &1000])),
            68..75 => self.transaction(random, key),
            75..82 => match several(random, key, keys) {
                Action::Both(..) if !self.load.split => Action::Get(key),
                action => action,
            },
            _ => single(random, key),
        }
    }

    fn transaction(&self, random: &mut Random, key: usize) -> Action {
        let keys = self.names.len();
        let mut queued = vec![Action::IncrBy(key, 1)];
        for _ in 0..random.below(4) {
            let key = if self.load.split {
                random.below(keys)
            } else {
                key
            };
            queued.push(match random.below(8) {
                0 if self.load.together || self.load.split => several(random, key, keys),
                0..4 => Action::IncrBy(key, 1),
                _ => single(random, key),
            });
        }
        Action::Transaction(queued)
    }
}

/// A command on one key that is no increment of a whole number.
fn single(random: &mut Random, key: usize) -> Action {
    let value = *random.pick::<&str>(&[&"0", &"41", &"-3", &"007", &"x", &"19", &"2"]);
    let ttl = *random.pick::<i64>(&[&1000, &3000, &9000]);
    match random.below(22) {
        0 | 1 => Action::Set(key, value),
        2 => Action::SetKeepTtl(key, value),
        3 => Action::SetEx(key, value, ttl),
        4 => Action::SetNx(key, value),
        5 => Action::GetSet(key, value),
        6 => Action::GetDel(key),
        7 | 8 => Action::Del(key),
        9 => Action::Append(key, "1"),
        10 => Action::SetRange(key, "7"),
        11 => Action::Float(key),
        12 => Action::Persist(key),
        13 => Action::Strlen(key),
        14 => Action::Exists(key),
        15 | 16 => Action::Ttl(key),
        17 => Action::Expire(key, ttl, If::None),
        18 => Action::Expire(key, ttl, If::Any),
        19 => Action::Expire(key, ttl, If::Later),
        20 => Action::Expire(key, ttl, If::Sooner),
        _ => Action::Expire(key, ttl, If::Always),
    }
}

/// A command on this key and another.
fn several(random: &mut Random, key: usize, keys: usize) -> Action {
    let other = (key + 1 + random.below(keys - 1)) % keys;
    let (one, two) = if random.one_in(2) {
        (key, other)
    } else {
        (other, key)
    };
    match random.below(6) {
        0 => Action::Rename(one, two),
        1 | 2 => Action::Copy(one, two),
        3 => Action::MSetNx(one, two),
        _ => Action::Both(one, two),
    }
}

#[test]
fn commands_of_every_kind_have_one_order_when_buffered() {
    let settings: Settings<'_> = &[
        ("server.threads", "3"),
        ("counters.flush_interval", "\"10ms\""),
    ];
    check(ONE_NODE, settings);
    check(ONE_NODE, &[("counters.flush_interval", "\"1m\"")]);
}

#[test]
fn commands_of_every_kind_have_one_order_when_exact() {
    check(
        ONE_NODE,
        &[("server.threads", "2"), ("counters.mode", "\"exact\"")],
    );
}

#[test]
fn commands_of_every_kind_have_one_order_when_each_key_has_a_rule() {
    let rules = r#"[
        { match = "*a", mode = "exact" },
        { match = "*b", mode = "through" },
        { match = "*c", flush_interval = "10ms", cache_ttl = "0s" },
    ]"#;
    check(ONE_NODE, &[("server.threads", "2"), ("rules", rules)]);
}

#[test]
fn commands_of_every_kind_have_one_order_when_limits_are_granted_here() {
    check(
        ONE_NODE,
        &[("server.threads", "2"), ("counters.local_grants", "true")],
    );
}

#[test]
fn commands_over_two_nodes_have_one_order() {
    let load = Load {
        together: false,
        split: false,
        ..ONE_NODE
    };
    check(load, &[("server.threads", "2")]);
    let split = Load {
        split: true,
        ..load
    };
    check(
        split,
        &[
            ("server.threads", "2"),
            ("transactions.cross_node", "\"split\""),
        ],
    );
    check(
        split,
        &[
            ("counters.mode", "\"exact\""),
            ("transactions.cross_node", "\"split\""),
        ],
    );
}

#[test]
fn commands_have_one_order_however_late_each_connection_is() {
    let late = Load {
        links: Links::Slow,
        ..ONE_NODE
    };
    check(late, &[("server.threads", "2")]);
}

#[test]
fn commands_over_two_nodes_have_one_order_however_late_each_connection_is() {
    let late = Load {
        together: false,
        links: Links::Slow,
        ..ONE_NODE
    };
    let split = ("transactions.cross_node", "\"split\"");
    check(late, &[split, ("server.threads", "2")]);
    check(late, &[split, ("counters.mode", "\"exact\"")]);
}

#[test]
fn commands_of_every_kind_have_one_order_while_connections_are_cut() {
    let load = Load {
        links: Links::Cut,
        ..ONE_NODE
    };
    let soon: Settings<'_> = &[
        ("server.threads", "2"),
        ("upstream.backoff_min", "\"2ms\""),
        ("upstream.backoff_max", "\"10ms\""),
    ];
    check(load, soon);
    check(load, &[soon, &[("counters.mode", "\"exact\"")]].concat());
}

const CLIENTS: usize = 5;

/// Of each client in a round.
const OPERATIONS: usize = 50;
