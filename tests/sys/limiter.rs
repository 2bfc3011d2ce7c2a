//! The limit script: grants are exact, however many ask at once, and denials cost the node nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::connection::{Connection, Request, encode};
use crate::harness::{Settings, Stack, eventually, pause, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::Tally;
use tally::limit::CANONICAL_WITH_TTL as SCRIPT;

const LIMIT: i64 = 100;
const KEYS: usize = 20;

/// All callers ask for every key; returns what each key granted.
fn ask(
    addresses: &[std::net::SocketAddr],
    clients: usize,
    body: &str,
    rounds: usize,
) -> HashMap<usize, Vec<i64>> {
    let mut granted: HashMap<usize, Vec<i64>> = HashMap::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                let address = addresses[client % addresses.len()];
                scope.spawn(move || {
                    let mut connection = Connection::open(address);
                    let mut granted = Vec::new();
                    for round in 0..rounds {
                        let requests: Vec<Request> = (0..KEYS)
                            .map(|key| {
                                let key = format!("limited{}", (key + client + round) % KEYS);
                                let limit = LIMIT.to_string();
                                ["EVAL", body, "1", &key, &limit, "600"]
                                    .map(|argument| argument.as_bytes().to_vec())
                                    .to_vec()
                            })
                            .collect();
                        for (request, reply) in requests.iter().zip(connection.pipeline(&requests))
                        {
                            let key = String::from_utf8_lossy(&request[3]);
                            let key = key.trim_start_matches("limited").parse().unwrap();
                            match Reply::parse(&reply) {
                                Reply::Integer(-1) => {}
                                Reply::Integer(value) => granted.push((key, value)),
                                other => panic!("{other:?}"),
                            }
                        }
                    }
                    granted
                })
            })
            .collect();
        for thread in threads {
            for (key, value) in thread.join().unwrap() {
                granted.entry(key).or_default().push(value);
            }
        }
    });
    granted
}

#[track_caller]
fn check_grants(mut granted: HashMap<usize, Vec<i64>>) {
    assert_eq!(granted.len(), KEYS);
    for values in granted.values_mut() {
        values.sort_unstable();
        assert_eq!(*values, (1..=LIMIT).collect::<Vec<_>>());
    }
}

#[test]
fn a_thousand_calls_at_once_are_granted_exactly_to_the_limit() {
    for mode in ["\"buffered\"", "\"exact\"", "\"through\""] {
        let stack = Stack::start(&[("counters.mode", mode)]);
        check_grants(ask(&[stack.address()], 50, SCRIPT, 20));
        assert!((590..=600).contains(&stack.connect().run("TTL limited3").integer()));
    }
}

/// A thousand callers, each asking once for every key, all of them sent before any reply is read.
fn ask_at_once(addresses: &[std::net::SocketAddr]) -> HashMap<usize, Vec<i64>> {
    // Where files are few, four callers share a connection.
    let callers = if open_files() > 2_500 { 1 } else { 4 };
    let mut connections: Vec<_> = (0..1_000 / callers)
        .map(|client| Connection::open(addresses[client % addresses.len()]))
        .collect();
    let keys: Vec<usize> = (0..KEYS).cycle().take(KEYS * callers).collect();
    for connection in &mut connections {
        let calls = keys.iter().map(|key| {
            let key = format!("limited{key}");
            encode(&["EVAL", SCRIPT, "1", &key, &LIMIT.to_string(), "600"])
        });
        connection.write_raw(&calls.collect::<Vec<_>>().concat());
    }
    let mut granted: HashMap<usize, Vec<i64>> = HashMap::new();
    for connection in &mut connections {
        for key in &keys {
            match connection.read_reply() {
                Reply::Integer(-1) => {}
                Reply::Integer(value) => granted.entry(*key).or_default().push(value),
                other => panic!("{other:?}"),
            }
        }
    }
    granted
}

/// How many files this process may have open.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    soft.unwrap_or_default()
}

