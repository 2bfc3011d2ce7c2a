//! `CLIENT TRACKING` for clients: who keeps copies of which keys, and who is told of changes.
//!
//! ```text
//!  a read of a client that tracks ──place, note──> Tracking: key -> clients ──┐
//!  a write by any client, behind its node's lane ──────changed──> forget the key, tell them
//!  a change by others, told by the node to the lane ───changed────────────────┘
//! ```
//!
//! A read is noted after its place among the client's replies was taken and before anything is
//! asked, and a message goes behind every place taken so far. So whatever happens to the key from
//! then on is told behind the reply to the read, or seen by it. A write is told of when it has been
//! appended to its lane: a later read is executed behind it.
//!
//! The node tells the lane of changes by others to keys that were read on it, so every read that is
//! noted has to be one of the lane, or an answer from a table that the lane keeps true. What is not
//! is told of at once: the client then keeps nothing.
//!
//! A node does not tell of a key whose time was over when the lane itself asked for it (Redis takes
//! that for a change by the lane). So before a key is read its time to live is asked for, behind which
//! the first reader is answered by the node, not from the cache, and its end is told here.
//!
//! With `BCAST` the lanes of database 0 ask their nodes for all changes by others.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::replies::Pushed;
use super::{Client, Registry};
use crate::flush::RESERVED_PREFIX;
use crate::node::Changes;
use crate::resp::{Protocol, encode, reply};

/// Everybody who tracks, and what they have read. All workers share it; while nobody tracks, it
/// costs one atomic read for each request.
#[derive(Debug)]
pub struct Tracking {
    registry: Arc<Registry>,
    /// Clients that track.
    count: AtomicUsize,
    /// Most keys noted, see [`Tracking::set_max_keys`].
    max_keys: AtomicUsize,
    /// Whether the nodes were asked for all changes.
    broadcasts: AtomicBool,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    trackers: HashMap<u64, Tracker>,
    readers: HashMap<Arc<[u8]>, Readers>,
    /// The keys of `readers` in any order, so that one can be picked.
    keys: Vec<Arc<[u8]>>,
    /// Those that have a deadline, in its order.
    deadlines: BTreeSet<(Instant, Arc<[u8]>)>,
    /// Readers of all keys together.
    items: usize,
    /// What keys and readers take.
    bytes: usize,
}

#[derive(Debug)]
struct Tracker {
    client: Arc<Client>,
    /// With `BCAST`; in rising order, in which Redis goes through them.
    prefixes: Vec<Box<[u8]>>,
    /// It was told that it may keep nothing, and nothing was noted since.
    keeps_nothing: bool,
}

/// Who has read a key since its last change was told.
#[derive(Debug)]
struct Readers {
    /// Their ids, in rising order.
    clients: Vec<u64>,
    /// The place in [`Book::keys`].
    at: usize,
    deadline: Option<Instant>,
}

/// Waits for the time to live of a key that is noted.
#[derive(Debug)]
pub struct Deadline {
    tracking: Arc<Tracking>,
    key: Box<[u8]>,
}

impl Deadline {
    pub(super) fn new(tracking: &Arc<Tracking>, key: &[u8]) -> Self {
        Self {
            tracking: Arc::clone(tracking),
            key: key.into(),
        }
    }

    /// Takes the reply to `PTTL`, which came at that time.
    pub(super) fn deliver(self, frame: &[u8], now: Instant) {
        let left = reply::integer(frame).map(u64::try_from);
        if let Some(Ok(ms)) = left
            && let Some(deadline) = now.checked_add(Duration::from_millis(ms))
        {
            self.tracking.book.lock().ends(&self.key, deadline);
        }
    }
}

/// Sizes for `INFO`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TrackingCounts {
    /// Clients that track.
    pub clients: usize,
    /// Keys that somebody has read.
    pub keys: usize,
    /// Readers of all keys.
    pub items: usize,
    /// Different prefixes of clients in `BCAST`.
    pub prefixes: usize,
}

/// What a message says.
#[derive(Clone, Copy)]
enum Told<'a> {
    Keys(&'a [&'a [u8]]),
    Everything,
}

