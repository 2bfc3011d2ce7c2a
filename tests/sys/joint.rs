//! Commands in transactions whose own keys are of two nodes, where transactions are split: the
//! replies, and what is left, are those of one Redis.

use std::collections::HashSet;
use std::time::Duration;

use tally::command::{Class, Command, Keys, commands};

use crate::connection::{Connection, Request, words};
use crate::harness::{Settings, Stack, eventually, skipped_on_bare_redis};
use crate::relay::Relay;
use crate::reply::Reply;
use crate::servers::Redis;

const SPLIT: (&str, &str) = ("transactions.cross_node", "\"split\"");

/// What is there before, and a command of a transaction. Keys named `a` and `c` are on the first
/// node, `b` and `d` on the second.
const CASES: &[(&[&str], &str)] = &[
    (&["SET a 1 EX 1000", "INCR a"], "RENAME a b"),
    (&["RPUSH b x y"], "RENAME b a"),
    (&[], "RENAME a b"),
    (&["HSET a f v"], "RENAMENX a b"),
    (&["HSET a f v", "INCR b"], "RENAMENX a b"),
    (
        &["INCR a", "INCR a", "INCR b", "INCR b"],
        "COPY a b REPLACE",
    ),
    (&["SET a 1 PX 777000"], "COPY a b"),
    (&["SET a 1"], "COPY a b AGAIN"),
    (&["INCR a"], "MSETNX a 1 b 2 c 3"),
    (&[], "MSETNX a 1 b 2 c 3 d 4"),
    (&["SET a ohmytext", "SET b mynewtext"], "LCS a b LEN"),
    (&["SET b xyz", "SET d abc"], "BITOP OR a b d"),
    (&["RPUSH a 1 2 3"], "LMOVE a b LEFT RIGHT"),
    (&["RPUSH a 1", "RPUSH b 2"], "LMOVE a b LEFT LEFT"),
    (&[], "LMOVE a b LEFT LEFT"),
    (&["INCR a"], "LMOVE a b LEFT LEFT"),
    (&["RPUSH a 1 2 3"], "RPOPLPUSH a b"),
    (&["RPUSH a 1 2 3"], "BLMOVE a b LEFT RIGHT 1"),
    (&[], "BLMOVE a b LEFT RIGHT 1"),
    (&["RPUSH b 1 2 3"], "BRPOPLPUSH b a 1"),
    (&["RPUSH b 1 2 3"], "BLPOP a b 1"),
    (&[], "BLPOP a b 1"),
    (&["RPUSH b 1 2 3", "RPUSH d x"], "BRPOP a b d 0"),
    (&["RPUSH b 1 2 3"], "LMPOP 2 a b LEFT COUNT 2"),
    (&["RPUSH a 1 2 3"], "BLMPOP 0 2 b a RIGHT"),
    (&["ZADD b 1 x 2 y"], "ZMPOP 2 a b MAX"),
    (&["ZADD b 1 x 2 y"], "BZMPOP 0 2 a b MIN COUNT 5"),
    (&["ZADD b 1 x 2 y"], "BZPOPMIN a b 0"),
    (&["ZADD b 1 x 2 y"], "BZPOPMAX b a 0"),
    (&["SADD a m n"], "SMOVE a b m"),
    (&["SADD a m n", "SADD b m"], "SMOVE a b m"),
    (&["SADD a m n", "SADD b n"], "SDIFF a b"),
    (&["SADD a m n", "SADD b n"], "SINTER a b c"),
    (&["SADD a m n", "SADD b n"], "SINTERCARD 2 a b"),
    (&["SADD a m n", "SADD b n o"], "SUNION a b d"),
    (&["SADD a m n", "SADD b n"], "SDIFFSTORE d a b"),
    (&["SADD a m n", "SADD b n"], "SINTERSTORE c a b"),
    (&["SADD a m n", "SADD b n", "INCR d"], "SUNIONSTORE d a b"),
    (&["ZADD a 1 m 2 n", "ZADD b 4 n"], "ZDIFF 2 a b WITHSCORES"),
    (&["ZADD a 1 m 2 n", "ZADD b 4 n"], "ZINTER 2 a b WITHSCORES"),
    (&["ZADD a 1 m 2 n", "ZADD b 4 n"], "ZUNION 2 a b WITHSCORES"),
    (&["ZADD a 1 m 2 n", "ZADD b 4 n"], "ZINTERCARD 2 a b"),
    (&["ZADD a 1 m 2 n", "ZADD b 4 n"], "ZDIFFSTORE c 2 a b"),
    (&["ZADD a 1 m 2 n", "ZADD b 4 n"], "ZINTERSTORE d 2 a b"),
    (
        &["ZADD a 1 m", "SADD b m"],
        "ZUNIONSTORE c 2 b a WEIGHTS 2 3",
    ),
    (&["ZADD a 1 m 2 n"], "ZRANGESTORE b a 0 0"),
    (&["PFADD a x y", "PFADD b z"], "PFCOUNT a b"),
    (&["PFADD a x y", "PFADD b z"], "PFMERGE d a b"),
    (
        &["GEOADD a 13.36 38.11 P 15.08 37.5 C"],
        "GEORADIUS a 15 37 200 km STORE b",
    ),
    (
        &["GEOADD a 13.36 38.11 P 15.08 37.5 C"],
        "GEORADIUSBYMEMBER a P 200 km STOREDIST d",
    ),
    (
        &["GEOADD a 13.36 38.11 P"],
        "GEOSEARCHSTORE b a FROMLONLAT 15 37 BYRADIUS 200 km",
    ),
    (&["RPUSH a 3 1 2"], "SORT a DESC STORE b"),
    (
        &["XADD a 1-1 f v", "XADD b 2-1 f w"],
        "XREAD COUNT 5 STREAMS a b 0 0",
    ),
    (&["XADD a 1-1 f v"], "XREAD BLOCK 1000 STREAMS b a 0 0"),
    (
        &[
            "XADD a 1-1 f v",
            "XADD b 2-1 f w",
            "XGROUP CREATE a g 0",
            "XGROUP CREATE b g 0",
        ],
        "XREADGROUP GROUP g me STREAMS a b > >",
    ),
    (&["INCR a", "INCR b"], "EVAL BODY 2 a b"),
    (&["INCR a", "RPUSH b x"], "EVAL BODY 2 a b"),
    (&["INCR a", "INCR b"], "EVALSHA SHA 2 b a"),
    (&["INCR a", "INCR b"], "EVAL_RO READ 2 a b"),
    (&["INCR a", "INCR b"], "EVALSHA_RO READ_SHA 2 b a"),
    (&["INCR a", "INCR b"], "FCALL both 2 a b"),
    (&["INCR a", "INCR b"], "FCALL_RO read 2 a b"),
    // Taken by each node for its own keys.
    (&["INCR a", "INCR b"], "MGET a b c"),
    (&["INCR a", "INCR b"], "MSET a 1 b 2"),
    (&["INCR a", "INCR b"], "DEL a b c"),
    (&["INCR a", "INCR b"], "UNLINK b d"),
    (&["INCR a", "INCR b"], "EXISTS b a a"),
    (&["INCR a", "INCR b"], "TOUCH b a c"),
];

