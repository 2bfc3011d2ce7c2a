//! The command `TALLY`.

use std::time::Duration;

use crate::harness::{Settings, Stack, eventually, skipped_on_bare_redis};
use crate::reply::Reply;

/// A field of a map, in RESP2 or RESP3.
#[track_caller]
fn field<'r>(reply: &'r Reply, name: &str) -> &'r Reply {
    let mut pairs = reply.elements().chunks(2);
    let pair = pairs.find(|pair| pair[0].text() == name);
    &pair.unwrap_or_else(|| panic!("no {name} in {reply:?}"))[1]
}

/// Whether every acknowledged increment is in one place; returns how many there were.
#[track_caller]
fn balance(stats: &Reply) -> i64 {
    let number = |name| field(stats, name).integer();
    let places = [
        "applied",
        "in_flight",
        "pending",
        "expired",
        "dead_letters",
        "in_doubt",
    ];
    let acknowledged = number("acknowledged");
    let sum: i64 = places.into_iter().map(number).sum();
    assert_eq!(sum, acknowledged, "{stats:?}");
    acknowledged
}

#[test]
fn where_tells_node_source_and_mode() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let key = stack.key_on(1, "k");
    let value = stack.key_on(0, "v");
    let mut client = stack.connect();
    let cold = client.run(&format!("TALLY WHERE {key}"));
    let node = field(&cold, "node").text();
    assert_eq!(field(&cold, "get").text(), node);
    assert_eq!(field(&cold, "mode").text(), "buffered");
    assert!(matches!(cold, Reply::Array(_)), "{cold:?}");
    for _ in 0..5 {
        client.run(&format!("INCR {key}"));
        client.run(&format!("GET {value}"));
    }
    let mut modern = stack.connect();
    modern.run("HELLO 3");
    let warm = modern.run(&format!("tally where {key}"));
    assert!(matches!(warm, Reply::Map(_)), "{warm:?}");
    assert_eq!(field(&warm, "get").text(), "memory");
    let cached = modern.run(&format!("TALLY WHERE {value}"));
    assert_eq!(field(&cached, "get").text(), "cache");
    assert_ne!(field(&cached, "node").text(), node);
}

#[test]
fn hot_keys_are_told_by_writes_and_by_reads() {
    if skipped_on_bare_redis() {
        return;
    }
    // With and without HTTP.
    for http in ["on", "off"] {
        let settings: Settings<'_> = if http == "off" {
            &[("admin.listen", "\"off\"")]
        } else {
            &[]
        };
        let stack = Stack::start(settings);
        let mut client = stack.connect();
        let lines: Vec<String> = (0..200)
            .map(|n| match n % 4 {
                0..=2 => "INCR written".to_owned(),
                _ => format!("INCR rare:{n}"),
            })
            .collect();
        let mut hot = Reply::Nil;
        let told = eventually(Duration::from_secs(10), || {
            client.run_all(&lines);
            client.run_all(&vec!["GET read"; 300]);
            hot = client.run("TALLY HOTKEYS 3");
            let list = |name: &str| field(&hot, name).elements().to_vec();
            let first = |name: &str| list(name).first().map(|key| field(key, "key").text());
            assert!(list("writes").len() <= 3, "{hot:?}");
            first("writes").as_deref() == Some("written")
                && first("reads").as_deref() == Some("read")
        });
        assert!(told, "{http}: {hot:?}");
        let first = &field(&hot, "writes").elements()[0];
        let rate: f64 = field(first, "writes_per_second").text().parse().unwrap();
        assert!(rate > 1.0, "{hot:?}");
        assert!(field(first, "node").text().starts_with("redis_"));
        assert!(client.run("TALLY HOTKEYS -1").is_error());
        assert!(client.run("TALLY HOTKEYS 1 2").is_error());
    }
}

#[test]
fn hot_keys_of_all_databases_are_told() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    assert!(client.run("SELECT 3").is_ok());
    let mut hot = Reply::Nil;
    let told = eventually(Duration::from_secs(10), || {
        client.run_all(&vec!["INCR written"; 300]);
        hot = client.run("TALLY HOTKEYS 1");
        let writes = field(&hot, "writes").elements().to_vec();
        let place = writes.first().map(|key| {
            let rate: f64 = field(key, "writes_per_second").text().parse().unwrap();
            (field(key, "database").integer(), rate > 1.0)
        });
        place == Some((3, true))
    });
    assert!(told, "{hot:?}");
}

#[test]
fn flush_answers_when_everything_is_applied() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[
        ("counters.flush_interval", "\"1m\""),
        ("upstream.request_timeout", "\"300ms\""),
    ]);
    let keys = [stack.key_on(0, "a"), stack.key_on(1, "b")];
    let mut client = stack.connect();
    for number in 1..=100 {
        for key in &keys {
            assert_eq!(client.run(&format!("INCR {key}")).integer(), number);
        }
    }
    assert!(field(&client.run("TALLY STATS"), "pending").integer() > 100);
    assert!(client.run("TALLY FLUSH").is_ok());
    for (node, key) in stack.nodes.iter().zip(&keys) {
        assert_eq!(node.connect().run(&format!("GET {key}")).text(), "100");
    }
    let stats = client.run("TALLY STATS");
    assert!(balance(&stats) > 150);
    assert_eq!(field(&stats, "pending").integer(), 0);
    assert_eq!(field(&stats, "in_flight").integer(), 0);
    // Still warm: nothing was forgotten.
    let place = client.run(&format!("TALLY WHERE {}", keys[1]));
    assert_eq!(field(&place, "get").text(), "memory");
    // Nothing to do.
    assert!(client.run("TALLY FLUSH").is_ok());
    let name = field(&place, "node").text();
    client.run(&format!("INCR {}", keys[1]));
    stack.nodes[1].freeze();
    let error = client.run("TALLY FLUSH").text();
    assert!(
        error.starts_with(&format!("ERR node {name} did not apply")),
        "{error}"
    );
    stack.nodes[1].thaw();
    let again = eventually(Duration::from_secs(5), || client.run("TALLY FLUSH").is_ok());
    assert!(again);
    stack.nodes[1].kill();
    let away = eventually(Duration::from_secs(5), || {
        let error = client.run("TALLY FLUSH").text();
        error.starts_with(&format!("ERR node {name} is unreachable"))
    });
    assert!(away);
}

