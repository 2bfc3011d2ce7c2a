//! From what was said to what holds: every default and every range is here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use config::Value;

use super::nodes::nodes;
use super::raw;
use super::reader::Reader;
use super::routes::routes;
use super::rules::{cache, counters, rules};
use super::scripts::limit_scripts;
use super::tls::{admin_tls, tls};
use super::units::{GIB, KIB, MIB};
use super::users::users;
use super::{
    Admin, Config, CrossNode, Fault, Faults, Fsync, Journal, LogFormat, Ring, Server, SlowLog, Tls,
    Transactions, Upstream,
};
use crate::ring::Hash;

/// The levels of `tracing`.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Longest prefix of the keys of pages; more than any naming scheme needs.
const MAX_PREFIX_BYTES: usize = 256;

/// Redis's own default (`databases` in `config.c`).
const MAX_DATABASES: u32 = 16;

/// Most entries of the slow log: 20 MB of the longest.
const MAX_SLOW_LOG: usize = 65_536;

pub(super) const SECOND_MS: u64 = 1000;
pub(super) const MINUTE_MS: u64 = 60 * SECOND_MS;
pub(super) const HOUR_MS: u64 = 60 * MINUTE_MS;

/// Checks everything; `variables` names the variable that set a path, `faults` is what was wrong
/// before.
pub(super) fn resolve(
    root: Value,
    variables: BTreeMap<String, String>,
    faults: Vec<Fault>,
) -> Result<Config, Faults> {
    let mut reader = Reader::new(variables, faults);
    let mut root = root.try_deserialize::<raw::Root>().unwrap_or_default();
    reader.unknown("", &mut root);
    let tls = tls(&mut reader, root.tls);
    let users = users(&mut reader, root.users);
    let mut server = server(&mut reader, root.server, tls.as_ref(), !users.is_empty());
    let admin = admin(&mut reader, root.admin, server.protected);
    let listens = [
        ("server.listen", server.listen),
        ("tls.listen", tls.as_ref().map(|tls| tls.listen)),
        ("admin.listen", admin.listen),
    ];
    refuse_same(&mut reader, &listens);
    let nodes = nodes(&mut reader, root.nodes);
    if nodes.iter().any(|node| node.database != 0) {
        server.databases = 1;
    }
    let ring = ring(&mut reader, root.ring);
    let counters = counters(&mut reader, root.counters);
    let cache = cache(&mut reader, root.cache);
    let mut config = Config {
        admin,
        server,
        tls,
        users,
        routes: routes(&mut reader, root.routes, &nodes),
        nodes,
        ring,
        rules: rules(&mut reader, root.rules, &counters, &cache),
        limit_scripts: limit_scripts(&mut reader, root.limit_scripts),
        counters,
        cache,
        journal: journal(&mut reader, root.journal),
        transactions: transactions(&mut reader, root.transactions),
        upstream: upstream(&mut reader, root.upstream),
        slow_log: slow_log(&mut reader, root.slowlog),
        log_level: String::new(),
        log_format: LogFormat::Text,
    };
    (config.log_level, config.log_format) = log(&mut reader, root.log);
    let faults = reader.into_faults();
    if faults.is_empty() {
        Ok(config)
    } else {
        Err(Faults(faults))
    }
}

fn journal(reader: &mut Reader, value: Option<Value>) -> Journal {
    let raw: raw::Journal = reader.section("journal", value);
    Journal {
        path: reader.text(
            "journal.path",
            raw.path,
            Some(PathBuf::from("data/journal")),
            "a file's path, or \"off\"",
            |text| match text {
                "" => None,
                "off" => Some(None),
                path => Some(Some(PathBuf::from(path))),
            },
        ),
        bytes: reader.size("journal.size", raw.size, 64 * MIB, &(MIB..=64 * GIB)),
        fsync: reader.text(
            "journal.fsync",
            raw.fsync,
            Fsync::EverySecond,
            "\"always\", \"everysec\" or \"no\"",
            |text| {
                let known = [Fsync::Always, Fsync::EverySecond, Fsync::No];
                known.into_iter().find(|fsync| fsync.name() == text)
            },
        ),
    }
}

