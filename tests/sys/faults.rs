//! Connections cut under load, and the ends of Tally's own life: nothing twice, nothing lost.

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::connection::{Connection, encode, words};
use crate::harness::{Settings, Stack, eventually, now, pause, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::{Redis, is_other_server};

/// Cuts the lanes of all nodes `times` times, as an operator's CLIENT KILL does, each time after
/// every counter has been incremented again.
fn cut_lanes(stack: &Stack, times: usize, increments: &[AtomicUsize]) {
    let mut admins: Vec<_> = stack.nodes.iter().map(Redis::connect).collect();
    for _ in 0..times {
        for answered in increments {
            let before = answered.load(Ordering::Relaxed);
            let went_on = eventually(Duration::from_secs(20), || {
                answered.load(Ordering::Relaxed) > before
            });
            assert!(went_on, "a counter was not incremented after a cut");
        }
        for admin in &mut admins {
            admin.run("CLIENT KILL TYPE normal SKIPME yes");
        }
        pause(Duration::from_millis(60));
    }
}

const RECONNECT: Settings<'_> = &[
    ("upstream.backoff_min", "\"5ms\""),
    ("upstream.backoff_max", "\"50ms\""),
    ("cache.ttl", "\"0s\""),
];

/// Reads tokens and increments until told to stop; the numbers it was given, which it also counts
/// in `answered`, and how often it asked.
fn load(
    address: SocketAddr,
    client: usize,
    stop: &AtomicBool,
    answered: &[AtomicUsize; COUNTERS],
) -> (Vec<i64>, i64) {
    let mut connection = Connection::open(address);
    let counter = format!("counter{}", client % COUNTERS);
    let (mut numbers, mut attempted) = (Vec::new(), 0);
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let token = (client * 7 + round) % 50;
        let lines = [
            format!("GET token{token}"),
            format!("INCR {counter}"),
            format!("GETRANGE token{token} 0 -1"),
            format!("INCR {counter}"),
        ];
        attempted += 2;
        for (at, reply) in connection.run_all(&lines).into_iter().enumerate() {
            match reply {
                Reply::Error(text) => {
                    let text = text.escape_ascii().to_string();
                    assert!(text.starts_with("ERR "), "{}: {text}", lines[at]);
                }
                Reply::Integer(number) if at % 2 == 1 => {
                    numbers.push(number);
                    answered[client % COUNTERS].fetch_add(1, Ordering::Relaxed);
                }
                Reply::Bulk(bytes) if at % 2 == 0 => {
                    let expected = format!("value-of-{token}");
                    assert_eq!(bytes, expected.as_bytes(), "a reply of another request");
                }
                other => panic!("{}: {other:?}", lines[at]),
            }
        }
    }
    (numbers, attempted)
}

/// Counters that [`load`] increments, over both nodes.
const COUNTERS: usize = 3;

