//! What is searched: the scenarios of the protocol's model, and for each rule one that needs it.

use std::time::Duration;

use super::monitor::Command::{Add, Del, DelBoth, FlushAll, Get, Set};
use super::monitor::{Command, Value, Values};
use super::server::Promise;
use super::{check, check_needed};
use crate::counter::Mode;
use crate::rule::Rule;

/// What clients want, and what may go wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Each client's commands.
    pub(super) programs: &'static [&'static [Command]],
    /// How many of its commands a client sends without an answer.
    pub(super) pipe: usize,
    pub(super) values: Values,
    /// The keys are warm at the start.
    pub(super) warm: bool,
    pub(super) mode: Mode,
    /// Who grants calls of limit scripts.
    pub(super) grants: Grants,
    /// How long the first increment waits for others.
    pub(super) window: Duration,
    /// Lost connections.
    pub(super) losses: u8,
    /// Batches refused whole.
    pub(super) refusals: u8,
    /// Clients told of a timeout.
    pub(super) timeouts: u8,
    /// Another program's commands on the node. With them replies have no order to be held to; what
    /// is known at rest must be true all the same.
    pub(super) foreign: &'static [&'static [&'static str]],
    /// Whether the node tells of them.
    pub(super) tells: bool,
    /// Whether the node takes scripts; else batches are transactions on a connection beside.
    pub(super) scripts: bool,
}

/// Who grants calls of limit scripts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Grants {
    /// The node.
    There,
    /// The table, where the key is warm.
    Here,
}

impl Scenario {
    pub(super) const PLAIN: Self = Self {
        name: "",
        programs: &[],
        pipe: 1,
        values: [Value::Nothing; 2],
        warm: false,
        mode: Mode::Buffered,
        grants: Grants::There,
        window: Duration::ZERO,
        losses: 0,
        refusals: 0,
        timeouts: 0,
        foreign: &[],
        tells: true,
        scripts: true,
    };
}

pub(super) const INCR: Command = Add(0, 1);
pub(super) const GET: Command = Get(0);
pub(super) const SET: Command = Set(0, 20);
pub(super) const DEL: Command = Del(0);

pub(super) const PLAIN: Scenario = Scenario::PLAIN;

const BASE: Scenario = Scenario {
    name: "two clients, nothing goes wrong",
    programs: &[&[INCR, INCR, GET], &[SET, INCR, GET]],
    ..PLAIN
};

const SHARED_GET: Scenario = Scenario {
    name: "a GET in flight, and pipelined SET and GET",
    programs: &[&[GET], &[GET], &[SET, GET]],
    pipe: 2,
    ..PLAIN
};

const KEPT_GET: Scenario = Scenario {
    name: "GETs of a key that is asked for again, and a SET",
    programs: &[&[GET, GET, GET], &[SET, GET]],
    pipe: 2,
    ..PLAIN
};

const LOSS: Scenario = Scenario {
    name: "a lost connection",
    programs: &[&[INCR, INCR, GET], &[SET, INCR]],
    warm: true,
    losses: 1,
    ..PLAIN
};

const LATE_SET: Scenario = Scenario {
    name: "a lost connection with a SET on it",
    programs: &[&[INCR, INCR, INCR, GET], &[SET]],
    losses: 1,
    ..PLAIN
};

const TWO_BATCHES: Scenario = Scenario {
    name: "two batches in flight, and a DEL",
    programs: &[&[INCR, INCR, DEL], &[INCR, GET]],
    warm: true,
    losses: 1,
    ..PLAIN
};

const REFUSED: Scenario = Scenario {
    name: "a batch refused whole, and a DEL behind it",
    programs: &[&[INCR, DEL, GET], &[INCR]],
    warm: true,
    refusals: 1,
    ..PLAIN
};

const REFUSED_AND_LOST: Scenario = Scenario {
    name: "a refused batch and a lost connection",
    programs: &[&[INCR, SET], &[INCR]],
    warm: true,
    losses: 1,
    refusals: 1,
    ..PLAIN
};

const THREE_CLIENTS: Scenario = Scenario {
    name: "three clients and a lost connection",
    programs: &[&[INCR], &[INCR, SET], &[DEL]],
    losses: 1,
    ..PLAIN
};

const EDGE: i64 = i64::MAX - 1;

