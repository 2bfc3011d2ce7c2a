//! Every metric: its name, unit, type and meaning, in one table, and the `OpenMetrics` text.
//!
//! Names are those of `redis_exporter` where it has what they name (`keyspace_hits`,
//! `net_input_bytes`, `commands{cmd}`), with `tally_` for its `redis_`. No label is a key: their
//! number has no bound.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::histogram::{BOUNDS, Sample};
use super::{CommandSample, NodeState, NodeStatus, ProcessUsage, Stats};

/// Everything that a scrape tells.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The counters.
    pub stats: Arc<Stats>,
    /// Every node.
    pub nodes: Vec<NodeStatus>,
    /// Clients connected.
    pub clients: usize,
    /// Most clients connected at once.
    pub max_clients: usize,
    /// Memory and processor time.
    pub process: ProcessUsage,
    /// Time since the start.
    pub uptime: Duration,
}

/// Content type of [`Snapshot::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Content type of [`Snapshot::classic_text`].
pub const CLASSIC_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Snapshot {
    /// All metrics as `OpenMetrics` text.
    pub fn text(self) -> String {
        let mut registry = Registry::with_prefix("tally");
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        // A String takes everything; an error would cut the text, which then lacks its `# EOF`.
        text::encode(&mut out, &registry).unwrap_or_default();
        out
    }

    /// The same in the older text format of Prometheus, for those who do not ask for `OpenMetrics`.
    /// There a counter's family has the name of its samples, and units and an end are unknown.
    pub fn classic_text(self) -> String {
        let text = self.text();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let types: HashMap<_, _> = types.filter_map(|line| line.split_once(' ')).collect();
        let mut out = String::with_capacity(text.len());
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            let (mark, what, family) = (words.next(), words.next(), words.next());
            match (mark, what, family) {
                (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(family)) => {
                    let (end, kind) = match types.get(family) {
                        Some(&"counter") => ("_total", "counter"),
                        Some(&"info") => ("_info", "gauge"),
                        Some(kind) => ("", *kind),
                        None => continue,
                    };
                    let rest = words.next().filter(|_| what == "HELP").unwrap_or(kind);
                    out.extend(["# ", what, " ", family, end, " ", rest, "\n"]);
                }
                (Some("#"), ..) => {}
                _ => out.extend([line, "\n"]),
            }
        }
        out
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            let unit = metric.unit.unit();
            let kind = metric.read.kind();
            let family =
                encoder.encode_descriptor(metric.name, metric.help, unit.as_ref(), kind)?;
            metric.read.encode(self, family)?;
        }
        Ok(())
    }
}

/// One metric.
struct Metric {
    /// Without `tally_`, the unit and `_total`, which are added.
    name: &'static str,
    unit: Measure,
    help: &'static str,
    read: Read,
}

/// What a metric is measured in.
#[derive(Clone, Copy)]
enum Measure {
    Number,
    Bytes,
    Seconds,
}

/// Type of a metric, and where its value comes from.
enum Read {
    Info,
    Counter(fn(&Snapshot) -> u64),
    Gauge(fn(&Snapshot) -> u64),
    CounterSeconds(fn(&Snapshot) -> Duration),
    GaugeSeconds(fn(&Snapshot) -> Duration),
    Command(fn(&CommandSample) -> u64),
    CommandHistogram,
    Errors,
    NodeCounter(fn(&NodeStatus) -> u64),
    NodeGauge(fn(&NodeStatus) -> u64),
    NodeGaugeSeconds(fn(&NodeStatus) -> Duration),
    NodeHistogram(fn(&NodeStatus) -> &Sample),
}

impl Measure {
    fn unit(self) -> Option<Unit> {
        match self {
            Self::Number => None,
            Self::Bytes => Some(Unit::Bytes),
            Self::Seconds => Some(Unit::Seconds),
        }
    }
}

impl Read {
    fn kind(&self) -> MetricType {
        match self {
            Self::Info => MetricType::Info,
            Self::Counter(_)
            | Self::CounterSeconds(_)
            | Self::Command(_)
            | Self::Errors
            | Self::NodeCounter(_) => MetricType::Counter,
            Self::Gauge(_)
            | Self::GaugeSeconds(_)
            | Self::NodeGauge(_)
            | Self::NodeGaugeSeconds(_) => MetricType::Gauge,
            Self::CommandHistogram | Self::NodeHistogram(_) => MetricType::Histogram,
        }
    }

