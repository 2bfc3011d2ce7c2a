//! What the API says, as JSON.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::board::{Board, NodeTrack, Tracked};
use super::trends::Point;
use crate::key::Key;
use crate::session::Shared;
use crate::telemetry::{HotKey, HotKeys, NodeState, Refusal, SlowEntry};

/// The state in a few numbers.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    version: &'static str,
    listen: String,
    mode: &'static str,
    flush_interval_ms: u64,
    cache_ttl_ms: u64,
    visits_prefix: String,
    uptime_seconds: u64,
    draining: bool,
    clients: u64,
    commands_per_second: u64,
    increments_per_second: u64,
    reads_per_second: u64,
    /// Of the reads of the last minute, those answered from memory; null when there were none.
    hit_percent: Option<f64>,
    upstream_per_second: u64,
    /// Increments and reads of the last minute, and the requests that reached nodes.
    requested_last_minute: u64,
    sent_last_minute: u64,
    saved_percent: Option<f64>,
    pending_keys: usize,
    oldest_pending_ms: u64,
    nodes_up: usize,
    nodes: usize,
    commands: u64,
    increments: u64,
    dead_letters: u64,
    in_doubt: u64,
    tracked_keys: usize,
}

/// A node.
#[derive(Debug, Serialize)]
pub(super) struct NodeView {
    name: String,
    address: String,
    up: bool,
    state: &'static str,
    /// Why it is away.
    reason: Option<String>,
    redis_version: Option<String>,
    requests_per_second: u64,
    requests: u64,
    errors: u64,
    reconnects: u64,
    in_flight: usize,
    unsent_bytes: usize,
    keys: usize,
    pending_keys: usize,
    oldest_pending_ms: u64,
    /// Half of the answers took no longer; null before the first and beyond five seconds.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// A counter.
#[derive(Debug, Serialize)]
pub(super) struct CounterView {
    key: String,
    database: u32,
    value: Option<i64>,
    /// Rise per second over the last ten.
    rate: f64,
    /// Reads per second over the last ten, about: one of 64 that memory answers is counted.
    reads: f64,
    /// Acknowledged, and not confirmed by the node.
    pending: i64,
    node: String,
    /// What a `GET` is answered from: `in_memory`, or the node's name.
    served_via: String,
    /// How old the value is here.
    age_seconds: u64,
    /// Rise in each of the last sixty seconds, the newest last.
    #[serde(skip_serializing_if = "Option::is_none")]
    spark: Option<Vec<u32>>,
}

/// Counters that share what stands before the first `:`.
#[derive(Debug, Serialize)]
struct PrefixView {
    prefix: String,
    keys: u64,
    rate: f64,
    reads: f64,
}

/// The busiest keys.
#[derive(Debug, Serialize)]
pub(super) struct HotKeysView {
    writes: Vec<CounterView>,
    reads: Vec<CounterView>,
    prefixes: Vec<PrefixView>,
}

/// A request that took long.
#[derive(Debug, Serialize)]
pub(super) struct SlowView {
    id: u64,
    /// Seconds since 1970.
    time: u64,
    took_ms: f64,
    /// Of that, outside of the node and its connection.
    tally_ms: f64,
    node_ms: f64,
    request: String,
    client: String,
}

/// Calls of limit scripts.
#[derive(Debug, Serialize)]
pub(super) struct LimitsView {
    /// Since the start or the last reset: calls, requests that they became, denied from memory.
    calls: u64,
    requests: u64,
    denied: u64,
    keys: Vec<LimitView>,
}

/// A key that limit scripts are called for.
#[derive(Debug, Serialize)]
struct LimitView {
    key: String,
    database: u32,
    /// Per second over the last ten.
    calls: f64,
    count: Option<i64>,
    limit: Option<i64>,
}

/// An error that clients were given.
#[derive(Debug, Serialize)]
struct RefusalView {
    text: String,
    count: u64,
    client: String,
    /// Seconds since 1970.
    last: u64,
}

/// The first ten by different measures.
#[derive(Debug, Serialize)]
struct Top {
    rate: Vec<CounterView>,
    value: Vec<CounterView>,
    reads: Vec<CounterView>,
    prefixes: Vec<PrefixView>,
}

#[derive(Debug, Serialize)]
struct Event {
    summary: Summary,
    nodes: Vec<NodeView>,
    top: Top,
    refusals: Vec<RefusalView>,
    slow: Vec<SlowView>,
    limits: LimitsView,
    point: Option<Point>,
}

/// The orders of counters, the largest first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sort {
    #[default]
    Rate,
    Value,
    Reads,
    /// By name, in alphabetical order.
    Key,
}

