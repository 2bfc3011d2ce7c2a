//! Transactions: those that watch keys, and those on several nodes.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Stack, eventually, pause, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::Redis;

/// The script's keys are taken to one node and back: what another client does to them in between,
/// on a connection past the lane, would be overwritten.
#[test]
fn no_update_is_lost_between_a_watched_transaction_and_a_script_over_nodes() {
    const EACH: usize = 150;
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("transactions.cross_node", "\"split\"")]);
    let (one, two) = (stack.key_on(0, "one"), stack.key_on(1, "two"));
    let [mut watching, mut calling] = [stack.connect(), stack.connect()];
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..EACH {
                loop {
                    watching.run_ok(&format!("WATCH {two}"));
                    let next = match watching.run(&format!("GET {two}")) {
                        Reply::Nil => 1,
                        value => value.text().parse::<i64>().unwrap() + 1,
                    };
                    let set = format!("SET {two} {next}");
                    let replies = watching.run_all(&["MULTI", &set, "EXEC"]);
                    if replies[2] != Reply::Nil {
                        break;
                    }
                }
            }
        });
        scope.spawn(|| {
            let body = "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[2])";
            for _ in 0..EACH {
                let reply = calling.run(&format!("EVAL \"{body}\" 2 {one} {two}"));
                assert!(!reply.is_error(), "{reply:?}");
            }
        });
    });
    let held = stack.connect().run(&format!("GET {two}"));
    assert_eq!(held.text(), (2 * EACH).to_string());
}

#[test]
fn no_update_is_lost_between_watch_and_exec() {
    const CLIENTS: usize = 8;
    const EACH: usize = 40;
    let stack = Stack::start(&[]);
    let barrier = Barrier::new(CLIENTS);
    let retries: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut client = stack.connect();
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let mut retries = 0;
                    for _ in 0..EACH {
                        loop {
                            client.run_ok("WATCH {t}n");
                            let value = client.run("GET {t}n");
                            let next = match value {
                                Reply::Nil => 1,
                                value => value.text().parse::<i64>().unwrap() + 1,
                            };
                            client.run_ok("MULTI");
                            client.run(&format!("SET {{t}}n {next}"));
                            client.run("INCR {t}done");
                            match client.run("EXEC") {
                                Reply::Nil => retries += 1,
                                Reply::Array(replies) => {
                                    assert!(replies[0].is_ok());
                                    break;
                                }
                                other => panic!("{other:?}"),
                            }
                        }
                    }
                    retries
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    let mut client = stack.connect();
    let all = (CLIENTS * EACH).to_string();
    assert_eq!(client.run("GET {t}n").text(), all, "{retries} retries");
    assert_eq!(client.run("GET {t}done").text(), all);
}

#[test]
fn an_increment_of_a_warm_watched_key_makes_exec_nil() {
    let stack = Stack::start(&[("counters.flush_interval", "\"10s\"")]);
    let (mut one, mut two) = (stack.connect(), stack.connect());
    for number in 1..=10 {
        assert_eq!(two.run("INCR {t}n").integer(), number);
    }
    one.run_ok("WATCH {t}n {t}other");
    assert_eq!(one.run("GET {t}n").text(), "10");
    assert_eq!(two.run("INCR {t}n").integer(), 11);
    assert_eq!(two.run("GET {t}n").text(), "11");
    one.run_ok("MULTI");
    one.run("SET {t}n 0");
    one.run("CLIENT SETNAME never");
    assert_eq!(one.run("EXEC"), Reply::Nil);
    assert_eq!(
        one.run("CLIENT GETNAME"),
        Reply::Nil,
        "nothing was executed"
    );
    for number in 12..=20 {
        assert_eq!(two.run("INCR {t}n").integer(), number);
    }
    // Nothing is watched any more.
    one.run_ok("MULTI");
    one.run("INCR {t}n");
    assert_eq!(one.run("EXEC"), Reply::Array(vec![Reply::Integer(21)]));
    // Unchanged keys do not stand in the way.
    one.run_ok("WATCH {t}n");
    one.run_ok("MULTI");
    one.run("INCRBY {t}n 9");
    one.run("PING");
    one.run("DBSIZE");
    let expected = vec![
        Reply::Integer(30),
        Reply::Simple(b"PONG".to_vec()),
        Reply::Integer(1),
    ];
    assert_eq!(one.run("EXEC"), Reply::Array(expected));
    assert_eq!(two.run("INCR {t}n").integer(), 31);
}

#[test]
fn what_ends_a_watch_frees_its_keys() {
    let stack = Stack::start(&[]);
    let (mut one, mut two) = (stack.connect(), stack.connect());
    for end in ["UNWATCH", "DISCARD", "RESET", "EXEC"] {
        two.run_ok("SET {t}n 1");
        one.run_ok("WATCH {t}n");
        if end == "DISCARD" || end == "EXEC" {
            one.run_ok("MULTI");
        }
        one.run(end);
        two.run_ok("SET {t}n 2");
        one.run_ok("MULTI");
        one.run("GET {t}n");
        assert_eq!(
            one.run("EXEC"),
            Reply::Array(vec![Reply::Bulk(b"2".to_vec())]),
            "{end}"
        );
    }
    // A client that is gone watches nothing: increments are answered from memory again.
    one.run_ok("WATCH {t}n");
    drop(one);
    if stack.tally.is_some() {
        let warm = eventually(Duration::from_secs(10), || {
            two.run("INCR {t}n");
            two.run("TALLY WHERE {t}n").elements()[3].text() == "memory"
        });
        assert!(warm);
    }
}

