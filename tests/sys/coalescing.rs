//! That it is worth it: hot counters and hot reads do not reach the nodes.

use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Stack, eventually, now, skipped_on_bare_redis};
use crate::reply::Reply;

/// Commands that write a counter on the nodes, scripts' calls included.
fn counter_writes(stack: &Stack) -> u64 {
    ["incr", "incrby", "decr", "decrby"]
        .iter()
        .map(|name| stack.node_calls(name))
        .sum()
}

#[test]
fn increments_of_a_hot_key_cost_the_node_a_few() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("counters.flush_interval", "\"100ms\"")]);
    let mut client = stack.connect();
    let started = now();
    for number in 1..=10_000 {
        assert_eq!(client.run("INCR hot").integer(), number);
    }
    let flushes = u64::try_from(started.elapsed().as_millis()).unwrap() / 100;
    let mut nodes: Vec<_> = stack.nodes.iter().map(|node| node.connect()).collect();
    let applied = eventually(Duration::from_secs(5), || {
        let values: Vec<_> = nodes.iter_mut().map(|node| node.run("GET hot")).collect();
        values.contains(&Reply::Bulk(b"10000".to_vec()))
    });
    assert!(applied, "the node never holds 10000");
    let writes = counter_writes(&stack);
    assert!(
        writes <= 10 + 2 * flushes,
        "{writes} writes for 10000 increments, {flushes} flushes"
    );
}

/// What the nodes executed may be as many of each command as flushes fit into the time, and what it
/// took to make the key warm.
#[track_caller]
fn check_flood(lines: &[&str], each: usize, commands: &[&str]) {
    const CLIENTS: usize = 4;
    const DEPTH: usize = 100;
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[("counters.flush_interval", "\"100ms\"")]);
    let address = stack.address();
    let started = now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Connection::open(address);
                let batch = lines.repeat(DEPTH);
                for _ in 0..each / DEPTH {
                    let replies = client.run_all(&batch);
                    assert!(replies.iter().all(|reply| !reply.is_error()));
                }
            });
        }
    });
    stack.stop_tally();
    let flushes = started.elapsed().as_millis().div_ceil(100);
    let most = u64::try_from(flushes).unwrap() + 20;
    for command in commands {
        let calls = stack.node_calls(command);
        assert!(
            calls <= most,
            "{calls} {command} on the nodes, {flushes} flushes"
        );
    }
    let held: Vec<_> = stack
        .nodes
        .iter()
        .map(|node| node.connect().run("GET hot"))
        .collect();
    let total = Reply::Bulk((CLIENTS * each).to_string().into_bytes());
    assert!(held.contains(&total), "{held:?}");
}

#[test]
fn a_flood_of_increments_costs_the_node_one_a_flush() {
    check_flood(&["INCR hot"], 50_000, &["incr", "incrby"]);
}

#[test]
fn a_flood_of_incr_and_expire_costs_the_node_one_of_each_a_flush() {
    let commands = ["incr", "incrby", "expire", "pexpire", "pexpireat"];
    check_flood(&["INCR hot", "EXPIRE hot 600"], 30_000, &commands);
}

#[test]
fn concurrent_increments_are_combined_in_exact_mode() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("counters.mode", "\"exact\"")]);
    let mut client = stack.connect();
    let mut next = 1;
    for _ in 0..10 {
        for reply in client.run_all(&vec!["INCR hot"; 1_000]) {
            assert_eq!(reply.integer(), next);
            next += 1;
        }
    }
    let writes = counter_writes(&stack);
    assert!(
        writes <= 2_500,
        "{writes} writes for 10000 pipelined increments"
    );
    // Acknowledged means applied: there is nothing left to flush.
    let held: Vec<_> = stack
        .nodes
        .iter()
        .map(|node| node.connect().run("GET hot"))
        .collect();
    assert!(held.contains(&Reply::Bulk(b"10000".to_vec())), "{held:?}");
}

#[test]
fn a_window_lets_the_first_increment_wait_for_others() {
    if skipped_on_bare_redis() {
        return;
    }
    let settings = [
        ("counters.mode", "\"exact\""),
        ("counters.window", "\"10ms\""),
    ];
    let stack = Stack::start(&settings);
    let [mut one, mut other] = [stack.connect(), stack.connect()];
    for round in 0..100 {
        one.send(&["INCR", "hot"]);
        other.send(&["INCR", "hot"]);
        let told = [&mut one, &mut other].map(|client| client.read_reply().integer());
        assert_eq!(told.iter().sum::<i64>(), 4 * round + 3, "{told:?}");
    }
    // Without a window the first one of each round goes alone, and the other one after it.
    let writes = counter_writes(&stack);
    assert!(writes < 150, "{writes} writes for 100 pairs of increments");
}

#[test]
fn through_mode_forwards_each_increment() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("counters.mode", "\"through\"")]);
    let replies = stack.connect().run_all(&vec!["INCR hot"; 500]);
    assert!(replies.iter().map(Reply::integer).eq(1..=500));
    assert_eq!(counter_writes(&stack), 500);
}

#[test]
fn hot_reads_are_answered_without_the_node() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("cache.ttl", "\"60s\"")]);
    let mut client = stack.connect();
    assert!(
        client
            .run_all(&["SET a x", "SET b y"])
            .iter()
            .all(Reply::is_ok)
    );
    for _ in 0..500 {
        assert_eq!(client.run("GET a").text(), "x");
        assert_eq!(client.run("GET nothing"), Reply::Nil);
        let both = client.run("MGET a b");
        assert_eq!(both.elements()[1].text(), "y");
    }
    let reads = stack.node_calls("get") + stack.node_calls("mget");
    assert!(reads <= 30, "{reads} reads on the nodes for 1500");
}

