//! Answers that no live Redis can be asked for: passwords, nodes, other clients, bounds.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant as Clock;

use super::*;
use crate::command;
use crate::config::{self, Secret};
use crate::limit::Catalogue;
use crate::resp::Span;
use crate::session::Gate;
use crate::telemetry::NodeState;
use crate::telemetry::histogram::Sample;

/// One Tally without sockets.
struct Setup {
    config: Config,
    stats: Stats,
    registry: Arc<Registry>,
    tracking: Tracking,
    scripts: Scripts,
    directory: Directory,
    nodes: Vec<NodeStatus>,
    started: Instant,
}

impl Setup {
    fn new(password: Option<&str>) -> Self {
        let entry = if password.is_some() {
            Gate::Outside
        } else {
            Gate::Open
        };
        let registry = Arc::new(Registry::new(10, entry));
        Self {
            config: config(password),
            stats: Stats::default(),
            tracking: Tracking::new(Arc::clone(&registry)),
            scripts: Scripts::new(Catalogue::new([]).unwrap()),
            registry,
            directory: Directory::new(&config(password)),
            nodes: vec![node("a", "7.2.4"), node("b", "7.0.9")],
            started: Clock::now().into_std(),
        }
    }

    fn connect(&self) -> Arc<Client> {
        let port = u16::try_from(5000 + self.registry.count()).unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let laddr = SocketAddr::from(([127, 0, 0, 1], 6380));
        self.registry.register(addr, laddr, self.started).unwrap()
    }

    fn ask(&self, client: &Client, args: &[&str]) -> (String, After) {
        let nodes = || self.nodes.clone();
        let local = Local {
            config: &self.config,
            stats: &self.stats,
            registry: &self.registry,
            users: &self.directory.users(),
            directory: &self.directory,
            client,
            in_multi: false,
            nodes: &nodes,
            topics: &|_| 0,
            change_config: &|_| {},
            pause: &Pause::default(),
            tracking: &self.tracking,
            scripts: &self.scripts,
            run_id: "0123456789abcdef0123456789abcdef01234567",
            started: self.started,
            now: self.started + Duration::from_secs(90_000),
            wall: Duration::from_micros(1_700_000_000_000_042),
        };
        let (mut wire, mut spans) = (Vec::new(), Vec::new());
        for arg in args {
            spans.push(Span {
                start: u32::try_from(wire.len()).unwrap(),
                len: u32::try_from(arg.len()).unwrap(),
            });
            wire.extend_from_slice(arg.as_bytes());
        }
        let mut out = Vec::new();
        let request = Request::new(&wire, &spans);
        let after = match command::lookup(&request) {
            Ok(command) => answer(&local, command.name, &request, &mut out),
            Err(error) => {
                encode::error(&mut out, error.text(&request));
                After::Continue
            }
        };
        (String::from_utf8(out).unwrap(), after)
    }

    #[track_caller]
    fn check(&self, client: &Client, args: &[&str], reply: &str) {
        let (got, after) = self.ask(client, args);
        assert_eq!(got, reply, "{args:?}");
        assert!(matches!(after, After::Continue), "{args:?}: {after:?}");
    }

    /// An `INFO` text, finished with the keys of one node.
    fn info(&self, sections: &[&str]) -> String {
        let args = [&["info"], sections].concat();
        match self.ask(&self.connect(), &args) {
            (reply, After::Info(info)) => {
                assert_eq!(reply, "");
                let mut out = Vec::new();
                let node = NodeKeyspace {
                    told: b"db0:keys=5,expires=0,avg_ttl=0\r\n",
                    first: 0,
                    databases: 16,
                    own: Vec::new(),
                };
                finish_info(info, &[node], &mut out);
                String::from_utf8(out).unwrap()
            }
            (reply, _) => reply,
        }
    }
}

