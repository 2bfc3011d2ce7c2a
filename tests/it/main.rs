//! The one integration-test binary; every file here is a module of it.

mod config;
mod dev;
