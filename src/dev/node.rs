//! One Redis server under its guard.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time;

use super::{Error, name};

/// The shell program that stops the server when Tally is gone.
const GUARD: &str = include_str!("guard.sh");
/// Longest wait for a server to answer; one that has much to load answers `-LOADING` meanwhile.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two attempts: a server with little data is up in about 20 ms.
const START_PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for one answer of a server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for a server to exit: the guard kills it after 10 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// Most bytes read of one answer, and of the end of a log.
const MAX_READ_BYTES: usize = 4096;
/// Lines of the log that an error shows.
const TAIL_LINES: usize = 8;

/// A Redis server and the guard that it runs under.
#[derive(Debug)]
pub(super) struct Guarded {
    port: u16,
    log: PathBuf,
    guard: Child,
    /// Closed, it tells the guard to stop the server. Taken out of `guard`, whose `wait` would
    /// close it.
    lifeline: Option<ChildStdin>,
}

impl Guarded {
    /// Starts `program` on the loopback `port` with its data under `data`.
    pub(super) fn spawn(program: &Path, port: u16, data: &Path) -> Result<Self, Error> {
        let folder = data.join(name(port));
        fs::create_dir_all(&folder).map_err(data_error(&folder))?;
        let log = folder.join("redis.log");
        let mut options = File::options();
        let file = options.create(true).append(true).open(&log);
        let out = file.map_err(data_error(&log))?;
        let err = out.try_clone().map_err(data_error(&log))?;
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "tally-guard"])
            .arg(program)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
            .arg(&folder)
            // Increments that Tally acknowledged are worth a file; snapshots add nothing to it.
            .args(["--appendonly", "yes", "--save", ""])
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            // Ctrl-C in the terminal reaches Tally alone, which has increments to flush first.
            .process_group(0)
            .spawn()
            .map_err(Error::Start)?;
        let lifeline = guard.stdin.take();
        Ok(Self {
            port,
            log,
            guard,
            lifeline,
        })
    }

    /// Returns when the server answers PING.
    pub(super) async fn ready(&mut self) -> Result<(), Error> {
        let what = match time::timeout(START_TIMEOUT, self.answers()).await {
            Ok(true) => return Ok(()),
            Ok(false) => "exited",
            Err(_) => "did not answer in time",
        };
        Err(Error::NotReady {
            name: name(self.port),
            what,
            tail: tail(&self.log),
            log: self.log.clone(),
        })
    }

    /// Waits until the server answers PING; false when it has exited.
    async fn answers(&mut self) -> bool {
        loop {
            let answer = ask(self.port, "PING\r\n").await;
            // Looked at after the answer, so that it was this server that gave it.
            if !matches!(self.guard.try_wait(), Ok(None)) {
                return false;
            }
            if answer.is_ok_and(|answer| answer.starts_with("+PONG")) {
                return true;
            }
            time::sleep(START_PAUSE).await;
        }
    }

    /// Has the guard stop the server.
    pub(super) fn tell_to_stop(&mut self) {
        self.lifeline = None;
    }

    /// Returns when the server has exited.
    pub(super) async fn stopped(&mut self) -> Result<(), Error> {
        match time::timeout(STOP_TIMEOUT, self.guard.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            _ => Err(Error::Stop {
                name: name(self.port),
                log: self.log.clone(),
            }),
        }
    }
}

/// Checks that nothing listens on the loopback `port`.
pub(super) async fn check_port(port: u16) -> Result<(), Error> {
    match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(_) => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
            let holder = holder(port).await;
            Err(Error::PortTaken { port, holder })
        }
        Err(source) => Err(Error::Port { port, source }),
    }
}

/// Who listens on `port`: a Redis server says so itself.
async fn holder(port: u16) -> String {
    let info = ask(port, "INFO server\r\n").await.unwrap_or_default();
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("process_id:"));
    match pid.and_then(|pid| pid.parse::<u32>().ok()) {
        Some(pid) => format!("a Redis server, process {pid},"),
        None => format!("another program (`lsof -i :{port}` tells which)"),
    }
}

/// The start of what the server on `port` answers.
async fn ask(port: u16, request: &str) -> io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = vec![0; MAX_READ_BYTES];
        let length = stream.read(&mut answer).await?;
        answer.truncate(length);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    time::timeout(ANSWER_TIMEOUT, exchange).await?
}

/// The last lines of the file at `path`, indented.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let start = text.len().saturating_sub(MAX_READ_BYTES);
    let text = String::from_utf8_lossy(text.get(start..).unwrap_or_default());
    let mut lines: Vec<_> = text.lines().rev().take(TAIL_LINES).collect();
    lines.reverse();
    lines.iter().flat_map(|line| ["  ", line, "\n"]).collect()
}

/// Makes an [`Error::Data`] about `path`.
fn data_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Data { path, source }
}
