//! Random scripts of one client: few keys, values at the edges, most of it around counters.

use std::time::Duration;

use crate::connection::{Request, words};
use crate::random::Random;
use crate::reply::Reply;
use tally::limit::CANONICAL_WITH_TTL;

/// How two replies to one request are held against each other.
#[derive(Clone, Copy)]
pub(crate) enum Match {
    /// The same bytes.
    Bytes,
    /// The same elements in any order.
    Sorted,
    /// The same bytes, or positive integers that differ by less than 2 % (a running TTL).
    Close,
}

impl Match {
    pub(crate) fn accepts(self, expected: &[u8], actual: &[u8]) -> bool {
        if expected == actual {
            return true;
        }
        match self {
            Self::Bytes => false,
            Self::Sorted => Reply::parse(expected).sorted() == Reply::parse(actual).sorted(),
            Self::Close => match (Reply::parse(expected), Reply::parse(actual)) {
                (Reply::Integer(a), Reply::Integer(b)) => {
                    a > 0 && b > 0 && a.abs_diff(b) <= a.unsigned_abs() / 50
                }
                _ => false,
            },
        }
    }
}

/// One step of a script.
#[derive(Clone)]
pub(crate) enum Step {
    Send(Request, Match),
    /// What was sent since the last one goes out in one write, and is answered.
    Read,
    /// Likewise, then time passes.
    Wait(Duration),
}

/// All keys of the scripts; those with the tag `{t}` share a node.
pub(crate) const KEYS: [&str; 8] = ["a", "b", "c", "d", "{t}1", "{t}2", "{t}3", "{t}4"];

/// The databases of the scripts over several.
pub(crate) const DATABASES: [u32; 3] = [0, 1, 9];

/// A script whose client goes from database to database, with keys of the same names in each, and
/// with commands that concern two of them, or all.
pub(crate) fn script_over_databases(random: &mut Random, length: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for step in script(random, length) {
        // Nothing between a short deadline and its end: it would be a matter of luck what is there.
        if matches!(step, Step::Send(..)) && random.one_in(6) {
            steps.push(across(random));
        }
        steps.push(step);
    }
    steps
}

fn across(random: &mut Random) -> Step {
    let [one, two] = [random.pick(&KEYS[4..]), random.pick(&KEYS[4..])];
    let [here, there] = [(); 2].map(|()| DATABASES[random.below(DATABASES.len())]);
    send(&match random.below(24) {
        0..12 => format!("SELECT {here}"),
        12..17 => format!("MOVE {one} {here}"),
        17 | 18 => format!("COPY {one} {two} DB {here}"),
        19 => format!("COPY {one} {one} DB {here} REPLACE"),
        20 | 21 => format!("SWAPDB {here} {there}"),
        22 => "FLUSHDB".to_owned(),
        _ if random.one_in(4) => "FLUSHALL".to_owned(),
        _ => format!("EXISTS {one} {two}"),
    })
}

/// A script with transactions on keys of all nodes, and `WATCH` before some of them.
pub(crate) fn script_over_nodes(random: &mut Random, length: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = script(random, length / 2).into_iter().peekable();
    while let Some(step) = rest.next() {
        // Nothing between a short deadline and its end.
        let waits = matches!(rest.peek(), Some(Step::Wait(_)));
        match &step {
            // A key that was brought to another node and back may have another form.
            Step::Send(request, _) if request[0] == b"OBJECT" => continue,
            Step::Read if !waits && random.one_in(2) => {
                steps.push(Step::Read);
                steps.extend(transaction_over_nodes(random));
            }
            Step::Send(..) | Step::Read | Step::Wait(_) => {}
        }
        steps.push(step);
    }
    steps
}