    fn encode(&self, from: &Snapshot, mut family: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Info => family.encode_info(&[("version", env!("CARGO_PKG_VERSION"))]),
            Self::Counter(read) => counter(&mut family, &read(from)),
            Self::CounterSeconds(read) => counter(&mut family, &read(from).as_secs_f64()),
            Self::Gauge(read) => family.encode_gauge(&read(from)),
            Self::GaugeSeconds(read) => family.encode_gauge(&read(from).as_secs_f64()),
            Self::Command(read) => {
                from.each_command(family, |metric, sample| counter(metric, &read(sample)))
            }
            Self::CommandHistogram => from.each_command(family, |metric, sample| {
                let durations = &sample.durations;
                let mut below = 0;
                let mut buckets = Vec::with_capacity(COMMAND_OCTAVES.len() + 1);
                for octave in COMMAND_OCTAVES {
                    let (bound, within) = durations.within(octave);
                    buckets.push((bound.as_secs_f64(), within - below));
                    below = within;
                }
                let count = durations.count();
                buckets.push((f64::INFINITY, count - below));
                let sum = durations.sum.as_secs_f64();
                metric.encode_histogram::<NoLabels>(sum, count, &buckets, None)
            }),
            Self::Errors => {
                for (code, count) in from.stats.errors.each() {
                    counter(&mut family.encode_family(&[("err", &*code)])?, &count)?;
                }
                Ok(())
            }
            Self::NodeCounter(read) => {
                from.each_node(family, |metric, node| counter(metric, &read(node)))
            }
            Self::NodeGauge(read) => {
                from.each_node(family, |metric, node| metric.encode_gauge(&read(node)))
            }
            Self::NodeGaugeSeconds(read) => from.each_node(family, |metric, node| {
                metric.encode_gauge(&read(node).as_secs_f64())
            }),
            Self::NodeHistogram(read) => from.each_node(family, |metric, node| {
                let sample = read(node);
                let bounds = BOUNDS.iter().map(Duration::as_secs_f64);
                let bounds = bounds.chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(sample.counts).collect();
                let sum = sample.sum.as_secs_f64();
                metric.encode_histogram::<NoLabels>(sum, sample.count(), &buckets, None)
            }),
        }
    }
}

