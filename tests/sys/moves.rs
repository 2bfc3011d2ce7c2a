//! Commands that move something between keys of two nodes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::connection::{Connection, words};
use crate::harness::{Stack, eventually, pause, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::Redis;

/// Keys named `a` and `c` are on the first node, `b` and `d` on the second.
const MOVING: &[&str] = &[
    // RENAME
    "RENAME a b",
    "SET a 1",
    "RENAME a b",
    "MGET a b",
    "INCR b",
    "SET a 5 EX 1000",
    "INCR a",
    "RENAME a b",
    "GET b",
    "TTL b",
    "EXISTS a",
    "INCR b",
    "HSET a f v g w",
    "RENAMENX a b",
    "RENAMENX a d",
    "HGETALL d",
    "RENAMENX a d",
    "ZADD a 1.5 x 2 y",
    "RENAME a d",
    "ZRANGE d 0 -1 WITHSCORES",
    "XADD a 1-1 f v",
    "XGROUP CREATE a g 0",
    "RENAME a b",
    "XINFO GROUPS b",
    "RENAME b b",
    "RENAME a a",
    "RENAMENX a",
    "DEL b d",
    "COPY a b",
    "SET a 7 EX 1000",
    "INCR a",
    "COPY a b",
    "COPY a b",
    "COPY a b DB 99",
    "COPY a b DB x",
    "COPY a b AGAIN",
    "INCR a",
    "COPY a b REPLACE",
    "TTL b",
    "COPY a d DB 3",
    "COPY a d DB 3",
    "SELECT 3",
    "INCR d",
    "TTL d",
    "SELECT 0",
    "COPY a d REPLACE DB 3",
    "SELECT 3",
    "GET d",
    "SELECT 0",
    "MGET a b d",
    "DEL a b",
    // lists
    "LMOVE a b LEFT LEFT",
    "RPOPLPUSH a b",
    "RPUSH a 1 2 3 4 5",
    "LMOVE a b LEFT LEFT",
    "LMOVE a b RIGHT LEFT",
    "LMOVE a b RIGHT RIGHT",
    "RPOPLPUSH a b",
    "LRANGE b 0 -1",
    "LRANGE a 0 -1",
    "LMOVE a b UP LEFT",
    "BLMOVE a b LEFT RIGHT 0",
    "EXISTS a",
    "BLMOVE a b LEFT RIGHT 0.02",
    "BRPOPLPUSH a b 0.02",
    "BRPOPLPUSH a b x",
    "BLMOVE a b LEFT RIGHT -1",
    "SET a text",
    "LMOVE a b LEFT LEFT",
    "LMOVE b a LEFT LEFT",
    "BLMOVE a b LEFT LEFT 0",
    "LMOVE c a LEFT LEFT",
    "LMOVE c b LEFT LEFT",
    "LLEN b",
    "DEL a b",
    // sets
    "SMOVE a b m",
    "SADD a m n",
    "SMOVE a b m",
    "SMOVE a b m",
    "SMEMBERS b",
    "SET d text",
    "SMOVE a d n",
    "SMOVE a d none",
    "SMOVE c d n",
    "SMOVE d a n",
    "SMOVE a b n",
    "EXISTS a",
    "SCARD b",
    "DEL b d",
    // strings
    "MSETNX a 1 b 2 c 3",
    "MGET a b c",
    "MSETNX d 4 b 5",
    "EXISTS d",
    "MSETNX d 4 e",
    "DEL a b c",
    "MSETNX a 1 b 2 a 3",
    "MGET a b",
    "INCR a",
    "INCR b",
    // places
    "GEOADD c 13.36 38.11 Palermo 15.08 37.5 Catania",
    "GEORADIUS c 15 37 200 km STORE b",
    "ZRANGE b 0 -1",
    "GEORADIUSBYMEMBER c Palermo 200 km STOREDIST d",
    "ZCARD d",
];

/// Keys that stand for `a` and `c` on one node, and for `b` and `d` on the other.
type Names = [(&'static str, String); 4];

#[track_caller]
fn names(stack: &Stack) -> Names {
    [(0, "a"), (1, "b"), (0, "c"), (1, "d")].map(|(node, name)| (name, stack.key_on(node, name)))
}

/// A connection to Tally and one to Redis, both empty.
fn greeted(stack: &Stack, redis: &Redis, hello: &str) -> [Connection; 2] {
    let mut clients = [stack.connect(), Connection::open(redis.address())];
    for client in &mut clients {
        client.run(hello);
        client.run("FLUSHALL");
    }
    clients
}

fn place<'a>(names: &'a Names, word: &'a str) -> &'a str {
    let name = names.iter().find(|(name, _)| *name == word);
    name.map_or(word, |(_, key)| key)
}

#[test]
fn keys_of_two_nodes_are_as_on_one_redis() {
    if skipped_on_bare_redis() {
        return;
    }
    compare(&Stack::start(&[]), &Redis::start(&[]), MOVING);
}

/// Runs the lines on both, `a` to `d` on the two nodes in turn.
#[track_caller]
pub(crate) fn compare(stack: &Stack, redis: &Redis, lines: &[&str]) {
    let names = names(stack);
    for hello in ["HELLO 2", "HELLO 3"] {
        let mut clients = greeted(stack, redis, hello);
        for line in lines {
            let words = line.split(' ').map(|word| place(&names, word));
            let line = words.collect::<Vec<_>>().join(" ");
            let [tally, plain] = clients.each_mut().map(|client| client.run(&line));
            assert_eq!(tally, plain, "{hello}: {line}");
        }
    }
}

#[test]
fn no_increment_is_lost_when_its_key_is_renamed() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (from, to) = (stack.key_on(0, "from"), stack.key_on(1, "to"));
    let done = AtomicBool::new(false);
    let acknowledged = AtomicI64::new(0);
    let renamed = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = stack.connect();
                let lines = vec![format!("INCR {from}"); 10];
                while !done.load(Ordering::Relaxed) {
                    for reply in client.run_all(&lines) {
                        assert!(reply.integer() > 0);
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        // As another Tally would.
        scope.spawn(|| {
            let mut node = stack.nodes[0].connect();
            while !done.load(Ordering::Relaxed) {
                assert!(node.run(&format!("INCR {from}")).integer() > 0);
                acknowledged.fetch_add(1, Ordering::Relaxed);
                pause(Duration::from_millis(10));
            }
        });
        let _end = Ending(&done);
        let mut client = stack.connect();
        let (mut sum, mut renamed) = (0, 0);
        while renamed < 200 {
            let reply = client.run(&format!("RENAME {from} {to}"));
            if reply.is_ok() {
                renamed += 1;
                sum += number(&client.run(&format!("GETDEL {to}")));
            } else if reply.text().contains("it is at both names") {
                // A busy machine: between two trips to the node there was always an increment.
                assert_eq!(client.run(&format!("DEL {to}")).integer(), 1);
            } else {
                assert_eq!(reply.text(), "ERR no such key");
            }
        }
        sum
    });
    let rest = stack.connect().run(&format!("GET {from}"));
    let rest = number(&rest);
    assert_eq!(renamed + rest, acknowledged.into_inner());
}

/// Ends the other threads, also where this one fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn number(reply: &Reply) -> i64 {
    match reply {
        Reply::Nil => 0,
        text => text.text().parse().expect("a number"),
    }
}

/// Movers in both directions, with `FLUSHALL` of another database and whole-node commands between
/// them: nobody waits for ever, and every element is there once.
#[test]
fn elements_that_many_move_both_ways_are_there_once() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let elements: Vec<String> = (0..40).map(|number| format!("e{number}")).collect();
    stack
        .connect()
        .run(&format!("RPUSH {a} {}", elements.join(" ")));
    std::thread::scope(|scope| {
        for mover in 0..4 {
            let (from, to) = if mover % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let stack = &stack;
            scope.spawn(move || {
                let mut client = stack.connect();
                for round in 0..150 {
                    let line = match round % 3 {
                        0 => format!("LMOVE {from} {to} LEFT RIGHT"),
                        1 => format!("RPOPLPUSH {from} {to}"),
                        _ => format!("BLMOVE {from} {to} RIGHT LEFT 0.01"),
                    };
                    let reply = client.run(&line);
                    assert!(!reply.is_error(), "{line}: {reply:?}");
                }
            });
        }
        scope.spawn(|| {
            let mut client = stack.connect();
            for _ in 0..30 {
                client.run("SWAPDB 3 4");
                client.run("EVAL \"return 1\" 0");
                let all = client.run_all(&[format!("LRANGE {a} 0 -1"), format!("LRANGE {b} 0 -1")]);
                assert!(all.iter().all(|reply| !reply.is_error()), "{all:?}");
            }
        });
    });
    let mut client = stack.connect();
    let all = client.run_all(&[format!("LRANGE {a} 0 -1"), format!("LRANGE {b} 0 -1")]);
    let all: Vec<String> = all
        .iter()
        .flat_map(Reply::elements)
        .map(Reply::text)
        .collect();
    assert_eq!(all.len(), 40, "{all:?}");
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 40, "{all:?}");
}

