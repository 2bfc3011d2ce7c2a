//! The one integration-test binary; every file here is a module of it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test's failure is its report"
)]

mod command_table;
mod config;
mod core;
mod dev;
mod flush_script;
mod forms;
mod local_twin;
mod redis_server;
mod ring;
mod tidy;
