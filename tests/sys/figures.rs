//! What is told of each command: counts, durations, errors, the slow log.

use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Stack, eventually, pause, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::{Redis, is_other_server};

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

/// What waits at the nodes, and fails there.
#[test]
fn commands_that_waited_and_failed_are_counted_as_by_redis() {
    let count = |mut client: Connection, mut worker: Connection| {
        client.run_all(&["SET text x", "XADD stream 1 f v"]);
        client.run("XGROUP CREATE stream group $");
        client.run("CONFIG RESETSTAT");
        assert!(worker.run("BLPOP text 0").is_error());
        assert!(worker.run("BLPOP list x").is_error());
        let id = worker.run("CLIENT ID").integer();
        worker.send(&["BLPOP", "list", "0"]);
        let unblocked = eventually(Duration::from_secs(10), || {
            client.run(&format!("CLIENT UNBLOCK {id} ERROR")).integer() == 1
        });
        assert!(unblocked);
        assert!(worker.read_reply().text().starts_with("UNBLOCKED"));
        worker.send(&[
            "XREADGROUP",
            "GROUP",
            "group",
            "me",
            "BLOCK",
            "0",
            "STREAMS",
            "stream",
            ">",
        ]);
        let waits = eventually(Duration::from_secs(10), || {
            let info = client.run("INFO clients").text();
            info.contains("blocked_clients:1")
        });
        assert!(waits);
        client.run("XGROUP DESTROY stream group");
        assert!(worker.read_reply().text().starts_with("NOGROUP"));
        let mut commands = lines(&mut client, "commandstats", "cmdstat_blpop");
        commands.extend(lines(&mut client, "commandstats", "cmdstat_xreadgroup"));
        (commands, lines(&mut client, "errorstats", "errorstat_"))
    };
    let redis = Redis::start(&[]);
    let stack = Stack::start(&[]);
    let mut want = count(redis.connect(), redis.connect());
    if is_other_server() {
        // Valkey 9.1 takes a call that CLIENT UNBLOCK ended for one that was never made.
        let counts = "rejected_calls=1,failed_calls=2";
        want.0[0] = want.0[0].replace(counts, "rejected_calls=0,failed_calls=3");
    }
    assert_eq!(count(stack.connect(), stack.connect()), want);
    assert_eq!((want.0.len(), want.1.len()), (2, 4), "{want:?}");
}

#[test]
fn percentiles_are_told_as_by_redis() {
    let told = |mut client: Connection| {
        client.run("SET a b");
        let mut told = Vec::new();
        for value in [
            "0.0 50.0 100.0",
            "10.0 50.0 a",
            "50 101.0",
            "50  99",
            "99.990",
            "",
        ] {
            let set = ["CONFIG", "SET", "latency-tracking-info-percentiles", value];
            told.push(client.call(&set));
            told.push(client.run("CONFIG GET latency-tracking-info-percentiles"));
            let text = client.run("INFO latencystats").text();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("latency_percentiles_usec_set:"));
            let names: String = line
                .unwrap_or("none")
                .split(',')
                .map(|part| part.split('=').next().unwrap())
                .collect();
            told.push(Reply::Bulk(names.into_bytes()));
        }
        for value in ["no", "yes", "maybe"] {
            told.push(client.run(&format!("CONFIG SET latency-tracking {value}")));
            told.push(client.run("CONFIG GET latency-tracking"));
            let lines = lines(&mut client, "latencystats", "latency_percentiles_usec_set");
            told.push(Reply::Integer(i64::from(!lines.is_empty())));
        }
        told
    };
    let redis = Redis::start(&[]);
    let stack = Stack::start(&[]);
    assert_eq!(told(stack.connect()), told(redis.connect()));
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
    // It is judged by what it sets.
    assert_eq!(client.run("SLOWLOG LEN").integer(), 1);
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

/// Fields of INFO, and the metric that tells the same.
const SAME: &[(&str, &str)] = &[
    ("connected_clients", "connected_clients"),
    ("maxclients", "max_clients"),
    ("total_connections_received", "connections_received_total"),
    ("rejected_connections", "rejected_connections_total"),
    ("keyspace_hits", "keyspace_hits_total"),
    ("keyspace_misses", "keyspace_misses_total"),
    ("protocol_errors", "protocol_errors_total"),
    ("output_limit_closed", "output_limit_closed_total"),
    ("upstream_requests", "upstream_requests_total"),
    ("increments_received", "increments_received_total"),
    ("increments_local", "increments_local_total"),
    ("increments_forwarded", "increments_forwarded_total"),
    ("increments_flushed", "increments_flushed_total"),
    ("increments_expired", "increments_expired_total"),
    ("increments_pending_keys", "pending_keys"),
    ("batches_unsettled", "batches_unsettled"),
    ("batches_unanswered", "batches_unanswered"),
    ("journal_slots", "journal_slots"),
    ("journal_slots_taken", "journal_slots_taken"),
    ("journal_last_sync", "journal_last_sync_seconds"),
    ("journal_sync_errors", "journal_sync_errors_total"),
    ("flush_batches", "flushes_total"),
    ("flush_keys", "flush_keys_total"),
    ("flush_errors", "flush_errors_total"),
    ("dead_letters", "dead_letters_total"),
    ("in_doubt", "in_doubt_total"),
    ("limit_calls", "limit_calls_total"),
    ("limit_requests", "limit_requests_total"),
    ("limit_denied", "limit_denied_total"),
];