#[test]
fn a_thousand_callers_at_once_share_exactly_the_limit() {
    for mode in ["\"buffered\"", "\"exact\"", "\"through\""] {
        let stack = Stack::start(&[("counters.mode", mode)]);
        check_grants(ask_at_once(&[stack.address()]));
    }
}

#[test]
fn a_thousand_callers_of_two_tallies_share_exactly_the_limit() {
    if skipped_on_bare_redis() {
        return;
    }
    for mode in ["\"buffered\"", "\"exact\""] {
        let settings: Settings<'_> = &[("counters.mode", mode)];
        let stack = Stack::start(settings);
        let other = Tally::start(&stack.nodes, settings);
        check_grants(ask_at_once(&[stack.address(), other.address()]));
    }
}

#[test]
fn equal_calls_become_one_and_denials_ask_nobody() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    check_grants(ask(&[stack.address()], 50, SCRIPT, 20));
    let calls = stack.node_calls("evalsha") + stack.node_calls("eval");
    assert!(
        calls < 12_000,
        "{calls} script calls on the nodes for 20000"
    );
    let before = stack.node_calls("evalsha") + stack.node_calls("eval");
    let mut client = stack.connect();
    for _ in 0..1_000 {
        let call = ["EVAL", SCRIPT, "1", "limited7", "100", "600"];
        assert_eq!(client.call(&call), Reply::Integer(-1));
    }
    let asked = stack.node_calls("evalsha") + stack.node_calls("eval") - before;
    assert!(asked < 50, "{asked} calls on the nodes for 1000 denials");
    // A decrement ends the denial.
    assert_eq!(client.run("DECR limited7").integer(), 99);
    let call = ["EVAL", SCRIPT, "1", "limited7", "100", "600"];
    assert_eq!(client.call(&call), Reply::Integer(100));
    assert_eq!(client.call(&call), Reply::Integer(-1));
    assert_eq!(client.run("DEL limited7").integer(), 1);
    assert_eq!(client.call(&call), Reply::Integer(1));
}

/// Calls on different keys that come together are few scripts for the nodes, and each has the answer
/// of its own, in order with everything else that its client sends.
#[test]
fn calls_on_many_keys_go_together() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let call = |key: &str, limit: &str| encode(&["EVAL", SCRIPT, "1", key, limit, "600"]);
    assert_eq!(
        client
            .call(&["EVAL", SCRIPT, "1", "first", "1", "600"])
            .integer(),
        1
    );
    assert!(client.run("SET text x").is_ok());
    client.run("LPUSH list a");
    let before = stack.node_calls("evalsha") + stack.node_calls("eval");
    for round in 1..=4 {
        if round == 3 {
            // They know no script any more.
            for node in &stack.nodes {
                assert!(node.connect().run("SCRIPT FLUSH").is_ok());
            }
        }
        let mut wire = Vec::new();
        for key in 0..400 {
            wire.extend(call(&format!("many{key}"), "3"));
        }
        wire.extend(call("text", "3"));
        wire.extend(call("list", "3"));
        wire.extend(encode(&["DBSIZE"]));
        wire.extend(encode(&["MULTI"]));
        wire.extend(call("many7", "100"));
        wire.extend(encode(&["EXEC"]));
        wire.extend(encode(&["DECR", "many7"]));
        client.write_raw(&wire);
        for key in 0..400 {
            let want = if round <= 3 { round } else { -1 };
            assert_eq!(client.read_reply(), Reply::Integer(want), "{key}");
        }
        assert!(client.read_reply().text().starts_with("ERR"));
        assert!(client.read_reply().text().starts_with("WRONGTYPE"));
        assert_eq!(client.read_reply(), Reply::Integer(403));
        assert!(client.read_reply().is_ok());
        assert_eq!(client.read_reply(), Reply::Simple(b"QUEUED".to_vec()));
        let granted = 1 + round.min(3);
        assert_eq!(
            client.read_reply(),
            Reply::Array(vec![Reply::Integer(granted)])
        );
        assert_eq!(client.read_reply(), Reply::Integer(granted - 1));
    }
    let ttl = client.run("TTL many399").integer();
    assert!((580..=600).contains(&ttl), "{ttl}");
    if skipped_on_bare_redis() {
        return;
    }
    let calls = stack.node_calls("evalsha") + stack.node_calls("eval") - before;
    assert!(calls < 400, "{calls} script calls on the nodes for 1612");
}

