//! One client's connection, from accept to close.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

use super::dispatch::{Dispatch, Flow};
use super::pipeline::{Next, Pipeline};
use super::replies::{Backlog, Replies};
use super::state::State;
use super::timing::{Notes, Requests};
use super::{Activity, Client, Shared};
use crate::config::Config;
use crate::flush::{Commits, Wait};
use crate::resp::{Limits, ProtocolError, encode};
use crate::telemetry::clock;
use crate::tls::Stream;

/// Serves one client until it leaves, is cut, or the server drains.
pub async fn serve(stream: Stream, client: Arc<Client>, shared: Arc<Shared>) {
    let mut session = Session::new(stream, Arc::clone(&client), Arc::clone(&shared));
    tokio::select! {
        biased;
        () = session.run() => {}
        () = client.kill.cancelled() => {}
        () = shared.drain.cancelled() => {
            // Answers what has been read, then closes.
            session.input = Input::Closed;
            session.parting = Parting {
                quiet: if session.is_busy() { BUSY_QUIET } else { QUIET },
                longest: shared.live().server.drain_timeout,
            };
            tokio::select! {
                () = session.run() => {}
                () = client.kill.cancelled() => {}
            }
        }
    }
    session.leave();
    shared.registry.remove(client.id);
}

struct Session {
    stream: Stream,
    client: Arc<Client>,
    shared: Arc<Shared>,
    /// As it was when the client came.
    config: Arc<Config>,
    limits: Limits,
    /// Bytes read and not executed.
    buffer: BytesMut,
    pipeline: Pipeline,
    replies: Arc<Replies>,
    state: State,
    /// Replies being written, and how much of them has been.
    out: Vec<u8>,
    written: usize,
    /// The note that has to be on the disk before `out` may be written.
    told_at: u64,
    wait: Wait,
    input: Input,
    parting: Parting,
    made: Vec<u8>,
    wakes: Vec<Waker>,
    /// What the replies taken last tell of their requests.
    notes: Notes,
    /// Requests whose replies are to come.
    requests: Requests,
}

/// Whether there is more to read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Input {
    Open,
    /// The client sends no more, or nothing more of it is executed: what is under way is
    /// answered, then the connection is closed.
    Closed,
}

/// How a session takes its leave once everything is answered.
#[derive(Clone, Copy, Debug)]
struct Parting {
    /// A client that sends nothing for so long is taken to have stopped.
    quiet: Duration,
    /// Longest wait for one that sends on.
    longest: Duration,
}

/// Why a session ended.
#[derive(Debug)]
enum End {
    /// Everything was answered.
    Done,
    Io(io::Error),
    /// The client did not read its replies.
    OutputLimit,
    /// The peer is no Redis client.
    Abort,
}

impl Session {
    fn new(stream: Stream, client: Arc<Client>, shared: Arc<Shared>) -> Self {
        let config = shared.live();
        let limits = Limits {
            max_bulk_bytes: config.server.max_bulk_bytes,
            authenticated: client.authenticated(),
            ..Limits::default()
        };
        let output_bytes = output_limit(&config, limits.authenticated);
        let replies = Arc::new(Replies::new(output_bytes));
        client.set_replies(&replies);
        Self {
            stream,
            client,
            shared,
            config,
            limits,
            buffer: BytesMut::new(),
            pipeline: Pipeline::default(),
            replies,
            state: State::default(),
            out: Vec::new(),
            written: 0,
            told_at: 0,
            wait: Wait::default(),
            input: Input::Open,
            parting: Parting {
                quiet: QUIET,
                longest: PARTING,
            },
            made: Vec::new(),
            wakes: Vec::new(),
            notes: Notes::default(),
            requests: Requests::default(),
        }
    }

    /// Serves until the connection is to be closed.
    async fn run(&mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        self.ended(&end);
        if matches!(end, End::Done) {
            self.leave();
            self.part().await;
        }
    }

    /// Takes the client out of everything that others see of it.
    fn leave(&self) {
        let (shared, client) = (&self.shared, &self.client);
        client.set_parted();
        shared.hub.leave(client);
        shared.monitors.remove(client);
        shared.tracking.end(client);
        shared.pause.forget(client.id);
    }

