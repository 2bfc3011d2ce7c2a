//! Commands answered here, without a node: the replies a client library expects on connecting,
//! and what monitoring asks. Texts and forms are those of Redis 7.0.15 (`CLIENT SETINFO` and
//! `NO-TOUCH`: 7.2); `tests/it/local_twin.rs` compares them with a live server.
//!
//! [`answer`] is synchronous: it reads shared structures, changes its own [`Client`] and appends
//! one reply. Only `INFO keyspace` and some of `CONFIG` need the nodes; see [`After`].

mod acl;
mod argument;
mod clients;
mod config;
mod connection;
mod help;
mod info;
mod keyspace;
mod kill;
mod observe;
mod settable;
mod tracking;

use std::fmt;
use std::time::{Duration, Instant};

pub use config::NodeConfig;
pub(super) use connection::{credentials, names_no_user};
pub use keyspace::{InfoText, NodeKeyspace, finish_info};

use super::{Blocked, Client, Directory, Pause, Registry, Scripts, Tracking, Users};
use crate::command::Topics;
use crate::config::Config;
use crate::resp::{Protocol, Request, encode};
use crate::telemetry::{NodeStatus, Stats};

/// Applies a change to the configuration in force.
pub type ChangeConfig<'a> = dyn Fn(&dyn Fn(&mut Config)) + 'a;

/// What an answer is made from; borrowed by the session for one call.
#[derive(Clone, Copy)]
pub struct Local<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// Counters; error replies made by [`answer`] are counted in them.
    pub stats: &'a Stats,
    /// Every client.
    pub registry: &'a Registry,
    /// Who may be a client.
    pub users: &'a Users,
    /// Where users are changed.
    pub directory: &'a Directory,
    /// The client that asks.
    pub client: &'a Client,
    /// Whether it asks in a transaction.
    pub in_multi: bool,
    /// The nodes' states; called only by the few commands that show them.
    pub nodes: &'a dyn Fn() -> Vec<NodeStatus>,
    /// Changes the configuration in force.
    pub change_config: &'a ChangeConfig<'a>,
    /// Whether requests wait until a moment.
    pub pause: &'a Pause,
    /// Who keeps copies of which keys.
    pub tracking: &'a Tracking,
    /// The scripts that clients have brought.
    pub scripts: &'a Scripts,
    /// How many topics of a kind clients are subscribed to.
    pub topics: &'a dyn Fn(Topics) -> usize,
    /// Name of this run, see [`random_run_id`](crate::telemetry::random_run_id).
    pub run_id: &'a str,
    /// When this process began to serve.
    pub started: Instant,
    /// Now.
    pub now: Instant,
    /// Now, since 1970, see [`wall_time`](crate::telemetry::clock::wall_time).
    pub wall: Duration,
}

impl fmt::Debug for Local<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("client", &self.client.id)
            .finish_non_exhaustive()
    }
}

impl Local<'_> {
    fn protocol(&self) -> Protocol {
        self.client.protocol()
    }

    fn uptime(&self) -> Duration {
        self.now.saturating_duration_since(self.started)
    }
}

/// What the session does next.
#[derive(Debug)]
#[must_use = "QUIT and CLIENT KILL close the session"]
pub enum After {
    /// Goes on.
    Continue,
    /// Sends the reply and closes.
    Close,
    /// `CLIENT TRACKING ON BCAST`: no reply was written yet. The session asks the nodes for all
    /// changes first.
    Broadcast,
    /// `MONITOR`: the session begins it, and writes the reply.
    Monitor,
    /// Sends the reply and ends all subscriptions: `RESET`.
    Reset,
    /// `CLIENT UNBLOCK` of a client that waits there: no reply was written yet. The session sends
    /// it to the node, with the reason.
    Unblock(Blocked, &'static str),
    /// `INFO` wants something of the nodes: no reply was written yet. The session sends
    /// [`InfoText::wire`] to every node and calls [`finish_info`] with what they answer.
    Info(InfoText),
    /// `CONFIG` is about the nodes: no reply was written yet. The session sends
    /// [`NodeConfig::wire`] to every node and calls [`NodeConfig::finish`].
    NodeConfig(NodeConfig),
}

/// Whether a client that has not given the password yet may use this command.
pub fn allowed_before_auth(name: &str) -> bool {
    matches!(name, "auth" | "hello" | "quit" | "reset")
}

/// Appends the help of `TALLY`.
pub fn tally_help(out: &mut Vec<u8>) {
    help::write("tally|help", out);
}

/// The error for everything else before `AUTH`.
pub const NO_AUTH: &str = "NOAUTH Authentication required.";

/// Answers a command that needs no node, by its full name in lower case (`ping`,
/// `client|setname`). The caller has looked it up, which checks its arity, and has checked
/// authentication ([`allowed_before_auth`], [`NO_AUTH`]).
///
/// Appends exactly one reply to `out`, in the protocol that the client speaks after the command;
/// none for `CLIENT REPLY OFF` and `SKIP`, and none yet with [`After::Info`] and
/// [`After::NodeConfig`]. Whether the reply is sent is for [`Client::finish_command`] to say, called after this.
pub fn answer(local: &Local<'_>, name: &str, request: &Request<'_>, out: &mut Vec<u8>) -> After {
    let reply_at = out.len();
    let after = run(local, name, request, out);
    if let Some(error) = out.get(reply_at..).and_then(|made| made.strip_prefix(b"-")) {
        local.stats.errors_replied.increment();
        local.stats.errors.note(error);
    }
    after
}

fn run(local: &Local<'_>, name: &str, request: &Request<'_>, out: &mut Vec<u8>) -> After {
    match name {
        "quit" => {
            encode::simple(out, "OK");
            return After::Close;
        }
        "monitor" => return After::Monitor,
        "client|kill" => return kill::kill(local, request, out),
        "client|tracking" => return tracking::tracking(local, request, out),
        "client|unblock" => return clients::unblock(local, request, out),
        "info" => return info::info(local, request, out),
        "auth" => connection::auth(local, request, out),
        "echo" => encode::bulk(out, request.arg(1)),
        "hello" => connection::hello(local, request, out),
        "ping" => connection::ping(local, request, out),
        "reset" => {
            connection::reset(local, out);
            return After::Reset;
        }
        "select" => connection::select(local, request, out),
        _ => match name.split_once('|') {
            Some(("acl", subcommand)) => return acl::run(local, subcommand, request, out),
            Some(("client", subcommand)) => clients::run(local, subcommand, request, out),
            Some(("config", subcommand)) => return config::run(local, subcommand, request, out),
            Some((_, "help")) if help::write(name, out) => {}
            _ => observe::run(local, name, request, out),
        },
    }
    After::Continue
}

#[cfg(test)]
mod tests;
