//! Calls of a limit script: what clients send, and what a node makes of the scripts that carry them.

use super::check;
use super::monitor::Command::{self, Add, DelBoth, Limit};
use super::monitor::Value;
use super::scenarios::{DEL, GET, Grants, INCR, PLAIN, Scenario, goes_deep};
use super::server::{Argv, Server};
use super::world::KEYS;
use crate::limit::{Bundle, Call, Combined, Denied, Granted, Kind, sha1_hex};
use crate::resp::{Limits, RequestScanner, encode, parse_i64, reply};

/// The name of the clients' own script.
const OWN: &str = "own";

/// A client's call, and its request.
pub(super) fn call(key: usize, limit: i64) -> (Call, Vec<u8>) {
    let mut wire = Vec::new();
    encode::request(
        &mut wire,
        &["EVALSHA", OWN, "1", KEYS[key], &limit.to_string()],
    );
    let kind = Kind::Limit {
        limit: 1,
        ttl: None,
        granted: Granted::Value,
        denied: Denied::Integer(DENIED),
    };
    let mut scanner = RequestScanner::new();
    scanner.scan(&wire, &Limits::default()).unwrap();
    let call = kind.call(&scanner.request(&wire)).expect("it is plain");
    (call, wire)
}

/// The reply to a call that is denied.
pub(super) const DENIED: i64 = -1;

/// A script that carries calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Script {
    /// The clients' own.
    Own,
    /// For several calls on one key, see `combined.lua`.
    Combined,
    /// For calls on several keys, see `bundle.lua`.
    Bundle,
}

impl Script {
    /// The script of an `EVAL` or `EVALSHA`, unless it is another.
    fn of(argv: &Argv) -> Option<Self> {
        let named = |body: &str| argv[1] == body.as_bytes() || argv[1] == sha1_hex(body.as_bytes());
        let (any, _) = call(0, 1);
        if argv[1] == OWN.as_bytes() {
            Some(Self::Own)
        } else if named(Combined::new(any.clone()).script()) {
            Some(Self::Combined)
        } else {
            named(Bundle::new(any).script()).then_some(Self::Bundle)
        }
    }
}

impl Server {
    /// Runs a script that carries calls; returns the reply, and whether the last thing that it did
    /// to its keys was to read them. `None` for another request.
    pub(super) fn calls(&mut self, argv: &Argv) -> Option<(Vec<u8>, bool)> {
        if !argv[0].starts_with(b"EVAL") {
            return None;
        }
        let script = Script::of(argv)?;
        let number = |text: &[u8]| parse_i64(text).unwrap();
        let keys = usize::try_from(number(&argv[2])).unwrap();
        let (keys, rest) = argv[3..].split_at(keys);
        let mut out = Vec::new();
        let reads = match script {
            Script::Own => {
                let granted = self.grant(&keys[0], number(&rest[0]), 1);
                let (value, count) = granted;
                encode::integer(&mut out, if count == 1 { value + 1 } else { DENIED });
                count == 0
            }
            Script::Combined => {
                let granted = self.grant(&keys[0], number(&rest[2]), number(&rest[0]));
                let (value, count) = granted;
                let left = self.left(std::str::from_utf8(&keys[0]).unwrap());
                encode::array(&mut out, 4);
                encode::bulk(&mut out, value.to_string().as_bytes());
                encode::integer(&mut out, count);
                encode::integer(&mut out, left);
                encode::integer(&mut out, left);
                true
            }
            Script::Bundle => {
                encode::array(&mut out, keys.len());
                for key in keys {
                    match self.grant(key, number(&rest[1]), 1) {
                        (_, 0) => encode::bulk(&mut out, b"d"),
                        (value, _) => encode::integer(&mut out, value + 1),
                    }
                }
                false
            }
        };
        Some((out, reads))
    }