/// `keeps_count`: each number is given once and the nodes hold what was acknowledged.
#[track_caller]
fn check_cut_lanes(mode: &str, keeps_count: bool) {
    const CLIENTS: usize = 12;
    let settings = [RECONNECT, &[("counters.mode", mode)]].concat();
    let mut stack = Stack::start(&settings);
    let tokens: Vec<_> = (0..50)
        .map(|n| format!("SET token{n} value-of-{n}"))
        .collect();
    assert!(stack.connect().run_all(&tokens).iter().all(Reply::is_ok));
    let address = stack.address();
    let stop = AtomicBool::new(false);
    let answered = [const { AtomicUsize::new(0) }; COUNTERS];
    let outcomes: Vec<_> = thread::scope(|scope| {
        let (stop, answered) = (&stop, &answered);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || load(address, client, stop, answered)))
            .collect();
        cut_lanes(&stack, 30, answered);
        stop.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    let mut client = stack.connect();
    for number in 0..50 {
        let read = format!("GET token{number}");
        let well = eventually(Duration::from_secs(5), || !client.run(&read).is_error());
        assert!(well, "{read} after the last cut: {:?}", client.run(&read));
    }
    stack.stop_tally();
    for counter in (0..COUNTERS).filter(|_| keeps_count) {
        let name = format!("counter{counter}");
        let of_counter = || outcomes.iter().skip(counter).step_by(COUNTERS);
        let numbers: Vec<i64> = of_counter()
            .flat_map(|(numbers, _)| numbers.clone())
            .collect();
        let attempted: i64 = of_counter().map(|(_, attempted)| attempted).sum();
        let acknowledged = i64::try_from(numbers.len()).unwrap();
        let distinct: HashSet<_> = numbers.iter().collect();
        assert_eq!(
            distinct.len(),
            numbers.len(),
            "mode {mode}: {name} gave a number twice"
        );
        let applied: i64 = stack.nodes.iter().map(|node| value_of(node, &name)).sum();
        assert!(
            acknowledged > 20,
            "mode {mode}: only {acknowledged} increments succeeded"
        );
        assert!(
            (acknowledged..=attempted).contains(&applied),
            "mode {mode}, {name}: acknowledged {acknowledged} <= {applied} <= {attempted}"
        );
    }
}

fn value_of(node: &Redis, key: &str) -> i64 {
    match node.connect().call(&["GET", key]) {
        Reply::Nil => 0,
        value => value.text().parse().unwrap(),
    }
}

#[test]
fn cut_lanes_duplicate_and_misdeliver_nothing_when_through() {
    if !skipped_on_bare_redis() {
        check_cut_lanes("\"through\"", true);
    }
}

#[test]
fn cut_lanes_duplicate_and_misdeliver_nothing_when_exact() {
    if !skipped_on_bare_redis() {
        check_cut_lanes("\"exact\"", true);
    }
}

#[test]
fn cut_lanes_misdeliver_nothing_when_buffered() {
    if !skipped_on_bare_redis() {
        check_cut_lanes("\"buffered\"", false);
    }
}

#[test]
fn cut_lanes_duplicate_and_lose_nothing_when_buffered() {
    if !skipped_on_bare_redis() {
        check_cut_lanes("\"buffered\"", true);
    }
}

#[test]
fn sigterm_flushes_everything() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[("counters.flush_interval", "\"60s\"")]);
    let mut client = stack.connect();
    for round in 1..=20 {
        let lines: Vec<_> = (0..200).map(|n| format!("INCRBY k{n} {n}")).collect();
        for (n, reply) in client.run_all(&lines).iter().enumerate() {
            assert_eq!(reply.integer(), round * i64::try_from(n).unwrap());
        }
    }
    stack.stop_tally();
    for n in 0..200 {
        let total: i64 = stack
            .nodes
            .iter()
            .map(|node| value_of(node, &format!("k{n}")))
            .sum();
        assert_eq!(total, 20 * n, "k{n}");
    }
    assert!(
        client.try_call(&["PING"]).is_err(),
        "connections end with the process"
    );
}

#[test]
fn sigint_stops_as_sigterm_does() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[("counters.flush_interval", "\"60s\"")]);
    let replies = stack.connect().run_all(&vec!["INCR k"; 100]);
    assert_eq!(replies[99].integer(), 100);
    let tally = stack.tally.as_mut().unwrap();
    tally.signal("INT");
    let status = tally.wait(Duration::from_secs(10));
    assert_eq!(status.expect("an end").code(), Some(0));
    let total: i64 = stack.nodes.iter().map(|node| value_of(node, "k")).sum();
    assert_eq!(total, 100);
}

