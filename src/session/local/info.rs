//! `INFO`: sections with Redis's field names where Tally has what they name, or the nodes have it
//! together, and four of its own. A field that can not be filled truthfully is left out, unless
//! clients stop without it.

use std::fmt::{Display, Write};

use super::connection::{redis_version, valkey_version};
use super::keyspace::{InfoText, Join, Joined};
use super::{After, Local, argument};
use crate::command::Topics;
use crate::config::Mode;
use crate::resp::{Request, encode};
use crate::telemetry::{
    NodeState, NodeStatus, ProcessUsage, kernel_release, shown_percentile, system_memory_bytes,
};

/// Writes the reply, or, when something of the nodes is wanted, hands it over unfinished.
pub(super) fn info(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) -> After {
    let mut report = Report {
        local,
        text: String::new(),
        joined: Vec::new(),
    };
    let chosen = Selection::new(request);
    for (name, write) in SECTIONS {
        if chosen.holds(name) {
            report.header(name);
            write(&mut report);
        }
    }
    let protocol = local.protocol();
    let has_keyspace = chosen.holds(KEYSPACE);
    if has_keyspace {
        report.header(KEYSPACE);
    }
    if has_keyspace || !report.joined.is_empty() {
        return After::Info(InfoText {
            text: report.text,
            joined: report.joined,
            has_keyspace,
            protocol,
        });
    }
    encode::verbatim(out, protocol, &report.text);
    After::Continue
}

/// Sections in the order of the reply, but for `Keyspace`, which comes last.
const SECTIONS: &[(&str, WriteSection)] = &[
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("CPU", cpu),
    ("Modules", |_| {}),
    ("Commandstats", commandstats),
    ("Errorstats", errorstats),
    ("Latencystats", latencystats),
    ("Cluster", |report| report.field("cluster_enabled", 0)),
    ("Tally", tally),
    ("Nodes", nodes),
    ("Coalescing", coalescing),
    ("Journal", journal),
];

type WriteSection = fn(&mut Report<'_, '_>);

const KEYSPACE: &str = "Keyspace";

/// Which sections are asked for (`genInfoSectionDict` in Redis's `server.c`): none is the default
/// ones; names that are no section select nothing.
struct Selection<'a> {
    request: Request<'a>,
    default: bool,
    all: bool,
}

impl<'a> Selection<'a> {
    fn new(request: &Request<'a>) -> Self {
        let names = |word| request.args().skip(1).any(|name| argument::is(name, word));
        Self {
            request: *request,
            default: request.len() == 1 || names("default"),
            all: names("all") || names("everything"),
        }
    }

    fn holds(&self, section: &str) -> bool {
        let in_default = !matches!(section, "Commandstats" | "Latencystats");
        self.all
            || (self.default && in_default)
            || self
                .request
                .args()
                .skip(1)
                .any(|name| argument::is(name, section))
    }
}

/// The text so far.
struct Report<'r, 'a> {
    local: &'r Local<'a>,
    text: String,
    /// See [`InfoText`].
    joined: Vec<(usize, Joined)>,
}

impl Report<'_, '_> {
    fn header(&mut self, name: &str) {
        if !self.text.is_empty() {
            self.text.push_str("\r\n");
        }
        self.text.push_str("# ");
        self.text.push_str(name);
        self.text.push_str("\r\n");
    }

    fn field(&mut self, name: &str, value: impl Display) {
        let line = write!(self.text, "{name}:{value}\r\n");
        debug_assert!(line.is_ok(), "writing to a String does not fail");
    }

    /// A field whose value is made of what the nodes have there.
    fn joined(&mut self, how: Join, name: &'static str) {
        self.joined.push((self.text.len(), Joined { name, how }));
    }
}

