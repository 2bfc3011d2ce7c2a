//! A table of warm counters, made as a lane makes it: what the benchmarks start from.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tally::counter::{Answer, KeyTable, Lane, Limits, Step, TableLimits};
use tally::flush::{Applier, Series};

/// A table for so many serving threads, with nothing in it. Nothing in it ends while it is measured.
pub(crate) fn table(threads: usize) -> KeyTable {
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

/// A lane whose node is connected and has the marker.
pub(crate) fn lane(table: &KeyTable, now: Instant) -> Lane<u32> {
    let limits = Limits {
        max_in_flight: 1 << 16,
        max_unsent_bytes: 1 << 26,
        warm: true,
    };
    let mut lane = Lane::new(limits, Series::new("bench", 0, 1));
    lane.connected(table, now, Some(script()), None, true);
    lane.take_wire(table, now, Vec::new());
    let mut deliver = |_: u32, _: &[u8]| {};
    let mut step = Step {
        table,
        now,
        deliver: &mut deliver,
    };
    lane.on_reply(&mut step, b"+OK\r\n").unwrap();
    lane
}

/// How the node applies batches.
pub(crate) fn script() -> Applier {
    Applier::Script {
        sha: vec![b'0'; 40],
        body: b"return".to_vec(),
    }
}

/// Makes every name warm in `table`, and leaves increments pending.
pub(crate) fn warm(table: &KeyTable, names: &[Vec<u8>], now: Instant) {
    let mut lane = lane(table, now);
    let mut deliver = |_: u32, _: &[u8]| {};
    let mut step = Step {
        table,
        now,
        deliver: &mut deliver,
    };
    for name in names {
        for replies in [FIRST, PROMOTION] {
            lane.increment(&mut step, name, 1, 0);
            lane.take_wire(table, now, Vec::new());
            for reply in replies {
                lane.on_reply(&mut step, reply).unwrap();
            }
        }
    }
}

/// As redis-benchmark names its counters.
pub(crate) fn names(count: usize) -> Vec<Vec<u8>> {
    let name = |number| format!("counter:{number:012}").into_bytes();
    (0..count).map(name).collect()
}

/// Puts them into another order, always the same, so that no prefetcher knows the next.
pub(crate) fn shuffle(names: &mut [Vec<u8>]) {
    let mut state = 88_172_645_463_325_252_u64;
    for last in (1..names.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bound = u64::try_from(last + 1).unwrap();
        names.swap(last, usize::try_from(state % bound).unwrap());
    }
}

/// The answer has to be the table's own.
pub(crate) fn counted(answer: Answer) {
    let Answer::Value(value) = answer else {
        panic!("not warm: {answer:?}");
    };
    black_box(value);
}

/// What a node answers to the first increment of a key.
const FIRST: &[&[u8]] = &[b":1\r\n"];

/// What it answers to the increment that makes the key warm.
pub(crate) const PROMOTION: &[&[u8]] = &[
    b"+OK\r\n",
    b"+QUEUED\r\n",
    b"+QUEUED\r\n",
    b"+QUEUED\r\n",
    b"*3\r\n:2\r\n*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n:-1\r\n",
];
