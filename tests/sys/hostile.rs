//! Input that no client library sends: Redis's answer or Redis's error, in order, then close.

use std::net::SocketAddr;
use std::time::Duration;

use crate::connection::{Connection, Request, encode, words};
use crate::harness::{Stack, say};
use crate::servers::{Redis, is_other_server};

/// What a server says to raw bytes followed by the end of the client's side.
#[track_caller]
fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut connection = Connection::open(address);
    connection.write_raw(bytes);
    connection.finish_writing();
    connection.read_to_close()
}

/// The same raw bytes to a real Redis and to the stack.
#[track_caller]
fn check_like_redis(cases: &[&[u8]]) {
    let redis = Redis::start(&[]);
    let stack = Stack::start(&[]);
    let mut different = Vec::new();
    for case in cases {
        let expected = exchange(redis.address(), case);
        let actual = exchange(stack.address(), case);
        if expected != actual {
            different.push(format!(
                "{}\n  Redis: {}\n  Tally: {}",
                case[..case.len().min(200)].escape_ascii(),
                expected.escape_ascii(),
                actual.escape_ascii()
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(stack.connect().is_alive());
}

#[test]
fn protocol_errors_have_redis_text_and_close() {
    check_like_redis(&[
        b"*1\r\n*1\r\n$4\r\nPING\r\n",
        b"*2\r\n$4\r\nECHO\r\n*1\r\n$1\r\na\r\nPING\r\n",
        b"*1\r\n:4\r\n",
        b"*1\r\n+PING\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n\r\n",
        b"*1\r\n$abc\r\nPING\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$-5\r\nPING\r\n",
        b"*1\r\n$ 4\r\nPING\r\n",
        b"*1\r\n$+4\r\nPING\r\n",
        b"*1\r\n$04\r\nPING\r\n",
        b"*1\r\n$4 \r\nPING\r\n",
        b"*1\r\n$\r\nPING\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$9223372036854775807\r\n",
        b"*1\r\n$9223372036854775808\r\n",
        b"*1\r\n$99999999999999999999999999\r\n",
        b"*abc\r\nPING\r\n",
        b"*+1\r\n$4\r\nPING\r\n",
        b"* 1\r\n$4\r\nPING\r\n",
        b"*01\r\n$4\r\nPING\r\n",
        b"*\r\nPING\r\n",
        b"*-\r\nPING\r\n",
        b"*99999999999999999999\r\nPING\r\n",
        b"*9223372036854775808\r\nPING\r\n",
        b"*2147483648\r\nPING\r\n",
    ]);
}

#[test]
fn what_follows_a_protocol_error_is_not_executed() {
    let stack = Stack::start(&[]);
    let reply = exchange(
        stack.address(),
        b"SET before 1\r\n*1\r\n$x\r\nSET after 1\r\n*3\r\n$3\r\nSET\r\n$5\r\nafter\r\n$1\r\n1\r\n",
    );
    assert_eq!(
        reply.escape_ascii().to_string(),
        "+OK\\r\\n-ERR Protocol error: invalid bulk length\\r\\n"
    );
    assert_eq!(stack.connect().run("EXISTS after").integer(), 0);
    assert_eq!(stack.connect().run("EXISTS before").integer(), 1);
}

#[test]
fn tolerated_oddities_are_tolerated() {
    check_like_redis(&[
        b"",
        b"\r\n",
        b"\n",
        b"\r\n\r\n\n\nPING\r\n\r\n",
        b"   \r\nPING\r\n",
        b"*0\r\nPING\r\n",
        b"*-1\r\nPING\r\n",
        b"*-10\r\n*1\r\n$4\r\nPING\r\n",
        b"*1\r\n$4\r\nping\r\n*2\r\n$4\r\nEcHo\r\n$0\r\n\r\n",
        b"*1\r\n$0\r\n\r\nPING\r\n",
        b"PING\n",
        b"PING\r\nPING",
        b"*1000000\r\n",
        b"*2\r\n$4\r\nECHO\r\n$100000000\r\nabc",
        b"*2\r\n$4\r\nECHO\r\n$3\r\nab",
    ]);
}

#[test]
fn inline_commands_are_split_as_redis_splits_them() {
    if is_other_server() {
        return say("skipped: Valkey takes quotes that Redis refuses, and drops a byte 255");
    }
    check_like_redis(&[
        b"SET k v\r\nGET k\r\nDEL k\r\n",
        b"  SET   k    v  \r\nGET\tk\r\nDEL k\r\n",
        b"ECHO \"a b\"\r\n",
        b"ECHO 'a b'\r\n",
        b"ECHO 'it\\'s'\r\n",
        b"ECHO 'a\\nb'\r\n",
        b"ECHO \"\\x00\\xff\\x0d\\x0a\"\r\n",
        b"ECHO \"\\n\\r\\t\\b\\a\\q\\\\\"\r\n",
        b"ECHO \"\\x4\"\r\n",
        b"ECHO \"\\xzz\"\r\n",
        b"ECHO \"\"\r\n",
        b"ECHO ''\r\n",
        b"ECHO \"a\"b\r\nPING\r\n",
        b"ECHO 'a'b\r\nPING\r\n",
        b"ECHO \"unbalanced\r\nPING\r\n",
        b"ECHO 'unbalanced\r\nPING\r\n",
        b"ECHO a\"b c\"\r\n",
        b"ECHO \xff\xfe\r\n",
        b"\"PING\"\r\n",
        b"\"\"\r\nPING\r\n",
        b"NOSUCH 'a b' c\r\nPING\r\n",
        b"{\"json\": true}\r\nPING\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ]);
}

#[test]
fn endless_lines_are_refused() {
    if is_other_server() {
        return say("skipped: Valkey resets the connection before its error can be read");
    }
    let inline = vec![b'a'; 70_000];
    let array = [b"*".to_vec(), vec![b'1'; 70_000]].concat();
    let bulk = [b"*1\r\n$".to_vec(), vec![b'1'; 70_000]].concat();
    let short = [vec![b'a'; 60_000], b"\r\nPING\r\n".to_vec()].concat();
    check_like_redis(&[&inline, &array, &bulk, &short]);
}

#[test]
fn web_requests_are_cut_before_they_do_harm() {
    let stack = Stack::start(&[]);
    for attack in [
        "POST / HTTP/1.1\r\nSET hacked 1\r\n",
        "post x\r\nSET hacked 1\r\n",
        "Host: localhost\r\nSET hacked 1\r\n",
        "host: localhost:6380\r\nINCR hacked\r\n",
        "*1\r\n$4\r\nPOST\r\n*2\r\n$4\r\nINCR\r\n$6\r\nhacked\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 5\r\nHost: x\r\n\r\nINCR hacked\r\n",
    ] {
        let mut connection = stack.connect();
        connection.write_raw(attack.as_bytes());
        // The server closes by itself: nothing says here that no more will come.
        let said = connection.read_to_close();
        assert!(!said.contains(&b':'), "{}", said.escape_ascii());
        assert_eq!(
            stack.connect().run("EXISTS hacked").integer(),
            0,
            "{attack}"
        );
    }
}

#[test]
fn bytes_one_at_a_time_make_the_same_requests() {
    let script = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\nINCR n\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\
        *2\r\n$4\r\nINCR\r\n$1\r\nn\r\nECHO \"x y\"\r\n\r\n*0\r\n*2\r\n$4\r\nMGET\r\n$1\r\nk\r\n*1\r\n$x\r\n";
    let redis = Redis::start(&[]);
    let stack = Stack::start(&[]);
    let expected = exchange(redis.address(), script);
    let mut other = stack.connect();
    for chunk in [1, 2, 3, 7] {
        let mut connection = stack.connect();
        assert!(connection.run("FLUSHALL").is_ok());
        for piece in script.chunks(chunk) {
            connection.write_raw(piece);
            // An answer to another client: the piece before was most likely read alone.
            assert!(other.is_alive());
        }
        let actual = connection.read_to_close();
        assert_eq!(
            actual.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "{chunk} bytes at a time"
        );
    }
}

#[test]
fn a_half_closed_client_gets_all_its_replies() {
    let stack = Stack::start(&[]);
    for depth in [1, 10, 5_000] {
        let mut requests = Vec::new();
        let mut expected = Vec::new();
        stack.connect().run("DEL n");
        for number in 0..depth {
            requests.extend(encode(&["INCR", "n"]));
            expected.extend(format!(":{}\r\n", number + 1).into_bytes());
            requests.extend(encode(&["SET", &format!("k{number}"), "v"]));
            expected.extend(b"+OK\r\n");
            requests.extend(encode(&["GET", &format!("k{number}")]));
            expected.extend(b"$1\r\nv\r\n");
        }
        let actual = exchange(stack.address(), &requests);
        assert!(actual == expected, "depth {depth}: {} bytes", actual.len());
    }
}

#[test]
fn keys_and_values_may_be_any_bytes() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let all: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..1 << 20)
        .map(|at: u32| at.to_le_bytes()[0] ^ 0x5A)
        .collect();
    let mut keys: Vec<Vec<u8>> = all.iter().map(|&byte| vec![byte]).collect();
    keys.extend([
        Vec::new(),
        all.clone(),
        large.clone(),
        b"{}".to_vec(),
        b"a{b".to_vec(),
    ]);
    for (number, key) in keys.iter().enumerate() {
        let number = i64::try_from(number).unwrap();
        let amount = (number + 1).to_string();
        let by = |name: &'static str| vec![name.as_bytes().to_vec(), key.clone()];
        let increment: Request = [by("INCRBY"), vec![amount.clone().into_bytes()]].concat();
        assert_eq!(client.call(&increment).integer(), number + 1);
        assert_eq!(client.call(&by("INCR")).integer(), number + 2);
        assert_eq!(client.call(&by("GET")).text(), (number + 2).to_string());
    }
    let get_all: Request = [vec![b"MGET".to_vec()], keys.clone()].concat();
    let values = client.call(&get_all);
    for (number, value) in values.elements().iter().enumerate() {
        assert_eq!(value.text(), (number + 2).to_string());
    }
    for value in [&all, &large] {
        let set: Request = vec![b"SET".to_vec(), all.clone(), value.clone()];
        assert!(client.call(&set).is_ok());
        let get: Request = vec![b"GET".to_vec(), all.clone()];
        assert!(client.call(&get).bytes() == value.as_slice());
        assert!(client.call(&get).bytes() == value.as_slice());
    }
    let delete: Request = [vec![b"DEL".to_vec()], keys].concat();
    assert_eq!(client.call(&delete).integer(), 256 + 5);
    assert_eq!(client.run("DBSIZE").integer(), 0);
}

#[test]
fn a_million_commands_written_before_the_first_read_are_answered_in_order() {
    const COMMANDS: usize = 1_000_000;
    // The default bound on unread replies would be met by a server that is faster than us.
    let stack = Stack::start(&[("server.output_buffer", "\"256MiB\"")]);
    let mut client = stack.connect();
    client.set_patience(Duration::from_secs(240));
    let mut bytes = Vec::with_capacity(40 * COMMANDS);
    for number in 0..COMMANDS / 4 {
        let slot = number % 100;
        bytes.extend_from_slice(b"*2\r\n$4\r\nINCR\r\n$3\r\nhot\r\n");
        bytes.extend(encode(&["ECHO", &number.to_string()]));
        bytes.extend(encode(&[
            "SET",
            &format!("slot{slot}"),
            &number.to_string(),
        ]));
        bytes.extend(encode(&["GET", &format!("slot{slot}")]));
    }
    client.write_raw(&bytes);
    for number in 0..COMMANDS / 4 {
        let text = number.to_string();
        let bulk = format!("${}\r\n{text}\r\n", text.len());
        let expected = [
            format!(":{}\r\n", number + 1),
            bulk.clone(),
            "+OK\r\n".to_owned(),
            bulk,
        ];
        for expected in expected {
            let frame = client.read_frame();
            let command = 4 * number;
            assert!(
                frame == expected.as_bytes(),
                "after {command} commands: {} instead of {expected:?}",
                frame.escape_ascii()
            );
        }
    }
    assert!(client.is_alive());
}

/// A buffer that a large request stretched takes many small ones in one read.
#[track_caller]
fn check_many_in_one_read(small: &[u8], replies: usize) {
    let stack = Stack::start(&[("server.threads", "1")]);
    let mut client = stack.connect();
    let mut bytes = encode(&[b"SET".as_slice(), b"large", &vec![b'x'; 1 << 20]]);
    bytes.extend(small);
    bytes.extend(b"PING\r\n");
    client.write_raw(&bytes);
    assert_eq!(client.read_frame(), b"+OK\r\n");
    for _ in 0..=replies {
        assert_eq!(client.read_frame(), b"+PONG\r\n");
    }
}

#[test]
fn tens_of_thousands_of_requests_in_one_read_are_answered() {
    check_many_in_one_read(&b"PING\r\n".repeat(20_000), 20_000);
}

#[test]
fn tens_of_thousands_of_empty_lines_in_one_read_are_skipped() {
    check_many_in_one_read(&b"\r\n".repeat(200_000), 0);
}

#[test]
fn many_arguments_are_one_request() {
    // Seconds of work for a program that is not optimised, on a machine that does other things.
    let stack = Stack::start(&[
        ("upstream.request_timeout", "\"25s\""),
        ("upstream.hard_timeout", "\"28s\""),
    ]);
    let mut client = stack.connect();
    let pairs = (0..100_000).flat_map(|n| [format!("k{n}"), n.to_string()]);
    let set: Vec<String> = ["MSET".to_owned()].into_iter().chain(pairs).collect();
    assert!(client.call(&set).is_ok());
    let keys = (0..100_000).map(|n| format!("k{n}"));
    let get: Vec<String> = ["MGET".to_owned()].into_iter().chain(keys).collect();
    let values = client.call(&get);
    for (number, value) in values.elements().iter().enumerate() {
        assert_eq!(value.text(), number.to_string());
    }
    assert_eq!(values.elements().len(), 100_000);
}

#[test]
fn a_request_may_come_in_pieces_between_other_clients() {
    let stack = Stack::start(&[]);
    let bytes = encode(&words("INCR shared"));
    let mut clients: Vec<_> = (0..50).map(|_| stack.connect()).collect();
    for piece in bytes.chunks(5) {
        for client in &mut clients {
            client.write_raw(piece);
        }
    }
    let mut replies: Vec<i64> = clients
        .iter_mut()
        .map(|client| client.read_reply().integer())
        .collect();
    replies.sort_unstable();
    assert!(replies.into_iter().eq(1..=50));
}

#[test]
fn a_thousand_idle_connections_do_no_harm() {
    let stack = Stack::start(&[]);
    let mut idle: Vec<_> = (0..1_000).map(|_| stack.connect()).collect();
    let mut busy = stack.connect();
    for number in 1..=1_000 {
        assert_eq!(busy.run("INCR n").integer(), number);
    }
    let silent = idle
        .iter_mut()
        .filter_map(|client| (!client.is_alive()).then_some(()))
        .count();
    assert_eq!(silent, 0, "of 1000 connections do not answer");
    say("1000 idle connections answered");
}
