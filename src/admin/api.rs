//! `/api/v1`: what the page shows, for everybody.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use serde::{Deserialize, Serialize};
use tokio::sync::watch::Receiver;

use super::board::{Tracked, Value};
use super::trends::{COLUMNS, Point};
use super::view::{self, CounterView, HotKeysView, LimitsView, NodeView, SlowView, Sort, Summary};
use super::{Failure, State, now};
use crate::resp::reply;
use crate::telemetry::HotKeys;

pub(super) async fn summary(Extract(state): Extract<Arc<State>>) -> Json<Summary> {
    Json(view::summary(&state.shared, &state.board.lock(), now()))
}

pub(super) async fn nodes(Extract(state): Extract<Arc<State>>) -> Json<Vec<NodeView>> {
    Json(view::nodes(&state.board.lock()))
}

/// How many keys are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HowMany {
    n: Option<usize>,
}

pub(super) async fn hot_keys(
    Extract(state): Extract<Arc<State>>,
    asked: Result<Query<HowMany>, QueryRejection>,
) -> Result<Json<HotKeysView>, Failure> {
    state.look();
    let Query(asked) = asked?;
    let n = asked.n.unwrap_or(DEFAULT_HOT_KEYS).min(HotKeys::MOST);
    let board = state.board.lock();
    Ok(Json(view::hottest(&state.shared, &board, n)))
}

pub(super) async fn slow_log(Extract(state): Extract<Arc<State>>) -> Json<Vec<SlowView>> {
    Json(view::slow_log(&state.shared, MAX_LIMIT))
}

pub(super) async fn limits(Extract(state): Extract<Arc<State>>) -> Json<LimitsView> {
    state.look();
    Json(view::limits(&state.shared, &state.board.lock()))
}

/// Which counters are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default)]
    prefix: String,
    /// A part of the key, in any case.
    #[serde(default)]
    q: String,
    #[serde(default)]
    sort: Sort,
    limit: Option<usize>,
}

/// Counters, and how many keys are known in all.
#[derive(Debug, Serialize)]
pub(super) struct Counters {
    counters: Vec<CounterView>,
    tracked_keys: usize,
}

pub(super) async fn counters(
    Extract(state): Extract<Arc<State>>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Counters>, Failure> {
    state.look();
    let Query(which) = which?;
    let limit = which.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let board = state.board.lock();
    let text = (which.prefix.as_str(), which.q.as_str());
    Ok(Json(Counters {
        counters: view::counters(&state.shared, &board, text, which.sort, limit),
        tracked_keys: board.keys().count(),
    }))
}

/// One counter, with what only its node knows.
#[derive(Debug, Serialize)]
pub(super) struct Details {
    #[serde(flatten)]
    counter: CounterView,
    /// Milliseconds until it expires; null when it does not.
    ttl_ms: Option<i64>,
}

/// In which database a key is looked up.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    #[serde(default)]
    database: u32,
}

/// Looks a key up by its name, as a client's `GET` and `PTTL` would.
pub(super) async fn counter(
    Extract(state): Extract<Arc<State>>,
    key: Result<Path<String>, PathRejection>,
    place: Result<Query<Place>, QueryRejection>,
) -> Result<Json<Details>, Failure> {
    state.look();
    let Path(key) = key?;
    let Query(Place { database }) = place?;
    if database >= state.shared.config.server.databases {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "there is no such database",
        ));
    }
    let key = key.as_bytes();
    let ttl = state.ask(database, &[b"PTTL", key], false).await?;
    let answer = state.ask(database, &[b"GET", key], false).await?;
    for frame in [&ttl.frame, &answer.frame] {
        if reply::is_error(frame) {
            return Err(Failure::of_reply(reply::text(frame).unwrap_or_default()));
        }
    }
    let value = match Value::of_text(reply::text(&answer.frame)) {
        Value::Missing | Value::Unknown => {
            return Err(Failure::new(StatusCode::NOT_FOUND, "there is no such key"));
        }
        Value::Other => {
            return Err(Failure::new(
                StatusCode::CONFLICT,
                "its value is not a count",
            ));
        }
        count @ Value::Count(_) => count,
    };
    let mut board = state.board.lock();
    board.learn(database, key, value);
    let untracked = Tracked {
        database,
        node: state.shared.router.index(key),
        value,
        from_memory: answer.from_memory,
        valued: board.ticks(),
        ..Tracked::default()
    };
    let tracked = board.key(database, key).unwrap_or(&untracked);
    Ok(Json(Details {
        counter: view::counter(&state.shared, &board, key, tracked, true),
        ttl_ms: reply::integer(&ttl.frame).filter(|ms| *ms >= 0),
    }))
}

/// How far apart points are: seconds, 1 or 10.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    #[serde(default = "one")]
    step: u64,
}

fn one() -> u64 {
    1
}

/// Points of the last minutes or hours.
#[derive(Debug, Serialize)]
pub(super) struct Series {
    step_seconds: u64,
    columns: [&'static str; COLUMNS.len()],
    points: Vec<Point>,
}

pub(super) async fn series(
    Extract(state): Extract<Arc<State>>,
    step: Result<Query<Step>, QueryRejection>,
) -> Result<Json<Series>, Failure> {
    let step = step.map(|Query(step)| step.step);
    let trends = &state.board.lock().trends;
    let points = match step {
        Ok(1) => trends.fine().copied().collect(),
        Ok(10) => trends.coarse().copied().collect(),
        _ => return Err(Failure::new(StatusCode::BAD_REQUEST, "step is 1 or 10")),
    };
    Ok(Json(Series {
        step_seconds: step.unwrap_or(1),
        columns: COLUMNS,
        points,
    }))
}

/// An event a second with everything that changes.
pub(super) async fn stream(
    Extract(state): Extract<Arc<State>>,
) -> Result<impl IntoResponse, Failure> {
    let Ok(place) = Arc::clone(&state.streams).try_acquire_owned() else {
        return Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many pages are open",
        ));
    };
    let events = state.events.subscribe();
    // The event in the channel may be of an hour ago, when the last page was closed.
    let first = view::event(&state.shared, &state.board.lock(), now());
    let next = async |(first, mut events, place): (Option<String>, Receiver<Arc<str>>, _)| {
        let event = if let Some(first) = first {
            events.mark_unchanged();
            Event::default().data(first)
        } else {
            events.changed().await.ok()?;
            Event::default().data(&**events.borrow_and_update())
        };
        Some((Ok::<_, Infallible>(event), (None, events, place)))
    };
    let stream = futures_util::stream::unfold((Some(first), events, place), next);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new()))
}

/// Keys by writes and by reads, unless it is said how many.
const DEFAULT_HOT_KEYS: usize = 10;

/// Counters in a list, unless it is said how many.
const DEFAULT_LIMIT: usize = 100;

/// Most counters in a list: 500 KiB.
const MAX_LIMIT: usize = 1000;
