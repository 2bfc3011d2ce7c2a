//! `WATCH` of keys on several nodes, and the transactions behind it, where these are split.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Settings, Stack, eventually, pause, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::{Redis, is_other_server};

const SPLIT: (&str, &str) = ("transactions.cross_node", "\"split\"");

/// Two nodes, and a key on each.
fn split(settings: Settings<'_>) -> (Stack, String, String) {
    let stack = Stack::start(&[&[SPLIT], settings].concat());
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    (stack, a, b)
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

fn aborts(reply: &Reply) -> bool {
    reply.text().starts_with("EXECABORT")
}

/// Sets both keys in a transaction.
fn set_both(client: &mut Connection, a: &str, b: &str, value: u32) -> Reply {
    client.run_ok("MULTI");
    client.run(&format!("SET {a} {value}"));
    client.run(&format!("SET {b} {value}"));
    client.run("EXEC")
}

/// What two clients do, on keys of both nodes.
const LINES: &[&str] = &[
    "1 WATCH a b",
    "1 GET a",
    "1 MULTI",
    "1 SET a 1",
    "1 SET b 2",
    "1 EXEC",
    "2 MGET a b",
    // Changed on one node, on the other one, by the client itself.
    "1 WATCH a b",
    "2 SET a 3",
    "1 MULTI",
    "1 SET a 4",
    "1 SET b 4",
    "1 CLIENT SETNAME never",
    "1 EXEC",
    "1 WATCH a",
    "1 WATCH b c",
    "2 SET b 3",
    "1 MULTI",
    "1 SET a 4",
    "1 SET b 4",
    "1 EXEC",
    "1 WATCH a b",
    "1 INCR b",
    "1 MULTI",
    "1 SET a 4",
    "1 SET b 4",
    "1 EXEC",
    "1 CLIENT GETNAME",
    "2 MGET a b c",
    // Watched where nothing is executed, executed where nothing is watched.
    "1 WATCH a c",
    "1 MULTI",
    "1 SET b 5",
    "1 EXEC",
    "1 WATCH a c",
    "2 DEL a",
    "1 MULTI",
    "1 SET b 6",
    "1 EXEC",
    "1 WATCH b",
    "1 MULTI",
    "1 SET a 7",
    "1 INCR d",
    "1 GET b",
    "1 EXEC",
    "1 WATCH b",
    "2 APPEND b x",
    "1 MULTI",
    "1 SET a 8",
    "1 EXEC",
    // Commands on several nodes, and on none.
    "1 WATCH a b c d",
    "1 MULTI",
    "1 PING",
    "1 MSET a 1 b 2 c 3 d 4",
    "1 MGET d c b a nobody",
    "1 INCR b",
    "1 EXISTS a b c nobody",
    "1 DEL c d",
    "1 ECHO end",
    "1 EXEC",
    "1 WATCH a b",
    "1 MULTI",
    "1 SET a 9",
    "1 DBSIZE",
    "1 MSET a 10 b 10",
    "1 EXEC",
    "1 WATCH a b",
    "2 SET b 1",
    "1 MULTI",
    "1 SET a 11",
    "1 DBSIZE",
    "1 MSET a 12 b 12",
    "1 EXEC",
    "2 MGET a b",
    // Nothing at all.
    "1 WATCH a b",
    "1 MULTI",
    "1 EXEC",
    "1 WATCH a b",
    "2 DEL b",
    "1 MULTI",
    "1 EXEC",
    "1 MULTI",
    "1 EXEC",
    // Scripts, and errors of commands.
    "1 SCRIPT LOAD return{KEYS[1],redis.call('incr',KEYS[1])}",
    "1 SET a 1",
    "1 LPUSH c x",
    "1 WATCH a b",
    "1 MULTI",
    "1 EVALSHA 6f40ddda732a8b358acf96ab2acd4dcb44e9c83e 1 a",
    "1 EVAL return{KEYS[1],redis.call('incr',KEYS[1])} 1 b",
    "1 INCR c",
    "1 LPUSH b x",
    "1 MGET a b c",
    "1 EXEC",
    // A transaction that is refused, and everything else that ends a watch.
    "1 WATCH a b",
    "1 MULTI",
    "1 SET a",
    "1 SET b 1",
    "1 EXEC",
    "2 MSET a 1 b 1",
    "1 MULTI",
    "1 MGET a b",
    "1 EXEC",
    "1 WATCH a b",
    "1 UNWATCH",
    "2 MSET a 2 b 2",
    "1 MULTI",
    "1 MGET a b",
    "1 EXEC",
    "1 WATCH a b",
    "1 MULTI",
    "1 SET a 1",
    "1 DISCARD",
    "2 MSET a 3 b 3",
    "1 MULTI",
    "1 MGET a b",
    "1 EXEC",
    "1 WATCH a b",
    "1 RESET",
    "2 MSET a 4 b 4",
    "1 MULTI",
    "1 MGET a b",
    "1 EXEC",
    "1 WATCH",
    // Another database.
    "1 SELECT 3",
    "1 WATCH a b",
    "2 MSET a 5 b 5",
    "1 MULTI",
    "1 MSET a 6 b 6",
    "1 EXEC",
    "1 WATCH a b",
    "1 MULTI",
    "1 SET b 7",
    "1 SELECT 0",
    "1 MGET a b",
    "1 EXEC",
    "1 WATCH b a",
    "2 FLUSHALL",
    "1 MULTI",
    "1 SET a 8",
    "1 EXEC",
];

/// Valkey has other words for this, and refuses the transaction.
const INSIDE: &[&str] = &["1 MULTI", "1 WATCH a b", "1 MGET a b", "1 EXEC"];

#[test]
fn replies_are_those_of_one_redis() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[SPLIT]);
    let redis = Redis::start(&[]);
    let names = [(0, "a"), (1, "b"), (0, "c"), (1, "d")];
    let names = names.map(|(node, name)| (name, stack.key_on(node, name)));
    let place = |word: &str| {
        let name = names.iter().find(|(name, _)| *name == word);
        name.map_or(word, |(_, key)| key.as_str()).to_owned()
    };
    for hello in ["HELLO 2", "HELLO 3"] {
        let mut pairs = [stack.address(), redis.address()]
            .map(|address| [Connection::open(address), Connection::open(address)]);
        for pair in &mut pairs {
            for client in pair.iter_mut() {
                client.run(hello);
            }
            pair[0].run("FLUSHALL");
        }
        let inside = if is_other_server() { &[] } else { INSIDE };
        for line in inside.iter().chain(LINES) {
            let (who, line) = line.split_once(' ').unwrap();
            let who = usize::from(who == "2");
            let words: Vec<String> = line.split(' ').map(place).collect();
            let [tally, plain] = pairs.each_mut().map(|pair| pair[who].call(&words));
            assert_eq!(tally, plain, "{hello}: {line}");
        }
    }
}