fn transaction_over_nodes(random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    let watches = random.one_in(3);
    if watches {
        let [one, two] = [random.pick(&KEYS), random.pick(&KEYS)];
        steps.push(send(&format!("WATCH {one} {two}")));
        if random.one_in(4) {
            steps.push(counter(random, two));
        }
    }
    steps.push(send("MULTI"));
    for _ in 0..random.below(9) {
        let key = random.pick(&KEYS);
        let step = match random.below(12) {
            0 | 1 => counter(random, key),
            2 => read(random, key),
            3 => write(random, key),
            4 => expiry(random, key),
            5 => collection(random, key),
            6 => many(random, &KEYS),
            7 if random.one_in(3) => send(random.pick(&[
                "PING",
                "CLIENT GETNAME",
                "SELECT 0",
                "SCRIPT EXISTS x",
                "PUBLISH c x",
            ])),
            8 if !watches && random.one_in(3) => send("EVAL \"return 1\" 0"),
            _ => joint(random),
        };
        // Neither a form nor a running time has the same bytes.
        let is_exact = match &step {
            Step::Send(request, Match::Bytes) => request[0] != b"OBJECT",
            _ => false,
        };
        steps.extend(is_exact.then_some(step));
    }
    steps.push(send(if random.one_in(8) { "DISCARD" } else { "EXEC" }));
    steps
}

/// A command on several keys that a transaction takes wherever they are.
fn joint(random: &mut Random) -> Step {
    let [one, two, three] = [(); 3].map(|()| random.pick(&KEYS));
    if random.one_in(2) {
        return together(random, &KEYS);
    }
    send(&match random.below(12) {
        0 => format!("SUNIONSTORE {one} {two} {three}"),
        1 => format!("SINTERSTORE {one} {two} {three}"),
        2 => format!("ZUNIONSTORE {one} 2 {two} {three}"),
        3 => format!("ZRANGESTORE {one} {two} 0 -1"),
        4 => format!("SORT {one} STORE {two}"),
        5 => format!("SORT {one} ALPHA STORE {two}"),
        6 => format!("LMPOP 2 {one} {two} LEFT"),
        7 => format!("BLPOP {one} {two} 0.01"),
        8 => format!("PFMERGE {one} {two}"),
        9 => format!("PFCOUNT {one} {two}"),
        10 => format!("SINTERCARD 2 {one} {two}"),
        _ => format!("RPOPLPUSH {one} {two}"),
    })
}

/// A script of about `length` commands, in pipelines of 1 to 20.
pub(crate) fn script(random: &mut Random, length: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut depth = 0;
    for step in commands(random, length) {
        if depth == 0 {
            steps.push(Step::Read);
            depth = 1 + random.below(20);
        }
        steps.push(step);
        depth -= 1;
    }
    steps
}

fn commands(random: &mut Random, length: usize) -> Vec<Step> {
    // A script stays with some of the keys, so that each is hit again and again.
    let keys: Vec<&str> = (0..3).map(|_| random.pick(&KEYS)).collect();
    let mut steps = Vec::new();
    while steps.len() < length {
        let key = random.pick(&keys);
        match random.below(100) {
            0..40 => steps.push(counter(random, key)),
            40..52 => steps.push(read(random, key)),
            52..70 => steps.push(write(random, key)),
            70..80 => steps.push(expiry(random, key)),
            80..86 => steps.push(collection(random, key)),
            86..90 => steps.push(many(random, &keys)),
            90..94 => steps.push(together(random, &KEYS[4..])),
            94 => steps.push(eval(random, key)),
            95 | 96 => steps.extend(transaction(random, key)),
            97 | 98 => steps.push(faulty(random, key)),
            _ => {
                if random.one_in(2) {
                    steps.push(ending(random, key));
                    steps.push(Step::Wait(Duration::from_millis(12)));
                }
            }
        }
    }
    steps
}

/// Numbers that matter, as text; half of them no integers to Redis.
const VALUES: [&str; 34] = [
    "0",
    "1",
    "-1",
    "7",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "-9007199254740991",
    "-9007199254740992",
    "-9007199254740993",
    "9223372036854775806",
    "9223372036854775807",
    "-9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "007",
    "-0",
    "\" 1\"",
    "\"1 \"",
    "+1",
    "\"\"",
    "3.5",
    "1e3",
    "abc",
    "0x10",
    "-",
    "99999999999999999999999",
    "\"1\\x00\"",
    "\"\\xff\\x0d\\x0a\"",
];

/// What counters mostly get; the edges come in between.
const AMOUNTS: [&str; 6] = ["1", "2", "10", "-3", "0", "1000000"];

fn send(line: &str) -> Step {
    Step::Send(words(line), Match::Bytes)
}

fn amount(random: &mut Random) -> &'static str {
    if random.one_in(4) {
        return random.pick(&VALUES);
    }
    random.pick(&AMOUNTS)
}

