//! Bounds: what a client may hold, send and leave unread, and what happens beyond.

use std::io::Write;
use std::time::Duration;

use crate::connection::{Connection, encode};
use crate::harness::{Stack, bare, eventually, now, pause};
use crate::reply::Reply;
use crate::servers::{Redis, is_other_server, resident_bytes};

const MIB: u64 = 1 << 20;

/// Writes until the server stops taking bytes or `limit` bytes are gone; how many went.
fn write_until_cut(connection: &mut Connection, piece: &[u8], limit: usize) -> usize {
    connection.set_patience(Duration::from_secs(5));
    let mut written = 0;
    while written < limit {
        if connection.try_write_raw(piece).is_err() {
            break;
        }
        written += piece.len();
    }
    written
}

/// Whether the server closes (or resets) the connection; replies until then are read away.
fn is_closed_within(connection: &mut Connection, limit: Duration) -> bool {
    let deadline = now() + limit;
    connection.set_patience(Duration::from_millis(200));
    while now() < deadline {
        match connection.try_read_frame() {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {}
            Err(_) => return true,
        }
    }
    false
}

/// Bytes of the value of `large`.
const LARGE: usize = 1000;

/// From now on `GET large` is answered by Tally.
fn keep_large(client: &mut Connection) {
    client.run_ok(&format!("SET large {}", "v".repeat(LARGE)));
    for _ in 0..3 {
        client.run("GET large");
    }
}

/// A client whose pipeline never ends, and who always waits for a slow command behind which others
/// are answered at once: as a connection that many threads of an app share.
#[test]
fn a_client_that_reads_is_not_cut_however_long_its_pipeline() {
    const GROUPS: usize = 60;
    const AHEAD: usize = 6;
    const READS: usize = 50;
    let stack = Stack::start(&[("server.output_buffer", "\"1MiB\"")]);
    let mut client = stack.connect();
    keep_large(&mut client);
    let slow = "for i = 1, 2000000 do end return redis.call('EXISTS', KEYS[1])";
    let groups = ["one", "other"].map(|key| {
        let mut group = encode(&["EVAL", slow, "1", key]);
        group.extend(encode(&["GET", "large"]).repeat(READS));
        group
    });
    for sent in 0..GROUPS + AHEAD {
        if sent < GROUPS {
            client.write_raw(&groups[sent % 2]);
        }
        if sent >= AHEAD {
            assert_eq!(client.read_reply().integer(), 0);
            for _ in 0..READS {
                assert_eq!(client.read_reply().bytes().len(), LARGE);
            }
        }
    }
}

#[test]
fn replies_behind_a_slow_one_cut_nobody() {
    const READS: usize = 3000;
    let stack = Stack::start(&[("server.output_buffer", "\"1MiB\"")]);
    let mut client = stack.connect();
    keep_large(&mut client);
    let slow = "for i = 1, 30000000 do end return redis.call('EXISTS', KEYS[1])";
    let mut pipeline = encode(&["EVAL", slow, "1", "one"]);
    pipeline.extend(encode(&["GET", "large"]).repeat(READS));
    let mut writer = client.writer();
    let sender = std::thread::spawn(move || writer.write_all(&pipeline));
    assert_eq!(client.read_reply().integer(), 0);
    for _ in 0..READS {
        assert_eq!(client.read_reply().bytes().len(), LARGE);
    }
    assert!(sender.join().is_ok_and(|sent| sent.is_ok()));
}

#[test]
fn a_client_that_never_reads_is_cut_at_its_output_limit() {
    let stack = Stack::start(&[("server.output_buffer", "\"1MiB\"")]);
    let mut other = stack.connect();
    let value = "v".repeat(100_000);
    assert!(other.call(&["SET", "large", &value]).is_ok());
    let before = resident_bytes(stack.process_id());
    let mut client = stack.connect();
    // 4 GB of replies, were they all given.
    let requests = encode(&["GET", "large"]).repeat(1_000);
    write_until_cut(&mut client, &requests, 40 * requests.len());
    let grown = resident_bytes(stack.process_id()).saturating_sub(before);
    assert!(
        grown < 64 * MIB,
        "{grown} bytes for one client that does not read"
    );
    assert!(
        is_closed_within(&mut client, Duration::from_secs(15)),
        "not cut"
    );
    assert_eq!(other.call(&["GET", "large"]).bytes().len(), value.len());
}

#[test]
fn an_endless_request_is_cut_at_the_query_buffer_limit() {
    let stack = Stack::start(&[("server.query_buffer", "\"1MiB\"")]);
    let before = resident_bytes(stack.process_id());
    let piece = [b"$10000\r\n".to_vec(), vec![b'x'; 10_000], b"\r\n".to_vec()].concat();
    // Redis 7.0 does not count arguments that it has split off already.
    let headers: &[&[u8]] = &[
        b"*2\r\n$4\r\nECHO\r\n$400000000\r\n",
        b"*1000000\r\n$4\r\nMSET\r\n",
    ];
    for header in &headers[..if bare() { 1 } else { 2 }] {
        let mut client = stack.connect();
        client.write_raw(header);
        write_until_cut(&mut client, &piece, 100 << 20);
        let closed = is_closed_within(&mut client, Duration::from_secs(10));
        assert!(closed, "not cut: {}", header.escape_ascii());
        let grown = resident_bytes(stack.process_id()).saturating_sub(before);
        assert!(grown < 64 * MIB, "{grown} bytes");
        assert!(stack.connect().is_alive());
    }
}