const BODY: &str = "return {redis.call('INCR', KEYS[1]), redis.call('INCR', KEYS[2])}";
const READ: &str = "return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}";
const LIBRARY: &str = "#!lua name=joint\n\
    local function both(keys) return {redis.call('INCR', keys[1]), redis.call('INCR', keys[2])} end\n\
    local function read(keys) return redis.call('MGET', keys[1], keys[2]) end\n\
    redis.register_function('both', both)\n\
    redis.register_function{function_name='read', callback=read, flags={'no-writes'}}";

/// Tally over two nodes, and a plain Redis.
struct Pair {
    stack: Stack,
    redis: Redis,
    names: [(&'static str, String); 4],
    hashes: [(&'static str, String); 2],
}

impl Pair {
    fn start(settings: Settings<'_>) -> Self {
        let stack = Stack::start(&[&[SPLIT], settings].concat());
        let redis = Redis::start(&[]);
        let names = [(0, "a"), (1, "b"), (0, "c"), (1, "d")];
        let names = names.map(|(node, name)| (name, stack.key_on(node, name)));
        let mut clients = [stack.connect(), redis.connect()];
        let hashes = [("SHA", BODY), ("READ_SHA", READ)].map(|(name, body)| {
            let hashes = clients
                .each_mut()
                .map(|client| client.call(&["SCRIPT", "LOAD", body]));
            assert_eq!(hashes[0], hashes[1]);
            (name, hashes[0].text())
        });
        for client in &mut clients {
            assert!(!client.call(&["FUNCTION", "LOAD", LIBRARY]).is_error());
        }
        Self {
            stack,
            redis,
            names,
            hashes,
        }
    }

    fn connect(&self, hello: &str) -> [Connection; 2] {
        let mut clients = [self.stack.connect(), Connection::open(self.redis.address())];
        for client in &mut clients {
            client.run(hello);
        }
        clients
    }

    fn request(&self, line: &str) -> Request {
        let place = |word: Vec<u8>| {
            let mut named = self.names.iter().chain(&self.hashes);
            match (
                word.as_slice(),
                named.find(|(name, _)| name.as_bytes() == word),
            ) {
                (b"BODY", _) => BODY.into(),
                (b"READ", _) => READ.into(),
                (_, Some((_, meant))) => meant.clone().into_bytes(),
                (_, None) => word,
            }
        };
        words(line).into_iter().map(place).collect()
    }

    /// What both answer, the elements of sets in one order.
    fn replies(&self, clients: &mut [Connection; 2], line: &str) -> [Reply; 2] {
        let request = self.request(line);
        clients
            .each_mut()
            .map(|client| match client.call(&request) {
                Reply::Array(replies) if line == "EXEC" => {
                    Reply::Array(replies.into_iter().map(Reply::sorted).collect())
                }
                reply => reply.sorted(),
            })
    }

    #[track_caller]
    fn check(&self, clients: &mut [Connection; 2], lines: &[&str], what: &str) {
        for line in lines {
            let [tally, plain] = self.replies(clients, line);
            assert_eq!(tally, plain, "{what}: {line}");
        }
    }

    /// What is at every key.
    #[track_caller]
    fn check_keys(&self, clients: &mut [Connection; 2], what: &str) {
        self.check(clients, &["KEYS *"], what);
        for (name, key) in &self.names {
            let read = match clients[1].run(&format!("TYPE {key}")).text().as_str() {
                "list" => "LRANGE @ 0 -1",
                "hash" => "HGETALL @",
                "set" => "SMEMBERS @",
                "zset" => "ZRANGE @ 0 -1 WITHSCORES",
                "stream" => "XINFO GROUPS @",
                _ => "GET @",
            };
            let lines = ["TYPE @", read, "TTL @"].map(|line| line.replace('@', name));
            self.check(clients, &lines.each_ref().map(String::as_str), what);
        }
    }
}

/// Whether it takes several keys that have to be together on one Redis Cluster.
fn takes_several_keys(command: &Command) -> bool {
    let several = match command.keys {
        Keys::Range { first, last, .. } => last < 0 || i8::try_from(first) != Ok(last),
        Keys::None | Keys::Migrate => false,
        _ => true,
    };
    let in_transactions = !matches!(
        command.class,
        Class::Refused(_) | Class::Transaction(_) | Class::PubSub(_) | Class::EveryNode(_)
    );
    several && in_transactions
}

#[test]
fn every_command_on_several_keys_is_among_the_cases() {
    let first = |line: &&str| line.split(' ').next().unwrap().to_ascii_lowercase();
    let tried: HashSet<String> = CASES.iter().map(|(_, line)| first(line)).collect();
    for command in commands()
        .iter()
        .filter(|command| takes_several_keys(command))
    {
        // Its keys are one, or one and a store's, which is tried.
        let has_store = matches!(
            command.name,
            "sort_ro" | "georadius_ro" | "georadiusbymember_ro"
        );
        assert!(
            has_store || tried.contains(command.name),
            "{}",
            command.name
        );
    }
}

#[track_caller]
fn check_cases(settings: Settings<'_>) {
    if skipped_on_bare_redis() {
        return;
    }
    let pair = Pair::start(settings);
    for hello in ["HELLO 2", "HELLO 3"] {
        let mut clients = pair.connect(hello);
        for watches in [&["PING"][..], &["WATCH a"], &["WATCH d a b"]] {
            for (before, line) in CASES {
                let what = format!("{settings:?}, {hello}, {watches:?}, {before:?}, {line}");
                pair.check(&mut clients, &["FLUSHALL"], &what);
                pair.check(&mut clients, before, &what);
                pair.check(&mut clients, watches, &what);
                let transaction = ["MULTI", "INCR n", line, "EXISTS a b c d", "TYPE d", "EXEC"];
                pair.check(&mut clients, &transaction, &what);
                pair.check_keys(&mut clients, &what);
            }
        }
    }
}

#[test]
fn commands_on_keys_of_two_nodes_are_as_on_one_redis_when_buffered() {
    check_cases(&[]);
}

#[test]
fn commands_on_keys_of_two_nodes_are_as_on_one_redis_when_exact() {
    check_cases(&[("counters.mode", "\"exact\"")]);
}

#[test]
fn commands_on_keys_of_two_nodes_are_as_on_one_redis_when_forwarded() {
    check_cases(&[("counters.mode", "\"through\"")]);
}

/// Two nodes behind relays, Tally before them, a key on each and a further one on the first.
fn relayed() -> (Vec<Relay>, Stack, [String; 3]) {
    let nodes = vec![Redis::start(&[]), Redis::start(&[])];
    let relays: Vec<_> = nodes.iter().map(Redis::address).map(Relay::start).collect();
    let stack = Stack::behind(&relays, nodes, &[SPLIT]);
    let keys = [(0, "a"), (1, "b"), (0, "n")].map(|(node, name)| stack.key_on(node, name));
    (relays, stack, keys)
}

/// Moves an element from the first node to the second, in a transaction that counts too, while the
/// connection to the second is lost before `request`. The reply.
fn move_and_lose(
    relays: &[Relay],
    stack: &Stack,
    keys: &[String; 3],
    request: &'static [u8],
) -> Reply {
    let [a, b, n] = keys;
    let mut client = stack.connect();
    client.run(&format!("RPUSH {a} x y"));
    client.run(&format!("RPUSH {b} z"));
    let held = relays[1].hold_from(request);
    client.run_ok("MULTI");
    client.run(&format!("INCR {n}"));
    client.run(&format!("LMOVE {a} {b} LEFT RIGHT"));
    client.send(&["EXEC"]);
    assert!(eventually(PATIENCE, || held.has(request)));
    held.lose();
    client.read_reply()
}

fn elements(stack: &Stack, node: usize, key: &str) -> Vec<String> {
    let list = stack.nodes[node]
        .connect()
        .run(&format!("LRANGE {key} 0 -1"));
    list.elements().iter().map(Reply::text).collect()
}

#[test]
fn nothing_is_executed_when_a_key_can_not_be_brought() {
    if skipped_on_bare_redis() {
        return;
    }
    let (relays, stack, keys) = relayed();
    let reply = move_and_lose(&relays, &stack, &keys, b"DUMP");
    let text = reply.text();
    assert!(text.starts_with("EXECABORT "), "{text}");
    assert!(text.ends_with("nothing was executed"), "{text}");
    assert_eq!(elements(&stack, 0, &keys[0]), ["x", "y"]);
    assert_eq!(elements(&stack, 1, &keys[1]), ["z"]);
    let mut client = stack.connect();
    assert_eq!(client.run(&format!("INCR {}", keys[2])).integer(), 1);
    let lines = [
        "MULTI".into(),
        format!("LMOVE {} {} LEFT LEFT", keys[0], keys[1]),
        "EXEC".into(),
    ];
    let moved = eventually(PATIENCE, || {
        let replies = client.run_all(&lines);
        matches!(&replies[2], Reply::Array(moved) if moved[0].text() == "x")
    });
    assert!(moved);
    assert_eq!(elements(&stack, 1, &keys[1]), ["x", "z"]);
}

#[test]
fn a_key_that_can_not_be_taken_back_stays_as_it_was() {
    if skipped_on_bare_redis() {
        return;
    }
    let (relays, stack, keys) = relayed();
    let reply = move_and_lose(&relays, &stack, &keys, b"RESTORE");
    let text = reply.text();
    assert!(text.contains("may have been executed"), "{reply:?}");
    assert_eq!(elements(&stack, 0, &keys[0]), ["y"]);
    assert_eq!(elements(&stack, 1, &keys[1]), ["z"]);
    let mut client = stack.connect();
    assert_eq!(client.run(&format!("INCR {}", keys[2])).integer(), 2);
    let pushed = eventually(PATIENCE, || {
        let reply = client.run(&format!("RPUSH {} x", keys[1]));
        reply == Reply::Integer(2)
    });
    assert!(pushed);
    let keys = client.run("KEYS *");
    assert_eq!(keys.elements().len(), 3, "{keys:?}");
}

#[test]
fn a_node_without_memory_refuses_what_is_brought_to_it() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[SPLIT]);
    let [a, b] = [stack.key_on(0, "a"), stack.key_on(1, "b")];
    let mut client = stack.connect();
    client.run(&format!("RPUSH {a} x"));
    client.run(&format!("RPUSH {b} y"));
    stack.nodes[0].connect().run("CONFIG SET maxmemory 1");
    let lines = ["MULTI".into(), format!("RENAME {a} {b}"), "EXEC".into()];
    let replies = client.run_all(&lines);
    assert!(replies[2].text().starts_with("EXECABORT "), "{replies:?}");
    assert_eq!(elements(&stack, 0, &a), ["x"]);
    assert_eq!(elements(&stack, 1, &b), ["y"]);
}

/// What is at both keys moves from one to the other and back, with what others push meanwhile.
#[test]
fn elements_that_many_move_in_transactions_are_there_once() {
    const ROUNDS: usize = 60;
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[SPLIT, ("server.threads", "3")]);
    let [a, b] = [stack.key_on(0, "a"), stack.key_on(1, "b")];
    std::thread::scope(|scope| {
        for mover in 0..4 {
            let (stack, a, b) = (&stack, &a, &b);
            scope.spawn(move || {
                let (from, to) = if mover % 2 == 0 { (a, b) } else { (b, a) };
                let mut client = stack.connect();
                for round in 0..ROUNDS {
                    let all = client.run_all(&[
                        "MULTI".to_owned(),
                        format!("RPUSH {from} {mover}-{round}"),
                        format!("LMOVE {from} {to} LEFT RIGHT"),
                        format!("LLEN {from}"),
                        format!("INCR {to}:n"),
                        "DBSIZE".to_owned(),
                        format!("RPOPLPUSH {to} {from}"),
                        "EXEC".to_owned(),
                    ]);
                    let replies = all[7].elements();
                    assert_eq!(replies.len(), 6, "{all:?}");
                    assert!(!replies.iter().any(Reply::is_error), "{all:?}");
                    let next = client.run(&format!("INCR {to}:n"));
                    assert!(next.integer() > replies[3].integer(), "{all:?}, {next:?}");
                }
            });
        }
    });
    let mut client = stack.connect();
    let lists = [&a, &b].map(|key| client.run(&format!("LRANGE {key} 0 -1")));
    let found: Vec<String> = lists
        .iter()
        .flat_map(Reply::elements)
        .map(Reply::text)
        .collect();
    assert_eq!(found.len(), 4 * ROUNDS);
    assert_eq!(found.iter().collect::<HashSet<_>>().len(), 4 * ROUNDS);
    let counted = [&a, &b].map(|key| client.run(&format!("GET {key}:n")).text());
    let counted: usize = counted
        .iter()
        .map(|text| text.parse::<usize>().unwrap())
        .sum();
    assert_eq!(counted, 2 * 4 * ROUNDS);
}

#[test]
fn a_client_that_keeps_a_key_is_told_though_it_read_it_at_another_node() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[SPLIT]);
    let [a, b] = [stack.key_on(0, "a"), stack.key_on(1, "b")];
    let mut client = stack.connect();
    client.run("HELLO 3");
    client.run_ok(&format!("SET {a} 1"));
    client.run_ok("CLIENT TRACKING ON");
    client.run_ok("MULTI");
    client.run(&format!("COPY {a} {b}"));
    client.run(&format!("GET {b}"));
    client.send(&["EXEC"]);
    let is_told = |frame: &[u8]| {
        frame.starts_with(b">") && memchr::memmem::find(frame, b.as_bytes()).is_some()
    };
    assert!(eventually(PATIENCE, || is_told(&client.read_frame())));
}

