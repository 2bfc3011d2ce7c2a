//! Transactions that watch keys, and commands that wait: on connections of their own.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use crate::connection::{Connection, words};
use crate::harness::{Stack, eventually, pause, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::Redis;

#[track_caller]
fn ok(client: &mut Connection, line: &str) {
    let reply = client.run(line);
    assert!(reply.is_ok(), "{line}: {reply:?}");
}

/// Waits until the client with this name is blocked.
#[track_caller]
fn until_blocked(client: &mut Connection, name: &str) {
    let blocked = eventually(Duration::from_secs(10), || {
        let list = client.run("CLIENT LIST").text();
        let mut lines = list
            .lines()
            .filter(|line| line.contains(&format!("name={name} ")));
        lines.any(|line| line.contains("flags=b"))
    });
    assert!(blocked, "{name} does not wait");
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
                            ok(&mut client, "WATCH {t}n");
                            let value = client.run("GET {t}n");
                            let next = match value {
                                Reply::Nil => 1,
                                value => value.text().parse::<i64>().unwrap() + 1,
                            };
                            ok(&mut client, "MULTI");
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
    ok(&mut one, "WATCH {t}n {t}other");
    assert_eq!(one.run("GET {t}n").text(), "10");
    assert_eq!(two.run("INCR {t}n").integer(), 11);
    assert_eq!(two.run("GET {t}n").text(), "11");
    ok(&mut one, "MULTI");
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
    ok(&mut one, "MULTI");
    one.run("INCR {t}n");
    assert_eq!(one.run("EXEC"), Reply::Array(vec![Reply::Integer(21)]));
    // Unchanged keys do not stand in the way.
    ok(&mut one, "WATCH {t}n");
    ok(&mut one, "MULTI");
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
        ok(&mut two, "SET {t}n 1");
        ok(&mut one, "WATCH {t}n");
        if end == "DISCARD" || end == "EXEC" {
            ok(&mut one, "MULTI");
        }
        one.run(end);
        ok(&mut two, "SET {t}n 2");
        ok(&mut one, "MULTI");
        one.run("GET {t}n");
        assert_eq!(
            one.run("EXEC"),
            Reply::Array(vec![Reply::Bulk(b"2".to_vec())]),
            "{end}"
        );
    }
    // A client that is gone watches nothing: increments are answered from memory again.
    ok(&mut one, "WATCH {t}n");
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
    ok(&mut client, "SET k 1");
    ok(&mut client, "WATCH k");
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
    ok(&mut client, "MULTI");
    client.run("SET k 2");
    let reply = client.run("EXEC");
    assert!(reply.text().starts_with("EXECABORT"), "{reply:?}");
    assert_eq!(client.run("GET k").text(), "1");
    ok(&mut client, "WATCH k");
    ok(&mut client, "MULTI");
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
    ok(&mut client, &format!("WATCH {a}"));
    assert!(refused(client.run(&format!("WATCH {b}"))));
    ok(&mut client, "MULTI");
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
    let finished = std::sync::atomic::AtomicUsize::new(0);
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
                finished.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
        for flip in [false, true] {
            let (first, second) = if flip { (&a, &b) } else { (&b, &a) };
            let mut reader = stack.connect();
            let finished = &finished;
            scope.spawn(move || {
                while finished.load(std::sync::atomic::Ordering::Relaxed) < 2 {
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

#[test]
fn a_push_wakes_who_waits_and_what_they_sent_behind_it_waits_too() {
    let stack = Stack::start(&[]);
    let (mut worker, mut other) = (stack.connect(), stack.connect());
    ok(&mut worker, "CLIENT SETNAME worker");
    worker.send(&["BRPOP", "{q}1", "{q}2", "0"]);
    worker.send(&["SET", "after", "done"]);
    until_blocked(&mut other, "worker");
    assert_eq!(other.run("GET after"), Reply::Nil);
    let info = other.run("INFO clients").text();
    assert!(info.contains("blocked_clients:1"), "{info}");
    assert_eq!(other.run("LPUSH {q}2 job").integer(), 1);
    let popped = Reply::parse(&worker.read_frame());
    let bulk = |text: &[u8]| Reply::Bulk(text.to_vec());
    assert_eq!(popped, Reply::Array(vec![bulk(b"{q}2"), bulk(b"job")]));
    assert!(Reply::parse(&worker.read_frame()).is_ok());
    assert_eq!(other.run("GET after").text(), "done");
    assert_eq!(other.run("LLEN {q}2").integer(), 0);
}

#[test]
fn a_wait_for_keys_of_two_nodes_ends_with_a_push_to_either() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let (mut worker, mut other) = (stack.connect(), stack.connect());
    let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
    for key in [&a, &b, &a] {
        worker.send(&["BRPOP", &a, &b, "0"]);
        worker.send(&["INCR", "{q}after"]);
        assert_eq!(other.run(&format!("LPUSH {key} job")).integer(), 1);
        let popped = Reply::parse(&worker.read_frame());
        assert_eq!(popped, Reply::Array(vec![bulk(key), bulk("job")]));
        assert!(!Reply::parse(&worker.read_frame()).is_error());
        assert_eq!(other.run(&format!("EXISTS {a} {b}")).integer(), 0);
    }
    other.run_all(&[format!("RPUSH {b} 1 2"), format!("RPUSH {a} 3")]);
    assert_eq!(
        worker.run(&format!("BLPOP {a} {b} 1")).elements()[1],
        bulk("3")
    );
    assert_eq!(
        worker.run(&format!("BLPOP {a} {b} 1")).elements()[1],
        bulk("1")
    );
    assert_eq!(worker.run(&format!("LPOP {b}")), bulk("2"));
    assert_eq!(worker.run(&format!("BLPOP {a} {b} 0.05")), Reply::Nil);
    assert!(worker.run(&format!("BLPOP {a} {b} x")).is_error());
    worker.run(&format!("ZADD {b} 1.5 m"));
    let popped = worker.run(&format!("BZPOPMIN {a} {b} 0"));
    assert_eq!(popped, Reply::Array(vec![bulk(&b), bulk("m"), bulk("1.5")]));
    worker.run(&format!("SET {b} text"));
    assert!(
        worker
            .run(&format!("BLPOP {a} {b} 0"))
            .text()
            .starts_with("WRONGTYPE")
    );
    worker.run(&format!("DEL {b}"));
    for number in 0..10 {
        let mut gone = stack.connect();
        gone.send(&["BLPOP", &a, &b, "0"]);
        drop(gone);
        pause(Duration::from_millis(20));
        assert_eq!(other.run(&format!("RPUSH {b} {number}")).integer(), 1);
        assert_eq!(other.run(&format!("LPOP {b}")).text(), number.to_string());
    }
}

#[test]
fn keys_of_two_nodes_are_taken_from_and_read_as_on_one_redis() {
    if skipped_on_bare_redis() {
        return;
    }
    let (stack, redis) = (Stack::start(&[]), Redis::start(&[]));
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    for hello in ["HELLO 2", "HELLO 3"] {
        let (mut here, mut there) = (stack.connect(), redis.connect());
        here.run(hello);
        there.run(hello);
        let mut both = |line: String| {
            let request = words(&line);
            let (got, want) = (here.call_raw(&request), there.call_raw(&request));
            let text = |frame: &[u8]| frame.escape_ascii().to_string();
            assert_eq!(text(&got), text(&want), "{hello}: {line}");
        };
        both("FLUSHALL".to_owned());
        for line in [
            format!("LMPOP 2 {a} {b} LEFT"),
            format!("RPUSH {b} 1 2 3 4"),
            format!("LMPOP 2 {a} {b} LEFT COUNT 3"),
            format!("RPUSH {a} 5 6"),
            format!("BLMPOP 0.1 2 {a} {b} RIGHT"),
            format!("BLMPOP 0.1 3 {a} {b} {a} RIGHT COUNT 5"),
            format!("BLMPOP 0.1 2 {b} {a} RIGHT"),
            format!("BLMPOP 0.01 2 {a} {b} RIGHT"),
            format!("LMPOP 2 {a} {b} UP"),
            format!("LMPOP 2 {a} {b} LEFT COUNT 0"),
            format!("BLMPOP x 2 {a} {b} LEFT"),
            format!("BLMPOP -1 2 {a} {b} LEFT"),
            format!("ZADD {b} 1 x 2.5 y inf z"),
            format!("ZMPOP 2 {a} {b} MIN COUNT 2"),
            format!("BZMPOP 0.1 2 {a} {b} MAX"),
            format!("BZMPOP 0.01 2 {a} {b} MAX"),
            format!("ZMPOP 2 {a} {b} MIN"),
            format!("XREAD STREAMS {a} {b} 0 0"),
            format!("XADD {b} 1-1 f v"),
            format!("XREAD COUNT 1 STREAMS {a} {b} 0 0"),
            format!("XADD {a} 2-1 f v"),
            format!("XADD {a} 2-2 f v"),
            format!("XREAD COUNT 1 STREAMS {a} {b} 0 0"),
            format!("XREAD BLOCK 10 STREAMS {b} {a} 1-1 2-1"),
            format!("XREAD BLOCK 10 STREAMS {b} {a} $ $"),
            format!("XREAD BLOCK x STREAMS {b} {a} $ $"),
            format!("XREAD STREAMS {b} {a} $ nonsense"),
            format!("XGROUP CREATE {a} g 0"),
            format!("XREADGROUP GROUP g c STREAMS {b} {b}2 > >"),
            format!("XGROUP CREATE {b} g 0"),
            format!("XREADGROUP GROUP g c BLOCK 10 STREAMS {b} {a} > >"),
            format!("XREADGROUP GROUP g c BLOCK 10 STREAMS {b} {a} > >"),
            format!("XREADGROUP GROUP g c STREAMS {b} {a} 0 0"),
            format!("SET {b} text"),
            format!("XREAD STREAMS {a} {b} 0 0"),
            format!("LMPOP 2 {b} {a} LEFT"),
        ] {
            both(line);
        }
    }
}

#[test]
fn a_wait_for_streams_of_two_nodes_misses_nothing() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let (mut worker, mut other) = (stack.connect(), stack.connect());
    other.run(&format!("XADD {a} 5-0 f old"));
    for (number, key) in [&a, &b, &a, &b].into_iter().enumerate() {
        worker.send(&["XREAD", "BLOCK", "0", "STREAMS", &a, &b, "$", "$"]);
        // Longer than a round takes: what comes is after what was there at the start.
        pause(Duration::from_millis(60));
        other.run(&format!("XADD {key} {}-0 f v{number}", number + 6));
        let told = Reply::parse(&worker.read_frame());
        let [stream] = told.elements() else {
            panic!("{told:?}");
        };
        let [name, entries] = stream.elements() else {
            panic!("{stream:?}");
        };
        assert_eq!(name.text(), *key);
        let entry = format!("{:?}", entries.elements());
        assert_eq!(entries.elements().len(), 1, "{entry}");
        let value = entries.elements()[0].elements()[1].elements()[1].text();
        assert_eq!(value, format!("v{number}"));
    }
}

#[test]
fn every_command_that_waits_is_woken() {
    let stack = Stack::start(&[]);
    let mut other = stack.connect();
    for (number, (waiting, push)) in [
        ("BLPOP {q}l 0", "RPUSH {q}l 1"),
        ("BLMOVE {q}l {q}m LEFT RIGHT 0", "RPUSH {q}l 1"),
        ("BRPOPLPUSH {q}l {q}m 0", "RPUSH {q}l 1"),
        ("BLMPOP 0 2 {q}k {q}l LEFT COUNT 2", "RPUSH {q}l 1"),
        ("BZPOPMIN {q}z 0", "ZADD {q}z 1 a"),
        ("BZPOPMAX {q}z 0", "ZADD {q}z 1 a"),
        ("BZMPOP 0 1 {q}z MIN", "ZADD {q}z 1 a"),
        ("XREAD BLOCK 0 STREAMS {q}s $", "XADD {q}s * f v"),
    ]
    .into_iter()
    .enumerate()
    {
        for protocol in [2, 3] {
            let mut worker = stack.connect();
            let name = format!("worker{number}-{protocol}");
            worker.run(&format!("HELLO {protocol} SETNAME {name}"));
            worker.send(&words(waiting));
            until_blocked(&mut other, &name);
            let pushed = other.run(push);
            assert!(!pushed.is_error(), "{push}: {pushed:?}");
            let reply = Reply::parse(&worker.read_frame());
            assert!(
                !reply.is_error() && reply != Reply::Nil,
                "{waiting}: {reply:?}"
            );
            assert!(worker.is_alive());
        }
    }
}

#[test]
fn a_wait_ends_in_time_or_by_another_client() {
    let stack = Stack::start(&[]);
    let (mut worker, mut other) = (stack.connect(), stack.connect());
    assert_eq!(worker.run("BLPOP {q} 0.05"), Reply::Nil);
    assert!(worker.run("BLPOP {q} -1").is_error());
    let id = worker.run("CLIENT ID").integer();
    ok(&mut worker, "CLIENT SETNAME worker");
    assert_eq!(other.run(&format!("CLIENT UNBLOCK {id}")).integer(), 0);
    for (how, nil) in [("TIMEOUT", true), ("ERROR", false)] {
        worker.send(&["BLPOP", "{q}", "0"]);
        until_blocked(&mut other, "worker");
        assert_eq!(
            other.run(&format!("CLIENT UNBLOCK {id} {how}")).integer(),
            1
        );
        let reply = Reply::parse(&worker.read_frame());
        assert_eq!(reply == Reply::Nil, nil, "{reply:?}");
        assert_eq!(reply.is_error(), !nil, "{reply:?}");
    }
    assert!(worker.is_alive());
}

#[test]
fn a_client_that_is_gone_swallows_nothing() {
    let stack = Stack::start(&[]);
    let mut other = stack.connect();
    for round in 0..20 {
        let mut worker = stack.connect();
        let name = format!("worker{round}");
        ok(&mut worker, &format!("CLIENT SETNAME {name}"));
        worker.send(&["BLPOP", "{q}", "0"]);
        until_blocked(&mut other, &name);
        drop(worker);
        let gone = eventually(Duration::from_secs(10), || {
            !other
                .run("CLIENT LIST")
                .text()
                .contains(&format!("name={name} "))
        });
        assert!(gone, "round {round}");
        assert_eq!(other.run("RPUSH {q} element").integer(), 1);
        assert_eq!(other.run("LPOP {q}").text(), "element", "round {round}");
    }
}

#[test]
fn in_a_transaction_nothing_waits() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let replies = client.run_all(&["MULTI", "BLPOP {q} 0", "RPUSH {q} a", "BLPOP {q} 0", "EXEC"]);
    let popped = vec![Reply::Bulk(b"{q}".to_vec()), Reply::Bulk(b"a".to_vec())];
    let expected = vec![Reply::Nil, Reply::Integer(1), Reply::Array(popped)];
    assert_eq!(replies[4], Reply::Array(expected));
}

#[test]
fn a_wait_is_behind_what_is_pending_and_sees_its_own_writes() {
    let stack = Stack::start(&[("counters.flush_interval", "\"10s\"")]);
    let mut client = stack.connect();
    for number in 1..=5 {
        assert_eq!(client.run("INCR {q}n").integer(), number);
    }
    let reply = client.run("BLPOP {q}n 0");
    assert!(reply.text().starts_with("WRONGTYPE"), "{reply:?}");
    assert_eq!(client.run("INCR {q}n").integer(), 6);
    // A value from the cache does not survive a move on another connection.
    for _ in 0..3 {
        assert_eq!(client.run("GET {q}to"), Reply::Nil);
    }
    client.run("RPUSH {q}from x");
    assert_eq!(client.run("BLMOVE {q}from {q}to LEFT LEFT 0").text(), "x");
    assert!(client.run("GET {q}to").text().starts_with("WRONGTYPE"));
}

#[test]
fn too_many_that_wait_get_an_error() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::over(vec![Redis::start(&[])], &[("upstream.max_pooled", "2")]);
    let mut other = stack.connect();
    let mut workers: Vec<_> = (0..2).map(|_| stack.connect()).collect();
    for (number, worker) in workers.iter_mut().enumerate() {
        ok(worker, &format!("CLIENT SETNAME w{number}"));
        worker.send(&["BLPOP", "q", "0"]);
        until_blocked(&mut other, &format!("w{number}"));
    }
    let reply = other.run("BLPOP q 0");
    assert!(reply.text().contains("upstream.max_pooled"), "{reply:?}");
    assert!(other.run("WATCH q").text().contains("upstream.max_pooled"));
    assert_eq!(other.run("RPUSH q a b").integer(), 2);
    for worker in &mut workers {
        assert!(matches!(
            Reply::parse(&worker.read_frame()),
            Reply::Array(_)
        ));
    }
    assert_eq!(other.run("BLPOP q 0.01"), Reply::Nil);
}

#[test]
fn a_node_that_ends_tells_who_waits_there() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::over(vec![Redis::start(&[])], &[]);
    let (mut worker, mut other) = (stack.connect(), stack.connect());
    ok(&mut worker, "CLIENT SETNAME worker");
    worker.send(&["BLPOP", "q", "0"]);
    until_blocked(&mut other, "worker");
    drop(stack.nodes.pop());
    let reply = Reply::parse(&worker.read_frame());
    assert!(reply.text().contains("may have been executed"), "{reply:?}");
    assert!(worker.is_alive());
}
