//! Pools of twemproxy become configurations, and what Tally can not do is said.
//!
//! That keys stay where they are is in `ring.rs`.

use tally::config::{self, Config};
use tally::twemproxy::{ImportError, import};

#[track_caller]
fn imported(text: &str) -> (Config, String) {
    let import = import(text, None).unwrap_or_else(|error| panic!("{error}"));
    let config = config::parse(&import.toml, std::iter::empty());
    let config = config.unwrap_or_else(|faults| panic!("{faults}\n{}", import.toml));
    (config, import.differs.join("\n"))
}

#[track_caller]
fn refused(text: &str) -> String {
    import(text, None).unwrap_err().to_string()
}

const POOL: &str = r#"
alpha:
  listen: 0.0.0.0:22121
  hash: murmur
  hash_tag: "{}"
  distribution: ketama
  auto_eject_hosts: true
  timeout: 400
  client_connections: 500
  server_retry_timeout: 2000
  server_failure_limit: 1
  server_connections: 4
  preconnect: true
  redis: true
  redis_auth: pa"ss
  redis_db: 3
  servers:
   - 10.0.0.1:6379:1
   - redis-b:6380:7 second
   - 10.0.0.3:11211:2
"#;

#[test]
fn what_a_pool_says_is_kept() {
    let (config, differs) = imported(POOL);
    let nodes: Vec<_> = config
        .nodes
        .iter()
        .map(|node| (&*node.name, &*node.address, node.weight, node.database))
        .collect();
    // Without a name a server is placed by its address, and at 11211 by its host alone.
    let want = [
        ("10.0.0.1:6379", "10.0.0.1:6379", 1, 3),
        ("second", "redis-b:6380", 7, 3),
        ("10.0.0.3", "10.0.0.3:11211", 2, 3),
    ];
    assert_eq!(nodes, want);
    assert_eq!(config.ring.hash.name(), "murmur");
    assert_eq!(config.ring.hash_tag, Some((b'{', b'}')));
    assert!(!config.ring.families_together);
    assert_eq!(config.server.max_clients, 500);
    assert_eq!(config.upstream.request_timeout.as_millis(), 400);
    let listen = config.server.listen;
    assert!(
        format!("{listen:?}").contains("0.0.0.0:22121"),
        "{listen:?}"
    );
    for node in &config.nodes {
        assert_eq!(node.password.as_ref().unwrap().reveal(), "pa\"ss");
    }
    for said in [
        "auto_eject_hosts",
        "server_connections",
        "preconnect",
        "redis_auth",
    ] {
        assert!(differs.contains(said), "{said}: {differs}");
    }
}

#[test]
fn defaults_are_those_of_twemproxy() {
    let (config, differs) = imported(
        "p:\n  listen: 127.0.0.1:22121\n  redis: true\n  servers:\n   - 127.0.0.1:6379:1\n",
    );
    assert_eq!(config.ring.hash.name(), "fnv1a_64");
    assert_eq!(config.ring.hash_tag, None);
    assert!(config.server.protected);
    assert!(differs.contains("hash_tag: none"), "{differs}");
}

#[test]
fn what_would_move_keys_is_refused_with_all_reasons() {
    let text = refused(
        "p:\n  listen: 127.0.0.1:1\n  distribution: modula\n  servers:\n   - nonsense\n   - a:1:1\n",
    );
    let socket = "p:\n  listen: /tmp/p\n  redis: true\n  servers:\n   - /tmp/a.sock:1 a\n";
    assert!(refused(socket).contains("/tmp/a.sock:1 a\": a Unix socket"));
    for said in ["distribution modula", "memcached", "\"nonsense\""] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(refused("p:\n  redis: true\n  distribution: random\n").contains("random"));
    let heavy = "p:\n  listen: 127.0.0.1:1\n  redis: true\n  servers:\n   - a:1:5000\n";
    assert!(refused(heavy).contains("weight"), "{}", refused(heavy));
}

#[test]
fn one_pool_of_several_is_chosen_by_name() {
    let pool = |name: &str| {
        format!("{name}:\n  listen: 127.0.0.1:1\n  redis: true\n  servers:\n   - {name}:1:1\n")
    };
    let text = [pool("one"), pool("two")].concat();
    assert!(
        matches!(import(&text, None), Err(ImportError::Several(names)) if names == ["one", "two"])
    );
    assert!(import(&text, Some("two")).unwrap().toml.contains("two:1"));
    assert!(matches!(
        import(&text, Some("three")),
        Err(ImportError::NoPool { .. })
    ));
    for text in ["", "[1, 2]", "a: {b: [}", "just text"] {
        assert!(import(text, None).is_err(), "{text}");
    }
}