impl Tracking {
    /// A book in which nobody tracks.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            count: AtomicUsize::new(0),
            max_keys: AtomicUsize::new(MAX_KEYS),
            broadcasts: AtomicBool::new(false),
            book: Mutex::default(),
        }
    }

    /// Whether anybody tracks. Whoever changes a key asks *after* the change.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Begins to tell a client of changes, or adds prefixes. Its flags say how it tracks.
    pub fn begin(&self, client: &Arc<Client>, prefixes: &[&[u8]]) {
        let mut book = self.book.lock();
        let tracker = book.trackers.entry(client.id).or_insert_with(|| Tracker {
            client: Arc::clone(client),
            prefixes: Vec::new(),
            keeps_nothing: false,
        });
        for prefix in prefixes {
            let place = tracker
                .prefixes
                .binary_search_by(|known| (**known).cmp(prefix));
            if let Err(place) = place {
                tracker.prefixes.insert(place, (*prefix).into());
            }
        }
        self.count.store(book.trackers.len(), Ordering::Release);
    }

    /// Ends tracking for a client. Keys that it has read are forgotten when they change.
    pub fn end(&self, client: &Client) {
        if !client.tracks().is_on() {
            return;
        }
        client.set_tracks(super::Tracks::default(), 0);
        let mut book = self.book.lock();
        book.trackers.remove(&client.id);
        if book.trackers.is_empty() {
            *book = Book::default();
        }
        self.count.store(book.trackers.len(), Ordering::Release);
    }

    /// The prefixes of a client in `BCAST`.
    pub fn prefixes(&self, client: u64) -> Vec<Box<[u8]>> {
        let book = self.book.lock();
        let tracker = book.trackers.get(&client);
        tracker.map_or_else(Vec::new, |tracker| tracker.prefixes.clone())
    }

    /// Whether this call is the first to ask the nodes for all changes.
    pub(super) fn broadcast(&self) -> bool {
        !self.broadcasts.swap(true, Ordering::Relaxed)
    }

    /// Whether the nodes tell of all changes by others.
    pub(super) fn broadcasts(&self) -> bool {
        self.broadcasts.load(Ordering::Relaxed)
    }

    /// The nodes could not be asked.
    pub(super) fn broadcast_failed(&self) {
        self.broadcasts.store(false, Ordering::Relaxed);
    }

    /// Notes what a client reads. Returns the keys that nobody had read: their deadlines are to be
    /// asked for.
    pub(super) fn note<'k>(
        &self,
        client: u64,
        keys: &'k [Box<[u8]>],
        wakes: &mut Vec<Waker>,
    ) -> Vec<&'k [u8]> {
        let mut book = self.book.lock();
        if let Some(tracker) = book.trackers.get_mut(&client) {
            tracker.keeps_nothing = false;
        }
        let mut keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
        keys.retain(|key| book.note(key, client));
        self.shrink(&mut book, wakes);
        keys
    }

    /// Tells of keys whose time to live is over.
    pub fn tick(&self, now: Instant) {
        if !self.is_on() {
            return;
        }
        let mut wakes = Vec::new();
        let mut book = self.book.lock();
        while let Some((_, key)) = book.deadlines.first().filter(|(at, _)| *at <= now).cloned() {
            if let Some(readers) = book.forget(&key) {
                self.tell_readers(&book, &readers, &[&key], 0, &mut wakes);
            }
        }
        drop(book);
        wakes.into_iter().for_each(Waker::wake);
    }

    /// `writer` changed these keys; 0 is nobody in particular.
    pub fn changed(&self, keys: &[&[u8]], writer: u64, wakes: &mut Vec<Waker>) {
        self.tell_changed(&mut self.book.lock(), (keys, None), writer, wakes);
    }

    /// `writer` may have changed these keys: whether it has is not known yet. So a writer that is not
    /// told of its own changes goes on being told of those by others.
    pub(super) fn perhaps_changed(&self, keys: &[&[u8]], writer: u64, wakes: &mut Vec<Waker>) {
        let mut book = self.book.lock();
        let stays = book.trackers.get(&writer);
        let stays = stays.filter(|tracker| tracker.client.tracks().noloop());
        let stays = stays.map(|_| writer);
        self.tell_changed(&mut book, (keys, stays), writer, wakes);
    }

    /// Tells of changed keys. The client `stays` a reader of them.
    fn tell_changed(
        &self,
        book: &mut Book,
        (keys, stays): (&[&[u8]], Option<u64>),
        writer: u64,
        wakes: &mut Vec<Waker>,
    ) {
        for key in keys {
            if let Some(readers) = book.forget_but(key, stays) {
                self.tell_readers(book, &readers, &[key], writer, wakes);
            }
        }
        let mut prefixes: Vec<(&[u8], Vec<&Arc<Client>>)> = Vec::new();
        for tracker in book.trackers.values() {
            let flags = tracker.client.tracks();
            if flags.noloop() && tracker.client.id == writer {
                continue;
            }
            for prefix in &tracker.prefixes {
                match prefixes.iter_mut().find(|(known, _)| *known == &**prefix) {
                    Some((_, clients)) => clients.push(&tracker.client),
                    None => prefixes.push((prefix, vec![&tracker.client])),
                }
            }
        }
        prefixes.sort_unstable_by_key(|(prefix, _)| *prefix);
        for (prefix, clients) in prefixes {
            let matching = keys.iter().filter(|key| key.starts_with(prefix));
            let mut matching: Vec<&[u8]> = matching.copied().collect();
            if matching.is_empty() {
                continue;
            }
            // As Redis tells them, which keeps them in a tree: each once, in order.
            matching.sort_unstable();
            matching.dedup();
            for client in clients {
                self.send(client, Told::Keys(&matching), wakes);
            }
        }
    }

    /// Any key may have changed. A client that was told so and has read nothing since is not told
    /// again: every node tells of one and the same `FLUSHALL`.
    pub fn all_changed(&self, wakes: &mut Vec<Waker>) {
        let mut book = self.book.lock();
        let trackers = std::mem::take(&mut book.trackers);
        *book = Book {
            trackers,
            ..Book::default()
        };
        for tracker in book.trackers.values_mut() {
            let is_told = tracker.keeps_nothing && !tracker.client.tracks().bcast();
            if !is_told {
                self.send(&tracker.client, Told::Everything, wakes);
            }
            tracker.keeps_nothing = true;
        }
    }

    /// Tells one client that it may not keep these keys.
    pub(super) fn tell(&self, client: &Client, keys: &[Box<[u8]>], wakes: &mut Vec<Waker>) {
        for key in keys {
            self.send(client, Told::Keys(&[key]), wakes);
        }
    }

    /// Most keys noted for clients.
    pub fn max_keys(&self) -> usize {
        self.max_keys.load(Ordering::Relaxed)
    }

    /// Sets it; at 0 only the bound on bytes holds. What is above it is told of and forgotten.
    pub fn set_max_keys(&self, most: usize, wakes: &mut Vec<Waker>) {
        self.max_keys.store(most, Ordering::Relaxed);
        self.shrink(&mut self.book.lock(), wakes);
    }

    /// How much there is.
    pub fn counts(&self) -> TrackingCounts {
        let book = self.book.lock();
        let trackers = book.trackers.values();
        let mut prefixes: Vec<_> = trackers.flat_map(|tracker| &tracker.prefixes).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        TrackingCounts {
            clients: book.trackers.len(),
            keys: book.keys.len(),
            items: book.items,
            prefixes: prefixes.len(),
        }
    }

    /// Forgets keys, and tells of them, until the bounds hold.
    fn shrink(&self, book: &mut Book, wakes: &mut Vec<Waker>) {
        let most = Some(self.max_keys()).filter(|most| *most > 0);
        let most = most.unwrap_or(usize::MAX);
        while book.keys.len() > most || book.bytes > MAX_BYTES {
            // Any will do: Redis picks one at random.
            let Some(key) = book.keys.last().cloned() else {
                return;
            };
            if let Some(readers) = book.forget(&key) {
                self.tell_readers(book, &readers, &[&key], 0, wakes);
            }
        }
    }

    fn tell_readers(
        &self,
        book: &Book,
        readers: &[u64],
        key: &[&[u8]],
        writer: u64,
        wakes: &mut Vec<Waker>,
    ) {
        for id in readers {
            let Some(Tracker { client, .. }) = book.trackers.get(id) else {
                continue;
            };
            let flags = client.tracks();
            let is_own = flags.noloop() && *id == writer;
            if !flags.bcast() && !is_own {
                self.send(client, Told::Keys(key), wakes);
            }
        }
    }

    /// Sends a message to a client, or to the client that gets its messages.
    fn send(&self, client: &Client, told: Told<'_>, wakes: &mut Vec<Waker>) {
        let redirect = client.redirect();
        if redirect == 0 {
            if client.protocol() == Protocol::Resp3 {
                push(client, &message(told, Protocol::Resp3), wakes);
            }
            return;
        }
        let target = self.registry.get(redirect);
        let Some(target) = target.filter(|target| !target.is_leaving()) else {
            client.set_broken_redirect();
            if client.protocol() == Protocol::Resp3 {
                let mut out = Vec::new();
                encode::push(&mut out, Protocol::Resp3, 2);
                encode::bulk(&mut out, b"tracking-redir-broken");
                encode::integer(&mut out, i64::try_from(redirect).unwrap_or(i64::MAX));
                push(client, &out, wakes);
            }
            return;
        };
        if target.protocol() == Protocol::Resp3 || !target.subscriptions().is_empty() {
            push(&target, &message(told, target.protocol()), wakes);
        }
    }
}

