//! A node that is down, frozen or back again: errors that name it, and nothing on the other one.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::connection::{Connection, encode, words};
use crate::harness::{Settings, Stack, eventually, now, pause, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::{Redis, Tally, processor_time};
use tally::limit::CANONICAL_WITH_TTL as SCRIPT;

/// Short waits, so that the tests are.
const FAST: Settings<'_> = &[
    ("upstream.connect_timeout", "\"500ms\""),
    ("upstream.request_timeout", "\"400ms\""),
    ("upstream.hard_timeout", "\"10s\""),
    ("upstream.backoff_min", "\"10ms\""),
    ("upstream.backoff_max", "\"100ms\""),
];

/// Two durable nodes, and a key on each.
fn durable() -> (Stack, [String; 2]) {
    let stack = Stack::over(vec![Redis::start_durable(), Redis::start_durable()], FAST);
    let keys = [stack.key_on(0, "a"), stack.key_on(1, "b")];
    (stack, keys)
}

/// Whether a command comes to succeed again after its node returned.
#[track_caller]
fn recovers(client: &mut Connection, line: &str) {
    let well = eventually(Duration::from_secs(10), || !client.run(line).is_error());
    assert!(well, "{line}: still {:?}", client.run(line));
}

#[test]
fn a_dead_node_fails_fast_by_name_and_alone() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, [dead, alive]) = durable();
    let mut client = stack.connect();
    client.run(&format!("SET {alive} 1"));
    client.run(&format!("SET {dead} 1"));
    stack.nodes[0].kill();
    for round in 0..20 {
        for command in [
            "GETSET K x",
            "SET K x",
            "LLEN K",
            "EVAL \"return 1\" 1 K",
            "DEL K",
        ] {
            let line = command.replace('K', &dead);
            let started = now();
            let reply = client.run(&line);
            let elapsed = started.elapsed();
            let Reply::Error(text) = &reply else {
                panic!("{line} on a dead node: {reply:?}");
            };
            let text = String::from_utf8_lossy(text);
            assert!(text.starts_with("ERR "), "{text}");
            assert!(text.contains("redis_7070"), "{text}");
            // The first may meet the connection's end; then the breaker answers.
            let limit = if round == 0 { 2_000 } else { 500 };
            assert!(
                elapsed < Duration::from_millis(limit),
                "{line}: {elapsed:?}"
            );
            let other = format!("INCR {alive}");
            assert!(!client.run(&other).is_error(), "the other node");
        }
    }
    assert_eq!(client.run(&format!("GET {alive}")).text(), "101");
    let info = client.run("INFO nodes").text();
    let tracking = |node: &str| {
        let line = info.lines().find(|line| line.starts_with(node));
        line.is_some_and(|line| line.contains("tracking=1"))
    };
    assert_eq!(
        [tracking("node0"), tracking("node1")],
        [false, true],
        "{info}"
    );
    // A part that fails makes the whole reply that error.
    for line in [
        format!("MGET {alive} {dead}x {dead}"),
        format!("DEL {alive}x {dead}"),
        "DBSIZE".to_owned(),
        "KEYS *".to_owned(),
        "FLUSHALL".to_owned(),
    ] {
        let reply = client.run(&line);
        assert!(reply.is_error(), "{line}: {reply:?}");
        assert!(reply.text().contains("redis_7070"), "{line}: {reply:?}");
    }
    assert!(client.is_alive());
}

#[test]
fn a_restarted_node_works_again_without_a_restart_of_tally() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, keys) = durable();
    let mut client = stack.connect();
    for round in 0..3 {
        for key in &keys {
            assert!(client.run(&format!("SET {key} {round}")).is_ok());
        }
        let node = round % 2;
        stack.nodes[node].kill();
        let line = format!("SET {} lost", keys[node]);
        let failed = eventually(Duration::from_secs(5), || client.run(&line).is_error());
        assert!(failed, "a dead node does not answer");
        stack.nodes[node].restart();
        recovers(&mut client, &format!("GET {}", keys[node]));
        for key in &keys {
            assert_eq!(client.run(&format!("GET {key}")).text(), round.to_string());
        }
    }
}

