//! Whether the process lives, whether clients should be sent to it, and the metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

use super::{State, now};
use crate::telemetry::metrics::{CLASSIC_CONTENT_TYPE, CONTENT_TYPE, Snapshot};
use crate::telemetry::{NodeState, ProcessUsage};

/// Always `{"status":"alive"}`: whoever gets it knows that the process works. Depends on no node,
/// so that an orchestrator does not restart Tally because Redis is away.
pub(super) async fn healthz() -> impl IntoResponse {
    Json(serde_json::json!({ "status": "alive" }))
}

/// What `/readyz` says.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    ready: bool,
    listening: bool,
    draining: bool,
    nodes_up: usize,
    nodes: usize,
    /// What is not as it should be. A node that is away stands here even while Tally is ready.
    reasons: Vec<String>,
}

/// 200 when clients can be served: Tally listens, is not draining, and reaches at least one node.
/// One node's being away does not make it unready: the node's keys fail on every other Tally too.
pub(super) async fn readyz(Extract(state): Extract<Arc<State>>) -> impl IntoResponse {
    let readiness = readiness(&state);
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness))
}

fn readiness(state: &State) -> Readiness {
    let listening = state.serving.load(Ordering::Relaxed);
    let draining = state.shared.drain.is_cancelled();
    let mut reasons = Vec::new();
    if !listening {
        reasons.push("clients can not connect yet".to_owned());
    }
    if draining {
        reasons.push("draining: clients are answered, none is let in".to_owned());
    }
    let nodes = state.shared.router.statuses();
    let mut nodes_up = 0;
    for node in &nodes {
        match &node.state {
            NodeState::Connected => nodes_up += 1,
            NodeState::Connecting => reasons.push(format!("node {} is being connected", node.name)),
            NodeState::Down { reason } => {
                reasons.push(format!("node {} is away: {reason}", node.name));
            }
        }
    }
    Readiness {
        ready: listening && !draining && nodes_up > 0,
        listening,
        draining,
        nodes_up,
        nodes: nodes.len(),
        reasons,
    }
}

/// All metrics: as `OpenMetrics` text for whoever asks for that, as Prometheus does; in its older
/// format for all others.
pub(super) async fn metrics(
    Extract(state): Extract<Arc<State>>,
    headers: HeaderMap,
) -> impl IntoResponse {
    let shared = &state.shared;
    let snapshot = Snapshot {
        stats: Arc::clone(&shared.stats),
        nodes: shared.router.statuses(),
        clients: shared.registry.count(),
        max_clients: shared.registry.max_clients(),
        process: ProcessUsage::read(),
        uptime: now().saturating_duration_since(shared.started),
    };
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    let is_open = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.contains("application/openmetrics-text")
    };
    let (kind, text) = if accepted.any(is_open) {
        (CONTENT_TYPE, snapshot.text())
    } else {
        (CLASSIC_CONTENT_TYPE, snapshot.classic_text())
    };
    ([(header::CONTENT_TYPE, kind)], text)
}
