//! The built binary: its exit codes, and `--dev` with real Redis servers.

#![expect(clippy::unwrap_used, reason = "a test's failure is its report")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Longest wait for anything: the guard of a node kills it after 10 s.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn exit_codes_tell_a_wrong_line_from_a_wrong_file() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.toml");
    let bad = folder.path().join("bad.toml");
    let text = include_str!("../../config/minimal.toml");
    std::fs::write(&good, text).unwrap();
    std::fs::write(
        &bad,
        format!("{text}\n[cache]\ntll = \"1s\"\nmax_bytes = 1"),
    )
    .unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());

    let check = |args: &[&str], code: i32, stdout: &str, stderr: &str| {
        let output = tally(args, folder.path()).output().unwrap();
        let Output {
            status,
            stdout: out,
            stderr: err,
        } = output;
        let (out, err) = (
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        );
        assert_eq!(status.code(), Some(code), "{args:?}: {out}{err}");
        assert!(out.contains(stdout), "{args:?}: {out}");
        assert!(err.contains(stderr), "{args:?}: {err}");
    };
    check(
        &["--version"],
        0,
        concat!("tally ", env!("CARGO_PKG_VERSION")),
        "",
    );
    check(
        &["--check-config", "--config", good],
        0,
        "the configuration is valid\n",
        "",
    );
    check(
        &["--print-config", "--config", good],
        0,
        "name = \"redis_7071\"",
        "",
    );
    check(&["--print-config", "--dev"], 0, "name = \"redis_7070\"", "");
    check(&["--no-such"], 2, "", "--no-such");
    check(
        &["--config", bad],
        78,
        "",
        "\ncache.tll: unknown key; allowed: ttl, max_bytes\n",
    );
    check(
        &["--check-config", "--config", bad],
        78,
        "",
        "\ncache.max_bytes: 1 is not allowed",
    );
}

#[test]
fn dev_mode_says_how_to_install_redis() {
    let folder = tempfile::tempdir().unwrap();
    let output = tally(&["--dev"], folder.path())
        .env("PATH", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for manager in ["apt-get", "dnf", "pacman", "brew"] {
        assert!(said.contains(manager), "{said}");
    }
}

#[test]
fn dev_mode_names_the_port_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port();
    let [free, _] = free_ports();
    let ports = format!("{free},{taken}");
    // Answers nothing, so that nobody takes it for a Redis server.
    let output = tally(&["--dev", "--dev-ports", &ports], folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(&format!("port {taken} is taken: another program")),
        "{said}"
    );
    assert!(!folder.path().join("data").exists());
}

#[test]
fn dev_mode_shows_the_log_of_a_node_that_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let ports = free_ports();
    let data = folder.path().join(format!("data/redis_{}", ports[1]));
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("appendonlydir"), "not a directory").unwrap();
    let ports = format!("{},{}", ports[0], ports[1]);
    let output = tally(&["--dev", "--dev-ports", &ports], folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("exited. The end of "), "{said}");
    assert!(said.contains("appendonlydir"), "{said}");
}

#[test]
fn dev_mode_stops_its_nodes_when_it_is_stopped() {
    for signal in ["INT", "TERM"] {
        let mut dev = Dev::start();
        let nodes = dev.connect();
        dev.signal(signal);
        let status = dev.wait();
        assert!(status.success(), "SIG{signal}: {status}");
        assert_gone(nodes);
        for port in dev.ports {
            let log = dev
                .folder
                .path()
                .join(format!("data/redis_{port}/redis.log"));
            let log = std::fs::read_to_string(log).unwrap();
            assert!(log.contains("bye bye"), "SIG{signal}: {log}");
        }
    }
}

#[test]
fn dev_mode_leaves_no_orphan_when_it_is_killed() {
    let mut dev = Dev::start();
    let nodes = dev.connect();
    dev.signal("KILL");
    assert!(!dev.wait().success());
    assert_gone(nodes);
}

#[test]
fn what_was_counted_in_dev_mode_is_there_after_a_restart() {
    let mut dev = Dev::start();
    let mut client = TcpStream::connect(dev.address).unwrap();
    assert_eq!(ask(&mut client, "INCRBY visits 41\r\n"), ":41\r\n");
    assert_eq!(ask(&mut client, "INCR visits\r\n"), ":42\r\n");
    dev.signal("INT");
    assert!(dev.wait().success());
    dev.restart();
    let mut client = TcpStream::connect(dev.address).unwrap();
    assert_eq!(ask(&mut client, "GET visits\r\n"), "$2\r\n42\r\n");
}

/// A running `tally --dev` in a directory of its own; killed when dropped.
struct Dev {
    folder: TempDir,
    ports: [u16; 2],
    child: Child,
    out: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Dev {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = free_ports();
        let (child, out, address) = Self::spawn(folder.path(), ports);
        Self {
            folder,
            ports,
            child,
            out,
            address,
        }
    }

    fn restart(&mut self) {
        let (child, out, address) = Self::spawn(self.folder.path(), self.ports);
        (self.child, self.out, self.address) = (child, out, address);
    }

    /// Returns when Tally has said where it listens.
    fn spawn(
        folder: &Path,
        [first, second]: [u16; 2],
    ) -> (Child, BufReader<ChildStdout>, SocketAddr) {
        let ports = format!("{first},{second}");
        let mut child = tally(&["--dev", "--dev-ports", &ports], folder)
            .env("TALLY_SERVER__LISTEN", "127.0.0.1:0")
            .env("TALLY_ADMIN__LISTEN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let (_, address) = line.trim_end().split_once("redis://").unwrap();
        (child, out, address.parse().unwrap())
    }

    /// A connection to each node, over which it answered.
    fn connect(&self) -> [TcpStream; 2] {
        self.ports.map(|port| {
            let mut node = TcpStream::connect(("127.0.0.1", port)).unwrap();
            assert_eq!(ask(&mut node, "PING\r\n"), "+PONG\r\n");
            node
        })
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(status.unwrap().success());
    }

    fn wait(&mut self) -> ExitStatus {
        // All it says, so that it never waits for a reader.
        self.out.read_to_string(&mut String::new()).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Its nodes go with it, as `dev_mode_leaves_no_orphan_when_it_is_killed` shows.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The built binary, in `folder`, with nothing of this environment's `TALLY_` variables.
fn tally(args: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("TALLY_") {
            command.env_remove(variable);
        }
    }
    command
}

/// Sends one command and returns the first bytes of the reply.
fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = [0; 512];
    let length = stream.read(&mut reply).unwrap();
    reply.iter().take(length).copied().map(char::from).collect()
}

/// Waits until each server has closed its connection, then checks that its port is free.
#[track_caller]
fn assert_gone(nodes: [TcpStream; 2]) {
    for mut node in nodes {
        let address = node.peer_addr().unwrap();
        // End or reset: only a timeout means that the server lives on.
        let last = node.read(&mut [0; 1]);
        let lives = |error: &std::io::Error| {
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
        };
        assert!(!last.as_ref().is_err_and(lives), "{address} lives on");
        assert!(
            TcpStream::connect(address).is_err(),
            "{address} is still served"
        );
    }
}

/// Two ports that nothing listens on.
fn free_ports() -> [u16; 2] {
    let listeners = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