const OVERFLOW: Scenario = Scenario {
    name: "a run overflows, and a SET behind it",
    programs: &[&[INCR, Set(0, 0)], &[INCR], &[INCR]],
    pipe: 2,
    values: [Value::Integer(EDGE), Value::Nothing],
    mode: Mode::Exact,
    ..PLAIN
};

const OVERFLOW_LAST: Scenario = Scenario {
    name: "a run of which the first fits",
    programs: &[&[INCR], &[INCR], &[INCR]],
    values: [Value::Integer(i64::MAX - 2), Value::Nothing],
    mode: Mode::Exact,
    ..PLAIN
};

const OVERFLOW_HERE: Scenario = Scenario {
    name: "a warm counter at the edge",
    programs: &[&[INCR, INCR, GET], &[INCR]],
    values: [Value::Integer(EDGE), Value::Nothing],
    warm: true,
    ..PLAIN
};

const MIXED_SIGNS: Scenario = Scenario {
    name: "increments and decrements at the edge",
    programs: &[&[INCR], &[Add(0, 5)], &[Add(0, -5)]],
    values: [Value::Integer(i64::MAX - 2), Value::Nothing],
    mode: Mode::Exact,
    ..PLAIN
};

const WIDE_SUM: Scenario = Scenario {
    name: "a pending sum that does not fit",
    programs: &[&[Add(0, i64::MAX), Add(0, i64::MAX), GET], &[GET]],
    values: [Value::Integer(i64::MIN), Value::Nothing],
    warm: true,
    ..PLAIN
};

const QUEUE: Scenario = Scenario {
    name: "a pipeline behind a barrier that waits",
    programs: &[&[INCR, DEL, INCR, GET], &[GET, INCR]],
    pipe: 4,
    warm: true,
    ..PLAIN
};

const CANCELLED: Scenario = Scenario {
    name: "increments that cancel each other, and a DEL",
    programs: &[&[INCR, Add(0, -1), GET], &[DEL]],
    warm: true,
    ..PLAIN
};

const TWO_KEYS: Scenario = Scenario {
    name: "one command on two warm keys",
    programs: &[&[INCR, DelBoth, Get(1)], &[Add(1, 1), Add(1, 1), GET]],
    warm: true,
    ..PLAIN
};

const WHOLE_NODE: Scenario = Scenario {
    name: "FLUSHALL among increments",
    programs: &[&[INCR, FlushAll, GET], &[INCR, INCR]],
    warm: true,
    losses: 1,
    ..PLAIN
};

const EXACT: Scenario = Scenario {
    name: "the exact mode and a lost connection",
    programs: &[&[INCR, GET, INCR], &[Add(0, 2), SET]],
    pipe: 2,
    mode: Mode::Exact,
    losses: 1,
    ..PLAIN
};

const WINDOW: Scenario = Scenario {
    name: "increments that wait for others",
    programs: &[&[INCR, GET, INCR], &[Add(0, 2)], &[Add(0, -1), SET]],
    mode: Mode::Exact,
    window: Duration::from_millis(5),
    losses: 1,
    ..PLAIN
};

const TIMEOUT: Scenario = Scenario {
    name: "clients told of a timeout",
    programs: &[&[INCR, GET, INCR], &[GET, SET]],
    timeouts: 1,
    ..PLAIN
};

const FOREIGN: Scenario = Scenario {
    name: "another program sets a counter",
    programs: &[&[INCR, INCR, INCR, GET]],
    foreign: &[&["SET", "a", "50"]],
    ..PLAIN
};

const FOREIGN_EARLY: Scenario = Scenario {
    name: "another program sets a counter that becomes warm",
    programs: &[&[INCR, INCR, GET]],
    foreign: &[&["SET", "a", "50"]],
    ..PLAIN
};

const FOREIGN_LOSS: Scenario = Scenario {
    name: "another program, and a lost connection",
    programs: &[&[INCR, GET], &[SET]],
    warm: true,
    losses: 1,
    foreign: &[&["SET", "a", "50"], &["DEL", "a"]],
    ..PLAIN
};

const FOREIGN_IDLE: Scenario = Scenario {
    name: "another program while the connection of a warm counter is lost",
    programs: &[&[INCR, GET]],
    warm: true,
    losses: 1,
    foreign: &[&["SET", "a", "50"]],
    ..PLAIN
};

