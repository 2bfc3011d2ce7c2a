//! What a lane has to send, on its way to the socket.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Deliver, KEPT_BUFFER, Link, Node, now};
use crate::flush::Wait;

impl<T: Deliver> Node<T> {
    /// Says that the lane has something to send; true when the caller is the first to say so and
    /// has to see to it that [`Node::send`] is called.
    pub fn schedule(&self) -> bool {
        !self.scheduled.swap(true, Ordering::AcqRel)
    }

    /// Writes what the lane has to send, as far as the socket takes it. Does not block: what is
    /// left is the driver's.
    pub fn send(&self) {
        self.scheduled.store(false, Ordering::Release);
        self.write_out(false);
    }

    /// Writes until the socket is full or nothing is left. While the socket is full, or batches wait
    /// for the disk, only the driver writes (`resume`): anybody else would try in vain at every
    /// command.
    pub(super) fn write_out(&self, resume: bool) {
        loop {
            let mut inner = self.inner.lock();
            let Link::Up(socket) = &inner.link else {
                return;
            };
            if inner.writing || inner.broken.is_some() || (inner.blocked && !resume) {
                return;
            }
            let socket = Arc::clone(socket);
            let blocked = inner.blocked;
            let (buffer, start) = if blocked {
                std::mem::take(&mut inner.rest)
            } else {
                let spare = std::mem::take(&mut inner.spare);
                (inner.lane.take_wire(&self.table, now(), spare), 0)
            };
            if inner.lane.has_call() {
                // Its connection is the driver's.
                self.attention.notify_one();
            }
            if buffer.is_empty() && !blocked {
                inner.spare = buffer;
                return;
            }
            let sealed_at = inner.lane.sealed_at();
            let commits = self.table.commits().filter(|_| !blocked);
            if commits.is_some_and(|commits| !commits.is_kept(sealed_at)) {
                inner.held_for = Some(sealed_at);
                inner.blocked = true;
                inner.rest = (buffer, 0);
                drop(inner);
                self.attention.notify_one();
                return;
            }
            inner.writing = true;
            drop(inner);
            let written = socket.write(buffer.get(start..).unwrap_or_default());
            let mut inner = self.inner.lock();
            if !inner.link.is(&socket) {
                // The connection was replaced meanwhile; its driver has settled everything.
                return;
            }
            inner.writing = false;
            inner.broken = written.broken;
            inner.blocked = !written.flushed;
            if inner.blocked {
                inner.rest = (buffer, start + written.count);
                drop(inner);
                self.attention.notify_one();
                return;
            }
            inner.spare = buffer;
            shrink(&mut inner.spare);
        }
    }

    /// Waits until it is on the disk which batches are in what is to be written; for ever when
    /// nothing is held for that.
    pub(super) async fn kept(&self, held_for: Option<u64>, wait: &mut Wait) {
        let Some((note, commits)) = held_for.zip(self.table.commits()) else {
            return pending().await;
        };
        commits.kept(note, wait).await;
        self.inner.lock().held_for = None;
    }
}

/// Gives memory back after a burst.
fn shrink(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_BUFFER {
        *buffer = Vec::new();
    }
}
