//! What a file and the environment may say, and what is said back when they are wrong.

#![expect(clippy::unwrap_used, reason = "a test's failure is its report")]

mod environment;
mod lists;
mod printed;
mod security;
mod tls;

use std::fs;
use std::path::Path;

use tally::config::{self, Config};

const TWO_NODES: &str = include_str!("../../config/minimal.toml");

/// What a file may have at its top.
const SECTIONS: &str = "server, tls, users, nodes, ring, counters, cache, rules, limit_scripts, \
                        routes, journal, transactions, upstream, admin, slowlog, log";

/// Which variables there may be.
const VARIABLES: &str = "TALLY_NODES, TALLY_SERVER__<KEY>, TALLY_TLS__<KEY>, TALLY_RING__<KEY>, \
                         TALLY_COUNTERS__<KEY>, TALLY_CACHE__<KEY>, TALLY_JOURNAL__<KEY>, \
                         TALLY_TRANSACTIONS__<KEY>, TALLY_UPSTREAM__<KEY>, TALLY_ADMIN__<KEY>, \
                         TALLY_SLOWLOG__<KEY>, TALLY_LOG__<KEY>";

/// Loads `text` after two nodes, with `env`.
fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, config::Faults> {
    parse(&format!("{text}\n{TWO_NODES}"), env)
}

fn parse(text: &str, env: &[(&str, &str)]) -> Result<Config, config::Faults> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    config::parse(text, env.iter().map(owned))
}

/// Loads `text` as it is and compares all the faults, a line each. `<SECTIONS>` and `<VARIABLES>`
/// stand for the lists of them.
#[track_caller]
fn check_faults(text: &str, env: &[(&str, &str)], want: &[&str]) {
    let faults = parse(text, env).unwrap_err();
    let faults = faults.to_string();
    let got: Vec<_> = faults.lines().collect();
    let whole = |line: &&str| {
        let line = line.replace("<SECTIONS>", SECTIONS);
        line.replace("<VARIABLES>", VARIABLES)
    };
    let want: Vec<_> = want.iter().map(whole).collect();
    assert_eq!(got, want);
}

/// As [`check_faults`], with two sound nodes added.
#[track_caller]
fn check_section(text: &str, want: &[&str]) {
    check_faults(&format!("{text}\n{TWO_NODES}"), &[], want);
}

/// Everything that a configuration says; [`Config`] has no `==`, since passwords are part of it.
fn everything(config: &Config) -> String {
    format!("{config:?}")
}

#[test]
fn default_toml_says_what_holds_without_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default.toml");
    let stated = config::load(Some(&path), std::iter::empty()).unwrap();
    let built_in = load("", &[]).unwrap();
    assert_eq!(everything(&stated), everything(&built_in));
}

#[test]
fn default_toml_mentions_every_key() {
    let text = fs::read_to_string("config/default.toml").unwrap();
    let mut section = "";
    let mut mentioned = Vec::new();
    for line in text.lines() {
        // Rules are shown, and none is given.
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']);
        } else if let Some((key, _)) = line.split_once(" = ") {
            mentioned.push((section, key));
        }
    }
    let missing: Vec<_> = config::keys()
        .filter(|key| !mentioned.contains(key))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_file_in_config_loads() {
    for name in ["default", "minimal", "docker"] {
        let path = format!("config/{name}.toml");
        let loaded = config::load(Some(Path::new(&path)), std::iter::empty());
        assert_eq!(loaded.unwrap().nodes.len(), 2, "{path}");
    }
}

/// A fault in almost every line.
const FAULTY: &str = r#"
        verbose = true
        [server]
        listen = "localhost"
        threads = 300
        lisen = "127.0.0.1:6380"
        max_bulk = "512mb"
        [[nodes]]
        name = "a b"
        weight = 0
        port = 7070
        [[nodes]]
        name = "a"
        address = "127.0.0.1:0"
        [[nodes]]
        name = "a"
        address = "127.0.0.1:7070"
        [ring]
        distribution = "modula"
        hash = "sha1"
        hash_tag = "{"
        [counters]
        mode = "fast"
        flush_interval = "1ms"
        [cache]
        ttl = 5
        [upstream]
        request_timeout = "40s"
        backoff_min = "10s"
        [tracing]
        level = 1
        [log]
        level = "inof"
    "#;

