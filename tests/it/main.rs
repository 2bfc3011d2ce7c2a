//! The one integration-test binary; every file here is a module of it.

#![expect(clippy::unwrap_used, reason = "a test's failure is its report")]

mod command_table;

mod redis_server;