fn server(report: &mut Report<'_, '_>) {
    let local = report.local;
    let uptime = local.uptime().as_secs();
    report.field("redis_version", redis_version(local));
    if let Some(version) = valkey_version(local) {
        report.field("server_name", "valkey");
        report.field("valkey_version", version);
    }
    report.field("redis_mode", "standalone");
    let release = kernel_release().unwrap_or_else(|| std::env::consts::FAMILY.to_owned());
    report.field(
        "os",
        format_args!("{} {release} {}", os_name(), std::env::consts::ARCH),
    );
    report.field("arch_bits", usize::BITS);
    report.field("monotonic_clock", "POSIX clock_gettime");
    let multiplexing = match std::env::consts::OS {
        "linux" => "epoll",
        _ => "kqueue",
    };
    report.field("multiplexing_api", multiplexing);
    report.field("process_id", std::process::id());
    report.field("process_supervised", "no");
    report.field("run_id", local.run_id);
    report.field("tcp_port", local.client.laddr.port());
    report.field("server_time_usec", local.wall.as_micros());
    report.field("uptime_in_seconds", uptime);
    report.field("uptime_in_days", uptime / 86_400);
    if let Ok(path) = std::env::current_exe() {
        report.field("executable", path.display());
    }
    report.field(
        "io_threads_active",
        u8::from(local.config.server.threads > 1),
    );
}

/// The system's name as `uname` spells it.
fn os_name() -> &'static str {
    match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "Darwin",
        other => other,
    }
}

fn clients(report: &mut Report<'_, '_>) {
    let registry = report.local.registry;
    let clients = registry.clients();
    report.field("connected_clients", clients.len());
    report.field("cluster_connections", 0);
    report.field("maxclients", registry.max_clients());
    let blocked = clients.iter().filter(|client| client.blocked().is_some());
    let paused = report.local.pause.waiting();
    report.field("blocked_clients", blocked.count() + paused);
    report.field("tracking_clients", report.local.tracking.counts().clients);
}

fn memory(report: &mut Report<'_, '_>) {
    let usage = ProcessUsage::read();
    for (name, bytes) in [
        ("used_memory", usage.resident_bytes),
        ("used_memory_rss", usage.resident_bytes),
        ("used_memory_peak", usage.peak_resident_bytes),
    ] {
        report.field(name, bytes);
        report.field(&format!("{name}_human"), human(bytes));
    }
    let peak = u128::from(usage.peak_resident_bytes).max(1);
    let share = u128::from(usage.resident_bytes) * 10_000 / peak;
    report.field(
        "used_memory_peak_perc",
        format_args!("{}.{:02}%", share / 100, share % 100),
    );
    let total = system_memory_bytes();
    report.field("total_system_memory", total);
    report.field("total_system_memory_human", human(total));
    // Scripts run on the nodes.
    report.field("used_memory_lua", 0);
    report.field("used_memory_lua_human", human(0));
    report.field("number_of_cached_scripts", report.local.scripts.len());
    report.field("maxmemory", 0);
    report.field("maxmemory_human", human(0));
    report.field("maxmemory_policy", "noeviction");
    // What is used is what is resident, so there is nothing between them.
    report.field("mem_fragmentation_ratio", "1.00");
    report.field("mem_fragmentation_bytes", 0);
    for replication_and_log in [
        "mem_not_counted_for_evict",
        "mem_replication_backlog",
        "mem_total_replication_buffers",
        "mem_clients_slaves",
        "mem_cluster_links",
        "mem_aof_buffer",
    ] {
        report.field(replication_and_log, 0);
    }
    report.field("mem_allocator", "mimalloc");
    report.field("active_defrag_running", 0);
    report.joined(Join::Sum, "lazyfree_pending_objects");
    report.joined(Join::Sum, "lazyfreed_objects");
}

/// Bytes as Redis shows them: `967.60K`, two decimals, powers of 1024.
fn human(bytes: u64) -> String {
    let units = [('G', 30), ('M', 20), ('K', 10)];
    let Some((unit, shift)) = units.iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes}B");
    };
    let hundredths = (u128::from(bytes) * 100) >> shift;
    format!("{}.{:02}{unit}", hundredths / 100, hundredths % 100)
}

fn persistence(report: &mut Report<'_, '_>) {
    report.field("loading", 0);
    report.field("async_loading", 0);
    report.joined(Join::Sum, "rdb_changes_since_last_save");
    // A program that waits for the end of a save waits for that of all nodes.
    report.joined(Join::Most, "rdb_bgsave_in_progress");
    report.joined(Join::Least, "rdb_last_save_time");
    report.joined(Join::Status, "rdb_last_bgsave_status");
    report.joined(Join::Most, "rdb_last_bgsave_time_sec");
    report.joined(Join::Most, "rdb_current_bgsave_time_sec");
    report.joined(Join::Least, "aof_enabled");
    report.joined(Join::Most, "aof_rewrite_in_progress");
    report.joined(Join::Most, "aof_rewrite_scheduled");
    report.joined(Join::Most, "aof_last_rewrite_time_sec");
    report.joined(Join::Most, "aof_current_rewrite_time_sec");
    report.joined(Join::Status, "aof_last_bgrewrite_status");
    report.joined(Join::Status, "aof_last_write_status");
}

