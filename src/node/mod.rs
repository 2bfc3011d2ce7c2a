//! One database of a Redis server: its keys, its lane, and the connection that carries it.
//!
//! ```text
//!  sessions (any worker) ──enter──> lane ──┐ one mutex over {FIFO, unsent bytes, link}
//!                                          │
//!  end of the worker's tick ──send──> socket        (one writer at a time, outside the lock)
//!  the node's driver task  <──────── socket ──> lane.on_reply ──> tickets ──> sessions woken
//! ```
//!
//! Exactly one connection carries ordinary commands, so a node executes them in the order in which
//! they were appended. Each database has a lane of its own, connected once somebody uses it: order
//! matters for each key, and keys of different databases are different keys. No lane is locked
//! while a socket is read or written.

mod busy;
mod connect;
mod drive;
mod entry;
mod full;
mod pool;
mod refused;
mod rounds;
mod side;
mod status;
mod transact;
mod write;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::config;
use crate::counter::{KeyTable, Lane, Rules};
use crate::journal::Trace;
use crate::telemetry::clock::now;
use crate::telemetry::histogram::Histogram;
use crate::tls::Writer;

use self::busy::Busy;
use self::connect::Peer;
use self::pool::Pool;
use self::rounds::{Round, rounds};
pub use connect::{BROADCAST, TRACKING, TRACKING_LOOP};
pub use drive::{drive, jittered};
pub use entry::Entry;
pub use full::{is_full, try_full};
pub use pool::{Lost, PoolError, Pooled, error_frame};
pub use refused::{Refused, no_answer, not_sent, unreachable};
pub use side::{SideError, open};

/// Who waits for a reply.
pub trait Deliver: Send + 'static {
    /// Takes the reply, a RESP3 frame. Returns whom to wake once no lock is held.
    fn deliver(self, frame: &[u8], came: Came) -> Option<Waker>;
}

/// Who wants to know what others change on a node. Called with the lane locked; the wakers of those
/// to be woken once it is free are pushed to `wakes`.
pub trait Changes: Send + Sync {
    /// Whether anybody does now.
    fn is_wanted(&self) -> bool;

    /// Others changed these keys, or what is known of them turned out to be wrong.
    fn changed(&self, keys: &[&[u8]], wakes: &mut Vec<Waker>);

    /// Others may have changed any key.
    fn all_changed(&self, wakes: &mut Vec<Waker>);
}

/// When a reply came.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// When it was read, or made.
    pub now: Instant,
    /// Microseconds from the request's being appended to that moment; 0 for a reply that was made
    /// here.
    pub node_us: u32,
}

impl Came {
    /// The time of a reply that is made now, without a node.
    pub fn here(now: Instant) -> Self {
        Self { now, node_us: 0 }
    }
}

/// One database of a Redis server, as the module's documentation says.
pub struct Node<T> {
    name: String,
    config: RwLock<Arc<config::Node>>,
    /// Whether another connection is wanted than the one that was begun last.
    moved: AtomicBool,
    /// The database's number for clients.
    database: u32,
    upstream: RwLock<Arc<config::Upstream>>,
    table: KeyTable,
    /// The same server's other databases.
    siblings: OnceLock<Box<[Weak<Self>]>>,
    inner: Mutex<Inner<T>>,
    /// Whether somebody has used the database.
    opened: AtomicBool,
    /// Whether a script keeps it busy, to be asked without the lock.
    is_busy: AtomicBool,
    /// Whether it may have no memory left.
    may_be_full: AtomicBool,
    /// Whether some worker will call [`Node::send`] soon.
    scheduled: AtomicBool,
    /// Wakes the driver: the socket was full, broke while writing, or there is something to look
    /// after.
    attention: Notify,
    counters: Counters,
    pool: Pool,
    /// Where connections are noted for the next process.
    trace: Option<Trace>,
    /// Who is told of changes by others.
    listener: OnceLock<Arc<dyn Changes>>,
    /// Whether the server tells of changes by others to keys that were read on the lane.
    tells: AtomicBool,
    /// Whether the server is to tell of all changes by others.
    broadcasts: AtomicBool,
}

/// Event counts of one node, relaxed.
#[derive(Debug, Default)]
struct Counters {
    errors: AtomicU64,
    timeouts: AtomicU64,
    connects: AtomicU64,
    reply_times: Histogram,
}