#[test]
fn a_lost_watch_fails_exec_and_nothing_is_executed() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::over(vec![Redis::start(&[])], &[]);
    let mut client = stack.connect();
    client.run_ok("SET k 1");
    client.run_ok("WATCH k");
    let mut node = stack.nodes[0].connect();
    let id = |line: &str| {
        let field = line.split(' ').find_map(|field| field.strip_prefix("id="));
        field.unwrap().to_owned()
    };
    let list = node.run("CLIENT LIST").text();
    let watching = list
        .lines()
        .find(|line| line.contains("cmd=watch"))
        .unwrap();
    assert_eq!(
        node.run(&format!("CLIENT KILL ID {}", id(watching)))
            .integer(),
        1
    );
    pause(Duration::from_millis(50));
    client.run_ok("MULTI");
    client.run("SET k 2");
    let reply = client.run("EXEC");
    assert!(reply.text().starts_with("EXECABORT"), "{reply:?}");
    assert_eq!(client.run("GET k").text(), "1");
    client.run_ok("WATCH k");
    client.run_ok("MULTI");
    client.run("SET k 3");
    assert!(matches!(client.run("EXEC"), Reply::Array(_)));
}

#[test]
fn watched_keys_of_two_nodes_are_refused() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let mut client = stack.connect();
    let refused = |reply: Reply| reply.text().starts_with("CROSSSLOT");
    assert!(refused(client.run(&format!("WATCH {a} {b}"))));
    client.run_ok(&format!("WATCH {a}"));
    assert!(refused(client.run(&format!("WATCH {b}"))));
    client.run_ok("MULTI");
    assert!(refused(client.run(&format!("SET {b} 1"))));
    assert!(client.run("EXEC").text().starts_with("EXECABORT"));
    assert_eq!(client.run(&format!("EXISTS {a} {b}")).integer(), 0);
}

#[test]
fn keys_of_two_nodes_are_refused_or_split() {
    if skipped_on_bare_redis() {
        return;
    }
    let refusing = Stack::start(&[]);
    let (a, b) = (refusing.key_on(0, "a"), refusing.key_on(1, "b"));
    let lines = |a: &str, b: &str| {
        [
            "MULTI".into(),
            format!("INCR {a}"),
            "PING".into(),
            format!("INCRBY {b} 5"),
            format!("MGET {a} {b}"),
            "EXEC".into(),
        ]
    };
    let replies = refusing.connect().run_all(&lines(&a, &b));
    assert!(replies[3].text().starts_with("CROSSSLOT"), "{replies:?}");
    assert!(replies[5].text().starts_with("EXECABORT"), "{replies:?}");
    assert_eq!(
        refusing.connect().run(&format!("EXISTS {a} {b}")).integer(),
        0
    );

    let split = Stack::start(&[("transactions.cross_node", "\"split\"")]);
    let (a, b) = (split.key_on(0, "a"), split.key_on(1, "b"));
    let replies = split.connect().run_all(&lines(&a, &b));
    let bulk = |text: &[u8]| Reply::Bulk(text.to_vec());
    let expected = vec![
        Reply::Integer(1),
        Reply::Simple(b"PONG".to_vec()),
        Reply::Integer(5),
        Reply::Array(vec![bulk(b"1"), bulk(b"5")]),
    ];
    assert_eq!(replies[5], Reply::Array(expected));

    let replies = split.connect().run_all(&[
        "MULTI".into(),
        format!("MSET {b} 7 {a} x"),
        format!("MGET {b} nobody {a} {b}"),
        format!("INCR {a}"),
        format!("EXISTS {a} {b} {a}"),
        format!("DEL {a} {b}"),
        "EXEC".into(),
    ]);
    let elements = replies[6].elements();
    let values = vec![bulk(b"7"), Reply::Nil, bulk(b"x"), bulk(b"7")];
    assert!(elements[0].is_ok());
    assert_eq!(elements[1], Reply::Array(values));
    assert!(elements[2].is_error());
    assert_eq!(elements[3..], [Reply::Integer(3), Reply::Integer(2)]);
}

/// What is read by one client after the other, and by transactions, is never older than what was
/// read before it.
#[test]
fn split_transactions_have_one_order_on_all_nodes() {
    const ROUNDS: usize = 400;
    let split = ("transactions.cross_node", "\"split\"");
    let stack = Stack::start(&[split, ("server.threads", "4")]);
    if skipped_on_bare_redis() {
        return;
    }
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let number = |reply: &Reply| reply.text().parse::<usize>().unwrap();
    stack.connect().run(&format!("MSET {a} 0 {b} 0"));
    let finished = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            let mut writer = stack.connect();
            let (a, b, finished) = (&a, &b, &finished);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let lines = ["MULTI", &format!("INCR {b}"), &format!("INCR {a}"), "EXEC"];
                    let replies = writer.run_all(&lines.map(str::to_owned));
                    let [x, y] = replies[3].elements() else {
                        panic!("{replies:?}");
                    };
                    assert_eq!(x, y, "another transaction came between the parts");
                }
                finished.fetch_add(1, Ordering::Relaxed);
            });
        }
        for flip in [false, true] {
            let (first, second) = if flip { (&a, &b) } else { (&b, &a) };
            let mut reader = stack.connect();
            let finished = &finished;
            scope.spawn(move || {
                while finished.load(Ordering::Relaxed) < 2 {
                    let seen = number(&reader.run(&format!("GET {first}")));
                    let then = number(&reader.run(&format!("GET {second}")));
                    assert!(seen <= then, "{seen} was seen before {then}");
                    let lines = ["MULTI", &format!("MGET {first} {second}"), "EXEC"];
                    let replies = reader.run_all(&lines.map(str::to_owned));
                    let values = replies[2].elements()[0].elements();
                    assert_eq!(values[0], values[1], "half of a transaction was seen");
                }
            });
        }
    });
}
