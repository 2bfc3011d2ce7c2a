//! Scripts by their names on several nodes, through restarts, and ones that do not end.

use std::time::Duration;

use crate::harness::{Stack, eventually, skipped_on_bare_redis};
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
    let reply = runner.read_reply().text();
    assert!(reply.contains("Script killed by user"), "{reply}");
    let over = eventually(Duration::from_secs(10), || {
        client.run("PING").text() == "PONG"
    });
    assert!(over, "it stays busy");
    assert!(client.run(&format!("SET {here} 1")).is_ok());
}
