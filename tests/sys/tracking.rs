//! `CLIENT TRACKING`: the messages beside a plain Redis, and that a client which keeps what it reads
//! never keeps what is not so any more.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clients::Program;
use crate::connection::Connection;
use crate::harness::{Stack, eventually, skipped_on_bare_redis};
use crate::random::Random;
use crate::reply::Reply;
use crate::servers::{Redis, is_other_server};
use crate::steps::{self, Step};

/// Two connections see the same from Tally as from a plain Redis; the first speaks RESP3.
#[track_caller]
fn check(steps: &[Step<'_>]) {
    steps::check(["HELLO 3", "PING"], steps);
}

#[test]
fn reads_are_noted_until_their_key_changes_as_on_redis() {
    check(&[
        (0, "CLIENT TRACKING ON", "0"),
        (1, "SET k 1", "1"),
        (1, "SET unread 1", "1"),
        (0, "GET k", "0"),
        (1, "INCR unread", "1"),
        (1, "SET k 2", "10"),
        // Told once, until it is read again.
        (1, "SET k 3", "1"),
        (0, "GET k", "0"),
        (1, "INCR k", "10"),
        (0, "GET k", "0"),
        (1, "INCR k", "10"),
        (1, "INCR k", "1"),
        (0, "MGET k unread missing", "0"),
        (1, "DEL k", "10"),
        (1, "SET missing 1", "10"),
        (0, "STRLEN missing", "0"),
        (1, "EXPIRE missing 100", "10"),
        (0, "TTL missing", "0"),
        (1, "PERSIST missing", "10"),
        // Its own changes are told behind their replies.
        (0, "GET k", "0"),
        (0, "SET k own", "00"),
        (0, "GET k", "0"),
        (0, "MULTI", "0"),
        (0, "APPEND k x", "0"),
        (0, "EXEC", "00"),
        (0, "MULTI", "0"),
        (0, "GET k", "0"),
        (0, "EXEC", "0"),
        (1, "GETDEL k", "10"),
        (0, "GET k", "0"),
        (1, "FLUSHDB", "10"),
        (0, "CLIENT TRACKING OFF", "0"),
        (0, "GET k", "0"),
        (1, "SET k 1", "1"),
        (0, "PING", "0"),
    ]);
}

#[test]
fn options_are_as_on_redis() {
    check(&[
        (0, "CLIENT CACHING YES", "0"),
        (0, "CLIENT TRACKING ON OPTIN", "0"),
        (0, "CLIENT TRACKINGINFO", "0"),
        (0, "CLIENT CACHING NO", "0"),
        (0, "GET k", "0"),
        (1, "SET k 1", "1"),
        (0, "CLIENT CACHING YES", "0"),
        (0, "CLIENT TRACKINGINFO", "0"),
        (0, "GET k", "0"),
        (1, "SET k 2", "10"),
        (0, "GET k", "0"),
        (1, "SET k 3", "1"),
        (0, "CLIENT CACHING YES", "0"),
        (0, "MULTI", "0"),
        (0, "GET k", "0"),
        (0, "EXEC", "0"),
        (1, "SET k 4", "10"),
        (0, "CLIENT TRACKING ON OPTOUT", "0"),
        (0, "CLIENT TRACKING OFF", "0"),
        (0, "CLIENT TRACKING ON OPTOUT", "0"),
        (0, "CLIENT CACHING YES", "0"),
        (0, "CLIENT CACHING NO", "0"),
        (0, "GET k", "0"),
        (1, "SET k 5", "1"),
        (0, "GET k", "0"),
        (1, "SET k 6", "10"),
        (0, "CLIENT TRACKING OFF", "0"),
        (0, "CLIENT TRACKING ON NOLOOP", "0"),
        (0, "CLIENT TRACKINGINFO", "0"),
        (0, "MGET k l{k}", "0"),
        (0, "INCR k", "0"),
        (1, "SET l{k} 1", "10"),
        // Its own writes that change nothing leave what it keeps.
        (0, "GET k", "0"),
        (0, "SET k 7 NX", "0"),
        (0, "RENAME {k}missing k", "0"),
        (1, "SET k 8", "10"),
        (1, "SET k 9", "1"),
        (0, "CLIENT TRACKING OFF", "0"),
        (0, "CLIENT TRACKING ON BCAST PREFIX ab PREFIX a", "0"),
        (0, "CLIENT TRACKING ON PREFIX a", "0"),
        (0, "CLIENT TRACKING ON BCAST OPTIN", "0"),
        (0, "CLIENT TRACKING ON OPTIN OPTOUT", "0"),
        (0, "CLIENT TRACKING ON REDIRECT x", "0"),
        (0, "CLIENT TRACKING ON REDIRECT 1000000", "0"),
        (0, "CLIENT TRACKING MAYBE", "0"),
        (0, "CLIENT GETREDIR", "0"),
    ]);
}

#[test]
fn prefixes_are_as_on_redis() {
    // A flush is told too, whenever it comes.
    let settings = [("counters.mode", "\"exact\"")];
    let steps = [
        (0, "CLIENT TRACKING ON BCAST PREFIX b: PREFIX a:", "0"),
        (0, "CLIENT TRACKINGINFO", "0"),
        (1, "SET a:1 x", "10"),
        (1, "SET c:1 x", "1"),
        (1, "INCR b:1", "10"),
        (1, "INCR b:1", "10"),
        (1, "INCR b:1", "10"),
        (0, "INCR b:1", "00"),
        (0, "GET b:1", "0"),
        (1, "MSET a:{t}1 x b:{t}2 y a:{t}3 z", "100"),
        // Each key once in a message, in order.
        (1, "UNLINK a:{t}3 a:{t}1", "10"),
        (1, "MULTI", "1"),
        (1, "SET a:{t}2 x", "1"),
        (1, "EXPIRE a:{t}2 100", "1"),
        (1, "SET a:{t}1 x", "1"),
        (1, "EXEC", "10"),
        (0, "CLIENT TRACKING ON BCAST PREFIX c:", "0"),
        (0, "CLIENT TRACKING ON BCAST PREFIX a", "0"),
        (0, "CLIENT TRACKING ON BCAST PREFIX \"\"", "0"),
        (0, "CLIENT TRACKING ON", "0"),
        (1, "DEL c:1", "10"),
        (1, "FLUSHALL", "10"),
    ];
    steps::check_with(&settings, ["HELLO 3", "PING"], &steps);
}

/// A client that speaks RESP2 has another connection told.
#[test]
fn messages_are_redirected_as_on_redis() {
    let seen = |connections: &mut [Connection; 3]| -> Vec<String> {
        let [reader, told, writer] = connections;
        let id = told.run("CLIENT ID").integer();
        let mut out = Vec::new();
        let mut note = |frame: Vec<u8>| out.push(frame.escape_ascii().to_string());
        told.send(&["SUBSCRIBE", "__redis__:invalidate"]);
        note(told.read_frame());
        note(reader.call_raw(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id.to_string()]));
        assert_eq!(reader.run("CLIENT GETREDIR").integer(), id);
        reader.run("GET k");
        writer.run("SET k 1");
        note(told.read_frame());
        reader.run("GET k");
        writer.run("INCR k");
        note(told.read_frame());
        writer.run("FLUSHALL");
        note(told.read_frame());
        told.send(&["QUIT"]);
        note(told.read_to_close());
        reader.run("HELLO 3");
        reader.run("GET k");
        writer.run("SET k 1");
        let broken = reader.read_reply();
        assert_eq!(broken.elements()[0].text(), "tracking-redir-broken");
        assert_eq!(broken.elements()[1].integer(), id);
        let info = reader.run("CLIENT TRACKINGINFO");
        let flags: Vec<String> = info.elements()[1]
            .elements()
            .iter()
            .map(Reply::text)
            .collect();
        assert_eq!(flags, ["on", "broken_redirect"]);
        out
    };
    let redis = Redis::start(&[]);
    let expected = seen(&mut std::array::from_fn(|_| redis.connect()));
    let stack = Stack::start(&[]);
    assert_eq!(
        seen(&mut std::array::from_fn(|_| stack.connect())),
        expected
    );
}