/// Told by a node's lane.
impl Changes for Tracking {
    fn is_wanted(&self) -> bool {
        self.is_on()
    }

    fn changed(&self, keys: &[&[u8]], wakes: &mut Vec<Waker>) {
        if self.is_on() {
            let keys = keys.iter().filter(|key| !key.starts_with(RESERVED_PREFIX));
            let keys: Vec<&[u8]> = keys.copied().collect();
            Self::changed(self, &keys, 0, wakes);
        }
    }

    fn all_changed(&self, wakes: &mut Vec<Waker>) {
        if self.is_on() {
            Self::all_changed(self, wakes);
        }
    }
}

impl Book {
    /// Notes a reader. Returns whether the key had none.
    fn note(&mut self, key: &[u8], client: u64) -> bool {
        if let Some(readers) = self.readers.get_mut(key) {
            if let Err(place) = readers.clients.binary_search(&client) {
                readers.clients.insert(place, client);
                self.items += 1;
                self.bytes += size_of::<u64>();
            }
            return false;
        }
        let key: Arc<[u8]> = key.into();
        let readers = Readers {
            clients: vec![client],
            at: self.keys.len(),
            deadline: None,
        };
        self.items += 1;
        self.bytes += KEY_BYTES + key.len() + size_of::<u64>();
        self.keys.push(Arc::clone(&key));
        self.readers.insert(key, readers);
        true
    }

