//! Twin test: the same requests to a live redis-server and to [`answer`], in both protocols, with
//! byte-equal replies. Ids, ages and the like are masked in both, see [`mask`].

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's failure is its report"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tally::command;
use tally::config::{self, Config, Secret};
use tally::limit::Catalogue;
use tally::resp::{Request, Span, encode};
use tally::session::local::{After, Local, NO_AUTH, allowed_before_auth, answer, finish_info};
use tally::session::{Directory, Pause, Registry, Scripts, Tracking};
use tally::telemetry::Stats;
use tokio::time::Instant;

use crate::redis_server::RedisServer;

const PASSWORD: &str = "s3cret";

#[test]
fn replies_equal_those_of_redis() {
    let redis = RedisServer::start();
    compare(&redis, None, OPEN);
}

#[test]
fn replies_equal_those_of_redis_behind_a_password() {
    let redis = RedisServer::start_with(&["--requirepass", PASSWORD]);
    compare(&redis, Some(PASSWORD), LOCKED);
}

#[test]
fn info_uses_names_and_order_that_redis_uses() {
    let redis = RedisServer::start();
    for section in [
        "server",
        "clients",
        "memory",
        "persistence",
        "stats",
        "replication",
        "cpu",
    ] {
        let script = [vec![b"INFO".to_vec(), section.as_bytes().to_vec()]];
        let theirs = field_names(&run(&redis, &script), ':');
        let mut unseen = theirs.iter();
        let ours = field_names(&run_here(None, &script), ':');
        assert!(ours.len() > 1, "{section}: {ours:?}");
        for name in ours {
            let found = unseen.any(|known| *known == name);
            assert!(found, "{section}: {name} is not in its place in {theirs:?}");
        }
    }
}

/// bull-board, Sidekiq's page, exporters for Prometheus and checks of servers take these without
/// asking whether they are there.
#[test]
fn info_has_what_dashboards_and_checks_read() {
    let all = [vec![b"INFO".to_vec()]];
    let ours = field_names(&run_here(None, &all), ':');
    for name in DASHBOARD_FIELDS.split_ascii_whitespace() {
        assert!(ours.iter().any(|known| known == name), "{name}: {ours:?}");
    }
}

const DASHBOARD_FIELDS: &str = r"
redis_version redis_mode os arch_bits multiplexing_api process_id tcp_port run_id
uptime_in_seconds uptime_in_days connected_clients blocked_clients used_memory used_memory_human
used_memory_rss used_memory_peak used_memory_peak_human used_memory_lua total_system_memory
total_system_memory_human maxmemory maxmemory_policy mem_fragmentation_ratio mem_allocator loading
rdb_changes_since_last_save rdb_bgsave_in_progress rdb_last_save_time rdb_last_bgsave_status
rdb_last_bgsave_time_sec rdb_current_bgsave_time_sec aof_enabled aof_rewrite_in_progress
aof_last_bgrewrite_status aof_last_write_status total_connections_received
total_commands_processed instantaneous_ops_per_sec rejected_connections expired_keys evicted_keys
keyspace_hits keyspace_misses pubsub_channels pubsub_patterns latest_fork_usec sync_full role
connected_slaves master_replid master_repl_offset repl_backlog_active used_cpu_sys used_cpu_user
used_cpu_sys_children used_cpu_user_children cluster_enabled
";

#[test]
fn client_info_has_the_fields_of_redis_and_later_ones() {
    let redis = RedisServer::start();
    let script = [vec![b"CLIENT".to_vec(), b"INFO".to_vec()]];
    let theirs = field_names(&run(&redis, &script), '=');
    let ours = field_names(&run_here(None, &script), '=');
    assert_eq!(ours[..theirs.len()], theirs);
    assert_eq!(ours[theirs.len()..], ["lib-name", "lib-ver"]);
}

