//! `CONFIG`: shows what benchmarks, exporters and frameworks ask for, under Redis's names. Tally's
//! own settings can not be changed in this way, but for a few; the settings of how the nodes keep
//! their keys are read from and set on the nodes, see [`NODE_PARAMETERS`].

use std::collections::BTreeSet;
use std::task::Waker;
use std::time::Duration;

use super::argument::{self, SYNTAX_ERROR};
use super::{After, Local};
use crate::glob::{self, Case};
use crate::resp::{Protocol, Request, encode, parse_i64, reply};
use crate::telemetry::log;

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

/// Every parameter that matches one of the patterns, once. A name without wildcards is shown as
/// it was asked for (`CONFIG GET SAVE`), because Redis does and clients look it up in the map.
fn get(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) -> After {
    let shown = |name: &str| {
        let mut patterns = request.args().skip(2);
        patterns.find_map(|pattern| {
            if argument::is(pattern, name) {
                Some(pattern.to_vec())
            } else {
                glob::matches(pattern, name.as_bytes(), Case::Ignored)
                    .then(|| name.as_bytes().to_vec())
            }
        })
    };
    let own = parameters(local).into_iter();
    let own: Vec<(Vec<u8>, Vec<u8>)> = own
        .filter_map(|(name, value)| shown(name).map(|name| (name, value.into_bytes())))
        .collect();
    let asked: Vec<Vec<u8>> = NODE_PARAMETERS
        .iter()
        .filter_map(|name| shown(name))
        .collect();
    if asked.is_empty() {
        write_map(local.protocol(), &own, out);
        return After::Continue;
    }
    let words: [&[u8]; 2] = [b"CONFIG", b"GET"];
    let words = words.into_iter().chain(asked.iter().map(Vec::as_slice));
    let mut wire = Vec::new();
    encode::request(&mut wire, &words.collect::<Vec<_>>());
    After::NodeConfig(NodeConfig {
        wire,
        own: Some(own),
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
        return After::NodeConfig(NodeConfig {
            wire: request.wire().to_vec(),
            own: None,
        });
    }
    let own = parameters(local);
    let mut changes = Vec::new();
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
                "duplicate parameter"
            }
            Some((known, now)) => match settable(known, request.arg(3 + 2 * at)) {
                Some(Ok(change)) => {
                    changes.push(change);
                    continue;
                }
                Some(Err(reason)) => reason,
                None if IMMUTABLE.contains(known) || request.arg(3 + 2 * at) != now.as_bytes() => {
                    "can't set immutable config"
                }
                None => continue,
            },
            None => "set what is the nodes' in a command of its own",
        };
        let before = "ERR CONFIG SET failed (possibly related to argument '";
        encode::error(
            out,
            argument::naming(before, name, &format!("') - {reason}")),
        );
        return After::Continue;
    }
    for (change, value) in changes {
        change(local, value);
    }
    encode::simple(out, "OK");
    After::Continue
}

