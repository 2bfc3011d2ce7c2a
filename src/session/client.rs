//! Facts about one connected client.

mod line;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::reply_mode::ReplyMode;
use super::users::{DEFAULT_USER, Login, Membership, User, Users};
use super::{Replies, Tracks};
use crate::pubsub::Subscriptions;
use crate::resp::Protocol;
use crate::telemetry::clock::now;

/// One connected client: written by its own session, read by every other.
///
/// What a session asks at each command is atomic; the rest stands behind a lock that is taken once
/// per batch of requests and by `CLIENT` commands.
#[derive(Debug)]
pub struct Client {
    /// Rises from 1; `CLIENT ID` tells it.
    pub id: u64,
    /// Where it connected from.
    pub addr: SocketAddr,
    /// Where it connected to.
    pub laddr: SocketAddr,
    /// When it connected.
    pub created: Instant,
    /// Cancelled by `CLIENT KILL`: its session ends then.
    pub kill: CancellationToken,
    resp3: AtomicBool,
    gate: AtomicU8,
    database: AtomicU32,
    replies: AtomicU8,
    waiting: AtomicBool,
    monitor: AtomicBool,
    leaving: AtomicBool,
    parted: AtomicBool,
    tracks: AtomicU8,
    /// The id of the client that gets its messages about tracked keys; 0 for itself.
    redirect: AtomicU64,
    /// Where its messages go, while its session lives.
    sink: OnceLock<Weak<Replies>>,
    subscriptions: Subscriptions,
    facts: Mutex<Facts>,
}

/// Where a client waits.
#[derive(Clone, Copy, Debug)]
pub struct Blocked {
    /// Place of the node.
    pub node: usize,
    /// Number of the connection there.
    pub connection: i64,
    /// Full name of the command that it waits in.
    pub command: &'static str,
}

#[derive(Debug)]
struct Facts {
    user: Option<Membership>,
    blocked: Option<Blocked>,
    name: Option<String>,
    lib_name: String,
    lib_ver: String,
    no_evict: bool,
    no_touch: bool,
    last_command: &'static str,
    last_activity: Instant,
    query_buffer_bytes: usize,
    output_bytes: usize,
}

/// What stands between a client and its commands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gate {
    /// Nothing: its user may do everything.
    Open,
    /// It has given no password yet.
    Outside,
    /// What its user may do.
    User,
}

impl Gate {
    pub(super) fn bits(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Outside => 1,
            Self::User => 2,
        }
    }

    pub(super) fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Open,
            2 => Self::User,
            _ => Self::Outside,
        }
    }
}

/// What a session tells about itself once per batch of requests.
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    /// When the batch was read.
    pub now: Instant,
    /// Full name of its last command (`get`, `client|list`).
    pub last_command: &'static str,
    /// Bytes read and not yet executed.
    pub query_buffer_bytes: usize,
    /// Bytes of replies that the client has not read.
    pub output_bytes: usize,
}

impl Client {
    pub(super) fn new(
        id: u64,
        addr: SocketAddr,
        laddr: SocketAddr,
        now: Instant,
        gate: Gate,
    ) -> Self {
        Self {
            id,
            addr,
            laddr,
            created: now,
            kill: CancellationToken::new(),
            resp3: AtomicBool::new(false),
            gate: AtomicU8::new(gate.bits()),
            database: AtomicU32::new(0),
            replies: AtomicU8::new(ReplyMode::default().bits()),
            waiting: AtomicBool::new(false),
            monitor: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            parted: AtomicBool::new(false),
            tracks: AtomicU8::new(0),
            redirect: AtomicU64::new(0),
            sink: OnceLock::new(),
            subscriptions: Subscriptions::default(),
            facts: Mutex::new(Facts {
                user: None,
                blocked: None,
                name: None,
                lib_name: String::new(),
                lib_ver: String::new(),
                no_evict: false,
                no_touch: false,
                last_command: "NULL",
                last_activity: now,
                query_buffer_bytes: 0,
                output_bytes: 0,
            }),
        }
    }

    /// The protocol of its next reply.
    pub fn protocol(&self) -> Protocol {
        if self.resp3.load(Ordering::Relaxed) {
            Protocol::Resp3
        } else {
            Protocol::Resp2
        }
    }

    /// Sets the protocol (`HELLO`).
    pub fn set_protocol(&self, protocol: Protocol) {
        self.resp3
            .store(protocol == Protocol::Resp3, Ordering::Relaxed);
    }

