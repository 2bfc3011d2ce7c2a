//! Commands over all keys: every node's part, once, and never a counter that was deleted.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Stack, eventually, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::Redis;

/// Every key that a SCAN with these arguments names, in the order they came.
#[track_caller]
fn scan(client: &mut Connection, arguments: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    for _ in 0..5_000 {
        let reply = client.run(&format!("SCAN {cursor} {arguments}"));
        let [next, keys] = reply.elements() else {
            panic!("{reply:?}");
        };
        found.extend(keys.elements().iter().map(Reply::text));
        cursor = next.text();
        assert!(cursor.bytes().all(|byte| byte.is_ascii_digit()), "{cursor}");
        let _: u64 = cursor
            .parse()
            .expect("a cursor fits 64 bits, as clients expect");
        if cursor == "0" {
            return found;
        }
    }
    panic!("SCAN {arguments} does not end");
}

fn fill(client: &mut Connection) {
    let lines: Vec<_> = (0..1_000)
        .map(|n| match n % 4 {
            0 => format!("SET s:{n} x"),
            1 => format!("LPUSH l:{n} x"),
            2 => format!("INCR c:{n}"),
            _ => format!("HSET h:{n} f x"),
        })
        .collect();
    assert!(client.run_all(&lines).iter().all(|reply| !reply.is_error()));
}

#[test]
fn scan_names_each_of_a_thousand_still_keys_once() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    fill(&mut client);
    assert_eq!(client.run("DBSIZE").integer(), 1_000);
    for arguments in ["COUNT 7", "", "COUNT 1000"] {
        let found = scan(&mut client, arguments);
        let distinct: BTreeSet<_> = found.iter().collect();
        assert_eq!(distinct.len(), 1_000, "SCAN {arguments}");
        assert_eq!(found.len(), 1_000, "SCAN {arguments} names keys twice");
    }
    for (arguments, count) in [
        ("MATCH s:* COUNT 7", 250),
        ("TYPE list COUNT 50", 250),
        ("MATCH c:* TYPE string COUNT 100", 250),
        ("MATCH c:* TYPE hash COUNT 100", 0),
    ] {
        let found = scan(&mut client, arguments);
        let distinct: BTreeSet<_> = found.iter().collect();
        assert_eq!(
            (found.len(), distinct.len()),
            (count, count),
            "SCAN {arguments}"
        );
    }
    assert_eq!(client.run("KEYS *").elements().len(), 1_000);
    assert_eq!(client.run("KEYS h:*").elements().len(), 250);
    assert_eq!(client.run("KEYS ?:10").elements().len(), 1);
}

#[test]
fn a_scan_of_a_small_database_ends_in_one_reply() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let once = |client: &mut Connection, arguments: &str| {
        let reply = client.run(&format!("SCAN 0 {arguments}"));
        let [next, keys] = reply.elements() else {
            panic!("{reply:?}");
        };
        (next.text(), keys.elements().len())
    };
    assert_eq!(once(&mut client, ""), ("0".to_owned(), 0));
    for n in 0..8 {
        client.run(&format!("SET {{{n}}}s x"));
    }
    client.run("LPUSH list x");
    // Behind what was sent before it, on every node.
    let replies = client.run_all(&["DEL {3}s", "SCAN 0", "SET {3}s y"]);
    assert_eq!(replies[1].elements()[1].elements().len(), 8);
    for (arguments, count) in [
        ("", 9),
        ("COUNT 100", 9),
        ("MATCH *s", 8),
        ("TYPE list COUNT 10", 1),
    ] {
        let found = once(&mut client, arguments);
        assert_eq!(found, ("0".to_owned(), count), "SCAN 0 {arguments}");
    }
    // With enough found on one node, the next is for another call.
    assert_ne!(once(&mut client, "COUNT 1").0, "0");
    assert!(client.run("SCAN 0 COUNT 0").is_error());
    assert!(client.run("SCAN 0 COUNT x").is_error());
}