fn stats(report: &mut Report<'_, '_>) {
    let stats = report.local.stats;
    let per_second = stats.commands_per_second(report.local.now);
    report.field(
        "total_connections_received",
        stats.connections_received.get(),
    );
    report.field("total_commands_processed", stats.commands_processed.get());
    report.field("instantaneous_ops_per_sec", per_second);
    report.field("total_net_input_bytes", stats.net_input_bytes.get());
    report.field("total_net_output_bytes", stats.net_output_bytes.get());
    report.field("rejected_connections", stats.rejected_connections.get());
    for synchronized in ["sync_full", "sync_partial_ok", "sync_partial_err"] {
        report.field(synchronized, 0);
    }
    report.joined(Join::Sum, "expired_keys");
    report.joined(Join::Sum, "evicted_keys");
    report.field("evicted_clients", 0);
    report.field("keyspace_hits", stats.keyspace_hits.get());
    report.field("keyspace_misses", stats.keyspace_misses.get());
    let topics = report.local.topics;
    report.field("pubsub_channels", topics(Topics::Channels));
    report.field("pubsub_patterns", topics(Topics::Patterns));
    report.field("pubsubshard_channels", topics(Topics::Shards));
    report.joined(Join::Most, "latest_fork_usec");
    report.joined(Join::Sum, "total_forks");
    report.field("migrate_cached_sockets", 0);
    let tracking = report.local.tracking.counts();
    report.field("tracking_total_keys", tracking.keys);
    report.field("tracking_total_items", tracking.items);
    report.field("tracking_total_prefixes", tracking.prefixes);
    report.field("total_error_replies", stats.errors.total());
}

fn replication(report: &mut Report<'_, '_>) {
    report.field("role", "master");
    report.field("connected_slaves", 0);
    report.field("master_failover_state", "no-failover");
    report.field("master_replid", report.local.run_id);
    report.field("master_replid2", format_args!("{:040}", 0));
    // It has no replicas, so it counts and keeps no bytes for them.
    report.field("master_repl_offset", 0);
    report.field("second_repl_offset", -1);
    report.field("repl_backlog_active", 0);
    report.field("repl_backlog_size", 0);
    report.field("repl_backlog_first_byte_offset", 0);
    report.field("repl_backlog_histlen", 0);
}

fn cpu(report: &mut Report<'_, '_>) {
    let usage = ProcessUsage::read();
    let seconds = |time: std::time::Duration| format!("{:.6}", time.as_secs_f64());
    report.field("used_cpu_sys", seconds(usage.cpu_system));
    report.field("used_cpu_user", seconds(usage.cpu_user));
    // It starts no other processes.
    let none = seconds(std::time::Duration::ZERO);
    report.field("used_cpu_sys_children", &none);
    report.field("used_cpu_user_children", &none);
}

/// Calls are those that were executed; their time is counted when the reply is ready, so it lags
/// behind while nodes have not answered.
fn commandstats(report: &mut Report<'_, '_>) {
    for sample in report.local.stats.commands.samples() {
        let us = sample.durations.sum.as_micros();
        // Two decimals, as Redis shows them.
        let hundredths = (sample.durations.sum.as_nanos() / 10)
            .checked_div(u128::from(sample.calls))
            .unwrap_or(0);
        report.field(
            &format!("cmdstat_{}", sample.command.name),
            format_args!(
                "calls={},usec={us},usec_per_call={}.{:02},rejected_calls={},failed_calls={}",
                sample.calls,
                hundredths / 100,
                hundredths % 100,
                sample.rejected,
                sample.failed
            ),
        );
    }
}

