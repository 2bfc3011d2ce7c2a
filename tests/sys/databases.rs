//! Databases 0 to 15: each has keys of its own, in one order with the others.

use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Stack, eventually, skipped_on_bare_redis};
use crate::reply::Reply;

/// A client in a database.
#[track_caller]
fn client_in(stack: &Stack, database: u32) -> Connection {
    let mut client = stack.connect();
    assert!(client.run(&format!("SELECT {database}")).is_ok());
    client
}

/// What the nodes themselves hold for a key of a database.
#[track_caller]
fn stored(stack: &Stack, database: u32, key: &str) -> Vec<String> {
    let nodes = stack.nodes.iter().map(|node| {
        let mut node = node.connect();
        assert!(node.run(&format!("SELECT {database}")).is_ok());
        node.run(&format!("GET {key}"))
    });
    let found = nodes.filter(|reply| *reply != Reply::Nil);
    found.map(|reply| reply.text()).collect()
}

#[test]
fn counters_of_equal_names_are_apart() {
    let mut stack = Stack::start(&[]);
    let mut clients: Vec<_> = [0, 1, 7, 15].map(|n| (n, client_in(&stack, n))).into();
    for round in 1..=200_i64 {
        for (database, client) in &mut clients {
            let by = i64::from(*database) + 1;
            let reply = client.run(&format!("INCRBY hits {by}"));
            assert_eq!(reply.integer(), round * by, "database {database}");
        }
    }
    for (database, client) in &mut clients {
        let want = (200 * (*database + 1)).to_string();
        assert_eq!(client.run("GET hits").text(), want, "database {database}");
        assert_eq!(client.run("MGET hits none hits").elements()[2].text(), want);
        assert_eq!(
            client.run("STRLEN hits").integer(),
            i64::try_from(want.len()).unwrap()
        );
    }
    // A stop flushes them all.
    stack.stop_tally();
    for (database, _) in clients {
        let want = (200 * (database + 1)).to_string();
        assert_eq!(
            stored(&stack, database, "hits"),
            [want],
            "database {database}"
        );
    }
    assert!(stored(&stack, 2, "hits").is_empty());
}

#[test]
fn one_client_sees_one_order_over_databases() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    for round in 1..=50_i64 {
        for database in [0, 3, 1] {
            lines.push(format!("SELECT {database}"));
            lines.push("INCR a".to_owned());
            lines.push(format!("SET b {database}:{round}"));
            lines.push("GET b".to_owned());
            expected.extend([
                Reply::Simple(b"OK".to_vec()),
                Reply::Integer(round),
                Reply::Simple(b"OK".to_vec()),
                Reply::Bulk(format!("{database}:{round}").into_bytes()),
            ]);
        }
    }
    assert_eq!(client.run_all(&lines), expected);
}

#[test]
fn a_script_loaded_in_one_database_is_known_in_the_next() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    for number in 0..20 {
        let body = format!("return redis.call('INCRBY', KEYS[1], {number})");
        let sha = client.run(&format!("SCRIPT LOAD \"{body}\"")).text();
        // In one write: the second database's lane must not be faster.
        let lines = [
            format!("SCRIPT LOAD \"{body} + 1\""),
            format!("SELECT {}", number % 3),
            format!("EVALSHA {sha} 1 k"),
        ];
        let replies = client.run_all(&lines);
        assert!(matches!(replies[2], Reply::Integer(_)), "{replies:?}");
    }
}

#[test]
fn commands_over_all_keys_are_those_of_the_database() {
    let stack = Stack::start(&[]);
    let mut first = stack.connect();
    let mut second = client_in(&stack, 9);
    for key in 0..40 {
        assert_eq!(first.run(&format!("INCR first:{key}")).integer(), 1);
        assert!(second.run(&format!("SET second:{key} x")).is_ok());
    }
    assert!(second.run("DEL second:0").integer() == 1);
    assert_eq!(first.run("DBSIZE").integer(), 40);
    assert_eq!(second.run("DBSIZE").integer(), 39);
    assert_eq!(second.run("KEYS *").elements().len(), 39);
    assert_eq!(first.run("KEYS second:*").elements().len(), 0);
    assert!(second.run("RANDOMKEY").text().starts_with("second:"));
    let found = second.run("SCAN 0 COUNT 1000");
    let keys = found.elements()[1].elements();
    assert!(
        keys.iter().all(|key| key.text().starts_with("second:")),
        "{keys:?}"
    );
    assert!(second.run("FLUSHDB").is_ok());
    assert_eq!(second.run("DBSIZE").integer(), 0);
    assert_eq!(first.run("DBSIZE").integer(), 40);
    assert_eq!(first.run("INCR first:7").integer(), 2);
}

