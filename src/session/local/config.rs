//! `CONFIG`: shows what benchmarks, exporters and frameworks ask for, under Redis's names. Nothing
//! can be set while running.

use super::Local;
use super::argument::{self, SYNTAX_ERROR};
use crate::glob::{self, Case};
use crate::resp::{Request, encode};

/// Any subcommand but `HELP`; its arity is right.
pub(super) fn run(local: &Local<'_>, subcommand: &str, request: &Request<'_>, out: &mut Vec<u8>) {
    match subcommand {
        "get" => get(local, request, out),
        "set" => set(local, request, out),
        "resetstat" => {
            local.stats.reset();
            encode::simple(out, "OK");
        }
        "rewrite" => encode::error(out, "ERR The server is running without a config file"),
        _ => {
            super::help::write("config|help", out);
        }
    }
}

/// Every parameter that matches one of the patterns, once. A name without wildcards is shown as
/// it was asked for (`CONFIG GET SAVE`), because Redis does and clients look it up in the map.
fn get(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    let matching: Vec<(&[u8], String)> = parameters(local)
        .into_iter()
        .filter_map(|(name, value)| {
            let shown = request.args().skip(2).find_map(|pattern| {
                if argument::is(pattern, name) {
                    Some(pattern)
                } else {
                    glob::matches(pattern, name.as_bytes(), Case::Ignored)
                        .then_some(name.as_bytes())
                }
            });
            shown.map(|shown| (shown, value))
        })
        .collect();
    encode::map(out, local.protocol(), matching.len());
    for (name, value) in matching {
        encode::bulk(out, name);
        encode::bulk(out, value.as_bytes());
    }
}

/// The answer to `CONFIG SET`, in the words that Redis has for what can not be set.
fn set(local: &Local<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    if !request.len().is_multiple_of(2) {
        return encode::error(out, SYNTAX_ERROR);
    }
    let known = parameters(local);
    let is_known = |name: &[u8]| known.iter().any(|(known, _)| argument::is(name, known));
    let names = || request.args().skip(2).step_by(2);
    let text = match names().find(|name| !is_known(name)) {
        Some(unknown) => argument::naming(
            "ERR Unknown option or number of arguments for CONFIG SET - '",
            unknown,
            "'",
        ),
        None => argument::naming(
            "ERR CONFIG SET failed (possibly related to argument '",
            request.arg(2),
            "') - can't set immutable config",
        ),
    };
    encode::error(out, text);
}

/// Parameters in force, by Redis's names; what Tally has not is shown as turned off.
fn parameters(local: &Local<'_>) -> Vec<(&'static str, String)> {
    let server = &local.config.server;
    let timeout = server.idle_timeout.map_or(0, |timeout| timeout.as_secs());
    let output = server.output_buffer_bytes;
    let password = match &server.password {
        Some(_) => "<masked>",
        None => "",
    };
    let no = || "no".to_owned();
    let zero = || "0".to_owned();
    vec![
        ("appendonly", no()),
        ("bind", server.listen.ip().to_string()),
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
        ("databases", "1".to_owned()),
        ("io-threads", server.threads.to_string()),
        ("latency-monitor-threshold", zero()),
        ("latency-tracking", no()),
        ("maxclients", server.max_clients.to_string()),
        ("maxmemory", zero()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", String::new()),
        ("port", local.client.laddr.port().to_string()),
        ("proto-max-bulk-len", server.max_bulk_bytes.to_string()),
        ("requirepass", password.to_owned()),
        ("save", String::new()),
        // A negative threshold is how Redis turns the slow log off.
        ("slowlog-log-slower-than", "-1".to_owned()),
        ("slowlog-max-len", zero()),
        ("tcp-keepalive", "300".to_owned()),
        ("timeout", timeout.to_string()),
    ]
}
