//! What the parts of the warm path cost, without sockets: `cargo bench --bench core`.
//!
//! On a busy machine compare two builds in one go (`--save-baseline`, `--baseline`), or count
//! instructions (`valgrind --tool=callgrind`); a time alone says little.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a fault ends the benchmark"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use tally::command;
use tally::counter::{Answer, KeyTable, Lane, Limits, Step, TableLimits};
use tally::flush::{Applier, Increment, MAX_KEYS, Series};
use tally::key::Key;
use tally::resp::{self, Request, RequestScanner, Span, encode};
use tally::ring::{Hash, Ring};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    requests(&mut criterion);
    ring(&mut criterion);
    for keys in [10_000, 1_000_000] {
        table(&mut criterion, keys);
    }
    runs(&mut criterion);
    flush(&mut criterion);
    criterion.final_summary();
}

/// A pipeline of 32 `INCR`s: where each ends, and which command it is.
fn requests(criterion: &mut Criterion) {
    let mut bytes = Vec::new();
    for name in names(PIPELINE) {
        encode::request(&mut bytes, &[b"INCR".as_slice(), &name]);
    }
    let limits = resp::Limits {
        authenticated: true,
        ..resp::Limits::default()
    };
    let mut scanner = RequestScanner::new();
    let mut group = criterion.benchmark_group("request");
    group.throughput(Throughput::Elements(to_u64(PIPELINE)));
    group.bench_function("scan", |bencher| {
        bencher.iter(|| {
            let mut unread = black_box(bytes.as_slice());
            while let Ok(Some(len)) = scanner.scan(unread, &limits) {
                black_box(scanner.request(unread).len());
                unread = unread.get(len..).unwrap_or_default();
            }
        });
    });
    let wire = b"INCR";
    let name = [Span { start: 0, len: 4 }, Span { start: 0, len: 4 }];
    group.bench_function("look up", |bencher| {
        bencher.iter(|| {
            for _ in 0..PIPELINE {
                black_box(command::lookup(black_box(&Request::new(wire, &name)))).unwrap();
            }
        });
    });
    group.finish();
}

/// Which node a key belongs to.
fn ring(criterion: &mut Criterion) {
    let names = names(10_000);
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(to_u64(names.len())));
    for (nodes, hash) in [(2, Hash::Xxh3), (25, Hash::Xxh3), (2, Hash::Fnv1a64)] {
        let servers: Vec<String> = (0..nodes).map(|node| format!("node_{node}")).collect();
        let servers: Vec<(&str, u32)> = servers.iter().map(|name| (name.as_str(), 1)).collect();
        let ring = Ring::new(&servers, hash, Some((b'{', b'}'))).unwrap();
        group.bench_function(format!("{} on {nodes} nodes", hash.name()), |bencher| {
            bencher.iter(|| names.iter().map(|name| ring.node(name)).sum::<usize>());
        });
    }
    group.finish();
}

/// A warm increment, with a lock for each and with the table held.
fn table(criterion: &mut Criterion, keys: usize) {
    let now = tokio::time::Instant::now().into_std();
    let mut names = names(keys);
    shuffle(&mut names);
    let mut group = criterion.benchmark_group("warm increment");
    group.throughput(Throughput::Elements(to_u64(keys)));
    if keys > 100_000 {
        group.sample_size(10);
    }
    let locked = warm(&names, 2, now);
    group.bench_function(BenchmarkId::new("locked", keys), |bencher| {
        bencher.iter(|| {
            for name in &names {
                counted(locked.increment(name, 1, now));
            }
        });
    });
    drop(locked);
    let table = warm(&names, 1, now);
    let any = table.spot(b"any");
    let mut held = table.hold(any);
    group.bench_function(BenchmarkId::new("held", keys), |bencher| {
        bencher.iter(|| {
            for name in &names {
                counted(held.increment((table.spot(name), name), 1, now));
            }
        });
    });
    group.finish();
}

