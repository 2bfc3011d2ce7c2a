//! Requests on connections of their own: commands that wait, and `WATCH` (see `watch.rs`).
//!
//! ```text
//!  session ──> bar: the keys' increments are applied, and nothing of the keys is known here ──┐
//!                                                                                             v
//!          <── reply <── lift <─────────────── pooled connection <── request <────────────────┘
//! ```
//!
//! A session begins such a request when all replies before it have come, and executes nothing more
//! until it is answered. The keys are barred meanwhile: everything on them is passed on as it is.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::behind_locks::Executed;
use super::dispatch::{Dispatch, Fate, Flow};
use super::replies::Ticket;
use super::watch::Watch;
use super::{Blocked, Client};
use crate::command::Command;
use crate::counter::{Effect, Lane, Step};
use crate::key::Key;
use crate::node::{Node, Pooled, Refused, error_frame};
use crate::resp::{Form, Protocol, Request, encode, reply, to_resp2};
use crate::telemetry::clock::now;

/// A request under way on a connection of its own.
#[derive(Debug)]
pub(super) struct Aside {
    answer: oneshot::Receiver<Answer>,
    /// Ends a command that waits when it is dropped, as the session ends.
    wait: Option<DropGuard>,
}

/// What a request aside came to.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// A RESP3 frame.
    pub(super) frame: Vec<u8>,
    /// What is watched from now on.
    pub(super) watches: Vec<Watch>,
    /// The replies to the parts of a transaction that was executed.
    pub(super) executed: Vec<Executed>,
}

/// Keys about which nothing is answered here. Dropping it frees them, which takes the lock of the
/// lane.
pub(super) struct Bars {
    pub(super) node: Arc<Node<Ticket>>,
    pub(super) keys: Vec<Key>,
}

impl Aside {
    /// Whether it ends with the session, and may take as long as it likes.
    pub(super) fn waits(&self) -> bool {
        self.wait.is_some()
    }
}

impl Answer {
    pub(super) fn of(frame: Vec<u8>) -> Self {
        Self {
            frame,
            ..Self::default()
        }
    }
}

impl Dispatch<'_> {
    /// A command that may wait, on keys of one node.
    pub(super) fn wait_aside(
        &mut self,
        command: &Command,
        request: &Request<'_>,
        (index, keys): (usize, &[&[u8]]),
    ) -> Flow {
        if self.state.aside.is_none() {
            if let Some(flow) = self.admit_aside(index) {
                return flow;
            }
            let cancel = CancellationToken::new();
            let wait = Wait {
                bars: Bars::new(self.node(index)),
                index,
                command: self.command.name,
                is_ordered: self.splits(),
                client: self.shared.registry.get(self.client.id),
                timeout: self.shared.live().upstream.hard_timeout,
            };
            let keys = keys.iter().copied().map(Key::new).collect();
            let run = wait.run(keys, request.wire().into(), cancel.clone());
            self.spawn_aside(run, Some(cancel.drop_guard()));
        }
        self.pass_aside(command.form_of(request))
    }

    /// Whether a request on another connection may begin: everything before it has been answered,
    /// and its node can be reached.
    pub(super) fn admit_aside(&mut self, index: usize) -> Option<Flow> {
        if self.replies.backlog().outstanding > 0 {
            return Some(Flow::Await);
        }
        let refused = self.admit(index);
        self.leave();
        refused
    }

    pub(super) fn begin_aside(
        &mut self,
        run: impl Future<Output = Answer> + Send + 'static,
        wait: Option<DropGuard>,
    ) {
        // `CLIENT LIST` shows the command that is under way.
        self.tally.last_command = Some(self.command);
        self.spawn_aside(run, wait);
    }

    /// Like [`Self::begin_aside`], for a command that `CLIENT LIST` shows only once it waits.
    fn spawn_aside(
        &mut self,
        run: impl Future<Output = Answer> + Send + 'static,
        wait: Option<DropGuard>,
    ) {
        let (sender, answer) = oneshot::channel();
        tokio::spawn(async move {
            // Without its session an answer is dropped, and the connection that it holds is closed.
            drop(sender.send(run.await));
        });
        self.state.aside = Some(Aside { answer, wait });
    }

    /// The answer to the request that is under way aside, if it has come; else the session is
    /// woken when it comes.
    pub(super) fn poll_aside(&mut self) -> Option<Answer> {
        self.leave();
        let aside = self.state.aside.as_mut()?;
        let mut context = Context::from_waker(self.waker);
        let Poll::Ready(answer) = Pin::new(&mut aside.answer).poll(&mut context) else {
            return None;
        };
        self.state.aside = None;
        Some(answer.unwrap_or_else(|_| Answer::of(error_frame("the request was given up"))))
    }

    /// Passes the answer on to the request that is under way aside, once it has come.
    pub(super) fn pass_aside(&mut self, form: Form) -> Flow {
        let Some(answer) = self.poll_aside() else {
            return Flow::Stall;
        };
        self.pass(&answer.frame, form);
        Flow::Continue
    }

    /// Passes a node's reply on.
    pub(super) fn pass(&mut self, frame: &[u8], form: Form) {
        if let Some(error) = frame.strip_prefix(b"-") {
            self.fate = Fate::Failed;
            self.shared.stats.errors.note(error);
        }
        if !self.client.finish_command() {
            return;
        }
        match self.client.protocol() {
            Protocol::Resp3 => self.made.extend_from_slice(frame),
            Protocol::Resp2 => to_resp2(frame, form, self.made),
        }
    }
}

