//! A connection of its own for subscriptions.

use std::time::Duration;

use super::connect::Socket;
use crate::config;
use crate::tls::Stream;

/// Why a side connection gave no answer; the text is for the client, after `ERR`.
#[derive(Debug, thiserror::Error)]
#[error("node {node} gave no answer ({reason})")]
pub struct SideError {
    /// The node's name.
    pub node: String,
    /// What went wrong.
    pub reason: String,
}

/// Opens a connection that speaks RESP3 and has nothing outstanding, within `timeout`.
///
/// # Errors
///
/// No connection, or no handshake.
pub async fn open(node: &config::Node, timeout: Duration) -> Result<Stream, SideError> {
    let attempt = async {
        let mut socket = Socket::open(node).await?;
        socket.hello(node).await?;
        Ok::<_, super::connect::ConnectError>(socket.into_stream())
    };
    let reason = match tokio::time::timeout(timeout, attempt).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {timeout:?}"),
    };
    Err(SideError {
        node: node.name.clone(),
        reason,
    })
}
