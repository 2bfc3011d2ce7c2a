//! Commands that Redis 7.0 lacks, on nodes that have them: a Valkey.

use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Stack, eventually, skipped_on_bare_redis};
use crate::moves;
use crate::reply::Reply;
use crate::servers::{Redis, is_other_server};
use crate::steps::{self, Step};

const NONE: [(&str, &str); 0] = [];

fn stack() -> Stack {
    Stack::over(vec![Redis::start_valkey(), Redis::start_valkey()], &NONE)
}

#[track_caller]
fn check(steps: &[Step<'_>]) {
    if skipped_on_bare_redis() {
        return;
    }
    for greeting in ["HELLO 2", "HELLO 3"] {
        let greetings = [greeting, "HELLO 3"];
        steps::compare(&Redis::start_valkey(), &stack(), greetings, steps);
    }
}

#[test]
fn they_are_sent_to_the_node_of_their_keys() {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for line in [
        "HSET h f v g w",
        "HEXPIRE h 100 FIELDS 2 f nobody",
        "HTTL h FIELDS 3 f g nobody",
        "HPERSIST h FIELDS 1 f",
        "httl h FIELDS 1 f",
        "HTTL missing FIELDS 1 f",
        "HSETEX h EX 100 FIELDS 1 k v",
        "HGETEX h PERSIST FIELDS 2 k nobody",
        "HGETDEL h FIELDS 2 k nobody",
        "HGETALL h",
        "HEXPIRE h",
        "HEXPIRE h x FIELDS 1 f",
        "HTTL h FIELDS 9 f",
        "DELIFEQ h v",
        // A counter is what its clients were told.
        "INCR c",
        "INCR c",
        "INCR c",
        "DELIFEQ c 2",
        "DELIFEQ c 3",
        "INCR c",
        // Their number is said in the request.
        "MSETEX 2 {t}a 1 {t}b 2 EX 100",
        "INCR {t}a",
        "INCR {t}a",
        "MSETEX 2 {t}a 7 {t}b 8",
        "INCR {t}a",
        "MGET {t}a {t}b",
        "MSETEX",
        // More arguments than 7.0 takes.
        "ZADD z 1.5 m 2 n",
        "ZRANK z n",
        "ZRANK z n WITHSCORE",
        "ZRANK z nobody",
        "ZRANK z nobody WITHSCORE",
        "ZREVRANK z m WITHSCORE",
        "ZREVRANK nowhere m WITHSCORE",
        "ZRANK z",
        "COMMAND GETKEYS HTTL k FIELDS 1 f",
        "COMMAND GETKEYS INCR",
        // In a transaction.
        "MULTI",
        "HEXPIRE h 200 FIELDS 1 f",
        "HTTL h FIELDS 1 f",
        "EXEC",
        "MULTI",
        "HEXPIRE h",
        "EXEC",
        "HNOBODY h",
    ] {
        steps.push((0, line, "0"));
    }
    check(&steps);
}

#[test]
fn those_who_track_are_told_of_them() {
    check(&[
        (1, "CLIENT TRACKING ON", "1"),
        (1, "HTTL h FIELDS 1 f", "1"),
        (0, "HSETEX h FIELDS 1 f v", "01"),
        (0, "HSETEX h FIELDS 1 f v", "0"),
        (1, "HGETALL h", "1"),
        (0, "HEXPIRE h 100 FIELDS 1 f", "01"),
    ]);
}

#[test]
fn access_rules_hold_for_them() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = stack();
    let mut client = stack.connect();
    for line in [
        "ACL SETUSER ann on >a ~* +@hash -hpersist",
        "ACL SETUSER bob on >b ~* +@all -@hash +httl",
        "ACL SETUSER cid on >c ~a* %R~r* +@all",
    ] {
        assert!(client.run(line).is_ok(), "{line}");
    }
    let words = |reply: Reply| format!("{reply:?}");
    let listed = words(client.run("ACL LIST"));
    for rules in ["+@hash -hpersist", "+@all -@hash", "+httl"] {
        assert!(listed.contains(rules), "{listed}");
    }
    assert!(words(client.run("ACL CAT hash")).contains("hgetex"));
    let unknown = client.run("ACL SETUSER ann +hnobody");
    assert!(unknown.text().contains("Unknown command"), "{unknown:?}");
    for (user, line, is_allowed) in [
        ("ann a", "HTTL h FIELDS 1 f", true),
        ("ann a", "HPERSIST h FIELDS 1 f", false),
        ("ann a", "DELIFEQ h v", false),
        ("bob b", "HTTL h FIELDS 1 f", true),
        ("bob b", "HEXPIRE h 100 FIELDS 1 f", false),
        ("bob b", "DELIFEQ h v", true),
        ("cid c", "HTTL r FIELDS 1 f", true),
        ("cid c", "HEXPIRE r 100 FIELDS 1 f", false),
        ("cid c", "HEXPIRE a 100 FIELDS 1 f", true),
        ("cid c", "MSETEX 2 a{a} 1 r{a} 2", false),
        ("cid c", "MSETEX 2 a{a} 1 ab{a} 2", true),
    ] {
        client.run(&format!("AUTH {user}"));
        let reply = words(client.run(line));
        assert_eq!(
            !reply.contains("NOPERM"),
            is_allowed,
            "{user} {line}: {reply}"
        );
    }
}