fn server(reader: &mut Reader, value: Option<Value>, tls: Option<&Tls>, has_users: bool) -> Server {
    let raw: raw::Server = reader.section("server", value);
    let listen = reader.text(
        "server.listen",
        raw.listen,
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 6380))),
        "IP:port, such as \"127.0.0.1:6380\", \"0.0.0.0:6380\" or \"[::1]:6380\", or \"off\"",
        |text| match text {
            "off" => Some(None),
            address => address.parse().ok().map(Some),
        },
    );
    if listen.is_none() && tls.is_none() && !reader.is_faulty("tls") {
        reader.fault("server.listen", "\"off\" needs tls.listen");
    }
    let threads = reader.number("server.threads", raw.threads, 0, &(0..=256));
    let protected = reader.boolean("server.protected", raw.protected, true);
    let password = reader.secret("server.password", raw.password, raw.password_file);
    let idle_timeout = reader.duration(
        "server.idle_timeout",
        raw.idle_timeout,
        0,
        &(10..=24 * HOUR_MS),
        Some("never"),
    );
    // A password that was given and is faulty is that one fault, not two.
    if protected && password.is_none() && !has_users && !reader.is_faulty("server.password") {
        refuse_open(reader, listen, tls);
    }
    Server {
        listen,
        threads: match threads {
            0 => default_threads(),
            threads => threads,
        },
        protected,
        password,
        max_clients: reader.number(
            "server.max_clients",
            raw.max_clients,
            10_000,
            &(1..=1_000_000),
        ),
        idle_timeout: Some(idle_timeout).filter(|timeout| !timeout.is_zero()),
        max_bulk_bytes: reader.size("server.max_bulk", raw.max_bulk, 512 * MIB, &(KIB..=4 * GIB)),
        query_buffer_bytes: reader.size(
            "server.query_buffer",
            raw.query_buffer,
            GIB,
            &(16 * KIB..=16 * GIB),
        ),
        output_buffer_bytes: reader.size(
            "server.output_buffer",
            raw.output_buffer,
            256 * MIB,
            &(16 * KIB..=16 * GIB),
        ),
        databases: databases(reader, raw.databases),
        drain_timeout: reader.duration(
            "server.drain_timeout",
            raw.drain_timeout,
            10 * SECOND_MS,
            &(100..=10 * MINUTE_MS),
            None,
        ),
    }
}

fn databases(reader: &mut Reader, value: Option<Value>) -> u32 {
    let allowed = 1..=MAX_DATABASES;
    reader.number("server.databases", value, MAX_DATABASES, &allowed)
}

/// Notes a fault for an address that lets other machines in. Clients that must show a certificate
/// that we trust are not let in by the address alone.
fn refuse_open(reader: &mut Reader, listen: Option<SocketAddr>, tls: Option<&Tls>) {
    let asks = |tls: &&Tls| tls.files.client_ca.is_some() && !tls.files.client_optional;
    let tls = tls.filter(|tls| !asks(tls)).map(|tls| tls.listen);
    for (path, listen, ways) in [
        (
            "server.listen",
            listen,
            "server.password, server.password_file or [[users]]",
        ),
        (
            "tls.listen",
            tls,
            "server.password, server.password_file, [[users]] or tls.client_ca_file",
        ),
    ] {
        let Some(listen) = listen.filter(|listen| !listen.ip().to_canonical().is_loopback()) else {
            continue;
        };
        reader.fault(
            path,
            format!(
                "\"{listen}\" lets other machines in without a password; set {ways}, listen on a \
                 loopback address, or set server.protected = false"
            ),
        );
    }
}