/// What is wrong in [`FAULTY`], and in two variables.
const ITS_FAULTS: &[&str] = &[
    "TALLY_COUNTER__MODE: unknown variable; allowed: <VARIABLES>",
    "tracing: unknown key; allowed: <SECTIONS>",
    "verbose: unknown key; allowed: <SECTIONS>",
    "server.lisen: unknown key; allowed: listen, threads, protected, password, \
             password_file, max_clients, idle_timeout, max_bulk, query_buffer, output_buffer, \
             databases, drain_timeout",
    "server.listen: \"localhost\" is not allowed; allowed: IP:port, such as \
             \"127.0.0.1:6380\", \"0.0.0.0:6380\" or \"[::1]:6380\", or \"off\"",
    "server.threads: 300 is not allowed; allowed: a whole number from 0 to 256",
    "server.max_bulk: \"512mb\" is not allowed; allowed: a size from \"1KiB\" to \
             \"4GiB\" (bytes, or units KB, MB, GB, KiB, MiB, GiB)",
    "nodes[0].port: unknown key; allowed: name, address, weight, database, username, \
             password, password_file, tls, tls_ca_file, tls_cert_file, tls_key_file, \
             tls_server_name",
    "nodes[0].name: \"a b\" is not allowed; allowed: 1 to 255 visible ASCII characters \
             without a space",
    "nodes[0].address: missing; allowed: host:port, such as \"127.0.0.1:7070\"",
    "nodes[0].weight: 0 is not allowed; allowed: a whole number from 1 to 1000",
    "nodes[1].address: \"127.0.0.1:0\" is not allowed; allowed: host:port, such as \
             \"127.0.0.1:7070\"",
    "nodes[2].name: \"a\" is the name of nodes[1] too",
    "ring.distribution: \"modula\" is not allowed; allowed: \"ketama\"",
    "ring.hash: \"sha1\" is not allowed; allowed: \"xxh3_64\", \"fnv1a_64\", \"fnv1_64\", \
     \"fnv1a_32\", \"fnv1_32\", \"md5\", \"crc16\", \"crc32\", \"crc32a\", \"hsieh\", \"murmur\", \
     \"jenkins\", \"one_at_a_time\"",
    "ring.hash_tag: \"{\" is not allowed; allowed: two ASCII characters, such as \"{}\", \
             or \"\" for none",
    "counters.mode: \"fast\" is not allowed; allowed: \"buffered\", \"exact\", \"through\"",
    "counters.flush_interval: \"1ms\" is not allowed; allowed: a duration from \
                 \"10ms\" to \"1m\" (units ms, s, m, h)",
    "cache.ttl: 5 is not allowed; allowed: a duration from \"1ms\" to \"1h\" \
                 (units ms, s, m, h), or \"0s\" for off",
    "cache.max_bytes (TALLY_CACHE__MAX_BYTES): \"lots\" is not allowed; allowed: a size \
             from \"64KiB\" to \"1024GiB\" (bytes, or units KB, MB, GB, KiB, MiB, GiB)",
    "upstream.hard_timeout: \"30s\" is less than upstream.request_timeout, which is \
             \"40s\"",
    "upstream.backoff_max: \"5s\" is less than upstream.backoff_min, which is \"10s\"",
    "log.level: \"inof\" is not allowed; allowed: one of off, error, warn, info, debug, \
             trace, or a list such as \"info,tally::node=debug\"",
];

#[test]
fn all_faults_of_a_file_are_reported_at_once() {
    let env = [
        ("TALLY_CACHE__MAX_BYTES", "lots"),
        ("TALLY_COUNTER__MODE", "exact"),
    ];
    check_faults(FAULTY, &env, ITS_FAULTS);
}

#[test]
fn keys_that_are_not_built_are_unknown() {
    check_section(
        "sharding = true",
        &["sharding: unknown key; allowed: <SECTIONS>"],
    );
}

#[test]
fn a_fault_is_one_line_whatever_the_key() {
    let allowed = "allowed: ttl, max_bytes";
    check_section(
        "[cache]\n\"a\\nb\" = 1\n\"\" = 1",
        &[
            &format!("cache.\"\": unknown key; {allowed}"),
            &format!("cache.\"a\\nb\": unknown key; {allowed}"),
        ],
    );
}