    /// Grants up to so many calls; returns the value before, and how many.
    fn grant(&mut self, key: &[u8], limit: i64, calls: i64) -> (i64, i64) {
        let key = std::str::from_utf8(key).unwrap();
        let before = reply::text(&self.get(key)).and_then(parse_i64).unwrap_or(0);
        let count = calls.min(limit - before).max(0);
        if count > 0 {
            self.command(&["INCRBY", key, &count.to_string()]);
        }
        (before, count)
    }
}

const CALL: Command = Limit(0, 3);

const CALLS: Scenario = Scenario {
    name: "calls of a limit script",
    programs: &[&[CALL, CALL, GET], &[CALL, CALL], &[CALL]],
    pipe: 2,
    ..PLAIN
};

const DENIED_HERE: Scenario = Scenario {
    name: "denials that are repeated, and a DEL",
    programs: &[&[CALL, CALL, CALL], &[CALL, DEL, CALL], &[CALL]],
    values: [Value::Integer(3), Value::Nothing],
    ..PLAIN
};

const AMONG_INCREMENTS: Scenario = Scenario {
    name: "a limit script among increments of a warm counter",
    programs: &[&[INCR, CALL, INCR], &[Add(0, -1), CALL], &[CALL]],
    warm: true,
    ..PLAIN
};

const LOSS: Scenario = Scenario {
    name: "a limit script and a lost connection",
    programs: &[&[CALL, INCR, CALL], &[CALL, CALL]],
    pipe: 2,
    losses: 1,
    ..PLAIN
};

const BUNDLES: Scenario = Scenario {
    name: "calls on two keys, and one command on both",
    programs: &[&[CALL, Limit(1, 3), CALL], &[Limit(1, 3), DelBoth]],
    pipe: 2,
    ..PLAIN
};

const GRANTED_HERE: Scenario = Scenario {
    name: "calls that are granted here, and a DEL",
    programs: &[&[CALL, CALL, CALL], &[CALL, DEL], &[INCR]],
    grants: Grants::Here,
    ..PLAIN
};

const GRANTED_AND_LOST: Scenario = Scenario {
    name: "calls that are granted here, and a lost connection",
    programs: &[&[CALL, CALL, CALL], &[CALL, GET]],
    grants: Grants::Here,
    losses: 1,
    ..PLAIN
};

const FOREIGN: Scenario = Scenario {
    name: "another program, and denials that are repeated",
    programs: &[&[CALL, CALL, CALL], &[CALL]],
    values: [Value::Integer(3), Value::Nothing],
    foreign: &[&["SET", "a", "1"], &["DEL", "a"]],
    ..PLAIN
};

/// Larger ones.
const DEEP: &[Scenario] = &[
    Scenario {
        name: "deep: calls, increments and a DEL",
        programs: &[&[CALL, INCR, CALL], &[CALL, DEL, CALL], &[INCR, CALL]],
        pipe: 2,
        ..PLAIN
    },
    Scenario {
        name: "deep: calls on two keys, and a lost connection",
        programs: &[&[CALL, Limit(1, 3), CALL], &[Limit(1, 3), DelBoth], &[CALL]],
        pipe: 2,
        losses: 1,
        ..PLAIN
    },
    Scenario {
        name: "deep: calls that are granted here, and a lost connection",
        programs: &[&[CALL, CALL, INCR], &[CALL, DEL, CALL], &[CALL]],
        grants: Grants::Here,
        losses: 1,
        ..PLAIN
    },
];

#[test]
fn no_interleaving_of_limit_scripts_shows_a_fault() {
    for scenario in [
        &CALLS,
        &DENIED_HERE,
        &AMONG_INCREMENTS,
        &LOSS,
        &BUNDLES,
        &GRANTED_HERE,
        &GRANTED_AND_LOST,
        &FOREIGN,
    ] {
        check(scenario);
    }
}

#[test]
fn no_interleaving_of_larger_scenarios_of_limit_scripts_shows_a_fault() {
    if goes_deep() {
        DEEP.iter().for_each(check);
    }
}