fn config(password: Option<&str>) -> Config {
    let text = r#"
        [server]
        listen = "127.0.0.1:6380"
        threads = 2
        max_clients = 10
        [[nodes]]
        name = "a"
        address = "127.0.0.1:6379"
    "#;
    let mut config = config::parse(text, std::iter::empty()).unwrap();
    config.server.output_buffer_bytes = 2048;
    config.server.password = password.map(|text| Secret::new(text.to_owned()));
    config
}

fn node(name: &str, version: &str) -> NodeStatus {
    NodeStatus {
        name: name.to_owned(),
        address: "127.0.0.1:7070".to_owned(),
        state: NodeState::Connected,
        redis_version: Some(version.to_owned()),
        valkey_version: None,
        run_id: None,
        in_flight: 1,
        unsent_bytes: 2,
        requests: 3,
        errors: 4,
        keys: 5,
        pending_keys: 6,
        reconnects: 7,
        batches: 0,
        batches_unanswered: 0,
        pending_for: Duration::ZERO,
        reply_times: Sample::default(),
        tracking: true,
    }
}

#[test]
fn clients_are_told_the_lowest_version_of_the_nodes() {
    let mut setup = Setup::new(None);
    let client = setup.connect();
    let (reply, _) = setup.ask(&client, &["HELLO"]);
    assert!(
        reply.contains("$7\r\nversion\r\n$5\r\n7.0.9\r\n"),
        "{reply}"
    );
    assert!(setup.info(&["server"]).contains("redis_version:7.0.9\r\n"));
    setup.nodes.clear();
    let (reply, _) = setup.ask(&client, &["HELLO"]);
    assert!(reply.contains("$6\r\n7.0.15\r\n"), "{reply}");
}

#[test]
fn valkeys_are_told_of_where_all_nodes_are_some() {
    let mut setup = Setup::new(None);
    let valkey = |version: &str| NodeStatus {
        valkey_version: Some(version.to_owned()),
        ..node("v", "7.2.4")
    };
    let unknown = NodeStatus {
        redis_version: None,
        ..node("u", "")
    };
    setup.nodes = vec![valkey("9.1.0"), unknown.clone(), valkey("8.10.2")];
    let text = setup.info(&["server"]);
    let lines = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.10.2\r\n";
    assert!(text.contains(lines), "{text}");
    for nodes in [vec![valkey("9.1.0"), node("a", "7.2.4")], vec![unknown]] {
        setup.nodes = nodes;
        let text = setup.info(&["server"]);
        assert!(!text.contains("valkey"), "{text}");
    }
}

#[test]
fn a_refused_hello_changes_nothing() {
    let setup = Setup::new(Some("pw"));
    let client = setup.connect();
    for args in [
        &["HELLO", "3", "SETNAME", "x"][..],
        &["HELLO", "3", "AUTH", "default", "no", "SETNAME", "x"],
        &["HELLO", "3", "AUTH", "default", "pw", "SETNAME", "a b"],
        &["HELLO", "3", "AUTH", "default", "pw", "SETNAME"],
        &["HELLO", "4", "AUTH", "default", "pw"],
    ] {
        let (reply, _) = setup.ask(&client, args);
        assert!(reply.starts_with('-'), "{args:?}: {reply}");
        assert!(!client.authenticated(), "{args:?}");
        assert_eq!(client.name(), None, "{args:?}");
        assert_eq!(client.protocol(), Protocol::Resp2, "{args:?}");
    }
    assert_eq!(setup.stats.errors_replied.get(), 5);
}

#[test]
fn setinfo_is_that_of_redis_7_2() {
    let setup = Setup::new(None);
    let client = setup.connect();
    setup.check(&client, &["CLIENT", "SETINFO", "LIB-NAME", "py"], "+OK\r\n");
    setup.check(&client, &["CLIENT", "SETINFO", "lib-ver", "8.1"], "+OK\r\n");
    setup.check(
        &client,
        &["CLIENT", "SETINFO", "LIB-VER", "8 1"],
        "-ERR LIB-VER cannot contain spaces, newlines or special characters.\r\n",
    );
    setup.check(
        &client,
        &["CLIENT", "SETINFO", "colour", "red"],
        "-ERR Unrecognized option 'colour'\r\n",
    );
    setup.check(
        &client,
        &["CLIENT", "SETINFO", "lib-ver"],
        "-ERR wrong number of arguments for 'client|setinfo' command\r\n",
    );
    let (reply, _) = setup.ask(&client, &["CLIENT", "INFO"]);
    assert!(reply.contains(" lib-name=py lib-ver=8.1"), "{reply}");
}

