//! Takes connections and deals them to the workers.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::ServeError;
use super::worker::Workers;
use crate::session::Shared;

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

/// Accepts until it is dropped.
pub(super) async fn accept(listener: TcpListener, shared: &Shared, workers: &Workers) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => welcome(stream, address, shared, workers).await,
            Err(error) => {
                // Mostly "too many open files": others may close some.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn welcome(mut stream: TcpStream, address: SocketAddr, shared: &Shared, workers: &Workers) {
    shared.stats.connections_received.increment();
    let now = tokio::time::Instant::now().into_std();
    let local = stream.local_addr().unwrap_or(shared.config.server.listen);
    let Some(client) = shared.registry.register(address, local, now) else {
        shared.stats.rejected_connections.increment();
        // As Redis (`acceptCommonHandler`): one try, the connection is closed either way.
        let refusal = stream.write_all(b"-ERR max number of clients reached\r\n");
        if tokio::time::timeout(REFUSAL, refusal).await.is_err() {
            tracing::debug!(%address, "a refused client does not read");
        }
        return;
    };
    let options = stream.set_nodelay(true).and_then(|()| {
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
    });
    match options.and_then(|()| stream.into_std()) {
        Ok(stream) => workers.deal(stream, client),
        Err(error) => {
            tracing::debug!(%address, %error, "a connection was lost at once");
            shared.registry.remove(client.id);
        }
    }
}

/// Connections that wait to be accepted: twice Redis's `tcp-backlog` (`config.c`), which is 511.
const BACKLOG: i32 = 1024;

/// Redis's default `tcp-keepalive` (`config.c`).
const KEEPALIVE: Duration = Duration::from_secs(300);

/// Pause after a failed accept, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Longest wait for a client that is refused to take the error.
const REFUSAL: Duration = Duration::from_millis(100);
