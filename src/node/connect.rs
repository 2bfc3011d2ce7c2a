//! Opens a connection to a node, and fences the one before it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::command;
use crate::config;
use crate::flush::{self, Applier, Refusal};
use crate::resp::{ReplyError, ReplyScanner, encode, reply};
use crate::tls::Stream;

/// What is known of the server itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    pub(super) version: Option<String>,
    /// Its own version, where it is a Valkey.
    pub(super) valkey_version: Option<String>,
    pub(super) run_id: Option<String>,
    /// Whether it tells of changes by others.
    pub(super) tracking: bool,
    /// Our connection's id there, for the fence of the next connection.
    pub(super) client_id: Option<i64>,
}

impl Peer {
    /// The first number of the server's version; 0 when unknown.
    pub(super) fn major(&self) -> u32 {
        let version = self.version.as_deref().unwrap_or_default();
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok());
        major.unwrap_or_default()
    }
}

/// Why there is no connection. The text goes to clients in `-ERR node ... is unreachable (...)`.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Reply(#[from] ReplyError),
    #[error("it speaks no RESP3: Redis 6.0 or newer is needed")]
    NoResp3,
    #[error("it refused the handshake: {0}")]
    Handshake(String),
}

/// A connection that has just been opened.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    /// How the server applies batches; `None` when it takes neither scripts nor transactions.
    pub(super) applier: Option<Applier>,
    /// A second connection for batches, where they are transactions.
    pub(super) aside: Option<Socket>,
    /// What the marker of the series holds.
    pub(super) marker: Option<Vec<u8>>,
}

/// Connects (resolving the name anew), authenticates, switches to RESP3, and makes sure that the
/// server executes nothing more from the connection `before`: bytes of a dead connection may be
/// executed after a new one is in use (measured). All within `timeout`.
pub(super) async fn connect(
    node: &config::Node,
    timeout: Duration,
    before: &Peer,
    marker: &[u8],
    broadcast: bool,
) -> Result<Connected, ConnectError> {
    let attempt = async {
        let mut socket = Socket::open(node).await?;
        let mut peer = socket.hello(node).await?;
        let info = socket.ask(&[b"INFO", b"server"]).await?;
        let info = String::from_utf8_lossy(reply::text(&info).unwrap_or_default()).into_owned();
        peer.run_id = field(&info, "run_id").map(Into::into);
        // Valkey gives its own version in HELLO, and here the one of Redis that it is like.
        if let Some(version) = field(&info, "redis_version") {
            peer.version = Some(version.into());
        }
        peer.valkey_version = field(&info, "valkey_version").map(Into::into);
        // A server that was not seen before may have commands that others lack.
        if node.database == 0 && (peer.run_id.is_none() || peer.run_id != before.run_id) {
            socket.learn(node).await?;
        }
        if let (Some(old), true) = (before.client_id, before.run_id == peer.run_id) {
            let mut digits = itoa::Buffer::new();
            let id = digits.format(old).as_bytes();
            let killed = socket.ask(&[b"CLIENT", b"KILL", b"ID", id]).await?;
            if reply::is_error(&killed) {
                tracing::warn!(node = node.name, "the old connection could not be fenced");
            }
        }
        peer.tracking = socket.track(&peer, broadcast).await?;
        if !peer.tracking {
            tracing::warn!(
                node = node.name,
                "the node does not tell of changes by others"
            );
        }
        let mut applier = socket.load(&peer, marker).await?;
        let mut aside = None;
        if applier.is_none() {
            aside = Socket::open_for_transactions(node, marker).await?;
            applier = aside.as_ref().map(|_| Applier::Transaction);
            if applier.is_some() {
                tracing::warn!(
                    node = node.name,
                    "the node takes no scripts: batches are applied by transactions"
                );
            } else {
                tracing::error!(
                    node = node.name,
                    "the node takes no scripts and no transactions, so nothing is buffered"
                );
            }
        }
        let value = socket.ask(&[b"GET", marker]).await?;
        Ok(Connected {
            marker: reply::text(&value).map(<[u8]>::to_vec),
            applier,
            aside,
            stream: socket.stream,
            peer,
        })
    };
    tokio::time::timeout(timeout, attempt)
        .await
        .unwrap_or(Err(ConnectError::Timeout(timeout)))
}

