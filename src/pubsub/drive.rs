//! The task of one node's feed: opens its connection when somebody subscribes, carries bytes both
//! ways, and closes it when nobody is left.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::feed::{Effects, Feed};
use super::{At, Hub};
use crate::node::{self, unreachable};
use crate::resp::ReplyScanner;

/// Runs the feed of node `index` until `stop` is cancelled. Attempts to connect are made as for the
/// node's lane: one at once, then with pauses that double.
pub async fn drive(hub: Arc<Hub>, index: usize, stop: CancellationToken) {
    let Some(at) = hub.nodes.get(index) else {
        return;
    };
    let driver = Driver {
        hub: &hub,
        at,
        index,
    };
    tokio::select! {
        () = driver.run() => {}
        () = stop.cancelled() => {}
    }
}

struct Driver<'a> {
    hub: &'a Hub,
    at: &'a At,
    index: usize,
}

/// Why a connection ended.
enum End {
    /// Nobody needs it.
    Unused,
    Lost(String),
}

impl Driver<'_> {
    async fn run(&self) {
        let node = self.hub.router.node(0, self.index);
        let mut failed = 0;
        loop {
            if self.at.feed.lock().close_if_unused() {
                self.at.changed.notified().await;
                continue;
            }
            let upstream = node.upstream();
            let first = upstream.backoff.0;
            let reason = match node::open(&node.config(), upstream.connect_timeout).await {
                Ok(stream) => {
                    let begun = Instant::now();
                    match self.carry(stream, upstream.request_timeout).await {
                        End::Unused => {
                            failed = 0;
                            continue;
                        }
                        End::Lost(reason) => {
                            let node = node.name();
                            tracing::warn!(node, %reason, "subscriptions: connection lost");
                            if begun.elapsed() >= first {
                                failed = 0;
                                self.change(Feed::lost);
                                continue;
                            }
                            reason
                        }
                    }
                }
                Err(error) => error.reason,
            };
            let text = unreachable(node.name(), &reason);
            self.change(|feed, effects| feed.failed(&text, effects));
            tokio::time::sleep(node::jittered(upstream.pause(failed))).await;
            failed += 1;
        }
    }

    /// Serves one connection until it ends.
    async fn carry(&self, stream: impl AsyncRead + AsyncWrite, bound: Duration) -> End {
        let (mut reader, mut writer) = tokio::io::split(stream);
        self.change(Feed::connected);
        let mut out = BytesMut::new();
        let mut buffer = BytesMut::new();
        let mut scanner = ReplyScanner::new();
        let mut beat = interval(bound / 2);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        let mut flushing = false;
        // Whether anything came since the last beat, and whether an answer was owed then.
        let (mut heard, mut owed) = (true, false);
        loop {
            if out.is_empty() {
                out = BytesMut::from(self.at.feed.lock().take_wire().as_slice());
            }
            tokio::select! {
                read = read(&mut reader, &mut buffer, scanner.wanted()) => match read {
                    Ok(0) => return End::Lost("the node closed it".into()),
                    Ok(_) => {
                        heard = true;
                        if let Err(reason) = self.frames(&mut buffer, &mut scanner) {
                            return End::Lost(reason);
                        }
                    }
                    Err(error) => return End::Lost(error.to_string()),
                },
                sent = send(&mut writer, &out), if flushing || !out.is_empty() => match sent {
                    Ok(count) => {
                        flushing = !out.is_empty();
                        out.advance(count);
                    }
                    Err(error) => return End::Lost(error.to_string()),
                },
                () = self.at.changed.notified(), if out.is_empty() => {}
                _ = beat.tick() => {
                    let mut feed = self.at.feed.lock();
                    if feed.close_if_unused() {
                        return End::Unused;
                    }
                    if !heard && owed {
                        return End::Lost(format!("no answer within {bound:?}"));
                    }
                    if !heard && !feed.is_waiting() {
                        feed.ping();
                    }
                    owed = feed.is_waiting();
                    heard = false;
                }
            }
        }
    }

    /// Takes the complete frames in the buffer.
    fn frames(&self, buffer: &mut BytesMut, scanner: &mut ReplyScanner) -> Result<(), String> {
        let mut used = 0;
        let mut result = Ok(());
        self.change(|feed, effects| {
            loop {
                let unread = buffer.get(used..).unwrap_or_default();
                let length = match scanner.scan(unread) {
                    Ok(Some(length)) => length,
                    Ok(None) => return,
                    Err(error) => {
                        result = Err(error.to_string());
                        return;
                    }
                };
                let frame = unread.get(..length).unwrap_or_default();
                used += length;
                if let Err(error) = feed.on_frame(frame, effects) {
                    result = Err(error.to_string());
                    return;
                }
            }
        });
        let held = buffer.capacity();
        buffer.advance(used);
        if buffer.is_empty() && held > KEPT_BYTES {
            *buffer = BytesMut::new();
        }
        result
    }

    fn change(&self, change: impl FnOnce(&mut Feed, &mut Effects)) {
        self.hub.change(self.index, change);
    }
}

/// Reads once, making room for what the scanner waits for, a megabyte at a time.
async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    wanted: usize,
) -> std::io::Result<usize> {
    let missing = wanted.saturating_sub(buffer.len());
    buffer.reserve(missing.clamp(READ_BYTES, 1 << 20));
    reader.read_buf(buffer).await
}

/// Writes some of `out`, or flushes what was written: TLS keeps some of it.
async fn send(writer: &mut (impl AsyncWrite + Unpin), out: &[u8]) -> std::io::Result<usize> {
    if out.is_empty() {
        writer.flush().await?;
        return Ok(0);
    }
    writer.write(out).await
}

/// Room for one read.
const READ_BYTES: usize = 16 << 10;

/// Largest buffer kept when it is empty.
const KEPT_BYTES: usize = 1 << 20;