#[test]
fn what_others_write_to_a_node_makes_exec_nil_on_all() {
    if skipped_on_bare_redis() {
        return;
    }
    let (stack, a, b) = split(&[]);
    let mut client = stack.connect();
    for (node, key) in [&a, &b].into_iter().enumerate() {
        client.run(&format!("MSET {a} 0 {b} 0"));
        client.run_ok(&format!("WATCH {a} {b}"));
        stack.nodes[node].connect().run_ok(&format!("SET {key} 5"));
        assert_eq!(set_both(&mut client, &a, &b, 1), Reply::Nil, "node {node}");
        for (other, key) in [&a, &b].into_iter().enumerate() {
            let expected = if other == node { "5" } else { "0" };
            let found = stack.nodes[other].connect().run(&format!("GET {key}"));
            assert_eq!(found.text(), expected);
        }
    }
    client.run_ok(&format!("WATCH {a} {b}"));
    assert!(matches!(set_both(&mut client, &a, &b, 1), Reply::Array(_)));
}

#[test]
fn a_watched_key_whose_time_ends_makes_exec_nil() {
    if skipped_on_bare_redis() {
        return;
    }
    let (stack, a, b) = split(&[]);
    let (mut client, mut other) = (stack.connect(), stack.connect());
    for (ends, node) in [(&a, 0), (&b, 1)] {
        client.run_ok(&format!("SET {ends} 1 PX 200"));
        client.run_ok(&format!("WATCH {a} {b}"));
        let mut node = stack.nodes[node].connect();
        let ended = eventually(Duration::from_secs(5), || {
            node.run(&format!("EXISTS {ends}")).integer() == 0
        });
        assert!(ended);
        assert_eq!(set_both(&mut client, &a, &b, 1), Reply::Nil);
        assert_eq!(other.run(&format!("EXISTS {a} {b}")).integer(), 0);
    }
}

