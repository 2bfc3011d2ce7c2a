//! Requests that Tally makes itself: they take the way of a client's request, without a connection.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::dispatch::{Dispatch, Flow, Known};
use super::replies::Replies;
use super::state::State;
use super::timing::{Notes, Requests};
use super::{Client, Gate, Shared};
use crate::flush::Wait;
use crate::resp::{Limits, Protocol, RequestScanner, encode};
use crate::telemetry::clock::now;

/// The answer to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The reply, a RESP3 frame; errors too.
    pub frame: Vec<u8>,
    /// Whether no node was asked.
    pub from_memory: bool,
}

/// Executes one request as if a client had sent it: the same table, the same lanes, the same
/// order, in `database`. `counted` says whether it is part of the statistics; what is asked only to show it is not.
///
/// Waits while the node has no room; then nothing has happened, so that dropping the future is
/// safe. Later the request may be executed whether or not the future is dropped. A node that
/// gives no answer leads to an error within `upstream.request_timeout`.
pub async fn ask(shared: &Shared, database: u32, request: &[&[u8]], counted: bool) -> Answer {
    let now = now();
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let client = Client::new(0, nowhere, nowhere, now, Gate::Open);
    client.set_protocol(Protocol::Resp3);
    client.set_database(database);
    shared.router.open(database);
    let mut wire = Vec::new();
    encode::request(&mut wire, request);
    let mut asking = Asking {
        shared,
        client,
        replies: Arc::new(Replies::new(shared.live().server.output_buffer_bytes)),
        state: State::default(),
        wire,
        counted,
        from_memory: None,
        notes: Notes::default(),
        requests: Requests::default(),
    };
    let answer = poll_fn(|cx| asking.poll(cx)).await;
    if let Some(commits) = shared.commits {
        commits.kept(commits.noted(), &mut Wait::default()).await;
    }
    answer
}

struct Asking<'a> {
    shared: &'a Shared,
    client: Client,
    replies: Arc<Replies>,
    state: State,
    wire: Vec<u8>,
    counted: bool,
    /// `None` until the request has been executed or sent.
    from_memory: Option<bool>,
    notes: Notes,
    requests: Requests,
}

impl Asking<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let from_memory = match self.from_memory {
            Some(known) => known,
            None => match self.execute(cx) {
                Some(known) => *self.from_memory.insert(known),
                None => return Poll::Pending,
            },
        };
        let mut frame = Vec::new();
        let backlog = self.replies.take(&mut frame, &mut self.notes, cx.waker());
        if self.counted {
            let (stats, requests) = (&self.shared.stats, &self.requests);
            self.notes.report(stats, requests, &self.client);
        }
        if backlog.overrun {
            frame.clear();
            encode::error(
                &mut frame,
                "ERR the reply is larger than server.output_buffer",
            );
        }
        if frame.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Answer { frame, from_memory })
    }

    /// Executes the request; `None` while the node has no room for it.
    fn execute(&mut self, cx: &Context<'_>) -> Option<bool> {
        let now = now();
        let (mut made, mut woken) = (Vec::new(), Vec::new());
        let mut scanner = RequestScanner::new();
        let limits = Limits {
            authenticated: true,
            ..Limits::default()
        };
        let length = scanner.scan(&self.wire, &limits);
        let mut dispatch = Dispatch::new(
            self.shared,
            (&self.client, &self.replies, &mut self.state),
            cx.waker(),
            now,
            (&mut made, &mut woken, &mut self.requests),
        );
        self.notes.slow_after = dispatch.slow_after.filter(|_| self.counted);
        dispatch.is_seen &= self.counted;
        let flow = if let Ok(Some(_)) = length {
            dispatch.execute(&scanner.request(&self.wire), Known::Nothing)
        } else {
            // What we encoded is a request, unless an argument is larger than clients may send.
            dispatch.error("ERR the request is too large");
            Flow::Continue
        };
        let tally = dispatch.finish();
        match flow {
            Flow::Again => {
                cx.waker().wake_by_ref();
                return None;
            }
            Flow::Stall | Flow::Await => return None,
            Flow::Continue | Flow::Close | Flow::Abort => {}
        }
        if self.counted {
            tally.add_to(&self.shared.stats);
        }
        Some(tally.hits + tally.increments_local > 0)
    }
}
