//! Scripts by their names on several nodes, through restarts, and ones that do not end.

use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Stack, eventually, pause, skipped_on_bare_redis};
use crate::reply::Reply;

const BODY: &str = "return {KEYS[1], ARGV[1]}";

/// Its name.
#[track_caller]
fn sha(stack: &Stack, body: &str) -> String {
    // Of a server of its own: nothing here knows the script afterwards.
    drop(stack.connect());
    crate::servers::Redis::start(&[])
        .connect()
        .call(&["SCRIPT", "LOAD", body])
        .text()
}

#[test]
fn a_script_that_was_evaluated_once_is_known_to_every_node() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let keys = [stack.key_on(0, "k"), stack.key_on(1, "k")];
    let name = sha(&stack, BODY);
    let mut client = stack.connect();
    let unknown = client.call(&["EVALSHA", &name, "1", &keys[0], "x"]).text();
    assert!(unknown.starts_with("NOSCRIPT "), "{unknown}");
    client.call(&["EVAL", BODY, "1", &keys[0], "x"]);
    for key in &keys {
        for name in [&name, &name.to_uppercase()] {
            let reply = client.call(&["EVALSHA", name, "1", key, "x"]);
            assert_eq!(reply.elements()[0].text(), *key);
        }
    }
    let other = "return ARGV[1]";
    client.call(&["EVAL", other, "1", &keys[0], "x"]);
    client.run("MULTI");
    client.call(&["EVALSHA", &sha(&stack, other), "1", &keys[1], "y"]);
    assert_eq!(client.run("EXEC").elements()[0].text(), "y");
    let known = client.call(&["SCRIPT", "EXISTS", &name, &"0".repeat(40)]);
    assert_eq!(known.elements(), [Reply::Integer(1), Reply::Integer(0)]);
    client.call(&["EVAL", "return 5", "0"]);
    let keyless = sha(&stack, "return 5");
    let known = client.call(&["SCRIPT", "EXISTS", &keyless]);
    assert_eq!(known.elements(), [Reply::Integer(1)]);
    assert_eq!(
        client.call(&["EVALSHA_RO", &keyless, "1", &keys[1]]),
        Reply::Integer(5)
    );
    assert!(client.run("SCRIPT FLUSH").is_ok());
    let unknown = client.call(&["EVALSHA", &name, "1", &keys[1], "x"]).text();
    assert!(unknown.starts_with("NOSCRIPT "), "{unknown}");
}

#[test]
fn a_script_that_looks_for_keys_finds_those_of_every_node() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let fill = |client: &mut Connection| {
        for n in 0..20 {
            assert!(client.call(&["SET", &format!("c:{n}"), "v"]).is_ok());
        }
        client.run("INCRBY c:n 5");
        client.run("INCR c:n");
        client.run("SET other v");
    };
    let by_keys = "local n = 0 for _, k in ipairs(redis.call('KEYS', ARGV[1])) do \
                   n = n + redis.call('DEL', k) end return n";
    let by_scan = "local c = '0' repeat local r = redis.call('SCAN', c, 'MATCH', ARGV[1]) \
                   for _, k in ipairs(r[2]) do redis.call('UNLINK', k) end c = r[1] until c == '0'";
    fill(&mut client);
    let count = "return #redis.call('keys', ARGV[1])";
    let counted = client.call(&["EVAL_RO", count, "0", "c:*"]);
    assert_eq!(counted, Reply::Integer(21));
    let deleted = client.call(&["EVAL", by_keys, "0", "c:*"]);
    assert_eq!(deleted, Reply::Integer(21));
    let all = "return redis.call('KEYS', '*')";
    let left = client.call(&["EVAL", all, "0"]);
    assert_eq!(left.elements(), [Reply::Bulk(b"other".to_vec())]);
    assert_eq!(client.run("INCR c:n"), Reply::Integer(1));
    assert_eq!(client.run("GET c:1"), Reply::Nil);

    fill(&mut client);
    let name = client.call(&["SCRIPT", "LOAD", by_scan]).text();
    let nothing = client.call(&["EVALSHA", &name, "0", "c:*"]);
    assert_eq!(nothing, Reply::Nil);
    assert_eq!(client.run("DBSIZE"), Reply::Integer(1));
    assert_eq!(client.run("GET c:n"), Reply::Nil);

    // It fails on a node that has none of them.
    let at_once = "return redis.call('del', unpack(redis.call('keys', ARGV[1])))";
    client.run("SET d:1 v");
    let deleted = client.call(&["EVAL", at_once, "0", "d:*"]);
    assert_eq!(deleted, Reply::Integer(1));
    let by_key = "local n = 0 for _, k in ipairs(redis.call('keys', KEYS[1])) do \
                  n = n + redis.call('unlink', k) end return n";
    fill(&mut client);
    let deleted = client.call(&["EVAL", by_key, "1", "c:*"]);
    assert_eq!(deleted, Reply::Integer(21));
    assert_eq!(client.run("INCR c:n"), Reply::Integer(1));
    let none = client.call(&["EVAL", at_once, "0", "d:*"]).text();
    assert!(none.starts_with("ERR Wrong number of args"), "{none}");
    // What such a script begins with elsewhere is not made into one reply.
    let step = "return redis.call('SCAN', ARGV[1])";
    assert_eq!(client.call(&["EVAL", step, "0", "0"]).elements().len(), 2);
}