#[test]
fn tally_starts_before_its_nodes() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut nodes = vec![Redis::start(&[]), Redis::start(&[])];
    for node in &mut nodes {
        node.kill();
    }
    let mut stack = Stack::over(nodes, FAST);
    let mut client = stack.connect();
    let reply = client.run("SET k v");
    assert!(reply.text().contains("unreachable"), "{reply:?}");
    for node in &mut stack.nodes {
        node.restart();
    }
    recovers(&mut client, "SET k v");
    for key in 0..20 {
        recovers(&mut client, &format!("SET k{key} v"));
    }
}

#[test]
fn late_replies_of_a_frozen_node_go_to_nobody() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[FAST, &[("cache.ttl", "\"0s\"")]].concat());
    let mut client = stack.connect();
    let prefix = stack.key_on(0, "t");
    let alive = stack.key_on(1, "b");
    // The tag keeps all of these on the frozen node.
    let key = |number: usize| format!("{{{prefix}}}{number}");
    for number in 0..100 {
        assert!(
            client
                .run(&format!("SET {} token{number}", key(number)))
                .is_ok()
        );
    }
    let mut admin = stack.nodes[0].connect();
    let before = connections_received(&mut admin);
    stack.nodes[0].freeze();
    let mut clients: Vec<_> = (0..20).map(|_| stack.connect()).collect();
    let started = now();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&["GET", &key(number)]);
        client.send(&["PING"]);
    }
    for client in &mut clients {
        let reply = client.read_reply();
        assert!(reply.is_error(), "{reply:?}");
        assert!(reply.text().starts_with("ERR "), "{reply:?}");
        assert!(reply.text().contains("redis_7070"), "{reply:?}");
        assert_eq!(client.read_frame(), b"+PONG\r\n");
    }
    let elapsed = started.elapsed();
    assert!(
        elapsed >= Duration::from_millis(300),
        "too early: {elapsed:?}"
    );
    assert!(elapsed < Duration::from_secs(4), "too late: {elapsed:?}");
    for _ in 0..50 {
        assert!(
            !client.run(&format!("INCR {alive}")).is_error(),
            "the other node"
        );
    }
    stack.nodes[0].thaw();
    recovers(&mut client, &format!("GET {}", key(0)));
    for round in 0..5 {
        for (number, client) in clients.iter_mut().enumerate() {
            let number = (number + 20 * round) % 100;
            let token = client.run(&format!("GET {}", key(number))).text();
            assert_eq!(
                token,
                format!("token{number}"),
                "a reply of another request"
            );
        }
    }
    let after = connections_received(&mut admin);
    assert_eq!(after, before, "late replies are skipped, the lane stays");
}

/// How many connections a node has accepted since its start.
fn connections_received(admin: &mut Connection) -> u64 {
    let info = admin.run("INFO stats").text();
    let mut lines = info.lines();
    let count = lines.find_map(|line| line.strip_prefix("total_connections_received:"));
    count.unwrap().parse().unwrap()
}

#[test]
fn a_node_frozen_beyond_the_hard_deadline_gets_a_new_lane() {
    if skipped_on_bare_redis() {
        return;
    }
    let settings: Settings<'_> = &[
        ("upstream.request_timeout", "\"150ms\""),
        ("upstream.hard_timeout", "\"500ms\""),
        ("upstream.connect_timeout", "\"300ms\""),
        ("upstream.backoff_min", "\"10ms\""),
        ("upstream.backoff_max", "\"100ms\""),
        ("cache.ttl", "\"0s\""),
    ];
    let stack = Stack::start(settings);
    let key = stack.key_on(0, "a");
    let mut client = stack.connect();
    assert!(client.run(&format!("SET {key} token")).is_ok());
    let mut admin = stack.nodes[0].connect();
    let before = connections_received(&mut admin);
    stack.nodes[0].freeze();
    let started = now();
    while started.elapsed() < Duration::from_millis(1_500) {
        let reply = client.run(&format!("GET {key}"));
        assert!(reply.is_error(), "{reply:?}");
        assert!(reply.text().contains("redis_7070"), "{reply:?}");
    }
    stack.nodes[0].thaw();
    recovers(&mut client, &format!("GET {key}"));
    for number in 0..50 {
        assert!(client.run(&format!("SET {key} token{number}")).is_ok());
        assert_eq!(
            client.run(&format!("GET {key}")).text(),
            format!("token{number}")
        );
    }
    assert!(
        connections_received(&mut admin) > before,
        "the old lane was kept"
    );
}

