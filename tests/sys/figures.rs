//! What is told of each command: counts, durations, errors, the slow log.

use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Stack, eventually, pause, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::Redis;

/// Lines of an `INFO` section that begin with `start`, each without the parts that hold times.
#[track_caller]
fn lines(client: &mut Connection, section: &str, start: &str) -> Vec<String> {
    let text = client.run(&format!("INFO {section}")).text();
    let lines = text.lines().filter(|line| line.starts_with(start));
    let mut lines: Vec<_> = lines
        .map(|line| {
            let parts = line.split(',').filter(|part| !part.starts_with("usec"));
            parts.collect::<Vec<_>>().join(",")
        })
        .collect();
    lines.sort();
    lines
}

/// A field of a map, in RESP2 or RESP3.
#[track_caller]
fn field<'r>(reply: &'r Reply, name: &str) -> &'r Reply {
    let mut pairs = reply.elements().chunks(2);
    let pair = pairs.find(|pair| pair[0].text() == name);
    &pair.unwrap_or_else(|| panic!("no {name} in {reply:?}"))[1]
}

/// Twenty kinds of success and failure.
const SCRIPT: &[&str] = &[
    "INCR n",
    "INCR n",
    "INCRBY n 5",
    "INCRBY n x",
    "GET n",
    "GET nothing",
    "MGET n nothing",
    "SET s text",
    "INCR s",
    "SET s",
    "NOSUCH x",
    "LPUSH l a",
    "INCR l",
    "HGET s f",
    "EVAL \"return redis.error_reply('MINE failed')\" 0",
    "EVALSHA 0000000000000000000000000000000000000000 0",
    "CONFIG GET appendonly",
    "CONFIG NOSUCH x",
    "CLIENT GETNAME",
    "PING",
    "DEL n s",
    "DBSIZE",
];

#[test]
fn commands_and_errors_are_counted_as_by_redis() {
    let count = |mut client: Connection| {
        client.run("CONFIG RESETSTAT");
        for line in SCRIPT {
            client.run(line);
        }
        let commands = lines(&mut client, "commandstats", "cmdstat_");
        let errors = lines(&mut client, "errorstats", "errorstat_");
        // The reset itself and INFO are counted at other moments.
        let is_asked = |line: &&String| !line.contains("_info:") && !line.contains("resetstat:");
        let commands: Vec<_> = commands.iter().filter(is_asked).cloned().collect();
        (commands, errors)
    };
    let redis = Redis::start(&[]);
    let stack = Stack::start(&[]);
    let (want, want_errors) = count(redis.connect());
    let (got, errors) = count(stack.connect());
    assert_eq!(got, want);
    assert_eq!(errors, want_errors);
    assert!(want.len() > 10, "{want:?}");
}

#[test]
fn every_call_is_in_the_histogram_of_its_command() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    for n in 0..300 {
        let lines: Vec<_> = (0..=(n % 7)).map(|_| "INCR warm").collect();
        client.run_all(&lines);
        client.run(&format!("SET cold:{n} x"));
    }
    client.run("HELLO 3");
    let histogram = client.run("LATENCY HISTOGRAM incr SET client nosuch");
    let calls = |name: &str| field(field(&histogram, name), "calls").integer();
    let counted = |name: &str| {
        let mut client = stack.connect();
        let start = format!("cmdstat_{name}:calls=");
        let line = lines(&mut client, "commandstats", &start);
        let number = line[0][start.len()..].split(',').next().unwrap();
        number.parse::<i64>().unwrap()
    };
    assert_eq!(histogram.elements().len(), 4, "{histogram:?}");
    assert_eq!(calls("incr"), counted("incr"));
    assert_eq!(calls("set"), 300);
    // Each step holds the one before, and the last holds all.
    for name in ["incr", "set"] {
        let buckets = field(field(&histogram, name), "histogram_usec");
        let steps = buckets.elements().chunks(2);
        let steps: Vec<_> = steps
            .map(|step| (step[0].integer(), step[1].integer()))
            .collect();
        assert!(
            steps.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1),
            "{steps:?}"
        );
        assert_eq!(steps.last().unwrap().1, calls(name), "{steps:?}");
    }
    let percentiles = lines(
        &mut stack.connect(),
        "latencystats",
        "latency_percentiles_usec_set:",
    );
    assert!(percentiles[0].contains("p50=") && percentiles[0].contains(",p99.9="));
}

/// The newest entry of `TALLY SLOWLOG` whose request is `line`.
#[track_caller]
fn slow_entry(client: &mut Connection, line: &str) -> Option<Reply> {
    let log = client.run("TALLY SLOWLOG");
    let mut entries = log.elements().iter();
    let entry = entries.find(|entry| {
        let words = field(entry, "request").elements().iter();
        words.map(Reply::text).collect::<Vec<_>>().join(" ") == line
    });
    entry.cloned()
}

