//! The journal's life beside the server's: opened before it, synced every second, left in good order.

use std::future::pending;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::ServeError;
use super::notify::Notify;
use crate::config::Config;
use crate::journal::{Journal, Unsettled};
use crate::session::Shared;
use crate::telemetry::Stats;
use crate::telemetry::clock::wall_time;

/// Opens the journal, if there shall be one, and says what is in it.
pub(super) fn open(config: &Config) -> Result<Option<(Journal, Vec<Unsettled>)>, ServeError> {
    let Some(path) = &config.journal.path else {
        tracing::warn!("there is no journal: a crash loses what is not flushed");
        return Ok(None);
    };
    let (journal, unsettled) = Journal::open(path, config.journal.bytes)?;
    for Unsettled {
        node,
        database,
        recovered,
    } in &unsettled
    {
        let (batches, pending) = (recovered.batches.len(), recovered.pending.len());
        tracing::warn!(
            node,
            database,
            batches,
            pending,
            "the journal holds increments of the process before: they are flushed first"
        );
        let is_known = config.nodes.iter().any(|other| other.name == *node);
        if !is_known || *database >= config.server.databases {
            let sealed: usize = recovered.batches.values().map(Vec::len).sum();
            return Err(ServeError::Orphans {
                database: *database,
                node: node.clone(),
                keys: sealed + pending,
            });
        }
    }
    Ok(Some((journal, unsettled)))
}

/// Has what is in the journal written to the disk every second, if so wished, until it is dropped.
/// A write that takes longer than that delays the next.
pub(super) async fn sync(journal: Option<&Journal>, wished: bool, stats: &Stats) {
    let Some(journal) = journal.filter(|_| wished) else {
        return pending().await;
    };
    let mut ticker = interval(PERIOD);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticker.tick().await;
        let journal = journal.clone();
        let synced = tokio::task::spawn_blocking(move || journal.sync()).await;
        match synced {
            Ok(Ok(())) => stats.journal_last_sync.set(wall_time().as_secs()),
            Ok(Err(error)) => {
                stats.journal_sync_errors.increment();
                tracing::error!(%error, "the journal could not be written to the disk");
            }
            // The process ends.
            Err(_) => {}
        }
    }
}

/// Says how far the flush of what the process before left is, if it takes longer than two seconds:
/// where [`super::stop::tell`] does, at growing intervals. Runs until it is dropped.
pub(super) async fn tell(shared: &Shared, notify: &Notify) {
    let mut pause = FIRST_TELL;
    loop {
        sleep(pause).await;
        let nodes = shared.router.in_use();
        let keys: usize = nodes.map(|node| node.recovering_keys()).sum();
        if keys == 0 {
            return pending().await;
        }
        tracing::info!(keys, "still flushing what the process before left");
        let line = format!("Flushing what the process before left: {keys} keys");
        super::stop::show(notify, &line);
        pause = (pause * 2).min(LAST_TELL);
    }
}

/// The last word to the journal.
pub(super) fn leave(journal: &Journal) {
    if let Err(error) = journal.leave() {
        tracing::error!(%error, "the journal could not be written to the disk");
    }
}

/// When a recovery first says how far it is, and the longest pause until it does so again.
const FIRST_TELL: Duration = Duration::from_secs(2);
const LAST_TELL: Duration = Duration::from_secs(60);

/// As `appendfsync everysec` of Redis.
const PERIOD: Duration = Duration::from_secs(1);