#[test]
fn no_touch_is_that_of_redis_7_2() {
    let setup = Setup::new(None);
    let client = setup.connect();
    setup.check(&client, &["CLIENT", "NO-TOUCH", "on"], "+OK\r\n");
    setup.check(
        &client,
        &["CLIENT", "NO-TOUCH", "x"],
        "-ERR syntax error\r\n",
    );
}

#[test]
fn kill_cancels_others_and_closes_itself_after_the_reply() {
    let setup = Setup::new(None);
    let (one, two, three) = (setup.connect(), setup.connect(), setup.connect());
    setup.check(&one, &["CLIENT", "KILL", "ID", "2"], ":1\r\n");
    assert!(two.kill.is_cancelled());
    setup.check(&one, &["CLIENT", "KILL", "ID", "2"], ":0\r\n");
    assert!(!three.kill.is_cancelled());
    setup.check(&one, &["CLIENT", "KILL", "127.0.0.1:5002"], "+OK\r\n");
    assert!(three.kill.is_cancelled());
    setup.check(&one, &["CLIENT", "KILL", "ID", "1"], ":0\r\n");
    let (reply, after) = setup.ask(&one, &["CLIENT", "KILL", "127.0.0.1:5000"]);
    assert_eq!(reply, "+OK\r\n");
    assert!(matches!(after, After::Close));
    assert!(!one.kill.is_cancelled(), "the reply would be lost");
}

#[test]
fn kill_by_age_is_that_of_redis_7_4() {
    let setup = Setup::new(None);
    let (one, two) = (setup.connect(), setup.connect());
    let kill = |age: &str, reply: &str| {
        setup.check(&one, &["CLIENT", "KILL", "MAXAGE", age], reply);
    };
    kill("abc", "-ERR maxage is not an integer or out of range\r\n");
    kill("0", "-ERR maxage should be greater than 0\r\n");
    kill("-1", "-ERR maxage should be greater than 0\r\n");
    kill("90001", ":0\r\n");
    assert!(!two.kill.is_cancelled());
    kill("90000", ":1\r\n");
    assert!(two.kill.is_cancelled());
}

#[test]
fn a_list_is_bounded_by_the_output_limit() {
    let setup = Setup::new(None);
    let client = setup.connect();
    let mut args = vec!["CLIENT", "LIST", "ID"];
    args.extend(vec!["1"; 1000]);
    let (reply, _) = setup.ask(&client, &args);
    let limit = setup.config.server.output_buffer_bytes;
    assert!(reply.len() > limit && reply.len() < limit + 1000);
}

#[test]
fn a_name_is_bounded() {
    let setup = Setup::new(None);
    let client = setup.connect();
    let long = "n".repeat(1025);
    setup.check(
        &client,
        &["CLIENT", "SETNAME", &long],
        "-ERR Client names cannot exceed 1024 bytes.\r\n",
    );
    setup.check(&client, &["CLIENT", "SETNAME", &long[1..]], "+OK\r\n");
}

#[test]
fn resetstat_starts_the_counters_anew() {
    let setup = Setup::new(None);
    let client = setup.connect();
    setup.stats.commands_processed.add(9);
    setup.check(&client, &["CONFIG", "RESETSTAT"], "+OK\r\n");
    assert_eq!(setup.stats.commands_processed.get(), 0);
}

