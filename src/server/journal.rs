//! The journal's life beside the server's: opened before it, synced every second or whenever
//! somebody waits for it, left in good order.

use std::future::pending;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::ServeError;
use super::notify::Notify;
use crate::config::{Config, Fsync};
use crate::flush::Commits;
use crate::journal::{Journal, Unsettled};
use crate::session::Shared;
use crate::telemetry::Stats;
use crate::telemetry::clock::wall_time;

/// Opens the journal, if one is configured, and logs what is in it.
pub(super) fn open(config: &Config) -> Result<Option<(Journal, Vec<Unsettled>)>, ServeError> {
    let Some(path) = &config.journal.path else {
        tracing::warn!("there is no journal: a crash loses what is not flushed");
        return Ok(None);
    };
    let (journal, unsettled) = Journal::open(path, config.journal.bytes, config.journal.fsync)?;
    if !Journal::tells_power_cuts() {
        tracing::warn!(
            "/proc/sys/kernel/random/boot_id can not be read: after a power cut of the machine \
             increments may be counted twice"
        );
    }
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

/// Has the journal written to the disk as configured, until it is dropped; does nothing without a
/// journal. With [`Fsync::Always`] a failure is the end: nothing can be acknowledged any more, and
/// after a failed write the system may take pages for written that are not.
pub(super) async fn sync(
    journal: Option<&Journal>,
    fsync: Fsync,
    stats: &Arc<Stats>,
) -> Result<(), ServeError> {
    let Some(journal) = journal.filter(|_| fsync != Fsync::No) else {
        return pending().await;
    };
    if let Some(commits) = journal.commits() {
        return commit(journal, commits, stats).await;
    }
    every_second(journal, stats).await
}

/// Every second; a write that takes longer delays the next.
async fn every_second(journal: &Journal, stats: &Stats) -> ! {
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

/// Whenever somebody waits for it, on a thread of its own: as often as the disk allows.
async fn commit(
    journal: &Journal,
    commits: &'static Commits,
    stats: &Arc<Stats>,
) -> Result<(), ServeError> {
    let (journal, stats) = (journal.clone(), Arc::clone(stats));
    let (failed, failure) = oneshot::channel();
    let run = move || {
        while let Some(note) = commits.next() {
            if let Err(error) = journal.sync() {
                stats.journal_sync_errors.increment();
                // At the end nobody listens.
                return drop(failed.send(error));
            }
            stats.journal_last_sync.set(wall_time().as_secs());
            commits.keep(note);
        }
    };
    let thread = std::thread::Builder::new().name("journal".into());
    let thread = thread.spawn(run).map_err(ServeError::Worker)?;
    let _end = Ends(commits, Some(thread));
    match failure.await {
        Ok(error) => Err(ServeError::Sync(error)),
        Err(_) => pending().await,
    }
}

/// Ends the thread that writes the disk.
struct Ends(&'static Commits, Option<JoinHandle<()>>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
        if let Some(thread) = self.1.take() {
            // Whatever it had to say was said.
            drop(thread.join());
        }
    }
}

/// Says how far the flush of a previous process's increments is, if it takes longer than two
/// seconds: to those whom [`super::stop::tell`] tells, at growing intervals. Runs until it is
/// dropped.
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

/// Leaves the journal in good order.
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
