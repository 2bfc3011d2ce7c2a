//! Keys that are placed by their names.

use crate::connection::Connection;
use crate::harness::{Stack, skipped_on_bare_redis};
use crate::reply::Reply;

const SHARED_AND_PINNED: &str = r#"[{ match = "views:*" }, { match = "*", node = "redis_7071" }]"#;

#[test]
fn a_route_pins_all_but_the_counters() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("routes", SHARED_AND_PINNED)]);
    let counters = [stack.key_on(0, "views"), stack.key_on(1, "views")];
    let mut client = stack.connect();
    for key in &counters {
        for number in 1..=20 {
            assert_eq!(client.run(&format!("INCR {key}")).integer(), number);
        }
    }
    assert_eq!(stack.nodes[0].client_keys(), [counters[0].as_bytes()]);
    // Everything else is as on one server.
    client.run("RPUSH a 3 1 2");
    client.run("MSET w1 3 w2 2 w3 1");
    assert_eq!(client.run("RPOPLPUSH a b").text(), "2");
    assert_eq!(client.run("SORT a BY w*").elements(), ["3", "1"].map(bulk));
    assert_eq!(
        client.run("BLPOP none b 1").elements(),
        ["b", "2"].map(bulk)
    );
    let body = "return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])";
    assert_eq!(client.call(&["EVAL", body, "2", "x", "y"]).integer(), 2);
    // Without keys too.
    let body = "return redis.call('INCR', 'x')";
    assert_eq!(client.call(&["EVAL", body, "0"]).integer(), 2);
    client.run("MULTI");
    client.call(&["EVAL", &body.replace("INCR", "DECR"), "0"]);
    assert_eq!(client.run("EXEC").elements(), [Reply::Integer(1)]);
    for line in ["WATCH x w1", "MULTI", "INCR x", "INCR y", "LPUSH b 1"] {
        client.run(line);
    }
    assert_eq!(client.run("EXEC").elements(), [2, 2, 1].map(Reply::Integer));
    assert_eq!(node(&mut client, "x"), "redis_7071");
    assert_eq!(stack.nodes[0].client_keys().len(), 1);
    let count = "return redis.call('EXISTS', KEYS[1], KEYS[2])";
    let refused = client.call(&["EVAL", count, "2", &counters[0], "c"]).text();
    assert!(refused.starts_with("CROSSSLOT "), "{refused}");
    assert_eq!(client.run("DBSIZE").integer(), 9);
}

/// As scripts of job queues publish.
#[test]
fn a_channel_is_routed_as_a_key() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (mut client, mut subscriber) = (stack.connect(), stack.connect());
    let body = "return redis.call('PUBLISH', ARGV[1], ARGV[2])";
    let channels = (0..8).flat_map(|number| {
        let queue = format!("bull:queue{number}");
        let bull = (queue.clone(), format!("{queue}:events"));
        let bottleneck = (format!("b_{number}_settings"), format!("b_{number}"));
        [bull, bottleneck]
    });
    for (key, channel) in channels {
        subscriber.run(&format!("SUBSCRIBE {channel}"));
        let heard = client
            .call(&["EVAL", body, "1", &key, &channel, "m"])
            .integer();
        assert_eq!(heard, 1, "{channel}");
        let message = subscriber.read_reply();
        assert_eq!(message.elements()[2], bulk("m"));
    }
}

#[test]
fn the_keys_of_a_job_queue_are_together_unless_they_are_spread() {
    if skipped_on_bare_redis() {
        return;
    }
    let places = |stack: &Stack| {
        let mut client = stack.connect();
        let mut places: Vec<_> = (0..16)
            .map(|number| node(&mut client, &format!("bull:queue{number}:wait")))
            .collect();
        places.sort();
        places.dedup();
        places.len()
    };
    assert_eq!(places(&Stack::start(&[])), 1);
    assert_eq!(places(&Stack::start(&[("ring.families", "\"spread\"")])), 2);
}

/// rsmq's scripts make the name of a hash of their first key, and are given times as the others.
#[test]
fn scripts_of_rsmq_are_given_values_as_keys() {
    let body = "redis.call('HSET', KEYS[1] .. ':Q', KEYS[2], KEYS[3]) \
                return redis.call('ZADD', KEYS[1], KEYS[3], KEYS[2])";
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    for number in 0..16 {
        let (queue, id) = (format!("rsmq:{number}"), format!("id{number}"));
        let time = (1_700_000_000_000_u64 + number).to_string();
        let added = client.call(&["EVAL", body, "3", &queue, &id, &time]);
        assert_eq!(added.integer(), 1, "{queue}");
        let told = client.run(&format!("HGET {queue}:Q {id}"));
        assert_eq!(told, bulk(&time), "{queue}");
    }
    // Other programs' keys are keys.
    if !skipped_on_bare_redis() {
        let keys = [stack.key_on(0, "rs"), stack.key_on(1, "rs")];
        let refused = client.call(&["EVAL", body, "3", &keys[0], &keys[1], "1"]);
        assert!(refused.text().starts_with("CROSSSLOT "), "{refused:?}");
    }
}

/// Where Tally says that a key is.
fn node(client: &mut Connection, key: &str) -> String {
    client.run(&format!("TALLY WHERE {key}")).elements()[1].text()
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}
