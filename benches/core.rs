//! What the parts of the warm path cost, without sockets: `cargo bench --bench core`.
//!
//! On a busy machine compare two builds in one go (`--save-baseline`, `--baseline`), or count
//! instructions (`valgrind --tool=callgrind`); a time alone says little.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a fault ends the benchmark"
)]

mod warm;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use tally::command;
use tally::counter::Step;
use tally::flush::{Increment, MAX_KEYS, Series};
use tally::key::Key;
use tally::resp::{self, Request, RequestScanner, Span, encode};
use tally::ring::{Hash, Ring};

use warm::{PROMOTION, counted, names, shuffle};

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
    let locked = warm::table(2);
    warm::warm(&locked, &names, now);
    group.bench_function(BenchmarkId::new("locked", keys), |bencher| {
        bencher.iter(|| {
            for name in &names {
                counted(locked.increment(name, 1, now));
            }
        });
    });
    drop(locked);
    let table = warm::table(1);
    warm::warm(&table, &names, now);
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
            || {
                let table = warm::table(2);
                let lane = warm::lane(&table, now);
                (table, lane)
            },
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

fn new_series() -> Series {
    let mut series = Series::new("bench", 0, 1);
    series.set_applier(Some(warm::script()));
    series
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap()
}

const PIPELINE: usize = 32;
