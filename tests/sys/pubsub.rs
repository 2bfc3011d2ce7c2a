//! Messages: subscriptions in both protocols beside a plain Redis, lost connections, clients that
//! do not read.

use std::time::Duration;

use crate::connection::{Connection, encode, words};
use crate::harness::{Stack, eventually, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::Redis;
use crate::steps::{self, Step};

/// Three connections see the same from Tally as from a plain Redis.
#[track_caller]
fn check(steps: &[Step<'_>]) {
    steps::check(["PING"; 3], steps);
}

#[test]
fn channels_are_as_on_redis() {
    check(&[
        (0, "SUBSCRIBE a b a", "000"),
        (1, "SUBSCRIBE b", "1"),
        (2, "PUBLISH a one", "20"),
        (2, "PUBLISH b two", "201"),
        (2, "PUBLISH nobody three", "2"),
        (2, "PUBSUB CHANNELS a", "2"),
        (2, "PUBSUB NUMSUB a b nobody", "2"),
        (2, "PUBSUB CHANNELS nobody*", "2"),
        (0, "UNSUBSCRIBE b c", "00"),
        (2, "PUBLISH b four", "21"),
        (0, "UNSUBSCRIBE", "0"),
        (0, "UNSUBSCRIBE", "0"),
        (2, "PUBLISH a five", "2"),
        (0, "GET key", "0"),
        (1, "RESET", "1"),
        (2, "PUBLISH b six", "2"),
        (2, "PUBSUB CHANNELS", "2"),
    ]);
}

#[test]
fn what_a_client_sent_before_it_subscribed_is_no_concern_of_the_subscription() {
    let stack = Stack::start(&[]);
    for protocol in ["HELLO 2", "HELLO 3"] {
        let mut client = stack.connect();
        client.run(protocol);
        let lines = [
            "PUBSUB NUMSUB a b",
            "PUBLISH a early",
            "SUBSCRIBE a b",
            "PUBLISH a late",
        ];
        let lines = if protocol == "HELLO 2" {
            &lines[..3]
        } else {
            &lines[..]
        };
        for line in lines {
            client.write_raw(&encode(&words(line)));
        }
        let counts = client.read_reply();
        assert_eq!(format!("{counts:?}"), r#"["a", :0, "b", :0]"#, "{protocol}");
        assert_eq!(client.read_reply().integer(), 0, "{protocol}");
        for name in ["a", "b"] {
            let confirmed = client.read_reply();
            assert_eq!(confirmed.elements()[1].text(), name, "{protocol}");
        }
        client.send(&["PING"]);
        let rest: Vec<_> = (0..lines.len() - 2).map(|_| client.read_reply()).collect();
        let told = format!("{rest:?}");
        assert!(!told.contains("early"), "{protocol}: {told}");
    }
}

#[test]
fn patterns_are_as_on_redis() {
    check(&[
        (0, "PSUBSCRIBE n* ?ews [ab]o", "000"),
        (1, "PSUBSCRIBE n*", "1"),
        (1, "SUBSCRIBE no", "1"),
        (2, "PUBLISH no x", "2011"),
        (2, "PUBSUB NUMPAT", "2"),
        (2, "PUBSUB NUMSUB no", "2"),
        (1, "PUNSUBSCRIBE n* m*", "11"),
        (1, "PUNSUBSCRIBE", "1"),
        (0, "PUNSUBSCRIBE ?ews", "0"),
        (2, "PUBSUB NUMPAT", "2"),
        (2, "PUBLISH ao z", "20"),
        (0, "PUNSUBSCRIBE", "00"),
        (2, "PUBLISH no y", "21"),
        (2, "PUBSUB NUMPAT", "2"),
    ]);
}

#[test]
fn sharded_channels_are_as_on_redis() {
    check(&[
        (0, "SSUBSCRIBE a", "0"),
        (0, "SUBSCRIBE a", "0"),
        (1, "SSUBSCRIBE a", "1"),
        (2, "SPUBLISH a one", "201"),
        (2, "PUBLISH a two", "20"),
        (2, "PUBSUB SHARDNUMSUB a b", "2"),
        (2, "PUBSUB SHARDCHANNELS", "2"),
        (0, "SUNSUBSCRIBE", "0"),
        (0, "SUNSUBSCRIBE a", "0"),
        (2, "SPUBLISH a three", "21"),
        (2, "PUBSUB SHARDCHANNELS x*", "2"),
        (0, "PING", "0"),
    ]);
}

#[test]
fn in_resp2_a_subscriber_may_do_little_else() {
    check(&[
        (0, "SUBSCRIBE a", "0"),
        (0, "PING", "0"),
        (0, "PING hello", "0"),
        (0, "PING a b", "0"),
        (0, "GET key", "0"),
        (0, "HELLO 3", "0"),
        (0, "CLIENT ID", "0"),
        (0, "PUBLISH a x", "0"),
        (0, "NONSENSE", "0"),
        (0, "MULTI", "0"),
        (0, "EXEC", "0"),
        (0, "SUBSCRIBE", "0"),
        (0, "SSUBSCRIBE s", "0"),
        (0, "UNSUBSCRIBE a", "0"),
        (0, "GET key", "0"),
        (0, "SUNSUBSCRIBE s", "0"),
        (0, "GET key", "0"),
        (0, "SUBSCRIBE a", "0"),
        (0, "QUIT", "0"),
        (1, "PUBLISH", "1"),
        (1, "PUBSUB NUMPAT x", "1"),
        (1, "PUBSUB CHANNELS a b", "1"),
        (1, "PUBSUB NUMSUB", "1"),
        (1, "PUBSUB NONSENSE", "1"),
    ]);
}

#[test]
fn in_resp3_messages_are_pushes_and_everything_is_allowed() {
    check(&[
        (0, "CLIENT REPLY ON", "0"),
        (0, "SET key value", "0"),
        (1, "SUBSCRIBE a", "1"),
        (2, "PSUBSCRIBE a*", "2"),
        (0, "PUBLISH a one", "012"),
        (1, "RESET", "1"),
        (1, "SUBSCRIBE b", "1"),
    ]);
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    client.run("HELLO 3");
    client.send(&["SUBSCRIBE", "a", "b"]);
    let confirmed = client.read_reply();
    assert!(matches!(confirmed, Reply::Push(_)), "{confirmed:?}");
    client.read_frame();
    assert_eq!(client.run("PING").text(), "PONG");
    assert_eq!(client.run("INCR n").integer(), 1);
    let mut other = stack.connect();
    assert_eq!(other.run("PUBLISH b hello").integer(), 1);
    assert_eq!(
        client.read_frame(),
        b">3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$5\r\nhello\r\n"
    );
    client.send(&["UNSUBSCRIBE"]);
    assert!(matches!(client.read_reply(), Reply::Push(_)));
    client.read_frame();
    client.send(&["UNSUBSCRIBE"]);
    assert_eq!(
        client.read_frame(),
        b">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n"
    );
}

#[test]
fn messages_and_confirmations_come_with_replies_off() {
    check(&[
        (0, "CLIENT REPLY OFF", ""),
        (0, "SUBSCRIBE a", "0"),
        (0, "PSUBSCRIBE a*", "0"),
        (1, "PUBLISH a one", "100"),
        (0, "PUNSUBSCRIBE", "0"),
        (0, "UNSUBSCRIBE a", "0"),
        (0, "PING", ""),
        (0, "CLIENT REPLY ON", "0"),
    ]);
}

/// The messages of a subscription, `count` of them, as `channel=payload`.
#[track_caller]
fn messages(client: &mut Connection, count: usize) -> Vec<String> {
    let frames = (0..count).map(|_| client.read_reply());
    let frames = frames.map(|frame| {
        let parts: Vec<_> = frame.elements().iter().map(Reply::text).collect();
        let [.., channel, payload] = parts.as_slice() else {
            panic!("a message was expected, not {parts:?}");
        };
        format!("{channel}={payload}")
    });
    frames.collect()
}

#[test]
fn a_message_published_after_the_confirmation_is_never_missed() {
    let stack = Stack::start(&[]);
    let mut publisher = stack.connect();
    for round in 0..200 {
        let channel = format!("channel:{round}");
        let mut client = stack.connect();
        client.send(&["SUBSCRIBE", &channel]);
        client.read_frame();
        assert_eq!(publisher.call(&["PUBLISH", &channel, "x"]).integer(), 1);
        assert_eq!(messages(&mut client, 1), [format!("{channel}=x")]);
        if round % 2 == 0 {
            client.send(&["UNSUBSCRIBE", &channel]);
            client.read_frame();
            assert_eq!(publisher.call(&["PUBLISH", &channel, "y"]).integer(), 0);
        }
    }
}

#[test]
fn a_message_published_behind_a_subscription_in_one_write_is_never_missed() {
    let stack = Stack::start(&[]);
    for round in 0..50 {
        let channel = format!("channel:{round}");
        let mut client = stack.connect();
        client.run("HELLO 3");
        let requests = [["SUBSCRIBE", &channel, "other"], ["PUBLISH", &channel, "x"]];
        let requests = requests.map(|request| encode(&request));
        client.write_raw(&requests.concat());
        let frames: Vec<_> = (0..4).map(|_| client.read_frame()).collect();
        assert!(frames[1].starts_with(b">3"), "{round}: {frames:?}");
        // A message may come before or after the reply to its own PUBLISH.
        let count = frames[2..]
            .iter()
            .filter(|frame| frame.as_slice() == b":1\r\n");
        assert_eq!(count.count(), 1, "{round}: {frames:?}");
    }
}

#[test]
fn messages_of_one_publisher_keep_their_order() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    client.run("SUBSCRIBE a");
    let requests: Vec<_> = (0..500)
        .map(|number| format!("PUBLISH a {number}"))
        .collect();
    let counts = stack.connect().run_all(&requests);
    assert!(counts.iter().all(|count| count.integer() == 1));
    let expected: Vec<_> = (0..500).map(|number| format!("a={number}")).collect();
    assert_eq!(messages(&mut client, 500), expected);
}

#[test]
fn what_others_publish_on_a_node_comes_too_and_is_counted() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let channel = stack.key_on(1, "channel");
    let mut clients = [stack.connect(), stack.connect()];
    for client in &mut clients {
        client.call(&["SUBSCRIBE", &channel]);
    }
    let mut node = stack.nodes[1].connect();
    assert_eq!(node.call(&["PUBLISH", &channel, "x"]).integer(), 1);
    for client in &mut clients {
        assert_eq!(messages(client, 1), [format!("{channel}=x")]);
    }
    let mut direct = stack.nodes[1].connect();
    direct.call(&["SUBSCRIBE", &channel]);
    let mut publisher = stack.connect();
    assert_eq!(publisher.call(&["PUBLISH", &channel, "y"]).integer(), 3);
    let counts = publisher.call(&["PUBSUB", "NUMSUB", &channel]);
    assert_eq!(counts.elements()[1], Reply::Integer(3));
}

#[test]
fn notifications_come_from_every_node_and_never_about_tally_s_own_keys() {
    if skipped_on_bare_redis() {
        return;
    }
    let notify = ["--notify-keyspace-events", "KEA"];
    let nodes = vec![Redis::start(&notify), Redis::start(&notify)];
    let stack = Stack::over(nodes, &[]);
    let keys = [stack.key_on(0, "k"), stack.key_on(1, "k")];
    let mut client = stack.connect();
    client.call(&["SUBSCRIBE", "__keyevent@0__:set"]);
    let mut all = stack.connect();
    all.call(&["PSUBSCRIBE", "__key*"]);
    all.call(&["PSUBSCRIBE", "end"]);
    let mut writer = stack.connect();
    writer.run_all(&["INCR hot", "INCR hot", "INCR hot"]);
    assert!(writer.run("TALLY FLUSH").is_ok());
    for key in &keys {
        writer.call(&["SET", key, "v"]);
        assert_eq!(
            messages(&mut client, 1),
            [format!("__keyevent@0__:set={key}")]
        );
    }
    writer.call(&["PUBLISH", "end", "of it"]);
    loop {
        let message = messages(&mut all, 1).remove(0);
        assert!(!message.contains("__tally__"), "{message}");
        if message == "end=of it" {
            break;
        }
    }
}

#[test]
fn a_connection_is_opened_when_it_is_needed_and_closed_when_it_is_not() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("upstream.request_timeout", "\"200ms\"")]);
    let channel = stack.key_on(0, "channel");
    let subscribers = |node: usize| {
        let list = stack.nodes[node]
            .connect()
            .run("CLIENT LIST TYPE pubsub")
            .text();
        list.lines().count()
    };
    let connections = |node: usize| {
        let list = stack.nodes[node].connect().run("CLIENT LIST").text();
        list.lines()
            .filter(|line| line.contains("name=tally"))
            .count()
    };
    assert_eq!((connections(0), connections(1)), (1, 1));
    let mut clients: Vec<_> = (0..10).map(|_| stack.connect()).collect();
    for client in &mut clients {
        client.call(&["SUBSCRIBE", &channel]);
    }
    assert_eq!((subscribers(0), subscribers(1)), (1, 0));
    drop(clients);
    let closed = eventually(Duration::from_secs(10), || connections(0) == 1);
    assert!(closed, "the connection stays without subscribers");
    let mut client = stack.connect();
    client.call(&["SUBSCRIBE", &channel]);
    assert_eq!(
        stack.connect().call(&["PUBLISH", &channel, "x"]).integer(),
        1
    );
    assert_eq!(messages(&mut client, 1), [format!("{channel}=x")]);
}

