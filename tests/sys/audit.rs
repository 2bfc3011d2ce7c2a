//! The audit: clients count without pause while something goes wrong, and write down what they were
//! told. In the end each counter holds everything that was acknowledged, once, and of what may have
//! been executed each increment once at most. An error that does not say so was not counted.
//!
//! `TALLY_CHAOS_SECONDS` is how long `chaos` goes on, `TALLY_SUITE_SEED` what it begins with.

mod clients;
mod faults;
mod unscripted;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use crate::connection::Connection;
use crate::harness::{Settings, Stack, eventually, now, pause, say, skipped_on_bare_redis};
use crate::random::Random;
use crate::relay::Relay;
use crate::reply::Reply;
use crate::servers::{Redis, Tally};
use clients::{Course, DATABASES, Key, Sums, count, names, together};

/// Two nodes, each behind a relay, and the Tally before them, while clients count.
struct Field<'a> {
    stack: Stack,
    relays: Vec<Relay>,
    random: Random,
    course: &'a Course,
    /// Since when keys may hold what was acknowledged, and since when they must: eras.
    wiped: (usize, usize),
    /// Whether Tally may close connections at the node.
    is_fenced: bool,
}

/// What Tally says it gave up, with the amount.
type Doubts = BTreeMap<Key, i64>;

/// How an audit is set up.
struct Audit<'a> {
    settings: Settings<'a>,
    nodes: fn() -> Redis,
    is_fenced: bool,
    /// Whether increments may be in doubt: Tally names them then.
    has_doubts: bool,
    /// Whether keys are removed.
    removes: bool,
}

impl Default for Audit<'_> {
    fn default() -> Self {
        Self {
            settings: &[],
            nodes: Redis::start_durable,
            is_fenced: true,
            has_doubts: false,
            removes: false,
        }
    }
}

impl Audit<'_> {
    /// While `happen` does what it does, clients count. Then Tally stops in good order, and what
    /// the nodes hold is compared with what the clients were told.
    #[track_caller]
    fn run(&self, happen: impl FnOnce(&mut Field<'_>)) {
        if skipped_on_bare_redis() {
            return;
        }
        let seed = Random::seed_or(7);
        let course = Course {
            only_rises: !self.removes && !self.has_doubts,
            ..Course::default()
        };
        let mut field = self.field(&course, seed);
        let address = field.stack.address();
        let (happened, sums) = thread::scope(|scope| {
            let course = &course;
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| scope.spawn(move || count(address, client, course)))
                .collect();
            let happened = catch_unwind(AssertUnwindSafe(|| happen(&mut field)));
            course.stop.store(true, Ordering::Relaxed);
            let sums: Vec<_> = clients.into_iter().map(ScopedJoinHandle::join).collect();
            (happened, sums)
        });
        if let Err(panic) = happened {
            resume_unwind(panic);
        }
        field.stack.stop_tally();
        let sums = together(sums.into_iter().map(|sums| sums.unwrap()));
        let doubts = doubts(field.stack.tally.as_ref().unwrap());
        assert!(self.has_doubts || doubts.is_empty(), "in doubt: {doubts:?}");
        field.check(&sums, &doubts, seed);
    }

    fn field<'c>(&self, course: &'c Course, seed: u64) -> Field<'c> {
        let nodes = vec![(self.nodes)(), (self.nodes)()];
        let relays: Vec<_> = nodes.iter().map(Redis::address).map(Relay::start).collect();
        if !self.is_fenced {
            nodes.iter().for_each(forbid_kills);
        }
        let settings = [SETTINGS, self.settings].concat();
        Field {
            stack: Stack::behind(&relays, nodes, &settings),
            relays,
            random: Random::new(seed),
            course,
            wiped: (0, 0),
            is_fenced: self.is_fenced,
        }
    }
}

