//! The model node means by the flush script what a real redis-server does.

use tally::flush::{self, Call, Certainty, Deadline, Decision, Increment, Outcome};
use tally::key::Key;
use tally::resp::reply;

use super::book::{Argv, argv, show};
use super::node::{BODY, Node, SHA};
use super::script::Said;
use crate::random::Random;
use crate::redis_server::{Client, RedisServer, Value};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const MARKER: &str = "__tally__:marker:twin:0";

/// A week, as Tally has it.
const MARKER_MS: &str = "604800000";

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
    words.extend(argv(&[epoch, &number.to_string(), certainty, MARKER_MS]));
    for _ in keys {
        let delta = random.pick(&["0", "1", "-3", "1000", "9223372036854775807"]);
        let deadline = match random.below(3) {
            0 => None,
            1 => Some(now - 1000),
            _ => Some(now + 1_000_000),
        };
        let flags = if deadline.is_some() { "nadb" } else { "na" };
        let flag = flags.chars().nth(random.below(flags.len())).unwrap();
        if (deadline, flag) == (None, 'n') && delta != "0" {
            words.push(delta.into());
            continue;
        }
        let deadline = deadline.map_or_else(|| "-".to_owned(), |deadline| deadline.to_string());
        let last = random.pick(VALUES);
        let last = if last == "text" { "8" } else { last };
        words.push(format!("{delta} {deadline} {last} {flag}").into_bytes());
    }
    words
}

/// The answer without what depends on the clock.
fn comparable(frame: &[u8]) -> Vec<String> {
    let parts = reply::elements(frame).expect("an array");
    let word = |(at, part): (usize, &[u8])| match reply::text(part) {
        _ if at == 2 => "time".to_owned(),
        Some(text) if at == 4 => without_times(&String::from_utf8_lossy(text)),
        Some(text) => text.escape_ascii().to_string(),
        None => reply::integer(part).map_or_else(|| "nil".to_owned(), |value| value.to_string()),
    };
    parts.enumerate().map(word).collect()
}

/// Deadlines by index: whether there is one.
fn without_times(deadlines: &str) -> String {
    let words = deadlines.split_whitespace();
    let word = |word: &str| match word.split_once('.') {
        Some((index, deadline)) if !deadline.starts_with('-') => format!("{index}.deadline"),
        _ => word.to_owned(),
    };
    words.map(word).collect::<Vec<_>>().join(" ")
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

/// The same call for a server that takes no scripts.
fn as_call(words: &[Vec<u8>]) -> Call {
    let text = |word: &Vec<u8>| String::from_utf8(word.clone()).unwrap();
    let number = |word: &Vec<u8>| text(word).parse::<u64>().unwrap();
    let keys = usize::try_from(number(&words[2])).unwrap() - 1;
    let (keys, rest) = words[4..].split_at(keys);
    let increment = |(key, argument): (&Vec<u8>, &Vec<u8>)| {
        let said = Said::of(argument);
        Increment {
            key: Key::new(key),
            delta: said.delta.parse().unwrap(),
            count: 1,
            deadline: said.deadline,
            due: said.due,
            asks: true,
            last: said.last,
            slot: None,
        }
    };
    let certainty = match rest[2].as_slice() {
        b"first" => Certainty::First,
        b"again" => Certainty::Again,
        _ => Certainty::Resync,
    };
    let increments = keys.iter().zip(&rest[4..]).map(increment);
    let numbers = (number(&rest[0]), number(&rest[1]));
    Call::new(MARKER.into(), numbers, certainty, increments.collect())
}

/// Makes the call; what others do between its first look and its transaction, if it has one, is done
/// by `meddle`.
fn transact(client: &mut Client, mut call: Call, mut meddle: impl FnMut()) -> Vec<u8> {
    let mut wire = Vec::new();
    let head = loop {
        wire.clear();
        let replies = call.look(&mut wire).expect("nobody meddles so often");
        let looked = client.call_all(&wire, replies);
        match call.decide(&looked) {
            Decision::Done(Outcome::Answer(frame)) => return frame,
            Decision::Done(Outcome::Applied(head)) => break head,
            Decision::Apply(apply) => {
                meddle();
                let replies = client.call_all(&apply.wire, apply.replies);
                match call.applied(apply, &replies) {
                    Some(Outcome::Answer(frame)) => return frame,
                    Some(Outcome::Applied(head)) => break head,
                    None => {}
                }
            }
        }
    };
    let keys: Vec<_> = call.keys().map(<[u8]>::to_vec).collect();
    let read = |key: &Vec<u8>| {
        let value = client.call(&[b"MGET".as_slice(), key]);
        let left = Deadline::from_reply(&client.call(&[b"PTTL".as_slice(), key]));
        let value = reply::elements(&value).unwrap().next().unwrap().to_vec();
        (value, left.unwrap())
    };
    let read: Vec<_> = keys.iter().map(read).collect();
    let read = read.iter().map(|(value, left)| (value.as_slice(), *left));
    head.answer(head.time_ms(), read)
}

#[test]
fn a_transaction_applies_batches_as_the_script_does() {
    let server = RedisServer::start();
    let [mut scripted, mut plain, mut other] = [(); 3].map(|()| server.connect());
    for client in [&mut plain, &mut other] {
        client.call(&["HELLO", "3"]);
        client.call(&["SELECT", "1"]);
    }
    let script = flush::script(true);
    let sha = scripted.call(&[b"SCRIPT".to_vec(), b"LOAD".to_vec(), script]);
    let sha = Value::parse(&sha).text().as_bytes().to_vec();
    let first = Random::seed_or(1);
    let mut conflicts = 0;
    for seed in first..first + 60 {
        scripted.call(&["FLUSHALL"]);
        let (mut random, mut next) = (Random::new(seed), 1);
        for step in 0..50 {
            if random.one_in(3) {
                let words = meddle(&mut random);
                scripted.call(&words);
                plain.call(&words);
                continue;
            }
            let meddled = random.one_in(4).then(|| meddle(&mut random));
            let mut words = batch(&mut random, now(&mut scripted), &mut next);
            words[1].clone_from(&sha);
            let mut to_come = meddled.clone();
            let answer = transact(&mut plain, as_call(&words), || {
                if let Some(words) = to_come.take() {
                    scripted.call(&words);
                    other.call(&words);
                    conflicts += 1;
                }
            });
            let truth = scripted.call(&words);
            let (answer, mut truth) = (comparable(&answer), comparable(&truth));
            // The script reads the keys whatever the marker says.
            if !matches!(truth[0].as_str(), "applied" | "done") {
                truth.truncate(5);
            }
            let compared = |mut words: Vec<String>| {
                // A transaction tells every deadline.
                words.remove(4);
                words
            };
            let call = show(&words);
            let story = format!("seed {seed}, step {step}: {call}, meddled {meddled:?}");
            assert_eq!(compared(answer), compared(truth), "{story}");
            for key in KEYS.iter().chain(&[MARKER]) {
                let [one, two] = [&mut scripted, &mut plain].map(|client| {
                    let held = client.call(&["GET", *key]);
                    let ends = client.call(&["PEXPIRETIME", *key]);
                    let held = reply::text(&held).map(<[u8]>::to_vec);
                    (held, reply::integer(&ends).unwrap())
                });
                assert_eq!(one.0, two.0, "{key}, {story}");
                // What is set as a time from now is set a moment later in one of them.
                assert!(
                    (one.1 - two.1).abs() < 5_000,
                    "{key}, {one:?} {two:?}, {story}"
                );
            }
        }
    }
    assert!(conflicts > 100, "{conflicts}");
}
