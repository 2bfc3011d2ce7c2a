//! What goes wrong while clients count. Each fault puts right what it broke.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Field;
use crate::harness::{eventually, pause};
use crate::relay::Relay;

/// A fault, and what it is called.
pub(super) type Fault = (&'static str, fn(&mut Field<'_>));

/// Those through which every acknowledged increment is kept, or named in the log.
pub(super) const FAULTS: &[Fault] = &[
    ("Tally is killed", kill_tally),
    ("a node is killed", kill_node),
    ("Tally and a node are killed", kill_both),
    ("a node stands still", freeze),
    ("a node stands still, and Tally is killed", freeze_and_kill),
    ("connections are cut", cut),
    ("a request is cut in two", cut_request),
    ("a reply is cut in two", cut_reply),
    ("batches are lost", lose_batches),
    ("bytes of a dead connection come late", deliver_late),
    ("bytes of a killed Tally come late", deliver_late_after_kill),
    ("a node is out of memory", run_out_of_memory),
    ("a node is read-only", become_read_only),
    ("the scripts are forgotten", forget_scripts),
    ("the marker is deleted", delete_marker),
    ("all is flushed through Tally", flush_through),
    ("all is flushed behind Tally", flush_behind),
];

pub(super) fn kill_tally(field: &mut Field<'_>) {
    let tally = field.stack.tally.as_mut().unwrap();
    tally.kill();
    tally.restart();
}

pub(super) fn kill_node(field: &mut Field<'_>) {
    let node = field.any_node();
    field.stack.nodes[node].kill();
    field.wait(100);
    field.stack.nodes[node].restart();
    field.restore(node);
}

pub(super) fn kill_both(field: &mut Field<'_>) {
    let node = field.any_node();
    field.stack.nodes[node].kill();
    field.wait(100);
    field.stack.tally.as_mut().unwrap().kill();
    if field.random.one_in(2) {
        field.stack.nodes[node].restart();
        field.stack.tally.as_mut().unwrap().restart();
    } else {
        field.stack.tally.as_mut().unwrap().restart();
        field.wait(200);
        field.stack.nodes[node].restart();
    }
    field.restore(node);
}

pub(super) fn freeze(field: &mut Field<'_>) {
    let node = field.any_node();
    field.stack.nodes[node].freeze();
    // What was sent is executed when the node goes on.
    pause(LONGER_THAN_EVERY_TIMEOUT);
    field.stack.nodes[node].thaw();
    field.wait(100);
}

pub(super) fn freeze_and_kill(field: &mut Field<'_>) {
    let node = field.any_node();
    field.stack.nodes[node].freeze();
    pause(LONGER_THAN_EVERY_TIMEOUT);
    let tally = field.stack.tally.as_mut().unwrap();
    tally.kill();
    tally.relaunch();
    field.stack.nodes[node].thaw();
    field.stack.tally.as_mut().unwrap().wait_until_it_answers();
}

/// As an operator's `CLIENT KILL` does.
pub(super) fn cut(field: &mut Field<'_>) {
    let node = field.any_node();
    let mut admin = field.stack.nodes[node].connect();
    admin.run("CLIENT KILL TYPE normal SKIPME yes");
}

pub(super) fn cut_request(field: &mut Field<'_>) {
    let (node, bytes) = (field.any_node(), field.random.below(2000));
    field.relays[node].cut_requests(bytes);
    field.wait(60);
}

pub(super) fn cut_reply(field: &mut Field<'_>) {
    let (node, bytes) = (field.any_node(), field.random.below(2000));
    field.relays[node].cut_replies(bytes);
    field.wait(60);
}

/// No node gets the next batches, and the connections are lost.
pub(super) fn lose_batches(field: &mut Field<'_>) {
    let held: Vec<_> = field.relays.iter().map(Relay::hold).collect();
    for held in &held {
        eventually(Duration::from_secs(2), || held.has(b"__tally__:marker:"));
        held.lose();
    }
    field.wait(60);
}

pub(super) fn deliver_late(field: &mut Field<'_>) {
    let node = field.any_node();
    let held = field.relays[node].hold();
    // Batches are among what is held.
    eventually(Duration::from_secs(1), || held.bytes() > 10_000);
    held.lose();
    // The next connection is in use.
    field.wait(200);
    held.deliver();
}

pub(super) fn deliver_late_after_kill(field: &mut Field<'_>) {
    let node = field.any_node();
    let held = field.relays[node].hold();
    eventually(Duration::from_secs(1), || held.bytes() > 10_000);
    kill_tally(field);
    field.wait(200);
    held.deliver();
}

pub(super) fn run_out_of_memory(field: &mut Field<'_>) {
    let node = field.any_node();
    let mut admin = field.stack.nodes[node].connect();
    assert!(admin.run("CONFIG SET maxmemory 1").is_ok());
    field.wait(400);
    assert!(admin.run("CONFIG SET maxmemory 0").is_ok());
}

/// A replica of nobody that answers: reads go on, writes are refused.
pub(super) fn become_read_only(field: &mut Field<'_>) {
    let node = field.any_node();
    let mut admin = field.stack.nodes[node].connect();
    assert!(admin.run("REPLICAOF 127.0.0.1 1").is_ok());
    field.wait(400);
    assert!(admin.run("REPLICAOF NO ONE").is_ok());
}

pub(super) fn forget_scripts(field: &mut Field<'_>) {
    let node = field.any_node();
    assert!(
        field.stack.nodes[node]
            .connect()
            .run("SCRIPT FLUSH")
            .is_ok()
    );
}

pub(super) fn delete_marker(field: &mut Field<'_>) {
    let node = field.any_node();
    let mut admin = field.stack.nodes[node].connect();
    for database in 0..super::clients::DATABASES {
        assert!(admin.run(&format!("SELECT {database}")).is_ok());
        let markers = admin.run("KEYS __tally__:*");
        for marker in markers.elements() {
            admin.run(&format!("DEL {}", marker.text()));
        }
    }
}

pub(super) fn flush_through(field: &mut Field<'_>) {
    field.remove_keys(|field| {
        let mut client = field.stack.connect();
        client.run("FLUSHALL").is_ok()
    });
}

pub(super) fn flush_behind(field: &mut Field<'_>) {
    field.remove_keys(|field| {
        // What was acknowledged before goes with the keys.
        let is_applied = field.stack.connect().run("TALLY FLUSH").is_ok();
        for node in &field.stack.nodes {
            assert!(node.connect().run("FLUSHALL").is_ok());
        }
        is_applied
    });
}

impl Field<'_> {
    fn any_node(&mut self) -> usize {
        self.random.below(self.stack.nodes.len())
    }

    /// Lets up to so many milliseconds pass.
    pub(super) fn wait(&mut self, milliseconds: u64) {
        pause(Duration::from_millis(self.random.next() % milliseconds));
    }

    /// What `remove` says: whether everything acknowledged before it is gone.
    fn remove_keys(&mut self, remove: impl FnOnce(&mut Self) -> bool) {
        let begun = self.course.era.fetch_add(1, Ordering::SeqCst) + 1;
        let is_certain = remove(self);
        self.wiped.1 = self.course.era.fetch_add(1, Ordering::SeqCst) + 1;
        if is_certain {
            self.wiped.0 = begun;
        }
    }
}

/// See `IMPATIENT`.
const LONGER_THAN_EVERY_TIMEOUT: Duration = Duration::from_millis(700);
