//! What monitoring asks: time, slow log, latency, and the parts of Redis that are empty or refused
//! here.

use super::{Local, argument};
use crate::resp::{Request, encode, parse_i64};

/// The remaining commands; arity is right.
pub(super) fn run(local: &Local<'_>, name: &str, request: &Request<'_>, out: &mut Vec<u8>) {
    match name {
        "time" => {
            encode::array(out, 2);
            encode::bulk(out, local.wall.as_secs().to_string().as_bytes());
            encode::bulk(out, local.wall.subsec_micros().to_string().as_bytes());
        }
        "role" => {
            encode::array(out, 3);
            encode::bulk(out, b"master");
            encode::integer(out, 0);
            encode::array(out, 0);
        }
        "replicaof" | "slaveof" => replica_of(name, request, out),
        "slowlog|get" => slowlog_get(local, request, out),
        "slowlog|len" => encode::integer(out, count_of(local.stats.slow_log.len())),
        "slowlog|reset" => {
            local.stats.slow_log.clear();
            encode::simple(out, "OK");
        }
        "latency|histogram" => histogram(local, request, out),
        _ if name.starts_with("latency|") => latency(local, name, request, out),
        "asking" | "readonly" | "readwrite" => encode::error(out, NO_CLUSTER),
        _ if name.starts_with("cluster|") => encode::error(out, NO_CLUSTER),
        _ => encode::error(out, argument::not_supported(name)),
    }
}

/// It is a replica of nobody already, and can not be one of another server.
fn replica_of(name: &str, request: &Request<'_>, out: &mut Vec<u8>) {
    if argument::is(request.arg(1), "no") && argument::is(request.arg(2), "one") {
        return encode::simple(out, "OK");
    }
    let name = name.to_ascii_uppercase();
    let text = format!("ERR {name} is not available through Tally, send it to the Redis node");
    encode::error(out, text);
}

/// `SLOWLOG GET [count]`: exactly the six elements that Redis gives, as some clients read no more.
/// Where the time went is told by `TALLY SLOWLOG`.
fn slowlog_get(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let count = match request.len() {
        2 => DEFAULT_SLOWLOG,
        3 => match parse_i64(request.arg(2)).filter(|count| *count >= -1) {
            // -1 and what is too large for this machine: all.
            Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
            None => {
                return encode::error(out, "ERR count should be greater than or equal to -1");
            }
        },
        _ => return encode::error(out, argument::wrong_subcommand("SLOWLOG", request)),
    };
    let entries = local.stats.slow_log.newest(count);
    encode::array(out, entries.len());
    for entry in entries {
        encode::array(out, 6);
        encode::integer(out, i64::try_from(entry.id).unwrap_or(i64::MAX));
        encode::integer(out, i64::try_from(entry.time.as_secs()).unwrap_or(i64::MAX));
        encode::integer(
            out,
            i64::try_from(entry.took.as_micros()).unwrap_or(i64::MAX),
        );
        encode::array(out, entry.args.len());
        for arg in &entry.args {
            encode::bulk(out, arg);
        }
        encode::bulk(out, entry.client.as_bytes());
        encode::bulk(out, entry.name.as_bytes());
    }
}

/// What `LATENCY` tells of events, in the forms of Redis 7.0 (`latencyCommand` in `latency.c`).
fn latency(local: &Local<'_>, name: &str, request: &Request<'_>, out: &mut Vec<u8>) {
    let events = &local.stats.latency;
    let integer = |out: &mut Vec<u8>, number: u64| {
        encode::integer(out, i64::try_from(number).unwrap_or(i64::MAX));
    };
    let asked_for = || {
        let reports = events.reports();
        let mut reports = reports.into_iter();
        reports.find(|report| argument::is(request.arg(2), report.event))
    };
    match name {
        "latency|latest" => {
            let reports = events.reports();
            encode::array(out, reports.len());
            for report in reports {
                encode::array(out, 4);
                encode::bulk(out, report.event.as_bytes());
                let last = report.samples.last();
                integer(out, last.map_or(0, |last| last.seconds));
                integer(out, last.map_or(0, |last| last.ms));
                integer(out, report.worst_ms);
            }
        }
        "latency|history" => {
            let samples = asked_for().map_or_else(Vec::new, |report| report.samples);
            encode::array(out, samples.len());
            for sample in samples {
                encode::array(out, 2);
                integer(out, sample.seconds);
                integer(out, sample.ms);
            }
        }
        "latency|reset" => {
            let is_meant = |event: &str| {
                let mut names = request.args().skip(2);
                request.len() == 2 || names.any(|asked| argument::is(asked, event))
            };
            encode::integer(out, count_of(events.reset(is_meant)));
        }
        "latency|doctor" => encode::verbatim(out, local.protocol(), &events.doctor()),
        "latency|graph" if asked_for().is_some() => {
            encode::error(out, "ERR no graphs here: LATENCY HISTORY has the samples");
        }
        "latency|graph" => encode::error(
            out,
            argument::naming("ERR No samples available for event '", request.arg(2), "'"),
        ),
        _ => encode::error(out, argument::not_supported(name)),
    }
}

/// `LATENCY HISTOGRAM [command ...]`: of each command that was called, how many calls took no
/// longer than each power of two of microseconds (`latencyHistogramCommand` in Redis's
/// `latency.c`). A container stands for its subcommands.
fn histogram(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let protocol = local.protocol();
    let is_asked = |name: &str| {
        let container = name
            .split_once('|')
            .map_or(name, |(container, _)| container);
        let mut names = request.args().skip(2);
        request.len() == 2
            || names.any(|asked| argument::is(asked, name) || argument::is(asked, container))
    };
    let samples = local.stats.commands.samples();
    let samples: Vec<_> = samples
        .filter(|sample| sample.durations.count() > 0 && is_asked(sample.command.name))
        .collect();
    encode::map(out, protocol, samples.len());
    for sample in samples {
        encode::bulk(out, sample.command.name.as_bytes());
        encode::map(out, protocol, 2);
        encode::bulk(out, b"calls");
        let calls = i64::try_from(sample.durations.count()).unwrap_or(i64::MAX);
        encode::integer(out, calls);
        encode::bulk(out, b"histogram_usec");
        // Only buckets with more calls than the one before.
        let mut below = 0;
        let steps = sample.durations.cumulative().filter(|(_, count)| {
            let rises = *count > below;
            below = *count;
            rises
        });
        let steps: Vec<_> = steps.collect();
        encode::map(out, protocol, steps.len());
        for (bound, count) in steps {
            let us = i64::try_from(bound.as_micros()).unwrap_or(i64::MAX);
            encode::integer(out, us);
            encode::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

fn count_of(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Entries that `SLOWLOG GET` gives without a count.
const DEFAULT_SLOWLOG: usize = 10;

const NO_CLUSTER: &str = "ERR This instance has cluster support disabled";