/// Names of the fields of `INFO` or `CLIENT INFO`, in order.
fn field_names(reply: &[u8], separator: char) -> Vec<String> {
    let text = String::from_utf8_lossy(reply);
    let fields = text.split([' ', '\r', '\n']);
    let names = fields.filter_map(|field| field.split_once(separator));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// One connection per line; `;` between its requests, `''` is an empty argument, `_` stands for a
/// space in an argument, `\n` and `\0` for these bytes.
const OPEN: &str = r"
PING
ping
PING hello
PING a b
ECHO hi
ECHO ''
ECHO a\nb\0
ECHO
ECHO a b
QUIT
QUIT a b
QUIT ; PING
PING ; QUIT ; PING
RESET
RESET x
CLIENT SETNAME n ; RESET ; CLIENT GETNAME
HELLO 3 ; RESET ; CLIENT GETNAME
SELECT 0
SELECT -1
SELECT 15
SELECT 15 ; SELECT 16 ; CLIENT GETNAME
SELECT 15 ; RESET
SELECT 16
SELECT abc
SELECT 00
SELECT ''
SELECT -0
SELECT 99999999999
SELECT -99999999999
SELECT 99999999999999999999
SELECT
SELECT 0 1
HELLO
HELLO 2
HELLO 3
HELLO 3 ; HELLO 2 ; CLIENT GETNAME
HELLO 3 ; HELLO ; CLIENT GETNAME
HELLO 4
HELLO 1
HELLO -3
HELLO abc
HELLO 03
HELLO 3_
HELLO 99999999999999999999
HELLO 3 FOO
HELLO 3 F\nO
HELLO 3 AUTH
HELLO 3 AUTH a
HELLO 3 AUTH default x
HELLO 3 AUTH bad x
HELLO 3 AUTH Default x
HELLO 3 auth default x setname me ; CLIENT GETNAME
HELLO 3 SETNAME me AUTH default x ; CLIENT GETNAME
HELLO 3 SETNAME
HELLO 3 SETNAME a_b
HELLO 3 SETNAME ab ; CLIENT GETNAME
HELLO 2 SETNAME '' ; CLIENT GETNAME
CLIENT SETNAME old ; HELLO 2 SETNAME '' ; CLIENT GETNAME
HELLO 3 AUTH bad x SETNAME zz ; CLIENT GETNAME
HELLO 9 SETNAME zz ; CLIENT GETNAME
AUTH
AUTH x
AUTH default x
AUTH bad x
AUTH a b c
CLIENT
CLIENT ID
CLIENT id x
CLIENT INFO x
CLIENT LIST TYPE pubsub
CLIENT LIST TYPE master
CLIENT LIST TYPE replica
CLIENT LIST TYPE slave
CLIENT LIST TYPE foo
CLIENT LIST TYPE
CLIENT LIST TYPE normal x
CLIENT LIST ID
CLIENT LIST ID abc
CLIENT LIST ID 99999
CLIENT LIST ID -1
CLIENT LIST FOO bar
CLIENT SETNAME
CLIENT SETNAME a b
CLIENT SETNAME a_b
CLIENT SETNAME a\nb
CLIENT SETNAME \0
CLIENT SETNAME é
CLIENT SETNAME ''
CLIENT SETNAME ok ; CLIENT GETNAME ; CLIENT SETNAME '' ; CLIENT GETNAME
CLIENT SETNAME ok ; CLIENT SETNAME a_b ; CLIENT GETNAME
CLIENT GETNAME
CLIENT GETNAME x
CLIENT NO-EVICT ON
CLIENT NO-EVICT off
CLIENT NO-EVICT x
CLIENT NO-EVICT
CLIENT REPLY ON
CLIENT REPLY foo
CLIENT REPLY
CLIENT REPLY OFF ; PING ; CLIENT REPLY foo ; CLIENT REPLY SKIP ; PING ; CLIENT REPLY ON ; PING
CLIENT REPLY SKIP ; PING ; PING
CLIENT REPLY SKIP ; CLIENT REPLY SKIP ; PING ; PING
CLIENT REPLY SKIP ; CLIENT REPLY ON ; PING
CLIENT REPLY SKIP ; CLIENT REPLY OFF ; PING
CLIENT REPLY SKIP ; CLIENT REPLY foo ; PING
CLIENT REPLY OFF ; RESET ; PING
CLIENT REPLY SKIP ; RESET ; PING
CLIENT REPLY OFF ; QUIT ; PING
CLIENT KILL
CLIENT KILL 1.2.3.4:5
CLIENT KILL ID
CLIENT KILL ID 9999999
CLIENT KILL ID 0
CLIENT KILL ID -1
CLIENT KILL ID abc
CLIENT KILL ID 99999999999999999999
CLIENT KILL ID 9999999 TYPE
CLIENT KILL ID 9999999 FOO x
CLIENT KILL TYPE foo
CLIENT KILL TYPE pubsub
CLIENT KILL TYPE normal ADDR 1.2.3.4:5
CLIENT KILL USER nobody
CLIENT KILL USER default SKIPME foo
CLIENT KILL USER default
CLIENT KILL USER default SKIPME yes
CLIENT KILL USER default SKIPME no ; PING
CLIENT KILL ADDR 1.2.3.4:5
CLIENT KILL LADDR 1.2.3.4:5
CLIENT KILL FOO bar
CLIENT PAUSE
CLIENT PAUSE x
CLIENT PAUSE -1
CLIENT PAUSE 0
CLIENT PAUSE 1 x
CLIENT PAUSE 1 WRITE x
CLIENT UNPAUSE
CLIENT LIST TYPE pubsub
CLIENT TRACKING
CLIENT TRACKING OFF
CLIENT TRACKING OFF BCAST
CLIENT TRACKING OFF x
CLIENT TRACKING FOO
CLIENT TRACKINGINFO
CLIENT GETREDIR
CLIENT CACHING
CLIENT CACHING YES
CLIENT UNBLOCK 1
CLIENT UNBLOCK abc
CLIENT UNBLOCK abc foo
CLIENT UNBLOCK 1 foo
CLIENT UNBLOCK 1 error
CLIENT UNBLOCK 1 TIMEOUT x
CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type internal-fqdn
CLIENT FOO
CLIENT F\nO
CLIENT F\0O
CLIENT ''
CLIENT HELP x
CONFIG
CONFIG GET
CONFIG GET save
CONFIG GET SAVE
CONFIG GET appendonly
CONFIG GET timeout
CONFIG GET bind
CONFIG GET requirepass
CONFIG GET proto-max-bulk-len
CONFIG GET client-query-buffer-limit
CONFIG GET tcp-keepalive
CONFIG SET
CONFIG SET x
CONFIG SET x y
CONFIG SET x y z
CONFIG SET databases 4
CONFIG SET databases 4 databases 4
CONFIG SET tcp-keepalive 300
CONFIG SET appendonly no timeout 0
CONFIG SET timeout 0 TIMEOUT 0
CONFIG GET loglevel
CONFIG SET loglevel
CONFIG SET loglevel loud
CONFIG SET loglevel ''
CONFIG SET LOGLEVEL Notice
CONFIG SET DATABASES 4
CONFIG RESETSTAT
CONFIG RESETSTAT x
CONFIG REWRITE
CONFIG FOO
INFO foo
INFO modules
INFO cluster modules
INFO MODULES foo Cluster
INFO keyspace
INFO cluster keyspace
INFO foo bar
TIME
TIME x
SLOWLOG
SLOWLOG GET
SLOWLOG GET 5
SLOWLOG GET -1
SLOWLOG GET -2
SLOWLOG GET abc
SLOWLOG GET 1 2
SLOWLOG LEN
SLOWLOG LEN x
SLOWLOG RESET
SLOWLOG FOO
LATENCY
LATENCY LATEST
LATENCY HISTORY foo
LATENCY HISTORY
LATENCY RESET
LATENCY RESET a b
LATENCY GRAPH foo
LATENCY HISTOGRAM foo
LATENCY FOO
CLUSTER
CLUSTER INFO
CLUSTER INFO x
CLUSTER NODES
CLUSTER SLOTS
CLUSTER SHARDS
CLUSTER HELP
CLUSTER KEYSLOT
CLUSTER KEYSLOT k
CLUSTER SETSLOT 1
CLUSTER FOO
READONLY
READONLY x
READWRITE
ASKING
ACL WHOAMI
ACL WHOAMI x
ACL LIST
ACL LIST x
ACL USERS
ACL GETUSER default
HELLO 3 ; ACL GETUSER default ; ACL GETUSER nobody
ACL GETUSER nobody
ACL GETUSER
ACL DRYRUN default get k
ACL DRYRUN default get
ACL DRYRUN default foo
ACL DRYRUN default config
ACL DRYRUN nobody get k
ACL DRYRUN default
ROLE
";

/// As [`OPEN`], to a server with a password.
const LOCKED: &str = r"
PING
CLIENT ID
INFO keyspace
QUIT
HELLO
HELLO 3
HELLO 4
HELLO abc
HELLO 3 SETNAME x
HELLO 3 SETNAME a_b
HELLO 3 AUTH default wrong
HELLO 3 AUTH other s3cret
HELLO 3 AUTH default wrong ; PING
HELLO 3 AUTH default s3cret
HELLO 3 AUTH default s3cret ; PING ; CLIENT GETNAME
HELLO 3 AUTH default s3cret SETNAME me ; CLIENT GETNAME
AUTH s3cret
AUTH s3cret ; PING
AUTH default s3cret ; PING
AUTH wrong ; PING
AUTH s3cret ; AUTH wrong ; PING
AUTH ''
AUTH s3cre
AUTH s3cret\0
AUTH other s3cret
AUTH a b c
AUTH
AUTH s3cret ; HELLO 3 ; CLIENT GETNAME
AUTH s3cret ; RESET ; PING
RESET ; PING
CLIENT REPLY OFF ; PING
AUTH s3cret ; ACL LIST
AUTH s3cret ; ACL GETUSER default
";

/// Runs every script on both sides, from RESP2 and from RESP3, and reports all differences.
#[track_caller]
fn compare(redis: &RedisServer, password: Option<&str>, scripts: &str) {
    let mut differences = Vec::new();
    let mut requests = 0;
    for line in scripts.lines().filter(|line| !line.is_empty()) {
        for prefix in [&[][..], &[&b"HELLO"[..], b"3"]] {
            let mut script: Vec<Vec<Vec<u8>>> = Vec::new();
            if !prefix.is_empty() {
                script.push(prefix.iter().map(|arg| arg.to_vec()).collect());
            }
            script.extend(line.split(" ; ").map(parse_request));
            requests += script.len();
            let theirs = mask(line, &run(redis, &script));
            let ours = mask(line, &run_here(password, &script));
            if theirs != ours {
                let resp = if prefix.is_empty() { 2 } else { 3 };
                differences.push(format!(
                    "RESP{resp} {line}\n  redis: {theirs:?}\n  tally: {ours:?}"
                ));
            }
        }
    }
    assert!(requests >= 80 || password.is_some(), "{requests} requests");
    let count = differences.len();
    assert!(count == 0, "{count} differ\n{}", differences.join("\n"));
}

fn parse_request(text: &str) -> Vec<Vec<u8>> {
    let argument = |word: &str| {
        let word = if word == "''" { "" } else { word };
        // `_` belongs to a name that clients do send.
        let word = if word.starts_with("MAINT") {
            word.to_owned()
        } else {
            word.replace('_', " ")
        };
        word.replace(r"\n", "\n").replace(r"\0", "\0").into_bytes()
    };
    text.split_ascii_whitespace().map(argument).collect()
}

/// All replies to a pipelined script, as a session would send them.
fn run_here(password: Option<&str>, script: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let config = config(password);
    let stats = Stats::default();
    let directory = Directory::new(&config);
    let entry = directory.users().entry();
    let registry = Arc::new(Registry::new(10, entry));
    let tracking = Tracking::new(Arc::clone(&registry));
    let scripts = Scripts::new(Catalogue::new([]).unwrap());
    let users = directory.users();
    let now = Instant::now().into_std();
    let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let client = registry.register(addr(5000), addr(6380), now).unwrap();
    let pause = Pause::default();
    let local = Local {
        config: &config,
        stats: &stats,
        registry: &registry,
        users: &users,
        directory: &directory,
        client: &client,
        in_multi: false,
        nodes: &Vec::new,
        topics: &|_| 0,
        change_config: &|_| {},
        pause: &pause,
        tracking: &tracking,
        scripts: &scripts,
        run_id: "",
        started: now,
        now,
        wall: Duration::from_micros(1_700_000_000_123_456),
    };
    let mut sent = Vec::new();
    for request in script {
        let (mut wire, mut spans) = (Vec::new(), Vec::new());
        for arg in request {
            spans.push(Span {
                start: u32::try_from(wire.len()).unwrap(),
                len: u32::try_from(arg.len()).unwrap(),
            });
            wire.extend_from_slice(arg);
        }
        let request = Request::new(&wire, &spans);
        let mut reply = Vec::new();
        let mut closes = false;
        match command::lookup(&request) {
            Err(error) => encode::error(&mut reply, error.text(&request)),
            Ok(command) if !client.authenticated() && !allowed_before_auth(command.name) => {
                encode::error(&mut reply, NO_AUTH);
            }
            Ok(command) => match answer(&local, command.name, &request, &mut reply) {
                After::Continue | After::Reset | After::Monitor | After::Broadcast => {}
                After::Close => closes = true,
                After::Info(info) => finish_info(info, &[], &mut reply),
                After::NodeConfig(config) => panic!("no nodes here: {config:?}"),
                After::Unblock(blocked, _) => panic!("nobody waits here: {blocked:?}"),
            },
        }
        if client.finish_command() {
            sent.extend(reply);
        }
        if closes {
            break;
        }
    }
    sent
}

/// Replaces what two servers can not have in common: the client's id and times.
fn mask(line: &str, replies: &[u8]) -> String {
    let text = String::from_utf8_lossy(replies);
    let mask_all = matches!(line, "CLIENT ID" | "TIME");
    let mut masked = String::new();
    let mut previous = "";
    for part in text.split_inclusive("\r\n") {
        if mask_all || (previous == "id\r\n" && part.starts_with(':')) {
            let not_digit = |c: &char| !c.is_ascii_digit();
            masked.extend(part.chars().filter(not_digit));
        } else {
            masked.push_str(part);
        }
        previous = part;
    }
    masked
}

/// A configuration with the values that `CONFIG GET` of a plain Redis tells.
fn config(password: Option<&str>) -> Config {
    let text = r#"
        [server]
        listen = "127.0.0.1:6380"
        threads = 1
        output_buffer = "1MiB"
        [[nodes]]
        name = "a"
        address = "127.0.0.1:6379"
    "#;
    let mut config = config::parse(text, std::iter::empty()).unwrap();
    config.server.password = password.map(|text| Secret::new(text.to_owned()));
    config
}

/// All bytes that a pipelined script is answered with, until the server closes.
fn run(server: &RedisServer, script: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for request in script {
        encode::request(&mut wire, request);
    }
    let mut socket = TcpStream::connect(server.address()).unwrap();
    let limit = Some(Duration::from_secs(10));
    socket.set_read_timeout(limit).unwrap();
    socket.write_all(&wire).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut replies = Vec::new();
    match socket.read_to_end(&mut replies) {
        // Redis closes without reading what follows a QUIT.
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => replies,
    }
}
