//! What is known of counters and rates, second by second. Pure: time and looks are arguments.
//!
//! Sessions tell which keys were asked for (every key that is not answered from memory, one of 64
//! requests that are). What happens to those keys is then read off the key table once a second:
//! a counter's rate is exact, and costs its clients nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::trends::{Point, Trends};
use crate::counter::Peek;
use crate::telemetry::histogram::Sample;
use crate::telemetry::{NodeStatus, Touch, Use};

/// The state behind the API.
#[derive(Debug)]
pub(super) struct Board {
    /// By database.
    keys: BTreeMap<u32, HashMap<Box<[u8]>, Tracked>>,
    ticks: u64,
    last: Option<(Instant, Totals)>,
    pub(super) trends: Trends,
    pub(super) nodes: Vec<NodeTrack>,
}

/// Totals at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) commands: u64,
    pub(super) increments: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) upstream: u64,
    pub(super) clients: u64,
    /// Seconds since 1970.
    pub(super) wall: u64,
}

/// A node, and what it did in the last second.
#[derive(Debug, Default)]
pub(super) struct NodeTrack {
    pub(super) status: Option<NodeStatus>,
    pub(super) requests_per_second: u64,
    /// Answers of the last second in which there were any.
    pub(super) reply_times: Sample,
}

/// A key that was asked for.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    /// Its database.
    pub(super) database: u32,
    /// Index of its node.
    pub(super) node: usize,
    pub(super) value: Value,
    /// Acknowledged, and not confirmed by the node.
    pub(super) pending: i64,
    /// Whether reads are answered here.
    pub(super) from_memory: bool,
    /// How much it rose in each of the last seconds, the newest last.
    pub(super) rises: VecDeque<u32>,
    /// Reads in each of the last seconds, about.
    pub(super) reads: VecDeque<u32>,
    /// Calls of limit scripts in each of the last seconds.
    pub(super) calls: VecDeque<u32>,
    /// The limit that the last of these calls named.
    pub(super) limit: Option<i64>,
    /// When the value was looked at last.
    pub(super) valued: u64,
    /// When it was asked for last.
    pub(super) touched: u64,
    /// Whether it was asked for since the value was looked at.
    pub(super) stale: bool,
}

/// A key's value.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Value {
    /// Not asked for yet.
    #[default]
    Unknown,
    /// The key does not exist.
    Missing,
    Count(i64),
    /// Something else than a count.
    Other,
}

impl Value {
    /// What a `GET` said.
    pub(super) fn of_text(text: Option<&[u8]>) -> Self {
        match text {
            None => Self::Missing,
            Some(text) => crate::resp::parse_i64(text).map_or(Self::Other, Self::Count),
        }
    }

    pub(super) fn count(self) -> Option<i64> {
        match self {
            Self::Count(count) => Some(count),
            _ => None,
        }
    }
}

impl Tracked {
    /// Rise per second over the last ten.
    pub(super) fn rate(&self) -> f64 {
        per_second(&self.rises)
    }

    /// Reads per second over the last ten, about.
    pub(super) fn reads(&self) -> f64 {
        per_second(&self.reads)
    }

    /// Calls of limit scripts per second over the last ten.
    pub(super) fn calls(&self) -> f64 {
        per_second(&self.calls)
    }
}

fn per_second(seconds: &VecDeque<u32>) -> f64 {
    let sum: u64 = seconds
        .iter()
        .rev()
        .take(RATE_SECONDS)
        .map(|n| u64::from(*n))
        .sum();
    let count = u32::try_from(seconds.len().clamp(1, RATE_SECONDS)).unwrap_or(1);
    let tenths = sum.saturating_mul(10) / u64::from(count);
    f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
}

impl Board {
    pub(super) fn new(nodes: usize) -> Self {
        let mut tracks = Vec::new();
        tracks.resize_with(nodes, NodeTrack::default);
        Self {
            keys: BTreeMap::new(),
            ticks: 0,
            last: None,
            trends: Trends::default(),
            nodes: tracks,
        }
    }