/// What an `INFO everything` and the metrics do not tell alike.
#[track_caller]
fn differences(info: &str, metrics: &str) -> Vec<String> {
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().parse::<f64>().ok())
    };
    let field = |name: &str| {
        let mut lines = info.lines();
        let line = lines.find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.and_then(|line| line.parse::<f64>().ok())
    };
    let mut differing = Vec::new();
    for (name, metric) in SAME {
        let (told, shown) = (field(name), value(&format!("tally_{metric} ")));
        if told.is_none() || told != shown {
            differing.push(format!("{name}: {told:?} and {shown:?}"));
        }
    }
    let commands = info.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name, rest.split(',').next()?.parse::<f64>().ok()?))
    });
    let mut counted = 0;
    for (name, calls) in commands.filter(|(name, _)| *name != "info") {
        let shown = value(&format!("tally_commands_total{{cmd=\"{name}\"}} "));
        if shown != Some(calls) {
            differing.push(format!("{name}: {calls} and {shown:?}"));
        }
        counted += 1;
    }
    assert!(counted > 10, "{info}");
    let errors = info.lines().filter_map(|line| {
        let (code, count) = line.strip_prefix("errorstat_")?.split_once(":count=")?;
        Some((code, count.parse::<f64>().ok()?))
    });
    let mut all = 0.0;
    for (code, count) in errors {
        let shown = value(&format!("tally_errors_total{{err=\"{code}\"}} "));
        if shown != Some(count) {
            differing.push(format!("{code}: {count} and {shown:?}"));
        }
        all += count;
    }
    assert_eq!(field("total_error_replies"), Some(all), "{info}");
    differing
}

#[test]
fn info_and_metrics_tell_the_same_story() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    for line in SCRIPT {
        client.run(line);
    }
    client.run_all(&vec!["INCR hot"; 300]);
    client.run_all(&vec!["GET hot"; 50]);
    for _ in 0..10 {
        client.call(&["EVAL", tally::limit::CANONICAL, "1", "limited", "3"]);
    }
    assert!(client.run("TALLY FLUSH").is_ok());
    let http = stack.tally.as_ref().unwrap().http_address();
    let mut differing = Vec::new();
    // Statistics of the lanes come ten times a second, and both are asked one after the other.
    let same = eventually(Duration::from_secs(10), || {
        let info = client.run("INFO everything").text();
        let metrics = crate::http::request(http, "GET /metrics", "").body;
        differing = differences(&info, &metrics);
        differing.is_empty()
    });
    assert!(same, "{differing:#?}");
    // Every section is there, once and in order, and none of those that tell of Tally is empty.
    let info = client.run("INFO everything").text();
    let mut rest = info.as_str();
    for section in [
        "Server",
        "Clients",
        "Memory",
        "Stats",
        "Commandstats",
        "Errorstats",
        "Latencystats",
        "Tally",
        "Nodes",
        "Coalescing",
        "Journal",
        "Keyspace",
    ] {
        let header = format!("# {section}\r\n");
        let (_, after) = rest
            .split_once(&header)
            .unwrap_or_else(|| panic!("{section}"));
        assert!(!after.starts_with("\r\n"), "{section} is empty");
        rest = after;
    }
}

/// What `redis_exporter` asks at each scrape.
#[test]
fn an_exporter_s_questions_are_answered() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    client.run("INCR n");
    for line in [
        "CLIENT SETNAME redis_exporter",
        "CONFIG GET *",
        "INFO ALL",
        "INFO modules",
        "SLOWLOG LEN",
        "SLOWLOG GET 1",
        "LATENCY LATEST",
        "LATENCY HISTOGRAM",
        "CLIENT LIST",
        "DBSIZE",
        "TYPE n",
        "SCAN 0 COUNT 100",
        "MEMORY USAGE n",
        "STRLEN n",
        "PFCOUNT hll",
    ] {
        let reply = client.run(line);
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
}

#[test]
fn latency_events_are_those_of_redis() {
    let told = |mut client: Connection| {
        let mut told = Vec::new();
        for line in [
            "LATENCY LATEST",
            "CONFIG SET latency-monitor-threshold -1",
            "CONFIG SET latency-monitor-threshold x",
            "CONFIG SET latency-monitor-threshold 150",
            "CONFIG GET latency-monitor-threshold",
        ] {
            told.push(client.run(line));
        }
        // Redis 7.0 has no `os.clock`; later servers stop `TIME` while a script runs.
        let spin = "local has, clock = pcall(function() return os.clock end) \
                    local function now() \
                        if has then return clock() end \
                        local t = redis.call('TIME') return t[1] + t[2] / 1000000 \
                    end \
                    local e = now() + 0.3 repeat until now() > e return 1";
        assert_eq!(client.call(&["EVAL", spin, "1", "k"]).integer(), 1);
        let latest = client.run("LATENCY LATEST");
        let command = &latest.elements()[0];
        let history = client.run("LATENCY HISTORY command");
        let sample = &history.elements()[0];
        assert_eq!(sample.elements()[0], command.elements()[1]);
        assert_eq!(sample.elements()[1], command.elements()[2]);
        assert!(command.elements()[3].integer() >= 300, "{latest:?}");
        assert!(!client.run("LATENCY DOCTOR").text().is_empty());
        told.push(command.elements()[0].clone());
        for line in [
            "LATENCY HISTORY nosuch",
            "LATENCY RESET nosuch",
            "LATENCY RESET command",
            "LATENCY RESET",
            "LATENCY LATEST",
        ] {
            told.push(client.run(line));
        }
        told
    };
    let redis = Redis::start(&[]);
    let stack = Stack::start(&[]);
    assert_eq!(told(stack.connect()), told(redis.connect()));
}
