//! The shortest stories of faults that simulated runs found, told step by step.

use std::time::Duration;

use super::book::argv;
use super::node::Fault;
use super::plan::Plan;
use super::sim::Sim;
use tally::counter::Source;

/// A world in which nothing happens by itself, with client 0 and 1.
pub(super) fn world() -> Sim {
    world_with(false)
}

/// The same; `foreign`: others change keys, and the node does not tell of it.
fn world_with(foreign: bool) -> Sim {
    let plan = Plan {
        clients: 2,
        quiet: true,
        foreign,
        ..Plan::new(|_, _| argv(&["PING"]))
    };
    let mut sim = Sim::new(plan, 1);
    sim.book.log = Some(Vec::new());
    sim
}

impl Sim {
    /// Client 0 asks; the number of the operation.
    pub(super) fn ask(&mut self, words: &str) -> usize {
        let words: Vec<_> = words.split(' ').collect();
        assert!(self.submit(0, &argv(&words)), "no room");
        self.book.operations.len() - 1
    }

    /// Everything sent, executed and heard.
    pub(super) fn settle(&mut self) {
        self.send();
        self.execute(usize::MAX);
        while self.read_one() {}
    }

    #[track_caller]
    pub(super) fn heard(&self, operation: usize, reply: &str) {
        let told = self.book.operations[operation].reply();
        let story = self.book.log.clone().unwrap_or_default().join("\n");
        assert_eq!(told.escape_ascii().to_string(), reply, "{story}");
    }

    /// Makes a counter warm, with that value, and clean.
    pub(super) fn warm(&mut self, key: &str, value: i64) {
        self.ask(&format!("SET {key} {}", value - 2));
        self.settle();
        for _ in 0..2 {
            self.ask(&format!("INCRBY {key} 1"));
            self.settle();
        }
        let mut out = Vec::new();
        assert!(self.table.get(key.as_bytes(), self.now, &mut out), "warm");
    }
}

#[test]
fn an_mget_from_before_a_set_is_not_kept() {
    let mut sim = world();
    sim.ask("SET a old");
    sim.ask("GET a");
    sim.settle();
    sim.ask("MGET a b");
    sim.ask("SET a new");
    sim.ask("MGET a b");
    sim.settle();
    let get = sim.ask("GET a");
    sim.settle();
    sim.heard(get, r"$3\r\nnew\r\n");
    sim.check_fresh();
}

#[test]
fn a_command_that_failed_at_one_key_frees_its_other_keys() {
    let mut sim = world();
    sim.warm("a", 5);
    sim.ask("INCRBY a 1");
    let set = sim.ask("MSET a 1 b 1");
    let incr = sim.ask("INCRBY b 1");
    sim.node.fault = Some((Fault::Oom, 1));
    sim.settle();
    sim.settle();
    assert!(sim.book.operations[set].reply().starts_with(b"-OOM"));
    sim.heard(incr, r":1\r\n");
    sim.rest();
    sim.check_at_rest();
}

#[test]
fn what_waits_behind_a_keyless_command_is_not_passed() {
    let mut sim = world();
    sim.warm("b", 7);
    // Something waits at `b`, so DBSIZE waits, and so does what comes then.
    sim.ask("INCRBY b 1");
    sim.ask("STRLEN b");
    sim.ask("INCRBY a 1");
    sim.ask("DBSIZE");
    let get = sim.ask("GET a");
    // The run of `a` is answered; the increment of `b` is refused, so that STRLEN waits on.
    sim.settle();
    let incr = sim.ask("INCRBY a 1");
    sim.settle();
    sim.heard(get, r"$1\r\n1\r\n");
    sim.heard(incr, r":2\r\n");
}

#[test]
fn a_get_behind_an_increment_sees_it_while_flushall_waits() {
    let mut sim = world();
    sim.warm("a", 5);
    sim.advance(60);
    // The lease is over: a run, and behind it one of the other sign, and a read.
    sim.ask("INCRBY a 1");
    sim.ask("INCRBY a 1");
    sim.ask("INCRBY a -3");
    let get = sim.ask("GET a");
    let many = sim.ask("MGET a");
    sim.ask("FLUSHALL");
    sim.rest();
    sim.heard(get, r"$1\r\n4\r\n");
    sim.heard(many, r"*1\r\n$1\r\n4\r\n");
}

#[test]
fn nothing_counted_on_a_key_outlives_its_deadline() {
    let mut sim = world();
    sim.ask("SET a 5 PX 100");
    sim.settle();
    for sum in 6..12 {
        let incr = sim.ask("INCRBY a 1");
        sim.settle();
        sim.heard(incr, &format!(r":{sum}\r\n"));
    }
    assert_eq!(sim.table.dirty(), 1, "counted here");
    sim.advance(101);
    let incr = sim.ask("INCRBY a 1");
    sim.rest();
    sim.heard(incr, r":1\r\n");
}