#[test]
fn what_no_node_can_be_told_of_is_refused() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = stack();
    let mut client = stack.connect();
    for (line, error) in [
        (
            "SCRIPT SHOW 0000000000000000000000000000000000000000",
            "ERR SCRIPT SHOW is not available through Tally, send it to the Redis node",
        ),
        (
            "COMMANDLOG NOBODY",
            "ERR unknown subcommand 'NOBODY'. Try COMMANDLOG HELP.",
        ),
        (
            "COMMANDLOG|LEN slow",
            "ERR unknown command 'COMMANDLOG|LEN', with args beginning with: 'slow' ",
        ),
        ("MSETEX 0 a 1", "ERR numkeys should be greater than 0"),
    ] {
        assert_eq!(client.run(line).text(), error, "{line}");
    }
    client.run("HTTL h FIELDS 1 f");
    let figures = client.run("INFO commandstats");
    let figures = figures.text();
    assert!(figures.contains("cmdstat_httl:calls=1,"), "{figures}");
    assert!(
        figures.contains("cmdstat_script|show:calls=0,"),
        "{figures}"
    );
}

/// By the tips of the nodes' `COMMAND`.
#[test]
fn what_is_for_all_nodes_is_asked_of_all() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = stack();
    let mut client = stack.connect();
    let lens: Vec<i64> = stack
        .nodes
        .iter()
        .zip([3, 5])
        .map(|(node, count)| {
            let mut node = node.connect();
            node.run_ok("CONFIG SET commandlog-execution-slower-than 0");
            for _ in 0..count {
                node.run("GET k");
            }
            node.run_ok("CONFIG SET commandlog-execution-slower-than -1");
            node.run("COMMANDLOG LEN slow").integer()
        })
        .collect();
    assert!(lens.iter().all(|len| *len >= 3), "{lens:?}");
    let sum: i64 = lens.iter().sum();
    assert_eq!(client.run("COMMANDLOG LEN slow").integer(), sum);
    let entries = client.run("COMMANDLOG GET -1 slow");
    assert_eq!(i64::try_from(entries.elements().len()), Ok(sum));
    assert!(
        entries
            .elements()
            .iter()
            .all(|entry| entry.elements().len() == 6)
    );
    for line in ["MULTI", "COMMANDLOG LEN slow", "SET k 1"] {
        client.run(line);
    }
    let executed = client.run("EXEC");
    assert_eq!(executed.elements()[0].integer(), sum);
    assert_eq!(client.run("COMMANDLOG RESET slow").text(), "OK");
    for node in &stack.nodes {
        assert_eq!(node.connect().run("COMMANDLOG LEN slow").integer(), 0);
    }
    let error = client.run("COMMANDLOG LEN nonsense");
    assert_eq!(
        error,
        stack.nodes[0].connect().run("COMMANDLOG LEN nonsense")
    );
    let help = client.run("COMMANDLOG HELP");
    assert_eq!(help, stack.nodes[0].connect().run("COMMANDLOG HELP"));
}

/// `PEXPIRETIME` of what has a deadline by the clock would differ.
const SET_TOGETHER: &[&str] = &[
    "INCR a",
    "INCR a",
    "MSETEX 2 a 1 b 2 NX EX 100",
    "MGET a b",
    "MSETEX 2 a 1 b 2 xx EX 100",
    "EXISTS b",
    "MSETEX 3 a 1 b 2 c 3 EXAT 4000000000",
    "MGET a b c",
    "EXPIRETIME a",
    "EXPIRETIME b",
    "INCR a",
    "INCR b",
    "MSETEX 3 a 7 b 8 c 9 XX KEEPTTL",
    "EXPIRETIME c",
    "MSETEX 2 a 1 b 2 KEEPTTL XX",
    "EXPIRETIME b",
    "INCR b",
    "MSETEX 2 a 1 b 2",
    "TTL a",
    "TTL b",
    "MSETEX 4 a 1 b 2 a 3 d 4 PXAT 4000000000000",
    "MGET a b d",
    "DEL a b",
    "MSETEX 2 a 1 b 2 PXAT 4000000000000 NX",
    "PEXPIRETIME b",
    "MSETEX 2 a 1 b 2 NX NX",
    "MSETEX 2 a 1 b 2 NX XX",
    "MSETEX 2 a 1 b 2 EX 0",
    "MSETEX 2 a 1 b 2 EX x",
    "MSETEX 2 a 1 b 2 EX 1 KEEPTTL",
    "MSETEX 2 a 1 b 2 nonsense",
    "MSETEX 2 a 1 b 2 c",
    "MSETEX 2 a 1 b",
    "MSETEX 3 a 1 b 2",
    "MGET a b",
    "LPUSH d x",
    "MSETEX 2 c 1 d 2 XX",
    "TYPE d",
];