#[test]
fn an_argument_above_the_bulk_limit_is_refused() {
    let stack = Stack::start(&[("server.max_bulk", "\"1MiB\"")]);
    let mut client = stack.connect();
    let value = "v".repeat(1 << 20);
    assert!(client.call(&["SET", "k", &value]).is_ok());
    client.write_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n");
    let said = client.read_to_close();
    assert_eq!(
        said.escape_ascii().to_string(),
        "-ERR Protocol error: invalid bulk length\\r\\n"
    );
}

#[test]
fn clients_beyond_the_limit_are_told_so() {
    let stack = Stack::start(&[("server.max_clients", "5")]);
    // The connection that waited for the start may not be gone yet.
    let mut clients = Vec::new();
    let filled = eventually(Duration::from_secs(5), || {
        let mut client = stack.connect();
        if client.is_alive() {
            clients.push(client);
        }
        clients.len() == 5
    });
    assert!(filled, "{} of 5 clients", clients.len());
    let mut refused = stack.connect();
    let said = refused.read_to_close();
    assert_eq!(
        said.escape_ascii().to_string(),
        "-ERR max number of clients reached\\r\\n"
    );
    assert!(clients.iter_mut().all(Connection::is_alive));
    clients.pop();
    let free = eventually(Duration::from_secs(5), || stack.connect().is_alive());
    assert!(free, "a place is free again after a client left");
}

#[test]
fn idle_clients_are_closed_and_busy_ones_are_not() {
    let stack = Stack::start(&[("server.idle_timeout", "\"1s\"")]);
    let mut idle = stack.connect();
    assert!(idle.is_alive());
    let mut busy = stack.connect();
    idle.set_patience(Duration::from_millis(20));
    let started = now();
    let closed = eventually(Duration::from_secs(10), || {
        assert!(busy.is_alive(), "a busy client was closed");
        let outcome = idle.try_read_frame();
        outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof)
    });
    assert!(closed, "an idle client stays");
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "closed too early"
    );
    assert!(busy.is_alive());
}

#[test]
fn who_sends_or_waits_is_not_idle() {
    let stack = Stack::start(&[("server.idle_timeout", "\"1s\"")]);
    let mut uploads = stack.connect();
    let mut mistaken = stack.connect();
    let upload = encode(&["SET", "k", &"v".repeat(1_000)]);
    for piece in upload.chunks(60) {
        uploads.write_raw(piece);
        assert!(mistaken.run("NOSUCH").is_error());
        pause(Duration::from_millis(100));
    }
    assert_eq!(uploads.read_frame(), b"+OK\r\n");
    let mut waits = stack.connect();
    stack.nodes[0].freeze();
    waits.send(&["MGET", "a", "b", "c", "d", "e", "f", "g", "h"]);
    pause(Duration::from_millis(1_800));
    stack.nodes[0].thaw();
    let values = waits.read_reply();
    assert_eq!(values.elements().len(), 8);
}

#[test]
fn declared_lengths_cost_no_memory() {
    let stack = Stack::start(&[]);
    let warm: Vec<_> = (0..200).map(|_| stack.connect()).collect();
    drop(warm);
    assert!(stack.connect().is_alive());
    let before = resident_bytes(stack.process_id());
    let mut holders: Vec<_> = (0..200).map(|_| stack.connect()).collect();
    for (number, client) in holders.iter_mut().enumerate() {
        match number % 3 {
            0 => client.write_raw(b"*1000000\r\n$16384\r\n"),
            1 => client.write_raw(b"*2\r\n$4\r\nECHO\r\n$536870912\r\na"),
            _ => client.write_raw(b"*1000000\r\n$1\r\na\r\n"),
        }
    }
    // All workers have read what lies before them once they answer this.
    for _ in 0..8 {
        assert!(stack.connect().is_alive());
    }
    let grown = resident_bytes(stack.process_id()).saturating_sub(before);
    // Redis itself grows its buffer to a declared bulk of more than 32 KiB.
    let allowed = if bare() { u64::MAX } else { 64 * MIB };
    assert!(grown < allowed, "{grown} bytes for 200 declarations");
}

