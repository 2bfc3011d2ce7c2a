//! `POST /api/v1/reload`: the configuration is read anew, as at SIGHUP.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{Failure, State};

/// What came of it.
#[derive(Debug, Serialize)]
struct Reloaded {
    status: &'static str,
    /// Keys that hold from now on.
    applied: Vec<String>,
    /// Keys that differ from what holds, and need a restart.
    needs_restart: Vec<String>,
    /// Nodes whose keys are still treated by the rules of before: away with something pending, or
    /// slow to apply it. They change when it is applied.
    waiting: Vec<String>,
}

/// Why nothing came of it.
#[derive(Debug, Serialize)]
struct Faulty {
    status: &'static str,
    message: &'static str,
    faults: Vec<String>,
}

/// Waits until the keys of all nodes that can be reached are treated by the rules in force; returns
/// the nodes whose keys are not.
async fn treated(state: &State) -> Vec<String> {
    let timeout = state.shared.live().upstream.request_timeout;
    let end = Instant::now() + timeout;
    loop {
        let waiting = || {
            let nodes = state.shared.router.all();
            nodes.filter(|node| node.awaits_treatment())
        };
        if waiting().all(|node| node.is_away()) || Instant::now() >= end {
            let mut names: Vec<_> = waiting().map(|node| node.name().to_owned()).collect();
            // A node is there once for each of its databases.
            names.sort_unstable();
            names.dedup();
            return names;
        }
        sleep(TURN).await;
    }
}

/// Files are read on this thread, which serves nobody else meanwhile.
pub(super) async fn reload(Extract(state): Extract<Arc<State>>) -> Response {
    if state.shared.live().admin.token.is_none() {
        let text = "there is no admin.token, so only SIGHUP reloads";
        return Failure::new(StatusCode::FORBIDDEN, text).into_response();
    }
    match (state.reload)() {
        Ok(changes) => Json(Reloaded {
            status: "success",
            applied: changes.applied,
            needs_restart: changes.restart,
            waiting: treated(&state).await,
        })
        .into_response(),
        Err(faults) => {
            let body = Faulty {
                status: "error",
                message: "the configuration is at fault; the old one holds",
                faults: faults.0.iter().map(ToString::to_string).collect(),
            };
            (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
        }
    }
}

/// Between two looks at the nodes.
const TURN: Duration = Duration::from_millis(2);