impl Field<'_> {
    /// Sets a node up again that was started again.
    fn restore(&self, node: usize) {
        if !self.is_fenced {
            forbid_kills(&self.stack.nodes[node]);
        }
    }

    #[track_caller]
    fn check(&self, sums: &Sums, doubts: &Doubts, seed: u64) {
        let (mut total, mut wrong) = (0, Vec::new());
        for (key, sum) in sums {
            let held: i64 = self.stack.nodes.iter().map(|node| held(node, key)).sum();
            let doubted = doubts.get(key).copied().unwrap_or_default();
            let least = sum.sent_since(self.wiped.1) - doubted;
            let most = sum.told_since(self.wiped.0) + sum.unknown;
            if held < least || held > most {
                wrong.push(format!("{key:?}: {held}, not {least} to {most}"));
            }
            if self.course.only_rises
                && let Some(collision) = sum.collision()
            {
                wrong.push(format!("{key:?}: given twice: {collision:?}"));
            }
            total += sum.told_since(0);
        }
        assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
        assert!(total > 100, "there was load: {total}");
    }

    /// Waits until increments were acknowledged, however slow the machine is, and a little longer.
    fn let_clients_count(&mut self) {
        let acknowledged = || self.course.acknowledged.load(Ordering::Relaxed);
        let before = acknowledged();
        let is_counted = || acknowledged() >= before + 100;
        assert!(eventually(Duration::from_secs(20), is_counted));
        self.wait(150);
    }

    /// Every counter is answered from memory: what is forwarded is the node's own to lose.
    fn wait_until_all_is_warm(&self) {
        let mut client = self.stack.connect();
        for database in 0..DATABASES {
            assert!(client.run(&format!("SELECT {database}")).is_ok());
            for name in names() {
                let is_warm = eventually(Duration::from_secs(10), || {
                    let place = client.run(&format!("TALLY WHERE {name}"));
                    format!("{place:?}").contains("memory")
                });
                assert!(is_warm, "{name} in {database}");
            }
        }
    }
}

fn held(node: &Redis, (database, name): &Key) -> i64 {
    let mut connection = node.connect();
    assert!(connection.run(&format!("SELECT {database}")).is_ok());
    match connection.run(&format!("GET {name}")) {
        Reply::Bulk(text) => String::from_utf8(text).unwrap().parse().unwrap(),
        Reply::Nil => 0,
        other => panic!("{other:?}"),
    }
}

/// What the log says is in doubt.
fn doubts(tally: &Tally) -> Doubts {
    let mut doubts = Doubts::new();
    for line in tally.log().lines() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        if line["message"] == "acknowledged increments are in doubt" {
            let name = line["key"].as_str().unwrap().trim_matches('"').to_owned();
            let database = u32::try_from(line["database"].as_u64().unwrap()).unwrap();
            *doubts.entry((database, name)).or_default() += line["delta"].as_i64().unwrap();
        }
    }
    doubts
}

/// Takes the fence from Tally.
fn forbid_kills(node: &Redis) {
    assert!(
        node.connect()
            .run("ACL SETUSER default -client|kill")
            .is_ok()
    );
}

