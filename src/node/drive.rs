//! A node's own task: connects, reads replies, flushes, watches the clock.

use std::cell::Cell;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::connect::connect;
use super::transact::Transactions;
use super::{Came, Deliver, Inner, KEPT_BUFFER, Link, Node, no_answer, not_sent, now, unreachable};
use crate::counter::{Lane, Losses, Step};
use crate::flush::{Applier, Wait};
use crate::key::Key;
use crate::resp::{ReplyScanner, encode, reply};
use crate::telemetry::clock::wall_time;
use crate::telemetry::{DeadLetter, Stats};
use crate::tls::{Reader, Stream, Writer};

/// Keeps the node connected until `stop` is cancelled. First attempts are immediate; then each
/// pause doubles, with jitter, up to the bound in the configuration.
pub async fn drive<T: Deliver>(node: Arc<Node<T>>, stats: Arc<Stats>, stop: CancellationToken) {
    let mut driver = Driver {
        node,
        stats,
        swept: 0,
        wakes: Vec::new(),
    };
    tokio::select! {
        () = driver.run() => {}
        () = stop.cancelled() => {}
    }
}

pub(super) struct Driver<T> {
    pub(super) node: Arc<Node<T>>,
    stats: Arc<Stats>,
    /// Where the next sweep of the table begins.
    swept: usize,
    pub(super) wakes: Vec<Waker>,
}

impl<T: Deliver> Driver<T> {
    async fn run(&mut self) {
        while !self.node.is_open() {
            self.node.attention.notified().await;
        }
        let mut failed = 0;
        loop {
            let upstream = self.node.upstream();
            let (first, timeout) = (upstream.backoff.0, upstream.connect_timeout);
            self.node.moved.store(false, Ordering::Release);
            let (before, marker) = {
                let inner = self.node.inner.lock();
                (inner.peer.clone(), inner.lane.marker().to_vec())
            };
            let broadcast = self.node.broadcasts.load(Ordering::Relaxed);
            let config = self.node.config();
            let reason = match connect(&config, timeout, &before, &marker, broadcast).await {
                Ok(connected) => {
                    let begun = now();
                    if let (Some(trace), Some(run_id), Some(client_id)) = (
                        &self.node.trace,
                        &connected.peer.run_id,
                        connected.peer.client_id,
                    ) {
                        trace.note(run_id, client_id);
                    }
                    let tells = connected.peer.tracking;
                    self.node.tells.store(tells, Ordering::Relaxed);
                    self.node.inner.lock().peer = connected.peer;
                    let known = (connected.applier, connected.marker);
                    let aside = connected.aside.map(Transactions::new);
                    let streams = (connected.stream, aside);
                    let reason = self.carry(streams, known, broadcast).await;
                    self.warn("connection lost", &reason);
                    // One that did not last is another failed attempt: else a server that takes
                    // connections only to close them would be called without a pause.
                    if now().saturating_duration_since(begun) >= first {
                        failed = 0;
                        self.disconnected(Link::Connecting, &reason);
                        continue;
                    }
                    reason
                }
                Err(error) => {
                    let reason = error.to_string();
                    self.warn("no connection", &reason);
                    reason
                }
            };
            self.disconnected(Link::Down(reason.as_str().into()), &reason);
            tokio::time::sleep(jittered(upstream.pause(failed))).await;
            failed += 1;
        }
    }

    /// Serves one connection, and the one beside it for batches, until either ends; returns why it
    /// did.
    async fn carry(
        &mut self,
        (stream, mut aside): (Stream, Option<Transactions>),
        known: (Option<Applier>, Option<Vec<u8>>),
        broadcast: bool,
    ) -> String {
        let (mut reader, writer) = stream.split();
        let writer = Arc::new(writer);
        self.connected(&writer, known);
        // Asked for behind the handshake, and before the link was up to ask on.
        if self.node.broadcasts.load(Ordering::Relaxed) != broadcast {
            return "it was not asked for all changes".into();
        }
        let mut flush = self.flushes();
        let mut watch = ticker(WATCH);
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut scanner = ReplyScanner::new();
        let mut wait = Wait::default();
        loop {
            let (blocked, held_for, next, is_treated) = {
                let inner = self.node.inner.lock();
                let is_treated = inner.rounds_of != inner.lane.treatments();
                let (blocked, held_for) = (inner.blocked, inner.held_for);
                (blocked, held_for, inner.lane.next_due(), is_treated)
            };
            if is_treated {
                flush = self.flushes();
            }
            if let Some(aside) = &mut aside {
                aside.begin(&self.node);
            }
            tokio::select! {
                read = read(&mut reader, &mut buffer, scanner.wanted()) => match read {
                    Ok(0) => return "the node closed it".into(),
                    Ok(_) => {
                        let now = now();
                        if let Err(reason) = self.replies(&mut buffer, &mut scanner, now) {
                            return reason;
                        }
                        self.node.send();
                    }
                    Err(error) => return error.to_string(),
                },
                applied = Transactions::applied(&mut aside) => match applied {
                    Ok((call, outcome)) => self.finish_call(&call, outcome),
                    Err(reason) => return reason,
                },
                () = self.node.kept(held_for, &mut wait) => {
                    self.node.write_out(true);
                }
                ready = writer.writable(), if blocked && held_for.is_none() => {
                    if let Err(error) = ready {
                        return error.to_string();
                    }
                    self.node.write_out(true);
                }
                () = self.node.attention.notified() => {
                    if let Some(reason) = self.is_over() {
                        return reason;
                    }
                }
                () = until(next), if next.is_some() => self.go_on(),
                class = flush.tick() => self.flush(class),
                _ = watch.tick() => {
                    if let Some(reason) = self.watch(now()) {
                        return reason;
                    }
                }
            }
        }
    }