#[test]
fn an_increment_of_a_warm_key_makes_exec_nil_on_all_nodes() {
    if skipped_on_bare_redis() {
        return;
    }
    let (stack, a, b) = split(&[("counters.flush_interval", "\"10s\"")]);
    let (mut one, mut two) = (stack.connect(), stack.connect());
    for key in [&a, &b] {
        for number in 1..=10 {
            assert_eq!(two.run(&format!("INCR {key}")).integer(), number);
        }
    }
    one.run_ok(&format!("WATCH {a} {b}"));
    assert_eq!(two.run(&format!("INCR {b}")).integer(), 11);
    assert_eq!(set_both(&mut one, &a, &b, 0), Reply::Nil);
    let both = format!("MGET {a} {b}");
    assert_eq!(one.run(&both), Reply::Array(vec![bulk("10"), bulk("11")]));
    one.run_ok(&format!("WATCH {a} {b}"));
    assert!(matches!(set_both(&mut one, &a, &b, 20), Reply::Array(_)));
    assert_eq!(two.run(&format!("INCR {a}")).integer(), 21);
}

/// Amounts go from account to account; readers see the sum that there was at the beginning.
#[test]
fn what_clients_move_between_nodes_behind_watch_is_there_once() {
    const CLIENTS: usize = 8;
    const MOVES: usize = 40;
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[SPLIT, ("server.threads", "4")]);
    let accounts: Vec<String> = (0..4)
        .map(|number| stack.key_on(number % 2, &format!("account{number}")))
        .collect();
    let mut client = stack.connect();
    for account in &accounts {
        client.run_ok(&format!("SET {account} 1000"));
    }
    let (ended, retries) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (start, mget) = (
        Barrier::new(CLIENTS + 2),
        format!("MGET {}", accounts.join(" ")),
    );
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (stack, accounts) = (&stack, &accounts);
            let (start, ended, retries) = (&start, &ended, &retries);
            scope.spawn(move || {
                let mut client = stack.connect();
                start.wait();
                for round in 0..MOVES {
                    let from = &accounts[(number + round) % 4];
                    let to = &accounts[(number * 3 + round + 1 + round % 3) % 4];
                    while from != to && !moves(&mut client, from, to) {
                        retries.fetch_add(1, Ordering::Relaxed);
                    }
                }
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        for _ in 0..2 {
            let (stack, mget, start, ended) = (&stack, &mget, &start, &ended);
            scope.spawn(move || {
                let mut client = stack.connect();
                start.wait();
                while ended.load(Ordering::Relaxed) < CLIENTS {
                    let replies = client.run_all(&["MULTI", mget, "EXEC"]);
                    assert_eq!(sum(&replies[2].elements()[0]), 4000, "{replies:?}");
                }
            });
        }
    });
    let retries = retries.into_inner();
    assert_eq!(sum(&client.run(&mget)), 4000, "{retries} retries");
    assert!(retries > 0, "no two clients met");
}

fn sum(values: &Reply) -> i64 {
    let values = values.elements().iter();
    values
        .map(|value| value.text().parse::<i64>().unwrap())
        .sum()
}

/// Moves 1 as a client does that watches what it reads; false if it has to be tried again.
fn moves(client: &mut Connection, from: &str, to: &str) -> bool {
    client.run_ok(&format!("WATCH {from} {to}"));
    let mut read = |key: &str| -> i64 { client.run(&format!("GET {key}")).text().parse().unwrap() };
    let (left, right) = (read(from) - 1, read(to) + 1);
    let replies = client.run_all(&[
        "MULTI".to_owned(),
        format!("SET {from} {left}"),
        format!("SET {to} {right}"),
        "EXEC".to_owned(),
    ]);
    match &replies[3] {
        Reply::Nil => false,
        Reply::Array(done) if done.iter().all(Reply::is_ok) => true,
        other => panic!("{other:?}"),
    }
}

