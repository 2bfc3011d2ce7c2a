//! Once a second: looks at everything, sends it to the pages, asks for values that are not known
//! here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use super::board::{Totals, Value};
use super::{State, now, view};
use crate::resp::reply;
use crate::telemetry::clock::wall_time;

/// Runs until it is dropped.
pub(super) async fn run(state: &Arc<State>) {
    let places = Arc::new(Semaphore::new(MAX_ASKED));
    let mut ticker = interval(PERIOD);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticker.tick().await;
        tick(state);
        if state.is_looked_at() || state.events.receiver_count() > 0 {
            ask(state, &places);
        }
    }
}

fn tick(state: &State) {
    let shared = &state.shared;
    let totals = Totals {
        commands: shared.stats.commands_processed.get(),
        increments: shared.stats.increments_received.get(),
        hits: shared.stats.keyspace_hits.get(),
        misses: shared.stats.keyspace_misses.get(),
        upstream: shared.stats.upstream_requests.get(),
        clients: u64::try_from(shared.registry.count()).unwrap_or(u64::MAX),
        wall: wall_time().as_secs(),
    };
    let now = now();
    let statuses = shared.router.statuses();
    let touches = shared.stats.seen.take();
    let mut board = state.board.lock();
    board.tick(now, totals, statuses, touches, |database, key| {
        let node = shared.router.index(key);
        let table = shared.router.node(database, node).table();
        (node, table.peek(key, now))
    });
    let (writes, reads) = view::hot_keys(shared, &board);
    shared.stats.hot_keys.set(writes, reads);
    if state.events.receiver_count() > 0 {
        let event = view::event(shared, &board, now);
        state.events.send_replace(event.into());
    }
}

/// Asks nodes for values, a bounded number at once.
fn ask(state: &Arc<State>, places: &Arc<Semaphore>) {
    let wanted = state.board.lock().wanted(places.available_permits());
    for (database, key) in wanted {
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return;
        };
        let state = Arc::clone(state);
        tokio::spawn(async move {
            if let Ok(answer) = state.ask(database, &[b"GET", &key], false).await {
                let value = if reply::is_error(&answer.frame) {
                    // Another type, or the node is away: then the next touch asks again.
                    Value::Other
                } else {
                    Value::of_text(reply::text(&answer.frame))
                };
                if !is_away(&answer.frame) {
                    state.board.lock().learn(database, &key, value);
                }
            }
            drop(place);
        });
    }
}

/// Whether the node gave no answer.
fn is_away(frame: &[u8]) -> bool {
    frame.starts_with(b"-ERR node ")
}

const PERIOD: Duration = Duration::from_secs(1);

/// Most values asked for at once, and in a second.
const MAX_ASKED: usize = 32;