    /// Notes when a key ends.
    fn ends(&mut self, key: &[u8], deadline: Instant) {
        let Some((key, _)) = self.readers.get_key_value(key) else {
            return;
        };
        let key = Arc::clone(key);
        if let Some(readers) = self.readers.get_mut(&key)
            && let Some(before) = readers.deadline.replace(deadline)
        {
            self.deadlines.remove(&(before, Arc::clone(&key)));
        }
        self.deadlines.insert((deadline, key));
    }

    /// Takes a key away, but for the reader `stays`; returns who else has read it.
    fn forget_but(&mut self, key: &[u8], stays: Option<u64>) -> Option<Vec<u64>> {
        let found = stays.zip(self.readers.get_mut(key));
        let Some((stays, readers)) = found else {
            return self.forget(key);
        };
        if readers.clients.binary_search(&stays).is_err() {
            return self.forget(key);
        }
        let mut others = std::mem::replace(&mut readers.clients, vec![stays]);
        others.retain(|client| *client != stays);
        self.items -= others.len();
        self.bytes -= others.len() * size_of::<u64>();
        Some(others)
    }

    /// Takes a key away; returns who has read it.
    fn forget(&mut self, key: &[u8]) -> Option<Vec<u64>> {
        let (
            key,
            Readers {
                clients,
                at,
                deadline,
            },
        ) = self.readers.remove_entry(key)?;
        self.items -= clients.len();
        self.bytes -= KEY_BYTES + key.len() + clients.len() * size_of::<u64>();
        self.keys.swap_remove(at);
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, key));
        }
        if let Some(moved) = self.keys.get(at)
            && let Some(readers) = self.readers.get_mut(moved)
        {
            readers.at = at;
        }
        Some(clients)
    }
}

/// A message in the form of the connection that gets it: a push, or a message of a channel.
fn message(told: Told<'_>, protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    match protocol {
        Protocol::Resp3 => {
            encode::push(&mut out, protocol, 2);
            encode::bulk(&mut out, b"invalidate");
        }
        Protocol::Resp2 => {
            encode::push(&mut out, protocol, 3);
            encode::bulk(&mut out, b"message");
            encode::bulk(&mut out, CHANNEL);
        }
    }
    match told {
        Told::Keys(keys) => {
            encode::array(&mut out, keys.len());
            for key in keys {
                encode::bulk(&mut out, key);
            }
        }
        Told::Everything => encode::null(&mut out, protocol),
    }
    out
}

/// Adds a message behind what a client has asked for so far. One that does not read is closed at
/// `server.output_buffer`.
fn push(client: &Client, bytes: &[u8], wakes: &mut Vec<Waker>) {
    match client.replies().map(|replies| replies.push_behind(bytes)) {
        Some(Pushed::Kept(sleeper)) => wakes.extend(sleeper),
        Some(Pushed::Overrun) => client.kill.cancel(),
        None => {}
    }
}

/// The channel of the messages for a connection that speaks RESP2 (Redis `tracking.c`).
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// Most keys noted: the default of Redis's `tracking-table-max-keys`.
const MAX_KEYS: usize = 1_000_000;

/// Most memory for them, whatever their number: that of a million keys of 100 bytes with a reader
/// each.
const MAX_BYTES: usize = 256 << 20;

/// What a key takes beside its own bytes and its readers, roughly.
const KEY_BYTES: usize = 128;
