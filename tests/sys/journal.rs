//! What Tally acknowledged survives Tally: `kill -9` at any instant, nodes away meanwhile, stops
//! that could not flush.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Settings, Stack, eventually, say, skipped_on_bare_redis};
use crate::reply::Reply;
use crate::servers::Redis;
use tally::journal;

fn held(node: &Redis, key: &str) -> i64 {
    match node.connect().run(&format!("GET {key}")) {
        Reply::Bulk(text) => String::from_utf8(text).unwrap().parse().unwrap(),
        Reply::Nil => 0,
        other => panic!("{other:?}"),
    }
}

const QUICK: Settings<'_> = &[
    ("upstream.backoff_min", "\"5ms\""),
    ("upstream.backoff_max", "\"50ms\""),
];

/// A Tally with a warm counter of 3 on its first node, of which Redis has 2.
fn with_one_unflushed() -> (Stack, String) {
    let settings = [("counters.flush_interval", "\"1m\"")];
    let nodes = vec![Redis::start_durable(), Redis::start_durable()];
    let stack = Stack::over(nodes, &[QUICK, &settings].concat());
    let key = stack.key_on(0, "counter");
    let mut client = stack.connect();
    for want in 1..=3 {
        assert_eq!(client.run(&format!("INCR {key}")).integer(), want);
    }
    assert_eq!(held(&stack.nodes[0], &key), 2);
    (stack, key)
}

#[test]
fn what_a_killed_process_acknowledged_is_there_for_the_next_one_s_clients() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    let tally = stack.tally.as_mut().unwrap();
    tally.kill();
    tally.restart();
    let mut client = stack.connect();
    let lines = [format!("GET {key}"), format!("INCR {key}")];
    let replies = client.run_all(&lines);
    assert_eq!((replies[0].text().as_str(), replies[1].integer()), ("3", 4));
    assert_eq!(client.run(&format!("GETDEL {key}")).text(), "4");
    stack.stop_tally();
    assert_eq!(held(&stack.nodes[0], &key), 0, "nothing comes after");
}

#[test]
fn a_deadline_that_only_tally_knew_survives_it() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    let mut client = stack.connect();
    assert_eq!(
        client.run(&format!("EXPIRE {key} 50000000")).integer(),
        1,
        "so late that the guard of two minutes is before it"
    );
    let pttl = format!("PTTL {key}");
    assert_eq!(stack.nodes[0].connect().run(&pttl).integer(), -1);
    let tally = stack.tally.as_mut().unwrap();
    tally.kill();
    tally.restart();
    let left = stack.connect().run(&pttl).integer();
    assert!((49_000_000_000..=50_000_000_000).contains(&left), "{left}");
    stack.stop_tally();
    let left = stack.nodes[0].connect().run(&pttl).integer();
    assert!((49_000_000_000..=50_000_000_000).contains(&left), "{left}");
    assert_eq!(held(&stack.nodes[0], &key), 3);
}

#[test]
fn what_a_stop_can_not_flush_is_flushed_by_the_next_start() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    stack.nodes[0].kill();
    let tally = stack.tally.as_mut().unwrap();
    tally.configure(|text| text.replacen("[server]", "[server]\ndrain_timeout = \"300ms\"", 1));
    tally.kill();
    tally.restart();
    tally.signal("TERM");
    let status = tally.wait(Duration::from_secs(15)).expect("an end");
    assert_eq!(status.code(), Some(1), "{}", tally.log());
    let kept = "increments on 1 keys that could not be flushed; the journal keeps them";
    assert!(tally.log().contains(kept), "{}", tally.log());
    stack.nodes[0].restart();
    tally.restart();
    stack.stop_tally();
    assert_eq!(held(&stack.nodes[0], &key), 3);
}

#[test]
fn a_long_recovery_says_how_far_it_is() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    stack.nodes[0].kill();
    let tally = stack.tally.as_mut().unwrap();
    tally.kill();
    tally.restart();
    let told = "still flushing what the process before left keys=1";
    let is_told = || tally.log().contains(told);
    assert!(
        eventually(Duration::from_secs(15), is_told),
        "{}",
        tally.log()
    );
    stack.nodes[0].restart();
    let there = || held(&stack.nodes[0], &key) == 3;
    assert!(eventually(Duration::from_secs(15), there));
    stack.stop_tally();
}

#[test]
fn a_node_with_unflushed_increments_can_not_be_left_out() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    let tally = stack.tally.as_mut().unwrap();
    tally.kill();
    tally.configure(|text| text.replacen("redis_7070", "other", 1));
    tally.relaunch();
    let status = tally.wait(Duration::from_secs(15)).expect("an end");
    assert_eq!(status.code(), Some(1));
    assert!(
        tally.log().contains("of node redis_7070"),
        "{}",
        tally.log()
    );
    tally.configure(|text| text.replacen("other", "redis_7070", 1));
    tally.restart();
    stack.stop_tally();
    assert_eq!(held(&stack.nodes[0], &key), 3);
}

