//! `POST /api/v1/reload`: the configuration is read anew, as at SIGHUP.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{Failure, State};

/// What came of it.
#[derive(Debug, Serialize)]
struct Reloaded {
    status: &'static str,
    /// Keys that hold from now on.
    applied: Vec<String>,
    /// Keys that differ from what holds, and need a restart.
    needs_restart: Vec<String>,
}

/// Why nothing came of it.
#[derive(Debug, Serialize)]
struct Faulty {
    status: &'static str,
    message: &'static str,
    faults: Vec<String>,
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