/// What a cut connection leaves unanswered may have been counted; nothing is granted twice, and
/// nothing that was granted is missing.
#[test]
fn grants_through_cut_connections_are_each_counted_once() {
    if skipped_on_bare_redis() {
        return;
    }
    let settings: Settings<'_> = &[
        ("upstream.backoff_min", "\"5ms\""),
        ("upstream.backoff_max", "\"20ms\""),
    ];
    let stack = Stack::start(settings);
    let address = stack.address();
    let cutting = AtomicBool::new(true);
    let answers = AtomicUsize::new(0);
    let (mut granted, mut unknown): (HashMap<usize, Vec<i64>>, HashMap<usize, usize>) =
        Default::default();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|client| {
                scope.spawn({
                    let answers = &answers;
                    move || call_many(address, client, answers)
                })
            })
            .collect();
        scope.spawn(|| {
            // Not before something was answered since: else a slow machine only connects.
            let mut enough = 0;
            while cutting.load(Ordering::Relaxed) {
                if answers.load(Ordering::Relaxed) >= enough {
                    for node in &stack.nodes {
                        node.connect().run("CLIENT KILL TYPE normal SKIPME yes");
                    }
                    enough = answers.load(Ordering::Relaxed) + 500;
                }
                pause(Duration::from_millis(5));
            }
        });
        for caller in callers {
            for (key, value) in caller.join().unwrap() {
                match value {
                    Some(value) => granted.entry(key).or_default().push(value),
                    None => *unknown.entry(key).or_default() += 1,
                }
            }
        }
        cutting.store(false, Ordering::Relaxed);
    });
    let answered: usize = granted.values().map(Vec::len).sum();
    assert!(
        answered > 5_000 && !unknown.is_empty(),
        "{answered} {unknown:?}"
    );
    let mut client = stack.connect();
    for (key, mut values) in granted {
        let calls = values.len();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), calls, "key {key}: a grant twice");
        let key_name = format!("limited{key}");
        assert!(eventually(Duration::from_secs(5), || {
            matches!(client.run(&format!("GET {key_name}")), Reply::Bulk(_))
        }));
        let total: usize = client
            .run(&format!("GET {key_name}"))
            .text()
            .parse()
            .unwrap();
        let most = calls + unknown.get(&key).copied().unwrap_or(0);
        assert!(
            (calls..=most).contains(&total),
            "key {key}: {total}, {calls} to {most}"
        );
    }
}

/// Calls for each of 50 keys, together, again and again; what each granted, `None` for an error.
fn call_many(
    address: std::net::SocketAddr,
    client: usize,
    answers: &AtomicUsize,
) -> Vec<(usize, Option<i64>)> {
    let mut connection = Connection::open(address);
    let mut calls = Vec::new();
    for round in 0..200 {
        let keys = (0..50).map(|key| (key + client * 7 + round) % 50);
        let wire: Vec<u8> = keys
            .clone()
            .flat_map(|key| {
                let key = format!("limited{key}");
                encode(&["EVAL", SCRIPT, "1", &key, "1000000", "600"])
            })
            .collect();
        connection.write_raw(&wire);
        for key in keys {
            calls.push((
                key,
                match connection.read_reply() {
                    Reply::Integer(value) => {
                        answers.fetch_add(1, Ordering::Relaxed);
                        Some(value)
                    }
                    Reply::Error(_) => None,
                    other => panic!("{other:?}"),
                },
            ));
        }
        pause(Duration::from_millis(2));
    }
    calls
}