#[test]
fn a_deadline_set_by_others_is_known_at_the_next_answer() {
    let mut sim = world_with(true);
    sim.warm("a", 5);
    sim.ask("INCRBY a 1");
    sim.node.command(&argv(&["PEXPIRE", "a", "100"]));
    sim.flush();
    sim.settle();
    // Known now, and far enough: counted here.
    let incr = sim.ask("INCRBY a 1");
    sim.heard(incr, r":7\r\n");
    // Within the guard: what is pending goes first, then each on its own.
    sim.advance(75);
    let incr = sim.ask("INCRBY a 1");
    assert_eq!(sim.book.open, 1, "not counted here");
    sim.rest();
    sim.heard(incr, r":8\r\n");
    assert_eq!(sim.held("a"), 8);
    sim.advance(30);
    let incr = sim.ask("INCRBY a 1");
    sim.rest();
    sim.heard(incr, r":1\r\n");
}

#[test]
fn an_answer_that_was_not_asked_for_the_deadline_hides_no_change() {
    let mut sim = world();
    sim.warm("a", 5);
    sim.ask("INCRBY a 1");
    sim.flush();
    sim.send();
    // On its way already, and nobody else's change was known when it was sealed.
    sim.node.command(&argv(&["PEXPIRE", "a", "100"]));
    sim.told("a");
    sim.settle();
    let incr = sim.ask("INCRBY a 1");
    assert_eq!(sim.book.open, 1, "not counted here");
    sim.rest();
    sim.heard(incr, r":7\r\n");
    sim.advance(120);
    let incr = sim.ask("INCRBY a 1");
    sim.rest();
    sim.heard(incr, r":1\r\n");
}

#[test]
fn reads_of_a_key_that_cools_wait_for_what_is_pending() {
    for (read, refused) in [
        ("GET a", false),
        ("MGET a", false),
        ("GET a", true),
        ("MGET a", true),
    ] {
        let mut sim = world_with(true);
        sim.warm("a", 5);
        sim.ask("INCRBY a 1");
        // Within the guard: the answer to the batch ends the counting here.
        sim.node.command(&argv(&["PEXPIRE", "a", "20"]));
        sim.flush();
        sim.send();
        sim.ask("INCRBY a 1");
        sim.settle();
        let get = sim.ask(read);
        sim.node.fault = refused.then_some((Fault::Oom, 1));
        sim.settle();
        sim.settle();
        let reply = sim.book.operations[get].reply().escape_ascii().to_string();
        let expected = if refused { "-OOM" } else { r"$1\r\n7\r\n" };
        assert!(reply.contains(expected), "{reply}");
        sim.rest();
        assert_eq!(sim.held("a"), 7);
    }
}

#[test]
fn increments_that_meet_one_in_flight_are_combined() {
    let mut sim = world();
    let first = sim.ask("INCRBY a 1");
    let rest: Vec<_> = (0..5).map(|_| sim.ask("INCRBY a 2")).collect();
    let get = sim.ask("GET a");
    sim.settle();
    sim.settle();
    // The marker, the first increment, and the sum of the others.
    assert_eq!(sim.lane.counts().requests, 3);
    sim.heard(first, r":1\r\n");
    for (at, incr) in rest.into_iter().enumerate() {
        sim.heard(incr, &format!(r":{}\r\n", 3 + 2 * at));
    }
    sim.heard(get, r"$2\r\n11\r\n");
}

#[test]
fn a_cached_value_ends_with_its_own_deadline() {
    let mut sim = world();
    sim.ask("SET a text PX 30");
    sim.ask("GET a");
    sim.settle();
    sim.ask("GET a");
    sim.settle();
    let mut out = Vec::new();
    assert!(sim.table.get(b"a", sim.now, &mut out));
    sim.advance(30);
    assert!(!sim.table.get(b"a", sim.now, &mut out));
}

#[test]
fn clean_counters_and_values_do_not_survive_a_lost_connection() {
    let mut sim = world();
    sim.warm("a", 5);
    // Counted, sealed for STRLEN... and clean again, still on the list of keys to flush.
    sim.ask("INCRBY a 1");
    sim.ask("INCRBY a -1");
    sim.warm("b", 5);
    sim.ask("INCRBY b 1");
    sim.disconnect();
    let mut out = Vec::new();
    assert!(!sim.table.get(b"a", sim.now, &mut out), "clean");
    assert!(sim.table.get(b"b", sim.now, &mut out), "pending");
    sim.connect();
    sim.rest();
    assert_eq!(sim.held("b"), 6);
}

#[test]
fn errors_are_never_kept_as_values() {
    let mut sim = world();
    sim.ask("LPUSH a x");
    for _ in 0..3 {
        let get = sim.ask("GET a");
        sim.settle();
        assert!(sim.book.operations[get].reply().starts_with(b"-WRONGTYPE"));
        let many = sim.ask("MGET a");
        sim.settle();
        sim.heard(many, r"*1\r\n_\r\n");
    }
    for command in ["GET b", "MGET b"] {
        sim.ask("SET b text");
        sim.ask("GET b");
        sim.settle();
        // Only the first of the two reads is refused.
        sim.ask(command);
        sim.node.fault = Some((Fault::Loading, 1));
        sim.settle();
        let get = sim.ask("GET b");
        sim.settle();
        sim.heard(get, r"$4\r\ntext\r\n");
    }
}