#[test]
fn requests_under_way_at_sigterm_are_answered() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[
        ("server.drain_timeout", "\"15s\""),
        ("upstream.request_timeout", "\"10s\""),
        ("upstream.hard_timeout", "\"12s\""),
    ]);
    let key = stack.key_on(0, "a");
    let mut client = stack.connect();
    stack.nodes[0].freeze();
    client.send(&["SET", &key, "x"]);
    // The lane has sent it, or sends it now, when the signal arrives.
    let mut other = stack.connect();
    assert!(other.is_alive());
    stack.tally.as_ref().unwrap().signal("TERM");
    let refused = eventually(Duration::from_secs(3), || {
        let late = Connection::try_open(stack.address());
        late.map_or(true, |mut late| {
            late.set_patience(Duration::from_millis(500));
            !late.is_alive()
        })
    });
    assert!(refused, "a stopping Tally accepts nobody");
    stack.nodes[0].thaw();
    assert_eq!(client.read_frame(), b"+OK\r\n");
    let status = stack.tally.as_mut().unwrap().wait(Duration::from_secs(10));
    assert_eq!(status.expect("an end").code(), Some(0));
}

#[test]
fn a_client_that_does_not_read_costs_no_increment_at_sigterm() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[
        ("counters.flush_interval", "\"60s\""),
        ("server.drain_timeout", "\"2s\""),
    ]);
    let mut client = stack.connect();
    let value = "v".repeat(8 << 20);
    assert!(client.call(&["SET", "large", &value]).is_ok());
    // More than the system's buffers take.
    let mut silent = stack.connect();
    silent.write_raw(&encode(&["GET", "large"]).repeat(5));
    for _ in 0..2 {
        let replies = client.run_all(&vec!["INCR k"; 50]);
        assert!(replies.iter().all(|reply| !reply.is_error()));
    }
    stack.stop_tally();
    let total: i64 = stack.nodes.iter().map(|node| value_of(node, "k")).sum();
    assert_eq!(total, 100);
}

/// Sends `requests` again and again, with a pause in between, and reads nothing while `aside` is
/// locked. Counts itself in `answered` at its first reply, and the replies until the connection ends, and says what was left behind the last
/// whole one.
fn hammer(
    address: SocketAddr,
    (requests, between): (&[u8], Duration),
    aside: &Mutex<()>,
    answered: &AtomicUsize,
) -> (usize, Vec<u8>) {
    let mut client = Connection::open(address);
    let mut writer = client.writer();
    thread::scope(|scope| {
        scope.spawn(move || {
            while writer.write_all(requests).is_ok() {
                pause(between);
            }
        });
        let mut replies = 0;
        loop {
            drop(aside.lock());
            match client.try_read_frame() {
                Ok(_) => {
                    answered.fetch_add(usize::from(replies == 0), Ordering::Relaxed);
                    replies += 1;
                }
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        std::io::ErrorKind::UnexpectedEof,
                        "a clean end, no reset"
                    );
                    client.finish_writing();
                    return (replies, client.unparsed().to_vec());
                }
            }
        }
    })
}

/// Clients that hammer read nothing for `busy` before SIGTERM and as long after it; none of them
/// gets half a reply.
#[track_caller]
fn check_whole_replies(value_bytes: usize, requests: (&[u8], Duration), busy: Duration) {
    // Half of it is the clients': more than they need on a loaded machine.
    let mut stack = Stack::start(&[("server.drain_timeout", "\"40s\"")]);
    let value = "v".repeat(value_bytes);
    assert!(stack.connect().call(&["SET", "value", &value]).is_ok());
    let address = stack.address();
    let (aside, answered) = (Mutex::new(()), AtomicUsize::new(0));
    let answered = &answered;
    thread::scope(|scope| {
        let hammer = || hammer(address, requests, &aside, answered);
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(hammer)).collect();
        let all = eventually(Duration::from_secs(20), || {
            answered.load(Ordering::Relaxed) == 6
        });
        assert!(all, "a client without a reply");
        pause(Duration::from_millis(300));
        let reads_nothing = aside.lock().unwrap();
        pause(busy);
        stack.tally.as_ref().unwrap().signal("TERM");
        pause(busy);
        drop(reads_nothing);
        let status = stack.tally.as_mut().unwrap().wait(Duration::from_secs(35));
        assert_eq!(status.expect("an end").code(), Some(0));
        for client in clients {
            let (replies, rest) = client.join().unwrap();
            assert!(replies > 0);
            assert!(rest.is_empty(), "{} bytes of a reply", rest.len());
        }
    });
}