/// Faults addresses that an earlier one has taken already.
fn refuse_same(reader: &mut Reader, listens: &[(&str, Option<SocketAddr>)]) {
    let listens = listens
        .iter()
        .filter_map(|(path, listen)| Some((*path, (*listen)?)));
    let listens: Vec<_> = listens.collect();
    for (at, (path, listen)) in listens.iter().enumerate() {
        let takes = |(_, other): &&(&str, SocketAddr)| {
            let is_all = |ip: IpAddr| ip.is_unspecified() && listen.is_ipv4() == other.is_ipv4();
            let same = listen.ip() == other.ip() || is_all(listen.ip()) || is_all(other.ip());
            same && listen.port() == other.port() && listen.port() != 0
        };
        if let Some((taken, _)) = listens.iter().take(at).find(takes) {
            reader.fault(path, format!("\"{listen}\" is taken by {taken}"));
        }
    }
}

/// Half the cores: the other half serves the nodes and the kernel's side of the sockets, which
/// costs as much as ours when everything runs on one machine.
fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

fn ring(reader: &mut Reader, value: Option<Value>) -> Ring {
    let raw: raw::Ring = reader.section("ring", value);
    reader.text(
        "ring.distribution",
        raw.distribution,
        (),
        "\"ketama\"",
        |text| (text == "ketama").then_some(()),
    );
    let names: Vec<_> = Hash::ALL
        .iter()
        .map(|hash| format!("{:?}", hash.name()))
        .collect();
    Ring {
        hash: reader.text(
            "ring.hash",
            raw.hash,
            Hash::Xxh3,
            &names.join(", "),
            |text| text.parse().ok(),
        ),
        hash_tag: reader.text(
            "ring.hash_tag",
            raw.hash_tag,
            Some((b'{', b'}')),
            "two ASCII characters, such as \"{}\", or \"\" for none",
            |text| match text.as_bytes() {
                [] => Some(None),
                [open, close] => Some(Some((*open, *close))),
                _ => None,
            },
        ),
        families_together: reader.text(
            "ring.families",
            raw.families,
            true,
            "\"together\" or \"spread\"",
            |text| match text {
                "together" => Some(true),
                "spread" => Some(false),
                _ => None,
            },
        ),
    }
}

fn transactions(reader: &mut Reader, value: Option<Value>) -> Transactions {
    let raw: raw::Transactions = reader.section("transactions", value);
    let both = [CrossNode::Reject, CrossNode::Split];
    Transactions {
        cross_node: reader.text(
            "transactions.cross_node",
            raw.cross_node,
            CrossNode::Reject,
            "\"reject\" or \"split\"",
            |text| both.into_iter().find(|which| which.name() == text),
        ),
    }
}

fn max_pooled(reader: &mut Reader, value: Option<Value>) -> usize {
    reader.number("upstream.max_pooled", value, 1024, &(1..=1_000_000))
}

fn upstream(reader: &mut Reader, value: Option<Value>) -> Upstream {
    let raw: raw::Upstream = reader.section("upstream", value);
    let mut wait = |path: &str, value, default_ms, range_ms: RangeInclusive<u64>| {
        reader.duration(path, value, default_ms, &range_ms, None)
    };
    let upstream = Upstream {
        connect_timeout: wait(
            "upstream.connect_timeout",
            raw.connect_timeout,
            2 * SECOND_MS,
            10..=MINUTE_MS,
        ),
        request_timeout: wait(
            "upstream.request_timeout",
            raw.request_timeout,
            5 * SECOND_MS,
            10..=10 * MINUTE_MS,
        ),
        hard_timeout: wait(
            "upstream.hard_timeout",
            raw.hard_timeout,
            30 * SECOND_MS,
            10..=HOUR_MS,
        ),
        backoff: (
            wait("upstream.backoff_min", raw.backoff_min, 50, 1..=MINUTE_MS),
            wait(
                "upstream.backoff_max",
                raw.backoff_max,
                5 * SECOND_MS,
                1..=10 * MINUTE_MS,
            ),
        ),
        max_in_flight: reader.number(
            "upstream.max_in_flight",
            raw.max_in_flight,
            65_536,
            &(1..=1_048_576),
        ),
        max_unsent_bytes: reader.size(
            "upstream.max_unsent",
            raw.max_unsent,
            64 * MIB,
            &(16 * KIB..=16 * GIB),
        ),
        max_pooled: max_pooled(reader, raw.max_pooled),
    };
    let mut at_least = |path: &str, value: Duration, other: &str, least: Duration| {
        if value < least {
            let [value, least] = [value, least].map(super::units::duration_text);
            let problem = format!("{value:?} is less than {other}, which is {least:?}");
            reader.fault(path, problem);
        }
    };
    at_least(
        "upstream.hard_timeout",
        upstream.hard_timeout,
        "upstream.request_timeout",
        upstream.request_timeout,
    );
    let (backoff_min, backoff_max) = upstream.backoff;
    at_least(
        "upstream.backoff_max",
        backoff_max,
        "upstream.backoff_min",
        backoff_min,
    );
    upstream
}