    /// A second has passed. `look` gives the node of a database's key, and what is known of the key
    /// there.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        totals: Totals,
        statuses: Vec<NodeStatus>,
        (touches, dropped): (Vec<Touch>, u64),
        look: impl Fn(u32, &[u8]) -> (usize, Peek),
    ) {
        self.ticks += 1;
        let (before, last) = self.last.replace((now, totals)).unwrap_or((now, totals));
        let elapsed = now.saturating_duration_since(before);
        let pending_keys = statuses.iter().map(|node| node.pending_keys).sum::<usize>();
        let rate = |now: u64, before: u64| rate(now, before, elapsed);
        self.trends.push(Point {
            at: totals.wall,
            increments: rate(totals.increments, last.increments),
            reads: rate(totals.hits + totals.misses, last.hits + last.misses),
            hits: rate(totals.hits, last.hits),
            commands: rate(totals.commands, last.commands),
            upstream: rate(totals.upstream, last.upstream),
            clients: totals.clients,
            pending_keys: u64::try_from(pending_keys).unwrap_or(u64::MAX),
        });
        for (track, status) in self.nodes.iter_mut().zip(statuses) {
            track.update(status, elapsed);
        }
        for tracked in self.keys.values_mut().flat_map(HashMap::values_mut) {
            tracked.next_second();
        }
        // The touches that were dropped were like those that were kept.
        let kept = u64::try_from(touches.len()).unwrap_or(u64::MAX);
        for touch in touches {
            self.touch(&touch, |count| {
                let all = u128::from(count) * u128::from(kept + dropped) / u128::from(kept.max(1));
                u32::try_from(all).unwrap_or(u32::MAX)
            });
        }
        for (database, keys) in &mut self.keys {
            for (key, tracked) in keys {
                let (node, peek) = look(*database, key);
                tracked.node = node;
                tracked.see(peek, self.ticks);
            }
        }
        self.forget();
    }

    fn touch(&mut self, touch: &Touch, scaled: impl Fn(u32) -> u32) {
        let key = touch.key.as_bytes();
        if key.len() > MAX_KEY_BYTES {
            return;
        }
        let keys = self.keys.entry(touch.database).or_default();
        if !keys.contains_key(key) {
            let mut tracked = Tracked {
                database: touch.database,
                ..Tracked::default()
            };
            tracked.next_second();
            keys.insert(key.into(), tracked);
        }
        let Some(tracked) = keys.get_mut(key) else {
            return;
        };
        tracked.touched = self.ticks;
        tracked.stale = true;
        let (seconds, count) = match touch.how {
            Use::Rose(count) => (&mut tracked.rises, count),
            Use::Read(count) => (&mut tracked.reads, count),
            Use::Limited(limit) => {
                tracked.limit = limit;
                (&mut tracked.calls, 1)
            }
            // The counter's own value shows it.
            Use::Counted => return,
        };
        if let Some(second) = seconds.back_mut() {
            *second = second.saturating_add(scaled(count));
        }
    }

    /// Keys whose value somebody has to ask for: asked for lately, and not known here. Those come
    /// first whose value was looked at longest ago.
    pub(super) fn wanted(&self, most: usize) -> Vec<(u32, Box<[u8]>)> {
        let wanted = self.keys().filter(|(_, tracked)| {
            let old = tracked.valued < self.ticks;
            let useful = tracked.value != Value::Other;
            !tracked.from_memory && tracked.stale && old && useful
        });
        let place = |(key, tracked): (_, &Tracked)| (tracked.valued, tracked.database, key);
        let mut wanted: Vec<_> = wanted.map(place).collect();
        wanted.sort_unstable();
        let wanted = wanted.into_iter().take(most);
        wanted
            .map(|(_, database, key)| (database, Box::from(key)))
            .collect()
    }

    /// A node said what a key's value is.
    pub(super) fn learn(&mut self, database: u32, key: &[u8], value: Value) {
        let keys = self.keys.get_mut(&database);
        if let Some(tracked) = keys.and_then(|keys| keys.get_mut(key)) {
            tracked.value = value;
            tracked.valued = self.ticks;
            tracked.stale = false;
        }
    }

    /// Every key that is not known to be something else than a counter.
    pub(super) fn counters(&self) -> impl Iterator<Item = (&[u8], &Tracked)> {
        self.keys()
            .filter(|(_, tracked)| tracked.value.count().is_some())
    }

    /// Every key, whatever its value.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&[u8], &Tracked)> {
        let keys = self.keys.values().flatten();
        keys.map(|(key, tracked)| (&**key, tracked))
    }

    pub(super) fn key(&self, database: u32, key: &[u8]) -> Option<&Tracked> {
        self.keys.get(&database)?.get(key)
    }

    /// Seconds so far.
    pub(super) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Seconds since a tick.
    pub(super) fn seconds_since(&self, tick: u64) -> u64 {
        self.ticks.saturating_sub(tick)
    }

    /// Keeps the busiest and the latest keys when there are too many.
    fn forget(&mut self) {
        if self.keys.values().map(HashMap::len).sum::<usize>() <= MAX_KEYS {
            return;
        }
        let rank = |tracked: &Tracked| {
            let busy = tracked.rate() + tracked.reads() + tracked.calls();
            // Whole numbers compare; a tenth is below what one touch leaves.
            (busy * 10.0, tracked.touched)
        };
        let mut ranks: Vec<_> = self.keys().map(|(_, tracked)| rank(tracked)).collect();
        let order = |a: &(f64, u64), b: &(f64, u64)| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1));
        let (_, least, _) = ranks.select_nth_unstable_by(KEPT_KEYS, order);
        let least = *least;
        for keys in self.keys.values_mut() {
            keys.retain(|_, tracked| order(&rank(tracked), &least).is_lt());
        }
    }
}