    /// First increments that waited for others go on.
    fn go_on(&mut self) {
        let mut entry = self.node.enter();
        entry.step(now(), &mut self.wakes, Lane::end_windows);
        drop(entry);
        self.wake();
        self.node.send();
    }

    /// It is time to flush the keys of this class.
    fn flush(&mut self, class: u8) {
        self.node.flush_class(class);
        if class == 0 {
            self.begin_treatment();
            self.sweep(now());
        }
    }

    /// Why the connection can not go on, if so.
    fn is_over(&self) -> Option<String> {
        if self.node.moved.load(Ordering::Acquire) {
            return Some("its address or credentials were changed".into());
        }
        let broken = self.node.inner.lock().broken.take();
        broken.map(|error| error.to_string())
    }

    /// A ticker for each flush interval of the rules in force.
    fn flushes(&self) -> Flushes {
        let rules = self.node.table.rules();
        if self.node.inner.lock().renew_rounds(&rules) {
            let (node, database) = (self.node.name(), self.node.database);
            tracing::debug!(node, database, "keys are treated by other rules");
        }
        Flushes::new(rules.intervals())
    }

    /// The keys are treated by the rules given last, if they are not yet and can be.
    fn begin_treatment(&mut self) {
        if self.node.awaits_treatment() {
            let mut entry = self.node.enter();
            entry.begin_treatment(&mut self.wakes);
            drop(entry);
            self.wake();
            self.node.send();
        }
    }

