//! The model node means by the flush script what a real redis-server does.

use tally::flush;
use tally::resp::reply;

use super::book::{Argv, argv, show};
use super::node::{BODY, Node, SHA};
use crate::random::Random;
use crate::redis_server::{Client, RedisServer, Value};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const MARKER: &str = "__tally__:marker:twin:0";

const VALUES: &[&str] = &[
    "0",
    "7",
    "-7",
    "-10",
    "99",
    "100",
    "text",
    "9007199254740993",
    "9223372036854775800",
    "-9223372036854775800",
];

/// What others do to a key, or to the marker.
fn meddle(random: &mut Random) -> Argv {
    let key = random.pick(&KEYS);
    match random.below(7) {
        0 | 1 => argv(&["SET", key, random.pick(VALUES)]),
        2 => argv(&["SET", key, random.pick(VALUES), "EX", "1000"]),
        3 => argv(&["LPUSH", key, "x"]),
        4 => argv(&["DEL", key]),
        5 => argv(&["PERSIST", key]),
        _ => argv(&["DEL", MARKER]),
    }
}

/// A call of the script, by its name.
fn batch(random: &mut Random, now: u64, next: &mut u64) -> Argv {
    let number = match random.below(8) {
        0 => next.saturating_sub(1).max(1),
        1 => *next + 1,
        _ => *next,
    };
    *next = number + 1;
    let epoch = if random.one_in(30) { "2" } else { "1" };
    let certainty = random.pick(&["first", "again", "again", "resync"]);
    let keys: Vec<_> = KEYS.iter().filter(|_| random.one_in(2)).collect();
    let mut words = argv(&["EVALSHA", "", &(keys.len() + 1).to_string(), MARKER]);
    words.extend(keys.iter().map(|key| key.as_bytes().to_vec()));
    words.extend(argv(&[epoch, &number.to_string(), certainty, "600000"]));
    for _ in keys {
        let delta = random.pick(&["0", "1", "-3", "1000", "9223372036854775807"]);
        let deadline = match random.below(3) {
            0 => String::new(),
            1 => (now - 1000).to_string(),
            _ => (now + 1_000_000).to_string(),
        };
        let due = if !deadline.is_empty() && random.one_in(3) {
            "1"
        } else {
            "0"
        };
        let last = random.pick(VALUES);
        let last = if last == "text" { "8" } else { last };
        words.extend(argv(&[delta, &deadline, due, last]));
    }
    words
}

/// The answer without what depends on the clock.
fn comparable(frame: &[u8]) -> Vec<String> {
    let parts = reply::elements(frame).expect("an array");
    let word = |(at, part): (usize, &[u8])| match reply::text(part) {
        _ if at == 2 => "time".to_owned(),
        None => "nil".to_owned(),
        Some(text) if at > 4 && at % 2 == 1 && !text.starts_with(b"-") => "deadline".to_owned(),
        Some(text) => text.escape_ascii().to_string(),
    };
    parts.enumerate().map(word).collect()
}

fn now(client: &mut Client) -> u64 {
    let time = Value::parse(&client.call(&["TIME"]));
    let part = |at: usize| time.array()[at].text().parse::<u64>().unwrap();
    part(0) * 1000 + part(1) / 1000
}

#[test]
fn the_model_applies_batches_as_the_script_does() {
    let server = RedisServer::start();
    let mut client = server.connect();
    let script = flush::script(true);
    let sha = client.call(&[b"SCRIPT".to_vec(), b"LOAD".to_vec(), script]);
    let sha = Value::parse(&sha).text().as_bytes().to_vec();
    let first = Random::seed_or(1);
    for seed in first..first + 60 {
        client.call(&["FLUSHALL"]);
        let mut node = Node::default();
        node.now = now(&mut client);
        node.script = true;
        assert_ne!(BODY, SHA);
        let (mut random, mut next) = (Random::new(seed), 1);
        for step in 0..50 {
            if random.one_in(3) {
                let words = meddle(&mut random);
                client.call(&words);
                node.command(&words);
                continue;
            }
            let mut words = batch(&mut random, node.now, &mut next);
            words[1].clone_from(&sha);
            let truth = client.call(&words);
            words[1] = SHA.to_vec();
            let model = node.command(&words);
            let call = show(&words);
            let (model, truth) = (comparable(&model), comparable(&truth));
            assert_eq!(model, truth, "seed {seed}, step {step}: {call}");
            let numbered = client.call(&["GET", MARKER]);
            let model = node.command(&argv(&["GET", MARKER]));
            assert_eq!(
                reply::text(&model),
                reply::text(&numbered),
                "seed {seed}: {call}"
            );
        }
    }
}
