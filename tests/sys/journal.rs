//! What Tally acknowledged survives Tally: `kill -9` at any instant, nodes away meanwhile, stops
//! that could not flush.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::connection::{Connection, encode};
use crate::harness::{Settings, Stack, eventually, pause, skipped_on_bare_redis};
use crate::random::Random;
use crate::reply::Reply;
use crate::servers::Redis;

/// For a key: the sum of what was acknowledged, and how many increments nobody answered.
type Sums = BTreeMap<String, (i64, i64)>;

/// Sends pipelines of increments until told to stop, to whatever listens there.
fn count(address: SocketAddr, client: u64, stop: &AtomicBool) -> Sums {
    let mut random = Random::new(client);
    let mut sums = Sums::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut connection) = Connection::try_open(address) else {
            pause(Duration::from_millis(2));
            continue;
        };
        connection.set_patience(Duration::from_secs(20));
        while !stop.load(Ordering::Relaxed) {
            let keys: Vec<_> = (0..16).map(|_| format!("k{}", random.below(40))).collect();
            let requests = keys.iter().flat_map(|key| encode(&["INCR", key]));
            let sent = connection.try_write_raw(&requests.collect::<Vec<_>>());
            let mut broken = sent.is_err();
            for key in keys {
                let (acknowledged, unknown) = sums.entry(key).or_default();
                let reply = if broken {
                    None
                } else {
                    connection.try_read_frame().ok()
                };
                match reply.map(|frame| Reply::parse(&frame)) {
                    Some(Reply::Integer(_)) => *acknowledged += 1,
                    Some(Reply::Error(_)) => *unknown += 1,
                    Some(other) => panic!("{other:?}"),
                    None => {
                        broken = true;
                        *unknown += 1;
                    }
                }
            }
            if broken {
                break;
            }
        }
    }
    sums
}

/// Asserts that the nodes hold everything acknowledged once, and of the rest each once at most.
#[track_caller]
fn audit(nodes: &[Redis], sums: impl IntoIterator<Item = Sums>) {
    let mut all = Sums::new();
    for (key, (acknowledged, unknown)) in sums.into_iter().flatten() {
        let sum = all.entry(key).or_default();
        *sum = (sum.0 + acknowledged, sum.1 + unknown);
    }
    let (mut total, mut wrong) = (0, Vec::new());
    for (key, (acknowledged, unknown)) in all {
        let held: i64 = nodes.iter().map(|node| held(node, &key)).sum();
        if held < acknowledged || held > acknowledged + unknown {
            wrong.push(format!("{key}: {held}, not {acknowledged}..+{unknown}"));
        }
        total += acknowledged;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(total > 1000, "there was load: {total}");
}

fn held(node: &Redis, key: &str) -> i64 {
    match node.connect().run(&format!("GET {key}")) {
        Reply::Bulk(text) => String::from_utf8(text).unwrap().parse().unwrap(),
        Reply::Nil => 0,
        other => panic!("{other:?}"),
    }
}

const QUICK: Settings<'_> = &[
    ("upstream.backoff_min", "\"5ms\""),
    ("upstream.backoff_max", "\"50ms\""),
];

/// While `happen` does what it does, clients count; then Tally stops in good order and the nodes
/// are audited.
#[track_caller]
fn audited(settings: Settings<'_>, happen: impl FnOnce(&mut Stack, &mut Random)) {
    let nodes = vec![Redis::start_durable(), Redis::start_durable()];
    let mut stack = Stack::over(nodes, &[QUICK, settings].concat());
    let (address, stop) = (stack.address(), AtomicBool::new(false));
    let sums: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let stop = &stop;
                scope.spawn(move || count(address, client, stop))
            })
            .collect();
        let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            happen(&mut stack, &mut Random::new(Random::seed_or(7)));
        }));
        stop.store(true, Ordering::Relaxed);
        let sums = clients.into_iter().map(|client| client.join().unwrap());
        let sums = sums.collect();
        happened.unwrap();
        sums
    });
    stack.stop_tally();
    audit(&stack.nodes, sums);
}

#[test]
fn kills_at_random_instants_lose_and_double_nothing() {
    if skipped_on_bare_redis() {
        return;
    }
    audited(&[], |stack, random| {
        for _ in 0..20 {
            pause(Duration::from_millis(20 + random.next() % 150));
            let tally = stack.tally.as_mut().unwrap();
            tally.kill();
            tally.restart();
        }
    });
}

