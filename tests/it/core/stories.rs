//! What becomes of batches that are refused, lost, forgotten or answered late, told step by step.

use super::node::Fault;
use super::sim::Sim;
use super::traces::world;
use tally::flush;

/// Counts one on each key and seals it into a batch of its own, all in flight at once.
fn in_flight(sim: &mut Sim, keys: &[&str]) {
    for key in keys {
        sim.ask(&format!("INCRBY {key} 1"));
        sim.flush();
        sim.send();
    }
}

/// As many warm keys as there may be batches in flight.
fn window_warm() -> (Sim, [&'static str; flush::MAX_IN_FLIGHT]) {
    let mut sim = world();
    let keys = ["a", "b", "c", "d"];
    for key in keys {
        sim.warm(key, 5);
    }
    (sim, keys)
}

/// The connection breaks when the node has executed everything and no reply has come.
fn lose_replies(sim: &mut Sim) {
    sim.execute(usize::MAX);
    sim.disconnect();
}

#[test]
fn a_batch_whose_reply_was_lost_is_applied_once() {
    for executed in [false, true] {
        let mut sim = world();
        sim.warm("a", 5);
        sim.ask("INCRBY a 3");
        sim.flush();
        sim.send();
        let incr = sim.ask("INCRBY a 1");
        if executed {
            sim.execute(usize::MAX);
        }
        sim.disconnect();
        assert!(!sim.lane.is_idle(), "the batch is not acknowledged");
        sim.heard(incr, r":9\r\n");
        sim.connect();
        let incr = sim.ask("INCRBY a 1");
        sim.heard(incr, r":10\r\n");
        sim.rest();
        assert_eq!(sim.held("a"), 10);
        assert!(sim.losses.is_empty(), "{:?}", sim.losses);
    }
}

#[test]
fn the_first_answer_after_a_lost_connection_settles_what_was_applied_and_no_more() {
    // Of three batches of one key so many had been applied.
    for applied in 0..=3 {
        let mut sim = world();
        sim.warm("a", 5);
        in_flight(&mut sim, &["a", "a", "a"]);
        sim.execute(applied);
        sim.node.fault = Some((Fault::Loading, usize::MAX));
        lose_replies(&mut sim);
        sim.node.fault = None;
        sim.connect();
        sim.ask("INCRBY a 1");
        sim.send();
        sim.execute(usize::MAX);
        for _ in 0..3 {
            let incr = sim.ask("INCRBY a 0");
            sim.heard(incr, r":9\r\n");
            sim.read_one();
        }
        sim.rest();
        let get = sim.ask("GET a");
        sim.heard(get, r"$1\r\n9\r\n");
        assert_eq!(sim.held("a"), 9, "{applied} applied");
    }
}

#[test]
fn a_key_settled_by_another_batch_s_answer_is_asked_for_again() {
    let mut sim = world();
    sim.book.plan.foreign = true;
    sim.warm("a", 5);
    sim.warm("b", 5);
    in_flight(&mut sim, &["a", "b"]);
    lose_replies(&mut sim);
    sim.connect();
    sim.send();
    sim.execute(usize::MAX);
    // "Applied before" for the first one: the marker's number settles both.
    sim.read_one();
    sim.node.command(&super::book::argv(&["SET", "b", "50"]));
    let get = sim.ask("GET b");
    sim.settle();
    sim.heard(get, r"$2\r\n50\r\n");
    assert!(sim.lane.is_idle(), "{:?}", sim.lane);
}

#[test]
fn no_command_overtakes_a_batch_refused_whole() {
    for fault in [None, Some(Fault::Loading), Some(Fault::Oom)] {
        let mut sim = world();
        sim.warm("a", 5);
        sim.ask("INCRBY a 1");
        let removed = sim.ask("DEL a");
        let get = sim.ask("GET a");
        match fault {
            None => sim.node.script = false,
            Some(fault) => sim.node.fault = Some((fault, 1)),
        }
        sim.settle();
        sim.rest();
        if fault.is_some() {
            // DEL was given up with the batch's error, what was counted was not.
            let told = sim.book.operations[removed].reply();
            assert!(told.starts_with(b"-OOM") || told.starts_with(b"-LOADING"));
            sim.heard(get, r"$1\r\n6\r\n");
            assert_eq!(sim.held("a"), 6);
        } else {
            sim.heard(removed, r":1\r\n");
            sim.heard(get, r"_\r\n");
            assert_eq!(sim.node.value(b"a"), None);
        }
    }
}

#[test]
fn what_waits_for_a_batch_fails_while_the_node_refuses_and_nothing_is_lost() {
    let mut sim = world();
    sim.warm("a", 5);
    sim.node.fault = Some((Fault::Oom, usize::MAX));
    for count in 6..9 {
        let incr = sim.ask("INCRBY a 1");
        sim.heard(incr, &format!(r":{count}\r\n"));
        let strlen = sim.ask("STRLEN a");
        sim.settle();
        // Batches are tried once a flush.
        sim.flush();
        sim.settle();
        assert!(sim.book.operations[strlen].reply().starts_with(b"-OOM"));
        let all = sim.ask("DEBUG DIGEST");
        sim.settle();
        assert!(sim.book.operations[all].reply().starts_with(b"-OOM"));
    }
    sim.rest();
    assert_eq!(sim.held("a"), 8);
}

#[test]
fn a_full_window_that_is_refused_is_sent_again_once_a_flush() {
    let (mut sim, keys) = window_warm();
    in_flight(&mut sim, &keys);
    sim.node.fault = Some((Fault::ReadOnly, usize::MAX));
    sim.settle();
    for _ in 0..3 {
        let before = sim.executed;
        for _ in 0..5 {
            sim.settle();
        }
        assert_eq!(sim.executed - before, 0, "without a flush");
        sim.flush();
        for _ in 0..5 {
            sim.settle();
        }
        assert_eq!(sim.executed - before, flush::MAX_IN_FLIGHT, "with one");
    }
    sim.rest();
    for key in keys {
        assert_eq!(sim.held(key), 6, "key {key}");
    }
}

#[test]
fn what_waits_for_room_in_a_refused_window_fails_too() {
    let (mut sim, keys) = window_warm();
    sim.warm("i", 5);
    in_flight(&mut sim, &keys);
    sim.ask("INCRBY i 1");
    let strlen = sim.ask("STRLEN i");
    sim.node.fault = Some((Fault::ReadOnly, usize::MAX));
    sim.settle();
    assert!(
        sim.book.operations[strlen]
            .reply()
            .starts_with(b"-READONLY")
    );
    let incr = sim.ask("INCRBY i 1");
    sim.heard(incr, r":7\r\n");
    sim.rest();
    assert_eq!(sim.held("i"), 7);
}

#[test]
fn what_waits_for_a_deadline_s_sake_fails_too_while_the_node_refuses() {
    let mut sim = world();
    sim.warm("a", 5);
    sim.ask("INCRBY a 1");
    // Too near to be set here.
    let expire = sim.ask("PEXPIRE a 10");
    sim.node.fault = Some((Fault::Oom, usize::MAX));
    sim.settle();
    assert!(sim.book.operations[expire].reply().starts_with(b"-OOM"));
    let incr = sim.ask("INCRBY a 1");
    sim.heard(incr, r":7\r\n");
    sim.rest();
    assert_eq!(sim.held("a"), 7);
    // Too near its end to be counted here.
    sim.ask("PEXPIRE a 1000");
    sim.ask("INCRBY a 1");
    sim.advance(980);
    let incr = sim.ask("INCRBY a 1");
    sim.node.fault = Some((Fault::Oom, usize::MAX));
    sim.settle();
    assert!(sim.book.operations[incr].reply().starts_with(b"-OOM"));
    sim.rest();
    assert_eq!(sim.held("a"), 8);
}

#[test]
fn many_keys_that_somebody_waits_for_do_not_end_a_flush() {
    let mut plan = world().book.plan;
    plan.lane.max_in_flight = 1000;
    plan.table.max_keys = 1000;
    let mut sim = Sim::new(plan, 1);
    let keys: Vec<_> = (0..40).map(|key| format!("k{key}")).collect();
    for key in &keys {
        sim.warm(key, 5);
    }
    for key in &keys {
        sim.ask(&format!("INCRBY {key} 1"));
    }
    for key in &keys[..20] {
        sim.ask(&format!("STRLEN {key}"));
    }
    sim.flush();
    sim.settle();
    for key in &keys {
        assert_eq!(sim.held(key), 6, "key {key}");
    }
}

#[test]
fn keys_that_a_flush_has_no_room_for_are_still_counted_as_pending() {
    let mut plan = world().book.plan;
    plan.lane.max_in_flight = 1000;
    plan.table.max_keys = 1000;
    let mut sim = Sim::new(plan, 1);
    let sealed = flush::MAX_IN_FLIGHT * flush::MAX_KEYS;
    let keys: Vec<_> = (0..sealed + 44).map(|key| format!("k{key}")).collect();
    for key in &keys {
        sim.warm(key, 5);
    }
    for key in &keys {
        sim.ask(&format!("INCRBY {key} 1"));
    }
    sim.flush();
    sim.send();
    assert_eq!(sim.lane.pending_keys(&sim.table), 44);
    sim.rest();
    for key in &keys {
        assert_eq!(sim.held(key), 6, "key {key}");
    }
}

#[test]
fn a_marker_that_vanishes_behind_answered_batches_loses_nothing() {
    let mut sim = world();
    sim.warm("a", 5);
    in_flight(&mut sim, &["a", "a", "a"]);
    sim.execute(1);
    sim.evict();
    sim.settle();
    sim.rest();
    assert_eq!(sim.held("a"), 8);
    sim.evict();
    in_flight(&mut sim, &["a", "a"]);
    sim.rest();
    assert_eq!(sim.held("a"), 10);
    assert!(sim.losses.is_empty(), "{:?}", sim.losses);
}

#[test]
fn a_marker_that_vanishes_before_a_lost_connection_leaves_only_what_was_unanswered_in_doubt() {
    let mut sim = world();
    sim.warm("a", 5);
    sim.warm("b", 5);
    sim.ask("INCRBY b 7");
    sim.flush();
    sim.send();
    lose_replies(&mut sim);
    sim.evict();
    sim.connect();
    sim.ask("INCRBY b 1");
    sim.rest();
    assert_eq!(sim.losses.len(), 1, "{:?}", sim.losses);
    assert_eq!(sim.losses[b"b".as_slice()].in_doubt, [7]);
    // It had been applied: what was counted since is not in doubt.
    assert_eq!(sim.held("b"), 13);
    let get = sim.ask("GET b");
    sim.settle();
    sim.heard(get, r"$2\r\n13\r\n");
}

#[test]
fn a_batch_that_was_surely_not_applied_is_not_in_doubt() {
    let mut sim = world();
    sim.warm("a", 5);
    sim.ask("INCRBY a 7");
    sim.flush();
    sim.node.fault = Some((Fault::Oom, 1));
    // Answered: it was refused.
    sim.settle();
    sim.disconnect();
    sim.evict();
    sim.connect();
    sim.rest();
    assert!(sim.losses.is_empty(), "{:?}", sim.losses);
    assert_eq!(sim.held("a"), 12);
}

#[test]
fn batches_that_the_node_forgot_are_applied_again_while_they_are_kept() {
    for (unsettled, kept) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut sim = world();
        sim.warm("a", 5);
        sim.ask("INCRBY a 1");
        sim.rest();
        let before = sim.node.clone();
        for _ in 0..2 {
            sim.ask("INCRBY a 1");
            sim.rest();
        }
        if unsettled {
            in_flight(&mut sim, &["a", "a"]);
        } else {
            sim.ask("INCRBY a 2");
        }
        sim.disconnect();
        sim.node.adopt(before);
        if !kept {
            sim.advance(10_001);
        }
        sim.connect();
        sim.rest();
        // Two acknowledged batches were gone, two increments were not in any or not answered.
        let (held, forgotten) = if kept { (10, 0) } else { (8, 2) };
        assert_eq!(sim.held("a"), held);
        assert_eq!(sim.forgotten, forgotten);
        assert!(sim.losses.is_empty(), "{:?}", sim.losses);
        let get = sim.ask("GET a");
        sim.settle();
        sim.heard(
            get,
            &format!("${}\\r\\n{held}\\r\\n", held.to_string().len()),
        );
    }
}

