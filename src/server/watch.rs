//! What is done ten times a second: statistics are taken, clients that are idle for too long are
//! closed, and keys whose time is over are told to the clients that keep them.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::counter::Counts;
use crate::journal::Journal;
use crate::session::Shared;

/// Runs until it is dropped.
pub(super) async fn watch(shared: &Shared, journal: Option<&Journal>) {
    let mut ticker = interval(PERIOD);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = vec![Counts::default(); shared.router.all().count()];
    loop {
        ticker.tick().await;
        let now = Instant::now().into_std();
        shared.stats.sample(now);
        shared.pause.tick(now);
        if let Some(journal) = journal {
            let (taken, slots) = journal.usage();
            let count = |slots: usize| u64::try_from(slots).unwrap_or(u64::MAX);
            shared.stats.journal_slots.set(count(slots));
            shared.stats.journal_slots_taken.set(count(taken));
        }
        shared.tracking.tick(now);
        for (node, seen) in shared.router.all().zip(&mut seen) {
            let counts = node.counts();
            let stats = &shared.stats;
            stats.flush_batches.add(counts.batches - seen.batches);
            stats.flush_keys.add(counts.keys - seen.keys);
            stats.upstream_requests.add(counts.requests - seen.requests);
            stats
                .increments_forwarded
                .add(counts.increments - seen.increments);
            stats.increments_flushed.add(counts.applied - seen.applied);
            stats
                .limit_requests
                .add(counts.limit_requests - seen.limit_requests);
            stats
                .limit_denied
                .add(counts.limit_denied - seen.limit_denied);
            stats
                .flush_errors
                .add(counts.flush_errors - seen.flush_errors);
            *seen = counts;
        }
        let Some(bound) = shared.live().server.idle_timeout else {
            continue;
        };
        for client in shared.registry.clients() {
            if client.is_idle(now, bound) {
                client.kill.cancel();
            }
        }
    }
}

/// Bounds how much later than promised an idle client is closed.
const PERIOD: Duration = Duration::from_millis(100);
