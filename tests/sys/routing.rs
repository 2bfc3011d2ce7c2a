//! Which node gets what: split and merged commands, hash tags, scripts.

use std::time::Duration;

use crate::connection::{Connection, words};
use crate::harness::{Stack, eventually, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::Redis;

/// Keys `k0`, `k1`, ... set to their numbers; they lie on all nodes.
fn fill(client: &mut Connection, count: usize) {
    let lines: Vec<_> = (0..count).map(|n| format!("SET k{n} {n}")).collect();
    assert!(client.run_all(&lines).iter().all(Reply::is_ok));
}

fn keys(count: usize) -> String {
    let keys: Vec<_> = (0..count).map(|n| format!("k{n}")).collect();
    keys.join(" ")
}

#[test]
fn keys_spread_over_the_nodes() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    fill(&mut stack.connect(), 1_000);
    let sizes: Vec<_> = stack
        .nodes
        .iter()
        .map(|node| node.client_keys().len())
        .collect();
    assert_eq!(sizes.iter().sum::<usize>(), 1_000, "{sizes:?}");
    assert!(sizes.iter().all(|&size| size > 250), "{sizes:?}");
}

#[test]
fn an_mget_of_many_keys_is_read_in_parts_and_answered_in_order() {
    const COUNT: usize = 5_000;
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    fill(&mut client, COUNT);
    client.run("DEL k1500");
    client.run("DEL k3000");
    client.run("LPUSH k3000 x");
    let last = COUNT - 1;
    let requests = [
        words(&format!("INCRBY k{last} 1")),
        words(&format!("MGET {}", keys(COUNT))),
        words(&format!("INCRBY k{last} 1")),
        words(&format!("MGET k{last} k0")),
    ];
    for round in 0..3 {
        let replies = client.pipeline(&requests);
        let [_, all, _, few] = &replies[..] else {
            panic!("{} replies", replies.len());
        };
        let values = Reply::parse(all);
        for (number, value) in values.elements().iter().enumerate() {
            match number {
                1_500 | 3_000 => assert_eq!(*value, Reply::Nil),
                _ if number == last => assert_eq!(value.text(), (last + 1 + 2 * round).to_string()),
                _ => assert_eq!(value.text(), number.to_string()),
            }
        }
        assert_eq!(values.elements().len(), COUNT);
        let few = Reply::parse(few);
        assert_eq!(few.elements()[0].text(), (last + 2 + 2 * round).to_string());
    }
    if !skipped_on_bare_redis() {
        assert!(stack.node_calls("mget") > 2 * 4);
    }
}

#[test]
fn an_mget_that_fails_on_the_way_is_one_error() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[]);
    let mut client = stack.connect();
    let [tag, there] = [0, 1].map(|node| stack.key_on(node, "k"));
    let here: Vec<_> = (0..3_000).map(|n| format!("{{{tag}}}{n}")).collect();
    let lost = format!("{{{there}}}1");
    let with = |last: &str| [&["MGET".to_owned()], &here[..], &[last.to_owned()]].concat();
    let refused = client.call(&with("__tally__:marker"));
    assert!(refused.text().contains("Tally's own"), "{refused:?}");
    assert_eq!(client.call(&with(&there)).elements().len(), 3_001);
    stack.nodes[1].kill();
    assert!(eventually(Duration::from_secs(10), || {
        client.run(&format!("GET {lost}")).is_error()
    }));
    let refused = client.call(&with(&lost));
    assert!(refused.text().contains("is unreachable"), "{refused:?}");
    assert_eq!(client.call(&with(&here[0])).elements().len(), 3_001);
}

#[test]
fn all_keys_of_an_mget_of_many_are_tracked() {
    let stack = Stack::start(&[]);
    let (mut client, mut other) = (stack.connect(), stack.connect());
    client.run("HELLO 3");
    client.run("CLIENT TRACKING ON");
    client.run(&format!("MGET {}", keys(3_000)));
    for key in ["k2999", "k0", "k1024"] {
        other.run(&format!("SET {key} 1"));
        let told = String::from_utf8(client.read_frame()).unwrap();
        assert!(told.ends_with(&format!("\r\n{key}\r\n")), "{told}");
    }
}

