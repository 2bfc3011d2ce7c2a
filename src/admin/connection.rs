//! Connections of the HTTP side, with TLS or without: a bounded number, none idle for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

use super::State;
use crate::tls::Stream;

/// Accepts as long as there are places.
pub(super) struct Listener {
    inner: TcpListener,
    places: Arc<Semaphore>,
    state: Arc<State>,
}

/// One connection. It fails when nothing was read or written for [`IDLE`]: so a request that never
/// ends, and a browser that went away, give their places back.
pub(super) struct Connection {
    io: Io,
    idle: Pin<Box<Sleep>>,
    /// Given back with the connection.
    _place: Option<OwnedSemaphorePermit>,
}

/// Its bytes.
enum Io {
    /// TLS begins. Driven by the first read, so that nobody else is held up.
    Handshake(Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>),
    Open(Stream),
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Listener {
    /// `state` says for each connection whether it has TLS, and with which certificate.
    pub(super) fn new(inner: TcpListener, state: Arc<State>) -> Self {
        Self {
            inner,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            state,
        }
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // Further connections wait in the kernel's queue. The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        loop {
            match self.inner.accept().await {
                Ok((stream, address)) => {
                    let tls = self.state.shared.live().admin.tls.clone();
                    let (io, wait) = match tls {
                        None => (Io::Open(Stream::Plain(stream)), IDLE),
                        Some(tls) => {
                            let opened = async move { tls.acceptor.accept(stream).await };
                            (Io::Handshake(Box::pin(opened)), HANDSHAKE)
                        }
                    };
                    let connection = Connection {
                        io,
                        idle: Box::pin(sleep(wait)),
                        _place: place,
                    };
                    return (connection, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address()
    }
}

impl Connection {
    /// What `poll` returns, once the connection is open. While it waits, the clock may end it.
    fn watched<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if let Io::Handshake(handshake) = &mut self.io {
            match handshake.as_mut().poll(cx) {
                Poll::Ready(Ok(stream)) => self.io = Io::Open(stream),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "HTTP: no TLS handshake");
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {}
            }
        }
        if let Io::Open(stream) = &mut self.io
            && let Poll::Ready(done) = poll(Pin::new(stream), cx)
        {
            self.idle.as_mut().reset(Instant::now() + IDLE);
            return Poll::Ready(done);
        }
        match self.idle.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The same without a clock. Nothing happens while the connection is not open.
    fn open<R: Default>(
        &mut self,
        poll: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        match &mut self.io {
            Io::Open(stream) => poll(Pin::new(stream)),
            Io::Handshake(_) => Poll::Ready(Ok(R::default())),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.watched(cx, |stream, cx| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watched(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open(|stream| stream.poll_shutdown(cx))
    }
}

/// Most connections at once: a page needs two, a scraper one, and the visit counter of a busy site
/// goes through the pool of its web server.
const MAX_CONNECTIONS: usize = 512;

/// Longest silence; browsers and web servers keep a connection for about a minute.
const IDLE: Duration = Duration::from_secs(75);

/// Longest TLS handshake, as for clients.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Pause after a failed accept, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
