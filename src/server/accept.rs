//! Takes connections and deals them to the workers.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::ServeError;
use super::worker::Workers;
use crate::session::{Client, Shared};
use crate::telemetry::clock::now;
use crate::tls::{Acceptor, Stream};

/// Binds the port.
pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let bind = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|source| ServeError::Listen { address, source })
}

/// Accepts until it is dropped. With `has_tls` every client has to begin with TLS.
pub(super) async fn accept(
    listener: &TcpListener,
    has_tls: bool,
    shared: &Shared,
    workers: &Workers,
) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => welcome(stream, address, has_tls, shared, workers).await,
            Err(error) => {
                // Mostly "too many open files": clients that leave free some.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn welcome(
    mut stream: TcpStream,
    address: SocketAddr,
    has_tls: bool,
    shared: &Shared,
    workers: &Workers,
) {
    shared.stats.connections_received.increment();
    let now = now();
    let Ok(local) = stream.local_addr() else {
        tracing::debug!(%address, "a connection was lost at once");
        return;
    };
    let Some(client) = shared.registry.register(address, local, now) else {
        shared.stats.rejected_connections.increment();
        if has_tls {
            // There is no session yet that could tell the client.
            return;
        }
        // As Redis (`acceptCommonHandler`): one try, the connection is closed either way.
        let refusal = stream.write_all(b"-ERR max number of clients reached\r\n");
        if timeout(REFUSAL, refusal).await.is_err() {
            tracing::debug!(%address, "a refused client does not read");
        }
        return;
    };
    let options = stream.set_nodelay(true).and_then(|()| {
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
    });
    match options.and_then(|()| stream.into_std()) {
        Ok(stream) => {
            let live = shared.live();
            let tls = live.tls.as_ref().filter(|_| has_tls);
            workers.deal(stream, tls.map(|tls| tls.acceptor.clone()), client);
        }
        Err(error) => {
            tracing::debug!(%address, %error, "a connection was lost at once");
            shared.registry.remove(client.id);
        }
    }
}

/// The client's connection on its own worker; `None`, after a line in the log, when it could not be
/// made.
pub(super) async fn connected(
    stream: std::net::TcpStream,
    acceptor: Option<Acceptor>,
    client: &Client,
    shared: &Shared,
) -> Option<Stream> {
    // The socket joins the reactor of the worker.
    let made = match (TcpStream::from_std(stream), acceptor) {
        (Ok(stream), None) => Ok(Stream::Plain(stream)),
        (Ok(stream), Some(acceptor)) => tokio::select! {
            made = timeout(HANDSHAKE, acceptor.accept(stream)) => {
                made.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            }
            () = client.kill.cancelled() => return None,
            () = shared.drain.cancelled() => return None,
        },
        (Err(error), _) => Err(error),
    };
    made.inspect_err(|error| {
        tracing::info!(client = %client.addr, %error, "a connection could not be made");
    })
    .ok()
}

/// Connections that wait to be accepted: twice Redis's `tcp-backlog` (`config.c`), which is 511.
const BACKLOG: i32 = 1024;

/// Redis's default `tcp-keepalive` (`config.c`).
const KEEPALIVE: Duration = Duration::from_secs(300);

/// Pause after a failed accept, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client that is refused may take to read the error.
const REFUSAL: Duration = Duration::from_millis(100);

/// Longest TLS handshake: several times that of a slow line, in which a client holds one place
/// and nothing else.
const HANDSHAKE: Duration = Duration::from_secs(10);