/// What waits for elements takes them on a connection of its own, past the locks of a move.
#[test]
fn elements_that_some_take_while_others_move_them_are_there_once() {
    const ELEMENTS: usize = 400;
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let elements: Vec<String> = (0..ELEMENTS).map(|number| format!("e{number}")).collect();
    stack
        .connect()
        .run(&format!("RPUSH {a} {}", elements.join(" ")));
    let (stack, a, b) = (&stack, &a, &b);
    let mut found: Vec<String> = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                let mut client = stack.connect();
                let line = format!("LMOVE {a} {b} LEFT RIGHT");
                loop {
                    let reply = client.run(&line);
                    assert!(!reply.is_error(), "{line}: {reply:?}");
                    if reply == Reply::Nil {
                        break;
                    }
                }
            });
        }
        let takers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = stack.connect();
                    let mut taken = Vec::new();
                    while let Reply::Array(pair) = client.run(&format!("BLPOP {a} 0.01")) {
                        taken.push(pair[1].text());
                    }
                    taken
                })
            })
            .collect();
        let taken = takers.into_iter().map(|taker| taker.join().unwrap());
        taken.flatten().collect()
    });
    assert!(!found.is_empty(), "nothing was taken");
    let moved = stack.connect().run(&format!("LRANGE {b} 0 -1"));
    assert!(!moved.elements().is_empty(), "nothing was moved");
    found.extend(moved.elements().iter().map(Reply::text));
    let distinct: HashSet<_> = found.iter().collect();
    assert_eq!(found.len(), distinct.len(), "an element is there twice");
    assert_eq!(found.len(), ELEMENTS);
}