#[test]
fn nobody_gets_half_a_reply_at_sigterm() {
    if !skipped_on_bare_redis() {
        let requests = [encode(&["GET", "value"]), encode(&["STRLEN", "value"])];
        let requests = requests.concat().repeat(30);
        check_whole_replies(20_000, (&requests, Duration::ZERO), Duration::ZERO);
    }
}

#[test]
fn a_client_that_sends_on_and_reads_late_gets_whole_replies_at_sigterm() {
    if !skipped_on_bare_redis() {
        // So seldom that all replies are with the system before anybody reads on, and a little
        // longer than a connection's usual end takes.
        let requests = (&*encode(&["GET", "value"]), Duration::from_millis(20));
        check_whole_replies(2_000, requests, Duration::from_millis(2500));
    }
}

#[test]
fn a_second_sigterm_ends_at_once() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[
        ("server.drain_timeout", "\"60s\""),
        ("counters.flush_interval", "\"60s\""),
        ("upstream.request_timeout", "\"50s\""),
        ("upstream.hard_timeout", "\"55s\""),
    ]);
    let key = stack.key_on(0, "a");
    let mut client = stack.connect();
    // The first batch warms the key, the second is counted here.
    for _ in 0..2 {
        let replies = client.run_all(&vec![format!("INCR {key}"); 50]);
        assert!(replies.iter().all(|reply| !reply.is_error()));
    }
    stack.nodes[0].freeze();
    let tally = stack.tally.as_mut().unwrap();
    tally.signal("TERM");
    let early = tally.wait(Duration::from_millis(500));
    assert!(
        early.is_none(),
        "it ended before its node had the increments"
    );
    let started = now();
    tally.signal("TERM");
    assert!(tally.wait(Duration::from_secs(3)).is_some(), "it waits on");
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn the_drain_ends_although_a_node_does_not_answer() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[
        ("server.drain_timeout", "\"1s\""),
        ("counters.flush_interval", "\"60s\""),
    ]);
    let (lost, kept) = (stack.key_on(0, "a"), stack.key_on(1, "b"));
    let mut client = stack.connect();
    let lines = [format!("INCR {lost}"), format!("INCR {kept}")];
    let lines: Vec<_> = lines.iter().cycle().take(20).collect();
    // The first batch warms the keys, the second is counted here.
    for _ in 0..2 {
        assert!(client.run_all(&lines).iter().all(|reply| !reply.is_error()));
    }
    stack.nodes[0].freeze();
    let tally = stack.tally.as_mut().unwrap();
    tally.signal("TERM");
    let status = tally
        .wait(Duration::from_secs(8))
        .expect("the drain is bounded");
    assert_ne!(
        status.code(),
        Some(0),
        "increments were lost, and the exit code says so"
    );
    stack.nodes[0].thaw();
    assert_eq!(
        value_of(&stack.nodes[1], &kept),
        20,
        "the other node has its own"
    );
}

#[test]
fn a_node_out_of_memory_says_so_to_the_client() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let key = stack.key_on(0, "a");
    let mut client = stack.connect();
    let mut admin = stack.nodes[0].connect();
    assert!(admin.run("CONFIG SET maxmemory 1").is_ok());
    let reply = client.run(&format!("SET {key} x"));
    assert!(reply.text().starts_with("OOM "), "{reply:?}");
    let reply = Reply::parse(&client.pipeline(&[words(&format!("INCR {key}"))])[0]);
    assert!(reply.text().starts_with("OOM "), "{reply:?}");
    assert!(admin.run("CONFIG SET maxmemory 0").is_ok());
    assert_eq!(client.run(&format!("INCR {key}")).integer(), 1);
}