#[test]
fn clients_that_wait_for_watched_keys_hold_nobody_up() {
    if skipped_on_bare_redis() {
        return;
    }
    let (stack, a, b) = split(&[]);
    let (mut one, mut two) = (stack.connect(), stack.connect());
    let (mut waits_for_a, mut waits_for_both) = (stack.connect(), stack.connect());
    for (round, lines) in [[&a, &b], [&b, &a]].iter().enumerate() {
        one.run_ok(&format!("WATCH {} {}", lines[0], lines[1]));
        two.run_ok(&format!("WATCH {} {}", lines[1], lines[0]));
        waits_for_a.send(&["BLPOP", &a, "0"]);
        waits_for_both.send(&["BLPOP", &b, &a, "0"]);
        for client in [&mut one, &mut two] {
            client.run_ok("MULTI");
            client.run(&format!("RPUSH {a} {round} {round}"));
            client.run(&format!("RPUSH {b} {round} {round}"));
        }
        assert!(matches!(one.run("EXEC"), Reply::Array(_)));
        assert_eq!(two.run("EXEC"), Reply::Nil);
        for waiting in [&mut waits_for_a, &mut waits_for_both] {
            assert!(matches!(waiting.read_reply(), Reply::Array(_)));
        }
        let left: i64 = [&a, &b]
            .map(|key| one.run(&format!("LLEN {key}")).integer())
            .iter()
            .sum();
        assert_eq!(left, 2);
        one.run(&format!("DEL {a} {b}"));
    }
}

/// Kills the connection to a node that somebody watches with.
fn kill_watching(node: &Redis) {
    let mut node = node.connect();
    let list = node.run("CLIENT LIST").text();
    let watching = list.lines().find(|line| line.contains("cmd=watch"));
    let mut fields = watching.expect("a watch").split(' ');
    let id = fields.find_map(|field| field.strip_prefix("id="));
    let killed = node.run(&format!("CLIENT KILL ID {}", id.unwrap()));
    assert_eq!(killed.integer(), 1);
}

#[test]
fn a_lost_watch_fails_exec_and_nothing_is_executed() {
    if skipped_on_bare_redis() {
        return;
    }
    let (stack, a, b) = split(&[]);
    let mut client = stack.connect();
    for node in 0..2 {
        client.run_ok(&format!("WATCH {a} {b}"));
        kill_watching(&stack.nodes[node]);
        let reply = set_both(&mut client, &a, &b, 1);
        assert!(aborts(&reply), "node {node}: {reply:?}");
        assert_eq!(client.run(&format!("EXISTS {a} {b}")).integer(), 0);
        client.run_ok(&format!("WATCH {a} {b}"));
        assert!(matches!(set_both(&mut client, &a, &b, 1), Reply::Array(_)));
        client.run(&format!("DEL {a} {b}"));
    }
}

#[test]
fn a_node_killed_after_watch_fails_exec_and_nothing_is_executed() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, a, b) = split(&[]);
    let (mut client, mut other) = (stack.connect(), stack.connect());
    for node in 0..2 {
        let (here, there) = if node == 0 { (&b, &a) } else { (&a, &b) };
        client.run_ok(&format!("WATCH {a} {b}"));
        stack.nodes[node].kill();
        client.run_ok("MULTI");
        // It may be known already that the node is away.
        client.run(&format!("SET {a} 1"));
        client.run(&format!("SET {b} 1"));
        let reply = client.run("EXEC");
        assert!(reply.is_error(), "node {node}: {reply:?}");
        assert_eq!(other.run(&format!("EXISTS {here}")).integer(), 0);
        // One that watches there fails, and what it began on the other node ends.
        assert!(client.run(&format!("WATCH {a} {b}")).is_error());
        other.run_ok(&format!("SET {here} 2"));
        client.run_ok("MULTI");
        client.run(&format!("GET {here}"));
        assert_eq!(client.run("EXEC"), Reply::Array(vec![bulk("2")]));
        stack.nodes[node].restart();
        let back = eventually(Duration::from_secs(20), || {
            other.run(&format!("DEL {there}")) == Reply::Integer(0)
        });
        assert!(back);
        client.run_ok(&format!("WATCH {a} {b}"));
        assert!(matches!(set_both(&mut client, &a, &b, 3), Reply::Array(_)));
        other.run(&format!("DEL {a} {b}"));
    }
}

