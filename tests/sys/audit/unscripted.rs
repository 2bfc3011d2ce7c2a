//! The same with nodes that take no scripts: batches are transactions on a connection of their own.

use std::time::Duration;

use super::{
    Audit, Course, Field, SNAPSHOTS, again_and_again, check_chaos, check_two_processes, faults,
    go_back, held,
};
use crate::harness::{eventually, pause, skipped_on_bare_redis};
use crate::servers::Redis;

/// A server without scripts, whose acknowledged writes survive a kill.
fn start() -> Redis {
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    Redis::start(&[NO_EVAL, &durable].concat())
}

const NO_EVAL: &[&str] = &["--rename-command", "EVAL", ""];

/// One fault after the other, several times.
#[track_caller]
fn check(audit: &Audit<'_>, rounds: usize, faults: &[fn(&mut Field<'_>)]) {
    audit.run(|field| {
        for _ in 0..rounds {
            for fault in faults {
                again_and_again(1, *fault)(field);
            }
        }
        assert!(
            field
                .stack
                .tally
                .as_ref()
                .unwrap()
                .log()
                .contains("by transactions")
        );
    });
}

fn audit() -> Audit<'static> {
    Audit {
        nodes: start,
        ..Audit::default()
    }
}

#[test]
fn kills_and_cuts_where_scripts_are_forbidden_lose_and_double_nothing() {
    let kills: &[fn(&mut Field<'_>)] = &[
        faults::kill_tally,
        faults::kill_node,
        faults::kill_both,
        faults::kill_tally,
        faults::cut,
        faults::cut_request,
        faults::cut_reply,
        faults::deliver_late,
        faults::deliver_late_after_kill,
    ];
    check(&audit(), 3, kills);
}

#[test]
fn kills_where_scripts_are_forbidden_and_all_waits_for_the_disk_lose_and_double_nothing() {
    let audit = Audit {
        settings: &[("journal.fsync", "\"always\""), ("server.threads", "2")],
        ..audit()
    };
    check(&audit, 4, &[faults::kill_tally, faults::cut_reply]);
}

#[test]
fn late_bytes_where_neither_scripts_nor_kills_are_allowed_lose_and_double_nothing() {
    let audit = Audit {
        is_fenced: false,
        ..audit()
    };
    let late: &[fn(&mut Field<'_>)] = &[
        faults::deliver_late,
        faults::deliver_late,
        faults::deliver_late_after_kill,
    ];
    check(&audit, 3, late);
}

#[test]
fn nodes_that_refuse_batches_and_scripts_lose_and_double_nothing() {
    let refusals: &[fn(&mut Field<'_>)] = &[
        faults::run_out_of_memory,
        faults::become_read_only,
        faults::delete_marker,
    ];
    check(&audit(), 3, refusals);
}

#[test]
fn flushes_of_everything_where_scripts_are_forbidden_lose_and_double_nothing_that_comes_after() {
    let audit = Audit {
        removes: true,
        ..audit()
    };
    audit.run(|field| {
        again_and_again(3, faults::flush_behind)(field);
        pause(Duration::from_millis(200));
        assert!(field.stack.connect().run("TALLY FLUSH").is_ok());
        for _ in 0..3 {
            again_and_again(1, faults::flush_through)(field);
            field.wait_until_all_is_warm();
            faults::cut_reply(field);
        }
    });
}

#[test]
fn an_older_snapshot_where_scripts_are_forbidden_is_given_what_it_lost() {
    let audit = Audit {
        settings: &[("cache.ttl", "\"1m\"")],
        nodes: || Redis::start(&[NO_EVAL, SNAPSHOTS].concat()),
        ..Audit::default()
    };
    audit.run(|field| go_back(field, &[0, 1]));
}

#[test]
fn two_processes_where_scripts_are_forbidden_lose_only_what_is_named() {
    check_two_processes(start);
}

#[test]
fn chaos_where_scripts_are_forbidden_loses_and_doubles_nothing() {
    check_chaos(start);
}

/// A transaction that was decided on, and whose connection is lost before the node has it, comes
/// when the next connection is in use, or has done its work.
#[track_caller]
fn check_late_transaction(is_applied_before: bool) {
    let audit = Audit {
        settings: &[("counters.flush_interval", "\"1m\"")],
        is_fenced: false,
        ..audit()
    };
    let course = Course::default();
    let field = audit.field(&course, 0);
    let key = field.stack.key_on(0, "late");
    let mut client = field.stack.connect();
    for want in 1..=9 {
        assert_eq!(client.run(&format!("INCR {key}")).integer(), want);
    }
    let late = field.relays[0].hold_from(MARKER_MS);
    field.stack.connect().send(&["TALLY", "FLUSH"]);
    let is_decided = || late.has(MARKER_MS);
    assert!(eventually(Duration::from_secs(10), is_decided));
    let of_key = || held(&field.stack.nodes[0], &(0, key.clone()));
    assert!(of_key() < 9, "applied already");
    if is_applied_before {
        late.lose();
        assert!(eventually(Duration::from_secs(10), || of_key() == 9));
        late.deliver();
    } else {
        // The next connection finds it done.
        late.deliver_unheard();
        assert!(eventually(Duration::from_secs(10), || of_key() == 9));
    }
    // The next connection may still be under way.
    let flush = || field.stack.connect().run("TALLY FLUSH").is_ok();
    assert!(eventually(Duration::from_secs(10), flush));
    assert_eq!(of_key(), 9);
    let log = field.stack.tally.as_ref().unwrap().log();
    assert!(!log.contains("in doubt"), "{log}");
}

#[test]
fn a_late_transaction_is_applied_once() {
    if !skipped_on_bare_redis() {
        check_late_transaction(true);
        check_late_transaction(false);
    }
}

/// What only the transaction that applies a batch has in it: how long the marker lives.
const MARKER_MS: &[u8] = b"604800000";