/// The event of a second.
pub(super) fn event(shared: &Shared, board: &Board, now: Instant) -> String {
    let event = Event {
        summary: summary(shared, board, now),
        nodes: nodes(board),
        top: Top {
            rate: top(shared, board, Sort::Rate),
            value: top(shared, board, Sort::Value),
            reads: top(shared, board, Sort::Reads),
            prefixes: prefixes(board),
        },
        refusals: shared
            .stats
            .refusals
            .list()
            .into_iter()
            .map(refusal)
            .collect(),
        slow: slow_log(shared, TOP),
        limits: limits(shared, board),
        point: board.trends.fine().next_back().copied(),
    };
    serde_json::to_string(&event).unwrap_or_default()
}

pub(super) fn summary(shared: &Shared, board: &Board, now: Instant) -> Summary {
    let config = &shared.live();
    let last = board.trends.fine().next_back().copied().unwrap_or_default();
    let minute: Vec<_> = board.trends.fine().rev().take(60).collect();
    let sum = |of: fn(&Point) -> u64| minute.iter().map(|point| of(point)).sum::<u64>();
    let (reads, hits) = (sum(|point| point.reads), sum(|point| point.hits));
    let requested = reads + sum(|point| point.increments);
    let sent = sum(|point| point.upstream);
    let statuses = board.nodes.iter().filter_map(|node| node.status.as_ref());
    let statuses: Vec<_> = statuses.collect();
    let oldest = statuses.iter().map(|node| node.pending_for).max();
    let is_up = |state: &NodeState| *state == NodeState::Connected;
    Summary {
        version: env!("CARGO_PKG_VERSION"),
        listen: config
            .listens()
            .next()
            .map_or_else(String::new, |address| address.to_string()),
        mode: config.counters.mode.name(),
        flush_interval_ms: ms(config.counters.flush_interval),
        cache_ttl_ms: ms(config.cache.ttl),
        visits_prefix: config.admin.visits_prefix.clone(),
        uptime_seconds: now.saturating_duration_since(shared.started).as_secs(),
        draining: shared.drain.is_cancelled(),
        clients: u64::try_from(shared.registry.count()).unwrap_or(u64::MAX),
        commands_per_second: last.commands,
        increments_per_second: last.increments,
        reads_per_second: last.reads,
        hit_percent: percent(hits, reads),
        upstream_per_second: last.upstream,
        requested_last_minute: requested,
        sent_last_minute: sent,
        saved_percent: percent(requested.saturating_sub(sent), requested),
        pending_keys: statuses.iter().map(|node| node.pending_keys).sum(),
        oldest_pending_ms: ms(oldest.unwrap_or_default()),
        nodes_up: statuses.iter().filter(|node| is_up(&node.state)).count(),
        nodes: board.nodes.len(),
        commands: shared.stats.commands_processed.get(),
        increments: shared.stats.increments_received.get(),
        dead_letters: shared.stats.dead_letters.get(),
        in_doubt: shared.stats.in_doubt.get(),
        tracked_keys: board.keys().count(),
    }
}

pub(super) fn nodes(board: &Board) -> Vec<NodeView> {
    board.nodes.iter().filter_map(node).collect()
}

