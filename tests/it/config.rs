//! What a file and the environment may say, and what is said back when they are wrong.

#![expect(clippy::unwrap_used, reason = "a test's failure is its report")]

mod tls;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tally::config::{self, Config, Mode};
use tally::ring::Hash;

const TWO_NODES: &str = include_str!("../../config/minimal.toml");

/// Loads `text` after two nodes, with `env`.
fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, config::Faults> {
    parse(&format!("{text}\n{TWO_NODES}"), env)
}

fn parse(text: &str, env: &[(&str, &str)]) -> Result<Config, config::Faults> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    config::parse(text, env.iter().map(owned))
}

/// Loads `text` as it is and compares all the faults, a line each.
#[track_caller]
fn check_faults(text: &str, env: &[(&str, &str)], want: &[&str]) {
    let faults = parse(text, env).unwrap_err();
    let faults = faults.to_string();
    let got: Vec<_> = faults.lines().collect();
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
    "TALLY_COUNTER__MODE: unknown variable; allowed: TALLY_NODES, TALLY_SERVER__<KEY>, \
             TALLY_TLS__<KEY>, TALLY_RING__<KEY>, TALLY_COUNTERS__<KEY>, TALLY_CACHE__<KEY>, TALLY_JOURNAL__<KEY>, \
             TALLY_TRANSACTIONS__<KEY>, TALLY_UPSTREAM__<KEY>, \
             TALLY_ADMIN__<KEY>, TALLY_SLOWLOG__<KEY>, TALLY_LOG__<KEY>",
    "tracing: unknown key; allowed: server, tls, users, nodes, ring, counters, cache, rules, limit_scripts, routes, journal, transactions, upstream, admin, slowlog, log",
    "verbose: unknown key; allowed: server, tls, users, nodes, ring, counters, cache, rules, limit_scripts, routes, journal, transactions, upstream, admin, slowlog, log",
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
    let allowed = "allowed: server, tls, users, nodes, ring, counters, cache, rules, limit_scripts, routes, journal, transactions, upstream, admin, slowlog, log";
    check_section(
        "sharding = true",
        &[&format!("sharding: unknown key; {allowed}")],
    );
}

#[test]
fn a_rule_takes_what_it_does_not_say_from_the_rest() {
    let text = r#"
        rules = [{ match = "api:*", mode = "exact" }, { match = "h:*", cache_ttl = "0s" }]
        [counters]
        flush_interval = "250ms"
        [cache]
        ttl = "7s"
    "#;
    let config = load(text, &[("TALLY_COUNTERS__MODE", "through")]).unwrap();
    let told: Vec<_> = config
        .rules
        .iter()
        .map(|rule| {
            (
                rule.pattern.as_str(),
                rule.mode,
                rule.flush_interval,
                rule.cache_ttl,
            )
        })
        .collect();
    let ms = Duration::from_millis;
    assert_eq!(
        told,
        [
            ("api:*", Mode::Exact, ms(250), ms(7000)),
            ("h:*", Mode::Through, ms(250), ms(0)),
        ]
    );
    let rules = config.treatments();
    assert_eq!(rules.policy(b"api:1").mode, Mode::Exact);
    assert_eq!(rules.policy(b"other").mode, Mode::Through);
}

#[test]
fn all_faults_of_limit_scripts_are_reported_at_once() {
    let sha = "0123456789abcdef0123456789abcdef01234567";
    let good =
        format!("[[limit_scripts]]\nsha1 = \"{sha}\"\nlimit = 2\nttl = 1\nttl_unit = \"ms\"\n");
    let config = load(&good, &[]).unwrap();
    assert_eq!(config.limit_definitions().count(), 1);
    check_section(
        &format!(
            "{good}{good}[[limit_scripts]]\nsha1 = \"12\"\nlimit = 65\n[[limit_scripts]]\nttl_unit = \"h\""
        ),
        &[
            "limit_scripts[1].sha1: the same as limit_scripts[0].sha1",
            "limit_scripts[2].sha1: \"12\" is not allowed; allowed: the SHA-1 of the body, 40 hexadecimal digits",
            "limit_scripts[2].limit: 65 is not allowed; allowed: a whole number from 1 to 64",
            "limit_scripts[3].sha1: missing; allowed: the SHA-1 of the body, 40 hexadecimal digits",
            "limit_scripts[3].limit: missing; allowed: a whole number from 1 to 64",
            "limit_scripts[3].ttl_unit: \"h\" is not allowed; allowed: \"s\", \"ms\"",
        ],
    );
}

