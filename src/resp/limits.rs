//! What a client may send, and the errors for anything else.

use std::fmt;

/// Bounds on one request of a client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest argument in bytes. Default 512 MiB (Redis's `proto-max-bulk-len`).
    pub max_bulk_bytes: usize,
    /// Most arguments of an array request, the command name included. Default 1,048,576, the
    /// bound of Redis up to 6.2; Redis 7.0 checks only against 2^31 - 1. An inline request is
    /// bounded by [`Limits::max_inline_bytes`] instead.
    pub max_args: usize,
    /// Longest inline request, and longest header line, in bytes without the line feed. Default
    /// 64 KiB (Redis `server.h`, `PROTO_INLINE_MAX_SIZE`).
    pub max_inline_bytes: usize,
    /// Whether the client may use the bounds above. Until it has authenticated itself, where a
    /// password is set, it may send 10 arguments of 16 KiB each (Redis `networking.c`,
    /// `processMultibulkBuffer`).
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bulk_bytes: 512 << 20,
            max_args: 1_048_576,
            max_inline_bytes: 64 << 10,
            authenticated: true,
        }
    }
}

impl Limits {
    /// Most arguments before authentication.
    pub(super) const MAX_UNAUTHENTICATED_ARGS: usize = 10;
    /// Longest argument before authentication, in bytes.
    pub(super) const MAX_UNAUTHENTICATED_BULK_BYTES: usize = 16_384;
}

/// Why a client's bytes are not a request.
///
/// The text is Redis's own behind `-ERR `, where Redis has one. The rest of the stream has no
/// meaning after any of these: answer, then close.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProtocolError {
    /// The number of arguments is not a number, or above [`Limits::max_args`].
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// An argument starts with this byte; nested arrays end up here.
    #[error("Protocol error: expected '$', got '{}'", Quoted(*.0))]
    ExpectedBulk(u8),
    /// The length of an argument is not a number, negative, or above [`Limits::max_bulk_bytes`].
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// The array's header line is longer than [`Limits::max_inline_bytes`].
    #[error("Protocol error: too big mbulk count string")]
    TooBigMultibulkCount,
    /// An argument's header line is longer than [`Limits::max_inline_bytes`].
    #[error("Protocol error: too big bulk count string")]
    TooBigBulkCount,
    /// An inline request is longer than [`Limits::max_inline_bytes`].
    #[error("Protocol error: too big inline request")]
    TooBigInlineRequest,
    /// A quote of an inline request is not closed, or text follows it without a space.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// More than 10 arguments before authentication.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// An argument above 16,384 bytes before authentication.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An argument is longer than its header says. Redis skips these two bytes unread; we don't,
    /// since a client that counts wrongly would have its data executed as commands.
    #[error("Protocol error: expected CRLF after bulk")]
    MissingBulkTerminator,
    /// The request would reach 4 GiB, which [`super::Span`] can not address. Redis closes without
    /// a word at `client-query-buffer-limit` (1 GiB by default).
    #[error("Protocol error: request of 4 GiB or more")]
    RequestTooLarge,
}

/// One byte inside an error text, as Redis writes it: line ends as spaces, everything else as it
/// is, except that NUL and what is not ASCII are escaped, because the text is UTF-8.
struct Quoted(u8);

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b'\r' | b'\n' => f.write_str(" "),
            byte @ 1..=0x7f => write!(f, "{}", char::from(byte)),
            byte => write!(f, "\\x{byte:02x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offending_byte_is_shown_as_redis_shows_it() {
        for (byte, shown) in [
            (b':', ":"),
            (b'\r', " "),
            (b'\n', " "),
            (1, "\x01"),
            (0, "\\x00"),
            (0xff, "\\xff"),
        ] {
            assert_eq!(
                ProtocolError::ExpectedBulk(byte).to_string(),
                format!("Protocol error: expected '$', got '{shown}'")
            );
        }
    }
}
