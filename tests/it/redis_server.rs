//! A real redis-server for one test, and a client that sees raw frames.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tally::resp::{Request, Span, encode};
use tempfile::TempDir;

/// A redis-server on loopback that keeps nothing; it ends with this value.
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl RedisServer {
    /// Starts the redis-server of the PATH and waits until it accepts connections.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more options.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        // Another program may take the port between the look and the start.
        (0..5)
            .find_map(|_| Self::try_start(options))
            .expect("redis-server does not start")
    }

    fn try_start(options: &[&str]) -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server is needed on the PATH");
        let mut log = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = log.any(|line| line.unwrap().contains("Ready to accept connections"));
        // Its log must be read to the end, or it stops when the pipe is full.
        std::thread::spawn(move || log.for_each(drop));
        let server = Self {
            child,
            port,
            _folder: folder,
        };
        ready.then_some(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A new connection, which speaks RESP2.
    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Client {
            stream: BufReader::new(stream),
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A blocking connection; replies come as the bytes they are.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Whether the server is the version whose facts and texts Tally keeps to. What others know and
    /// say differs, so tests that compare word for word have nothing to compare there.
    pub(crate) fn is_7_0(&mut self) -> bool {
        let info = Value::parse(&self.call(&["INFO", "server"]));
        info.text().contains("redis_version:7.0.")
    }

    /// Sends one request and returns its reply's bytes.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.pipeline(&[args]).remove(0)
    }

    /// Sends all requests in one write and returns their replies in order.
    pub(crate) fn pipeline<A: AsRef<[u8]>>(&mut self, requests: &[&[A]]) -> Vec<Vec<u8>> {
        let mut wire = Vec::new();
        for args in requests {
            encode::request(&mut wire, args);
        }
        self.stream.get_mut().write_all(&wire).unwrap();
        requests.iter().map(|_| self.read_frame()).collect()
    }

    /// Sends one request as the bytes it is and returns its reply's bytes.
    pub(crate) fn send(&mut self, wire: &[u8]) -> Vec<u8> {
        self.stream.get_mut().write_all(wire).unwrap();
        self.read_frame()
    }

    /// Sends requests as the bytes they are and returns so many replies.
    pub(crate) fn call_all(&mut self, wire: &[u8], replies: usize) -> Vec<Vec<u8>> {
        self.stream.get_mut().write_all(wire).unwrap();
        (0..replies).map(|_| self.read_frame()).collect()
    }

    /// Reads one whole reply of either protocol.
    pub(crate) fn read_frame(&mut self) -> Vec<u8> {
        let mut frame = Vec::new();
        let mut left = 1_usize;
        while left > 0 {
            left -= 1;
            let start = frame.len();
            self.stream.read_until(b'\n', &mut frame).unwrap();
            let line = std::str::from_utf8(&frame[start + 1..frame.len() - 2]).unwrap_or_default();
            let count = line.parse::<usize>().unwrap_or(0);
            match frame[start] {
                b'*' | b'~' | b'>' => left += count,
                b'%' | b'|' => left += 2 * count,
                b'$' | b'=' | b'!' if line != "-1" => {
                    let text = frame.len();
                    frame.resize(text + count + 2, 0);
                    self.stream.read_exact(&mut frame[text..]).unwrap();
                }
                _ => {}
            }
        }
        frame
    }
}

/// A reply without its protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Array(Vec<Self>),
    Null,
}

impl Value {
    /// Reads a RESP2 reply.
    pub(crate) fn parse(frame: &[u8]) -> Self {
        let mut rest = frame;
        Self::take(&mut rest)
    }

    fn take(rest: &mut &[u8]) -> Self {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let (marker, line) = (rest[0], String::from_utf8_lossy(&rest[1..end]).into_owned());
        *rest = &rest[end + 2..];
        match marker {
            b':' => Self::Integer(line.parse().unwrap()),
            b'$' | b'*' if line == "-1" => Self::Null,
            b'$' => {
                let len = line.parse::<usize>().unwrap();
                let text = String::from_utf8_lossy(&rest[..len]).into_owned();
                *rest = &rest[len + 2..];
                Self::Text(text)
            }
            b'*' => {
                let len = line.parse::<usize>().unwrap();
                Self::Array((0..len).map(|_| Self::take(rest)).collect())
            }
            _ => Self::Text(line),
        }
    }

    #[track_caller]
    pub(crate) fn array(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            other => panic!("not an array: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("not a text: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("not an integer: {other:?}"),
        }
    }
}

/// Splits a line at spaces; single quotes hold an argument together, `''` is an empty one.
pub(crate) fn split(line: &str) -> Vec<Vec<u8>> {
    let mut args = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (arg, tail) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("a quote is open"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        args.push(arg.as_bytes().to_vec());
        rest = tail.trim_start();
    }
    args
}

/// Calls `check` with `args` as a request that has arrived.
pub(crate) fn with_request<A: AsRef<[u8]>, T>(
    args: &[A],
    check: impl FnOnce(&Request<'_>) -> T,
) -> T {
    let mut wire = Vec::new();
    encode::request(&mut wire, args);
    let mut spans = Vec::new();
    let mut end = wire.len();
    for arg in args.iter().rev() {
        let len = arg.as_ref().len();
        end -= len + 2;
        let header = format!("${len}\r\n").len();
        spans.push(Span {
            start: u32::try_from(end).unwrap(),
            len: u32::try_from(len).unwrap(),
        });
        end -= header;
    }
    spans.reverse();
    check(&Request::new(&wire, &spans))
}
