//! Builds everything from the configuration, accepts clients, and stops in good order.
//!
//! ```text
//!  main thread: signals, accept ──deals──> worker 0: sessions, drivers of nodes 0, N, ..., sender
//!                                     └──> worker 1: sessions, drivers of nodes 1, ...,   sender
//!  admin thread: HTTP
//! ```

mod accept;
mod files;
mod journal;
mod notify;
mod reload;
mod stop;
mod watch;
mod worker;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpListener;

pub use reload::Load;
use reload::Reloader;

use crate::admin;
use crate::config::{self, Config};
use crate::counter::{CROWD, KeyTable, Lane, Limits, Recovered, TableLimits};
use crate::flush::Series;
use crate::journal::{Journal, JournalError, Unsettled};
use crate::limit;
use crate::node::Node;
use crate::ring::{Ring, RingError};
use crate::router::Router;
use crate::session::{Shared, Ticket};
use crate::telemetry::clock::now;
use crate::telemetry::{Stats, log, random_run_id};
use notify::Notify;

/// Where clients can connect: at least one of the two is there.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Without TLS.
    pub plain: Option<SocketAddr>,
    /// With it.
    pub tls: Option<SocketAddr>,
}

/// Called once when clients can connect.
pub type Ready = Box<dyn FnOnce(Addresses) + Send>;

/// Why the server did not start, or did not stop in good order.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ring can not be made of these nodes.
    #[error("ring: {0}")]
    Ring(#[from] RingError),
    /// The catalogue of limit scripts is at fault.
    #[error("limit scripts: {0}")]
    Limit(#[from] limit::CatalogueError),
    /// The port can not be had.
    #[error("can not listen on {address}: {source}")]
    Listen {
        /// The address in the configuration.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A thread or its runtime can not be made.
    #[error("can not start a worker: {0}")]
    Worker(io::Error),
    /// The drain timeout passed with increments pending.
    #[error("stopped with acknowledged increments on {keys} keys that could not be flushed{}", fate(*kept))]
    Unflushed {
        /// Keys with increments that no node has.
        keys: usize,
        /// Whether a journal keeps them.
        kept: bool,
    },
    /// The journal can not be written to the disk.
    #[error("the journal could not be written to the disk: {0}; nothing more can be acknowledged")]
    Sync(io::Error),
    /// The journal can not be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal has increments for a node that is not there.
    #[error(
        "the journal holds acknowledged increments of {keys} keys for database {database} of node \
         {node}, which the configuration does not have; add it until they are flushed"
    )]
    Orphans {
        /// The database's number.
        database: u32,
        /// The node's name.
        node: String,
        /// Keys with increments, one for each batch that a key is in.
        keys: usize,
    },
}

fn fate(kept: bool) -> &'static str {
    if kept {
        "; the journal keeps them, and the next start flushes them"
    } else {
        ""
    }
}

/// Serves until a signal says stop, and reads the configuration anew with `load` at SIGHUP. `ready` is called once clients can connect: after every node
/// was tried once.
///
/// # Errors
///
/// See [`ServeError`].
pub fn run(mut config: Config, load: Load, ready: Ready) -> Result<(), ServeError> {
    log::start(&config.log_level, config.log_format);
    decline_huge_pages();
    files::fit(&mut config);
    let runtime = worker::runtime().map_err(ServeError::Worker)?;
    runtime.block_on(serve(config, load, ready))
}

/// Has the system serve memory in small pages. The allocator gives back what is free by the page,
/// and huge ones are held for little: with them, each of a million warm counters takes 20 bytes
/// more and an idle process 4 MB, for 1 to 2 % less processor time.
#[cfg(target_os = "linux")]
fn decline_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay in use");
    }
}

#[cfg(not(target_os = "linux"))]
fn decline_huge_pages() {}