#[test]
fn a_node_that_comes_back_with_an_older_state_is_given_what_it_lost() {
    if skipped_on_bare_redis() {
        return;
    }
    let node = Redis::start(&["--dbfilename", "dump.rdb"]);
    // Nothing goes cold meanwhile: an increment that is forwarded is the node's own to lose.
    let settings = [RECONNECT, &[("cache.ttl", "\"1m\"")]].concat();
    let mut stack = Stack::over(vec![node], &settings);
    let mut client = stack.connect();
    let mut count = |times: usize| {
        let lines: Vec<_> = (0..times).map(|n| format!("INCR k{}", n % 20)).collect();
        let replies = client.run_all(&lines);
        assert!(
            replies
                .iter()
                .all(|reply| matches!(reply, Reply::Integer(_)))
        );
        assert!(client.run("TALLY FLUSH").is_ok());
    };
    // All are warm before the node's state is kept.
    count(100);
    assert!(stack.nodes[0].connect().run("SAVE").is_ok());
    for _ in 0..10 {
        count(40);
    }
    let sum = |node: &Redis| -> i64 {
        let keys: Vec<_> = (0..20).map(|n| format!("k{n}")).collect();
        let values = node.connect().run(&format!("MGET {}", keys.join(" ")));
        let values = values.elements().iter();
        values
            .map(|value| value.text().parse::<i64>().unwrap())
            .sum()
    };
    assert_eq!(sum(&stack.nodes[0]), 500);
    stack.nodes[0].kill();
    stack.nodes[0].restart();
    assert!(eventually(Duration::from_secs(10), || sum(&stack.nodes[0]) == 500));
    let log = || stack.tally.as_ref().unwrap().log();
    let told = || log().contains("they are applied again");
    assert!(eventually(Duration::from_secs(10), told), "{}", log());
    let mut client = stack.connect();
    assert_eq!(client.run("INCR k0").integer(), 26);
    stack.stop_tally();
    assert_eq!(sum(&stack.nodes[0]), 501);
}

#[test]
fn a_node_without_memory_refuses_what_is_queued_as_redis_does() {
    // Valkey refuses fewer commands then.
    if skipped_on_bare_redis() || is_other_server() {
        return;
    }
    let (stack, redis) = (Stack::start(&[]), Redis::start(&[]));
    let (mut here, mut there) = (stack.connect(), redis.connect());
    // Every node's limit is set by one command, and twice: before and after MULTI.
    for line in [
        "SET k v",
        "MULTI",
        "CONFIG SET maxmemory 0",
        "EXEC",
        "MULTI",
        "SET k w",
        "DISCARD",
        "CONFIG SET maxmemory 1",
        "MULTI",
        "GET k",
        "SET k w",
        "INCR n",
        "DEL k",
        "EXEC",
        "GET k",
        "MULTI",
        "GET k",
        "DISCARD",
        "CONFIG SET maxmemory 0",
        "MULTI",
        "SET k w",
        "EXEC",
        "GET k",
    ] {
        assert_eq!(here.run(line), there.run(line), "{line}");
    }
    // It may be full without being told so here first: then it says so itself.
    for node in &stack.nodes {
        assert!(node.connect().run("CONFIG SET maxmemory 1").is_ok());
    }
    assert_eq!(here.run("MULTI").text(), "OK");
    assert_eq!(here.run("SET k x").text(), "QUEUED");
    let aborted = here.run("EXEC").text();
    assert!(aborted.contains("OOM"), "{aborted}");
    assert_eq!(here.run("MULTI").text(), "OK");
    let refused = here.run("SET k x").text();
    assert!(refused.starts_with("OOM "), "{refused}");
}