const FOREIGN_READS: Scenario = Scenario {
    name: "another program, and kept values",
    programs: &[&[GET, GET, GET], &[GET]],
    foreign: &[&["SET", "a", "50"], &["SET", "a", "60"]],
    ..PLAIN
};

const FOREIGN_LIST: Scenario = Scenario {
    name: "another program makes a list of a counter",
    programs: &[&[INCR, INCR, DEL], &[INCR]],
    warm: true,
    foreign: &[&["DEL", "a"], &["LPUSH", "a", "x"]],
    ..PLAIN
};

const UNTOLD: Scenario = Scenario {
    name: "another program on a node that does not tell",
    programs: &[&[INCR, INCR, GET]],
    warm: true,
    foreign: &[&["SET", "a", "50"]],
    tells: false,
    ..PLAIN
};

pub(super) const UNSCRIPTED: Scenario = Scenario {
    scripts: false,
    ..PLAIN
};

const UNSCRIPTED_LOSS: Scenario = Scenario {
    name: "no scripts, and a lost connection",
    programs: &[&[INCR, INCR, GET], &[SET, INCR]],
    warm: true,
    losses: 1,
    ..UNSCRIPTED
};

const UNSCRIPTED_REFUSED: Scenario = Scenario {
    name: "no scripts, a refused batch and a lost connection",
    programs: &[&[INCR, SET], &[INCR]],
    warm: true,
    losses: 1,
    refusals: 1,
    ..UNSCRIPTED
};

const UNSCRIPTED_WHOLE_NODE: Scenario = Scenario {
    name: "no scripts, and FLUSHALL among increments",
    programs: &[&[INCR, FlushAll, GET], &[INCR, INCR]],
    warm: true,
    losses: 1,
    ..UNSCRIPTED
};

const UNSCRIPTED_FOREIGN: Scenario = Scenario {
    name: "no scripts, another program, and a lost connection",
    programs: &[&[INCR, INCR, GET]],
    warm: true,
    losses: 1,
    foreign: &[&["SET", "a", "50"]],
    ..UNSCRIPTED
};

const UNSCRIPTED_KEYS: Scenario = Scenario {
    name: "no scripts, one command on two warm keys",
    programs: &[&[INCR, DelBoth, Get(1)], &[Add(1, 1), GET]],
    warm: true,
    ..UNSCRIPTED
};

/// Whether larger scenarios are wanted: minutes, and some GiB.
pub(super) fn goes_deep() -> bool {
    std::env::var_os("TALLY_SUITE_DEEP").is_some()
}

/// Larger ones.
const DEEP: &[Scenario] = &[
    Scenario {
        name: "deep: three clients and a lost connection",
        programs: &[&[INCR, GET], &[INCR, SET], &[DEL, INCR]],
        losses: 1,
        ..PLAIN
    },
    Scenario {
        name: "deep: the exact mode, three clients, a lost connection",
        programs: &[&[INCR, GET], &[Add(0, 2), SET], &[INCR, GET]],
        mode: Mode::Exact,
        losses: 1,
        ..PLAIN
    },
    Scenario {
        name: "deep: a refused batch and a lost connection",
        programs: &[&[INCR, INCR, SET, GET], &[INCR, GET]],
        warm: true,
        losses: 1,
        refusals: 1,
        ..PLAIN
    },
    Scenario {
        name: "deep: another program, and a lost connection",
        programs: &[&[INCR, INCR, GET], &[SET, INCR]],
        warm: true,
        losses: 1,
        foreign: &[&["SET", "a", "50"], &["DEL", "a"]],
        ..PLAIN
    },
    Scenario {
        name: "deep: two lost connections and a refused batch",
        programs: &[&[INCR, INCR, GET], &[SET, INCR]],
        warm: true,
        losses: 2,
        refusals: 1,
        ..PLAIN
    },
    Scenario {
        name: "deep: no scripts, two batches, and a DEL",
        programs: &[&[INCR, INCR, DEL], &[INCR, GET]],
        warm: true,
        losses: 1,
        ..UNSCRIPTED
    },
    Scenario {
        name: "deep: no scripts, another program, and a lost connection",
        programs: &[&[INCR, INCR, GET], &[INCR]],
        warm: true,
        losses: 1,
        foreign: &[&["SET", "a", "50"], &["DEL", "a"]],
        ..UNSCRIPTED
    },
    Scenario {
        name: "deep: two keys, a refused batch",
        programs: &[&[INCR, DelBoth, Get(1)], &[Add(1, 1), DelBoth, GET]],
        pipe: 2,
        warm: true,
        refusals: 1,
        ..PLAIN
    },
];