fn admin(reader: &mut Reader, value: Option<Value>, protected: bool) -> Admin {
    let raw: raw::Admin = reader.section("admin", value);
    let listen = reader.text(
        "admin.listen",
        raw.listen,
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9380))),
        "IP:port, such as \"127.0.0.1:9380\", or \"off\"",
        |text| match text {
            "" | "off" => Some(None),
            address => address.parse().ok().map(Some),
        },
    );
    let tls = admin_tls(reader, raw.tls_cert_file, raw.tls_key_file);
    let token = reader.secret("admin.token", raw.token, raw.token_file);
    let opened =
        listen.filter(|listen| token.is_none() && !listen.ip().to_canonical().is_loopback());
    if let Some(listen) = opened.filter(|_| protected && !reader.is_faulty("admin.token")) {
        reader.fault(
            "admin.listen",
            format!(
                "\"{listen}\" lets other machines in without a token; set admin.token or \
                 admin.token_file, listen on a loopback address, or set server.protected = false"
            ),
        );
    }
    let allowed = format!("text of at most {MAX_PREFIX_BYTES} bytes");
    Admin {
        listen,
        tls,
        token,
        visits_prefix: reader.text(
            "admin.visits_prefix",
            raw.visits_prefix,
            "visits:".to_owned(),
            &allowed,
            |text| (text.len() <= MAX_PREFIX_BYTES).then(|| text.to_owned()),
        ),
    }
}

fn slow_log(reader: &mut Reader, value: Option<Value>) -> SlowLog {
    let raw: raw::SlowLog = reader.section("slowlog", value);
    let slower_than = reader.duration(
        "slowlog.slower_than",
        raw.slower_than,
        10,
        &(1..=HOUR_MS),
        Some("never"),
    );
    SlowLog {
        slower_than: Some(slower_than).filter(|slow| !slow.is_zero()),
        max_len: reader.number("slowlog.max_len", raw.max_len, 128, &(0..=MAX_SLOW_LOG)),
    }
}

fn log(reader: &mut Reader, value: Option<Value>) -> (String, LogFormat) {
    let raw: raw::Log = reader.section("log", value);
    let allowed = format!(
        "one of {}, or a list such as \"info,tally::node=debug\"",
        LOG_LEVELS.join(", ")
    );
    let level = reader.text(
        "log.level",
        raw.level,
        "info".to_owned(),
        &allowed,
        |text| {
            text.split(',')
                .all(is_log_directive)
                .then(|| text.to_owned())
        },
    );
    let format = reader.text(
        "log.format",
        raw.format,
        LogFormat::Text,
        "\"text\", \"json\"",
        |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        },
    );
    (level, format)
}

/// `level` or `module=level`. A subset of what `tracing` takes: there `inof` is a module's name.
fn is_log_directive(text: &str) -> bool {
    let (module, level) = text.rsplit_once('=').unwrap_or(("tally", text));
    let is_module_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
    LOG_LEVELS.contains(&level) && !module.is_empty() && module.bytes().all(is_module_byte)
}