/// A change of a parameter that can be set while running.
type Change = (fn(&Local<'_>, i64), i64);

/// Such a change, checked; or why not, in Redis's words. `None`: the parameter can not be set.
fn settable(name: &str, value: &[u8]) -> Option<Result<Change, &'static str>> {
    if name == "loglevel" {
        let level = (0..).zip(LOG_LEVELS);
        let at = level
            .into_iter()
            .find(|(_, (word, _))| argument::is(value, word));
        return Some(at.map_or(Err(NO_LOG_LEVEL), |(at, _)| Ok((set_log_level, at))));
    }
    let (apply, range, outside): (fn(&Local<'_>, i64), _, _) = match name {
        "latency-monitor-threshold" => (
            |local, ms| local.stats.latency.set_threshold_ms(ms),
            0..=i64::MAX,
            "argument must be between 0 and 9223372036854775807 inclusive",
        ),
        "slowlog-log-slower-than" => (
            |local, us| local.stats.slow_log.set_slower_than_us(us),
            -1..=i64::MAX,
            "argument must be between -1 and 9223372036854775807 inclusive",
        ),
        "slowlog-max-len" => (
            |local, len| local.stats.slow_log.set_max_len(len),
            0..=65_536,
            "argument must be between 0 and 65536 inclusive",
        ),
        "timeout" => (
            |local, seconds| {
                let timeout = u64::try_from(seconds).map(Duration::from_secs);
                let timeout = timeout.ok().filter(|timeout| !timeout.is_zero());
                (local.change_config)(&|config| config.server.idle_timeout = timeout);
            },
            // The bounds of server.idle_timeout.
            0..=86_400,
            "argument must be between 0 and 86400 inclusive",
        ),
        "tracking-table-max-keys" => (
            |local, most| {
                let mut wakes = Vec::new();
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                local.tracking.set_max_keys(most, &mut wakes);
                wakes.into_iter().for_each(Waker::wake);
            },
            0..=i64::MAX,
            "argument must be between 0 and 9223372036854775807 inclusive",
        ),
        _ => return None,
    };
    let number = parse_i64(value).ok_or("argument couldn't be parsed into an integer");
    Some(number.and_then(|number| {
        let is_within = range.contains(&number);
        is_within.then_some((apply, number)).ok_or(outside)
    }))
}

/// Redis's words for what is logged, and ours, the most first.
const LOG_LEVELS: [(&str, &str); 4] = [
    ("debug", "trace"),
    ("verbose", "debug"),
    ("notice", "info"),
    ("warning", "warn"),
];

const NO_LOG_LEVEL: &str =
    "argument(s) must be one of the following: debug, verbose, notice, warning";

/// Logs so much of every module from now on; `at` is an index into [`LOG_LEVELS`].
fn set_log_level(local: &Local<'_>, at: i64) {
    let level = usize::try_from(at).ok().and_then(|at| LOG_LEVELS.get(at));
    if let Some((_, level)) = level {
        (local.change_config)(&|config| (*level).clone_into(&mut config.log_level));
        log::set(level);
    }
}

/// Redis's word for what is logged of modules that `log.level` does not name.
fn log_level(directives: &str) -> &'static str {
    let of_all = directives.split(',').find(|one| !one.contains('='));
    match of_all {
        Some("trace") => "debug",
        Some("debug") => "verbose",
        Some("warn" | "error" | "off") => "warning",
        _ => "notice",
    }
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
    /// What Tally itself shows in the same reply; `None` for `SET`.
    own: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl NodeConfig {
    /// What every node is sent.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Whether something is set.
    pub fn sets(&self) -> bool {
        self.own.is_none()
    }

    /// Writes the reply in RESP3, made from the replies of all nodes, at least one. A setting holds
    /// when every node took it. A value is that of the first node that tells it: nodes behind one
    /// Tally are meant to be alike.
    pub fn finish<'f>(self, mut nodes: impl Iterator<Item = &'f [u8]>, out: &mut Vec<u8>) {
        let Some(mut pairs) = self.own else {
            let mut first = None;
            let failed = nodes.find(|frame| {
                first = first.or(Some(*frame));
                reply::is_error(frame)
            });
            return out.extend_from_slice(failed.or(first).unwrap_or_default());
        };
        let told = nodes.find_map(reply::elements);
        let mut told = told.into_iter().flatten().filter_map(reply::text);
        while let (Some(name), Some(value)) = (told.next(), told.next()) {
            pairs.push((name.to_vec(), value.to_vec()));
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

/// Parameters in force, by Redis's names; what Tally does not have is shown as turned off.
fn parameters(local: &Local<'_>) -> Vec<(&'static str, String)> {
    let server = &local.config.server;
    let timeout = server.idle_timeout.map_or(0, |timeout| timeout.as_secs());
    let output = server.output_buffer_bytes;
    let password = match &server.password {
        Some(_) => "<masked>",
        None => "",
    };
    let bind: BTreeSet<String> = local
        .config
        .listens()
        .map(|on| on.ip().to_string())
        .collect();
    let bind = bind.into_iter().collect::<Vec<_>>().join(" ");
    let no = || "no".to_owned();
    let zero = || "0".to_owned();
    vec![
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
        (
            "latency-monitor-threshold",
            local.stats.latency.threshold_ms().to_string(),
        ),
        ("latency-tracking", "yes".to_owned()),
        ("latency-tracking-info-percentiles", "50 99 99.9".to_owned()),
        ("loglevel", log_level(&local.config.log_level).to_owned()),
        ("maxclients", server.max_clients.to_string()),
        ("maxmemory-clients", zero()),
        ("port", local.client.laddr.port().to_string()),
        ("proto-max-bulk-len", server.max_bulk_bytes.to_string()),
        ("replicaof", String::new()),
        ("requirepass", password.to_owned()),
        ("save", String::new()),
        ("slaveof", String::new()),
        (
            "slowlog-log-slower-than",
            local.stats.slow_log.slower_than_us().to_string(),
        ),
        (
            "slowlog-max-len",
            local.stats.slow_log.max_len().to_string(),
        ),
        ("tcp-keepalive", "300".to_owned()),
        ("timeout", timeout.to_string()),
        (
            "tracking-table-max-keys",
            local.tracking.max_keys().to_string(),
        ),
    ]
}
