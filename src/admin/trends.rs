//! What happened in the last minutes and hours, in bounded memory (about 90 KiB). Pure.

use std::collections::VecDeque;

use serde::Serialize;
use serde::ser::{SerializeTuple, Serializer};

/// One moment. Figures are per second, except for clients and pending keys.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Point {
    /// Seconds since 1970.
    pub(super) at: u64,
    pub(super) increments: u64,
    pub(super) reads: u64,
    pub(super) hits: u64,
    pub(super) commands: u64,
    pub(super) upstream: u64,
    pub(super) clients: u64,
    pub(super) pending_keys: u64,
}

/// Names of the fields in which a [`Point`] is written.
pub(super) const COLUMNS: [&str; 8] = [
    "at",
    "increments",
    "reads",
    "hits",
    "commands",
    "upstream",
    "clients",
    "pending_keys",
];

impl Point {
    fn columns(&self) -> [u64; COLUMNS.len()] {
        [
            self.at,
            self.increments,
            self.reads,
            self.hits,
            self.commands,
            self.upstream,
            self.clients,
            self.pending_keys,
        ]
    }
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let columns = self.columns();
        let mut tuple = serializer.serialize_tuple(columns.len())?;
        for column in columns {
            tuple.serialize_element(&column)?;
        }
        tuple.end()
    }
}

/// Points a second apart for ten minutes, and ten seconds apart for two hours.
#[derive(Debug, Default)]
pub(super) struct Trends {
    fine: VecDeque<Point>,
    coarse: VecDeque<Point>,
    /// Points not in `coarse` yet.
    fresh: usize,
}

impl Trends {
    /// Adds the point of a second.
    pub(super) fn push(&mut self, point: Point) {
        push(&mut self.fine, point, FINE);
        self.fresh += 1;
        if self.fresh == STEP {
            self.fresh = 0;
            let last = self.fine.iter().rev().take(STEP);
            push(&mut self.coarse, mean(last), COARSE);
        }
    }

    /// Points a second apart, the oldest first.
    pub(super) fn fine(&self) -> impl DoubleEndedIterator<Item = &Point> {
        self.fine.iter()
    }

    /// Points ten seconds apart, the oldest first.
    pub(super) fn coarse(&self) -> impl DoubleEndedIterator<Item = &Point> {
        self.coarse.iter()
    }
}

fn push(points: &mut VecDeque<Point>, point: Point, most: usize) {
    if points.len() == most {
        points.pop_front();
    }
    points.push_back(point);
}

/// One point for several, the newest first: means, and the maximum of what is not a rate.
fn mean<'a>(points: impl ExactSizeIterator<Item = &'a Point>) -> Point {
    let count = u64::try_from(points.len()).unwrap_or(1).max(1);
    let mut all = Point::default();
    for point in points {
        all.at = all.at.max(point.at);
        all.increments += point.increments;
        all.reads += point.reads;
        all.hits += point.hits;
        all.commands += point.commands;
        all.upstream += point.upstream;
        all.clients = all.clients.max(point.clients);
        all.pending_keys = all.pending_keys.max(point.pending_keys);
    }
    all.increments /= count;
    all.reads /= count;
    all.hits /= count;
    all.commands /= count;
    all.upstream /= count;
    all
}

/// Ten minutes of seconds.
const FINE: usize = 600;

/// Two hours of ten seconds.
const COARSE: usize = 720;

/// Seconds of a coarse point.
const STEP: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_resolutions_are_bounded_and_agree() {
        let mut trends = Trends::default();
        for at in 1..=10_000 {
            let point = Point {
                at,
                increments: at % 10,
                clients: at % 10,
                ..Point::default()
            };
            trends.push(point);
        }
        assert_eq!(trends.fine().count(), FINE);
        assert_eq!(trends.fine().next().unwrap().at, 9401);
        assert_eq!(trends.coarse().count(), COARSE);
        let last = trends.coarse().next_back().unwrap();
        // 0 to 9: mean 4.5, cut; most 9.
        assert_eq!((last.at, last.increments, last.clients), (10_000, 4, 9));
    }

    #[test]
    fn a_point_is_written_as_its_columns() {
        let point = Point {
            at: 1,
            pending_keys: 8,
            ..Point::default()
        };
        let json = serde_json::to_string(&point).unwrap();
        assert_eq!(json, "[1,0,0,0,0,0,0,8]");
    }
}
