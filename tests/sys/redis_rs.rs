//! redis-rs, the Rust client: the same program sees the same through Tally as from a plain Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;

use redis::{Client, Commands, Connection, FromRedisValue, RedisResult, Script, cmd, pipe};

use crate::harness::Stack;
use crate::servers::Redis;

#[test]
fn redis_rs_sees_the_same_in_resp2() {
    check("");
}

#[test]
fn redis_rs_sees_the_same_in_resp3() {
    check("?protocol=resp3");
}

/// Runs it on a plain Redis and on Tally in each mode; `query` ends the URL.
#[track_caller]
fn check(query: &str) {
    let redis = Redis::start(&[]);
    let expected = seen(redis.address(), query);
    for mode in ["\"buffered\"", "\"exact\"", "\"through\""] {
        let stack = Stack::start(&[("counters.mode", mode)]);
        assert_eq!(seen(stack.address(), query), expected, "{mode}");
    }
}

/// What a program sees, a line for each call.
fn seen(address: SocketAddr, query: &str) -> Vec<String> {
    let client = Client::open(format!("redis://{address}/{query}")).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut lines = Vec::new();
    strings(&mut connection, &mut lines);
    collections(&mut connection, &mut lines);
    pipelines_and_scripts(&mut connection, &mut lines);
    lines
}

fn strings(connection: &mut Connection, lines: &mut Vec<String>) {
    note(lines, connection.set::<_, _, String>("k", "v"));
    note(lines, connection.get::<_, Option<String>>("k"));
    note(lines, connection.get::<_, Option<String>>("nothing"));
    note(lines, connection.incr::<_, _, i64>("n", 1));
    note(lines, connection.incr::<_, _, i64>("n", 41));
    note(lines, connection.decr::<_, _, i64>("n", 2));
    note(lines, connection.incr::<_, _, f64>("f", 1.5));
    note(lines, connection.incr::<_, _, i64>("k", 1));
    note(lines, connection.expire::<_, bool>("n", 1000));
    note(lines, connection.incr::<_, _, i64>("n", 1));
    note(lines, connection.ttl::<_, i64>("n").map(|ttl| ttl > 990));
    note(lines, connection.persist::<_, bool>("n"));
    let pairs: Vec<(String, i64)> = (0..20).map(|n| (format!("m{n}"), n)).collect();
    note(lines, connection.mset::<_, _, String>(&pairs));
    let keys: Vec<String> = (0..21).map(|n| format!("m{n}")).collect();
    note(lines, connection.mget::<_, Vec<Option<i64>>>(&keys));
    note(lines, connection.del::<_, i64>(&keys));
    let binary: Vec<u8> = (0..=255).collect();
    note(lines, connection.set::<_, _, String>(&binary, &binary));
    note(lines, connection.get::<_, Vec<u8>>(&binary));
    ask::<String>(connection, lines, &["NOSUCH", "a"]);
    ask::<String>(connection, lines, &["GET"]);
}

fn collections(connection: &mut Connection, lines: &mut Vec<String>) {
    let fields = [("a", 1), ("b", 2)];
    note(
        lines,
        connection.hset_multiple::<_, _, _, String>("h", &fields),
    );
    note(lines, connection.hgetall::<_, BTreeMap<String, i64>>("h"));
    note(lines, connection.rpush::<_, _, i64>("l", &[1, 2, 3]));
    note(lines, connection.lrange::<_, Vec<i64>>("l", 0, -1));
    note(lines, connection.sadd::<_, _, i64>("s", &["x", "y"]));
    note(lines, connection.smembers::<_, BTreeSet<String>>("s"));
    note(lines, connection.zadd::<_, _, _, i64>("z", "m", 1.5));
    note(
        lines,
        connection.zrange_withscores::<_, Vec<(String, f64)>>("z", 0, -1),
    );
    note(lines, connection.lpush::<_, _, i64>("k", 1));
    for n in 0..100 {
        note(lines, connection.incr::<_, _, i64>(format!("scan:{n}"), 1));
    }
    let found = connection.scan_match::<_, String>("scan:*");
    let found = found.map(|keys| keys.flatten().collect::<BTreeSet<_>>());
    note(lines, found);
    ask::<i64>(connection, lines, &["DBSIZE"]);
}

fn pipelines_and_scripts(connection: &mut Connection, lines: &mut Vec<String>) {
    let mut pipeline = pipe();
    for n in 0..50 {
        pipeline.incr("piped", 1).set(format!("p{n}"), n).ignore();
        pipeline.get("piped");
    }
    note(lines, pipeline.query::<Vec<i64>>(connection));
    let script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    for amount in 1..4 {
        let call = script.key("scripted").arg(amount).invoke::<i64>(connection);
        note(lines, call);
    }
    ask::<i64>(connection, lines, &["EVALSHA", &"f".repeat(40), "0"]);
    ask::<i64>(
        connection,
        lines,
        &["EVAL", "return redis.error_reply('OWN error')", "0"],
    );
    ask::<String>(connection, lines, &["PING"]);
}

fn ask<T: FromRedisValue + Debug>(
    connection: &mut Connection,
    lines: &mut Vec<String>,
    request: &[&str],
) {
    let (name, arguments) = request.split_first().unwrap();
    note(lines, cmd(name).arg(arguments).query::<T>(connection));
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "every call of it would need a &"
)]
fn note<T: Debug>(lines: &mut Vec<String>, result: RedisResult<T>) {
    lines.push(format!("{result:?}"));
}