/// A connection used for one request at a time.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    buffer: Vec<u8>,
    scanner: ReplyScanner,
}

impl Socket {
    /// Opens a connection, with TLS if the node wants it.
    pub(super) async fn open(node: &config::Node) -> Result<Self, ConnectError> {
        let stream = TcpStream::connect(node.address.as_str()).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        let stream = match &node.tls {
            Some(tls) => tls
                .connector
                .connect(stream)
                .await
                .map_err(ConnectError::Tls)?,
            None => Stream::Plain(stream),
        };
        Ok(Self {
            stream,
            buffer: Vec::new(),
            scanner: ReplyScanner::new(),
        })
    }

    /// A connection for batches that are applied by transactions; it also reads the marker first.
    /// `None` where a command for that is renamed or the user may not use it.
    async fn open_for_transactions(
        node: &config::Node,
        marker: &[u8],
    ) -> Result<Option<Self>, ConnectError> {
        let mut socket = Self::open(node).await?;
        socket.hello(node).await?;
        let tried: [&[&[u8]]; 4] = [
            &[b"WATCH", marker],
            &[b"MULTI"],
            &[b"GET", marker],
            &[b"EXEC"],
        ];
        for request in tried {
            let reply = socket.ask(request).await?;
            if reply::is_error(&reply) {
                let refusal = Refusal::from_reply(&reply);
                return if refusal.is_forbidden() {
                    Ok(None)
                } else {
                    Err(ConnectError::Handshake(refusal.text))
                };
            }
        }
        Ok(Some(socket))
    }

