//! The configuration: what a file and the environment say, checked whole before anything starts.
//!
//! File and environment -> tree of values (`load`) -> sections and keys (`raw`) -> [`Config`]
//! (`resolve`). [`Config`] can not hold nonsense: every range is checked on the way, and all that
//! is wrong is reported at once. Owns no time; reads only its own file and those of passwords,
//! certificates and keys.

mod allow;
mod fault;
mod load;
mod nodes;
mod password;
mod print;
mod raw;
mod reader;
mod reload;
mod resolve;
mod routes;
mod rules;
mod scripts;
mod tls;
mod units;
mod users;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use fault::{Fault, Faults};
pub use load::{load, parse};
pub use password::Argon2Hash;
pub use reload::Changes;

use crate::access::Account;
pub use crate::counter::Mode;
use crate::counter::{Rules, Treatment};
use crate::limit::{self, Definition, Denied, Granted, Kind, Source, TtlArg, Unit};
use crate::ring::Hash;
use crate::tls::{Acceptor, ClientFiles, Connector, ServerFiles};

/// Every key of a file: its section (`nodes` for a node) and its name, in the order of
/// `config/default.toml`.
pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    let sections = raw::SECTIONS.into_iter();
    sections.flat_map(|(section, keys)| keys.iter().map(move |key| (section, *key)))
}

/// Everything that can be set; see `config/default.toml` for meanings, units and ranges.
#[derive(Clone, Debug)]
pub struct Config {
    /// The RESP side.
    pub server: Server,
    /// TLS for clients; `None`: off.
    pub tls: Option<Tls>,
    /// Who may do what; names are unique. Without any there is only the default user.
    pub users: Vec<User>,
    /// At least one node; names are unique.
    pub nodes: Vec<Node>,
    /// How keys are placed on nodes.
    pub ring: Ring,
    /// How increments are coalesced.
    pub counters: Counters,
    /// How long reads may be answered here.
    pub cache: Cache,
    /// What holds for some keys in place of `counters` and `cache`; the first rule that matches a
    /// key decides.
    pub rules: Vec<Rule>,
    /// Scripts that increment a counter up to a limit, besides those that Tally knows.
    pub limit_scripts: Vec<LimitScript>,
    /// Where some keys are, whatever the ring says; the first route that matches a key decides.
    pub routes: Vec<Route>,
    /// Where acknowledged increments are kept until Redis has them.
    pub journal: Journal,
    /// How transactions are treated.
    pub transactions: Transactions,
    /// Bounds and timeouts of the connection to each node.
    pub upstream: Upstream,
    /// The HTTP side.
    pub admin: Admin,
    /// Which requests are kept as slow.
    pub slow_log: SlowLog,
    /// What is logged, as a `tracing` filter directive (`info`, `tally=debug`).
    pub log_level: String,
    /// What a line of the log looks like.
    pub log_format: LogFormat,
}

/// The RESP side.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where clients connect without TLS; `None`: nowhere, and there is [`Tls`].
    pub listen: Option<SocketAddr>,
    /// Worker threads, at least 1 (the file's 0 is resolved already).
    pub threads: usize,
    /// Whether listening on more than a loopback address needs a password.
    pub protected: bool,
    /// What `AUTH` must give; `None` lets every client in.
    pub password: Option<Secret>,
    /// Most clients connected at once; further ones get Redis's error and are closed.
    pub max_clients: usize,
    /// A client that sends nothing for this long is closed; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Largest argument of a request.
    pub max_bulk_bytes: usize,
    /// Most bytes of one incomplete request; beyond it the client is closed.
    pub query_buffer_bytes: usize,
    /// Most bytes of replies that a client has not read; beyond it the client is closed.
    pub output_buffer_bytes: usize,
    /// How many databases clients may select; 1 when a node keeps its keys in another than 0.
    pub databases: u32,
    /// How long a stop waits for replies and the last flush.
    pub drain_timeout: Duration,
}

/// A user of Tally.
#[derive(Clone, Debug)]
pub struct User {
    /// What `AUTH` gives before the password; never `default`.
    pub name: String,
    /// A password that takes long to compare, beside those of the account.
    pub argon2: Option<Argon2Hash>,
    /// Its passwords, and what it may do.
    pub account: Account,
    /// Whether it may run scripts although it may not do everything: what they call is not checked.
    pub trusts_scripts: bool,
    /// Names of kinds of commands, see `config/allow.rs`.
    pub allow: Vec<String>,
    /// The patterns of its keys.
    pub keys: Vec<String>,
    /// Its further rules; passwords are masked.
    pub rules: Vec<String>,
    /// Most connections at once; 0: as many as there may be.
    pub max_connections: usize,
    /// Most commands within a second; 0: no limit.
    pub max_commands_per_second: u32,
}

