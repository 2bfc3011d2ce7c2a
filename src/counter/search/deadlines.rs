//! Deadlines: clients give them, ask for them, and others change them. Time does not pass.

use super::check;
use super::monitor::Command::{self, Add, Expire, Ttl};
use super::scenarios::{DEL, GET, INCR, PLAIN, SET, Scenario, UNSCRIPTED, goes_deep};

const EXPIRE: Command = Expire(0);
const TTL: Command = Ttl(0);

const BECOMES_WARM: Scenario = Scenario {
    name: "deadlines of a counter that becomes warm",
    programs: &[&[INCR, EXPIRE, TTL], &[INCR, INCR, TTL]],
    pipe: 2,
    ..PLAIN
};

const GONE: Scenario = Scenario {
    name: "deadlines of a warm counter, and a SET and a DEL",
    programs: &[&[EXPIRE, INCR, TTL], &[SET, TTL], &[DEL]],
    warm: true,
    ..PLAIN
};

const LOSS: Scenario = Scenario {
    name: "a deadline and a lost connection",
    programs: &[&[INCR, EXPIRE, TTL], &[SET, INCR]],
    warm: true,
    losses: 1,
    ..PLAIN
};

const CANCELLED: Scenario = Scenario {
    name: "increments that cancel each other under a deadline, and a DEL",
    programs: &[&[INCR, EXPIRE, Add(0, -1), TTL], &[DEL, EXPIRE]],
    warm: true,
    ..PLAIN
};

const REFUSED: Scenario = Scenario {
    name: "a deadline in a batch refused whole",
    programs: &[&[EXPIRE, INCR, TTL], &[DEL, TTL]],
    warm: true,
    refusals: 1,
    ..PLAIN
};

const FOREIGN: Scenario = Scenario {
    name: "another program gives a counter a deadline, and takes it",
    programs: &[&[INCR, INCR, TTL], &[EXPIRE]],
    warm: true,
    foreign: &[&["PEXPIRE", "a", "100000"], &["PERSIST", "a"]],
    ..PLAIN
};

const ASIDE: Scenario = Scenario {
    name: "no scripts, a deadline and a lost connection",
    programs: &[&[INCR, EXPIRE, TTL], &[DEL]],
    warm: true,
    losses: 1,
    ..UNSCRIPTED
};

/// Larger ones.
const DEEP: &[Scenario] = &[
    Scenario {
        name: "deep: deadlines of three clients",
        programs: &[&[EXPIRE, INCR, TTL], &[INCR, EXPIRE, GET], &[DEL]],
        warm: true,
        ..PLAIN
    },
    Scenario {
        name: "deep: another program and a deadline, and a lost connection",
        programs: &[&[INCR, EXPIRE, TTL], &[INCR]],
        warm: true,
        losses: 1,
        foreign: &[&["PERSIST", "a"], &["DEL", "a"]],
        ..PLAIN
    },
    Scenario {
        name: "deep: no scripts, a deadline, another program",
        programs: &[&[INCR, EXPIRE, INCR, TTL]],
        warm: true,
        foreign: &[&["PERSIST", "a"], &["PEXPIRE", "a", "100000"]],
        ..UNSCRIPTED
    },
];

#[test]
fn no_interleaving_with_deadlines_shows_a_fault() {
    for scenario in [
        &BECOMES_WARM,
        &GONE,
        &LOSS,
        &CANCELLED,
        &REFUSED,
        &FOREIGN,
        &ASIDE,
    ] {
        check(scenario);
    }
}

#[test]
fn no_interleaving_of_larger_scenarios_with_deadlines_shows_a_fault() {
    if goes_deep() {
        DEEP.iter().for_each(check);
    }
}