#[test]
fn the_slow_log_tells_time_at_the_node_and_time_in_tally_apart() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("counters.flush_interval", "\"1m\"")]);
    let key = stack.key_on(0, "k");
    let mut client = stack.connect();
    client.run("CLIENT SETNAME tester");
    for _ in 0..10 {
        client.run(&format!("INCR {key}"));
    }
    // The node takes no writes for a while. LPUSH waits there; SET waits here, for the batch with
    // the key's increments.
    let list = stack.key_on(0, "list");
    stack.nodes[0].connect().run("CLIENT PAUSE 150 WRITE");
    let mut other = stack.connect();
    other.send(&["LPUSH", &list, "a"]);
    assert!(client.run(&format!("SET {key} 1")).is_ok());
    other.read_frame();
    let mut found = (None, None);
    let listed = eventually(Duration::from_secs(5), || {
        found = (
            slow_entry(&mut client, &format!("LPUSH {list} a")),
            slow_entry(&mut client, &format!("SET {key} 1")),
        );
        found.0.is_some() && found.1.is_some()
    });
    assert!(listed, "{:?}", client.run("TALLY SLOWLOG"));
    let us = |entry: &Option<Reply>, name: &str| field(entry.as_ref().unwrap(), name).integer();
    let (there, here) = found;
    for entry in [&there, &here] {
        assert!(us(entry, "usec") > 20_000, "{entry:?}");
        let parts = us(entry, "tally_usec") + us(entry, "node_usec");
        assert!((us(entry, "usec") - parts).abs() <= 1, "{entry:?}");
    }
    assert!(
        us(&there, "node_usec") > us(&there, "tally_usec"),
        "{there:?}"
    );
    assert!(us(&here, "tally_usec") > us(&here, "node_usec"), "{here:?}");
    assert_eq!(field(here.as_ref().unwrap(), "name").text(), "tester");
}

#[test]
fn the_slow_log_has_the_form_of_redis_and_no_secrets() {
    let stack = Stack::start(&[("server.password", "\"s3cret\"")]);
    let mut client = stack.connect();
    assert!(client.run("AUTH s3cret").is_ok());
    let set = |client: &mut Connection, name: &str, value: &str| {
        let reply = client.run(&format!("CONFIG SET {name} {value}"));
        assert!(reply.is_ok(), "{reply:?}");
    };
    assert_eq!(client.run("SLOWLOG LEN").integer(), 0);
    set(&mut client, "slowlog-log-slower-than", "0");
    client.run("AUTH s3cret");
    client.run("HELLO 2 AUTH default s3cret");
    client.run("PING");
    for _ in 0..5 {
        client.run("INCR n");
    }
    client.run("GET n");
    client.call(&["SET", "long", &"x".repeat(300)]);
    let log = client.run("SLOWLOG GET -1");
    let requests: Vec<String> = log
        .elements()
        .iter()
        .map(|entry| {
            let parts = entry.elements();
            assert_eq!(parts.len(), 6, "{entry:?}");
            assert!(parts[1].integer() > 1_600_000_000 && parts[2].integer() >= 0);
            assert!(parts[4].text().starts_with("127.0.0.1:"), "{entry:?}");
            let words = parts[3].elements().iter().map(Reply::text);
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    let shortened = format!("SET long {}... (172 more bytes)", "x".repeat(128));
    for request in ["PING", "INCR n", "GET n", &shortened] {
        assert!(
            requests.iter().any(|seen| seen == request),
            "{request}: {requests:?}"
        );
    }
    assert!(
        !requests.iter().any(|seen| seen.contains("s3cret")),
        "{requests:?}"
    );
    assert_eq!(client.run("SLOWLOG GET 3").elements().len(), 3);
    set(&mut client, "slowlog-max-len", "2");
    assert_eq!(client.run("SLOWLOG LEN").integer(), 2);
    set(&mut client, "slowlog-log-slower-than", "-1");
    assert!(client.run("SLOWLOG RESET").is_ok());
    client.run("GET long");
    pause(Duration::from_millis(5));
    assert_eq!(client.run("SLOWLOG LEN").integer(), 0);
    let got = client.run("CONFIG GET slowlog-*");
    let got: Vec<_> = got.elements().iter().map(Reply::text).collect();
    assert_eq!(
        got,
        ["slowlog-log-slower-than", "-1", "slowlog-max-len", "2"]
    );
    for (name, value) in [
        ("slowlog-log-slower-than", "-2"),
        ("slowlog-log-slower-than", "x"),
        ("slowlog-max-len", "-1"),
    ] {
        let reply = client.run(&format!("CONFIG SET {name} {value}"));
        assert!(
            reply.text().starts_with("ERR CONFIG SET failed"),
            "{reply:?}"
        );
    }
}