/// A fault comes several times, with some counting in between.
fn again_and_again(times: usize, fault: fn(&mut Field<'_>)) -> impl FnOnce(&mut Field<'_>) {
    move |field| {
        for _ in 0..times {
            field.let_clients_count();
            fault(field);
        }
    }
}

#[test]
fn kills_at_random_instants_lose_and_double_nothing() {
    Audit::default().run(again_and_again(20, faults::kill_tally));
}

#[test]
fn kills_with_several_threads_lose_and_double_nothing() {
    let audit = Audit {
        settings: &[("server.threads", "3")],
        ..Audit::default()
    };
    audit.run(again_and_again(10, faults::kill_tally));
}

#[test]
fn kills_where_everything_waits_for_the_disk_lose_and_double_nothing() {
    let audit = Audit {
        settings: &[("journal.fsync", "\"always\""), ("server.threads", "2")],
        ..Audit::default()
    };
    audit.run(|field| {
        for _ in 0..4 {
            again_and_again(1, faults::kill_tally)(field);
            again_and_again(1, faults::cut_reply)(field);
            again_and_again(1, faults::kill_node)(field);
        }
    });
}

#[test]
fn kills_of_nodes_lose_and_double_nothing() {
    Audit::default().run(again_and_again(6, faults::kill_node));
}

#[test]
fn kills_of_tally_and_of_nodes_lose_and_double_nothing() {
    Audit::default().run(again_and_again(6, faults::kill_both));
}

#[test]
fn frozen_nodes_lose_and_double_nothing() {
    let audit = Audit {
        settings: IMPATIENT,
        ..Audit::default()
    };
    audit.run(|field| {
        again_and_again(3, faults::freeze)(field);
        again_and_again(2, faults::freeze_and_kill)(field);
    });
}

#[test]
fn connections_cut_in_the_middle_lose_and_double_nothing() {
    Audit::default().run(|field| {
        for _ in 0..8 {
            again_and_again(1, faults::cut)(field);
            again_and_again(1, faults::cut_request)(field);
            again_and_again(1, faults::cut_reply)(field);
        }
    });
}

#[test]
fn bytes_that_come_late_lose_and_double_nothing() {
    Audit::default().run(again_and_again(8, faults::deliver_late));
}

#[test]
fn bytes_that_come_late_where_no_connection_can_be_closed_lose_and_double_nothing() {
    let audit = Audit {
        is_fenced: false,
        ..Audit::default()
    };
    audit.run(|field| {
        again_and_again(6, faults::deliver_late)(field);
        again_and_again(3, faults::deliver_late_after_kill)(field);
    });
}

#[test]
fn nodes_out_of_memory_lose_and_double_nothing() {
    Audit::default().run(again_and_again(5, faults::run_out_of_memory));
}

#[test]
fn nodes_that_are_read_only_lose_and_double_nothing() {
    Audit::default().run(again_and_again(5, faults::become_read_only));
}

#[test]
fn markers_deleted_lose_and_double_nothing() {
    Audit::default().run(again_and_again(15, faults::delete_marker));
}

#[test]
fn markers_deleted_before_a_loss_leave_only_what_is_named_in_doubt() {
    let audit = Audit {
        has_doubts: true,
        ..Audit::default()
    };
    audit.run(|field| {
        for _ in 0..10 {
            field.let_clients_count();
            faults::delete_marker(field);
            faults::cut_reply(field);
        }
    });
}

#[test]
fn flushes_of_everything_lose_and_double_nothing_that_comes_after() {
    let audit = Audit {
        removes: true,
        ..Audit::default()
    };
    audit.run(|field| {
        again_and_again(4, faults::flush_behind)(field);
        // The markers are there again.
        pause(Duration::from_millis(200));
        assert!(field.stack.connect().run("TALLY FLUSH").is_ok());
        for _ in 0..4 {
            again_and_again(1, faults::flush_through)(field);
            // And stay there: nothing that is sent again is in doubt, the first batch neither.
            field.wait_until_all_is_warm();
            faults::lose_batches(field);
            again_and_again(1, faults::flush_through)(field);
            faults::cut_reply(field);
        }
    });
}

/// The markers are put back with the same transaction: a batch that may have been applied finds one.
#[test]
fn the_first_batch_after_a_flush_of_everything_is_applied_though_it_was_lost() {
    if skipped_on_bare_redis() {
        return;
    }
    let audit = Audit {
        settings: &[("counters.flush_interval", "\"1m\"")],
        ..Audit::default()
    };
    let course = Course::default();
    let field = audit.field(&course, 0);
    let key = field.stack.key_on(0, "first");
    let mut client = field.stack.connect();
    for flush in ["FLUSHALL", "FLUSHDB"] {
        assert!(client.run(flush).is_ok());
        for want in 1..=4 {
            assert_eq!(client.run(&format!("INCR {key}")).integer(), want);
        }
        let held = field.relays[0].hold();
        field.stack.connect().send(&["TALLY", "FLUSH"]);
        let is_sent = || held.has(b"__tally__:marker:");
        assert!(eventually(Duration::from_secs(10), is_sent));
        held.lose();
        let is_applied = || self::held(&field.stack.nodes[0], &(0, key.clone())) == 4;
        let log = || field.stack.tally.as_ref().unwrap().log();
        assert!(
            eventually(Duration::from_secs(10), is_applied),
            "{flush}: {}",
            log()
        );
        assert!(!log().contains("in doubt"), "{flush}: {}", log());
    }
}

#[test]
fn a_node_back_from_an_older_snapshot_is_given_what_it_lost() {
    let audit = Audit {
        settings: &[("cache.ttl", "\"1m\"")],
        nodes: || Redis::start(SNAPSHOTS),
        ..Audit::default()
    };
    audit.run(|field| go_back(field, &[0, 1, 0]));
}

/// A server with snapshots only, which does not tell of changes: a counter whose name is counted in
/// another database too would be cold after 100 ms without an increment, as on a busy machine, and
/// what is forwarded then is the node's own to lose.
const SNAPSHOTS: &[&str] = &[
    "--dbfilename",
    "dump.rdb",
    "--user",
    "default",
    "on",
    "nopass",
    "~*",
    "&*",
    "+@all",
    "-client|tracking",
];

/// Each of these nodes comes back with what it held a moment before its end.
#[track_caller]
fn go_back(field: &mut Field<'_>, nodes: &[usize]) {
    for node in nodes {
        field.wait_until_all_is_warm();
        assert!(field.stack.nodes[*node].connect().run("SAVE").is_ok());
        pause(Duration::from_millis(400));
        field.stack.nodes[*node].kill();
        field.stack.nodes[*node].restart();
    }
    field.wait_until_all_is_warm();
}

/// What Redis does with a `SET` that Tally gave up, and that comes after a later one.
#[track_caller]
fn late_set(is_fenced: bool) -> String {
    let audit = Audit {
        is_fenced,
        ..Audit::default()
    };
    let course = Course::default();
    let field = audit.field(&course, 0);
    let key = field.stack.key_on(0, "late");
    let mut client = field.stack.connect();
    let held = field.relays[0].hold();
    client.send(&["SET", &key, "old"]);
    assert!(eventually(Duration::from_secs(5), || held.bytes() > 0));
    held.lose();
    let reply = client.read_reply();
    assert!(reply.text().contains("may have been executed"), "{reply:?}");
    let is_set = || client.run(&format!("SET {key} new")).is_ok();
    assert!(eventually(Duration::from_secs(5), is_set));
    held.deliver();
    field.stack.nodes[0]
        .connect()
        .run(&format!("GET {key}"))
        .text()
}

#[test]
fn nothing_of_a_dead_connection_is_executed_after_the_next_is_in_use() {
    if !skipped_on_bare_redis() {
        assert_eq!(late_set(true), "new");
        assert_eq!(late_set(false), "old", "without the fence it is");
    }
}

#[test]
fn two_processes_with_one_instance_lose_only_what_is_named() {
    check_two_processes(Redis::start_durable);
}

/// A second process goes on with a copy of the journal, while clients count through the first.
#[track_caller]
fn check_two_processes(nodes: fn() -> Redis) {
    let audit = Audit {
        nodes,
        has_doubts: true,
        ..Audit::default()
    };
    audit.run(|field| {
        // With a connection for each database of each node, which a busy machine gives late.
        field.wait_until_all_is_warm();
        let first = field.stack.tally.as_ref().unwrap();
        let journal = first.directory().join("data/journal");
        let copy = journal.with_extension("copy");
        first.signal("STOP");
        std::fs::copy(&journal, &copy).unwrap();
        let path = format!("{:?}", copy.display().to_string());
        let settings = [SETTINGS, &[("journal.path", &path)]].concat();
        let nodes: Vec<_> = field
            .stack
            .nodes
            .iter()
            .map(|node| (node.address(), None))
            .collect();
        let mut second = Tally::start_before(&nodes, &settings);
        let log = || field.stack.tally.as_ref().unwrap().log();
        // It writes in each database of each node, whatever the first one had pending there.
        let mut client = Connection::open(second.address());
        for database in 0..DATABASES {
            client.run_ok(&format!("SELECT {database}"));
            for name in names() {
                for _ in 0..4 {
                    let is_counted = || !client.run(&format!("INCR own:{name}")).is_error();
                    assert!(eventually(Duration::from_secs(20), is_counted));
                }
            }
        }
        let is_applied = || client.run("TALLY FLUSH").is_ok();
        assert!(eventually(Duration::from_secs(20), is_applied));
        first.signal("CONT");
        let fenced = || log().matches("nothing is buffered any more").count() >= 4;
        assert!(eventually(Duration::from_secs(20), fenced), "{}", log());
        field.wait(300);
        second.terminate();
    });
}

#[test]
fn chaos_loses_and_doubles_nothing() {
    check_chaos(Redis::start_durable);
}

/// All faults at random, one after the other.
#[track_caller]
fn check_chaos(nodes: fn() -> Redis) {
    let seconds = std::env::var("TALLY_CHAOS_SECONDS").map_or(8, |text| text.parse().unwrap());
    let audit = Audit {
        nodes,
        settings: IMPATIENT,
        has_doubts: true,
        removes: true,
        ..Audit::default()
    };
    audit.run(|field| {
        let begun = now();
        while begun.elapsed() < Duration::from_secs(seconds) {
            field.let_clients_count();
            let (name, fault) = faults::FAULTS[field.random.below(faults::FAULTS.len())];
            say(&format!("{:7.3} s: {name}", begun.elapsed().as_secs_f64()));
            fault(field);
        }
        say("the audit");
    });
}

/// Clients of each audit.
const CLIENTS: u64 = 4;

/// A node is called again soon.
const SETTINGS: Settings<'_> = &[
    ("upstream.backoff_min", "\"5ms\""),
    ("upstream.backoff_max", "\"50ms\""),
    ("log.format", "\"json\""),
];

/// Timeouts that a node passes that stands still. On a busy machine others pass them too, now and
/// then.
const IMPATIENT: Settings<'_> = &[
    ("upstream.request_timeout", "\"250ms\""),
    ("upstream.hard_timeout", "\"500ms\""),
];
