//! `CONFIG`: shows what benchmarks, exporters and frameworks ask for, under Redis's names. Tally's
//! own settings can not be changed in this way, but for a few; all others are read from the nodes,
//! and those of how they keep their keys are set there, see [`NODE_PARAMETERS`].

use std::collections::{BTreeSet, HashSet};

use super::argument::{self, SYNTAX_ERROR};
use super::settable::{log_level, new_channels, settable};
use super::{After, Local};
use crate::command;
use crate::glob::{self, Case};
use crate::resp::{Protocol, Request, encode, reply};
use crate::session::DEFAULT_USER;
use crate::telemetry::Stats;

/// Any subcommand but `HELP`; its arity is right.
pub(super) fn run(
    local: &Local<'_>,
    subcommand: &str,
    request: &Request<'_>,
    out: &mut Vec<u8>,
) -> After {
    match subcommand {
        "get" => return get(local, request, out),
        "set" => return set(local, request, out),
        "resetstat" => {
            local.stats.reset();
            encode::simple(out, "OK");
        }
        "rewrite" => encode::error(out, "ERR The server is running without a config file"),
        _ => {
            super::help::write("config|help", out);
        }
    }
    After::Continue
}

/// Every parameter that matches one of the patterns, once: Tally's own, and of the others what the
/// nodes say. A name without wildcards is shown as it was asked for (`CONFIG GET SAVE`), because
/// Redis does and clients look it up in the map.
fn get(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) -> After {
    let all = parameters(local);
    let is_own = |pattern: &[u8]| all.iter().any(|(name, _)| argument::is(pattern, name));
    let patterns = || request.args().skip(2);
    let asked: Vec<&[u8]> = patterns().filter(|pattern| !is_own(pattern)).collect();
    let shown = |name: &str| {
        patterns().find_map(|pattern| {
            if argument::is(pattern, name) {
                Some(pattern.to_vec())
            } else {
                glob::matches(pattern, name.as_bytes(), Case::Ignored)
                    .then(|| name.as_bytes().to_vec())
            }
        })
    };
    let own: Vec<(Vec<u8>, Vec<u8>)> = all
        .iter()
        .filter_map(|(name, value)| Some((shown(name)?, value.clone().into_bytes())))
        .collect();
    if asked.is_empty() {
        write_map(local.protocol(), &own, out);
        return After::Continue;
    }
    let words: [&[u8]; 2] = [b"CONFIG", b"GET"];
    let words: Vec<&[u8]> = words.into_iter().chain(asked).collect();
    let mut wire = Vec::new();
    encode::request(&mut wire, &words);
    After::NodeConfig(NodeConfig {
        wire,
        what: What::Get(own),
    })
}

/// The answer to `CONFIG SET`. Parameters of the nodes are set there. Tally's own can only be set
/// to what they are, but for those of [`settable`]. The errors are Redis's for parameters that can
/// not be set.
fn set(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) -> After {
    if !request.len().is_multiple_of(2) {
        encode::error(out, SYNTAX_ERROR);
        return After::Continue;
    }
    let names: Vec<&[u8]> = request.args().skip(2).step_by(2).collect();
    if names.iter().all(|name| is_nodes(name)) {
        return After::NodeConfig(apart(request));
    }
    let own = parameters(local);
    let mut changes = Vec::new();
    let mut password = None;
    for (at, name) in names.iter().enumerate() {
        let known = own.iter().find(|(known, _)| argument::is(name, known));
        let earlier = names.iter().take(at);
        let reason = match known {
            None if !is_nodes(name) => {
                let before = "ERR Unknown option or number of arguments for CONFIG SET - '";
                encode::error(out, argument::naming(before, name, "'"));
                return After::Continue;
            }
            _ if earlier
                .into_iter()
                .any(|earlier| earlier.eq_ignore_ascii_case(name)) =>
            {
                "duplicate parameter".to_owned()
            }
            Some(("requirepass", _)) => {
                password = Some(request.arg(3 + 2 * at));
                continue;
            }
            Some((known, now)) => match settable(known, request.arg(3 + 2 * at)) {
                Some(Ok(change)) => {
                    changes.push(change);
                    continue;
                }
                Some(Err(reason)) => reason,
                None if IMMUTABLE.contains(known) || request.arg(3 + 2 * at) != now.as_bytes() => {
                    "can't set immutable config".to_owned()
                }
                None => continue,
            },
            None => continue,
        };
        let before = "ERR CONFIG SET failed (possibly related to argument '";
        encode::error(
            out,
            argument::naming(before, name, &format!("') - {reason}")),
        );
        return After::Continue;
    }
    if names.iter().any(|name| is_nodes(name)) {
        return After::NodeConfig(apart(request));
    }
    for change in changes {
        change(local);
    }
    if let Some(password) = password {
        set_password(local, password);
    }
    encode::simple(out, "OK");
    After::Continue
}

