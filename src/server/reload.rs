//! Reads the configuration anew while clients are served.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{bound_slow_log, files, table_bounds};
use crate::config::{Changes, Config, Faults};
use crate::session::Shared;
use crate::telemetry::log;

/// Reads the configuration as at the start.
pub type Load = Box<dyn Fn() -> Result<Config, Faults> + Send + Sync>;

/// SIGHUP.
pub(super) struct HangUps(Signal);

impl HangUps {
    /// From now on the signal does not kill the process.
    pub(super) fn new() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Reloads at each, until it is dropped. What came of it is in the log.
    pub(super) async fn reload_each(&mut self, reloader: &Reloader) {
        while self.0.recv().await.is_some() {
            reloader.reload().ok();
        }
        std::future::pending::<()>().await;
    }
}

/// Applies changed configurations, one after the other.
pub(super) struct Reloader {
    load: Load,
    turn: Mutex<()>,
    shared: Shared,
}

impl Reloader {
    pub(super) fn new(load: Load, shared: Shared) -> Self {
        Self {
            load,
            turn: Mutex::new(()),
            shared,
        }
    }

    /// Reads the configuration and applies it. What changed, or is wrong, is logged.
    ///
    /// # Errors
    ///
    /// The configuration is at fault; what held holds.
    pub(super) fn reload(&self) -> Result<Changes, Faults> {
        let _turn = self.turn.lock();
        let changes = (self.load)().and_then(|wanted| self.apply(&wanted));
        match &changes {
            Ok(changes) => {
                if !changes.restart.is_empty() {
                    let keys = changes.restart.join(", ");
                    tracing::warn!(keys, "changed, and need a restart");
                }
                // Behind everything else that is said: who waits for it has read the rest.
                let applied = changes.applied.join(", ");
                tracing::info!(applied, "the configuration was read again");
                // Last: a level that shows less would hide what was logged here.
                log::set(&self.shared.live().log_level);
            }
            Err(faults) => {
                for fault in &faults.0 {
                    tracing::error!(%fault, "the configuration was refused, the old one holds");
                }
            }
        }
        changes
    }

    fn apply(&self, wanted: &Config) -> Result<Changes, Faults> {
        let (mut next, changes) = self.shared.live().adopt(wanted)?;
        files::fit(&mut next);
        let rules = Arc::new(next.treatments());
        let (max_keys, max_cached_bytes) = table_bounds(&next);
        for node in self.shared.router.all() {
            let new = next.nodes.iter().find(|new| new.name == node.name());
            if let Some(new) = new {
                node.reconfigure(new.clone());
            }
            node.set_upstream(&next.upstream);
            node.table().set_bounds(max_keys, max_cached_bytes);
            node.treat(&rules);
        }
        // What `CONFIG SET` said holds until the file says something else.
        if self.shared.live().slow_log != next.slow_log {
            bound_slow_log(&self.shared.stats, &next.slow_log);
        }
        self.shared.adopt(next);
        Ok(changes)
    }
}