#[test]
fn changes_on_a_node_itself_are_told() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let key = stack.key_on(0, "k");
    let (mut reader, mut all, mut node) =
        (stack.connect(), stack.connect(), stack.nodes[0].connect());
    reader.run("HELLO 3");
    all.run("HELLO 3");
    for round in 0..2 {
        reader.run("CLIENT TRACKING ON");
        // What is read, what is cached, what is warm.
        for prepare in ["SET K 1", "GET K", "GET K", "INCR K", "INCR K", "INCR K"] {
            reader.run(&prepare.replace('K', &key));
            if !prepare.starts_with("GET") {
                // Its own change, where it had read the key before.
                reader.run("CLIENT TRACKING OFF");
                reader.run("CLIENT TRACKING ON");
                drain(&mut reader);
            }
            reader.run(&format!("GET {key}"));
            node.run(&format!("SET {key} 100"));
            assert_eq!(told(&mut reader), [key.as_bytes()], "{prepare} {round}");
        }
        reader.run(&format!("GET {key}"));
        node.run(&format!("PEXPIRE {key} 1"));
        assert_eq!(told(&mut reader), [key.as_bytes()]);
        // Of the expiry itself too, unless that was read already.
        reader.run("CLIENT TRACKING OFF");
        // The second time, the nodes tell of all changes.
        if round == 0 {
            assert!(all.run("CLIENT TRACKING ON BCAST PREFIX k").is_ok());
        }
    }
    drain(&mut all);
    node.run(&format!("SET {key} 200 PX 20"));
    assert_eq!(told(&mut all), [key.as_bytes()]);
    assert_eq!(told(&mut all), [key.as_bytes()], "its end");
}