    /// Whether replies are under way, as far as can be told from here.
    fn is_busy(&self) -> bool {
        let backlog = self.replies.backlog();
        let replies = backlog.outstanding > 0 || backlog.bytes > 0;
        replies || !self.buffer.is_empty() || self.written < self.out.len()
    }

    /// Whether replies are to come yet.
    fn is_awaited(&self) -> bool {
        self.replies.backlog().outstanding > 0
    }

    /// Says that nothing more comes, and takes what the client still sends to nowhere. A socket
    /// that is closed with bytes unread resets the connection, which destroys replies that are
    /// still on their way.
    async fn part(&mut self) {
        let Parting { quiet, longest } = self.parting;
        let silence = async {
            self.stream.shutdown().await?;
            // Not the session's buffer: nothing of this may be executed.
            let mut nowhere = vec![0; READ_BYTES];
            loop {
                let read = self.stream.read(&mut nowhere);
                match timeout(quiet, read).await {
                    Ok(Ok(1..)) => {}
                    Ok(Ok(0)) | Err(_) => return Ok(()),
                    Ok(Err(error)) => return Err(error),
                }
            }
        };
        let parted: Result<io::Result<()>, _> = timeout(longest, silence).await;
        if let Ok(Err(error)) = parted {
            tracing::debug!(client = %self.client.addr, %error, "the client left first");
        }
    }