#[test]
fn split_commands_merge_in_order_and_count_as_redis_counts() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    fill(&mut client, 50);
    let all = keys(50);
    let values = client.run(&format!("MGET {all} nothing k0 k0"));
    let expected = (0..50).map(|n| Reply::Bulk(n.to_string().into_bytes()));
    let zero = Reply::Bulk(b"0".to_vec());
    let expected: Vec<_> = expected.chain([Reply::Nil, zero.clone(), zero]).collect();
    assert_eq!(values.elements(), expected);
    for (line, count) in [
        (format!("EXISTS {all} k1 k1 nothing"), 52),
        (format!("TOUCH {all} k1 nothing"), 51),
        ("UNLINK k0 k1 k0 nothing".to_owned(), 2),
        ("DEL k2 k2 k3 k0".to_owned(), 2),
        (format!("EXISTS {all}"), 46),
        (format!("DEL {all}"), 46),
        (format!("EXISTS {all}"), 0),
    ] {
        assert_eq!(client.run(&line).integer(), count, "{line}");
    }
    let pairs: Vec<_> = (0..50).map(|n| format!("k{n} new{n}")).collect();
    assert!(
        client
            .run(&format!("MSET {} k7 last", pairs.join(" ")))
            .is_ok()
    );
    assert_eq!(client.run("GET k7").text(), "last");
    assert_eq!(client.run("GET k49").text(), "new49");
    // Nothing is written where the request is wrong, on no node.
    assert!(
        client
            .run(&format!("MSET {} odd", pairs.join(" ")))
            .is_error()
    );
    assert_eq!(client.run("EXISTS odd").integer(), 0);
}

#[test]
fn a_split_command_costs_each_node_one() {
    let stack = Stack::start(&[("cache.ttl", "\"0s\"")]);
    let nodes = u64::try_from(stack.nodes.len()).unwrap();
    let mut client = stack.connect();
    fill(&mut client, 100);
    let all = keys(100);
    let pairs: Vec<_> = (0..100).map(|n| format!("k{n} {n}")).collect();
    for (name, line) in [
        ("mget", format!("MGET {all}")),
        ("exists", format!("EXISTS {all}")),
        ("touch", format!("TOUCH {all}")),
        ("mset", format!("MSET {}", pairs.join(" "))),
        ("unlink", format!("UNLINK {}", keys(50))),
        ("del", format!("DEL {all}")),
    ] {
        let before = stack.node_calls(name);
        assert!(!client.run(&line).is_error(), "{name}");
        assert_eq!(stack.node_calls(name) - before, nodes, "{name}");
        for single in ["get", "set"] {
            let count = stack.node_calls(single);
            // Tally writes a key of its own when it connects.
            assert!(count <= 100 + nodes, "{name}: {count} calls of {single}");
        }
    }
}

#[test]
fn mget_sees_counters_that_are_not_flushed_yet() {
    let stack = Stack::start(&[("counters.flush_interval", "\"10s\"")]);
    let mut client = stack.connect();
    let all = keys(30);
    for round in 1..=5 {
        let increments: Vec<_> = (0..30).map(|n| format!("INCR k{n}")).collect();
        client.run_all(&increments);
        let values = client.run(&format!("MGET {all}"));
        for value in values.elements() {
            assert_eq!(value.text(), round.to_string());
        }
    }
    assert_eq!(client.run(&format!("DEL {all}")).integer(), 30);
    assert_eq!(client.run(&format!("EXISTS {all}")).integer(), 0);
}

#[test]
fn what_can_not_be_split_is_refused_across_nodes() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let (a, b) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let mut client = stack.connect();
    assert!(client.run(&format!("SET {a} 1")).is_ok());
    for line in [
        format!("EVAL \"return redis.call('GET', KEYS[1])\" 2 {a} {b}"),
        format!("EVALSHA {} 2 {a} {b}", "f".repeat(40)),
    ] {
        let reply = client.run(&line);
        assert!(reply.text().starts_with("CROSSSLOT "), "{line}: {reply:?}");
    }
    assert_eq!(client.run(&format!("GET {a}")).text(), "1");
    assert_eq!(client.run(&format!("EXISTS {b}")).integer(), 0);
}