#[test]
fn keys_of_two_nodes_are_set_together() {
    if skipped_on_bare_redis() {
        return;
    }
    moves::compare(&stack(), &Redis::start_valkey(), SET_TOGETHER);
    let split = [("transactions.cross_node", "\"split\"")];
    let split = Stack::over(vec![Redis::start_valkey(), Redis::start_valkey()], &split);
    let mut lines = vec!["MULTI"];
    lines.extend(SET_TOGETHER.iter().filter(|line| !line.contains("b 2 c")));
    lines.push("EXEC");
    moves::compare(&split, &Redis::start_valkey(), &lines);
}

#[test]
fn no_password_of_a_node_is_shown_by_another_name() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = stack();
    for node in &stack.nodes {
        node.connect().run_ok("CONFIG SET primaryauth hush");
    }
    let mut client = stack.connect();
    for asked in ["*", "primaryauth", "masterauth", "*auth*"] {
        let shown = format!("{:?}", client.run(&format!("CONFIG GET {asked}")));
        assert!(shown.contains("auth") && !shown.contains("hush"), "{shown}");
    }
}

#[test]
fn info_names_a_valkey_as_a_valkey_does() {
    if skipped_on_bare_redis() {
        return;
    }
    let valkey = Redis::start_valkey();
    let named = |client: &mut Connection| -> Vec<String> {
        // It waits for every node.
        client.run("DBSIZE");
        let info = client.run("INFO server");
        let names = ["redis_version:", "server_name:", "valkey_version:"];
        let is_named = |line: &&str| names.iter().any(|name| line.starts_with(name));
        info.text()
            .lines()
            .filter(is_named)
            .map(Into::into)
            .collect()
    };
    let want = named(&mut valkey.connect());
    assert_eq!(want.len(), 3, "{want:?}");
    assert_eq!(named(&mut stack().connect()), want);
    if is_other_server() {
        return;
    }
    let mixed = Stack::over(vec![Redis::start(&[]), Redis::start_valkey()], &NONE);
    assert_eq!(named(&mut mixed.connect()).len(), 1);
}

#[test]
fn what_was_denied_is_told_with_a_number_and_times() {
    if skipped_on_bare_redis() {
        return;
    }
    let (valkey, stack) = (Redis::start_valkey(), stack());
    let [there, here] = [valkey.connect(), stack.connect()].map(|mut client| {
        for line in [
            "AUTH ann x",
            "AUTH bob x",
            "AUTH ann x",
            "ACL LOG RESET",
            "AUTH cid x",
            "AUTH dan x",
            "AUTH cid x",
        ] {
            client.run(line);
        }
        let log = client.run("ACL LOG");
        let told = log.elements().iter().map(|entry| {
            let fields = entry.elements();
            let names: Vec<String> = fields.iter().step_by(2).map(Reply::text).collect();
            let [id, created, updated] = [15, 17, 19].map(|at| fields[at].integer());
            let user = fields[9].text();
            // Milliseconds of this age.
            assert!(created > 1_700_000_000_000, "{created}");
            assert!(created <= updated && updated < created + 60_000);
            (names, user, fields[1].integer(), id)
        });
        told.collect::<Vec<_>>()
    });
    assert_eq!(here, there);
    let ids: Vec<i64> = here.iter().map(|entry| entry.3).collect();
    assert_eq!(ids, [2, 3]);
}

/// They are known since the first node that has them; one that lacks them says so itself.
#[test]
fn nodes_may_differ() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::over(vec![Redis::start(&[]), Redis::start_valkey()], &NONE);
    let mut client = stack.connect();
    let mut nodes: Vec<Connection> = stack.nodes.iter().map(Redis::connect).collect();
    let mut seen = [0, 0];
    for number in 0..20 {
        let key = format!("k{number}");
        client.run(&format!("HSET {key} f v"));
        let at = usize::from(nodes[1].run(&format!("EXISTS {key}")).integer() == 1);
        let line = format!("HTTL {key} FIELDS 1 f");
        assert_eq!(client.run(&line), nodes[at].run(&line));
        seen[at] += 1;
    }
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
}

#[test]
fn they_are_known_once_their_node_is_there() {
    if skipped_on_bare_redis() || is_other_server() {
        return;
    }
    let mut nodes = vec![Redis::start(&[]), Redis::start_valkey()];
    nodes[1].kill();
    let mut stack = Stack::over(nodes, &NONE);
    let mut client = stack.connect();
    let text = client.run("HTTL h FIELDS 1 f");
    assert!(
        text.text().starts_with("ERR unknown command 'HTTL'"),
        "{text:?}"
    );
    stack.nodes[1].restart();
    let known = eventually(Duration::from_secs(10), || {
        (0..20).any(|number| {
            let reply = client.run(&format!("HTTL k{number} FIELDS 1 f"));
            matches!(reply, Reply::Array(_))
        })
    });
    assert!(known);
}
