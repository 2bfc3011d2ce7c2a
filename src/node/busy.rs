//! A node that runs a script for too long tells everybody so (`BUSY`), but for the connection that
//! the script came on: that is the lane, where nothing is answered before the script.
//!
//! So when a reply is late and a script was sent, a pooled connection is asked. If that hears
//! `BUSY`, the script is the command whose reply is late, and commands for the lane get that error
//! at once, as on Redis, until it has come. What was appended before waits for the script and its
//! own answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::{Deliver, Entry, Inner, Node};
use crate::resp::{encode, reply};

/// Whether a script keeps a lane from being answered.
#[derive(Debug, Default)]
pub(super) struct Busy {
    /// Whether a client's script was sent since the lane was last empty.
    has_script: bool,
    /// Whether a connection is being asked: one at a time.
    is_asking: bool,
    /// The last reply that was late when it was asked, by its number.
    asked_of: Option<u64>,
    /// What it said, until a reply comes.
    said: Option<Arc<str>>,
}

impl<T: Deliver> Node<T> {
    /// The error for whatever would be sent to the node, if a script keeps it busy. Costs next to
    /// nothing if none does.
    pub fn busy(&self) -> Option<Arc<str>> {
        if !self.is_busy.load(Ordering::Relaxed) {
            return None;
        }
        self.inner.lock().busy_with().cloned()
    }

    /// Whether it may be running a client's script: one was sent, and not everything behind it has
    /// been answered.
    pub fn may_run_script(&self) -> bool {
        let inner = self.inner.lock();
        inner.busy.has_script && inner.lane.in_flight() > 0
    }

    /// Asks whether a script runs for too long, once for each reply that is late.
    pub(super) fn ask_if_busy(self: &Arc<Self>, now: Instant) {
        let late = {
            let mut inner = self.inner.lock();
            let late = inner.lane.answered();
            let oldest = inner.lane.oldest();
            let is_late = oldest.is_some_and(|oldest| oldest + LATE <= now);
            if !inner.busy.has_script
                || !is_late
                || inner.busy.is_asking
                || inner.busy.asked_of == Some(late)
            {
                return;
            }
            inner.busy.is_asking = true;
            late
        };
        let node = Arc::clone(self);
        tokio::spawn(async move {
            let said = node.ping().await;
            node.said(late, said);
        });
    }

    /// The answer on another connection: the text of an error, or nothing. `Err`: there was no
    /// answer.
    async fn ping(&self) -> Result<Option<String>, ()> {
        let mut connection = self.borrow().await.map_err(|_| ())?;
        let mut wire = Vec::new();
        encode::request(&mut wire, &[b"PING"]);
        let timeout = self.upstream().hard_timeout;
        let frame = connection.ask(&wire, timeout).await.map_err(|_| ())?;
        self.take_back(connection);
        let text = reply::text(&frame).filter(|text| text.starts_with(b"BUSY "));
        Ok(text.map(|text| String::from_utf8_lossy(text).into_owned()))
    }

    /// Takes the answer, if the reply of that number is still late.
    fn said(&self, late: u64, said: Result<Option<String>, ()>) {
        let mut inner = self.inner.lock();
        inner.busy.is_asking = false;
        // Without an answer it is asked again: a node takes no connections until it has been busy
        // for long enough.
        let Ok(said) = said else {
            return;
        };
        inner.busy.asked_of = Some(late);
        let is_late = inner.lane.oldest().is_some() && inner.lane.answered() == late;
        if let Some(text) = said.filter(|_| is_late) {
            tracing::warn!(node = self.name, %text, "a script keeps a node busy");
            inner.busy.said = Some(text.into());
            self.is_busy.store(true, Ordering::Relaxed);
            let stalled = std::mem::take(&mut inner.stalled);
            drop(inner);
            stalled.into_iter().for_each(Waker::wake);
        }
    }

    /// The script ends: what comes now waits for it, as on Redis.
    pub fn end_busy(&self) {
        self.not_busy(&mut self.inner.lock());
    }

    /// A reply has come, or none will.
    pub(super) fn not_busy(&self, inner: &mut Inner<T>) {
        inner.busy.has_script &= inner.lane.in_flight() > 0;
        if inner.busy.said.take().is_some() {
            self.is_busy.store(false, Ordering::Relaxed);
        }
    }
}

impl<T> Entry<'_, T> {
    /// Says that what is submitted next is a client's script, or has one in it.
    pub fn note_script(&mut self) {
        self.inner.busy.has_script = true;
    }
}

impl<T> Inner<T> {
    /// What it said, if it did.
    pub(super) fn busy_with(&self) -> Option<&Arc<str>> {
        self.busy.said.as_ref()
    }
}

/// How old a reply is that counts as late: older than under load (99 % of replies come within 5 ms
/// on the machine of the benchmarks), and young beside `busy-reply-threshold`, 5 s.
const LATE: Duration = Duration::from_millis(50);
