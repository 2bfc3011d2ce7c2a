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

mod warm;

use std::fs::File;
use std::io::{Seek, Write};
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput};
use tally::config::Fsync;
use tally::counter::KeyTable;
use tally::flush::Ledger;
use tally::journal::Journal;

use warm::{counted, names, shuffle};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) =
        Journal::open(&directory.path().join("journal"), 64 << 20, Fsync::No).unwrap();
    let (ledger, _) = journal.series("node", 0).unwrap();
    let mut names = names(KEYS);
    shuffle(&mut names);
    let now = tokio::time::Instant::now().into_std();
    let plain = table(&names, None, now);
    let slots = table(&names, Some(ledger), now);
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

/// A table for one thread in which every name is warm and has increments pending.
fn table(names: &[Vec<u8>], ledger: Option<Ledger>, now: Instant) -> KeyTable {
    let table = warm::table(1).with_ledger(ledger);
    warm::warm(&table, names, now);
    table
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

const KEYS: usize = 10_000;

/// Where the file begins anew, in bytes.
const LONGEST: usize = 64 << 20;