/// What `tally journal inspect` prints.
#[track_caller]
fn inspected(path: &Path) -> String {
    let arguments = ["journal", "inspect", path.to_str().unwrap()];
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_journal_in_use_or_of_somebody_else_is_refused() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    let path = stack
        .tally
        .as_ref()
        .unwrap()
        .directory()
        .join("data/journal");
    let setting = format!("{:?}", path.display().to_string());
    let nodes: Vec<_> = stack
        .nodes
        .iter()
        .map(|node| (node.address(), None))
        .collect();
    let refused = |words: &str| {
        let mut other = crate::servers::Tally::launch(&nodes, &[("journal.path", &setting)]);
        let status = other.wait(Duration::from_secs(15)).expect("an end");
        assert_eq!(status.code(), Some(1));
        assert!(other.log().contains(words), "{}", other.log());
    };
    refused("is in use by another process");
    let text = inspected(&path);
    assert_eq!(
        text.lines().last(),
        Some(format!("pending  redis_7070  \"{key}\"  +1").as_str())
    );
    let series = text.lines().filter(|line| line.starts_with("series "));
    assert_eq!(
        series.count(),
        stack.nodes.len(),
        "of 16 databases each one is in use: {text}"
    );
    let tally = stack.tally.as_mut().unwrap();
    tally.kill();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, "not a journal at all").unwrap();
    refused("it is no journal of Tally");
    let complaint = journal::inspect(&path).unwrap_err().to_string();
    assert!(
        complaint.contains("it is no journal of Tally"),
        "{complaint}"
    );
    fs::write(&path, &whole[..5000]).unwrap();
    refused("it was cut short");
    let mut bytes = whole.clone();
    let at = bytes
        .windows(key.len())
        .position(|part| part == key.as_bytes());
    bytes[at.expect("the key")] ^= 1;
    fs::write(&path, &bytes).unwrap();
    refused("slot 0 is damaged");
    assert_eq!(fs::read(&path).unwrap(), bytes, "left as it is");
    fs::write(&path, &whole).unwrap();
    tally.restart();
    stack.stop_tally();
    assert_eq!(held(&stack.nodes[0], &key), 3);
}

/// A Tally over `stack`'s nodes that ended while it was to make a journal in `folder`.
#[track_caller]
fn ends_without_room(stack: &Stack, folder: &Path, bytes: u64, wrapper: Option<&str>) {
    let path = folder.join("journal");
    let (path_text, size) = (path.display().to_string(), format!("\"{bytes}B\""));
    let settings = [
        ("journal.path", format!("{path_text:?}")),
        ("journal.size", size),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, &**value));
    let nodes: Vec<_> = stack
        .nodes
        .iter()
        .map(|node| (node.address(), None))
        .collect();
    let mut other = crate::servers::Tally::launch_by(wrapper, &nodes, &settings);
    let status = other.wait(Duration::from_secs(15)).expect("an end");
    assert_eq!(status.code(), Some(1), "{}", other.log());
    let words = format!("the journal {path_text}: can not be made: ");
    assert!(other.log().contains(&words), "{}", other.log());
    let left = fs::read_dir(folder).unwrap().count();
    assert_eq!(left, 0, "nothing of it takes the room that is left");
}

#[test]
fn a_journal_without_room_is_an_error_at_the_start() {
    if skipped_on_bare_redis() {
        return;
    }
    let stack = Stack::start(&[]);
    // The most that a process may write in a file, in blocks of 512 or 1,024 bytes.
    let folder = tempfile::tempdir().unwrap();
    let limited = "ulimit -f 2048; exec \"$0\" \"$@\"";
    ends_without_room(&stack, folder.path(), 4 << 20, Some(limited));
    // A file system in memory that is smaller than the journal.
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        return say("there is no /dev/shm");
    };
    let system = rustix::fs::statvfs(folder.path()).unwrap();
    let bytes = system.f_blocks * system.f_frsize;
    if bytes == 0 || bytes > 60 << 30 {
        return say("/dev/shm is larger than any journal");
    }
    ends_without_room(&stack, folder.path(), bytes + (1 << 20), None);
}

#[test]
fn a_process_whose_journal_another_went_on_with_stops_buffering() {
    if skipped_on_bare_redis() {
        return;
    }
    let (mut stack, key) = with_one_unflushed();
    let mut client = stack.connect();
    let tally = stack.tally.as_ref().unwrap();
    let path = tally.directory().join("data/journal");
    let copy = path.with_extension("copy");
    tally.signal("STOP");
    fs::copy(&path, &copy).unwrap();
    let setting = format!("{:?}", copy.display().to_string());
    let nodes: Vec<_> = stack
        .nodes
        .iter()
        .map(|node| (node.address(), None))
        .collect();
    // It takes the series over, with what the copy holds.
    let mut other = crate::servers::Tally::start_before(&nodes, &[("journal.path", &setting)]);
    let there = || held(&stack.nodes[0], &key) == 3;
    assert!(eventually(Duration::from_secs(10), there));
    other.terminate();
    stack.tally.as_ref().unwrap().signal("CONT");
    // Its batch is refused, and it acknowledges nothing more that it could not apply.
    let log = || stack.tally.as_ref().unwrap().log();
    let fenced = || log().contains("nothing is buffered any more");
    assert!(eventually(Duration::from_secs(10), fenced), "{}", log());
    for want in 4..=6 {
        assert_eq!(client.run(&format!("INCR {key}")).integer(), want);
        assert_eq!(held(&stack.nodes[0], &key), want, "not buffered");
    }
    stack.stop_tally();
    assert_eq!(held(&stack.nodes[0], &key), 6);
}
