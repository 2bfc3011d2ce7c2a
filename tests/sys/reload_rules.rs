//! Rules and waits are changed while clients are served.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Stack, eventually, skipped_on_bare_redis};
use crate::http;
use crate::servers::{Redis, Tally};

/// Changes the file and has it read over HTTP; returns the answer.
#[track_caller]
fn change(tally: &Tally, from: &str, to: &str) -> serde_json::Value {
    let file = tally.file();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from:?} is not in:\n{text}");
    fs::write(&file, text.replace(from, to)).unwrap();
    let more = "Authorization: Bearer t\r\nContent-Length: 0\r\n";
    let answer = http::request(tally.http_address(), "POST /api/v1/reload", more);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn mode(client: &mut Connection, key: &str) -> String {
    let place = client.call(&["TALLY", "WHERE", key]);
    place.elements()[5].text()
}

fn count(address: SocketAddr, key: &str, stop: &AtomicBool) -> i64 {
    let mut client = Connection::open(address);
    let (mut counted, mut last) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let value = client.call(&["INCR", key]).integer();
        assert!(value > last, "{value} after {last}");
        (last, counted) = (value, counted + 1);
    }
    counted
}

#[test]
fn modes_change_under_load_and_every_increment_is_counted_once() {
    if skipped_on_bare_redis() {
        return;
    }
    let settings = [
        ("counters.mode", "\"buffered\""),
        ("counters.flush_interval", "\"1s\""),
        ("rules", "[{ match = \"other:*\", mode = \"exact\" }]"),
        ("admin.token", "\"t\""),
    ];
    let stack = Stack::start(&settings);
    let keys = [stack.key_on(0, "a"), stack.key_on(1, "b")];
    let tally = stack.tally.as_ref().unwrap();
    let stop = AtomicBool::new(false);
    let (stop, address) = (&stop, stack.address());
    let totals = std::thread::scope(|scope| {
        let counting = [0, 1, 0, 1].map(|at| {
            let key = keys[at].as_str();
            scope.spawn(move || count(address, key, stop))
        });
        let mut client = stack.connect();
        let steps = [
            "exact", "through", "buffered", "through", "exact", "buffered",
        ];
        let before = ["buffered"].into_iter().chain(steps);
        for (from, to) in before.zip(steps).cycle().take(30) {
            let (from, to_line) = (format!("mode = \"{from}\"\n"), format!("mode = \"{to}\"\n"));
            let answer = change(tally, &from, &to_line);
            assert_eq!(answer["applied"], serde_json::json!(["counters.mode"]));
            assert_eq!(answer["waiting"], serde_json::json!([]));
            for key in &keys {
                assert_eq!(mode(&mut client, key), to);
            }
        }
        stop.store(true, Ordering::Relaxed);
        counting.map(|thread| thread.join().unwrap())
    });
    // What the mode exact acknowledges is in Redis.
    change(tally, "mode = \"buffered\"\n", "mode = \"exact\"\n");
    for (at, key) in keys.iter().enumerate() {
        let total = totals[at] + totals[at + 2];
        assert_eq!(
            stack.nodes[at].connect().call(&["GET", key]).text(),
            total.to_string()
        );
    }
}

#[test]
fn a_node_that_is_away_takes_new_rules_when_it_is_back() {
    if skipped_on_bare_redis() {
        return;
    }
    let settings = [
        ("counters.flush_interval", "\"1m\""),
        ("rules", "[{ match = \"no:*\", mode = \"through\" }]"),
        ("admin.token", "\"t\""),
    ];
    let node = Redis::start_durable();
    let mut stack = Stack::over(vec![node], &settings);
    let mut client = stack.connect();
    for number in 1..=10 {
        assert_eq!(client.run("INCR id:1").integer(), number);
    }
    stack.nodes[0].kill();
    let is_away = |client: &mut Connection| client.run("INFO nodes").text().contains("state=down");
    assert!(eventually(PATIENCE, || is_away(&mut client)));
    let answer = change(
        stack.tally.as_ref().unwrap(),
        "match = \"no:*\", mode = \"through\"",
        "match = \"id:*\", mode = \"exact\"",
    );
    assert_eq!(answer["waiting"], serde_json::json!(["redis_7070"]));
    // It goes on as it was: it has increments that no node has.
    assert_eq!(mode(&mut client, "id:1"), "buffered");
    assert_eq!(client.run("INCR id:1").integer(), 11);
    stack.nodes[0].restart();
    assert!(eventually(PATIENCE, || mode(&mut client, "id:1") == "exact"));
    assert_eq!(stack.nodes[0].connect().run("GET id:1").text(), "11");
    assert_eq!(client.run("INCR id:1").integer(), 12);
    assert_eq!(stack.nodes[0].connect().run("GET id:1").text(), "12");
}

#[test]
fn intervals_waits_and_bounds_change() {
    if skipped_on_bare_redis() {
        return;
    }
    let settings = [
        ("counters.flush_interval", "\"1m\""),
        ("upstream.request_timeout", "\"5s\""),
        ("slowlog.max_len", "128"),
        ("admin.token", "\"t\""),
    ];
    let stack = Stack::start(&settings);
    let key = stack.key_on(0, "k");
    let (mut client, tally) = (stack.connect(), stack.tally.as_ref().unwrap());
    let answer = change(
        tally,
        "flush_interval = \"1m\"",
        "flush_interval = \"20ms\"",
    );
    assert_eq!(
        answer["applied"],
        serde_json::json!(["counters.flush_interval"])
    );
    for _ in 0..10 {
        client.call(&["INCR", &key]);
    }
    let mut node = stack.nodes[0].connect();
    assert!(eventually(PATIENCE, || node.call(&["GET", &key]).text() == "10"));

    client.run("CONFIG SET slowlog-max-len 7");
    change(
        tally,
        "request_timeout = \"5s\"",
        "request_timeout = \"50ms\"",
    );
    let slow =
        |client: &mut Connection| client.run("CONFIG GET slowlog-max-len").elements()[1].text();
    assert_eq!(slow(&mut client), "7", "the file says of it what it said");
    change(tally, "max_len = 128", "max_len = 64");
    assert_eq!(slow(&mut client), "64");
    stack.nodes[0].freeze();
    let answer = client.call(&["HGET", &key, "f"]).text();
    stack.nodes[0].thaw();
    assert!(answer.contains("no answer within 50ms"), "{answer}");
}

/// Longest wait for what a change brings.
const PATIENCE: Duration = Duration::from_secs(15);