/// A `CONFIG SET` of the nodes' parameters, and perhaps of Tally's own, taken apart.
fn apart(request: &Request<'_>) -> NodeConfig {
    let words = |word: &'static [u8]| vec![b"CONFIG".as_slice(), word];
    let (mut set, mut get, mut own) = (words(b"SET"), words(b"GET"), words(b"SET"));
    for at in (2..request.len()).step_by(2) {
        let pair = [request.arg(at), request.arg(at + 1)];
        if is_nodes(pair[0]) {
            set.extend(pair);
            get.push(pair[0]);
        } else {
            own.extend(pair);
        }
    }
    let (mut wire, mut before) = (Vec::new(), Vec::new());
    encode::request(&mut wire, &set);
    encode::request(&mut before, &get);
    let own = own.into_iter().map(<[u8]>::to_vec).collect();
    NodeConfig {
        wire,
        what: What::Set { before, own },
    }
}

/// Gives the default user this password alone; an empty one takes it away.
fn set_password(local: &Local<'_>, password: &[u8]) {
    let given = [b">", password].concat();
    let rule: &[u8] = if password.is_empty() {
        b"nopass"
    } else {
        &given
    };
    let rules: [&[u8]; 2] = [b"resetpass", rule];
    let changed = local
        .directory
        .change(local.registry, local.client, |users| {
            let users = users.with_rules(DEFAULT_USER, rules.into_iter());
            users.map(|users| (users, ()))
        });
    debug_assert!(changed.is_ok(), "{changed:?}");
}

fn is_nodes(name: &[u8]) -> bool {
    NODE_PARAMETERS
        .iter()
        .any(|known| argument::is(name, known))
}

/// A `CONFIG GET` or `SET` that waits for the nodes.
#[derive(Debug)]
pub struct NodeConfig {
    wire: Vec<u8>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// What Tally itself shows in the same reply.
    Get(Vec<(Vec<u8>, Vec<u8>)>),
    Set {
        /// The request that tells what the parameters are now.
        before: Vec<u8>,
        /// The request that sets what is Tally's own, which was checked already.
        own: Vec<Vec<u8>>,
    },
}

impl NodeConfig {
    /// What every node is sent.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Where something is set: the request that tells what it was before.
    pub fn before(&self) -> Option<&[u8]> {
        match &self.what {
            What::Set { before, .. } => Some(before),
            What::Get(_) => None,
        }
    }

    /// The request that sets what is Tally's own, once every node has taken what is theirs.
    pub fn own_settings(&self) -> Option<&[Vec<u8>]> {
        match &self.what {
            What::Set { own, .. } => Some(own.as_slice()).filter(|own| own.len() > 2),
            What::Get(_) => None,
        }
    }

    /// Writes the reply to `CONFIG GET` in RESP3, made from the replies of all nodes, at least one.
    /// A value that is not Tally's own is that of the first node that answers: nodes behind one
    /// Tally are meant to be alike.
    pub fn finish<'f>(self, mut nodes: impl Iterator<Item = &'f [u8]>, out: &mut Vec<u8>) {
        let What::Get(mut pairs) = self.what else {
            return;
        };
        let told = nodes.find_map(reply::elements);
        let mut told = told.into_iter().flatten().filter_map(reply::text);
        let own: HashSet<Vec<u8>> = pairs
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        while let (Some(name), Some(value)) = (told.next(), told.next()) {
            if !own.contains(&name.to_ascii_lowercase()) {
                let is_password = command::is_password(name);
                let value = if is_password { &[][..] } else { value };
                pairs.push((name.to_vec(), value.to_vec()));
            }
        }
        write_map(Protocol::Resp3, &pairs, out);
    }
}

fn write_map(protocol: Protocol, pairs: &[(Vec<u8>, Vec<u8>)], out: &mut Vec<u8>) {
    encode::map(out, protocol, pairs.len());
    for (name, value) in pairs {
        encode::bulk(out, name);
        encode::bulk(out, value);
    }
}

/// Parameters that Redis refuses to set, even to what they are.
const IMMUTABLE: &[&str] = &[
    "cluster-enabled",
    "daemonize",
    "databases",
    "io-threads",
    "replicaof",
    "slaveof",
];