/// TLS for clients.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Where they connect.
    pub listen: SocketAddr,
    /// The files that it is made from.
    pub files: ServerFiles,
    /// What was in the files.
    pub acceptor: Acceptor,
}

/// TLS to a node.
#[derive(Clone, Debug)]
pub struct NodeTls {
    /// The files that it is made from.
    pub files: ClientFiles,
    /// What was in the files.
    pub connector: Connector,
}

/// TLS for the HTTP side.
#[derive(Clone, Debug)]
pub struct AdminTls {
    /// The files that it is made from.
    pub files: ServerFiles,
    /// What was in the files.
    pub acceptor: Acceptor,
}

/// One Redis server.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its place on the ring; survives a change of address.
    pub name: String,
    /// `host:port`; resolved anew at each connect.
    pub address: String,
    /// Share of the keys, relative to the other nodes; at least 1.
    pub weight: u32,
    /// Number of the database there that holds the keys of database 0 here.
    pub database: u32,
    /// ACL user for `AUTH`; `None` for the default user.
    pub username: Option<String>,
    /// What the node wants from `AUTH`.
    pub password: Option<Secret>,
    /// TLS to it; `None`: off.
    pub tls: Option<NodeTls>,
}

/// How keys are placed on nodes.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Hash of the key.
    pub hash: Hash,
    /// The two bytes around a hash tag; `None` hashes the whole key always.
    pub hash_tag: Option<(u8, u8)>,
    /// Whether the keys of each family of [`Ring::with_families`](crate::ring::Ring::with_families)
    /// are kept on one node.
    pub families_together: bool,
}

/// How increments are coalesced.
#[derive(Clone, Debug)]
pub struct Counters {
    /// What happens to an increment.
    pub mode: Mode,
    /// How often pending increments are sent to their node.
    pub flush_interval: Duration,
    /// How long the first increment of a key at rest waits for others, in the mode exact.
    pub window: Duration,
    /// Whether calls of limit scripts may be granted before Redis was asked, in the mode buffered.
    pub local_grants: bool,
    /// Most keys remembered at once, over all nodes.
    pub max_keys: usize,
}

/// How long reads may be answered here.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Longest time after Redis's answer; zero turns caching off.
    pub ttl: Duration,
    /// Most bytes of cached values, over all nodes.
    pub max_bytes: usize,
}

/// What holds for the keys that match a pattern. What a file leaves out is as for all other keys.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Pattern of keys, as in `KEYS`.
    pub pattern: String,
    /// What happens to an increment.
    pub mode: Mode,
    /// How often pending increments are sent to their node.
    pub flush_interval: Duration,
    /// Longest time after Redis's answer; zero turns caching off.
    pub cache_ttl: Duration,
    /// How long the first increment of a key at rest waits for others, in the mode exact.
    pub window: Duration,
    /// Whether calls of limit scripts may be granted before Redis was asked, in the mode buffered.
    pub local_grants: bool,
}

/// A script that increments a counter by 1 unless it has reached a limit, and returns the new
/// value. This is taken on trust: a wrong meaning gives wrong counts.
#[derive(Clone, Debug)]
pub struct LimitScript {
    /// SHA-1 of its body, 40 lower-case hexadecimal digits.
    pub sha1: String,
    /// Which `ARGV` is the limit, from 1.
    pub limit: u8,
    /// Which `ARGV` is the time to live, set by the increment to 1; 0: there is none.
    pub ttl: u8,
    /// The unit of that time.
    pub ttl_unit: Unit,
    /// The reply at or over the limit.
    pub denied: i64,
}

/// Where the keys are that match a pattern.
#[derive(Clone, Debug)]
pub struct Route {
    /// Pattern of keys, as in `KEYS`.
    pub pattern: String,
    /// Name of a node; `None`: where the ring says.
    pub node: Option<String>,
}

/// Where acknowledged increments are kept until Redis has them.
#[derive(Clone, Debug)]
pub struct Journal {
    /// The file; `None`: they are in this process's memory only.
    pub path: Option<PathBuf>,
    /// Least bytes for increments in it.
    pub bytes: usize,
    /// When it is written to the disk.
    pub fsync: Fsync,
}