/// A node tells of what a script changes, whether the script declares it or not, and of nothing else.
/// From the first client with `BCAST` on the nodes tell of all changes, those of scripts among them.
#[test]
fn own_scripts_are_not_told_of_after_broadcasts() {
    check(&[
        (0, "CLIENT TRACKING ON BCAST", "0"),
        (1, "SET k 1", "10"),
        (0, "CLIENT TRACKING OFF", "0"),
        (0, "CLIENT TRACKING ON NOLOOP", "0"),
        (0, "SET k 1", "0"),
        (0, "GET k", "0"),
        (0, "EVAL \"return redis.call('set',KEYS[1],'2')\" 1 k", "0"),
        (0, "GET k", "0"),
        (1, "SET k 3", "10"),
        (0, "CLIENT TRACKING OFF", "0"),
    ]);
}

#[test]
fn changes_by_scripts_are_told() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (mut reader, mut writer) = (stack.connect(), stack.connect());
    let keys = ["{k}:1", "{k}:2", "{k}:3"];
    reader.run("HELLO 3");
    for mode in ["CLIENT TRACKING ON", "CLIENT TRACKING ON BCAST"] {
        reader.run("CLIENT TRACKING OFF");
        assert!(reader.run(mode).is_ok());
        let mut check = |script: &str, changed: &[&str]| {
            for key in keys {
                reader.run(&format!("GET {key}"));
            }
            drain(&mut reader);
            writer.call(&["EVAL", script, "2", keys[0], keys[1]]);
            let mut seen = Vec::new();
            let arrived = eventually(Duration::from_secs(5), || {
                reader.send(&["PING"]);
                while let Reply::Push(message) = reader.read_reply() {
                    let told = message[1].elements().iter();
                    seen.extend(told.map(Reply::text));
                }
                changed
                    .iter()
                    .all(|key| seen.iter().any(|told| told == key))
            });
            assert!(arrived, "{mode}, {script}: told of {seen:?}");
            // With BCAST, of all that it declares, too.
            let is_exact = !mode.contains("BCAST");
            assert!(
                !is_exact || seen.len() == changed.len(),
                "{script}: told of {seen:?}"
            );
        };
        check("return redis.call('GET', KEYS[1])", &[]);
        check("local call = redis.call return call('GET', KEYS[1])", &[]);
        check("return redis.call('SET', KEYS[1], 'x')", &[keys[0]]);
        check("return redis.call('INCR', '{k}:' .. 3)", &[keys[2]]);
    }
}