#[test]
fn all_faults_of_rules_are_reported_at_once() {
    let long = "x".repeat(1025);
    let text = format!(
        r#"
        [[rules]]
        mod = "exact"
        mode = "fast"
        [[rules]]
        match = ""
        flush_interval = "1ms"
        [[rules]]
        match = "{long}"
        cache_ttl = "2h"
    "#
    );
    let pattern = "a pattern as in KEYS, such as \"api:*\", of 1 to 1024 bytes";
    check_section(
        &text,
        &[
            "rules[0].mod: unknown key; allowed: match, mode, flush_interval, cache_ttl, window, local_grants",
            &format!("rules[0].match: missing; allowed: {pattern}"),
            "rules[0].mode: \"fast\" is not allowed; allowed: \"buffered\", \"exact\", \"through\"",
            &format!("rules[1].match: \"\" is not allowed; allowed: {pattern}"),
            "rules[1].flush_interval: \"1ms\" is not allowed; allowed: a duration from \"10ms\" to \
             \"1m\" (units ms, s, m, h)",
            &format!(
                "rules[2].match: {:?}... is not allowed; allowed: {pattern}",
                "x".repeat(60)
            ),
            "rules[2].cache_ttl: \"2h\" is not allowed; allowed: a duration from \"1ms\" to \"1h\" \
             (units ms, s, m, h), or \"0s\" for off",
        ],
    );
    check_section(
        "[[rules]]\nmatch = \"a\"\nwindow = \"2ms\"\n[[rules]]\nmatch = \"b\"\nmode = \"exact\"\nwindow = \"11ms\"",
        &[
            "rules[0].window: is for the mode \"exact\" only",
            "rules[1].window: \"11ms\" is not allowed; allowed: a duration from \"1ms\" to \"10ms\" \
             (units ms, s, m, h), or \"0s\" for off",
        ],
    );
    check_section(
        "[[rules]]\nmatch = \"a\"\nmode = \"exact\"\nlocal_grants = true",
        &["rules[0].local_grants: is for the mode \"buffered\" only"],
    );
    check_section(
        "rules = 1",
        &["rules: not a list of tables; write [[rules]]"],
    );
    let many = "[[rules]]\nmatch = \"a\"\n";
    assert!(load(&many.repeat(255), &[]).is_ok());
    check_section(
        &many.repeat(256),
        &["rules: 256 rules; allowed: at most 255"],
    );
    check_faults(
        TWO_NODES,
        &[("TALLY_RULES__MATCH", "a")],
        &[
            "TALLY_RULES__MATCH: unknown variable; allowed: TALLY_NODES, TALLY_SERVER__<KEY>, \
           TALLY_TLS__<KEY>, TALLY_RING__<KEY>, TALLY_COUNTERS__<KEY>, TALLY_CACHE__<KEY>, TALLY_JOURNAL__<KEY>, \
             TALLY_TRANSACTIONS__<KEY>, TALLY_UPSTREAM__<KEY>, \
           TALLY_ADMIN__<KEY>, TALLY_SLOWLOG__<KEY>, TALLY_LOG__<KEY>",
        ],
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
fn the_environment_wins_over_the_file() {
    let config = load(
        "[counters]\nflush_interval = \"2s\"\nmax_keys = 5",
        &[
            ("TALLY_COUNTERS__FLUSH_INTERVAL", "250ms"),
            ("TALLY_COUNTERS__MODE", "exact"),
            ("TALLY_SERVER__THREADS", "3"),
            ("TALLY_SERVER__PROTECTED", "false"),
            ("TALLY_SERVER__LISTEN", "0.0.0.0:0"),
            ("TALLY_SERVER__PASSWORD", "0123"),
            ("TALLY_RING__HASH", "fnv1a_64"),
            ("TALLY_RING__HASH_TAG", ""),
            ("TALLY_CACHE__TTL", "0"),
            ("PATH", "/bin"),
            ("TALLYHO", "is not ours"),
        ],
    )
    .unwrap();
    assert_eq!(config.counters.flush_interval, Duration::from_millis(250));
    assert_eq!(config.counters.max_keys, 5);
    assert_eq!(config.counters.mode, Mode::Exact);
    assert_eq!(config.server.threads, 3);
    assert!(!config.server.protected);
    assert_eq!(config.server.listen.unwrap().to_string(), "0.0.0.0:0");
    assert_eq!(config.server.password.unwrap().reveal(), "0123");
    assert_eq!(config.ring.hash, Hash::Fnv1a64);
    assert_eq!(config.ring.hash_tag, None);
    assert_eq!(config.cache.ttl, Duration::ZERO);
}

#[test]
fn the_node_variable_replaces_the_list() {
    let list = "a=10.0.0.1:7070:3, b=redis_7071:7071 ,c=[::1]:7072:2,";
    let config = load("", &[("TALLY_NODES", list)]).unwrap();
    let got: Vec<_> = config
        .nodes
        .iter()
        .map(|node| (&*node.name, &*node.address, node.weight))
        .collect();
    assert_eq!(
        got,
        [
            ("a", "10.0.0.1:7070", 3),
            ("b", "redis_7071:7071", 1),
            ("c", "[::1]:7072", 2)
        ]
    );

    check_faults(
        "",
        &[("TALLY_NODES", "a,b=h,c=h:1:0,d=:1,e=h:x")],
        &[
            "TALLY_NODES: \"a\" is not allowed; allowed: name=host:port or name=host:port:weight, \
         separated by commas",
            "TALLY_NODES: \"b=h\" is not allowed; allowed: name=host:port or name=host:port:weight, \
         separated by commas",
            "nodes[0].weight (TALLY_NODES): \"0\" is not allowed; allowed: a whole number from 1 to \
         1000",
            "nodes[1].address (TALLY_NODES): \":1\" is not allowed; allowed: host:port, such as \
         \"127.0.0.1:7070\"",
            "nodes[2].address (TALLY_NODES): \"h:x\" is not allowed; allowed: host:port, such as \
         \"127.0.0.1:7070\"",
        ],
    );
}

#[test]
fn stray_variables_are_faults() {
    let sections = "TALLY_NODES, TALLY_SERVER__<KEY>, TALLY_TLS__<KEY>, TALLY_RING__<KEY>, TALLY_COUNTERS__<KEY>, \
                    TALLY_CACHE__<KEY>, TALLY_JOURNAL__<KEY>, \
             TALLY_TRANSACTIONS__<KEY>, TALLY_UPSTREAM__<KEY>, TALLY_ADMIN__<KEY>, TALLY_SLOWLOG__<KEY>, TALLY_LOG__<KEY>";
    check_faults(
        TWO_NODES,
        &[
            ("TALLY_LISTEN", "127.0.0.1:1"),
            ("TALLY_CACHE__TLL", "1s"),
            ("TALLY_server__listen", "127.0.0.1:1"),
            ("TALLY_NODES__NAME", "a"),
            ("TALLY_", ""),
        ],
        &[
            &format!("TALLY_: unknown variable; allowed: {sections}"),
            "TALLY_CACHE__TLL: unknown variable; allowed: TALLY_CACHE__TTL, TALLY_CACHE__MAX_BYTES",
            &format!("TALLY_LISTEN: unknown variable; allowed: {sections}"),
            &format!("TALLY_NODES__NAME: unknown variable; allowed: {sections}"),
            "TALLY_server__listen: unknown variable; allowed: TALLY_SERVER__LISTEN, \
             TALLY_SERVER__THREADS, TALLY_SERVER__PROTECTED, TALLY_SERVER__PASSWORD, \
             TALLY_SERVER__PASSWORD_FILE, TALLY_SERVER__MAX_CLIENTS, TALLY_SERVER__IDLE_TIMEOUT, \
             TALLY_SERVER__MAX_BULK, TALLY_SERVER__QUERY_BUFFER, TALLY_SERVER__OUTPUT_BUFFER, \
             TALLY_SERVER__DATABASES, TALLY_SERVER__DRAIN_TIMEOUT",
        ],
    );
}

#[test]
fn other_machines_are_let_in_only_with_a_password_or_on_demand() {
    let open = "[server]\nlisten = \"0.0.0.0:6380\"";
    let refused = "server.listen: \"0.0.0.0:6380\" lets other machines in without a password; set \
                   server.password, server.password_file or [[users]], listen on a loopback \
                   address, or set server.protected = false";
    check_section(open, &[refused]);
    check_section(&format!("{open}\npassword = \"\""), &[refused]);
    for sound in [
        "[server]\nlisten = \"0.0.0.0:6380\"\npassword = \"x\"",
        "[server]\nlisten = \"0.0.0.0:6380\"\nprotected = false",
        "[server]\nlisten = \"[::1]:6380\"",
        "[server]\nlisten = \"127.0.0.2:6380\"",
    ] {
        assert!(load(sound, &[]).is_ok(), "{sound}");
    }
}

#[test]
fn the_http_side_is_let_open_only_with_a_token_or_on_demand() {
    check_section(
        "[admin]\nlisten = \"0.0.0.0:9380\"",
        &[
            "admin.listen: \"0.0.0.0:9380\" lets other machines in without a token; set admin.token \
           or admin.token_file, listen on a loopback address, or set server.protected = false",
        ],
    );
    check_section(
        "[admin]\nlisten = \"localhost:9380\"",
        &[
            "admin.listen: \"localhost:9380\" is not allowed; allowed: IP:port, such as \
           \"127.0.0.1:9380\", or \"off\"",
        ],
    );
    for (sound, want) in [
        (
            "[admin]\nlisten = \"0.0.0.0:1\"\ntoken = \"x\"",
            Some("0.0.0.0:1"),
        ),
        (
            "[server]\nprotected = false\n[admin]\nlisten = \"0.0.0.0:1\"",
            Some("0.0.0.0:1"),
        ),
        ("[admin]\nlisten = \"[::1]:1\"", Some("[::1]:1")),
        ("[admin]\nlisten = \"off\"", None),
        ("[admin]\nlisten = \"\"", None),
        ("", Some("127.0.0.1:9380")),
    ] {
        let listen = load(sound, &[]).unwrap().admin.listen;
        let listen = listen.map(|listen| listen.to_string());
        assert_eq!(listen.as_deref(), want, "{sound}");
    }
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

#[test]
fn passwords_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "hunter2\nsecond line\n").unwrap();
    let file = file.to_str().unwrap();
    let text = format!("[server]\npassword_file = {file:?}");
    for text in [&text, &format!("{text}\npassword = \"\"")] {
        let config = load(text, &[]).unwrap();
        assert_eq!(config.server.password.unwrap().reveal(), "hunter2");
    }

    check_section(
        &format!("{text}\npassword = \"x\""),
        &["server.password_file: given together with password; allowed: one of the two"],
    );
    fs::write(file, "\n").unwrap();
    check_section(
        &text,
        &[&format!(
            "server.password_file: the first line of {file:?} is empty"
        )],
    );
}

#[test]
fn a_route_names_a_node_or_the_ring() {
    let text = r#"routes = [{ match = "views:*" }, { match = "*", node = "redis_7071" }]"#;
    let config = load(text, &[]).unwrap();
    let routes = config.routes.iter();
    let told: Vec<_> = routes
        .map(|route| (route.pattern.as_str(), route.node.as_deref()))
        .collect();
    assert_eq!(told, [("views:*", None), ("*", Some("redis_7071"))]);
    assert!(config.ring.families_together);
    let spread = load("", &[("TALLY_RING__FAMILIES", "spread")]).unwrap();
    assert!(!spread.ring.families_together);
}

#[test]
fn all_faults_of_routes_are_reported_at_once() {
    let pattern = "a pattern as in KEYS, such as \"jobs:*\", of 1 to 1024 bytes";
    check_section(
        "ring.families = \"apart\"\n[[routes]]\nto = \"redis_7070\"\nnode = \"redis_1\"\n[[routes]]\nmatch = \"\"",
        &[
            "ring.families: \"apart\" is not allowed; allowed: \"together\" or \"spread\"",
            "routes[0].to: unknown key; allowed: match, node",
            &format!("routes[0].match: missing; allowed: {pattern}"),
            "routes[0].node: \"redis_1\" is not allowed; allowed: the name of a node \
             (\"redis_7070\", \"redis_7071\"), or \"\" for the ring",
            &format!("routes[1].match: \"\" is not allowed; allowed: {pattern}"),
        ],
    );
    let many = "[[routes]]\nmatch = \"a\"\n";
    assert!(load(&many.repeat(255), &[]).is_ok());
    check_section(
        &many.repeat(256),
        &["routes: 256 routes; allowed: at most 255"],
    );
}

#[test]
fn what_is_printed_loads_again() {
    let text = r#"
        [server]
        listen = "0.0.0.0:7000"
        protected = false
        max_bulk = 1000000
        query_buffer = "65537"
        idle_timeout = "90s"
        [ring]
        hash_tag = "\"\\"
        families = "spread"
        [counters]
        mode = "through"
        [cache]
        ttl = "0s"
        [[rules]]
        match = 'a:\[x]*"'
        mode = "exact"
        [[rules]]
        match = "*"
        flush_interval = "1m"
        cache_ttl = "1h"
        [[routes]]
        match = 'b:\[x]*"'
        node = 'odd"name\'
        [[routes]]
        match = "c"
        [admin]
        listen = "off"
        visits_prefix = "v:\"ö"
        [log]
        level = "warn,tally::node=trace"
        [[nodes]]
        name = 'odd"name\'
        address = "[::1]:1"
        database = 3
        username = "a\u0001\u007f\tö"
        weight = 7
    "#;
    for text in [text, TWO_NODES] {
        let config = parse(text, &[]).unwrap();
        let printed = config.to_toml();
        let again = parse(&printed, &[]).unwrap();
        assert_eq!(everything(&again), everything(&config), "{printed}");
        assert_eq!(again.to_toml(), printed);
    }
}

#[test]
fn what_is_printed_has_every_key_but_the_password_files() {
    let lists = "[[rules]]\nmatch = \"a\"\n[[routes]]\nmatch = \"a\"\n[[users]]\nname = \"a\"\npassword = \"p\"\n\
                 [[limit_scripts]]\nsha1 = \"0123456789abcdef0123456789abcdef01234567\"\nlimit = 1";
    let printed = load(lists, &[]).unwrap().to_toml();
    for (section, key) in config::keys().filter(|(_, key)| !key.ends_with("_file")) {
        let line = format!("\n{key} = ");
        assert!(
            printed.contains(&line),
            "{section}.{key} is missing:\n{printed}"
        );
    }
}

#[test]
fn secrets_are_masked_wherever_a_configuration_is_shown() {
    let text = "[server]\npassword = \"hunter2\"\n[[nodes]]\nname = \"a\"\naddress = \"h:1\"\n\
                password = \"hunter3\"\n[admin]\ntoken = \"hunter4\"";
    let config = parse(text, &[]).unwrap();
    for shown in [config.to_toml(), format!("{config:?}")] {
        assert!(!shown.contains("hunter"), "{shown}");
        assert_eq!(shown.matches("<masked>").count(), 3, "{shown}");
    }
    let faults = parse(&format!("{text}\nlisten = 0"), &[]).unwrap_err();
    assert!(!faults.to_string().contains("hunter"), "{faults}");
}

#[test]
fn all_faults_of_users_are_reported_at_once() {
    let categories = "\"read\", \"write\", \"script\", \"admin\"";
    let name = "1 to 255 visible ASCII characters, and not \"default\"";
    check_section(
        "[[users]]
        password = \"p\"
        [[users]]
        name = \"default\"
        password = \"p\"
        allow = [\"read\", \"all\"]
        [[users]]
        name = \"a\"
        password = \"hunter2\"
        password_sha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"
        keys = \"*\"
        [[users]]
        name = \"a\"
        password_sha256 = \"hunter2\"
        [[users]]
        name = \"b\"",
        &[
            &format!("users[0].name: missing; allowed: {name}"),
            &format!("users[1].name: \"default\" is not allowed; allowed: {name}"),
            &format!(
                "users[1].allow: not allowed; allowed: a list of at most 100, of {categories}"
            ),
            "users[2].password_sha256: given together with another password; allowed: one of them",
            "users[2].keys: not allowed; allowed: a list of at most 100, of patterns as in KEYS, of \
             1 to 1024 bytes",
            "users[3].password_sha256: not allowed; allowed: 64 hexadecimal digits, as ACL SETUSER \
             takes after #",
            "users[3].name: \"a\" is the name of users[2] too",
            "users[4].password: missing; allowed: password, password_file, password_sha256 or password_argon2",
        ],
    );
    let text =
        "[server]\nlisten = \"0.0.0.0:6380\"\n[[users]]\nname = \"a\"\npassword = \"hunter2\"";
    let config = load(text, &[]).unwrap();
    let printed = config.to_toml();
    assert!(!printed.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    assert!(parse(&printed, &[]).is_ok(), "{printed}");
}