    /// What it is subscribed to.
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// Whether it is in `MONITOR`.
    pub fn is_monitor(&self) -> bool {
        self.monitor.load(Ordering::Relaxed)
    }

    /// Puts it into `MONITOR`, or out again.
    pub(super) fn set_monitor(&self, on: bool) {
        self.monitor.store(on, Ordering::Relaxed);
    }

    /// Whether its session ends once everything that it asked for is answered.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Has its session end once everything that it asked for is answered.
    pub(super) fn set_leaving(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether it was answered to the end: only its connection is still being closed.
    pub(super) fn has_parted(&self) -> bool {
        self.parted.load(Ordering::Relaxed)
    }

    /// Notes that it was answered to the end.
    pub(super) fn set_parted(&self) {
        self.parted.store(true, Ordering::Relaxed);
    }

    /// How it tracks keys: the options of `CLIENT TRACKING`.
    pub fn tracks(&self) -> Tracks {
        Tracks::from_bits(self.tracks.load(Ordering::Relaxed))
    }

    /// Changes how it tracks keys, and which client gets the messages; 0 for itself.
    pub fn set_tracks(&self, tracks: Tracks, redirect: u64) {
        self.redirect.store(redirect, Ordering::Relaxed);
        self.change_tracks(tracks);
    }

    /// Changes how it tracks keys.
    pub(super) fn change_tracks(&self, tracks: Tracks) {
        self.tracks.store(tracks.bits(), Ordering::Relaxed);
    }

    /// Notes that the client that should get its messages is gone.
    pub(super) fn set_broken_redirect(&self) {
        self.tracks
            .fetch_or(Tracks::BROKEN.bits(), Ordering::Relaxed);
    }

    /// The id of the client that gets its messages about tracked keys; 0 for itself.
    pub fn redirect(&self) -> u64 {
        self.redirect.load(Ordering::Relaxed)
    }

    /// Says, once, where its messages go.
    pub(super) fn set_replies(&self, replies: &Arc<Replies>) {
        self.sink.get_or_init(|| Arc::downgrade(replies));
    }

    /// Where its messages go, if it has a session.
    pub(super) fn replies(&self) -> Option<Arc<Replies>> {
        self.sink.get().and_then(Weak::upgrade)
    }

    /// Whether it has subscriptions and speaks RESP2, so that messages look like replies: then it
    /// may send little else.
    pub fn is_in_subscribed_mode(&self) -> bool {
        !self.subscriptions.is_empty() && self.protocol() == Protocol::Resp2
    }

    /// What it may do.
    pub fn gate(&self) -> Gate {
        Gate::from_bits(self.gate.load(Ordering::Relaxed))
    }

    /// Whether it may do more than [`allowed_before_auth`](super::local::allowed_before_auth).
    pub fn authenticated(&self) -> bool {
        self.gate() != Gate::Outside
    }

    /// Its user, unless that is the default one, or nobody yet.
    pub fn user(&self) -> Option<Arc<User>> {
        let facts = self.facts.lock();
        facts.user.as_ref().map(|member| Arc::clone(member.user()))
    }

    /// Whether it is the user of this name; whoever is nobody yet is the default user, as in
    /// Redis.
    pub(super) fn is_user(&self, name: &[u8]) -> bool {
        let facts = self.facts.lock();
        let user = facts.user.as_ref().map(Membership::user);
        user.map_or(DEFAULT_USER, |user| user.name()) == name
    }

    /// Lets it in as this user.
    pub fn log_in(&self, login: Login) {
        let (gate, user) = match login {
            Login::Default(gate) => (gate, None),
            Login::As(membership) => (membership.user().gate(), Some(membership)),
        };
        let mut facts = self.facts.lock();
        facts.user = user;
        self.set_gate(gate);
    }

    /// Sets what stands before a client that is nobody yet, or the default user.
    pub(super) fn set_gate(&self, gate: Gate) {
        self.gate.store(gate.bits(), Ordering::Relaxed);
    }

    /// Gives it the present rights of its user. False: there is no such user any more, and it is
    /// nobody now.
    #[must_use = "it is to be closed"]
    pub(super) fn renew(&self, users: &Users) -> bool {
        let mut facts = self.facts.lock();
        if let Some(membership) = &mut facts.user {
            let user = users.named(membership.user().name());
            let Some(user) = user.filter(|user| membership.is_of(user)) else {
                facts.user = None;
                self.set_gate(Gate::Outside);
                return false;
            };
            membership.renew(user);
            self.set_gate(user.gate());
        } else if self.gate() == Gate::Outside {
            self.set_gate(users.entry());
        } else {
            self.set_gate(users.default_user().gate());
        }
        true
    }

    /// Takes its user away again (`RESET`), where a password is asked for.
    pub fn log_out(&self) {
        self.gate.store(Gate::Outside.bits(), Ordering::Relaxed);
        self.facts.lock().user = None;
    }

    /// The database of its next command.
    pub fn database(&self) -> u32 {
        self.database.load(Ordering::Relaxed)
    }

    /// Sets the database (`SELECT`). Only its own session may.
    pub fn set_database(&self, database: u32) {
        self.database.store(database, Ordering::Relaxed);
    }

    /// Which replies it wants.
    pub fn reply_mode(&self) -> ReplyMode {
        ReplyMode::from_bits(self.replies.load(Ordering::Relaxed))
    }

    /// Changes which replies it wants. Only its own session may: load and store are two steps.
    pub fn change_reply_mode(&self, change: impl FnOnce(&mut ReplyMode)) {
        let mut mode = self.reply_mode();
        change(&mut mode);
        self.replies.store(mode.bits(), Ordering::Relaxed);
    }

    /// Whether the reply of the command just executed, or just sent to its node, is to be sent to
    /// the client. Its session calls this exactly once per command, in request order.
    #[must_use = "a muted reply must not be sent"]
    pub fn finish_command(&self) -> bool {
        let mut mode = self.reply_mode();
        if mode == ReplyMode::default() {
            return true; // Nearly always; saves the store.
        }
        let answered = mode.finish_command();
        self.replies.store(mode.bits(), Ordering::Relaxed);
        answered
    }

    /// The name given with `CLIENT SETNAME` or `HELLO SETNAME`.
    pub fn name(&self) -> Option<String> {
        self.facts.lock().name.clone()
    }

    /// Sets or (`None`) clears the name.
    pub fn set_name(&self, name: Option<String>) {
        self.facts.lock().name = name;
    }

    /// Sets the client library's name (`CLIENT SETINFO`).
    pub fn set_lib_name(&self, name: String) {
        self.facts.lock().lib_name = name;
    }

    /// Sets the client library's version (`CLIENT SETINFO`).
    pub fn set_lib_ver(&self, version: String) {
        self.facts.lock().lib_ver = version;
    }

    /// `CLIENT NO-EVICT`: noted and shown, as no client is evicted for memory here.
    pub fn set_no_evict(&self, on: bool) {
        self.facts.lock().no_evict = on;
    }

    /// `CLIENT NO-TOUCH`: noted and shown; the nodes keep their own last-access times.
    pub fn set_no_touch(&self, on: bool) {
        self.facts.lock().no_touch = on;
    }

    /// Where it waits, in a command such as `BLPOP`.
    pub fn blocked(&self) -> Option<Blocked> {
        self.facts.lock().blocked
    }

    pub(super) fn set_blocked(&self, blocked: Option<Blocked>) {
        let mut facts = self.facts.lock();
        if blocked.is_some() {
            facts.last_activity = now();
        }
        facts.blocked = blocked;
    }

    /// Notes what its session did.
    pub fn note(&self, activity: &Activity) {
        let mut facts = self.facts.lock();
        facts.last_command = activity.last_command;
        facts.last_activity = activity.now;
        facts.query_buffer_bytes = activity.query_buffer_bytes;
        facts.output_bytes = activity.output_bytes;
    }

    /// Notes that bytes were read from it or written to it.
    pub(super) fn touch(&self, now: Instant) {
        self.facts.lock().last_activity = now;
    }

    /// Notes whether replies of nodes are still to come.
    pub(super) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// Whether it has neither sent nor taken anything for `bound`, and no reply is owed to it.
    /// Subscribers only listen, so like Redis, Tally does not call them idle.
    pub fn is_idle(&self, now: Instant, bound: Duration) -> bool {
        let last = self.facts.lock().last_activity;
        self.subscriptions.is_empty()
            && !self.is_monitor()
            && !self.waiting.load(Ordering::Relaxed)
            && now.saturating_duration_since(last) >= bound
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant as Clock;

    use super::*;

    #[test]
    fn a_skip_mutes_one_command_of_this_client() {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let client = Client::new(1, addr, addr, Clock::now().into_std(), Gate::Open);
        client.change_reply_mode(ReplyMode::skip);
        let answered: Vec<_> = (0..3).map(|_| client.finish_command()).collect();
        assert_eq!(answered, [false, false, true]);
    }
}