/// Keys whose names begin alike are each other's sources and destinations, on two nodes.
#[test]
fn what_only_reads_keys_of_other_nodes_gets_copies() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let redis = Redis::start(&[]);
    let names = [(0, "a"), (1, "b"), (0, "c"), (1, "d"), (1, "f")];
    let names = names.map(|(node, name)| (name, stack.key_on(node, name)));
    let place = |line: &str| {
        let words = line.split(' ').map(|word| {
            let name = names.iter().find(|(name, _)| *name == word);
            name.map_or(word, |(_, key)| key)
        });
        words.collect::<Vec<_>>().join(" ")
    };
    for hello in ["HELLO 2", "HELLO 3"] {
        let mut clients = [stack.connect(), Connection::open(redis.address())];
        for client in &mut clients {
            client.run(hello);
            client.run("FLUSHALL");
        }
        for line in COPYING {
            let line = place(line);
            let [mut tally, mut plain] = clients.each_mut().map(|client| client.run(&line));
            // Elements of sets come in any order.
            if line.starts_with('S') {
                sort(&mut tally);
                sort(&mut plain);
            }
            assert_eq!(tally, plain, "{hello}: {line}");
        }
    }
    let mut client = stack.connect();
    let keys = client.run("DBSIZE").integer();
    for node in &stack.nodes {
        let held = Connection::open(node.address()).run("KEYS __tally__:copy*");
        assert_eq!(held.elements(), []);
    }
    assert!(keys > 0);
}

fn sort(reply: &mut Reply) {
    if let Reply::Set(elements) | Reply::Array(elements) = reply {
        elements.sort();
    }
}

const COPYING: &[&str] = &[
    "SADD a 1 2 3",
    "SADD b 2 3 4",
    "SADD d 9",
    "SINTERCARD 2 a b",
    "SINTERCARD 3 a b nobody LIMIT 1",
    "SDIFF a b",
    "SDIFF b a",
    "SINTER a d",
    "SINTER a nobody",
    "SUNIONSTORE c a b",
    "SCARD c",
    "SUNIONSTORE d a b",
    "SCARD d",
    "SINTERSTORE d a nobody b",
    "EXISTS d",
    "SDIFFSTORE d a b b",
    "SMEMBERS d",
    "DEL a b c d",
    "ZADD a 1 x 2 y",
    "ZADD b 10 y 20 z",
    "ZUNION 2 a b",
    "ZUNION 2 a b WITHSCORES",
    "ZINTER 2 a b WEIGHTS 2 3 WITHSCORES",
    "ZDIFF 2 b a WITHSCORES",
    "ZINTERCARD 2 a b",
    "ZUNIONSTORE d 2 a b WEIGHTS 1 2 AGGREGATE MAX",
    "ZRANGE d 0 -1 WITHSCORES",
    "ZINTERSTORE c 2 a b",
    "ZDIFFSTORE d 2 a b",
    "ZRANGE d 0 -1 WITHSCORES",
    "ZRANGESTORE d a 0 -1",
    "ZRANGE d 0 -1",
    "ZUNIONSTORE d 2 a b WEIGHTS x y",
    "ZUNIONSTORE d 2 a",
    "DEL a b c d",
    "SET a ohmytext",
    "SET b mynewtext",
    "INCRBY c 123",
    "INCRBY c 1",
    "INCRBY c 1",
    "LCS a b",
    "LCS a b LEN",
    "LCS a b IDX",
    "LCS c b LEN",
    "BITOP AND d a b",
    "GET d",
    "BITOP NOT d c",
    "GETRANGE d 0 -1",
    "BITOP NOT d a b",
    "BITOP NO d a b",
    "BITOP OR d nobody a",
    "GET d",
    "SINTER a d",
    "SUNIONSTORE f a b c",
    "EXISTS f",
    "PEXPIREAT c 4102444800000",
    "COPY c d",
    "COPY c d REPLACE",
    "GET d",
    "PERSIST d",
    "COPY a d REPLACE",
    "TTL d",
    "COPY nobody d",
    "COPY a d NONSENSE",
    "INCR c",
    "DEL a b c d",
    "PFADD a 1 2 3",
    "PFADD b 3 4",
    "PFCOUNT a b",
    "PFMERGE d a b",
    "PFCOUNT d",
    "SET c text",
    "PFMERGE d c a",
    "PFCOUNT d c",
    "GEOADD a 13.361389 38.115556 Palermo 15.087269 37.502669 Catania",
    "DEL a",
    "GEOADD a 13.361389 38.115556 Palermo 15.087269 37.502669 Catania",
    "DEL d",
    "GEOSEARCHSTORE d a FROMLONLAT 15 37 BYRADIUS 200 km ASC",
    "ZRANGE d 0 -1",
];