#[test]
fn what_was_read_from_a_node_that_is_lost_is_told() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[("upstream.backoff_max", "\"100ms\"")]);
    let key = stack.key_on(0, "k");
    let mut reader = stack.connect();
    reader.run("HELLO 3");
    reader.run("CLIENT TRACKING ON BCAST");
    reader.run(&format!("GET {key}"));
    drain(&mut reader);
    stack.nodes[0].kill();
    assert_eq!(told(&mut reader), Vec::<Vec<u8>>::new());
    stack.nodes[0].restart();
    let mut node = stack.nodes[0].connect();
    assert_eq!(told(&mut reader), Vec::<Vec<u8>>::new(), "connected");
    // It was asked for all changes again.
    node.run(&format!("SET {key} 1"));
    assert_eq!(told(&mut reader), [key.as_bytes()]);
}

#[test]
fn what_is_noted_is_bounded() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (mut reader, mut other) = (stack.connect(), stack.connect());
    reader.run("HELLO 3");
    reader.run("CLIENT TRACKING ON");
    let keys: Vec<String> = (0..50).map(|number| format!("k:{number}")).collect();
    for key in &keys {
        reader.run(&format!("GET {key}"));
    }
    let counted = |other: &mut Connection| {
        let info = other.run("INFO stats").text();
        let line = info
            .lines()
            .find(|line| line.starts_with("tracking_total_keys:"));
        line.unwrap().to_owned()
    };
    assert_eq!(counted(&mut other), "tracking_total_keys:50");
    assert!(other.run("CONFIG SET tracking-table-max-keys 10").is_ok());
    let mut gone: Vec<Vec<u8>> = (0..40).flat_map(|_| told(&mut reader)).collect();
    gone.sort_unstable();
    gone.dedup();
    assert_eq!(gone.len(), 40);
    assert_eq!(counted(&mut other), "tracking_total_keys:10");
    // One more, and one is told of: that one, or another.
    reader.send(&["GET", "k:new"]);
    let frames = [reader.read_frame(), reader.read_frame()];
    let frames = frames.map(|frame| Reply::parse(&frame));
    assert!(
        frames.iter().any(|frame| matches!(frame, Reply::Push(_))),
        "{frames:?}"
    );
    assert_eq!(counted(&mut other), "tracking_total_keys:10");
    drop(reader);
    let none = || counted(&mut other) == "tracking_total_keys:0";
    assert!(eventually(Duration::from_secs(5), none));
}

/// A client keeps every value that it reads until it is told, while others change keys through
/// Tally and on the nodes. Whenever all is quiet, what it keeps is what is there.
#[test]
fn nothing_stale_is_kept() {
    if skipped_on_bare_redis() {
        return;
    }
    for options in ["", "NOLOOP", "OPTOUT", "BCAST"] {
        keeps_nothing_stale(options);
    }
}