#[test]
fn after_a_cut_the_subscriptions_are_made_again() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[]);
    let channel = stack.key_on(0, "channel");
    let mut client = stack.connect();
    client.call(&["SUBSCRIBE", &channel]);
    client.call(&["PSUBSCRIBE", "chan*"]);
    let mut publisher = stack.connect();
    for restart in [false, true] {
        if restart {
            stack.nodes[0].restart();
        } else {
            let mut node = stack.nodes[0].connect();
            assert_eq!(node.run("CLIENT KILL TYPE pubsub").integer(), 1);
        }
        let back = eventually(Duration::from_secs(10), || {
            let sent = publisher.call(&["PUBLISH", &channel, "again"]);
            sent == Reply::Integer(2)
        });
        assert!(back, "no subscription after the cut");
        assert_eq!(
            messages(&mut client, 2),
            vec![format!("{channel}=again"); 2]
        );
        assert_eq!(
            publisher.call(&["PUBLISH", &channel, "x"]),
            Reply::Integer(2)
        );
        assert_eq!(messages(&mut client, 2), vec![format!("{channel}=x"); 2]);
    }
}

#[test]
fn a_subscription_on_a_node_that_is_away_is_refused_and_leaves_no_trace() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[]);
    let (here, away) = (stack.key_on(0, "channel"), stack.key_on(1, "channel"));
    stack.nodes[1].kill();
    let mut client = stack.connect();
    client.send(&["SUBSCRIBE", &here, &away]);
    assert!(!client.read_reply().is_error());
    let refused = client.read_reply().text();
    assert!(refused.starts_with("ERR node"), "{refused}");
    assert!(client.run("PSUBSCRIBE *").is_error());
    let mut publisher = stack.connect();
    assert_eq!(publisher.call(&["PUBLISH", &here, "x"]).integer(), 1);
    assert_eq!(messages(&mut client, 1), [format!("{here}=x")]);
    client.send(&["UNSUBSCRIBE"]);
    client.read_frame();
    assert_eq!(client.call(&["GET", &here]), Reply::Nil, "no mode is left");
    stack.nodes[1].restart();
    let mut client = stack.connect();
    let back = eventually(Duration::from_secs(10), || {
        !client.call(&["SUBSCRIBE", &away]).is_error()
    });
    assert!(back, "the node is back");
    let mut publisher = stack.connect();
    // Its lane may still be in a pause between attempts.
    let sent = eventually(Duration::from_secs(10), || {
        publisher.call(&["PUBLISH", &away, "y"]) == Reply::Integer(1)
    });
    assert!(sent, "a publication does not arrive");
    assert_eq!(messages(&mut client, 1), [format!("{away}=y")]);
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_and_the_others_go_on() {
    let stack = Stack::start(&[("server.output_buffer", "\"1MiB\"")]);
    let mut slow = stack.connect();
    slow.run("SUBSCRIBE a");
    let mut good = stack.connect();
    good.run("SUBSCRIBE b");
    let mut publisher = stack.connect();
    let payload = vec![b'x'; 64 << 10];
    let closed = eventually(Duration::from_secs(20), || {
        let sent = publisher.call(&[b"PUBLISH".as_slice(), b"a", &payload]);
        sent.integer() == 0
    });
    // A bare Redis has limits of its own for subscribers, 32 MiB.
    assert!(closed, "a client that does not read is kept");
    assert_eq!(publisher.run("PUBLISH b x").integer(), 1);
    assert_eq!(messages(&mut good, 1), ["b=x"]);
}

#[test]
fn the_list_of_clients_tells_of_subscriptions() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    client.run("CLIENT SETNAME listener");
    client.send(&["SUBSCRIBE", "a", "b"]);
    client.read_frame();
    client.read_frame();
    client.run("PSUBSCRIBE a*");
    client.run("SSUBSCRIBE a");
    let list = stack.connect().run("CLIENT LIST").text();
    let line = list
        .lines()
        .find(|line| line.contains("name=listener"))
        .unwrap();
    for field in ["flags=P", "sub=2", "psub=1", "ssub=1"] {
        assert!(line.contains(field), "{field}: {line}");
    }
    let info = stack.connect().run("INFO stats").text();
    assert!(info.contains("pubsub_channels:2"), "{info}");
    assert!(info.contains("pubsub_patterns:1"), "{info}");
}
