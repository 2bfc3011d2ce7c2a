//! Many clients at once: what each was told fits one order per key, and the sums are exact.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Request, words};
use crate::harness::{Settings, Stack, bare, eventually, now, skipped_on_bare_redis};
use crate::history::{Action, Operation, explain};
use crate::random::Random;
use crate::reply::Reply;
use crate::servers::Tally;

/// A load of random operations on plain keys.
struct Load {
    clients: usize,
    operations: usize,
    keys: usize,
    /// Of 100 operations, how many increment or decrement.
    increments: usize,
}

/// Runs the load, each second client with pipelines, and checks every key's history.
#[track_caller]
fn check_load(load: &Load, settings: Settings<'_>) {
    let stack = Stack::start(settings);
    let keys = record(load, &[stack.address()]);
    assert!(keys.len() <= load.keys);
    for (key, history) in keys {
        if let Err(unexplained) = explain(&history) {
            let seed = seed();
            panic!("TALLY_SUITE_SEED={seed}, {settings:?}, key k{key}: {unexplained:?}");
        }
    }
}

fn seed() -> u64 {
    Random::seed_or(0x00C0_FFEE)
}

/// Runs the load, the clients shared among the addresses; every key's history.
fn record(load: &Load, addresses: &[SocketAddr]) -> HashMap<usize, Vec<Operation>> {
    let seed = seed();
    let start = Barrier::new(load.clients);
    let clock = now();
    let histories: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..load.clients)
            .map(|client| {
                let start = &start;
                let address = addresses[client % addresses.len()];
                scope.spawn(move || {
                    let mut connection = Connection::open(address);
                    start.wait();
                    run_client(load, client, seed, &mut connection, clock)
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    let mut keys: HashMap<usize, Vec<Operation>> = HashMap::new();
    for (key, operation) in histories.into_iter().flatten() {
        keys.entry(key).or_default().push(operation);
    }
    keys
}

/// Nodes, and two Tallies before them.
fn two_tallies(settings: Settings<'_>) -> (Stack, Tally) {
    let stack = Stack::start(settings);
    let other = Tally::start(&stack.nodes, settings);
    (stack, other)
}

fn run_client(
    load: &Load,
    client: usize,
    seed: u64,
    connection: &mut Connection,
    clock: Instant,
) -> Vec<(usize, Operation)> {
    let time = || u64::try_from(clock.elapsed().as_nanos()).unwrap();
    let mut random = Random::new(seed ^ (u64::try_from(client).unwrap() << 32));
    let mut done = Vec::with_capacity(load.operations);
    while done.len() < load.operations {
        let depth = if client.is_multiple_of(2) {
            1
        } else {
            1 + random.below(10)
        };
        let batch: Vec<_> = (0..depth)
            .map(|_| (random.below(load.keys), random_action(load, &mut random)))
            .collect();
        let bytes: Vec<u8> = batch
            .iter()
            .flat_map(|(key, action)| crate::connection::encode(&request(*key, action)))
            .collect();
        let began = time();
        connection.write_raw(&bytes);
        for (key, action) in batch {
            let reply = Some(connection.read_reply());
            let operation = Operation {
                client,
                began,
                ended: time(),
                action,
                reply,
            };
            done.push((key, operation));
        }
    }
    done
}

fn random_action(load: &Load, random: &mut Random) -> Action {
    if random.below(100) < load.increments {
        let amounts = [&1, &1, &1, &1, &-1, &5, &-7, &1_000_000_007];
        return Action::IncrBy(*random.pick::<i64>(&amounts));
    }
    let values = [
        "0",
        "41",
        "-3",
        "007",
        "x",
        "9223372036854775800",
        "-9223372036854775807",
    ];
    match random.below(20) {
        0..8 => Action::Get,
        8..12 => Action::Set(random.pick(&values).into()),
        12..15 => Action::Del,
        15..18 => Action::Expire,
        _ => Action::Append(random.pick(&["1", "0", "-"]).into()),
    }
}

fn request(key: usize, action: &Action) -> Request {
    let mut request = words(&match action {
        Action::IncrBy(1) => format!("INCR k{key}"),
        Action::IncrBy(-1) => format!("DECR k{key}"),
        Action::IncrBy(amount @ -7) => format!("DECRBY k{key} {}", -amount),
        Action::IncrBy(amount) => format!("INCRBY k{key} {amount}"),
        Action::Get => format!("GET k{key}"),
        Action::Set(_) => format!("SET k{key}"),
        Action::Del => format!("DEL k{key}"),
        Action::Expire => format!("EXPIRE k{key} 5000"),
        Action::Append(_) => format!("APPEND k{key}"),
    });
    if let Action::Set(value) | Action::Append(value) = action {
        request.push(value.clone());
    }
    request
}

/// The load that the contract names: 50 clients, 100 keys.
const WIDE: Load = Load {
    clients: 50,
    operations: 120,
    keys: 100,
    increments: 45,
};

/// A few hot keys with mostly increments, so that they are warm when something else comes.
const HOT: Load = Load {
    clients: 8,
    operations: 250,
    keys: 4,
    increments: 85,
};

#[test]
fn fifty_clients_on_a_hundred_keys_see_one_order_when_buffered() {
    check_load(&WIDE, &[]);
}

#[test]
fn fifty_clients_on_a_hundred_keys_see_one_order_when_exact() {
    check_load(&WIDE, &[("counters.mode", "\"exact\"")]);
}

#[test]
fn fifty_clients_on_a_hundred_keys_see_one_order_when_through() {
    check_load(&WIDE, &[("counters.mode", "\"through\"")]);
}

#[test]
fn clients_of_a_few_hot_keys_see_one_order_when_buffered() {
    check_load(&HOT, &[("counters.flush_interval", "\"10ms\"")]);
}

#[test]
fn clients_of_a_few_hot_keys_see_one_order_when_exact() {
    check_load(&HOT, &[("counters.mode", "\"exact\"")]);
}

#[test]
fn clients_of_several_workers_see_one_order() {
    let settings: Settings<'_> = &[
        ("server.threads", "3"),
        ("counters.flush_interval", "\"10ms\""),
    ];
    check_load(&HOT, settings);
    check_load(&WIDE, settings);
}

#[test]
fn a_table_of_few_keys_changes_no_reply() {
    let settings: Settings<'_> = &[
        ("counters.max_keys", "10"),
        ("cache.max_bytes", "\"64KiB\""),
    ];
    check_load(&WIDE, settings);
}

#[test]
fn clients_of_two_tallies_see_one_order_when_exact() {
    if skipped_on_bare_redis() {
        return;
    }
    let settings: Settings<'_> = &[("counters.mode", "\"exact\""), ("cache.ttl", "\"0s\"")];
    let (stack, other) = two_tallies(settings);
    for load in [&HOT, &WIDE] {
        assert!(stack.connect().run("FLUSHALL").is_ok());
        for (key, history) in record(load, &[stack.address(), other.address()]) {
            if let Err(unexplained) = explain(&history) {
                panic!("TALLY_SUITE_SEED={}, key k{key}: {unexplained:?}", seed());
            }
        }
    }
}

/// One key, few clients: a history that has no explanation is soon searched through.
const SMALL: Load = Load {
    clients: 4,
    operations: 60,
    keys: 1,
    increments: 85,
};

/// Two Tallies in the mode `buffered` lag each other: the checker has to find that out.
#[test]
fn two_buffered_tallies_are_found_to_lag() {
    if skipped_on_bare_redis() {
        return;
    }
    let (stack, other) = two_tallies(&[]);
    let found = eventually(Duration::from_secs(20), || {
        assert!(stack.connect().run("FLUSHALL").is_ok());
        let keys = record(&SMALL, &[stack.address(), other.address()]);
        keys.values().any(|history| explain(history).is_err())
    });
    assert!(found, "no history of two buffered Tallies shows their lag");
}

#[test]
fn one_reply_changed_in_a_real_history_is_found() {
    let stack = Stack::start(&[("counters.flush_interval", "\"10ms\"")]);
    let mut history = record(&SMALL, &[stack.address()]).remove(&0).unwrap();
    assert!(explain(&history).is_ok());
    let is_number = |operation: &&mut Operation| matches!(operation.reply, Some(Reply::Integer(_)));
    let numbers = history.iter_mut().filter(is_number).count();
    let changed = history.iter_mut().filter(is_number).nth(numbers / 2);
    let changed = changed.unwrap();
    changed.reply = Some(Reply::Integer(i64::MIN + 1));
    assert!(
        explain(&history).is_err(),
        "a number from nowhere is explained"
    );
}

#[track_caller]
fn check_increments(settings: Settings<'_>) {
    const CLIENTS: usize = 50;
    const EACH: usize = 400;
    let mut stack = Stack::start(settings);
    let address = stack.address();
    let per_client: Vec<Vec<i64>> = thread::scope(|scope| {
        let run = |client| scope.spawn(move || increments(address, client, EACH));
        let clients: Vec<_> = (0..CLIENTS).map(run).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    let mut replies = per_client.concat();
    for one in &per_client {
        assert!(one.is_sorted(), "a client's own numbers rise: {one:?}");
    }
    replies.sort_unstable();
    let expected: Vec<i64> = (1..).take(CLIENTS * EACH).collect();
    assert!(
        replies == expected,
        "each number from 1 to {} once",
        expected.len()
    );
    stack.stop_tally();
    assert_eq!(total(&stack, "hot"), i64::try_from(expected.len()).unwrap());
}

/// Increments `hot`, in pipelines for each second client; the numbers it was given.
fn increments(address: SocketAddr, client: usize, count: usize) -> Vec<i64> {
    let mut connection = Connection::open(address);
    let depth = if client.is_multiple_of(2) { 1 } else { 20 };
    let mut replies = Vec::new();
    for _ in 0..count / depth {
        let frames = connection.pipeline(&vec![words("INCR hot"); depth]);
        replies.extend(frames.iter().map(|frame| Reply::parse(frame).integer()));
    }
    replies
}

/// What all nodes hold for a counter, read from themselves.
fn total(stack: &Stack, key: &str) -> i64 {
    let values = stack
        .nodes
        .iter()
        .map(|node| match node.connect().call(&["GET", key]) {
            Reply::Nil => 0,
            value => value.text().parse::<i64>().unwrap(),
        });
    values.sum()
}

#[test]
fn increments_of_many_clients_give_each_number_once_when_buffered() {
    check_increments(&[("counters.flush_interval", "\"20ms\"")]);
}

#[test]
fn increments_of_many_clients_give_each_number_once_when_exact() {
    check_increments(&[("counters.mode", "\"exact\"")]);
}

#[test]
fn increments_of_many_clients_give_each_number_once_when_through() {
    check_increments(&[("counters.mode", "\"through\"")]);
}

#[test]
fn clients_that_vanish_mid_pipeline_neither_lose_nor_invent_increments() {
    const DEPTH: usize = 100;
    for mode in ["\"buffered\"", "\"exact\"", "\"through\""] {
        let mut stack = Stack::start(&[("counters.mode", mode)]);
        let address = stack.address();
        let seed = Random::seed_or(0xDEAD);
        let acknowledged: usize = thread::scope(|scope| {
            let clients: Vec<_> = (0..20_u64)
                .map(|client| {
                    scope.spawn(move || {
                        let mut random = Random::new(seed + client);
                        let mut read = 0;
                        for _ in 0..10 {
                            let mut connection = Connection::open(address);
                            let batch = crate::connection::encode(&["INCR", "hot"]).repeat(DEPTH);
                            connection.write_raw(&batch);
                            let wanted = random.below(DEPTH + 1);
                            for _ in 0..wanted {
                                connection.read_reply().integer();
                            }
                            read += wanted;
                        }
                        read
                    })
                })
                .collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .sum()
        });
        if bare() {
            // Redis may still be reading what the last clients left behind.
            assert!(stack.connect().is_alive());
        }
        stack.stop_tally();
        let applied = usize::try_from(total(&stack, "hot")).unwrap();
        let attempted = 20 * 10 * DEPTH;
        assert!(
            (acknowledged..=attempted).contains(&applied),
            "mode {mode}, seed {seed}: {acknowledged} <= {applied} <= {attempted}"
        );
    }
}

#[test]
fn a_stop_under_load_loses_no_acknowledged_increment() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[("counters.flush_interval", "\"10s\"")]);
    let address = stack.address();
    let keys = ["a", "b", "c", "d", "e"];
    let started = Barrier::new(11);
    let (acknowledged, attempted) = thread::scope(|scope| {
        let clients: Vec<_> = (0..10)
            .map(|client| {
                let started = &started;
                scope.spawn(move || {
                    let mut connection = Connection::open(address);
                    let mut counts = (0_i64, 0_i64);
                    while counts.1 < 200_000 {
                        if counts.1 == 1_000 {
                            started.wait();
                        }
                        counts.1 += 1;
                        match connection.try_call(&["INCR", keys[client % keys.len()]]) {
                            Ok(Reply::Integer(_)) => counts.0 += 1,
                            Ok(_) => {}
                            Err(_) => break,
                        }
                    }
                    counts
                })
            })
            .collect();
        started.wait();
        stack.stop_tally();
        let counts = clients.into_iter().map(|client| client.join().unwrap());
        counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    let applied: i64 = keys.iter().map(|key| total(&stack, key)).sum();
    assert!(acknowledged >= 10_000, "{acknowledged} before the stop");
    assert!(
        (acknowledged..=attempted).contains(&applied),
        "{acknowledged} <= {applied} <= {attempted}"
    );
}