#[test]
fn config_get_takes_patterns_and_shows_each_parameter_once() {
    let setup = Setup::new(Some("pw"));
    let client = setup.connect();
    setup.check(
        &client,
        &["CONFIG", "GET", "SAVE", "slowlog-max-len", "save"],
        "*4\r\n$4\r\nSAVE\r\n$0\r\n\r\n$15\r\nslowlog-max-len\r\n$3\r\n128\r\n",
    );
    let (reply, after) = setup.ask(&client, &["CONFIG", "GET", "*"]);
    assert_eq!(reply, "");
    let After::NodeConfig(config) = after else {
        panic!("{after:?}");
    };
    assert!(config.wire().starts_with(b"*"));
    let mut out = Vec::new();
    let told = b"%2\r\n$11\r\nrequirepass\r\n$4\r\nhush\r\n$10\r\nMASTERAUTH\r\n$4\r\nhush\r\n";
    config.finish([&told[..]].into_iter(), &mut out);
    let reply = String::from_utf8(out).unwrap();
    assert!(!reply.contains("pw") && !reply.contains("hush"), "{reply}");
    assert!(reply.contains("<masked>"), "{reply}");
}

/// What the client gets for a `CONFIG` that the nodes answer so.
#[track_caller]
fn check_node_config(args: &[&str], wire: &str, nodes: &[&str], reply: &str) {
    let setup = Setup::new(None);
    let (nothing, after) = setup.ask(&setup.connect(), args);
    assert_eq!(nothing, "");
    let After::NodeConfig(config) = after else {
        panic!("{args:?}: {after:?}");
    };
    // The tests' requests are their arguments without the protocol around them.
    assert_eq!(String::from_utf8_lossy(config.wire()), wire);
    let mut out = Vec::new();
    config.finish(nodes.iter().map(|frame| frame.as_bytes()), &mut out);
    assert_eq!(String::from_utf8_lossy(&out), reply, "{args:?}");
}

#[test]
fn parameters_of_the_nodes_are_asked_of_and_set_on_them() {
    let get = ["CONFIG", "GET", "SET-max-intset-entries", "save"];
    let wire = "*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$22\r\nSET-max-intset-entries\r\n";
    let told = "%1\r\n$22\r\nSET-max-intset-entries\r\n$3\r\n512\r\n";
    let whole = "%2\r\n$4\r\nsave\r\n$0\r\n\r\n$22\r\nSET-max-intset-entries\r\n$3\r\n512\r\n";
    check_node_config(&get, wire, &[told, told], whole);
    check_node_config(&get, wire, &["-ERR away\r\n", told], whole);
    let own = "%1\r\n$4\r\nsave\r\n$0\r\n\r\n";
    check_node_config(&get, wire, &["-ERR away\r\n"], own);
}

/// What a `CONFIG SET` sends to the nodes, asks them before, and sets here.
#[track_caller]
fn check_config_set(args: &[&str], nodes: [&[&str]; 2], own: Option<&[&str]>) {
    let setup = Setup::new(None);
    let (nothing, after) = setup.ask(&setup.connect(), args);
    assert_eq!(nothing, "");
    let After::NodeConfig(config) = after else {
        panic!("{args:?}: {after:?}");
    };
    let wires = nodes.map(|args| {
        let mut wire = Vec::new();
        encode::request(&mut wire, args);
        wire
    });
    assert_eq!(
        [config.wire(), config.before().unwrap()],
        [&*wires[0], &*wires[1]]
    );
    let own = own.map(|own| {
        own.iter()
            .map(|arg| arg.as_bytes().to_vec())
            .collect::<Vec<_>>()
    });
    assert_eq!(config.own_settings(), own.as_deref());
}

