//! A warm command costs no allocation, from the socket to the socket.

use std::sync::Arc;
use std::time::Duration;

use tally::command;
use tally::counter::{KeyTable, Lane, Limits, TableLimits};
use tally::flush::{Applier, Series};
use tally::limit::Catalogue;
use tally::node::Node;
use tally::resp::{Form, Protocol, Request, Span, encode};
use tally::ring::{Hash, Ring};
use tally::router::Router;
use tally::session::{Asked, Replies, Shared, Ticket, serve};
use tally::telemetry::Stats;
use tally::tls::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[test]
fn increments_and_reads_of_warm_counters_allocate_nothing() {
    check(&["INCR"], 1);
    check(&["GET"], 1);
    check(&["INCR", "GET"], 2);
}

/// Sends these commands in turn on warm counters in pipelines, with one serving thread and with
/// several.
#[track_caller]
fn check(commands: &[&str], threads: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut batch = Vec::new();
    for (name, command) in names().iter().zip(commands.iter().cycle()) {
        encode::request(&mut batch, &[command.as_bytes(), name]);
    }
    // A GET's reply has two lines.
    let lines_of = |command: &&str| if *command == "GET" { 2 } else { 1 };
    let wanted: usize = commands.iter().cycle().take(PIPELINE).map(lines_of).sum();
    let mut client = runtime.block_on(connect(shared(threads)));
    let mut replies = vec![0; 1 << 16];
    let mut round = || {
        runtime.block_on(async {
            client.write_all(&batch).await.unwrap();
            let mut lines = 0;
            while lines < wanted {
                let read = client.read(&mut replies).await.unwrap();
                let text = &replies[..read];
                assert!(read > 0 && !text.contains(&b'-'), "{}", text.escape_ascii());
                lines += memchr::memchr_iter(b'\n', text).count();
            }
        });
    };
    for _ in 0..10 {
        round();
    }
    let info = allocation_counter::measure(|| {
        for _ in 0..100 {
            round();
        }
    });
    assert_eq!(
        info.count_total, 0,
        "allocations for {commands:?} with {threads} threads: {info:?}"
    );
}

/// A session with a client of its own, both on this thread.
async fn connect(shared: Arc<Shared>) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let known = shared.registry.register(peer, address, now()).unwrap();
    tokio::spawn(serve(Stream::Plain(stream), known, shared));
    client
}

/// Two nodes that nobody connects, every counter warm there.
fn shared(threads: usize) -> Arc<Shared> {
    let text = "[[nodes]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\n\
                [[nodes]]\nname = \"b\"\naddress = \"127.0.0.1:2\"\n";
    let config = tally::config::parse(text, std::iter::empty()).unwrap();
    let hour = Duration::from_secs(3600);
    let limits = TableLimits {
        max_keys: 10_000,
        max_cached_bytes: 1 << 20,
        crowd: 10_000,
        lease: hour,
        counter_lease: hour,
        guard: Duration::ZERO,
    };
    let bounds = Limits {
        max_in_flight: 1000,
        max_unsent_bytes: 1 << 20,
        warm: true,
    };
    let ring = Ring::new(&[("a", 1), ("b", 1)], Hash::Xxh3, None).unwrap();
    let node = |node: &tally::config::Node| {
        let table = KeyTable::new(limits, 1).for_threads(threads);
        let lane = Lane::new(bounds, Series::new("test", 0, 1));
        Arc::new(Node::new(
            node.clone(),
            0,
            config.upstream.clone(),
            table,
            lane,
            None,
        ))
    };
    let nodes = config.nodes.iter().map(node).collect();
    let router = Router::new(ring, vec![nodes]);
    warm(&router);
    Arc::new(Shared::new(
        Arc::new(config),
        Arc::new(router),
        Arc::new(Stats::default()),
        now(),
        Catalogue::new([]).unwrap(),
        Arc::new(|_| {}),
    ))
}

/// Asks twice for each counter, and answers as a node does.
fn warm(router: &Router<Ticket>) {
    let now = now();
    let replies = Arc::new(Replies::new(1 << 20));
    let name = Span { start: 0, len: 4 };
    let asked = Asked {
        command: command::lookup(&Request::new(b"INCR", &[name, name])).unwrap(),
        at: now,
    };
    let ticket = || Ticket::Reply(replies.reserve(asked, Protocol::Resp2, Form::Plain, false));
    let mut wakers = Vec::new();
    for node in router.nodes() {
        node.enter().step(now, &mut wakers, |lane, step| {
            let (sha, body) = (vec![b'0'; 40], b"return".to_vec());
            let script = Applier::Script { sha, body };
            lane.connected(step.table, now, Some(script), None, true);
            lane.take_wire(step.table, now, Vec::new());
            lane.on_reply(step, b"+OK\r\n").unwrap();
        });
    }
    for name in names() {
        let node = router.node(0, router.index(&name));
        node.enter().step(now, &mut wakers, |lane, step| {
            for answers in [FIRST, PROMOTION] {
                lane.increment(step, &name, 1, ticket());
                lane.take_wire(step.table, now, Vec::new());
                for answer in answers {
                    lane.on_reply(step, answer).unwrap();
                }
            }
        });
    }
}

/// The present.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// As many as a pipeline of redis-benchmark has.
fn names() -> Vec<Vec<u8>> {
    (0..PIPELINE)
        .map(|number| format!("counter:{number:012}").into_bytes())
        .collect()
}

const PIPELINE: usize = 32;

/// What a node answers to the first increment of a key.
const FIRST: &[&[u8]] = &[b":999999\r\n"];

/// What it answers to the increment that makes the key warm.
const PROMOTION: &[&[u8]] = &[
    b"+OK\r\n",
    b"+QUEUED\r\n",
    b"+QUEUED\r\n",
    b"+QUEUED\r\n",
    b"*3\r\n:1000000\r\n*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n:-1\r\n",
];