#[test]
fn a_node_that_was_restarted_is_given_the_scripts_again() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[]);
    let key = stack.key_on(1, "k");
    let mut client = stack.connect();
    let name = client.call(&["SCRIPT", "LOAD", BODY]).text();
    assert!(!client.call(&["EVALSHA", &name, "1", &key, "x"]).is_error());
    stack.nodes[1].restart();
    let back = eventually(Duration::from_secs(10), || {
        let reply = client.call(&["EVALSHA", &name, "1", &key, "x"]);
        let forgotten = matches!(&reply, Reply::Error(text) if text.starts_with(b"NOSCRIPT"));
        assert!(!forgotten, "{reply:?}");
        !reply.is_error()
    });
    assert!(back, "the node is back");
    // Somebody else's flush is noticed by the first call that fails.
    assert!(stack.nodes[1].connect().run("SCRIPT FLUSH").is_ok());
    client.call(&["EVALSHA", &name, "1", &key, "x"]);
    assert!(!client.call(&["EVALSHA", &name, "1", &key, "x"]).is_error());
}

#[test]
fn a_script_that_does_not_end_is_killed_and_its_lane_goes_on() {
    if skipped_on_bare_redis() {
        return;
    }
    let busy = ["--busy-reply-threshold", "50"];
    let nodes = vec![
        crate::servers::Redis::start(&busy),
        crate::servers::Redis::start(&busy),
    ];
    let stack = Stack::over(nodes, &[]);
    let keys = [stack.key_on(0, "k"), stack.key_on(1, "k")];
    let mut admin = stack.connect();
    let none = admin.run("SCRIPT KILL").text();
    assert!(none.starts_with("NOTBUSY "), "{none}");
    let none = admin.run("FUNCTION KILL").text();
    assert!(none.starts_with("NOTBUSY "), "{none}");
    let mut runner = stack.connect();
    runner.send(&["EVAL", "while true do end", "1", &keys[1]]);
    let killed = eventually(Duration::from_secs(4), || admin.run("SCRIPT KILL").is_ok());
    assert!(killed, "it runs on");
    let reply = runner.read_reply().text();
    assert!(reply.contains("Script killed by user"), "{reply}");
    for key in &keys {
        assert!(runner.call(&["SET", key, "v"]).is_ok());
    }
}

