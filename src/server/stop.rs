//! Signals, and the order of a stop: no new clients, answers, the last flush, the end.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout_at};

use super::ServeError;
use super::notify::Notify;
use super::worker::Workers;
use crate::router::Router;
use crate::session::{Shared, Ticket};

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on these signals do not kill the process.
    pub(super) fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self {
            terminate,
            interrupt,
        })
    }

    /// Waits for the next of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits until every node was connected or found away, at most `bound`.
pub(super) async fn tried(router: &Router<Ticket>, bound: Duration) {
    let deadline = Instant::now() + bound;
    while router.in_use().any(|node| node.is_connecting()) && Instant::now() < deadline {
        sleep(TURN).await;
    }
}

/// Lets sessions answer what they have read, then flushes until nothing is pending. Sessions have
/// half of `bound` at most: a client that does not read must not cost others their increments.
pub(super) async fn drain(
    shared: &Shared,
    workers: &Workers,
    bound: Duration,
) -> Result<(), ServeError> {
    let begun = Instant::now();
    let deadline = begun + bound;
    tracing::info!(clients = shared.registry.count(), "draining");
    shared.drain.cancel();
    shared.pause.end();
    workers.tracker.close();
    let answered = timeout_at(begun + bound / 2, workers.tracker.wait());
    if answered.await.is_err() {
        tracing::warn!("some clients did not take their replies in time");
        shared.registry.kill_all();
        // Nothing more is acknowledged once they are gone.
        if timeout_at(deadline, workers.tracker.wait()).await.is_err() {
            tracing::warn!("some sessions did not end");
        }
    }
    while shared.router.in_use().any(|node| !node.is_settled()) {
        if Instant::now() >= deadline {
            return Err(unflushed(shared));
        }
        for node in shared.router.in_use() {
            node.flush();
        }
        sleep(TURN).await;
    }
    tracing::info!("everything is flushed");
    Ok(())
}

/// Says every two seconds how far the stop is: in the log, to the service manager, and on a
/// terminal that does not show the line of the log. Runs until it is dropped.
pub(super) async fn tell(shared: &Shared, notify: &Notify, bound: Duration) {
    let begun = Instant::now();
    loop {
        sleep(TELL).await;
        let (clients, nodes) = (shared.registry.count(), shared.router.in_use());
        let keys: usize = nodes.map(|node| node.unflushed_keys()).sum();
        let left = bound.saturating_sub(begun.elapsed()).as_secs();
        tracing::info!(clients, keys, seconds_left = left, "still draining");
        let line = format!("Stopping: {clients} clients, {keys} keys to flush, {left} s left");
        show(notify, &line);
    }
}

/// Tells the service manager, and a terminal that does not show the line of the log.
pub(super) fn show(notify: &Notify, line: &str) {
    notify.status(line);
    if io::stderr().is_terminal() && !tracing::enabled!(tracing::Level::INFO) {
        writeln!(io::stderr(), "tally: {line}").ok();
    }
}

/// What is left when the stop is at its end.
pub(super) fn unflushed(shared: &Shared) -> ServeError {
    let nodes = shared.router.in_use();
    ServeError::Unflushed {
        keys: nodes.map(|node| node.unflushed_keys()).sum(),
        kept: shared.config.journal.path.is_some(),
    }
}

/// A stop that takes longer than this says how far it is, and again each time.
const TELL: Duration = Duration::from_secs(2);

/// Between two looks at the nodes.
const TURN: Duration = Duration::from_millis(2);