impl NodeTrack {
    fn update(&mut self, status: NodeStatus, elapsed: Duration) {
        if let Some(before) = &self.status {
            self.requests_per_second = rate(status.requests, before.requests, elapsed);
            let answered = status.reply_times.since(&before.reply_times);
            if answered.count() > 0 {
                self.reply_times = answered;
            }
        }
        self.status = Some(status);
    }
}

impl Tracked {
    /// Begins a second.
    fn next_second(&mut self) {
        for seconds in [&mut self.rises, &mut self.reads, &mut self.calls] {
            if seconds.len() == KEPT_SECONDS {
                seconds.pop_front();
            }
            seconds.push_back(0);
        }
    }

    /// Takes what the table knows.
    fn see(&mut self, peek: Peek, tick: u64) {
        match peek {
            Peek::Counter { value, pending } => {
                if let (true, Some(before), Some(rise)) =
                    (self.from_memory, self.value.count(), self.rises.back_mut())
                {
                    let by = value.abs_diff(before);
                    *rise = rise.saturating_add(u32::try_from(by).unwrap_or(u32::MAX));
                }
                if self.value != Value::Count(value) {
                    self.touched = tick;
                }
                self.pending = pending;
                self.known(Value::Count(value), tick);
            }
            Peek::Cached(value) => {
                self.pending = 0;
                self.known(Value::of_text(value.as_deref()), tick);
            }
            Peek::Unknown => {
                self.pending = 0;
                self.from_memory = false;
            }
        }
    }

    fn known(&mut self, value: Value, tick: u64) {
        self.value = value;
        self.valued = tick;
        self.stale = false;
        self.from_memory = true;
    }
}

