//! Random runs, and what must hold after each.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use tally::counter::{Mode, Treatment};

use super::book::{Argv, argv, delta_of};
use super::history::explain;
use super::node::Node;
use super::plan::{BUFFERED, Plan};
use super::sim::{Sim, UNKNOWN};
use crate::random::Random;

/// Runs `seeds` seeds from the first one on (`TALLY_SUITE_SEED` sets it), and prints a failing
/// run's story.
fn many(seeds: u64, plan: impl Fn(&mut Random) -> Plan, check: impl Fn(&mut Sim)) {
    let first = Random::seed_or(1);
    for seed in first..first + seeds {
        let tell = |log: Option<Vec<String>>| {
            let plan = plan(&mut Random::new(seed));
            let scripts = seed % 3 > 0;
            let mut sim = Sim::new(Plan { scripts, ..plan }, seed);
            sim.book.log = log;
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                sim.run();
                sim.check_at_rest();
                check(&mut sim);
            }));
            outcome.map_err(|panic| (panic, sim.book.log))
        };
        if tell(None).is_err()
            && let Err((panic, log)) = tell(Some(Vec::new()))
        {
            let story = log.unwrap_or_default().join("\n");
            let report = format!("the run with seed {seed} failed:\n{story}\n");
            std::io::Write::write_all(&mut std::io::stderr(), report.as_bytes()).unwrap();
            resume_unwind(panic);
        }
    }
}

const DELTAS: &[&str] = &[
    "1",
    "1",
    "1",
    "-1",
    "0",
    "5",
    "-3",
    "9223372036854775807",
    "-9223372036854775807",
    "-9223372036854775808",
    "4611686018427387904",
];

const VALUES: &[&str] = &[
    "0",
    "7",
    "007",
    "text",
    "",
    "9223372036854775806",
    "-9223372036854775807",
    "-9223372036854775808",
];