    /// From now on commands are sent.
    fn connected(
        &mut self,
        writer: &Arc<Writer>,
        (applier, marker): (Option<Applier>, Option<Vec<u8>>),
    ) {
        {
            let mut inner = self.node.inner.lock();
            inner.link = Link::Up(Arc::clone(writer));
            let tells = inner.peer.tracking;
            let (table, marker) = (&self.node.table, marker.as_deref());
            inner.lane.connected(table, now(), applier, marker, tells);
            let broadcasts = self.node.broadcasts.load(Ordering::Relaxed);
            inner.lane.set_takes_down_reads(tells && !broadcasts);
            // What was answered from the table meanwhile was not read on this connection.
            if let Some(listener) = self.node.listener.get() {
                listener.all_changed(&mut self.wakes);
            }
        }
        self.wake();
        self.node.counters.connects.fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            node = self.node.name(),
            address = self.node.config().address,
            database = self.node.database,
            "connected"
        );
        self.node.send();
    }

    /// Hands complete replies to the lane.
    fn replies(
        &mut self,
        buffer: &mut BytesMut,
        scanner: &mut ReplyScanner,
        now: Instant,
    ) -> Result<(), String> {
        let mut errors = 0;
        let mut used = 0;
        let mut broken = None;
        let mut inner = self.node.inner.lock();
        let wakes = &mut self.wakes;
        let answered = inner.lane.answered();
        let mut told = Vec::new();
        // The entry whose reply is handled: clients that it answers waited so long for the node.
        let node_us = Cell::new(0);
        let mut deliver = |ticket: T, frame: &[u8]| {
            let node_us = node_us.get();
            wakes.extend(ticket.deliver(frame, Came { now, node_us }));
        };
        let mut step = Step {
            table: &self.node.table,
            now,
            deliver: &mut deliver,
        };
        loop {
            let unread = buffer.get(used..).unwrap_or_default();
            let length = match scanner.scan(unread) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(error) => {
                    broken = Some(error.to_string());
                    break;
                }
            };
            let frame = unread.get(..length).unwrap_or_default();
            used += length;
            errors += u64::from(self.node.note_error(frame));
            if reply::is_push(frame) {
                push(&self.node, &mut inner.lane, &mut step, frame, &mut told);
                continue;
            }
            if let Some(appended) = inner.lane.oldest() {
                let took = now.saturating_duration_since(appended);
                self.node.counters.reply_times.observe(took);
                node_us.set(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
            }
            if let Err(error) = inner.lane.on_reply(&mut step, frame) {
                broken = Some(error.to_string());
                break;
            }
        }
        if inner.lane.answered() != answered {
            self.node.not_busy(&mut inner);
        }
        self.wakes.append(&mut told);
        let losses = answered_for(&self.node, &mut inner, &mut self.wakes);
        drop(inner);
        let held = buffer.capacity();
        buffer.advance(used);
        if buffer.is_empty() && held > KEPT_BUFFER {
            *buffer = BytesMut::new();
        }
        self.node
            .counters
            .errors
            .fetch_add(errors, Ordering::Relaxed);
        self.wake();
        self.report(&losses);
        broken.map_or(Ok(()), Err)
    }

    /// Tells clients whose commands wait too long; returns why the connection must be closed, if
    /// it must.
    fn watch(&mut self, now: Instant) -> Option<String> {
        let upstream = self.node.upstream();
        let timeout = upstream.request_timeout;
        let mut error = Vec::new();
        encode::error(&mut error, no_answer(self.node.name(), timeout));
        let mut unsent = Vec::new();
        encode::error(&mut unsent, not_sent(self.node.name(), timeout));
        let mut entry = self.node.enter();
        let told = entry.step(now, &mut self.wakes, |lane, step| {
            lane.expire(step, timeout, (&error, &unsent))
        });
        let oldest = entry.inner.lane.oldest();
        let is_forbidden = entry.inner.lane.is_forbidden();
        drop(entry);
        self.node
            .counters
            .timeouts
            .fetch_add(told.try_into().unwrap_or(0), Ordering::Relaxed);
        self.wake();
        self.node.ask_if_busy(now);
        if is_forbidden {
            return Some("it takes no batches as before".into());
        }
        let hard = upstream.hard_timeout;
        let stuck = oldest.is_some_and(|oldest| oldest + hard <= now);
        stuck.then(|| format!("no answer within {hard:?}"))
    }

    fn disconnected(&mut self, link: Link, reason: &str) {
        let name = self.node.name();
        let mut unknown = Vec::new();
        let text = format!(
            "ERR node {name} is unreachable (connection lost: {reason}; the command may have been \
             executed)"
        );
        encode::error(&mut unknown, &text);
        let mut unsent = Vec::new();
        encode::error(&mut unsent, unreachable(name, reason));
        let mut entry = self.node.enter();
        if let (Link::Up(_), Some(listener)) = (&entry.inner.link, self.node.listener.get()) {
            listener.all_changed(&mut self.wakes);
        }
        entry.inner.link = link;
        entry.inner.writing = false;
        entry.inner.blocked = false;
        entry.inner.rest = (Vec::new(), 0);
        entry.inner.held_for = None;
        entry.inner.broken = None;
        self.node.not_busy(&mut entry.inner);
        entry.step(now(), &mut self.wakes, |lane, step| {
            lane.disconnected(step, &unknown, &unsent);
        });
        self.wakes.append(&mut entry.inner.stalled);
        entry.inner.lane.take_revised();
        let losses = entry.inner.lane.take_losses();
        drop(entry);
        self.wake();
        self.report(&losses);
    }

    /// Looks through so much of the table that all of it is seen once a lease.
    fn sweep(&mut self, now: Instant) {
        let rules = self.node.table.rules();
        let flush = rules.intervals().first().map_or(0, Duration::as_millis);
        let lease = rules.default_policy().counter_lease.as_millis().max(1);
        let share = flush * 64 / lease + 1;
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        self.swept = self.node.table.sweep(self.swept, share, now);
    }

    fn warn(&self, what: &str, reason: &str) {
        let (node, database) = (self.node.name(), self.node.database);
        tracing::warn!(node, database, %reason, "{what}");
    }

    pub(super) fn wake(&mut self) {
        for waker in self.wakes.drain(..) {
            waker.wake();
        }
    }

    /// Counts and logs acknowledged increments that did not arrive.
    pub(super) fn report(&self, losses: &Losses) {
        let (node, database) = (self.node.name(), self.node.database);
        for (increment, cause) in &losses.refused {
            let (key, delta) = (&increment.key, increment.delta);
            tracing::error!(
                node,
                database,
                ?key,
                delta,
                ?cause,
                "acknowledged increments were refused"
            );
            self.stats.refused.push(DeadLetter {
                key: key.clone(),
                amount: delta,
                increments: increment.count,
                cause: cause.name(),
                node: node.to_owned(),
                database,
                time: wall_time(),
            });
        }
        for increment in &losses.in_doubt {
            let (key, delta) = (&increment.key, increment.delta);
            tracing::error!(
                node,
                database,
                ?key,
                delta,
                "acknowledged increments are in doubt"
            );
        }
        if losses.fenced {
            tracing::error!(
                node,
                database,
                "another process goes on with this one's journal: nothing is buffered any more"
            );
        }
        if losses.healed_count > 0 {
            let keys = losses.healed_count;
            tracing::warn!(
                node,
                database,
                keys,
                "the node came back without increments that it had acknowledged: they are applied \
                 again"
            );
        }
        if losses.forgotten_count > 0 {
            let batches = losses.forgotten_count;
            tracing::error!(
                node,
                database,
                batches,
                "the node has lost batches that it had acknowledged"
            );
        }
        self.node.table.named(losses);
        self.stats.expired_increments.add(losses.expired_count);
        self.stats.dead_letters.add(losses.refused_count);
        self.stats.in_doubt.add(losses.in_doubt_count);
    }
}

