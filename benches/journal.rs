//! What it costs to keep a warm increment for the next process, in two shapes: stored in the slots of
//! a mapped file, as the journal does it, and appended to a file by one `write` for each pipeline,
//! before its replies go out. `cargo bench --bench journal`.
//!
//! The appended shape is only here, and has the best of it: records of 12 bytes (a key's number and
//! the increment), nothing for the keys' names, the batches or the file's being cut, and no write to
//! the disk. Each is to be compared with no journal at all. Everything is in one thread, so time is
//! CPU time.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a fault ends the benchmark"
)]

use std::fs::File;
use std::hint::black_box;
use std::io::{Seek, Write};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use tally::config::Fsync;
use tally::counter::{Answer, KeyTable, Lane, Limits, Step, TableLimits};
use tally::flush::{Applier, Ledger, Series};
use tally::journal::Journal;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) =
        Journal::open(&directory.path().join("journal"), 64 << 20, Fsync::No).unwrap();
    let (ledger, _) = journal.series("node", 0).unwrap();
    let names = names();
    let now = tokio::time::Instant::now().into_std();
    let plain = warm(&names, None, now);
    let slots = warm(&names, Some(ledger), now);
    let mut log = Log {
        file: File::create(directory.path().join("log")).unwrap(),
        buffer: Vec::new(),
        length: 0,
    };
    for pipeline in [1, 32] {
        let mut group = criterion.benchmark_group(format!("journal, pipelines of {pipeline}"));
        group.throughput(Throughput::Elements(names.len().try_into().unwrap()));
        for (shape, table) in [("none", &plain), ("slots", &slots)] {
            group.bench_function(BenchmarkId::from_parameter(shape), |bencher| {
                bencher.iter(|| {
                    for batch in names.chunks(pipeline) {
                        increment(table, batch, now, |_| {});
                    }
                });
            });
        }
        group.bench_function(BenchmarkId::from_parameter("appended"), |bencher| {
            bencher.iter(|| {
                for (batch, first) in names.chunks(pipeline).zip((0..).step_by(pipeline)) {
                    increment(&plain, batch, now, |at| log.append(first + at, 1));
                    log.write();
                }
            });
        });
        group.finish();
    }
    criterion.final_summary();
}

/// What a session does with a pipeline of `INCR`s of warm keys; `keep` is told of each.
fn increment(table: &KeyTable, batch: &[Vec<u8>], now: Instant, mut keep: impl FnMut(usize)) {
    let mut held = table.hold(table.spot(b"any"));
    for (at, name) in batch.iter().enumerate() {
        counted(held.increment((table.spot(name), name), 1, now));
        keep(at);
    }
}

/// A file that records are appended to.
struct Log {
    file: File,
    buffer: Vec<u8>,
    length: usize,
}

impl Log {
    fn append(&mut self, key: usize, delta: i64) {
        let key = u32::try_from(key).unwrap();
        self.buffer.extend_from_slice(&key.to_le_bytes());
        self.buffer.extend_from_slice(&delta.to_le_bytes());
    }

    /// What was appended outlives the process from now on.
    fn write(&mut self) {
        self.file.write_all(&self.buffer).unwrap();
        self.length += self.buffer.len();
        self.buffer.clear();
        if self.length > LONGEST {
            // So that it all stays in the page cache.
            self.file.rewind().unwrap();
            self.length = 0;
        }
    }
}

/// A table in which every name is warm and has increments pending.
fn warm(names: &[Vec<u8>], ledger: Option<Ledger>, now: Instant) -> KeyTable {
    let long = Duration::from_secs(3600);
    let limits = TableLimits {
        max_keys: 1_000_000,
        max_cached_bytes: 1 << 20,
        crowd: usize::MAX,
        lease: long,
        counter_lease: long,
        guard: Duration::from_secs(2),
    };
    let table = KeyTable::new(limits, 42).with_ledger(ledger).for_threads(1);
    let bounds = Limits {
        max_in_flight: 1 << 16,
        max_unsent_bytes: 1 << 26,
        warm: true,
    };
    let mut lane: Lane<u32> = Lane::new(bounds, Series::new("bench", 0, 1));
    let mut deliver = |_: u32, _: &[u8]| {};
    let mut step = Step {
        table: &table,
        now,
        deliver: &mut deliver,
    };
    let (sha, body) = (vec![b'0'; 40], b"return".to_vec());
    let script = Applier::Script { sha, body };
    lane.connected(step.table, now, Some(script), None, true);
    lane.take_wire(step.table, now, Vec::new());
    lane.on_reply(&mut step, b"+OK\r\n").unwrap();
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

/// As redis-benchmark names its counters, in an order that no prefetcher knows.
fn names() -> Vec<Vec<u8>> {
    let name = |number: usize| format!("counter:{number:012}").into_bytes();
    let mut names: Vec<_> = (0..KEYS).map(name).collect();
    let mut state = 88_172_645_463_325_252_u64;
    for last in (1..names.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bound = u64::try_from(last + 1).unwrap();
        names.swap(last, usize::try_from(state % bound).unwrap());
    }
    names
}

fn counted(answer: Answer) {
    let Answer::Value(value) = answer else {
        panic!("not warm: {answer:?}");
    };
    black_box(value);
}

const KEYS: usize = 10_000;

/// Where the file begins anew, in bytes.
const LONGEST: usize = 64 << 20;

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
