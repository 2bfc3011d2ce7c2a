//! Scripts of users who may not do everything: the nodes check what they call, as a Redis does, and
//! keep nothing of it.

use std::time::Duration;

use tally::limit::CANONICAL_WITH_TTL as LIMIT;

use crate::acl::{Pair, Twins};
use crate::connection::Connection;
use crate::harness::{Stack, eventually, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::Redis;

const GET: &str = "return redis.call('GET', KEYS[1])";
const SET: &str = "return redis.call('SET', KEYS[1], ARGV[1])";
const INCR: &str = "return redis.call('INCR', KEYS[1])";
const SET_OTHER: &str = "return redis.call('SET', ARGV[1], 1)";
const MAY: &str =
    "return {redis.acl_check_cmd('set', 'a:x', 1), redis.acl_check_cmd('get', 'a:x')}";

const RULES: &[&str] = &[
    "+@all ~a:* &*",
    "+@all ~*",
    "+@all -flushall ~* &*",
    "+@all -@dangerous -set ~a:*",
    "+eval +set ~a:*",
    "+@scripting +@read ~* &*",
    "+@scripting +set %R~a:* %W~a:s*",
    "+@scripting +get ~a:* (+set ~b:*) (+incr +eval %W~a:*)",
    "+eval ~*",
    "+@all -tally -waitaof -client|setinfo ~a:*",
];

fn log_in(pair: &mut Pair, rules: &str) {
    pair.check("AUTH default x");
    pair.check(&format!("ACL SETUSER u reset on nopass {rules}"));
    pair.check("AUTH u p");
}

/// The users of a node.
fn users(node: &Redis) -> String {
    format!("{:?}", node.connect().run("ACL USERS"))
}

#[test]
fn what_scripts_call_is_checked_as_on_redis() {
    let Some(twins) = Twins::with(&[]) else {
        return;
    };
    let mut pair = twins.connect();
    for rules in RULES {
        // Tally has commands of its own.
        let there = rules.replace("-tally -waitaof -client|setinfo ", "");
        pair.check("AUTH default x");
        pair.check("SET a:s 5");
        pair.check("INCR a:n");
        pair.check("SET b:s 5");
        pair.check(&format!("ACL SETUSER u reset on nopass {there}"));
        pair.here
            .run(&format!("ACL SETUSER u reset on nopass {rules}"));
        pair.check("AUTH u p");
        for protocol in ["2", "3"] {
            pair.here.call(&["HELLO", protocol]);
            pair.there.call(&["HELLO", protocol]);
            for key in ["a:s", "a:n", "b:s"] {
                for script in [GET, INCR] {
                    pair.check_call(&["EVAL", script, "1", key]);
                    pair.check_call(&["EVAL_RO", script, "1", key]);
                }
                pair.check_call(&["EVAL", SET, "1", key, "7"]);
                pair.check_call(&["EVAL", SET_OTHER, "1", "a:s", key]);
                pair.check_call(&["EVAL", SET_OTHER, "0", key]);
                pair.check_call(&["EVALSHA", "0123456789012345678901234567890123456789", "0"]);
                pair.check_call(&["EVAL", LIMIT, "1", key, "9", "600"]);
                pair.check_call(&["EVAL", LIMIT, "1", key, "9", "600"]);
                pair.check_call(&["INCR", key]);
                pair.check_call(&["GET", key]);
            }
            pair.check_call(&["EVAL", MAY, "0"]);
            pair.check_call(&["EVAL", "return redis.pcall('GET', 'c')", "0"]);
            pair.check_call(&["EVAL", "return redis.call('PUBLISH', 'ch', 1)", "0"]);
            pair.check_call(&[
                "EVAL",
                "return {1, {2, 'x'}, redis.error_reply('MY x')}",
                "0",
            ]);
            pair.check_call(&["EVAL", "syntax error here", "0"]);
            pair.check_call(&["EVAL", GET, "2", "a:s"]);
        }
    }
    // The limit script of a user who may all that it calls is decided here.
    log_in(&mut pair, "+@all -@dangerous ~a:*");
    let before = twins.stack.node_calls("eval") + twins.stack.node_calls("evalsha");
    for _ in 0..20 {
        pair.check_call(&["EVAL", LIMIT, "1", "a:limited", "5", "600"]);
    }
    let after = twins.stack.node_calls("eval") + twins.stack.node_calls("evalsha");
    assert!(after - before < 15, "{before} {after}");
    for node in &twins.stack.nodes {
        assert_eq!(users(node), users(&Redis::start(&[])));
    }
}

#[test]
fn scripts_by_name_and_functions_are_checked_too() {
    let Some(twins) = Twins::with(&[]) else {
        return;
    };
    let mut pair = twins.connect();
    let library = "#!lua name=l\n\
        redis.register_function('f', function(k, a) return redis.call('INCR', k[1]) end)\n\
        redis.register_function{function_name='r', flags={'no-writes'},\n\
        callback=function(k, a) return redis.call('GET', k[1]) end}";
    pair.check_call(&["FUNCTION", "LOAD", library]);
    let name = pair.check_call(&["SCRIPT", "LOAD", INCR]).text();
    for rules in ["+@all ~a:*", "+@scripting +get ~a:*"] {
        log_in(&mut pair, rules);
        for request in [
            &["EVALSHA", &name, "1", "a:1"][..],
            &["EVALSHA", &name, "1", "b:1"],
            &["EVALSHA_RO", &name, "1", "a:1"],
            &["FCALL", "f", "1", "a:1"],
            &["FCALL", "f", "1", "b:1"],
            &["FCALL", "r", "1", "a:1"],
            &["FCALL_RO", "r", "1", "a:1"],
            &["FCALL_RO", "f", "1", "a:1"],
            &["FCALL", "none", "0"],
            &["ACL", "DRYRUN", "u", "EVAL", "return 1", "1", "a:1"],
        ] {
            pair.check_call(request);
        }
    }
}

#[test]
fn scripts_in_transactions_are_checked() {
    let Some(twins) = Twins::with(&[]) else {
        return;
    };
    let mut pair = twins.connect();
    for rules in ["+@all ~a:*", "+@all -incr -@dangerous ~a:*"] {
        for watch in [None, Some("WATCH a:1")] {
            log_in(&mut pair, rules);
            pair.check("SET a:1 4");
            watch.map(|line| pair.check(line));
            pair.check("MULTI");
            pair.check("GET a:1");
            pair.check_call(&["EVAL", INCR, "1", "a:1"]);
            pair.check_call(&["EVAL", GET, "1", "a:1"]);
            pair.check_call(&["EVAL", SET_OTHER, "1", "a:1", "b:1"]);
            pair.check("ECHO between");
            pair.check("INCRBY a:1 5");
            pair.check("EXEC");
            pair.check("GET a:1");
            pair.check("GET b:1");
        }
    }
    // The rights are those at the time of `EXEC`.
    let mut admin = twins.connect();
    log_in(&mut pair, "+@all ~a:*");
    pair.check("MULTI");
    pair.check_call(&["EVAL", INCR, "1", "a:1"]);
    admin.check("ACL SETUSER u -incr");
    pair.check("EXEC");
    pair.check("PING");
}

#[test]
fn a_script_over_two_nodes_is_checked_where_it_runs() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[("transactions.cross_node", "\"split\"")]);
    let (one, two) = (stack.key_on(0, "a:"), stack.key_on(1, "a:"));
    let mut user = limited_user(&stack, "+@all -set ~a:*");
    let both = "return {redis.call('INCR', KEYS[1]), redis.call('INCR', KEYS[2])}";
    let counted = |n| Reply::Array(vec![Reply::Integer(n), Reply::Integer(n)]);
    assert_eq!(user.call(&["EVAL", both, "2", &one, &two]), counted(1));
    let set = "redis.call('INCR', KEYS[2]) return redis.call('SET', KEYS[1], 1)";
    let text = user.call(&["EVAL", set, "2", &one, &two]).text();
    assert!(
        text.contains("can't run this command") || text.contains("User u has no"),
        "{text}"
    );
    user.run_ok("MULTI");
    assert_eq!(user.call(&["EVAL", both, "2", &one, &two]).text(), "QUEUED");
    let want = Reply::Array(vec![Reply::Array(vec![
        Reply::Integer(2),
        Reply::Integer(3),
    ])]);
    assert_eq!(user.run("EXEC"), want);
}