#[test]
fn kills_of_tally_and_of_nodes_lose_and_double_nothing() {
    if skipped_on_bare_redis() {
        return;
    }
    audited(&[], |stack, random| {
        for round in 0..8 {
            pause(Duration::from_millis(50 + random.next() % 150));
            let node = &mut stack.nodes[round % 2];
            node.kill();
            pause(Duration::from_millis(random.next() % 100));
            let tally = stack.tally.as_mut().unwrap();
            tally.kill();
            if round % 4 < 2 {
                stack.nodes[round % 2].restart();
                tally.restart();
            } else {
                tally.restart();
                pause(Duration::from_millis(random.next() % 200));
                stack.nodes[round % 2].restart();
            }
        }
    });
}

#[test]
fn frozen_nodes_and_cut_connections_lose_and_double_nothing() {
    if skipped_on_bare_redis() {
        return;
    }
    let settings = [
        ("upstream.request_timeout", "\"100ms\""),
        ("upstream.hard_timeout", "\"200ms\""),
    ];
    audited(&settings, |stack, random| {
        for round in 0..8 {
            pause(Duration::from_millis(50 + random.next() % 100));
            let node = &stack.nodes[round % 2];
            node.freeze();
            // Longer than every timeout: what was sent is executed when the node goes on.
            pause(Duration::from_millis(400));
            if round % 3 == 2 {
                let tally = stack.tally.as_mut().unwrap();
                tally.kill();
                tally.relaunch();
            }
            node.thaw();
            pause(Duration::from_millis(random.next() % 100));
            node.connect().run("CLIENT KILL TYPE normal SKIPME yes");
        }
    });
}

/// A Tally with a warm counter of 3 on its first node, of which Redis has 2.
fn with_one_unflushed() -> (Stack, String) {
    let settings = [("counters.flush_interval", "\"1m\"")];
    let nodes = vec![Redis::start_durable(), Redis::start_durable()];
    let stack = Stack::over(nodes, &[QUICK, &settings].concat());
    let key = stack.key_on(0, "counter");
    let mut client = stack.connect();
    for want in 1..=3 {
        assert_eq!(client.run(&format!("INCR {key}")).integer(), want);
    }
    assert_eq!(held(&stack.nodes[0], &key), 2);
    (stack, key)
}

#[test]
fn what_a_killed_process_acknowledged_is_there_for_the_next_one_s_clients() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    let tally = stack.tally.as_mut().unwrap();
    tally.kill();
    tally.restart();
    let mut client = stack.connect();
    let lines = [format!("GET {key}"), format!("INCR {key}")];
    let replies = client.run_all(&lines);
    assert_eq!((replies[0].text().as_str(), replies[1].integer()), ("3", 4));
    assert_eq!(client.run(&format!("GETDEL {key}")).text(), "4");
    stack.stop_tally();
    assert_eq!(held(&stack.nodes[0], &key), 0, "nothing comes after");
}

#[test]
fn a_deadline_that_only_tally_knew_survives_it() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    let mut client = stack.connect();
    assert_eq!(
        client.run(&format!("EXPIRE {key} 50000000")).integer(),
        1,
        "so late that the guard of two minutes is before it"
    );
    let pttl = format!("PTTL {key}");
    assert_eq!(stack.nodes[0].connect().run(&pttl).integer(), -1);
    let tally = stack.tally.as_mut().unwrap();
    tally.kill();
    tally.restart();
    let left = stack.connect().run(&pttl).integer();
    assert!((49_000_000_000..=50_000_000_000).contains(&left), "{left}");
    stack.stop_tally();
    let left = stack.nodes[0].connect().run(&pttl).integer();
    assert!((49_000_000_000..=50_000_000_000).contains(&left), "{left}");
    assert_eq!(held(&stack.nodes[0], &key), 3);
}

