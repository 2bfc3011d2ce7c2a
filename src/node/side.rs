//! A connection of its own for a command that may block: on the lane it would stop everything.

use std::time::Duration;

use super::connect::Socket;
use crate::config;
use crate::tls::Stream;

/// Why a side connection gave no answer; the text is for the client, after `ERR`.
#[derive(Debug, thiserror::Error)]
#[error("node {node} gave no answer ({reason})")]
pub struct SideError {
    /// Whose.
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

/// Asks a node `requests` in order on a new connection, and returns the last reply (a RESP3
/// frame). The whole takes `timeout` at most.
///
/// # Errors
///
/// No connection, no handshake, or no answer in time; the requests may have been executed.
pub async fn ask(
    node: &config::Node,
    requests: &[Vec<Vec<u8>>],
    timeout: Duration,
) -> Result<Vec<u8>, SideError> {
    let fail = |reason: String| SideError {
        node: node.name.clone(),
        reason,
    };
    let exchange = async {
        let mut socket = Socket::open(node).await?;
        socket.hello(node).await?;
        let mut last = Vec::new();
        for request in requests {
            let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            last = socket.ask(&request).await?;
        }
        Ok::<_, super::connect::ConnectError>(last)
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(fail(error.to_string())),
        Err(_) => Err(fail(format!("nothing within {timeout:?}"))),
    }
}