/// Where that is wanted, one Tally grants from memory: to the limit, and the nodes learn of it.
#[test]
fn grants_from_memory_end_at_the_limit_and_reach_the_node() {
    if skipped_on_bare_redis() {
        return;
    }
    let settings: Settings<'_> = &[
        ("counters.local_grants", "true"),
        ("counters.flush_interval", "\"100ms\""),
    ];
    let stack = Stack::start(settings);
    check_grants(ask(&[stack.address()], 50, SCRIPT, 20));
    let calls = stack.node_calls("evalsha") + stack.node_calls("eval");
    assert!(calls < 2_000, "{calls} script calls on the nodes for 20000");
    for key in 0..KEYS {
        let key = format!("limited{key}");
        let arrived = eventually(Duration::from_secs(5), || {
            stack.nodes.iter().any(|node| {
                node.connect().run(&format!("GET {key}")) == Reply::Bulk(b"100".to_vec())
            })
        });
        assert!(arrived, "{key}");
        assert!((580..=600).contains(&stack.connect().run(&format!("TTL {key}")).integer()));
    }
    // Grants and increments are counted together, by all who ask this Tally.
    let mut client = stack.connect();
    let mut call = |limit: &str| client.call(&["EVAL", SCRIPT, "1", "mixed", limit, "600"]);
    for number in 1..=5 {
        assert_eq!(call("1000"), Reply::Integer(number));
    }
    assert_eq!(stack.connect().run("INCRBY mixed 10").integer(), 15);
    assert_eq!(call("1000"), Reply::Integer(16));
    assert_eq!(call("16"), Reply::Integer(-1));
    assert_eq!(stack.connect().run("DEL mixed").integer(), 1);
    assert_eq!(call("16"), Reply::Integer(1));
    assert!((590..=600).contains(&stack.connect().run("TTL mixed").integer()));
}

/// A script of nobody's catalogue, named in the configuration.
#[test]
fn a_configured_script_is_combined_and_its_denials_repeated() {
    if skipped_on_bare_redis() {
        return;
    }
    let body = "local most = tonumber(ARGV[2]) local used = tonumber(redis.call('GET', KEYS[1]) or 0) \
                if used < most then local now = redis.call('INCR', KEYS[1]) if now == 1 then \
                redis.call('PEXPIRE', KEYS[1], ARGV[1]) end return now else return -7 end";
    let sha = String::from_utf8_lossy(&tally::limit::sha1_hex(body.as_bytes())).into_owned();
    let script =
        format!("[{{ sha1 = \"{sha}\", limit = 2, ttl = 1, ttl_unit = \"ms\", denied = -7 }}]");
    let stack = Stack::start(&[("limit_scripts", &script)]);
    let mut client = stack.connect();
    let call = ["EVAL", body, "1", "k", "600000", "5"];
    for number in 1..=5 {
        assert_eq!(client.call(&call), Reply::Integer(number));
    }
    assert!((590..=600).contains(&client.run("TTL k").integer()));
    for _ in 0..100 {
        assert_eq!(client.call(&call), Reply::Integer(-7));
    }
    let calls = stack.node_calls("evalsha") + stack.node_calls("eval");
    assert!(calls < 30, "{calls} script calls on the nodes for 105");
}

#[test]
fn a_limit_script_sees_increments_that_are_not_flushed_yet() {
    let stack = Stack::start(&[("counters.flush_interval", "\"10s\"")]);
    let mut client = stack.connect();
    let call = ["EVAL", SCRIPT, "1", "k", "100", "600"];
    for round in 0..10 {
        for number in 1..=5 {
            assert_eq!(client.run("INCR k").integer(), round * 7 + number);
        }
        assert_eq!(client.call(&call).integer(), round * 7 + 6);
        assert_eq!(client.call(&call).integer(), round * 7 + 7);
    }
    assert!(client.run("SET k 100").is_ok());
    assert_eq!(client.call(&call).integer(), -1);
    assert!(client.run("SET k text").is_ok());
    let text = client.call(&call).text();
    assert!(text.starts_with("ERR"), "{text}");
    assert_eq!(client.run("DEL k").integer(), 1);
    client.run("LPUSH k a");
    assert!(client.call(&call).text().starts_with("WRONGTYPE"));
}