/// What waits for a reply that does not come is told so as soon as whoever waits for that itself,
/// and is never executed.
#[test]
fn what_waits_behind_a_frozen_node_fails_in_time_and_is_not_sent() {
    if skipped_on_bare_redis() {
        return;
    }
    let settings = [FAST, &[("counters.flush_interval", "\"100ms\"")]].concat();
    let stack = Stack::start(&settings);
    let tag = stack.key_on(0, "a");
    let (cold, warm, limited) = (
        format!("{{{tag}}}cold"),
        format!("{{{tag}}}warm"),
        format!("{{{tag}}}limited"),
    );
    let mut client = stack.connect();
    for number in 1..=5 {
        assert_eq!(client.run(&format!("INCR {warm}")).integer(), number);
    }
    let limit = |key: &str| encode(&["EVAL", SCRIPT, "1", key, "100", "600"]);
    client.write_raw(&limit(&limited));
    assert_eq!(client.read_reply(), Reply::Integer(1));
    stack.nodes[0].freeze();
    let started = now();
    // Each on a connection of its own. The first at a key is sent, the others wait for it.
    let sent = [encode(&words(&format!("INCR {cold}"))), limit(&limited)];
    let waiting = [
        encode(&words(&format!("INCRBY {cold} 10"))),
        encode(&words(&format!("GET {cold}"))),
        encode(&words(&format!("SET {cold} 100"))),
        encode(&words(&format!("EXPIRE {cold} 100"))),
        limit(&limited),
    ];
    let open = |wire: &Vec<u8>| {
        let mut client = stack.connect();
        client.write_raw(wire);
        client
    };
    let mut sent: Vec<_> = sent.iter().map(open).collect();
    pause(Duration::from_millis(50));
    let mut waiting: Vec<_> = waiting.iter().map(open).collect();
    assert_eq!(client.run(&format!("INCR {warm}")).integer(), 6);
    waiting.push(open(&encode(&words(&format!("SET {warm} 100")))));
    for client in &mut sent {
        let text = client.read_reply().text();
        assert!(
            text.ends_with("the command may still be executed"),
            "{text}"
        );
    }
    for client in &mut waiting {
        let text = client.read_reply().text();
        assert!(
            text.starts_with("ERR node redis_7070 gave no answer"),
            "{text}"
        );
        assert!(text.ends_with("it was not sent"), "{text}");
    }
    // Who comes later need not wait that long for the same.
    let text = client.run(&format!("INCR {cold}")).text();
    assert!(text.ends_with("it was not sent"), "{text}");
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(8), "too late: {elapsed:?}");
    assert_eq!(client.run(&format!("INCR {warm}")).integer(), 7);
    stack.nodes[0].thaw();
    recovers(&mut client, &format!("EXISTS {cold}"));
    assert_eq!(client.run(&format!("GET {cold}")).text(), "1");
    assert_eq!(client.run(&format!("TTL {cold}")).integer(), -1);
    assert_eq!(client.run(&format!("GET {limited}")).text(), "2");
    assert_eq!(client.run(&format!("INCR {warm}")).integer(), 8);
}