/// A hundred increments of one cold key: the first goes, the others wait and go as one.
fn runs(criterion: &mut Criterion) {
    let now = tokio::time::Instant::now().into_std();
    let mut group = criterion.benchmark_group("run");
    group.throughput(Throughput::Elements(100));
    group.bench_function("of 99 combined", |bencher| {
        bencher.iter_batched(
            || (new_table(2), new_lane(now)),
            |(table, mut lane)| {
                let mut answered = 0_u32;
                let mut deliver = |_: u32, _: &[u8]| answered += 1;
                let mut step = Step {
                    table: &table,
                    now,
                    deliver: &mut deliver,
                };
                for ticket in 0..100 {
                    lane.increment(&mut step, b"counter:000000000001", 1, ticket);
                }
                black_box(lane.take_wire(&table, now, Vec::new()));
                lane.on_reply(&mut step, b":1\r\n").unwrap();
                for reply in PROMOTION {
                    lane.on_reply(&mut step, reply).unwrap();
                }
                assert_eq!(answered, 100);
                (table, lane)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// A full batch, written as the script's call.
fn flush(criterion: &mut Criterion) {
    let increments: Vec<Increment> = names(MAX_KEYS)
        .iter()
        .map(|name| Increment {
            key: Key::new(name),
            delta: 1234,
            count: 1234,
            deadline: None,
            due: false,
            asks: false,
            last: 1_000_000,
            slot: None,
        })
        .collect();
    let mut group = criterion.benchmark_group("flush");
    group.throughput(Throughput::Elements(to_u64(MAX_KEYS)));
    group.bench_function("encode a batch", |bencher| {
        bencher.iter_batched(
            || (new_series(), increments.clone(), Vec::with_capacity(4096)),
            |(mut series, increments, mut out)| {
                series.send(increments, &mut out);
                (series, out)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// A table for so many serving threads in which every name is warm.
fn warm(names: &[Vec<u8>], threads: usize, now: Instant) -> KeyTable {
    let table = new_table(threads);
    let mut lane = new_lane(now);
    let mut deliver = |_: u32, _: &[u8]| {};
    let mut step = Step {
        table: &table,
        now,
        deliver: &mut deliver,
    };
    for name in names {
        for replies in [FIRST, PROMOTION] {
            lane.increment(&mut step, name, 1, 0);
            lane.take_wire(&table, now, Vec::new());
            for reply in replies {
                lane.on_reply(&mut step, reply).unwrap();
            }
        }
    }
    table
}

fn new_table(threads: usize) -> KeyTable {
    let long = Duration::from_secs(3600);
    let limits = TableLimits {
        max_keys: 10_000_000,
        max_cached_bytes: 1 << 30,
        crowd: usize::MAX,
        lease: long,
        counter_lease: long,
        guard: Duration::from_secs(2),
    };
    KeyTable::new(limits, 42).for_threads(threads)
}

fn new_lane(now: Instant) -> Lane<u32> {
    let limits = Limits {
        max_in_flight: 1 << 16,
        max_unsent_bytes: 1 << 26,
        warm: true,
    };
    let mut lane = Lane::new(limits, Series::new("bench", 0, 1));
    let mut deliver = |_: u32, _: &[u8]| {};
    let mut step = Step {
        table: &new_table(2),
        now,
        deliver: &mut deliver,
    };
    lane.connected(step.table, now, Some(script()), None, true);
    lane.take_wire(step.table, now, Vec::new());
    // The marker is there.
    lane.on_reply(&mut step, b"+OK\r\n").unwrap();
    lane
}

fn script() -> Applier {
    Applier::Script {
        sha: vec![b'0'; 40],
        body: b"return".to_vec(),
    }
}

fn new_series() -> Series {
    let mut series = Series::new("bench", 0, 1);
    series.set_applier(Some(script()));
    series
}

/// As redis-benchmark names its counters.
fn names(count: usize) -> Vec<Vec<u8>> {
    let name = |number| format!("counter:{number:012}").into_bytes();
    (0..count).map(name).collect()
}

/// Puts them into another order, always the same, so that no prefetcher knows the next.
fn shuffle(names: &mut [Vec<u8>]) {
    let mut state = 88_172_645_463_325_252_u64;
    for last in (1..names.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = usize::try_from(state % to_u64(last + 1)).unwrap();
        names.swap(last, other);
    }
}

fn counted(answer: Answer) {
    let Answer::Value(value) = answer else {
        panic!("not warm: {answer:?}");
    };
    black_box(value);
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap()
}

const PIPELINE: usize = 32;

/// What a node answers to the first increment of a key.
const FIRST: &[&[u8]] = &[b":1\r\n"];

/// What it answers to the increment that makes the key warm.
const PROMOTION: &[&[u8]] = &[
    b"+OK\r\n",
    b"+QUEUED\r\n",
    b"+QUEUED\r\n",
    b"+QUEUED\r\n",
    b"*3\r\n:2\r\n*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n:-1\r\n",
];
