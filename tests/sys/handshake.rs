//! What a node may and may not do that Tally asks for on connecting.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    let (mut requests, mut to_node) = (tally.try_clone()?, node.try_clone()?);
    let is_asked = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&is_asked);
    let pass_on = move || -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = requests.read(&mut buffer)?;
            if count == 0 {
                return to_node.shutdown(Shutdown::Both);
            }
            let mut parts = buffer[..count].windows(8);
            asks.fetch_or(parts.any(|part| part == b"TRACKING"), Ordering::Release);
            to_node.write_all(&buffer[..count])?;
        }
    };
    thread::spawn(pass_on);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = node.read(&mut buffer)?;
        if count == 0 {
            return tally.shutdown(Shutdown::Both);
        }
        tally.write_all(&buffer[..count])?;
        // The handshake asks one thing after the other: this is the answer.
        if is_asked.swap(false, Ordering::Acquire) {
            tally.write_all(b">2\r\n$10\r\ninvalidate\r\n_\r\n")?;
        }
    }
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

/// Nodes that were started so, and told, that they take no scripts.
fn over(arguments: &[&str], order: Option<&str>) -> Stack {
    let nodes = vec![Redis::start(arguments), Redis::start(arguments)];
    for node in &nodes {
        assert!(order.is_none_or(|order| node.connect().run(order).is_ok()));
    }
    Stack::over(nodes, &[("counters.flush_interval", "\"1m\"")])
}

/// Increments on nodes that take neither scripts nor transactions.
#[track_caller]
fn check_counts_exactly(arguments: &[&str], order: Option<&str>) {
    let mut stack = over(arguments, order);
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
    assert!(log.contains("so nothing is buffered"), "{log}");
    stack.stop_tally();
}

/// Increments on nodes that take no scripts.
#[track_caller]
fn check_buffers_by_transactions(arguments: &[&str], order: Option<&str>) {
    let mut stack = over(arguments, order);
    let mut client = stack.connect();
    let held = |line: &str| {
        let held = |node: &Redis| node.connect().run(line);
        let mut held = stack.nodes.iter().map(held);
        held.find(|reply| *reply != Reply::Nil)
            .map(|reply| reply.text())
    };
    for key in 0..100 {
        for want in 1..=9 {
            assert_eq!(client.run(&format!("INCR k{key}")).integer(), want);
        }
        assert_eq!(held(&format!("GET k{key}")).unwrap(), "2", "k{key}");
    }
    assert_eq!(client.run("EXPIRE k0 1000").integer(), 1);
    for node in &stack.nodes {
        node.connect().run("DEL k1");
        // In one step: what is told of a change is flushed at once.
        node.connect().run("LPUSH list x");
        node.connect().run("RENAME list k2");
    }
    assert!(client.run("TALLY FLUSH").is_ok());
    for key in 3..100 {
        assert_eq!(held(&format!("GET k{key}")).unwrap(), "9", "k{key}");
    }
    assert_eq!(held("GET k1").unwrap(), "7", "deleted behind our back");
    let letters = client.run("TALLY DEADLETTERS");
    assert!(format!("{letters:?}").contains("wrong type"), "{letters:?}");
    let ttl = |node: &Redis| node.connect().run("TTL k0").integer();
    assert!(stack.nodes.iter().map(ttl).any(|ttl| ttl > 900));
    // Still warm, and told of changes by others.
    assert!(format!("{:?}", client.run("TALLY WHERE k9")).contains("memory"));
    for node in &stack.nodes {
        node.connect().run("INCRBY k9 100");
    }
    let is_told = || client.run("GET k9") != client_number(9);
    assert!(eventually(Duration::from_secs(10), is_told));
    let log = stack.tally.as_ref().unwrap().log();
    assert!(log.contains("batches are applied by transactions"), "{log}");
    stack.stop_tally();
}

fn client_number(number: i64) -> Reply {
    Reply::Bulk(number.to_string().into_bytes())
}

#[test]
fn nodes_that_take_no_scripts_are_given_batches_as_transactions() {
    if skipped_on_bare_redis() {
        return;
    }
    for command in ["EVAL", "EVALSHA", "SCRIPT"] {
        check_buffers_by_transactions(&["--rename-command", command, ""], None);
    }
    for refused in ["-@scripting", "-eval", "-evalsha", "-script|load"] {
        let order = format!("ACL SETUSER default {refused}");
        check_buffers_by_transactions(&[], Some(&order));
    }
}

#[test]
fn nodes_that_take_no_scripts_and_no_transactions_have_every_increment_before_its_reply() {
    if skipped_on_bare_redis() {
        return;
    }
    let renamed = [
        "--rename-command",
        "EVAL",
        "",
        "--rename-command",
        "WATCH",
        "",
    ];
    check_counts_exactly(&renamed, None);
    check_counts_exactly(&[], Some("ACL SETUSER default -@scripting -watch"));
}

#[test]
fn scripts_forbidden_while_connected_leave_transactions() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[FAST, &[("counters.flush_interval", "\"1m\"")]].concat());
    let key = stack.key_on(0, "a");
    let (mut client, mut admin) = (stack.connect(), stack.nodes[0].connect());
    for (order, last) in [("-evalsha", 9), ("+evalsha -watch", 18)] {
        for want in last - 8..=last {
            assert_eq!(client.run(&format!("INCR {key}")).integer(), want);
        }
        assert!(admin.run(&format!("ACL SETUSER default {order}")).is_ok());
        let is_set = || client.run(&format!("GETSET {key} {last}")) == client_number(last);
        assert!(eventually(Duration::from_secs(10), is_set), "{order}");
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
    again(&mut admin, "-eval -watch");
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
    // One of the two is enough.
    again(&mut admin, "+watch");
    let is_set = || client.run(&format!("GETSET {key} 0")) == client_number(10);
    assert!(eventually(Duration::from_secs(10), is_set));
    for want in 1..=9 {
        assert_eq!(client.run(&format!("INCR {key}")).integer(), want);
    }
    again(&mut admin, "+eval -watch");
    let is_set = || client.run(&format!("GETSET {key} 0")) == client_number(9);
    assert!(eventually(Duration::from_secs(10), is_set));
}