#[test]
fn unread_replies_of_one_client_are_bounded() {
    let stack = Stack::start(&[("server.output_buffer", "\"8MiB\"")]);
    let mut other = stack.connect();
    let value = vec![b'v'; 1 << 20];
    assert!(
        other
            .call(&[b"SET".as_slice(), b"mebibyte", &value])
            .is_ok()
    );
    let before = resident_bytes(stack.process_id());
    let mut client = stack.connect();
    client.write_raw(&encode(&["GET", "mebibyte"]).repeat(500));
    let mut peak = 0;
    for _ in 0..20 {
        assert!(other.is_alive());
        assert_eq!(other.call(&["GET", "mebibyte"]).bytes().len(), value.len());
        peak = peak.max(resident_bytes(stack.process_id()));
    }
    let grown = peak.saturating_sub(before);
    // Redis copies into reply blocks and may queue all of one read before it looks at the limit.
    let allowed = if bare() { 600 * MIB } else { 96 * MIB };
    assert!(
        grown < allowed,
        "{grown} bytes for 500 MiB of unread replies"
    );
}

#[test]
fn a_reply_made_of_many_parts_is_bounded() {
    let stack = Stack::start(&[("server.output_buffer", "\"8MiB\"")]);
    let mut client = stack.connect();
    let value = vec![b'v'; 1 << 20];
    for key in [b"large", b"other"] {
        assert!(client.call(&[b"SET".as_slice(), key, &value]).is_ok());
        // From the second time on it is known without asking.
        for _ in 0..3 {
            assert_eq!(client.call(&[b"GET", key.as_slice()]).bytes(), value);
        }
    }
    let few = client.call(&["MGET", "large", "other", "large", "large"]);
    assert_eq!(few.elements().len(), 4);
    let before = resident_bytes(stack.process_id());
    let mut greedy = stack.connect();
    greedy.set_patience(Duration::from_secs(20));
    let many = [&["MGET"][..], &["large"; 1_000]].concat();
    if !bare() {
        assert!(greedy.try_call(&many).is_err(), "a gigabyte of reply");
    }
    // What was used is not given back at once.
    let grown = resident_bytes(stack.process_id()).saturating_sub(before);
    assert!(grown < 96 * MIB, "{grown} bytes for one reply");
    assert!(client.is_alive());
}

#[test]
fn a_password_is_asked_for_as_redis_asks() {
    let stack = Stack::start(&[("server.password", "\"secret\"")]);
    let redis = Redis::start(&["--requirepass", "secret"]);
    let mut real = Connection::open(redis.address());
    let mut client = stack.connect();
    for line in [
        "GET k",
        "INCR k",
        "PING",
        "7.0 NOSUCH",
        "7.0 INCR",
        "CLIENT ID",
        "INFO",
        "AUTH wrong",
        "AUTH default wrong",
        "AUTH nobody secret",
        "7.0 HELLO 3",
        "HELLO 3 AUTH default wrong",
        "GET k",
        "RESET",
        "GET k",
    ] {
        // Later versions do not look at a command before the password, and word some anew.
        let line = match line.strip_prefix("7.0 ") {
            Some(_) if is_other_server() => continue,
            Some(line) => line,
            None => line,
        };
        assert_eq!(client.run(line), real.run(line), "{line}");
    }
    assert!(client.run("AUTH secret").is_ok());
    assert_eq!(client.run("INCR k").integer(), 1);
    let mut client = stack.connect();
    assert!(client.run("AUTH default secret").is_ok());
    assert_eq!(client.run("INCR k").integer(), 2);
    let mut client = stack.connect();
    assert!(matches!(
        client.run("HELLO 3 AUTH default secret"),
        Reply::Map(_)
    ));
    assert_eq!(client.run("GET k").text(), "2");
    if let Some(tally) = &stack.tally {
        assert!(
            !tally.log().contains("secret"),
            "the password is in the log"
        );
    }
}

/// What Redis has too since its fix of CVE-2025-21605.
#[test]
fn before_auth_nobody_piles_up_replies() {
    let stack = Stack::start(&[("server.password", "\"secret\"")]);
    let piled = b"GET k\r\n".repeat(2000);
    let mut client = stack.connect();
    client.write_raw(&piled);
    // It is closed before all of it was answered.
    let said = client.read_to_close();
    assert!(said.len() < 2000 * 20, "{} bytes", said.len());
    // Who has said the password may.
    let mut client = stack.connect();
    assert!(client.run("AUTH secret").is_ok());
    client.write_raw(&piled);
    for _ in 0..2000 {
        assert_eq!(client.read_reply(), Reply::Nil);
    }
    // A few are answered as ever.
    let mut client = stack.connect();
    for _ in 0..100 {
        assert!(client.run("GET k").text().starts_with("NOAUTH"));
    }
}

#[test]
fn before_auth_requests_are_small() {
    let stack = Stack::start(&[("server.password", "\"secret\"")]);
    for (request, error) in [
        ("*11\r\n", "unauthenticated multibulk length"),
        (
            "*2\r\n$3\r\nGET\r\n$16385\r\n",
            "unauthenticated bulk length",
        ),
    ] {
        let mut client = stack.connect();
        client.write_raw(request.as_bytes());
        let said = client.read_to_close();
        assert_eq!(
            said.escape_ascii().to_string(),
            format!("-ERR Protocol error: {error}\\r\\n")
        );
    }
}