#[test]
fn a_node_that_lets_tally_make_no_users_runs_no_script_of_them() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    for node in &stack.nodes {
        node.connect().run_ok("ACL SETUSER default -acl");
    }
    let mut user = limited_user(&stack, "+@all ~a:*");
    let text = user.call(&["EVAL", INCR, "1", "a:1"]).text();
    assert!(
        text.starts_with("NOPERM this user has no permissions to run scripts"),
        "{text}"
    );
    user.run_ok("MULTI");
    user.call(&["EVAL", INCR, "1", "a:1"]);
    let text = user.run("EXEC").text();
    assert!(text.starts_with("EXECABORT"), "{text}");
    assert_eq!(user.run("INCR a:1"), Reply::Integer(1));
    assert_eq!(
        stack.connect().call(&["EVAL", INCR, "1", "a:1"]),
        Reply::Integer(2)
    );
}

/// The node's password was changed under the connection, so it can not become Tally's again.
#[test]
fn a_connection_that_stays_a_user_s_is_given_up() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let mut admin = stack.connect();
    let mut user = limited_user(&stack, "+@all ~a:*");
    assert_eq!(user.run("INCR a:1"), Reply::Integer(1));
    let mut nodes: Vec<Connection> = stack.nodes.iter().map(Redis::connect).collect();
    for node in &mut nodes {
        node.run_ok("ACL SETUSER default resetpass >changed");
    }
    assert_eq!(user.call(&["EVAL", INCR, "1", "a:1"]), Reply::Integer(2));
    let is_away = |admin: &mut Connection| admin.run("LLEN a:l").text().contains("unreachable");
    assert!(eventually(PATIENCE, || is_away(&mut admin)));
    for node in &mut nodes {
        node.run_ok("ACL SETUSER default nopass");
    }
    assert!(eventually(PATIENCE, || admin.run("LLEN a:l") == Reply::Integer(0)));
    assert_eq!(admin.run("INCR a:1"), Reply::Integer(3));
    assert_eq!(admin.run("INCR b:1"), Reply::Integer(1));
}

#[test]
fn a_client_that_tracks_is_told_of_what_a_checked_script_changes() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    let mut user = limited_user(&stack, "+@all ~a:*");
    let mut tracking = stack.connect();
    tracking.run("HELLO 3");
    tracking.run_ok("CLIENT TRACKING ON");
    tracking.run("GET a:1");
    assert_eq!(user.call(&["EVAL", SET, "1", "a:1", "5"]).text(), "OK");
    let told = tracking.read_reply();
    assert!(format!("{told:?}").contains("invalidate"), "{told:?}");
    assert_eq!(tracking.run("GET a:1").text(), "5");
}

/// A client of a user with these rules.
fn limited_user(stack: &Stack, rules: &str) -> Connection {
    let made = format!("ACL SETUSER u reset on nopass {rules}");
    stack.connect().run_ok(&made);
    let mut user = stack.connect();
    user.run_ok("AUTH u p");
    user
}

const PATIENCE: Duration = Duration::from_secs(10);