#[test]
fn a_client_s_database_is_its_own_and_reset_returns_to_0() {
    let stack = Stack::start(&[]);
    let mut client = client_in(&stack, 5);
    assert!(client.run("SET where 5").is_ok());
    assert!(client.run("CLIENT INFO").text().contains(" db=5 "));
    assert_eq!(
        client.run("SELECT 16").text(),
        "ERR DB index is out of range"
    );
    assert_eq!(client.run("GET where").text(), "5");
    assert_eq!(stack.connect().run("GET where"), Reply::Nil);
    assert_eq!(client.run("RESET").text(), "RESET");
    assert!(client.run("CLIENT INFO").text().contains(" db=0 "));
    assert_eq!(client.run("GET where"), Reply::Nil);
    assert_eq!(
        client.run("CONFIG GET databases").elements()[1].text(),
        "16"
    );
}

#[test]
fn a_cut_connection_loses_no_increment_of_any_database() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[("counters.flush_interval", "\"50ms\"")]);
    let mut clients: Vec<_> = [0, 3, 4].map(|n| (n, client_in(&stack, n))).into();
    let mut counted = [0_i64; 3];
    for round in 0..600 {
        for ((_, client), counted) in clients.iter_mut().zip(&mut counted) {
            let reply = client.run("INCR hits");
            match reply {
                Reply::Integer(value) => {
                    assert_eq!(value, *counted + 1);
                    *counted = value;
                }
                // Unknown: what it came to is read below.
                _ => assert!(reply.is_error(), "{reply:?}"),
            }
            if reply.is_error() {
                let recovered = eventually(Duration::from_secs(5), || {
                    let reply = client.run("GET hits");
                    if let Reply::Bulk(_) = reply {
                        *counted = reply.text().parse().unwrap();
                    }
                    !reply.is_error()
                });
                assert!(recovered);
            }
        }
        if round % 100 == 50 {
            for node in &stack.nodes {
                node.connect().run("CLIENT KILL TYPE normal SKIPME yes");
            }
        }
    }
    stack.stop_tally();
    for ((database, _), counted) in clients.into_iter().zip(counted) {
        assert_eq!(
            stored(&stack, database, "hits"),
            [counted.to_string()],
            "{database}"
        );
    }
}

#[test]
fn an_unused_database_costs_no_connection_and_fewer_can_be_set() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("server.databases", "3")]);
    let lanes = |stack: &Stack| {
        let list = stack.nodes[0].connect().run("CLIENT LIST").text();
        list.lines()
            .filter(|line| line.contains(" name=tally "))
            .count()
    };
    assert_eq!(lanes(&stack), 1);
    let mut client = stack.connect();
    assert_eq!(
        client.run("SELECT 3").text(),
        "ERR DB index is out of range"
    );
    assert!(client.run("SELECT 2").is_ok());
    assert_eq!(client.run("INCR a").integer(), 1);
    assert!(client.run("SELECT 2").is_ok());
    assert!(eventually(Duration::from_secs(5), || lanes(&stack) == 2));
}

#[test]
fn flushall_leaves_nothing_in_any_database() {
    let mut stack = Stack::start(&[("counters.flush_interval", "\"1m\"")]);
    let mut clients: Vec<_> = [0, 2, 11].map(|n| (n, client_in(&stack, n))).into();
    // In a database that nobody has selected here.
    for node in &stack.nodes {
        let mut node = node.connect();
        assert!(node.run("SELECT 6").is_ok());
        assert!(node.run("SET stray x").is_ok());
    }
    for _ in 0..3 {
        for (_, client) in &mut clients {
            for key in 0..20 {
                let lines: Vec<_> = (0..10).map(|_| format!("INCR c{key}")).collect();
                assert_eq!(client.run_all(&lines)[9].integer(), 10);
            }
        }
        assert!(clients[1].1.run("FLUSHALL").is_ok());
        for (database, client) in &mut clients {
            assert_eq!(client.run("DBSIZE").integer(), 0, "{database}");
            assert_eq!(client.run("GET c1"), Reply::Nil, "{database}");
        }
    }
    assert!(stored(&stack, 6, "stray").is_empty());
    for (_, client) in &mut clients {
        assert_eq!(client.run("INCR c7").integer(), 1);
        assert_eq!(client.run("INCR c7").integer(), 2);
    }
    stack.stop_tally();
    for (database, _) in clients {
        assert_eq!(stored(&stack, database, "c7"), ["2"], "{database}");
        assert!(stored(&stack, database, "c1").is_empty());
    }
}