fn counter(random: &mut Random, key: &str) -> Step {
    let amount = amount(random);
    send(&match random.below(8) {
        0..4 => format!("INCR {key}"),
        4 => format!("DECR {key}"),
        5 | 6 => format!("INCRBY {key} {amount}"),
        _ => format!("DECRBY {key} {amount}"),
    })
}

fn read(random: &mut Random, key: &str) -> Step {
    let line = random.pick(&[
        "GET @",
        "GET @",
        "GET @",
        "STRLEN @",
        "GETRANGE @ 0 2",
        "TYPE @",
        "EXISTS @ @",
        "BITCOUNT @",
        "GETBIT @ 3",
        "OBJECT ENCODING @",
        "LLEN @",
        "HGET @ f",
    ]);
    send(&line.replace('@', key))
}

fn write(random: &mut Random, key: &str) -> Step {
    let value = if random.one_in(2) {
        random.pick(&VALUES)
    } else {
        "5"
    };
    let line = random.pick(&[
        "SET @ $",
        "SET @ $",
        "SET @ $",
        "SET @ $ NX",
        "SET @ $ XX",
        "SET @ $ GET",
        "SET @ $ EX 1000",
        "SET @ $ KEEPTTL",
        "SETNX @ $",
        "GETSET @ $",
        "GETDEL @",
        "DEL @",
        "DEL @",
        "UNLINK @",
        "APPEND @ $",
        "APPEND @ 1",
        "SETRANGE @ 0 $",
        "SETRANGE @ 1 3",
        "INCRBYFLOAT @ $",
        "INCRBYFLOAT @ 1",
        "SETBIT @ 5 1",
        "SETEX @ 1000 $",
        "GETEX @ EX 1000",
        "GETEX @ PERSIST",
    ]);
    send(&line.replace('@', key).replace('$', value))
}

fn expiry(random: &mut Random, key: &str) -> Step {
    let line = random.pick(&[
        "EXPIRE @ 1000",
        "EXPIRE @ 1000",
        "EXPIRE @ 2000 NX",
        "EXPIRE @ 2000 XX",
        "EXPIREAT @ 4102444800 GT",
        "EXPIRE @ 500 LT",
        "PEXPIRE @ 1000000",
        "PEXPIREAT @ 4102444800123",
        "EXPIREAT @ 4102444800",
        "EXPIRE @ 0",
        "EXPIRE @ -5",
        "EXPIREAT @ 1",
        "PERSIST @",
        "PERSIST @",
        "TTL @",
        "TTL @",
        "PTTL @",
        "EXPIRETIME @",
        "PEXPIRETIME @",
    ]);
    let how = if line.contains("TTL") || line.contains("TIME") {
        Match::Close
    } else {
        Match::Bytes
    };
    Step::Send(words(&line.replace('@', key)), how)
}

/// Lets a key end soon. It goes out last in its write: what comes later finds the key gone.
fn ending(random: &mut Random, key: &str) -> Step {
    let line = random.pick(&[
        "PEXPIRE @ 1",
        "PEXPIRE @ 3",
        "SET @ 5 PX 2",
        "PSETEX @ 3 7",
        "GETEX @ PX 2",
    ]);
    send(&line.replace('@', key))
}

fn collection(random: &mut Random, key: &str) -> Step {
    let line = random.pick(&[
        "LPUSH @ x",
        "RPUSH @ 1 2",
        "LPOP @",
        "LRANGE @ 0 -1",
        "HSET @ f 1",
        "HINCRBY @ f 2",
        "SADD @ m",
        "SCARD @",
        "ZADD @ 1.5 m",
        "ZINCRBY @ 1 m",
        "PFADD @ x",
    ]);
    send(&line.replace('@', key))
}

/// Commands that Tally splits over the nodes.
fn many(random: &mut Random, keys: &[&str]) -> Step {
    let [one, two, three] = [random.pick(keys), random.pick(keys), random.pick(&KEYS)];
    let value = random.pick(&VALUES);
    send(&match random.below(7) {
        0 | 1 => format!("MGET {one} {two} {three}"),
        2 => format!("MSET {one} {value} {two} 3"),
        3 => format!("DEL {one} {two} {one}"),
        4 => format!("UNLINK {two} {three}"),
        5 => format!("EXISTS {one} {two} {three} {one}"),
        _ => format!("TOUCH {one} {two}"),
    })
}