#[test]
fn deadlines_are_kept_where_keys_are_brought() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[SPLIT]);
    let [a, b] = [stack.key_on(0, "a"), stack.key_on(1, "b")];
    let mut client = stack.connect();
    let mut node = stack.nodes[1].connect();
    client.run(&format!("SET {b} 5 PX 60000"));
    let before = node.run(&format!("PEXPIRETIME {b}")).integer();
    let transaction = |client: &mut Connection, lines: &[String]| {
        let lines = [&["MULTI".to_owned()], lines, &["EXEC".to_owned()]].concat();
        let replies = client.run_all(&lines);
        assert!(
            matches!(replies.last(), Some(Reply::Array(_))),
            "{replies:?}"
        );
    };
    // It is not changed.
    transaction(&mut client, &[format!("COPY {b} {a}")]);
    assert_eq!(node.run(&format!("PEXPIRETIME {b}")).integer(), before);
    let copy = stack.nodes[0]
        .connect()
        .run(&format!("PEXPIRETIME {a}"))
        .integer();
    assert!(before.abs_diff(copy) < 2000, "{before} {copy}");
    // Its value is.
    transaction(&mut client, &[format!("INCR {b}"), format!("COPY {a} {b}")]);
    let after = node.run(&format!("PEXPIRETIME {b}")).integer();
    assert!(before.abs_diff(after) < 2000, "{before} {after}");
    assert_eq!(node.run(&format!("GET {b}")).text(), "6");
    // Its deadline is.
    let lines = [format!("EXPIRE {b} 1000"), format!("COPY {a} {b}")];
    transaction(&mut client, &lines);
    assert!((998..=1000).contains(&node.run(&format!("TTL {b}")).integer()));
    transaction(
        &mut client,
        &[format!("PERSIST {b}"), format!("COPY {a} {b}")],
    );
    assert_eq!(node.run(&format!("TTL {b}")).integer(), -1);
}

const PATIENCE: Duration = Duration::from_secs(10);