async fn serve(config: Config, load: Load, ready: Ready) -> Result<(), ServeError> {
    let mut signals = stop::Signals::new().map_err(ServeError::Worker)?;
    let notify = Arc::new(Notify::from_environment());
    let mut hang_ups = reload::HangUps::new().map_err(ServeError::Worker)?;
    let config = Arc::new(config);
    let ports = Ports {
        plain: config.server.listen.map(accept::listen).transpose()?,
        tls: config
            .tls
            .as_ref()
            .map(|tls| accept::listen(tls.listen))
            .transpose()?,
    };
    let http = config.admin.listen.map(accept::listen).transpose()?;
    let (journal, unsettled) = journal::open(&config)?.unzip();
    let router = router(&config, journal.as_ref(), unsettled.unwrap_or_default())?;
    if let Some(journal) = &journal {
        // A power cut at any later moment finds whose journal it is, and for which nodes.
        journal.sync().map_err(ServeError::Sync)?;
    }
    let shared = Shared::new(
        Arc::clone(&config),
        Arc::new(router),
        Arc::new(stats(&config)),
        now(),
        limit::Catalogue::new(config.limit_definitions())?,
        Arc::new(|node: &Arc<Node<Ticket>>| node.send()),
    );
    let workers = worker::start(&config, &shared).map_err(ServeError::Worker)?;
    let http = http.map(TcpListener::into_std).transpose();
    let reloader = Arc::new(Reloader::new(load, shared.clone()));
    let reload: admin::Reload = Box::new({
        let reloader = Arc::clone(&reloader);
        move || reloader.reload()
    });
    let admin = http.and_then(|http| admin::start(http, shared.clone(), reload));
    let admin = admin.map_err(ServeError::Worker)?;
    let ready: Ready = Box::new({
        let serving = admin.serving();
        let notify = Arc::clone(&notify);
        move |addresses| {
            serving.store(true, Ordering::Relaxed);
            ready(addresses);
            notify.ready();
        }
    });
    let served = tokio::select! {
        served = until_stopped(&shared, &workers, ports, ready, (&mut signals, &notify)) => served,
        () = watch::watch(&shared, journal.as_ref()) => Ok(()),
        synced = journal::sync(journal.as_ref(), config.journal.fsync, &shared.stats) => synced,
        () = journal::tell(&shared, &notify) => Ok(()),
        () = notify.watchdog(&workers) => Ok(()),
        () = hang_ups.reload_each(&reloader) => Ok(()),
    };
    admin.end();
    match served {
        Ok(()) => workers.end(),
        // A worker that is still busy must not hold up the end.
        Err(_) => drop(workers),
    }
    if let Some(journal) = journal {
        journal::leave(&journal);
    }
    served
}

/// From the first client to the last flush. A second signal ends it at once.
async fn until_stopped(
    shared: &Shared,
    workers: &worker::Workers,
    ports: Ports,
    ready: Ready,
    (signals, notify): (&mut stop::Signals, &Notify),
) -> Result<(), ServeError> {
    let serving = async {
        stop::tried(&shared.router, shared.live().upstream.connect_timeout).await;
        let addresses = ports.addresses();
        for address in addresses.plain.iter().chain(&addresses.tls) {
            tracing::info!(%address, nodes = shared.router.nodes().len(), "ready");
        }
        ready(addresses);
        let accept = async |port: &Option<TcpListener>, has_tls: bool| match port {
            Some(port) => accept::accept(port, has_tls, shared, workers).await,
            None => std::future::pending().await,
        };
        tokio::join!(accept(&ports.plain, false), accept(&ports.tls, true));
    };
    tokio::select! {
        () = serving => {}
        () = signals.next() => {}
    }
    let bound = shared.live().server.drain_timeout;
    notify.stopping();
    tokio::select! {
        stopped = stop::drain(shared, workers, bound) => stopped,
        () = stop::tell(shared, notify, bound) => Err(stop::unflushed(shared)),
        () = signals.next() => Err(stop::unflushed(shared)),
    }
}

/// The ports by which clients come in.
struct Ports {
    plain: Option<TcpListener>,
    tls: Option<TcpListener>,
}

impl Ports {
    fn addresses(&self) -> Addresses {
        let address = |port: &Option<TcpListener>| port.as_ref()?.local_addr().ok();
        Addresses {
            plain: address(&self.plain),
            tls: address(&self.tls),
        }
    }
}

/// Statistics with nothing counted yet.
fn stats(config: &Config) -> Stats {
    let stats = Stats::default();
    bound_slow_log(&stats, &config.slow_log);
    stats
}