/// Commands over several keys; a script gets some of these.
fn together(random: &mut Random, of_script: &[&str]) -> Step {
    let case = random.below(9);
    let keys = if case == 8 { of_script } else { &KEYS };
    let [one, two] = [random.pick(keys), random.pick(keys)];
    send(&match case {
        0 => format!("RENAME {one} {two}"),
        1 => format!("RENAMENX {one} {two}"),
        2 => format!("COPY {one} {two} REPLACE"),
        3 => format!("COPY {one} {two}"),
        4 => format!("MSETNX {one} 1 {two} 2"),
        5 => format!("BITOP OR {one} {two}"),
        6 => format!("LMOVE {one} {two} LEFT RIGHT"),
        7 => format!("SMOVE {one} {two} m"),
        _ => format!(
            "EVAL \"return {{redis.call('INCR',KEYS[1]),redis.call('INCR',KEYS[2])}}\" 2 {one} {two}"
        ),
    })
}

/// A transaction on one key, or on some that share a node.
fn transaction(random: &mut Random, key: &str) -> Vec<Step> {
    let mut steps = vec![send("MULTI")];
    let shared = random.one_in(2);
    for _ in 0..random.below(5) {
        let key = if shared { random.pick(&KEYS[4..]) } else { key };
        steps.push(match random.below(9) {
            0..3 => counter(random, key),
            3 | 4 => read(random, key),
            5 => write(random, key),
            6 => collection(random, key),
            7 => send(random.pick(&["PING", "ECHO x", "CLIENT GETNAME", "SELECT 0"])),
            _ if random.one_in(3) => faulty(random, key),
            _ => eval(random, key),
        });
    }
    steps.push(send(if random.one_in(6) { "DISCARD" } else { "EXEC" }));
    steps
}

fn eval(random: &mut Random, key: &str) -> Step {
    if random.one_in(3) {
        let limit = random.pick(&["3", "10", "0", "007", "9007199254740993"]);
        let ttl = random.pick(&["1000", "1000", "0"]);
        let call = ["EVAL", CANONICAL_WITH_TTL, "1", key, limit, ttl];
        let call = call.map(|word| word.as_bytes().to_vec()).to_vec();
        return Step::Send(call, Match::Bytes);
    }
    let body = random.pick(&[
        "return redis.call('GET',KEYS[1])",
        "return redis.call('INCRBY',KEYS[1],ARGV[1])",
        "return redis.pcall('INCRBY',KEYS[1],ARGV[1])",
        "redis.call('SET',KEYS[1],ARGV[1]) return redis.call('GET',KEYS[1])",
        "return redis.call('DEL',KEYS[1])",
        "return redis.call('EXPIRE',KEYS[1],1000)",
    ]);
    send(&format!("EVAL \"{body}\" 1 {key} {}", amount(random)))
}

fn faulty(random: &mut Random, key: &str) -> Step {
    let line = random.pick(&[
        "INCR",
        "INCR @ 1",
        "INCRBY @",
        "GET",
        "GET @ @",
        "SET @",
        "SET @ 1 EX 0",
        "NOSUCH @",
        "EXPIRE @",
        "EXPIRE @ abc",
        "EXPIRE @ 10 NX GT",
        "MSET @ 1 @",
        "EVAL x 5 @",
        "EXPIRE @ 9223372036854775807",
    ]);
    send(&line.replace('@', key))
}

#[test]
fn nothing_is_sent_between_a_short_deadline_and_its_end() {
    for seed in 0..3_000 {
        for script in [script, script_over_databases, script_over_nodes] {
            let mut last = Vec::new();
            for step in script(&mut Random::new(seed), 50) {
                match step {
                    Step::Send(request, _) => last = request,
                    Step::Read => {}
                    Step::Wait(_) => {
                        let line = last.join(&b' ').escape_ascii().to_string();
                        let ends = ["PEXPIRE ", "PSETEX ", " PX "];
                        let is_ending = ends.iter().any(|word| line.contains(word));
                        assert!(is_ending, "seed {seed}: {line} before the wait");
                    }
                }
            }
        }
    }
}
