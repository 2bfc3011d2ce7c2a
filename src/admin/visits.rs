//! Counters over HTTP: a page's visits, without an app.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use serde::Serialize;

use super::{Failure, State};
use crate::resp::{parse_i64, reply};

/// What `POST /visit/{page_id}` answers.
#[derive(Debug, Serialize)]
pub(super) struct Recorded {
    status: &'static str,
    message: String,
}

/// What `GET /visits/{page_id}` answers.
#[derive(Debug, Serialize)]
pub(super) struct Visits {
    count: i64,
    /// `in_memory`, or the name of the node that was asked.
    served_via: String,
}

/// Counts a visit: `INCR` of the page's key. Acknowledged as a client's `INCR` is.
pub(super) async fn record(
    Extract(state): Extract<Arc<State>>,
    page_id: Result<Path<String>, PathRejection>,
) -> Result<Json<Recorded>, Failure> {
    let Path(page_id) = page_id?;
    let key = key(&state, &page_id)?;
    if state.shared.drain.is_cancelled() {
        // What is counted now might be too late for the last flush.
        return Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Tally is stopping; the visit was not recorded",
        ));
    }
    let answer = state.ask(0, &[b"INCR", &key], true).await?;
    match reply::integer(&answer.frame) {
        Some(_) => Ok(Json(Recorded {
            status: "success",
            message: format!("Visit recorded for page {page_id}"),
        })),
        None => Err(Failure::of_reply(
            reply::text(&answer.frame).unwrap_or_default(),
        )),
    }
}

/// A page's visits: `GET` of its key; a page without one has none.
pub(super) async fn count(
    Extract(state): Extract<Arc<State>>,
    page_id: Result<Path<String>, PathRejection>,
) -> Result<Json<Visits>, Failure> {
    let Path(page_id) = page_id?;
    let key = key(&state, &page_id)?;
    let answer = state.ask(0, &[b"GET", &key], true).await?;
    let text = reply::text(&answer.frame).unwrap_or_default();
    if reply::is_error(&answer.frame) {
        return Err(Failure::of_reply(text));
    }
    let count = if reply::is_null(&answer.frame) {
        0
    } else {
        parse_i64(text).ok_or_else(|| {
            let message = format!("the value of the key of page {page_id} is not a count");
            Failure::new(StatusCode::CONFLICT, message)
        })?
    };
    let served_via = if answer.from_memory {
        "in_memory".to_owned()
    } else {
        let router = &state.shared.router;
        router.node(0, router.index(&key)).name().to_owned()
    };
    Ok(Json(Visits { count, served_via }))
}

fn key(state: &State, page_id: &str) -> Result<Vec<u8>, Failure> {
    if page_id.len() > MAX_ID_BYTES {
        let message = format!("a page's id has at most {MAX_ID_BYTES} bytes");
        return Err(Failure::new(StatusCode::BAD_REQUEST, message));
    }
    let prefix = &state.shared.live().admin.visits_prefix;
    Ok([prefix.as_bytes(), page_id.as_bytes()].concat())
}

/// Longest id of a page: a path of a long URL.
const MAX_ID_BYTES: usize = 1024;
