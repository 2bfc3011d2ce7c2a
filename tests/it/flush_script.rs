//! The flush script on a real redis-server, called by hand.

use std::collections::HashMap;

use tally::flush;

use crate::redis_server::{Client, RedisServer, Value};

const MARKER: &str = "__tally__:marker:test:0";

/// What a call says of one key.
#[derive(Clone, Copy)]
struct Part<'a> {
    key: &'a str,
    delta: i64,
    deadline: Option<u64>,
    due: bool,
    asks: bool,
    last: i64,
}

/// Adds to a key without a deadline.
fn add(key: &str, delta: i64) -> Part<'_> {
    Part {
        key,
        delta,
        deadline: None,
        due: false,
        asks: true,
        last: 0,
    }
}

/// A server and a connection to it, with the script loaded.
struct World {
    server: RedisServer,
    client: Client,
    sha: String,
}

impl World {
    fn new() -> Self {
        let server = RedisServer::start();
        let mut client = server.connect();
        let sha = load(&mut client, true);
        Self {
            server,
            client,
            sha,
        }
    }

    /// Calls the script; the answer as words, without the time.
    fn batch(&mut self, number: u64, certainty: &str, parts: &[Part<'_>]) -> String {
        self.batch_of(1, number, certainty, parts)
    }

    fn batch_of(&mut self, epoch: u64, number: u64, certainty: &str, parts: &[Part<'_>]) -> String {
        let frame = self.client.call(&call(
            &["EVALSHA", &self.sha],
            (epoch, number, certainty),
            parts,
        ));
        words(&Value::parse(&frame))
    }

    fn ask(&mut self, line: &str) -> Value {
        let args: Vec<_> = line.split(' ').collect();
        Value::parse(&self.client.call(&args))
    }

    fn time_ms(&mut self) -> u64 {
        let time = self.ask("TIME");
        let part = |at: usize| time.array()[at].text().parse::<u64>().unwrap();
        part(0) * 1000 + part(1) / 1000
    }

    /// Asserts what a key holds.
    #[track_caller]
    fn holds(&mut self, key: &str, value: &str) {
        assert_eq!(self.ask(&format!("GET {key}")), Value::Text(value.into()));
    }
}

fn load(client: &mut Client, allow_oom: bool) -> String {
    let loaded = client.call(&[
        b"SCRIPT".to_vec(),
        b"LOAD".to_vec(),
        flush::script(allow_oom),
    ]);
    Value::parse(&loaded).text().to_owned()
}

fn call(
    script: &[&str],
    (epoch, number, certainty): (u64, u64, &str),
    parts: &[Part<'_>],
) -> Vec<String> {
    let mut args: Vec<String> = script.iter().map(|arg| (*arg).to_owned()).collect();
    args.extend([(parts.len() + 1).to_string(), MARKER.to_owned()]);
    args.extend(parts.iter().map(|part| part.key.to_owned()));
    args.extend([epoch.to_string(), number.to_string()]);
    args.extend([certainty.to_owned(), "600000".to_owned()]);
    for part in parts {
        let Part { delta, last, .. } = part;
        let flag = match (part.due, part.asks) {
            (false, false) if part.deadline.is_none() => {
                args.push(delta.to_string());
                continue;
            }
            (false, false) => 'n',
            (false, true) => 'a',
            (true, false) => 'd',
            (true, true) => 'b',
        };
        let deadline = part
            .deadline
            .map_or_else(|| "-".to_owned(), |deadline| deadline.to_string());
        args.push(format!("{delta} {deadline} {last} {flag}"));
    }
    args
}

/// Status, number, exceptions, and each key's value and deadline.
fn words(answer: &Value) -> String {
    let Value::Array(items) = answer else {
        return answer.text().to_owned();
    };
    let head = [0, 1, 3].map(|at| items[at].text().trim().to_owned());
    let deadlines = items[4].text().split_whitespace();
    let deadlines: HashMap<_, _> = deadlines.filter_map(|word| word.split_once('.')).collect();
    let values = items[5..].iter().enumerate().flat_map(|(index, value)| {
        let value = match value {
            Value::Null => "nil".to_owned(),
            Value::Integer(value) => value.to_string(),
            value => value.text().to_owned(),
        };
        let deadline = deadlines.get(index.to_string().as_str());
        [value, deadline.copied().unwrap_or_default().to_owned()]
    });
    head.into_iter().chain(values).collect::<Vec<_>>().join("|")
}

#[test]
fn a_batch_is_applied_once_however_often_it_is_sent() {
    let mut world = World::new();
    let parts = [add("a", 5), add("b", -2)];
    assert_eq!(world.batch(1, "first", &parts), "applied|1||5|-1|-2|-1");
    for certainty in ["first", "again", "resync"] {
        let answer = world.batch(1, certainty, &parts);
        assert_eq!(answer, "done|1||5|-1|-2|-1");
    }
    // Read now, not remembered.
    world.ask("SET a 70");
    world.ask("DEL b");
    assert_eq!(world.batch(1, "again", &parts), "done|1||70|-1|nil|-2");
    assert_eq!(world.batch(2, "again", &parts[..1]), "applied|2||75|-1");
    assert_eq!(world.batch(1, "again", &parts[..1]), "done|2||75|-1");
}

#[test]
fn a_gap_a_missing_marker_and_a_newer_epoch_apply_nothing() {
    let mut world = World::new();
    let part = [add("a", 1)];
    assert_eq!(world.batch(1, "again", &part), "missing|0||nil|-2");
    assert_eq!(world.ask("EXISTS a").integer(), 0);
    assert_eq!(world.ask("DBSIZE").integer(), 0, "no marker either");
    assert_eq!(world.batch(3, "first", &part), "applied|3||1|-1");
    assert_eq!(world.batch(5, "again", &part), "gap|3||1|-1");
    assert_eq!(world.batch(5, "first", &part), "gap|3||1|-1");
    assert_eq!(world.batch(5, "resync", &part), "applied|5||2|-1");
    assert_eq!(world.batch_of(2, 6, "again", &part), "applied|6||3|-1");
    assert_eq!(world.batch_of(1, 7, "again", &part), "fenced|6||3|-1");
    assert_eq!(world.batch_of(1, 7, "resync", &part), "fenced|6||3|-1");
    world.holds("a", "3");
    let ttl = world.ask(&format!("PTTL {MARKER}")).integer();
    assert!((1..=600_000).contains(&ttl), "{ttl}");
}

#[test]
fn values_are_exact_up_to_the_bounds_of_64_bits() {
    let mut world = World::new();
    let mut number = 0;
    for (value, delta) in [
        (9_007_199_254_740_993, 2),
        (9_007_199_254_740_991, 1),
        (9_007_199_254_740_991, 2),
        (-9_007_199_254_740_991, -1),
        (-9_007_199_254_740_991, -2),
        (9_223_372_036_854_775_000, 801),
        (0, i64::MAX),
        (0, i64::MIN),
        (i64::MAX, i64::MIN),
        (i64::MIN, i64::MAX),
    ] {
        for (asks, deadline) in [(true, "-1"), (false, "")] {
            number += 1;
            world.ask(&format!("SET a {value}"));
            let part = Part {
                asks,
                ..add("a", delta)
            };
            let answer = world.batch(number, "first", &[part]);
            let sum = value + delta;
            assert_eq!(answer, format!("applied|{number}||{sum}|{deadline}"));
            world.holds("a", &sum.to_string());
        }
    }
}

#[test]
fn one_key_s_error_does_not_stop_the_others_and_is_told_again() {
    let mut world = World::new();
    world.ask("LPUSH list x");
    world.ask("SET text x");
    world.ask(&format!("SET full {}", i64::MAX));
    let parts = [
        add("a", 1),
        add("list", 1),
        add("text", 1),
        add("full", 1),
        add("b", 2),
    ];
    let readings = format!("1|-1|nil|-1|x|-1|{}|-1|2|-1", i64::MAX);
    let answer = world.batch(1, "first", &parts);
    assert_eq!(answer, format!("applied|1|1.1.w 1.2.n 1.3.o|{readings}"));
    let answer = world.batch(1, "again", &parts);
    assert_eq!(answer, format!("done|1|1.1.w 1.2.n 1.3.o|{readings}"));
    // Told for eight numbers.
    for number in 2..=8 {
        let answer = world.batch(number, "first", &[add("c", 1)]);
        assert!(answer.contains("|1.1.w 1.2.n 1.3.o|"), "{answer}");
    }
    let answer = world.batch(9, "first", &[add("list", 1)]);
    assert_eq!(answer, "applied|9|9.0.w|nil|-1");
}

#[test]
fn past_its_deadline_the_key_decides() {
    let mut world = World::new();
    let ended = Some(world.time_ms() - 1);
    let mut number = 0;
    let mut check = |world: &mut World, held: Option<i64>, last, due, answer: &str| {
        number += 1;
        match held {
            None => world.ask("DEL a"),
            Some(value) => world.ask(&format!("SET a {value} EX 1000")),
        };
        let part = Part {
            deadline: ended,
            last,
            due,
            ..add("a", 3)
        };
        let told = world.batch(number, "first", &[part]);
        let told: Vec<_> = told.split('|').skip(2).collect();
        let kind = told[0].rsplit('.').next().unwrap();
        assert_eq!(format!("{kind} {}", told[1]), answer, "{held:?} {last}");
    };
    // Gone, or counted anew from less: the increments ended with the key.
    check(&mut world, None, 5, false, "x nil");
    check(&mut world, Some(4), 5, false, "x 4");
    check(&mut world, Some(99), 100, false, "x 99");
    check(&mut world, Some(-6), -5, false, "x -6");
    check(&mut world, Some(-10), -9, false, "x -10");
    check(&mut world, Some(-1), 0, false, "x -1");
    check(
        &mut world,
        Some(9_007_199_254_740_992),
        9_007_199_254_740_993,
        false,
        "x 9007199254740992",
    );
    // Somebody had moved the deadline.
    check(&mut world, Some(5), 5, false, "a 8");
    check(&mut world, Some(100), 99, false, "a 103");
    check(&mut world, Some(-9), -10, false, "a -6");
    check(&mut world, Some(1), -1, false, "a 4");
    let ttl = world.ask("TTL a").integer();
    assert!((990..=1000).contains(&ttl), "left alone: {ttl}");
    // A client was told of the deadline and Redis was not: now it is.
    check(&mut world, Some(5), 5, true, "x nil");
    assert_eq!(world.ask("EXISTS a").integer(), 0);
}

#[test]
fn a_deadline_is_set_when_it_is_due_or_the_key_was_deleted() {
    let mut world = World::new();
    let deadline = world.time_ms() + 100_000;
    let part = Part {
        deadline: Some(deadline),
        last: 5,
        ..add("a", 3)
    };
    // Deleted behind our back.
    let told = world.batch(1, "first", &[part]);
    assert!(told.starts_with("applied|1||3|"), "{told}");
    assert_eq!(
        world.ask("PEXPIRETIME a").integer().unsigned_abs(),
        deadline
    );
    // There, with another one: left alone.
    world.ask("PERSIST a");
    assert_eq!(world.batch(2, "first", &[part]), "applied|2||6|-1");
    // Due, with nothing to add.
    let due = Part {
        due: true,
        delta: 0,
        ..part
    };
    let told = world.batch(3, "first", &[due]);
    assert!(told.starts_with("applied|3||6|"), "{told}");
    let told: u64 = told.rsplit('|').next().unwrap().parse().unwrap();
    assert!(told.abs_diff(deadline) <= 2, "{told}, not {deadline}");
    assert_eq!(
        world.ask("PEXPIRETIME a").integer().unsigned_abs(),
        deadline
    );
}

#[test]
fn a_deadline_is_told_if_it_is_asked_for() {
    let mut world = World::new();
    let silent = Part {
        asks: false,
        ..add("a", 1)
    };
    assert_eq!(
        world.batch(1, "first", &[silent, add("b", 1)]),
        "applied|1||1||1|-1"
    );
    let deadline = Some(world.time_ms() + 100_000);
    let silent = Part { deadline, ..silent };
    let due = Part {
        due: true,
        ..silent
    };
    let made = ["c", "d"].map(|key| Part { key, ..silent });
    let told = world.batch(2, "first", &[&[due], &made[..]].concat());
    assert_eq!(told, "applied|2||2||1||1|");
    for key in ["c", "d"] {
        let ttl = world.ask(&format!("PTTL {key}")).integer();
        assert!((99_000..=100_000).contains(&ttl), "{key}: {ttl}");
    }
    let ttl = world.ask("PTTL a").integer();
    assert!((99_000..=100_000).contains(&ttl), "{ttl}");
}

#[test]
fn acknowledged_increments_are_applied_though_memory_is_full() {
    let mut world = World::new();
    let plain = load(&mut world.client, false);
    world.batch(1, "first", &[add("a", 1)]);
    world.ask("CONFIG SET maxmemory 1");
    let refused = world.ask("INCR a");
    assert!(refused.text().starts_with("OOM"), "{refused:?}");
    // Without the flag the batch is refused whole.
    let part = [add("a", 1), add("b", 1)];
    let args = call(&["EVALSHA", &plain], (1, 2, "first"), &part);
    let frame = world.client.call(&args);
    let refusal = flush::Refusal::from_reply(&frame);
    assert!(refusal.transient, "{refusal:?}");
    assert_eq!(
        refusal.text,
        "OOM command not allowed when used memory > 'maxmemory'."
    );
    world.holds("a", "1");
    assert!(
        world
            .ask(&format!("GET {MARKER}"))
            .text()
            .starts_with("1 1")
    );
    let answer = world.batch(2, "first", &part);
    assert_eq!(answer, "applied|2||2|-1|1|-1");
}

#[test]
fn a_replica_and_a_forgotten_script_refuse_a_batch_whole() {
    let mut world = World::new();
    world.batch(1, "first", &[add("a", 1)]);
    world.ask("REPLICAOF 127.0.0.1 1");
    let answer = world.batch(2, "first", &[add("a", 1)]);
    assert!(answer.starts_with("READONLY"), "{answer}");
    world.ask("REPLICAOF NO ONE");
    world.ask("SCRIPT FLUSH");
    let answer = world.batch(2, "first", &[add("a", 1)]);
    assert!(answer.starts_with("NOSCRIPT"), "{answer}");
    // With its body it goes, and by its name again.
    let body = String::from_utf8(flush::script(true)).unwrap();
    let args = call(&["EVAL", &body], (1, 2, "first"), &[add("a", 1)]);
    let frame = world.client.call(&args);
    assert_eq!(words(&Value::parse(&frame)), "applied|2||2|-1");
    let answer = world.batch(3, "again", &[add("a", 1)]);
    assert_eq!(answer, "applied|3||3|-1");
}

#[test]
fn the_next_change_by_others_is_told_after_every_answer() {
    let mut world = World::new();
    let mut other = world.server.connect();
    world.client.call(&["HELLO", "3"]);
    world.client.call(&["CLIENT", "TRACKING", "ON", "NOLOOP"]);
    let asking = [add("a", 1), add("b", 1)];
    let silent = asking.map(|part| Part {
        asks: false,
        ..part
    });
    let mut expect = |world: &mut World, number, parts: &[Part<'_>], status: &str| {
        let args = call(&["EVALSHA", &world.sha], (1, number, "again"), parts);
        let answer = world.client.call(&args);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains(status), "{answer}");
        for key in ["a", "b"] {
            other.call(&["INCRBY", key, "10"]);
            let push = world.client.read_frame();
            let invalidate = format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\n{key}\r\n");
            assert_eq!(String::from_utf8_lossy(&push), invalidate);
        }
    };
    world.client.call(&["SET", MARKER, "1 0"]);
    for (first, parts) in [(1, &asking), (3, &silent)] {
        expect(&mut world, first, parts, "applied");
        expect(&mut world, first, parts, "done");
        expect(&mut world, first + 2, parts, "gap");
        expect(&mut world, first + 1, parts, "applied");
    }
}
