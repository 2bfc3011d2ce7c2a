//! Rules: keys that are treated otherwise than the rest.

use std::time::Duration;

use crate::harness::{Stack, eventually, pause, skipped_on_bare_redis};
use crate::reply::Reply;

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

#[test]
fn an_exact_key_among_buffered_ones_is_applied_before_its_reply() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[
        ("rules", r#"[{ match = "id:*", mode = "exact" }]"#),
        ("counters.flush_interval", "\"1m\""),
    ]);
    let (exact, hot) = (stack.key_on(0, "id"), stack.key_on(0, "hot"));
    let (mut client, mut node) = (stack.connect(), stack.nodes[0].connect());
    for number in 1..=50 {
        assert_eq!(client.run(&format!("INCR {exact}")).integer(), number);
        assert_eq!(node.run(&format!("GET {exact}")), bulk(&number.to_string()));
        assert_eq!(client.run(&format!("INCR {hot}")).integer(), number);
    }
    let sent: i64 = node.run(&format!("GET {hot}")).text().parse().unwrap();
    assert!(
        sent < 10,
        "{sent} of 50 increments reached the node at once"
    );
    // The case of a key counts.
    assert_eq!(
        client.run("TALLY WHERE ID:0").elements()[5].text(),
        "buffered"
    );
}

#[test]
fn concurrent_increments_of_an_exact_key_are_combined() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("rules", r#"[{ match = "id:*", mode = "exact" }]"#)]);
    let mut client = stack.connect();
    let lines = vec!["INCR id:1".to_owned(); 2_000];
    let replies = client.run_all(&lines);
    for (reply, number) in replies.iter().zip(1..) {
        assert_eq!(reply.integer(), number);
    }
    let writes = stack.node_calls("incrby") + stack.node_calls("incr");
    assert!(writes < 1_000, "{writes} writes for 2000 increments");
}

#[test]
fn a_through_key_is_forwarded_as_it_is_and_in_order() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("rules", r#"[{ match = "raw:*", mode = "through" }]"#)]);
    let key = stack.key_on(0, "raw");
    let (mut client, mut node) = (stack.connect(), stack.nodes[0].connect());
    let before = stack.nodes[0].calls("incr");
    let gets = stack.nodes[0].calls("get");
    for number in 1..=20 {
        assert_eq!(client.run(&format!("INCR {key}")).integer(), number);
        assert_eq!(client.run(&format!("GET {key}")), bulk(&number.to_string()));
        let lines = format!("MGET {key} {key}");
        let twice = Reply::Array(vec![bulk(&number.to_string()), bulk(&number.to_string())]);
        assert_eq!(client.run(&lines), twice);
    }
    assert_eq!(stack.nodes[0].calls("incr") - before, 20);
    assert_eq!(stack.nodes[0].calls("get") - gets, 20);
    // Others may change it at any time.
    assert!(node.run(&format!("SET {key} 100")).is_ok());
    assert_eq!(client.run(&format!("GET {key}")), bulk("100"));
    assert_eq!(client.run(&format!("EXPIRE {key} 100")).integer(), 1);
    assert_eq!(node.run(&format!("TTL {key}")).integer(), 100);
    assert_eq!(
        client.run(&format!("INCRBY {key} x")).text(),
        NOT_AN_INTEGER
    );
    let replies = client.run_all(&[
        format!("SET {key} 1"),
        format!("INCR {key}"),
        format!("APPEND {key} 0"),
        format!("DECRBY {key} 3"),
        format!("GET {key}"),
        format!("DEL {key}"),
        format!("GET {key}"),
    ]);
    let told: Vec<_> = replies[1..4].iter().map(Reply::integer).collect();
    assert_eq!(told, [2, 2, 17]);
    assert_eq!(replies[4..], [bulk("17"), Reply::Integer(1), Reply::Nil]);
    assert_eq!(
        client.run(&format!("TALLY WHERE {key}")).elements()[5].text(),
        "through"
    );
}

const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

