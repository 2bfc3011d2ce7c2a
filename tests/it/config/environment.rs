//! Variables beside a file, and in its place.

use std::time::Duration;

use tally::config::Mode;
use tally::ring::Hash;

use super::{TWO_NODES, check_faults, load};

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
            "TALLY_: unknown variable; allowed: <VARIABLES>",
            "TALLY_CACHE__TLL: unknown variable; allowed: TALLY_CACHE__TTL, TALLY_CACHE__MAX_BYTES",
            "TALLY_LISTEN: unknown variable; allowed: <VARIABLES>",
            "TALLY_NODES__NAME: unknown variable; allowed: <VARIABLES>",
            "TALLY_server__listen: unknown variable; allowed: TALLY_SERVER__LISTEN, \
             TALLY_SERVER__THREADS, TALLY_SERVER__PROTECTED, TALLY_SERVER__PASSWORD, \
             TALLY_SERVER__PASSWORD_FILE, TALLY_SERVER__MAX_CLIENTS, TALLY_SERVER__IDLE_TIMEOUT, \
             TALLY_SERVER__MAX_BULK, TALLY_SERVER__QUERY_BUFFER, TALLY_SERVER__OUTPUT_BUFFER, \
             TALLY_SERVER__DATABASES, TALLY_SERVER__DRAIN_TIMEOUT",
        ],
    );
}
