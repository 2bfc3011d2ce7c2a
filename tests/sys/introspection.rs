//! `MONITOR` and `CLIENT PAUSE`, beside a plain Redis where it has the same to say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Stack, eventually, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::Redis;

/// The next line of a client in `MONITOR`, without its time and address.
#[track_caller]
fn shown(monitor: &mut Connection) -> String {
    let line = monitor.read_reply().text();
    let (_, rest) = line.split_once('[').unwrap();
    let (database, rest) = rest.split_once(' ').unwrap();
    let (_, command) = rest.split_once("] ").unwrap();
    format!("[{database}] {command}")
}

#[test]
fn monitor_shows_commands_and_hides_secrets() {
    let stack = Stack::start(&[]);
    let mut monitor = stack.connect();
    assert!(monitor.run("MONITOR").is_ok());
    let mut client = stack.connect();
    client.run("SET key value");
    client.call(&[b"SET".as_slice(), b"b\"\\\n\xff", b""]);
    client.run_all(&["INCR n", "INCR n", "INCR n", "MGET n key"]);
    client.run("NONSENSE");
    client.run("GET too many");
    client.run("AUTH secret");
    client.run("AUTH default secret");
    client.run("HELLO 2 AUTH default secret SETNAME me");
    client.run("CONFIG GET maxmemory");
    client.run("SELECT 1");
    client.run("GET key");
    for expected in [
        r#"[0] "SET" "key" "value""#,
        r#"[0] "SET" "b\"\\\n\xff" """#,
        r#"[0] "INCR" "n""#,
        r#"[0] "INCR" "n""#,
        r#"[0] "INCR" "n""#,
        r#"[0] "MGET" "n" "key""#,
        r#"[0] "AUTH" "(redacted)""#,
        r#"[0] "AUTH" "(redacted)" "(redacted)""#,
        r#"[0] "HELLO" "2" "AUTH" "(redacted)" "(redacted)" "SETNAME" "me""#,
    ] {
        assert_eq!(shown(&mut monitor), expected);
    }
    let select = shown(&mut monitor);
    assert!(select.ends_with(r#""SELECT" "1""#), "{select}");
    assert_eq!(shown(&mut monitor), r#"[1] "GET" "key""#);
    let list = client.run("CLIENT LIST").text();
    assert!(list.contains("flags=O"), "{list}");
    client.run_all(&["MULTI", "SET t 1", "EXEC"]);
    for expected in [r#"[1] "MULTI""#, r#"[1] "SET" "t" "1""#, r#"[1] "EXEC""#] {
        assert_eq!(shown(&mut monitor), expected);
    }
    monitor.run("RESET");
    client.run("GET key");
    assert_eq!(monitor.run("PING").text(), "PONG", "it watches no more");
}

#[test]
fn a_monitor_that_does_not_read_is_closed() {
    let stack = Stack::start(&[("server.output_buffer", "\"1MiB\"")]);
    let mut monitor = stack.connect();
    assert!(monitor.run("MONITOR").is_ok());
    let mut client = stack.connect();
    let value = vec![b'x'; 32 << 10];
    let closed = eventually(Duration::from_secs(20), || {
        client.call(&[b"ECHO".as_slice(), &value]);
        !client.run("CLIENT LIST").text().contains("flags=O")
    });
    assert!(closed, "it is kept");
}

/// Whether a reply comes at once.
fn answers(client: &mut Connection, line: &str) -> bool {
    client.set_patience(Duration::from_millis(300));
    client.send(&crate::connection::words(line));
    match client.try_read_frame() {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut
            ));
            client.set_patience(Duration::from_secs(10));
            false
        }
    }
}