#[test]
fn counters_go_with_their_key_into_another_database() {
    let mut stack = Stack::start(&[("counters.flush_interval", "\"1m\"")]);
    let (mut here, mut there) = (client_in(&stack, 4), client_in(&stack, 8));
    let hundred = vec!["INCR hits"; 100];
    here.run_all(&hundred);
    assert_eq!(there.run("GET hits"), Reply::Nil);
    assert_eq!(here.run("MOVE hits 8").integer(), 1);
    assert_eq!(there.run("GET hits").text(), "100");
    there.run_all(&hundred);
    assert_eq!(here.run("GET hits"), Reply::Nil);
    here.run_all(&hundred[..5]);
    assert_eq!(here.run("MOVE hits 8").integer(), 0, "there is one");
    assert_eq!(there.run("COPY hits hits DB 4 REPLACE").integer(), 1);
    assert_eq!(here.run("INCR hits").integer(), 201);
    assert_eq!(there.run("INCR hits").integer(), 201);
    there.run_all(&hundred[..9]);
    assert!(stack.connect().run("SWAPDB 4 8").is_ok());
    assert_eq!(here.run("INCR hits").integer(), 211);
    assert_eq!(there.run("INCR hits").integer(), 202);
    here.run_all(&hundred);
    there.run_all(&hundred);
    assert!(stack.connect().run("SWAPDB 8 4").is_ok());
    there.run_all(&hundred);
    here.run_all(&hundred);
    assert!(here.run("TALLY FLUSH").is_ok() || crate::harness::bare());
    assert_eq!(stored(&stack, 8, "hits"), ["411"]);
    stack.stop_tally();
    assert_eq!(stored(&stack, 4, "hits"), ["402"]);
}