#[test]
fn what_waits_for_an_element_of_another_node_is_given_it() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let (mut waiting, mut client) = (stack.connect(), stack.connect());
    waiting.send(&words(&format!("BLMOVE {a} {b} LEFT LEFT 0")));
    client.run("PING");
    client.run(&format!("RPUSH {a} x"));
    assert_eq!(waiting.read_reply().text(), "x");
    assert_eq!(client.run(&format!("LRANGE {b} 0 -1")).elements().len(), 1);
    // Who leaves takes nothing along.
    waiting.send(&words(&format!("BLMOVE {a} {b} LEFT LEFT 0")));
    assert!(eventually(Duration::from_secs(5), || {
        client.run("CLIENT LIST").text().contains("cmd=blmove")
    }));
    drop(waiting);
    assert!(eventually(Duration::from_secs(5), || {
        !client.run("CLIENT LIST").text().contains("cmd=blmove")
    }));
    client.run(&format!("RPUSH {a} y"));
    assert_eq!(client.run(&format!("LRANGE {a} 0 -1")).elements().len(), 1);
}

#[test]
fn nothing_is_removed_where_the_other_node_does_not_take_it() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let mut client = stack.connect();
    client.run(&format!("RPUSH {a} 1 2"));
    stack.nodes[1].connect().run("CONFIG SET maxmemory 1");
    for line in [
        format!("RENAME {a} {b}"),
        format!("LMOVE {a} {b} LEFT LEFT"),
    ] {
        let refused = client.run(&line).text();
        assert!(refused.starts_with("OOM "), "{line}: {refused}");
    }
    stack.nodes[1].kill();
    for line in [
        format!("RENAME {a} {b}"),
        format!("LMOVE {a} {b} LEFT LEFT"),
    ] {
        assert!(client.run(&line).is_error(), "{line}");
    }
    assert_eq!(client.run(&format!("LRANGE {a} 0 -1")).elements().len(), 2);
    assert_eq!(client.run(&format!("RPUSH {a} 3")).integer(), 3);
}