#[test]
fn a_pause_of_writes_holds_writes_until_it_is_lifted() {
    let stack = Stack::start(&[]);
    let mut admin = stack.connect();
    admin.run_all(&["SET k v", "INCR n", "INCR n", "INCR n"]);
    assert!(admin.run("CLIENT PAUSE 60000 WRITE").is_ok());
    let mut held: Vec<_> = (0..5).map(|_| stack.connect()).collect();
    let lines = [
        "INCR n",
        "SET k w",
        "EVAL return(1) 0",
        "PUBLISH a b",
        "PFCOUNT h",
    ];
    for (client, line) in held.iter_mut().zip(lines) {
        assert!(!answers(client, line), "{line}");
    }
    let info = admin.run("INFO clients").text();
    assert!(info.contains("blocked_clients:5"), "{info}");
    for line in ["GET k", "PING", "EVAL_RO return(1) 0", "CLIENT LIST"] {
        assert!(!admin.run(line).is_error(), "{line}");
    }
    let flagged = ["EVAL", "#!lua flags=no-writes\nreturn 1", "0"];
    assert_eq!(admin.call(&flagged).integer(), 1);
    assert_eq!(admin.run("GET k").text(), "v");
    assert!(admin.run("CLIENT UNPAUSE").is_ok());
    let replies: Vec<_> = held.iter_mut().map(|client| client.read_reply()).collect();
    assert_eq!(replies[0], Reply::Integer(4));
    assert!(replies[1].is_ok());
    assert_eq!(admin.run("GET k").text(), "w");
}

#[test]
fn a_pause_of_writes_holds_transactions_that_write() {
    let stack = Stack::start(&[]);
    let mut admin = stack.connect();
    let (mut reader, mut writer) = (stack.connect(), stack.connect());
    reader.run_all(&["MULTI", "GET k"]);
    writer.run_all(&["MULTI", "SET k v"]);
    assert!(admin.run("CLIENT PAUSE 60000 WRITE").is_ok());
    assert!(answers(&mut reader, "EXEC"));
    assert!(!answers(&mut writer, "EXEC"));
    assert!(admin.run("CLIENT UNPAUSE").is_ok());
    assert!(writer.read_reply().elements()[0].is_ok());
}

#[test]
fn a_pause_of_everything_ends_by_itself() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    assert!(client.run("CLIENT PAUSE 900").is_ok());
    assert!(!answers(&mut client, "PING"));
    assert_eq!(client.read_reply().text(), "PONG");
    for (line, text) in [
        (
            "CLIENT PAUSE abc",
            "ERR timeout is not an integer or out of range",
        ),
        ("CLIENT PAUSE -1", "ERR timeout is negative"),
        (
            "CLIENT PAUSE 1 never",
            "ERR CLIENT PAUSE mode must be WRITE or ALL",
        ),
    ] {
        assert_eq!(client.run(line).text(), text);
    }
}

#[test]
fn a_stop_during_a_pause_answers_what_is_held() {
    let mut stack = Stack::start(&[]);
    if stack.tally.is_none() {
        return;
    }
    let mut client = stack.connect();
    assert!(client.run("CLIENT PAUSE 600000").is_ok());
    assert!(!answers(&mut client, "INCR n"));
    stack.stop_tally();
    assert_eq!(client.read_reply(), Reply::Integer(1));
}

#[test]
fn clients_are_listed_and_closed_by_type() {
    let stack = Stack::start(&[]);
    let mut listener = stack.connect();
    listener.run("SUBSCRIBE a");
    let mut client = stack.connect();
    let of_type = |client: &mut Connection, word: &str| {
        let list = client.call(&["CLIENT", "LIST", "TYPE", word]).text();
        list.lines().count()
    };
    assert_eq!(of_type(&mut client, "pubsub"), 1);
    assert_eq!(of_type(&mut client, "normal"), 1);
    assert_eq!(of_type(&mut client, "replica"), 0);
    assert_eq!(client.run("CLIENT KILL TYPE pubsub").integer(), 1);
    let gone = eventually(Duration::from_secs(5), || {
        of_type(&mut client, "pubsub") == 0
    });
    assert!(gone, "it is still there");
}