/// A command that waits.
struct Wait {
    bars: Bars,
    /// Its node.
    index: usize,
    /// Its full name.
    command: &'static str,
    /// Whether it stays behind what others have sent before.
    is_ordered: bool,
    /// Who waits; `None` for a request that Tally makes itself.
    client: Option<Arc<Client>>,
    /// For every answer but that of the wait itself.
    timeout: Duration,
}

impl Wait {
    async fn run(mut self, keys: Vec<Key>, wire: Vec<u8>, cancel: CancellationToken) -> Answer {
        let mut connection = match self.bars.node.borrow().await {
            Ok(connection) => connection,
            Err(error) => return Answer::of(error_frame(error)),
        };
        if let Err(frame) = self.make_ready(&keys).await {
            self.bars.node.take_back(connection);
            return Answer::of(frame);
        }
        if cancel.is_cancelled() {
            self.bars.node.take_back(connection);
            return Answer::of(Vec::new());
        }
        let outcome = match connection.send(&wire).await {
            Ok(()) => {
                // Not before: `CLIENT UNBLOCK` of a client that is shown as waiting has to end it.
                self.show(Some(connection.id()));
                self.wait(&mut connection, &cancel).await
            }
            Err(lost) => Err(lost.to_string()),
        };
        self.show(None);
        Answer::of(match outcome {
            Ok(frame) => {
                self.bars.node.take_back(connection);
                frame
            }
            Err(lost) => {
                fence(&self.bars.node, connection).await;
                error_frame(format!("node {}: {lost}", self.bars.node.name()))
            }
        })
    }

    /// Bars the keys. An error frame says why nothing more may be done.
    async fn make_ready(&mut self, keys: &[Key]) -> Result<(), Vec<u8>> {
        self.bars.add(keys).await?;
        if !self.is_ordered {
            return Ok(());
        }
        let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
        let sent = on_lane(&self.bars.node, |lane, step, ticket| {
            lane.forward(step, &keys, PING, Effect::Peek, ticket);
        });
        let frame = sent.await;
        if reply::is_error(&frame) {
            return Err(frame);
        }
        Ok(())
    }

    /// Waits for the reply. When the client leaves, the lane ends its wait at the node: in order
    /// with everything that comes later, so that nothing pushed from then on is lost to it.
    async fn wait(
        &self,
        connection: &mut Pooled,
        cancel: &CancellationToken,
    ) -> Result<Vec<u8>, String> {
        tokio::select! {
            biased;
            frame = connection.read() => return frame.map_err(|lost| lost.to_string()),
            () = cancel.cancelled() => {}
        }
        let id = connection.id().to_string();
        let mut wire = Vec::new();
        encode::request(&mut wire, &["CLIENT", "UNBLOCK", &id]);
        let unblocked = on_lane(&self.bars.node, |lane, step, ticket| {
            lane.keyless(step, &wire, ticket);
        });
        let ended = async {
            if reply::is_error(&unblocked.await) {
                return Err("it could not be unblocked".to_owned());
            }
            connection.read().await.map_err(|lost| lost.to_string())
        };
        let late = tokio::time::timeout(self.timeout, ended).await;
        late.unwrap_or_else(|_| Err("it was not unblocked in time".to_owned()))
    }