/// Parameters of Redis 7.0 that say when a node takes writes, how it keeps, expires and frees keys,
/// and what it notifies of. None concerns its files, network or passwords, or what Tally itself
/// relies on. A node forgets what was set here when it restarts, as Redis does.
const NODE_PARAMETERS: &[&str] = &[
    "active-expire-effort",
    "activedefrag",
    "activerehashing",
    "busy-reply-threshold",
    "hash-max-listpack-entries",
    "hash-max-listpack-value",
    "hash-max-ziplist-entries",
    "hash-max-ziplist-value",
    "hll-sparse-max-bytes",
    "hz",
    "lazyfree-lazy-eviction",
    "lazyfree-lazy-expire",
    "lazyfree-lazy-server-del",
    "lazyfree-lazy-user-del",
    "lazyfree-lazy-user-flush",
    "lfu-decay-time",
    "lfu-log-factor",
    "list-compress-depth",
    "list-max-listpack-size",
    "list-max-ziplist-size",
    "lua-time-limit",
    "maxmemory",
    "maxmemory-policy",
    "maxmemory-samples",
    "min-replicas-max-lag",
    "min-replicas-to-write",
    "notify-keyspace-events",
    "sanitize-dump-payload",
    "set-max-intset-entries",
    "stream-node-max-bytes",
    "stream-node-max-entries",
    "zset-max-listpack-entries",
    "zset-max-listpack-value",
    "zset-max-ziplist-entries",
    "zset-max-ziplist-value",
];

/// Whether the default user has a password, as far as it may be told.
fn shown_password(local: &Local<'_>) -> &'static str {
    if local.users.default_user().account().passwords().is_empty() {
        ""
    } else {
        "<masked>"
    }
}

/// Parameters in force, by Redis's names; what Tally does not have is shown as turned off. The
/// nodes' secrets are among those: they are nobody's business here.
fn parameters(local: &Local<'_>) -> Vec<(&'static str, String)> {
    let server = &local.config.server;
    let timeout = server.idle_timeout.map_or(0, |timeout| timeout.as_secs());
    let output = server.output_buffer_bytes;
    let tls_port = local.config.tls.as_ref().map_or(0, |tls| tls.listen.port());
    let bind: BTreeSet<String> = local
        .config
        .listens()
        .map(|on| on.ip().to_string())
        .collect();
    let bind = bind.into_iter().collect::<Vec<_>>().join(" ");
    let no = || "no".to_owned();
    let zero = || "0".to_owned();
    let mut all = vec![
        ("aclfile", String::new()),
        (
            "acl-pubsub-default",
            new_channels(local.directory.users().new_channels()).to_owned(),
        ),
        ("acllog-max-len", local.directory.log.max_len().to_string()),
        ("appendonly", no()),
        ("bind", bind),
        (
            "client-output-buffer-limit",
            format!("normal {output} 0 0 slave {output} 0 0 pubsub {output} 0 0"),
        ),
        (
            "client-query-buffer-limit",
            server.query_buffer_bytes.to_string(),
        ),
        ("cluster-enabled", no()),
        ("daemonize", no()),
        ("databases", server.databases.to_string()),
        ("io-threads", server.threads.to_string()),
        ("logfile", String::new()),
        ("loglevel", log_level(&local.config.log_level).to_owned()),
        ("masterauth", String::new()),
        ("masteruser", String::new()),
        ("maxclients", server.max_clients.to_string()),
        ("maxmemory-clients", zero()),
        ("port", local.client.laddr.port().to_string()),
        ("proto-max-bulk-len", server.max_bulk_bytes.to_string()),
        ("replicaof", String::new()),
        ("requirepass", shown_password(local).to_owned()),
        ("save", String::new()),
        ("slaveof", String::new()),
        ("tcp-keepalive", "300".to_owned()),
        ("timeout", timeout.to_string()),
        ("tls-client-key-file-pass", String::new()),
        ("tls-key-file-pass", String::new()),
        ("tls-port", tls_port.to_string()),
        (
            "tracking-table-max-keys",
            local.tracking.max_keys().to_string(),
        ),
        ("unixsocket", String::new()),
    ];
    all.extend(of_statistics(local.stats));
    all
}

/// Those of what is told of commands.
fn of_statistics(stats: &Stats) -> [(&'static str, String); 5] {
    let (commands, slow_log) = (&stats.commands, &stats.slow_log);
    let is_told = if commands.tells_durations() {
        "yes"
    } else {
        "no"
    };
    [
        (
            "latency-monitor-threshold",
            stats.latency.threshold_ms().to_string(),
        ),
        ("latency-tracking", is_told.to_owned()),
        (
            "latency-tracking-info-percentiles",
            commands.percentiles().to_string(),
        ),
        (
            "slowlog-log-slower-than",
            slow_log.slower_than_us().to_string(),
        ),
        ("slowlog-max-len", slow_log.max_len().to_string()),
    ]
}