/// Rise per second of a total that may have been reset.
fn rate(now: u64, before: u64, elapsed: Duration) -> u64 {
    let rise = now.checked_sub(before).unwrap_or(now);
    let ms = elapsed.as_millis();
    // To the nearest: seconds are never exact, and if each was cut, the error would add up.
    let per_second = (u128::from(rise) * 1000 + ms / 2)
        .checked_div(ms)
        .unwrap_or(0);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

/// Most keys after a second: with their seconds about 4 MiB.
const MAX_KEYS: usize = 4096;

/// Keys kept when there were more.
const KEPT_KEYS: usize = MAX_KEYS / 8 * 7;

/// Longest key that is kept: longer ones are not counters that somebody wants to see on a page.
const MAX_KEY_BYTES: usize = 512;

/// Seconds of a key's small chart.
const KEPT_SECONDS: usize = 60;

/// Seconds of a rate.
const RATE_SECONDS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn touch(key: &str, how: Use) -> Touch {
        Touch {
            key: Key::new(key.as_bytes()),
            database: 0,
            how,
        }
    }

    /// A board and its clock.
    struct Bench {
        board: Board,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                board: Board::new(0),
                now: tokio::time::Instant::now().into_std(),
            }
        }

        fn second(&mut self, touches: Vec<Touch>, peek: impl Fn(&[u8]) -> Peek) {
            self.now += Duration::from_secs(1);
            let look = |_, key: &[u8]| (0, peek(key));
            self.board
                .tick(self.now, Totals::default(), Vec::new(), (touches, 0), look);
        }
    }

    #[test]
    fn a_warm_counter_s_rate_is_that_of_its_value() {
        let mut bench = Bench::new();
        bench.second(vec![touch("k", Use::Rose(1))], |_| Peek::Unknown);
        for value in [100, 107, 114] {
            let peek = |_: &[u8]| Peek::Counter { value, pending: 7 };
            // Sampled touches of a warm key are no increments to be counted again.
            bench.second(vec![touch("k", Use::Counted)], peek);
        }
        let tracked = bench.board.key(0, b"k").unwrap();
        assert_eq!(tracked.rises, [1, 0, 7, 7]);
        assert_eq!(tracked.value, Value::Count(114));
        assert_eq!(tracked.pending, 7);
        assert!(bench.board.wanted(9).is_empty());
    }

    #[test]
    fn a_cold_counter_s_value_is_asked_for_once_per_touch() {
        let mut bench = Bench::new();
        bench.second(vec![touch("k", Use::Rose(1))], |_| Peek::Unknown);
        assert_eq!(bench.board.wanted(9), [(0, Box::from(*b"k"))]);
        assert_eq!(bench.board.counters().count(), 0);
        bench.board.learn(0, b"k", Value::Count(5));
        assert!(bench.board.wanted(9).is_empty());
        bench.second(Vec::new(), |_| Peek::Unknown);
        assert!(bench.board.wanted(9).is_empty(), "nobody touched it");
        bench.second(vec![touch("k", Use::Rose(1))], |_| Peek::Unknown);
        assert_eq!(bench.board.wanted(9).len(), 1);
        assert_eq!(bench.board.counters().count(), 1);
    }

    #[test]
    fn keys_of_two_databases_are_two_keys() {
        let mut bench = Bench::new();
        let mut touches = vec![touch("k", Use::Rose(1)); 3];
        touches[0].database = 7;
        bench.second(touches, |_| Peek::Unknown);
        bench.board.learn(7, b"k", Value::Count(1));
        let tracked = |database| bench.board.key(database, b"k").unwrap();
        assert_eq!([&tracked(0).rises, &tracked(7).rises], [&[2], &[1]]);
        assert_eq!(tracked(7).value, Value::Count(1));
        assert_eq!(bench.board.wanted(9), [(0, Box::from(*b"k"))]);
    }

    #[test]
    fn reads_and_writes_are_told_apart() {
        let mut bench = Bench::new();
        let mut touches = vec![touch("w", Use::Rose(1)); 20];
        touches.push(touch("r", Use::Read(30)));
        bench.second(touches, |_| Peek::Unknown);
        let rates = |key: &[u8]| {
            let tracked = bench.board.key(0, key).unwrap();
            [tracked.rate(), tracked.reads()]
        };
        assert_eq!(rates(b"w").map(f64::to_bits), [20.0, 0.0].map(f64::to_bits));
        assert_eq!(rates(b"r").map(f64::to_bits), [0.0, 30.0].map(f64::to_bits));
    }

    #[test]
    fn dropped_touches_are_made_up_for() {
        let mut board = Board::new(0);
        let touches = vec![touch("a", Use::Rose(3)), touch("b", Use::Read(1))];
        let now = tokio::time::Instant::now().into_std();
        let look = |_, _: &[u8]| (0, Peek::Unknown);
        board.tick(now, Totals::default(), Vec::new(), (touches, 8), look);
        assert_eq!(board.key(0, b"a").unwrap().rises, [15]);
        assert_eq!(board.key(0, b"b").unwrap().reads, [5]);
    }

    #[test]
    fn too_many_keys_leave_the_busiest() {
        let mut bench = Bench::new();
        let touches = (0..2 * MAX_KEYS).map(|n| touch(&format!("k{n}"), Use::Rose(1)));
        let busy = touch("busy", Use::Read(1000));
        bench.second(touches.chain([busy]).collect(), |_| Peek::Unknown);
        assert!(bench.board.keys().count() <= MAX_KEYS);
        bench.second(
            (0..2 * MAX_KEYS)
                .map(|n| touch(&format!("l{n}"), Use::Rose(2)))
                .collect(),
            |_| Peek::Unknown,
        );
        assert!(bench.board.key(0, b"busy").is_some());
        assert!(bench.board.keys().count() <= MAX_KEYS);
    }

    #[test]
    fn totals_that_were_reset_do_not_wrap() {
        assert_eq!(rate(10, 1000, Duration::from_secs(2)), 5);
        assert_eq!(rate(10, 0, Duration::from_millis(1001)), 10);
        assert_eq!(rate(10, 0, Duration::ZERO), 0);
    }
}