struct Inner<T> {
    lane: Lane<T>,
    link: Link,
    /// Whether somebody is writing to the socket.
    writing: bool,
    /// Whether the socket took less than it was given.
    blocked: bool,
    /// Bytes that the socket did not take whole, and how many of them it took. Empty when the
    /// remainder waits encrypted.
    rest: (Vec<u8>, usize),
    /// The note that has to be on the disk before `rest` may be written: it holds batches.
    held_for: Option<u64>,
    /// Why the socket takes nothing any more.
    broken: Option<io::Error>,
    /// An empty buffer, which becomes the next `wire`.
    spare: Vec<u8>,
    /// Sessions that wait for room.
    stalled: Vec<Waker>,
    /// Whether a script keeps the lane from being answered.
    busy: Busy,
    peer: Peer,
    /// For each class of flush interval.
    rounds: Vec<Round>,
    /// How often the lane's rules had changed when `rounds` was made.
    rounds_of: u64,
}

/// The connection's state.
enum Link {
    /// Nobody has used the database yet.
    Unused,
    /// The first attempt after the start or a loss: commands wait for it.
    Connecting,
    /// Commands are sent.
    Up(Arc<Writer>),
    /// Commands fail at once, until an attempt succeeds.
    Down(Arc<str>),
}

impl<T: Deliver> Node<T> {
    /// A node that is not connected yet; [`drive`] connects it, once it is [opened](Node::open).
    /// `database` is its number for clients; on the node, that of the configuration is added to it.
    ///
    /// With a `trace`, the first connection fences the last one of the process before.
    pub fn new(
        config: config::Node,
        database: u32,
        upstream: config::Upstream,
        table: KeyTable,
        lane: Lane<T>,
        trace: Option<Trace>,
    ) -> Self {
        let number = config.database.saturating_add(database);
        let last = trace.as_ref().and_then(Trace::last);
        let (run_id, client_id) = last.unzip();
        let peer = Peer {
            run_id,
            client_id,
            ..Peer::default()
        };
        let rounds = rounds(&table.rules());
        Self {
            pool: Pool::default(),
            trace,
            listener: OnceLock::new(),
            tells: AtomicBool::new(false),
            broadcasts: AtomicBool::new(false),
            name: config.name.clone(),
            config: RwLock::new(Arc::new(config::Node {
                database: number,
                ..config
            })),
            moved: AtomicBool::new(false),
            database,
            upstream: RwLock::new(Arc::new(upstream)),
            table,
            siblings: OnceLock::new(),
            inner: Mutex::new(Inner {
                lane,
                link: Link::Unused,
                writing: false,
                blocked: false,
                rest: (Vec::new(), 0),
                held_for: None,
                broken: None,
                spare: Vec::new(),
                stalled: Vec::new(),
                busy: Busy::default(),
                peer,
                rounds,
                rounds_of: 0,
            }),
            opened: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
            may_be_full: AtomicBool::new(false),
            scheduled: AtomicBool::new(false),
            attention: Notify::new(),
            counters: Counters::default(),
        }
    }

    /// The name that places it on the ring.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of its database, for clients.
    pub fn database(&self) -> u32 {
        self.database
    }

    /// Says, once, which are the same server's other databases: when a client of one of them
    /// changes a key, all their connections are told, without the database's number.
    pub fn set_siblings(&self, siblings: impl Iterator<Item = Weak<Self>>) {
        self.siblings.get_or_init(|| siblings.collect());
    }

    /// Says, once, who is told of changes by others.
    pub fn set_listener(&self, listener: Arc<dyn Changes>) {
        self.listener.get_or_init(|| listener);
    }

    /// Whether the server tells of changes by others.
    pub fn tells(&self) -> bool {
        self.tells.load(Ordering::Relaxed)
    }

    /// Has the server asked for all changes by others, whether to keys that were read or not, from
    /// the next connection on. On the present one, [`BROADCAST`] does it.
    pub fn broadcast(&self) {
        self.broadcasts.store(true, Ordering::Relaxed);
        self.inner.lock().lane.set_takes_down_reads(false);
    }

    /// Whether keys of this name are counted both in this database and in another one.
    fn counts_twice(&self, key: &[u8]) -> bool {
        let siblings = self.siblings.get().into_iter().flatten();
        let mut siblings = siblings.filter_map(Weak::upgrade);
        self.table.counts(key) && siblings.any(|other| other.is_open() && other.table.counts(key))
    }