/// Scripts on keys of both nodes: the body, the number of keys, keys and arguments.
const SCRIPTS: &[&[&str]] = &[
    &["return {KEYS[1] == ARGV[1], #KEYS}", "2", "a", "b", "x"],
    &[
        "return redis.call('MGET', unpack(KEYS))",
        "3",
        "a",
        "b",
        "c",
    ],
    &[
        "redis.call('SET', KEYS[1], 5) return redis.call('INCRBY', KEYS[2], 7)",
        "2",
        "a",
        "b",
    ],
    &[
        "return {redis.call('INCR', KEYS[1]), redis.call('INCR', KEYS[2])}",
        "2",
        "b",
        "a",
    ],
    &[
        "return redis.call('RENAME', KEYS[1], KEYS[2])",
        "2",
        "a",
        "b",
    ],
    &[
        "return redis.call('EXISTS', KEYS[1], KEYS[2])",
        "2",
        "a",
        "b",
    ],
    &[
        "redis.call('EXPIRE', KEYS[2], 1000) return redis.call('TTL', KEYS[2])",
        "2",
        "a",
        "b",
    ],
    &["return redis.call('TTL', KEYS[2])", "2", "a", "b"],
    &[
        "redis.call('PERSIST', KEYS[2]) return redis.call('TTL', KEYS[2])",
        "2",
        "a",
        "b",
    ],
    &["return redis.call('TTL', KEYS[2])", "2", "a", "b"],
    &[
        "redis.call('RPUSH', KEYS[2], 1, 2, 3) return redis.call('LRANGE', KEYS[2], 0, -1)",
        "2",
        "a",
        "d",
    ],
    &["return redis.call('LPOP', KEYS[2])", "2", "c", "d"],
    &[
        "redis.call('SET', KEYS[2], 'x') return redis.call('INCR', KEYS[2])",
        "2",
        "a",
        "b",
    ],
    &["return redis.call('GET', KEYS[2])", "2", "a", "b"],
    &[
        "redis.call('DEL', KEYS[1], KEYS[2]) return redis.error_reply('MINE own')",
        "2",
        "b",
        "a",
    ],
    &[
        "return {redis.call('EXISTS', KEYS[1]), false, {1, 'two'}}",
        "2",
        "b",
        "a",
    ],
];