#[test]
fn what_others_count_shows_with_the_next_answer() {
    let mut sim = world_with(true);
    sim.warm("a", 5);
    sim.ask("INCRBY a 1");
    sim.flush();
    sim.ask("INCRBY a 2");
    sim.node.command(&argv(&["INCRBY", "a", "100"]));
    sim.settle();
    let get = sim.ask("GET a");
    sim.heard(get, r"$3\r\n108\r\n");
    sim.rest();
    sim.check_fresh();
}

#[test]
fn a_cached_value_does_not_survive_a_lost_connection() {
    let mut sim = world();
    for _ in 0..2 {
        sim.ask("GET a");
        sim.settle();
    }
    let mut out = Vec::new();
    assert!(sim.table.get(b"a", sim.now, &mut out), "cached");
    sim.disconnect();
    assert!(!sim.table.get(b"a", sim.now, &mut out));
}

#[test]
fn clients_told_of_a_timeout_are_not_joined() {
    let mut sim = world();
    sim.ask("GET a");
    sim.send();
    sim.advance(20);
    sim.expire();
    sim.ask("GET a");
    sim.send();
    sim.advance(20);
    sim.expire();
    assert_eq!(sim.book.open, 0, "both were told");
    sim.rest();
}

#[test]
fn keys_beyond_the_bound_are_forwarded() {
    let mut sim = Sim::new(
        {
            let mut plan = Plan::new(|_, _| argv(&["PING"]));
            plan.quiet = true;
            plan.table.max_keys = 3;
            plan
        },
        1,
    );
    for round in 1..4 {
        for key in 0..20 {
            let incr = sim.ask(&format!("INCRBY k{key} 1"));
            sim.ask(&format!("GET k{key}"));
            sim.ask(&format!("MGET k{key} k{}", key + 1));
            // Without a queue nothing goes past the bound; a few keys do while commands wait.
            assert!(sim.table.len() <= 3 + 1, "{}", sim.table.len());
            sim.settle();
            sim.heard(incr, &format!(r":{round}\r\n"));
            assert!(sim.table.len() <= 3, "{}", sim.table.len());
        }
    }
    sim.rest();
    sim.check_at_rest();
}

#[test]
fn in_a_crowd_a_key_is_warm_while_it_comes_often() {
    let mut plan = Plan::new(|_, _| argv(&["PING"]));
    (plan.quiet, plan.table.crowd) = (true, 0);
    let mut sim = Sim::new(plan, 1);
    let seldom = sim.ask("INCRBY a 1");
    sim.settle();
    sim.heard(seldom, r":1\r\n");
    assert!(sim.table.is_empty(), "sent and forgotten");
    sim.ask("INCRBY a 1");
    sim.settle();
    assert_eq!(sim.table.source(b"a", sim.now), Source::Memory);
    for increments in [2, 1] {
        for _ in 0..increments {
            sim.ask("INCRBY a 1");
        }
        sim.flush();
        sim.settle();
        let is_warm = sim.table.source(b"a", sim.now) == Source::Memory;
        assert_eq!(is_warm, increments == 2, "{increments}");
    }
    assert!(sim.table.is_empty());
    assert_eq!(sim.held("a"), 5);
}

#[test]
fn a_flush_is_spread_over_time_until_somebody_waits_for_it() {
    let mut plan = Plan::new(|_, _| argv(&["PING"]));
    (plan.quiet, plan.table.max_keys, plan.table.crowd) = (true, 1000, 1000);
    let mut sim = Sim::new(plan, 1);
    let keys: Vec<String> = (0..500).map(|key| format!("k{key}")).collect();
    for key in &keys {
        sim.warm(key, 3);
        sim.ask(&format!("INCRBY {key} 1"));
    }
    let spread = Duration::from_millis(400);
    let begun = sim.now;
    let flushed = |sim: &Sim| sim.lane.counts().keys;
    sim.lane.begin_flush_of(&sim.table, 0, sim.now, spread);
    for time in 1..=3 {
        sim.settle();
        assert_eq!(
            flushed(&sim),
            128 * time,
            "four batches, and none before its time"
        );
        let next = begun + Duration::from_millis(100 * time);
        assert_eq!(sim.lane.next_batch(), Some(next));
        sim.advance(99);
        sim.settle();
        assert_eq!(flushed(&sim), 128 * time);
        sim.advance(1);
    }
    sim.flush();
    sim.settle();
    assert_eq!((flushed(&sim), sim.lane.next_batch()), (500, None));
    assert!(keys.iter().all(|key| sim.held(key) == 4));
}

#[test]
fn the_table_is_empty_after_its_leases() {
    let mut sim = world();
    for key in ["a", "b", "c"] {
        sim.warm(key, 3);
        for _ in 0..2 {
            sim.ask(&format!("GET {key}x"));
            sim.settle();
        }
    }
    assert!(sim.table.cached_bytes() > 0);
    sim.rest();
    sim.advance(51);
    sim.table.sweep(0, 64, sim.now);
    assert_eq!((sim.table.len(), sim.table.cached_bytes()), (0, 0));
}
