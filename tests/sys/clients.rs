//! Real client libraries: the same program sees the same through Tally as from a plain Redis.
//!
//! `scripts/install.sh clients` puts the packages in place; without them a run outside of CI
//! says so and passes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Settings, Stack, say};
use crate::servers::Redis;

/// A program, given the URL of a server, and what it needs besides.
pub(crate) struct Program {
    pub(crate) interpreter: PathBuf,
    pub(crate) script: PathBuf,
    /// Behind the URL.
    pub(crate) arguments: &'static [&'static str],
    /// Where Python looks for packages first.
    pub(crate) packages: Option<PathBuf>,
    /// Files that `scripts/install.sh` puts in place.
    pub(crate) needs: Vec<PathBuf>,
}

impl Program {
    pub(crate) fn python(script: &str) -> Self {
        let interpreter = root().join(".venv/bin/python");
        Self {
            needs: vec![interpreter.clone()],
            interpreter,
            script: root().join("tests").join(script),
            arguments: &[],
            packages: None,
        }
    }

    pub(crate) fn node(script: &str) -> Self {
        let script = root().join("tests").join(script);
        Self {
            interpreter: "node".into(),
            needs: vec![script.with_file_name("node_modules/.installed")],
            script,
            arguments: &[],
            packages: None,
        }
    }

    /// Whether it can run. False, and said so, when something was not installed; in CI all is.
    #[track_caller]
    pub(crate) fn is_installed(&self) -> bool {
        let Some(missing) = self.needs.iter().find(|file| !file.exists()) else {
            return true;
        };
        let text = format!(
            "{} is missing: run scripts/install.sh clients",
            missing.display()
        );
        assert!(std::env::var_os("CI").is_none(), "{text}");
        say(&format!("skipped {}: {text}", self.script.display()));
        false
    }

    /// What it prints about a server.
    #[track_caller]
    pub(crate) fn seen(&self, address: SocketAddr) -> String {
        let mut command = Command::new("timeout");
        command
            .arg(LIMIT_SECONDS)
            .arg(&self.interpreter)
            .arg(&self.script)
            .arg(format!("redis://{address}"))
            .args(self.arguments);
        if let Some(packages) = &self.packages {
            command.env("PYTHONPATH", packages);
        }
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let script = self.script.display();
        assert!(
            output.status.success() && errors.is_empty(),
            "{script} {:?}: {}\n{errors}\n{}",
            self.arguments,
            output.status,
            around(&printed, printed.len())
        );
        printed
    }

    /// It prints the same about a plain Redis and about Tally, in each mode.
    #[track_caller]
    pub(crate) fn check(&self) {
        if !self.is_installed() {
            return;
        }
        let redis = Redis::start(&[]);
        let expected = self.seen(redis.address());
        let settings: [Settings<'_>; 2] = [&[], &[("counters.mode", "\"exact\"")]];
        for settings in settings {
            let stack = Stack::start(settings);
            let actual = self.seen(stack.address());
            if actual != expected {
                let pairs = expected.bytes().zip(actual.bytes());
                let at = pairs.take_while(|(a, b)| a == b).count();
                panic!(
                    "{} {:?} with {settings:?}\nRedis: ...{}\nTally: ...{}",
                    self.script.display(),
                    self.arguments,
                    around(&expected, at),
                    around(&actual, at)
                );
            }
        }
    }
}

fn around(text: &str, at: usize) -> String {
    let bytes = &text.as_bytes()[at.saturating_sub(80)..text.len().min(at + 160)];
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Another version of redis-py than the one in `.venv` itself.
fn older_redis_py(directory: &str) -> Program {
    let packages = root().join(".venv").join(directory);
    let mut program = Program::python("clients/redis_py.py");
    program.needs.push(packages.clone());
    program.packages = Some(packages);
    program
}

#[test]
fn redis_py_sees_the_same() {
    Program::python("clients/redis_py.py").check();
}

#[test]
fn redis_py_5_sees_the_same() {
    older_redis_py("redis-5").check();
}

#[test]
fn redis_py_4_sees_the_same() {
    older_redis_py("redis-4").check();
}

#[test]
fn redis_cli_at_a_terminal_sees_the_same() {
    let mut program = Program::python("clients/redis_cli.py");
    // Needs no package.
    program.interpreter = "python3".into();
    program.needs.clear();
    program.check();
}

#[test]
fn ioredis_sees_the_same() {
    Program::node("clients/ioredis.js").check();
}

#[test]
fn ioredis_5_sees_the_same() {
    let mut program = Program::node("clients/ioredis.js");
    program.arguments = &["ioredis5"];
    program.check();
}

#[test]
fn ioredis_4_sees_the_same() {
    let mut program = Program::node("clients/ioredis.js");
    program.arguments = &["ioredis4"];
    program.check();
}

#[test]
fn node_redis_sees_the_same() {
    Program::node("clients/node_redis.js").check();
}

#[test]
fn node_redis_4_sees_the_same() {
    let mut program = Program::node("clients/node_redis.js");
    program.arguments = &["redis4"];
    program.check();
}

#[test]
fn pub_sub_of_redis_py_sees_the_same() {
    Program::python("clients/pubsub.py").check();
}

#[test]
fn pub_sub_of_ioredis_and_node_redis_sees_the_same() {
    Program::node("clients/pubsub_node.js").check();
}

#[test]
fn transactions_and_waits_of_redis_py_see_the_same() {
    Program::python("clients/transactions.py").check();
}

#[test]
fn transactions_and_waits_of_ioredis_and_node_redis_see_the_same() {
    Program::node("clients/transactions_node.js").check();
}

/// The rate limiters run scripts, some of which are combined here.
#[test]
fn rate_limit_redis_sees_the_same() {
    one_folder_down(Program::node("clients/limiters/rate_limit_redis.mjs"));
}

#[test]
fn rate_limiter_flexible_sees_the_same() {
    one_folder_down(Program::node("clients/limiters/rate_limiter_flexible.mjs"));
}

#[test]
fn python_limits_sees_the_same() {
    Program::python("clients/limiters/python_limits.py").check();
}

/// Job queues name many keys at once, without hash tags.
#[test]
fn rq_sees_the_same() {
    Program::python("clients/queues/rq_jobs.py").check();
}

#[test]
fn celery_sees_the_same() {
    Program::python("clients/queues/celery_tasks.py").check();
}

#[test]
fn bullmq_sees_the_same() {
    one_folder_down(Program::node("clients/queues/bullmq.js"));
}

/// Checks a program whose packages are those of the folder above.
fn one_folder_down(mut program: Program) {
    program.needs = vec![root().join("tests/clients/node_modules/.installed")];
    program.check();
}

/// Longest run of one program; they take a few seconds.
const LIMIT_SECONDS: &str = "100";