fn node(track: &NodeTrack) -> Option<NodeView> {
    let status = track.status.as_ref()?;
    let (state, reason) = match &status.state {
        NodeState::Connecting => ("connecting", None),
        NodeState::Connected => ("connected", None),
        NodeState::Down { reason } => ("away", Some(reason.clone())),
    };
    let percentile = |part| {
        let bound = track.reply_times.percentile(part)?;
        Some(bound.as_secs_f64() * 1000.0)
    };
    Some(NodeView {
        name: status.name.clone(),
        address: status.address.clone(),
        up: status.state == NodeState::Connected,
        state,
        reason,
        redis_version: status.redis_version.clone(),
        requests_per_second: track.requests_per_second,
        requests: status.requests,
        errors: status.errors,
        reconnects: status.reconnects,
        in_flight: status.in_flight,
        unsent_bytes: status.unsent_bytes,
        keys: status.keys,
        pending_keys: status.pending_keys,
        oldest_pending_ms: ms(status.pending_for),
        p50_ms: percentile(50),
        p99_ms: percentile(99),
    })
}

/// Counters whose keys start with `prefix` and hold `part`, in order, at most `limit`.
pub(super) fn counters(
    shared: &Shared,
    board: &Board,
    (prefix, part): (&str, &str),
    sort: Sort,
    limit: usize,
) -> Vec<CounterView> {
    let part = part.to_lowercase();
    let fits = |key: &[u8]| {
        let name = shown(key);
        name.starts_with(prefix) && name.to_lowercase().contains(&part)
    };
    let mut found: Vec<_> = board.counters().filter(|(key, _)| fits(key)).collect();
    order(&mut found, sort);
    found.truncate(limit);
    let view = |(key, tracked)| counter(shared, board, key, tracked, true);
    found.into_iter().map(view).collect()
}

fn top(shared: &Shared, board: &Board, sort: Sort) -> Vec<CounterView> {
    let view = |(key, tracked)| counter(shared, board, key, tracked, false);
    first(board, sort, TOP).into_iter().map(view).collect()
}

/// The busiest keys, by writes and by reads, and prefixes.
pub(super) fn hottest(shared: &Shared, board: &Board, n: usize) -> HotKeysView {
    let views = |sort| {
        let view = |(key, tracked)| counter(shared, board, key, tracked, false);
        first(board, sort, n).into_iter().map(view).collect()
    };
    HotKeysView {
        writes: views(Sort::Rate),
        reads: views(Sort::Reads),
        prefixes: prefixes(board),
    }
}

/// The same keys, for sessions.
pub(super) fn hot_keys(shared: &Shared, board: &Board) -> (Vec<HotKey>, Vec<HotKey>) {
    let keys = |sort| {
        let hot = |(key, tracked): (&[u8], &Tracked)| HotKey {
            key: Key::new(key),
            database: tracked.database,
            writes: tracked.rate(),
            reads: tracked.reads(),
            value: tracked.value.count(),
            node: shared.router.node(0, tracked.node).name().to_owned(),
        };
        let first = first(board, sort, HotKeys::MOST);
        first.into_iter().map(hot).collect()
    };
    (keys(Sort::Rate), keys(Sort::Reads))
}

/// The last slow requests, the newest first.
pub(super) fn slow_log(shared: &Shared, count: usize) -> Vec<SlowView> {
    let ms = |duration: Duration| {
        let us = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        f64::from(us) / 1000.0
    };
    let entries = shared.stats.slow_log.newest(count).into_iter();
    let view = |entry: SlowEntry| SlowView {
        id: entry.id,
        time: entry.time.as_secs(),
        took_ms: ms(entry.took),
        tally_ms: ms(entry.took.saturating_sub(entry.node)),
        node_ms: ms(entry.node),
        request: shown(&entry.args.join(&b' ')),
        client: entry.client,
    };
    entries.map(view).collect()
}

/// Calls of limit scripts, and the keys for which most came lately.
pub(super) fn limits(shared: &Shared, board: &Board) -> LimitsView {
    let mut called: Vec<_> = board
        .keys()
        .filter(|(_, tracked)| tracked.calls() > 0.0)
        .collect();
    called.sort_unstable_by(|(key, a), (other, b)| {
        let order = b.calls().total_cmp(&a.calls()).then(key.cmp(other));
        order.then(a.database.cmp(&b.database))
    });
    called.truncate(TOP);
    let view = |(key, tracked): (&[u8], &Tracked)| LimitView {
        key: shown(key),
        database: tracked.database,
        calls: tracked.calls(),
        count: tracked.value.count(),
        limit: tracked.limit,
    };
    LimitsView {
        calls: shared.stats.limit_calls.get(),
        requests: shared.stats.limit_requests.get(),
        denied: shared.stats.limit_denied.get(),
        keys: called.into_iter().map(view).collect(),
    }
}

