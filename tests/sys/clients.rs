//! Real client libraries: the same program sees the same through Tally as from a plain Redis.
//!
//! `scripts/install.sh clients` puts the packages in place; without them a run outside of CI
//! says so and passes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Settings, Stack, say};
use crate::servers::Redis;

/// What a client program prints about a server.
#[track_caller]
fn seen_by(interpreter: &Path, script: &Path, address: std::net::SocketAddr) -> String {
    let url = format!("redis://{address}");
    let output = Command::new("timeout")
        .arg(CLIENT_LIMIT_SECONDS)
        .arg(interpreter)
        .arg(script)
        .arg(url)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let script = script.display();
    assert!(
        output.status.success(),
        "{script}: {}\n{errors}",
        output.status
    );
    assert!(errors.is_empty(), "{script}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn check_client(interpreter: &Path, package: &Path, script: &str) {
    if !package.exists() {
        let missing = package.display();
        assert!(
            std::env::var_os("CI").is_none(),
            "{missing} is missing: run scripts/install.sh clients"
        );
        say(&format!(
            "skipped {script}: no {missing}, see scripts/install.sh clients"
        ));
        return;
    }
    let script = clients_directory().join(script);
    let redis = Redis::start(&[]);
    let expected = seen_by(interpreter, &script, redis.address());
    let settings: [Settings<'_>; 2] = [&[], &[("counters.mode", "\"exact\"")]];
    for settings in settings {
        let stack = Stack::start(settings);
        let actual = seen_by(interpreter, &script, stack.address());
        if actual != expected {
            let at = expected
                .bytes()
                .zip(actual.bytes())
                .take_while(|(a, b)| a == b)
                .count();
            panic!(
                "{} with {settings:?}\nRedis: ...{}\nTally: ...{}",
                script.display(),
                around(&expected, at),
                around(&actual, at)
            );
        }
    }
}

fn around(text: &str, at: usize) -> String {
    let bytes = &text.as_bytes()[at.saturating_sub(80)..text.len().min(at + 160)];
    String::from_utf8_lossy(bytes).into_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn clients_directory() -> PathBuf {
    root().join("tests/clients")
}

#[test]
fn redis_py_sees_the_same() {
    let python = root().join(".venv/bin/python");
    check_client(&python, &python, "redis_py.py");
}

#[test]
fn ioredis_sees_the_same() {
    let package = clients_directory().join("node_modules/ioredis");
    check_client(Path::new("node"), &package, "ioredis.js");
}

#[test]
fn node_redis_sees_the_same() {
    let package = clients_directory().join("node_modules/redis");
    check_client(Path::new("node"), &package, "node_redis.js");
}

/// The rate limiters run scripts, some of which are combined here.
#[test]
fn rate_limit_redis_sees_the_same() {
    let package = clients_directory().join("node_modules/rate-limit-redis");
    check_client(Path::new("node"), &package, "limiters/rate_limit_redis.mjs");
}

#[test]
fn rate_limiter_flexible_sees_the_same() {
    let package = clients_directory().join("node_modules/rate-limiter-flexible");
    check_client(
        Path::new("node"),
        &package,
        "limiters/rate_limiter_flexible.mjs",
    );
}

#[test]
fn python_limits_sees_the_same() {
    let python = root().join(".venv/bin/python");
    check_client(&python, &python, "limiters/python_limits.py");
}

/// Longest run of one client program; they take a second or two.
const CLIENT_LIMIT_SECONDS: &str = "60";