#[test]
fn a_hash_tag_keeps_keys_on_one_node() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    for user in 0..20 {
        let tag = format!("{{user{user}}}");
        assert!(
            client
                .run(&format!("MSETNX {tag}:a 1 x{tag}y 2 {tag} 3"))
                .integer()
                == 1
        );
        assert!(client.run(&format!("RENAME {tag}:a {tag}:b")).is_ok());
        assert_eq!(
            client
                .run(&format!("EXISTS {tag}:b x{tag}y {tag}"))
                .integer(),
            3
        );
    }
}

#[test]
fn scripts_run_where_their_keys_are() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let body = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
    let sha = client.call(&["SCRIPT", "LOAD", body]).text();
    let load_again = client.call(&["SCRIPT", "LOAD", body]).text();
    assert_eq!(sha, load_again);
    let unknown = "f".repeat(40);
    let exists = format!("SCRIPT EXISTS {sha} {unknown} {sha}");
    let known = [1, 0, 1].map(Reply::Integer);
    assert_eq!(client.run(&exists).elements(), known);
    for key in 0..30 {
        assert_eq!(
            client.run(&format!("EVALSHA {sha} 1 k{key} 5")).integer(),
            5
        );
        let eval = ["EVAL", body, "1", &format!("k{key}"), "2"];
        assert_eq!(client.call(&eval).integer(), 7);
    }
    assert!(client.run("SCRIPT FLUSH").is_ok());
    assert_eq!(
        client.run(&exists).elements(),
        [0, 0, 0].map(Reply::Integer)
    );
    for key in 0..10 {
        let reply = client.run(&format!("EVALSHA {sha} 1 k{key} 5"));
        assert!(reply.text().starts_with("NOSCRIPT "), "{reply:?}");
    }
}

#[test]
fn scripts_see_pending_increments_of_their_keys_and_without_keys_of_all() {
    let stack = Stack::start(&[("counters.flush_interval", "\"10s\"")]);
    let mut client = stack.connect();
    for round in 1..=5 {
        for key in 0..10 {
            for _ in 0..4 {
                client.run(&format!("INCR k{key}"));
            }
            let value = client.run(&format!(
                "EVAL \"return redis.call('GET', KEYS[1])\" 1 k{key}"
            ));
            assert_eq!(value.text(), (4 * round).to_string());
        }
    }
    let warm: Vec<_> = (0..10)
        .flat_map(|key| vec![format!("INCR k{key}"); 3])
        .collect();
    client.run_all(&warm);
    // A script without keys runs on some node: what it sees there is up to date.
    let body = "local sum = 0 for _, k in ipairs(redis.call('KEYS', 'k?')) do \
        sum = sum + redis.call('GET', k) end return {sum, #redis.call('KEYS', 'k?')}";
    let reply = client.call(&["EVAL", body, "0"]);
    let [sum, count] = reply.elements() else {
        panic!("{reply:?}");
    };
    assert_eq!(sum.integer(), 23 * count.integer());
}

#[test]
fn clients_with_different_protocols_share_the_nodes() {
    let stack = Stack::start(&[]);
    let mut two = stack.connect();
    let mut three = stack.connect();
    assert!(matches!(three.run("HELLO 3"), Reply::Map(_)));
    assert_eq!(two.run("HSET h a 1 b 2").integer(), 2);
    assert_eq!(two.run("ZADD z 1.5 m").integer(), 1);
    for _ in 0..50 {
        assert!(matches!(two.run("HGETALL h"), Reply::Array(_)));
        assert!(matches!(three.run("HGETALL h"), Reply::Map(_)));
        assert_eq!(two.run("ZSCORE z m"), Reply::Bulk(b"1.5".to_vec()));
        assert_eq!(three.run("ZSCORE z m"), Reply::Other(b',', b"1.5".to_vec()));
        assert_eq!(two.call_raw(&["GET", "nothing"]), b"$-1\r\n");
        assert_eq!(three.call_raw(&["GET", "nothing"]), b"_\r\n");
        assert_eq!(
            three.call_raw(&["MGET", "nothing", "gone"]),
            b"*2\r\n_\r\n_\r\n"
        );
    }
}

