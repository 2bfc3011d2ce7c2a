//! A series of batches against the model node: each settled once, in order, and applied once.

use std::collections::{BTreeMap, VecDeque};

use tally::flush::{Increment, Series, Verdict};
use tally::key::Key;

use super::node::{Fault, Node, Value, script};
use crate::random::Random;

const KEYS: [&str; 3] = ["a", "b", "c"];

/// A series and its node, and what lies between them.
struct Run {
    series: Series,
    now: std::time::Instant,
    node: Node,
    random: Random,
    inbox: Vec<u8>,
    outbox: VecDeque<Vec<u8>>,
    /// Whose answers are awaited; `None` for the marker's.
    sent: VecDeque<Option<u64>>,
    /// What each key should hold.
    sums: BTreeMap<String, i64>,
    /// Sums of what was sealed and not settled, in order.
    open: VecDeque<Vec<Increment>>,
    in_doubt: u64,
    lost: bool,
    /// The node once refused to create the marker.
    unmarked: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut run = Self {
            series: Series::new("series", 0, 1),
            now: tokio::time::Instant::now().into_std(),
            node: Node::default(),
            random: Random::new(seed),
            inbox: Vec::new(),
            outbox: VecDeque::new(),
            sent: VecDeque::new(),
            sums: BTreeMap::new(),
            open: VecDeque::new(),
            in_doubt: 0,
            lost: false,
            unmarked: false,
        };
        run.connect();
        run
    }

    fn connect(&mut self) {
        self.node.script = true;
        self.series.set_applier(Some(script()));
        if self.series.is_settled() {
            self.series.encode_marker(true, &mut self.inbox);
            self.sent.push_back(None);
        }
    }

    fn lose(&mut self) {
        let most = self.random.below(10);
        self.execute(most);
        self.inbox.clear();
        self.outbox.clear();
        self.sent.clear();
        self.series.disconnected();
        self.lost = true;
        self.connect();
    }

    fn seal(&mut self) {
        let mut increments = Vec::new();
        for key in KEYS {
            if self.random.one_in(2) {
                let delta = i64::try_from(self.random.next() >> 24).unwrap();
                increments.push(Increment {
                    key: Key::new(key.as_bytes()),
                    delta,
                    count: 1,
                    deadline: None,
                    due: false,
                    asks: true,
                    last: 0,
                    slot: None,
                });
            }
        }
        if !increments.is_empty() {
            self.open.push_back(increments.clone());
            let number = self.series.send(increments, &mut self.inbox);
            self.sent.push_back(Some(number));
        }
    }

    fn execute(&mut self, most: usize) {
        for _ in 0..most {
            if self.inbox.is_empty() {
                return;
            }
            let (length, reply) = self.node.execute(&self.inbox);
            self.inbox.drain(..length);
            self.outbox.push_back(reply);
        }
    }

    fn read(&mut self) -> bool {
        let Some(reply) = self.outbox.pop_front() else {
            return false;
        };
        let Some(number) = self.sent.pop_front().unwrap() else {
            self.unmarked |= reply.starts_with(b"-");
            return true;
        };
        match self.series.on_reply(number, &reply, self.now) {
            Verdict::Settled(settled) => {
                let mut left = settled.increments.into_iter();
                while let Some((first, cause)) = left.next() {
                    assert_eq!(cause, None);
                    let batch = self.open.pop_front().expect("settled once");
                    assert_eq!(first, batch[0], "in order");
                    for (expected, increment) in batch[1..].iter().zip(left.by_ref()) {
                        assert_eq!(increment, (expected.clone(), None));
                    }
                    self.count(&batch);
                }
                for (key, reading) in settled.readings {
                    // Answers come in order, but the node may be further by now.
                    let key = String::from_utf8(key.as_bytes().to_vec()).unwrap();
                    let sum = self.sums.get(&key).copied();
                    assert!(self.in_doubt > 0 || reading.value >= sum, "key {key}");
                }
            }
            Verdict::Again(_) => {}
            Verdict::Forgotten(batches) => panic!("{batches} batches forgotten"),
            Verdict::Doubt(increments) => {
                let mut left = increments.as_slice();
                while !left.is_empty() {
                    let batch = self.open.pop_front().expect("settled once");
                    let (these, rest) = left.split_at(batch.len());
                    assert_eq!(these, batch);
                    left = rest;
                    self.in_doubt += 1;
                }
            }
        }
        true
    }

    fn count(&mut self, batch: &[Increment]) {
        for increment in batch {
            let key = String::from_utf8(increment.key.as_bytes().to_vec()).unwrap();
            *self.sums.entry(key).or_default() += increment.delta;
        }
    }

    fn send_again(&mut self, flushing: bool) {
        if self.series.wants_again(flushing) {
            let numbers = self.series.send_again(&mut self.inbox);
            assert!(numbers.is_sorted(), "{numbers:?}");
            self.sent.extend(numbers.into_iter().map(Some));
        }
    }

    fn run(&mut self, evicts: bool) {
        for _ in 0..120 {
            match self.random.below(20) {
                // A key is warm only once the node has answered about it, behind the marker.
                0..=5 if self.series.has_room() && !self.sent.contains(&None) => self.seal(),
                6..=9 => self.execute(1),
                10..=14 => _ = self.read(),
                15 => self.send_again(true),
                16 | 17 => self.send_again(false),
                18 => match self.random.below(6) {
                    0 => self.node.script = false,
                    1 => self.node.fault = Some((Fault::Oom, 1 + self.random.below(6))),
                    2 if evicts => self.node.evict(self.series.marker()),
                    _ => {}
                },
                19 if self.random.one_in(3) => self.lose(),
                _ => {}
            }
        }
        self.node.fault = None;
        for _ in 0..50 {
            self.send_again(true);
            self.execute(usize::MAX);
            while self.read() {}
        }
        assert!(self.series.is_settled(), "{:?}", self.series);
        assert!(self.open.is_empty());
    }
}

#[test]
fn every_batch_is_settled_once_in_order_and_applied_once() {
    let first = Random::seed_or(1);
    for seed in first..first + 1000 {
        let mut run = Run::new(seed);
        run.run(false);
        // Without a marker to begin with nobody knows what became of the first batch.
        assert!(run.in_doubt == 0 || run.unmarked, "seed {seed}");
        if run.in_doubt > 0 {
            continue;
        }
        for (key, sum) in &run.sums {
            let held = Value::Text(sum.to_string().into_bytes());
            assert_eq!(run.node.value(key.as_bytes()), Some(held), "seed {seed}");
        }
    }
}

#[test]
fn a_lost_marker_never_makes_a_series_hang_or_apply_twice() {
    let first = Random::seed_or(1);
    let mut in_doubt = 0;
    for seed in first..first + 1000 {
        let mut run = Run::new(seed);
        run.run(true);
        assert!(run.in_doubt == 0 || run.lost, "seed {seed}");
        in_doubt += run.in_doubt;
        for (key, sum) in &run.sums {
            let held = match run.node.value(key.as_bytes()) {
                Some(Value::Text(text)) => String::from_utf8(text).unwrap().parse().unwrap(),
                _ => 0,
            };
            let exact = run.in_doubt == 0;
            assert!(
                if exact { held == *sum } else { held >= *sum },
                "seed {seed}"
            );
        }
    }
    assert!(in_doubt > 0, "the case came up");
}