impl Snapshot {
    fn each_node(
        &self,
        mut family: MetricEncoder<'_>,
        encode: impl Fn(&mut MetricEncoder<'_>, &NodeStatus) -> fmt::Result,
    ) -> fmt::Result {
        for node in &self.nodes {
            encode(
                &mut family.encode_family(&[("node", node.name.as_str())])?,
                node,
            )?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// Every command that was called or refused.
    fn each_command(
        &self,
        mut family: MetricEncoder<'_>,
        encode: impl Fn(&mut MetricEncoder<'_>, &CommandSample) -> fmt::Result,
    ) -> fmt::Result {
        for sample in self.stats.commands.samples() {
            let labels = [("cmd", sample.command.name)];
            encode(&mut family.encode_family(&labels)?, &sample)?;
        }
        Ok(())
    }
}

/// Bounds of the buckets of a command's durations: powers of four times 1.024 µs, up to 4.3 s. The
/// first is ten times what an increment takes that is answered from memory in a pipeline, the
/// last near the default `upstream.request_timeout`.
const COMMAND_OCTAVES: [usize; 12] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22];

type NoLabels = [(&'static str, &'static str); 0];

fn counter(
    metric: &mut MetricEncoder<'_>,
    value: &impl prometheus_client::encoding::EncodeCounterValue,
) -> fmt::Result {
    metric.encode_counter::<NoLabels, _, u64>(value, None)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

const fn metric(name: &'static str, unit: Measure, help: &'static str, read: Read) -> Metric {
    Metric {
        name,
        unit,
        help,
        read,
    }
}

use Measure::{Bytes, Number, Seconds};
use Read::{
    Command, CommandHistogram, Counter, CounterSeconds, Errors, Gauge, GaugeSeconds, Info,
    NodeCounter, NodeGauge, NodeGaugeSeconds, NodeHistogram,
};

/// All of them, in the order of the text.
#[rustfmt::skip] // a table
const METRICS: &[Metric] = &[
    metric("build", Number, "The version that runs.", Info),
    metric("uptime_in", Seconds, "Time since the start.", GaugeSeconds(|s| s.uptime)),
    metric("memory_used_rss", Bytes, "Memory of this process in RAM.", Gauge(|s| s.process.resident_bytes)),
    metric("cpu_user", Seconds, "Processor time outside the kernel.", CounterSeconds(|s| s.process.cpu_user)),
    metric("cpu_sys", Seconds, "Processor time inside the kernel.", CounterSeconds(|s| s.process.cpu_system)),

    metric("connected_clients", Number, "Clients connected now.", Gauge(|s| number(s.clients))),
    metric("max_clients", Number, "Most clients connected at once.", Gauge(|s| number(s.max_clients))),
    metric("connections_received", Number, "Connections accepted.", Counter(|s| s.stats.connections_received.get())),
    metric("rejected_connections", Number, "Connections closed because there were too many clients.", Counter(|s| s.stats.rejected_connections.get())),
    metric("protocol_errors", Number, "Clients closed for bytes that are no request.", Counter(|s| s.stats.protocol_errors.get())),
    metric("output_limit_closed", Number, "Clients closed because they did not read their replies.", Counter(|s| s.stats.output_limit_closed.get())),
    metric("net_input", Bytes, "Bytes read from clients.", Counter(|s| s.stats.net_input_bytes.get())),
    metric("net_output", Bytes, "Bytes written to clients.", Counter(|s| s.stats.net_output_bytes.get())),

    metric("commands_processed", Number, "Requests executed, failed ones included.", Counter(|s| s.stats.commands_processed.get())),
    metric("commands", Number, "Requests executed, by command.", Command(|c| c.calls)),
    metric("commands_rejected_calls", Number, "Requests refused before they were executed, by command.", Command(|c| c.rejected)),
    metric("commands_failed_calls", Number, "Of the requests executed, those answered with an error, by command.", Command(|c| c.failed)),
    metric("commands_duration", Seconds, "From a request read to its reply ready, by command; requests answered here share the time of their batch.", CommandHistogram),
    metric("errors", Number, "Error replies given to clients, by their first word.", Errors),
    metric("errors_replied", Number, "Of the error replies, those made by Tally.", Counter(|s| s.stats.errors_replied.get())),
    metric("slowlog_length", Number, "Requests in the slow log.", Gauge(|s| number(s.stats.slow_log.len()))),
    metric("keyspace_hits", Number, "Reads answered from memory.", Counter(|s| s.stats.keyspace_hits.get())),
    metric("keyspace_misses", Number, "Reads that had to ask a node.", Counter(|s| s.stats.keyspace_misses.get())),

    metric("increments_received", Number, "Increments received (INCR and its family).", Counter(|s| s.stats.increments_received.get())),
    metric("increments_local", Number, "Increments answered from memory.", Counter(|s| s.stats.increments_local.get())),
    metric("increments_forwarded", Number, "Increments that waited for their node's answer.", Counter(|s| s.stats.increments_forwarded.get())),
    metric("increments_flushed", Number, "Acknowledged increments that batches have applied.", Counter(|s| s.stats.increments_flushed.get())),
    metric("limit_calls", Number, "Calls of limit scripts that are known.", Counter(|s| s.stats.limit_calls.get())),
    metric("limit_requests", Number, "Requests to nodes that these calls became.", Counter(|s| s.stats.limit_requests.get())),
    metric("limit_denied", Number, "Of these calls, those denied from memory.", Counter(|s| s.stats.limit_denied.get())),
    metric("flushes", Number, "Batches of increments sent to nodes.", Counter(|s| s.stats.flush_batches.get())),
    metric("flush_errors", Number, "Batches that a node would not take then; they are kept and sent again.", Counter(|s| s.stats.flush_errors.get())),
    metric("flush_keys", Number, "Keys in these batches.", Counter(|s| s.stats.flush_keys.get())),
    metric("pending_keys", Number, "Keys with acknowledged increments that are not sent yet.", Gauge(|s| s.nodes.iter().map(|node| number(node.pending_keys)).sum())),
    metric("oldest_pending", Seconds, "Most age of an acknowledged increment that its node has not confirmed.", GaugeSeconds(|s| s.nodes.iter().map(|node| node.pending_for).max().unwrap_or_default())),
    metric("batches_unsettled", Number, "Batches sealed and not settled.", Gauge(|s| s.nodes.iter().map(|node| number(node.batches)).sum())),
    metric("batches_unanswered", Number, "Of these, those whose connection was lost before their answer came.", Gauge(|s| s.nodes.iter().map(|node| number(node.batches_unanswered)).sum())),
    metric("dead_letters", Number, "Acknowledged increments that a node refused.", Counter(|s| s.stats.dead_letters.get())),
    metric("increments_expired", Number, "Keys whose pending increments died with their deadline, as they would have in Redis.", Counter(|s| s.stats.expired_increments.get())),
    metric("in_doubt", Number, "Acknowledged increments that may or may not have been applied.", Counter(|s| s.stats.in_doubt.get())),

    metric("journal_slots", Number, "Slots of the journal; 0 without one.", Gauge(|s| s.stats.journal_slots.get())),
    metric("journal_slots_taken", Number, "Of these, those that hold increments.", Gauge(|s| s.stats.journal_slots_taken.get())),
    metric("journal_last_sync", Seconds, "When the journal was last written to the disk, since 1970; 0: never.", Gauge(|s| s.stats.journal_last_sync.get())),
    metric("journal_sync_errors", Number, "How often the journal could not be written to the disk.", Counter(|s| s.stats.journal_sync_errors.get())),

    metric("upstream_requests", Number, "Requests sent to nodes.", Counter(|s| s.stats.upstream_requests.get())),
    metric("node_up", Number, "Whether requests reach the node.", NodeGauge(|n| u64::from(n.state == NodeState::Connected))),
    metric("node_requests", Number, "Requests sent to the node.", NodeCounter(|n| n.requests)),
    metric("node_errors", Number, "Error replies of the node.", NodeCounter(|n| n.errors)),
    metric("node_reconnects", Number, "Connections to the node after the first.", NodeCounter(|n| n.reconnects)),
    metric("node_in_flight", Number, "Requests to the node without an answer yet.", NodeGauge(|n| number(n.in_flight))),
    metric("node_unsent", Bytes, "Bytes of requests that the node's socket has not taken.", NodeGauge(|n| number(n.unsent_bytes))),
    metric("node_keys", Number, "Keys of the node remembered here.", NodeGauge(|n| number(n.keys))),
    metric("node_pending_keys", Number, "Of these, keys with acknowledged increments that are not sent yet.", NodeGauge(|n| number(n.pending_keys))),
    metric("node_oldest_pending", Seconds, "Most age of an acknowledged increment that the node has not confirmed.", NodeGaugeSeconds(|n| n.pending_for)),
    metric("node_batches_unanswered", Number, "Batches whose connection to the node was lost before their answer came.", NodeGauge(|n| number(n.batches_unanswered))),
    metric("node_reply_duration", Seconds, "From a request appended to its reply read, per reply.", NodeHistogram(|n| &n.reply_times)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape() -> String {
        snapshot().text()
    }

    fn snapshot() -> Snapshot {
        let stats = Stats::default();
        let command = &crate::command::commands()[0];
        stats.commands.add(command, 3);
        stats.commands.observe(command, Duration::from_micros(4), 3);
        stats.errors.note(b"WRONGTYPE x");
        Snapshot {
            stats: Arc::new(stats),
            nodes: vec![NodeStatus {
                name: "a\"b".to_owned(),
                address: "127.0.0.1:1".to_owned(),
                state: NodeState::Connected,
                redis_version: None,
                valkey_version: None,
                run_id: None,
                tracking: true,
                in_flight: 1,
                unsent_bytes: 2,
                requests: 3,
                errors: 4,
                keys: 5,
                pending_keys: 6,
                reconnects: 7,
                batches: 2,
                batches_unanswered: 1,
                pending_for: Duration::from_millis(1500),
                reply_times: Sample::default(),
            }],
            clients: 1,
            max_clients: 2,
            process: ProcessUsage::default(),
            uptime: Duration::from_secs(5),
        }
    }

    /// Name and type of every family of a scrape.
    fn families(text: &str) -> HashMap<&str, &str> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(|line| line.split_once(' ').unwrap()).collect()
    }

    /// The family that a sample belongs to.
    fn family_of<'a>(sample: &'a str, families: &HashMap<&str, &str>) -> Option<&'a str> {
        let ends = ["", "_total", "_info", "_bucket", "_sum", "_count"];
        let stems = ends.iter().filter_map(|end| sample.strip_suffix(end));
        stems.into_iter().find(|stem| families.contains_key(stem))
    }

    #[test]
    fn the_text_keeps_the_rules_of_the_format() {
        let text = scrape();
        assert!(text.ends_with("# EOF\n"));
        let families = families(&text);
        assert_eq!(families.len(), METRICS.len(), "two metrics of one name");
        for (name, kind) in &families {
            let help = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
            let help = help.unwrap_or_else(|| panic!("{name} has no HELP"));
            assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
            assert!(name.starts_with("tally_"), "{name}");
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte);
            assert!(name.bytes().all(is_plain), "{name}");
            for end in ["_total", "_count", "_sum", "_bucket", "_info"] {
                assert!(!name.ends_with(end), "{name}: {end} is added by the format");
            }
            for unit in ["_ms", "_us", "_milliseconds", "_kilobytes", "_percent"] {
                assert!(!name.ends_with(unit), "{name} is not in a base unit");
            }
            let unit = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("# UNIT {name} ")));
            assert_eq!(
                unit.is_some(),
                name.ends_with("_seconds") || name.ends_with("_bytes")
            );
            assert!(
                ["counter", "gauge", "histogram", "info"].contains(kind),
                "{name}"
            );
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (sample, _) = line.split_once([' ', '{']).unwrap();
            let family = family_of(sample, &families);
            let kind = families[family.unwrap_or_else(|| panic!("{sample} has no family"))];
            assert_eq!(sample.ends_with("_total"), kind == "counter", "{sample}");
            let labels = line.split_once('{').map_or("", |(_, rest)| rest);
            let label = labels.split('=').next().unwrap_or_default();
            assert!(
                ["", "cmd", "err", "node", "version", "le"].contains(&label),
                "{line}"
            );
            let value = line.rsplit_once(' ').unwrap().1;
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
        assert!(text.contains("tally_node_oldest_pending_seconds{node=\"a\\\"b\"} 1.5\n"));
        assert!(text.contains("tally_cpu_user_seconds_total 0"));
        assert!(
            text.contains("duration_seconds_bucket{le=\"+Inf\",node=\"a\\\"b\"} 0\n"),
            "{text}"
        );
    }

