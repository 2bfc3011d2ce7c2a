//! A lane for tests, with a table of its own.

use std::time::Duration;

use super::lane::{Lane, Limits, Step};
use super::{KeyTable, TableLimits};
use crate::flush::Series;

/// A lane whose clients are numbers, and what they were told.
pub(super) struct Bench {
    pub(super) lane: Lane<u8>,
    table: KeyTable,
    pub(super) told: Vec<(u8, Vec<u8>)>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let second = Duration::from_secs(1);
        let limits = TableLimits {
            max_keys: 10,
            max_cached_bytes: 1000,
            crowd: 10,
            lease: second,
            counter_lease: second,
            guard: second,
        };
        let bounds = Limits {
            max_in_flight: 100,
            max_unsent_bytes: 1000,
            warm: true,
        };
        Self {
            lane: Lane::new(bounds, Series::new("bench", 0, 1)),
            table: KeyTable::new(limits, 1),
            told: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, run: impl FnOnce(&mut Lane<u8>, &mut Step<'_, u8>)) {
        let told = &mut self.told;
        let mut deliver = |ticket, frame: &[u8]| told.push((ticket, frame.to_vec()));
        let mut step = Step {
            table: &self.table,
            now: tokio::time::Instant::now().into_std(),
            deliver: &mut deliver,
        };
        run(&mut self.lane, &mut step);
    }

    pub(super) fn reply(&mut self, frame: &[u8]) {
        self.step(|lane, step| lane.on_reply(step, frame).unwrap());
    }

    pub(super) fn wire(&mut self) -> String {
        let now = tokio::time::Instant::now().into_std();
        let wire = self.lane.take_wire(&self.table, now, Vec::new());
        String::from_utf8(wire).unwrap()
    }

    #[track_caller]
    pub(super) fn was_told(&mut self, expected: &[(u8, &str)]) {
        let told = std::mem::take(&mut self.told);
        let told: Vec<_> = told
            .iter()
            .map(|(ticket, frame)| (*ticket, std::str::from_utf8(frame).unwrap()))
            .collect();
        assert_eq!(told, expected);
    }
}