fn errorstats(report: &mut Report<'_, '_>) {
    for (code, count) in report.local.stats.errors.each() {
        report.field(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latencystats(report: &mut Report<'_, '_>) {
    let commands = &report.local.stats.commands;
    if !commands.tells_durations() {
        return;
    }
    let percentiles = commands.percentiles();
    for sample in commands.samples() {
        if sample.durations.count() == 0 {
            continue;
        }
        let each = percentiles.each().map(|at| {
            let ns = sample.durations.percentile(at).as_nanos();
            let (name, us) = (shown_percentile(at), ns / 1000);
            format!("p{name}={us}.{:03}", ns % 1000)
        });
        let each: Vec<String> = each.collect();
        report.field(
            &format!("latency_percentiles_usec_{}", sample.command.name),
            each.join(","),
        );
    }
}

fn tally(report: &mut Report<'_, '_>) {
    let local = report.local;
    report.field("tally_version", env!("CARGO_PKG_VERSION"));
    report.field("threads", local.config.server.threads);
    report.field("protocol_errors", local.stats.protocol_errors.get());
    report.field("output_limit_closed", local.stats.output_limit_closed.get());
    report.field("upstream_requests", local.stats.upstream_requests.get());
}

fn nodes(report: &mut Report<'_, '_>) {
    let nodes = (report.local.nodes)();
    let connected = |node: &&NodeStatus| node.state == NodeState::Connected;
    report.field("nodes", nodes.len());
    report.field("nodes_connected", nodes.iter().filter(connected).count());
    for (index, node) in nodes.iter().enumerate() {
        let (state, reason) = match &node.state {
            NodeState::Connecting => ("connecting", ""),
            NodeState::Connected => ("connected", ""),
            NodeState::Down { reason } => ("down", reason.as_str()),
        };
        report.field(
            &format!("node{index}"),
            format_args!(
                "name={},address={},state={state},redis_version={},keys={},pending_keys={},\
                 tracking={},in_flight={},unsent_bytes={},requests={},errors={},reconnects={},reason={}",
                node.name,
                node.address,
                node.redis_version.as_deref().unwrap_or_default(),
                node.keys,
                node.pending_keys,
                u8::from(node.tracking),
                node.in_flight,
                node.unsent_bytes,
                node.requests,
                node.errors,
                node.reconnects,
                // It comes from the system or the node: it must not look like further fields.
                reason.replace([',', '\r', '\n'], ";"),
            ),
        );
    }
}

fn coalescing(report: &mut Report<'_, '_>) {
    let (stats, counters) = (report.local.stats, &report.local.config.counters);
    let mode = match counters.mode {
        Mode::Buffered => "buffered",
        Mode::Exact => "exact",
        Mode::Through => "through",
    };
    report.field("mode", mode);
    report.field("flush_interval_ms", counters.flush_interval.as_millis());
    report.field("increments_received", stats.increments_received.get());
    report.field("increments_local", stats.increments_local.get());
    report.field("increments_forwarded", stats.increments_forwarded.get());
    report.field("increments_flushed", stats.increments_flushed.get());
    let pending = (report.local.nodes)()
        .iter()
        .map(|node| node.pending_keys)
        .sum::<usize>();
    report.field("increments_pending_keys", pending);
    let nodes = (report.local.nodes)();
    let oldest = nodes.iter().map(|node| node.pending_for).max();
    report.field("oldest_pending_ms", oldest.unwrap_or_default().as_millis());
    let batches = |count: fn(&NodeStatus) -> usize| nodes.iter().map(count).sum::<usize>();
    report.field("batches_unsettled", batches(|node| node.batches));
    let unanswered = batches(|node| node.batches_unanswered);
    report.field("batches_unanswered", unanswered);
    report.field("increments_expired", stats.expired_increments.get());
    report.field("flush_batches", stats.flush_batches.get());
    report.field("flush_keys", stats.flush_keys.get());
    report.field("flush_errors", stats.flush_errors.get());
    report.field("dead_letters", stats.dead_letters.get());
    report.field("in_doubt", stats.in_doubt.get());
    report.field("limit_calls", stats.limit_calls.get());
    report.field("limit_requests", stats.limit_requests.get());
    report.field("limit_denied", stats.limit_denied.get());
}

fn journal(report: &mut Report<'_, '_>) {
    let stats = report.local.stats;
    report.field("journal_slots", stats.journal_slots.get());
    report.field("journal_slots_taken", stats.journal_slots_taken.get());
    report.field("journal_last_sync", stats.journal_last_sync.get());
    report.field("journal_sync_errors", stats.journal_sync_errors.get());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_redis_shows_them() {
        assert_eq!(human(0), "0B");
        assert_eq!(human(1023), "1023B");
        assert_eq!(human(1024), "1.00K");
        assert_eq!(human(1_853_280), "1.76M");
        assert_eq!(human(u64::MAX), "17179869183.99G");
    }
}
