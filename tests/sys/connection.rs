//! A raw client: bytes out, whole reply frames in, every wait bounded.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::reply::{Reply, frame_end};

/// A request as its arguments.
pub(crate) type Request = Vec<Vec<u8>>;

/// One client connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

impl Connection {
    /// Connects, with [`PATIENCE`] on every read and write.
    #[track_caller]
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("a connection")
    }

    pub(crate) fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            start: 0,
        })
    }

    /// Replaces the bound on reads and writes.
    pub(crate) fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
        self.stream.set_write_timeout(Some(patience)).unwrap();
    }

    /// Sends a request given as words (see [`words`]) and returns its reply.
    #[track_caller]
    pub(crate) fn run(&mut self, line: &str) -> Reply {
        self.call(&words(line))
    }

    /// As [`run`](Self::run); the reply has to be `OK`.
    #[track_caller]
    pub(crate) fn run_ok(&mut self, line: &str) {
        let reply = self.run(line);
        assert!(reply.is_ok(), "{line}: {reply:?}");
    }

    /// Sends a request and returns its reply.
    #[track_caller]
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Reply {
        Reply::parse(&self.call_raw(arguments))
    }

    /// Sends a request and returns its reply, or why there is none.
    pub(crate) fn try_call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Reply> {
        self.stream.write_all(&encode(arguments))?;
        self.try_read_frame().map(|frame| Reply::parse(&frame))
    }

    /// Sends a request and returns the bytes of its reply.
    #[track_caller]
    pub(crate) fn call_raw<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Vec<u8> {
        self.send(arguments);
        self.read_frame()
    }

    /// Writes all requests at once, then reads all replies.
    #[track_caller]
    pub(crate) fn pipeline(&mut self, requests: &[Request]) -> Vec<Vec<u8>> {
        let bytes: Vec<u8> = requests
            .iter()
            .flat_map(|request| encode(request))
            .collect();
        self.write_raw(&bytes);
        requests.iter().map(|_| self.read_frame()).collect()
    }

    /// [`pipeline`](Self::pipeline) over requests given as words, with parsed replies.
    #[track_caller]
    pub(crate) fn run_all<L: AsRef<str>>(&mut self, lines: &[L]) -> Vec<Reply> {
        let requests: Vec<Request> = lines.iter().map(|line| words(line.as_ref())).collect();
        let frames = self.pipeline(&requests);
        frames.iter().map(|frame| Reply::parse(frame)).collect()
    }

    #[track_caller]
    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) {
        self.write_raw(&encode(arguments));
    }

    #[track_caller]
    pub(crate) fn write_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("a write");
    }

    pub(crate) fn try_write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    #[track_caller]
    pub(crate) fn read_frame(&mut self) -> Vec<u8> {
        self.try_read_frame().expect("a reply")
    }

    /// The next reply.
    #[track_caller]
    pub(crate) fn read_reply(&mut self) -> Reply {
        Reply::parse(&self.read_frame())
    }

    /// The bytes of the next reply.
    ///
    /// # Errors
    /// `UnexpectedEof` when the server closed, `WouldBlock` or `TimedOut` when nothing came.
    pub(crate) fn try_read_frame(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = frame_end(&self.buffer, self.start) {
                let frame = self.buffer[self.start..end].to_vec();
                self.start = end;
                return Ok(frame);
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// Another handle, to write while this one reads.
    #[track_caller]
    pub(crate) fn writer(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// What came behind the last whole reply.
    pub(crate) fn unparsed(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Says that nothing more will be written; reading goes on.
    #[track_caller]
    pub(crate) fn finish_writing(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Everything until the server closes; a reset counts as a close.
    #[track_caller]
    pub(crate) fn read_to_close(&mut self) -> Vec<u8> {
        let mut bytes = self.buffer.split_off(self.start);
        self.buffer.clear();
        self.start = 0;
        let mut chunk = vec![0; 256 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return bytes,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
                Err(error) => panic!("not closed after {} bytes: {error}", bytes.len()),
            }
        }
    }

    /// Whether the connection still answers PING.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.try_call(&["PING"])
            .is_ok_and(|reply| reply == Reply::Simple(b"PONG".to_vec()))
    }
}

/// Longest wait for one read or write; far above what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A request as an array of bulk strings.
pub(crate) fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Splits a line at spaces; `"..."` keeps spaces together and knows `\"`, `\\`, `\n` and `\xHH`.
#[track_caller]
pub(crate) fn words(line: &str) -> Request {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b' ' if !quoted => words.extend(word.take()),
            b'\\' if quoted => {
                let escaped = match bytes.next().expect("a byte after \\") {
                    b'n' => b'\n',
                    b'x' => {
                        let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                        u8::from_str_radix(&digits, 16).expect("two hex digits")
                    }
                    other => other,
                };
                word.get_or_insert_default().push(escaped);
            }
            byte => word.get_or_insert_default().push(byte),
        }
    }
    assert!(!quoted, "an open quote in: {line}");
    words.extend(word);
    words
}

#[test]
fn words_keep_quoted_bytes_together() {
    let expected: Request = vec![b"SET".to_vec(), b"a b".to_vec(), Vec::new(), vec![0, b'"']];
    assert_eq!(words(r#"SET "a b" "" "\x00\"""#), expected);
}
