//! What a file or the environment may say: the sections and keys, each value still as given.
//!
//! Values are untyped here on purpose. serde stops at the first value that does not fit its
//! field; with every field an `Option<Value>` nothing can fail, so `resolve` sees the whole file
//! and reports all its faults at once. Unknown keys are kept for the same reason, where
//! `deny_unknown_fields` would stop at the first. A key that `resolve` forgets to read is a
//! compiler warning: a field never read.

use std::collections::BTreeMap;

use config::Value;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A table of the file.
pub(super) trait Section: DeserializeOwned + Default {
    /// Every key that the table may hold, in the order of `config/default.toml`.
    const KEYS: &'static [&'static str];

    /// Takes the keys that the table may not hold.
    fn take_unknown(&mut self) -> BTreeMap<String, Value>;
}

/// Declares a [`Section`] from its keys, so that the list of allowed keys can not drift from the
/// fields.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            $(pub(super) $key: Option<Value>,)*
            #[serde(flatten)]
            unknown: BTreeMap<String, Value>,
        }

        impl Section for $name {
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            fn take_unknown(&mut self) -> BTreeMap<String, Value> {
                std::mem::take(&mut self.unknown)
            }
        }
    };
}

section! {
    /// The whole file.
    Root { server, tls, users, nodes, ring, counters, cache, rules, limit_scripts, routes, journal, transactions, upstream, admin, slowlog, log }
}

section! {
    /// `[server]`
    Server {
        listen, threads, protected, password, password_file, max_clients, idle_timeout, max_bulk,
        query_buffer, output_buffer, databases, drain_timeout,
    }
}

section! {
    /// `[tls]`
    Tls { listen, cert_file, key_file, client_ca_file, client_auth }
}

section! {
    /// One of `[[users]]`
    User {
        name, password, password_file, password_sha256, password_argon2, allow, keys, rules,
        max_connections, max_commands_per_second,
    }
}

section! {
    /// One of `[[nodes]]`
    Node {
        name, address, weight, database, username, password, password_file, tls, tls_ca_file,
        tls_cert_file, tls_key_file, tls_server_name,
    }
}

/// What a node says of TLS.
pub(super) struct NodeTls {
    pub(super) tls: Option<Value>,
    pub(super) ca_file: Option<Value>,
    pub(super) cert_file: Option<Value>,
    pub(super) key_file: Option<Value>,
    pub(super) server_name: Option<Value>,
}

section! {
    /// `[ring]`
    Ring { distribution, hash, hash_tag, families }
}

section! {
    /// `[counters]`
    Counters { mode, flush_interval, window, local_grants, max_keys }
}

section! {
    /// `[cache]`
    Cache { ttl, max_bytes }
}

/// One of `[[rules]]`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rule {
    /// `match`, which Rust takes for itself.
    #[serde(rename = "match")]
    pub(super) pattern: Option<Value>,
    pub(super) mode: Option<Value>,
    pub(super) flush_interval: Option<Value>,
    pub(super) cache_ttl: Option<Value>,
    pub(super) window: Option<Value>,
    pub(super) local_grants: Option<Value>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

impl Section for Rule {
    const KEYS: &'static [&'static str] = &[
        "match",
        "mode",
        "flush_interval",
        "cache_ttl",
        "window",
        "local_grants",
    ];

    fn take_unknown(&mut self) -> BTreeMap<String, Value> {
        std::mem::take(&mut self.unknown)
    }
}

/// One of `[[routes]]`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Route {
    /// `match`, which Rust takes for itself.
    #[serde(rename = "match")]
    pub(super) pattern: Option<Value>,
    pub(super) node: Option<Value>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

impl Section for Route {
    const KEYS: &'static [&'static str] = &["match", "node"];

    fn take_unknown(&mut self) -> BTreeMap<String, Value> {
        std::mem::take(&mut self.unknown)
    }
}

section! {
    /// One of `[[limit_scripts]]`
    LimitScript { sha1, limit, ttl, ttl_unit, denied }
}

section! {
    /// `[journal]`
    Journal { path, size, fsync }
}

section! {
    /// `[transactions]`
    Transactions { cross_node }
}

section! {
    /// `[upstream]`
    Upstream {
        connect_timeout, request_timeout, hard_timeout, backoff_min, backoff_max, max_in_flight,
        max_unsent, max_pooled,
    }
}

section! {
    /// `[admin]`
    Admin { listen, tls_cert_file, tls_key_file, token, token_file, visits_prefix }
}

section! {
    /// `[slowlog]`
    SlowLog { slower_than, max_len }
}

section! {
    /// `[log]`
    Log { level, format }
}

/// Every key: its section and its name, in the order of `config/default.toml`.
pub(super) const SECTIONS: [(&str, &[&str]); 16] = [
    ("server", Server::KEYS),
    ("tls", Tls::KEYS),
    ("users", User::KEYS),
    ("nodes", Node::KEYS),
    ("ring", Ring::KEYS),
    ("counters", Counters::KEYS),
    ("cache", Cache::KEYS),
    ("rules", Rule::KEYS),
    ("limit_scripts", LimitScript::KEYS),
    ("routes", Route::KEYS),
    ("journal", Journal::KEYS),
    ("transactions", Transactions::KEYS),
    ("upstream", Upstream::KEYS),
    ("admin", Admin::KEYS),
    ("slowlog", SlowLog::KEYS),
    ("log", Log::KEYS),
];