/// Any command on any key, most often an increment.
fn any_command(random: &mut Random, keys: &[&'static str]) -> Argv {
    let key = random.pick(keys);
    let other = random.pick(keys);
    let value = random.pick(VALUES);
    match random.below(60) {
        0..=23 => argv(&["INCRBY", key, random.pick(DELTAS)]),
        24..=33 => argv(&["GET", key]),
        34..=36 => argv(&["MGET", key, other]),
        37 => argv(&["MGET", key, other, key]),
        38..=40 => argv(&["SET", key, value]),
        41 => argv(&["SET", key, value, "EX", "1000"]),
        42 => argv(&["SET", key, value, "NX"]),
        43 => argv(&["DEL", key]),
        44 => argv(&["DEL", key, other]),
        45 => argv(&["APPEND", key, "1"]),
        46 => argv(&["GETDEL", key]),
        47 => argv(&["EXPIRE", key, "1000"]),
        48 => argv(&["PERSIST", key]),
        49 => argv(&["EXISTS", key, other]),
        50 => argv(&["TYPE", key]),
        51 => argv(&["STRLEN", key]),
        52 => argv(&["LPUSH", key, "x"]),
        53 => argv(&["MSETNX", key, value, other, value]),
        54 => argv(&["MSET", key, "1", other, "2"]),
        55 => argv(&["RENAME", key, other]),
        56 => argv(&["PING"]),
        57 => argv(&["DBSIZE"]),
        58 if random.one_in(2) => argv(&["FLUSHALL"]),
        59 if random.one_in(2) => argv(&["DEBUG", "DIGEST"]),
        _ => argv(&["INCRBY", key, "1"]),
    }
}

/// Commands of which each concerns its keys one by one, with small values.
fn simple_command(random: &mut Random, keys: &[&'static str]) -> Argv {
    let key = random.pick(keys);
    let other = random.pick(keys);
    match random.below(40) {
        0..=15 => argv(&["INCRBY", key, random.pick(&["1", "1", "-1", "3"])]),
        16..=23 => argv(&["GET", key]),
        24..=26 => argv(&["MGET", key, other]),
        27..=28 => argv(&["SET", key, random.pick(&["0", "10", "x"])]),
        29 => argv(&["DEL", key]),
        30 => argv(&["DEL", key, other]),
        31 => argv(&["APPEND", key, "1"]),
        32 => argv(&["EXPIRE", key, "1000"]),
        33 => argv(&["EXISTS", key]),
        34 => argv(&["STRLEN", key]),
        35 => argv(&["MSET", key, "1", other, "1"]),
        36 => argv(&["GETDEL", key]),
        37 => argv(&["PING"]),
        38 if random.one_in(2) => argv(&["FLUSHALL"]),
        _ => argv(&["INCRBY", key, "1"]),
    }
}

/// Increments, each by an amount that tells it from the others, and reads that may wait for them.
fn counting_command(random: &mut Random, keys: &[&'static str]) -> Argv {
    let key = random.pick(keys);
    let other = random.pick(keys);
    match random.below(18) {
        0 => argv(&["GET", key]),
        1 => argv(&["MGET", key, other]),
        2 => argv(&["STRLEN", key]),
        3 => argv(&["EXISTS", key, other]),
        4 => argv(&["PING"]),
        5 if random.one_in(3) => argv(&["DEBUG", "DIGEST"]),
        _ => {
            let amount = i64::try_from(random.next() >> 24).unwrap();
            let delta = if random.one_in(4) { -amount } else { amount };
            argv(&["INCRBY", key, &delta.to_string()])
        }
    }
}

/// Commands on keys most of which end within the run.
fn ending_command(random: &mut Random, keys: &[&'static str]) -> Argv {
    let key = random.pick(keys);
    let ms = random.pick(&["1", "10", "30", "80"]);
    match random.below(16) {
        0 => argv(&["SET", key, "5", "PX", ms]),
        1 => argv(&["PEXPIRE", key, ms]),
        2 => argv(&["PERSIST", key]),
        3 => argv(&["STRLEN", key]),
        4..=7 => argv(&["GET", key]),
        8 => argv(&["MGET", key, "b"]),
        _ => argv(&["INCRBY", key, "1"]),
    }
}

const EXACT: Treatment = Treatment {
    mode: Mode::Exact,
    ..BUFFERED
};

const PATIENT: Treatment = Treatment {
    window: Duration::from_millis(5),
    local_grants: false,
    ..EXACT
};

const THROUGH: Treatment = Treatment {
    mode: Mode::Through,
    ..BUFFERED
};

const SLOW: Treatment = Treatment {
    flush_interval: Duration::from_millis(70),
    ..BUFFERED
};

/// Three keys in three modes.
const RULES: &[(&str, Treatment)] = &[("b", EXACT), ("c", THROUGH)];

/// Increments of one of them wait for others.
const PATIENT_RULES: &[(&str, Treatment)] = &[("b", PATIENT), ("c", EXACT)];

/// Two classes of flushes, and a key that is only forwarded.
const RULES_TOO: &[(&str, Treatment)] = &[("[b]", THROUGH), ("?", SLOW)];

fn vary(mut plan: Plan, random: &mut Random) -> Plan {
    plan.lane.warm = !random.one_in(6);
    plan.table.max_keys = [100, 100, 100, 2, 0][random.below(5)];
    plan.table.crowd = [100, 2, 0][random.below(3)];
    plan.table.max_cached_bytes = [1 << 20, 1 << 20, 0, 130][random.below(4)];
    plan.table.lease = Duration::from_millis([50, 50, 5, 0][random.below(4)]);
    plan.lane.max_in_flight = [40, 40, 5][random.below(3)];
    plan.rules = [&[][..], &[], RULES, RULES_TOO, PATIENT_RULES][random.below(5)];
    plan
}

#[test]
fn one_client_hears_what_a_single_node_says() {
    let plan = |random: &mut Random| vary(Plan::new(any_command), random);
    many(2500, plan, |sim| {
        let mut single = Node::default();
        for operation in &sim.book.operations {
            let truth = single.command(&operation.argv);
            let (told, truth) = (operation.reply(), truth.escape_ascii().to_string());
            assert_eq!(told.escape_ascii().to_string(), truth, "{operation:?}");
        }
        let (node, single) = (sim.node.fingerprint(), single.fingerprint());
        assert_eq!(node, single, "the keys at the end");
    });
}

fn concurrent(random: &mut Random) -> Plan {
    let plan = Plan {
        clients: 2 + random.below(3),
        keys: &["a", "b"],
        commands: 30,
        ..Plan::new(simple_command)
    };
    vary(plan, random)
}

fn explained(sim: &mut Sim) {
    assert!(sim.losses.is_empty() || sim.unmarked, "{:?}", sim.losses);
    for key in ["a", "b"] {
        if sim.losses.contains_key(key.as_bytes()) {
            continue;
        }
        explain(&sim.book.operations, key).unwrap();
    }
}

#[test]
fn every_key_has_one_order_for_all_clients() {
    many(1000, concurrent, explained);
}

#[test]
fn one_order_survives_refusals_losses_and_timeouts() {
    let plan = |random: &mut Random| Plan {
        losses: random.one_in(2),
        faults: random.one_in(2),
        timeouts: random.one_in(2),
        forgets: random.one_in(2),
        ..concurrent(random)
    };
    many(1000, plan, explained);
}

/// Asserts that the node holds every acknowledged increment exactly once, except for those in
/// doubt; what ended with an unknown outcome it may hold once.
fn exact(sim: &mut Sim) {
    let mut sums: HashMap<String, (i64, Vec<i64>)> = HashMap::new();
    for operation in &sim.book.operations {
        if operation.argv[0] == b"INCRBY" {
            let key = String::from_utf8(operation.argv[1].clone()).unwrap();
            let (sum, open) = sums.entry(key).or_default();
            match operation.reply() {
                reply if reply[0] == b':' => *sum += delta_of(&operation.argv),
                reply if reply == UNKNOWN => open.push(delta_of(&operation.argv)),
                _ => {}
            }
        }
    }
    for (key, (sum, mut open)) in sums {
        let lost = sim.losses.get(key.as_bytes()).cloned().unwrap_or_default();
        assert_eq!(lost.refused, 0, "key {key}");
        open.extend(lost.in_doubt.iter().map(|delta| -delta));
        let over = sim.held(&key) - sum;
        assert!(
            adds_up(over, &open),
            "key {key}: {over} beside {sum}, open: {open:?}"
        );
    }
}

/// Whether some of `parts` make up `sum`. With too many of them it just says yes.
fn adds_up(sum: i64, parts: &[i64]) -> bool {
    let mut sums = HashSet::from([0]);
    for part in parts.iter().take(10) {
        sums = sums.iter().flat_map(|sum| [*sum, sum + part]).collect();
    }
    parts.len() > 10 || sums.contains(&sum)
}

fn counting(random: &mut Random) -> Plan {
    let plan = Plan {
        clients: 3,
        faults: random.one_in(2),
        forgets: random.one_in(2),
        ..Plan::new(counting_command)
    };
    vary(plan, random)
}

fn nothing_lost(sim: &mut Sim) {
    // Without a marker to begin with nobody knows what became of the first batch.
    assert!(sim.losses.is_empty() || sim.unmarked, "{:?}", sim.losses);
    exact(sim);
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled() {
    many(700, counting, nothing_lost);
}

#[test]
fn lost_connections_neither_lose_nor_double_what_was_acknowledged() {
    let plan = |random: &mut Random| Plan {
        losses: true,
        timeouts: random.one_in(4),
        commands: 100,
        ..counting(random)
    };
    many(1000, plan, nothing_lost);
}

#[test]
fn a_killed_process_neither_loses_nor_doubles_what_it_had_acknowledged() {
    let plan = |random: &mut Random| Plan {
        kills: true,
        losses: random.one_in(2),
        commands: 120,
        ..counting(random)
    };
    many(1500, plan, nothing_lost);
}

#[test]
fn a_machine_without_power_counts_nothing_twice() {
    let plan = |random: &mut Random| Plan {
        outages: true,
        losses: random.one_in(2),
        commands: 120,
        command: |random, keys| match random.below(8) {
            0 => argv(&["GET", random.pick(keys)]),
            1 => argv(&["STRLEN", random.pick(keys)]),
            _ => argv(&["INCRBY", random.pick(keys), "1"]),
        },
        ..counting(random)
    };
    many(1500, plan, |sim| {
        let mut most: HashMap<String, i64> = HashMap::new();
        for operation in &sim.book.operations {
            let reply = operation.reply();
            if operation.argv[0] == b"INCRBY" && (reply[0] == b':' || reply == UNKNOWN) {
                let key = String::from_utf8(operation.argv[1].clone()).unwrap();
                *most.entry(key).or_default() += 1;
            }
        }
        for (key, most) in most {
            let held = sim.held(&key);
            assert!(
                held <= most,
                "key {key}: {held}, acknowledged {most} at most"
            );
        }
    });
}

/// Power is lost, or the process is killed, where replies and batches wait for the disk.
fn committing(random: &mut Random) -> Plan {
    Plan {
        outages: true,
        commits: true,
        kills: random.one_in(3),
        losses: random.one_in(2),
        commands: 120,
        ..counting(random)
    }
}

#[test]
fn a_machine_without_power_loses_nothing_that_was_on_the_disk_before_its_reply() {
    many(1500, committing, |sim| {
        nothing_lost(sim);
        assert_eq!(sim.forgotten, 0, "batches that the node had acknowledged");
    });
}

#[test]
fn every_key_has_one_order_over_power_cuts() {
    let plan = |random: &mut Random| Plan {
        command: simple_command,
        commands: 50,
        keys: &["a", "b"],
        ..committing(random)
    };
    many(1000, plan, explained);
}

#[test]
fn every_key_has_one_order_over_the_end_of_the_process() {
    let plan = |random: &mut Random| Plan {
        kills: true,
        losses: random.one_in(2),
        faults: random.one_in(2),
        commands: 50,
        ..concurrent(random)
    };
    many(1000, plan, explained);
}

#[test]
fn a_marker_that_vanishes_while_connected_leaves_no_doubt() {
    let plan = |random: &mut Random| Plan {
        evicts: true,
        ..counting(random)
    };
    many(700, plan, nothing_lost);
}

#[test]
fn only_what_the_marker_s_loss_leaves_open_is_in_doubt() {
    let plan = |random: &mut Random| Plan {
        losses: true,
        evicts: true,
        commands: 100,
        ..counting(random)
    };
    many(1000, plan, |sim| {
        // An unanswered batch and an eviction have to come together.
        exact(sim);
    });
}

#[test]
fn what_is_given_up_is_named_though_the_process_is_killed_before_it_could_be() {
    let plan = |random: &mut Random| Plan {
        losses: true,
        evicts: true,
        kills: true,
        commands: 60,
        clients: 2,
        ..counting(random)
    };
    many(1500, plan, exact);
}

#[test]
fn a_node_that_comes_back_with_less_is_written_to_again() {
    let plan = |random: &mut Random| Plan {
        losses: random.one_in(2),
        restores: true,
        ..counting(random)
    };
    // Comes to rest, and the table answers as the node does.
    many(700, plan, |sim| {
        assert!(sim.losses.is_empty() || sim.unmarked, "{:?}", sim.losses);
    });
}

#[test]
fn what_others_write_is_seen_after_the_lease() {
    let plan = |random: &mut Random| {
        let plan = Plan {
            clients: 3,
            foreign: true,
            ..Plan::new(any_command)
        };
        vary(plan, random)
    };
    many(700, plan, |sim| {
        // Longer than any lease or flush interval.
        sim.advance(71);
        sim.check_fresh();
        let mut fresh = Vec::new();
        for key in ["a", "b", "c"] {
            let told = sim.table.get(key.as_bytes(), sim.now, &mut fresh);
            assert!(!told, "still answered: {}", fresh.escape_ascii());
        }
    });
}

#[test]
fn nothing_is_answered_past_its_deadline() {
    let plan = |random: &mut Random| {
        let plan = Plan {
            clients: 2,
            ..Plan::new(ending_command)
        };
        vary(plan, random)
    };
    many(1000, plan, |sim| {
        for _ in 0..10 {
            sim.advance(7);
            sim.check_fresh();
        }
    });
}
