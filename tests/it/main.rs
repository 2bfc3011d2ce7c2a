//! The one integration-test binary; every file here is a module of it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test's failure is its report"
)]

mod access;
mod allocations;
mod command_table;
mod config;
mod core;
mod deploy;
mod dev;
mod docs;
mod flush_script;
mod forms;
mod limit;
mod local_twin;
#[path = "../sys/random.rs"]
mod random;
mod redis_server;
mod ring;
mod tidy;
mod twemproxy;