#[test]
fn config_set_is_taken_apart_for_the_nodes_and_tally() {
    check_config_set(
        &["CONFIG", "SET", "maxmemory", "1"],
        [
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "GET", "maxmemory"],
        ],
        None,
    );
    check_config_set(
        &[
            "CONFIG",
            "SET",
            "timeout",
            "5",
            "maxmemory",
            "1",
            "save",
            "",
            "HZ",
            "20",
        ],
        [
            &["CONFIG", "SET", "maxmemory", "1", "HZ", "20"],
            &["CONFIG", "GET", "maxmemory", "HZ"],
        ],
        Some(&["CONFIG", "SET", "timeout", "5", "save", ""]),
    );
    let setup = Setup::new(None);
    let request = ["CONFIG", "SET", "maxmemory", "1", "timeout", "-1"];
    let error = "-ERR CONFIG SET failed (possibly related to argument 'timeout') - \
                 argument must be between 0 and 86400 inclusive\r\n";
    setup.check(&setup.connect(), &request, error);
}

#[test]
fn what_redis_has_and_tally_has_not_is_a_clear_error() {
    let setup = Setup::new(None);
    let client = setup.connect();
    let refused = "-ERR DEBUG is not supported by Tally\r\n";
    setup.check(&client, &["DEBUG", "SLEEP", "1"], refused);
}

#[test]
fn info_has_what_clients_and_exporters_look_for() {
    let text = Setup::new(None).info(&[]);
    for line in [
        "# Server",
        "redis_mode:standalone",
        "tcp_port:6380",
        "uptime_in_seconds:90000",
        "uptime_in_days:1",
        "connected_clients:1",
        "maxclients:10",
        "blocked_clients:0",
        "loading:0",
        "role:master",
        "connected_slaves:0",
        "cluster_enabled:0",
        "total_commands_processed:0",
        "instantaneous_ops_per_sec:0",
        "maxmemory_policy:noeviction",
        "node1:name=b,address=127.0.0.1:7070,state=connected,redis_version=7.0.9,keys=5,\
         pending_keys=6,tracking=1,in_flight=1,unsent_bytes=2,requests=3,errors=4,reconnects=7,reason=",
        "mode:buffered",
        "# Keyspace",
        "db0:keys=5,expires=0,avg_ttl=0",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
    }
    for line in text.lines().skip(1) {
        let is_field = line.contains(':') || line.starts_with('#') || line.is_empty();
        assert!(is_field, "{line}");
    }
}

#[test]
fn info_sections_can_be_chosen() {
    let setup = Setup::new(None);
    let headers = |sections: &[&str]| -> Vec<String> {
        let text = setup.info(sections);
        let headers = text.lines().filter(|line| line.starts_with('#'));
        headers.map(|line| line[2..].to_owned()).collect()
    };
    assert_eq!(headers(&["nosuch"]), [""; 0]);
    assert_eq!(headers(&["cluster", "SERVER", "no"]), ["Server", "Cluster"]);
    assert_eq!(headers(&["keyspace"]), ["Keyspace"]);
    assert_eq!(headers(&["default"]), headers(&[]));
    assert!(!headers(&[]).contains(&"Commandstats".to_owned()));
    let all = headers(&["all"]);
    assert!(all.contains(&"Commandstats".to_owned()));
    assert_eq!(headers(&["everything"]), all);
}

#[test]
fn a_nodes_reason_can_not_add_fields() {
    let mut setup = Setup::new(None);
    setup.nodes = vec![NodeStatus {
        state: NodeState::Down {
            reason: "refused, x=1\r\nrole:slave".to_owned(),
        },
        ..node("a", "7.0.15")
    }];
    let text = setup.info(&["nodes"]);
    assert!(text.contains("state=down,"), "{text}");
    assert!(
        text.contains("reason=refused; x=1;;role:slave\r\n"),
        "{text}"
    );
    assert!(text.contains("nodes_connected:0\r\n"), "{text}");
}

#[test]
fn only_the_way_in_is_open_before_auth() {
    for name in ["auth", "hello", "quit", "reset"] {
        assert!(allowed_before_auth(name), "{name}");
    }
    for name in ["ping", "client|id", "info", "get"] {
        assert!(!allowed_before_auth(name), "{name}");
    }
}