    /// Shows others where the client waits.
    fn show(&self, connection: Option<i64>) {
        if let Some(client) = &self.client {
            client.set_blocked(connection.map(|connection| Blocked {
                node: self.index,
                connection,
                command: self.command,
            }));
        }
    }
}

impl Bars {
    pub(super) fn new(node: &Arc<Node<Ticket>>) -> Self {
        Self {
            node: Arc::clone(node),
            keys: Vec::new(),
        }
    }

    /// Adds keys, and waits until what was pending on them is applied. An error frame says why none
    /// was added.
    pub(super) async fn add(&mut self, keys: &[Key]) -> Result<(), Vec<u8>> {
        let mut seen: HashSet<&[u8]> = self.keys.iter().map(Key::as_bytes).collect();
        let new = keys.iter().filter(|key| seen.insert(key.as_bytes()));
        let new: Vec<Key> = new.cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        let wanted: Vec<&[u8]> = new.iter().map(Key::as_bytes).collect();
        let frame = on_lane(&self.node, |lane, step, ticket| {
            lane.forward(step, &wanted, &[], Effect::Bar, ticket);
        });
        let frame = frame.await;
        if reply::is_error(&frame) {
            return Err(frame);
        }
        self.keys.extend(new);
        Ok(())
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            let now = now();
            let keys = &self.keys;
            self.node
                .enter()
                .step(now, &mut Vec::new(), |lane, _| lane.lift(keys));
        }
    }
}

impl fmt::Debug for Bars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bars").field(&self.keys).finish()
    }
}

/// Closes a lost connection at the node too: what was sent on it is executed before the node
/// answers, or not at all. Where the node refuses that or is away, nothing more can be done.
async fn fence(node: &Node<Ticket>, connection: Pooled) {
    let wire = kill(connection);
    let killed = on_lane(node, |lane, step, ticket| lane.keyless(step, &wire, ticket));
    killed.await;
}

/// Closes a lost connection, and returns the request that closes it at the node.
pub(super) fn kill(connection: Pooled) -> Vec<u8> {
    let id = connection.id().to_string();
    drop(connection);
    let mut wire = Vec::new();
    encode::request(&mut wire, &["CLIENT", "KILL", "ID", &id]);
    wire
}

/// Submits something to a node's lane when there is room, and waits for the answer: a RESP3 frame.
pub(super) async fn on_lane(
    node: &Node<Ticket>,
    submit: impl FnOnce(&mut Lane<Ticket>, &mut Step<'_, Ticket>, Ticket),
) -> Vec<u8> {
    let answer = match submitted(node, submit).await {
        Ok(answer) => answer,
        Err(frame) => return frame,
    };
    answer
        .await
        .unwrap_or_else(|_| error_frame("the node's lane is gone"))
}

/// The same, and leaves the wait to the caller.
///
/// # Errors
///
/// The frame of an error: the node is away, and nothing was sent.
pub(super) async fn submitted(
    node: &Node<Ticket>,
    submit: impl FnOnce(&mut Lane<Ticket>, &mut Step<'_, Ticket>, Ticket),
) -> Result<oneshot::Receiver<Vec<u8>>, Vec<u8>> {
    let (sender, answer) = oneshot::channel();
    let mut wakes = Vec::new();
    loop {
        {
            let mut entry = node.enter();
            match entry.admit_behind(Waker::noop()) {
                Ok(()) => {
                    let now = now();
                    let ticket = Ticket::Told(sender);
                    entry.step(now, &mut wakes, |lane, step| submit(lane, step, ticket));
                    break;
                }
                Err(Refused::Full) => {}
                Err(Refused::Failed(text)) => {
                    let mut frame = Vec::new();
                    encode::error(&mut frame, text.as_bytes());
                    return Err(frame);
                }
            }
        }
        tokio::time::sleep(TURN).await;
    }
    wakes.drain(..).for_each(Waker::wake);
    node.send();
    Ok(answer)
}

/// Once a lane has answered it, everything that was sent there before has been executed.
pub(super) const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Between two looks at a full lane.
const TURN: Duration = Duration::from_millis(2);