/// Before the node says anything, which is later than most timeouts here.
#[test]
fn a_script_is_told_of_and_killed_before_its_node_is_called_busy() {
    if skipped_on_bare_redis() {
        return;
    }
    let busy = ["--busy-reply-threshold", "2500"];
    let nodes = vec![
        crate::servers::Redis::start(&busy),
        crate::servers::Redis::start(&busy),
    ];
    let settings = [
        ("upstream.request_timeout", "\"1s\""),
        ("upstream.connect_timeout", "\"500ms\""),
    ];
    let stack = Stack::over(nodes, &settings);
    let key = stack.key_on(1, "k");
    let mut client = stack.connect();
    let library =
        "#!lua name=endless\nredis.register_function('endless', function() while true do end end)";
    assert_eq!(
        client.call(&["FUNCTION", "LOAD", library]).text(),
        "endless"
    );
    let mut runner = stack.connect();
    for kill in ["FUNCTION KILL", "SCRIPT KILL"] {
        let is_function = kill == "FUNCTION KILL";
        let call = if is_function {
            ["FCALL", "endless", "1", &key]
        } else {
            ["EVAL", "while true do end", "1", &key]
        };
        runner.send(&call);
        pause(Duration::from_millis(200));
        if is_function {
            let stats = format!("{:?}", client.run("FUNCTION STATS"));
            assert!(stats.contains("duration_ms"), "{stats}");
        }
        assert!(client.run(kill).is_ok(), "{kill}");
        runner.read_reply();
        // On a busy machine the connection may have been lost to the short timeouts.
        let is_back = || runner.call(&["SET", &key, "v"]).is_ok();
        assert!(eventually(Duration::from_secs(10), is_back));
    }
}

#[test]
fn others_are_told_that_a_script_keeps_a_node_busy() {
    if skipped_on_bare_redis() {
        return;
    }
    // A busy machine may take longer to run the test than a reply may take.
    let stack = Stack::start(&[("upstream.request_timeout", "\"20s\"")]);
    let (there, here) = (stack.key_on(0, "k"), stack.key_on(1, "k"));
    let mut client = stack.connect();
    assert!(client.run("CONFIG SET busy-reply-threshold 10").is_ok());
    assert!(client.run(&format!("SET {there} 1")).is_ok());
    let mut queued = stack.connect();
    assert!(queued.run("MULTI").is_ok());
    let queue = format!("SET {there} 2");
    assert_eq!(queued.run(&queue).text(), "QUEUED");
    let mut runner = stack.connect();
    runner.send(&["EVAL", "while true do end", "1", &here]);
    // Its lane has something to answer for longer than a reply takes.
    let told = eventually(Duration::from_secs(10), || {
        client.run("PING").text().starts_with("BUSY ")
    });
    assert!(told, "nobody is told");
    let busy = stack.nodes[1].connect().run("PING").text();
    assert!(busy.starts_with("BUSY "), "{busy}");
    for line in [
        format!("SET {here} 1"),
        format!("INCR {here}"),
        format!("MGET {there} {here}"),
        format!("DEL {here} {there}"),
        "DBSIZE".to_owned(),
        format!("BLPOP {here} 1"),
        format!("EVAL \"return 1\" 1 {here}"),
    ] {
        assert_eq!(client.run(&line).text(), busy, "{line}");
    }
    // The other node is not concerned.
    assert_eq!(client.run(&format!("GET {there}")).text(), "1");
    assert!(client.run("MULTI").is_ok());
    assert_eq!(client.run(&format!("SET {here} 1")).text(), busy);
    let aborted = client.run("EXEC").text();
    assert!(aborted.starts_with("EXECABORT "), "{aborted}");
    assert_eq!(queued.run("EXEC").elements().len(), 1);
    let killed = client.run("FUNCTION KILL").text();
    assert!(killed.starts_with("BUSY "), "{killed}");
    let stats = format!("{:?}", client.run("FUNCTION STATS"));
    assert!(stats.contains("running_script"), "{stats}");
    assert!(client.run("SCRIPT KILL").is_ok());
    // At once, as on Redis, though the script's own reply may still be on its way.
    assert_eq!(client.run("PING").text(), "PONG");
    assert!(client.run(&format!("SET {here} 1")).is_ok());
    let reply = runner.read_reply().text();
    assert!(reply.contains("Script killed by user"), "{reply}");
}