/// Who has to know what replies have changed: those who keep copies, and who waits for room. Returns
/// what was lost.
pub(super) fn answered_for<T: Deliver>(
    node: &Node<T>,
    inner: &mut Inner<T>,
    wakes: &mut Vec<Waker>,
) -> Losses {
    let revised = inner.lane.take_revised();
    if let (Some(listener), false) = (node.listener.get(), revised.is_empty()) {
        let keys: Vec<&[u8]> = revised.iter().map(Key::as_bytes).collect();
        listener.changed(&keys, wakes);
    }
    if inner.lane.has_room() {
        wakes.append(&mut inner.stalled);
    }
    inner.lane.take_losses()
}

/// Takes a push: changes by others, as `invalidate` and the keys, or null for all keys.
fn push<T: Deliver>(
    node: &Node<T>,
    lane: &mut Lane<T>,
    step: &mut Step<'_, T>,
    frame: &[u8],
    wakes: &mut Vec<Waker>,
) {
    let listener = node.listener.get().filter(|listener| listener.is_wanted());
    let mut parts = reply::elements(frame).into_iter().flatten();
    if parts.next().and_then(reply::text) != Some(b"invalidate") {
        return;
    }
    let Some(keys) = parts.next().and_then(reply::elements) else {
        lane.invalidate_all(step);
        if let Some(listener) = listener {
            listener.all_changed(wakes);
        }
        return;
    };
    let keys: Vec<&[u8]> = keys.filter_map(reply::text).collect();
    for key in &keys {
        // A client that keeps what it is answered meanwhile would keep it for ever.
        if listener.is_none() && node.counts_twice(key) {
            lane.invalidate_either(step, key);
        } else {
            lane.invalidate(step, key);
        }
    }
    if let Some(listener) = listener {
        listener.changed(&keys, wakes);
    }
}

/// Reads once, making room for what the scanner waits for, a megabyte at a time.
async fn read(reader: &mut Reader, buffer: &mut BytesMut, wanted: usize) -> std::io::Result<usize> {
    let missing = wanted.saturating_sub(buffer.len());
    buffer.reserve(missing.clamp(READ_BYTES, 1 << 20));
    reader.read(buffer).await
}

/// Waits until then; not at all without a time.
async fn until(time: Option<Instant>) {
    if let Some(time) = time {
        tokio::time::sleep_until(time.into()).await;
    }
}

/// One ticker for each flush interval.
struct Flushes(Vec<Interval>);

impl Flushes {
    fn new(intervals: &[Duration]) -> Self {
        Self(intervals.iter().copied().map(ticker).collect())
    }

    /// Waits for the next of them; returns its class.
    async fn tick(&mut self) -> u8 {
        poll_fn(|context| {
            let ticked = |ticker: &mut Interval| ticker.poll_tick(context).is_ready();
            match self.0.iter_mut().position(ticked) {
                Some(class) => Poll::Ready(u8::try_from(class).unwrap_or_default()),
                None => Poll::Pending,
            }
        })
        .await
    }
}

fn ticker(period: Duration) -> Interval {
    let mut ticker = interval(period);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

/// Between half and all of `pause`, so that nodes that went together do not return together.
pub fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    let part = u32::try_from(random % 512).unwrap_or(0);
    pause / 2 + pause / 2 * part / 512
}

/// Room for one read: a pipeline of 32 replies of 50 clients is 25 to 50 KiB.
const READ_BYTES: usize = 64 << 10;

/// How often waits are looked at; bounds how much later than promised a timeout is told.
const WATCH: Duration = Duration::from_millis(100);