#[test]
fn what_a_stop_can_not_flush_is_flushed_by_the_next_start() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    stack.nodes[0].kill();
    let tally = stack.tally.as_mut().unwrap();
    tally.configure(|text| text.replacen("[server]", "[server]\ndrain_timeout = \"300ms\"", 1));
    tally.kill();
    tally.restart();
    tally.signal("TERM");
    let status = tally.wait(Duration::from_secs(15)).expect("an end");
    assert_eq!(status.code(), Some(1), "{}", tally.log());
    let kept = "increments on 1 keys that could not be flushed; the journal keeps them";
    assert!(tally.log().contains(kept), "{}", tally.log());
    stack.nodes[0].restart();
    tally.restart();
    stack.stop_tally();
    assert_eq!(held(&stack.nodes[0], &key), 3);
}

#[test]
fn a_node_with_unflushed_increments_can_not_be_left_out() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    let tally = stack.tally.as_mut().unwrap();
    tally.kill();
    tally.configure(|text| text.replacen("redis_7070", "other", 1));
    tally.relaunch();
    let status = tally.wait(Duration::from_secs(15)).expect("an end");
    assert_eq!(status.code(), Some(1));
    assert!(
        tally.log().contains("of node redis_7070"),
        "{}",
        tally.log()
    );
    tally.configure(|text| text.replacen("other", "redis_7070", 1));
    tally.restart();
    stack.stop_tally();
    assert_eq!(held(&stack.nodes[0], &key), 3);
}

/// What `tally journal inspect` prints.
#[track_caller]
fn inspected(path: &Path) -> String {
    let arguments = ["journal", "inspect", path.to_str().unwrap()];
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_journal_in_use_or_of_somebody_else_is_refused() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    let path = stack
        .tally
        .as_ref()
        .unwrap()
        .directory()
        .join("data/journal");
    let setting = format!("{:?}", path.display().to_string());
    let nodes: Vec<_> = stack
        .nodes
        .iter()
        .map(|node| (node.address(), None))
        .collect();
    let refused = |words: &str| {
        let mut other = crate::servers::Tally::launch(&nodes, &[("journal.path", &setting)]);
        let status = other.wait(Duration::from_secs(15)).expect("an end");
        assert_eq!(status.code(), Some(1));
        assert!(other.log().contains(words), "{}", other.log());
    };
    refused("is in use by another process");
    assert_eq!(
        inspected(&path).lines().last(),
        Some(format!("pending  redis_7070  \"{key}\"  +1").as_str())
    );
    let tally = stack.tally.as_mut().unwrap();
    tally.kill();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, "not a journal at all").unwrap();
    refused("it is no journal of Tally");
    fs::write(&path, &whole[..5000]).unwrap();
    refused("it was cut short");
    let mut bytes = whole.clone();
    let at = bytes
        .windows(key.len())
        .position(|part| part == key.as_bytes());
    bytes[at.expect("the key")] ^= 1;
    fs::write(&path, &bytes).unwrap();
    refused("slot 0 is damaged");
    assert_eq!(fs::read(&path).unwrap(), bytes, "left as it is");
    fs::write(&path, &whole).unwrap();
    tally.restart();
    stack.stop_tally();
    assert_eq!(held(&stack.nodes[0], &key), 3);
}

#[test]
fn a_process_whose_journal_another_went_on_with_stops_buffering() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    let mut client = stack.connect();
    let tally = stack.tally.as_ref().unwrap();
    let path = tally.directory().join("data/journal");
    let copy = path.with_extension("copy");
    tally.signal("STOP");
    fs::copy(&path, &copy).unwrap();
    let setting = format!("{:?}", copy.display().to_string());
    let nodes: Vec<_> = stack
        .nodes
        .iter()
        .map(|node| (node.address(), None))
        .collect();
    // It takes the series over, with what the copy holds.
    let mut other = crate::servers::Tally::start_before(&nodes, &[("journal.path", &setting)]);
    let there = || held(&stack.nodes[0], &key) == 3;
    assert!(eventually(Duration::from_secs(10), there));
    other.terminate();
    stack.tally.as_ref().unwrap().signal("CONT");
    // Its batch is refused, and it acknowledges nothing more that it could not apply.
    let log = || stack.tally.as_ref().unwrap().log();
    let fenced = || log().contains("nothing is buffered any more");
    assert!(eventually(Duration::from_secs(10), fenced), "{}", log());
    for want in 4..=6 {
        assert_eq!(client.run(&format!("INCR {key}")).integer(), want);
        assert_eq!(held(&stack.nodes[0], &key), want, "not buffered");
    }
    stack.stop_tally();
    assert_eq!(held(&stack.nodes[0], &key), 6);
}