#[test]
fn a_slow_reply_does_not_hold_up_the_other_node() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (slow, fast) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    stack.nodes[0].freeze();
    let mut waiting = stack.connect();
    waiting.send(&["SET", &slow, "x"]);
    let mut client = stack.connect();
    let started = now();
    for number in 1..=500 {
        assert_eq!(client.run(&format!("INCR {fast}")).integer(), number);
    }
    let elapsed = started.elapsed();
    stack.nodes[0].thaw();
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
    assert_eq!(waiting.read_frame(), b"+OK\r\n");
    // One client's replies keep the order of its requests, whichever node answers first.
    stack.nodes[0].freeze();
    client.send(&["GET", &slow]);
    client.send(&["INCR", &fast]);
    client.send(&["PING"]);
    pause(Duration::from_millis(50));
    stack.nodes[0].thaw();
    assert_eq!(client.read_frame(), b"$1\r\nx\r\n");
    assert_eq!(client.read_frame(), b":501\r\n");
    assert_eq!(client.read_frame(), b"+PONG\r\n");
}

#[test]
fn warm_counters_are_answered_while_their_node_is_away_and_delivered_after() {
    if skipped_on_bare_redis() {
        return;
    }
    // Right after a flush the next one is a second away: none is in flight when the node dies.
    let settings = [FAST, &[("counters.flush_interval", "\"1s\"")]].concat();
    let mut stack = Stack::over(
        vec![Redis::start_durable(), Redis::start_durable()],
        &settings,
    );
    let key = stack.key_on(0, "a");
    let mut client = stack.connect();
    for number in 1..=50 {
        assert_eq!(client.run(&format!("INCR {key}")).integer(), number);
    }
    let mut node = stack.nodes[0].connect();
    let flushed = eventually(Duration::from_secs(5), || {
        node.run(&format!("GET {key}")) == Reply::Bulk(b"50".to_vec())
    });
    assert!(flushed);
    // Dirty when the node goes.
    assert_eq!(client.run(&format!("INCR {key}")).integer(), 51);
    stack.nodes[0].kill();
    let mut acknowledged = 51;
    let started = now();
    while started.elapsed() < Duration::from_millis(500) {
        match client.run(&format!("INCR {key}")) {
            Reply::Integer(number) => {
                acknowledged += 1;
                assert_eq!(number, acknowledged);
            }
            Reply::Error(text) => assert!(text.starts_with(b"ERR "), "{}", text.escape_ascii()),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        acknowledged > 100,
        "{acknowledged}: a warm counter is answered without its node"
    );
    stack.nodes[0].restart();
    let mut node = stack.nodes[0].connect();
    let delivered = eventually(Duration::from_secs(10), || {
        node.run(&format!("GET {key}")).text() == acknowledged.to_string()
    });
    let held = node.run(&format!("GET {key}"));
    assert!(
        delivered,
        "the node holds {held:?}, acknowledged were {acknowledged}"
    );
    recovers(&mut client, &format!("INCR {key}"));
    assert_eq!(
        client.run(&format!("GET {key}")).text(),
        (acknowledged + 1).to_string()
    );
}

#[test]
fn nodes_with_a_password_are_logged_in_to() {
    if skipped_on_bare_redis() {
        return;
    }
    let secret = ["--requirepass", "node-secret"];
    let mut stack = Stack::over(vec![Redis::start(&secret), Redis::start(&secret)], FAST);
    let mut client = stack.connect();
    for key in 0..20 {
        assert!(client.run(&format!("SET k{key} {key}")).is_ok());
    }
    stack.nodes[0].restart();
    for key in 0..20 {
        recovers(&mut client, &format!("SET k{key} {key}"));
    }
    let log = stack.tally.as_ref().unwrap().log();
    assert!(!log.contains("node-secret"), "the password is in the log");
}

#[test]
fn keys_live_in_the_database_of_their_node() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("nodes.database", "3")]);
    let mut client = stack.connect();
    for number in 1..=5 {
        assert_eq!(client.run("INCR counter").integer(), number);
    }
    let found = |database: &str| {
        stack.nodes.iter().any(|node| {
            let mut node = node.connect();
            assert!(node.run(database).is_ok());
            node.run("GET counter") == Reply::Bulk(b"5".to_vec())
        })
    };
    assert!(eventually(Duration::from_secs(5), || found("SELECT 3")));
    assert!(!found("SELECT 0"));
}