#[test]
fn a_node_that_is_silent_at_exec_frees_the_keys_of_the_other_in_time() {
    if skipped_on_bare_redis() {
        return;
    }
    let (stack, a, b) = split(&[("upstream.request_timeout", "\"500ms\"")]);
    let (mut client, mut other) = (stack.connect(), stack.connect());
    for (node, free) in [(0, &b), (1, &a)] {
        client.run_ok(&format!("WATCH {a} {b}"));
        client.run_ok("MULTI");
        client.run(&format!("SET {a} 1"));
        client.run(&format!("SET {b} 1"));
        stack.nodes[node].freeze();
        client.send(&["EXEC"]);
        assert!(!other.run(&format!("GET {free}")).is_error());
        let reply = client.read_reply();
        assert!(reply.is_error(), "{reply:?}");
        stack.nodes[node].thaw();
        let back = eventually(Duration::from_secs(20), || {
            !other.run(&format!("DEL {a} {b}")).is_error()
        });
        assert!(back);
        client.run_ok(&format!("WATCH {a} {b}"));
        assert!(matches!(set_both(&mut client, &a, &b, 2), Reply::Array(_)));
        other.run(&format!("DEL {a} {b}"));
    }
}

#[test]
fn a_client_that_leaves_frees_all_nodes() {
    if skipped_on_bare_redis() {
        return;
    }
    let (stack, a, b) = split(&[("upstream.max_pooled", "1")]);
    let mut other = stack.connect();
    for queues in [false, true] {
        let mut client = stack.connect();
        client.run_ok(&format!("WATCH {a} {b}"));
        let refused = other.run(&format!("WATCH {b} {a}"));
        assert!(refused.text().contains("upstream.max_pooled"));
        if queues {
            client.run_ok("MULTI");
            client.run(&format!("SET {a} 1"));
        }
        drop(client);
        let watches = eventually(Duration::from_secs(10), || {
            other.run(&format!("WATCH {b} {a}")).is_ok()
        });
        assert!(watches);
        assert!(matches!(set_both(&mut other, &a, &b, 1), Reply::Array(_)));
    }
    // Increments are answered from memory again.
    for key in [&a, &b] {
        let warm = eventually(Duration::from_secs(10), || {
            other.run(&format!("INCR {key}"));
            other.run(&format!("TALLY WHERE {key}")).elements()[3].text() == "memory"
        });
        assert!(warm, "{key}");
    }
}

#[test]
fn connections_that_watch_are_used_again_and_bounded() {
    const MOST: usize = 4;
    if skipped_on_bare_redis() {
        return;
    }
    let (stack, a, b) = split(&[("upstream.max_pooled", "4")]);
    let done = AtomicBool::new(false);
    let mut clients: Vec<_> = (0..MOST).map(|_| stack.connect()).collect();
    for client in &mut clients {
        client.run_ok(&format!("WATCH {a}"));
    }
    // One that gets its place at one node and not at the other keeps none.
    let mut late = stack.connect();
    for _ in 0..2 * MOST {
        let refused = late.run(&format!("WATCH {b} {a}"));
        assert!(
            refused.text().contains("upstream.max_pooled"),
            "{refused:?}"
        );
    }
    for client in &mut clients {
        client.run_ok(&format!("WATCH {b}"));
    }
    let mut nodes: Vec<_> = stack.nodes.iter().map(Redis::connect).collect();
    // What was closed just now may be in the first list.
    pause(Duration::from_millis(100));
    let before = links(&mut nodes);
    thread::scope(|scope| {
        for mut client in clients {
            let (a, b, done) = (&a, &b, &done);
            scope.spawn(move || {
                for round in 0..50 {
                    set_both(&mut client, a, b, round);
                    client.run_ok(&format!("WATCH {a} {b}"));
                }
                done.store(true, Ordering::Relaxed);
            });
        }
        while !done.load(Ordering::Relaxed) {
            let now = links(&mut nodes);
            let has_more = now.iter().zip(&before).any(|(now, before)| now > before);
            assert!(!has_more, "{now:?}, {before:?} before");
        }
    });
}

/// How many connections each node has.
fn links(nodes: &mut [Connection]) -> Vec<usize> {
    let lists = nodes.iter_mut().map(|node| node.run("CLIENT LIST"));
    lists.map(|list| list.text().lines().count()).collect()
}