#[test]
fn values_of_the_wrong_kind_are_faults() {
    check_section(
        "cache = 5\n[server]\nthreads = \"4\"\nprotected = \"no\"\nlisten = 6380\n\
         max_clients = -1\npassword = 1234\nidle_timeout = [1]",
        &[
            "server.listen: 6380 is not allowed; allowed: IP:port, such as \"127.0.0.1:6380\", \
             \"0.0.0.0:6380\" or \"[::1]:6380\", or \"off\"",
            "server.threads: \"4\" is not allowed; allowed: a whole number from 0 to 256",
            "server.protected: \"no\" is not allowed; allowed: true or false",
            "server.password: not text; put the password in quotes",
            "server.idle_timeout: a list is not allowed; allowed: a duration from \"10ms\" to \
             \"24h\" (units ms, s, m, h), or \"0s\" for never",
            "server.max_clients: -1 is not allowed; allowed: a whole number from 1 to 1000000",
            "cache: 5 is not a table; write [cache]",
        ],
    );
    for text in ["nodes = 5", "nodes = [\"127.0.0.1:7070\"]"] {
        check_faults(text, &[], &["nodes: not a list of tables; write [[nodes]]"]);
    }
}

#[test]
fn nodes_are_needed_and_differ() {
    let none = "nodes: none given; allowed: at least one, as [[nodes]] or in TALLY_NODES";
    check_faults("", &[], &[none]);
    check_faults("nodes = []", &[], &[none]);
    check_faults(
        TWO_NODES,
        &[("TALLY_NODES", "")],
        &["nodes (TALLY_NODES): none given; allowed: at least one, as [[nodes]] or in TALLY_NODES"],
    );
    let twice =
        "[[nodes]]\nname = \"a\"\naddress = \"h:1\"\n[[nodes]]\nname = \"b\"\naddress = \"h:1\"";
    check_faults(
        twice,
        &[],
        &["nodes[1].address: \"h:1\" is the address of nodes[0] too"],
    );
}

#[test]
fn syntax_errors_have_a_place_and_do_not_quote_the_line() {
    let faults = parse("[server]\npassword = \"hunter2\n", &[])
        .unwrap_err()
        .to_string();
    assert!(faults.contains("line 2, column"), "{faults}");
    assert!(!faults.contains("hunter2"), "{faults}");
    assert_eq!(faults.lines().count(), 1, "{faults}");

    let twice = parse("[log]\nlevel = \"info\"\nlevel = \"debug\"", &[]).unwrap_err();
    assert!(twice.to_string().contains("line 3, column 1"), "{twice}");

    let huge = "[server]\nthreads = 1\nmax_clients = 99999999999999999999\ndatabases = 1\n";
    let huge = parse(huge, &[]).unwrap_err().to_string();
    assert!(huge.contains("at line 3: number too large"), "{huge}");
}

#[test]
fn a_missing_file_is_a_fault_that_names_it() {
    let missing = config::load(Some(Path::new("no/such.toml")), std::iter::empty());
    let fault = missing.unwrap_err().to_string();
    assert!(
        fault.starts_with("no/such.toml: can not be read: "),
        "{fault}"
    );
}

#[test]
fn an_address_is_listened_on_once() {
    check_section(
        "[server]\nlisten = \"127.0.0.1:1\"\n[admin]\nlisten = \"127.0.0.1:1\"",
        &["admin.listen: \"127.0.0.1:1\" is taken by server.listen"],
    );
    check_section(
        "server.listen = \"127.0.0.1:1\"\nserver.protected = false\nadmin.listen = \"0.0.0.0:1\"",
        &["admin.listen: \"0.0.0.0:1\" is taken by server.listen"],
    );
    for (one, other) in [
        ("127.0.0.1:1", "127.0.0.1:2"),
        ("127.0.0.1:1", "[::1]:1"),
        ("127.0.0.1:1", "127.0.0.2:1"),
        ("127.0.0.1:0", "127.0.0.1:0"),
    ] {
        let text = format!("server.listen = {one:?}\nadmin.listen = {other:?}");
        assert!(load(&text, &[]).is_ok(), "{one} {other}");
    }
}
