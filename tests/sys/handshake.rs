//! What a node may and may not do that Tally asks for on connecting.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Settings, Stack, eventually, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::{Redis, Tally};

const FAST: Settings<'_> = &[
    ("upstream.backoff_min", "\"5ms\""),
    ("upstream.backoff_max", "\"50ms\""),
];

/// Passes everything on, and tells of a change of all keys right behind the reply that turns such
/// messages on, as a server does that is loading its data.
fn tell_of_a_change_at_once(mut tally: TcpStream, mut node: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = tally.read(&mut buffer)?;
        let mut request = buffer[..count].windows(8);
        let turns_on = request.any(|part| part == b"TRACKING");
        node.write_all(&buffer[..count])?;
        // The handshake asks one thing after the other.
        let count = node.read(&mut buffer)?;
        tally.write_all(&buffer[..count])?;
        if turns_on {
            break;
        }
    }
    tally.write_all(b">2\r\n$10\r\ninvalidate\r\n_\r\n")?;
    let (mut requests, mut to_node) = (tally.try_clone()?, node.try_clone()?);
    thread::spawn(move || io::copy(&mut requests, &mut to_node));
    io::copy(&mut node, &mut tally)?;
    Ok(())
}

#[test]
fn what_a_node_tells_during_the_handshake_is_no_reply() {
    if skipped_on_bare_redis() {
        return;
    }
    let node = Redis::start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, behind) = (listener.local_addr().unwrap(), node.address());
    thread::spawn(move || {
        for tally in listener.incoming() {
            let node = TcpStream::connect(behind).unwrap();
            thread::spawn(move || tell_of_a_change_at_once(tally.unwrap(), node));
        }
    });
    let tally = Tally::start_before(&[(address, None)], FAST);
    let mut client = Connection::open(tally.address());
    assert!(client.run("SET a x").is_ok());
    assert_eq!(client.run("GET a").text(), "x");
    for want in 1..=20 {
        assert_eq!(client.run("INCR n").integer(), want);
    }
    assert!(!tally.log().contains("takes no scripts"), "{}", tally.log());
}

/// What becomes of increments on nodes that were started, or told, so that they take no scripts.
#[track_caller]
fn check_counts_without_scripts(arguments: &[&str], order: Option<&str>) {
    let nodes = vec![Redis::start(arguments), Redis::start(arguments)];
    for node in &nodes {
        assert!(order.is_none_or(|order| node.connect().run(order).is_ok()));
    }
    let mut stack = Stack::over(nodes, &[("counters.flush_interval", "\"1m\"")]);
    let mut client = stack.connect();
    for round in 1..=5 {
        let lines: Vec<_> = (0..100).map(|n| format!("INCR k{}", n % 10)).collect();
        for (n, reply) in (0..).zip(client.run_all(&lines)) {
            assert_eq!(reply.integer(), 10 * (round - 1) + n / 10 + 1);
        }
        for key in 0..10 {
            let line = format!("GET k{key}");
            let held = |node: &Redis| node.connect().run(&line) == client_number(10 * round);
            assert!(stack.nodes.iter().any(held), "{line}: nothing is pending");
        }
    }
    let log = stack.tally.as_ref().unwrap().log();
    assert!(log.contains("the node takes no scripts"), "{log}");
    stack.stop_tally();
}

fn client_number(number: i64) -> Reply {
    Reply::Bulk(number.to_string().into_bytes())
}

#[test]
fn nodes_that_take_no_scripts_have_every_increment_before_its_reply() {
    if skipped_on_bare_redis() {
        return;
    }
    for command in ["EVAL", "EVALSHA", "SCRIPT"] {
        check_counts_without_scripts(&["--rename-command", command, ""], None);
    }
    for refused in ["-@scripting", "-eval", "-evalsha", "-script|load"] {
        let order = format!("ACL SETUSER default {refused}");
        check_counts_without_scripts(&[], Some(&order));
    }
}

#[test]
fn what_is_pending_waits_for_scripts_to_be_taken_again_and_nobody_hangs() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[FAST, &[("counters.flush_interval", "\"1m\"")]].concat());
    let key = stack.key_on(0, "a");
    let (mut client, mut admin) = (stack.connect(), stack.nodes[0].connect());
    for want in 1..=9 {
        assert_eq!(client.run(&format!("INCR {key}")).integer(), want);
    }
    let again = |admin: &mut Connection, order: &str| {
        assert!(admin.run(&format!("ACL SETUSER default {order}")).is_ok());
        admin.run("CLIENT KILL TYPE normal SKIPME yes");
    };
    again(&mut admin, "-eval");
    let mut reply = Reply::Nil;
    let told = eventually(Duration::from_secs(10), || {
        reply = client.run(&format!("SET {key} 100"));
        reply.text().contains("takes no scripts")
    });
    assert!(told, "{reply:?}");
    assert_eq!(
        client.run(&format!("INCR {key}")).integer(),
        10,
        "it is kept"
    );
    again(&mut admin, "+eval");
    let is_set = || client.run(&format!("GETSET {key} 0")) == client_number(10);
    assert!(eventually(Duration::from_secs(10), is_set));
}