/// Sets what the slow log keeps.
fn bound_slow_log(stats: &Stats, bounds: &config::SlowLog) {
    let us = bounds
        .slower_than
        .and_then(|slow| i64::try_from(slow.as_micros()).ok());
    stats.slow_log.set_slower_than_us(us.unwrap_or(-1));
    let len = i64::try_from(bounds.max_len).unwrap_or(i64::MAX);
    stats.slow_log.set_max_len(len);
}

/// How much the tables of one node may hold: keys, and bytes of cached values.
fn table_bounds(config: &Config) -> (usize, usize) {
    let nodes = config.nodes.len().max(1);
    let keys = (config.counters.max_keys / nodes).max(1);
    (keys, config.cache.max_bytes / nodes)
}

/// The nodes, each with its table and lane, and the ring over them.
fn router(
    config: &Config,
    journal: Option<&Journal>,
    mut unsettled: Vec<Unsettled>,
) -> Result<Router<Ticket>, ServeError> {
    let ring = ring(config)?;
    let rules = config.treatments();
    let policy = rules.default_policy();
    let (max_keys, max_cached_bytes) = table_bounds(config);
    let limits = TableLimits {
        max_keys,
        max_cached_bytes,
        crowd: CROWD,
        lease: policy.lease,
        counter_lease: policy.counter_lease,
        guard: policy.guard,
    };
    let bounds = Limits {
        max_in_flight: config.upstream.max_in_flight,
        max_unsent_bytes: config.upstream.max_unsent_bytes,
        // The rules say which counters, and they may change.
        warm: true,
    };
    let now = now();
    let to_open: Vec<_> = unsettled.iter().map(|series| series.database).collect();
    // Without a journal no process goes on with the batches of one before it.
    let instance = random_run_id();
    let databases = 0..config.server.databases;
    let mut nodes: Vec<Vec<_>> = databases.clone().map(|_| Vec::new()).collect();
    for node in &config.nodes {
        // The bounds are those of all its databases together.
        let first = KeyTable::with_rules(limits, rules.clone(), random_seed())
            .for_threads(config.server.threads);
        for (number, nodes) in databases.clone().zip(&mut nodes) {
            let table = first.sharing(random_seed());
            let (table, lane, trace) = match journal {
                None => {
                    let series = Series::new(&instance, number, 1);
                    (table, Lane::new(bounds, series), None)
                }
                Some(journal) => {
                    let (ledger, trace) = journal.series(&node.name, number)?;
                    let table = table.with_ledger(Some(ledger));
                    let recovered = take(&mut unsettled, &node.name, number);
                    let series = Series::new(journal.instance(), number, journal.epoch());
                    let lane = Lane::recover(bounds, series, recovered, &table, now);
                    (table, lane, Some(trace))
                }
            };
            nodes.push(Arc::new(Node::new(
                node.clone(),
                number,
                config.upstream.clone(),
                table,
                lane,
                trace,
            )));
        }
    }
    let router = Router::new(ring, nodes);
    for number in to_open {
        router.open(number);
    }
    Ok(router)
}

/// The ring over the nodes, with the routes before it.
fn ring(config: &Config) -> Result<Ring, RingError> {
    let nodes = config.nodes.iter();
    let names: Vec<_> = nodes
        .map(|node| (node.name.as_str(), node.weight))
        .collect();
    let mut ring = Ring::new(&names, config.ring.hash, config.ring.hash_tag)?;
    for route in &config.routes {
        let is_it = |node: &str| names.iter().position(|(name, _)| *name == node);
        let index = route.node.as_deref().and_then(is_it);
        ring = ring.with_route(route.pattern.as_bytes(), index);
    }
    if config.ring.families_together {
        ring = ring.with_families();
    }
    Ok(ring)
}

/// Takes out what is to be flushed of one series.
fn take(unsettled: &mut [Unsettled], node: &str, database: u32) -> Recovered {
    let mut found = unsettled.iter_mut();
    let found = found.find(|series| series.node == node && series.database == database);
    found.map_or_else(Recovered::default, |series| {
        std::mem::take(&mut series.recovered)
    })
}

fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