#[test]
fn concurrent_misses_share_one_read() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("cache.ttl", "\"60s\"")]);
    assert!(stack.connect().run("SET a x").is_ok());
    let mut clients: Vec<_> = (0..50).map(|_| stack.connect()).collect();
    for client in &mut clients {
        client.send(&["GET", "a"]);
    }
    for client in &mut clients {
        assert_eq!(client.read_frame(), b"$1\r\nx\r\n");
    }
    let reads = stack.node_calls("get");
    assert!(
        reads <= 20,
        "{reads} reads on the node for 50 clients at once"
    );
}

#[test]
fn a_change_behind_our_back_is_seen_when_the_cache_ends_at_the_latest() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("cache.ttl", "\"300ms\"")]);
    let key = stack.key_on(0, "a");
    let counter = stack.key_on(0, "c");
    let mut client = stack.connect();
    let mut node = stack.nodes[0].connect();
    client.run(&format!("SET {key} old"));
    for number in 1..=5 {
        assert_eq!(client.run(&format!("INCR {counter}")).integer(), number);
    }
    // The counter is clean once the node holds it.
    let flushed = eventually(Duration::from_secs(5), || {
        node.run(&format!("GET {counter}")) == Reply::Bulk(b"5".to_vec())
    });
    assert!(flushed);
    for _ in 0..5 {
        assert_eq!(client.run(&format!("GET {key}")).text(), "old");
    }
    assert!(node.run(&format!("SET {key} new")).is_ok());
    assert!(node.run(&format!("SET {counter} 100")).is_ok());
    // The time to live, and as much again for a loaded machine.
    let seen = eventually(Duration::from_millis(600), || {
        client.run(&format!("GET {key}")).text() == "new"
            && client.run(&format!("GET {counter}")).text() == "100"
    });
    assert!(seen, "stale after the cache's time to live");
    assert_eq!(client.run(&format!("INCR {counter}")).integer(), 101);
}

#[test]
fn a_cache_turned_off_asks_the_node_each_time() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("cache.ttl", "\"0s\"")]);
    let key = stack.key_on(0, "a");
    let mut client = stack.connect();
    let mut node = stack.nodes[0].connect();
    for number in 0..50 {
        assert!(node.run(&format!("SET {key} {number}")).is_ok());
        assert_eq!(client.run(&format!("GET {key}")).text(), number.to_string());
    }
}

#[test]
fn own_writes_are_seen_at_once() {
    let stack = Stack::start(&[("cache.ttl", "\"60s\"")]);
    let mut writer = stack.connect();
    let mut reader = stack.connect();
    for number in 0..300 {
        assert!(writer.run(&format!("SET a {number}")).is_ok());
        assert_eq!(reader.run("GET a").text(), number.to_string());
        assert_eq!(writer.run("INCR a").integer(), number + 1);
        assert_eq!(
            reader.run("MGET a nothing").elements()[0].text(),
            (number + 1).to_string()
        );
        assert_eq!(
            writer.run("APPEND a x").integer(),
            reader.run("STRLEN a").integer()
        );
        assert_eq!(reader.run("GET a").text(), format!("{}x", number + 1));
        if number % 3 == 0 {
            assert_eq!(writer.run("DEL a").integer(), 1);
            assert_eq!(reader.run("GET a"), Reply::Nil);
        }
    }
}

#[test]
fn values_above_the_cache_bound_are_still_right() {
    let stack = Stack::start(&[("cache.max_bytes", "\"64KiB\"")]);
    let mut client = stack.connect();
    let value = |n: usize| format!("{n}:").repeat(4_000);
    for n in 0..40 {
        assert!(client.call(&["SET", &format!("k{n}"), &value(n)]).is_ok());
    }
    for round in 0..3 {
        for n in 0..40 {
            let reply = client.run(&format!("GET k{n}"));
            assert!(reply.text() == value(n), "k{n} in round {round}");
        }
    }
}

#[test]
fn more_counters_than_the_table_holds_are_counted_too() {
    let mut stack = Stack::start(&[
        ("counters.max_keys", "10"),
        ("counters.flush_interval", "\"10s\""),
    ]);
    let mut client = stack.connect();
    for round in 1..=4 {
        let lines: Vec<_> = (0..1_000).map(|n| format!("INCR c{n}")).collect();
        let replies = client.run_all(&lines);
        assert!(
            replies.iter().all(|reply| *reply == Reply::Integer(round)),
            "round {round}"
        );
    }
    stack.stop_tally();
    let mut counted = 0;
    for node in &stack.nodes {
        let mut node = node.connect();
        for n in 0..1_000 {
            match node.run(&format!("GET c{n}")) {
                Reply::Nil => {}
                value => {
                    assert_eq!(value.text(), "4", "c{n}");
                    counted += 1;
                }
            }
        }
    }
    assert_eq!(counted, 1_000);
}

#[test]
fn info_tells_how_many_keys_are_pending() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("counters.flush_interval", "\"60s\"")]);
    let mut client = stack.connect();
    // The first batch warms the keys, the second is counted here.
    for _ in 0..2 {
        let replies = client.run_all(&["INCR a", "INCR b", "INCR c"].repeat(5));
        assert!(replies.iter().all(|reply| !reply.is_error()));
    }
    let info = client.run("INFO coalescing").text();
    assert!(info.contains("increments_pending_keys:3\r\n"), "{info}");
}
