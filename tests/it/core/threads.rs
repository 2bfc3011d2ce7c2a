//! The table under real threads: sessions count in it while the lane's barriers take keys away.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tally::counter::{Answer, Effect, KeyTable, Lane, Step};
use tally::flush::Series;
use tally::resp::{encode, reply};

use super::book::{Argv, argv};
use super::node::{Node, script};
use super::plan::Plan;

/// Everything submitted, executed and answered, in this thread.
fn call(table: &KeyTable, lane: &mut Lane<()>, node: &mut Node, command: &Argv) -> Vec<u8> {
    let now = tokio::time::Instant::now().into_std();
    let mut heard = Vec::new();
    let mut deliver = |(), frame: &[u8]| heard = frame.to_vec();
    let mut step = Step {
        table,
        now,
        deliver: &mut deliver,
    };
    if command[0] == b"INCRBY" {
        lane.increment(&mut step, &command[1], 1, ());
    } else {
        let mut wire = Vec::new();
        encode::request(&mut wire, command);
        lane.forward(&mut step, &[&command[1]], &wire, Effect::Barrier, ());
    }
    loop {
        let bytes = lane.take_wire(table, now, Vec::new());
        let mut rest = bytes.as_slice();
        if rest.is_empty() {
            assert!(lane.is_idle(), "{lane:?}");
            return heard;
        }
        while !rest.is_empty() {
            let (length, frame) = node.execute(rest);
            rest = &rest[length..];
            lane.on_reply(&mut step, &frame).unwrap();
        }
    }
}

#[test]
fn barriers_take_every_increment_counted_meanwhile() {
    let plan = Plan::new(|_, _| argv(&["PING"]));
    let table = KeyTable::new(plan.table, 1);
    let (done, counted) = (AtomicBool::new(false), AtomicI64::new(0));
    let mut read = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let now = tokio::time::Instant::now().into_std();
                while !done.load(Ordering::Relaxed) {
                    if let Answer::Value(_) = table.increment(b"a", 1, now) {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut lane = Lane::new(plan.lane, Series::new("threads", 0, 1));
        let mut node = Node::default();
        node.script = true;
        let now = tokio::time::Instant::now().into_std();
        lane.connected(&table, now, Some(script()), None, true);
        for _ in 0..1000 {
            for _ in 0..2 {
                call(&table, &mut lane, &mut node, &argv(&["INCRBY", "a", "1"]));
            }
            read -= 2;
            // Answers with what was counted, and begins anew.
            let value = call(&table, &mut lane, &mut node, &argv(&["GETDEL", "a"]));
            let value = String::from_utf8_lossy(reply::text(&value).unwrap()).into_owned();
            read += value.parse::<i64>().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(read, counted.load(Ordering::Relaxed));
}