#[test]
fn a_rule_s_cache_ttl_holds_for_its_keys_only() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[
        ("rules", r#"[{ match = "live:*", cache_ttl = "0s" }]"#),
        ("cache.ttl", "\"1h\""),
    ]);
    let (live, kept) = (stack.key_on(0, "live"), stack.key_on(0, "kept"));
    let mut client = stack.connect();
    for key in [&live, &kept] {
        assert!(client.run(&format!("SET {key} v")).is_ok());
    }
    let before = stack.nodes[0].calls("get");
    for _ in 0..20 {
        assert_eq!(client.run(&format!("GET {live}")), bulk("v"));
    }
    assert_eq!(stack.nodes[0].calls("get") - before, 20);
    for _ in 0..20 {
        assert_eq!(client.run(&format!("GET {kept}")), bulk("v"));
    }
    let asked = stack.nodes[0].calls("get") - before - 20;
    assert!(asked <= 2, "{asked} GETs for 20 of a cached key");
    assert_eq!(
        client.run(&format!("TALLY WHERE {kept}")).elements()[3].text(),
        "cache"
    );
}

#[test]
fn a_slow_class_waits_while_a_fast_one_arrives() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[
        ("rules", r#"[{ match = "slow:*", flush_interval = "1m" }]"#),
        ("counters.flush_interval", "\"20ms\""),
    ]);
    let (slow, fast) = (stack.key_on(0, "slow"), stack.key_on(0, "fast"));
    let (mut client, mut node) = (stack.connect(), stack.nodes[0].connect());
    // The first flush of every class comes right after the connection.
    pause(Duration::from_millis(100));
    for number in 1..=100 {
        assert_eq!(client.run(&format!("INCR {slow}")).integer(), number);
        assert_eq!(client.run(&format!("INCR {fast}")).integer(), number);
    }
    let arrived = eventually(Duration::from_secs(5), || {
        node.run(&format!("GET {fast}")) == bulk("100")
    });
    assert!(arrived);
    pause(Duration::from_millis(200));
    let sent: i64 = node.run(&format!("GET {slow}")).text().parse().unwrap();
    assert!(sent < 10, "{sent} of the slow key are there");
    assert_eq!(client.run(&format!("GET {slow}")), bulk("100"));
    // What looks at the key has it flushed, and so does the end.
    assert_eq!(client.run(&format!("STRLEN {slow}")).integer(), 3);
    assert_eq!(client.run(&format!("INCR {slow}")).integer(), 101);
    let mut stack = stack;
    stack.stop_tally();
    assert_eq!(node.run(&format!("GET {slow}")), bulk("101"));
}

#[test]
fn the_first_rule_that_matches_holds() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[(
        "rules",
        r#"[{ match = "a:b:*", mode = "through" }, { match = "a:*", mode = "exact" },
            { match = "a:c", mode = "through" }]"#,
    )]);
    let mut client = stack.connect();
    for (key, mode) in [("a:b:1", "through"), ("a:c", "exact"), ("a", "buffered")] {
        let told = client.run(&format!("TALLY WHERE {key}"));
        assert_eq!(told.elements()[5].text(), mode, "{key}");
    }
}

#[test]
fn commands_on_keys_of_all_modes_keep_their_order() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[
        (
            "rules",
            r#"[{ match = "*:exact", mode = "exact" }, { match = "*:through", mode = "through" }]"#,
        ),
        ("counters.flush_interval", "\"1m\""),
    ]);
    let mut client = stack.connect();
    let keys = ["{t}:warm", "{t}:exact", "{t}:through"];
    let mut lines = Vec::new();
    for round in 0..50 {
        for key in keys {
            lines.push(format!("INCR {key}"));
        }
        // A barrier on all of them; the sum of three equal counters.
        let script =
            "local s = 0 for _, k in ipairs(KEYS) do s = s + redis.call('GET', k) end return s";
        lines.push(format!("EVAL \"{script}\" 3 {}", keys.join(" ")));
        if round % 7 == 0 {
            lines.push(format!("MGET {}", keys.join(" ")));
        }
    }
    let mut count = 0;
    for (line, reply) in lines.iter().zip(client.run_all(&lines)) {
        if line.starts_with("INCR {t}:warm") {
            count += 1;
        }
        match line.split(' ').next() {
            Some("INCR") => assert_eq!(reply.integer(), count, "{line}"),
            Some("EVAL") => assert_eq!(reply.integer(), 3 * count),
            _ => assert_eq!(reply, Reply::Array(vec![bulk(&count.to_string()); 3])),
        }
    }
}