    #[test]
    fn the_classic_text_names_each_family_as_its_samples() {
        let text = snapshot().classic_text();
        let families = families(&text);
        assert_eq!(families.len(), METRICS.len());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (sample, _) = line.split_once([' ', '{']).unwrap();
            let is_histogram = |stem: &str| families.get(stem) == Some(&"histogram");
            let ends = ["_bucket", "_sum", "_count"];
            let mut stems = ends.iter().filter_map(|end| sample.strip_suffix(end));
            let kind = families.get(sample).copied();
            assert!(kind.is_some() || stems.any(is_histogram), "{sample}");
            assert_eq!(
                sample.ends_with("_total"),
                kind == Some("counter"),
                "{sample}"
            );
        }
        let comments = text.lines().filter(|line| line.starts_with('#'));
        for line in comments {
            assert!(
                line.starts_with("# HELP ") || line.starts_with("# TYPE "),
                "{line}"
            );
        }
        assert!(text.contains("# TYPE tally_build_info gauge\ntally_build_info{version="));
        assert!(text.contains("# HELP tally_dead_letters_total Acknowledged increments"));
    }

    /// How many metrics a text names; all of them exist.
    #[track_caller]
    fn metrics_named_by(file: &str) -> usize {
        let text = scrape();
        let families = families(&text);
        let mut named = 0;
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in file
            .split(|c| !is_part(c))
            .filter(|word| word.starts_with("tally_"))
        {
            let family = family_of(word, &families);
            assert!(family.is_some(), "{word} is no metric");
            let is_counter = families[family.unwrap_or_default()] == "counter";
            assert_eq!(is_counter, word.ends_with("_total"), "{word}");
            named += 1;
        }
        named
    }

    #[test]
    fn the_alerts_name_only_metrics_that_exist() {
        let alerts = include_str!("../../deploy/prometheus/alerts.yml");
        assert!(metrics_named_by(alerts) > 4);
    }

    #[test]
    fn the_grafana_dashboard_names_only_metrics_that_exist() {
        let dashboard = include_str!("../../deploy/grafana/dashboard.json");
        let named = metrics_named_by(dashboard);
        assert!(named > 10, "{named} metrics");
        let panels: serde_json::Value = serde_json::from_str(dashboard).unwrap();
        assert!(panels["panels"].as_array().unwrap().len() > 5);
        assert!(
            !dashboard.contains("\"uid\": \"P"),
            "no data source of one Grafana"
        );
    }
}
