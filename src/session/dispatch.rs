//! What each request of a client leads to.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::batch::Tally;
use super::reads::Reads;
use super::replies::{Replies, Ticket};
use super::state::State;
use super::timing::{Requests, push_slow};
use super::{Client, Gate, Shared, subscribe};
use crate::command::{self, Class, Command, Flags, LookupError};
use crate::counter::Mode;
use crate::key::Key;
use crate::node::{Entry, Node, Refused};
use crate::resp::Request;
use crate::telemetry::clock::{now, wall_time};
use crate::telemetry::{Touch, Use};

/// Executes the requests of one read, in order. The lane of the node used last stays locked from
/// one request to the next: most batches need each lane once or a few times.
pub(super) struct Dispatch<'a> {
    pub(super) shared: &'a Shared,
    pub(super) client: &'a Client,
    pub(super) replies: Arc<Replies>,
    pub(super) state: &'a mut State,
    pub(super) waker: &'a Waker,
    pub(super) now: Instant,
    /// The nodes of the session's database.
    pub(super) nodes: &'a [Arc<Node<Ticket>>],
    entered: Option<(usize, Entry<'a, Ticket>)>,
    /// Replies made here, one behind the other, and not yet pushed to `replies`.
    pub(super) made: &'a mut Vec<u8>,
    pub(super) woken: &'a mut Vec<Waker>,
    /// Nodes that were given something to send.
    pub(super) touched: Vec<usize>,
    pub(super) tally: Tally,
    pub(super) positions: Vec<usize>,
    /// Keys to report to [`Seen`](crate::telemetry::Seen); empty while nobody watches.
    seen: Vec<Touch>,
    /// How many more there were.
    unseen: u64,
    /// Whether keys may be reported.
    pub(super) is_seen: bool,
    /// Picks which of the reads and the increments answered here are reported.
    salt: u64,
    /// The command that is executed, and what became of it so far.
    pub(super) command: &'static Command,
    pub(super) fate: Fate,
    /// What of its data the client may keep.
    pub(super) reads: Reads,
    /// What is known of the request that is executed.
    known: Known,
    /// How long a request takes that counts as slow.
    pub(super) slow_after: Option<Duration>,
    /// Whether that is so short that every request is timed by itself.
    pub(super) is_careful: bool,
    /// Requests timed by themselves, and how long they took; and whether this one is.
    timed: (u64, Duration),
    is_timed: bool,
    requests: &'a mut Requests,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Fate {
    /// It was answered here.
    #[default]
    Here,
    /// The reply of this number is to come.
    Asked(u64),
    /// It was answered here with an error.
    Failed,
    /// It was refused before it was executed.
    Rejected,
}

/// What is known of a request before it is executed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known {
    Nothing,
    Command(&'static Command),
    /// The table of its key was asked just now, and did not answer.
    Elsewhere(&'static Command),
}

/// How a session goes on after a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flow {
    /// With the next request.
    Continue,
    /// With the same request, of which a part is done, when others have had their turn.
    Again,
    /// With the same request, when its node has room again.
    Stall,
    /// With the same request, once every request before it has been answered.
    Await,
    /// It ends once its replies are written.
    Close,
    /// It ends at once: the peer is no Redis client.
    Abort,
}

impl Flow {
    /// How the session goes on after two commands of a transaction.
    pub(super) fn and(self, next: Self) -> Self {
        match self {
            Self::Continue => next,
            first => first,
        }
    }
}

