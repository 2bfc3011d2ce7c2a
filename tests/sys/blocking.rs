//! Commands that wait: on connections of their own, woken by others, ended by a timeout.

use std::time::Duration;

use crate::connection::{Connection, words};
use crate::harness::{Stack, eventually, pause, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::{Redis, is_other_server};

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
fn a_push_wakes_who_waits_and_what_they_sent_behind_it_waits_too() {
    let stack = Stack::start(&[]);
    let (mut worker, mut other) = (stack.connect(), stack.connect());
    worker.run_ok("CLIENT SETNAME worker");
    worker.send(&["BRPOP", "{q}1", "{q}2", "0"]);
    worker.send(&["SET", "after", "done"]);
    until_blocked(&mut other, "worker");
    assert_eq!(other.run("GET after"), Reply::Nil);
    let info = other.run("INFO clients").text();
    assert!(info.contains("blocked_clients:1"), "{info}");
    assert_eq!(other.run("LPUSH {q}2 job").integer(), 1);
    let popped = worker.read_reply();
    let bulk = |text: &[u8]| Reply::Bulk(text.to_vec());
    assert_eq!(popped, Reply::Array(vec![bulk(b"{q}2"), bulk(b"job")]));
    assert!(worker.read_reply().is_ok());
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
        let popped = worker.read_reply();
        assert_eq!(popped, Reply::Array(vec![bulk(key), bulk("job")]));
        assert!(!worker.read_reply().is_error());
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
        if !is_other_server() {
            // Valkey has other words for timeouts of this kind.
            both(format!("BZMPOP inf 2 {a} {b} MIN COUNT 1"));
            both(format!("BLPOP {a} {b} 1e300"));
        }
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
            format!("BLMPOP -1 2 {a} {b} UP"),
            format!("BLMPOP x 2 {a} {b} LEFT COUNT x"),
            format!("BLMPOP x 2 {a} {b} LEFT COUNT 1 x"),
            format!("BLPOP {a} {b} nan"),
            format!("BLPOP {a} {b} 0x1p-9"),
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
        let told = worker.read_reply();
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
fn a_key_of_another_type_does_not_end_a_wait_for_keys_of_two_nodes() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let mut other = stack.connect();
    for (waiting, push) in [
        (format!("BLPOP {a} {b} 0"), format!("RPUSH {b} x")),
        (format!("BZMPOP 0 2 {a} {b} MIN"), format!("ZADD {b} 1 x")),
        (
            format!("BLMOVE {a} {b} LEFT LEFT 0"),
            format!("RPUSH {a} x"),
        ),
        (
            format!("XREAD BLOCK 0 STREAMS {a} {b} $ $"),
            format!("XADD {b} * f x"),
        ),
    ] {
        let mut worker = stack.connect();
        worker.send(&words(&waiting));
        // Longer than a round takes.
        pause(Duration::from_millis(60));
        other.run_ok(&format!("SET {a} 1"));
        pause(Duration::from_millis(120));
        other.run(&format!("DEL {a}"));
        other.run(&push);
        let reply = format!("{:?}", worker.read_reply());
        assert!(reply.contains("\"x\""), "{waiting}: {reply}");
        other.run_ok("FLUSHALL");
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
            let reply = worker.read_reply();
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
    worker.run_ok("CLIENT SETNAME worker");
    assert_eq!(other.run(&format!("CLIENT UNBLOCK {id}")).integer(), 0);
    for (how, nil) in [("TIMEOUT", true), ("ERROR", false)] {
        worker.send(&["BLPOP", "{q}", "0"]);
        until_blocked(&mut other, "worker");
        assert_eq!(
            other.run(&format!("CLIENT UNBLOCK {id} {how}")).integer(),
            1
        );
        let reply = worker.read_reply();
        assert_eq!(reply == Reply::Nil, nil, "{reply:?}");
        assert_eq!(reply.is_error(), !nil, "{reply:?}");
    }
    assert!(worker.is_alive());
}

#[test]
fn who_is_shown_in_a_command_that_waits_can_be_unblocked() {
    for cross_node in ["reject", "split"] {
        let setting = format!("\"{cross_node}\"");
        let stack = Stack::start(&[("transactions.cross_node", &setting)]);
        let (mut worker, mut other) = (stack.connect(), stack.connect());
        let id = worker.run("CLIENT ID").integer();
        for _ in 0..50 {
            worker.send(&["BLPOP", "q", "0"]);
            let is_shown = eventually(Duration::from_secs(10), || {
                let line = other.run(&format!("CLIENT LIST ID {id}")).text();
                line.contains("cmd=blpop")
            });
            assert!(is_shown);
            let unblocked = other.run(&format!("CLIENT UNBLOCK {id}"));
            assert_eq!(unblocked.integer(), 1, "{cross_node}");
            assert_eq!(worker.read_reply(), Reply::Nil);
            assert_eq!(worker.run("PING"), Reply::Simple(b"PONG".to_vec()));
        }
    }
}

#[test]
fn a_client_that_is_gone_swallows_nothing() {
    let stack = Stack::start(&[]);
    let mut other = stack.connect();
    for round in 0..20 {
        let mut worker = stack.connect();
        let name = format!("worker{round}");
        worker.run_ok(&format!("CLIENT SETNAME {name}"));
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
        worker.run_ok(&format!("CLIENT SETNAME w{number}"));
        worker.send(&["BLPOP", "q", "0"]);
        until_blocked(&mut other, &format!("w{number}"));
    }
    let reply = other.run("BLPOP q 0");
    assert!(reply.text().contains("upstream.max_pooled"), "{reply:?}");
    assert!(other.run("WATCH q").text().contains("upstream.max_pooled"));
    assert_eq!(other.run("RPUSH q a b").integer(), 2);
    for worker in &mut workers {
        assert!(matches!(worker.read_reply(), Reply::Array(_)));
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
    worker.run_ok("CLIENT SETNAME worker");
    worker.send(&["BLPOP", "q", "0"]);
    until_blocked(&mut other, "worker");
    drop(stack.nodes.pop());
    let reply = worker.read_reply();
    assert!(reply.text().contains("may have been executed"), "{reply:?}");
    assert!(worker.is_alive());
}