    /// Goes as far as it can: executes what has been read, writes what is ready, reads more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..TURNS {
            let executed = self.execute(cx.waker());
            if executed == Executed::Abort {
                return Poll::Ready(End::Abort);
            }
            if self.input == Input::Closed && executed == Executed::All && !self.is_awaited() {
                // Before its last reply: who reads that finds it gone.
                self.leave();
            }
            let idle = match self.write(cx) {
                Ok(idle) => idle,
                Err(error) => return Poll::Ready(End::Io(error)),
            };
            // Read after the waker was left with the replies: what comes later wakes. A socket that
            // takes nothing has left it nowhere.
            let backlog = match executed {
                Executed::Full | Executed::Awaits => self.replies.watch(cx.waker()),
                _ => self.replies.backlog(),
            };
            let waits = backlog.outstanding > 0 || executed == Executed::Stalled;
            self.client.set_waiting(waits);
            if backlog.overrun {
                return Poll::Ready(End::OutputLimit);
            }
            if !idle && backlog.bytes > MADE_BYTES && !self.is_kept() {
                return Poll::Pending;
            }
            match executed {
                Executed::Some => continue,
                Executed::Part => break,
                Executed::Full if self.room(&backlog) > 0 => continue,
                // Reads on, so as to learn that a client is gone that waits in a command.
                Executed::Stalled if self.state.waits() => {}
                Executed::Awaits if backlog.outstanding == 0 => continue,
                Executed::Full | Executed::Stalled | Executed::Awaits => return Poll::Pending,
                Executed::All | Executed::Abort => {}
            }
            if self.input == Input::Closed {
                let settled = backlog.outstanding == 0 && backlog.bytes == 0;
                if idle && (settled || self.state.waits()) {
                    return Poll::Ready(End::Done);
                }
                return Poll::Pending;
            }
            match self.read(cx) {
                Poll::Ready(Ok(0)) => {
                    self.input = Input::Closed;
                    self.client.set_leaving();
                }
                Poll::Ready(Ok(count)) => {
                    self.shared.stats.net_input_bytes.add(to_u64(count));
                    self.touch();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(End::Io(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        // Others have their turn before the next batch of a client that sends without pause.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// How many more requests may be executed before a reply that is missing comes.
    fn room(&self, backlog: &Backlog) -> usize {
        let limit = self.config.server.output_buffer_bytes;
        if backlog.outstanding > 0 && backlog.bytes > EARLY_BYTES.min(limit / 4) {
            return 0;
        }
        MAX_OUTSTANDING.saturating_sub(backlog.outstanding)
    }

    /// Executes the complete requests in the buffer.
    fn execute(&mut self, waker: &Waker) -> Executed {
        if self.buffer.is_empty() {
            return Executed::All;
        }
        let now = clock::now();
        let room = self.room(&self.replies.backlog());
        let mut dispatch = Dispatch::new(
            &self.shared,
            (&self.client, &self.replies, &mut self.state),
            waker,
            now,
            (&mut self.made, &mut self.wakes, &mut self.requests),
        );
        self.notes.slow_after = dispatch.slow_after;
        let mut executed = Executed::All;
        let mut used = 0;
        let mut taken = 0;
        loop {
            if taken == room || dispatch.made.len() > MADE_BYTES {
                executed = Executed::more(taken == room);
                break;
            }
            let unread = self.buffer.get(used..).unwrap_or_default();
            let next = match self.pipeline.next(&mut dispatch, unread, &self.limits) {
                Ok(Next::Answered(bytes)) => {
                    used += bytes;
                    continue;
                }
                Ok(Next::Execute(request, known)) => dispatch.execute(&request, known),
                Ok(Next::Incomplete) => break,
                Err(error) => {
                    protocol_error(&mut dispatch, error);
                    self.shared.stats.protocol_errors.increment();
                    self.input = Input::Closed;
                    used = self.buffer.len();
                    break;
                }
            };
            taken += 1;
            match next {
                Flow::Continue => used += self.pipeline.executed(),
                flow @ (Flow::Again | Flow::Stall | Flow::Await) => {
                    executed = Executed::held(flow);
                    break;
                }
                Flow::Close => {
                    self.input = Input::Closed;
                    self.client.set_leaving();
                    used = self.buffer.len();
                    break;
                }
                Flow::Abort => {
                    executed = Executed::Abort;
                    break;
                }
            }
            bound(&self.client, &self.config, &mut self.limits, &self.replies);
        }
        self.pipeline.pause();
        let tally = dispatch.finish();
        // What is behind the start does not count as capacity, and is held all the same.
        let held = self.buffer.capacity();
        self.buffer.advance(used);
        if self.buffer.is_empty() && held > KEPT_BYTES {
            self.buffer = BytesMut::new();
        }
        if self.made.capacity() > 2 * MADE_BYTES {
            self.made = Vec::new();
        }
        self.note(now, &tally);
        executed
    }

    fn note(&self, now: std::time::Instant, tally: &super::batch::Tally) {
        tally.add_to(&self.shared.stats);
        if let Some(last_command) = tally.last_command {
            self.client.note(&Activity {
                now,
                last_command: last_command.name,
                query_buffer_bytes: self.buffer.len(),
                output_bytes: self.out.len(),
            });
        }
    }

    /// Bytes went to or fro: the client is not idle.
    fn touch(&self) {
        if self.config.server.idle_timeout.is_some() {
            let now = clock::now();
            self.client.touch(now);
        }
    }

    /// Whether what the replies to be written tell of is on the disk, as far as that is wished.
    fn is_kept(&self) -> bool {
        let commits = self.shared.commits;
        commits.is_none_or(|commits| commits.is_kept(self.told_at))
    }

    /// Writes ready replies. Returns whether everything ready is written; else the waker is
    /// registered with the socket, or with who writes the disk.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        loop {
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                if self.out.capacity() > KEPT_BYTES {
                    self.out = Vec::new();
                }
                let backlog = self
                    .replies
                    .take(&mut self.out, &mut self.notes, cx.waker());
                if !self.notes.is_empty() {
                    self.report(backlog.first);
                }
                if self.out.is_empty() {
                    // With TLS, what was written may not be with the socket yet.
                    return match Pin::new(&mut self.stream).poll_flush(cx) {
                        Poll::Ready(flushed) => flushed.map(|()| true),
                        Poll::Pending => Ok(false),
                    };
                }
                self.told_at = self.shared.commits.map_or(0, Commits::noted);
            }
            if let Some(commits) = self.shared.commits
                && !commits.watch(self.told_at, &mut self.wait, cx.waker())
            {
                return Ok(false);
            }
            let rest = self.out.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    self.shared.stats.net_output_bytes.add(to_u64(count));
                    self.touch();
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    return Ok(false);
                }
            }
        }
    }

    /// Adds what the replies taken tell to the statistics; `first` is the number of the next.
    fn report(&mut self, first: u64) {
        let (stats, requests) = (&self.shared.stats, &mut self.requests);
        self.notes.report(stats, requests, &self.client);
        requests.forget_before(first);
    }

    /// Reads once. The buffer grows with what arrives, never by what a request declares, and a
    /// request that is incomplete at the query buffer's limit ends the session as in Redis.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.len() >= self.config.server.query_buffer_bytes {
            tracing::warn!(client = %self.client.addr, "query buffer limit reached");
            return Poll::Ready(Ok(0));
        }
        let missing = self.pipeline.wanted().saturating_sub(self.buffer.len());
        // Doubles at most: a declared gigabyte costs memory only as it is sent.
        self.buffer
            .reserve(missing.clamp(READ_BYTES, READ_BYTES.max(self.buffer.len())));
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.buffer)
    }

    fn ended(&self, end: &End) {
        let client = self.client.addr;
        match end {
            End::Done | End::Abort => {}
            End::Io(error) => tracing::debug!(%client, %error, "connection lost"),
            End::OutputLimit => {
                self.shared.stats.output_limit_closed.increment();
                tracing::warn!(%client, "closed: it does not read its replies");
            }
        }
    }
}