#[test]
fn no_interleaving_of_clients_shows_a_fault() {
    for scenario in [
        &BASE,
        &SHARED_GET,
        &KEPT_GET,
        &QUEUE,
        &CANCELLED,
        &WINDOW,
        &TWO_KEYS,
        &TIMEOUT,
    ] {
        check(scenario);
    }
}

#[test]
fn no_interleaving_at_the_edges_of_i64_shows_a_fault() {
    for scenario in [
        &OVERFLOW,
        &OVERFLOW_LAST,
        &OVERFLOW_HERE,
        &MIXED_SIGNS,
        &WIDE_SUM,
    ] {
        check(scenario);
    }
}

#[test]
fn no_interleaving_with_lost_connections_shows_a_fault() {
    for scenario in [&LOSS, &LATE_SET, &TWO_BATCHES, &THREE_CLIENTS, &EXACT] {
        check(scenario);
    }
}

#[test]
fn no_interleaving_with_refused_batches_shows_a_fault() {
    for scenario in [&REFUSED, &REFUSED_AND_LOST, &WHOLE_NODE] {
        check(scenario);
    }
}

#[test]
fn no_interleaving_where_batches_are_transactions_shows_a_fault() {
    for scenario in [
        &UNSCRIPTED_LOSS,
        &UNSCRIPTED_REFUSED,
        &UNSCRIPTED_WHOLE_NODE,
        &UNSCRIPTED_FOREIGN,
        &UNSCRIPTED_KEYS,
    ] {
        check(scenario);
    }
}

#[test]
fn no_interleaving_with_other_programs_leaves_something_stale() {
    for scenario in [
        &FOREIGN,
        &FOREIGN_LOSS,
        &FOREIGN_IDLE,
        &FOREIGN_READS,
        &FOREIGN_LIST,
        &UNTOLD,
    ] {
        check(scenario);
    }
}

#[test]
fn no_interleaving_of_larger_scenarios_shows_a_fault() {
    if goes_deep() {
        DEEP.iter().for_each(check);
    }
}

#[test]
fn every_rule_is_needed() {
    for (rule, scenario) in [
        (Rule::BatchesFirst, &REFUSED),
        (Rule::RunFirst, &OVERFLOW),
        (Rule::QueueFirst, &QUEUE),
        (Rule::AllKeysAtOnce, &TWO_KEYS),
        (Rule::FetchCut, &SHARED_GET),
        (Rule::Generations, &KEPT_GET),
        (Rule::InvalidateFetches, &FOREIGN_READS),
        (Rule::InvalidateCached, &FOREIGN_READS),
        (Rule::InvalidateWarm, &FOREIGN),
        (Rule::Lease, &UNTOLD),
        (Rule::ForgetOnLoss, &FOREIGN_IDLE),
        (Rule::KeepOnLoss, &LOSS),
        (Rule::OneSign, &MIXED_SIGNS),
        (Rule::RunSplit, &OVERFLOW_LAST),
        (Rule::ValueChecked, &OVERFLOW_HERE),
        (Rule::PendingChecked, &WIDE_SUM),
        (Rule::SettleUpTo, &TWO_BATCHES),
        (Rule::SendAgain, &LOSS),
        (Rule::WholeNodeAlone, &WHOLE_NODE),
    ] {
        check_needed(Some(rule), None, scenario);
    }
}

#[test]
fn every_promise_of_the_node_is_needed() {
    for (promise, scenario) in [
        (Promise::Transactions, &FOREIGN_EARLY),
        (Promise::PromotionReadsLast, &FOREIGN_EARLY),
        (Promise::FlushReadsLast, &FOREIGN),
        (Promise::DoneReadsNow, &FOREIGN_LOSS),
        (Promise::Numbers, &LOSS),
        (Promise::Fence, &LATE_SET),
        (Promise::Watch, &UNSCRIPTED_LOSS),
    ] {
        check_needed(None, Some(promise), scenario);
    }
}