#[test]
fn stats_find_each_increment_in_one_place() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("counters.flush_interval", "\"20ms\"")]);
    let (mut client, mut other) = (stack.connect(), stack.connect());
    for round in 0..40 {
        let lines: Vec<_> = (0..50)
            .map(|number| match number % 5 {
                0 => format!("INCRBY n:{} 0", number % 7),
                1 => format!("DECR n:{}", number % 7),
                2 => format!("EXPIRE n:{} 100", number % 7),
                _ => format!("INCR n:{}", number % 7),
            })
            .collect();
        client.run_all(&lines);
        if round % 10 == 9 {
            client.run("DEL n:1");
        }
        balance(&other.run("TALLY STATS"));
    }
    let settled = eventually(Duration::from_secs(5), || {
        let stats = other.run("TALLY STATS");
        balance(&stats);
        field(&stats, "pending").integer() == 0 && field(&stats, "in_flight").integer() == 0
    });
    assert!(settled);
    let stats = other.run("TALLY STATS");
    assert!(balance(&stats) > 500, "{stats:?}");
    // Added up ten times a second.
    let counted = eventually(Duration::from_secs(5), || {
        let stats = other.run("TALLY STATS");
        let info = other.run("INFO coalescing").text();
        let flushed = info
            .lines()
            .find_map(|line| line.strip_prefix("increments_flushed:"));
        let flushed: i64 = flushed.unwrap().trim().parse().unwrap();
        field(&stats, "flush_batches").integer() > 0 && flushed > 0
    });
    assert!(counted, "{:?}", other.run("INFO coalescing"));
}

#[test]
fn refused_increments_are_listed_and_the_next_client_is_told() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("counters.flush_interval", "\"1m\"")]);
    let key = stack.key_on(0, "k");
    let mut client = stack.connect();
    assert_eq!(client.run("TALLY DEADLETTERS"), Reply::Array(vec![]));
    for _ in 0..5 {
        client.run(&format!("INCR {key}"));
    }
    assert!(client.run("TALLY FLUSH").is_ok());
    for _ in 0..7 {
        assert!(!client.run(&format!("INCRBY {key} 3")).is_error());
    }
    let script = "redis.call('DEL', KEYS[1]) return redis.call('RPUSH', KEYS[1], 'x')";
    let pushed = stack.nodes[0].connect().call(&["EVAL", script, "1", &key]);
    assert_eq!(pushed.integer(), 1);
    let _ = client.run("TALLY FLUSH");
    let told = eventually(Duration::from_secs(5), || {
        client
            .run(&format!("INCR {key}"))
            .text()
            .starts_with("WRONGTYPE")
    });
    assert!(told);
    let node = field(&client.run(&format!("TALLY WHERE {key}")), "node").text();
    let letters = client.run("TALLY DEADLETTERS 10");
    let [letter] = letters.elements() else {
        panic!("{letters:?}");
    };
    assert_eq!(field(letter, "key").text(), key);
    assert_eq!(field(letter, "amount").integer(), 21);
    assert_eq!(field(letter, "increments").integer(), 7);
    assert_eq!(field(letter, "cause").text(), "wrong type");
    assert_eq!(field(letter, "node").text(), node);
    let age = wall_seconds() - field(letter, "time").integer();
    assert!((0..60).contains(&age), "{age} s");
    assert_eq!(client.run("TALLY DEADLETTERS 0"), Reply::Array(vec![]));
    let stats = client.run("TALLY STATS");
    balance(&stats);
    assert_eq!(field(&stats, "dead_letters").integer(), 7);
    let mut modern = stack.connect();
    modern.run("HELLO 3");
    let letters = modern.run("TALLY DEADLETTERS");
    assert!(matches!(letters.elements(), [Reply::Map(_)]), "{letters:?}");
    assert!(matches!(modern.run("TALLY STATS"), Reply::Map(_)));
}

fn wall_seconds() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[test]
fn help_and_errors_are_as_in_redis() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let help = client.run("TALLY HELP");
    assert!(help.elements().len() > 5);
    for (line, error) in [
        ("TALLY", "ERR wrong number of arguments for 'tally' command"),
        (
            "TALLY NONE",
            "ERR unknown subcommand 'NONE'. Try TALLY HELP.",
        ),
        (
            "TALLY WHERE",
            "ERR wrong number of arguments for 'tally|where' command",
        ),
        (
            "TALLY FLUSH x",
            "ERR wrong number of arguments for 'tally|flush' command",
        ),
        (
            "TALLY DEADLETTERS 1 2",
            "ERR wrong number of arguments for 'tally|deadletters' command",
        ),
        (
            "TALLY DEADLETTERS x",
            "ERR value is not an integer or out of range",
        ),
        (
            "TALLY DEADLETTERS -1",
            "ERR count should be greater than or equal to 0",
        ),
    ] {
        assert_eq!(client.run(line).text(), error, "{line}");
    }
}