    /// Lets its driver connect. Commands wait for the first attempt. Does nothing if it is open.
    pub fn open(&self) {
        if self.is_open() {
            return;
        }
        let mut inner = self.inner.lock();
        if matches!(inner.link, Link::Unused) {
            inner.link = Link::Connecting;
            drop(inner);
            self.opened.store(true, Ordering::Release);
            self.attention.notify_one();
        }
    }

    /// Whether somebody has used the database. Takes no lock.
    pub fn is_open(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    /// Its address and credentials.
    pub fn config(&self) -> Arc<config::Node> {
        Arc::clone(&self.config.read())
    }

    /// Sets another address or other credentials, from the next connection on. That one is made at
    /// once when the address is another: what is in flight fails, as when a connection is lost.
    /// Name, weight and database stay.
    pub fn reconfigure(&self, new: config::Node) {
        let mut config = self.config.write();
        let moved = config.address != new.address;
        // Before the address shows: a connection to the old one never looks like one to the new.
        self.moved.fetch_or(moved, Ordering::AcqRel);
        *config = Arc::new(config::Node {
            name: config.name.clone(),
            weight: config.weight,
            database: config.database,
            ..new
        });
        drop(config);
        if moved {
            self.attention.notify_one();
        }
    }

    /// Has the connection made anew: what is in flight fails, as when it is lost. Takes no lock.
    pub fn reconnect(&self) {
        self.moved.store(true, Ordering::Release);
        self.attention.notify_one();
    }

    /// Bounds and timeouts of its connections.
    pub fn upstream(&self) -> Arc<config::Upstream> {
        Arc::clone(&self.upstream.read())
    }

    /// Sets other bounds and timeouts. A wait that has begun keeps its length.
    pub fn set_upstream(&self, upstream: &config::Upstream) {
        *self.upstream.write() = Arc::new(upstream.clone());
        let mut inner = self.inner.lock();
        inner
            .lane
            .set_bounds(upstream.max_in_flight, upstream.max_unsent_bytes);
        let stalled = std::mem::take(&mut inner.stalled);
        drop(inner);
        stalled.into_iter().for_each(Waker::wake);
    }

    /// Has the keys treated by other rules once what is pending under the old ones is applied:
    /// within a round trip, or when the node is back and takes it.
    pub fn treat(&self, rules: &Arc<Rules>) {
        let mut wakes = Vec::new();
        let mut entry = self.enter();
        if entry.inner.lane.rules_to_come(&self.table) == *rules {
            return;
        }
        entry.inner.lane.treat(Arc::clone(rules));
        entry.begin_treatment(&mut wakes);
        drop(entry);
        wakes.into_iter().for_each(Waker::wake);
        self.send();
        self.attention.notify_one();
    }

    /// Whether the keys are still treated by rules that were replaced.
    pub fn awaits_treatment(&self) -> bool {
        self.inner.lock().lane.awaits_treatment()
    }

    /// What is known of its keys.
    pub fn table(&self) -> &KeyTable {
        &self.table
    }

    /// A connection for one client alone.
    ///
    /// # Errors
    ///
    /// All are in use, or none can be opened; nothing was sent.
    pub async fn borrow(&self) -> Result<Pooled, PoolError> {
        self.pool.borrow(&self.config(), &self.upstream()).await
    }

    /// Takes a connection back. Nothing may be under way on it, and the server may remember nothing
    /// of its client.
    pub fn take_back(&self, connection: Pooled) {
        self.pool.take_back(connection);
    }
}

impl<T> fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// Whether something can be sent, or why not.
    fn reason(&self) -> Result<(), Arc<str>> {
        match self {
            Self::Up(_) => Ok(()),
            Self::Unused | Self::Connecting => Err("connecting".into()),
            Self::Down(reason) => Err(Arc::clone(reason)),
        }
    }

    /// Whether this is the connection with that socket.
    fn is(&self, socket: &Arc<Writer>) -> bool {
        matches!(self, Self::Up(current) if Arc::ptr_eq(current, socket))
    }
}

/// Largest write buffer kept for the next tick: many times what one tick needs at full load
/// (50 clients with 32 commands of 64 bytes each are 100 KiB).
const KEPT_BUFFER: usize = 1 << 20;
