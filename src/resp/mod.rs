//! The Redis serialization protocol: requests in, replies out. Pure: bytes and arithmetic only.
//!
//! Client bytes meet only [`RequestScanner`], which is iterative, resumable and limited; a node's
//! replies are measured by [`ReplyScanner`] and passed on as they are, or through [`Form`] where the
//! client speaks RESP2 and the reply's RESP3 form differs.

pub mod encode;
mod form;
mod inline;
mod limits;
mod number;
pub mod reply;
mod request;
mod scan;
#[cfg(test)]
pub(crate) mod testing;

pub use form::{Form, to_resp2};
pub use inline::split;
pub use limits::{Limits, ProtocolError};
pub use number::{parse_double, parse_i64};
pub use reply::{ReplyError, ReplyScanner};
pub use request::{Request, Span};
pub use scan::RequestScanner;

/// Protocol version of one connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Protocol {
    /// What every connection speaks until `HELLO 3`.
    #[default]
    Resp2,
    /// Maps, sets, doubles, pushes and a null of its own.
    Resp3,
}