#[test]
fn the_marker_is_there_again_after_a_flushall() {
    let mut sim = world();
    sim.ask("FLUSHALL");
    sim.settle();
    sim.warm("a", 5);
    in_flight(&mut sim, &["a"]);
    // Lost before the batch was executed.
    sim.node.fault = Some((Fault::Loading, usize::MAX));
    lose_replies(&mut sim);
    sim.node.fault = None;
    sim.connect();
    sim.rest();
    assert_eq!(sim.held("a"), 6);
    assert!(sim.losses.is_empty(), "{:?}", sim.losses);
}

#[test]
fn increments_after_a_flushall_are_applied_once_though_its_reply_was_lost() {
    for executed in 0..6 {
        let mut sim = world();
        sim.warm("a", 5);
        sim.ask("FLUSHALL");
        sim.settle();
        // Warm anew, and in flight behind another FLUSHALL.
        sim.warm("a", 5);
        sim.ask("INCRBY a 1");
        sim.ask("FLUSHALL");
        sim.settle();
        sim.settle();
        sim.ask("FLUSHALL");
        sim.send();
        sim.execute(executed);
        sim.disconnect();
        sim.connect();
        sim.warm("a", 5);
        in_flight(&mut sim, &["a"]);
        lose_replies(&mut sim);
        sim.connect();
        sim.rest();
        assert_eq!(sim.held("a"), 6, "{executed} executed");
        assert!(sim.losses.is_empty(), "{:?}", sim.losses);
    }
}

#[test]
fn a_fenced_series_gives_its_increments_up_and_says_so() {
    let mut sim = world();
    sim.warm("a", 5);
    let marker = String::from_utf8(sim.lane.marker().to_vec()).unwrap();
    let set = ["SET", marker.as_str(), "2 1"];
    sim.node.command(&super::book::argv(&set));
    sim.ask("INCRBY a 4");
    let strlen = sim.ask("STRLEN a");
    sim.rest();
    assert_eq!(sim.losses[b"a".as_slice()].in_doubt, [4]);
    sim.heard(strlen, r":1\r\n");
    assert_eq!(sim.held("a"), 5);
}
