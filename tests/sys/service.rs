//! What a service manager sees: readiness, a watchdog, the stop; log lines as JSON.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::connection::PATIENCE;
use crate::harness::{Stack, eventually, skipped_on_bare_redis};
use crate::servers::Redis;

#[test]
fn a_service_manager_is_told_of_start_life_and_stop() {
    if skipped_on_bare_redis() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let node = Redis::start(&[]);
    let binary = std::env::var("TALLY_SUITE_BINARY");
    let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_tally").to_owned());
    let mut child = Command::new(binary)
        // Tally refuses variables of its prefix that it does not know.
        .env_remove("TALLY_SUITE_BINARY")
        .env_remove("TALLY_SUITE_SERVER")
        .current_dir(folder.path())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000")
        .env("TALLY_NODES", format!("redis_7070={}", node.address()))
        .env("TALLY_SERVER__LISTEN", "127.0.0.1:0")
        .env("TALLY_ADMIN__LISTEN", "off")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let next = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let wait_for = |wanted: &str| {
        let mut seen = Vec::new();
        while !seen
            .last()
            .is_some_and(|text: &String| text.contains(wanted))
        {
            seen.push(next());
        }
        seen
    };
    wait_for("READY=1");
    for _ in 0..3 {
        wait_for("WATCHDOG=1");
    }
    let killed = Command::new("kill").arg(child.id().to_string()).status();
    assert!(killed.unwrap().success());
    wait_for("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_long_stop_says_how_far_it_is() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[
        ("counters.flush_interval", "\"60s\""),
        ("server.drain_timeout", "\"20s\""),
    ]);
    let key = stack.key_on(0, "k");
    let mut client = stack.connect();
    for _ in 0..5 {
        client.run(&format!("INCR {key}"));
    }
    stack.nodes[0].freeze();
    let tally = stack.tally.as_mut().unwrap();
    tally.signal("TERM");
    let told = eventually(Duration::from_secs(15), || {
        tally.log().contains("still draining")
    });
    assert!(told, "{}", tally.log());
    assert!(tally.log().contains("keys=1"), "{}", tally.log());
    stack.nodes[0].thaw();
    let status = stack.tally.as_mut().unwrap().wait(Duration::from_secs(20));
    assert_eq!(status.expect("an end").code(), Some(0));
}

#[test]
fn log_lines_are_json_where_that_is_wanted() {
    if skipped_on_bare_redis() {
        return;
    }
    let mut stack = Stack::start(&[("log.format", "\"json\"")]);
    stack.stop_tally();
    let log = stack.tally.as_ref().unwrap().log();
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let connected = lines.iter().find(|line| line["message"] == "connected");
    let connected = connected.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(connected["level"], "INFO");
    assert!(connected["node"].is_string() && connected["timestamp"].is_string());
}