#[test]
fn scripts_on_keys_of_two_nodes_are_as_on_one_redis_where_transactions_are_split() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("transactions.cross_node", "\"split\"")]);
    let redis = Redis::start(&[]);
    let names = names(&stack);
    for hello in ["HELLO 2", "HELLO 3"] {
        let mut clients = greeted(&stack, &redis, hello);
        for call in SCRIPTS {
            let [body, rest @ ..] = call else { continue };
            let rest = rest.iter().map(|word| place(&names, word));
            let args: Vec<&str> = ["EVAL", *body].into_iter().chain(rest).collect();
            let [tally, plain] = clients.each_mut().map(|client| client.call(&args));
            assert_eq!(tally, plain, "{hello}: {call:?}");
            let keys = "KEYS *";
            let [tally, plain] = clients.each_mut().map(|client| client.run(keys).sorted());
            assert_eq!(tally, plain, "{hello}: after {call:?}");
        }
    }
}

#[test]
fn what_scripts_move_between_counters_of_two_nodes_is_there_once() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("transactions.cross_node", "\"split\"")]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let body = "redis.call('DECRBY', KEYS[1], ARGV[1]) \
                return redis.call('INCRBY', KEYS[2], ARGV[1])";
    let sha = stack.connect().call(&["SCRIPT", "LOAD", body]).text();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (from, to) = if number % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let (stack, sha) = (&stack, &sha);
            scope.spawn(move || {
                let mut client = stack.connect();
                for round in 0..60 {
                    let moved = client.call(&["EVALSHA", sha, "2", from, to, "3"]);
                    assert!(!moved.is_error(), "{moved:?}");
                    for reply in client.run_all(&vec![format!("INCR {from}"); round % 5]) {
                        reply.integer();
                    }
                }
            });
        }
    });
    let mut client = stack.connect();
    let sum: i64 = [&a, &b]
        .map(|key| number(&client.run(&format!("GET {key}"))))
        .iter()
        .sum();
    assert_eq!(sum, 4 * (0..60).map(|round| round % 5).sum::<i64>());
}

#[test]
fn a_rename_that_loses_its_connection_frees_its_keys() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let (mut client, mut other) = (stack.connect(), stack.connect());
    let mut node = stack.nodes[0].connect();
    client.run_ok(&format!("SET {a} 1"));
    let mut ids = || -> HashSet<String> {
        let list = node.run("CLIENT LIST").text();
        let ids = list.lines().filter_map(|line| line.split(' ').next());
        ids.map(|id| id.trim_start_matches("id=").to_owned())
            .collect()
    };
    let before = ids();
    // It has locked the keys, and waits for the other node.
    stack.nodes[1].freeze();
    client.send(&["RENAME", &a, &b]);
    let mut own = None;
    assert!(eventually(Duration::from_secs(10), || {
        own = ids().difference(&before).next().cloned();
        own.is_some()
    }));
    let kill = format!("CLIENT KILL ID {}", own.unwrap());
    assert_eq!(stack.nodes[0].connect().run(&kill).integer(), 1);
    stack.nodes[1].thaw();
    assert!(client.read_reply().is_error());
    assert_eq!(other.run(&format!("INCR {a}")).integer(), 2);
    assert_eq!(other.run(&format!("EXISTS {b}")).integer(), 0);
}

#[test]
fn a_transaction_behind_watch_waits_for_keys_that_are_moved() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let (mut client, mut mover) = (stack.connect(), stack.connect());
    client.run(&format!("RPUSH {a} element"));
    client.run_ok(&format!("WATCH {a}"));
    client.run_ok("MULTI");
    client.run(&format!("LPOP {a}"));
    let mut node = stack.nodes[0].connect();
    let mut looks = || {
        node.run("INFO commandstats")
            .text()
            .contains("cmdstat_lindex")
    };
    stack.nodes[1].freeze();
    mover.send(&["LMOVE", &a, &b, "LEFT", "LEFT"]);
    assert!(eventually(Duration::from_secs(10), &mut looks));
    client.send(&["EXEC"]);
    stack.nodes[1].thaw();
    assert_eq!(mover.read_reply().text(), "element");
    assert_eq!(client.read_reply(), Reply::Nil);
    assert_eq!(client.run(&format!("LLEN {a}")).integer(), 0);
    assert_eq!(client.run(&format!("LLEN {b}")).integer(), 1);
}