/// The first counters by a measure, without those for which it is zero.
fn first(board: &Board, sort: Sort, count: usize) -> Vec<(&[u8], &Tracked)> {
    let is_active = |tracked: &Tracked| match sort {
        Sort::Rate => tracked.rate() > 0.0,
        Sort::Reads => tracked.reads() > 0.0,
        Sort::Value | Sort::Key => tracked.value.count().is_some(),
    };
    let mut found: Vec<_> = board
        .keys()
        .filter(|(_, tracked)| is_active(tracked))
        .collect();
    order(&mut found, sort);
    found.truncate(count);
    found
}

fn order(found: &mut [(&[u8], &Tracked)], sort: Sort) {
    found.sort_unstable_by(|(key, a), (other, b)| {
        let most_first = match sort {
            Sort::Rate => b.rate().total_cmp(&a.rate()),
            Sort::Value => b.value.count().cmp(&a.value.count()),
            Sort::Reads => b.reads().total_cmp(&a.reads()),
            Sort::Key => std::cmp::Ordering::Equal,
        };
        let value = b.value.count().cmp(&a.value.count());
        match sort {
            Sort::Key => key.cmp(other),
            _ => most_first.then(value).then(key.cmp(other)),
        }
        .then(a.database.cmp(&b.database))
    });
}

pub(super) fn counter(
    shared: &Shared,
    board: &Board,
    key: &[u8],
    tracked: &Tracked,
    with_spark: bool,
) -> CounterView {
    let node = shared.router.node(0, tracked.node).name().to_owned();
    CounterView {
        key: shown(key),
        database: tracked.database,
        value: tracked.value.count(),
        rate: tracked.rate(),
        reads: tracked.reads(),
        pending: tracked.pending,
        served_via: if tracked.from_memory {
            "in_memory".to_owned()
        } else {
            node.clone()
        },
        node,
        age_seconds: board.seconds_since(tracked.valued),
        spark: with_spark.then(|| tracked.rises.iter().copied().collect()),
    }
}

/// Sums by what stands before the first `:`, the busiest first.
fn prefixes(board: &Board) -> Vec<PrefixView> {
    let mut sums: HashMap<&[u8], PrefixView> = HashMap::new();
    for (key, tracked) in board.keys() {
        let Some(end) = memchr::memchr(b':', key) else {
            continue;
        };
        let prefix = key.get(..=end).unwrap_or(key);
        let sum = sums.entry(prefix).or_insert_with(|| PrefixView {
            prefix: shown(prefix),
            keys: 0,
            rate: 0.0,
            reads: 0.0,
        });
        sum.keys += 1;
        sum.rate += tracked.rate();
        sum.reads += tracked.reads();
    }
    let mut sums: Vec<_> = sums.into_values().collect();
    sums.sort_unstable_by(|a, b| {
        let busy = |view: &PrefixView| view.rate + view.reads;
        busy(b)
            .total_cmp(&busy(a))
            .then_with(|| a.prefix.cmp(&b.prefix))
    });
    sums.truncate(TOP);
    sums
}

fn refusal(refusal: Refusal) -> RefusalView {
    RefusalView {
        text: refusal.text,
        count: refusal.count,
        client: refusal.client,
        last: refusal.last.as_secs(),
    }
}

/// A key as text: as it is when it is UTF-8, else with its bytes escaped.
pub(super) fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => text.to_owned(),
        Err(_) => key.escape_ascii().to_string(),
    }
}

/// `part` of `whole` in percent, one decimal; `None` of nothing.
fn percent(part: u64, whole: u64) -> Option<f64> {
    let tenths = part.saturating_mul(1000).checked_div(whole)?;
    Some(f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Rows of each list of the first.
const TOP: usize = 10;
