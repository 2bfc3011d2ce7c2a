//! Counters with deadlines: answered here while that is safe, gone when Redis says so.

use std::time::Duration;

use crate::harness::{Stack, eventually, skipped_on_bare_redis};
use crate::reply::Reply;

#[test]
fn pairs_of_incr_and_expire_cost_the_nodes_little() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("counters.flush_interval", "\"100ms\"")]);
    let mut client = stack.connect();
    for number in 1..=2_000 {
        assert_eq!(client.run("INCR window").integer(), number);
        assert_eq!(client.run("EXPIRE window 60").integer(), 1);
    }
    assert!((59..=60).contains(&client.run("TTL window").integer()));
    let (increments, expiries) = (stack.node_calls("incrby"), stack.node_calls("expire"));
    assert!(increments < 200, "{increments} INCRBY for 2000");
    assert!(expiries < 20, "{expiries} EXPIRE for 2000");
    // What was acknowledged here arrives: the count and the deadline.
    let arrived = eventually(Duration::from_secs(5), || {
        stack.nodes.iter().any(|node| {
            let mut node = node.connect();
            node.run("GET window") == Reply::Bulk(b"2000".to_vec())
                && (50..=60).contains(&node.run("TTL window").integer())
        })
    });
    assert!(arrived);
}

#[test]
fn a_window_ends_and_the_next_one_begins_at_one() {
    let stack = Stack::start(&[("counters.flush_interval", "\"20ms\"")]);
    let mut client = stack.connect();
    for _ in 0..3 {
        // As a rate limiter does it: the first hit of a window sets its end.
        for number in 1..=200 {
            assert_eq!(client.run("INCR hits").integer(), number);
            if number == 1 {
                assert_eq!(client.run("PEXPIRE hits 1500").integer(), 1);
            }
        }
        let left = client.run("PTTL hits").integer();
        assert!((1..=1500).contains(&left), "{left}");
        let ended = eventually(Duration::from_secs(4), || {
            client.run("GET hits") == Reply::Nil
        });
        assert!(ended, "the key outlived its deadline");
    }
}

#[test]
fn increments_of_a_frozen_node_die_with_their_window() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[
        ("counters.flush_interval", "\"100ms\""),
        ("upstream.request_timeout", "\"10s\""),
    ]);
    let key = stack.key_on(0, "w");
    let mut client = stack.connect();
    for _ in 0..10 {
        client.run(&format!("INCR {key}"));
        assert_eq!(client.run(&format!("PEXPIRE {key} 2000")).integer(), 1);
    }
    stack.nodes[0].freeze();
    // Answered here: the node is not asked.
    let counted = client.run(&format!("INCR {key}"));
    assert_eq!(counted.integer(), 11);
    crate::harness::pause(Duration::from_millis(2500));
    stack.nodes[0].thaw();
    let gone = eventually(Duration::from_secs(5), || {
        stack.nodes[0]
            .connect()
            .run(&format!("EXISTS {key}"))
            .integer()
            == 0
    });
    assert!(gone, "a late flush must not bring the key back");
    assert_eq!(client.run(&format!("INCR {key}")).integer(), 1);
    assert_eq!(client.run(&format!("TTL {key}")).integer(), -1);
}

#[test]
fn a_deadline_set_behind_our_back_is_kept() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let key = stack.key_on(0, "k");
    let mut client = stack.connect();
    for _ in 0..5 {
        client.run(&format!("INCR {key}"));
    }
    let mut node = stack.nodes[0].connect();
    assert_eq!(node.run(&format!("EXPIRE {key} 100")).integer(), 1);
    let seen = eventually(Duration::from_secs(5), || {
        (99..=100).contains(&client.run(&format!("TTL {key}")).integer())
    });
    assert!(seen);
    for _ in 0..50 {
        client.run(&format!("INCR {key}"));
    }
    let arrived = eventually(Duration::from_secs(5), || {
        node.run(&format!("GET {key}")).text() == "55"
    });
    assert!(arrived);
    assert!((90..=100).contains(&node.run(&format!("TTL {key}")).integer()));
}

#[test]
fn conditions_of_expire_are_decided_as_redis_decides_them() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    for key in ["a", "b", "c"] {
        for _ in 0..4 {
            client.run(&format!("INCR {key}"));
        }
        let answers: Vec<i64> = ["XX", "GT", "LT", "NX"]
            .iter()
            .map(|option| client.run(&format!("EXPIRE {key} 100 {option}")).integer())
            .collect();
        assert_eq!(answers, [0, 0, 1, 0]);
        assert_eq!(client.run(&format!("EXPIRE {key} 200 GT")).integer(), 1);
        assert_eq!(client.run(&format!("EXPIRE {key} 150 GT")).integer(), 0);
        assert_eq!(client.run(&format!("EXPIRE {key} 150 LT")).integer(), 1);
        assert_eq!(client.run(&format!("TTL {key}")).integer(), 150);
        assert_eq!(client.run(&format!("PERSIST {key}")).integer(), 1);
        assert_eq!(client.run(&format!("TTL {key}")).integer(), -1);
        let text = client.run(&format!("EXPIRE {key} 1 NX GT")).text();
        assert!(
            text.starts_with("ERR NX and XX, GT or LT options"),
            "{text}"
        );
    }
}

#[test]
fn a_change_by_others_is_seen_at_once() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("cache.ttl", "\"1h\"")]);
    let (value, counter, gone) = (
        stack.key_on(0, "v"),
        stack.key_on(0, "c"),
        stack.key_on(0, "n"),
    );
    let mut client = stack.connect();
    let mut node = stack.nodes[0].connect();
    assert!(client.run(&format!("SET {value} old")).is_ok());
    for _ in 0..5 {
        assert_eq!(client.run(&format!("GET {value}")).text(), "old");
        assert_eq!(client.run(&format!("GET {gone}")), Reply::Nil);
        client.run(&format!("INCR {counter}"));
    }
    let clean = eventually(Duration::from_secs(5), || {
        node.run(&format!("GET {counter}")) == Reply::Bulk(b"5".to_vec())
    });
    assert!(clean);
    assert!(node.run(&format!("SET {value} new")).is_ok());
    assert!(node.run(&format!("SET {gone} there")).is_ok());
    assert_eq!(node.run(&format!("INCRBY {counter} 100")).integer(), 105);
    let seen = eventually(Duration::from_secs(2), || {
        client.run(&format!("GET {value}")).text() == "new"
            && client.run(&format!("GET {gone}")) == Reply::Bulk(b"there".to_vec())
            && client.run(&format!("GET {counter}")).text() == "105"
    });
    assert!(seen, "stale, with a cache of an hour");
    assert_eq!(client.run(&format!("INCR {counter}")).integer(), 106);
    assert!(node.run("FLUSHALL").is_ok());
    let seen = eventually(Duration::from_secs(2), || {
        client.run(&format!("GET {value}")) == Reply::Nil
    });
    assert!(seen);
}
