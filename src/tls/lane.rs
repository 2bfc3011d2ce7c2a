//! The two halves of a lane's connection: one task reads, any worker writes.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::Connection;

use super::Stream;

/// The half that reads.
#[derive(Debug)]
pub enum Reader {
    /// Without TLS.
    Plain(OwnedReadHalf),
    /// With it.
    Tls(Arc<Channel>),
}

/// The half that writes, without waiting.
#[derive(Debug)]
pub enum Writer {
    /// Without TLS.
    Plain(OwnedWriteHalf),
    /// With it.
    Tls(Arc<Channel>),
}

/// TLS on a socket that both halves use. The session's lock is held while bytes are encrypted or
/// decrypted and given to or taken from the socket, which never blocks: so records leave in the
/// order of their numbers.
pub struct Channel {
    socket: TcpStream,
    session: Mutex<Connection>,
}

/// What a write came to.
#[derive(Debug)]
pub struct Written {
    /// Bytes taken.
    pub count: usize,
    /// Whether all bytes taken so far are with the socket. If not, write again when it is writable,
    /// with the rest, which may be empty.
    pub flushed: bool,
    /// Why nothing can be written any more.
    pub broken: Option<io::Error>,
}

impl Stream {
    /// The two halves.
    pub fn split(self) -> (Reader, Writer) {
        let (socket, session) = match self {
            Self::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                return (Reader::Plain(reader), Writer::Plain(writer));
            }
            Self::Tls(stream) => match *stream {
                TlsStream::Client(stream) => {
                    let (socket, session) = stream.into_inner();
                    (socket, Connection::from(session))
                }
                TlsStream::Server(stream) => {
                    let (socket, session) = stream.into_inner();
                    (socket, Connection::from(session))
                }
            },
        };
        let channel = Arc::new(Channel {
            socket,
            session: Mutex::new(session),
        });
        (Reader::Tls(Arc::clone(&channel)), Writer::Tls(channel))
    }
}

impl Reader {
    /// Reads what there is, at most what `buffer` has room for (with TLS: 64 KiB and a record), once
    /// there is something. 0: the other side closed. Nothing is lost when it is dropped.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(half) => half.read_buf(buffer).await,
            Self::Tls(channel) => loop {
                if let Some(count) = channel.read(buffer)? {
                    return Ok(count);
                }
                channel.socket.readable().await?;
            },
        }
    }
}

impl Writer {
    /// Writes as much as the socket takes now. An error other than "not now" ends the connection.
    pub fn write(&self, bytes: &[u8]) -> Written {
        match self {
            Self::Plain(half) => write(half, bytes),
            Self::Tls(channel) => channel.write(bytes),
        }
    }

    /// Waits until the socket takes more.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Plain(half) => half.writable().await,
            Self::Tls(channel) => channel.socket.writable().await,
        }
    }
}

impl Channel {
    /// `None`: nothing is there now.
    fn read(&self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        let mut session = self.session.lock();
        let before = buffer.len();
        loop {
            let is_open = take(&mut session, buffer)?;
            let count = buffer.len() - before;
            if !is_open || count >= READ_BYTES {
                return Ok(Some(count));
            }
            match session.read_tls(&mut Unblocked(&self.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Some(count).filter(|count| *count > 0));
                }
                Err(error) => return Err(error),
            }
            if let Err(error) = session.process_new_packets() {
                // The other side is told why; that this may fail changes nothing.
                self.flush(&mut session).ok();
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> Written {
        let mut session = self.session.lock();
        let mut count = 0;
        let broken = loop {
            let rest = bytes.get(count..).unwrap_or_default();
            match self.flush(&mut session) {
                Ok(true) if !rest.is_empty() => {}
                Ok(all) => {
                    return Written {
                        count,
                        flushed: all,
                        broken: None,
                    };
                }
                Err(error) => break error,
            }
            // rustls takes what its buffer, empty now, has room for.
            match session.writer().write(rest) {
                Ok(0) => break io::ErrorKind::WriteZero.into(),
                Ok(taken) => count += taken,
                Err(error) => break error,
            }
        };
        Written {
            count,
            flushed: false,
            broken: Some(broken),
        }
    }

    /// Gives the socket what is encrypted; returns whether it took all of it.
    fn flush(&self, session: &mut Connection) -> io::Result<bool> {
        while session.wants_write() {
            match session.write_tls(&mut Unblocked(&self.socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// Moves what is decrypted to `buffer`; returns whether more may come.
fn take(session: &mut Connection, buffer: &mut BytesMut) -> io::Result<bool> {
    let mut reader = session.reader();
    loop {
        let count = match reader.fill_buf() {
            Ok([]) => return Ok(false),
            Ok(bytes) => {
                buffer.extend_from_slice(bytes);
                bytes.len()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        reader.consume(count);
    }
}

/// Writes to a socket without TLS.
fn write(half: &OwnedWriteHalf, bytes: &[u8]) -> Written {
    let mut count = 0;
    let mut broken = None;
    while let Some(rest) = bytes.get(count..).filter(|rest| !rest.is_empty()) {
        match half.try_write(rest) {
            Ok(0) => {
                broken = Some(io::ErrorKind::WriteZero.into());
                break;
            }
            Ok(taken) => count += taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    Written {
        count,
        flushed: count == bytes.len(),
        broken,
    }
}

/// A socket that is read and written without waiting.
struct Unblocked<'s>(&'s TcpStream);

impl io::Read for Unblocked<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(bytes)
    }
}

impl Write for Unblocked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decrypted in one go; then what came is handled before more is taken.
const READ_BYTES: usize = 64 << 10;