/// Gives a client the bounds of who has authenticated itself, or not any more.
fn bound(client: &Client, config: &Config, limits: &mut Limits, replies: &Replies) {
    let authenticated = client.authenticated();
    if limits.authenticated != authenticated {
        limits.authenticated = authenticated;
        replies.set_limit(output_limit(config, authenticated));
    }
}

/// Most bytes of replies that a client may leave unread.
fn output_limit(config: &Config, authenticated: bool) -> usize {
    let limit = config.server.output_buffer_bytes;
    if authenticated {
        limit
    } else {
        limit.min(UNAUTHENTICATED_OUTPUT_BYTES)
    }
}

/// Answers bytes that are no request, as the last reply.
fn protocol_error(dispatch: &mut Dispatch<'_>, error: ProtocolError) {
    let mut text = String::from("ERR ");
    text.push_str(&error.to_string());
    encode::error(dispatch.made, &text);
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// How far a batch came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Executed {
    /// Everything complete was executed.
    All,
    /// There is more, for the next turn.
    Some,
    /// As many as may be outstanding were executed; those that were answered at once left room.
    Full,
    /// A part of a request was executed: others have their turn.
    Part,
    /// A complete request has to wait for room in its lane, which wakes the session.
    Stalled,
    /// A complete request has to wait until every reply before it has come.
    Awaits,
    Abort,
}

impl Executed {
    /// There is more, and there are as many outstanding as may be, or not.
    fn more(full: bool) -> Self {
        if full { Self::Full } else { Self::Some }
    }

    /// What a request that is not executed, or not wholly, waits for.
    fn held(flow: Flow) -> Self {
        match flow {
            Flow::Again => Self::Part,
            Flow::Await => Self::Awaits,
            _ => Self::Stalled,
        }
    }
}

/// Batches of one client executed in a row before others have their turn.
const TURNS: usize = 4;

/// Most requests of one session that wait for a node; beyond it the session reads no further.
/// Bounds what one client can put into the lanes.
const MAX_OUTSTANDING: usize = 8192;

/// With more bytes of replies that wait for an earlier one, the session executes nothing further
/// before that has come; with a quarter of `server.output_buffer`, if that is less. So no client is
/// cut for replies that it was not given yet.
const EARLY_BYTES: usize = 4 << 20;

/// Most bytes of unread replies before authentication, where it is required: what Redis's own buffer
/// of a client holds (`PROTO_REPLY_CHUNK_BYTES`; `checkClientOutputBufferLimits` in `networking.c`
/// allows next to nothing beyond it).
const UNAUTHENTICATED_OUTPUT_BYTES: usize = 16 << 10;

/// Bytes of replies made in one turn before they are written and the output limit is looked at.
const MADE_BYTES: usize = 256 << 10;

/// Room for one read: 16 KiB, as Redis's `PROTO_IOBUF_LEN`.
const READ_BYTES: usize = 16 << 10;

/// Largest buffer that an idle session keeps.
const KEPT_BYTES: usize = 64 << 10;

/// A client that sends nothing for so long after the end of its replies is taken to have stopped:
/// many times what bytes under way need in a data centre.
const QUIET: Duration = Duration::from_millis(100);

/// The same at a stop, for a client that is being answered then: it may send on as soon as it has
/// read its replies, and where many are answered at once that takes a while.
const BUSY_QUIET: Duration = Duration::from_secs(1);

/// Longest wait for a client that sends on after the end of its replies. At a stop the time that
/// the stop leaves it bounds that.
const PARTING: Duration = Duration::from_secs(2);