#[test]
fn a_node_that_refuses_the_password_is_named() {
    if skipped_on_bare_redis() {
        return;
    }
    let settings = [FAST, &[]].concat();
    let stack = Stack::over(vec![Redis::start(&[]), Redis::start(&[])], &settings);
    let key = stack.key_on(0, "a");
    for node in &stack.nodes {
        let mut admin = node.connect();
        assert!(admin.run("CONFIG SET requirepass changed").is_ok());
        // A type without arguments kills nothing of ours but Tally's lane.
        admin.run("CLIENT KILL TYPE normal SKIPME yes");
    }
    let mut client = stack.connect();
    let refused = eventually(Duration::from_secs(5), || {
        let reply = client.run(&format!("SET {key} x"));
        reply.is_error() && reply.text().contains("redis_7070")
    });
    assert!(refused, "{:?}", client.run(&format!("SET {key} x")));
    assert!(client.is_alive());
}

#[test]
fn what_a_full_socket_did_not_take_is_neither_lost_nor_tried_at_every_command() {
    if skipped_on_bare_redis() {
        return;
    }
    // One worker: the answer to the other client comes behind the tick of the first.
    let stack = Stack::start(&[("server.threads", "1")]);
    let key = stack.key_on(0, "a");
    let value = "v".repeat(48 << 20);
    let (mut writer, mut other) = (stack.connect(), stack.connect());
    stack.nodes[0].freeze();
    writer.send(&["SET", &key, &value]);
    // The whole value has been read once the next request is refused or waits behind it.
    let backlog = || stack.connect().run("INFO nodes").text();
    let waits = eventually(Duration::from_secs(10), || {
        let info = backlog();
        let unsent = info.split("unsent_bytes=").nth(1);
        unsent.is_some_and(|unsent| !unsent.starts_with("0,"))
    });
    assert!(waits, "{}", backlog());
    let before = processor_time(stack.process_id());
    for _ in 0..600 {
        writer.send(&["APPEND", &key, "x"]);
        assert!(other.is_alive());
    }
    let spent = processor_time(stack.process_id()).saturating_sub(before);
    stack.nodes[0].thaw();
    assert!(
        spent < Duration::from_secs(1),
        "{spent:?} for 600 small commands"
    );
    assert!(writer.read_reply().is_ok());
    for round in 1..=600 {
        let length = writer.read_reply().integer();
        assert_eq!(length, i64::try_from(value.len() + round).unwrap());
    }
}

/// Takes part in Tally's handshake, then closes; how often it was called.
fn closes_after_the_handshake(listener: &TcpListener, calls: &AtomicUsize) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        calls.fetch_add(1, Ordering::Relaxed);
        let hello = b"%2\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$2\r\nid\r\n:5\r\n";
        for reply in [hello.as_slice(), b"$0\r\n\r\n", b":1\r\n"] {
            let mut request = [0; 1024];
            // The third request is the fence, from the second connection on.
            stream
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            if !matches!(stream.read(&mut request), Ok(1..)) || stream.write_all(reply).is_err() {
                break;
            }
        }
    }
}

#[test]
fn a_node_that_closes_every_connection_is_not_called_without_a_pause() {
    if skipped_on_bare_redis() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    std::thread::spawn(move || closes_after_the_handshake(&listener, &counted));
    let settings = [
        ("upstream.backoff_min", "\"200ms\""),
        ("upstream.backoff_max", "\"2s\""),
    ];
    let tally = Tally::start_before(&[(address, None)], &settings);
    pause(Duration::from_secs(1));
    // Pauses of at least 100, 200, 400 and 800 ms.
    let calls = calls.load(Ordering::Relaxed);
    assert!((1..=6).contains(&calls), "{calls} connections in a second");
    drop(tally);
}