#[test]
fn random_keys_come_from_every_node() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    assert_eq!(client.run("RANDOMKEY"), Reply::Nil);
    client.run("SET only x");
    for _ in 0..20 {
        assert_eq!(
            client.run("RANDOMKEY").text(),
            "only",
            "an empty node gives no key"
        );
    }
    fill(&mut client);
    let mut reached = BTreeSet::new();
    let reached_all = eventually(Duration::from_secs(5), || {
        let key = client.run("RANDOMKEY").text();
        for (index, node) in stack.nodes.iter().enumerate() {
            if node.connect().run(&format!("EXISTS {key}")).integer() == 1 {
                reached.insert(index);
            }
        }
        reached.len() == stack.nodes.len()
    });
    assert!(reached_all, "only nodes {reached:?}");
}

#[test]
fn flushed_counters_do_not_come_back() {
    let stack = Stack::start(&[]);
    for flush in ["FLUSHALL", "FLUSHDB", "FLUSHALL ASYNC", "FLUSHDB SYNC"] {
        let mut client = stack.connect();
        let warm: Vec<_> = (0..40)
            .flat_map(|n| vec![format!("INCR c{n}"); 5])
            .collect();
        let mut lines = warm.clone();
        lines.push(flush.to_owned());
        lines.push("DBSIZE".to_owned());
        let replies = client.run_all(&lines);
        let [.., flushed, size] = replies.as_slice() else {
            panic!("no replies");
        };
        assert!(flushed.is_ok(), "{flush}: {flushed:?}");
        assert_eq!(size.integer(), 0, "{flush}");
        // Several flush intervals later, too.
        let returned = eventually(Duration::from_millis(200), || {
            stack
                .nodes
                .iter()
                .any(|node| !node.client_keys().is_empty())
        });
        assert!(!returned, "{flush}: counters came back");
        assert_eq!(client.run("GET c1"), Reply::Nil);
        assert_eq!(client.run("INCR c1").integer(), 1);
        assert_eq!(client.run("INCR c1").integer(), 2);
        client.run("FLUSHALL");
    }
}

#[test]
fn wait_without_replicas_answers_none() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    client.run_all(&["INCR a", "INCR a", "INCR a"]);
    assert_eq!(client.run("WAIT 0 100").integer(), 0);
    let held: Vec<_> = stack
        .nodes
        .iter()
        .map(|node| node.connect().run("GET a"))
        .collect();
    assert!(
        held.contains(&Reply::Bulk(b"3".to_vec())),
        "WAIT flushes first: {held:?}"
    );
    assert_eq!(client.run("WAIT 1 50").integer(), 0);
    assert_eq!(client.run("GET a").text(), "3");
}

#[test]
fn wait_counts_the_replicas_that_have_what_was_written() {
    if skipped_on_bare_redis() {
        return;
    }
    let node = || Redis::start(&["--repl-diskless-sync-delay", "0"]);
    waits_for_replicas(vec![node(), node()], |node| {
        let port = node.address().port().to_string();
        Redis::start(&["--replicaof", "127.0.0.1", &port])
    });
}

/// Once more where a node waits for less: there a connection that has written nothing waits for
/// nothing (Redis 7.2).
#[test]
fn wait_counts_the_replicas_of_newer_servers() {
    if skipped_on_bare_redis() {
        return;
    }
    let nodes = vec![Redis::start_valkey(), Redis::start_valkey()];
    waits_for_replicas(nodes, |node| {
        let at_once = "CONFIG SET repl-diskless-sync-delay 0";
        assert!(node.connect().run(at_once).is_ok());
        let replica = Redis::start_valkey();
        let port = node.address().port();
        let follow = format!("REPLICAOF 127.0.0.1 {port}");
        assert!(replica.connect().run(&follow).is_ok());
        replica
    });
}