#[test]
fn commands_over_databases_and_counting_clients_do_not_stand_in_each_other_s_way() {
    let stack = Stack::start(&[("counters.flush_interval", "\"20ms\"")]);
    let address = stack.address();
    let counting = |database: u32| {
        std::thread::spawn(move || {
            let mut client = Connection::open(address);
            assert!(client.run(&format!("SELECT {database}")).is_ok());
            // A key of its own, which is only moved to and fro.
            for round in 1..=300_i64 {
                let replies = client.run_all(&[format!("INCR own{database}"), "PING".to_owned()]);
                assert_eq!(replies[0].integer(), round, "database {database}");
            }
        })
    };
    let crossing = |databases: [u32; 2]| {
        std::thread::spawn(move || {
            let [from, to] = databases;
            let mut client = Connection::open(address);
            assert!(client.run(&format!("SELECT {from}")).is_ok());
            let key = format!("moved{from}{to}");
            for round in 1..=40_i64 {
                assert_eq!(client.run(&format!("INCR {key}")).integer(), round);
                assert_eq!(client.run(&format!("MOVE {key} {to}")).integer(), 1);
                assert!(client.run(&format!("SELECT {to}")).is_ok());
                assert_eq!(client.run(&format!("GET {key}")).text(), round.to_string());
                assert_eq!(client.run(&format!("MOVE {key} {from}")).integer(), 1);
                assert!(client.run(&format!("SELECT {from}")).is_ok());
            }
        })
    };
    // Opposite directions: neither may wait for the other.
    let mut threads: Vec<_> = [0, 1, 2].map(counting).into();
    threads.extend([[0, 1], [1, 0], [2, 0], [1, 2]].map(crossing));
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_database_that_the_nodes_lack_is_named_and_keeps_nothing_up() {
    if skipped_on_bare_redis() {
        return;
    }
    let few = || crate::servers::Redis::start(&["--databases", "2"]);
    let stack = Stack::over(vec![few(), few()], &[]);
    let mut client = client_in(&stack, 1);
    assert_eq!(client.run("INCR a").integer(), 1);
    assert!(client.run("SELECT 5").is_ok());
    let refused = client.run("INCR a");
    assert!(
        refused.text().contains("DB index is out of range"),
        "{refused:?}"
    );
    assert!(client.run("SELECT 0").is_ok());
    assert_eq!(client.run("INCR a").integer(), 1);
    assert_eq!(client.run("WAIT 0 10").integer(), 0);
    assert!(client.run("FLUSHALL").is_ok());
    assert_eq!(client.run("DBSIZE").integer(), 0);
    assert!(client.run("SELECT 1").is_ok());
    assert_eq!(client.run("GET a"), Reply::Nil);
}

#[test]
fn info_tells_the_keys_of_every_database() {
    let stack = Stack::start(&[]);
    for (database, keys) in [(0, 7), (4, 11), (12, 1)] {
        let mut client = client_in(&stack, database);
        for key in 0..keys {
            client.run_all(&[format!("INCR k{key}"), format!("INCR k{key}")]);
        }
    }
    let mut client = client_in(&stack, 4);
    assert!(client.run("EXPIRE k1 1000").integer() == 1);
    assert!(client.run("SELECT 12").is_ok());
    assert!(client.run("DEL k0").integer() == 1);
    let keyspace = client.run("INFO keyspace").text();
    let lines: Vec<&str> = keyspace.lines().collect();
    let [_, first, second] = lines.as_slice() else {
        panic!("{keyspace}");
    };
    assert!(first.starts_with("db0:keys=7,expires=0,"), "{keyspace}");
    assert!(second.starts_with("db4:keys=11,expires="), "{keyspace}");
    assert!(stack.connect().run("INFO").text().contains("db4:keys=11,"));
}

#[test]
fn hot_counters_of_one_name_do_not_set_off_each_other_s_flushes() {
    if skipped_on_bare_redis() {
        return;
    }
    // A node tells of a change without the database's number.
    let stack = Stack::start(&[("counters.flush_interval", "\"1m\"")]);
    let (mut here, mut there) = (client_in(&stack, 0), client_in(&stack, 1));
    let mut count = |rounds: u32| {
        for _ in 0..rounds {
            for client in [&mut here, &mut there] {
                assert!(matches!(client.run("INCR hits"), Reply::Integer(_)));
            }
        }
    };
    count(10);
    let mut other = stack.connect();
    assert!(other.run("TALLY FLUSH").is_ok());
    count(10);
    assert!(other.run("TALLY FLUSH").is_ok());
    let calls = || ["evalsha", "incrby"].map(|command| stack.node_calls(command));
    let before = calls();
    count(2_000);
    let [flushes, increments] = calls();
    // It was thousands of either.
    let (flushes, increments) = (flushes - before[0], increments - before[1]);
    assert!(flushes < 200, "{flushes} flushes that nobody asked for");
    assert!(increments < 400, "{increments} of 4,000 increments went on");
    assert_eq!(here.run("GET hits").text(), "2020");
    assert_eq!(there.run("GET hits").text(), "2020");
}

#[test]
fn a_refused_increment_names_its_database() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("counters.flush_interval", "\"1m\"")]);
    let mut client = client_in(&stack, 6);
    let key = stack.key_on(0, "k");
    // Until one waits for its flush.
    let pending = eventually(Duration::from_secs(5), || {
        client.run(&format!("INCR {key}"));
        client
            .run("INFO coalescing")
            .text()
            .contains("increments_pending_keys:1\r\n")
    });
    assert!(pending);
    let mut node = stack.nodes[0].connect();
    assert!(node.run("SELECT 6").is_ok());
    // Tally is told of it, and flushes.
    node.run_all(&[format!("DEL {key}"), format!("LPUSH {key} x")]);
    let mut letters = Reply::Nil;
    let told = eventually(Duration::from_secs(5), || {
        letters = client.run("TALLY DEADLETTERS");
        !letters.elements().is_empty()
    });
    assert!(told);
    let letter = letters.elements()[0].elements();
    let at = letter
        .iter()
        .position(|word| *word == Reply::Bulk(b"database".to_vec()));
    assert_eq!(
        letter[at.expect("a database") + 1].integer(),
        6,
        "{letters:?}"
    );
}
