//! redis-cli and redis-benchmark: their output is the one that a plain Redis gives.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::connection::{PATIENCE, encode};
use crate::harness::Stack;
use crate::servers::Redis;

/// Runs a tool against a server, bounded in time, with `input` on its standard input.
#[track_caller]
fn run(tool: &str, address: SocketAddr, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("timeout")
        .args(["100", tool, "-h", "127.0.0.1", "-p"])
        .arg(address.port().to_string())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            // A tool that reads nothing has closed its end already.
            stdin.write_all(input).ok();
        });
        child.wait_with_output().unwrap()
    })
}

/// Standard output and error of redis-cli, after each other.
#[track_caller]
fn cli(address: SocketAddr, arguments: &[&str], input: &[u8]) -> String {
    let output = run("redis-cli", address, arguments, input);
    assert!(
        output.status.success(),
        "redis-cli {arguments:?}: {output:?}"
    );
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// The same calls of redis-cli, in order, against a plain Redis and the stack.
#[track_caller]
fn check_cli(calls: &[(&[&str], &str)]) {
    let redis = Redis::start(&[]);
    let stack = Stack::start(&[]);
    for (arguments, input) in calls {
        let expected = cli(redis.address(), arguments, input.as_bytes());
        let actual = cli(stack.address(), arguments, input.as_bytes());
        assert_eq!(actual, expected, "redis-cli {arguments:?}");
    }
}

#[test]
fn redis_cli_one_shot_prints_the_same() {
    check_cli(&[
        (&["PING"], ""),
        (&["SET", "k", "v"], ""),
        (&["GET", "k"], ""),
        (&["INCR", "n"], ""),
        (&["-r", "5", "INCR", "n"], ""),
        (&["INCR", "k"], ""),
        (&["NOSUCH", "x"], ""),
        (&["HSET", "h", "a", "1", "b", "2"], ""),
        (&["HGETALL", "h"], ""),
        (&["-3", "HGETALL", "h"], ""),
        (&["-3", "PING"], ""),
        (&["-3", "GET", "nothing"], ""),
        (&["--csv", "HGETALL", "h"], ""),
        (&["--no-raw", "MGET", "k", "n", "nothing"], ""),
        (&["-2", "--no-raw", "EVAL", "return {1,'a',{2}}", "0"], ""),
        (&["-n", "0", "GET", "n"], ""),
        (&["-x", "SET", "from-stdin"], "the value\n"),
        (&["GET", "from-stdin"], ""),
        (&["DBSIZE"], ""),
        (&["CLIENT", "SETNAME", "me"], ""),
        (&["CONFIG", "GET", "appendonly"], ""),
    ]);
}

#[test]
fn redis_cli_reads_commands_from_a_pipe() {
    let commands = "SET a 1\nINCR a\nINCR a\nGET a\nNOSUCH\nLPUSH l 1 2 3\nLRANGE l 0 -1\n\
        HSET h f v\nHGETALL h\nEXPIRE a 100\nMGET a nothing\nDEL a l h\nDBSIZE\n";
    check_cli(&[
        (&[], commands),
        (&["-3"], commands),
        (&["--no-raw"], commands),
    ]);
}

#[test]
fn redis_cli_pipe_mode_delivers_ten_thousand_commands() {
    let stack = Stack::start(&[]);
    let mut commands = Vec::new();
    for number in 0..10_000 {
        commands.extend(match number % 3 {
            0 => encode(&["INCR", "piped"]),
            1 => encode(&["SET", &format!("k{number}"), "binary \r\n value"]),
            _ => encode(&["INCR", &format!("c{}", number % 50)]),
        });
    }
    let said = cli(stack.address(), &["--pipe"], &commands);
    assert!(said.contains("errors: 0, replies: 10000"), "{said}");
    assert_eq!(stack.connect().run("GET piped").text(), "3334");
}

#[test]
fn redis_cli_scan_lists_every_key() {
    let stack = Stack::start(&[]);
    let lines: Vec<_> = (0..300).map(|n| format!("INCR scan:{n}")).collect();
    stack.connect().run_all(&lines);
    stack.connect().run("SET other x");
    let said = cli(stack.address(), &["--scan", "--pattern", "scan:*"], b"");
    let mut keys: Vec<_> = said.lines().collect();
    keys.sort_unstable();
    let mut expected: Vec<_> = (0..300).map(|n| format!("scan:{n}")).collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

#[test]
fn redis_cli_bigkeys_finds_the_big_one() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    let lines: Vec<_> = (0..100).map(|n| format!("SET k{n} small")).collect();
    client.run_all(&lines);
    client.call(&["SET", "big", &"x".repeat(5_000)]);
    client.run("RPUSH list a b c");
    let said = cli(stack.address(), &["--bigkeys"], b"");
    assert!(said.contains("Sampled 102 keys in the keyspace!"), "{said}");
    assert!(
        said.contains("Biggest string found '\"big\"' has 5000 bytes"),
        "{said}"
    );
    assert!(said.contains("list found '\"list\"' has 3 items"), "{said}");
}

#[test]
fn redis_cli_stat_shows_a_line_each_interval() {
    let stack = Stack::start(&[]);
    stack.connect().run_all(&["INCR a", "INCR b", "INCR c"]);
    let mut child = Command::new("redis-cli")
        .args(["--stat", "-i", "0.05", "-p"])
        .arg(stack.address().port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::sync_channel(4);
    let reader = thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let lines: Vec<String> = (0..4)
        .map_while(|_| receiver.recv_timeout(PATIENCE).ok())
        .collect();
    drop(receiver);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    assert!(lines[0].contains("data"), "{lines:?}");
    for line in &lines[2..] {
        let mut fields = line.split_whitespace();
        let keys: Option<u64> = fields.next().and_then(|field| field.parse().ok());
        let memory = fields.next().and_then(|field| field.chars().next());
        assert!(keys.is_some(), "{lines:?}");
        assert!(
            memory.is_some_and(|digit| digit.is_ascii_digit()),
            "{lines:?}"
        );
    }
}

#[test]
fn redis_cli_measures_latency() {
    let stack = Stack::start(&[]);
    // Not at a terminal it prints one line after the interval: minimum, maximum, mean, samples.
    let said = cli(stack.address(), &["--latency", "-i", "1"], b"");
    let figures: Vec<f64> = said
        .split_whitespace()
        .map_while(|figure| figure.parse().ok())
        .collect();
    assert_eq!(figures.len(), 4, "{said}");
    assert!(figures[3] > 5.0, "{said}");
}

#[test]
fn redis_cli_finds_keys_that_use_much_memory() {
    let stack = Stack::start(&[]);
    let mut client = stack.connect();
    client.run_all(&["SET small x", "RPUSH list a b c"]);
    client.call(&["SET", "big", &"x".repeat(50_000)]);
    let said = cli(stack.address(), &["--memkeys"], b"");
    assert!(
        said.contains("Biggest string found '\"big\"' has"),
        "{said}"
    );
}

/// What redis-benchmark prints, with its figures replaced by `#` and progress lines left out.
#[track_caller]
fn benchmark(address: SocketAddr, arguments: &[&str]) -> Vec<String> {
    let output = run("redis-benchmark", address, arguments, b"");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let ends = text
        .lines()
        .map(|line| line.rsplit('\r').find(|part| !part.trim().is_empty()));
    ends.flatten().map(without_figures).collect()
}

fn without_figures(line: &str) -> String {
    let masked = line.trim().replace(|c: char| c.is_ascii_digit(), "#");
    let mut kept = String::new();
    for c in masked.chars().filter(|&c| c != '.') {
        if !(c == '#' && kept.ends_with('#')) {
            kept.push(c);
        }
    }
    kept
}

#[track_caller]
fn check_benchmark(arguments: &[&str]) {
    let redis = Redis::start(&[]);
    let stack = Stack::start(&[]);
    let expected = benchmark(redis.address(), arguments);
    let actual = benchmark(stack.address(), arguments);
    assert!(!expected.is_empty());
    assert_eq!(actual, expected, "redis-benchmark {arguments:?}");
}

#[test]
fn redis_benchmark_runs_as_on_redis() {
    check_benchmark(&[
        "-t",
        "ping,set,get,incr,mset",
        "-P",
        "16",
        "-n",
        "20000",
        "-q",
    ]);
}

#[test]
fn redis_benchmark_runs_as_on_redis_with_random_keys_and_resp3() {
    let tests = "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange,mset";
    check_benchmark(&["-3", "-t", tests, "-r", "1000", "-n", "2000", "-q"]);
}

#[test]
fn redis_benchmark_runs_all_its_tests_as_on_redis() {
    check_benchmark(&["-n", "200", "-c", "10", "-q"]);
    check_benchmark(&["-3", "-n", "200", "-c", "10", "-q", "-r", "100"]);
    check_benchmark(&["--threads", "2", "-n", "200", "-c", "10", "-q"]);
}

#[test]
fn redis_benchmark_runs_as_on_redis_with_threads() {
    check_benchmark(&[
        "--threads",
        "2",
        "-t",
        "set,get,incr",
        "-P",
        "8",
        "-n",
        "20000",
        "-q",
    ]);
}

#[test]
fn redis_benchmark_prints_its_whole_report() {
    let stack = Stack::start(&[]);
    let lines = benchmark(stack.address(), &["-t", "incr", "-n", "5000", "-r", "100"]);
    let bad = lines
        .iter()
        .find(|line| line.contains("ERR") || line.contains("WARN"));
    assert!(bad.is_none(), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains("throughput summary")),
        "{lines:#?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line == "host configuration \"appendonly\": no"),
        "{lines:#?}"
    );
}
