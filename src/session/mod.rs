//! One client's connection: who it is, what it may do, and the commands answered here.
//!
//! [`Registry`] knows every [`Client`]; the task that serves a connection owns the writing of its
//! `Client`, others read it (`CLIENT LIST`) or cancel it (`CLIENT KILL`). [`local`] writes the
//! replies that need no node; it is synchronous and does no I/O.

mod client;
pub mod local;
mod registry;
mod reply_mode;

pub use client::{Activity, Client};
pub use registry::Registry;
pub use reply_mode::ReplyMode;
