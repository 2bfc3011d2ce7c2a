//! Several clients take turns at random on a few keys, on Tally and on a plain Redis beside it:
//! each sees the same. What one client watches, queues or lets expire shows to the others.

use std::time::Duration;

use crate::connection::{Connection, words};
use crate::harness::{Stack, pause};
use crate::random::Random;
use crate::reply::Reply;
use crate::script::Match;
use crate::servers::{Redis, is_other_server};

/// One node has all keys, so that transactions, `WATCH` and scripts may name any of them.
const KEYS: [&str; 3] = ["{t}a", "{t}b", "{t}c"];

/// What is asked of key `@`, sometimes with another one, `&`. `!` before a line: not in a
/// transaction, where it is refused or has a place of its own (docs/semantics.md).
const LINES: [&str; 72] = [
    "INCR @",
    "INCR @",
    "INCR @",
    "INCR @",
    "INCR @",
    "INCR @",
    "INCRBY @ 5",
    "INCRBY @ -3",
    "INCRBY @ 0",
    "INCRBY @ 9223372036854775807",
    "DECR @",
    "GET @",
    "GET @",
    "GET @",
    "SET @ 1",
    "SET @ x",
    "SET @ 07",
    "SET @ 1 EX 100",
    "SETNX @ 1",
    "DEL @",
    "UNLINK @ &",
    "EXPIRE @ 100",
    "EXPIRE @ -1",
    "PERSIST @",
    "% TTL @",
    "% EXPIRETIME @",
    "GETEX @ EX 50",
    "APPEND @ 1",
    "GETSET @ 3",
    "GETDEL @",
    "STRLEN @",
    "SETRANGE @ 1 9",
    "SUBSTR @ 0 1",
    "INCRBYFLOAT @ 1",
    "BITCOUNT @",
    "BITFIELD @ INCRBY i64 0 1",
    "MGET @ &",
    "MSET @ 1 & 2",
    "MSETNX @ 1 & 1",
    "RENAME @ &",
    "COPY @ & REPLACE",
    "EXISTS @ &",
    "TOUCH @",
    "TYPE @",
    "OBJECT ENCODING @",
    "LPUSH @ 1",
    "SORT @",
    "LMPOP 1 @ LEFT",
    "BLPOP @ 0.001",
    "EVAL \"return redis.call('INCR', KEYS[1])\" 1 @",
    "EVAL \"return redis.call('DEL', KEYS[1])\" 1 @",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH @",
    "WATCH @ &",
    "UNWATCH",
    "RESET",
    "MULTI now",
    "EXEC now",
    "DISCARD now",
    "WATCH",
    "GET",
    "NONSENSE",
    "! DBSIZE",
    "!~KEYS *",
    "! MOVE @ 1",
    "! SWAPDB 0 1",
    "! FLUSHALL",
];

const CLIENTS: usize = 4;

#[test]
fn clients_that_take_turns_at_random_see_what_they_see_on_redis() {
    if is_other_server() {
        return;
    }
    let mut random = Random::new(Random::seed_or(11));
    for _ in 0..3 {
        let redis = Redis::start(&[]);
        let stack = Stack::start(&[
            ("counters.flush_interval", r#""30ms""#),
            ("server.threads", "2"),
        ]);
        let clients = |connect: &dyn Fn() -> Connection| -> Vec<Connection> {
            (0..CLIENTS).map(|_| connect()).collect()
        };
        let mut real = clients(&|| redis.connect());
        let mut tested = clients(&|| stack.connect());
        let mut queues = [false; CLIENTS];
        for step in 0..2000 {
            let who = random.below(CLIENTS);
            let line = random.pick(&LINES);
            let (alone, line) = line
                .strip_prefix('!')
                .map_or((false, line), |line| (true, line));
            if alone && queues[who] {
                continue;
            }
            let (how, line) = match line.split_at_checked(2) {
                Some(("% ", rest)) => (Match::Close, rest),
                _ => match line.strip_prefix('~') {
                    Some(rest) => (Match::Sorted, rest),
                    None => (Match::Bytes, line.trim_start()),
                },
            };
            queues[who] = match line {
                "MULTI" => true,
                "EXEC" | "EXEC now" | "DISCARD" | "RESET" => false,
                _ => queues[who],
            };
            let line = line.replace('@', random.pick(&KEYS));
            let request = words(&line.replace('&', random.pick(&KEYS)));
            let expected = real[who].call_raw(&request);
            let actual = tested[who].call_raw(&request);
            let same = how.accepts(&expected, &actual) || ends_alike(&expected, &actual);
            assert!(
                same,
                "step {step}, client {who}, {line}\n  Redis: {}\n  Tally: {}",
                expected.escape_ascii(),
                actual.escape_ascii()
            );
            if random.one_in(300) {
                pause(Duration::from_millis(40));
            }
        }
    }
}

/// Whether the replies to a transaction differ in nothing but running times to live.
fn ends_alike(expected: &[u8], actual: &[u8]) -> bool {
    let (Reply::Array(expected), Reply::Array(actual)) =
        (Reply::parse(expected), Reply::parse(actual))
    else {
        return false;
    };
    let alike = |(one, other): (&Reply, &Reply)| match (one, other) {
        (Reply::Integer(a), Reply::Integer(b)) => a == b || (*a > 40 && a.abs_diff(*b) <= 2),
        _ => one == other,
    };
    expected.len() == actual.len() && expected.iter().zip(&actual).all(alike)
}