#[track_caller]
fn keeps_nothing_stale(options: &str) {
    let stack = Stack::start(&[("counters.flush_interval", "\"20ms\"")]);
    let mut random = Random::new(Random::seed_or(7));
    let mut reader = stack.connect();
    let mut writers = [stack.connect(), stack.connect(), stack.connect()];
    let mut nodes: Vec<Connection> = stack.nodes.iter().map(Redis::connect).collect();
    writers[2].run("SELECT 1");
    reader.run("HELLO 3");
    let on = format!("CLIENT TRACKING ON {options}");
    assert!(reader.run(on.trim_end()).is_ok());
    let keys: Vec<String> = (0..8).map(|number| format!("{{t{number}}}")).collect();
    let home: Vec<usize> = keys
        .iter()
        .map(|key| {
            writers[0].run(&format!("SET {key} 0"));
            usize::from(nodes[1].run(&format!("EXISTS {key}")).integer() == 1)
        })
        .collect();
    let mut kept: BTreeMap<usize, Reply> = BTreeMap::new();
    for round in 0..150 {
        for _ in 0..random.below(12) {
            let at = random.below(keys.len());
            let line = change(&mut random, &keys[at], &keys[0], round);
            match random.below(8) {
                0 if line != "FLUSHDB" && !line.starts_with("MSET") => {
                    nodes[home[at]].run(&line);
                }
                from => {
                    writers[from % 3].run(&line);
                }
            }
            // The reader asks again for what it does not keep; its own changes are its own affair.
            let at = random.below(keys.len());
            if !kept.contains_key(&at) {
                reader.send(&["GET", keys[at].as_str()]);
                let value = loop {
                    match reader.read_reply() {
                        Reply::Push(message) => forget(&mut kept, &keys, &message),
                        value => break value,
                    }
                };
                kept.insert(at, value);
            }
        }
        let mut stale = Vec::new();
        let quiet = eventually(Duration::from_secs(5), || {
            reader.send(&["PING"]);
            while let Reply::Push(message) = reader.read_reply() {
                forget(&mut kept, &keys, &message);
            }
            let now = |connection: &mut Connection, at: usize| {
                connection.run(&format!("GET {}", keys[at]))
            };
            stale = kept
                .iter()
                .map(|(at, value)| {
                    let there = now(&mut nodes[home[*at]], *at);
                    (*at, value.clone(), now(&mut writers[0], *at), there)
                })
                .filter(|(_, kept, here, there)| kept != here || kept != there)
                .collect();
            stale.is_empty()
        });
        assert!(
            quiet,
            "{options} round {round}: kept, here, there {stale:?}"
        );
    }
}

/// A request that changes `key`, and may change others.
fn change(random: &mut Random, key: &str, other: &str, round: usize) -> String {
    match random.below(16) {
        0 => format!("SET {key} {round}"),
        1 => format!("DEL {key}"),
        2 => format!("PEXPIRE {key} {}", 1 + random.below(30)),
        3 => format!("EVAL \"return redis.call('INCRBY', KEYS[1], 3)\" 1 {key}"),
        4 => format!("SET {key} {round} PX {}", 1 + random.below(30)),
        5 if random.one_in(8) => "FLUSHDB".to_owned(),
        6 => format!("MSET {key} 5 {other} 6"),
        _ => format!("INCR {key}"),
    }
}

fn forget(kept: &mut BTreeMap<usize, Reply>, keys: &[String], message: &[Reply]) {
    assert_eq!(message[0].text(), "invalidate");
    match &message[1] {
        Reply::Nil => kept.clear(),
        told => {
            for key in told.elements() {
                kept.retain(|at, _| keys[*at].as_bytes() != key.bytes());
            }
        }
    }
}

/// The keys of the next message; none for all keys.
#[track_caller]
fn told(connection: &mut Connection) -> Vec<Vec<u8>> {
    let frame = connection.read_reply();
    let Reply::Push(message) = &frame else {
        panic!("a message was expected, not {frame:?}");
    };
    assert_eq!(message[0].text(), "invalidate");
    match &message[1] {
        Reply::Nil => Vec::new(),
        keys => keys
            .elements()
            .iter()
            .map(|key| key.bytes().to_vec())
            .collect(),
    }
}

/// Reads the messages that came so far.
#[track_caller]
fn drain(connection: &mut Connection) {
    connection.send(&["PING"]);
    while let Reply::Push(_) = connection.read_reply() {}
}

#[test]
fn redis_py_caches_on_its_side() {
    // redis-py does it only with a server that calls itself Redis.
    if !is_other_server() {
        Program::python("clients/caching.py").check();
    }
}