#[track_caller]
fn waits_for_replicas(nodes: Vec<Redis>, follow: impl Fn(&Redis) -> Redis) {
    let replicas: Vec<Redis> = nodes.iter().map(follow).collect();
    let stack = Stack::over(nodes, &[("counters.flush_interval", "\"10s\"")]);
    let mut client = stack.connect();
    let limit = Duration::from_secs(20);
    assert!(eventually(limit, || client.run("WAIT 1 100").integer() == 1));
    let key = stack.key_on(1, "k");
    let slow = &replicas[1];
    slow.freeze();
    client.run_all(&[format!("INCR {key}"), format!("INCR {key}")]);
    // Whatever the connection that it waits on was used for before.
    for _ in 0..3 {
        assert_eq!(client.run("WAIT 1 50").integer(), 0);
    }
    slow.thaw();
    assert_eq!(client.run("WAIT 1 20000").integer(), 1);
    let mut replica = slow.connect();
    assert_eq!(replica.run(&format!("GET {key}")).text(), "2");
    let is_newer = !stack.nodes[0].connect().run("WAITAOF 0 0 1").is_error();
    let reply = client.run("WAITAOF 0 1 50");
    if is_newer {
        // They keep nothing on their disks.
        assert_eq!(
            reply,
            Reply::Array(vec![Reply::Integer(0), Reply::Integer(0)])
        );
        assert!(client.run("WAITAOF 1 0 50").is_error());
    } else {
        assert!(reply.text().starts_with("ERR unknown command"), "{reply:?}");
    }
}

#[test]
fn counters_are_keys_like_others_from_their_first_increment() {
    let stack = Stack::start(&[("counters.flush_interval", "\"10s\"")]);
    let mut client = stack.connect();
    for number in 1..=20 {
        client.run_all(&[format!("INCR c{number}"), format!("INCR c{number}")]);
        assert_eq!(client.run("DBSIZE").integer(), number);
        assert_eq!(
            client.run("KEYS *").elements().len(),
            usize::try_from(number).unwrap()
        );
        assert_eq!(client.run(&format!("EXISTS c{number}")).integer(), 1);
        assert_eq!(client.run(&format!("TYPE c{number}")).text(), "string");
    }
    assert_eq!(scan(&mut client, "COUNT 3").len(), 20);
}

#[test]
fn an_expired_counter_starts_again() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    for key in 0..10 {
        let lines = [
            format!("INCR c{key}"),
            format!("INCR c{key}"),
            format!("PEXPIRE c{key} 300"),
            format!("INCR c{key}"),
        ];
        client.run_all(&lines);
    }
    let gone = eventually(Duration::from_secs(5), || {
        client.run("DBSIZE").integer() == 0
    });
    assert!(gone, "expired counters stay: {:?}", client.run("KEYS *"));
    for key in 0..10 {
        assert_eq!(client.run(&format!("GET c{key}")), Reply::Nil);
        assert_eq!(client.run(&format!("INCR c{key}")).integer(), 1);
        assert_eq!(client.run(&format!("TTL c{key}")).integer(), -1);
    }
}

#[test]
fn windows_of_a_rate_limiter_are_counted_and_end() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    for _window in 0..3 {
        assert_eq!(client.run("INCR window").integer(), 1);
        assert_eq!(client.run("PEXPIRE window 250").integer(), 1);
        // Sent within the window unless this thread was held up for its whole length.
        let started = crate::harness::now();
        let replies = client.run_all(&["INCR window"; 20]);
        let in_time = started.elapsed() < Duration::from_millis(100);
        let numbers = replies.iter().map(Reply::integer);
        assert!(!in_time || numbers.eq(2..=21), "{replies:?}");
        let over = eventually(Duration::from_secs(5), || {
            client.run("EXISTS window").integer() == 0
        });
        assert!(
            over,
            "a window never ends: TTL {:?}",
            client.run("PTTL window")
        );
    }
}

#[test]
fn a_wait_ends_with_the_bound_of_all_waits() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[
        ("upstream.request_timeout", "\"200ms\""),
        ("upstream.hard_timeout", "\"400ms\""),
    ]);
    let mut client = stack.connect();
    assert!(client.run("SET k v").is_ok());
    client.set_patience(Duration::from_secs(10));
    for line in ["WAIT 1 0", "WAIT 1 1000000000000"] {
        assert_eq!(client.run(line).integer(), 0, "{line}");
    }
}