    /// The connection itself, once every request has been answered.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// `HELLO 3` with the node's credentials.
    pub(super) async fn hello(&mut self, node: &config::Node) -> Result<Peer, ConnectError> {
        let mut request: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &node.password {
            let user = node.username.as_deref().unwrap_or("default");
            request.extend([
                b"AUTH".as_slice(),
                user.as_bytes(),
                password.reveal().as_bytes(),
            ]);
        }
        request.extend([b"SETNAME".as_slice(), b"tally"]);
        let hello = self.ask(&request).await?;
        if reply::is_error(&hello) {
            let text = String::from_utf8_lossy(reply::text(&hello).unwrap_or_default());
            let old = text.starts_with("ERR unknown command") || text.starts_with("NOPROTO");
            let text = text.into_owned();
            return Err(if old {
                ConnectError::NoResp3
            } else {
                ConnectError::Handshake(text)
            });
        }
        if node.database != 0 {
            let mut digits = itoa::Buffer::new();
            let database = digits.format(node.database).as_bytes();
            let selected = self.ask(&[b"SELECT", database]).await?;
            if reply::is_error(&selected) {
                return Err(ConnectError::Handshake(Refusal::from_reply(&selected).text));
            }
        }
        let mut peer = Peer::default();
        let mut fields = reply::elements(&hello).into_iter().flatten();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match reply::text(name) {
                Some(b"version") => {
                    let version = reply::text(value).unwrap_or_default();
                    peer.version = Some(String::from_utf8_lossy(version).into_owned());
                }
                Some(b"id") => peer.client_id = reply::integer(value),
                _ => {}
            }
        }
        Ok(peer)
    }

    /// Asks the server for its commands, so that those which are not in the table can be used.
    async fn learn(&mut self, node: &config::Node) -> Result<(), ConnectError> {
        let commands = self.ask(&[b"COMMAND"]).await?;
        if reply::is_error(&commands) {
            let error = Refusal::from_reply(&commands).text;
            tracing::debug!(
                node = node.name,
                error,
                "the node does not tell its commands"
            );
            return Ok(());
        }
        let learned = command::learn(&commands);
        if learned.new > 0 {
            tracing::info!(
                node = node.name,
                commands = learned.new,
                "the node has commands that Redis 7.0 lacks"
            );
        }
        if learned.left_out > 0 {
            tracing::warn!(
                node = node.name,
                commands = learned.left_out,
                "the node has more commands than can be learned"
            );
        }
        Ok(())
    }

    /// Asks the server to tell of changes by others to keys that were read here, or to any. Before version 7
    /// it would tell of what our own scripts change, too.
    async fn track(&mut self, peer: &Peer, broadcast: bool) -> Result<bool, ConnectError> {
        if peer.major() < 7 {
            return Ok(false);
        }
        let tracking = if broadcast {
            &BROADCAST[..]
        } else {
            &TRACKING[..]
        };
        Ok(!reply::is_error(&self.ask(tracking).await?))
    }

    /// Loads the flush script and tries both ways in which it is called later: without a batch it
    /// reads the marker and changes nothing. `None` where a command for that is renamed or the user
    /// may not use it.
    async fn load(&mut self, peer: &Peer, marker: &[u8]) -> Result<Option<Applier>, ConnectError> {
        // Script flags came with version 7.
        let script = flush::script(peer.major() >= 7);
        let loaded = self.ask(&[b"SCRIPT", b"LOAD", &script]).await?;
        if reply::is_error(&loaded) {
            let refusal = Refusal::from_reply(&loaded);
            // A server that takes no scripts now, perhaps because it is loading its data, will do
            // so later.
            return if refusal.transient && !refusal.is_forbidden() {
                Err(ConnectError::Handshake(refusal.text))
            } else {
                Ok(None)
            };
        }
        let Some(sha) = reply::text(&loaded) else {
            return Ok(None);
        };
        let calls: [[&[u8]; 2]; 2] = [[b"EVALSHA", sha], [b"EVAL", &script]];
        for [command, name] in calls {
            let tried = [command, name, b"1", marker, b"0", b"0", b"again", b"1"];
            let tried = self.ask(&tried).await?;
            // A read-only server, say, refuses it for now, not for good.
            if reply::is_error(&tried) && Refusal::from_reply(&tried).is_forbidden() {
                return Ok(None);
            }
        }
        let sha = sha.to_vec();
        Ok(Some(Applier::Script { sha, body: script }))
    }

    /// Sends one request and waits for its reply.
    pub(super) async fn ask(&mut self, request: &[&[u8]]) -> Result<Vec<u8>, ConnectError> {
        let mut wire = Vec::new();
        encode::request(&mut wire, request);
        self.send(&wire).await?;
        self.read().await
    }

    /// Whether it is open, as far as is known, and nothing waits to be read.
    pub(super) fn is_quiet(&mut self) -> bool {
        let (mut byte, mut context) = ([0; 1], Context::from_waker(Waker::noop()));
        let mut byte = ReadBuf::new(&mut byte);
        let read = Pin::new(&mut self.stream).poll_read(&mut context, &mut byte);
        read.is_pending() && self.buffer.is_empty()
    }

    /// Sends a request.
    pub(super) async fn send(&mut self, wire: &[u8]) -> Result<(), ConnectError> {
        self.stream.write_all(wire).await?;
        Ok(self.stream.flush().await?)
    }

    /// Waits for so many replies.
    pub(super) async fn read_all(&mut self, count: usize) -> Result<Vec<Vec<u8>>, ConnectError> {
        let mut frames = Vec::with_capacity(count);
        while frames.len() < count {
            frames.push(self.read().await?);
        }
        Ok(frames)
    }

    /// Waits for the next reply. Dropping the future loses nothing.
    ///
    /// What the server tells unasked is passed over: a change by others, told as soon as tracking is
    /// on, is of no key that anything is known of here.
    pub(super) async fn read(&mut self) -> Result<Vec<u8>, ConnectError> {
        loop {
            if let Some(length) = self.scanner.scan(&self.buffer)? {
                let frame: Vec<_> = self.buffer.drain(..length).collect();
                if reply::is_push(&frame) {
                    continue;
                }
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

/// The request after which a server tells of changes by others to keys that were read, but for those
/// of requests behind a `CLIENT CACHING NO`.
pub const TRACKING: [&[u8]; 5] = [b"CLIENT", b"TRACKING", b"ON", b"OPTOUT", b"NOLOOP"];

/// The same for changes by ourselves too.
pub const TRACKING_LOOP: [&[u8]; 4] = [b"CLIENT", b"TRACKING", b"ON", b"OPTOUT"];

/// The request after which a server tells of all changes by others.
pub const BROADCAST: [&[u8]; 5] = [b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"NOLOOP"];

/// A line of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim_end)
}

/// Redis's own `tcp-keepalive` default (`config.c`), here towards the node.
const KEEPALIVE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_field_of_info() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n";
        assert_eq!(field(info, "run_id"), Some("abc"));
        assert_eq!(field(info, "run"), None);
    }
}
