//! What monitoring asks: time, slow log, latency, and the parts of Redis that are empty or refused
//! here.

use super::{Local, argument};
use crate::resp::{Request, encode, parse_i64};

/// The remaining commands; arity is right.
pub(super) fn run(local: &Local<'_>, name: &str, request: &Request<'_>, out: &mut Vec<u8>) {
    let protocol = local.protocol();
    match name {
        "time" => {
            encode::array(out, 2);
            encode::bulk(out, local.wall.as_secs().to_string().as_bytes());
            encode::bulk(out, local.wall.subsec_micros().to_string().as_bytes());
        }
        // Before its first save Redis gives the time of its start.
        "lastsave" => {
            let started = local.wall.saturating_sub(local.uptime()).as_secs();
            encode::integer(out, i64::try_from(started).unwrap_or(i64::MAX));
        }
        "role" => {
            encode::array(out, 3);
            encode::bulk(out, b"master");
            encode::integer(out, 0);
            encode::array(out, 0);
        }
        "acl|whoami" => encode::bulk(out, b"default"),
        "module|list" | "latency|latest" | "latency|history" => encode::array(out, 0),
        "memory|purge" | "slowlog|reset" => encode::simple(out, "OK"),
        "memory|doctor" => encode::verbatim(out, protocol, MEMORY_DOCTOR),
        "slowlog|get" => slowlog_get(request, out),
        "slowlog|len" | "latency|reset" => encode::integer(out, 0),
        "latency|histogram" => encode::map(out, protocol, 0),
        "latency|doctor" => encode::verbatim(out, protocol, LATENCY_DOCTOR),
        "latency|graph" => encode::error(
            out,
            argument::naming("ERR No samples available for event '", request.arg(2), "'"),
        ),
        "asking" | "readonly" | "readwrite" => encode::error(out, NO_CLUSTER),
        _ if name.starts_with("cluster|") => encode::error(out, NO_CLUSTER),
        _ => encode::error(out, argument::not_supported(name)),
    }
}

/// There is no slow log, so it is empty; the count is checked as Redis does.
fn slowlog_get(request: &Request<'_>, out: &mut Vec<u8>) {
    let count = request.arg(2);
    match request.len() {
        2 => encode::array(out, 0),
        3 if parse_i64(count).is_some_and(|count| count >= -1) => encode::array(out, 0),
        3 => encode::error(out, "ERR count should be greater than or equal to -1"),
        _ => encode::error(out, argument::wrong_subcommand("SLOWLOG", request)),
    }
}

const NO_CLUSTER: &str = "ERR This instance has cluster support disabled";
const LATENCY_DOCTOR: &str = "Latency is not monitored here; ask the nodes.\n";
const MEMORY_DOCTOR: &str = "Memory is not analysed here; ask the nodes.\n";