/// When the journal is written to the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fsync {
    /// Before what it holds is acknowledged.
    Always,
    /// Every second.
    EverySecond,
    /// When the system does.
    No,
}

impl Fsync {
    /// As the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "everysec",
            Self::No => "no",
        }
    }
}

/// How transactions are treated.
#[derive(Clone, Debug)]
pub struct Transactions {
    /// What happens when its keys belong to several nodes.
    pub cross_node: CrossNode,
}

/// What happens to a transaction whose keys belong to several nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrossNode {
    /// It is refused, with `CROSSSLOT`.
    Reject,
    /// Each node's part of it is a transaction of its own.
    Split,
}

impl CrossNode {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Split => "split",
        }
    }
}

/// Bounds and timeouts of the connection to each node.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Longest wait for a connection and its handshake.
    pub connect_timeout: Duration,
    /// Longest wait for a reply; then the client gets an error and the late reply is skipped.
    pub request_timeout: Duration,
    /// A connection whose oldest request waits longer than this is closed.
    pub hard_timeout: Duration,
    /// First and longest pause between attempts to connect; each pause doubles, with jitter.
    pub backoff: (Duration, Duration),
    /// Most requests in flight on one node's connection; beyond it sessions wait.
    pub max_in_flight: usize,
    /// Most unsent bytes for one node; beyond it sessions wait.
    pub max_unsent_bytes: usize,
    /// Most connections to one node for blocked and watching clients; beyond it they get an error.
    pub max_pooled: usize,
}

impl Upstream {
    /// The pause after `failed` attempts to connect have failed, one after the other, before the
    /// last.
    pub fn pause(&self, failed: u32) -> Duration {
        let (first, longest) = self.backoff;
        let factor = 1_u32.checked_shl(failed).unwrap_or(u32::MAX);
        first.saturating_mul(factor).min(longest)
    }
}

/// The HTTP side: health, metrics, counters, the dashboard.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// HTTPS, and nothing else; `None`: HTTP.
    pub tls: Option<AdminTls>,
    /// The token that a request needs which changes something or comes from another machine; `None`
    /// lets every request in.
    pub token: Option<Secret>,
    /// What stands before a page's id in its key.
    pub visits_prefix: String,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object: `timestamp`, `level`, `message`, `target`, and what else is known.
    Json,
}

/// Which requests are kept as slow, until `CONFIG SET` says otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlowLog {
    /// Those that take at least this long; `None`: none.
    pub slower_than: Option<Duration>,
    /// Most entries that are kept.
    pub max_len: usize,
}

/// A password that is never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(password: String) -> Self {
        Self(password)
    }

    /// The password itself, for `AUTH` only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Config {
    /// Where clients connect, without TLS and with it: at least one address.
    pub fn listens(&self) -> impl Iterator<Item = SocketAddr> {
        let tls = self.tls.as_ref().map(|tls| tls.listen);
        self.server.listen.into_iter().chain(tls)
    }

    /// The configured limit scripts, for the catalogue.
    pub fn limit_definitions(&self) -> impl Iterator<Item = Definition> {
        self.limit_scripts.iter().map(|script| {
            let ttl = TtlArg {
                arg: script.ttl,
                unit: script.ttl_unit,
                rule: limit::Rule::First,
                always_if: None,
            };
            Definition {
                name: script.sha1.clone(),
                source: Source::Sha1(script.sha1.clone()),
                kind: Kind::Limit {
                    limit: script.limit,
                    ttl: (script.ttl > 0).then_some(ttl),
                    granted: Granted::Value,
                    denied: Denied::Integer(script.denied),
                },
            }
        })
    }

    /// How each key is treated.
    pub fn treatments(&self) -> Rules {
        let default = Treatment {
            mode: self.counters.mode,
            flush_interval: self.counters.flush_interval,
            cache_ttl: self.cache.ttl,
            window: self.counters.window,
            local_grants: self.counters.local_grants,
        };
        let rules = self.rules.iter().map(|rule| {
            let treatment = Treatment {
                mode: rule.mode,
                flush_interval: rule.flush_interval,
                cache_ttl: rule.cache_ttl,
                window: rule.window,
                local_grants: rule.local_grants,
            };
            (rule.pattern.as_bytes(), treatment)
        });
        Rules::new(default, rules)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<masked>")
    }
}