#[test]
fn who_quits_is_gone_though_its_end_stays_open() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let mut leaver = stack.connect();
    leaver.run("CLIENT TRACKING on");
    leaver.run("SUBSCRIBE a");
    assert!(
        client
            .run("INFO clients")
            .text()
            .contains("tracking_clients:1")
    );
    // It does not close its socket when it has read the reply.
    leaver.send(&["QUIT"]);
    leaver.read_frame();
    let info = client.run("INFO clients").text();
    assert!(info.contains("connected_clients:1\r\n"), "{info}");
    assert!(info.contains("tracking_clients:0\r\n"), "{info}");
    assert_eq!(client.run("CLIENT LIST").text().lines().count(), 1);
    assert_eq!(client.run("PUBSUB NUMSUB a").elements()[1].integer(), 0);
}

#[test]
fn what_keys_of_all_nodes_ended_adds_up() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let expired = |client: &mut Connection| {
        let info = client.run("INFO stats").text();
        let mut lines = info.lines();
        let value = lines.find_map(|line| line.strip_prefix("expired_keys:"));
        value.expect("a sum").parse::<u64>().expect("a number")
    };
    let before = expired(&mut client);
    for node in 0..2 {
        let key = stack.key_on(node, "ends");
        client.run(&format!("SET {key} 1 PX 1"));
    }
    let all = eventually(Duration::from_secs(5), || {
        expired(&mut client) == before + 2
    });
    assert!(all, "{}", expired(&mut client));
}

#[test]
fn what_is_logged_is_set_while_running() {
    let stack = Stack::start(&[("log.level", "\"warn,tally::ring=trace\"")]);
    let mut client = stack.connect();
    let level = |client: &mut Connection| {
        let pairs = client.run("CONFIG GET loglevel");
        pairs.elements()[1].text()
    };
    assert_eq!(level(&mut client), "warning");
    for word in ["debug", "verbose", "notice", "warning"] {
        assert!(client.run(&format!("CONFIG SET loglevel {word}")).is_ok());
        assert_eq!(level(&mut client), word);
    }
    assert!(client.run("CONFIG SET loglevel loud").is_error());
    assert_eq!(level(&mut client), "warning");
}

#[test]
fn what_is_saved_is_told_of_all_nodes() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let before = client.run("LASTSAVE").integer();
    // The moment is told in whole seconds.
    let save_later = |one: &mut Connection, limit| {
        let saved = |one: &mut Connection| {
            assert!(one.run("SAVE").is_ok());
            one.run("LASTSAVE").integer() > before
        };
        assert!(eventually(limit, || saved(one)));
    };
    let limit = Duration::from_secs(10);
    if stack.tally.is_some() {
        save_later(&mut stack.nodes[0].connect(), limit);
        let other = stack.nodes[1].connect().run("LASTSAVE").integer();
        assert_eq!(client.run("LASTSAVE").integer(), other);
    }
    save_later(&mut client, limit);
    let last = client.run("LASTSAVE").integer();
    let persistence = client.run("INFO persistence").text();
    let line = format!("rdb_last_save_time:{last}\r\n");
    assert!(persistence.contains(&line), "{persistence}");

    // One node with one key that takes its time is enough.
    let key = stack.key_on(0, "slow");
    assert!(client.run(&format!("SET {key} 1")).is_ok());
    let mut slow = stack.nodes[0].connect();
    let delay = "CONFIG SET rdb-key-save-delay 10000000";
    assert!(slow.run(delay).is_ok());
    assert!(!client.run("BGSAVE").is_error());
    let mut in_progress = || {
        let persistence = client.run("INFO persistence").text();
        persistence.contains("rdb_bgsave_in_progress:1\r\n")
    };
    assert!(in_progress());
}

