//! Threads that carry the sessions and the nodes' drivers, each with a runtime of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept;
use crate::config::Config;
use crate::node::{self, Node};
use crate::pubsub;
use crate::session::{self, Client, Shared, Ticket};
use crate::tls::Acceptor;

/// One worker thread.
#[derive(Debug)]
pub(super) struct Worker {
    handle: Handle,
    shared: Arc<Shared>,
    /// Sessions dealt to it and not ended.
    sessions: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// All worker threads; dropped last.
#[derive(Debug)]
pub(super) struct Workers {
    threads: Vec<Worker>,
    /// Every session; waited for at the stop.
    pub(super) tracker: TaskTracker,
    /// Ends the drivers, and then the threads.
    pub(super) stop: CancellationToken,
}

/// A runtime for one thread.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Starts `server.threads` workers and deals the nodes' drivers to them.
pub(super) fn start(config: &Config, shared: &Shared) -> io::Result<Workers> {
    let stop = CancellationToken::new();
    let mut workers = Vec::new();
    for index in 0..config.server.threads {
        workers.push(spawn(index, shared, &stop)?);
    }
    for (node, worker) in shared.router.all().zip(workers.iter().cycle()) {
        let stats = Arc::clone(&shared.stats);
        worker
            .handle
            .spawn(node::drive(Arc::clone(node), stats, stop.clone()));
    }
    for (index, worker) in (0..shared.router.nodes().len()).zip(workers.iter().cycle()) {
        let hub = Arc::clone(&shared.hub);
        worker.handle.spawn(pubsub::drive(hub, index, stop.clone()));
    }
    Ok(Workers {
        threads: workers,
        tracker: TaskTracker::new(),
        stop,
    })
}

fn spawn(index: usize, shared: &Shared, stop: &CancellationToken) -> io::Result<Worker> {
    let runtime = runtime()?;
    let handle = runtime.handle().clone();
    let outbox = Arc::new(Outbox::default());
    let sender = Arc::clone(&outbox);
    let shared = Arc::new(shared.with_sender(Arc::new(move |node| sender.push(node))));
    handle.spawn(async move { outbox.run().await });
    let stop = stop.clone();
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || runtime.block_on(stop.cancelled()))?;
    Ok(Worker {
        handle,
        shared,
        sessions: Arc::default(),
        thread: Some(thread),
    })
}

impl Workers {
    /// Deals a connection to the worker with the fewest.
    pub(super) fn deal(
        &self,
        stream: std::net::TcpStream,
        acceptor: Option<Acceptor>,
        client: Arc<Client>,
    ) {
        let fewest = self
            .threads
            .iter()
            .min_by_key(|worker| worker.sessions.load(Ordering::Relaxed));
        let Some(worker) = fewest else {
            return;
        };
        let sessions = Arc::clone(&worker.sessions);
        let shared = Arc::clone(&worker.shared);
        sessions.fetch_add(1, Ordering::Relaxed);
        let session = async move {
            match accept::connected(stream, acceptor, &client, &shared).await {
                Some(stream) => session::serve(stream, client, shared).await,
                None => shared.registry.remove(client.id),
            }
            sessions.fetch_sub(1, Ordering::Relaxed);
        };
        self.tracker.spawn_on(session, &worker.handle);
    }

    /// Waits until every worker has run a task, which none does that hangs.
    pub(super) async fn answer(&self) {
        for worker in &self.threads {
            // It fails only at the end, when nobody asks any more.
            worker.handle.spawn(async {}).await.ok();
        }
    }

    /// Ends the threads, and with them every task that is left.
    pub(super) fn end(mut self) {
        self.stop.cancel();
        for worker in &mut self.threads {
            if let Some(thread) = worker.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

/// Nodes whose lanes have something to send. They are written to at the end of the worker's tick,
/// behind every session that was ready, so that one write carries what all of them appended.
#[derive(Debug, Default)]
struct Outbox {
    nodes: Mutex<Vec<Arc<Node<Ticket>>>>,
    filled: Notify,
}

impl Outbox {
    fn push(&self, node: &Arc<Node<Ticket>>) {
        self.nodes.lock().push(Arc::clone(node));
        self.filled.notify_one();
    }

    async fn run(&self) {
        let mut nodes = Vec::new();
        loop {
            self.filled.notified().await;
            std::mem::swap(&mut *self.nodes.lock(), &mut nodes);
            for node in nodes.drain(..) {
                node.send();
            }
        }
    }
}
