//! Where transactions have parts on several nodes, what is executed on a connection of its own
//! overtakes nothing that was sent before: else there would be no order of what clients see.

use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Stack, eventually, pause, skipped_on_bare_redis};
use crate::relay::{Held, Relay};
use crate::reply::Reply;
use crate::servers::Redis;

/// Two nodes behind relays, and the Tally before them.
struct Field {
    /// Of both nodes, what Tally sends from [`MARK`] on.
    held: Vec<Held>,
    stack: Stack,
    /// One on each node.
    keys: [String; 2],
    _relays: Vec<Relay>,
}

impl Field {
    fn start() -> Self {
        let nodes = vec![Redis::start(&[]), Redis::start(&[])];
        let relays: Vec<_> = nodes.iter().map(Redis::address).map(Relay::start).collect();
        let settings = [("transactions.cross_node", "\"split\"")];
        let stack = Stack::behind(&relays, nodes, &settings);
        Self {
            keys: [stack.key_on(0, "a"), stack.key_on(1, "b")],
            held: relays.iter().map(|relay| relay.hold_from(MARK)).collect(),
            stack,
            _relays: relays,
        }
    }

    /// Sends a transaction that reads a key on each node: it is executed on the first one, and
    /// held back before the second.
    fn read_both(&self, reads: [&str; 2]) -> Connection {
        let executed = self.stack.nodes[0].calls("exec");
        let mut reader = self.stack.connect();
        reader.run_ok("MULTI");
        reader.run(reads[0]);
        reader.run(reads[1]);
        reader.run(&format!("SETNX {} here-it-stops", self.keys[1]));
        reader.send(&["EXEC"]);
        self.wait_until_held(1);
        let is_executed = || self.stack.nodes[0].calls("exec") > executed;
        assert!(eventually(PATIENCE, is_executed));
        reader
    }

    /// Waits until something is held back before so many nodes.
    fn wait_until_held(&self, count: usize) {
        let held = || self.held.iter().filter(|held| held.has(MARK)).count();
        assert!(eventually(PATIENCE, || held() == count));
    }

    /// Gives what could overtake the time for it; then the nodes get what was held back.
    fn go_on(&mut self) {
        pause(Duration::from_millis(300));
        self.held.drain(..).for_each(Held::go_on);
    }
}

#[test]
fn a_transaction_behind_watch_stays_behind_another_that_has_begun() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut field = Field::start();
    let [a, b] = field.keys.clone();
    let mut client = field.stack.connect();
    client.run_ok(&format!("MSET {a} 1 {b} 1"));
    let mut reader = field.read_both([&format!("GET {a}"), &format!("GET {b}")]);
    client.run_ok(&format!("WATCH {b}"));
    client.run_ok("MULTI");
    client.run(&format!("SET {a} 2"));
    client.run(&format!("SET {b} 2"));
    client.send(&["EXEC"]);
    field.go_on();
    let seen = reader.read_reply();
    assert_eq!(seen.elements()[0].text(), "1", "{seen:?}");
    assert_eq!(seen.elements()[1].text(), "1", "{seen:?}");
    assert!(matches!(client.read_reply(), Reply::Array(_)));
    let both = client.run(&format!("MGET {a} {b}"));
    assert!(both.elements().iter().all(|value| value.text() == "2"));
}

#[test]
fn a_write_on_its_way_to_a_watched_key_makes_exec_nil() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut field = Field::start();
    let [a, b] = field.keys.clone();
    let mut client = field.stack.connect();
    client.run_ok(&format!("WATCH {a} {b}"));
    let writers = [&a, &b].map(|key| {
        let mut writer = field.stack.connect();
        writer.send(&["SET", key, "here-it-stops"]);
        writer
    });
    field.wait_until_held(2);
    client.run_ok("MULTI");
    client.run(&format!("SET {a} 2"));
    client.run(&format!("SET {b} 2"));
    client.send(&["EXEC"]);
    field.go_on();
    assert_eq!(client.read_reply(), Reply::Nil);
    for mut writer in writers {
        assert!(writer.read_reply().is_ok());
    }
    let both = client.run(&format!("MGET {a} {b}"));
    assert!(
        both.elements()
            .iter()
            .all(|value| value.text() == "here-it-stops")
    );
}

#[test]
fn what_blocks_stays_behind_a_transaction_that_has_begun() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut field = Field::start();
    let list = field.stack.key_on(1, "list");
    let a = field.keys[0].clone();
    let mut client = field.stack.connect();
    client.run_ok(&format!("SET {a} 1"));
    client.run(&format!("RPUSH {list} element"));
    let mut reader = field.read_both([&format!("GET {a}"), &format!("LLEN {list}")]);
    client.run_ok(&format!("SET {a} 2"));
    client.send(&["BLPOP", &list, "0"]);
    field.go_on();
    let seen = reader.read_reply();
    assert_eq!(seen.elements()[0].text(), "1", "{seen:?}");
    assert_eq!(seen.elements()[1].integer(), 1, "{seen:?}");
    assert_eq!(client.read_reply().elements()[1].text(), "element");
}

/// Among what is to be held back.
const MARK: &[u8] = b"here-it-stops";

const PATIENCE: Duration = Duration::from_secs(10);