#[test]
fn narrow_lanes_slow_down_and_change_nothing() {
    let stack = Stack::start(&[
        ("upstream.max_in_flight", "8"),
        ("upstream.max_unsent", "\"16KiB\""),
        ("cache.ttl", "\"0s\""),
    ]);
    let value = "x".repeat(10_000);
    let address = stack.address();
    std::thread::scope(|scope| {
        for client in 0..20 {
            let value = &value;
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                for round in 0..5 {
                    let lines: Vec<_> = (0..40)
                        .flat_map(|n| {
                            [
                                format!("SET c{client}:{n} {n}:{round}:{value}"),
                                format!("STRLEN c{client}:{n}"),
                                format!("GETRANGE c{client}:{n} 0 3"),
                                format!("INCR n{client}"),
                            ]
                        })
                        .collect();
                    let replies = connection.run_all(&lines);
                    for (n, replies) in replies.chunks(4).enumerate() {
                        let text = format!("{n}:{round}:{value}");
                        assert!(replies[0].is_ok());
                        assert_eq!(usize::try_from(replies[1].integer()).unwrap(), text.len());
                        assert_eq!(replies[2].text(), text[..4]);
                        let count = 40 * round + n + 1;
                        assert_eq!(usize::try_from(replies[3].integer()).unwrap(), count);
                    }
                }
            });
        }
    });
}

/// The keys of a pattern live on both nodes.
#[test]
fn sort_looks_up_keys_wherever_they_are() {
    let redis = Redis::start(&[]);
    let stack = Stack::start(&[]);
    let (mut expected, mut actual) = (redis.connect(), stack.connect());
    let both = [&mut expected, &mut actual];
    for client in both {
        for number in 0..40 {
            let weight = (number * 17) % 23;
            client.run(&format!("RPUSH list {number}"));
            client.run(&format!("SADD set {number}"));
            client.run(&format!("ZADD zset {weight} m{number}"));
            client.run(&format!("SET text:{number} t{weight}"));
            client.run(&format!("HSET hash:{number} by {weight} name n{number}"));
            if number % 5 > 0 {
                client.run(&format!("SET by:{number} {weight}"));
            }
        }
        client.run("RPUSH by:5 no string");
        client.run("INCR by:3");
    }
    for line in [
        "SORT list BY by:*",
        "SORT list BY by:* DESC LIMIT 3 7",
        "SORT list BY by:* LIMIT -2 4 GET # GET text:* GET hash:*->name GET none GET none:*",
        "SORT set BY hash:*->by GET # GET hash:*->",
        "SORT set BY text:* ALPHA LIMIT 0 5 GET text:*",
        "SORT list GET text:* DESC",
        "SORT zset BY nosort GET hash:*->name",
        "SORT_RO list BY by:* GET text:*",
        "SORT list BY text:*",
        "SORT list BY by:* STORE sorted",
        "LRANGE sorted 0 -1",
        "SORT list BY by:* GET none:* GET text:* LIMIT 0 3 STORE sorted:2",
        "LRANGE sorted:2 0 -1",
        "SORT missing BY by:* STORE sorted",
        "EXISTS sorted",
        "SORT list STORE sorted:3",
        "SORT list BY by:* LIMIT a b",
        "SORT list BY by:* NOW",
        "SORT_RO list BY by:* STORE x",
        "SORT text:1 BY by:*",
    ] {
        assert_eq!(actual.run(line), expected.run(line), "{line}");
    }
}

#[test]
fn sort_with_a_hash_tag_stays_on_one_node() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    for (member, weight) in [("a", 3), ("b", 1), ("c", 2)] {
        client.run(&format!("RPUSH {{t}}list {member}"));
        client.run(&format!("SET {{t}}weight:{member} {weight}"));
    }
    let looked_up = || stack.node_calls("get") + stack.node_calls("hget");
    let before = looked_up();
    let sorted = client.run("SORT {t}list BY {t}weight:* GET #");
    let sorted: Vec<_> = sorted.elements().iter().map(Reply::text).collect();
    assert_eq!(sorted, ["b", "c", "a"]);
    assert_eq!(stack.node_calls("sort"), 1);
    assert_eq!(looked_up(), before);
}