impl<'a> Dispatch<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        (client, replies, state): (&'a Client, &'a Arc<Replies>, &'a mut State),
        waker: &'a Waker,
        now: Instant,
        (made, woken, requests): (&'a mut Vec<u8>, &'a mut Vec<Waker>, &'a mut Requests),
    ) -> Self {
        let database = client.database();
        let slow_after = shared.stats.slow_log.threshold();
        let nodes = shared.router.database(database);
        Self {
            shared,
            client,
            replies: Arc::clone(replies),
            state,
            waker,
            now,
            nodes,
            entered: None,
            made,
            woken,
            touched: Vec::new(),
            tally: Tally::default(),
            positions: Vec::new(),
            seen: Vec::new(),
            unseen: 0,
            is_seen: shared.stats.seen.is_watched(),
            salt: u64::from(now.saturating_duration_since(shared.started).subsec_nanos()),
            command: NO_COMMAND,
            fate: Fate::Here,
            reads: Reads::default(),
            known: Known::Nothing,
            slow_after,
            is_careful: slow_after.is_some_and(|slow| slow < CAREFUL_BELOW),
            timed: (0, Duration::ZERO),
            is_timed: false,
            requests,
        }
    }

    /// Ends the batch: hands over its replies, lets go of the lane, has what was appended sent and
    /// other sessions woken.
    ///
    /// The clock is read once more. What the batch took is shared equally by its requests: to read
    /// it for each would cost a tenth of a warm increment (30 ns of 330).
    pub(super) fn finish(mut self) -> Tally {
        self.leave();
        self.push_made();
        if !self.seen.is_empty() {
            let seen = std::mem::take(&mut self.seen);
            self.shared.stats.seen.offer(seen, self.unseen);
        }
        self.send_touched();
        self.woken.drain(..).for_each(Waker::wake);
        let (timed, took) = self.timed;
        let sharing = u32::try_from(self.tally.commands - timed).unwrap_or(u32::MAX);
        let rest = elapsed(self.now).saturating_sub(took);
        self.tally.share = rest.checked_div(sharing).unwrap_or_default();
        self.tally
    }

    /// Has what the lanes were given sent.
    fn send_touched(&mut self) {
        for index in self.touched.drain(..) {
            let Some(node) = self.nodes.get(index) else {
                continue;
            };
            if node.schedule() {
                self.shared.send_soon(node);
            }
        }
    }

    /// Goes on with the database that the client has now.
    pub(super) fn enter_database(&mut self) {
        self.leave();
        self.send_touched();
        let database = self.client.database();
        self.shared.router.open(database);
        self.nodes = self.shared.router.database(database);
    }

    /// Executes one request, or, on [`Flow::Again`], a part of it. On [`Flow::Stall`] and
    /// [`Flow::Await`] nothing has happened.
    pub(super) fn execute(&mut self, request: &Request<'_>, known: Known) -> Flow {
        if request.is_empty() {
            return Flow::Continue;
        }
        self.known = known;
        let command = match known {
            Known::Command(command) | Known::Elsewhere(command) => command,
            Known::Nothing => match command::lookup(request) {
                Ok(command) => command,
                Err(error) => return self.unknown(error, request),
            },
        };
        self.command = command;
        // What is reported of a request before it is executed was reported when it began.
        let begins = self.state.begun.is_none();
        if begins && let Some(flow) = self.before(request) {
            return flow;
        }
        let was_on = self.shared.tracking.is_on();
        let transaction = (begins && was_on)
            .then(|| self.before_tracked(request))
            .flatten();
        let flow = if self.is_careful {
            self.timed(request, |this| this.run(request))
        } else {
            self.run(request)
        };
        match flow {
            Flow::Again | Flow::Stall | Flow::Await => {
                self.fate = Fate::Here;
                flow
            }
            flow => {
                // Asked after the change: a client that begins to track from now on, and reads,
                // sees the change.
                if self.shared.tracking.is_on() {
                    self.after_tracked(request, was_on, transaction);
                    self.end_caching();
                }
                if self.shared.monitors.is_watched() && self.fate != Fate::Rejected {
                    self.tell_monitors(request);
                }
                self.done(request);
                flow
            }
        }
    }

    /// How the session goes on where a request is not executed, or not now.
    fn before(&mut self, request: &Request<'_>) -> Option<Flow> {
        let command = self.command;
        if self.client.gate() != Gate::Open
            && let Some(text) = self.stopped(command, request)
        {
            self.refuse_transaction();
            self.refuse(text.as_ref());
            return Some(self.done(request));
        }
        if self.client.is_in_subscribed_mode() && !subscribe::is_allowed(command) {
            self.refuse(subscribe::not_allowed(command).as_bytes());
            return Some(self.done(request));
        }
        if self.state.confirming && !subscribe::is_allowed(command) {
            if self.replies.backlog().outstanding > 0 {
                return Some(Flow::Await);
            }
            self.state.confirming = false;
        }
        if self.shared.pause.is_on() && self.is_held(request) {
            return Some(Flow::Stall);
        }
        self.queues().then(|| self.queue(request))
    }

    /// Executes a request whose command was found and is allowed.
    pub(super) fn run(&mut self, request: &Request<'_>) -> Flow {
        let command = self.command;
        if matches!(command.class, Class::Peek | Class::Keyed) && self.deadline_here(request) {
            return Flow::Continue;
        }
        match command.class {
            Class::Increment(kind) => self.increment(command, kind, request),
            Class::Get => self.get(command, request),
            Class::MultiGet => self.get_many(command, request),
            Class::Peek | Class::Keyed => self.keyed(command, request),
            Class::Script => self.script(command, request),
            Class::PerNode { peek, .. } => self.per_node(command, request, peek),
            Class::EveryNode(kind) => self.every_node(command, kind, request),
            Class::AnyNode => self.any_node(command, request),
            Class::PubSub(messages) => self.messages(messages, request),
            Class::Local if command.flags.contains(Flags::FAST) => self.local(command, request),
            // These may look at every client and every node.
            Class::Local => self.timed(request, |this| this.local(command, request)),
            Class::Own(inside) => self.timed(request, |this| this.own(inside, request)),
            Class::Transaction(bracket) => self.bracket(bracket, request),
            Class::Refused(refusal) => {
                self.reject(refusal.text(command));
                Flow::Continue
            }
        }
    }

    /// Times a request by itself, if it is answered here.
    pub(super) fn timed(
        &mut self,
        request: &Request<'_>,
        run: impl FnOnce(&mut Self) -> Flow,
    ) -> Flow {
        let begun = now();
        let flow = run(self);
        let is_answered = matches!(self.fate, Fate::Here | Fate::Failed);
        if matches!(flow, Flow::Again | Flow::Stall | Flow::Await) || !is_answered || self.is_timed
        {
            return flow;
        }
        let (took, stats) = (elapsed(begun), &self.shared.stats);
        self.is_timed = true;
        self.timed.0 += 1;
        self.timed.1 += took;
        stats.commands.observe(self.command, took, 1);
        stats.latency.observe(self.command, took, wall_time);
        let is_slow = self.slow_after.is_some_and(|slow| took >= slow);
        if is_slow && self.command.name != "auth" {
            let args = command::shown(request);
            push_slow(stats, self.client, (took, Duration::ZERO), args);
        }
        flow
    }

    /// Counts a request.
    fn done(&mut self, request: &Request<'_>) -> Flow {
        if let Fate::Asked(number) = self.count()
            && self.slow_after.is_some()
        {
            self.requests.keep(number, request);
        }
        Flow::Continue
    }

    /// Counts a request whose bytes are not kept, and says what became of it.
    pub(super) fn count(&mut self) -> Fate {
        let command = self.command;
        self.tally.commands += 1;
        self.tally.last_command = Some(command);
        let fate = std::mem::take(&mut self.fate);
        let shares = !std::mem::take(&mut self.is_timed);
        match fate {
            Fate::Here => self.tally.count(command, shares, false),
            Fate::Failed => self.tally.count(command, shares, true),
            Fate::Asked(_) => self.tally.count(command, false, false),
            Fate::Rejected => self.shared.stats.commands.reject(command),
        }
        fate
    }

    fn unknown(&mut self, error: LookupError, request: &Request<'_>) -> Flow {
        let name = request.arg(0);
        // A web page or a confused server speaks HTTP to us (Redis `securityWarningCommand`).
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            tracing::warn!(client = %self.client.addr, "a client speaks HTTP, connection closed");
            return Flow::Abort;
        }
        self.tally.commands += 1;
        self.refuse_transaction();
        let text = error.text(request);
        if error == LookupError::Arity && name.eq_ignore_ascii_case(b"exec") {
            self.refuse_exec(&text);
        } else {
            self.reject(text);
        }
        if let (LookupError::Arity, Ok(command)) = (error, command::resolve(request)) {
            self.shared.stats.commands.reject(command);
        }
        self.fate = Fate::Here;
        Flow::Continue
    }

    /// Whether the table of the request's key was asked, and did not answer.
    #[inline]
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self.known, Known::Elsewhere(_))
    }

    /// Whether this request is one of the [`SAMPLED`] that are reported. It costs next to nothing:
    /// the salt differs from batch to batch, the counts within one.
    #[inline]
    pub(super) fn is_sampled(&self) -> bool {
        self.is_sampled_at(0)
    }

    /// The same for key `at` of a request of several.
    #[inline]
    pub(super) fn is_sampled_at(&self, at: usize) -> bool {
        let at = u64::try_from(at).unwrap_or(0);
        (self.salt + self.tally.commands + at).is_multiple_of(u64::from(SAMPLED))
    }

    /// Notes that a client asked for `key`.
    #[inline]
    pub(super) fn touch(&mut self, key: &[u8], how: Use) {
        if !self.is_seen {
            return;
        }
        if self.seen.len() == MAX_SEEN {
            self.unseen += 1;
        } else {
            let (key, database) = (Key::new(key), self.client.database());
            self.seen.push(Touch { key, database, how });
        }
    }

    /// A node of the session's database; `index` comes from the ring.
    #[inline]
    pub(super) fn node(&self, index: usize) -> &'a Arc<Node<Ticket>> {
        #[expect(
            clippy::indexing_slicing,
            reason = "every database has all nodes of the ring"
        )]
        &self.nodes[index]
    }

    /// Whether a key is forwarded as it is.
    pub(super) fn is_through(&self, index: usize, key: &[u8]) -> bool {
        let table = self.node(index).table();
        table.policy(key).mode == Mode::Through
    }

    /// The command that is executed.
    pub(super) fn command(&self) -> &'static Command {
        self.command
    }

    /// Enters a lane and asks whether it takes a command. `None`: it does. Otherwise the session
    /// goes on as the result says; when the node is away, the error has been written.
    pub(super) fn admit(&mut self, index: usize) -> Option<Flow> {
        let waker = self.waker;
        match self.lane(index).0.admit(waker) {
            Ok(()) => None,
            Err(Refused::Full) if self.state.executing => None,
            Err(Refused::Full) => Some(Flow::Stall),
            Err(Refused::Failed(text)) => {
                self.reject(text.as_bytes());
                Some(Flow::Continue)
            }
        }
    }

    /// The lane of a node, locked; at most one is.
    pub(super) fn lane(&mut self, index: usize) -> (&mut Entry<'a, Ticket>, &mut Vec<Waker>) {
        if self
            .entered
            .as_ref()
            .is_some_and(|(entered, _)| *entered != index)
        {
            self.leave();
        }
        let node = self.node(index);
        let touched = &mut self.touched;
        let (_, entry) = self.entered.get_or_insert_with(|| {
            if !touched.contains(&index) {
                touched.push(index);
            }
            (index, node.enter())
        });
        (entry, self.woken)
    }

    /// Unlocks the lane that is locked.
    pub(super) fn leave(&mut self) {
        self.entered = None;
    }
}

/// The size of a delta, for charts.
pub(super) fn clamped(delta: i64) -> u32 {
    u32::try_from(delta.unsigned_abs()).unwrap_or(u32::MAX)
}

/// Redis's words (`incrDecrCommand` in `t_string.c`).
pub(super) const OVERFLOW: &str = "ERR increment or decrement would overflow";

/// Of so many requests answered here, one is reported: so the others cost no more than before.
pub(super) const SAMPLED: u32 = 64;

/// Most keys that a batch reports.
const MAX_SEEN: usize = 32;

/// A threshold of the slow log below this asks for more than a batch's time can tell.
const CAREFUL_BELOW: Duration = Duration::from_millis(1);

/// What is executed before the first command.
static NO_COMMAND: &Command = match command::commands() {
    [first, ..] => first,
    [] => unreachable!(),
};

/// How long ago that was.
fn elapsed(since: Instant) -> Duration {
    let now = now();
    now.saturating_duration_since(since)
}