/// What a node has of two parameters.
fn settings_of(node: &Redis) -> [String; 2] {
    let mut node = node.connect();
    ["maxmemory", "hz"].map(|name| {
        let pair = node.run(&format!("CONFIG GET {name}"));
        pair.elements()[1].text()
    })
}

#[test]
fn one_config_set_of_tally_and_its_nodes_sets_all_or_nothing() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[]);
    let mut client = stack.connect();
    let set = |client: &mut Connection, pairs: &str| {
        client.run_all(&[
            format!("CONFIG SET {pairs}"),
            "CONFIG GET slowlog-max-len".to_owned(),
        ])
    };
    let done = set(&mut client, "maxmemory 100mb slowlog-max-len 77 hz 20");
    assert!(done[0].is_ok(), "{done:?}");
    assert_eq!(done[1].elements()[1].text(), "77");
    let check = |stack: &Stack, client: &mut Connection, pairs: &str, nodes: usize, error: &str| {
        let refused = set(client, pairs);
        assert!(refused[0].text().contains(error), "{pairs}: {refused:?}");
        assert_eq!(refused[1].elements()[1].text(), "77", "{pairs}");
        for node in &stack.nodes[..nodes] {
            assert_eq!(settings_of(node), ["104857600", "20"], "{pairs}");
        }
    };
    let stays = "related to argument";
    check(
        &stack,
        &mut client,
        "maxmemory 1gb slowlog-max-len -5",
        2,
        stays,
    );
    check(
        &stack,
        &mut client,
        "slowlog-max-len 5 maxmemory many",
        2,
        stays,
    );
    check(
        &stack,
        &mut client,
        "slowlog-max-len 5 nosuch 1 hz 30",
        2,
        "Unknown option",
    );
    let mut node = stack.nodes[1].connect();
    node.run_ok("ACL SETUSER default -config|set");
    check(
        &stack,
        &mut client,
        "maxmemory 1gb hz 30 slowlog-max-len 5",
        2,
        "NOPERM",
    );
    check(&stack, &mut client, "maxmemory 1gb hz 30", 2, "NOPERM");
    stack.nodes[1].kill();
    check(
        &stack,
        &mut client,
        "slowlog-max-len 5 maxmemory 1gb hz 30",
        1,
        "unreachable",
    );
}

#[test]
fn config_get_knows_every_name_that_redis_knows_and_no_secret_of_a_node() {
    let stack = Stack::start(&[]);
    let redis = Redis::start(&[]);
    for node in &stack.nodes {
        node.connect()
            .run_ok("CONFIG SET masterauth hush lfu-log-factor 11");
    }
    for hello in ["HELLO 2", "HELLO 3"] {
        let mut clients = [stack.connect(), redis.connect()];
        let pairs = clients.each_mut().map(|client| {
            client.run(hello);
            let all = client.run("CONFIG GET *");
            let all = all.elements().chunks(2);
            all.map(|pair| (pair[0].text(), pair[1].text()))
                .collect::<BTreeMap<_, _>>()
        });
        let names = pairs
            .each_ref()
            .map(|pairs| pairs.keys().collect::<BTreeSet<_>>());
        let missing: Vec<_> = names[1].difference(&names[0]).collect();
        let more: Vec<_> = names[0].difference(&names[1]).collect();
        assert!(
            missing.is_empty() && more.is_empty(),
            "{missing:?}, {more:?}"
        );
        assert_eq!(pairs[0]["lfu-log-factor"], "11");
        assert!(!pairs[0].values().any(|value| value == "hush"), "{pairs:?}");
        let port = pairs[0]["port"].parse::<u16>().unwrap();
        assert_eq!(port, stack.address().port());
        let some = clients[0].run("CONFIG GET REPL-backlog-size port masterauth nosuch");
        let some: Vec<_> = some.elements().iter().map(Reply::text).collect();
        assert_eq!(some.len(), 6, "{some:?}");
        assert!(some.contains(&"REPL-backlog-size".to_owned()), "{some:?}");
    }
}
